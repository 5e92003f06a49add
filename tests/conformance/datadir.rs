//! Data directories written by the C library, replayed into databases: the rows must be those it had.
//!
//! Directories of clusters with several voters cannot be led by a single node, so the log is applied the way
//! the Raft thread applies it, and the tables are read through the VFS.

#![allow(clippy::unwrap_used)] // the tools outside of test functions panic too

use dqlite::config::{CHECKPOINT_THRESHOLD_FRAMES, PAGE_SIZE};
use dqlite::db::{Fsm, Registry, Snapshot};
use dqlite::raft::{EntryKind, Index};
use dqlite::sqlite::{self, Step, Value};
use dqlite::store::{AutoRecovery, Directory};
use dqlite::vfs::{Vfs, VfsConnection};
use serde_json::Value as Json;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use tempfile::TempDir;

fn fixtures() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/datadir");
    let mut all: Vec<PathBuf> = std::fs::read_dir(root).unwrap().map(|e| e.unwrap().path()).collect();
    all.retain(|path| path.join("manifest.json").exists());
    all.sort();
    all
}

fn unpack(fixture: &Path) -> TempDir {
    let directory = TempDir::new().unwrap();
    let archive = fixture.join("data.tar.zst");
    let mut tar = Command::new("tar");
    let done = tar.arg("--zstd").arg("-xf").arg(archive).arg("-C").arg(directory.path()).status();
    assert!(done.expect("tar and zstd are installed by `make deps`").success());
    directory
}

/// Applies snapshot and log, whatever the configuration says about who leads.
fn replay(directory: &Path) -> Registry {
    sqlite::initialize().unwrap();
    let loaded = Directory::open(directory).unwrap().lock().unwrap().load(AutoRecovery::On).unwrap();
    let vfs = Arc::new(Vfs::register(CHECKPOINT_THRESHOLD_FRAMES).unwrap());
    let registry = Arc::new(Registry::new(vfs, Arc::default()));
    let fsm = Fsm::new(registry.clone());
    let mut applied = Index(0);
    if let Some(snapshot) = loaded.snapshot {
        applied = snapshot.point.index;
        fsm.replace(&Snapshot::read_from(&mut &snapshot.content[..]).unwrap()).unwrap();
    }
    for (at, entry) in (loaded.first_index.0..).zip(loaded.entries) {
        if at > applied.0 && entry.kind == EntryKind::Command {
            fsm.apply(entry.payload).unwrap();
        }
    }
    drop(fsm);
    Arc::into_inner(registry).expect("the state machine was the only other owner")
}

fn rows(connection: &VfsConnection, sql: &str, mut each: impl FnMut(&[Value<'_>])) {
    let mut statement = connection.prepare(sql.as_bytes()).unwrap().statement.unwrap();
    while statement.step().unwrap() == Step::Row {
        let row: Vec<Value<'_>> =
            (0..statement.column_count()).map(|i| statement.value(i).unwrap()).collect();
        each(&row);
    }
}

/// The fixtures' hash of a table: see tests/conformance/datadir/README.md.
fn table_hash(connection: &VfsConnection, table: &str) -> (u64, String) {
    let (mut count, mut hash) = (0, Sha256::new());
    rows(connection, &format!("SELECT * FROM \"{table}\" ORDER BY rowid"), |row| {
        for value in row {
            match value {
                Value::Null => hash.update(b"N"),
                Value::Integer(n) => hash.update(format!("I{n}")),
                Value::Real(x) => hash.update([&b"F"[..], &x.to_le_bytes()].concat()),
                Value::Text(text) => hash.update([b"T", *text].concat()),
                Value::Blob(blob) => hash.update([b"B", *blob].concat()),
            }
            hash.update(b";");
        }
        hash.update(b"\n");
        count += 1;
    });
    (count, format!("{:x}", hash.finalize()))
}

fn check_database(name: &str, registry: &Registry, database: &str, expected: &Json) {
    let tables = expected["tables"].as_object().unwrap();
    if tables.is_empty() && registry.get(database.as_bytes()).is_none() {
        return;
    }
    let connection = registry.vfs().connect(database).unwrap();
    for (table, expected) in tables {
        let (count, hash) = table_hash(&connection, table);
        assert_eq!(Some(count), expected["rows"].as_u64(), "{name}: rows of {database}.{table}");
        assert_eq!(Some(&*hash), expected["sha256"].as_str(), "{name}: content of {database}.{table}");
    }
    rows(&connection, "PRAGMA integrity_check", |row| {
        assert_eq!(row, [Value::Text(b"ok")], "{name}: {database}");
    });
}

#[test]
fn every_sound_directory_replays_to_the_rows_the_c_library_had() {
    let mut checked = 0;
    for fixture in fixtures() {
        let name = fixture.file_name().unwrap().to_string_lossy().into_owned();
        if name.starts_with("variant-") {
            continue;
        }
        let manifest = std::fs::read(fixture.join("manifest.json")).unwrap();
        let manifest: Json = serde_json::from_slice(&manifest).unwrap();
        let Some(databases) = manifest["sql_after_replay"].as_object() else { continue };
        if databases.contains_key("error") {
            continue;
        }
        let directory = unpack(&fixture);
        let registry = replay(directory.path());
        for (database, expected) in databases {
            check_database(&name, &registry, database, expected);
        }
        checked += 1;
    }
    assert!(checked >= 19, "only {checked} directories were checked: fixtures are missing");
}

#[test]
fn what_is_captured_from_a_replayed_directory_restores_to_the_same_rows() {
    let name = "v1_11_1-snapshot-raw";
    let fixture = fixtures().into_iter().find(|f| f.ends_with(name)).unwrap();
    let manifest = std::fs::read(fixture.join("manifest.json")).unwrap();
    let manifest: Json = serde_json::from_slice(&manifest).unwrap();
    let directory = unpack(&fixture);
    let replayed = Arc::new(replay(directory.path()));
    let mut content = Vec::new();
    Fsm::new(replayed).capture().write_to(&mut content).unwrap();
    assert_eq!(content.len() % 8, 0);
    assert!(content.len() > PAGE_SIZE);
    let vfs = Arc::new(Vfs::register(CHECKPOINT_THRESHOLD_FRAMES).unwrap());
    let restored = Arc::new(Registry::new(vfs, Arc::default()));
    Fsm::new(restored.clone()).replace(&Snapshot::read_from(&mut &content[..]).unwrap()).unwrap();
    for (database, expected) in manifest["sql_after_replay"].as_object().unwrap() {
        check_database(name, &restored, database, expected);
    }
}

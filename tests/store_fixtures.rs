//! Data directories written by C releases 1.11.1 and 1.18.6, sound and damaged, loaded by the store.
//!
//! `tests/conformance/datadir/NAME/` holds `data.tar.zst` and `manifest.json`: an independent parse of the
//! directory (`expected`) and what both C releases did with it (`observed`).

#![allow(clippy::unwrap_used)]

use dqlite::raft::{Configuration, Entry, EntryKind, Role};
use dqlite::store::{AutoRecovery, Directory, Error, Loaded, LoadedSnapshot};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/datadir")
}

fn unpack(name: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let archive = fixtures().join(name).join("data.tar.zst");
    let status = Command::new("sh")
        .args(["-c", "zstd -dcq \"$0\" | tar -xf - -C \"$1\""])
        .arg(&archive)
        .arg(dir.path())
        .status()
        .unwrap();
    assert!(status.success(), "zstd and tar must be installed (make deps) to unpack {}", archive.display());
    dir
}

fn manifest(name: &str) -> Value {
    serde_json::from_slice(&fs::read(fixtures().join(name).join("manifest.json")).unwrap()).unwrap()
}

fn names(prefixes: &[&str]) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(fixtures())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| prefixes.iter().any(|prefix| name.starts_with(prefix)))
        .collect();
    names.sort();
    names
}

fn load(dir: &Path) -> Result<Loaded, Error> {
    Directory::open(dir)?.lock()?.load(AutoRecovery::On)
}

/// The files of a directory, with the time in the names of those set aside replaced as in the manifests.
fn files(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .map(|name| match name.strip_prefix("corrupt-").and_then(|rest| rest.split_once('-')) {
            Some((_, original)) => format!("corrupt-NS-{original}"),
            None => name,
        })
        .collect();
    names.sort();
    names
}

fn hex_sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn configuration_json(configuration: &Configuration) -> Value {
    let role = |role| match role {
        Role::Standby => 0,
        Role::Voter => 1,
        Role::Spare => 2,
    };
    let servers = configuration.servers.iter().map(|server| {
        serde_json::json!({ "id": server.id.0, "address": server.address, "role_code": role(server.role) })
    });
    servers.collect()
}

fn without_role_names(servers: &Value) -> Value {
    let mut servers = servers.clone();
    for server in servers.as_array_mut().unwrap() {
        server.as_object_mut().unwrap().remove("role");
    }
    servers
}

fn assert_entries(name: &str, expected: &Value, loaded: &Loaded) {
    let first = expected["first_index"].as_u64();
    if let Some(first) = first {
        assert_eq!(loaded.first_index.0, first, "{name}: first index");
    }
    let expected = expected["entries"].as_array().unwrap();
    assert_eq!(loaded.entries.len(), expected.len(), "{name}: number of entries");
    for ((index, entry), expected) in (loaded.first_index.0..).zip(&loaded.entries).zip(expected) {
        let Entry { term, kind, payload } = entry;
        let kind = match kind {
            EntryKind::Command => "command",
            EntryKind::Barrier => "barrier",
            EntryKind::Change => "change",
        };
        assert_eq!(index, expected["i"], "{name}");
        assert_eq!(term.0, expected["t"], "{name}: term of entry {index}");
        assert_eq!(kind, expected["type"], "{name}: type of entry {index}");
        assert_eq!(payload.len(), expected["len"], "{name}: size of entry {index}");
        assert_eq!(
            hex_sha256(payload)[..16],
            *expected["sha"].as_str().unwrap(),
            "{name}: payload of {index}"
        );
    }
}

fn assert_configurations(name: &str, expected: &Value, loaded: &Loaded) {
    let expected: Vec<_> = expected["configuration_entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| (entry["index"].as_u64().unwrap(), without_role_names(&entry["servers"])))
        .collect();
    let found: Vec<_> = (loaded.first_index.0..)
        .zip(&loaded.entries)
        .filter(|(_, entry)| entry.kind == EntryKind::Change)
        .map(|(index, entry)| {
            (index, configuration_json(&Configuration::decode(entry.payload.clone()).unwrap()))
        })
        .collect();
    assert_eq!(found, expected, "{name}: configurations");
}

fn assert_snapshot(name: &str, expected: &Value, loaded: Option<&LoadedSnapshot>) {
    let Some(loaded) = loaded else {
        panic!("{name}: no snapshot");
    };
    let point = &loaded.point;
    assert_eq!(point.term.0, expected["term"], "{name}: snapshot term");
    assert_eq!(point.index.0, expected["index"], "{name}: snapshot index");
    let meta = &expected["meta"];
    assert_eq!(point.configuration_index.0, meta["configuration_index"], "{name}: configuration index");
    assert_eq!(
        configuration_json(&point.configuration),
        without_role_names(&meta["configuration"]),
        "{name}: snapshot configuration"
    );
    let data = &expected["data"];
    let sha256 = if data["compressed"] == true { &data["content_sha256"] } else { &data["sha256"] };
    assert_eq!(hex_sha256(&loaded.content), *sha256.as_str().unwrap(), "{name}: snapshot content");
}

/// The newest snapshot of a manifest, in the order term, index, timestamp.
fn newest(expected: &Value) -> Option<&Value> {
    let key = |s: &Value| (s["term"].as_u64(), s["index"].as_u64(), s["timestamp"].as_u64());
    expected["snapshots"].as_array().unwrap().iter().max_by_key(|snapshot| key(snapshot))
}

#[test]
fn every_sound_directory_loads_with_exactly_what_was_written() {
    let names = names(&["v1_", "cluster-"]);
    assert!(names.len() >= 30, "the fixtures are there");
    for name in names {
        let expected = &manifest(&name)["expected"];
        let dir = unpack(&name);
        let loaded = load(dir.path()).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(loaded.term.0, expected["term"].as_u64().unwrap_or(0), "{name}: term");
        let voted_for = loaded.voted_for.map_or(0, |id| id.0);
        assert_eq!(voted_for, expected["voted_for"].as_u64().unwrap_or(0), "{name}: vote");
        match newest(expected) {
            Some(snapshot) => assert_snapshot(&name, snapshot, loaded.snapshot.as_ref()),
            None => assert!(loaded.snapshot.is_none(), "{name}: an unexpected snapshot"),
        }
        assert_entries(&name, expected, &loaded);
        assert_configurations(&name, expected, &loaded);
        assert_eq!(loaded.notes, [] as [&str; 0], "{name}: nothing had to be repaired");
        assert!(
            !files(dir.path()).iter().any(|file| file.starts_with("open-")),
            "{name}: all segments are closed"
        );

        let again = load(dir.path()).unwrap_or_else(|e| panic!("{name}, second time: {e}"));
        assert_eq!(again.entries, loaded.entries, "{name}: loading changes nothing that is loaded");
        assert_eq!(again.first_index, loaded.first_index, "{name}: loading changes nothing that is loaded");
    }
}

#[test]
fn a_directory_killed_while_writing_holds_every_acknowledged_insert() {
    for name in ["v1_11_1-kill9-midwrite", "v1_18_6-kill9-idle"] {
        let observed = &manifest(name)["observed"]["v1.18.6"];
        let dir = unpack(name);
        let loaded = load(dir.path()).unwrap();
        assert_eq!(loaded.next_index().0 - 1, observed["last_index_after"], "{name}");
    }
}

/// What a damaged directory does here.
enum Outcome {
    /// As in C 1.18.6: log up to this index, and the same files.
    Same { last: u64 },
    /// The same log, or more of it; the text says why this is better than what C does.
    Better { last: u64, why: &'static str },
    /// The same log; a segment below a gap below the snapshot is removed, which C keeps and may stumble over.
    Tidier { last: u64, removed: &'static str },
    /// Refused as in C, with the same text.
    SameRefusal,
    /// Refused, with this in the text; the second text says why this is better, or as good.
    Refused { text: &'static str, why: &'static str },
}
use Outcome::{Better, Refused, Same, SameRefusal, Tidier};

const FORGOTTEN_TERM: &str = "the log is at term 1, but metadata1 and metadata2 are missing";

const VARIANTS: &[(&str, Outcome)] = &[
    ("closed-empty", Same { last: 0 }),
    ("closed-first-corrupt", Same { last: 0 }),
    ("leftover-temp-and-foreign-files", Same { last: 42 }),
    ("metadata-bad-format", SameRefusal),
    ("metadata-long", SameRefusal),
    (
        "metadata-missing",
        Refused {
            text: FORGOTTEN_TERM,
            why: "C refuses once and then starts; a forgotten vote could be given twice",
        },
    ),
    ("metadata-same-version", SameRefusal),
    (
        "metadata-short",
        Refused { text: FORGOTTEN_TERM, why: "as metadata-missing: the short file does not count" },
    ),
    ("metadata-version-zero", SameRefusal),
    ("metadata2-newer", Same { last: 42 }),
    ("open-bad-format", Same { last: 1 }),
    (
        "open-batch-unknown-entry-type",
        Refused {
            text: "open-1: entries batch 41 starting at byte 171152: entry 1 has the unknown type 9",
            why: "C crashes; the checksum says that somebody wrote this entry, so it must not be dropped",
        },
    ),
    ("open-counter-gap", Same { last: 42 }),
    ("open-file-truncated-at-batch-boundary", Same { last: 41 }),
    ("open-file-truncated-in-batch", Better { last: 41, why: "C crashes; this is a torn tail" }),
    (
        "open-first-batch-corrupt",
        Refused {
            text: "but a valid batch follows at byte",
            why: "C removes the segment with 40 durable entries",
        },
    ),
    ("open-format-zero-nonzero-body", Same { last: 1 }),
    ("open-last-batch-bad-data-crc", Same { last: 41 }),
    ("open-last-batch-torn", Same { last: 41 }),
    (
        "open-middle-batch-corrupt",
        Refused {
            text: "load open segment open-1: entries batch 21 starting at byte",
            why: "C drops 20 durable entries behind the bad batch without a word",
        },
    ),
    ("open-short-7-bytes", Better { last: 42, why: "C refuses; no batch ever fitted in this file" }),
    ("snap-all-closed-missing", Same { last: 448 }),
    (
        "snap-data-bad-content-checksum",
        Refused { text: "read snapshot-1-448-2902600: LZ4 frame:", why: "as C, and the text names the file" },
    ),
    (
        "snap-data-corrupt",
        Refused { text: "read snapshot-1-448-2902600: LZ4 frame:", why: "as C, and the text names the file" },
    ),
    ("snap-data-empty", Same { last: 451 }),
    ("snap-first-closed-corrupt", SameRefusal),
    ("snap-gap-after-snapshot", SameRefusal),
    ("snap-last-closed-corrupt", Same { last: 448 }),
    ("snap-last-closed-trailing-zeros", Same { last: 448 }),
    ("snap-meta-bad-crc", SameRefusal),
    ("snap-meta-missing", Same { last: 451 }),
    (
        "snap-meta-truncated",
        Refused {
            text: "read snapshot-1-448-2902600.meta: short read: 40 bytes instead of 72",
            why: "as C, and the text names the file",
        },
    ),
    ("snap-middle-closed-missing", Tidier { last: 451, removed: "0000000000000321-0000000000000384" }),
];

#[test]
fn every_damaged_directory_is_in_the_table() {
    let mut listed: Vec<_> = VARIANTS.iter().map(|(name, _)| format!("variant-{name}")).collect();
    listed.sort();
    assert_eq!(listed, names(&["variant-"]));
}

#[test]
fn damaged_directories_do_as_in_c_or_better() {
    for (name, outcome) in VARIANTS {
        let name = &format!("variant-{name}");
        let observed = &manifest(name)["observed"]["v1.18.6"];
        let dir = unpack(name);
        let before = files(dir.path());
        let loaded = load(dir.path());
        match (outcome, &loaded) {
            (Same { last }, Ok(loaded)) => {
                assert_eq!(observed["last_index_after"], *last, "{name}: the table is wrong about C");
                assert_eq!(loaded.next_index().0 - 1, *last, "{name}: last index");
                assert_eq!(loaded.term.0, observed["term_after"], "{name}: term");
                assert_eq!(files(dir.path()), *observed["files_after"].as_array().unwrap(), "{name}: files");
            }
            (Tidier { last, removed }, Ok(loaded)) => {
                assert_eq!(loaded.next_index().0 - 1, *last, "{name}: last index");
                let mut expected = observed["files_after"].as_array().unwrap().clone();
                expected.retain(|file| file != removed);
                assert_eq!(files(dir.path()), *expected, "{name}: files");
            }
            (Better { last, why }, Ok(loaded)) => {
                assert_eq!(observed["start_ok"], false, "{name}: {why}");
                assert_eq!(loaded.next_index().0 - 1, *last, "{name}: last index");
            }
            (SameRefusal, Err(error)) => {
                let message = observed["start_message"].as_str().unwrap();
                let text = message.split_once("err=").unwrap().1;
                assert_eq!(error.to_string(), text, "{name}");
            }
            (Refused { text, why }, Err(error)) => {
                assert!(error.to_string().contains(text), "{name}: {error}");
                assert!(!why.is_empty());
            }
            (_, Ok(loaded)) => panic!("{name}: loaded up to {} ({:?})", loaded.next_index(), loaded.notes),
            (_, Err(error)) => panic!("{name}: {error}"),
        }
        if loaded.is_err() {
            let but_the_lock = |files: Vec<String>| -> Vec<String> {
                files.into_iter().filter(|file| file != "dqlite-lock").collect()
            };
            let after = but_the_lock(files(dir.path()));
            assert_eq!(after, but_the_lock(before), "{name}: a refused directory is left alone");
        }
    }
}

/// What both C releases did, as recorded.
fn observed_in_c(manifest: &Value) -> String {
    let one = |release: &str| {
        let observed = &manifest["observed"][release];
        if let Some(signal) = observed["crash_signal"].as_u64() {
            return format!("crashes with signal {signal}");
        }
        let last = &observed["last_index_after"];
        match (observed["start_ok"].as_bool(), observed["leader"].as_bool()) {
            (Some(true), Some(false)) => format!("starts without a log, and never leads ({last})"),
            (Some(true), _) => format!("starts, log to {last}"),
            _ => {
                let message = observed["start_message"].as_str().unwrap();
                quoted("refuses", message.split_once("err=").map_or(message, |(_, text)| text))
            }
        }
    };
    let (old, new) = (one("v1.11.1"), one("v1.18.6"));
    if old == new { new } else { format!("1.11.1 {old}; 1.18.6 {new}") }
}

fn quoted(verb: &str, text: &str) -> String {
    let text = text.trim_start_matches("raft_start(): ").trim_start_matches("raft_init(): ");
    let text = text.trim_start_matches("io: ").trim_end_matches(':');
    if text.is_empty() {
        return format!("{verb} without a text");
    }
    let short: String = text.chars().take(70).collect();
    format!("{verb}: `{short}{}`", if short.len() < text.len() { "..." } else { "" })
}

/// The rows of docs/data-directory.md.
fn table_of_differences() -> Vec<String> {
    let mut rows = vec![
        "| directory | what is wrong | C 1.11.1 and 1.18.6 | here | why |".into(),
        "|---|---|---|---|---|".into(),
    ];
    for (name, outcome) in VARIANTS {
        let manifest = manifest(&format!("variant-{name}"));
        let (in_c, what) = (observed_in_c(&manifest), manifest["description"].as_str().unwrap());
        let here = match load(unpack(&format!("variant-{name}")).path()) {
            Ok(loaded) => format!("starts, log to {}", loaded.next_index().0 - 1),
            Err(error) => quoted("refuses", &error.to_string()),
        };
        let (here, why) = match outcome {
            Same { .. } | SameRefusal => ("the same".into(), String::new()),
            Better { why, .. } | Refused { why, .. } => (here, (*why).to_owned()),
            Tidier { removed, .. } => {
                (here, format!("a segment behind the gap is removed, which C may stumble over: {removed}"))
            }
        };
        rows.push(format!("| {name} | {what} | {in_c} | {here} | {why} |"));
    }
    rows
}

#[test]
fn the_documented_differences_are_the_real_ones() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/data-directory.md");
    let document = fs::read_to_string(&path).unwrap();
    let is_row = |line: &&str| line.starts_with("| ") || line.starts_with("|-");
    let rows = table_of_differences();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        let before = document.lines().take_while(|line| !is_row(line));
        let after = document.lines().skip_while(|line| !is_row(line)).skip_while(is_row);
        let lines: Vec<&str> = before.chain(rows.iter().map(String::as_str)).chain(after).collect();
        fs::write(&path, lines.join("\n") + "\n").unwrap();
        return;
    }
    let documented: Vec<&str> = document.lines().filter(is_row).collect();
    assert_eq!(documented, rows, "UPDATE_DOCS=1 cargo test --test store_fixtures writes it again");
}

#[test]
fn what_is_dropped_or_set_aside_is_reported() {
    for (name, note) in [
        (
            "closed-first-corrupt",
            "set aside as corrupt: 0000000000000001-0000000000000001, open-1, open-2, open-3",
        ),
        ("open-last-batch-torn", "dropped a torn write at the end of open segment open-1: entries batch 41"),
        (
            "open-file-truncated-in-batch",
            "dropped a torn write at the end of open segment open-1: entries batch 41",
        ),
    ] {
        let loaded = load(unpack(&format!("variant-{name}")).path()).unwrap();
        assert!(matches!(&loaded.notes[..], [one] if one.starts_with(note)), "{name}: {:?}", loaded.notes);
    }
}

#[test]
fn without_auto_recovery_nothing_is_set_aside() {
    for name in
        ["variant-closed-first-corrupt", "variant-open-bad-format", "variant-snap-last-closed-corrupt"]
    {
        let dir = unpack(name);
        let before = files(dir.path());
        let error = Directory::open(dir.path()).unwrap().lock().unwrap().load(AutoRecovery::Off).unwrap_err();
        assert!(error.to_string().starts_with("raft_start(): io: load "), "{name}: {error}");
        assert_eq!(files(dir.path()), before, "{name}");
    }
}

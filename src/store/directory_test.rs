use super::*;
use crate::raft::{Role, Server, ServerId};
use crate::store::test_fs::TestFs;
use crate::store::{AutoRecovery, Loaded};
use std::fs::{self, Permissions};
use std::os::unix::fs::symlink;

fn configuration() -> Configuration {
    let server = Server { id: ServerId(1), address: "127.0.0.1:21001".into(), role: Role::Voter };
    Configuration { servers: vec![server] }
}

fn error(path: &Path) -> String {
    Directory::open(path).err().expect("a refusal").to_string()
}

fn load(path: &Path) -> Result<Loaded, Error> {
    Directory::open(path)?.lock()?.load(AutoRecovery::On)
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn bootstrapped() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut locked = Directory::open(dir.path()).unwrap().lock().unwrap();
    locked.bootstrap(&configuration()).unwrap();
    assert_eq!(locked.metadata().term, Term(1));
    dir
}

#[test]
fn unusable_directories_are_refused_in_the_words_of_the_c_library() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let shown = |name: &str| path(name).display().to_string();
    fs::write(path("file"), "").unwrap();
    fs::create_dir(path("read-only")).unwrap();
    fs::set_permissions(path("read-only"), Permissions::from_mode(0o555)).unwrap();
    symlink(path("loop"), path("loop")).unwrap();
    let long = "x".repeat(256);
    for (name, expected) in [
        ("absent", format!("raft_init(): io: directory '{}' does not exist", shown("absent"))),
        ("file", format!("raft_init(): io: path '{}' is not a directory", shown("file"))),
        ("file/below", format!("raft_init(): io: path '{}' is not a directory", shown("file/below"))),
        ("read-only", format!("raft_init(): io: directory '{}' is not writable", shown("read-only"))),
        (
            "loop",
            format!("raft_init(): io: can't stat '{}': too many symbolic links encountered", shown("loop")),
        ),
        (&long, format!("raft_init(): io: can't stat '{}': name too long", shown(&long))),
    ] {
        assert_eq!(error(&path(name)), expected);
    }
    let denied = Error::DirectoryNotAccessible("/a/b".into());
    assert_eq!(denied.to_string(), "raft_init(): io: can't access directory '/a/b'");
}

#[test]
fn a_path_of_894_bytes_is_the_longest() {
    let longest = format!("/{}", "x/".repeat(500))[..DATA_DIR_PATH_MAX].to_owned();
    assert!(error(Path::new(&longest)).ends_with("does not exist"));
    let longer = format!("{longest}x");
    assert_eq!(error(Path::new(&longer)), "raft_uv_init(): directory path too long");
}

#[test]
fn checking_a_directory_that_needs_no_tidying_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    Directory::open(dir.path()).unwrap();
    assert_eq!(names(dir.path()), [] as [&str; 0]);
}

#[test]
fn unfinished_files_are_removed_and_foreign_ones_kept() {
    let dir = tempfile::tempdir().unwrap();
    let foreign = format!("tmp-{}", "x".repeat(200));
    for name in ["tmp-1", "snapshot-1-5-3", "snapshot-1-6-3.meta", "open-", "info.yaml", &foreign] {
        fs::write(dir.path().join(name), "x").unwrap();
    }
    // Of C's disk mode.
    fs::create_dir(dir.path().join("database")).unwrap();
    Directory::open(dir.path()).unwrap();
    let mut expected = ["database", "dqlite-lock", "info.yaml", "open-", &foreign];
    expected.sort();
    assert_eq!(names(dir.path()), expected);
}

#[test]
fn a_directory_in_use_is_not_tidied_and_cannot_be_locked() {
    let dir = tempfile::tempdir().unwrap();
    let directory = Directory::open(dir.path()).unwrap();
    let held = directory.lock().unwrap();
    fs::write(dir.path().join("tmp-1"), "x").unwrap();
    let other = Directory::open(dir.path()).unwrap();
    assert_eq!(other.lock().err().unwrap().to_string(), "couldn't lock the raft directory");
    assert_eq!(names(dir.path()), ["dqlite-lock", "tmp-1"]);
    drop(held);
    other.lock().unwrap();
    assert_eq!(names(dir.path()), ["dqlite-lock"]);
}

/// As a child process has it for a moment that another thread of the host is starting.
#[test]
fn a_directory_is_free_once_it_is_dropped_whoever_inherited_the_lock() {
    let dir = tempfile::tempdir().unwrap();
    let lock = lock(dir.path()).unwrap();
    let inherited = lock.0.try_clone().unwrap();
    assert!(super::lock(dir.path()).is_err());
    drop(lock);
    super::lock(dir.path()).unwrap();
    drop(inherited);
}

#[test]
fn metadata_written_between_check_and_lock_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    let directory = Directory::open(dir.path()).unwrap();
    Metadata::default().write(&Disk, dir.path(), Term(4), Some(ServerId(2))).unwrap();
    let metadata = directory.lock().unwrap().metadata();
    assert_eq!((metadata.term, metadata.voted_for), (Term(4), Some(ServerId(2))));
}

#[test]
fn a_new_directory_gets_the_files_of_the_c_library() {
    let dir = bootstrapped();
    assert_eq!(names(dir.path()), ["0000000000000001-0000000000000001", "dqlite-lock", "metadata1"]);
    for name in names(dir.path()) {
        let mode = fs::metadata(dir.path().join(&name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{name}");
    }
    let words = |name: &str| -> Vec<u64> {
        let bytes = fs::read(dir.path().join(name)).unwrap();
        bytes.chunks(8).map(|word| u64::from_le_bytes(word.try_into().unwrap())).collect()
    };
    assert_eq!(words("metadata1"), [1, 1, 1, 0]);
    let segment = words("0000000000000001-0000000000000001");
    assert_eq!(segment[..5], [1, 0xb685_508d_86f9_992d, 1, 1, 0x28_0000_0003]);
    assert_eq!(segment.len(), 10);
}

#[test]
fn a_directory_is_bootstrapped_once() {
    let dir = bootstrapped();
    let before = fs::read(dir.path().join("0000000000000001-0000000000000001")).unwrap();
    let mut other = configuration();
    other.servers[0].address = "10.0.0.1:1".into();
    let mut locked = Directory::open(dir.path()).unwrap().lock().unwrap();
    locked.bootstrap(&other).unwrap();
    assert_eq!(fs::read(dir.path().join("0000000000000001-0000000000000001")).unwrap(), before);
    assert_eq!(locked.load(AutoRecovery::On).unwrap().entries.len(), 1);
}

#[test]
fn a_directory_with_a_term_and_no_log_is_not_bootstrapped() {
    // A joining node that has not received its log yet, or one whose log was set aside.
    let dir = tempfile::tempdir().unwrap();
    Metadata::default().write(&Disk, dir.path(), Term(1), None).unwrap();
    let mut locked = Directory::open(dir.path()).unwrap().lock().unwrap();
    locked.bootstrap(&configuration()).unwrap();
    assert_eq!(names(dir.path()), ["dqlite-lock", "metadata1"]);
}

#[test]
fn a_failed_bootstrap_says_why() {
    let (dir, test_fs) = (tempfile::tempdir().unwrap(), TestFs::new());
    test_fs.fail("sync");
    let directory = Directory::open_on(Arc::new(test_fs), dir.path()).unwrap();
    let error = directory.lock().unwrap().bootstrap(&configuration()).unwrap_err().to_string();
    assert!(error.starts_with("raft_bootstrap(): write the first segment in /"), "{error}");
}

#[test]
fn a_recovered_empty_directory_starts_with_any_id() {
    // What recovering an empty directory leaves: a configuration of term 1 at index 1, and no metadata.
    for bootstrap in [false, true] {
        let dir = bootstrapped();
        fs::remove_file(dir.path().join("metadata1")).unwrap();
        let mut locked = Directory::open(dir.path()).unwrap().lock().unwrap();
        if bootstrap {
            locked.bootstrap(&configuration()).unwrap();
        }
        let loaded = locked.load(AutoRecovery::On).unwrap();
        assert_eq!((loaded.term, loaded.voted_for, loaded.entries.len()), (Term(1), None, 1));
        drop(locked);
        let term = Metadata::read(&Disk, dir.path()).unwrap().term;
        assert_eq!(term, Term(1), "the term is durable before the node uses it");
    }
}

fn write_log(dir: &Path, terms: &[u64]) {
    let payload = configuration().encode();
    let kind = |position| if position == 0 { EntryKind::Change } else { EntryKind::Command };
    let entries: Vec<_> = terms
        .iter()
        .enumerate()
        .map(|(position, term)| Entry { term: Term(*term), kind: kind(position), payload: payload.clone() })
        .collect();
    write_closed(&Disk, dir, Index(1), &entries).unwrap();
}

#[test]
fn a_log_ahead_of_the_metadata_is_refused() {
    for (metadata, terms, refused) in [
        (None, &[1, 1][..], true),
        (None, &[2], true),
        (None, &[1], false),
        (Some(3), &[1, 3, 1], false),
        (Some(3), &[1, 4], true),
        (Some(3), &[4], true),
    ] {
        let dir = tempfile::tempdir().unwrap();
        write_log(dir.path(), terms);
        if let Some(term) = metadata {
            Metadata::default().write(&Disk, dir.path(), Term(term), None).unwrap();
        }
        let loaded = load(dir.path());
        assert_eq!(loaded.is_err(), refused, "metadata {metadata:?}, log {terms:?}");
        if let Err(error) = loaded {
            let text = error.to_string();
            assert!(text.starts_with("raft_start(): io: the log is at term "), "{text}");
        }
    }
}

#[test]
fn a_lock_that_cannot_be_opened_is_not_taken_for_a_running_node() {
    let dir = tempfile::tempdir().unwrap();
    let lock = dir.path().join("dqlite-lock");
    fs::create_dir(&lock).unwrap();
    let error = Directory::open(dir.path()).unwrap().lock().err().unwrap().to_string();
    let reason = "Is a directory (os error 21)";
    assert_eq!(error, format!("couldn't lock the raft directory: open {}: {reason}", lock.display()));
}

#[test]
fn a_file_that_cannot_be_read_is_refused_by_name_and_not_set_aside() {
    let fixture =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/datadir/v1_18_6-snapshot-lz4");
    for prefix in ["metadata", "open-", "0", "snapshot-"] {
        let dir = tempfile::tempdir().unwrap();
        let mut tar = std::process::Command::new("tar");
        tar.arg("--zstd").arg("-xf").arg(fixture.join("data.tar.zst")).arg("-C").arg(dir.path());
        assert!(tar.status().expect("tar and zstd are installed by `make deps`").success());
        if prefix == "open-" {
            fs::write(dir.path().join("open-9"), [0; 16]).unwrap();
        }
        // Only the newest snapshot is read, and the last segment is behind it.
        let name = names(dir.path()).into_iter().rfind(|name| name.starts_with(prefix)).unwrap();
        fs::remove_file(dir.path().join(&name)).unwrap();
        // Nobody can read this as a file, not even root.
        fs::create_dir(dir.path().join(&name)).unwrap();
        let before = names(dir.path());
        let error = load(dir.path()).unwrap_err().to_string();
        assert!(error.contains(&name) && error.ends_with("Is a directory (os error 21)"), "{name}: {error}");
        assert_eq!(names(dir.path()), before, "{name}");
    }
}

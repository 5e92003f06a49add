//! The `dqlite` program: exit codes, texts and JSON of its commands, over recorded data directories of C
//! releases, sound and damaged (see tests/store_fixtures.rs).

#![allow(clippy::unwrap_used)]

use dqlite::config::FORCED_TERM_STEP;
use dqlite::raft::{Configuration, Role, Server, ServerId};
use dqlite::store::{AutoRecovery, Directory};
use serde_json::Value;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dqlite")).args(arguments).output().expect("the program runs")
}

fn fed(mut command: Command, typed: &str) -> Output {
    let piped = || Stdio::piped();
    let mut child = command.stdin(piped()).stdout(piped()).stderr(piped()).spawn().expect("it runs");
    // It may end without reading.
    let _ = child.stdin.take().unwrap().write_all(typed.as_bytes());
    child.wait_with_output().unwrap()
}

/// The program on a terminal of its own, on which this is typed, and then the end of the input.
fn run_on_a_terminal(arguments: &[&str], typed: &str) -> Output {
    let words = [&[env!("CARGO_BIN_EXE_dqlite")], arguments].concat();
    let quoted: Vec<_> = words.iter().map(|word| format!("'{word}'")).collect();
    let mut script = Command::new("script");
    script.args(["-qec", &quoted.join(" "), "/dev/null"]);
    fed(script, typed)
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn text(output: &Output) -> String {
    [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy).concat()
}

/// With --json; whatever the outcome, standard output is one JSON value.
fn json(arguments: &[&str]) -> (i32, Value) {
    let output = run(&[arguments, &["--json"]].concat());
    let value = serde_json::from_slice(&output.stdout);
    (code(&output), value.unwrap_or_else(|e| panic!("{arguments:?}: {e}: {}", text(&output))))
}

fn fixtures() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/datadir");
    let entries = fs::read_dir(root).unwrap().map(|entry| entry.unwrap());
    let folders = entries.filter(|entry| entry.path().is_dir());
    let mut names: Vec<_> = folders.map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn unpack(name: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/datadir");
    let mut tar = Command::new("tar");
    tar.arg("--zstd").arg("-xf").arg(root.join(name).join("data.tar.zst")).arg("-C").arg(dir.path());
    assert!(tar.status().expect("tar and zstd are installed by `make deps`").success());
    dir
}

fn shown(path: impl AsRef<Path>) -> String {
    path.as_ref().to_str().unwrap().to_owned()
}

/// Names and contents of all files, also of those in folders.
fn image(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(image(&path));
        } else {
            files.push((path.clone(), fs::read(path).unwrap()));
        }
    }
    files.sort();
    files
}

fn configuration(ids: &[u64]) -> Configuration {
    let server =
        |id: &u64| Server { id: ServerId(*id), address: format!("10.0.0.{id}:1"), role: Role::Voter };
    Configuration { servers: ids.iter().map(server).collect() }
}

/// A directory with this many entries; the servers are those of the last.
fn directory(entries: u64) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut locked = Directory::open(dir.path()).unwrap().lock().unwrap();
    locked.bootstrap(&configuration(&[1])).unwrap();
    for _ in 1..entries {
        locked.recover(&configuration(&[1, 2, 3]), AutoRecovery::On).unwrap();
    }
    dir
}

#[test]
fn version_and_help_go_to_standard_output() {
    let version = run(&["--version"]);
    assert!(version.status.success());
    let expected = format!("dqlite {} (compatible with dqlite 1.18.6)\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(String::from_utf8_lossy(&version.stdout), expected);

    let help = run(&["--help"]);
    assert!(help.status.success());
    assert!(String::from_utf8_lossy(&help.stdout).contains("dqlite check DIR"));
}

#[test]
fn advice_names_the_program_as_it_was_called() {
    let folder = TempDir::new().unwrap();
    let renamed = folder.path().join("dqlite-dir");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_dqlite"), &renamed).unwrap();
    let help = text(&Command::new(&renamed).arg("--help").output().unwrap());
    assert!(help.contains("\n  dqlite-dir check DIR"), "{help}");
    assert!(!help.contains("PROGRAM") && !help.contains("dqlite check"), "{help}");
    let refusal = text(&Command::new(&renamed).arg("nonsense").output().unwrap());
    assert!(refusal.ends_with("Try: dqlite-dir --help\n"), "{refusal}");
}

#[test]
fn wrong_usage_ends_with_2_and_says_why() {
    let cases: [(&[&str], &str); 17] = [
        (&[], "Commands"),
        (&["shell"], "there is no command shell"),
        (&["--version", "x"], "unexpected argument"),
        (&["check"], "which directory?"),
        (&["check", "a", "b"], "one directory"),
        (&["check", "a", "--yes"], "invalid option '--yes'"),
        (&["check", "/nonexistent/x"], "does not exist"),
        (&["repair", "/nonexistent/x"], "does not exist"),
        (&["recover", "a"], "unexpected argument"),
        (&["recover", "--server", "1@a:1"], "--from DIR"),
        (&["recover", "--from", "a"], "--server for each"),
        (&["recover", "--from", "a", "--server", "1"], "1 is no ID@ADDRESS"),
        (&["recover", "--from", "a", "--server", "0@a:1"], "0@a:1 is no ID@ADDRESS"),
        (&["recover", "--from", "a", "--server", "1@"], "1@ is no ID@ADDRESS"),
        (&["recover", "--from", "a", "--server", "1@a:1", "--server", "1@b:1"], "two servers have the id 1"),
        (&["recover", "--from", "a", "--server", "1@a:1", "--server", "2@a:1"], "have the address a:1"),
        (&["recover", "--from", "a", "--server", "1@a:1:spare"], "without a voter"),
    ];
    for (arguments, expected) in cases {
        let output = run(arguments);
        assert_eq!(code(&output), 2, "{arguments:?}: {}", text(&output));
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{arguments:?}");
        assert!(text(&output).contains(expected), "{arguments:?}: {}", text(&output));
    }
}

/// What `check` finds in each damaged directory, and up to where `repair` keeps the log; none if it cannot.
/// The rest of the damaged ones is sound, because a start loses nothing.
const DAMAGED: &[(&str, &str, Option<u64>)] = &[
    ("closed-empty", "lossy", None),
    ("closed-first-corrupt", "lossy", None),
    ("metadata-bad-format", "refused", Some(42)),
    ("metadata-long", "refused", Some(42)),
    ("metadata-missing", "refused", Some(42)),
    ("metadata-same-version", "refused", Some(42)),
    ("metadata-short", "refused", Some(42)),
    ("metadata-version-zero", "refused", Some(42)),
    ("open-bad-format", "lossy", Some(1)),
    ("open-batch-unknown-entry-type", "refused", Some(41)),
    ("open-file-truncated-in-batch", "lossy", Some(41)),
    ("open-first-batch-corrupt", "refused", Some(1)),
    ("open-format-zero-nonzero-body", "lossy", Some(1)),
    ("open-last-batch-bad-data-crc", "lossy", Some(41)),
    ("open-last-batch-torn", "lossy", Some(41)),
    ("open-middle-batch-corrupt", "refused", Some(21)),
    ("snap-data-bad-content-checksum", "refused", Some(451)),
    ("snap-data-corrupt", "refused", Some(451)),
    ("snap-first-closed-corrupt", "refused", Some(451)),
    ("snap-gap-after-snapshot", "refused", Some(384)),
    ("snap-last-closed-corrupt", "lossy", Some(448)),
    ("snap-last-closed-trailing-zeros", "lossy", Some(451)),
    ("snap-meta-bad-crc", "refused", Some(451)),
    ("snap-meta-truncated", "refused", Some(451)),
];

fn expectation(name: &str) -> Option<&'static (&'static str, &'static str, Option<u64>)> {
    let variant = name.strip_prefix("variant-")?;
    DAMAGED.iter().find(|(listed, ..)| *listed == variant)
}

#[test]
fn check_tells_sound_directories_from_damaged_ones_and_changes_nothing() {
    let names = fixtures();
    assert!(names.len() > 50, "the fixtures are there");
    let mut wrong = Vec::new();
    for name in names {
        let dir = unpack(&name);
        let before = image(dir.path());
        let (code, found) = json(&["check", &shown(&dir)]);
        assert_eq!(image(dir.path()), before, "{name}");
        let keeps = found["repair_keeps_up_to"].as_u64();
        let result = found["result"].as_str().unwrap();
        let sound = if found["last_index"] == 0 { "new" } else { "sound" };
        let expected = expectation(&name).map_or((0, sound, None), |(_, result, keeps)| (1, *result, *keeps));
        if (code, result, keeps) != expected {
            wrong.push(format!("{name}: {code} {result} {keeps:?}, not {expected:?}: {found}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn check_says_in_words_what_to_do() {
    for (name, code_expected, verdict, advice) in [
        ("v1_18_6-two-dbs", 0, "Sound. A start takes over everything", "servers   as of index 1"),
        ("variant-open-last-batch-torn", 1, "DAMAGED. A start would go on without", "just start the node"),
        ("variant-open-middle-batch-corrupt", 1, "DAMAGED. A start would refuse", "3. dqlite repair"),
        ("variant-closed-first-corrupt", 1, "DAMAGED. A start would go on", "3. No repair is possible"),
        ("cluster-v1_11_1-node5", 0, "Sound: nothing in it yet", "takes no lock: make sure"),
    ] {
        let dir = unpack(name);
        let output = run(&["check", &shown(&dir)]);
        assert_eq!(code(&output), code_expected, "{name}");
        assert!(text(&output).contains(verdict), "{name}: {}", text(&output));
        assert!(text(&output).contains(advice), "{name}: {}", text(&output));
    }
}

#[test]
fn check_tells_term_log_servers_and_what_would_be_lost() {
    let dir = unpack("v1_11_1-recovered");
    let (code, found) = json(&["check", &shown(&dir)]);
    assert_eq!((code, &found["term"], &found["voted_for"]), (0, &2.into(), &2.into()));
    assert_eq!(
        (&found["first_index"], &found["last_index"], &found["last_term"]),
        (&1.into(), &37.into(), &1.into())
    );
    assert_eq!(
        found["servers"][1],
        serde_json::json!({"id": 77, "address": "127.0.0.1:29077", "role": "stand-by"})
    );
    assert_eq!(found["configuration_index"], 37);

    let dir = unpack("variant-snap-last-closed-corrupt");
    let (_, found) = json(&["check", &shown(&dir)]);
    let aside = serde_json::json!([{"file": "0000000000000449-0000000000000451", "entries": 3}]);
    assert_eq!((&found["set_aside"], &found["last_index"]), (&aside, &448.into()));
    assert_eq!(found["snapshot"]["index"], 448);
}

#[test]
fn a_directory_in_use_is_left_alone_by_every_command() {
    let dir = directory(1);
    let _lock = Directory::open(dir.path()).unwrap().lock().unwrap();
    let path = &shown(&dir);
    let before = image(dir.path());
    for arguments in [
        &["check", path][..],
        &["repair", path, "--yes"],
        &["recover", "--from", path, "--server", "1@a:1", "--yes"],
    ] {
        let output = run(arguments);
        assert_eq!(code(&output), 2, "{arguments:?}");
        assert!(text(&output).contains("a running node uses it"), "{}", text(&output));
        assert_eq!(json(arguments).0, 2);
    }
    assert_eq!(image(dir.path()), before);
}

#[test]
fn repair_keeps_what_is_sound_and_deletes_nothing() {
    for (variant, _, keeps) in DAMAGED {
        let dir = unpack(&format!("variant-{variant}"));
        let before = image(dir.path());
        let done = run(&["repair", &shown(&dir), "--yes"]);
        let Some(keeps) = keeps else {
            assert_eq!(code(&done), 1, "{variant}");
            assert!(text(&done).contains("nothing can be kept"), "{variant}: {}", text(&done));
            assert_eq!(image(dir.path()), before, "{variant}: nothing was changed");
            continue;
        };
        assert_eq!(code(&done), 0, "{variant}: {}", text(&done));
        let (code, found) = json(&["check", &shown(&dir)]);
        assert_eq!((code, found["last_index"].as_u64()), (0, Some(*keeps)), "{variant}: {found}");
        let after = image(dir.path());
        let is_log = |path: &Path| path.file_name().unwrap() != "dqlite-lock";
        for (path, content) in before.iter().filter(|(path, _)| is_log(path)) {
            let name = path.file_name().unwrap();
            let kept =
                after.iter().any(|(path, bytes)| path.file_name().unwrap() == name && bytes == content);
            let is_unfinished = name.to_str().unwrap().starts_with("tmp-");
            assert!(kept || is_unfinished, "{variant}: {} is gone", path.display());
        }
        let loaded = Directory::open(dir.path()).unwrap().lock().unwrap().load(AutoRecovery::Off);
        assert_eq!(loaded.unwrap().next_index().0, keeps + 1, "{variant}: a start without auto-recovery");
    }
}

#[test]
fn repair_changes_nothing_without_consent() {
    let dir = unpack("variant-open-middle-batch-corrupt");
    let before = image(dir.path());
    let output = run(&["repair", &shown(&dir)]);
    assert_eq!(code(&output), 1);
    assert!(text(&output).contains("cut open-1 before its damage: entries batch 21"), "{}", text(&output));
    let (code, planned) = json(&["repair", &shown(&dir)]);
    assert_eq!((code, &planned["result"], &planned["last_index"]), (1, &"planned".into(), &21.into()));
    assert_eq!(image(dir.path()), before);
}

/// Directories that a command would change, and the command.
fn to_be_consented(directory: &TempDir, command: &str) -> Vec<String> {
    let path = shown(directory);
    let words: &[&str] = match command {
        "repair" => &["repair", &path],
        _ => &["recover", "--from", &path, "--server", "1@a:1"],
    };
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[test]
fn only_yes_typed_on_a_terminal_is_consent() {
    for command in ["repair", "recover"] {
        let dir = match command {
            "repair" => unpack("variant-open-middle-batch-corrupt"),
            _ => directory(2),
        };
        let arguments = to_be_consented(&dir, command);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let before = image(dir.path());
        for typed in ["", "\n", "n\n", "no\n", "y\n", "YES\n", "yes please\n", "\nyes\n"] {
            let output = run_on_a_terminal(&arguments, typed);
            assert_eq!(code(&output), 1, "{command}, {typed:?}: {}", text(&output));
            assert!(text(&output).contains("Type yes: "), "{command}, {typed:?}: {}", text(&output));
            assert!(text(&output).contains("Nothing was changed."), "{command}: {}", text(&output));
            assert_eq!(image(dir.path()), before, "{command}, {typed:?}");
        }
        // Nobody is there to read the question.
        for typed in ["", "yes\n"] {
            let mut program = Command::new(env!("CARGO_BIN_EXE_dqlite"));
            program.args(&arguments);
            let output = fed(program, typed);
            assert_eq!(code(&output), 1, "{command}, {typed:?}");
            assert!(text(&output).contains("the same command with --yes"), "{}", text(&output));
            assert_eq!(image(dir.path()), before, "{command}, {typed:?}");
        }
        let output = run_on_a_terminal(&arguments, "yes\n");
        assert_eq!(code(&output), 0, "{command}: {}", text(&output));
        assert!(text(&output).contains("Done"), "{command}: {}", text(&output));
        assert_ne!(image(dir.path()), before, "{command}");
    }
}

#[test]
fn repair_of_lost_metadata_begins_a_term_in_which_nobody_voted() {
    let dir = unpack("variant-metadata-missing");
    let (code, done) = json(&["repair", &shown(&dir), "--yes"]);
    assert_eq!((code, &done["result"], &done["removed_to"]), (0, &"repaired".into(), &Value::Null));
    let metadata = Directory::open(dir.path()).unwrap().lock().unwrap().metadata();
    assert_eq!((metadata.term.0, metadata.voted_for), (1 + FORCED_TERM_STEP, None));
}

#[test]
fn repair_leaves_a_sound_directory_alone() {
    let dir = directory(2);
    let before = image(dir.path());
    let (code, done) = json(&["repair", &shown(&dir), "--yes"]);
    assert_eq!((code, &done["result"]), (0, &"sound".into()));
    assert_eq!(image(dir.path()), before);
}

#[test]
fn recover_chooses_the_directory_that_knows_most_and_changes_no_other() {
    let (stale, fresh, empty) = (directory(2), directory(4), tempfile::tempdir().unwrap());
    let before = [image(stale.path()), image(fresh.path())];
    let (stale_path, fresh_path, empty_path) = (shown(&stale), shown(&fresh), shown(&empty));
    let arguments = [
        &["recover", "--from", &stale_path, "--from", &fresh_path, "--from", &empty_path][..],
        &["--server", "5@[::1]:9:voter", "--server", "6@host:9:stand-by", "--server", "7@host:10:spare"],
    ]
    .concat();
    let (code, planned) = json(&arguments);
    assert_eq!(
        (code, &planned["result"], &planned["keep"]),
        (1, &"planned".into(), &fresh_path.clone().into())
    );
    assert_eq!([image(stale.path()), image(fresh.path())], before, "nothing happens without consent");

    let (code, done) = json(&[&arguments[..], &["--yes"]].concat());
    assert_eq!((code, &done["result"], &done["index"]), (0, &"recovered".into(), &5.into()), "{done}");
    assert_eq!(image(stale.path()), before[0]);
    let (_, found) = json(&["check", &fresh_path]);
    let servers = serde_json::json!([
        {"id": 5, "address": "[::1]:9", "role": "voter"},
        {"id": 6, "address": "host:9", "role": "stand-by"},
        {"id": 7, "address": "host:10", "role": "spare"},
    ]);
    assert_eq!((&found["servers"], &found["configuration_index"]), (&servers, &5.into()));
}

#[test]
fn recover_refuses_to_lose_what_another_directory_has() {
    let (stale, fresh) = (directory(2), directory(3));
    let before = [image(stale.path()), image(fresh.path())];
    let (stale_path, fresh_path) = (shown(&stale), shown(&fresh));
    let damaged = unpack("variant-open-middle-batch-corrupt");
    let damaged_path = shown(&damaged);
    let nothing = tempfile::tempdir().unwrap();
    let nothing_path = shown(&nothing);
    let cases: [(&[&str], &str); 5] = [
        (&["--from", &stale_path, "--from", &fresh_path, "--keep", &stale_path], "is behind"),
        (&["--from", &fresh_path, "--keep", &stale_path], "is not one of those"),
        (&["--from", &fresh_path, "--from", &fresh_path], "is given twice"),
        (&["--from", &fresh_path, "--from", &damaged_path], "is damaged"),
        (&["--from", &nothing_path], "none of the directories"),
    ];
    for (arguments, expected) in cases {
        let output = run(&[&["recover", "--server", "1@a:1", "--yes"], arguments].concat());
        assert_eq!(code(&output), 1, "{arguments:?}");
        assert!(text(&output).contains(expected), "{arguments:?}: {}", text(&output));
    }
    assert_eq!([image(stale.path()), image(fresh.path())], before);
}

#[test]
fn recover_says_whether_acknowledged_transactions_may_be_missing() {
    let (one, two) = (directory(2), directory(2));
    let (one_path, two_path) = (shown(&one), shown(&two));
    let arguments = ["recover", "--server", "1@a:1", "--from", &one_path];
    assert!(text(&run(&arguments)).contains("LOSS IS POSSIBLE: 1 of 3 voters are given, 2 are needed"));
    let both = [&arguments[..], &["--from", &two_path]].concat();
    assert!(text(&run(&both)).contains("With 2 of 3 voters no acknowledged transaction is lost"));
}

#[test]
fn a_log_that_the_c_library_forced_a_configuration_upon_is_not_taken_for_older() {
    // It ends with an entry of term 1; its copy from before ends with one of term 2.
    let (before, after) = (unpack("v1_11_1-truncate-newleader"), unpack("v1_11_1-recovered"));
    let (before, after) = (shown(&before), shown(&after));
    let (_, planned) = json(&["recover", "--from", &before, "--from", &after, "--server", "1@a:1"]);
    assert_eq!(planned["keep"], after);
}

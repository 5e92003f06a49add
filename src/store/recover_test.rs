use super::*;
use crate::config::FORCED_TERM_STEP;
use crate::raft::{Role, Server, ServerId};
use crate::store::crash_fs::{CrashFs, Model, Random, files};
use parking_lot::Mutex;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

fn server(id: u64, role: Role) -> Server {
    Server { id: ServerId(id), address: format!("10.0.0.{id}:9000"), role }
}

fn forced() -> Configuration {
    Configuration { servers: vec![server(7, Role::Voter), server(8, Role::Standby), server(9, Role::Spare)] }
}

fn entry(term: u64, kind: EntryKind) -> Entry {
    let first = Configuration { servers: vec![server(1, Role::Voter)] };
    let payload = if kind == EntryKind::Change { first.encode() } else { vec![0; 16].into() };
    Entry { term: Term(term), kind, payload }
}

fn locked(path: &Path) -> LockedDirectory {
    Directory::open(path).unwrap().lock().unwrap()
}

/// A log with entries of these terms, and metadata of the given term with a vote.
fn written(terms: &[u64], metadata_term: u64) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut directory = locked(dir.path());
    let kind = |position| if position == 0 { EntryKind::Change } else { EntryKind::Command };
    let entries: Vec<_> = terms.iter().enumerate().map(|(at, term)| entry(*term, kind(at))).collect();
    write_closed(&*directory.fs, dir.path(), Index(1), &entries).unwrap();
    let fs = Arc::clone(&directory.fs);
    directory.metadata.write(&*fs, dir.path(), Term(metadata_term), Some(ServerId(3))).unwrap();
    dir
}

fn last_entry(path: &Path) -> (u64, u64) {
    let (index, term) = Directory::open(path).unwrap().last_entry(AutoRecovery::On).unwrap();
    (index.0, term.0)
}

fn recover(path: &Path) -> Recovered {
    locked(path).recover(&forced(), AutoRecovery::On).unwrap()
}

#[test]
fn a_forced_configuration_is_the_last_entry_in_a_term_far_above_the_log() {
    let dir = written(&[1, 2, 4], 6);
    let term = Term(4 + FORCED_TERM_STEP);
    assert_eq!(recover(dir.path()), Recovered { index: Index(4), term });

    let loaded = locked(dir.path()).load(AutoRecovery::Off).unwrap();
    assert_eq!((loaded.term, loaded.voted_for), (term, None), "nobody was voted for in that term");
    let last = loaded.entries.last().unwrap();
    assert_eq!((last.term, last.kind), (term, EntryKind::Change));
    assert_eq!(Configuration::decode(last.payload.clone()).unwrap(), forced());
    assert_eq!(loaded.entries.len(), 4);

    let again = recover(dir.path());
    assert_eq!(again, Recovered { index: Index(5), term: Term(term.0 + FORCED_TERM_STEP) });
}

#[test]
fn metadata_of_a_higher_term_keep_term_and_vote() {
    let dir = written(&[1], 5 * FORCED_TERM_STEP);
    assert_eq!(recover(dir.path()).term, Term(1 + FORCED_TERM_STEP));
    let metadata = locked(dir.path()).metadata();
    assert_eq!((metadata.term.0, metadata.voted_for), (5 * FORCED_TERM_STEP, Some(ServerId(3))));
}

#[test]
fn logs_keep_their_order_whatever_the_metadata_are() {
    // The shorter log belongs to the server of the higher term: it campaigned in vain.
    let (ahead, behind) = (written(&[1, 3, 3], 3), written(&[1, 3], 9));
    let (ahead, behind) = (recover(ahead.path()), recover(behind.path()));
    assert!((ahead.term, ahead.index) > (behind.term, behind.index));
}

#[test]
fn a_term_one_in_the_middle_of_the_log_does_not_lower_the_new_term() {
    let dir = written(&[1, 3, 1], 3);
    assert_eq!(recover(dir.path()).term, Term(3 + FORCED_TERM_STEP));
}

#[test]
fn an_empty_directory_is_given_term_one_and_is_not_bootstrapped_again() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(last_entry(dir.path()), (0, 0));
    assert_eq!(recover(dir.path()), Recovered { index: Index(1), term: Term(1) });
    assert_eq!(last_entry(dir.path()), (1, 1));
    let mut directory = locked(dir.path());
    directory.bootstrap(&Configuration { servers: vec![server(1, Role::Voter)] }).unwrap();
    assert_eq!(directory.load(AutoRecovery::Off).unwrap().entries.len(), 1);
}

#[test]
fn a_term_without_room_above_it_is_refused() {
    let dir = written(&[1, u64::MAX / 2], u64::MAX / 2);
    let error = locked(dir.path()).recover(&forced(), AutoRecovery::On).unwrap_err();
    assert!(error.to_string().starts_with("raft_recover(): io: there is no term"), "{error}");
    assert_eq!(last_entry(dir.path()).0, 2, "nothing was written");
}

#[test]
fn a_directory_that_cannot_be_loaded_is_not_recovered() {
    let dir = written(&[1, 2], 2);
    std::fs::write(dir.path().join("0000000000000009-0000000000000009"), "x").unwrap();
    let error = locked(dir.path()).recover(&forced(), AutoRecovery::On).unwrap_err();
    assert!(error.to_string().starts_with("raft_recover(): io: unexpected closed segment"), "{error}");
}

#[test]
fn the_last_entry_of_a_directory_in_use_is_not_told() {
    let dir = written(&[1], 1);
    let open = Directory::open(dir.path()).unwrap();
    let lock = open.lock().unwrap();
    assert_eq!(open.last_entry(AutoRecovery::On), Err(Error::Locked));
    drop(lock);
    assert_eq!(open.last_entry(AutoRecovery::On), Ok((Index(1), Term(1))));
}

#[test]
fn a_crash_at_any_point_leaves_the_old_log_or_the_forced_configuration() {
    let dir = written(&[1, 2], 2);
    let fs = CrashFs::new(Model::new(&files(dir.path())));
    let models = Arc::new(Mutex::new(Vec::new()));
    let taken = Arc::clone(&models);
    fs.before_each(move |_, model| taken.lock().push(model.clone()));
    let mut directory = Directory::open_on(Arc::new(fs.clone()), dir.path()).unwrap().lock().unwrap();
    directory.recover(&forced(), AutoRecovery::On).unwrap();
    drop(directory);
    models.lock().push(fs.model());
    let (mut random, mut found) = (Random(1), Vec::new());
    for model in models.lock().iter() {
        for fates in model.crashes(&mut random, false) {
            let after = CrashFs::new(Model::new(&model.after_crash(&fates)));
            let mut directory = Directory::open_on(Arc::new(after), dir.path()).unwrap().lock().unwrap();
            let loaded = directory.load(AutoRecovery::Off).unwrap();
            assert!(loaded.highest_term() <= loaded.term, "{}", model.describe(&fates));
            found.push(loaded.entries.len());
        }
    }
    let text = format!("crash simulation: a recovery, {} crash points\n", models.lock().len());
    // Also shown when the test passes.
    std::io::stderr().write_all(text.as_bytes()).unwrap();
    assert!(found.len() > 10 && found.first() == Some(&2) && found.last() == Some(&3), "{found:?}");
    assert!(found.iter().all(|count| matches!(count, 2 | 3)), "{found:?}");
}

use super::*;
use crate::config::FILL_AHEAD_BYTES;
use crate::raft::{Configuration, EntryKind, ServerId, SnapshotPoint, Term};
use crate::store::fs::Disk;
use crate::store::test_fs::TestFs;
use crate::store::{
    AutoRecovery, Compression, Directory, Loaded, Options, SnapshotContent, SnapshotRequest, Store,
};
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

const SEGMENT_SIZE: usize = 4096;
const PATIENCE: Duration = Duration::from_secs(20);

/// A running store and what it reports.
struct Running {
    store: Store,
    events: Receiver<Event>,
}

fn load(dir: &Path) -> Loaded {
    Directory::open(dir).unwrap().lock().unwrap().load(AutoRecovery::On).unwrap()
}

fn start_on(fs: Arc<dyn Fs>, dir: &Path) -> Running {
    start_sized(fs, dir, SEGMENT_SIZE)
}

fn start_sized(fs: Arc<dyn Fs>, dir: &Path, segment_size: usize) -> Running {
    let mut directory = Directory::open_on(fs, dir).unwrap().lock().unwrap();
    let loaded = directory.load(AutoRecovery::On).unwrap();
    let (sender, events) = channel();
    let sender = Mutex::new(sender);
    let on_event: OnEvent = Box::new(move |event| drop(sender.lock().send(event)));
    let options = Options { segment_size };
    Running { store: Store::start(directory, &loaded, options, on_event).unwrap(), events }
}

fn start(dir: &Path) -> Running {
    start_on(Arc::new(Disk), dir)
}

impl Running {
    /// The next event, which must be of this kind.
    fn wait(&self) -> Event {
        self.events.recv_timeout(PATIENCE).expect("an event")
    }

    /// Waits until everything up to this request is durable; returns how many events told so.
    fn wait_for(&self, wanted: u64) -> usize {
        for count in 1.. {
            match self.wait() {
                Event::Persisted { seq } if seq.0 >= wanted => return count,
                Event::Persisted { .. } => {}
                other => panic!("{other:?} while waiting for request {wanted}"),
            }
        }
        unreachable!()
    }

    /// Appends one request per entry, from this index on, numbered like the entries.
    fn append_each(&self, first: u64, entries: &[Entry]) {
        for (index, entry) in (first..).zip(entries) {
            self.store.append(Index(index), vec![entry.clone()], Seq(index));
        }
    }
}

/// The first entry of a log is a configuration; what is in it does not matter here.
fn entry(index: u64, len: usize) -> Entry {
    let kind = if index == 1 { EntryKind::Change } else { EntryKind::Command };
    let payload: Vec<u8> = (0..len as u64).map(|byte| (index * 7 + byte) as u8).collect();
    Entry { term: Term(1), kind, payload: payload.into() }
}

fn entries(range: std::ops::RangeInclusive<u64>) -> Vec<Entry> {
    range.map(|index| entry(index, 8 * (index as usize % 30))).collect()
}

/// A directory at term 1 without a log.
fn directory() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    Metadata::default().write(&Disk, dir.path(), Term(1), None).unwrap();
    dir
}

fn names(dir: &Path) -> BTreeSet<String> {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Waits until something about the directory is true.
fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn what_was_appended_is_loaded_after_a_clean_stop() {
    let dir = directory();
    let all = entries(1..=300);
    for (from, to) in [(1, 100), (101, 101), (102, 300)] {
        let running = start(dir.path());
        running.append_each(from, &all[from as usize - 1..to as usize]);
        running.wait_for(to);
        running.store.stop().unwrap();
        assert!(!names(dir.path()).iter().any(|name| name.starts_with("open-")), "{:?}", names(dir.path()));
        let loaded = load(dir.path());
        assert_eq!((loaded.first_index, &loaded.entries[..]), (Index(1), &all[..to as usize]));
        assert_eq!(loaded.notes, [] as [&str; 0]);
    }
}

#[test]
fn a_stop_serves_what_is_queued() {
    let dir = directory();
    let running = start(dir.path());
    running.append_each(1, &entries(1..=50));
    running.store.stop().unwrap();
    assert_eq!(load(dir.path()).entries, entries(1..=50));
}

#[test]
fn what_queues_during_a_sync_is_made_durable_by_one_more() {
    let (dir, fs) = (directory(), TestFs::new());
    let running = start_on(Arc::new(fs.clone()), dir.path());
    let all: Vec<_> = (1..=101).map(|index| entry(index, 8)).collect();
    fs.hold("write open-1");
    running.append_each(1, &all[..1]);
    fs.wait_until_held();
    running.append_each(2, &all[1..]);
    assert_eq!(running.store.queued_bytes(), 101 * 24, "nothing is durable yet");
    fs.release();
    assert_eq!(running.wait_for(101), 2, "one report for the first request, one for all others");
    assert_eq!(running.store.queued_bytes(), 0);
    // Zeros with the format were written before.
    assert_eq!((fs.count("write open-1"), fs.count("sync_data open-1")), (3, 3));
    running.store.stop().unwrap();
    assert_eq!(load(dir.path()).entries, all);
}

#[test]
fn an_append_never_goes_to_blocks_that_are_only_reserved() {
    let size = 2 * FILL_AHEAD_BYTES;
    let (dir, fs) = (directory(), TestFs::new());
    let running = start_sized(Arc::new(fs.clone()), dir.path(), size);
    // The segment is waited for, so only its beginning is filled; the second append ends behind that.
    let large = [entry(1, 8), entry(2, FILL_AHEAD_BYTES), entry(3, 8)];
    running.append_each(1, &large[..1]);
    running.wait_for(1);
    let before = (fs.count("write open-1"), fs.count("sync_data open-1"));
    running.append_each(2, &large[1..2]);
    running.wait_for(2);
    let after = (fs.count("write open-1"), fs.count("sync_data open-1"));
    assert_eq!((after.0 - before.0, after.1 - before.1), (2, 2), "zeros and the append, each with its sync");
    running.append_each(3, &large[2..]);
    running.wait_for(3);
    assert_eq!(fs.count("write open-1"), after.0 + 1, "there are zeros already");
    running.store.stop().unwrap();
    assert_eq!(load(dir.path()).entries, large);
}

#[test]
fn nothing_is_reported_before_it_is_synced() {
    let (dir, fs) = (directory(), TestFs::new());
    let running = start_on(Arc::new(fs.clone()), dir.path());
    fs.hold("sync_data open-1");
    running.append_each(1, &entries(1..=1));
    fs.wait_until_held();
    assert!(running.events.try_recv().is_err());
    fs.release();
    assert_eq!(running.wait(), Event::Persisted { seq: Seq(1) });
}

#[test]
fn a_segment_is_filled_to_its_last_byte_and_not_beyond() {
    // Two batches of one entry that fill a segment exactly; 8 bytes more do not fit.
    let first = SEGMENT_SIZE - HEADER_SIZE - 2 * (BATCH_HEADER_SIZE + 16) - 16;
    for (second, segments) in [(16, 1), (24, 2)] {
        let dir = directory();
        let running = start(dir.path());
        let all = [entry(1, first), entry(2, second), entry(3, 8)];
        for (index, entry) in (1..).zip(&all) {
            running.append_each(index, std::slice::from_ref(entry));
            running.wait_for(index);
        }
        running.store.stop().unwrap();
        let expected: &[&str] = match segments {
            1 => &["0000000000000001-0000000000000002", "0000000000000003-0000000000000003"],
            _ => &["0000000000000001-0000000000000001", "0000000000000002-0000000000000003"],
        };
        let closed: Vec<_> = names(dir.path()).into_iter().filter(|name| name.starts_with('0')).collect();
        assert_eq!(closed, expected);
        let size = fs::metadata(dir.path().join(&closed[0])).unwrap().len();
        assert_eq!(size == SEGMENT_SIZE as u64, segments == 1);
        assert_eq!(load(dir.path()).entries, all);
    }
}

#[test]
fn an_entry_larger_than_a_segment_gets_one_of_its_own() {
    let dir = directory();
    let running = start(dir.path());
    let all = [entry(1, 8), entry(2, 3 * SEGMENT_SIZE), entry(3, 8)];
    running.store.append(Index(1), all.to_vec(), Seq(1));
    running.wait_for(1);
    running.store.stop().unwrap();
    assert_eq!(load(dir.path()).entries, all);
    assert!(names(dir.path()).contains("0000000000000002-0000000000000002"));
}

#[test]
fn a_request_that_fills_several_segments_is_reported_once_all_of_it_is_durable() {
    let dir = directory();
    let running = start(dir.path());
    let all = entries(1..=200);
    running.store.append(Index(1), all.clone(), Seq(1));
    assert_eq!(running.wait_for(1), 1);
    running.store.stop().unwrap();
    assert_eq!(load(dir.path()).entries, all);
}

#[test]
fn an_idle_node_has_no_open_segment_and_a_busy_one_two_spares() {
    let dir = directory();
    let running = start(dir.path());
    running.store.persist_vote(Term(2), None, Seq(1));
    running.wait_for(1);
    assert!(!names(dir.path()).iter().any(|name| name.starts_with("open-")));
    running.store.append(Index(1), entries(1..=1), Seq(2));
    running.wait_for(2);
    wait_until("two spares", || names(dir.path()).contains("open-3"));
    let mut spare = vec![0; SEGMENT_SIZE];
    spare[..8].copy_from_slice(&crate::store::segment::FORMAT.to_le_bytes());
    for name in ["open-2", "open-3"] {
        let path = dir.path().join(name);
        wait_until("a spare of full size", || fs::metadata(&path).unwrap().len() == SEGMENT_SIZE as u64);
        let is_empty = || fs::read(&path).unwrap() == spare;
        wait_until("the format and zeros", is_empty);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
    running.store.stop().unwrap();
    let expected = ["0000000000000001-0000000000000001", "dqlite-lock", "metadata1", "metadata2"];
    assert_eq!(names(dir.path()), expected.map(String::from).into());
}

#[test]
fn a_counter_whose_name_is_taken_is_skipped() {
    let dir = directory();
    let running = start(dir.path());
    fs::write(dir.path().join("open-1"), "somebody else's").unwrap();
    running.append_each(1, &entries(1..=1));
    running.wait_for(1);
    running.store.stop().unwrap();
    assert_eq!(fs::read(dir.path().join("open-1")).unwrap(), b"somebody else's");
}

#[test]
fn votes_and_appends_become_durable_in_order() {
    let dir = directory();
    let running = start(dir.path());
    running.store.append(Index(1), entries(1..=1), Seq(1));
    running.store.persist_vote(Term(5), Some(ServerId(3)), Seq(2));
    running.store.append(Index(2), entries(2..=2), Seq(3));
    running.wait_for(3);
    running.store.stop().unwrap();
    let loaded = load(dir.path());
    assert_eq!((loaded.term, loaded.voted_for), (Term(5), Some(ServerId(3))));
    assert_eq!(loaded.entries, entries(1..=2));
}

#[test]
fn a_failure_is_reported_once_and_nothing_is_written_after_it() {
    for failing in ["write open-1", "sync_data open-1", "create open-1", "allocate open-1", "sync_dir"] {
        let (dir, fs) = (directory(), TestFs::new());
        let running = start_on(Arc::new(fs.clone()), dir.path());
        fs.fail(failing);
        running.append_each(1, &entries(1..=1));
        let Event::Failed { seq: Seq(1), error } = running.wait() else {
            panic!("{failing} was not noticed")
        };
        assert!(error.to_string().contains(&dir.path().join("open-1").display().to_string()), "{error}");
        fs.fail("nothing");
        // Spares are prepared by another thread, which may not be done with one.
        let of_the_log = |done: &String| done.contains("open-1") || done.contains("metadata");
        let count = || fs.operations().iter().filter(|done| of_the_log(done)).count();
        let operations = count();
        running.append_each(2, &entries(2..=3));
        running.store.persist_vote(Term(9), None, Seq(9));
        assert_eq!(running.store.stop().unwrap_err(), error);
        assert!(running.events.try_recv().is_err(), "{failing}: something was reported after the failure");
        assert_eq!(count(), operations, "{failing}: {:?}", fs.operations());
        assert_eq!(load(dir.path()).term, Term(1));
    }
}

#[test]
fn a_failure_leaves_what_was_reported() {
    let (dir, fs) = (directory(), TestFs::new());
    let running = start_on(Arc::new(fs.clone()), dir.path());
    running.append_each(1, &entries(1..=3));
    running.wait_for(3);
    fs.fail("write open-1");
    running.append_each(4, &entries(4..=5));
    assert!(matches!(running.wait(), Event::Failed { seq: Seq(4), .. }));
    running.store.stop().unwrap_err();
    assert_eq!(load(dir.path()).entries, entries(1..=3));
}

#[test]
fn an_append_at_the_wrong_index_is_a_failure() {
    let dir = directory();
    let running = start(dir.path());
    running.append_each(1, &entries(1..=2));
    running.wait_for(2);
    running.store.append(Index(4), entries(4..=4), Seq(3));
    assert!(matches!(running.wait(), Event::Failed { seq: Seq(3), .. }));
}

#[test]
fn a_segment_that_cannot_be_closed_is_a_failure() {
    let (dir, fs) = (directory(), TestFs::new());
    let running = start_on(Arc::new(fs.clone()), dir.path());
    running.append_each(1, &entries(1..=1));
    running.wait_for(1);
    fs.fail("rename");
    running.store.truncate(Index(1), Seq(2));
    assert!(matches!(running.wait(), Event::Failed { seq: Seq(2), .. }));
    running.store.stop().unwrap_err();
    assert_eq!(load(dir.path()).entries, entries(1..=1));
}

#[test]
fn a_segment_that_cannot_be_closed_is_reported_by_an_idle_node() {
    let (dir, fs) = (directory(), TestFs::new());
    let running = start_on(Arc::new(fs.clone()), dir.path());
    fs.hold("set_len open-1");
    fs.fail("set_len open-1");
    running.append_each(1, &[entry(1, SEGMENT_SIZE - 96), entry(2, SEGMENT_SIZE - 96)]);
    running.wait_for(2);
    fs.wait_until_held();
    fs.release();
    match running.wait() {
        Event::Failed { seq: Seq(3), error } => assert!(error.to_string().contains("open-1"), "{error}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_truncated_log_goes_on_with_other_entries() {
    for from in [1, 2, 40, 41, 100, 150, 151] {
        let dir = directory();
        let running = start(dir.path());
        // Segments of different runs, so that some cuts are inside one and some between two.
        running.append_each(1, &entries(1..=40));
        running.wait_for(40);
        running.store.stop().unwrap();
        let running = start(dir.path());
        running.append_each(41, &entries(41..=150));
        running.store.truncate(Index(from), Seq(1000));
        let mut other = entry(1, 64);
        other.term = Term(1);
        running.store.append(Index(from), vec![other.clone()], Seq(1001));
        running.wait_for(1001);
        running.store.stop().unwrap();
        let mut expected = entries(1..=150);
        expected.truncate(from as usize - 1);
        expected.push(other);
        assert_eq!(load(dir.path()).entries, expected, "cut at {from}");
    }
}

/// The C library would read either of the two, and find the other one in its way later.
#[test]
fn a_truncated_segment_and_the_shorter_one_are_never_both_there() {
    let (dir, fs) = (directory(), TestFs::new());
    let running = start_on(Arc::new(fs.clone()), dir.path());
    running.append_each(1, &entries(1..=200));
    running.wait_for(200);
    running.store.truncate(Index(15), Seq(201));
    running.wait_for(201);
    let operations = fs.operations();
    let written = |prefix: &str| operations.iter().any(|operation| operation.contains(prefix));
    assert!(written("tmp-open-") && !written("tmp-0"), "{operations:?}");
    running.store.stop().unwrap();
    assert_eq!(load(dir.path()).entries, entries(1..=14));
}

#[test]
fn a_store_dropped_without_stop_is_as_after_a_crash() {
    let dir = directory();
    let running = start(dir.path());
    running.append_each(1, &entries(1..=20));
    running.wait_for(20);
    drop(running.store);
    assert!(names(dir.path()).contains("open-1"), "nothing was closed");
    assert_eq!(load(dir.path()).entries, entries(1..=20));
}

#[test]
fn a_receiver_that_panics_fails_the_store_and_not_the_process() {
    let dir = directory();
    let mut directory = Directory::open(dir.path()).unwrap().lock().unwrap();
    let loaded = directory.load(AutoRecovery::On).unwrap();
    let options = Options { segment_size: SEGMENT_SIZE };
    let store = Store::start(directory, &loaded, options, Box::new(|_| panic!("as intended"))).unwrap();
    store.append(Index(1), entries(1..=1), Seq(1));
    assert!(store.stop().unwrap_err().to_string().contains("panicked"));
}

#[test]
fn an_empty_append_is_reported_like_any_other() {
    let dir = directory();
    let running = start(dir.path());
    running.store.append(Index(1), Vec::new(), Seq(1));
    running.wait_for(1);
    running.store.append(Index(1), vec![Entry { payload: Bytes::new(), ..entry(1, 0) }], Seq(2));
    running.wait_for(2);
    running.store.stop().unwrap();
    assert_eq!(load(dir.path()).entries.len(), 1);
}

// ---- no space ----

const FOREVER: usize = usize::MAX;

impl Running {
    /// Waits for the report that there is no space for an append.
    fn wait_until_full(&self) -> (Seq, Index) {
        loop {
            match self.wait() {
                Event::Full { seq, stored, error } => {
                    assert!(error.to_string().contains("No space left on device"), "{error}");
                    return (seq, stored);
                }
                Event::Persisted { .. } | Event::SpaceLow { .. } => {}
                other => panic!("{other:?} instead of a full disk"),
            }
        }
    }
}

/// A store on this file system with entries 1 to 3 and all its spares.
fn with_spares(fs: &TestFs, dir: &Path) -> Running {
    let running = start_on(Arc::new(fs.clone()), dir);
    running.append_each(1, &entries(1..=3));
    running.wait_for(3);
    wait_until("the spares are prepared", || fs.count("sync open-3") > 0);
    running
}

#[test]
fn spares_that_find_no_space_are_reported_and_prepared_once_there_is_some() {
    let (dir, fs) = (directory(), TestFs::new());
    let running = with_spares(&fs, dir.path());
    fs.no_space(&["allocate"], FOREVER);
    running.store.append(Index(4), vec![entry(4, SEGMENT_SIZE - 96)], Seq(4));
    let (mut low, mut durable) = (false, false);
    while !(low && durable) {
        match running.wait() {
            Event::Persisted { .. } => durable = true,
            Event::SpaceLow { .. } => low = true,
            other => panic!("{other:?}"),
        }
    }
    // What is on its way still has a spare.
    running.store.append(Index(5), vec![entry(5, SEGMENT_SIZE - 96)], Seq(5));
    running.wait_for(5);
    running.store.append(Index(6), vec![entry(6, SEGMENT_SIZE - 96)], Seq(6));
    assert_eq!(running.wait_until_full(), (Seq(6), Index(5)));
    let begin = Instant::now();
    fs.free();
    assert_eq!(running.wait(), Event::SpaceBack);
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    running.store.resume();
    running.store.append(Index(6), vec![entry(6, 8)], Seq(7));
    running.wait_for(7);
    running.store.stop().unwrap();
    assert_eq!(load(dir.path()).entries.len(), 6);
}

/// Runs into a lack of space with the fourth entry, then goes on; `times` is how often there is none.
fn drop_and_resume(operation: &'static str, times: usize, entry_4: Entry) {
    let (dir, fs) = (directory(), TestFs::new());
    let running = with_spares(&fs, dir.path());
    fs.no_space(&[operation], times);
    running.store.append(Index(4), vec![entry_4], Seq(4));
    running.store.append(Index(5), vec![entry(5, 8)], Seq(5));
    running.store.persist_vote(Term(2), Some(ServerId(7)), Seq(6));
    assert_eq!(running.wait_until_full(), (Seq(4), Index(3)));
    fs.free();
    // Asked for before anybody could know.
    running.store.append(Index(4), vec![entry(40, 8)], Seq(7));
    running.store.truncate(Index(4), Seq(8));
    running.wait_for(8);
    assert_eq!(running.store.queued_bytes(), 0, "what is dropped waits no more");
    // A crash here finds the log as it was.
    let copy = tempfile::tempdir().unwrap();
    for name in names(dir.path()) {
        fs::copy(dir.path().join(&name), copy.path().join(&name)).unwrap();
    }
    assert_eq!(load(copy.path()).entries, entries(1..=3));
    running.store.resume();
    running.append_each_as(4, &entries(4..=40), 9);
    running.wait_for(45);
    drop(running);
    let loaded = load(dir.path());
    assert_eq!(loaded.entries, entries(1..=40));
    let metadata = Directory::open(dir.path()).unwrap().lock().unwrap().metadata;
    assert_eq!((metadata.term, metadata.voted_for), (Term(2), Some(ServerId(7))));
}

impl Running {
    fn append_each_as(&self, first: u64, entries: &[Entry], seq: u64) {
        for (n, entry) in (0..).zip(entries) {
            self.store.append(Index(first + n), vec![entry.clone()], Seq(seq + n));
        }
    }
}

#[test]
fn appends_without_space_are_dropped_until_resumed_and_leave_no_trace() {
    drop_and_resume("write open-1", 1, entry(4, 80));
}

#[test]
fn a_segment_whose_blocks_cannot_be_overwritten_ends_where_it_is_durable() {
    drop_and_resume("write open-1", 2, entry(4, 80));
}

#[test]
fn an_entry_larger_than_a_segment_that_finds_no_space_leaves_no_trace() {
    drop_and_resume("write open-2", 1, entry(4, 5 * SEGMENT_SIZE));
    drop_and_resume("write open-2", 2, entry(4, 5 * SEGMENT_SIZE));
}

#[test]
fn of_a_request_that_fills_two_segments_what_is_durable_counts() {
    let (dir, fs) = (directory(), TestFs::new());
    let running = with_spares(&fs, dir.path());
    fs.no_space(&["write open-2"], 1);
    let big = |index| entry(index, SEGMENT_SIZE / 2 - 300);
    running.store.append(Index(4), vec![big(4), big(5), big(6)], Seq(4));
    let (seq, stored) = running.wait_until_full();
    assert!(seq == Seq(4) && stored > Index(3) && stored < Index(6), "{seq} {stored}");
    drop(running);
    assert_eq!(load(dir.path()).next_index(), stored.next());
}

#[test]
fn a_vote_needs_no_space_once_both_metadata_files_exist() {
    let (dir, fs) = (directory(), TestFs::new());
    let running = start_on(Arc::new(fs.clone()), dir.path());
    running.store.persist_vote(Term(2), None, Seq(1));
    running.wait_for(1);
    fs.no_space(&["create"], FOREVER);
    for (term, seq) in [(3, 2), (4, 3), (5, 4)] {
        running.store.persist_vote(Term(term), Some(ServerId(term)), Seq(seq));
        running.wait_for(seq);
        let read = Metadata::read(&Disk, dir.path()).unwrap();
        assert_eq!((read.term, read.voted_for), (Term(term), Some(ServerId(term))));
    }
    running.store.stop().unwrap();
}

#[test]
fn a_vote_that_finds_no_space_waits_and_holds_up_no_stop() {
    let (dir, fs) = (directory(), TestFs::new());
    let running = start_on(Arc::new(fs.clone()), dir.path());
    fs.no_space(&["create", "rename"], FOREVER);
    running.store.persist_vote(Term(2), None, Seq(1));
    assert!(running.events.recv_timeout(Duration::from_millis(600)).is_err(), "nothing is promised");
    fs.free();
    running.wait_for(1);
    fs.no_space(&["create", "rename", "write"], FOREVER);
    running.store.persist_vote(Term(3), None, Seq(2));
    std::thread::sleep(Duration::from_millis(50));
    running.store.stop().unwrap();
    assert_eq!(Metadata::read(&Disk, dir.path()).unwrap().term, Term(2));
}

#[test]
fn a_stop_does_not_wait_for_space() {
    type Ask = fn(&Store);
    type End = fn(Store) -> Option<Error>;
    let waiting: [(&str, Ask); 4] = [
        ("the end of the log", |_| {}),
        ("a truncation", |store| store.truncate(Index(2), Seq(4))),
        ("a snapshot", |store| store.store_snapshot(snapshot_of_entry_2())),
        ("a reader", |store| store.read_entries(Index(1), Index(1), Box::new(|_| {}))),
    ];
    let ends: [(&str, End); 2] = [("stop", |store| Some(store.stop().unwrap_err())), ("drop", |_| None)];
    for ((what, ask), (end, ended)) in waiting.iter().flat_map(|ask| ends.iter().map(move |end| (ask, end))) {
        let (dir, fs) = (directory(), TestFs::new());
        let running = with_spares(&fs, dir.path());
        fs.no_space(&["rename open-1 0"], FOREVER);
        ask(&running.store);
        let (sender, answer) = channel();
        let (store, ended) = (running.store, *ended);
        std::thread::spawn(move || sender.send(ended(store)));
        let error = answer.recv_timeout(PATIENCE).unwrap_or_else(|e| panic!("{what} holds up {end}: {e}"));
        if let Some(error) = error {
            assert!(error.to_string().contains("close "), "{what}: {error}");
        }
        fs.free();
        assert_eq!(load(dir.path()).entries, entries(1..=3), "{what}, {end}");
    }
}

fn snapshot_of_entry_2() -> SnapshotRequest {
    let configuration = Configuration { servers: Vec::new() };
    let point =
        SnapshotPoint { index: Index(2), term: Term(1), configuration, configuration_index: Index(1) };
    SnapshotRequest { point, content: Box::new(NoContent), trailing: 9, compression: Compression::Off }
}

struct NoContent;

impl SnapshotContent for NoContent {
    fn size(&self) -> u64 {
        0
    }
    fn write_to(&self, _: &mut dyn io::Write) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_sync_that_fails_for_lack_of_space_is_final() {
    let (dir, fs) = (directory(), TestFs::new());
    let running = with_spares(&fs, dir.path());
    fs.no_space(&["sync_data open-1"], FOREVER);
    running.store.append(Index(4), vec![entry(4, 8)], Seq(4));
    match running.wait() {
        Event::Failed { seq, .. } => assert_eq!(seq, Seq(4)),
        other => panic!("{other:?}"),
    }
    assert!(running.store.stop().is_err());
}

#[test]
fn the_first_vote_leaves_room_for_the_next_one() {
    for votes_before in [0, 1] {
        let (dir, fs) = (directory(), TestFs::new());
        let running = start_on(Arc::new(fs.clone()), dir.path());
        (1..=votes_before).for_each(|seq| running.store.persist_vote(Term(seq + 1), None, Seq(seq)));
        if votes_before > 0 {
            running.wait_for(votes_before);
        }
        running.store.stop().unwrap();
        assert!(["metadata1", "metadata2"].iter().all(|name| dir.path().join(name).exists()));
        assert_eq!(load(dir.path()).term, Term(1 + votes_before));
    }
}

#[test]
fn a_truncation_needs_no_more_space_than_a_spare() {
    let (dir, fs) = (directory(), TestFs::new());
    let running = with_spares(&fs, dir.path());
    fs.no_space(&["create", "allocate"], FOREVER);
    running.store.truncate(Index(3), Seq(4));
    running.store.truncate(Index(2), Seq(5));
    running.store.append(Index(2), vec![entry(20, 8)], Seq(6));
    assert_eq!(running.wait_until_full(), (Seq(6), Index(1)));
    fs.free();
    running.store.resume();
    running.store.append(Index(2), vec![entry(20, 8)], Seq(7));
    running.wait_patiently_for(7);
    drop(running);
    assert_eq!(load(dir.path()).entries, [entry(1, 8), entry(20, 8)]);
}

impl Running {
    /// Like [`Running::wait_for`], whatever is reported about space.
    fn wait_patiently_for(&self, wanted: u64) {
        while self.wait() != (Event::Persisted { seq: Seq(wanted) }) {}
    }
}

#[test]
fn a_segment_in_which_nothing_is_durable_is_removed_in_the_end() {
    let (dir, fs) = (directory(), TestFs::new());
    let running = with_spares(&fs, dir.path());
    fs.no_space(&["write open-2"], 1);
    running.store.append(Index(4), vec![entry(4, 5 * SEGMENT_SIZE)], Seq(4));
    assert_eq!(running.wait_until_full(), (Seq(4), Index(3)));
    running.store.stop().unwrap();
    let expected = ["0000000000000001-0000000000000003", "dqlite-lock", "metadata1", "metadata2"];
    assert_eq!(names(dir.path()), expected.map(String::from).into());
}

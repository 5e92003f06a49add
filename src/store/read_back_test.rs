use super::*;
use crate::raft::{Configuration, EntryKind, Role, Seq, Server, ServerId, SnapshotPoint, Term};
use crate::store::fs::Disk;
use crate::store::metadata::Metadata;
use crate::store::test_fs::{TestFs, receive};
use crate::store::{
    AutoRecovery, Compression, Directory, Event, InstallRequest, OnEvent, Options, SnapshotContent,
    SnapshotRequest, Store,
};
use parking_lot::Mutex;
use std::io::Write;
use std::path::Path;

const SEGMENT_SIZE: usize = 4096;
/// Three of them fill a segment.
const ENTRY_SIZE: usize = 1000;
const PATIENCE: Duration = Duration::from_secs(20);

struct Databases;

impl SnapshotContent for Databases {
    fn size(&self) -> u64 {
        9
    }
    fn write_to(&self, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(b"databases")
    }
}

struct Running {
    store: Store,
    events: Receiver<Event>,
    seq: u64,
    next: u64,
}

fn directory() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    Metadata::default().write(&Disk, dir.path(), Term(9), None).unwrap();
    dir
}

fn start(fs: Arc<dyn Fs>, dir: &Path, segment_size: usize) -> Running {
    let mut directory = Directory::open_on(fs, dir).unwrap().lock().unwrap();
    let loaded = directory.load(AutoRecovery::Off).unwrap();
    let (sender, events) = channel();
    let sender = Mutex::new(sender);
    let on_event: OnEvent = Box::new(move |event| drop(sender.lock().send(event)));
    let next = loaded.next_index().0;
    let store = Store::start(directory, &loaded, Options { segment_size }, on_event).unwrap();
    Running { store, events, seq: 0, next }
}

fn entry_of(index: u64, term: u64, size: usize) -> Entry {
    let kind = if index == 1 { EntryKind::Change } else { EntryKind::Command };
    Entry { term: Term(term), kind, payload: vec![(index * 7 + term) as u8; size].into() }
}

fn entry(index: u64, term: u64) -> Entry {
    entry_of(index, term, ENTRY_SIZE)
}

fn entries(range: std::ops::RangeInclusive<u64>, term: u64) -> Vec<Entry> {
    range.map(|index| entry(index, term)).collect()
}

fn point(index: u64, term: u64) -> SnapshotPoint {
    let server = Server { id: ServerId(1), address: "1".into(), role: Role::Voter };
    SnapshotPoint {
        index: Index(index),
        term: Term(term),
        configuration: Configuration { servers: vec![server] },
        configuration_index: Index(1),
    }
}

impl Running {
    fn wait(&self) -> Event {
        self.events.recv_timeout(PATIENCE).expect("an event")
    }

    /// Appends durably, one request for each entry.
    fn append(&mut self, entries: Vec<Entry>) {
        for entry in entries {
            self.seq += 1;
            self.store.append(Index(self.next), vec![entry], Seq(self.seq));
            self.next += 1;
            assert_eq!(self.wait(), Event::Persisted { seq: Seq(self.seq) });
        }
    }

    fn truncate(&mut self, from: u64) {
        (self.seq, self.next) = (self.seq + 1, from);
        self.store.truncate(Index(from), Seq(self.seq));
        assert_eq!(self.wait(), Event::Persisted { seq: Seq(self.seq) });
    }

    fn install(&mut self, index: u64, term: u64) {
        let content = Arc::new(receive(&self.store, b"databases", Compression::Off).unwrap());
        self.store.install_snapshot(InstallRequest { point: point(index, term), content });
        assert_eq!(self.wait(), Event::SnapshotInstalled { index: Index(index) });
        self.next = index + 1;
    }

    fn ask(&self, first: u64, last: u64) -> Receiver<Result<Vec<Entry>, Error>> {
        let (reply, answer) = channel();
        self.store.read_entries(Index(first), Index(last), Box::new(move |read| drop(reply.send(read))));
        answer
    }

    fn read(&self, first: u64, last: u64) -> Result<Vec<Entry>, Error> {
        self.ask(first, last).recv_timeout(PATIENCE).expect("an answer")
    }

    /// One answer after the other, as for a follower.
    fn read_all(&self, first: u64, last: u64) -> Vec<Entry> {
        let mut all = Vec::new();
        while first + (all.len() as u64) <= last {
            let more = self.read(first + all.len() as u64, last).unwrap();
            assert!(!more.is_empty());
            all.extend(more);
        }
        all
    }
}

#[test]
fn what_was_appended_is_read_back_from_closed_segments_and_from_the_one_in_use() {
    let dir = directory();
    let mut running = start(Arc::new(Disk), dir.path(), SEGMENT_SIZE);
    running.append(entries(1..=11, 1));
    for first in [1, 2, 4, 11] {
        assert_eq!(running.read_all(first, 11), entries(first..=11, 1), "from {first} on");
    }
    assert_eq!(running.read(2, 2), Ok(entries(2..=2, 1)), "and nothing behind the last one");
    running.append(entries(12..=14, 1));
    assert_eq!(running.read_all(11, 14), entries(11..=14, 1), "the log goes on");
    running.store.stop().unwrap();
    let running = start(Arc::new(Disk), dir.path(), SEGMENT_SIZE);
    assert_eq!(running.read_all(1, 14), entries(1..=14, 1), "also those of an earlier run");
}

#[test]
fn an_answer_has_as_many_entries_as_a_message_and_a_large_one_alone() {
    let dir = directory();
    let mut running = start(Arc::new(Disk), dir.path(), 8 << 20);
    let sizes = [8, 400 << 10, 400 << 10, 400 << 10, 2 << 20, 8, 9 << 20, 8];
    running.append((1..).zip(sizes).map(|(index, size)| entry_of(index, 1, size)).collect());
    for (first, count) in [(1, 3), (2, 2), (4, 1), (5, 1), (6, 1), (7, 1), (8, 1)] {
        let read = running.read(first, 8).unwrap();
        let expected = (first..).zip(&sizes[first as usize - 1..]).take(count);
        let expected: Vec<_> = expected.map(|(index, size)| entry_of(index, 1, *size)).collect();
        assert!(read == expected, "from {first} on");
    }
    let dir = directory();
    let mut running = start(Arc::new(Disk), dir.path(), 8 << 20);
    running.append(vec![entry_of(1, 1, 8)]);
    let many = (2..=5001).map(|index| entry_of(index, 1, 8)).collect();
    running.store.append(Index(2), many, Seq(2));
    running.wait();
    assert_eq!(running.read(1, 5001).unwrap().len(), APPEND_ENTRIES_MAX);
}

#[test]
fn appends_do_not_wait_for_a_disk_that_takes_long_to_read() {
    let (dir, fs) = (directory(), TestFs::new());
    let mut running = start(Arc::new(fs.clone()), dir.path(), SEGMENT_SIZE);
    running.append(entries(1..=4, 1));
    fs.hold("read 0000000000000001-0000000000000003");
    let answer = running.ask(1, 3);
    fs.wait_until_held();
    running.append(entries(5..=9, 1));
    fs.release();
    assert_eq!(answer.recv_timeout(PATIENCE).unwrap(), Ok(entries(1..=3, 1)));
}

#[test]
fn a_failed_read_is_an_answer_and_the_next_one_may_succeed() {
    let (dir, fs) = (directory(), TestFs::new());
    let mut running = start(Arc::new(fs.clone()), dir.path(), SEGMENT_SIZE);
    running.append(entries(1..=4, 1));
    fs.fail("read 0000000000000001");
    let error = running.read(1, 3).unwrap_err().to_string();
    assert!(error.contains("0000000000000001-0000000000000003"), "{error}");
    fs.fail("nothing");
    assert_eq!(running.read(1, 3), Ok(entries(1..=3, 1)));
    running.append(entries(5..=5, 1));
}

#[test]
fn a_damaged_entry_is_refused_and_those_before_it_are_read() {
    let dir = directory();
    let mut running = start(Arc::new(Disk), dir.path(), SEGMENT_SIZE);
    running.append(entries(1..=4, 1));
    running.read(4, 4).unwrap();
    let path = dir.path().join("0000000000000001-0000000000000003");
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.len() - 10;
    bytes[at] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(running.read(1, 3), Ok(entries(1..=2, 1)));
    let error = running.read(3, 3).unwrap_err().to_string();
    assert!(error.contains("0000000000000001-0000000000000003: damaged at byte"), "{error}");
}

#[test]
fn what_a_snapshot_has_removed_is_not_there_and_the_rest_is() {
    let (dir, fs) = (directory(), TestFs::new());
    let mut running = start(Arc::new(fs.clone()), dir.path(), SEGMENT_SIZE);
    running.append(entries(1..=9, 1));
    // Found by its name, and gone when it is opened.
    fs.hold("read 0000000000000001-0000000000000003");
    let answer = running.ask(1, 9);
    fs.wait_until_held();
    running.store.store_snapshot(SnapshotRequest {
        point: point(9, 1),
        content: Box::new(Databases),
        trailing: 4,
        compression: Compression::Off,
    });
    assert_eq!(running.wait(), Event::SnapshotStored { index: Index(9), size_bytes: 9 });
    fs.release();
    let error = answer.recv_timeout(PATIENCE).unwrap().unwrap_err().to_string();
    assert!(error.contains("there is no entry 1 in"), "{error}");
    assert_eq!(running.read_all(6, 9), entries(6..=9, 1));
}

#[test]
fn a_segment_that_is_truncated_meanwhile_still_gives_what_stays() {
    let (dir, fs) = (directory(), TestFs::new());
    let mut running = start(Arc::new(fs.clone()), dir.path(), SEGMENT_SIZE);
    running.append(entries(1..=7, 1));
    // No name says where these entries are.
    fs.hold("rename tmp-open-4 open-4");
    running.store.truncate(Index(6), Seq(8));
    fs.wait_until_held();
    let answer = running.ask(4, 5);
    std::thread::sleep(Duration::from_millis(50));
    fs.release();
    assert_eq!(running.wait(), Event::Persisted { seq: Seq(8) });
    (running.seq, running.next) = (8, 6);
    running.append(entries(6..=8, 2));
    assert_eq!(answer.recv_timeout(PATIENCE).unwrap(), Ok(entries(4..=5, 1)));
    assert_eq!(running.read_all(4, 8), [entries(4..=5, 1), entries(6..=8, 2)].concat());
}

#[test]
fn what_was_kept_of_a_segment_does_not_come_back_after_a_truncation() {
    let dir = directory();
    let mut running = start(Arc::new(Disk), dir.path(), SEGMENT_SIZE);
    running.append(entries(1..=4, 1));
    assert_eq!(running.read(1, 1), Ok(entries(1..=1, 1)));
    running.truncate(2);
    running.append(entries(2..=4, 2));
    assert_eq!(running.read_all(1, 4), [entries(1..=1, 1), entries(2..=4, 2)].concat());
}

#[test]
fn an_installed_snapshot_leaves_nothing_of_the_old_log_to_read() {
    let (dir, fs) = (directory(), TestFs::new());
    let mut running = start(Arc::new(fs.clone()), dir.path(), SEGMENT_SIZE);
    running.append(entries(1..=7, 1));
    fs.hold("read 0000000000000004-0000000000000006");
    let answer = running.ask(4, 6);
    fs.wait_until_held();
    running.install(20, 3);
    fs.release();
    assert!(answer.recv_timeout(PATIENCE).unwrap().is_err());
    running.append(entries(21..=25, 3));
    assert_eq!(running.read_all(21, 25), entries(21..=25, 3));
    assert!(running.read(7, 7).is_err());
}

fn wait_for(fs: &TestFs, begin: &str) {
    while !fs.operations().iter().any(|operation| operation.starts_with(begin)) {
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_store_stops_while_entries_are_read() {
    let (dir, fs) = (directory(), TestFs::new());
    let mut running = start(Arc::new(fs.clone()), dir.path(), SEGMENT_SIZE);
    running.append(entries(1..=4, 1));
    // Else the first read has the segment in use closed, too.
    wait_for(&fs, "rename open-1");
    fs.hold("read 0000000000000001-0000000000000003");
    let (held, later) = (running.ask(1, 3), running.ask(4, 4));
    fs.wait_until_held();
    let stopping = std::thread::spawn(move || running.store.stop());
    wait_for(&fs, "rename open-2");
    fs.release();
    assert_eq!(stopping.join().unwrap(), Ok(()));
    assert_eq!(held.recv_timeout(PATIENCE).unwrap(), Ok(entries(1..=3, 1)));
    assert_eq!(later.recv_timeout(PATIENCE).unwrap(), Err(Error::Closed));
}

use super::*;
use crate::raft::{Configuration, Entry, EntryKind, Role, Seq, Server, ServerId, Term};
use crate::store::fs::Disk;
use crate::store::metadata::Metadata;
use crate::store::test_fs::TestFs;
use crate::store::{AutoRecovery, Directory, Loaded, Options, Store};
use parking_lot::Mutex;
use std::io::Write;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

const SEGMENT_SIZE: usize = 4096;
const ENTRY_SIZE: usize = 1000;

struct Content(Vec<u8>);

impl SnapshotContent for Content {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }
    fn write_to(&self, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(&self.0)
    }
}

/// Content that cannot be produced.
struct Broken;

impl SnapshotContent for Broken {
    fn size(&self) -> u64 {
        8
    }
    fn write_to(&self, _: &mut dyn Write) -> io::Result<()> {
        Err(io::Error::other("no pages"))
    }
}

fn entry(index: u64) -> Entry {
    let kind = if index == 1 { EntryKind::Change } else { EntryKind::Command };
    Entry { term: Term(1), kind, payload: vec![index as u8; ENTRY_SIZE].into() }
}

fn point(index: u64) -> SnapshotPoint {
    let server = Server { id: ServerId(1), address: "1".into(), role: Role::Voter };
    SnapshotPoint {
        index: Index(index),
        term: Term(1),
        configuration: Configuration { servers: vec![server] },
        configuration_index: Index(1),
    }
}

struct Running {
    store: Store,
    events: Receiver<Event>,
    last: u64,
}

fn start(fs: Arc<dyn Fs>, dir: &Path) -> Running {
    let mut directory = Directory::open_on(fs, dir).unwrap().lock().unwrap();
    let loaded = directory.load(AutoRecovery::On).unwrap();
    let (sender, events) = channel();
    let sender = Mutex::new(sender);
    let on_event: OnEvent = Box::new(move |event| drop(sender.lock().send(event)));
    let options = Options { segment_size: SEGMENT_SIZE };
    let last = loaded.next_index().0 - 1;
    Running { store: Store::start(directory, &loaded, options, on_event).unwrap(), events, last }
}

impl Running {
    fn wait(&self) -> Event {
        self.events.recv_timeout(Duration::from_secs(20)).expect("an event")
    }

    /// Appends durably up to this index, one request per entry.
    fn append_to(&mut self, index: u64) {
        while self.last < index {
            self.last += 1;
            let seq = Seq(self.last);
            self.store.append(Index(self.last), vec![entry(self.last)], seq);
            assert_eq!(self.wait(), Event::Persisted { seq });
        }
    }

    fn snapshot_of(&self, index: u64, trailing: u64, content: impl SnapshotContent + 'static) -> Event {
        let (point, content) = (point(index), Box::new(content));
        self.store.store_snapshot(SnapshotRequest {
            point,
            content,
            trailing,
            compression: Compression::Lz4,
        });
        self.wait()
    }

    fn snapshot(&self, index: u64, trailing: u64) {
        let stored = self.snapshot_of(index, trailing, Content(vec![index as u8; 100_000]));
        assert_eq!(stored, Event::SnapshotStored { index: Index(index), size_bytes: 100_000 });
    }
}

fn directory() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    Metadata::default().write(&Disk, dir.path(), Term(1), None).unwrap();
    dir
}

fn load(dir: &Path) -> Loaded {
    Directory::open(dir).unwrap().lock().unwrap().load(AutoRecovery::On).unwrap()
}

fn listing(dir: &Path) -> Listing {
    Listing::scan(&Disk, dir).unwrap()
}

#[test]
fn a_snapshot_and_the_log_behind_it_are_loaded() {
    let dir = directory();
    let mut running = start(Arc::new(Disk), dir.path());
    running.append_to(10);
    running.snapshot(10, 100);
    running.append_to(12);
    running.store.stop().unwrap();
    let loaded = load(dir.path());
    let snapshot = loaded.snapshot.unwrap();
    assert_eq!((snapshot.point, snapshot.content.len()), (point(10), 100_000));
    assert_eq!((loaded.first_index, loaded.entries.len()), (Index(1), 12));
}

#[test]
fn the_segment_in_use_is_closed_before_a_snapshot_and_appends_go_on_in_the_next() {
    let dir = directory();
    let mut running = start(Arc::new(Disk), dir.path());
    running.append_to(2);
    running.snapshot(2, 100);
    assert_eq!(listing(dir.path()).closed.len(), 1);
    running.append_to(3);
    drop(running);
    assert_eq!(load(dir.path()).entries.len(), 3);
}

#[test]
fn the_two_newest_snapshots_are_kept() {
    let dir = directory();
    let mut running = start(Arc::new(Disk), dir.path());
    for index in [2, 4, 6, 8] {
        running.append_to(index);
        running.snapshot(index, 100);
    }
    let indexes: Vec<_> = listing(dir.path()).snapshots.iter().map(|name| name.index.0).collect();
    assert_eq!(indexes, [6, 8]);
    assert_eq!(listing(dir.path()).leftovers, [] as [&str; 0]);
}

#[test]
fn segments_go_when_all_their_entries_are_behind_the_trailing_ones() {
    // Three entries fill a segment; a snapshot at 9 closes the one in use: 1-3, 4-6, 7-9.
    for (trailing, first_kept) in [(100, 1), (9, 1), (7, 1), (6, 4), (4, 4), (3, 7), (1, 7), (0, 10)] {
        let dir = directory();
        let mut running = start(Arc::new(Disk), dir.path());
        running.append_to(9);
        running.snapshot(9, trailing);
        running.append_to(10);
        running.store.stop().unwrap();
        let loaded = load(dir.path());
        assert_eq!(loaded.first_index, Index(first_kept), "trailing {trailing}");
        assert_eq!(loaded.next_index(), Index(11), "trailing {trailing}");
    }
}

#[test]
fn a_snapshot_that_fails_leaves_no_files_and_the_log_goes_on() {
    let (dir, fs) = (directory(), TestFs::new());
    let mut running = start(Arc::new(fs.clone()), dir.path());
    running.append_to(2);
    let Event::SnapshotFailed { index: Index(2), error } = running.snapshot_of(2, 0, Broken) else {
        panic!("it did not fail")
    };
    assert!(error.to_string().ends_with(": no pages"), "{error}");
    fs.fail("rename tmp-snapshot");
    let failed = running.snapshot_of(2, 0, Content(vec![1; 8]));
    assert!(matches!(failed, Event::SnapshotFailed { index: Index(2), .. }), "{failed:?}");
    assert_eq!((listing(dir.path()).snapshots.len(), listing(dir.path()).leftovers.len()), (0, 0));
    fs.fail("nothing");
    running.append_to(3);
    running.snapshot(3, 0);
    running.store.stop().unwrap();
    assert_eq!(load(dir.path()).snapshot.unwrap().point, point(3));
}

#[test]
fn the_space_that_a_snapshot_lacked_is_told_when_it_is_there() {
    let (dir, fs) = (directory(), TestFs::new());
    let mut running = start(Arc::new(fs.clone()), dir.path());
    running.append_to(2);
    fs.set_space(1000);
    fs.no_space(&["write tmp-snapshot"], usize::MAX);
    let failed = running.snapshot_of(2, 0, Content(vec![1; 8]));
    let no_space = matches!(failed, Event::SnapshotFailed { error: Error::NoSpace(_), .. });
    assert!(no_space, "{failed:?}");
    assert_eq!(running.events.recv_timeout(Duration::from_millis(1500)).ok(), None, "nothing has changed");
    fs.free();
    fs.set_space(1000 + SNAPSHOT_SPACE_LEFT);
    let told = running.events.recv_timeout(Duration::from_secs(20));
    assert_eq!(told, Ok(Event::SnapshotSpaceBack));
    running.snapshot(2, 0);
    // Of any other failure nobody knows when it is over.
    running.append_to(3);
    running.snapshot_of(3, 0, Broken);
    fs.set_space(u64::MAX);
    assert_eq!(running.events.recv_timeout(Duration::from_millis(1500)).ok(), None);
    running.store.stop().unwrap();
}

#[test]
fn a_snapshot_of_the_same_index_replaces_the_older_one_even_after_a_reboot() {
    let dir = directory();
    let mut running = start(Arc::new(Disk), dir.path());
    running.append_to(2);
    running.snapshot(2, 100);
    // As if the older one had been written before the clock restarted.
    let older = listing(dir.path()).snapshots[0];
    let future = SnapshotName { timestamp_ms: u64::MAX / 2, ..older };
    for (from, to) in [(older.to_string(), future.to_string()), (older.meta(), future.meta())] {
        std::fs::rename(dir.path().join(from), dir.path().join(to)).unwrap();
    }
    let stored = running.snapshot_of(2, 100, Content(b"newer".to_vec()));
    assert!(matches!(stored, Event::SnapshotStored { .. }));
    running.store.stop().unwrap();
    assert_eq!(load(dir.path()).snapshot.unwrap().content, &b"newer"[..]);
}

#[test]
fn a_stop_gives_up_a_snapshot_that_is_being_written() {
    let dir = directory();
    let mut running = start(Arc::new(Disk), dir.path());
    running.append_to(2);
    let point = point(2);
    let content = Box::new(Slow(Arc::clone(&running.store.cancelled)));
    running.store.store_snapshot(SnapshotRequest {
        point,
        content,
        trailing: 0,
        compression: Compression::Off,
    });
    running.store.stop().unwrap();
    let loaded = load(dir.path());
    assert!(loaded.snapshot.is_none());
    assert_eq!(loaded.entries.len(), 2);
}

/// Content that is not written before the store is stopped.
struct Slow(Arc<AtomicBool>);

impl SnapshotContent for Slow {
    fn size(&self) -> u64 {
        4 << 20
    }
    fn write_to(&self, out: &mut dyn Write) -> io::Result<()> {
        while !self.0.load(std::sync::atomic::Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(1));
        }
        out.write_all(&vec![0; 4 << 20])
    }
}

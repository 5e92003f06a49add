use super::*;
use crate::raft::{Configuration, Entry, EntryKind, Index, Role, Seq, Server, ServerId, Term};
use crate::store::fs::{Disk, Fs};
use crate::store::metadata::Metadata;
use crate::store::test_fs::{TestFs, receive};
use crate::store::{
    AutoRecovery, Compression, Directory, Loaded, OnEvent, Options, SnapshotContent, SnapshotRequest, Store,
};
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

const SEGMENT_SIZE: usize = 4096;
const PATIENCE: Duration = Duration::from_secs(20);
const CONTENT: &[u8] = &[7; 50_000];

/// Three of them fill a segment.
fn entry(term: u64, index: u64) -> Entry {
    let kind = if index == 1 { EntryKind::Change } else { EntryKind::Command };
    Entry { term: Term(term), kind, payload: vec![index as u8; 1000].into() }
}

fn entries(term: u64, range: std::ops::RangeInclusive<u64>) -> Vec<Entry> {
    range.map(|index| entry(term, index)).collect()
}

fn point(term: u64, index: u64) -> SnapshotPoint {
    let server = Server { id: ServerId(1), address: "1".into(), role: Role::Voter };
    SnapshotPoint {
        index: Index(index),
        term: Term(term),
        configuration: Configuration { servers: vec![server] },
        configuration_index: Index(1),
    }
}

/// 1000 times one byte.
struct Filled(u8);

impl SnapshotContent for Filled {
    fn size(&self) -> u64 {
        1000
    }
    fn write_to(&self, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(&[self.0; 1000])
    }
}

struct Running {
    store: Store,
    events: Receiver<Event>,
}

fn start(fs: Arc<dyn Fs>, dir: &Path) -> Running {
    let mut directory = Directory::open_on(fs, dir).unwrap().lock().unwrap();
    let loaded = directory.load(AutoRecovery::Off).unwrap();
    let (sender, events) = channel();
    let sender = Mutex::new(sender);
    let on_event: OnEvent = Box::new(move |event| drop(sender.lock().send(event)));
    let options = Options { segment_size: SEGMENT_SIZE };
    Running { store: Store::start(directory, &loaded, options, on_event).unwrap(), events }
}

impl Running {
    fn wait(&self) -> Event {
        self.events.recv_timeout(PATIENCE).expect("an event")
    }

    fn append(&self, term: u64, range: std::ops::RangeInclusive<u64>) {
        for index in range {
            self.store.append(Index(index), vec![entry(term, index)], Seq(index));
        }
    }

    fn wait_for(&self, seq: u64) {
        loop {
            match self.wait() {
                Event::Persisted { seq: Seq(persisted) } if persisted >= seq => return,
                Event::Persisted { .. } => {}
                other => panic!("{other:?} while waiting for request {seq}"),
            }
        }
    }

    /// The first event that is not about requests.
    fn wait_for_snapshot(&self) -> Event {
        loop {
            match self.wait() {
                Event::Persisted { .. } => {}
                other => return other,
            }
        }
    }

    fn install(&self, term: u64, index: u64) {
        self.install_content(point(term, index), CONTENT);
    }

    fn install_content(&self, point: SnapshotPoint, content: &[u8]) {
        let content = Arc::new(receive(&self.store, content, Compression::Lz4).unwrap());
        self.store.install_snapshot(InstallRequest { point, content });
    }

    fn store_snapshot(&self, term: u64, index: u64) {
        let content = Box::new(Filled(index as u8));
        self.store.store_snapshot(SnapshotRequest {
            point: point(term, index),
            content,
            trailing: 100,
            compression: Compression::Off,
        });
    }

    fn read(&self, index: u64) -> Result<(SnapshotPoint, Vec<u8>), String> {
        let (sender, receiver) = channel();
        let reply = move |opened| drop(sender.send(opened));
        self.store.open_snapshot(Index(index), Box::new(reply));
        let opened = receiver.recv_timeout(PATIENCE).expect("an answer").map_err(|e| e.to_string())?;
        let mut bytes = Vec::new();
        opened
            .content
            .open()
            .and_then(|mut content| content.read_to_end(&mut bytes))
            .map_err(|e| e.to_string())?;
        Ok((opened.point, bytes))
    }
}

/// A directory at term 9 without a log.
fn directory() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    Metadata::default().write(&Disk, dir.path(), Term(9), None).unwrap();
    dir
}

fn load(dir: &Path) -> Loaded {
    Directory::open(dir).unwrap().lock().unwrap().load(AutoRecovery::Off).unwrap()
}

fn names(dir: &Path) -> BTreeSet<String> {
    std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Snapshot index, first index, and the entries.
fn state(loaded: &Loaded) -> (u64, u64, Vec<Entry>) {
    let snapshot = loaded.snapshot.as_ref().map_or(0, |snapshot| snapshot.point.index.0);
    (snapshot, loaded.first_index.0, loaded.entries.clone())
}

#[test]
fn an_installed_snapshot_takes_the_place_of_the_log_and_the_log_goes_on_behind_it() {
    // Shorter than the snapshot, exactly as long, longer; nothing at all.
    for old in [0, 7, 20, 31] {
        let dir = directory();
        let running = start(Arc::new(Disk), dir.path());
        running.append(1, 1..=old);
        running.install(2, 20);
        // Asked for at once, and durable only behind it.
        running.append(3, 21..=25);
        assert_eq!(running.wait_for_snapshot(), Event::SnapshotInstalled { index: Index(20) });
        running.wait_for(25);
        running.store.stop().unwrap();
        let loaded = load(dir.path());
        assert_eq!(state(&loaded), (20, 21, entries(3, 21..=25)), "over {old} entries");
        assert_eq!(loaded.notes, [] as [&str; 0]);
        let snapshot = loaded.snapshot.unwrap();
        assert_eq!((snapshot.point, &snapshot.content[..]), (point(2, 20), CONTENT));
        assert_eq!(names(dir.path()).iter().filter(|name| name.starts_with("000")).count(), 2);
    }
}

#[test]
fn what_was_asked_for_before_is_durable_first_and_what_is_asked_for_after_waits() {
    let (dir, fs) = (directory(), TestFs::new());
    let running = start(Arc::new(fs.clone()), dir.path());
    fs.hold("write open-1");
    running.append(1, 1..=1);
    fs.wait_until_held();
    running.append(1, 2..=5);
    running.install(2, 20);
    running.append(3, 21..=21);
    running.store.persist_vote(Term(12), Some(ServerId(2)), Seq(22));
    fs.release();
    running.wait_for(5);
    assert_eq!(running.wait(), Event::SnapshotInstalled { index: Index(20) });
    running.wait_for(22);
    let (mut done, mut steps) = (fs.operations().into_iter(), Vec::new());
    for step in [
        "sync_data open-1",
        "rename open-",
        "rename tmp-snapshot-2-20-",
        "rename tmp-received",
        "remove 0000",
        "write open-",
    ] {
        steps.extend(done.find(|operation| operation.starts_with(step)));
    }
    assert_eq!(steps.len(), 6, "in this order: {steps:?} of {:?}", fs.operations());
    running.store.stop().unwrap();
    assert_eq!(load(dir.path()).term, Term(12));
}

#[test]
fn an_installation_that_fails_before_it_exists_leaves_log_and_snapshots_as_they_are() {
    let meta = ["create tmp-snapshot", "write tmp-snapshot", "sync tmp-snapshot", "rename tmp-snapshot"];
    for failing in meta.into_iter().chain(["rename tmp-received"]) {
        let (dir, fs) = (directory(), TestFs::new());
        let running = start(Arc::new(fs.clone()), dir.path());
        running.append(1, 1..=5);
        running.wait_for(5);
        fs.fail(failing);
        running.install(2, 20);
        let failed = running.wait_for_snapshot();
        let Event::SnapshotInstallFailed { index: Index(20), error } = failed else { panic!("{failed:?}") };
        assert!(error.to_string().contains("Input/output error"), "{error}");
        fs.fail("nothing");
        running.append(1, 6..=9);
        running.wait_for(9);
        // The leader tries again.
        running.install(2, 20);
        running.append(3, 21..=21);
        assert_eq!(running.wait_for_snapshot(), Event::SnapshotInstalled { index: Index(20) });
        running.store.stop().unwrap();
        assert_eq!(state(&load(dir.path())), (20, 21, entries(3, 21..=21)), "{failing}");
    }
}

#[test]
fn a_snapshot_that_cannot_count_is_not_installed() {
    let dir = directory();
    let running = start(Arc::new(Disk), dir.path());
    running.append(1, 1..=5);
    running.wait_for(5);
    running.store_snapshot(1, 5);
    running.wait_for_snapshot();
    running.install(1, 4);
    let failed = running.wait_for_snapshot();
    assert!(matches!(failed, Event::SnapshotInstallFailed { index: Index(4), .. }), "{failed:?}");
    running.install_content(point(2, 20), &[]);
    let failed = running.wait_for_snapshot();
    assert!(matches!(failed, Event::SnapshotInstallFailed { index: Index(20), .. }), "{failed:?}");
    running.append(1, 6..=6);
    running.wait_for(6);
    running.store.stop().unwrap();
    assert_eq!(state(&load(dir.path())), (5, 1, entries(1, 1..=6)));
}

#[test]
fn a_log_that_cannot_be_removed_ends_the_store_and_the_next_start_finds_the_new_state() {
    for failing in ["remove 0000000000000004", "remove 0000000000000001"] {
        let (dir, fs) = (directory(), TestFs::new());
        let running = start(Arc::new(fs.clone()), dir.path());
        // One by one, so that three fill the first segment.
        for index in 1..=5 {
            running.append(1, index..=index);
            running.wait_for(index);
        }
        fs.fail(failing);
        running.install(2, 20);
        running.append(3, 21..=21);
        let failed = running.wait_for_snapshot();
        assert!(matches!(failed, Event::Failed { seq: Seq(6), .. }), "{failing}: {failed:?}");
        running.store.stop().unwrap_err();
        assert_eq!(state(&load(dir.path())), (20, 21, Vec::new()), "{failing}");
    }
}

#[test]
fn a_snapshot_that_may_have_stayed_ends_the_store() {
    let (dir, fs) = (directory(), TestFs::new());
    let running = start(Arc::new(fs.clone()), dir.path());
    running.append(1, 1..=5);
    running.wait_for(5);
    // Nobody knows whether the renaming is durable, nor then the removal.
    fs.fail_after("rename tmp-received", "sync_dir");
    running.install(2, 20);
    let failed = running.wait_for_snapshot();
    assert!(matches!(failed, Event::Failed { .. }), "{failed:?}");
    running.store.stop().unwrap_err();
}

#[test]
fn an_installation_is_given_up_when_the_node_stops_or_fails() {
    let dir = directory();
    let running = start(Arc::new(Disk), dir.path());
    running.append(1, 1..=5);
    running.wait_for(5);
    let content = Arc::new(receive(&running.store, CONTENT, Compression::Lz4).unwrap());
    running.store.cancelled.store(true, std::sync::atomic::Ordering::Relaxed);
    running.store.install_snapshot(InstallRequest { point: point(2, 20), content });
    running.store.stop().unwrap();
    assert_eq!(state(&load(dir.path())), (0, 1, entries(1, 1..=5)));
    assert!(names(dir.path()).iter().all(|name| !name.starts_with("tmp-")));

    let (dir, fs) = (directory(), TestFs::new());
    let running = start(Arc::new(fs.clone()), dir.path());
    fs.fail("write open-1");
    running.append(1, 1..=1);
    running.install(2, 20);
    let events = [running.wait(), running.wait()];
    let failed = Event::SnapshotInstallFailed { index: Index(20), error: Error::Closed };
    assert!(events.contains(&failed), "{events:?}");
    running.store.stop().unwrap_err();
    assert!(load(dir.path()).snapshot.is_none());
}

#[test]
fn snapshots_stored_installed_and_read_take_their_turn() {
    let dir = directory();
    let running = start(Arc::new(Disk), dir.path());
    running.append(1, 1..=9);
    running.store_snapshot(1, 5);
    running.install(2, 20);
    running.append(2, 21..=22);
    running.store_snapshot(2, 22);
    let read = running.read(22).unwrap();
    assert_eq!(read, (point(2, 22), vec![22; 1000]));
    assert_eq!(running.wait_for_snapshot(), Event::SnapshotStored { index: Index(5), size_bytes: 1000 });
    assert_eq!(running.wait_for_snapshot(), Event::SnapshotInstalled { index: Index(20) });
    assert_eq!(running.wait_for_snapshot(), Event::SnapshotStored { index: Index(22), size_bytes: 1000 });
    // The one before the newest is there, too, decompressed.
    let read = running.read(20).unwrap();
    assert_eq!(read, (point(2, 20), CONTENT.to_vec()));
    let gone = running.read(5).unwrap_err();
    assert_eq!(gone, "there is no snapshot at 5 any more");
    running.store.stop().unwrap();
    assert_eq!(state(&load(dir.path())), (22, 21, entries(2, 21..=22)));
}

#[test]
fn a_damaged_snapshot_is_not_read() {
    let dir = directory();
    let running = start(Arc::new(Disk), dir.path());
    running.install(2, 20);
    running.wait_for_snapshot();
    let data = names(dir.path()).into_iter().find(|name| name.starts_with("snapshot-2-20-")).unwrap();
    let path = dir.path().join(data);
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(path, bytes).unwrap();
    assert!(running.read(20).unwrap_err().contains("LZ4 frame"));
}

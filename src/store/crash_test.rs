//! Crashes of a store at every operation on its files: see [`super::CrashFs`] for what a crash may leave.
//!
//! A life is a start, requests and an end, all from a seed. Before each operation the file system is kept,
//! together with what had been asked for and what had been reported. From each of these points restarts are
//! tried: nothing of what was pending survives, everything, each single change does or does not, torn
//! sectors, and random parts. Some of them go on with a second life, which may crash from its first operation
//! on.
//!
//! What a disk does to a store that fails instead of losing power is in `fault_test.rs`, and crashes of a
//! repair are in `repair_test.rs`.
//!
//! `CRASH_IMAGES=` sets how many directories are tried, `CRASH_SEED=` where the seeds begin.

#[path = "fault_test.rs"]
mod faults;
#[path = "repair_test.rs"]
mod repairs;

use super::*;
use crate::raft::{Configuration, Entry, EntryKind, Index, Role, Seq, Server, ServerId, SnapshotPoint, Term};
use crate::store::crc::crc;
use crate::store::test_fs::receive;
use crate::store::{
    AutoRecovery, Compression, Directory, Error, Event, InstallRequest, Loaded, Options, SnapshotContent,
    SnapshotRequest, Store,
};
use bytes::Bytes;
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

const SEGMENT_SIZE: usize = 2048;
/// Entries that stay in the log behind a snapshot.
const TRAILING: u64 = 4;
const PATIENCE: Duration = Duration::from_secs(60);
const IMAGES_DEFAULT: usize = 10_000;
/// Requests in a first life, and in those that follow.
const STEPS: [usize; 2] = [40, 12];
/// One point in this many is followed by a second life.
const SECOND_LIVES: u64 = 12;

/// Term, vote and log after some requests.
#[derive(Debug, Clone, PartialEq)]
struct State {
    term: Term,
    voted_for: Option<ServerId>,
    first: u64,
    entries: Vec<Entry>,
}

impl State {
    fn last(&self) -> u64 {
        self.first + self.entries.len() as u64 - 1
    }
}

/// The request that led to a state.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Request {
    Start,
    Bootstrap,
    Vote,
    Append,
    Truncate,
    Install,
}

#[derive(Debug, Clone)]
struct Snapshot {
    index: u64,
    term: Term,
    content: Bytes,
}

struct Content(Bytes);

impl SnapshotContent for Content {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }
    fn write_to(&self, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(&self.0)
    }
}

#[derive(Default)]
struct History {
    states: Vec<(Request, State)>,
    snapshots: Vec<Snapshot>,
}

/// What a restart may find: the state after one of these requests or on the way to the next, and one of these
/// snapshots. Requests and snapshots before the first bound were reported durable.
#[derive(Clone)]
struct Expected {
    history: Arc<Mutex<History>>,
    states: [usize; 2],
    snapshots: [usize; 2],
}

impl Expected {
    /// A directory that is about to get its first configuration.
    fn of_a_new_directory() -> Expected {
        let empty = State { term: Term(0), voted_for: None, first: 1, entries: Vec::new() };
        let entry = Entry { term: Term(1), kind: EntryKind::Change, payload: configuration().encode() };
        let first = State { term: Term(1), entries: vec![entry], ..empty.clone() };
        let states = vec![(Request::Start, empty), (Request::Bootstrap, first)];
        let history = History { states, snapshots: Vec::new() };
        Expected { history: Arc::new(Mutex::new(history)), states: [0, 1], snapshots: [0, 0] }
    }

    /// Exactly what was loaded.
    fn of(loaded: &Loaded) -> Expected {
        let (term, voted_for, first) = (loaded.term, loaded.voted_for, loaded.first_index.0);
        let state = State { term, voted_for, first, entries: loaded.entries.clone() };
        let snapshots: Vec<_> = loaded
            .snapshot
            .iter()
            .map(|snapshot| Snapshot {
                index: snapshot.point.index.0,
                term: snapshot.point.term,
                content: snapshot.content.clone(),
            })
            .collect();
        let count = snapshots.len();
        let history = History { states: vec![(Request::Start, state)], snapshots };
        Expected { history: Arc::new(Mutex::new(history)), states: [0, 0], snapshots: [count; 2] }
    }

    fn check(&self, loaded: &Loaded) -> Result<(), String> {
        let history = self.history.lock();
        if let Some(snapshot) = &loaded.snapshot {
            let is_it = |known: &Snapshot| {
                (known.index, known.term) == (snapshot.point.index.0, snapshot.point.term)
                    && known.content == snapshot.content
                    && snapshot.point.configuration == configuration()
            };
            let position = history.snapshots[..self.snapshots[1]].iter().position(is_it);
            let position = position.ok_or("a snapshot that nobody asked for")?;
            if position + 1 < self.snapshots[0] {
                return Err("an older snapshot than was reported".into());
            }
        } else if self.snapshots[0] > 0 {
            return Err("no snapshot, but one was reported".into());
        }
        let [from, to] = self.states;
        let is_possible = (from..=to).any(|at| {
            let (_, state) = &history.states[at];
            let next = (at < to).then(|| &history.states[at + 1]);
            is_log(loaded, state, [state.last(), state.last()])
                || match next {
                    Some((Request::Append, next)) => is_log(loaded, next, [state.last(), next.last()]),
                    Some((Request::Truncate, next)) => is_log(loaded, state, [next.last(), state.last()]),
                    _ => false,
                }
        });
        if is_possible {
            return Ok(());
        }
        let mut text = format!(
            "term {}, vote {:?}, snapshot {:?}, log {} to {}\nexpected after one of these:",
            loaded.term,
            loaded.voted_for,
            loaded.snapshot.as_ref().map(|snapshot| snapshot.point.index),
            loaded.first_index,
            loaded.next_index().0 - 1
        );
        for (request, state) in &history.states[from..=to] {
            let State { term, voted_for, first, .. } = state;
            let last = state.last();
            text += &format!("\n  {request:?}: term {term}, vote {voted_for:?}, log {first} to {last}");
        }
        Err(text)
    }
}

/// Whether this is the log of a state with its end between these indexes, with nothing missing at its
/// beginning, and with the term and vote of that state.
fn is_log(loaded: &Loaded, state: &State, last: [u64; 2]) -> bool {
    let (first, end) = (loaded.first_index.0, loaded.next_index().0);
    let needed = match &loaded.snapshot {
        Some(snapshot) => state.first.max((snapshot.point.index.0 + 1).saturating_sub(TRAILING)),
        None => state.first,
    };
    let reaches = loaded.snapshot.as_ref().map_or(0, |snapshot| snapshot.point.index.0) + 1 >= first;
    (loaded.term, loaded.voted_for) == (state.term, state.voted_for)
        && (state.first..=needed).contains(&first)
        && reaches
        && (last[0]..=last[1]).contains(&(end - 1))
        && state.entries.get((first - state.first) as usize..(end - state.first) as usize)
            == Some(&loaded.entries[..])
}

fn configuration() -> Configuration {
    let server = Server { id: ServerId(1), address: "1".into(), role: Role::Voter };
    Configuration { servers: vec![server] }
}

/// A moment at which the power may fail.
struct Point {
    operation: String,
    model: Model,
    expected: Expected,
}

/// A running store.
struct Life {
    random: Random,
    expected: Arc<Mutex<Expected>>,
    points: Arc<Mutex<Vec<Point>>>,
    fs: CrashFs,
    store: Store,
    events: Receiver<Event>,
    /// Every index up to here is committed: a truncation does not reach it.
    committed: u64,
}

impl Life {
    /// Starts a node as `node::Node` does. On an error the points say what led there.
    fn start(
        fs: CrashFs,
        dir: &Path,
        expected: Arc<Mutex<Expected>>,
        seed: u64,
        points: &Arc<Mutex<Vec<Point>>>,
    ) -> Result<Life, String> {
        let (known, taken) = (Arc::clone(&expected), Arc::clone(points));
        fs.before_each(move |operation, model| {
            let (operation, model, expected) = (operation.into(), model.clone(), known.lock().clone());
            taken.lock().push(Point { operation, model, expected });
        });
        let load = || -> Result<_, Error> {
            let mut directory = Directory::open_on(Arc::new(fs.clone()), dir)?.lock()?;
            directory.bootstrap(&configuration())?;
            let loaded = directory.load(AutoRecovery::On)?;
            Ok((directory, loaded))
        };
        let (directory, loaded) = load().map_err(|e| e.to_string())?;
        expected.lock().check(&loaded)?;
        *expected.lock() = Expected::of(&loaded);
        let (sender, events) = channel();
        let (sender, known) = (Mutex::new(sender), Arc::clone(&expected));
        let on_event = Box::new(move |event: Event| {
            note(&mut known.lock(), &event);
            // The receiver is gone once the life is over.
            let _ = sender.lock().send(event);
        });
        let options = Options { segment_size: SEGMENT_SIZE };
        let store = Store::start(directory, &loaded, options, on_event).map_err(|e| e.to_string())?;
        let committed = loaded.next_index().0 / 2;
        let committed = committed.max(loaded.snapshot.map_or(1, |snapshot| snapshot.point.index.0));
        let points = Arc::clone(points);
        Ok(Life { random: Random(seed), expected, points, fs, store, events, committed })
    }

    fn now(&self) -> State {
        self.expected.lock().history.lock().states.last().unwrap().1.clone()
    }

    /// Notes a request before it is made, and returns its number.
    fn expect(&self, request: Request, state: State) -> Seq {
        let mut expected = self.expected.lock();
        expected.history.lock().states.push((request, state));
        expected.states[1] += 1;
        Seq(expected.states[1] as u64)
    }

    /// Notes a snapshot before it is asked for.
    fn snapshot_content(&mut self, index: u64) -> (Bytes, Compression) {
        let content = Bytes::from(vec![index as u8; 8 * self.random.between(1, 150) as usize]);
        let compression = if self.random.below(2) == 0 { Compression::Lz4 } else { Compression::Off };
        (content, compression)
    }

    fn expect_snapshot(&mut self, index: u64, term: Term, content: Bytes) -> SnapshotPoint {
        let mut expected = self.expected.lock();
        expected.history.lock().snapshots.push(Snapshot { index, term, content });
        expected.snapshots[1] += 1;
        SnapshotPoint {
            index: Index(index),
            term,
            configuration: configuration(),
            configuration_index: Index(1),
        }
    }

    fn append(&mut self) {
        let mut state = self.now();
        let entries: Vec<_> = (0..self.random.between(1, 4)).map(|_| self.entry(state.term)).collect();
        let first = Index(state.last() + 1);
        state.entries.extend(entries.clone());
        let seq = self.expect(Request::Append, state);
        self.store.append(first, entries, seq);
    }

    fn entry(&mut self, term: Term) -> Entry {
        let words = match self.random.below(20) {
            0 => SEGMENT_SIZE as u64 / 8 + self.random.below(100),
            1..4 => 0,
            _ => self.random.below(60),
        };
        let byte = self.random.next() as u8;
        let payload: Vec<u8> = match self.random.below(3) {
            0 => vec![0; 8 * words as usize],
            1 => (0..words).flat_map(|_| [byte, 0, 0, 0, 0, 0, 0, 0]).collect(),
            _ => (0..words).flat_map(|_| self.random.next().to_le_bytes()).collect(),
        };
        Entry { term, kind: EntryKind::Command, payload: payload.into() }
    }

    fn vote(&mut self) {
        let mut state = self.now();
        state.term = state.term.next();
        state.voted_for = Some(ServerId(self.random.below(4))).filter(|id| id.0 > 0);
        let (term, voted_for) = (state.term, state.voted_for);
        let seq = self.expect(Request::Vote, state);
        self.store.persist_vote(term, voted_for, seq);
    }

    /// A new leader replaces the end of the log.
    fn truncate(&mut self) {
        self.vote();
        let mut state = self.now();
        let first = (self.committed + 1).max(state.first);
        if first <= state.last() {
            let from = self.random.between(first, state.last());
            state.entries.truncate((from - state.first) as usize);
            let seq = self.expect(Request::Truncate, state);
            self.store.truncate(Index(from), seq);
        }
        self.append();
    }

    fn snapshot(&mut self) -> Result<(), String> {
        self.wait()?;
        let state = self.now();
        let taken = self.expected.lock().history.lock().snapshots.last().map_or(0, |last| last.index);
        let first = (taken + 1).max(state.first);
        if first <= state.last() {
            let index = self.random.between(first, state.last());
            self.committed = self.committed.max(index);
            let term = state.entries[(index - state.first) as usize].term;
            let (content, compression) = self.snapshot_content(index);
            let point = self.expect_snapshot(index, term, content.clone());
            let content = Box::new(Content(content));
            self.store.store_snapshot(SnapshotRequest { point, content, trailing: TRAILING, compression });
        }
        Ok(())
    }

    /// A new leader replaces the whole log.
    fn install(&mut self) {
        self.vote();
        let mut state = self.now();
        let index = self.random.between(self.committed + 1, state.last().max(self.committed) + 5);
        let (content, compression) = self.snapshot_content(index);
        // What cannot be received is not installed.
        let Ok(received) = receive(&self.store, &content, compression) else { return };
        self.committed = index;
        (state.first, state.entries) = (index + 1, Vec::new());
        let point = self.expect_snapshot(index, state.term, content);
        self.expect(Request::Install, state);
        let content = Arc::new(received);
        self.store.install_snapshot(InstallRequest { point, content });
    }

    /// Waits until everything is reported.
    fn wait(&self) -> Result<(), String> {
        loop {
            let expected = self.expected.lock().clone();
            if expected.states[0] == expected.states[1] && expected.snapshots[0] == expected.snapshots[1] {
                return Ok(());
            }
            match self.events.recv_timeout(PATIENCE) {
                Ok(Event::Failed { error, .. }) => return Err(error.to_string()),
                // Because of a failure of the log, which is reported with the next request.
                Ok(
                    Event::SnapshotFailed { error: Error::Closed, .. }
                    | Event::SnapshotInstallFailed { error: Error::Closed, .. },
                ) => self.store.resume(),
                Ok(Event::SnapshotFailed { error, .. } | Event::SnapshotInstallFailed { error, .. }) => {
                    return Err(error.to_string());
                }
                Ok(_) => {}
                Err(e) => return Err(e.to_string()),
            }
        }
    }

    fn run(mut self, steps: usize) -> Result<(), String> {
        for _ in 0..steps {
            match self.random.below(20) {
                0..10 => self.append(),
                10..13 => self.wait()?,
                13..15 => self.vote(),
                15..17 => self.truncate(),
                17..19 => self.snapshot()?,
                _ => {
                    self.install();
                    if self.fs.may_fail() {
                        // What follows it is asked for as if it had been done.
                        self.wait()?;
                    }
                }
            }
        }
        let (is_stopped, fs) = (self.random.below(2) == 0, self.fs.clone());
        let (expected, points) = (Arc::clone(&self.expected), Arc::clone(&self.points));
        if is_stopped {
            self.wait()?;
            self.store.stop().map_err(|e| e.to_string())?;
        } else {
            drop(self.store);
        }
        let (model, expected) = (fs.model(), expected.lock().clone());
        points.lock().push(Point { operation: "the end".into(), model, expected });
        Ok(())
    }
}

/// Notes what the store reports.
fn note(expected: &mut Expected, event: &Event) {
    let history = expected.history.lock();
    let snapshot = |index: &Index| {
        history.snapshots.iter().position(|taken| taken.index == index.0).map_or(0, |at| at + 1)
    };
    let request = |index: &Index| {
        let is_it = |(request, state): &(Request, State)| {
            *request == Request::Install && state.first == index.next().0
        };
        history.states.iter().position(is_it).unwrap_or(0)
    };
    let (reported, taken) = match event {
        Event::Persisted { seq } => (seq.0 as usize, 0),
        Event::SnapshotStored { index, .. } => (0, snapshot(index)),
        Event::SnapshotInstalled { index } => (request(index), snapshot(index)),
        Event::Failed { .. } | Event::SnapshotFailed { .. } | Event::SnapshotInstallFailed { .. } => (0, 0),
        Event::Full { .. } | Event::SpaceLow { .. } | Event::SpaceBack | Event::SnapshotSpaceBack => (0, 0),
    };
    drop(history);
    expected.states[0] = expected.states[0].max(reported);
    expected.snapshots[0] = expected.snapshots[0].max(taken);
}

/// A search for a directory that does not hold what was reported.
struct Search {
    random: Random,
    dirs: [tempfile::TempDir; 2],
    seen: HashSet<u64>,
    lie: Option<&'static str>,
    points: usize,
    images: usize,
    lives: usize,
    limit: usize,
}

impl Search {
    fn new(lie: Option<&'static str>, limit: usize) -> Search {
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let (random, seen) = (Random(0), HashSet::new());
        Search { random, dirs, seen, lie, points: 0, images: 0, lives: 0, limit }
    }

    /// A life of this seed and what can follow it. The error describes what was found.
    fn run(&mut self, seed: u64) -> Result<(), String> {
        self.random = Random(seed);
        self.seen.clear();
        let points = self.live(Model::default(), Expected::of_a_new_directory(), 0)?;
        for point in points {
            self.explore(&point, false)?;
            if self.images >= self.limit {
                return Ok(());
            }
            if self.random.below(SECOND_LIVES) > 0 {
                continue;
            }
            // Of the process only, or of the machine.
            let model = if self.random.below(3) == 0 {
                point.model.clone()
            } else {
                let fates = point.model.any_crash(&mut self.random);
                Model::new(&point.model.after_crash(&fates))
            };
            let before = point.operation.clone();
            let second = self.live(model, point.expected, 1).map_err(|e| format!("{e}\n{before}"))?;
            for point in second {
                let context = format!("in a second life, the first ended before {before}");
                self.explore(&point, true).map_err(|e| format!("{e}\n{context}"))?;
            }
        }
        Ok(())
    }

    fn live(&mut self, model: Model, expected: Expected, generation: usize) -> Result<Vec<Point>, String> {
        self.lives += 1;
        let fs = CrashFs::new(model);
        fs.lie_about(self.lie);
        let points = Arc::new(Mutex::new(Vec::new()));
        let seed = self.random.next();
        let expected = Arc::new(Mutex::new(expected));
        let life = Life::start(fs, self.dirs[0].path(), expected, seed, &points)?;
        life.run(STEPS[generation])?;
        Ok(std::mem::take(&mut *points.lock()))
    }

    fn explore(&mut self, point: &Point, is_brief: bool) -> Result<(), String> {
        self.points += 1;
        for fates in point.model.crashes(&mut self.random, is_brief) {
            let files = point.model.after_crash(&fates);
            if !self.seen.insert(digest(&files, &point.expected)) {
                continue;
            }
            self.images += 1;
            let found = catch_unwind(AssertUnwindSafe(|| load(&files, self.dirs[1].path())))
                .unwrap_or_else(|_| Err("a panic".into()))
                .and_then(|loaded| point.expected.check(&loaded));
            found.map_err(|reason| {
                let names: Vec<_> =
                    files.iter().map(|(name, content)| format!("{name} ({})", content.len())).collect();
                format!(
                    "before {}:\n{}{}\nfound: {reason}",
                    point.operation,
                    point.model.describe(&fates),
                    names.join(", ")
                )
            })?;
        }
        Ok(())
    }
}

/// The same for a directory that was tried with the same expectation.
fn digest(files: &Files, expected: &Expected) -> u64 {
    let mut hasher = DefaultHasher::new();
    for (name, content) in files {
        (name, content.len(), crc(content)).hash(&mut hasher);
    }
    let Expected { history, states, snapshots } = expected;
    (Arc::as_ptr(history) as usize, states, snapshots).hash(&mut hasher);
    hasher.finish()
}

/// A restart. Nothing that a crash leaves may need auto-recovery.
fn load(files: &Files, dir: &Path) -> Result<Loaded, String> {
    let fs = Arc::new(CrashFs::new(Model::new(files)));
    let directory = Directory::open_on(fs, dir).and_then(|directory| directory.lock());
    directory.and_then(|mut directory| directory.load(AutoRecovery::Off)).map_err(|e| e.to_string())
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}

#[test]
fn a_crash_anywhere_leaves_everything_that_was_reported() {
    let mut search = Search::new(None, setting("CRASH_IMAGES", IMAGES_DEFAULT as u64) as usize);
    for seed in setting("CRASH_SEED", 1).. {
        if let Err(found) = search.run(seed) {
            panic!("seed {seed}, {found}");
        }
        if search.images >= search.limit {
            break;
        }
    }
    let Search { points, images, lives, .. } = search;
    let text =
        format!("crash simulation: {images} directories after {points} crash points of {lives} lives\n");
    // Also shown when the test passes.
    std::io::stderr().write_all(text.as_bytes()).unwrap();
}

/// What a missing sync looks like: the disk only pretends to do it. This also shows that each is needed.
#[test]
fn a_sync_that_is_left_out_is_missed() {
    for lie in [
        // An append is reported before it is durable.
        "sync_data open-",
        // A segment is used or closed before it is durable.
        "sync open-",
        "sync_dir after create open-",
        // A vote is reported before it is durable.
        "sync tmp-metadata",
        "sync_dir after rename tmp-metadata",
        // Old snapshots and segments go before the new snapshot is durable.
        "sync tmp-snapshot-",
        "sync_dir after rename tmp-snapshot-",
        // The first segment is not durable before the term; the end of the log goes before what is to stay of
        // its last segment is durable.
        "sync tmp-0",
        "sync_dir after rename tmp-0",
        // A truncated log goes on before its old end is gone for good.
        "sync_dir after remove 0",
    ] {
        let mut search = Search::new(Some(lie), usize::MAX);
        let found = (1..200).find_map(|seed| search.run(seed).err());
        let found = found.unwrap_or_else(|| panic!("nobody misses {lie}, {} directories", search.images));
        let reason = found.lines().find(|line| line.starts_with("found: ")).unwrap_or(&found);
        println!("without {lie}: after {} directories, {reason}", search.images);
    }
}

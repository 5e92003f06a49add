//! Start-up: from a data directory to a snapshot and a log. Runs on the caller's thread, under the lock.
//!
//! 0. Whatever is there is made durable.
//! 1. List the directory. Of several snapshots the newest is read; nothing else will do.
//! 2. Closed segments must follow each other without a gap and reach the snapshot. What lies below a gap
//!    below the snapshot is removed, since the C library refuses some of these logs.
//! 3. Open segments have no index in their names: they follow what was read before, in the order of their
//!    counters. What a crash leaves at the end of the last one is dropped.
//! 4. A log that a snapshot took the place of is dropped: see `supersession`.
//! 5. Only when all of this succeeded in memory, files are touched: open segments are closed, empty ones
//!    removed, damaged ones set aside.
//!
//! Where this differs from the C library, it refuses instead of losing entries silently:
//!
//! | found | C | here |
//! |---|---|---|
//! | a valid batch behind a bad one in an open segment | drops it | refuses |
//! | an open segment that ends inside a batch, or before its first | crashes or refuses | a torn tail |
//! | an open segment with a batch of an unknown type | crashes | refuses |
//! | two closed segments with one first index (cut-off truncation) | loses writes later | the shorter wins |
//! | a log that a snapshot took the place of (cut-off installation) | may mix them | drops the log |
//! | a log of a later term than the metadata | starts, may vote twice | refuses |
//!
//! The price of the first rule: C writes requests that pile up as several batches in one go, so a power cut
//! in such a write can look like damage. It is refused, and the text says what to do. Our own writer leaves
//! no such picture.
//!
//! The last rule has one exception: without metadata, a log that consists of one configuration of term 1 at
//! index 1 is what recovering an empty directory (or an interrupted bootstrap) leaves; it is given that term.

use super::directory::LockedDirectory;
use super::error::{Error, describe};
use super::fs::Fs;
use super::list::{ClosedName, Listing, OpenName, SnapshotName};
use super::metadata::Metadata;
use super::segment::{FORMAT, Segment, Tail};
use super::snapshot::{self, StoredSnapshot};
use crate::codec::Reader;
use crate::raft::{Entry, EntryKind, Index, ServerId, SnapshotPoint, SnapshotSource, Term};
use bytes::Bytes;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Whether damaged segments may be set aside so that the node starts without them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AutoRecovery {
    /// As the C library does by default: renamed to `corrupt-*`, never removed.
    On,
    /// Any damage refuses the start.
    Off,
}

/// What the directory held.
#[derive(Debug, Clone)]
pub struct Loaded<T = Bytes> {
    /// Persisted term.
    pub term: Term,
    /// Vote given in that term.
    pub voted_for: Option<ServerId>,
    /// Newest snapshot.
    pub snapshot: Option<LoadedSnapshot<T>>,
    /// Index of the first entry; the next index to append if there is none.
    pub first_index: Index,
    /// The log. It may begin before the snapshot's index.
    pub entries: Vec<Entry>,
    /// What was repaired or dropped, one sentence each. The operator should see them.
    pub notes: Vec<String>,
}

impl<T> Loaded<T> {
    /// Index of the next entry to append.
    pub fn next_index(&self) -> Index {
        Index(self.first_index.0 + self.entries.len() as u64)
    }

    /// Highest term of log and snapshot.
    pub(super) fn highest_term(&self) -> Term {
        let snapshot = self.snapshot.as_ref().map(|snapshot| snapshot.point.term);
        self.entries.iter().map(|entry| entry.term).chain(snapshot).max().unwrap_or_default()
    }
}

/// A snapshot in memory.
#[derive(Debug, Clone)]
pub struct LoadedSnapshot<T = Bytes> {
    /// Where it is in the log.
    pub point: SnapshotPoint,
    /// What became of its content; the bytes, if nothing else was made of them.
    pub content: T,
}

/// Why the directory cannot be loaded.
#[derive(Debug)]
struct Damage {
    text: String,
    /// The segment without which another attempt is worth it.
    culprit: Option<Culprit>,
}

#[derive(Debug, Clone, Copy)]
enum Culprit {
    Closed(ClosedName),
    Open(OpenName),
}

impl Damage {
    fn fatal(text: impl Into<String>) -> Damage {
        Damage { text: text.into(), culprit: None }
    }

    fn of(culprit: Culprit, text: impl Into<String>) -> Damage {
        Damage { text: text.into(), culprit: Some(culprit) }
    }
}

/// A change to the directory, made once everything was read.
#[derive(Debug)]
pub(super) enum Repair {
    SetAside(String),
    Remove(String),
    Close { open: OpenName, used: usize, closed: ClosedName },
}

impl Repair {
    /// The file that is set aside.
    pub(super) fn set_aside(&self) -> Option<&String> {
        match self {
            Repair::SetAside(name) => Some(name),
            Repair::Remove(_) | Repair::Close { .. } => None,
        }
    }
}

/// A successful attempt: what was read, and what is to be done about the files.
pub(super) struct Attempt {
    pub(super) snapshot: Option<(SnapshotName, StoredSnapshot)>,
    pub(super) first_index: Index,
    pub(super) entries: Vec<Entry>,
    pub(super) repairs: Vec<Repair>,
    pub(super) notes: Vec<String>,
}

impl Attempt {
    pub(super) fn next_index(&self) -> Index {
        Index(self.first_index.0 + self.entries.len() as u64)
    }

    /// Term of the last entry, or of the snapshot if the log is empty; 0 if there is none either.
    pub(super) fn last_term(&self) -> Term {
        let snapshot = self.snapshot.as_ref().map(|(name, _)| name.term);
        self.entries.last().map(|entry| entry.term).or(snapshot).unwrap_or_default()
    }

    /// Highest term of log and snapshot. It is that of the last entry, unless the C library forced a
    /// configuration upon the log: it does so in term 1.
    pub(super) fn highest_term(&self) -> Term {
        let snapshot = self.snapshot.as_ref().map(|(name, _)| name.term);
        self.entries.iter().map(|entry| entry.term).chain(snapshot).max().unwrap_or_default()
    }

    /// Begins a new log behind the snapshot. The files of the old one go from the last one down, so that what
    /// a crash leaves is dropped, too.
    fn drop_log(&mut self, listing: &Listing, reason: &str) {
        let Some((name, _)) = &self.snapshot else { return };
        self.first_index = name.index.next();
        self.entries.clear();
        let open = listing.open.iter().rev().map(OpenName::to_string);
        let closed = listing.closed.iter().rev().map(ClosedName::to_string);
        self.repairs = open.chain(closed).map(Repair::Remove).collect();
        self.notes.push(format!("dropped the log before snapshot {name}, which took its place: {reason}"));
    }
}

/// Loads a directory; see the module.
pub(super) fn load<T>(
    dir: &mut LockedDirectory,
    recovery: AutoRecovery,
    restore: impl FnOnce(&mut dyn Read) -> Result<T, String>,
) -> Result<Loaded<T>, Error> {
    let (fs, path) = (&*dir.fs, dir.path.as_path());
    let listing = Listing::scan(fs, path).map_err(|e| Error::Load(describe("list", path, &e)))?;
    let mut source = Source { fs, path, snapshot: None };
    source.settle().map_err(|e| Error::Load(describe("sync", path, &e)))?;
    let content = source.read_snapshot(&listing, restore)?;
    let attempt = source.attempt_with(&listing, recovery)?;
    let needs_term = check_terms(dir.metadata, &attempt)?;
    source.repair(&attempt.repairs).map_err(Error::Load)?;
    if let Some(term) = needs_term {
        dir.metadata.write(&*dir.fs, &dir.path, term, None).map_err(|e| Error::Load(e.to_string()))?;
    }
    for note in &attempt.notes {
        tracing::warn!("{note}");
    }
    Ok(Loaded {
        term: dir.metadata.term,
        voted_for: dir.metadata.voted_for,
        snapshot: attempt
            .snapshot
            .zip(content)
            .map(|((_, StoredSnapshot { point, .. }), content)| LoadedSnapshot { point, content }),
        first_index: attempt.first_index,
        entries: attempt.entries,
        notes: attempt.notes,
    })
}

/// Reads as [`load`] does and changes nothing: the attempt says what loading would do.
pub(super) fn preview(
    fs: &dyn Fs,
    path: &Path,
    metadata: Metadata,
    recovery: AutoRecovery,
) -> Result<Attempt, Error> {
    let listing = Listing::scan(fs, path).map_err(|e| Error::Load(describe("list", path, &e)))?;
    let mut source = Source { fs, path, snapshot: None };
    source
        .read_snapshot(&listing, |content| io::copy(content, &mut io::sink()).map_err(|e| e.to_string()))?;
    let attempt = source.attempt_with(&listing, recovery)?;
    check_terms(metadata, &attempt)?;
    Ok(attempt)
}

/// Refuses a log that is ahead of the metadata: a server that forgot its term could vote twice in one.
/// Returns the term to write in the one case where there cannot have been a vote.
fn check_terms(metadata: Metadata, attempt: &Attempt) -> Result<Option<Term>, Error> {
    let highest = attempt.highest_term();
    if highest <= metadata.term {
        return Ok(None);
    }
    let only_a_configuration = attempt.snapshot.is_none()
        && attempt.first_index == Index(1)
        && matches!(&attempt.entries[..], [Entry { term: Term(1), kind: EntryKind::Change, .. }]);
    if metadata.is_absent() && only_a_configuration {
        return Ok(Some(Term(1)));
    }
    let found =
        if metadata.is_absent() { "are missing".into() } else { format!("are at term {}", metadata.term) };
    Err(Error::Load(format!(
        "the log is at term {highest}, but metadata1 and metadata2 {found}: restore them, or remove this \
         node from the cluster and let it join again with an empty directory"
    )))
}

struct Source<'a> {
    fs: &'a dyn Fs,
    path: &'a Path,
    /// The newest one.
    snapshot: Option<(SnapshotName, StoredSnapshot)>,
}

/// An open segment in memory.
struct Open {
    name: OpenName,
    segment: Option<Segment>,
}

impl Source<'_> {
    fn file(&self, name: impl std::fmt::Display) -> PathBuf {
        self.path.join(name.to_string())
    }

    fn attempt_with(&self, listing: &Listing, recovery: AutoRecovery) -> Result<Attempt, Error> {
        let attempt = match (self.attempt(listing), recovery) {
            (Err(damage), AutoRecovery::On) => self.attempt_without(listing, damage),
            (attempt, _) => attempt,
        };
        attempt.map_err(|damage| Error::Load(damage.text))
    }

    fn attempt(&self, listing: &Listing) -> Result<Attempt, Damage> {
        let snapshot = self.snapshot.clone();
        let mut repairs = Vec::new();
        let mut notes = Vec::new();
        let mut closed = drop_overlaps(&listing.closed, &mut repairs, &mut notes)?;
        // Read early, because empty ones do not count; a fault surfaces in its turn.
        let open: Vec<_> = listing.open.iter().map(|name| self.read_open(*name, &mut notes)).collect();
        if let Some((name, _)) = &snapshot {
            let has_open = open.iter().any(holds_entries);
            for useless in select_closed(&mut closed, *name, has_open)? {
                notes.push(format!("removed closed segment {useless}: the log behind it begins anew"));
                repairs.push(Repair::Remove(useless.to_string()));
            }
        }
        let first_index = match (closed.first(), &snapshot) {
            (_, None) => Index(1),
            (Some(closed), Some(_)) => closed.first,
            (None, Some((name, _))) => name.index.next(),
        };
        let mut attempt = Attempt { snapshot, first_index, entries: Vec::new(), repairs, notes };
        for (position, name) in closed.iter().enumerate() {
            self.load_closed(*name, &mut attempt).map_err(|mut damage| {
                damage.culprit = damage.culprit.filter(|_| position + 1 == closed.len());
                damage
            })?;
        }
        self.load_open(open, &mut attempt)?;
        if let Some(reason) = supersession(&attempt, &listing.closed, &closed) {
            attempt.drop_log(listing, &reason);
        }
        check_log(&attempt)?;
        Ok(attempt)
    }

    /// A second attempt after damage that may be set aside: an open segment and all later ones, or the last
    /// closed segment and all open ones.
    fn attempt_without(&self, listing: &Listing, damage: Damage) -> Result<Attempt, Damage> {
        let mut rest = listing.clone();
        let mut aside: Vec<String> = Vec::new();
        match damage.culprit {
            None => return Err(damage),
            Some(Culprit::Open(first)) => rest.open.retain(|open| *open < first),
            Some(Culprit::Closed(name)) => {
                rest.open.clear();
                rest.closed.retain(|closed| *closed != name);
                aside.push(name.to_string());
            }
        }
        aside.extend(listing.open.iter().filter(|open| !rest.open.contains(open)).map(OpenName::to_string));
        let Ok(mut attempt) = self.attempt(&rest) else { return Err(damage) };
        attempt.notes.push(format!("set aside as corrupt: {}; {}", aside.join(", "), damage.text));
        // The position of an open segment follows from the files before it: the last one goes first, so that
        // none is ever taken for the continuation of another log.
        attempt.repairs.splice(0..0, aside.into_iter().rev().map(Repair::SetAside));
        Ok(attempt)
    }

    /// Makes durable what a process that was killed may have left half-way: a new name whose directory it
    /// had not synced yet, or a vote that the C library wrote in place. What is loaded must not go away
    /// again, and what is removed here must not go before that which replaces it.
    fn settle(&self) -> io::Result<()> {
        for name in ["metadata1", "metadata2"] {
            match self.fs.open(&self.file(name)) {
                Ok(file) => file.sync()?,
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        self.fs.sync_dir(self.path)
    }

    /// Reads the newest snapshot.
    fn read_snapshot<T>(
        &mut self,
        listing: &Listing,
        restore: impl FnOnce(&mut dyn Read) -> Result<T, String>,
    ) -> Result<Option<T>, Error> {
        let Some(name) = listing.snapshots.last().copied() else { return Ok(None) };
        let snapshot = snapshot::open(self.fs, self.path, name).map_err(Error::Load)?;
        let mut content = snapshot.content.open().map_err(|e| Error::Load(e.to_string()))?;
        let restored = restore(&mut content).map_err(Error::Load)?;
        self.snapshot = Some((name, snapshot));
        Ok(Some(restored))
    }

    fn read_segment(&self, name: impl std::fmt::Display) -> Result<Bytes, String> {
        self.fs.read(&self.file(&name)).map(Bytes::from).map_err(|e| e.to_string())
    }

    fn load_closed(&self, name: ClosedName, attempt: &mut Attempt) -> Result<(), Damage> {
        let next = attempt.next_index();
        if name.first != next {
            return Err(Damage::fatal(format!(
                "unexpected closed segment {name}: first index should have been {next}"
            )));
        }
        let context = |reason: &dyn std::fmt::Display| format!("load closed segment {name}: {reason}");
        let corrupt = |reason: &dyn std::fmt::Display| Damage::of(Culprit::Closed(name), context(reason));
        let bytes = self.read_segment(name).map_err(|e| Damage::fatal(context(&e)))?;
        if bytes.is_empty() {
            return Err(corrupt(&"file is empty"));
        }
        let format = Reader::new(bytes.clone())
            .u64()
            .map_err(|_| Damage::fatal(context(&format_args!("file has only {} bytes", bytes.len()))))?;
        if format != FORMAT {
            return Err(corrupt(&format_args!("unexpected format version {format}")));
        }
        let segment = Segment::parse(bytes);
        match &segment.tail {
            Tail::EndOfFile => {}
            Tail::Zeros => {
                let used = segment.used;
                return Err(corrupt(&format_args!("zeros behind the last batch, from byte {used} on")));
            }
            Tail::Fault { batch, fault } => {
                let text = fault_text(*batch, segment.used, fault);
                return Err(if fault.is_checksum_or_count() {
                    corrupt(&text)
                } else {
                    Damage::fatal(context(&text))
                });
            }
        }
        let expected = name.last.0 - name.first.0 + 1;
        if segment.count() != expected {
            let count = segment.count();
            return Err(corrupt(&format_args!("found {count} entries, not the {expected} of its name")));
        }
        attempt.entries.extend(segment.into_entries());
        Ok(())
    }

    /// Reads an open segment; without a segment if nothing was ever written to it.
    fn read_open(&self, name: OpenName, notes: &mut Vec<String>) -> Result<Open, Damage> {
        let context = |reason: &dyn std::fmt::Display| format!("load open segment {name}: {reason}");
        let bytes = self.read_segment(name).map_err(|e| Damage::fatal(context(&e)))?;
        if bytes.iter().all(|byte| *byte == 0) {
            return Ok(Open { name, segment: None });
        }
        let Ok(format) = Reader::new(bytes.clone()).u64() else {
            // Too short for a batch: its creation was cut off.
            notes.push(format!("removed open segment {name}: file has only {} bytes", bytes.len()));
            return Ok(Open { name, segment: None });
        };
        if format != FORMAT {
            let text = context(&format_args!("unexpected format version {format}"));
            return Err(Damage::of(Culprit::Open(name), text));
        }
        let segment = Segment::parse(bytes);
        if let Tail::Fault { batch, fault } = &segment.tail {
            let text = fault_text(*batch, segment.used, fault);
            if fault.is_unknown_kind() {
                return Err(Damage::fatal(context(&text)));
            }
            if let Some(offset) = segment.batch_behind_fault() {
                return Err(Damage::fatal(context(&format_args!(
                    "{text}, but a valid batch follows at byte {offset}: these entries were durable. \
                     Restore the file, or remove this node from the cluster and let it join again with an \
                     empty directory"
                ))));
            }
            notes.push(format!("dropped a torn write at the end of open segment {name}: {text}"));
        }
        Ok(Open { name, segment: Some(segment) })
    }

    fn load_open(&self, open: Vec<Result<Open, Damage>>, attempt: &mut Attempt) -> Result<(), Damage> {
        let mut torn: Option<OpenName> = None;
        for open in open {
            let Open { name, segment } = open?;
            let Some(segment) = segment else {
                attempt.repairs.push(Repair::Remove(name.to_string()));
                continue;
            };
            if let (Some(torn), true) = (torn, segment.count() > 0) {
                return Err(Damage::fatal(format!(
                    "load open segment {torn}: its last batch is damaged, but {name} continues the log: \
                     restore the file, or remove this node from the cluster and let it join again with an \
                     empty directory"
                )));
            }
            if matches!(segment.tail, Tail::Fault { .. }) {
                torn = Some(name);
            }
            if segment.count() == 0 {
                attempt.repairs.push(Repair::Remove(name.to_string()));
                continue;
            }
            let first = attempt.next_index();
            let closed = ClosedName { first, last: Index(first.0 + segment.count() - 1) };
            attempt.repairs.push(Repair::Close { open: name, used: segment.used, closed });
            attempt.entries.extend(segment.into_entries());
        }
        Ok(())
    }

    /// Changes the files. Each step is durable before the next, because the meaning of an open segment
    /// depends on those before it.
    fn repair(&self, repairs: &[Repair]) -> Result<(), String> {
        let now_ns = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
        for repair in repairs {
            let (name, done) = match repair {
                Repair::SetAside(name) => {
                    let aside = self.file(format!("corrupt-{now_ns}-{name}"));
                    (name.clone(), self.fs.rename(&self.file(name), &aside))
                }
                Repair::Remove(name) => (name.clone(), self.fs.remove(&self.file(name))),
                Repair::Close { open, used, closed } => (open.to_string(), self.close(*open, *used, *closed)),
            };
            done.and_then(|()| self.fs.sync_dir(self.path))
                .map_err(|e| describe("repair", &self.file(name), &e))?;
        }
        Ok(())
    }

    fn close(&self, open: OpenName, used: usize, closed: ClosedName) -> io::Result<()> {
        let path = self.file(open);
        let file = self.fs.open(&path)?;
        file.set_len(used as u64)?;
        file.sync()?;
        self.fs.rename(&path, &self.file(closed))
    }
}

/// Whether an open segment counts as part of the log; one that cannot be read might be.
fn holds_entries(open: &Result<Open, Damage>) -> bool {
    match open {
        Ok(open) => open.segment.as_ref().is_some_and(|segment| segment.count() > 0),
        Err(_) => true,
    }
}

fn fault_text(batch: usize, offset: usize, fault: &super::segment::BatchFault) -> String {
    // The C library counts the byte from the start of the file, the batch from 1.
    format!("entries batch {batch} starting at byte {offset}: {fault}")
}

/// Of two closed segments with the same first index the shorter one is the result of a truncation that was
/// cut off before it removed the longer one. If segments behind it are there, nobody can tell whether they
/// belong to the truncated log or were written later on top of it.
fn drop_overlaps(
    closed: &[ClosedName],
    repairs: &mut Vec<Repair>,
    notes: &mut Vec<String>,
) -> Result<Vec<ClosedName>, Damage> {
    let mut kept: Vec<ClosedName> = Vec::with_capacity(closed.len());
    for (position, name) in closed.iter().enumerate() {
        // Sorted by first, then last index: the shorter one came just before.
        let Some(shorter) = kept.last().filter(|last| last.first == name.first) else {
            kept.push(*name);
            continue;
        };
        if let Some(later) = closed[position..].iter().find(|later| later.first != name.first) {
            return Err(Damage::fatal(format!(
                "closed segments {shorter} and {name} both start at index {}, and {later} follows: it is not \
                 known which of them are valid",
                name.first
            )));
        }
        notes.push(format!("removed closed segment {name}: it was truncated to {shorter}"));
        repairs.push(Repair::Remove(name.to_string()));
    }
    Ok(kept)
}

/// Keeps the closed segments that belong to the log behind a snapshot. Returns others that are below it.
fn select_closed(
    closed: &mut Vec<ClosedName>,
    snapshot: SnapshotName,
    has_open: bool,
) -> Result<Vec<ClosedName>, Damage> {
    let Some(last) = closed.last() else { return Ok(Vec::new()) };
    if last.last < snapshot.index && !has_open {
        closed.clear();
        return Ok(Vec::new());
    }
    let mut first = closed.len() - 1;
    while first > 0 && closed[first - 1].last.next() == closed[first].first {
        first -= 1;
    }
    let useless = closed.drain(..first).collect();
    if closed[0].first > snapshot.index.next() {
        return Err(Damage::fatal(format!("closed segment {} is past last snapshot {snapshot}", closed[0])));
    }
    Ok(useless)
}

/// Whether the snapshot took the place of the whole log, and by what that shows. A snapshot contains only
/// what is committed, so a log without its last entry has nothing behind it that is. An installation that was
/// cut off leaves such a log. It must go before anything is appended: the next open segment would continue
/// it.
///
/// Only closed segments can show it: of an open one it is not certain where it belongs.
fn supersession(attempt: &Attempt, found: &[ClosedName], selected: &[ClosedName]) -> Option<String> {
    let (name, _) = attempt.snapshot.as_ref()?;
    if let (Some(last), true) = (found.last(), selected.is_empty()) {
        return Some(format!("it ends at index {}", last.last));
    }
    if selected.last().is_some_and(|last| last.last >= name.index) {
        let position = name.index.0.checked_sub(attempt.first_index.0);
        let entry = position.and_then(|position| attempt.entries.get(position as usize));
        if let Some(entry) = entry.filter(|entry| entry.term != name.term) {
            return Some(format!("its entry {} has term {}", name.index, entry.term));
        }
    }
    // Entries that begin right behind the snapshot, where the C library removed those before, or in an open
    // segment. Terms only grow, except for a configuration that was forced upon the node.
    let first = attempt.entries.first().filter(|_| attempt.first_index == name.index.next())?;
    let older = first.term < name.term && first.kind != EntryKind::Change;
    older.then(|| format!("its entry {} has term {}", attempt.first_index, first.term))
}

/// What must hold between snapshot and log.
fn check_log(attempt: &Attempt) -> Result<(), Damage> {
    let Some((name, _)) = &attempt.snapshot else {
        return match attempt.entries.first() {
            Some(entry) if entry.kind != EntryKind::Change => {
                Err(Damage::fatal("the first entry of the log is not a configuration"))
            }
            _ => Ok(()),
        };
    };
    let next = attempt.next_index();
    if next <= name.index {
        let last = next.0 - 1;
        let snapshot = name.index;
        return Err(Damage::fatal(format!(
            "last entry on disk has index {last}, which is behind last snapshot's index {snapshot}"
        )));
    }
    let at_snapshot = name.index.0.checked_sub(attempt.first_index.0).map(|position| position as usize);
    match at_snapshot.and_then(|position| attempt.entries.get(position)) {
        Some(entry) if entry.term != name.term => Err(Damage::fatal(format!(
            "entry {} has term {}, but snapshot {name} was taken at another: the log is not its own",
            name.index, entry.term
        ))),
        _ => Ok(()),
    }
}

#[cfg(test)]
#[path = "load_test.rs"]
mod tests;

//! A data directory looked at without changing it: what is in it, and what a start would make of it. Runs on
//! the caller's thread.
//!
//! The lock is held meanwhile, if its file exists; it is not created. C releases before 1.16.5 take no lock,
//! so without that file nobody can tell whether a node runs.

use super::directory::{LOCK_NAME, Lock, exists};
use super::error::{Error, describe};
use super::fs::{Disk, Fs};
use super::list::Name;
use super::load::{self, Attempt, AutoRecovery, Repair};
use super::metadata::Metadata;
use super::segment::{FORMAT, Segment, Tail};
use crate::codec::Reader;
use crate::raft::{Configuration, EntryKind, Index, SnapshotPoint, SnapshotSource, Term};
use bytes::Bytes;
use std::fs;
use std::io;
use std::path::Path;

/// Name of files that a start set aside because they were damaged.
const SET_ASIDE_PREFIX: &str = "corrupt-";

/// What a directory holds and what a start would do.
#[derive(Debug)]
pub struct Inspection {
    /// Whether the lock could be taken; otherwise there is no file for it.
    pub has_lock_file: bool,
    /// Term and vote.
    pub metadata: Result<Metadata, Error>,
    /// All files, sorted by name.
    pub files: Vec<FoundFile>,
    /// What a start would take over; the error is the refusal of a start.
    pub contents: Result<Contents, Error>,
}

/// A file of the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundFile {
    /// Its name.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
    /// What it is by its name.
    pub kind: FileKind,
}

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// Term and vote.
    Metadata,
    /// The lock.
    Lock,
    /// Content of a snapshot.
    Snapshot,
    /// Term, index and configuration of a snapshot.
    SnapshotMeta,
    /// Part of the log, complete; its name says which.
    ClosedSegment,
    /// Part of the log that was being written to.
    OpenSegment {
        /// Entries up to the first fault; none if it cannot be read.
        entries: Option<u64>,
        /// Whether something that is no entry follows them.
        is_torn: bool,
    },
    /// Left by an operation that did not end; the next start removes it.
    Unfinished,
    /// Set aside by an earlier start, because it was damaged.
    SetAside,
    /// Not of dqlite.
    Foreign,
}

/// What a start would take over.
#[derive(Debug, Clone)]
pub struct Contents {
    /// Newest snapshot, and the size of its content in bytes.
    pub snapshot: Option<(SnapshotPoint, u64)>,
    /// Index of the first entry of the log; the next one to append if there is none.
    pub first_index: Index,
    /// Index of the last entry, or of the snapshot; 0 if there is neither.
    pub last_index: Index,
    /// Term of the last entry, or of the snapshot.
    pub last_term: Term,
    /// Highest term of log and snapshot.
    pub highest_term: Term,
    /// The configuration in force and its index.
    pub configuration: Option<(Index, Configuration)>,
    /// What the start would repair or drop, one sentence each.
    pub notes: Vec<String>,
    /// Files that the start would set aside as damaged, and the entries in each as far as is known.
    pub set_aside: Vec<(String, Option<u64>)>,
    /// Open segments whose end the start would cut off, because it is no valid entry.
    pub torn: Vec<String>,
}

impl Contents {
    /// Whether the start would lose something that may have been acknowledged.
    pub fn is_lossy(&self) -> bool {
        !self.set_aside.is_empty() || !self.torn.is_empty()
    }
}

impl Inspection {
    /// Looks at a directory. An error if it cannot be read or a node uses it.
    pub fn of(path: &Path) -> Result<Inspection, Error> {
        Inspection::of_on(&Disk, path)
    }

    pub(super) fn of_on(fs: &dyn Fs, path: &Path) -> Result<Inspection, Error> {
        exists(path)?;
        let lock = lock_if_present(path)?;
        let metadata = Metadata::read(fs, path);
        let files = files(fs, path).map_err(|e| Error::Load(describe("list", path, &e)))?;
        let contents = match &metadata {
            Ok(metadata) => load::preview(fs, path, *metadata, AutoRecovery::On)
                .and_then(|attempt| contents(attempt, &files)),
            Err(error) => Err(error.clone()),
        };
        Ok(Inspection { has_lock_file: lock.is_some(), metadata, files, contents })
    }

    /// Whether nothing of a node was ever in it.
    pub fn is_new(&self) -> bool {
        self.metadata.as_ref().is_ok_and(|metadata| metadata.is_absent())
            && self.contents.as_ref().is_ok_and(|contents| contents.last_index == Index(0))
    }
}

/// Takes the lock of a directory if its file exists.
pub(super) fn lock_if_present(path: &Path) -> Result<Option<Lock>, Error> {
    let path = path.join(LOCK_NAME);
    match fs::File::open(&path) {
        Ok(file) => Lock::take(file, &path).map(Some),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::Lock(describe("open", &path, &e))),
    }
}

fn files(fs: &dyn Fs, path: &Path) -> io::Result<Vec<FoundFile>> {
    let listing = super::list::Listing::scan(fs, path)?;
    let mut files = Vec::new();
    for name in fs.list(path)? {
        let file = path.join(&name);
        let size = fs.size(&file)?;
        let name = name.to_string_lossy().into_owned();
        let kind = match Name::parse(&name) {
            _ if listing.leftovers.contains(&name) => FileKind::Unfinished,
            Name::Closed(_) => FileKind::ClosedSegment,
            Name::Open(_) => open_segment(fs, &file),
            Name::SnapshotData(_) => FileKind::Snapshot,
            Name::SnapshotMeta(_) => FileKind::SnapshotMeta,
            Name::Temporary => FileKind::Unfinished,
            Name::Foreign if name == "metadata1" || name == "metadata2" => FileKind::Metadata,
            Name::Foreign if name == LOCK_NAME => FileKind::Lock,
            Name::Foreign if name.starts_with(SET_ASIDE_PREFIX) => FileKind::SetAside,
            Name::Foreign => FileKind::Foreign,
        };
        files.push(FoundFile { name, size, kind });
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

fn open_segment(fs: &dyn Fs, file: &Path) -> FileKind {
    let Ok(bytes) = fs.read(file).map(Bytes::from) else {
        return FileKind::OpenSegment { entries: None, is_torn: false };
    };
    if bytes.iter().all(|byte| *byte == 0) {
        return FileKind::OpenSegment { entries: Some(0), is_torn: false };
    }
    match Reader::new(bytes.clone()).u64() {
        // Too short for anything: its creation was cut off.
        Err(_) => FileKind::OpenSegment { entries: Some(0), is_torn: false },
        Ok(format) if format != FORMAT => FileKind::OpenSegment { entries: None, is_torn: false },
        Ok(_) => {
            let segment = Segment::parse(bytes);
            let is_torn = matches!(segment.tail, Tail::Fault { .. });
            FileKind::OpenSegment { entries: Some(segment.count()), is_torn }
        }
    }
}

fn contents(attempt: Attempt, files: &[FoundFile]) -> Result<Contents, Error> {
    let aside: Vec<&String> = attempt.repairs.iter().filter_map(Repair::set_aside).collect();
    let entries_of = |file: &FoundFile| match (Name::parse(&file.name), file.kind) {
        (Name::Closed(name), _) => Some(name.last.0 - name.first.0 + 1),
        (_, FileKind::OpenSegment { entries, .. }) => entries,
        _ => None,
    };
    let is_aside = |file: &FoundFile| aside.contains(&&file.name);
    let set_aside =
        files.iter().filter(|file| is_aside(file)).map(|file| (file.name.clone(), entries_of(file)));
    // The log that a snapshot took the place of goes as a whole, and its end is nobody's loss.
    let is_dropped = |file: &FoundFile| {
        let names = |repair: &Repair| matches!(repair, Repair::Remove(name) if *name == file.name);
        attempt.repairs.iter().any(names) && entries_of(file) != Some(0)
    };
    let is_torn = |file: &&FoundFile| {
        matches!(file.kind, FileKind::OpenSegment { is_torn: true, .. })
            && !is_aside(file)
            && !is_dropped(file)
    };
    Ok(Contents {
        first_index: attempt.first_index,
        last_index: Index(attempt.next_index().0 - 1),
        last_term: attempt.last_term(),
        highest_term: attempt.highest_term(),
        configuration: configuration(&attempt)?,
        set_aside: set_aside.collect(),
        torn: files.iter().filter(is_torn).map(|file| file.name.clone()).collect(),
        snapshot: attempt.snapshot.map(|(_, snapshot)| (snapshot.point, snapshot.content.size())),
        notes: attempt.notes,
    })
}

/// The newest configuration, as the core finds it at its start. An unreadable one is refused there, too.
fn configuration(attempt: &Attempt) -> Result<Option<(Index, Configuration)>, Error> {
    let mut newest = attempt.snapshot.as_ref().map(|(name, snapshot)| {
        let point = &snapshot.point;
        (point.configuration_index.min(name.index), point.configuration.clone())
    });
    for (index, entry) in (attempt.first_index.0..).map(Index).zip(&attempt.entries) {
        let is_newer = newest.as_ref().is_none_or(|(newest, _)| index > *newest);
        if entry.kind == EntryKind::Change && is_newer {
            let decoded = Configuration::decode(entry.payload.clone())
                .map_err(|e| Error::Load(format!("entry {index}: {e}")))?;
            newest = Some((index, decoded));
        }
    }
    Ok(newest)
}

#[cfg(test)]
#[path = "inspect_test.rs"]
mod tests;

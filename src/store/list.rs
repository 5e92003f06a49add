//! The names in a data directory, typed. Used by whoever scans it; no state.
//!
//! ```text
//! open-N                              open segment, N = 1, 2, ...
//! FFFFFFFFFFFFFFFF-EEEEEEEEEEEEEEEE   closed segment: first and last index, decimal, at least 16 digits
//! snapshot-T-I-S[.meta]               snapshot: term, index, monotonic milliseconds
//! tmp-*, .probe, .probe_fallocate     unfinished file
//! ```
//!
//! A name counts only if it is spelt exactly as the writer would spell it; everything else is foreign and is
//! neither read nor removed.

use super::fs::Fs;
use crate::raft::{Index, Term};
use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::Path;

/// Names of this length and more are foreign: no writer produces them, and the C library cannot hold them.
const NAME_LEN_MAX: usize = 127;

/// Prefix of files that are renamed once complete.
pub(super) const TEMPORARY_PREFIX: &str = "tmp-";

/// Files by which the C library finds out what the file system can do.
const PROBES: [&str; 2] = [".probe", ".probe_fallocate"];

/// Name of a closed segment: the indexes it holds, both inclusive. Ordered by first index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ClosedName {
    pub(super) first: Index,
    pub(super) last: Index,
}

/// Name of an open segment: a counter that starts at 1 in each run of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct OpenName(pub(super) u64);

/// Name of a snapshot's data file. The order is that of age: the clock of the third part restarts with the
/// machine, so it only decides between snapshots of one index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SnapshotName {
    pub(super) term: Term,
    pub(super) index: Index,
    pub(super) timestamp_ms: u64,
}

impl SnapshotName {
    /// Name of the file with term, index and configuration.
    pub(super) fn meta(&self) -> String {
        format!("{self}.meta")
    }
}

impl fmt::Display for ClosedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016}-{:016}", self.first.0, self.last.0)
    }
}

impl fmt::Display for OpenName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "open-{}", self.0)
    }
}

impl fmt::Display for SnapshotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "snapshot-{}-{}-{}", self.term, self.index, self.timestamp_ms)
    }
}

/// One name and what it means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Name {
    Closed(ClosedName),
    Open(OpenName),
    SnapshotData(SnapshotName),
    SnapshotMeta(SnapshotName),
    Temporary,
    Foreign,
}

impl Name {
    pub(super) fn parse(name: &str) -> Name {
        if name.len() > NAME_LEN_MAX {
            return Name::Foreign;
        }
        if name.starts_with(TEMPORARY_PREFIX) || PROBES.contains(&name) {
            return Name::Temporary;
        }
        Name::parse_segment(name).or_else(|| Name::parse_snapshot(name)).unwrap_or(Name::Foreign)
    }

    fn parse_segment(name: &str) -> Option<Name> {
        if let Some(counter) = name.strip_prefix("open-") {
            let open = OpenName(counter.parse().ok()?);
            return (open.0 >= 1 && open.to_string() == name).then_some(Name::Open(open));
        }
        let (first, last) = name.split_once('-')?;
        let closed = ClosedName { first: Index(first.parse().ok()?), last: Index(last.parse().ok()?) };
        let sound = closed.first.0 >= 1 && closed.first <= closed.last && closed.to_string() == name;
        sound.then_some(Name::Closed(closed))
    }

    fn parse_snapshot(name: &str) -> Option<Name> {
        let (data, is_meta) = match name.strip_suffix(".meta") {
            Some(data) => (data, true),
            None => (name, false),
        };
        let mut parts = data.strip_prefix("snapshot-")?.splitn(3, '-').map(|part| part.parse().ok());
        let snapshot = SnapshotName {
            term: Term(parts.next()??),
            index: Index(parts.next()??),
            timestamp_ms: parts.next()??,
        };
        let kind = if is_meta { Name::SnapshotMeta } else { Name::SnapshotData };
        (snapshot.to_string() == data).then_some(kind(snapshot))
    }
}

/// What a data directory holds, each list in its order of age, oldest first.
#[derive(Debug, Clone, Default)]
pub(super) struct Listing {
    /// Snapshots of which both files exist and the data is not empty.
    pub(super) snapshots: Vec<SnapshotName>,
    pub(super) closed: Vec<ClosedName>,
    pub(super) open: Vec<OpenName>,
    /// Files that no complete operation leaves behind: temporary ones, and halves of snapshots.
    pub(super) leftovers: Vec<String>,
}

impl Listing {
    /// Scans a directory.
    pub(super) fn scan(fs: &dyn Fs, dir: &Path) -> io::Result<Listing> {
        let mut listing = Listing::default();
        let mut data = BTreeSet::new();
        let mut meta = BTreeSet::new();
        for name in fs.list(dir)? {
            let Some(name) = name.to_str() else { continue };
            match Name::parse(name) {
                Name::Closed(closed) => listing.closed.push(closed),
                Name::Open(open) => listing.open.push(open),
                Name::SnapshotData(snapshot) => drop(data.insert(snapshot)),
                Name::SnapshotMeta(snapshot) => drop(meta.insert(snapshot)),
                Name::Temporary => listing.leftovers.push(name.to_owned()),
                Name::Foreign => {}
            }
        }
        listing.closed.sort_unstable();
        listing.open.sort_unstable();
        listing.leftovers.extend(data.difference(&meta).map(SnapshotName::to_string));
        listing.leftovers.extend(meta.difference(&data).map(SnapshotName::meta));
        for snapshot in data.intersection(&meta) {
            if fs.size(&dir.join(snapshot.to_string()))? > 0 {
                listing.snapshots.push(*snapshot);
            }
        }
        Ok(listing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::fs::Disk;

    #[test]
    fn names_are_understood_only_as_the_writer_spells_them() {
        let closed = |first, last| Name::Closed(ClosedName { first: Index(first), last: Index(last) });
        let snapshot = SnapshotName { term: Term(1), index: Index(448), timestamp_ms: 2_902_600 };
        let long = format!("tmp-{}", "x".repeat(124));
        for (name, expected) in [
            ("open-1", Name::Open(OpenName(1))),
            ("open-12", Name::Open(OpenName(12))),
            ("open-", Name::Foreign),
            ("open-0", Name::Foreign),
            ("open-01", Name::Foreign),
            ("open-+1", Name::Foreign),
            ("open-1.bak", Name::Foreign),
            ("open-18446744073709551616", Name::Foreign),
            ("0000000000000001-0000000000000001", closed(1, 1)),
            ("0000000000000002-10000000000000000", closed(2, 10_000_000_000_000_000)),
            ("1-1", Name::Foreign),
            ("00000000000000001-0000000000000001", Name::Foreign),
            ("0000000000000002-0000000000000001", Name::Foreign),
            ("0000000000000000-0000000000000001", Name::Foreign),
            ("0000000000000001-0000000000000001x", Name::Foreign),
            ("snapshot-1-448-2902600", Name::SnapshotData(snapshot)),
            ("snapshot-1-448-2902600.meta", Name::SnapshotMeta(snapshot)),
            ("snapshot-1-448-02902600", Name::Foreign),
            ("snapshot-1-448", Name::Foreign),
            ("snapshot-1-448-2902600-1", Name::Foreign),
            ("snapshot-1-448-2902600.meta.meta", Name::Foreign),
            ("tmp-anything", Name::Temporary),
            (".probe", Name::Temporary),
            (long.as_str(), Name::Foreign),
            ("metadata1", Name::Foreign),
            ("dqlite-lock", Name::Foreign),
            ("corrupt-1-open-1", Name::Foreign),
        ] {
            assert_eq!(Name::parse(name), expected, "{name}");
        }
    }

    #[test]
    fn a_spelt_name_is_understood() {
        let closed = ClosedName { first: Index(7), last: Index(u64::MAX) };
        assert_eq!(Name::parse(&closed.to_string()), Name::Closed(closed));
        assert_eq!(Name::parse(&OpenName(u64::MAX).to_string()), Name::Open(OpenName(u64::MAX)));
    }

    #[test]
    fn a_snapshot_counts_with_both_files_and_data_only() {
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in [
            ("snapshot-1-5-30", "x"),
            ("snapshot-1-5-30.meta", "x"),
            ("snapshot-2-4-10", "x"),
            ("snapshot-2-4-10.meta", "x"),
            ("snapshot-1-5-4", "x"),
            ("snapshot-1-5-4.meta", ""),
            ("snapshot-3-9-1", ""),
            ("snapshot-3-9-1.meta", "x"),
            ("snapshot-3-8-1", "x"),
            ("snapshot-3-7-1.meta", "x"),
            ("tmp-a", "x"),
            ("foreign", "x"),
        ] {
            std::fs::write(dir.path().join(name), content).unwrap();
        }
        let mut listing = Listing::scan(&Disk, dir.path()).unwrap();
        let names: Vec<_> = listing.snapshots.iter().map(SnapshotName::to_string).collect();
        assert_eq!(names, ["snapshot-1-5-4", "snapshot-1-5-30", "snapshot-2-4-10"]);
        listing.leftovers.sort();
        assert_eq!(listing.leftovers, ["snapshot-3-7-1.meta", "snapshot-3-8-1", "tmp-a"]);
    }
}

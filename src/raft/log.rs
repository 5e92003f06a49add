//! The log in memory: terms, shared payloads, and the snapshot it stands on. Owned by the core; what is
//! durable is the business of `persistence`.
//!
//! ```text
//!            first_index     snapshot_index           last_index
//!                 |                |                       |
//!   (dropped)     [   trailing     ][   not in a snapshot  ]
//! ```
//!
//! Trailing entries are in the snapshot already; they stay to spare a slow follower the transfer of a whole
//! snapshot. Without a snapshot its index and term are 0.

use super::types::{Entry, Index, Term};
use std::collections::VecDeque;

/// Highest index a log may reach, so that no arithmetic on indexes overflows. Real logs end long before.
pub const INDEX_MAX: Index = Index(u64::MAX / 2);

/// Entries by index, contiguous.
#[derive(Debug, Clone)]
pub struct Log {
    snapshot_index: Index,
    snapshot_term: Term,
    first_index: Index,
    entries: VecDeque<Entry>,
}

impl Default for Log {
    fn default() -> Log {
        Log::new(Index(0), Term(0), Index(1), Vec::new())
    }
}

impl Log {
    /// A log of `entries` from `first_index` on, over the snapshot at `snapshot_index`.
    pub fn new(snapshot_index: Index, snapshot_term: Term, first_index: Index, entries: Vec<Entry>) -> Log {
        let log = Log { snapshot_index, snapshot_term, first_index, entries: entries.into() };
        assert!(first_index >= Index(1), "the log begins at index 1 at the earliest");
        assert!(first_index <= snapshot_index.next(), "gap from {snapshot_index} to {first_index}");
        assert!(log.last_index() >= snapshot_index, "log ends at {}", log.last_index());
        log
    }

    /// Index of the oldest entry held, or of the next one if there is none.
    pub fn first_index(&self) -> Index {
        self.first_index
    }

    /// Index of the newest entry, in memory or in the snapshot; 0 if there is none.
    pub fn last_index(&self) -> Index {
        Index(self.first_index.0 - 1 + self.entries.len() as u64)
    }

    /// Term of the newest entry; 0 if there is none.
    pub fn last_term(&self) -> Term {
        self.term_at(self.last_index()).expect("the last entry is in memory or is the snapshot's")
    }

    /// Last index of the snapshot; 0 without one.
    pub fn snapshot_index(&self) -> Index {
        self.snapshot_index
    }

    /// Term of the entry at `index`; `None` if it was dropped or does not exist yet. Index 0 has term 0, so
    /// that the entry "before the first" always matches (dissertation figure 3.1, prevLogTerm).
    pub fn term_at(&self, index: Index) -> Option<Term> {
        if index == Index(0) {
            Some(Term(0))
        } else if index == self.snapshot_index {
            Some(self.snapshot_term)
        } else {
            self.get(index).map(|entry| entry.term)
        }
    }

    /// The entry at `index`, if it is in memory.
    pub fn get(&self, index: Index) -> Option<&Entry> {
        self.entries.get(self.offset(index)?)
    }

    /// The newest entry, if it is in memory.
    pub fn last(&self) -> Option<&Entry> {
        self.entries.back()
    }

    /// The entries from `index` on that are in memory, oldest first.
    pub fn entries_from(&self, index: Index) -> impl DoubleEndedIterator<Item = &Entry> {
        let start = self.offset(index.max(self.first_index)).unwrap_or(0).min(self.entries.len());
        self.entries.range(start..)
    }

    /// Adds entries behind the newest one. Returns the index of the first of them.
    pub fn append(&mut self, entries: impl IntoIterator<Item = Entry>) -> Index {
        let first = self.last_index().next();
        self.entries.extend(entries);
        assert!(self.last_index() <= INDEX_MAX, "log grew beyond {INDEX_MAX}");
        first
    }

    /// Removes everything from `index` on.
    pub fn truncate_from(&mut self, index: Index) {
        assert!(
            index > self.snapshot_index,
            "truncation at {index} reaches into the snapshot at {}",
            self.snapshot_index
        );
        // Entries at and below the snapshot are not touched, so `index` is not before the first entry either.
        let keep = self.offset(index).expect("the first entry is at most one past the snapshot");
        self.entries.truncate(keep);
        assert!(self.last_index() >= self.snapshot_index, "log ends at {}", self.last_index());
    }

    /// Moves the snapshot up to `index`, whose term must still be known.
    pub fn set_snapshot(&mut self, index: Index, term: Term) {
        assert!(index > self.snapshot_index, "snapshot moved back from {} to {index}", self.snapshot_index);
        assert_eq!(self.term_at(index), Some(term), "term of the entry at {index}, the snapshot's last");
        self.snapshot_index = index;
        self.snapshot_term = term;
    }

    /// Drops entries up to `index`, which the snapshot must contain.
    pub fn drop_through(&mut self, index: Index) {
        assert!(
            index <= self.snapshot_index,
            "dropping up to {index}, beyond the snapshot at {}",
            self.snapshot_index
        );
        while self.first_index <= index {
            // The log reaches at least to the snapshot, so there is an entry for every index up to it.
            self.entries.pop_front().expect("the log reaches to the snapshot");
            self.first_index = self.first_index.next();
        }
    }

    fn offset(&self, index: Index) -> Option<usize> {
        usize::try_from(index.0.checked_sub(self.first_index.0)?).ok()
    }
}

#[cfg(test)]
#[path = "log_test.rs"]
mod tests;

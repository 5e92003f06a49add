//! The log in memory: terms, shared payloads, and the snapshot it stands on. Owned by the core; what is
//! durable is the business of `persistence`.
//!
//! ```text
//!            first_index     snapshot_index           last_index
//!                 |                |                       |
//!   (dropped)     [   trailing     ][   not in a snapshot  ]
//!                 [  headers  ][         entries           ]
//! ```
//!
//! Trailing entries are in the snapshot already; they stay to spare a slow follower the transfer of a whole
//! snapshot. Without a snapshot its index and term are 0.
//!
//! Of old entries, which nobody but a slow follower can need, only the header stays in memory: they are
//! evicted. Their payloads are on disk. Even a configuration is: [`super::history`] has it decoded.

use super::types::{Entry, EntryKind, Index, Term};
use std::collections::VecDeque;

/// Highest index a log may reach, so that no arithmetic on indexes overflows. Real logs end long before.
pub const INDEX_MAX: Index = Index(u64::MAX / 2);

/// What stays in memory of an evicted entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Header {
    term: Term,
    /// Of the payload. No format holds one of more than 32 bits.
    size: u32,
    kind: EntryKind,
}

impl Header {
    fn of(entry: &Entry) -> Header {
        let size = u32::try_from(entry.payload.len()).expect("neither disk nor network holds a larger entry");
        Header { term: entry.term, size, kind: entry.kind }
    }
}

/// Entries by index, contiguous.
#[derive(Debug, Clone)]
pub struct Log {
    snapshot_index: Index,
    snapshot_term: Term,
    first_index: Index,
    /// Of the evicted entries, from `first_index` on.
    headers: VecDeque<Header>,
    /// Those behind them, whole.
    entries: VecDeque<Entry>,
    /// What these take.
    entries_size: usize,
}

/// What an entry takes in memory.
fn size_in_memory(entry: &Entry) -> usize {
    size_of::<Entry>() + entry.payload.len()
}

impl Default for Log {
    fn default() -> Log {
        Log::new(Index(0), Term(0), Index(1), Vec::new())
    }
}

impl Log {
    /// A log of `entries` from `first_index` on, over the snapshot at `snapshot_index`.
    pub fn new(snapshot_index: Index, snapshot_term: Term, first_index: Index, entries: Vec<Entry>) -> Log {
        let entries_size = entries.iter().map(size_in_memory).sum();
        let (headers, entries) = (VecDeque::new(), VecDeque::from(entries));
        let log = Log { snapshot_index, snapshot_term, first_index, headers, entries, entries_size };
        assert!(first_index >= Index(1), "the log begins at index 1 at the earliest");
        assert!(first_index <= snapshot_index.next(), "gap from {snapshot_index} to {first_index}");
        assert!(log.last_index() >= snapshot_index, "log ends at {}", log.last_index());
        log
    }

    /// Index of the oldest entry, or of the next one if there is none.
    pub fn first_index(&self) -> Index {
        self.first_index
    }

    /// Index of the oldest entry that is whole in memory, or of the next one if there is none.
    pub fn first_whole(&self) -> Index {
        Index(self.first_index.0 + self.headers.len() as u64)
    }

    /// Whether of the entry at `index` only the header is in memory.
    pub fn is_evicted(&self, index: Index) -> bool {
        self.first_index <= index && index < self.first_whole()
    }

    /// Index of the newest entry, in memory or in the snapshot; 0 if there is none.
    pub fn last_index(&self) -> Index {
        Index(self.first_whole().0 - 1 + self.entries.len() as u64)
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
            self.header(index).map(|header| header.term)
        }
    }

    fn header(&self, index: Index) -> Option<Header> {
        let offset = usize::try_from(index.0.checked_sub(self.first_index.0)?).ok()?;
        self.headers.get(offset).copied().or_else(|| self.get(index).map(Header::of))
    }

    /// The entry at `index`, if it is whole in memory.
    pub fn get(&self, index: Index) -> Option<&Entry> {
        self.entries.get(self.offset(index)?)
    }

    /// The newest entry, if it is whole in memory.
    pub fn last(&self) -> Option<&Entry> {
        self.entries.back()
    }

    /// The entries from `index` on that are whole in memory, oldest first.
    pub fn entries_from(&self, index: Index) -> impl DoubleEndedIterator<Item = &Entry> {
        let start = self.offset(index.max(self.first_whole())).unwrap_or(0).min(self.entries.len());
        self.entries.range(start..)
    }

    /// The sizes of all payloads, those on disk included, newest first.
    pub fn payload_sizes(&self) -> impl Iterator<Item = u64> {
        let whole = self.entries.iter().rev().map(|entry| entry.payload.len() as u64);
        whole.chain(self.headers.iter().rev().map(|header| u64::from(header.size)))
    }

    /// Whether these are the entries of this log from `first` on, as far as the headers tell.
    pub fn has(&self, first: Index, entries: &[Entry]) -> bool {
        let indexes = (first.0..).map(Index);
        indexes.zip(entries).all(|(index, entry)| self.header(index) == Some(Header::of(entry)))
    }

    /// Evicts the oldest entries up to `through` until those left take at most `size_max` bytes.
    pub fn evict(&mut self, through: Index, size_max: usize) {
        while self.entries_size > size_max
            && self.first_whole() <= through
            && let Some(entry) = self.entries.pop_front()
        {
            self.entries_size -= size_in_memory(&entry);
            self.headers.push_back(Header::of(&entry));
        }
    }

    /// Adds entries behind the newest one. Returns the index of the first of them.
    pub fn append(&mut self, entries: impl IntoIterator<Item = Entry>) -> Index {
        let first = self.last_index().next();
        for entry in entries {
            self.entries_size += size_in_memory(&entry);
            self.entries.push_back(entry);
        }
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
        // What was evicted is applied, so it stays.
        let keep = self.offset(index).expect("only whole entries are removed");
        let removed = self.entries.range(keep.min(self.entries.len())..);
        self.entries_size -= removed.map(size_in_memory).sum::<usize>();
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
            if self.headers.pop_front().is_none() {
                let entry = self.entries.pop_front().expect("the log reaches to the snapshot");
                self.entries_size -= size_in_memory(&entry);
            }
            self.first_index = self.first_index.next();
        }
    }

    /// Position among the whole entries.
    fn offset(&self, index: Index) -> Option<usize> {
        usize::try_from(index.0.checked_sub(self.first_whole().0)?).ok()
    }
}

#[cfg(test)]
#[path = "log_test.rs"]
mod tests;

//! A disk that forgets what was not synced when the power goes. Snapshots contain an `S`.

use crate::random::Random;
use dqlite::raft::{Entry, Index, Seq, ServerId, SnapshotPoint, Start, Term};
use std::collections::VecDeque;

/// A request, in the order in which it was made.
#[derive(Debug, Clone)]
pub enum Request<S> {
    Vote { term: Term, voted_for: Option<ServerId>, seq: Seq },
    Append { first: Index, entries: Vec<Entry>, seq: Seq },
    Truncate { from: Index, seq: Seq },
    Install { point: SnapshotPoint, content: S },
}

impl<S> Request<S> {
    /// Its number; none if the core waits for something else.
    pub fn seq(&self) -> Option<Seq> {
        match self {
            Request::Vote { seq, .. } | Request::Append { seq, .. } | Request::Truncate { seq, .. } => {
                Some(*seq)
            }
            Request::Install { .. } => None,
        }
    }
}

/// What a completed request is worth to its server.
#[derive(Debug, Clone)]
pub enum Done<S> {
    Persisted(Seq),
    Installed(Index, S),
    NotInstalled(Index),
    /// There is no space for the next request, which is still in the queue.
    NoSpace,
}

#[derive(Debug, Clone, Default)]
pub struct Disk<S = Vec<u64>> {
    pub term: Term,
    pub voted_for: Option<ServerId>,
    pub snapshot: Option<(SnapshotPoint, S)>,
    /// Index of `entries[0]`.
    pub first: u64,
    pub entries: Vec<Entry>,
    pub queue: VecDeque<Request<S>>,
    /// How many of the queue the sync under way covers; 0: none is.
    pub syncing: usize,
}

impl<S: Clone + Default> Disk<S> {
    /// Empty, or with these entries from index 1 on.
    pub fn new(entries: Vec<Entry>) -> Disk<S> {
        let term = entries.last().map_or(Term(0), |entry| entry.term);
        Disk { first: 1, term, entries, ..Disk::default() }
    }

    pub fn last(&self) -> u64 {
        self.first - 1 + self.entries.len() as u64
    }

    /// Whether the entry is durable here, in the log or in the snapshot.
    pub fn holds(&self, index: u64, term: Term) -> bool {
        if self.snapshot.as_ref().is_some_and(|(point, _)| index <= point.index.0) {
            return true;
        }
        self.entry(index).is_some_and(|entry| entry.term == term)
    }

    /// The durable entry at `index`, if it is in the log.
    pub fn entry(&self, index: u64) -> Option<&Entry> {
        let offset = index.checked_sub(self.first).map(|offset| offset as usize);
        offset.and_then(|offset| self.entries.get(offset))
    }

    /// Carries out what the sync covers. What a full disk cannot do any more are appends, and installations,
    /// which change nothing then. Term and vote have their place.
    pub fn finish_sync(&mut self, full: bool) -> Vec<Done<S>> {
        let mut done = Vec::new();
        for _ in 0..std::mem::take(&mut self.syncing) {
            if full && matches!(self.queue.front(), Some(Request::Append { .. })) {
                done.push(Done::NoSpace);
                break;
            }
            done.push(match self.queue.pop_front().expect("the sync covers what is in the queue") {
                Request::Install { point, .. } if full => Done::NotInstalled(point.index),
                request => self.carry_out(request),
            });
        }
        done
    }

    /// Drops the first request, an append for which there is no space, though not always all of its entries,
    /// and every append behind it. Says which request that was and where the log ends.
    pub fn drop_appends(&mut self, random: &mut Random) -> (Seq, Index) {
        let Some(Request::Append { first, mut entries, seq }) = self.queue.pop_front() else {
            panic!("what found no space is an append");
        };
        entries.truncate(random.between(0, entries.len() as u64 - 1) as usize);
        self.carry_out(Request::Append { first, entries, seq });
        self.queue.retain(|request| !matches!(request, Request::Append { .. }));
        self.syncing = self.syncing.min(self.queue.len());
        (seq, Index(self.last()))
    }

    fn carry_out(&mut self, request: Request<S>) -> Done<S> {
        match request {
            Request::Vote { term, voted_for, seq } => {
                assert!(
                    term > self.term
                        || (term == self.term && (self.voted_for.is_none() || self.voted_for == voted_for)),
                    "term or vote went back on disk"
                );
                (self.term, self.voted_for) = (term, voted_for);
                Done::Persisted(seq)
            }
            Request::Append { first, entries, seq } => {
                assert_eq!(first.0, self.last() + 1, "append leaves a gap or overlaps");
                self.entries.extend(entries);
                Done::Persisted(seq)
            }
            Request::Truncate { from, seq } => {
                let keep = from.0.checked_sub(self.first).expect("truncation below the first entry");
                self.entries.truncate(keep as usize);
                Done::Persisted(seq)
            }
            Request::Install { point, content } => {
                let index = point.index;
                self.first = index.0 + 1;
                self.entries.clear();
                self.snapshot = Some((point, content.clone()));
                Done::Installed(index, content)
            }
        }
    }

    /// A snapshot of our own log was written; `trailing` entries stay behind it.
    pub fn store_snapshot(&mut self, point: SnapshotPoint, content: S, trailing: u64) {
        assert!(point.index.0 <= self.last(), "the snapshot is ahead of the log on disk");
        let first = (point.index.0.saturating_sub(trailing) + 1).max(self.first);
        self.entries.drain(..(first - self.first) as usize);
        self.first = first;
        self.snapshot = Some((point, content));
    }

    /// The power goes: any prefix of the queue may have reached the disk, the last append in part. Says
    /// whether an append was torn.
    pub fn crash(&mut self, random: &mut Random) -> bool {
        let durable = random.between(0, self.queue.len() as u64);
        for _ in 0..durable {
            let request = self.queue.pop_front().expect("not more than there are");
            self.carry_out(request);
        }
        let mut torn = false;
        if let Some(Request::Append { first, mut entries, seq }) = self.queue.pop_front() {
            entries.truncate(random.between(0, entries.len() as u64 - 1) as usize);
            torn = !entries.is_empty();
            self.carry_out(Request::Append { first, entries, seq });
        }
        self.queue.clear();
        self.syncing = 0;
        torn
    }

    /// What a server finds when it starts.
    pub fn start(&self) -> Start {
        Start {
            term: self.term,
            voted_for: self.voted_for,
            snapshot: self.snapshot.as_ref().map(|(point, _)| point.clone()),
            first_index: Index(self.first),
            entries: self.entries.clone(),
        }
    }
}

//! Checkpoints: committed frames become the main file by moving references, speculative frames stay and are
//! renumbered from 1. It needs the moment in which nobody holds any WAL lock, but not an empty pipeline;
//! whoever releases the last lock or commits tries. Readers that always overlap would never leave such a
//! moment, so once the WAL is far too long, new ones are held back for a few milliseconds.

use std::time::{Duration, Instant};

use crate::config::{CHECKPOINT_GATE_MS, CHECKPOINT_GATE_PERIOD_MS, CHECKPOINT_OVERDUE_FACTOR};

use super::database::{Database, State, random_word};
use super::locks::{LockMask, WRITE};
use super::pages::{PageRef, zeros};
use super::shm::Header;
use super::{Bug, View};

const ALL_LOCKS: LockMask = 0xff;

/// Decides when new readers are held back.
#[derive(Debug, Default)]
pub(super) struct Gate {
    closed_at: Option<Instant>,
}

impl Gate {
    /// Whether a reader that comes now has to wait. Closed for a moment, then open for the rest of the
    /// period.
    fn is_closed(&mut self, now: Instant) -> bool {
        let since = self.closed_at.map(|at| now.saturating_duration_since(at));
        if since.is_none_or(|since| since >= Duration::from_millis(CHECKPOINT_GATE_PERIOD_MS)) {
            self.closed_at = Some(now);
            return true;
        }
        since.is_some_and(|since| since < Duration::from_millis(CHECKPOINT_GATE_MS))
    }
}

impl Database {
    /// Checkpoints whatever is committed, whether it is much or little. `false` if a lock is in the way.
    pub fn checkpoint(&self) -> bool {
        let mut state = self.state.write();
        if !state.locks.are_free(ALL_LOCKS) {
            return false;
        }
        let unused = state.checkpoint_if_due(1);
        drop(state);
        drop(unused);
        true
    }
}

impl State {
    /// Whether a new reader of the committed view should try again in a moment, for the sake of a checkpoint.
    pub(super) fn holds_readers_back(&mut self, threshold: u32) -> bool {
        self.committed >= threshold.saturating_mul(CHECKPOINT_OVERDUE_FACTOR)
            && !self.locks.are_free(ALL_LOCKS)
            && self.gate.is_closed(Instant::now())
    }

    /// Checkpoints if enough frames are committed and nobody holds a lock. Returns superseded pages, for the
    /// caller to let go of when it holds no lock.
    #[must_use]
    pub(super) fn checkpoint_if_due(&mut self, threshold: u32) -> Vec<PageRef> {
        let in_the_way = if self.planted.has(Bug::CheckpointUnderReaders) { WRITE } else { ALL_LOCKS };
        if self.committed < threshold.max(1) || !self.locks.are_free(in_the_way) {
            return Vec::new();
        }
        // Without random bytes or memory the WAL just stays longer.
        let Ok(salt) = random_word() else { return Vec::new() };
        let committed = self.committed_header();
        let newest = self.speculative_header().change_counter;
        let missing = (committed.size as usize).saturating_sub(self.pages.len());
        if self.pages.try_reserve(missing).is_err() {
            return Vec::new();
        }
        let moved = self.committed;
        let unused = self.move_committed_pages(committed.size as usize);
        let forgets = self.planted.has(Bug::CheckpointForgetsSpeculation);
        for frame in 1..=if forgets { 0 } else { self.wal.frame_count() } {
            let page = self.wal.frame(frame).0;
            self.index.extend(frame, page);
        }
        self.rebase_headers(committed, newest, moved, salt);
        self.checkpoints += 1;
        self.gate = Gate::default();
        unused
    }

    /// The committed frames' pages replace those of the main file, which takes the committed size. Pages that
    /// no transaction ever wrote, such as the one at the pending byte, read as zeros.
    fn move_committed_pages(&mut self, size: usize) -> Vec<PageRef> {
        let mut unused = if size < self.pages.len() { self.pages.split_off(size) } else { Vec::new() };
        self.pages.resize_with(size, zeros);
        for (number, page) in self.wal.take_first(self.committed) {
            match self.pages.get_mut(number as usize - 1) {
                Some(place) => unused.push(std::mem::replace(place, page)),
                None => unused.push(page),
            }
        }
        self.committed = 0;
        unused
    }

    /// New headers for a WAL whose first `moved` frames are gone. The first salt counts generations, so none
    /// of them repeats a header of an earlier generation.
    fn rebase_headers(&mut self, mut committed: Header, newest: u32, moved: u32, salt: u32) {
        let salts = [committed.salts[0].wrapping_add(1), salt];
        committed.salts = salts;
        committed.last_frame = 0;
        self.stamp(&mut committed, newest);
        let mut last = committed;
        for speculative in &mut self.pipeline {
            speculative.first -= moved;
            speculative.last -= moved;
            let header = &mut speculative.header;
            header.last_frame -= moved;
            header.salts = salts;
            header.change_counter = last.change_counter.wrapping_add(1);
            last = *header;
        }
        assert_eq!(last.last_frame, self.wal.frame_count(), "the pipeline must cover all speculative frames");
        self.index.reset(&committed, &last);
        debug_assert_eq!(self.index.header(View::Speculative), last);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_are_held_back_for_a_small_part_of_the_time() {
        let mut gate = Gate::default();
        let start = Instant::now();
        let closed = (0..400).filter(|ms| gate.is_closed(start + Duration::from_millis(*ms))).count() as u64;
        assert_eq!(closed, 4 * CHECKPOINT_GATE_MS * 100 / CHECKPOINT_GATE_PERIOD_MS);
    }
}

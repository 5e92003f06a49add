//! Speculative transactions: how a write transaction is opened and closed, taken for replication, published
//! when its entry is committed, or aborted; and how a follower appends what the leader replicated.
//!
//! ```text
//! WAL frames   1 ......... committed | speculative 1 | speculative 2 | open transaction (spilled) |
//! C.mxFrame    --------------------^                                 |
//! S.mxFrame    ------------------------------------------------------^
//! ```

use std::sync::atomic::Ordering;

use crate::config::PAGE_SIZE;

use super::database::{Database, State};
use super::locks::WRITE;
use super::pages::{PageNumber, PageRef, declared_size, deleted_database};
use super::shm::Header;
use super::{Bug, Error, View};

/// The write transaction of the WRITE lock's holder.
#[derive(Debug, Clone, Copy)]
pub(super) struct OpenWrite {
    /// Last frame before the transaction.
    pub(super) base: u32,
    pub(super) deletion: Deletion,
}

/// Whether a write transaction deletes its database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deletion {
    /// Not asked for.
    None,
    /// `PRAGMA delete_database` was run; the commit decides.
    Requested,
    /// Its last frame is the mark of a deleted database.
    Written,
}

/// A transaction that SQLite has closed and Raft has not committed.
#[derive(Debug)]
pub(super) struct Speculative {
    pub(super) id: TransactionId,
    pub(super) first: u32,
    pub(super) last: u32,
    /// The header that publishes it.
    pub(super) header: Header,
    taken: bool,
    deletes: bool,
}

/// Names a speculative transaction of one database; later transactions have greater ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransactionId(u64);

impl TransactionId {
    /// Counts the transactions of the database, from 1.
    pub fn number(self) -> u64 {
        self.0
    }
}

/// What one write transaction replicates: page images in the order in which they apply, the later image of a
/// page wins.
#[derive(Debug, Clone)]
pub struct Transaction {
    /// For [`Database::publish_next`].
    pub id: TransactionId,
    /// Page numbers and images.
    pub pages: Vec<(PageNumber, PageRef)>,
}

impl Database {
    /// The oldest transaction that was closed and not taken yet. Call it right after a step that may have
    /// closed one, until it gives none, before anybody else may write: log order has to be execution order.
    pub fn take_transaction(&self) -> Option<Transaction> {
        let mut state = self.state.write();
        let state = &mut *state;
        let taken = state.pipeline.partition_point(|s| s.taken);
        let speculative = state.pipeline.get_mut(taken)?;
        speculative.taken = true;
        // Everything before the page that marks a deletion is gone after it, and C nodes insist on one page.
        let first = if speculative.deletes { speculative.last } else { speculative.first };
        let frames = state.wal.range(first, speculative.last);
        let pages = frames.map(|(number, page)| (number, PageRef::clone(page))).collect();
        Some(Transaction { id: speculative.id, pages })
    }

    /// Makes the oldest speculative transaction visible to readers; its entry is committed.
    pub fn publish_next(&self, id: TransactionId) -> Result<(), Error> {
        let mut state = self.state.write();
        match state.pipeline.front() {
            Some(oldest) if oldest.id == id => {}
            oldest => return Err(Error::NotOldest { expected: oldest.map(|s| s.id), given: id }),
        }
        let Some(oldest) = state.pipeline.pop_front() else { return Ok(()) };
        assert_eq!(
            oldest.first,
            state.committed + 1,
            "a published transaction must follow the committed frames"
        );
        if !self.has(Bug::PublishForgetsPages) {
            state.index.publish_entries(oldest.first, oldest.last);
        }
        state.index.set_header(View::Committed, &oldest.header);
        state.committed = oldest.last;
        let unused = state.checkpoint_if_due(self.checkpoint_threshold);
        drop(state);
        drop(unused);
        Ok(())
    }

    /// Drops every speculative transaction. Nobody may be inside a transaction on the speculative view:
    /// interrupt the running statement, roll back, and reset what still reads.
    pub fn abort(&self) -> Result<(), Error> {
        let mut state = self.state.write();
        if !state.write_is_free() || state.speculative_holders > 0 {
            return Err(Error::Busy);
        }
        let unused = state.drop_speculation();
        self.history.fetch_add(1, Ordering::AcqRel);
        drop(state);
        drop(unused);
        Ok(())
    }

    /// Applies a transaction that was executed elsewhere. Only on a database without speculation.
    pub fn append(&self, pages: &[(PageNumber, PageRef)]) -> Result<(), Error> {
        if pages.iter().any(|(number, _)| *number == 0) {
            return Err(Error::PageZero);
        }
        let mut state = self.state.write();
        if !state.write_is_free() || !state.pipeline.is_empty() {
            return Err(Error::Busy);
        }
        state.append(pages);
        let unused = state.checkpoint_if_due(self.checkpoint_threshold);
        drop(state);
        drop(unused);
        Ok(())
    }
}

impl State {
    /// The WRITE lock was granted.
    pub(super) fn begin_write(&mut self) {
        let base = self.speculative_header().last_frame;
        let frames = self.wal.frame_count();
        assert_eq!(base, frames, "frames of nobody lie above the speculative view");
        self.writer = Some(OpenWrite { base, deletion: Deletion::None });
    }

    /// The WRITE lock is about to be released. What counts as committed is what SQLite put into the header,
    /// not which frames it wrote: a rolled back savepoint or transaction leaves frames above.
    #[must_use]
    pub(super) fn end_write(&mut self) -> Vec<PageRef> {
        let writer = self.writer.take().expect("the WRITE lock is held exactly while `writer` is set");
        let header = self.speculative_header();
        let last = header.last_frame;
        let frames = self.wal.frame_count();
        assert!(writer.base <= last && last <= frames, "base {}, last {last}, {frames} frames", writer.base);
        let unused = self.wal.truncate(last);
        if last > writer.base {
            let id = TransactionId(self.next_transaction);
            self.next_transaction += 1;
            let first = writer.base + 1;
            let deletes = writer.deletion == Deletion::Written;
            self.pipeline.push_back(Speculative { id, first, last, header, taken: false, deletes });
        }
        self.locks.release_exclusive(WRITE);
        unused
    }

    /// Ends the open write transaction by a page 1 that marks the database as deleted, on top of whatever
    /// else the transaction did.
    pub(super) fn write_deletion(&mut self) -> Vec<PageRef> {
        let mut header = self.speculative_header();
        let unused = self.wal.truncate(header.last_frame);
        let page = deleted_database(self.newest_page1(header.last_frame));
        header.last_frame += 1;
        header.size = 1;
        self.wal.push(1, page);
        self.index.extend(header.last_frame, 1);
        let change_counter = header.change_counter;
        self.stamp(&mut header, change_counter);
        self.index.set_header(View::Speculative, &header);
        if let Some(writer) = &mut self.writer {
            writer.deletion = Deletion::Written;
        }
        unused
    }

    /// Both views become the committed one, under a header that no page cache has seen.
    fn drop_speculation(&mut self) -> Vec<PageRef> {
        let newest = self.pipeline.back().filter(|_| self.planted.has(Bug::AbortKeepsNewestFrames));
        let unused = self.wal.truncate(newest.map_or(self.committed, |newest| newest.last));
        self.pipeline.clear();
        let mut header = self.committed_header();
        let newest = self.speculative_header().change_counter;
        self.stamp(&mut header, newest);
        self.index.set_header(View::Speculative, &header);
        self.index.set_header(View::Committed, &header);
        unused
    }

    fn append(&mut self, pages: &[(PageNumber, PageRef)]) {
        if pages.is_empty() {
            return;
        }
        let mut header = self.committed_header();
        for (number, page) in pages {
            header.last_frame += 1;
            self.wal.push(*number, PageRef::clone(page));
            self.index.extend(header.last_frame, *number);
        }
        if let Some(page1) = newest_page1_of(pages) {
            header.size = declared_size(page1).max(1);
        }
        let newest = self.speculative_header().change_counter;
        self.stamp(&mut header, newest);
        self.index.set_header(View::Speculative, &header);
        self.index.set_header(View::Committed, &header);
        self.committed = header.last_frame;
    }
}

/// The page that says how large the database is after a transaction, if the transaction has one.
fn newest_page1_of(pages: &[(PageNumber, PageRef)]) -> Option<&[u8; PAGE_SIZE]> {
    pages.iter().rev().find_map(|(number, page)| (*number == 1).then_some(&**page))
}

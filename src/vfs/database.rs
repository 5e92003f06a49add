//! One replicated database: its pages, WAL frames, WAL-index, locks and pipeline, all behind one lock that is
//! held for microseconds. Any thread. Transactions are in `txn`, checkpoints in `checkpoint`, images in
//! `capture`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::RwLock;

use crate::config::PAGE_SIZE;
use crate::sqlite;

use super::checkpoint::Gate;
use super::locks::{LockTable, WRITE};
use super::pages::{PageRef, declared_size, empty_database};
use super::planted::Planted;
use super::shm::{Header, IndexFiles, WalIndex};
use super::txn::{OpenWrite, Speculative};
use super::wal::Wal;
use super::{Error, Fault, View};

/// A database of a [`Vfs`](super::Vfs).
#[derive(Debug)]
pub struct Database {
    name: Vec<u8>,
    /// Position in the order of creation.
    pub(super) serial: u64,
    pub(super) checkpoint_threshold: u32,
    pub(super) files: IndexFiles,
    pub(super) fault: Arc<Fault>,
    /// Grows whenever states are dropped that connections may have seen. Written under the lock of `state`.
    pub(super) history: Arc<AtomicU64>,
    pub(super) state: RwLock<State>,
    pub(super) planted: Planted,
}

/// The changing part of a database.
#[derive(Debug)]
pub(super) struct State {
    pub(super) locks: LockTable,
    /// The main file: the committed database as of the last checkpoint.
    pub(super) pages: Vec<PageRef>,
    pub(super) wal: Wal,
    /// Frames of the committed view.
    pub(super) committed: u32,
    pub(super) index: WalIndex,
    /// Speculative transactions, oldest first.
    pub(super) pipeline: VecDeque<Speculative>,
    /// File handles that hold a lock while they show the speculative view.
    pub(super) speculative_holders: u32,
    /// Set while somebody holds the WRITE lock.
    pub(super) writer: Option<OpenWrite>,
    pub(super) next_transaction: u64,
    headers_written: u64,
    pub(super) checkpoints: u64,
    pub(super) gate: Gate,
    pub(super) planted: Planted,
}

/// How much of a database is executed but not committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pipeline {
    /// Speculative transactions.
    pub count: usize,
    /// Size of their pages.
    pub bytes: usize,
}

impl Database {
    /// An empty database, as SQLite would create it.
    pub(super) fn create(
        name: &[u8],
        serial: u64,
        checkpoint_threshold: u32,
        os_page_size: usize,
        fault: Arc<Fault>,
        planted: Planted,
    ) -> Result<Database, Error> {
        let files = IndexFiles::create(os_page_size)?;
        let mut state = State {
            locks: LockTable::default(),
            pages: vec![empty_database(sqlite::version_number())],
            wal: Wal::default(),
            committed: 0,
            index: WalIndex::new(&files)?,
            pipeline: VecDeque::new(),
            speculative_holders: 0,
            writer: None,
            next_transaction: 1,
            headers_written: 0,
            checkpoints: 0,
            gate: Gate::default(),
            planted,
        };
        let mut header = Header {
            change_counter: 0,
            last_frame: 0,
            size: 1,
            frame_checksum: [0; 2],
            salts: [random_word()?, random_word()?],
        };
        state.stamp(&mut header, 0);
        state.index.reset(&header, &header);
        let (history, state) = (Arc::default(), RwLock::new(state));
        let name = name.to_vec();
        Ok(Database { name, serial, checkpoint_threshold, files, fault, history, state, planted })
    }

    /// The name it was created with, verbatim.
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// Frames in the WAL: committed, speculative, and those of an open write transaction that spilled.
    pub fn frame_count(&self) -> u32 {
        self.state.read().wal.frame_count()
    }

    /// Size of the committed database in pages.
    pub fn committed_size(&self) -> u32 {
        self.state.read().committed_header().size
    }

    /// What is executed but not committed.
    pub fn pipeline(&self) -> Pipeline {
        let state = self.state.read();
        let frames = state.pipeline.back().map_or(0, |newest| newest.last - state.committed);
        Pipeline { count: state.pipeline.len(), bytes: frames as usize * PAGE_SIZE }
    }

    /// Whether both views show the same state: nothing is executed but not committed.
    pub fn drained(&self) -> bool {
        self.state.read().pipeline.is_empty()
    }

    /// Whether the committed state is that of a deleted database.
    pub fn is_deleted(&self) -> bool {
        let state = self.state.read();
        state.committed_header().size == 1 && declared_size(state.newest_page1(state.committed)) == 0
    }

    /// Checkpoints since the database was created.
    pub fn checkpoints(&self) -> u64 {
        self.state.read().checkpoints
    }

    /// Regions of the WAL-index that exist.
    pub fn index_regions(&self) -> usize {
        self.state.read().index.region_count()
    }
}

impl State {
    pub(super) fn committed_header(&self) -> Header {
        self.index.header(View::Committed)
    }

    /// The speculative header; nobody may hold the WRITE lock, except the calling thread.
    pub(super) fn speculative_header(&self) -> Header {
        self.index.header(View::Speculative)
    }

    /// Makes a header unlike every other one of this database, so that no page cache mistakes the state it
    /// stands for. `change_counter` is the newest in use: SQLite counts on from it, in the speculative view.
    pub(super) fn stamp(&mut self, header: &mut Header, change_counter: u32) {
        self.headers_written += 1;
        let sequence = self.headers_written;
        header.change_counter = change_counter.wrapping_add(1);
        header.frame_checksum = [sequence as u32, (sequence >> 32) as u32];
    }

    /// Whether the speculative state may be changed from outside a write transaction.
    pub(super) fn write_is_free(&self) -> bool {
        self.locks.are_free(WRITE)
    }

    /// The newest image of page 1 at or below a frame.
    pub(super) fn newest_page1(&self, last_frame: u32) -> &PageRef {
        (1..=last_frame)
            .rev()
            .map(|frame| self.wal.frame(frame))
            .find_map(|(number, page)| (number == 1).then_some(page))
            .unwrap_or(&self.pages[0])
    }
}

/// Four bytes from the operating system's generator.
pub(super) fn random_word() -> Result<u32, Error> {
    let mut bytes = [0; 4];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(u32::from_ne_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::vfs::Vfs;

    #[test]
    fn no_operation_ever_repeats_a_header() {
        let vfs = Vfs::register(u32::MAX).unwrap();
        let database = vfs.create_database("test.db").unwrap();
        let page = database.capture().pages.remove(0);
        let mut seen = HashSet::new();
        let mut assert_unseen = |what: &str| {
            let state = database.state.read();
            assert_eq!(state.committed_header(), state.speculative_header());
            let Header { change_counter, last_frame, size, frame_checksum, salts } = state.committed_header();
            let fresh = seen.insert((change_counter, last_frame, size, frame_checksum, salts));
            assert!(fresh, "{what} repeated a header: a page cache could believe in pages of another state");
        };
        assert_unseen("creation");
        for _ in 0..5 {
            database.append(&[(1, PageRef::clone(&page))]).unwrap();
            assert_unseen("append");
            database.abort().unwrap();
            assert_unseen("abort");
            assert!(database.checkpoint());
            assert_unseen("checkpoint");
            database.restore(database.capture()).unwrap();
            assert_unseen("restore");
            database.abort().unwrap();
            assert_unseen("abort");
        }
    }
}

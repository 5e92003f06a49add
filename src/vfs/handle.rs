//! One open main file: which view it shows, which locks it holds, whether it may write. SQLite calls it from
//! the thread that runs a statement; the owner of the connection calls it between statements.

use std::sync::Arc;

use libsqlite3_sys as ffi;
use parking_lot::Mutex;
use std::ffi::{c_int, c_void};

use super::database::{Database, State};
use super::locks::{CHECKPOINT, LockMask, READ, WRITE, mask_of};
use super::pages::PageRef;
use super::shm::ViewMapping;
use super::txn::Deletion;
use super::{Bug, Error, Registration, View};
use crate::sqlite::SchemaEpoch;

const DELETE_NEEDS_WRITE: &str =
    "PRAGMA delete_database must be run in a write transaction. Use BEGIN IMMEDIATE to start one.";
const DELETE_MUST_BE_ALONE: &str =
    "PRAGMA delete_database must be the only statement run in the transaction.";

/// The state behind one `sqlite3_file` of a main database.
#[derive(Debug)]
pub(super) struct MainHandle {
    pub(super) database: Arc<Database>,
    /// Keeps the `sqlite3_vfs` alive that SQLite opened this file through.
    _registration: Arc<Registration>,
    /// Which history of the database the connection's parsed schema belongs to.
    pub(super) schema_epoch: Arc<SchemaEpoch>,
    state: Mutex<HandleState>,
}

#[derive(Debug)]
struct HandleState {
    view: View,
    /// Whether the WRITE lock may be granted: only the statement that owns the write lane has it.
    permit: bool,
    /// The view was switched by the WRITE lock and goes back when the last lock does.
    reverts: bool,
    shared: LockMask,
    exclusive: LockMask,
    /// SQLite has released the WRITE lock of a transaction that deletes the database; we still hold it, until
    /// we know whether it was committed.
    undecided: bool,
    /// The database counts this handle among those that hold locks in the speculative view.
    counted: bool,
    /// Region 0, once SQLite has asked for it.
    mapping: Option<ViewMapping>,
}

impl MainHandle {
    pub(super) fn new(database: Arc<Database>, registration: Arc<Registration>) -> MainHandle {
        let state = HandleState {
            view: View::Committed,
            permit: false,
            reverts: false,
            shared: 0,
            exclusive: 0,
            undecided: false,
            counted: false,
            mapping: None,
        };
        let schema_epoch = Arc::new(SchemaEpoch::new(Arc::clone(&database.history)));
        MainHandle { database, _registration: registration, schema_epoch, state: Mutex::new(state) }
    }

    /// Shows a view, with the right to write exactly if it is the speculative one. Not inside a transaction.
    pub(super) fn set_view(&self, view: View) -> Result<(), Error> {
        let mut handle = self.state.lock();
        if handle.holds_locks() {
            return Err(Error::InTransaction);
        }
        handle.switch(&self.database, view)?;
        handle.permit = view == View::Speculative;
        Ok(())
    }

    pub(super) fn view(&self) -> View {
        self.state.lock().view
    }

    pub(super) fn set_permit(&self, permit: bool) {
        self.state.lock().permit = permit;
    }

    /// Memory of a WAL-index region for SQLite; NULL if it does not exist and should not be created.
    pub(super) fn map_region(&self, region: c_int, create: bool) -> Result<*mut c_void, Error> {
        match usize::try_from(region) {
            Ok(0) => {
                let mut handle = self.state.lock();
                let view = match self.database.has(Bug::ReaderIsSpeculative) {
                    true => View::Speculative,
                    false => handle.view,
                };
                let mapping = match handle.mapping.take() {
                    Some(mapping) => mapping,
                    None => ViewMapping::new(&self.database.files, view)?,
                };
                Ok(handle.mapping.insert(mapping).address())
            }
            Ok(region) => Ok(self.database.state.write().index.region_address(region, create)),
            Err(_) => Err(Error::System(rustix::io::Errno::INVAL)),
        }
    }

    /// Takes the mapping of region 0 away; SQLite has forgotten its address.
    pub(super) fn unmap(&self) {
        let mut handle = self.state.lock();
        handle.mapping = None;
    }

    /// Releases whatever the handle still holds; a write transaction is rolled back if SQLite did not commit
    /// it.
    pub(super) fn release_all(&self) {
        let (shared, exclusive) = {
            let handle = self.state.lock();
            (handle.shared, handle.exclusive)
        };
        self.unlock_exclusive(exclusive);
        self.unlock_shared(shared);
        let mut handle = self.state.lock();
        if handle.undecided {
            handle.undecided = false;
            let mut state = self.database.state.write();
            let unused = state.end_write();
            handle.recount(&mut state);
            drop(state);
            drop(unused);
        }
    }

    /// One call of `xShmLock`.
    pub(super) fn lock(&self, first: c_int, count: c_int, flags: c_int) -> c_int {
        const LOCK_SHARED: c_int = ffi::SQLITE_SHM_LOCK | ffi::SQLITE_SHM_SHARED;
        const LOCK_EXCLUSIVE: c_int = ffi::SQLITE_SHM_LOCK | ffi::SQLITE_SHM_EXCLUSIVE;
        const UNLOCK_SHARED: c_int = ffi::SQLITE_SHM_UNLOCK | ffi::SQLITE_SHM_SHARED;
        const UNLOCK_EXCLUSIVE: c_int = ffi::SQLITE_SHM_UNLOCK | ffi::SQLITE_SHM_EXCLUSIVE;
        let Some(mask) = mask_of(first, count) else { return ffi::SQLITE_IOERR_SHMLOCK };
        let granted = match flags {
            LOCK_SHARED => self.lock_shared(mask),
            LOCK_EXCLUSIVE => self.lock_exclusive(mask),
            UNLOCK_SHARED => {
                self.unlock_shared(mask);
                Ok(())
            }
            UNLOCK_EXCLUSIVE => {
                self.unlock_exclusive(mask);
                Ok(())
            }
            _ => return ffi::SQLITE_IOERR_SHMLOCK,
        };
        match granted {
            Ok(()) => ffi::SQLITE_OK,
            Err(Error::Busy) => ffi::SQLITE_BUSY,
            Err(_) => ffi::SQLITE_IOERR_SHMLOCK,
        }
    }

    fn lock_shared(&self, mask: LockMask) -> Result<(), Error> {
        let mut handle = self.state.lock();
        if handle.shared & mask != 0 {
            return Ok(());
        }
        let mut state = self.database.state.write();
        if handle.shared == 0 && self.schema_epoch.is_stale() {
            // The history was abandoned between the check before the statement and this moment.
            return Err(Error::HistoryAbandoned);
        }
        let starts_to_read = handle.shared == 0 && mask & READ != 0 && handle.view == View::Committed;
        if starts_to_read && state.holds_readers_back(self.database.checkpoint_threshold) {
            return Err(Error::Busy);
        }
        state.locks.acquire_shared(mask).map_err(|_| Error::Busy)?;
        handle.shared |= mask;
        handle.recount(&mut state);
        Ok(())
    }

    fn lock_exclusive(&self, mask: LockMask) -> Result<(), Error> {
        if mask & CHECKPOINT != 0 {
            return Err(Error::Busy);
        }
        let mut handle = self.state.lock();
        let mut unused = Vec::new();
        let mut state = self.database.state.write();
        if mask & WRITE != 0 {
            if handle.undecided {
                handle.undecided = false;
                unused = state.end_write();
            }
            if !handle.permit || !state.write_is_free() {
                return Err(Error::Busy);
            }
            if handle.view == View::Committed {
                // Without a read lock this is a reader that met a header in the middle of a change, and it
                // must not be shown the other view. With one it is a read transaction that wants to write: it
                // may, if both views are the same, for then nothing it has read changes under it.
                if handle.shared == 0 || !state.pipeline.is_empty() {
                    return Err(Error::Busy);
                }
                handle.switch(&self.database, View::Speculative)?;
                handle.reverts = true;
            }
        }
        state.locks.acquire_exclusive(mask).map_err(|_| Error::Busy)?;
        handle.exclusive |= mask;
        if mask & WRITE != 0 {
            state.begin_write();
        }
        handle.recount(&mut state);
        drop(state);
        drop(unused);
        Ok(())
    }

    fn unlock_shared(&self, mask: LockMask) {
        let mut handle = self.state.lock();
        let held = handle.shared & mask;
        handle.shared &= !mask;
        let mut state = self.database.state.write();
        state.locks.release_shared(held);
        let mut unused = Vec::new();
        if handle.undecided && handle.shared == 0 {
            // The transaction is over and no commit was announced: it was rolled back.
            handle.undecided = false;
            unused = state.end_write();
        }
        handle.recount(&mut state);
        unused.append(&mut state.checkpoint_if_due(self.database.checkpoint_threshold));
        drop(state);
        handle.revert_if_idle(&self.database);
        drop(unused);
    }

    fn unlock_exclusive(&self, mask: LockMask) {
        let mut handle = self.state.lock();
        let held = handle.exclusive & mask;
        handle.exclusive &= !mask;
        let mut state = self.database.state.write();
        let mut unused = Vec::new();
        if held & WRITE != 0 {
            if state.writer.is_some_and(|writer| writer.deletion == Deletion::Requested) {
                handle.undecided = true;
            } else {
                unused = state.end_write();
            }
        }
        state.locks.release_exclusive(held & !WRITE);
        handle.recount(&mut state);
        unused.append(&mut state.checkpoint_if_due(self.database.checkpoint_threshold));
        drop(state);
        handle.revert_if_idle(&self.database);
        drop(unused);
    }

    /// `SQLITE_FCNTL_COMMIT_PHASETWO`: SQLite has committed and released the WRITE lock before.
    pub(super) fn commit_announced(&self) {
        let mut handle = self.state.lock();
        if !handle.undecided {
            return;
        }
        handle.undecided = false;
        let mut state = self.database.state.write();
        let mut unused: Vec<PageRef> = state.write_deletion();
        unused.append(&mut state.end_write());
        handle.recount(&mut state);
        drop(state);
        drop(unused);
    }

    /// `PRAGMA delete_database`, while the statement is compiled.
    pub(super) fn request_deletion(&self) -> Result<(), &'static str> {
        let handle = self.state.lock();
        let mut state = self.database.state.write();
        let frames = state.wal.frame_count();
        match &mut state.writer {
            Some(writer) if handle.exclusive & WRITE != 0 => {
                if frames > writer.base {
                    return Err(DELETE_MUST_BE_ALONE);
                }
                writer.deletion = Deletion::Requested;
                Ok(())
            }
            _ => Err(DELETE_NEEDS_WRITE),
        }
    }
}

impl HandleState {
    fn holds_locks(&self) -> bool {
        self.shared != 0 || self.exclusive != 0 || self.undecided
    }

    /// Tells the database whether this handle depends on speculative frames. After every change of locks.
    fn recount(&mut self, state: &mut State) {
        let counts = self.view == View::Speculative && self.holds_locks();
        if counts != self.counted {
            self.counted = counts;
            if counts {
                state.speculative_holders += 1;
            } else {
                state.speculative_holders -= 1;
            }
        }
    }

    fn switch(&mut self, database: &Database, view: View) -> Result<(), Error> {
        if self.view != view {
            let stays = view == View::Committed && database.has(Bug::ReaderStaysSpeculative);
            if let Some(mapping) = self.mapping.as_ref().filter(|_| !stays) {
                mapping.switch(&database.files, view)?;
            }
            self.view = view;
        }
        Ok(())
    }

    /// A view that was switched for one write transaction goes back, and the right to write with it.
    fn revert_if_idle(&mut self, database: &Database) {
        if self.reverts && !self.holds_locks() {
            self.reverts = false;
            self.permit = false;
            self.switch(database, View::Committed)
                .unwrap_or_else(|error| panic!("cannot map the committed view again: {error}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfs::Vfs;

    const LOCK_EXCLUSIVE: c_int = ffi::SQLITE_SHM_LOCK | ffi::SQLITE_SHM_EXCLUSIVE;
    const UNLOCK_EXCLUSIVE: c_int = ffi::SQLITE_SHM_UNLOCK | ffi::SQLITE_SHM_EXCLUSIVE;
    const LOCK_SHARED: c_int = ffi::SQLITE_SHM_LOCK | ffi::SQLITE_SHM_SHARED;
    const UNLOCK_SHARED: c_int = ffi::SQLITE_SHM_UNLOCK | ffi::SQLITE_SHM_SHARED;
    const READ_1: c_int = 4;

    fn handle() -> (Vfs, MainHandle) {
        let vfs = Vfs::register(1000).unwrap();
        let database = vfs.create_database("test.db").unwrap();
        let registration = Arc::clone(&vfs.registration);
        (vfs, MainHandle::new(database, registration))
    }

    #[test]
    fn a_reader_that_met_a_torn_header_is_not_shown_the_other_view() {
        let (_vfs, handle) = handle();
        // SQLite asks for WRITE without a read lock when it could not make sense of the header.
        assert_eq!(handle.lock(0, 1, LOCK_EXCLUSIVE), ffi::SQLITE_BUSY);
        handle.set_permit(true);
        assert_eq!(handle.lock(0, 1, LOCK_EXCLUSIVE), ffi::SQLITE_BUSY);
        assert_eq!(handle.view(), View::Committed);
        handle.set_view(View::Speculative).unwrap();
        assert_eq!(handle.lock(0, 1, LOCK_EXCLUSIVE), ffi::SQLITE_OK);
        assert_eq!(handle.lock(0, 1, UNLOCK_EXCLUSIVE), ffi::SQLITE_OK);
        assert!(handle.database.drained());
    }

    #[test]
    fn a_lock_held_shared_can_be_asked_for_again() {
        let (_vfs, handle) = handle();
        assert_eq!(handle.lock(READ_1, 1, LOCK_SHARED), ffi::SQLITE_OK);
        assert_eq!(handle.lock(READ_1, 1, LOCK_SHARED), ffi::SQLITE_OK);
        assert_eq!(handle.lock(READ_1, 1, UNLOCK_SHARED), ffi::SQLITE_OK);
        assert_eq!(handle.lock(READ_1, 1, LOCK_EXCLUSIVE), ffi::SQLITE_OK);
        assert_eq!(handle.lock(READ_1, 1, LOCK_SHARED), ffi::SQLITE_BUSY);
        handle.release_all();
        assert!(handle.database.checkpoint());
    }

    #[test]
    fn readers_that_would_overlap_forever_leave_a_gap_for_an_overdue_checkpoint() {
        let vfs = Vfs::register(10).unwrap();
        let database = vfs.create_database("test.db").unwrap();
        let [old, new] =
            [(); 2].map(|()| MainHandle::new(Arc::clone(&database), Arc::clone(&vfs.registration)));
        assert_eq!(old.lock(READ_1, 1, LOCK_SHARED), ffi::SQLITE_OK);
        let page = database.capture().pages.remove(0);
        database.append(&vec![(1, PageRef::clone(&page)); 39]).unwrap();
        assert_eq!(new.lock(READ_1, 1, LOCK_SHARED), ffi::SQLITE_OK);
        assert_eq!(new.lock(READ_1, 1, UNLOCK_SHARED), ffi::SQLITE_OK);
        database.append(&[(1, page)]).unwrap();
        assert_eq!(new.lock(READ_1, 1, LOCK_SHARED), ffi::SQLITE_BUSY);
        assert_eq!(old.lock(READ_1, 1, UNLOCK_SHARED), ffi::SQLITE_OK);
        assert_eq!(database.checkpoints(), 1);
        assert_eq!(new.lock(READ_1, 1, LOCK_SHARED), ffi::SQLITE_OK);
    }

    #[test]
    fn lock_requests_that_make_no_sense_fail() {
        let (_vfs, handle) = handle();
        assert_eq!(handle.lock(7, 2, LOCK_SHARED), ffi::SQLITE_IOERR_SHMLOCK);
        assert_eq!(handle.lock(-1, 1, LOCK_SHARED), ffi::SQLITE_IOERR_SHMLOCK);
        assert_eq!(handle.lock(0, 1, 0), ffi::SQLITE_IOERR_SHMLOCK);
    }

    #[test]
    fn a_statement_that_starts_while_its_history_is_abandoned_fails() {
        let (_vfs, handle) = handle();
        handle.database.abort().unwrap();
        assert_eq!(handle.lock(READ_1, 1, LOCK_SHARED), ffi::SQLITE_IOERR_SHMLOCK);
    }
}

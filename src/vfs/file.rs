//! `sqlite3_io_methods` of the two kinds of file that the VFS opens, main databases and their WALs, and the
//! guard that keeps panics out of SQLite.
//!
//! The main file is never written by SQLite: checkpoints are ours. File locks do not exist; WAL locks do the
//! work.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use libsqlite3_sys as ffi;

use crate::config::PAGE_SIZE;

use super::Fault;
use super::database::Database;
use super::handle::MainHandle;
use super::shm::REGION_SIZE;
use super::wal::ReadError;

/// What SQLite sees as `sqlite3_file`: the methods, then our object.
#[repr(C)]
pub(super) struct File {
    methods: *const ffi::sqlite3_io_methods,
    /// An `Arc<MainHandle>` or an `Arc<Database>`, depending on the methods.
    object: *const c_void,
}

/// Runs a callback's body; a panic is recorded and becomes `failure`.
pub(super) fn guarded<T>(fault: &Fault, failure: T, body: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|payload| {
        fault.record_panic(payload.as_ref());
        failure
    })
}

/// Marks a file as not open, so that SQLite does not close it.
///
/// # Safety
/// `file` points to the memory that SQLite passed to `xOpen`.
pub(super) unsafe fn leave_closed(file: *mut ffi::sqlite3_file) {
    // SAFETY: the caller's promise; the memory starts with a `sqlite3_file`.
    unsafe { (*file).pMethods = ptr::null() };
}

/// Turns the memory SQLite passed to `xOpen` into a main file.
///
/// # Safety
/// `file` points to at least `size_of::<File>()` bytes that are ours until `xClose`.
pub(super) unsafe fn open_main(file: *mut ffi::sqlite3_file, handle: MainHandle) {
    let object = Arc::into_raw(Arc::new(handle)).cast();
    // SAFETY: the caller's promise.
    unsafe { file.cast::<File>().write(File { methods: &MAIN_METHODS, object }) };
}

/// Turns the memory SQLite passed to `xOpen` into a WAL.
///
/// # Safety
/// As for [`open_main`].
pub(super) unsafe fn open_wal(file: *mut ffi::sqlite3_file, database: Arc<Database>) {
    let object = Arc::into_raw(database).cast();
    // SAFETY: the caller's promise.
    unsafe { file.cast::<File>().write(File { methods: &WAL_METHODS, object }) };
}

/// The handle of a main file, if `file` is one of ours.
///
/// # Safety
/// `file` is NULL or an open file of some VFS, and stays open during the call.
pub(super) unsafe fn main_handle(file: *mut ffi::sqlite3_file) -> Option<Arc<MainHandle>> {
    // SAFETY: the caller's promise.
    let methods = unsafe { file.as_ref() }?.pMethods;
    if !ptr::eq(methods, &MAIN_METHODS) {
        return None;
    }
    // SAFETY: the methods show that `open_main` made this file.
    let object = unsafe { (*file.cast::<File>()).object }.cast::<MainHandle>();
    // SAFETY: the pointer came from `Arc::into_raw`, and the file still owns that reference.
    unsafe { Arc::increment_strong_count(object) };
    // SAFETY: the reference that was just added is ours.
    Some(unsafe { Arc::from_raw(object) })
}

/// # Safety
/// `file` is an open main file of ours, for as long as the result is used.
unsafe fn main<'a>(file: *mut ffi::sqlite3_file) -> &'a MainHandle {
    // SAFETY: `open_main` stored an `Arc<MainHandle>`, which lives until `main_close`.
    unsafe { &*(*file.cast::<File>()).object.cast::<MainHandle>() }
}

/// # Safety
/// `file` is an open WAL of ours, for as long as the result is used.
unsafe fn wal<'a>(file: *mut ffi::sqlite3_file) -> &'a Database {
    // SAFETY: `open_wal` stored an `Arc<Database>`, which lives until `wal_close`.
    unsafe { &*(*file.cast::<File>()).object.cast::<Database>() }
}

/// SQLite's buffer for a read, and the offset; `None` if they make no sense.
///
/// # Safety
/// `buffer` is valid for `amount` bytes of writes.
unsafe fn read_request<'a>(buffer: *mut c_void, amount: c_int, offset: i64) -> Option<(&'a mut [u8], u64)> {
    let (amount, offset) = (usize::try_from(amount).ok()?, u64::try_from(offset).ok()?);
    // SAFETY: the caller's promise; zeroing first makes the memory initialised.
    unsafe { buffer.cast::<u8>().write_bytes(0, amount) };
    // SAFETY: the caller's promise.
    Some((unsafe { slice::from_raw_parts_mut(buffer.cast(), amount) }, offset))
}

// ---- main file ----

unsafe extern "C" fn main_close(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: SQLite passes an open file of ours, and never uses it again.
    let handle = unsafe { Arc::from_raw((*file.cast::<File>()).object.cast::<MainHandle>()) };
    // SAFETY: the memory is still ours.
    unsafe { leave_closed(file) };
    let fault = Arc::clone(&handle.database.fault);
    guarded(&fault, ffi::SQLITE_IOERR_CLOSE, || {
        handle.release_all();
        handle.unmap();
        drop(handle);
        ffi::SQLITE_OK
    })
}

unsafe extern "C" fn main_read(
    file: *mut ffi::sqlite3_file,
    buffer: *mut c_void,
    amount: c_int,
    offset: i64,
) -> c_int {
    // SAFETY: SQLite passes an open file of ours.
    let handle = unsafe { main(file) };
    // SAFETY: SQLite passes a buffer of `amount` bytes.
    let request = unsafe { read_request(buffer, amount, offset) };
    guarded(&handle.database.fault, ffi::SQLITE_IOERR_READ, || match request {
        Some((out, offset)) => read_main_page(&handle.database, out, offset),
        None => ffi::SQLITE_IOERR_READ,
    })
}

/// Reads within one page; `out` arrives zeroed, as SQLite wants it past the end of the file.
fn read_main_page(database: &Database, out: &mut [u8], offset: u64) -> c_int {
    let page_size = PAGE_SIZE as u64;
    let (Ok(index), start) = (usize::try_from(offset / page_size), (offset % page_size) as usize) else {
        return ffi::SQLITE_IOERR_READ;
    };
    let state = database.state.read();
    let Some(page) = state.pages.get(index) else { return ffi::SQLITE_IOERR_SHORT_READ };
    match page.get(start..start + out.len()) {
        Some(bytes) => {
            out.copy_from_slice(bytes);
            ffi::SQLITE_OK
        }
        None => ffi::SQLITE_IOERR_READ,
    }
}

unsafe extern "C" fn main_write(_: *mut ffi::sqlite3_file, _: *const c_void, _: c_int, _: i64) -> c_int {
    ffi::SQLITE_IOERR_WRITE
}

unsafe extern "C" fn main_truncate(_: *mut ffi::sqlite3_file, _: i64) -> c_int {
    ffi::SQLITE_IOERR_TRUNCATE
}

unsafe extern "C" fn main_size(file: *mut ffi::sqlite3_file, size: *mut i64) -> c_int {
    // SAFETY: SQLite passes an open file of ours.
    let handle = unsafe { main(file) };
    guarded(&handle.database.fault, ffi::SQLITE_IOERR_FSTAT, || {
        let pages = handle.database.state.read().pages.len();
        // SAFETY: SQLite passes the address of its own variable.
        unsafe { size.write((pages * PAGE_SIZE) as i64) };
        ffi::SQLITE_OK
    })
}

unsafe extern "C" fn main_control(
    file: *mut ffi::sqlite3_file,
    operation: c_int,
    argument: *mut c_void,
) -> c_int {
    // SAFETY: SQLite passes an open file of ours.
    let handle = unsafe { main(file) };
    guarded(&handle.database.fault, ffi::SQLITE_IOERR, || match operation {
        ffi::SQLITE_FCNTL_PRAGMA => {
            // SAFETY: the argument of this operation is an array of three or more texts.
            unsafe { pragma(handle, argument.cast()) }
        }
        ffi::SQLITE_FCNTL_PERSIST_WAL => {
            // SAFETY: the argument of this operation is an int.
            unsafe { argument.cast::<c_int>().write(1) };
            ffi::SQLITE_OK
        }
        ffi::SQLITE_FCNTL_COMMIT_PHASETWO => {
            handle.commit_announced();
            ffi::SQLITE_OK
        }
        _ => ffi::SQLITE_OK,
    })
}

/// Our own pragma; every other one is SQLite's.
///
/// # Safety
/// `texts` holds: place for an answer allocated by SQLite, name, value or NULL.
unsafe fn pragma(handle: &MainHandle, texts: *mut *mut c_char) -> c_int {
    // SAFETY: the caller's promise.
    let name = unsafe { CStr::from_ptr(*texts.add(1)) };
    if !name.to_bytes().eq_ignore_ascii_case(b"delete_database") {
        return ffi::SQLITE_NOTFOUND;
    }
    match handle.request_deletion() {
        Ok(()) => ffi::SQLITE_OK,
        Err(text) => {
            // SAFETY: the format consumes one text with a length; SQLite frees the result.
            let message =
                unsafe { ffi::sqlite3_mprintf(c"%.*s".as_ptr(), text.len() as c_int, text.as_ptr()) };
            // SAFETY: the first text is the place for it.
            unsafe { texts.write(message) };
            ffi::SQLITE_ERROR
        }
    }
}

unsafe extern "C" fn main_shm_map(
    file: *mut ffi::sqlite3_file,
    region: c_int,
    size: c_int,
    extend: c_int,
    out: *mut *mut c_void,
) -> c_int {
    // SAFETY: SQLite passes an open file of ours.
    let handle = unsafe { main(file) };
    guarded(&handle.database.fault, ffi::SQLITE_IOERR_SHMMAP, || {
        if size != REGION_SIZE as c_int {
            return ffi::SQLITE_IOERR_SHMMAP;
        }
        match handle.map_region(region, extend != 0) {
            Ok(address) => {
                // SAFETY: SQLite passes the address of its own variable.
                unsafe { out.write(address) };
                ffi::SQLITE_OK
            }
            Err(error) => {
                tracing::error!(%error, region, "cannot map the WAL-index");
                ffi::SQLITE_IOERR_SHMMAP
            }
        }
    })
}

unsafe extern "C" fn main_shm_lock(
    file: *mut ffi::sqlite3_file,
    first: c_int,
    count: c_int,
    flags: c_int,
) -> c_int {
    // SAFETY: SQLite passes an open file of ours.
    let handle = unsafe { main(file) };
    guarded(&handle.database.fault, ffi::SQLITE_IOERR_SHMLOCK, || handle.lock(first, count, flags))
}

unsafe extern "C" fn main_shm_barrier(_: *mut ffi::sqlite3_file) {
    fence(Ordering::SeqCst);
}

unsafe extern "C" fn main_shm_unmap(file: *mut ffi::sqlite3_file, _delete: c_int) -> c_int {
    // SAFETY: SQLite passes an open file of ours.
    let handle = unsafe { main(file) };
    guarded(&handle.database.fault, ffi::SQLITE_IOERR, || {
        handle.release_all();
        handle.unmap();
        ffi::SQLITE_OK
    })
}

// ---- WAL ----

unsafe extern "C" fn wal_close(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: SQLite passes an open file of ours, and never uses it again.
    drop(unsafe { Arc::from_raw((*file.cast::<File>()).object.cast::<Database>()) });
    // SAFETY: the memory is still ours.
    unsafe { leave_closed(file) };
    ffi::SQLITE_OK
}

unsafe extern "C" fn wal_read(
    file: *mut ffi::sqlite3_file,
    buffer: *mut c_void,
    amount: c_int,
    offset: i64,
) -> c_int {
    // SAFETY: SQLite passes an open file of ours.
    let database = unsafe { wal(file) };
    // SAFETY: SQLite passes a buffer of `amount` bytes.
    let request = unsafe { read_request(buffer, amount, offset) };
    guarded(&database.fault, ffi::SQLITE_IOERR_READ, || {
        let Some((out, offset)) = request else { return ffi::SQLITE_IOERR_READ };
        match database.state.read().wal.read(out, offset) {
            Ok(()) => ffi::SQLITE_OK,
            Err(ReadError::PastEnd) => ffi::SQLITE_IOERR_SHORT_READ,
            Err(ReadError::Bad(access)) => {
                database.fault.record(&access.to_string());
                ffi::SQLITE_IOERR_READ
            }
        }
    })
}

unsafe extern "C" fn wal_write(
    file: *mut ffi::sqlite3_file,
    buffer: *const c_void,
    amount: c_int,
    offset: i64,
) -> c_int {
    // SAFETY: SQLite passes an open file of ours.
    let database = unsafe { wal(file) };
    let (Ok(amount), Ok(offset)) = (usize::try_from(amount), u64::try_from(offset)) else {
        return ffi::SQLITE_IOERR_WRITE;
    };
    // SAFETY: SQLite passes a buffer of `amount` bytes.
    let bytes = unsafe { slice::from_raw_parts(buffer.cast::<u8>(), amount) };
    guarded(&database.fault, ffi::SQLITE_IOERR_WRITE, || {
        let mut state = database.state.write();
        let Some(writer) = state.writer else {
            database.fault.record("SQLite writes to the WAL without the WRITE lock");
            return ffi::SQLITE_IOERR_WRITE;
        };
        match state.wal.write(bytes, offset, writer.base) {
            Ok(()) => ffi::SQLITE_OK,
            Err(access) => {
                database.fault.record(&access.to_string());
                ffi::SQLITE_IOERR_WRITE
            }
        }
    })
}

/// SQLite may cut the WAL behind its last commit (`journal_size_limit`). What lies there is dropped when the
/// write transaction ends, so there is nothing to do.
unsafe extern "C" fn wal_truncate(_: *mut ffi::sqlite3_file, _: i64) -> c_int {
    ffi::SQLITE_OK
}

unsafe extern "C" fn wal_size(file: *mut ffi::sqlite3_file, size: *mut i64) -> c_int {
    // SAFETY: SQLite passes an open file of ours.
    let database = unsafe { wal(file) };
    guarded(&database.fault, ffi::SQLITE_IOERR_FSTAT, || {
        let bytes = database.state.read().wal.file_size();
        // SAFETY: SQLite passes the address of its own variable.
        unsafe { size.write(bytes as i64) };
        ffi::SQLITE_OK
    })
}

unsafe extern "C" fn wal_control(_: *mut ffi::sqlite3_file, _: c_int, _: *mut c_void) -> c_int {
    ffi::SQLITE_NOTFOUND
}

// ---- both ----

unsafe extern "C" fn no_sync(_: *mut ffi::sqlite3_file, _: c_int) -> c_int {
    ffi::SQLITE_OK
}

unsafe extern "C" fn no_lock(_: *mut ffi::sqlite3_file, _: c_int) -> c_int {
    ffi::SQLITE_OK
}

unsafe extern "C" fn no_reserved_lock(_: *mut ffi::sqlite3_file, out: *mut c_int) -> c_int {
    // SAFETY: SQLite passes the address of its own variable.
    unsafe { out.write(0) };
    ffi::SQLITE_OK
}

unsafe extern "C" fn sector_size(_: *mut ffi::sqlite3_file) -> c_int {
    0
}

unsafe extern "C" fn device_characteristics(_: *mut ffi::sqlite3_file) -> c_int {
    ffi::SQLITE_IOCAP_ATOMIC
        | ffi::SQLITE_IOCAP_SAFE_APPEND
        | ffi::SQLITE_IOCAP_SEQUENTIAL
        | ffi::SQLITE_IOCAP_POWERSAFE_OVERWRITE
}

static MAIN_METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 2,
    xClose: Some(main_close),
    xRead: Some(main_read),
    xWrite: Some(main_write),
    xTruncate: Some(main_truncate),
    xSync: Some(no_sync),
    xFileSize: Some(main_size),
    xLock: Some(no_lock),
    xUnlock: Some(no_lock),
    xCheckReservedLock: Some(no_reserved_lock),
    xFileControl: Some(main_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: Some(main_shm_map),
    xShmLock: Some(main_shm_lock),
    xShmBarrier: Some(main_shm_barrier),
    xShmUnmap: Some(main_shm_unmap),
    xFetch: None,
    xUnfetch: None,
};

static WAL_METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 1,
    xClose: Some(wal_close),
    xRead: Some(wal_read),
    xWrite: Some(wal_write),
    xTruncate: Some(wal_truncate),
    xSync: Some(no_sync),
    xFileSize: Some(wal_size),
    xLock: Some(no_lock),
    xUnlock: Some(no_lock),
    xCheckReservedLock: Some(no_reserved_lock),
    xFileControl: Some(wal_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: None,
    xShmLock: None,
    xShmBarrier: None,
    xShmUnmap: None,
    xFetch: None,
    xUnfetch: None,
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_in_a_callback_becomes_an_error_and_the_first_one_is_remembered() {
        let fault = Fault::default();
        assert_eq!(guarded(&fault, ffi::SQLITE_IOERR, || ffi::SQLITE_OK), ffi::SQLITE_OK);
        assert_eq!(*fault.0.lock(), None);
        assert_eq!(guarded(&fault, ffi::SQLITE_IOERR, || panic!("page {} is missing", 7)), ffi::SQLITE_IOERR);
        assert_eq!(guarded(&fault, ffi::SQLITE_IOERR, || panic!("another")), ffi::SQLITE_IOERR);
        assert_eq!(fault.0.lock().as_deref(), Some("page 7 is missing"));
    }
}

//! The `sqlite3_vfs` object: how SQLite finds our databases by file name. Temporary files go to the `unix`
//! VFS.
//!
//! A database's name is used verbatim as its file name, except that SQLite gives a meaning to some names
//! (`:memory:`, `file:...`, the empty one). Those travel with `./` in front, and so do names that begin with
//! it.

use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr;
use std::sync::Arc;

use libsqlite3_sys as ffi;
use parking_lot::RwLock;

use crate::config::DATABASE_NAME_MAX;
use crate::sqlite;

use super::database::Database;
use super::file::{self, File, guarded};
use super::handle::MainHandle;
use super::planted::Planted;
use super::{Error, Fault};

const ESCAPE: &[u8] = b"./";
const WAL_SUFFIX: &[u8] = b"-wal";
/// SQLite wants room for 8 more bytes behind the longest name it opens.
const PATH_MAX: usize = DATABASE_NAME_MAX + ESCAPE.len() + 8 + 1;

/// A registered VFS and its databases. Lives until the last file and the last connection that use it are
/// gone.
pub(super) struct Registration {
    /// What SQLite knows us by; owned.
    vfs: *mut ffi::sqlite3_vfs,
    name: CString,
    unix: *mut ffi::sqlite3_vfs,
    databases: RwLock<Databases>,
    pub(super) fault: Arc<Fault>,
}

#[derive(Default)]
struct Databases {
    by_name: HashMap<Vec<u8>, Arc<Database>>,
    created: u64,
}

// SAFETY: both VFS objects are constant once registered, except for the list pointer that SQLite guards
// itself.
unsafe impl Send for Registration {}
// SAFETY: as above.
unsafe impl Sync for Registration {}

impl std::fmt::Debug for Registration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registration").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Registration {
    /// Makes SQLite know a VFS of this name.
    pub(super) fn register(name: CString) -> Result<Arc<Registration>, Error> {
        sqlite::initialize()?;
        let _process = sqlite::process_guard();
        // SAFETY: SQLite is initialised; the name is NUL-terminated.
        let unix = unsafe { ffi::sqlite3_vfs_find(c"unix".as_ptr()) };
        if unix.is_null() {
            return Err(Error::NoUnixVfs);
        }
        // SAFETY: registered VFS objects of SQLite itself are never freed.
        let unix_file_size = unsafe { (*unix).szOsFile };
        let vfs = Box::into_raw(Box::new(methods(name.as_ptr(), unix_file_size)));
        let databases = RwLock::default();
        let registration =
            Arc::new(Registration { vfs, name, unix, databases, fault: Arc::new(Fault::default()) });
        // SAFETY: `vfs` is ours until it is registered.
        unsafe { (*vfs).pAppData = Arc::as_ptr(&registration).cast_mut().cast() };
        // SAFETY: the object stays alive until it is unregistered; it is not made the default.
        let code = unsafe { ffi::sqlite3_vfs_register(vfs, 0) };
        if code != ffi::SQLITE_OK {
            return Err(sqlite::Error::from_code(code).into());
        }
        Ok(registration)
    }

    /// No further database can be opened through it. Open ones go on.
    pub(super) fn unregister(&self) {
        let _process = sqlite::process_guard();
        // SAFETY: the object is ours and still alive.
        unsafe { ffi::sqlite3_vfs_unregister(self.vfs) };
    }

    pub(super) fn name(&self) -> &CStr {
        &self.name
    }

    pub(super) fn create_database(
        &self,
        name: &[u8],
        checkpoint_threshold: u32,
        os_page_size: usize,
        planted: Planted,
    ) -> Result<Arc<Database>, Error> {
        if name.len() > DATABASE_NAME_MAX || name.contains(&0) {
            return Err(Error::BadName);
        }
        let mut databases = self.databases.write();
        if databases.by_name.contains_key(name) {
            return Err(Error::Exists);
        }
        let (serial, fault) = (databases.created, Arc::clone(&self.fault));
        let database = Database::create(name, serial, checkpoint_threshold, os_page_size, fault, planted)?;
        let database = Arc::new(database);
        databases.created += 1;
        databases.by_name.insert(name.to_vec(), Arc::clone(&database));
        Ok(database)
    }

    pub(super) fn remove_database(&self, name: &[u8]) -> Option<Arc<Database>> {
        self.databases.write().by_name.remove(name)
    }

    pub(super) fn database(&self, name: &[u8]) -> Option<Arc<Database>> {
        self.databases.read().by_name.get(name).cloned()
    }

    pub(super) fn databases(&self) -> Vec<Arc<Database>> {
        let mut all: Vec<_> = self.databases.read().by_name.values().cloned().collect();
        all.sort_by_key(|database| database.serial);
        all
    }

    fn exists(&self, name: &[u8]) -> bool {
        self.databases.read().by_name.contains_key(name)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.unregister();
        // SAFETY: made by `Box::into_raw`; SQLite has forgotten it, and no connection refers to it any more.
        drop(unsafe { Box::from_raw(self.vfs) });
    }
}

/// The file name under which SQLite opens a database; `None` if the name contains a NUL.
pub(super) fn file_name(name: &[u8]) -> Option<CString> {
    let special =
        name.is_empty() || name.starts_with(b":") || name.starts_with(b"file:") || name.starts_with(ESCAPE);
    let escape = if special { ESCAPE } else { b"" };
    CString::new([escape, name].concat()).ok()
}

/// The counterpart of [`file_name`].
fn database_name(file_name: &CStr) -> &[u8] {
    let bytes = file_name.to_bytes();
    bytes.strip_prefix(ESCAPE).unwrap_or(bytes)
}

fn methods(name: *const c_char, unix_file_size: c_int) -> ffi::sqlite3_vfs {
    ffi::sqlite3_vfs {
        iVersion: 2,
        szOsFile: unix_file_size.max(size_of::<File>() as c_int),
        mxPathname: PATH_MAX as c_int,
        pNext: ptr::null_mut(),
        zName: name,
        pAppData: ptr::null_mut(),
        xOpen: Some(open),
        xDelete: Some(delete),
        xAccess: Some(access),
        xFullPathname: Some(full_pathname),
        xDlOpen: Some(dl_open),
        xDlError: Some(dl_error),
        xDlSym: Some(dl_sym),
        xDlClose: Some(dl_close),
        xRandomness: Some(randomness),
        xSleep: Some(sleep),
        xCurrentTime: Some(current_time),
        xGetLastError: Some(last_error),
        xCurrentTimeInt64: Some(current_time_int64),
        xSetSystemCall: None,
        xGetSystemCall: None,
        xNextSystemCall: None,
    }
}

/// # Safety
/// `vfs` is a registered VFS of ours.
unsafe fn registration<'a>(vfs: *mut ffi::sqlite3_vfs) -> &'a Registration {
    // SAFETY: set before registering; the registration frees the VFS object, so it lives at least as long.
    unsafe { &*(*vfs).pAppData.cast::<Registration>() }
}

unsafe extern "C" fn open(
    vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: SQLite passes the VFS that it was told to use, which is ours.
    let this = unsafe { registration(vfs) };
    if name.is_null() {
        // SAFETY: `unix` is a complete VFS, and the file memory is large enough for it: see `szOsFile`.
        return match unsafe { (*this.unix).xOpen } {
            // SAFETY: as above; the arguments are passed on.
            Some(open) => unsafe { open(this.unix, name, file, flags, out_flags) },
            None => ffi::SQLITE_CANTOPEN,
        };
    }
    // SAFETY: SQLite passes file memory of `szOsFile` bytes.
    unsafe { file::leave_closed(file) };
    // SAFETY: names are NUL-terminated.
    let name = database_name(unsafe { CStr::from_ptr(name) });
    guarded(&this.fault, ffi::SQLITE_CANTOPEN, || {
        if flags & ffi::SQLITE_OPEN_MAIN_DB != 0 {
            let Some(database) = this.database(name) else { return ffi::SQLITE_CANTOPEN };
            // SAFETY: the registration is alive, and always inside the `Arc` that `register` made.
            unsafe { Arc::increment_strong_count(this) };
            // SAFETY: the reference that was just added is ours.
            let keep_alive = unsafe { Arc::from_raw(this) };
            // SAFETY: SQLite passes file memory of `szOsFile` bytes.
            unsafe { file::open_main(file, MainHandle::new(database, keep_alive)) };
        } else if flags & ffi::SQLITE_OPEN_WAL != 0 {
            let database = name.strip_suffix(WAL_SUFFIX).and_then(|name| this.database(name));
            let Some(database) = database else { return ffi::SQLITE_CANTOPEN };
            // SAFETY: SQLite passes file memory of `szOsFile` bytes.
            unsafe { file::open_wal(file, database) };
        } else {
            return ffi::SQLITE_CANTOPEN;
        }
        if !out_flags.is_null() {
            // SAFETY: not NULL, hence the address of a variable of SQLite's.
            unsafe { out_flags.write(flags) };
        }
        ffi::SQLITE_OK
    })
}

unsafe extern "C" fn delete(_: *mut ffi::sqlite3_vfs, _: *const c_char, _: c_int) -> c_int {
    ffi::SQLITE_OK
}

/// The WAL of a database always exists, its rollback journal never does.
unsafe extern "C" fn access(
    vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    _flags: c_int,
    out: *mut c_int,
) -> c_int {
    // SAFETY: SQLite passes the VFS that it was told to use, which is ours.
    let this = unsafe { registration(vfs) };
    guarded(&this.fault, ffi::SQLITE_IOERR_ACCESS, || {
        // SAFETY: names are NUL-terminated.
        let name = database_name(unsafe { CStr::from_ptr(name) });
        let exists = name.strip_suffix(WAL_SUFFIX).is_some_and(|name| this.exists(name));
        // SAFETY: SQLite passes the address of its own variable.
        unsafe { out.write(c_int::from(exists)) };
        ffi::SQLITE_OK
    })
}

unsafe extern "C" fn full_pathname(
    _: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    size: c_int,
    out: *mut c_char,
) -> c_int {
    // SAFETY: names are NUL-terminated.
    let bytes = unsafe { CStr::from_ptr(name) }.to_bytes_with_nul();
    if usize::try_from(size).unwrap_or(0) < bytes.len() {
        return ffi::SQLITE_CANTOPEN;
    }
    // SAFETY: `out` has room for `size` bytes, and the two do not overlap.
    unsafe { ptr::copy_nonoverlapping(bytes.as_ptr().cast(), out, bytes.len()) };
    ffi::SQLITE_OK
}

unsafe extern "C" fn dl_open(_: *mut ffi::sqlite3_vfs, _: *const c_char) -> *mut c_void {
    ptr::null_mut()
}

unsafe extern "C" fn dl_error(_: *mut ffi::sqlite3_vfs, size: c_int, out: *mut c_char) {
    let text = c"loadable extensions are not supported".to_bytes_with_nul();
    if usize::try_from(size).unwrap_or(0) >= text.len() {
        // SAFETY: `out` has room for `size` bytes, and the two do not overlap.
        unsafe { ptr::copy_nonoverlapping(text.as_ptr().cast(), out, text.len()) };
    }
}

unsafe extern "C" fn dl_sym(
    _: *mut ffi::sqlite3_vfs,
    _: *mut c_void,
    _: *const c_char,
) -> Option<unsafe extern "C" fn(*mut ffi::sqlite3_vfs, *mut c_void, *const c_char)> {
    None
}

unsafe extern "C" fn dl_close(_: *mut ffi::sqlite3_vfs, _: *mut c_void) {}

unsafe extern "C" fn randomness(vfs: *mut ffi::sqlite3_vfs, size: c_int, out: *mut c_char) -> c_int {
    // SAFETY: SQLite passes the VFS that it was told to use, which is ours.
    let unix = unsafe { registration(vfs) }.unix;
    // SAFETY: `unix` is a complete VFS; the arguments are passed on.
    unsafe { (*unix).xRandomness.map_or(0, |randomness| randomness(unix, size, out)) }
}

unsafe extern "C" fn sleep(vfs: *mut ffi::sqlite3_vfs, microseconds: c_int) -> c_int {
    // SAFETY: SQLite passes the VFS that it was told to use, which is ours.
    let unix = unsafe { registration(vfs) }.unix;
    // SAFETY: `unix` is a complete VFS; the arguments are passed on.
    unsafe { (*unix).xSleep.map_or(0, |sleep| sleep(unix, microseconds)) }
}

unsafe extern "C" fn current_time(vfs: *mut ffi::sqlite3_vfs, out: *mut f64) -> c_int {
    // SAFETY: SQLite passes the VFS that it was told to use, which is ours.
    let unix = unsafe { registration(vfs) }.unix;
    // SAFETY: `unix` is a complete VFS; the arguments are passed on.
    unsafe { (*unix).xCurrentTime.map_or(ffi::SQLITE_ERROR, |time| time(unix, out)) }
}

unsafe extern "C" fn current_time_int64(vfs: *mut ffi::sqlite3_vfs, out: *mut i64) -> c_int {
    // SAFETY: SQLite passes the VFS that it was told to use, which is ours.
    let unix = unsafe { registration(vfs) }.unix;
    // SAFETY: `unix` is a complete VFS of version 2 or later; the arguments are passed on.
    unsafe { (*unix).xCurrentTimeInt64.map_or(ffi::SQLITE_ERROR, |time| time(unix, out)) }
}

unsafe extern "C" fn last_error(_: *mut ffi::sqlite3_vfs, _: c_int, _: *mut c_char) -> c_int {
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_comes_back_and_none_has_a_meaning_to_sqlite() {
        for name in
            [&b"test.db"[..], b"", b":memory:", b"file:x?mode=ro", b"./x", b"././x", b"x-wal", b"\xff"]
        {
            let encoded = file_name(name).unwrap();
            assert_eq!(database_name(&encoded), name);
            let bytes = encoded.to_bytes();
            assert!(!bytes.is_empty() && !bytes.starts_with(b":") && !bytes.starts_with(b"file:"));
        }
        assert_eq!(file_name(b"test.db").unwrap().to_bytes(), b"test.db");
        assert!(file_name(b"a\0b").is_none());
    }
}

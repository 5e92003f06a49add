//! Functions of C releases 1.6 to 1.18.1 that exposed the replicating VFS. No program outside upstream's own
//! tests is known to call them; they exist so that a binary that names them still loads, and refuse to work.

// The names of arguments are the header's.
#![allow(unused_variables)]

use std::ffi::{c_char, c_int, c_uint, c_ulong, c_void};

use libsqlite3_sys::sqlite3_vfs;

use super::ERROR;

/// A page of a transaction. Belongs to functions of 1.6.0 to 1.18.1 that refuse to work here.
#[repr(C)]
pub struct VfsFrame {
    /// Number of the page in the database, from 1.
    pub page_number: c_ulong,
    /// Content of the page.
    pub data: *mut c_void,
}

/// A piece of memory. Belongs to functions of 1.10.0 to 1.18.1 that refuse to work here.
#[repr(C)]
pub struct Buffer {
    /// First byte.
    pub base: *mut c_void,
    /// Number of bytes.
    pub len: usize,
}

const _: () = assert!(size_of::<VfsFrame>() == 16 && size_of::<Buffer>() == 16);

/// Returns DQLITE_ERROR and looks at no argument. Here so that programs built for 1.6.0 to 1.18.1 load; C
/// withdrew it in 1.18.2.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_vfs_init(vfs: *mut sqlite3_vfs, name: *const c_char) -> c_int {
    ERROR
}

/// Does nothing. Here so that programs built for 1.6.0 to 1.18.1 load; C withdrew it in 1.18.2.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_vfs_close(vfs: *mut sqlite3_vfs) {}

/// Returns DQLITE_ERROR and looks at no argument. Here so that programs built for 1.6.0 to 1.18.1 load; C
/// withdrew it in 1.18.2.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_vfs_poll(
    vfs: *mut sqlite3_vfs,
    filename: *const c_char,
    frames: *mut *mut VfsFrame,
    n: *mut c_uint,
) -> c_int {
    ERROR
}

/// Returns DQLITE_ERROR and looks at no argument. Here so that programs built for 1.6.0 to 1.18.1 load; C
/// withdrew it in 1.18.2.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_vfs_apply(
    vfs: *mut sqlite3_vfs,
    filename: *const c_char,
    n: c_uint,
    page_numbers: *mut c_ulong,
    frames: *mut c_void,
) -> c_int {
    ERROR
}

/// Returns DQLITE_ERROR and looks at no argument. Here so that programs built for 1.6.0 to 1.18.1 load; C
/// withdrew it in 1.18.2.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_vfs_abort(vfs: *mut sqlite3_vfs, filename: *const c_char) -> c_int {
    ERROR
}

/// Returns DQLITE_ERROR and looks at no argument. Here so that programs built for 1.6.0 to 1.18.1 load; C
/// withdrew it in 1.18.2.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_vfs_snapshot(
    vfs: *mut sqlite3_vfs,
    filename: *const c_char,
    data: *mut *mut c_void,
    n: *mut usize,
) -> c_int {
    ERROR
}

/// Returns DQLITE_ERROR and looks at no argument. Here so that programs built for 1.6.0 to 1.18.1 load; C
/// withdrew it in 1.18.2.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_vfs_restore(
    vfs: *mut sqlite3_vfs,
    filename: *const c_char,
    data: *const c_void,
    n: usize,
) -> c_int {
    ERROR
}

/// Returns DQLITE_ERROR and looks at no argument. Here so that programs built for 1.10.0 to 1.18.1 load; C
/// withdrew it in 1.18.2.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_vfs_num_pages(
    vfs: *mut sqlite3_vfs,
    filename: *const c_char,
    n: *mut c_uint,
) -> c_int {
    ERROR
}

/// Returns DQLITE_ERROR and looks at no argument. Here so that programs built for 1.10.0 to 1.18.1 load; C
/// withdrew it in 1.18.2.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_vfs_shallow_snapshot(
    vfs: *mut sqlite3_vfs,
    filename: *const c_char,
    bufs: *mut Buffer,
    n: c_uint,
) -> c_int {
    ERROR
}

/// Returns DQLITE_ERROR and looks at no argument. Here so that programs built for 1.13.0 to 1.18.1 load; C
/// withdrew it in 1.18.2.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_vfs_enable_disk(vfs: *mut sqlite3_vfs) -> c_int {
    ERROR
}

/// Returns DQLITE_ERROR and looks at no argument. Here so that programs built for 1.13.0 to 1.18.1 load; C
/// withdrew it in 1.18.2.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_vfs_snapshot_disk(
    vfs: *mut sqlite3_vfs,
    filename: *const c_char,
    bufs: *mut Buffer,
    n: c_uint,
) -> c_int {
    ERROR
}

/// Returns DQLITE_ERROR and looks at no argument. Here so that programs built for 1.13.0 to 1.18.1 load; C
/// withdrew it in 1.18.2.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_vfs_restore_disk(
    vfs: *mut sqlite3_vfs,
    filename: *const c_char,
    data: *const c_void,
    main_size: usize,
    wal_size: usize,
) -> c_int {
    ERROR
}

//! The C API: the only exported symbols of the shared library, one file per object.
//!
//! An exported function checks its arguments and makes one call on the object behind the handle; nothing is
//! decided here. Its doc comment is what a C programmer reads in `include/dqlite.h`, which `tests/header.rs`
//! generates, so that comment has no `# Safety` section. The safety contract of every export is this one
//! instead:
//!
//! * A handle is NULL or came from the matching `create` and was not destroyed. NULL is refused with
//!   `DQLITE_MISUSE`; so is a destroyed handle while its memory still shows the mark left by `destroy`, which
//!   is a help for the caller, not a promise.
//! * A text is NULL or ends with a NUL. It is copied before the call returns.
//! * An output pointer is NULL (refused) or points to writable memory of its type.
//! * An array has as many elements as its count says.
//!
//! No panic leaves this module: [`guarded`] turns it into the function's error value. Any thread may call.

#![allow(clippy::missing_safety_doc)]

mod node;
mod node_info;
mod server;
mod tracing;
mod version;
mod vfs_compat;

use std::any::Any;
use std::ffi::{CStr, CString, c_char, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::node::{Error, ErrorKind};

pub use self::node::{
    dqlite_node_create, dqlite_node_describe_last_entry, dqlite_node_destroy, dqlite_node_enable_disk_mode,
    dqlite_node_enable_role_management, dqlite_node_errmsg, dqlite_node_get_bind_address,
    dqlite_node_handover, dqlite_node_recover, dqlite_node_recover_ext, dqlite_node_set_auto_recovery,
    dqlite_node_set_bind_address, dqlite_node_set_block_size, dqlite_node_set_busy_timeout,
    dqlite_node_set_connect_func, dqlite_node_set_failure_domain, dqlite_node_set_network_latency,
    dqlite_node_set_network_latency_ms, dqlite_node_set_pool_thread_count,
    dqlite_node_set_snapshot_compression, dqlite_node_set_snapshot_params,
    dqlite_node_set_snapshot_params_v2, dqlite_node_set_target_standbys, dqlite_node_set_target_voters,
    dqlite_node_start, dqlite_node_stop,
};
pub use self::node_info::dqlite_generate_node_id;
pub use self::server::{
    dqlite_server_create, dqlite_server_destroy, dqlite_server_get_id, dqlite_server_handover,
    dqlite_server_set_address, dqlite_server_set_auto_bootstrap, dqlite_server_set_auto_join,
    dqlite_server_set_bind_address, dqlite_server_set_connect_func, dqlite_server_start, dqlite_server_stop,
};
pub use self::tracing::{
    _dqliteTracingEnabled, dqlite_print_crash_trace, dqlite_print_trace, dqliteTracingMaybeEnable,
};
pub use self::version::{dqlite_version_number, dqlite_version_string};
pub use self::vfs_compat::{
    dqlite_vfs_abort, dqlite_vfs_apply, dqlite_vfs_close, dqlite_vfs_enable_disk, dqlite_vfs_init,
    dqlite_vfs_num_pages, dqlite_vfs_poll, dqlite_vfs_restore, dqlite_vfs_restore_disk,
    dqlite_vfs_shallow_snapshot, dqlite_vfs_snapshot, dqlite_vfs_snapshot_disk,
};

/// The values of the header's DQLITE_OK and its companions.
const OK: c_int = 0;
const ERROR: c_int = 1;
const MISUSE: c_int = 2;
const NOMEM: c_int = 3;

/// Why a call was refused: the code that it returns, and the text for `errmsg`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Failure {
    code: c_int,
    text: String,
}

impl Failure {
    fn error(text: impl Into<String>) -> Failure {
        Failure { code: ERROR, text: text.into() }
    }

    fn misuse(text: impl Into<String>) -> Failure {
        Failure { code: MISUSE, text: text.into() }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let code = match error.kind {
            ErrorKind::Failed => ERROR,
            ErrorKind::Misuse => MISUSE,
        };
        Failure { code, text: error.to_string() }
    }
}

/// What an exported function returns when its body failed.
trait Fallback {
    fn fallback(failure: &Failure) -> Self;
}

impl Fallback for c_int {
    fn fallback(failure: &Failure) -> c_int {
        failure.code
    }
}

impl Fallback for () {
    fn fallback(_: &Failure) {}
}

impl Fallback for u64 {
    fn fallback(_: &Failure) -> u64 {
        0
    }
}

impl Fallback for *const c_char {
    fn fallback(_: &Failure) -> *const c_char {
        std::ptr::null()
    }
}

/// Runs `body`; a panic inside becomes a failure.
fn catch<T>(body: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    // Unwind safety: what a panic leaves behind is guarded by locks that the node fences itself.
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| {
        Err(Failure::error(format!("internal error: {}", panic_text(panic.as_ref()))))
    })
}

/// The body of an export without a handle that could keep the text of a failure.
fn guarded<T: Fallback>(body: impl FnOnce() -> Result<T, Failure>) -> T {
    catch(body).unwrap_or_else(|failure| T::fallback(&failure))
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    if let Some(text) = panic.downcast_ref::<&str>() {
        text
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text
    } else {
        "panic"
    }
}

/// An object that C holds by pointer.
trait Handle: Sized {
    /// First word of a live object of this type.
    const MAGIC: u64;
    /// For texts.
    const NAME: &'static str;

    fn magic(&self) -> &AtomicU64;
}

/// Left in the first word of a destroyed object.
const DESTROYED: u64 = u64::from_be_bytes(*b"dqGONE!!");

/// The object behind a handle.
///
/// # Safety
/// `pointer` follows the module's contract for handles, and the object outlives the returned reference.
unsafe fn object<'a, T: Handle>(pointer: *const T) -> Result<&'a T, Failure> {
    // SAFETY: NULL gives None; by contract everything else points to a `T`.
    let object = unsafe { pointer.as_ref() };
    let object = object.ok_or_else(|| Failure::misuse(format!("{} is NULL", T::NAME)))?;
    if object.magic().load(Ordering::Relaxed) != T::MAGIC {
        return Err(Failure::misuse(format!("this is not a {}, or a destroyed one", T::NAME)));
    }
    Ok(object)
}

/// Takes an object back from C and marks its memory; `None` for NULL and for what is no such object.
///
/// # Safety
/// As [`object`]; no other call uses the handle at the same time or later.
unsafe fn take<T: Handle>(pointer: *mut T) -> Option<Box<T>> {
    // SAFETY: the caller's promise is the one that `object` asks for.
    let object = unsafe { object(pointer.cast_const()) }.ok()?;
    object.magic().store(DESTROYED, Ordering::Relaxed);
    // SAFETY: the pointer came from Box::into_raw in `create`, and the mark just checked says it is still
    // live.
    Some(unsafe { Box::from_raw(pointer) })
}

/// A text argument: required, UTF-8.
///
/// # Safety
/// `pointer` follows the module's contract for texts.
unsafe fn text<'a>(pointer: *const c_char, name: &str) -> Result<&'a str, Failure> {
    // SAFETY: the caller's promise is the one that `bytes` asks for.
    let bytes = unsafe { bytes(pointer, name) }?;
    std::str::from_utf8(bytes).map_err(|_| Failure::misuse(format!("{name} is not valid UTF-8")))
}

/// A text argument whose bytes may be anything, such as a path: required.
///
/// # Safety
/// `pointer` follows the module's contract for texts.
unsafe fn bytes<'a>(pointer: *const c_char, name: &str) -> Result<&'a [u8], Failure> {
    if pointer.is_null() {
        return Err(Failure::misuse(format!("{name} is NULL")));
    }
    // SAFETY: not NULL, so by contract it ends with a NUL.
    Ok(unsafe { CStr::from_ptr(pointer) }.to_bytes())
}

/// A text handed out to C: the pointer stays valid until another text takes its place.
#[derive(Default)]
struct ShownText(Mutex<CString>);

impl ShownText {
    fn show(&self, text: &str) -> *const c_char {
        let mut shown = self.0.lock();
        let text: Vec<u8> = text.bytes().filter(|byte| *byte != 0).collect();
        if shown.as_bytes() != text {
            *shown = CString::new(text).expect("its NULs were removed above");
        }
        shown.as_ptr()
    }
}

#[cfg(test)]
#[path = "mod_test.rs"]
mod tests;

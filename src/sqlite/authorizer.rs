//! What clients may not do on a database connection: everything that would replace the journal mode, the page
//! size, the locking or the checkpoints that replication depends on, or that reaches files outside the VFS.
//! Refusals surface as `SQLITE_AUTH`, "not authorized".

use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::atomic::{AtomicBool, Ordering};

use libsqlite3_sys as ffi;

/// Pragmas whose value may be read but not set.
const READ_ONLY_PRAGMAS: [&[u8]; 4] = [b"journal_mode", b"page_size", b"wal_autocheckpoint", b"synchronous"];
/// Pragmas refused in every form.
const DENIED_PRAGMAS: [&[u8]; 4] = [b"wal_checkpoint", b"busy_timeout", b"read_uncommitted", b"locking_mode"];

/// What the authorizer noticed while a statement was compiled.
#[derive(Debug, Default)]
pub(super) struct Noticed {
    /// `PRAGMA optimize` was compiled. It claims to be read-only, yet runs ANALYZE statements inside.
    optimize: AtomicBool,
}

impl Noticed {
    /// Forgets what earlier statements did.
    pub(super) fn clear(&self) {
        self.optimize.store(false, Ordering::Relaxed);
    }

    /// Whether `PRAGMA optimize` was compiled since the last [`Noticed::clear`].
    pub(super) fn optimize(&self) -> bool {
        self.optimize.load(Ordering::Relaxed)
    }
}

/// The callback for `sqlite3_set_authorizer`; its user pointer is a [`Noticed`].
///
/// # Safety
/// `noticed` points to a live [`Noticed`]; the texts are NULL or NUL-terminated, as SQLite guarantees.
pub(super) unsafe extern "C" fn authorize(
    noticed: *mut c_void,
    action: c_int,
    first: *const c_char,
    second: *const c_char,
    _schema: *const c_char,
    _trigger: *const c_char,
) -> c_int {
    // SAFETY: set together with this callback; the connection that owns it outlives the callback.
    let noticed = unsafe { &*noticed.cast::<Noticed>() };
    // SAFETY: texts of an authorizer call are NULL or NUL-terminated.
    let first = unsafe { bytes(first) };
    // SAFETY: as above.
    let second = unsafe { bytes(second) };
    match action {
        ffi::SQLITE_ATTACH if !may_attach(first) => ffi::SQLITE_DENY,
        ffi::SQLITE_PRAGMA => {
            let name = first.unwrap_or_default();
            if name.eq_ignore_ascii_case(b"optimize") {
                noticed.optimize.store(true, Ordering::Relaxed);
            }
            if may_run_pragma(name, second.is_some()) { ffi::SQLITE_OK } else { ffi::SQLITE_DENY }
        }
        _ => ffi::SQLITE_OK,
    }
}

/// # Safety
/// `text` is NULL or NUL-terminated and outlives the returned borrow.
unsafe fn bytes<'a>(text: *const c_char) -> Option<&'a [u8]> {
    // SAFETY: the caller's promise.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_bytes())
}

/// Only the empty name, which means a private temporary database. A name that is not a literal is unknown
/// here.
fn may_attach(file: Option<&[u8]>) -> bool {
    file == Some(b"")
}

fn may_run_pragma(name: &[u8], sets: bool) -> bool {
    let is = |other: &&[u8]| name.eq_ignore_ascii_case(other);
    let denied = DENIED_PRAGMAS.iter().any(is) || (sets && READ_ONLY_PRAGMAS.iter().any(is));
    !denied
}

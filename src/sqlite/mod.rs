//! SQLite's C API, safe to call from above: connections, statements, errors. No SQL of our own beyond the
//! settings of a database connection; no knowledge of replication.
//!
//! Threads. Connections are opened with `SQLITE_OPEN_NOMUTEX`; every call on a connection or on one of its
//! statements takes that connection's lock, so the types are safe to move and share. Whoever first used
//! SQLite in this process may have put it in single-thread mode, where even separate connections must not run
//! at the same time: [`initialize`] finds out, and then one lock of the whole process takes the place of all
//! of them.

mod authorizer;
mod conn;
mod stmt;

pub use conn::{Connection, Interrupt, SchemaEpoch, TransactionState};
pub use stmt::{Prepared, Run, Statement, Step, Value};

use std::ffi::{CStr, c_char, c_int};
use std::sync::OnceLock;

use libsqlite3_sys as ffi;
use parking_lot::{ReentrantMutex, ReentrantMutexGuard};

/// The oldest SQLite that has everything we call (`sqlite3_txn_state`), as `sqlite3_libversion_number`
/// counts.
pub const VERSION_NUMBER_MIN: c_int = 3_034_000;

/// What SQLite answered instead of `SQLITE_OK`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} (SQLite code {code})")]
pub struct Error {
    /// The extended result code.
    pub code: c_int,
    /// SQLite's text for this failure.
    pub message: String,
}

impl Error {
    /// An error with the text that SQLite has for the code itself.
    pub fn from_code(code: c_int) -> Error {
        // SAFETY: takes any code, needs no initialisation.
        let text = unsafe { ffi::sqlite3_errstr(code) };
        // SAFETY: `sqlite3_errstr` returns static, NUL-terminated text.
        Error { code, message: unsafe { copy_text(text) } }
    }

    /// An error of this wrapper's own.
    pub(crate) fn new(code: c_int, message: impl Into<String>) -> Error {
        Error { code, message: message.into() }
    }

    /// The primary result code: the low byte of the extended one.
    pub fn primary_code(&self) -> c_int {
        self.code & 0xff
    }
}

/// How far SQLite calls of this process may overlap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Threading {
    /// Different connections may be used at the same time.
    PerConnection,
    /// The host put SQLite in single-thread mode: all calls of the process run one after the other.
    OneAtATime,
}

static THREADING: OnceLock<Result<Threading, Error>> = OnceLock::new();
static PROCESS_LOCK: ReentrantMutex<()> = ReentrantMutex::new(());

/// Exclusive use of one connection (or of SQLite as a whole) by this thread.
pub(crate) type Guard<'a> = ReentrantMutexGuard<'a, ()>;

/// Prepares SQLite for use. The first call does the work, later ones repeat its result; every other function
/// of this module that needs it calls it. Must not run before the host had its chance to configure SQLite,
/// which is why nothing here happens at load time.
pub fn initialize() -> Result<(), Error> {
    THREADING.get_or_init(detect_threading).as_ref().map(|_| ()).map_err(Error::clone)
}

/// What [`initialize`] found out; initialises if nobody did.
pub fn threading() -> Threading {
    match THREADING.get_or_init(detect_threading) {
        Ok(threading) => *threading,
        Err(_) => Threading::OneAtATime,
    }
}

/// Version of the SQLite library in use, as `sqlite3_libversion_number` counts.
pub fn version_number() -> u32 {
    // SAFETY: no arguments, no preconditions.
    let version = unsafe { ffi::sqlite3_libversion_number() };
    version.unsigned_abs()
}

/// The lock that serialises all SQLite calls of the process when the host demands it, nothing otherwise.
pub(crate) fn process_guard() -> Option<Guard<'static>> {
    (threading() == Threading::OneAtATime).then(|| PROCESS_LOCK.lock())
}

/// The guard for one connection, whose own lock is `own`.
fn connection_guard(own: &ReentrantMutex<()>) -> Guard<'_> {
    match threading() {
        Threading::PerConnection => own.lock(),
        Threading::OneAtATime => PROCESS_LOCK.lock(),
    }
}

fn detect_threading() -> Result<Threading, Error> {
    // SAFETY: no arguments, no preconditions.
    let version = unsafe { ffi::sqlite3_libversion_number() };
    if version < VERSION_NUMBER_MIN {
        return Err(Error::new(
            ffi::SQLITE_ERROR,
            format!("SQLite {version} is too old: dqlite needs at least {VERSION_NUMBER_MIN}"),
        ));
    }
    // The default mode, hence never weaker than what the host expects. After initialisation SQLite answers
    // MISUSE and keeps its mode, which the mutex test below then reveals. SAFETY: the option takes no further
    // argument.
    unsafe { ffi::sqlite3_config(ffi::SQLITE_CONFIG_SERIALIZED) };
    // SAFETY: may be called any number of times.
    let code = unsafe { ffi::sqlite3_initialize() };
    if code != ffi::SQLITE_OK {
        return Err(Error::from_code(code));
    }
    if has_mutexes() {
        return Ok(Threading::PerConnection);
    }
    tracing::warn!(
        "SQLite is in single-thread mode: all statements of this process run one after the other. \
         Programs using go-dqlite regain concurrency with GO_DQLITE_MULTITHREAD=1"
    );
    Ok(Threading::OneAtATime)
}

/// In single-thread mode every mutex is one and the same dummy.
fn has_mutexes() -> bool {
    // SAFETY: no arguments, no preconditions.
    if unsafe { ffi::sqlite3_threadsafe() } == 0 {
        return false;
    }
    // SAFETY: SQLite is initialised.
    let first = unsafe { ffi::sqlite3_mutex_alloc(ffi::SQLITE_MUTEX_FAST) };
    // SAFETY: as above.
    let second = unsafe { ffi::sqlite3_mutex_alloc(ffi::SQLITE_MUTEX_FAST) };
    let distinct = first != second;
    // SAFETY: allocated above, used by nobody; NULL is a no-op.
    unsafe { ffi::sqlite3_mutex_free(first) };
    // SAFETY: as above.
    unsafe { ffi::sqlite3_mutex_free(second) };
    distinct
}

/// Copies a text that SQLite owns; NULL becomes the empty text, invalid UTF-8 is replaced.
///
/// # Safety
/// `text` is NULL or points to a NUL-terminated string that stays valid during the call.
unsafe fn copy_text(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

#[cfg(test)]
#[path = "sqlite_test.rs"]
mod tests;

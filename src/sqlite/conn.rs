//! One SQLite connection, configured the way a replicated database needs it.

use std::any::Any;
use std::ffi::{CStr, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use libsqlite3_sys as ffi;
use parking_lot::{Mutex, ReentrantMutex};

use super::authorizer::{self, Noticed};
use super::{Error, Guard, Prepared, Statement, Step, connection_guard, copy_text, initialize};

/// `SQLITE_OPEN_EXRESCODE`, newer than the bindings we build with; older libraries ignore the bit.
const OPEN_EXRESCODE: c_int = 0x0200_0000;

/// A database connection. Statements, interrupts and clones of the inner handle may outlive it; the SQLite
/// handle is closed when the last statement is gone too.
#[derive(Debug)]
pub struct Connection {
    inner: Arc<Inner>,
}

/// Whether a connection has a transaction open on its main database, and which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionState {
    /// No transaction.
    None,
    /// A read transaction.
    Read,
    /// A write transaction.
    Write,
}

/// Stops the running statement of a connection from any thread; harmless once the connection is gone.
#[derive(Debug, Clone)]
pub struct Interrupt(Weak<Inner>);

/// Tells a connection when the schema it has in memory may be one that never happened.
///
/// SQLite believes its parsed schema as long as the schema cookie in the database matches. After speculative
/// transactions were dropped, another history can arrive at the same cookie with another schema; so
/// everything parsed before must be parsed again.
#[derive(Debug)]
pub struct SchemaEpoch {
    current: Arc<AtomicU64>,
    parsed: AtomicU64,
}

impl SchemaEpoch {
    /// A connection that has parsed nothing yet. `current` is changed by the database whenever its history
    /// is.
    pub fn new(current: Arc<AtomicU64>) -> SchemaEpoch {
        let parsed = AtomicU64::new(current.load(Ordering::Acquire));
        SchemaEpoch { current, parsed }
    }

    /// Whether the connection may hold a schema of an abandoned history.
    pub fn is_stale(&self) -> bool {
        self.parsed.load(Ordering::Acquire) != self.current.load(Ordering::Acquire)
    }
}

type ProgressHook = Box<dyn FnMut() -> bool + Send>;

/// What the connection and its statements share.
pub(super) struct Inner {
    handle: *mut ffi::sqlite3,
    lock: ReentrantMutex<()>,
    noticed: Noticed,
    progress: Mutex<Option<ProgressHook>>,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    schema_epoch: OnceLock<Arc<SchemaEpoch>>,
    /// Whatever the VFS needs until SQLite has let go of it: dropped after the handle is closed.
    _keep_alive: Option<Arc<dyn Any + Send + Sync>>,
}

// SAFETY: the handle is used only under `Inner::enter` (or through `sqlite3_interrupt`, which any thread may
// call).
unsafe impl Send for Inner {}
// SAFETY: as above.
unsafe impl Sync for Inner {}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("handle", &self.handle).finish_non_exhaustive()
    }
}

impl Inner {
    /// Exclusive use of the handle for this thread.
    pub(super) fn enter(&self) -> Guard<'_> {
        connection_guard(&self.lock)
    }

    /// The raw handle; use it only between [`Inner::enter`] and the end of its guard.
    pub(super) fn handle(&self) -> *mut ffi::sqlite3 {
        self.handle
    }

    pub(super) fn noticed(&self) -> &Noticed {
        &self.noticed
    }

    /// Code and text of the failure that just happened.
    pub(super) fn last_error(&self) -> Error {
        let _guard = self.enter();
        // SAFETY: the handle is open and ours while the guard lives.
        let code = unsafe { ffi::sqlite3_extended_errcode(self.handle) };
        // SAFETY: as above.
        let text = unsafe { ffi::sqlite3_errmsg(self.handle) };
        // SAFETY: the text stays valid until the next call on this handle, which the guard prevents.
        Error::new(code, unsafe { copy_text(text) })
    }

    pub(super) fn check(&self, code: c_int) -> Result<(), Error> {
        if code == ffi::SQLITE_OK { Ok(()) } else { Err(self.last_error()) }
    }

    /// Drops the parsed schema if its history was abandoned. Inside a transaction the schema is the one of
    /// the transaction's state and stays.
    pub(super) fn refresh_schema(&self) -> Result<(), Error> {
        let Some(epoch) = self.schema_epoch.get().filter(|epoch| epoch.is_stale()) else { return Ok(()) };
        let _guard = self.enter();
        // SAFETY: open handle, ours while the guard lives; the schema name is NUL-terminated.
        if unsafe { ffi::sqlite3_txn_state(self.handle, c"main".as_ptr()) } != ffi::SQLITE_TXN_NONE {
            return Ok(());
        }
        let current = epoch.current.load(Ordering::Acquire);
        let reset = c"PRAGMA writable_schema=RESET".as_ptr();
        // SAFETY: open handle, ours while the guard lives; no callback, no place for a message.
        let code = unsafe { ffi::sqlite3_exec(self.handle, reset, None, ptr::null_mut(), ptr::null_mut()) };
        self.check(code)?;
        epoch.parsed.store(current, Ordering::Release);
        Ok(())
    }

    /// Continues a panic of the progress hook, which could not unwind through SQLite.
    pub(super) fn resume_hook_panic(&self) {
        if let Some(payload) = self.panic.lock().take() {
            resume_unwind(payload);
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let _guard = connection_guard(&self.lock);
        // SAFETY: nobody else has the handle: every statement holds an `Arc` of this value.
        unsafe { ffi::sqlite3_close(self.handle) };
    }
}

impl Connection {
    /// Opens an existing database of the given VFS and configures the connection. `keep_alive` is released
    /// only after SQLite has closed its handle.
    pub fn open(
        file: &CStr,
        vfs: &CStr,
        keep_alive: Option<Arc<dyn Any + Send + Sync>>,
    ) -> Result<Connection, Error> {
        initialize()?;
        let process = super::process_guard();
        let mut handle = ptr::null_mut();
        let flags = ffi::SQLITE_OPEN_READWRITE | ffi::SQLITE_OPEN_NOMUTEX | OPEN_EXRESCODE;
        // SAFETY: both names are NUL-terminated; the result goes to a local.
        let code = unsafe { ffi::sqlite3_open_v2(file.as_ptr(), &mut handle, flags, vfs.as_ptr()) };
        if handle.is_null() {
            return Err(Error::from_code(code));
        }
        drop(process);
        let connection = Connection {
            inner: Arc::new(Inner {
                handle,
                lock: ReentrantMutex::new(()),
                noticed: Noticed::default(),
                progress: Mutex::new(None),
                panic: Mutex::new(None),
                schema_epoch: OnceLock::new(),
                _keep_alive: keep_alive,
            }),
        };
        connection.inner.check(code)?;
        connection.configure()?;
        Ok(connection)
    }

    fn configure(&self) -> Result<(), Error> {
        let _guard = self.inner.enter();
        let handle = self.inner.handle;
        // SAFETY: open handle, ours while the guard lives; likewise in the calls below.
        unsafe { ffi::sqlite3_extended_result_codes(handle, 1) };
        self.execute(b"PRAGMA synchronous=OFF")?;
        // Automatic checkpoints stay at SQLite's default, which `PRAGMA wal_autocheckpoint` reports as C's
        // nodes do: the VFS refuses the lock they need.
        let unused = ptr::null_mut::<c_int>();
        for option in [ffi::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, ffi::SQLITE_DBCONFIG_ENABLE_FKEY] {
            // SAFETY: both options take an int and a pointer to int that may be NULL.
            let code = unsafe { ffi::sqlite3_db_config(handle, option, 1 as c_int, unused) };
            self.inner.check(code)?;
        }
        let noticed: *const Noticed = &self.inner.noticed;
        // SAFETY: `noticed` lives inside the `Arc` that outlives the handle.
        let code = unsafe {
            ffi::sqlite3_set_authorizer(handle, Some(authorizer::authorize), noticed.cast_mut().cast())
        };
        self.inner.check(code)
    }

    /// Compiles the first statement of `sql`, which need not be UTF-8. Nothing but blanks and comments gives
    /// no statement. A NUL byte ends the text, as in C.
    pub fn prepare(&self, sql: &[u8]) -> Result<Prepared, Error> {
        Statement::prepare(&self.inner, sql)
    }

    /// Runs every statement of `sql` to its end and drops the rows.
    pub fn execute(&self, sql: &[u8]) -> Result<(), Error> {
        let mut rest = sql;
        while !rest.is_empty() {
            let Prepared { statement, tail_offset } = self.prepare(rest)?;
            rest = &rest[tail_offset..];
            match statement {
                Some(mut statement) => while statement.step()? == Step::Row {},
                None if tail_offset == 0 => break,
                None => {}
            }
        }
        Ok(())
    }

    /// Whether no explicit transaction is open.
    pub fn autocommit(&self) -> bool {
        let _guard = self.inner.enter();
        // SAFETY: open handle, ours while the guard lives.
        unsafe { ffi::sqlite3_get_autocommit(self.inner.handle) != 0 }
    }

    /// The transaction open on the main database.
    pub fn transaction_state(&self) -> TransactionState {
        let _guard = self.inner.enter();
        // SAFETY: open handle, ours while the guard lives; the schema name is NUL-terminated.
        match unsafe { ffi::sqlite3_txn_state(self.inner.handle, c"main".as_ptr()) } {
            ffi::SQLITE_TXN_WRITE => TransactionState::Write,
            ffi::SQLITE_TXN_READ => TransactionState::Read,
            _ => TransactionState::None,
        }
    }

    /// Row id of the last successful INSERT.
    pub fn last_insert_rowid(&self) -> i64 {
        let _guard = self.inner.enter();
        // SAFETY: open handle, ours while the guard lives.
        unsafe { ffi::sqlite3_last_insert_rowid(self.inner.handle) }
    }

    /// Rows changed by the last INSERT, UPDATE or DELETE.
    pub fn changes(&self) -> u64 {
        let _guard = self.inner.enter();
        // SAFETY: open handle, ours while the guard lives.
        let changes = unsafe { ffi::sqlite3_changes(self.inner.handle) };
        u64::try_from(changes).unwrap_or(0)
    }

    /// Code and text of the most recent failure on this connection.
    pub fn last_error(&self) -> Error {
        self.inner.last_error()
    }

    /// A handle that can interrupt this connection's running statement.
    pub fn interrupt_handle(&self) -> Interrupt {
        Interrupt(Arc::downgrade(&self.inner))
    }

    /// Calls `hook` about every `opcodes` virtual-machine instructions; `true` interrupts the statement with
    /// `SQLITE_INTERRUPT`. A panic of the hook interrupts too and continues when `step` returns.
    pub fn set_progress_hook(&self, opcodes: c_int, hook: impl FnMut() -> bool + Send + 'static) {
        let _guard = self.inner.enter();
        *self.inner.progress.lock() = Some(Box::new(hook));
        let inner: *const Inner = Arc::as_ptr(&self.inner);
        // SAFETY: open handle, ours; the `Arc` outlives the handle and with it the hook.
        unsafe {
            ffi::sqlite3_progress_handler(
                self.inner.handle,
                opcodes,
                Some(run_progress_hook),
                inner.cast_mut().cast(),
            )
        };
    }

    /// Removes the progress hook.
    pub fn clear_progress_hook(&self) {
        let _guard = self.inner.enter();
        // SAFETY: open handle, ours while the guard lives.
        unsafe { ffi::sqlite3_progress_handler(self.inner.handle, 0, None, ptr::null_mut()) };
        *self.inner.progress.lock() = None;
    }

    /// Makes the connection follow a database whose history can be abandoned. Once per connection.
    pub(crate) fn follow(&self, epoch: Arc<SchemaEpoch>) {
        self.inner.schema_epoch.get_or_init(|| epoch);
    }

    /// Exclusive use of the connection, for what has to happen between two statements.
    pub(crate) fn enter(&self) -> Guard<'_> {
        self.inner.enter()
    }

    /// The open file of the main database, as its VFS knows it. Only valid while the connection is.
    pub(crate) fn main_file(&self) -> Result<*mut ffi::sqlite3_file, Error> {
        let _guard = self.inner.enter();
        let mut file: *mut ffi::sqlite3_file = ptr::null_mut();
        // SAFETY: open handle, ours; this operation writes one pointer to the given address.
        let code = unsafe {
            ffi::sqlite3_file_control(
                self.inner.handle,
                c"main".as_ptr(),
                ffi::SQLITE_FCNTL_FILE_POINTER,
                (&raw mut file).cast(),
            )
        };
        self.inner.check(code)?;
        Ok(file)
    }
}

impl Interrupt {
    /// Makes the running statement, if any, fail with `SQLITE_INTERRUPT` soon.
    pub fn interrupt(&self) {
        if let Some(inner) = self.0.upgrade() {
            // SAFETY: any thread may call it while the handle is open, which the `Arc` guarantees.
            unsafe { ffi::sqlite3_interrupt(inner.handle) };
        }
    }
}

/// # Safety
/// `inner` is the pointer that [`Connection::set_progress_hook`] registered.
unsafe extern "C" fn run_progress_hook(inner: *mut c_void) -> c_int {
    // SAFETY: the connection that runs the statement keeps it alive.
    let inner = unsafe { &*inner.cast::<Inner>() };
    // The hook leaves its place while it runs, so that it may replace itself.
    let Some(mut hook) = inner.progress.lock().take() else { return 0 };
    let answer = catch_unwind(AssertUnwindSafe(&mut hook));
    inner.progress.lock().get_or_insert(hook);
    match answer {
        Ok(interrupt) => c_int::from(interrupt),
        Err(payload) => {
            *inner.panic.lock() = Some(payload);
            1
        }
    }
}

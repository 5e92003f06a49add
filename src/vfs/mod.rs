//! The replicating VFS: databases in memory, of which SQLite writes the transactions and Raft decides which
//! ones happened. One [`Vfs`] per node; every database has two views of the same WAL.
//!
//! A write runs like this. The owner of the write lane calls [`VfsConnection::set_view`] with
//! [`View::Speculative`], steps the statement, and takes what it closed with [`Database::take_transaction`].
//! The transaction now waits in the pipeline, visible to the next writer but to no reader. When its log entry
//! is committed, [`Database::publish_next`] shows it to readers; when leadership is lost, [`Database::abort`]
//! drops it. Followers call [`Database::append`] instead. None of these waits for anything but a short lock.
//!
//! | file | what |
//! |---|---|
//! | `registration`, `file`, `handle` | the callbacks SQLite makes: names, files, locks and views |
//! | `database`, `txn`, `checkpoint`, `capture` | one database and its operations |
//! | `pages`, `wal`, `shm`, `locks` | the parts it is made of |

mod capture;
mod checkpoint;
mod database;
mod file;
mod handle;
mod locks;
mod pages;
mod planted;
mod registration;
mod shm;
mod txn;
mod wal;

pub use capture::{Image, Replacement, replace_all};
pub use database::{Database, Pipeline};
pub use pages::{PageNumber, PageRef, page_from};
#[doc(hidden)]
pub use planted::Bug;
pub use txn::{Transaction, TransactionId};

use std::any::Any;
use std::ffi::CString;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::config::DATABASE_NAME_MAX;
use crate::sqlite;

use handle::MainHandle;
use planted::Planted;
use registration::Registration;

/// Which state of a database a connection sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// What Raft has committed: for readers.
    Committed,
    /// Everything executed so far: for the next writer.
    Speculative,
}

/// Why the VFS refused something.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A lock or a speculative transaction is in the way.
    #[error("the database is in use")]
    Busy,
    /// The view of a connection can only change between transactions.
    #[error("the connection is inside a transaction")]
    InTransaction,
    /// Speculative states were dropped while a statement started.
    #[error("the state that the statement was compiled for was dropped")]
    HistoryAbandoned,
    /// Transactions must be published in the order in which they executed.
    #[error("transaction {given:?} is not the oldest one, which is {expected:?}")]
    NotOldest {
        /// The oldest speculative transaction, if any.
        expected: Option<TransactionId>,
        /// The one to be published.
        given: TransactionId,
    },
    /// Pages are counted from 1.
    #[error("a transaction contains page number 0")]
    PageZero,
    /// An image to restore is empty, or its first page is not that of a WAL-mode database with our page size.
    #[error("the image is not a WAL-mode SQLite database with pages of 4096 bytes")]
    BadImage,
    /// The name is too long or contains a NUL byte.
    #[error("a database name has at most {max} bytes, none of them NUL", max = DATABASE_NAME_MAX)]
    BadName,
    /// A database of this name exists.
    #[error("the database exists")]
    Exists,
    /// The connection's main database is not one of this VFS.
    #[error("the connection does not use this VFS")]
    Foreign,
    /// The memory pages of this machine are too large for two views of a WAL-index.
    #[error("memory pages of {0} bytes are not supported, only 4096 and 16384")]
    OsPageSize(usize),
    /// SQLite was built without its `unix` VFS.
    #[error("SQLite has no VFS named unix")]
    NoUnixVfs,
    /// A system call failed.
    #[error("cannot allocate the WAL-index: {0}")]
    System(#[from] rustix::io::Errno),
    /// SQLite failed.
    #[error(transparent)]
    Sqlite(#[from] sqlite::Error),
}

/// The first violation of an invariant inside a callback. The node must not go on after one.
#[derive(Debug, Default)]
struct Fault(Mutex<Option<String>>);

impl Fault {
    fn record(&self, text: &str) {
        tracing::error!(fault = text, "a broken invariant in the VFS");
        self.0.lock().get_or_insert_with(|| text.to_owned());
    }

    fn record_panic(&self, payload: &(dyn Any + Send)) {
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
        self.record(text.unwrap_or("a panic without a text"));
    }
}

/// A registered VFS with its databases. Unregistered when dropped; connections opened before go on working.
#[derive(Debug)]
pub struct Vfs {
    registration: Arc<Registration>,
    checkpoint_threshold: u32,
    os_page_size: usize,
    planted: Planted,
}

static REGISTERED: AtomicU64 = AtomicU64::new(0);

impl Vfs {
    /// Registers a VFS under a name of its own. Databases checkpoint after `checkpoint_threshold` committed
    /// frames.
    pub fn register(checkpoint_threshold: u32) -> Result<Vfs, Error> {
        let os_page_size = shm::supported_os_page_size().map_err(Error::OsPageSize)?;
        let number = REGISTERED.fetch_add(1, Ordering::Relaxed) + 1;
        let name = CString::new(format!("dqlite-{number}")).map_err(|_| Error::BadName)?;
        let registration = Registration::register(name)?;
        Ok(Vfs { registration, checkpoint_threshold, os_page_size, planted: Planted::default() })
    }

    /// The name SQLite knows it by.
    pub fn name(&self) -> &str {
        self.registration.name().to_str().unwrap_or_default()
    }

    /// Creates an empty database. Its name is taken verbatim.
    pub fn create_database(&self, name: impl AsRef<[u8]>) -> Result<Arc<Database>, Error> {
        let (threshold, os_page_size) = (self.checkpoint_threshold, self.os_page_size);
        self.registration.create_database(name.as_ref(), threshold, os_page_size, self.planted)
    }

    /// The database of that name.
    pub fn database(&self, name: impl AsRef<[u8]>) -> Option<Arc<Database>> {
        self.registration.database(name.as_ref())
    }

    /// Forgets a database; connections that have it open keep it until they close.
    pub fn remove_database(&self, name: impl AsRef<[u8]>) -> Option<Arc<Database>> {
        self.registration.remove_database(name.as_ref())
    }

    /// All databases in the order of their creation.
    pub fn databases(&self) -> Vec<Arc<Database>> {
        self.registration.databases()
    }

    /// Opens a connection to an existing database, in the committed view.
    pub fn connect(&self, name: impl AsRef<[u8]>) -> Result<VfsConnection, Error> {
        let file = registration::file_name(name.as_ref()).ok_or(Error::BadName)?;
        let keep_alive: Arc<dyn Any + Send + Sync> = Arc::clone(&self.registration) as _;
        let connection = sqlite::Connection::open(&file, self.registration.name(), Some(keep_alive))?;
        VfsConnection::new(connection)
    }

    /// What broke inside a callback, if anything did: the node has to be fenced.
    pub fn fault(&self) -> Option<String> {
        self.registration.fault.0.lock().clone()
    }
}

impl Drop for Vfs {
    fn drop(&mut self) {
        self.registration.unregister();
    }
}

/// A SQLite connection to a database of a [`Vfs`], with control over its view.
#[derive(Debug)]
pub struct VfsConnection {
    sqlite: sqlite::Connection,
    handle: Arc<MainHandle>,
}

impl VfsConnection {
    /// Finds the file behind a connection.
    fn new(sqlite: sqlite::Connection) -> Result<VfsConnection, Error> {
        let guard = sqlite.enter();
        let file = sqlite.main_file()?;
        // SAFETY: the file stays open while the connection does, which the guard keeps to this thread.
        let handle = unsafe { file::main_handle(file) }.ok_or(Error::Foreign)?;
        drop(guard);
        sqlite.follow(Arc::clone(&handle.schema_epoch));
        Ok(VfsConnection { sqlite, handle })
    }

    /// Shows a view from the next transaction on. The speculative view comes with the permit to write, the
    /// committed view without. Fails inside a transaction.
    pub fn set_view(&self, view: View) -> Result<(), Error> {
        let _guard = self.sqlite.enter();
        self.handle.set_view(view)
    }

    /// The view that the connection shows.
    pub fn view(&self) -> View {
        self.handle.view()
    }

    /// Permits a read transaction of the committed view to become a write transaction. It will, if nothing is
    /// speculative at that moment; else SQLite answers `SQLITE_BUSY`, and it can be tried again once the
    /// pipeline has drained. The permit ends with the transaction, or with [`VfsConnection::revoke_permit`].
    pub fn grant_permit(&self) {
        let _guard = self.sqlite.enter();
        self.handle.set_permit(true);
    }

    /// Takes the permit back from a connection whose statement could not use it.
    pub fn revoke_permit(&self) {
        let _guard = self.sqlite.enter();
        self.handle.set_permit(false);
    }

    /// The database it is connected to.
    pub fn database(&self) -> &Arc<Database> {
        &self.handle.database
    }
}

impl Deref for VfsConnection {
    type Target = sqlite::Connection;

    fn deref(&self) -> &sqlite::Connection {
        &self.sqlite
    }
}

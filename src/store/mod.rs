//! The data directory: what is durable of a node. Layout and bytes are those of the C library (1.11 to 1.18),
//! in both directions; each file of this module opens with the bytes it owns.
//!
//! * Before the node runs, on the caller's thread: [`Directory::open`] checks and tidies, [`Directory::lock`]
//!   makes it ours, [`LockedDirectory::bootstrap`] gives it a first configuration,
//!   [`LockedDirectory::load`] reads everything.
//! * While it runs: [`Store`] takes requests from any thread, never waits, and reports through a callback.
//!   The threads `dqlite/disk` (log, term and vote), `dqlite/segments` (spare files), `dqlite/snap`
//!   (snapshots) and `dqlite/read` (old entries) do the work.
//!
//! **Contract.** Requests become durable in the order in which they were made, and `Persisted { seq }` covers
//! every request up to `seq`. It is sent only for what survives a power cut. After `Failed` nothing more is
//! written: the node must be fenced. A lack of space is no failure as long as it is known what is on disk:
//! see [`Event::Full`] and [`Event::SpaceLow`]; what must not be dropped, votes and truncations, is tried
//! until it succeeds.

mod blocks;
#[cfg(test)]
mod crash_fs;
mod crc;
mod directory;
mod error;
pub mod fs;
mod inspect;
mod install;
mod list;
mod load;
mod mend;
mod metadata;
mod prepare;
mod queue;
mod read_back;
mod recover;
mod segment;
mod snapshot;
mod snapshot_writer;
mod spool;
#[cfg(test)]
mod test_fs;
mod truncate;
mod writer;

pub use directory::{Directory, LockedDirectory};
pub use error::Error;
pub use inspect::{Contents, FileKind, FoundFile, Inspection};
pub use install::InstallRequest;
pub use load::{AutoRecovery, Loaded, LoadedSnapshot};
pub use mend::{Mending, Step, give_to_owner};
pub use metadata::Metadata;
pub use read_back::OnEntries;
pub use recover::Recovered;
pub use snapshot::{Compression, SnapshotContent, StoredContent, StoredSnapshot};
pub use snapshot_writer::{OnOpen, SnapshotRequest};
pub use spool::{Spool, Spooled, Spools};

use crate::config::SEGMENT_SIZE;
use crate::raft::{Entry, Index, Seq, ServerId, Term};
use blocks::BLOCK_SIZE;
use install::Install;
use parking_lot::Mutex;
use queue::{Queue, Request};
use read_back::{ReadBack, Reader};
use snapshot_writer::{Job, SnapshotWriter};
use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use writer::{Origin, Writer};

/// What the store reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Every request up to `seq` is durable.
    Persisted {
        /// Highest durable request.
        seq: Seq,
    },
    /// Nothing from `seq` on is durable or will be. Sent at most once, and nothing is persisted after it.
    Failed {
        /// First request that is lost.
        seq: Seq,
        /// Why.
        error: Error,
    },
    /// There was no space for the append `seq`. Everything before it is durable, and nothing is wrong: but no
    /// append from `seq` on that was asked for before [`Store::resume`] is carried out. Votes and truncations
    /// are.
    Full {
        /// First append that is dropped.
        seq: Seq,
        /// Last entry of the log on disk; some entries of that append may be there.
        stored: Index,
        /// What there was no space for.
        error: Error,
    },
    /// No further segment can be prepared, for lack of space. What is there is for what is on its way, for
    /// barriers and for changes of the configuration: no new transactions, please.
    SpaceLow {
        /// What there was no space for.
        error: Error,
    },
    /// All spare segments are there again.
    SpaceBack,
    /// A snapshot is durable.
    SnapshotStored {
        /// Last index it contains.
        index: Index,
        /// Size of its content, uncompressed.
        size_bytes: u64,
    },
    /// A snapshot could not be stored. The log is not affected.
    SnapshotFailed {
        /// Last index it would have contained.
        index: Index,
        /// Why.
        error: Error,
    },
    /// There is more space than there was when a snapshot failed for lack of it.
    SnapshotSpaceBack,
    /// A snapshot has durably taken the place of the log, which goes on at the next index.
    SnapshotInstalled {
        /// Last index it contains.
        index: Index,
    },
    /// A snapshot was not installed. Log and snapshots are as before. A failure that cannot promise this is
    /// [`Failed`](Event::Failed).
    SnapshotInstallFailed {
        /// Last index it would have contained.
        index: Index,
        /// Why.
        error: Error,
    },
}

/// Receives events, on a thread of the store. It must not wait for the store.
pub type OnEvent = Box<dyn Fn(Event) + Send + Sync>;

/// How the log is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Size of an open segment in bytes, rounded up to whole blocks of 4096. C uses 8 MiB whatever the block
    /// size; tests use less.
    pub segment_size: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options { segment_size: SEGMENT_SIZE }
    }
}

/// The data directory of a running node. Dropping it without [`stop`](Store::stop) abandons what is queued,
/// as a crash would.
pub struct Store {
    queue: Arc<Queue>,
    /// Held while a job is given to both threads, so that they have them in the same order.
    snapshots: Arc<Mutex<Option<Sender<Job>>>>,
    /// Taken to end the thread.
    reads: Option<Sender<ReadBack>>,
    cancelled: Arc<AtomicBool>,
    spools: Spools,
    disk: Option<JoinHandle<Result<(), Error>>>,
    snap: Option<JoinHandle<()>>,
    read: Option<JoinHandle<()>>,
    /// Last, so that the lock outlives the threads.
    _directory: LockedDirectory,
}

impl Store {
    /// Starts the threads. `loaded` is what [`LockedDirectory::load`] found in `directory`.
    pub fn start<T>(
        directory: LockedDirectory,
        loaded: &Loaded<T>,
        options: Options,
        on_event: OnEvent,
    ) -> Result<Store, Error> {
        let queue = Arc::new(Queue::default());
        let on_event = Arc::new(on_event);
        let cancelled = Arc::new(AtomicBool::new(false));
        let names = Arc::default();
        let origin = Origin {
            fs: Arc::clone(&directory.fs),
            dir: directory.path.clone(),
            names: Arc::clone(&names),
            metadata: directory.metadata,
            next_index: loaded.next_index(),
            segment_size: options.segment_size.next_multiple_of(BLOCK_SIZE),
            cancelled: Arc::clone(&cancelled),
        };
        let writer = Writer::new(origin, Arc::clone(&queue), Arc::clone(&on_event))?;
        let snapshot_writer = SnapshotWriter {
            fs: Arc::clone(&directory.fs),
            dir: directory.path.clone(),
            names,
            on_event,
            cancelled: Arc::clone(&cancelled),
            too_little: Cell::new(None),
        };
        let reader = Reader::new(
            Arc::clone(&directory.fs),
            directory.path.clone(),
            Arc::clone(&queue),
            Arc::clone(&cancelled),
        );
        let (snapshots, jobs) = channel();
        let (reads, to_read) = channel();
        let snapshots = Arc::new(Mutex::new(Some(snapshots)));
        let (fs, dir) = (Arc::clone(&directory.fs), directory.path.clone());
        let mut store = Store {
            queue,
            spools: Spools::new(fs, dir, Arc::clone(&cancelled), Arc::clone(&snapshots)),
            snapshots,
            reads: Some(reads),
            cancelled,
            disk: None,
            snap: None,
            read: None,
            _directory: directory,
        };
        let failed = |e: io::Error| Error::Disk(format!("start a disk thread: {e}"));
        let builder = |name: &str| std::thread::Builder::new().name(name.into());
        store.disk = Some(builder("dqlite/disk").spawn(move || writer.run()).map_err(failed)?);
        let snap = builder("dqlite/snap").spawn(move || snapshot_writer.run(&jobs)).map_err(failed)?;
        store.snap = Some(snap);
        store.read = Some(builder("dqlite/read").spawn(move || reader.run(&to_read)).map_err(failed)?);
        Ok(store)
    }

    /// Makes a term and a vote durable.
    pub fn persist_vote(&self, term: Term, voted_for: Option<ServerId>, seq: Seq) {
        self.request(Request::Vote { term, voted_for, seq });
    }

    /// Appends entries; `first_index` is the end of the log as it is after all requests before this one.
    pub fn append(&self, first_index: Index, entries: Vec<Entry>, seq: Seq) {
        self.request(Request::Append { first_index, entries, seq });
    }

    /// Removes every entry from `from` on.
    pub fn truncate(&self, from: Index, seq: Seq) {
        self.request(Request::Truncate { from, seq });
    }

    /// Ends what [`Event::Full`] began: appends after this are carried out again.
    pub fn resume(&self) {
        self.request(Request::Resume);
    }

    /// Stores a snapshot, after those asked for before.
    pub fn store_snapshot(&self, request: SnapshotRequest) {
        let (done, closed) = channel();
        self.snapshot_job(Some(Request::CloseSegment { done }), Job::Store { request, closed });
    }

    /// Replaces the whole log by a snapshot, after all requests before this one; those after it wait. The
    /// next entry is the one behind the snapshot. Reported as [`Event::SnapshotInstalled`].
    pub fn install_snapshot(&self, request: InstallRequest) {
        let (grant, granted) = channel();
        let (give_back, returned) = channel();
        let lend = Request::Lend { granted: grant, returned };
        self.snapshot_job(Some(lend), Job::Install(Install { request, granted, returned: give_back }));
    }

    /// Opens the newest snapshot at `index`, after what was asked of the snapshot thread before. It is an
    /// error if that has been replaced by newer ones.
    pub fn open_snapshot(&self, index: Index, reply: OnOpen) {
        self.snapshot_job(None, Job::Open { index, reply });
    }

    /// Where snapshots are received that [`Store::install_snapshot`] is to install.
    pub fn spools(&self) -> Spools {
        self.spools.clone()
    }

    /// Reads committed entries back: from `first` on, none behind `last`, as many as one message may have.
    pub fn read_entries(&self, first: Index, last: Index, reply: OnEntries) {
        if let Some(reads) = &self.reads {
            // The thread lives as long as this sender.
            let _ = reads.send(ReadBack { first, last, reply });
        }
    }

    fn snapshot_job(&self, request: Option<Request>, job: Job) {
        let snapshots = self.snapshots.lock();
        if let Some(request) = request {
            self.request(request);
        }
        if let Some(snapshots) = &*snapshots {
            // The thread lives as long as this sender.
            let _ = snapshots.send(job);
        }
    }

    /// Bytes of entries that are not durable yet. Whoever appends should wait while this exceeds
    /// [`DISK_QUEUE_BYTES_MAX`](crate::config::DISK_QUEUE_BYTES_MAX).
    pub fn queued_bytes(&self) -> usize {
        self.queue.bytes()
    }

    fn request(&self, request: Request) {
        // Refused only after `Failed` was sent, which also speaks for this request.
        let _ = self.queue.push(request);
    }

    /// Serves what is queued, closes the log and ends the threads. A snapshot that is being written is given
    /// up, and so is what waits for space. The error is that of an earlier failure, or of closing the log.
    ///
    /// This waits for the operation that is on its way to the disk, and a disk that never answers holds it up
    /// for as long: the system gives no way to call an operation back.
    pub fn stop(mut self) -> Result<(), Error> {
        self.cancelled.store(true, Ordering::Relaxed);
        self.queue.close();
        let closed = self.disk.take().map(JoinHandle::join);
        self.end_snapshots();
        self.end_reads();
        match closed {
            Some(Ok(result)) => result,
            // Its panics are caught, and it is taken only here.
            Some(Err(_)) | None => Err(Error::Closed),
        }
    }

    /// Once the disk thread has ended: the reader may wait for it.
    fn end_reads(&mut self) {
        self.reads = None;
        if let Some(read) = self.read.take() {
            // As in `end_snapshots`.
            let _ = read.join();
        }
    }

    /// Once the disk thread has ended, for the same reason.
    fn end_snapshots(&mut self) {
        *self.snapshots.lock() = None;
        if let Some(snap) = self.snap.take() {
            // A panic of the event receiver, which has no one left to be told to.
            let _ = snap.join();
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.cancelled.store(true, Ordering::Relaxed);
        self.queue.abandon();
        if let Some(disk) = self.disk.take() {
            let _ = disk.join();
        }
        self.end_snapshots();
        self.end_reads();
    }
}

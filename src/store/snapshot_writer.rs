//! The snapshot thread, `dqlite/snap`: writes snapshots one at a time, opens them for other servers, and
//! removes what they make superfluous. It owns the snapshot files and the closed segments behind the newest
//! snapshot; the disk thread never touches those. The rest of the log is its own only while
//! [`super::install`] has it on loan.
//!
//! Order: the segment in use is closed (appends go on in the next one); `.meta`; the content; then old
//! snapshots go, then old segments. Everything is durable before the next step, so nothing is removed before
//! the snapshot that replaces it can be read.

use super::error::Error;
use super::fs::Fs;
use super::install::Install;
use super::list::{Listing, SnapshotName};
use super::snapshot::{self, Compression, SnapshotContent, StoredSnapshot};
use super::spool::Unwanted;
use super::{Event, OnEvent};
use crate::config::{SNAPSHOT_SPACE_CHECK_MS, SNAPSHOT_SPACE_LEFT, SNAPSHOTS_KEPT};
use crate::raft::{Index, SnapshotPoint};
use parking_lot::Mutex;
use std::cell::Cell;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

/// A snapshot to be stored.
pub struct SnapshotRequest {
    /// Where it is in the log.
    pub point: SnapshotPoint,
    /// Its content.
    pub content: Box<dyn SnapshotContent>,
    /// How many entries behind it stay in the log.
    pub trailing: u64,
    /// How the content is stored.
    pub compression: Compression,
}

/// Receives a snapshot that was opened, on the snapshot thread. It must not wait for the store.
pub type OnOpen = Box<dyn FnOnce(Result<StoredSnapshot, Error>) + Send>;

/// Something the snapshot thread is to do.
pub(super) enum Job {
    Store {
        request: SnapshotRequest,
        /// Sent once the segment that was in use when this was asked for is closed.
        closed: Receiver<()>,
    },
    Install(Install),
    Open {
        index: Index,
        reply: OnOpen,
    },
    /// Done by dropping it.
    Remove(Unwanted),
}

/// The state of the snapshot thread.
pub(super) struct SnapshotWriter {
    pub(super) fs: Arc<dyn Fs>,
    pub(super) dir: PathBuf,
    pub(super) names: Arc<Mutex<()>>,
    pub(super) on_event: Arc<OnEvent>,
    /// Set to give up a snapshot that is being written.
    pub(super) cancelled: Arc<AtomicBool>,
    /// The space that there was when it was too little for a snapshot.
    pub(super) too_little: Cell<Option<u64>>,
}

impl SnapshotWriter {
    /// Serves jobs until there is nobody left to send them.
    pub(super) fn run(&self, jobs: &Receiver<Job>) {
        while let Some(job) = self.next_job(jobs) {
            match job {
                Job::Store { request, closed } => self.store_guarded(&request, &closed),
                Job::Install(install) => self.install(install),
                Job::Open { index, reply } => reply(self.open_guarded(index)),
                Job::Remove(unwanted) => drop(unwanted),
            }
        }
    }

    /// The next job; meanwhile looks for the space that a snapshot lacked.
    fn next_job(&self, jobs: &Receiver<Job>) -> Option<Job> {
        while let Some(too_little) = self.too_little.get() {
            match jobs.recv_timeout(Duration::from_millis(SNAPSHOT_SPACE_CHECK_MS)) {
                Err(RecvTimeoutError::Timeout) => {}
                job => return job.ok(),
            }
            let more = too_little.saturating_add(SNAPSHOT_SPACE_LEFT);
            if self.fs.free_space(&self.dir).is_none_or(|free| free >= more) {
                self.too_little.set(None);
                (self.on_event)(Event::SnapshotSpaceBack);
            }
        }
        jobs.recv().ok()
    }

    fn store_guarded(&self, request: &SnapshotRequest, closed: &Receiver<()>) {
        let index = request.point.index;
        let space = self.fs.free_space(&self.dir);
        let stored = catch_unwind(AssertUnwindSafe(|| self.store(request, closed)))
            .unwrap_or_else(|_| Err(Error::Disk("the snapshot thread panicked".into())));
        self.too_little.set(space.filter(|_| matches!(stored, Err(Error::NoSpace(_)))));
        (self.on_event)(match stored {
            Ok(()) => Event::SnapshotStored { index, size_bytes: request.content.size() },
            Err(error) => {
                tracing::warn!(%index, %error, "no snapshot");
                Event::SnapshotFailed { index, error }
            }
        });
    }

    fn store(&self, request: &SnapshotRequest, closed: &Receiver<()>) -> Result<(), Error> {
        let SnapshotRequest { point, content, trailing, compression } = request;
        closed.recv().map_err(|_| Error::Closed)?;
        let name = self.name(point)?;
        self.target(name).write(point, &**content, *compression)?;
        // From here on the snapshot exists. What cannot be removed is only in the way, and tried again next
        // time.
        let names = self.names.lock();
        let removed = [self.remove_old_snapshots(), self.remove_segments(point.index, *trailing)];
        drop(names);
        for error in removed.into_iter().filter_map(Result::err) {
            tracing::warn!(%error, dir = %self.dir.display(), "old snapshots or segments stay");
        }
        Ok(())
    }

    pub(super) fn target(&self, name: SnapshotName) -> snapshot::Target<'_> {
        let SnapshotWriter { fs, dir, names, cancelled, .. } = self;
        snapshot::Target { fs, dir, name, names, cancelled }
    }

    /// A name that sorts behind every other snapshot: start-up reads the last one. The clock restarts with
    /// the machine, so of one index the time may have to be ahead of it.
    pub(super) fn name(&self, point: &SnapshotPoint) -> Result<SnapshotName, Error> {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let now_ms = now.tv_sec as u64 * 1000 + now.tv_nsec as u64 / 1_000_000;
        let listing = Listing::scan(&*self.fs, &self.dir).map_err(|e| Error::disk("list", &self.dir, &e))?;
        let mut name = SnapshotName { term: point.term, index: point.index, timestamp_ms: now_ms };
        match listing.snapshots.last() {
            Some(last) if (last.term, last.index) == (name.term, name.index) => {
                name.timestamp_ms = now_ms.max(last.timestamp_ms.saturating_add(1));
            }
            // A log whose terms go down has this at the entry of a forced configuration.
            Some(last) if *last > name => {
                return Err(Error::Disk(format!("{last} would count as newer than a snapshot of {name}")));
            }
            _ => {}
        }
        Ok(name)
    }

    pub(super) fn remove_old_snapshots(&self) -> io::Result<()> {
        let listing = Listing::scan(&*self.fs, &self.dir)?;
        let old = listing.snapshots.len().saturating_sub(SNAPSHOTS_KEPT);
        for name in &listing.snapshots[..old] {
            self.fs.remove(&self.dir.join(name.meta()))?;
            self.fs.remove(&self.dir.join(name.to_string()))?;
        }
        self.fs.sync_dir(&self.dir)
    }

    /// Removes the segments whose entries are all behind the trailing ones.
    fn remove_segments(&self, index: Index, trailing: u64) -> io::Result<()> {
        let first_kept = Index((index.0 + 1).saturating_sub(trailing));
        let listing = Listing::scan(&*self.fs, &self.dir)?;
        for name in listing.closed.iter().take_while(|name| name.last < first_kept) {
            self.fs.remove(&self.dir.join(name.to_string()))?;
        }
        self.fs.sync_dir(&self.dir)
    }

    fn open_guarded(&self, index: Index) -> Result<StoredSnapshot, Error> {
        catch_unwind(AssertUnwindSafe(|| self.open(index)))
            .unwrap_or_else(|_| Err(Error::Disk("the snapshot thread panicked".into())))
    }

    fn open(&self, index: Index) -> Result<StoredSnapshot, Error> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(Error::Closed);
        }
        let listing = Listing::scan(&*self.fs, &self.dir).map_err(|e| Error::disk("list", &self.dir, &e))?;
        let name = listing.snapshots.iter().rfind(|name| name.index == index);
        let name = name.ok_or_else(|| Error::Disk(format!("there is no snapshot at {index} any more")))?;
        snapshot::open(&*self.fs, &self.dir, *name).map_err(Error::Disk)
    }
}

#[cfg(test)]
#[path = "snapshot_writer_test.rs"]
mod tests;

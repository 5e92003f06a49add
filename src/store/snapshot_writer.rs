//! The snapshot thread, `dqlite/snap`: writes snapshots one at a time and removes what they make superfluous.
//! It owns the snapshot files and the closed segments behind the newest snapshot; the disk thread never
//! touches those.
//!
//! Order: the segment in use is closed (appends go on in the next one); `.meta`; the content; then old
//! snapshots go, then old segments. Everything is durable before the next step, so nothing is removed before
//! the snapshot that replaces it can be read.

use super::error::Error;
use super::fs::Fs;
use super::list::{Listing, SnapshotName};
use super::queue::{Queue, Request};
use super::snapshot::{self, Compression, SnapshotContent};
use super::{Event, OnEvent};
use crate::config::SNAPSHOTS_KEPT;
use crate::raft::{Index, SnapshotPoint};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, channel};

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

/// The state of the snapshot thread.
pub(super) struct SnapshotWriter {
    pub(super) fs: Arc<dyn Fs>,
    pub(super) dir: PathBuf,
    pub(super) queue: Arc<Queue>,
    pub(super) on_event: Arc<OnEvent>,
    /// Set to give up a snapshot that is being written.
    pub(super) cancelled: Arc<AtomicBool>,
}

impl SnapshotWriter {
    /// Serves requests until there is nobody left to send them.
    pub(super) fn run(&self, requests: &Receiver<SnapshotRequest>) {
        for request in requests {
            let index = request.point.index;
            let stored = catch_unwind(AssertUnwindSafe(|| self.store(&request)))
                .unwrap_or_else(|_| Err(Error::Disk("the snapshot thread panicked".into())));
            let event = match stored {
                Ok(()) => Event::SnapshotStored { index, size_bytes: request.content.size() },
                Err(error) => {
                    tracing::warn!(%index, %error, "no snapshot");
                    Event::SnapshotFailed { index, error }
                }
            };
            (self.on_event)(event);
        }
    }

    fn store(&self, request: &SnapshotRequest) -> Result<(), Error> {
        let SnapshotRequest { point, content, trailing, compression } = request;
        let (done, closed) = channel();
        self.queue.push(Request::CloseSegment { done })?;
        closed.recv().map_err(|_| Error::Closed)?;
        let name = self.name(point).map_err(|e| Error::disk("list", &self.dir, &e))?;
        let target = snapshot::Target { fs: &*self.fs, dir: &self.dir, name, cancelled: &self.cancelled };
        target.write(point, &**content, *compression).map_err(Error::Disk)?;
        // From here on the snapshot exists. What cannot be removed is only in the way, and tried again next
        // time.
        if let Err(error) = self.remove_superfluous(point.index, *trailing) {
            tracing::warn!(%error, dir = %self.dir.display(), "old snapshots or segments stay");
        }
        Ok(())
    }

    /// A name that sorts behind every snapshot of the same index: the clock restarts with the machine.
    fn name(&self, point: &SnapshotPoint) -> io::Result<SnapshotName> {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let now_ms = now.tv_sec as u64 * 1000 + now.tv_nsec as u64 / 1_000_000;
        let listing = Listing::scan(&*self.fs, &self.dir)?;
        let same =
            listing.snapshots.iter().rfind(|name| (name.term, name.index) == (point.term, point.index));
        let timestamp_ms = same.map_or(now_ms, |name| now_ms.max(name.timestamp_ms + 1));
        Ok(SnapshotName { term: point.term, index: point.index, timestamp_ms })
    }

    fn remove_superfluous(&self, index: Index, trailing: u64) -> io::Result<()> {
        let listing = Listing::scan(&*self.fs, &self.dir)?;
        let old = listing.snapshots.len().saturating_sub(SNAPSHOTS_KEPT);
        for name in &listing.snapshots[..old] {
            self.fs.remove(&self.dir.join(name.meta()))?;
            self.fs.remove(&self.dir.join(name.to_string()))?;
        }
        // The entries behind the snapshot that are kept begin here.
        let first_kept = Index((index.0 + 1).saturating_sub(trailing));
        for name in listing.closed.iter().take_while(|name| name.last < first_kept) {
            self.fs.remove(&self.dir.join(name.to_string()))?;
        }
        self.fs.sync_dir(&self.dir)
    }
}

#[cfg(test)]
#[path = "snapshot_writer_test.rs"]
mod tests;

//! Installing a snapshot that a leader sent: it takes the place of the whole log. Part of the snapshot
//! thread.
//!
//! The disk thread finishes every earlier request, closes all segments and lends the log; until it has it
//! back, later appends, truncations and votes wait in its queue. Then, each step durable before the next:
//!
//! 1. `.meta`, then the content, which is durable already and gets its name. With it the directory has its
//!    new state: from here on start-up takes what is left of the log for superseded and drops it
//!    ([`super::load`]).
//! 2. The closed segments go, from the last one down. In this order what a crash leaves either still holds
//!    the entry at the snapshot's index, which has another term, or ends before it. In the other order it
//!    could look like entries behind the snapshot.
//! 3. Older snapshots go.
//!
//! A failure before the content has its name leaves the old state, and the node goes on. After that the log
//! on disk and the one in memory differ, and the store fails as after any other failed write: a restart finds
//! the new state.

use super::Event;
use super::error::Error;
use super::list::{Listing, SnapshotName};
use super::queue::Returned;
use super::snapshot_writer::SnapshotWriter;
use super::spool::Spooled;
use crate::raft::{SnapshotPoint, SnapshotSource};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};

/// A snapshot to be installed.
pub struct InstallRequest {
    /// Where it is in the log.
    pub point: SnapshotPoint,
    /// Its content, as it was received.
    pub content: Arc<Spooled>,
}

/// A snapshot to be installed, and the log that the disk thread lends for it.
pub(super) struct Install {
    pub(super) request: InstallRequest,
    /// Sent once the log is lent; dropped if it never will be.
    pub(super) granted: Receiver<()>,
    /// Gives the log back.
    pub(super) returned: Sender<Result<Returned, Error>>,
}

/// How an installation failed.
enum Failure {
    /// The old state is there, complete.
    Untouched(Error),
    /// Only a restart can tell what is there.
    Broken(Error),
}

impl SnapshotWriter {
    /// Installs a snapshot, gives the log back, and reports.
    pub(super) fn install(&self, install: Install) {
        let Install { request, granted, returned } = install;
        let index = request.point.index;
        let panicked = || Failure::Broken(Error::Disk("the snapshot thread panicked".into()));
        let outcome = catch_unwind(AssertUnwindSafe(|| self.replace_log(&request, &granted)))
            .unwrap_or_else(|_| Err(panicked()));
        let (log, event) = match outcome {
            Ok(()) => {
                let emptied = Returned::Emptied { next_index: index.next() };
                (Ok(emptied), Some(Event::SnapshotInstalled { index }))
            }
            Err(Failure::Untouched(error)) => {
                tracing::warn!(%index, %error, "a snapshot was not installed");
                (Ok(Returned::Unchanged), Some(Event::SnapshotInstallFailed { index, error }))
            }
            // The disk thread reports it as the end of the log.
            Err(Failure::Broken(error)) => (Err(error), None),
        };
        // Before anything that was asked for behind the snapshot is reported.
        if let Some(event) = event {
            (self.on_event)(event);
        }
        // Not wanted if the disk thread failed before it could lend the log.
        let _ = returned.send(log);
    }

    fn replace_log(&self, request: &InstallRequest, granted: &Receiver<()>) -> Result<(), Failure> {
        let InstallRequest { point, content } = request;
        granted.recv().map_err(|_| Failure::Untouched(Error::Closed))?;
        if content.size() == 0 {
            return Err(Failure::Untouched(Error::Disk("a snapshot without content does not count".into())));
        }
        let name = self.name(point).map_err(Failure::Untouched)?;
        if let Err(error) = self.target(name).adopt(point, content.path()) {
            return Err(self.after_failed_write(name, error));
        }
        content.is_gone();
        let broken = |e: io::Error| Failure::Broken(Error::disk("remove the old log in", &self.dir, &e));
        self.remove_log().map_err(broken)?;
        if let Err(error) = self.remove_old_snapshots() {
            tracing::warn!(%error, dir = %self.dir.display(), "old snapshots stay");
        }
        Ok(())
    }

    /// The old log may go on only if the snapshot is certain not to be there at the next start.
    fn after_failed_write(&self, name: SnapshotName, error: Error) -> Failure {
        let is_there = Listing::scan(&*self.fs, &self.dir).map(|found| found.snapshots.contains(&name));
        let is_gone = is_there.and_then(|is_there| match is_there {
            true => Err(io::Error::other("it was not removed")),
            false => self.fs.sync_dir(&self.dir),
        });
        match is_gone {
            Ok(()) => Failure::Untouched(error),
            Err(e) => Failure::Broken(Error::Disk(format!("{error}, and {name} may have stayed: {e}"))),
        }
    }

    fn remove_log(&self) -> io::Result<()> {
        for segment in Listing::scan(&*self.fs, &self.dir)?.closed.iter().rev() {
            self.fs.remove(&self.dir.join(segment.to_string()))?;
            self.fs.sync_dir(&self.dir)?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "install_test.rs"]
mod tests;

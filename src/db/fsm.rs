//! The state machine: applies committed commands to the databases, captures and restores all of them. Runs on
//! the Raft thread, executes no SQL.

use super::command::{self, Command, CommandError};
use super::registry::Registry;
use super::snapshot::Snapshot;
use crate::vfs::{self, PageRef, page_from};
use bytes::Bytes;
use std::sync::Arc;

/// Why committed state cannot be brought into the databases. Except for [`Error::Busy`] the node must stop:
/// skipping would diverge.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A committed command that we do not understand.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// A session of an earlier leadership, about to be closed, still holds a lock or has something
    /// speculative. Nothing has changed: try again soon.
    #[error("database {database:?} is in use")]
    Busy {
        /// Name of the database.
        database: String,
    },
    /// The VFS refused.
    #[error("database {database:?}: {source}")]
    Vfs {
        /// Name of the database.
        database: String,
        /// What it said.
        source: vfs::Error,
    },
}

impl Error {
    fn of(database: &Bytes, source: vfs::Error) -> Error {
        let database = String::from_utf8_lossy(database).into_owned();
        match source {
            vfs::Error::Busy => Error::Busy { database },
            source => Error::Vfs { database, source },
        }
    }
}

/// All databases as one state machine.
pub struct Fsm {
    registry: Arc<Registry>,
}

impl Fsm {
    /// Over the databases of `registry`.
    pub fn new(registry: Arc<Registry>) -> Fsm {
        Fsm { registry }
    }

    /// Applies a committed command that was not executed here: from a leader elsewhere or from the log on
    /// disk.
    pub fn apply(&self, payload: Bytes) -> Result<(), Error> {
        let Command::Frames(frames) = command::decode(payload)? else { return Ok(()) };
        let pages: Vec<(u32, PageRef)> =
            frames.pages.iter().map(|(number, image)| (*number, page(image))).collect();
        self.on_database(&frames.database, |database| database.append(&pages))
    }

    /// The committed state of every database, by reference. Databases that were deleted are left out: C
    /// releases up to 1.18.2 abort on the page that marks them.
    pub fn capture(&self) -> Snapshot {
        let live = self.registry.all().into_iter().filter(|d| !d.vfs.is_deleted());
        Snapshot { databases: live.map(|d| (d.name.clone(), d.vfs.capture())).collect() }
    }

    /// Makes the databases those of a snapshot, all in one step: what is not in it is deleted.
    /// [`Error::Busy`] means that nothing has changed and that it will do later.
    pub fn replace(&self, snapshot: &Snapshot) -> Result<(), Error> {
        let restored = self.registry.restore(&snapshot.databases);
        restored.map_err(|(name, source)| Error::of(&name, source))
    }

    fn on_database(
        &self,
        name: &Bytes,
        change: impl FnOnce(&vfs::Database) -> Result<(), vfs::Error>,
    ) -> Result<(), Error> {
        self.registry
            .with_database(name, |database| change(&database.vfs))
            .and_then(|r| r)
            .map_err(|source| Error::of(name, source))
    }
}

/// Copies a page out of its log entry, so that a page which stays does not keep a large entry in memory.
fn page(image: &Bytes) -> PageRef {
    page_from(image).expect("a decoded command has whole pages")
}

#[cfg(test)]
#[path = "fsm_test.rs"]
mod tests;

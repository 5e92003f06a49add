//! What can go wrong with a data directory. The texts of the set-up errors are those of the C library, which
//! callers of the C API have come to match on; each has a test.

use rustix::io::Errno;
use std::io;
use std::path::{Path, PathBuf};

/// Why a data directory cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Longer than [`DATA_DIR_PATH_MAX`](crate::config::DATA_DIR_PATH_MAX).
    #[error("raft_uv_init(): directory path too long")]
    PathTooLong,
    /// Nothing has this name.
    #[error("raft_init(): io: directory '{}' does not exist", .0.display())]
    DirectoryMissing(PathBuf),
    /// Something else than a directory has this name, or one of its parents'.
    #[error("raft_init(): io: path '{}' is not a directory", .0.display())]
    NotADirectory(PathBuf),
    /// Its mode does not let the owner write.
    #[error("raft_init(): io: directory '{}' is not writable", .0.display())]
    DirectoryNotWritable(PathBuf),
    /// A parent directory may not be searched.
    #[error("raft_init(): io: can't access directory '{}'", .0.display())]
    DirectoryNotAccessible(PathBuf),
    /// Any other reason why it cannot be looked at.
    #[error("raft_init(): io: can't stat '{}': {reason}", path.display())]
    DirectoryUnknown {
        /// The directory.
        path: PathBuf,
        /// The system's reason.
        reason: String,
    },
    /// The metadata files are damaged.
    #[error("raft_init(): io: {0}")]
    Metadata(String),
    /// Another node uses the directory.
    #[error("couldn't lock the raft directory")]
    Locked,
    /// The file for the lock could not be opened or locked for a reason of the system's.
    #[error("couldn't lock the raft directory: {0}")]
    Lock(String),
    /// The first configuration could not be written.
    #[error("raft_bootstrap(): {0}")]
    Bootstrap(String),
    /// Snapshot or log are damaged in a way that is not ours to repair.
    #[error("raft_start(): io: {0}")]
    Load(String),
    /// A configuration could not be forced upon the log.
    #[error("raft_recover(): {0}")]
    Recover(String),
    /// A file operation failed while the node ran.
    #[error("{0}")]
    Disk(String),
    /// There was no space for a file operation, and nothing has changed.
    #[error("{0}")]
    NoSpace(String),
    /// The store was asked for something after it had failed or stopped.
    #[error("the log is closed")]
    Closed,
}

impl Error {
    /// A failed file operation of a running node, with the file it failed on.
    pub(super) fn disk(action: &str, path: &Path, error: &io::Error) -> Error {
        let text = describe(action, path, error);
        if is_no_space(error) { Error::NoSpace(text) } else { Error::Disk(text) }
    }
}

/// Whether an operation failed because the file system or the quota is full.
pub(super) fn is_no_space(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOSPC | Errno::DQUOT))
}

/// The result of a sync. After a failed one nobody knows what is on disk, whatever the reason: it is never
/// taken for a mere lack of space.
pub(super) fn synced(result: io::Result<()>) -> io::Result<()> {
    result.map_err(|e| if is_no_space(&e) { io::Error::other(e.to_string()) } else { e })
}

/// A failed file operation in one line: what was tried, on what, and why it failed.
pub(super) fn describe(action: &str, path: &Path, error: &io::Error) -> String {
    format!("{action} {}: {error}", path.display())
}

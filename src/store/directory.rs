//! The data directory before the node runs: checked and tidied when the node is created, locked when it
//! starts, given its first configuration if it is new. Runs on the caller's thread.
//!
//! The lock is `flock` on the empty file `dqlite-lock`, as in the C library since 1.16.5; two nodes of one
//! process exclude each other, too. Nothing is removed without it: creating a node on a directory in use
//! changes nothing.

use super::error::{Error, describe, synced};
use super::fs::{Disk, Existing, Fs};
use super::list::{ClosedName, Listing, TEMPORARY_PREFIX};
use super::load::{self, Loaded};
use super::metadata::Metadata;
use super::segment;
use crate::config::DATA_DIR_PATH_MAX;
use crate::raft::{Configuration, Entry, EntryKind, Index, Term};
use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(super) const LOCK_NAME: &str = "dqlite-lock";
/// Term of the configuration that a new directory is given.
const BOOTSTRAP_TERM: Term = Term(1);

/// A data directory that passed the checks.
#[derive(Clone)]
pub struct Directory {
    pub(super) fs: Arc<dyn Fs>,
    pub(super) path: PathBuf,
}

impl Directory {
    /// Checks the directory and its metadata, and removes what an interrupted run left unfinished.
    pub fn open(path: &Path) -> Result<Directory, Error> {
        Directory::open_on(Arc::new(Disk), path)
    }

    /// As [`open`](Directory::open), on other file operations than the system's.
    pub fn open_on(fs: Arc<dyn Fs>, path: &Path) -> Result<Directory, Error> {
        check(path)?;
        let directory = Directory { fs, path: path.to_owned() };
        // Locking creates a file, so that is done only when there is something to remove.
        let needs_tidying =
            Listing::scan(&*directory.fs, path).is_ok_and(|found| !found.leftovers.is_empty());
        if needs_tidying && let Ok(_lock) = lock(path) {
            tidy(&*directory.fs, path);
        }
        Metadata::read(&*directory.fs, path)?;
        Ok(directory)
    }

    /// Takes the lock, until the result is dropped. The metadata is read again: whoever held it may have
    /// written.
    pub fn lock(&self) -> Result<LockedDirectory, Error> {
        let lock = lock(&self.path)?;
        tidy(&*self.fs, &self.path);
        let metadata = Metadata::read(&*self.fs, &self.path)?;
        Ok(LockedDirectory { fs: Arc::clone(&self.fs), path: self.path.clone(), metadata, _lock: lock })
    }
}

/// A data directory of which this process is the only user.
pub struct LockedDirectory {
    pub(super) fs: Arc<dyn Fs>,
    pub(super) path: PathBuf,
    pub(super) metadata: Metadata,
    _lock: Lock,
}

impl LockedDirectory {
    /// Term and vote as they are on disk.
    pub fn metadata(&self) -> Metadata {
        self.metadata
    }

    /// Gives a directory without any history its first configuration; does nothing in any other.
    ///
    /// The segment is written before the term. A crash between the two leaves a directory that
    /// [`load`](LockedDirectory::load) completes; in the other order it would leave one that counts as used
    /// and has no configuration.
    pub fn bootstrap(&mut self, configuration: &Configuration) -> Result<(), Error> {
        let listing = Listing::scan(&*self.fs, &self.path)
            .map_err(|e| Error::Bootstrap(describe("list", &self.path, &e)))?;
        let has_log = !(listing.closed.is_empty() && listing.open.is_empty() && listing.snapshots.is_empty());
        if self.metadata.term != Term(0) || has_log {
            return Ok(());
        }
        let entry = Entry { term: BOOTSTRAP_TERM, kind: EntryKind::Change, payload: configuration.encode() };
        write_closed(&*self.fs, &self.path, Index(1), &[entry])
            .map_err(|e| Error::Bootstrap(describe("write the first segment in", &self.path, &e)))?;
        self.metadata
            .write(&*self.fs, &self.path, BOOTSTRAP_TERM, None)
            .map_err(|e| Error::Bootstrap(e.to_string()))
    }

    /// Reads snapshot and log, and repairs what a crash leaves behind; see [`Loaded`].
    pub fn load(&mut self, recovery: load::AutoRecovery) -> Result<Loaded, Error> {
        self.load_with(recovery, |content| {
            let mut bytes = Vec::new();
            content.read_to_end(&mut bytes).map_err(|e| e.to_string())?;
            Ok(bytes.into())
        })
    }

    /// As [`load`](LockedDirectory::load), except that `restore` reads the content of the snapshot, to its
    /// end. If it fails, nothing is repaired.
    pub fn load_with<T>(
        &mut self,
        recovery: load::AutoRecovery,
        restore: impl FnOnce(&mut dyn Read) -> Result<T, String>,
    ) -> Result<Loaded<T>, Error> {
        load::load(self, recovery, restore)
    }
}

/// Writes a complete closed segment, all of it durable.
pub(super) fn write_closed(fs: &dyn Fs, dir: &Path, first: Index, entries: &[Entry]) -> io::Result<()> {
    let last = Index(first.0 + entries.len() as u64 - 1);
    write_whole(fs, dir, &ClosedName { first, last }.to_string(), &segment::encode_closed(entries))
}

/// Writes a file under a temporary name and renames it once it is durable: a crash leaves the file that had
/// the name before, or all of the new one.
pub(super) fn write_whole(fs: &dyn Fs, dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let temporary = temporary(dir, name);
    let write = || {
        let file = fs.create(&temporary, Existing::Replace)?;
        file.write_at(bytes, 0)?;
        synced(file.sync())?;
        fs.rename(&temporary, &dir.join(name))
    };
    write().inspect_err(|_| {
        // What is left of it takes space; the next start removes it, too.
        let _ = fs.remove(&temporary);
    })?;
    synced(fs.sync_dir(dir))
}

/// Gives a file new content without any space for it: the file that has the name must not be needed any more,
/// and its blocks are written to under a temporary name. A crash leaves no file of the name, or the new one.
pub(super) fn write_recycled(fs: &dyn Fs, dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let (path, temporary) = (dir.join(name), temporary(dir, name));
    fs.rename(&path, &temporary)?;
    synced(fs.sync_dir(dir))?;
    let file = fs.open(&temporary)?;
    file.write_at(bytes, 0)?;
    synced(file.sync())?;
    fs.rename(&temporary, &path)?;
    synced(fs.sync_dir(dir))
}

fn temporary(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{TEMPORARY_PREFIX}{name}"))
}

fn check(path: &Path) -> Result<(), Error> {
    let attributes = exists(path)?;
    if attributes.permissions().mode() & 0o200 == 0 {
        return Err(Error::DirectoryNotWritable(path.to_owned()));
    }
    Ok(())
}

/// That it is a directory, which may be read-only.
pub(super) fn exists(path: &Path) -> Result<fs::Metadata, Error> {
    if path.as_os_str().as_bytes().len() > DATA_DIR_PATH_MAX {
        return Err(Error::PathTooLong);
    }
    let owned = || path.to_owned();
    let attributes = fs::metadata(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Error::DirectoryMissing(owned()),
        io::ErrorKind::NotADirectory => Error::NotADirectory(owned()),
        io::ErrorKind::PermissionDenied => Error::DirectoryNotAccessible(owned()),
        _ => Error::DirectoryUnknown { path: owned(), reason: reason(&error) },
    })?;
    if !attributes.is_dir() {
        return Err(Error::NotADirectory(owned()));
    }
    Ok(attributes)
}

/// The system's reason, in libuv's words for the two that a path alone can cause.
fn reason(error: &io::Error) -> String {
    match error.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
        Some(rustix::io::Errno::NAMETOOLONG) => "name too long".into(),
        Some(rustix::io::Errno::LOOP) => "too many symbolic links encountered".into(),
        _ => error.to_string(),
    }
}

/// Held by the file. A child process that another thread is just starting holds the same file until it runs
/// its program, so that closing ours would not be enough to give the directory up.
#[derive(Debug)]
pub(super) struct Lock(fs::File);

impl Lock {
    /// Takes the lock with its open file.
    pub(super) fn take(file: fs::File, path: &Path) -> Result<Lock, Error> {
        use rustix::io::Errno;
        match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Lock(file)),
            Err(Errno::WOULDBLOCK) => Err(Error::Locked),
            Err(e) => Err(Error::Lock(describe("lock", path, &e.into()))),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // It cannot fail on a file that is locked; closing follows in any case.
        let _ = rustix::fs::flock(&self.0, rustix::fs::FlockOperation::Unlock);
    }
}

pub(super) fn lock(dir: &Path) -> Result<Lock, Error> {
    let mut options = fs::OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let path = dir.join(LOCK_NAME);
    let file = options.open(&path).map_err(|e| Error::Lock(describe("open", &path, &e)))?;
    Lock::take(file, &path)
}

/// Removes unfinished files and halves of snapshots. Failures only leave them there.
fn tidy(fs: &dyn Fs, dir: &Path) {
    let Ok(listing) = Listing::scan(fs, dir) else { return };
    for name in listing.leftovers {
        match fs.remove(&dir.join(&name)) {
            Ok(()) => tracing::info!(name, "removed an unfinished file"),
            Err(error) => tracing::warn!(name, %error, "an unfinished file stays"),
        }
    }
}

#[cfg(test)]
#[path = "directory_test.rs"]
mod tests;

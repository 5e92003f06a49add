//! Snapshots on their way in: each goes to a temporary file, in the form in which it will be stored, so that
//! installing it is a renaming. One at a time, from its first byte until it is installed or dropped. What a
//! crash leaves is removed at the next start.
//!
//! Used by whoever receives, on threads that may wait for the disk. A file that is not wanted any more is
//! removed by the snapshot thread: the last one to hold it may be the Raft thread.

use super::fs::Fs;
use super::list::TEMPORARY_PREFIX;
use super::snapshot::{Compression, ContentWriter, Sink, StoredContent};
use super::snapshot_writer::Job;
use crate::raft::SnapshotSource;
use parking_lot::Mutex;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Sender;

/// Tells the files of one process apart.
static COUNT: AtomicU64 = AtomicU64::new(0);

/// Where snapshots are received.
#[derive(Clone)]
pub struct Spools(Arc<Shared>);

struct Shared {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    cancelled: Arc<AtomicBool>,
    /// There is a file.
    is_taken: AtomicBool,
    jobs: Arc<Mutex<Option<Sender<Job>>>>,
}

impl Spools {
    pub(super) fn new(
        fs: Arc<dyn Fs>,
        dir: PathBuf,
        cancelled: Arc<AtomicBool>,
        jobs: Arc<Mutex<Option<Sender<Job>>>>,
    ) -> Spools {
        Spools(Arc::new(Shared { fs, dir, cancelled, is_taken: AtomicBool::new(false), jobs }))
    }

    /// Begins a content of this size; [`io::ErrorKind::WouldBlock`] while there is another one.
    pub fn begin(&self, size: u64, compression: Compression) -> io::Result<Spool> {
        if self.0.is_taken.swap(true, Ordering::AcqRel) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = self.0.dir.join(format!("{TEMPORARY_PREFIX}received-{number}"));
        let file = TemporaryFile { shared: Arc::clone(&self.0), path, is_there: AtomicBool::new(true) };
        let sink = Sink::create(&self.0.fs, &file.path, &self.0.cancelled).map_err(|e| file.failed(&e))?;
        Ok(Spool { writer: ContentWriter::new(sink, compression, size), file })
    }
}

/// A content that is being received.
pub struct Spool {
    writer: ContentWriter,
    file: TemporaryFile,
}

impl Spool {
    /// Appends these bytes.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.writer.write_all(bytes).map_err(|e| self.file.failed(&e))
    }

    /// Makes it durable.
    pub fn finish(self) -> io::Result<Spooled> {
        let Spool { writer, file } = self;
        writer.finish().map_err(|e| file.failed(&e))?;
        let content = StoredContent::open(&*file.shared.fs, &file.path)?;
        Ok(Spooled { content, file })
    }
}

/// A content that was received: durable, but without the name of a snapshot.
pub struct Spooled {
    content: StoredContent,
    file: TemporaryFile,
}

impl Spooled {
    pub(super) fn path(&self) -> &Path {
        &self.file.path
    }

    /// The file has got another name, or was removed.
    pub(super) fn is_gone(&self) {
        self.file.is_there.store(false, Ordering::Release);
    }
}

impl SnapshotSource for Spooled {
    fn size(&self) -> u64 {
        self.content.size()
    }

    fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        self.content.open()
    }
}

struct TemporaryFile {
    shared: Arc<Shared>,
    path: PathBuf,
    is_there: AtomicBool,
}

impl TemporaryFile {
    fn failed(&self, error: &io::Error) -> io::Error {
        io::Error::new(error.kind(), format!("write {}: {error}", self.path.display()))
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        if !self.is_there.load(Ordering::Acquire) {
            self.shared.is_taken.store(false, Ordering::Release);
            return;
        }
        let unwanted = Unwanted { shared: Arc::clone(&self.shared), path: self.path.clone() };
        if let Some(jobs) = &*self.shared.jobs.lock() {
            // The thread lives as long as this sender.
            let _ = jobs.send(Job::Remove(unwanted));
        }
    }
}

/// Removes a file when it is dropped.
pub(super) struct Unwanted {
    shared: Arc<Shared>,
    path: PathBuf,
}

impl Drop for Unwanted {
    fn drop(&mut self) {
        if let Err(error) = self.shared.fs.remove(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.path.display(), %error, "an unfinished file stays");
        }
        self.shared.is_taken.store(false, Ordering::Release);
    }
}

#[cfg(test)]
#[path = "spool_test.rs"]
mod tests;

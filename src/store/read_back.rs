//! Reading entries of the log back from the disk, for a server that needs what has left memory. The thread
//! `dqlite/read` does it: the disk thread has appends to write, the snapshot thread may be busy for long.
//!
//! Only closed segments are read: their names say what they hold, and they are complete. An entry that is in
//! none of them is in the segment in use, which is closed for it; that is rare, because what leaves memory is
//! older than the newest few segments. A file that has gone away in the meantime was renamed or removed by a
//! truncation, by a snapshot or by an installation: the names are read again.
//!
//! Whoever asks wants entries that are committed and durable here, and no others. Nothing else is answered or
//! kept, so no truncation matters; and what an installation has replaced is the business of whoever asked.
//!
//! A segment is read as a whole, because checksums cover whole batches, and kept for the next request, which
//! most likely goes on where this one ends. Entries are copied out of it: the log of a slow network must not
//! keep many segments.

use super::error::Error;
use super::fs::Fs;
use super::list::{ClosedName, Listing};
use super::queue::{Queue, Request};
use super::segment::{FORMAT, Segment, entry_size};
use crate::codec::Reader as Words;
use crate::config::{APPEND_BYTES_MAX, APPEND_ENTRIES_MAX, READ_BACK_KEEP_MS};
use crate::raft::{Entry, Index};
use bytes::Bytes;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

/// Receives entries that were read, on the thread that read them. It must not wait for the store.
pub type OnEntries = Box<dyn FnOnce(Result<Vec<Entry>, Error>) + Send>;

/// How often the names are read before an entry counts as missing: once as they are, once with all segments
/// closed, and once more for a truncation or a snapshot in between.
const ATTEMPTS: usize = 3;

/// Entries to read.
pub(super) struct ReadBack {
    pub(super) first: Index,
    /// This and everything before it is committed.
    pub(super) last: Index,
    pub(super) reply: OnEntries,
}

/// Committed entries of the segment that was read last.
struct Kept {
    first: Index,
    entries: Vec<Entry>,
}

/// The state of the thread.
pub(super) struct Reader {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    queue: Arc<Queue>,
    cancelled: Arc<AtomicBool>,
    kept: Option<Kept>,
}

impl Reader {
    pub(super) fn new(
        fs: Arc<dyn Fs>,
        dir: PathBuf,
        queue: Arc<Queue>,
        cancelled: Arc<AtomicBool>,
    ) -> Reader {
        Reader { fs, dir, queue, cancelled, kept: None }
    }

    /// Serves requests until there is nobody left to send them.
    pub(super) fn run(mut self, requests: &Receiver<ReadBack>) {
        let patience = Duration::from_millis(READ_BACK_KEEP_MS);
        loop {
            let request = match self.kept {
                None => requests.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(_) => requests.recv_timeout(patience),
            };
            match request {
                Ok(ReadBack { first, last, reply }) => reply(self.read_guarded(first, last)),
                Err(RecvTimeoutError::Timeout) => self.kept = None,
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn read_guarded(&mut self, first: Index, last: Index) -> Result<Vec<Entry>, Error> {
        catch_unwind(AssertUnwindSafe(|| self.read(first, last)))
            .unwrap_or_else(|_| Err(Error::Disk("the thread that reads entries back panicked".into())))
    }

    /// Entries from `first` on, up to `last` at most: as many as one message may have, of one segment.
    fn read(&mut self, first: Index, last: Index) -> Result<Vec<Entry>, Error> {
        let has_it = |kept: &Kept| kept.first <= first && first < kept.next_index();
        let kept = match self.kept.take().filter(has_it) {
            Some(kept) => kept,
            None => self.load(first, last)?,
        };
        let position = (first.0 - kept.first.0) as usize;
        let wanted = &kept.entries[position..kept.entries.len().min((last.0 - kept.first.0 + 1) as usize)];
        let wanted = &wanted[..count_for_a_message(wanted)];
        if kept.entries.len() == 1 {
            // It has its segment to itself, and may be huge.
            return Ok(kept.entries);
        }
        let copy = |entry: &Entry| Entry { payload: Bytes::copy_from_slice(&entry.payload), ..entry.clone() };
        let entries = wanted.iter().map(copy).collect();
        self.kept = Some(kept);
        Ok(entries)
    }

    /// The entries up to `last` of the segment that holds `first`.
    fn load(&self, first: Index, last: Index) -> Result<Kept, Error> {
        for attempt in 0..ATTEMPTS {
            if self.cancelled.load(Ordering::Relaxed) {
                return Err(Error::Closed);
            }
            if attempt > 0 {
                self.close_segment()?;
            }
            let listing =
                Listing::scan(&*self.fs, &self.dir).map_err(|e| Error::disk("list", &self.dir, &e))?;
            if listing.closed.first().is_some_and(|oldest| first < oldest.first) {
                break;
            }
            let holds_it = |name: &&ClosedName| name.first <= first && first <= name.last;
            let Some(name) = listing.closed.iter().find(holds_it) else { continue };
            let path = self.dir.join(name.to_string());
            match self.fs.read(&path) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(Error::disk("read", &path, &e)),
                Ok(bytes) => return self.parse(*name, bytes.into(), first, last),
            }
        }
        Err(Error::Disk(format!("there is no entry {first} in {} any more", self.dir.display())))
    }

    fn parse(&self, name: ClosedName, bytes: Bytes, first: Index, last: Index) -> Result<Kept, Error> {
        let damaged = |at: usize| Error::Disk(format!("read {name}: damaged at byte {at}"));
        if Words::new(bytes.clone()).u64() != Ok(FORMAT) {
            return Err(damaged(0));
        }
        let segment = Segment::parse(bytes);
        if segment.count() <= first.0 - name.first.0 {
            return Err(damaged(segment.used));
        }
        let committed = (last.0 - name.first.0 + 1) as usize;
        Ok(Kept { first: name.first, entries: segment.into_entries().take(committed).collect() })
    }

    /// Waits until everything written so far is in closed segments.
    fn close_segment(&self) -> Result<(), Error> {
        let (done, closed) = channel();
        self.queue.push(Request::CloseSegment { done })?;
        closed.recv().map_err(|_| Error::Closed)
    }
}

impl Kept {
    fn next_index(&self) -> Index {
        Index(self.first.0 + self.entries.len() as u64)
    }
}

/// How many of these go into one message: at least one.
fn count_for_a_message(entries: &[Entry]) -> usize {
    let mut size = 0;
    let fits = |entry: &&Entry| {
        size += entry_size(entry);
        size <= APPEND_BYTES_MAX
    };
    entries.iter().take(APPEND_ENTRIES_MAX).take_while(fits).count().max(1)
}

#[cfg(test)]
#[path = "read_back_test.rs"]
mod tests;

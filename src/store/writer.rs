//! The disk thread, `dqlite/disk`: appends, votes, truncations, in the order in which they were asked for.
//!
//! **Group commit.** Everything that queued up during the last sync is written as one run and synced once.
//! There is no artificial delay.
//!
//! **A run is one batch of the format** (several if it fills a segment). The next one is written when it is
//! durable, so a valid batch behind a damaged one always means that the damaged one was durable, too. With
//! several batches in one run a power cut could leave the same picture of entries that nobody was told about,
//! and start-up could not tell damage from a torn write.
//!
//! **Whole blocks are written, without the page cache** (`O_DIRECT`, `RWF_DSYNC`), from the one in which
//! the durable bytes end: those are written again, as they are, which a kernel does with its own blocks,
//! too. What is behind the new bytes holds zeros since the segment was prepared, which is what readers
//! expect. A disk may tear what is written, also within a sector, but not bytes that are the same before
//! and after. Appends of two blocks into zeros on ext4 took 175 us and 66 us of processor time each, with
//! the page cache and `fdatasync` 208 us and 86 us (medians, interleaved, a virtual disk). A file system
//! that cannot do this gets ordinary writes of the same blocks.
//!
//! **Failures are final.** After a failed write or sync nobody knows what is on disk: nothing is retried,
//! nothing more is written, and everything later is refused.
//!
//! **Except for a lack of space** when something is written, not synced: what is durable is known then. The
//! rest of the segment gets its zeros back, and appends are dropped until whoever asked for them knows:
//! [`Event::Full`].

use super::blocks::{BLOCK_SIZE, Blocks};
use super::error::{Error, describe, is_no_space, synced};
use super::fs::Fs;
use super::list::ClosedName;
use super::metadata::Metadata;
use super::prepare::{self, Close, Segments, Spare};
use super::queue::{Queue, Request, Returned, Taken, queued_size};
use super::segment::{BATCH_HEADER_SIZE, FORMAT, HEADER_SIZE, batch_size, encode_batch, entry_size};
use super::truncate::truncate;
use super::{Event, OnEvent};
use crate::config::{BATCH_ENTRIES_MAX, DISK_FULL_RETRY_MS};
use crate::raft::{Entry, Index, Seq};
use parking_lot::Mutex;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;

/// The segment that is being written. Something is in it, unless there was no space for its first batch.
struct Current {
    spare: Spare,
    /// Bytes that are durable in it.
    used: u64,
    /// Index of its first entry.
    first_index: Index,
}

impl Current {
    fn is_used(&self) -> bool {
        self.used > HEADER_SIZE as u64
    }
}

/// Appends that are written together.
#[derive(Default)]
struct Group {
    entries: Vec<Entry>,
    /// For each request, the number of entries up to its end, its number, and the bytes it counts for.
    requests: Vec<(usize, Seq, usize)>,
}

/// The state of the disk thread.
pub(super) struct Writer {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    names: Arc<Mutex<()>>,
    segment_size: usize,
    metadata: Metadata,
    segments: Segments,
    current: Option<Current>,
    /// Index of the next entry to write.
    next_index: Index,
    group: Group,
    /// What goes to the disk; between two writes, the used bytes of the block that is not full.
    blocks: Blocks,
    queue: Arc<Queue>,
    on_event: Arc<OnEvent>,
    /// Highest request that was reported durable.
    acknowledged: Seq,
    /// There was no space for an append, and those behind it are dropped until [`Request::Resume`].
    dropping: bool,
}

/// What a writer starts from.
pub(super) struct Origin {
    pub(super) fs: Arc<dyn Fs>,
    pub(super) dir: PathBuf,
    /// Held while names of the log or of snapshots change in a way that tells something of each other: the
    /// place of an open segment follows from what is before it.
    pub(super) names: Arc<Mutex<()>>,
    pub(super) metadata: Metadata,
    pub(super) next_index: Index,
    pub(super) segment_size: usize,
    /// Set when the node stops: nothing waits for space any more.
    pub(super) cancelled: Arc<AtomicBool>,
}

impl Writer {
    pub(super) fn new(origin: Origin, queue: Arc<Queue>, on_event: Arc<OnEvent>) -> Result<Writer, Error> {
        let Origin { fs, dir, names, metadata, next_index, segment_size, cancelled } = origin;
        let worker = prepare::Origin {
            fs: Arc::clone(&fs),
            dir: dir.clone(),
            segment_size,
            queue: Arc::clone(&queue),
            on_event: Arc::clone(&on_event),
            cancelled,
        };
        let segments = Segments::start(worker)?;
        let mut writer = Writer {
            fs,
            dir,
            names,
            segment_size,
            metadata,
            segments,
            current: None,
            next_index,
            group: Group::default(),
            blocks: Blocks::default(),
            queue,
            on_event,
            acknowledged: Seq(0),
            dropping: false,
        };
        writer.complete_metadata()?;
        Ok(writer)
    }

    /// Serves requests until the queue is closed, then closes the log. A failure is reported once, here.
    pub(super) fn run(mut self) -> Result<(), Error> {
        let served = catch_unwind(AssertUnwindSafe(|| self.serve_all()))
            .unwrap_or_else(|_| Err(Error::Disk("the disk thread panicked".into())));
        if let Err(error) = &served {
            self.queue.abandon();
            tracing::error!(%error, "the log failed");
            let failed = Event::Failed { seq: self.acknowledged.next(), error: error.clone() };
            // The receiver may be what panicked.
            let _ = catch_unwind(AssertUnwindSafe(|| (self.on_event)(failed)));
        }
        served
    }

    fn serve_all(&mut self) -> Result<(), Error> {
        let mut requests = Vec::new();
        loop {
            match self.queue.take(&mut requests) {
                Taken::Requests => {}
                Taken::End => return self.finish(),
                Taken::Abandoned => return Ok(()),
            }
            for request in requests.drain(..) {
                let was_lent = matches!(request, Request::Lend { .. });
                match self.serve(request) {
                    // The node stops. Nobody was told of this or of what is behind it.
                    Err(Error::NoSpace(_)) => return self.finish(),
                    served => served?,
                }
                // The snapshot that was to be installed may have been given up: nothing may follow it then.
                if was_lent && self.queue.is_abandoned() {
                    return Ok(());
                }
            }
            self.flush()?;
            self.segments.failure().map_or(Ok(()), Err)?;
        }
    }

    fn serve(&mut self, request: Request) -> Result<(), Error> {
        match request {
            Request::Append { first_index, entries, seq } => self.collect(first_index, entries, seq),
            Request::Vote { term, voted_for, seq } => {
                self.flush()?;
                let write =
                    |writer: &mut Writer| writer.metadata.write(&*writer.fs, &writer.dir, term, voted_for);
                self.retry(write)?;
                self.acknowledge(seq);
                self.complete_metadata()
            }
            Request::Truncate { from, seq } => {
                self.flush()?;
                self.retry(|writer| writer.truncate(from))?;
                self.acknowledge(seq);
                Ok(())
            }
            Request::Resume => {
                self.flush()?;
                self.dropping = false;
                Ok(())
            }
            Request::CloseSegment { done } => {
                self.flush()?;
                self.close_current();
                self.segments.notify(done);
                Ok(())
            }
            Request::Lend { granted, returned } => {
                self.flush()?;
                self.lend(&granted, &returned)
            }
        }
    }

    /// Makes sure that there is a metadata file that is not in force: a vote on a full disk takes its place.
    fn complete_metadata(&mut self) -> Result<(), Error> {
        match self.metadata.complete(&*self.fs, &self.dir) {
            Err(Error::NoSpace(reason)) => {
                tracing::warn!(reason, "no space in reserve for the next vote");
                Ok(())
            }
            completed => completed,
        }
    }

    /// Does what must not be dropped, as soon as there is space for it.
    fn retry(&mut self, mut action: impl FnMut(&mut Writer) -> Result<(), Error>) -> Result<(), Error> {
        let delay = Duration::from_millis(DISK_FULL_RETRY_MS);
        loop {
            match action(self) {
                Err(Error::NoSpace(reason)) => {
                    tracing::warn!(reason, "no space, trying again");
                    if !self.queue.wait_to_retry(delay) {
                        return Err(Error::NoSpace(reason));
                    }
                }
                result => return result,
            }
        }
    }

    /// Adds an append to the group.
    fn collect(&mut self, first_index: Index, mut entries: Vec<Entry>, seq: Seq) -> Result<(), Error> {
        if self.dropping {
            self.queue.release(queued_size(&entries));
            return Ok(());
        }
        let expected = Index(self.next_index.0 + self.group.entries.len() as u64);
        if first_index != expected {
            return Err(Error::Disk(format!(
                "append at index {first_index}, but the log ends before {expected}"
            )));
        }
        let bytes = queued_size(&entries);
        self.group.entries.append(&mut entries);
        self.group.requests.push((self.group.entries.len(), seq, bytes));
        Ok(())
    }

    /// Makes the group durable, and reports each request when it is.
    fn flush(&mut self) -> Result<(), Error> {
        let group = std::mem::take(&mut self.group);
        if !group.requests.is_empty() {
            self.segments.note_appends(group.requests.len());
        }
        let mut written = 0;
        let mut reported = 0;
        while reported < group.requests.len() {
            if written < group.entries.len() {
                match self.write_batch(&group.entries[written..]) {
                    Ok(count) => written += count,
                    Err(error @ Error::NoSpace(_)) => {
                        self.drop_appends(&group.requests[reported..], error);
                        break;
                    }
                    Err(error) => return Err(error),
                }
            }
            let durable = group.requests[reported..].iter().take_while(|(end, ..)| *end <= written);
            let (mut last, mut bytes) = (None, 0);
            for (_, seq, size) in durable {
                (last, bytes, reported) = (Some(*seq), bytes + size, reported + 1);
            }
            self.queue.release(bytes);
            if let Some(seq) = last {
                self.acknowledge(seq);
            }
        }
        // Kept for its allocations.
        self.group = group;
        self.group.entries.clear();
        self.group.requests.clear();
        Ok(())
    }

    /// There is no space for the first of these requests.
    fn drop_appends(&mut self, requests: &[(usize, Seq, usize)], error: Error) {
        self.dropping = true;
        self.queue.release(requests.iter().map(|(.., size)| size).sum());
        if let Some((_, seq, _)) = requests.first() {
            tracing::warn!(%error, "appends are dropped");
            let stored = Index(self.next_index.0 - 1);
            (self.on_event)(Event::Full { seq: *seq, stored, error });
        }
    }

    /// Writes as many of these entries as fit in the segment, durably; returns how many.
    fn write_batch(&mut self, entries: &[Entry]) -> Result<usize, Error> {
        let (mut current, count) = self.make_room(entries)?;
        let entries = &entries[..count];
        encode_batch(self.blocks.reserve(batch_size(entries)), entries);
        let size = self.blocks.len();
        self.blocks.pad();
        let start = first_block(current.used);
        let filled = current.spare.fill_ahead(start + self.blocks.len() as u64, self.segment_size);
        let written = filled.and_then(|()| current.spare.file.write_durably(self.blocks.as_slice(), start));
        if let Err(e) = written {
            let error = Error::disk("write", &self.path_of(&current.spare), &e);
            if matches!(error, Error::NoSpace(_)) {
                self.undo_write(current)?;
            }
            return Err(error);
        }
        current.used = start + size as u64;
        self.blocks.keep((first_block(current.used) - start) as usize..size);
        self.next_index = Index(self.next_index.0 + count as u64);
        self.current = Some(current);
        if self.blocks.capacity() > 2 * self.segment_size {
            let mut smaller = Blocks::default();
            smaller.reserve(self.blocks.len()).extend_from_slice(self.blocks.as_slice());
            self.blocks = smaller;
        }
        Ok(count)
    }

    /// Leaves in a segment what was durable in it before a write that found no space. Its blocks are there,
    /// so zeros need no more space; unless the file system copies what is overwritten, and then the segment
    /// ends here, before another one is written to: only the last one may have a torn tail.
    fn undo_write(&mut self, current: Current) -> Result<(), Error> {
        let Current { spare, used, .. } = &current;
        let (size, start) = (self.segment_size as u64, first_block(*used));
        let durable = (used - start) as usize;
        self.blocks.as_mut_slice()[durable..].fill(0);
        let dirty = (self.blocks.len() as u64).min(size.saturating_sub(start)) as usize;
        let cleaned = (spare.file.set_len(size))
            .and_then(|()| spare.file.write_at(&self.blocks.as_slice()[..dirty], start))
            .and_then(|()| synced(spare.file.sync()));
        self.blocks.keep(0..durable);
        let path = self.path_of(spare);
        match cleaned {
            Ok(()) => {
                self.current = Some(current);
                Ok(())
            }
            Err(e) if !is_no_space(&e) => Err(Error::disk("clean", &path, &e)),
            Err(_) if current.is_used() => {
                self.current = Some(current);
                self.close_current();
                self.segments.settle()
            }
            Err(_) => {
                let removed = self.fs.remove(&path).and_then(|()| synced(self.fs.sync_dir(&self.dir)));
                removed.map_err(|e| Error::Disk(describe("remove", &path, &e)))
            }
        }
    }

    fn path_of(&self, spare: &Spare) -> PathBuf {
        self.dir.join(spare.name.to_string())
    }

    /// A segment with room for at least one of these entries, and for how many. An entry larger than a
    /// segment gets one of its own, which grows.
    fn make_room(&mut self, entries: &[Entry]) -> Result<(Current, usize), Error> {
        if let Some(current) = &self.current {
            let count = self.count_that_fits(current.used, entries);
            if count == 0 && current.is_used() {
                self.close_current();
            } else if let Some(current) = self.current.take() {
                return Ok((current, count.max(1)));
            }
        }
        let (spare, used) = (self.segments.take()?, HEADER_SIZE as u64);
        self.blocks.clear();
        self.blocks.reserve(HEADER_SIZE).extend_from_slice(&FORMAT.to_le_bytes());
        let current = Current { spare, used, first_index: self.next_index };
        let count = self.count_that_fits(used, entries);
        Ok((current, count.max(1)))
    }

    fn count_that_fits(&self, used: u64, entries: &[Entry]) -> usize {
        let used = used as usize + BATCH_HEADER_SIZE;
        let Some(mut room) = self.segment_size.checked_sub(used) else { return 0 };
        let fits = |entry: &&Entry| match room.checked_sub(entry_size(entry)) {
            Some(rest) => {
                room = rest;
                true
            }
            None => false,
        };
        entries.iter().take(BATCH_ENTRIES_MAX as usize).take_while(fits).count()
    }

    /// Gives the segment in use to be closed.
    fn close_current(&mut self) {
        if let Some(current) = self.current.take() {
            let closed = ClosedName { first: current.first_index, last: Index(self.next_index.0 - 1) };
            let closed = current.is_used().then_some(closed);
            self.segments.close(Close { spare: current.spare, used: current.used, closed });
        }
    }

    fn truncate(&mut self, from: Index) -> Result<(), Error> {
        if from >= self.next_index {
            return Ok(());
        }
        self.close_current();
        self.segments.settle()?;
        let names = self.names.lock();
        truncate(&*self.fs, &self.dir, from, &self.segments)?;
        drop(names);
        self.next_index = from;
        Ok(())
    }

    /// Leaves the log to the snapshot thread until it is done with it.
    fn lend(
        &mut self,
        granted: &Sender<()>,
        returned: &Receiver<Result<Returned, Error>>,
    ) -> Result<(), Error> {
        self.close_current();
        self.segments.settle()?;
        // Whoever does not listen any more does not send an answer either.
        let _ = granted.send(());
        let lost = |_| Error::Disk("the snapshot thread ended while it had the log".into());
        match returned.recv().map_err(lost)?? {
            Returned::Unchanged => {}
            Returned::Emptied { next_index } => self.next_index = next_index,
        }
        Ok(())
    }

    fn acknowledge(&mut self, seq: Seq) {
        self.acknowledged = self.acknowledged.max(seq);
        (self.on_event)(Event::Persisted { seq });
    }

    /// The end of a clean run: no open segment stays.
    fn finish(&mut self) -> Result<(), Error> {
        self.close_current();
        self.segments.settle()?;
        for spare in self.segments.stop() {
            let path = self.dir.join(spare.name.to_string());
            self.fs.remove(&path).map_err(|e| Error::disk("remove", &path, &e))?;
        }
        self.fs.sync_dir(&self.dir).map_err(|e| Error::disk("sync", &self.dir, &e))
    }
}

/// Where the block begins in which a segment's used bytes end.
fn first_block(used: u64) -> u64 {
    used - used % BLOCK_SIZE as u64
}

#[cfg(test)]
#[path = "writer_test.rs"]
mod tests;

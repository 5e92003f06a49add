//! Open segments before and after they are written: a pool of spares, prepared ahead of time, and the closing
//! of full ones. The thread `dqlite/segments` does both, so that the disk thread waits for neither.
//!
//! A spare is reserved, filled with zeros and made durable under its final name `open-N` before anybody
//! writes to it: an append then changes neither the size of the file nor the state of its blocks, and its
//! sync writes data only. Measured on ext4 on a virtual disk, appends of 4256 bytes through the page cache,
//! each synced: 170 to 220 us into zeroed blocks, 280 to 320 us into blocks that are only reserved. Of the
//! first spare of a run, and of any that an append already waits for, only the beginning is filled, and the
//! rest ahead of the appends: [`Spare::fill_ahead`].
//!
//! **Nothing is acknowledged from blocks that are only reserved.** Their sync needs the file system's
//! journal, and when ext4 gives its journal up because of an error, it may answer one such sync with success
//! although the blocks read as zeros afterwards (seen on Linux 6.18 with `trigger_fs_error`, in every fourth
//! attempt; never with zeroed blocks). So these are zeroed first, with a sync of their own: the next one
//! fails.
//!
//! The format at its beginning is durable, too. If it came with the first batch, a crash could leave a part
//! of that batch without it, and nobody could tell such a segment from a damaged one.
//!
//! The order of the counters is the order of the log. Spares are handed out in that order, and segments are
//! closed in that order.

use super::blocks::Blocks;
use super::error::{Error, is_no_space, synced};
use super::fs::{Existing, File, Fs};
use super::list::{ClosedName, OpenName};
use super::queue::Queue;
use super::segment::{FORMAT, HEADER_SIZE};
use super::{Event, OnEvent};
use crate::config::{
    DISK_FULL_RETRY_MS, FILL_AHEAD_BYTES, SPARE_FILL_ALONE_BYTES, SPARE_FILL_BYTES, SPARE_SEGMENTS,
};
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// An open segment that nothing was written to.
pub(super) struct Spare {
    pub(super) name: OpenName,
    pub(super) file: Box<dyn File>,
    /// Bytes from the beginning that are more than reserved.
    pub(super) filled: u64,
}

impl Spare {
    /// Fills with zeros what an append of the blocks before `end` needs, and some more of the segment.
    pub(super) fn fill_ahead(&mut self, end: u64, segment_size: usize) -> io::Result<()> {
        if end <= self.filled {
            return Ok(());
        }
        let to = end.next_multiple_of(FILL_AHEAD_BYTES as u64).min(segment_size as u64).max(end);
        let zeros = Blocks::zeros((to - self.filled) as usize);
        self.file.write_durably(zeros.as_slice(), self.filled)?;
        self.filled = to;
        Ok(())
    }
}

/// A segment to be closed: cut to what is durable in it and given the name of what it holds. Removed if that
/// is nothing.
pub(super) struct Close {
    pub(super) spare: Spare,
    pub(super) used: u64,
    pub(super) closed: Option<ClosedName>,
}

enum Job {
    Close(Close),
    /// Tells that everything before it is done.
    Notify(Sender<()>),
}

#[derive(Default)]
struct State {
    ready: VecDeque<Spare>,
    jobs: VecDeque<Job>,
    /// Whether a segment was ever asked for: an idle node has none.
    in_use: bool,
    /// Why the last attempt to prepare a spare failed; nobody may ever need it.
    no_spare: Option<Error>,
    /// When to try again, if there was no space.
    retry_at: Option<Instant>,
    /// A lack of space was reported, and not yet its end.
    space_is_low: bool,
    /// Why a segment could not be closed: the end of this store.
    failure: Option<Error>,
    stopping: bool,
}

struct Shared {
    state: Mutex<State>,
    /// Something to do for the thread.
    work: Condvar,
    /// Something done by the thread.
    done: Condvar,
    /// Somebody waits for a spare.
    wanted: AtomicBool,
    /// Appends come one at a time: somebody waits for the sync of each.
    appends_alone: AtomicBool,
}

/// What the thread works with.
pub(super) struct Origin {
    pub(super) fs: Arc<dyn Fs>,
    pub(super) dir: PathBuf,
    pub(super) segment_size: usize,
    /// Of the disk thread, which is to learn of a failure.
    pub(super) queue: Arc<Queue>,
    pub(super) on_event: Arc<OnEvent>,
    /// Set when the node stops: no segment waits for space to be closed.
    pub(super) cancelled: Arc<AtomicBool>,
}

/// The pool, as the disk thread sees it.
pub(super) struct Segments {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Segments {
    /// Starts the thread. No file is created before the first [`take`](Segments::take).
    pub(super) fn start(origin: Origin) -> Result<Segments, Error> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            work: Condvar::new(),
            done: Condvar::new(),
            wanted: AtomicBool::new(false),
            appends_alone: AtomicBool::new(false),
        });
        let shared_too = Arc::clone(&shared);
        let mut worker = Worker { origin, next_counter: 1, shared: shared_too };
        let thread = std::thread::Builder::new()
            .name("dqlite/segments".into())
            .spawn(move || worker.run_guarded())
            .map_err(|e| Error::Disk(format!("start the segment thread: {e}")))?;
        Ok(Segments { shared, thread: Some(thread) })
    }

    /// So many appends shared the last sync of the log.
    pub(super) fn note_appends(&self, count: usize) {
        self.shared.appends_alone.store(count == 1, Ordering::Relaxed);
    }

    /// The next open segment, after waiting for it if none is ready.
    pub(super) fn take(&self) -> Result<Spare, Error> {
        let mut state = self.shared.state.lock();
        state.in_use = true;
        state.no_spare = None;
        loop {
            if let Some(failure) = &state.failure {
                return Err(failure.clone());
            }
            if let Some(spare) = state.ready.pop_front() {
                self.shared.wanted.store(false, Ordering::Relaxed);
                self.shared.work.notify_one();
                return Ok(spare);
            }
            if let Some(error) = state.no_spare.take() {
                self.shared.wanted.store(false, Ordering::Relaxed);
                return Err(error);
            }
            self.shared.wanted.store(true, Ordering::Relaxed);
            self.shared.work.notify_one();
            self.shared.done.wait(&mut state);
        }
    }

    /// Closes a segment in the background.
    pub(super) fn close(&self, close: Close) {
        self.push(Job::Close(close));
    }

    /// Drops `done` unused if a segment could not be closed, otherwise sends when all given so far are.
    pub(super) fn notify(&self, done: Sender<()>) {
        self.push(Job::Notify(done));
    }

    fn push(&self, job: Job) {
        let mut state = self.shared.state.lock();
        // After a failure the thread is gone: the job is dropped, and with it what somebody waits for.
        if state.failure.is_none() {
            state.jobs.push_back(job);
        }
        self.shared.work.notify_one();
    }

    /// Waits until all segments given to [`close`](Segments::close) are closed.
    pub(super) fn settle(&self) -> Result<(), Error> {
        let (sender, receiver) = std::sync::mpsc::channel();
        self.notify(sender);
        receiver.recv().map_err(|_| self.failure().unwrap_or(Error::Closed))
    }

    /// Why a segment could not be closed.
    pub(super) fn failure(&self) -> Option<Error> {
        self.shared.state.lock().failure.clone()
    }

    /// Ends the thread after what it was given, and returns the spares.
    pub(super) fn stop(&mut self) -> Vec<Spare> {
        self.shared.state.lock().stopping = true;
        self.shared.work.notify_one();
        if let Some(thread) = self.thread.take() {
            // Its panics are caught and recorded as failures.
            let _ = thread.join();
        }
        self.shared.state.lock().ready.drain(..).collect()
    }
}

impl Drop for Segments {
    fn drop(&mut self) {
        self.stop();
    }
}

enum Task {
    Prepare,
    Run(Job),
    End,
}

struct Worker {
    origin: Origin,
    next_counter: u64,
    shared: Arc<Shared>,
}

impl Worker {
    fn run_guarded(&mut self) {
        let caught = catch_unwind(AssertUnwindSafe(|| self.run()));
        let mut state = self.shared.state.lock();
        if caught.is_err() {
            state.failure = Some(Error::Disk("the segment thread panicked".into()));
        }
        // Whoever still waits for one of these learns that it will not be done.
        state.jobs.clear();
        let has_failed = state.failure.is_some();
        drop(state);
        self.shared.done.notify_all();
        if has_failed {
            self.origin.queue.wake();
        }
    }

    fn run(&mut self) {
        loop {
            let result = match self.next_task() {
                Task::End => return,
                Task::Prepare => {
                    let prepared = self.prepare();
                    self.note_prepared(prepared);
                    Ok(())
                }
                Task::Run(Job::Close(close)) => self.close(close),
                Task::Run(Job::Notify(done)) => {
                    // Nobody listens any more: then nobody needs to know.
                    let _ = done.send(());
                    Ok(())
                }
            };
            if let Err(error) = result {
                self.shared.state.lock().failure = Some(error);
                return;
            }
            self.shared.done.notify_all();
        }
    }

    /// A lack of space is reported once, and so is its end: when all spares are there.
    fn note_prepared(&self, prepared: Result<Spare, Error>) {
        let mut state = self.shared.state.lock();
        let was_low = state.space_is_low;
        state.retry_at = None;
        let event = match prepared {
            Ok(spare) => {
                state.ready.push_back(spare);
                state.space_is_low &= state.ready.len() < SPARE_SEGMENTS;
                (was_low && !state.space_is_low).then_some(Event::SpaceBack)
            }
            Err(error) => {
                if matches!(error, Error::NoSpace(_)) {
                    state.retry_at = Some(Instant::now() + Duration::from_millis(DISK_FULL_RETRY_MS));
                    state.space_is_low = true;
                }
                if !was_low {
                    tracing::warn!(%error, "no spare segment");
                }
                state.no_spare = Some(error.clone());
                (state.space_is_low && !was_low).then_some(Event::SpaceLow { error })
            }
        };
        drop(state);
        if let Some(event) = event {
            (self.origin.on_event)(event);
        }
    }

    /// Waits for something to do. A spare that somebody waits for comes first, further spares last.
    fn next_task(&self) -> Task {
        let mut state = self.shared.state.lock();
        loop {
            if self.shared.wanted.load(Ordering::Relaxed)
                && state.ready.is_empty()
                && state.no_spare.is_none()
            {
                return Task::Prepare;
            }
            if let Some(job) = state.jobs.pop_front() {
                return Task::Run(job);
            }
            if state.stopping {
                return Task::End;
            }
            if state.in_use && state.ready.len() < SPARE_SEGMENTS && state.no_spare.is_none() {
                return Task::Prepare;
            }
            match state.retry_at {
                None => self.shared.work.wait(&mut state),
                Some(retry_at) => {
                    if self.shared.work.wait_until(&mut state, retry_at).timed_out() {
                        (state.no_spare, state.retry_at) = (None, None);
                    }
                }
            }
        }
    }

    fn prepare(&mut self) -> Result<Spare, Error> {
        loop {
            let name = OpenName(self.next_counter);
            let path = self.origin.dir.join(name.to_string());
            let prepared = self.origin.fs.create(&path, Existing::Refuse).and_then(|file| {
                let filled = self.fill(&*file).inspect_err(|_| {
                    // An empty segment is also removed at the next start.
                    let _ = self.origin.fs.remove(&path);
                })?;
                Ok(Spare { name, file, filled: filled as u64 })
            });
            match prepared {
                // Not even its name exists.
                Err(e) if is_no_space(&e) => return Err(Error::disk("prepare", &path, &e)),
                prepared => {
                    self.next_counter += 1;
                    if !prepared.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::AlreadyExists) {
                        return prepared.map_err(|e| Error::disk("prepare", &path, &e));
                    }
                }
            }
        }
    }

    /// Returns how many bytes were filled.
    fn fill(&self, file: &dyn File) -> io::Result<usize> {
        let reserved = match file.allocate(self.origin.segment_size as u64) {
            Ok(()) => true,
            Err(e) if e.kind() == io::ErrorKind::Unsupported => false,
            Err(e) => return Err(e),
        };
        file.set_direct();
        let mut blocks = Blocks::zeros(SPARE_FILL_BYTES.min(self.origin.segment_size));
        blocks.as_mut_slice()[..HEADER_SIZE].copy_from_slice(&FORMAT.to_le_bytes());
        let mut filled = 0;
        while filled < self.origin.segment_size && !(reserved && filled > 0 && self.is_urgent()) {
            let in_a_sync = if filled == 0 { FILL_AHEAD_BYTES } else { self.bytes_in_a_sync() };
            let size = in_a_sync.min(self.origin.segment_size - filled);
            // Piece by piece, so that an append's sync never has all of it before it in the disk's queue.
            file.write_durably(&blocks.as_slice()[..size], filled as u64)?;
            blocks.as_mut_slice()[..HEADER_SIZE].fill(0);
            filled += size;
        }
        file.sync()?;
        self.origin.fs.sync_dir(&self.origin.dir)?;
        Ok(filled)
    }

    /// A sync of one client's append takes as long as what is before it in the disk's queue; one for many
    /// clients is rare, and fewer syncs of ours leave more room for it.
    fn bytes_in_a_sync(&self) -> usize {
        match self.shared.appends_alone.load(Ordering::Relaxed) {
            true => SPARE_FILL_ALONE_BYTES,
            false => SPARE_FILL_BYTES,
        }
    }

    /// Whether an append waits, or nobody ever will.
    fn is_urgent(&self) -> bool {
        self.shared.wanted.load(Ordering::Relaxed) || self.shared.state.lock().stopping
    }

    fn close(&self, close: Close) -> Result<(), Error> {
        let Close { spare: Spare { name, file, .. }, used, closed } = close;
        let path = self.origin.dir.join(name.to_string());
        let done = || {
            let Some(closed) = &closed else { return self.origin.fs.remove(&path) };
            file.set_len(used)?;
            synced(file.sync())?;
            self.origin.fs.rename(&path, &self.origin.dir.join(closed.to_string()))?;
            synced(self.origin.fs.sync_dir(&self.origin.dir))
        };
        loop {
            let result = done().map_err(|e| Error::disk("close", &path, &e));
            // Even a shorter file or another name can take space.
            let Err(Error::NoSpace(reason)) = &result else { return result };
            tracing::warn!(reason, "no space, trying again");
            let mut state = self.shared.state.lock();
            if state.stopping || self.origin.cancelled.load(Ordering::Relaxed) {
                return result;
            }
            self.shared.work.wait_for(&mut state, Duration::from_millis(DISK_FULL_RETRY_MS));
        }
    }
}

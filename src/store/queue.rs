//! What waits for the disk thread. Any thread may put requests in; only the disk thread takes them, all at
//! once.

use super::error::Error;
use super::segment::entry_size;
use crate::raft::{Entry, Index, Seq, ServerId, Term};
use parking_lot::{Condvar, Mutex};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

/// Something the disk thread is to do.
pub(super) enum Request {
    Vote {
        term: Term,
        voted_for: Option<ServerId>,
        seq: Seq,
    },
    Append {
        first_index: Index,
        entries: Vec<Entry>,
        seq: Seq,
    },
    Truncate {
        from: Index,
        seq: Seq,
    },
    /// Carry out appends again.
    Resume,
    /// Close the segment in use, and send once it and all before it are closed.
    CloseSegment {
        done: Sender<()>,
    },
    /// Close all segments, tell so, and serve nothing more until the log comes back.
    Lend {
        granted: Sender<()>,
        returned: Receiver<Result<Returned, Error>>,
    },
}

/// How the log comes back to the disk thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Returned {
    /// As it was.
    Unchanged,
    /// Without entries.
    Emptied {
        /// Index of the next entry.
        next_index: Index,
    },
}

/// Whether requests may be put in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Access {
    #[default]
    Open,
    /// No, but those inside are served.
    Closed,
    /// No, and those inside were dropped.
    Abandoned,
}

#[derive(Default)]
struct State {
    requests: Vec<Request>,
    access: Access,
    /// Somebody else has something to tell the disk thread.
    is_woken: bool,
}

/// What came of waiting for requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// There were some, or the thread was woken.
    Requests,
    /// There will be none: the node stops.
    End,
    /// There will be none, and the directory is to be left as it is.
    Abandoned,
}

/// The queue.
#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    filled: Condvar,
    bytes: AtomicUsize,
}

/// Bytes a request counts for.
pub(super) fn queued_size(entries: &[Entry]) -> usize {
    entries.iter().map(entry_size).sum()
}

impl Queue {
    /// Adds a request, unless the queue is closed.
    pub(super) fn push(&self, request: Request) -> Result<(), Error> {
        let mut state = self.state.lock();
        if state.access != Access::Open {
            return Err(Error::Closed);
        }
        if let Request::Append { entries, .. } = &request {
            self.bytes.fetch_add(queued_size(entries), Ordering::Relaxed);
        }
        let was_empty = state.requests.is_empty();
        state.requests.push(request);
        drop(state);
        if was_empty {
            self.filled.notify_one();
        }
        Ok(())
    }

    /// Lets the disk thread look around, even if there is no request.
    pub(super) fn wake(&self) {
        self.state.lock().is_woken = true;
        self.filled.notify_one();
    }

    /// Waits for requests and moves all of them to `out`, which must be empty.
    pub(super) fn take(&self, out: &mut Vec<Request>) -> Taken {
        let mut state = self.state.lock();
        loop {
            let access = state.access;
            match access {
                Access::Abandoned => return Taken::Abandoned,
                _ if std::mem::take(&mut state.is_woken) || !state.requests.is_empty() => break,
                Access::Closed => return Taken::End,
                Access::Open => self.filled.wait(&mut state),
            }
        }
        std::mem::swap(&mut state.requests, out);
        Taken::Requests
    }

    /// Waits before something is tried again. Says no if the queue takes no more requests: then it is time to
    /// give up.
    pub(super) fn wait_to_retry(&self, delay: Duration) -> bool {
        let deadline = Instant::now() + delay;
        let mut state = self.state.lock();
        while state.access == Access::Open && Instant::now() < deadline {
            self.filled.wait_until(&mut state, deadline);
        }
        state.access == Access::Open
    }

    /// Whether what is left is to be dropped.
    pub(super) fn is_abandoned(&self) -> bool {
        self.state.lock().access == Access::Abandoned
    }

    /// Bytes of entries that are not durable yet.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Entries of this size became durable, or were dropped.
    pub(super) fn release(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Takes no more requests; those inside are still served.
    pub(super) fn close(&self) {
        self.state.lock().access = Access::Closed;
        self.filled.notify_one();
    }

    /// Takes no more requests, and drops those inside.
    pub(super) fn abandon(&self) {
        let mut state = self.state.lock();
        state.access = Access::Abandoned;
        state.requests.clear();
        drop(state);
        self.filled.notify_one();
    }
}

//! What waits for the disk thread. Any thread may put requests in; only the disk thread takes them, all at once.

use super::error::Error;
use super::segment::entry_size;
use crate::raft::{Entry, Index, Seq, ServerId, Term};
use parking_lot::{Condvar, Mutex};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Sender;

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
    /// Close the segment in use, and send once it and all before it are closed.
    CloseSegment {
        done: Sender<()>,
    },
}

#[derive(Default)]
struct State {
    requests: Vec<Request>,
    closed: bool,
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
        if state.closed {
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

    /// Waits for requests and moves all of them to `out`, which must be empty. False: closed and empty.
    pub(super) fn take(&self, out: &mut Vec<Request>) -> bool {
        let mut state = self.state.lock();
        while state.requests.is_empty() {
            if state.closed {
                return false;
            }
            self.filled.wait(&mut state);
        }
        std::mem::swap(&mut state.requests, out);
        true
    }

    /// Bytes of entries that are not durable yet.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Entries of this size became durable.
    pub(super) fn release(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Takes no more requests; those inside are still served.
    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.filled.notify_one();
    }

    /// Takes no more requests, and drops those inside.
    pub(super) fn abandon(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.requests.clear();
        drop(state);
        self.filled.notify_one();
    }
}

//! Messages that wait for one peer: put in by the Raft thread, taken out by the task that writes them.
//! Bounded, in bytes and in number; what the task has taken counts until the socket has it. Other threads
//! write to the socket themselves as long as nothing waits: [`Outbox::push_now`].
//!
//! The last message that fits may be of any size, or a large one would never find an empty queue while small
//! ones keep coming. Its payload is shared with the log anyway. A snapshot counts apart: there is at most
//! one. It is read piece by piece while it is written, and whatever was queued behind it waits.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Read};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::stream::Stream;
use crate::config::{PEER_QUEUE_BYTES_MAX, PEER_QUEUE_MESSAGES_MAX, PEER_WRITE_PIECES, SNAPSHOT_PIECE_SIZE};
use crate::raft::message::SnapshotData;
use crate::wire::raft::Encoded;

/// Of a snapshot. Dropped when the snapshot was written, or never will be.
pub trait Ticket: Send {
    /// The socket has all of it.
    fn sent(&mut self);
}

/// Whether a message was put into the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// It was.
    Queued,
    /// It was dropped, as the first one since the last that was queued.
    FirstDropped,
    /// It was dropped, and so was the one before.
    Dropped,
}

struct Parcel {
    encoded: Encoded,
    /// What it counts in the queue.
    charge: usize,
    ticket: Option<Box<dyn Ticket>>,
}

#[derive(Default)]
struct State {
    parcels: VecDeque<Parcel>,
    /// Of messages in the queue and of those being written.
    bytes: usize,
    count: usize,
    /// A snapshot is among them.
    snapshot: bool,
    overflowing: bool,
    last_push: Option<Instant>,
    /// While there is a connection on which nothing is half written but what is counted here.
    connection: Option<Arc<Stream>>,
    /// Nobody will ever take anything out.
    closed: bool,
}

/// See the module documentation.
#[derive(Default)]
pub struct Outbox {
    state: Mutex<State>,
    pushed: Notify,
}

impl Outbox {
    /// Queues a message, or drops it.
    pub fn push(&self, encoded: Encoded) -> Pushed {
        self.queue(&mut self.state.lock(), encoded)
    }

    /// Writes a message to the socket at once, if it takes it and nothing is before it; otherwise queues it,
    /// or drops it. For a thread that is not the one of the task, which need not be woken then. Gives the
    /// message back if the outbox is closed.
    pub fn push_now(&self, mut encoded: Encoded) -> Result<Pushed, Encoded> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(encoded);
        }
        let is_first = state.count == 0 && encoded.snapshot.is_none();
        if let Some(connection) = state.connection.as_ref().filter(|_| is_first) {
            let pieces = std::iter::once(&encoded.head).chain(&encoded.payloads);
            let slices: Vec<_> = pieces.map(|piece| IoSlice::new(piece)).collect();
            // An error is one that the task finds, too.
            let sent = connection.write_now(&slices).unwrap_or(0);
            if sent as u64 == encoded.size() {
                state.last_push = Some(Instant::now());
                return Ok(Pushed::Queued);
            }
            encoded.advance(sent);
        }
        Ok(self.queue(&mut state, encoded))
    }

    fn queue(&self, state: &mut State, encoded: Encoded) -> Pushed {
        state.last_push = Some(Instant::now());
        if state.bytes >= PEER_QUEUE_BYTES_MAX || state.count >= PEER_QUEUE_MESSAGES_MAX {
            let first = !std::mem::replace(&mut state.overflowing, true);
            return if first { Pushed::FirstDropped } else { Pushed::Dropped };
        }
        state.overflowing = false;
        let charge = encoded.size() as usize;
        self.put(state, Parcel { encoded, charge, ticket: None });
        Pushed::Queued
    }

    /// There is a connection, and on it nothing is half written but what was taken out.
    pub fn attach(&self, connection: Arc<Stream>) {
        let mut state = self.state.lock();
        if !state.closed {
            state.connection = Some(connection);
        }
    }

    /// Nobody takes anything out any more.
    pub fn close(&self) {
        // First, or what is put in between stays.
        self.state.lock().closed = true;
        self.clear();
    }

    /// Queues a snapshot. While another one waits it is dropped, and so is the ticket.
    pub fn push_snapshot(&self, encoded: Encoded, ticket: Box<dyn Ticket>) {
        let mut state = self.state.lock();
        state.last_push = Some(Instant::now());
        if state.snapshot {
            // The ticket reports to others, who must not wait for this lock.
            drop(state);
            drop(ticket);
            return;
        }
        state.snapshot = true;
        let charge = encoded.head.len();
        self.put(&mut state, Parcel { encoded, charge, ticket: Some(ticket) });
    }

    fn put(&self, state: &mut State, parcel: Parcel) {
        state.bytes += parcel.charge;
        state.count += 1;
        state.parcels.push_back(parcel);
        self.pushed.notify_one();
    }

    /// Waits until something is queued. May be cancelled.
    pub async fn ready(&self) {
        while self.state.lock().parcels.is_empty() {
            self.pushed.notified().await;
        }
    }

    /// Waits until something is queued, or was put in within this time.
    pub async fn wanted(&self, recently: Duration) {
        let recent = self.state.lock().last_push.is_some_and(|at| at.elapsed() < recently);
        if !recent {
            self.ready().await;
        }
    }

    /// Moves everything to `writing`, which must be empty: but nothing that is behind a snapshot.
    pub fn take(&self, writing: &mut Writing) {
        let mut state = self.state.lock();
        while writing.payload.is_none()
            && let Some(parcel) = state.parcels.pop_front()
        {
            writing.add(parcel);
        }
    }

    /// The socket has all of these messages.
    fn written(&self, written: Written) {
        let mut state = self.state.lock();
        state.bytes -= written.bytes;
        state.count -= written.count;
        state.snapshot &= !written.snapshot;
    }

    /// Drops everything, after what was taken has been dropped. True if there was something in the queue.
    pub fn clear(&self) -> bool {
        let mut state = self.state.lock();
        let dropped = std::mem::take(&mut state.parcels);
        (state.bytes, state.count, state.snapshot) = (0, 0, false);
        let connection = state.connection.take();
        drop(state);
        drop(connection);
        !dropped.is_empty()
    }

    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        self.state.lock().bytes
    }
}

#[derive(Default)]
struct Written {
    bytes: usize,
    count: usize,
    snapshot: bool,
}

/// Messages on their way to the socket.
#[derive(Default)]
pub struct Writing {
    pieces: VecDeque<Bytes>,
    parcels: VecDeque<Remaining>,
    /// What follows the pieces, as a part of the last message.
    payload: Option<Payload>,
}

struct Remaining {
    size: u64,
    charge: usize,
    /// 0 for the greeting, which does not count.
    count: usize,
    ticket: Option<Box<dyn Ticket>>,
}

impl Writing {
    /// These bytes go first. They come from no queue.
    pub fn greeting(bytes: Bytes) -> Writing {
        let greeting = Remaining { size: bytes.len() as u64, charge: 0, count: 0, ticket: None };
        Writing { pieces: VecDeque::from([bytes]), parcels: VecDeque::from([greeting]), payload: None }
    }

    fn add(&mut self, parcel: Parcel) {
        let Parcel { encoded, charge, ticket } = parcel;
        self.parcels.push_back(Remaining { size: encoded.size(), charge, count: 1, ticket });
        self.pieces.push_back(encoded.head);
        self.pieces.extend(encoded.payloads);
        self.payload = encoded.snapshot.map(Payload::new);
    }

    /// Whether all is written.
    pub fn is_empty(&self) -> bool {
        self.parcels.is_empty()
    }

    /// Gets more to write if there is nothing, by waiting for a blocking thread that reads it. After an error
    /// the message that was begun cannot be ended.
    pub async fn refill(&mut self) -> io::Result<()> {
        if !self.pieces.is_empty() || self.is_empty() {
            return Ok(());
        }
        let mut payload = self.payload.take().expect("a message without pieces has a payload to come");
        let read = tokio::task::spawn_blocking(move || payload.next().map(|piece| (piece, payload)));
        let (piece, payload) = read.await.map_err(io::Error::other)??;
        self.pieces.push_back(piece);
        self.payload = Some(payload).filter(|payload| payload.left > 0);
        Ok(())
    }

    /// What to write next, in order.
    pub fn slices(&self) -> Vec<IoSlice<'_>> {
        self.pieces.iter().take(PEER_WRITE_PIECES).map(|piece| IoSlice::new(piece)).collect()
    }

    /// The socket has taken this many bytes.
    pub fn advance(&mut self, mut size: usize, outbox: &Outbox) {
        let mut written = Written::default();
        while size > 0 {
            let piece = self.pieces.front_mut().expect("no more is written than there is");
            let here = size.min(piece.len());
            piece.advance(here);
            if piece.is_empty() {
                self.pieces.pop_front();
            }
            size -= here;
            self.count(here, &mut written);
        }
        outbox.written(written);
    }

    /// Bytes of the first message have been written.
    fn count(&mut self, size: usize, written: &mut Written) {
        let parcel = self.parcels.front_mut().expect("pieces are parts of messages");
        parcel.size -= size as u64;
        if parcel.size > 0 {
            return;
        }
        written.bytes += parcel.charge;
        written.count += parcel.count;
        if let Some(ticket) = &mut parcel.ticket {
            written.snapshot = true;
            ticket.sent();
        }
        self.parcels.pop_front();
    }
}

/// A snapshot that is read while it is written.
struct Payload {
    data: SnapshotData,
    /// There once the first piece was asked for.
    source: Option<Box<dyn Read + Send>>,
    left: u64,
}

impl Payload {
    fn new(data: SnapshotData) -> Payload {
        Payload { source: None, left: data.size(), data }
    }

    /// The next piece. Blocks. Whether the snapshot is sound may be known only at its end, so the last piece
    /// is not given out before.
    fn next(&mut self) -> io::Result<Bytes> {
        let source = match &mut self.source {
            Some(source) => source,
            None => self.source.insert(self.data.open()?),
        };
        let size = self.left.min(SNAPSHOT_PIECE_SIZE as u64) as usize;
        let mut piece = vec![0; size];
        source.read_exact(&mut piece)?;
        self.left -= size as u64;
        if self.left == 0 && source.read(&mut [0])? > 0 {
            return Err(io::Error::other("the snapshot is larger than it was"));
        }
        Ok(piece.into())
    }
}

#[cfg(test)]
#[path = "outbox_test.rs"]
mod tests;

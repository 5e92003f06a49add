//! Messages from another server, on the connection that it opened with CONNECT. Runs in the task that
//! accepted the connection.
//!
//! Messages are handed over strictly in order, one at a time, and nothing is read while one is being handed
//! over: a server that is too fast is held up by TCP. We never write here; answers travel on a connection of
//! our own, see [`super::peer`].
//!
//! A snapshot goes to the disk as it arrives, one at a time for the whole node: another one waits, and its
//! connection with it.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use super::stream::Stream;
use crate::config::{SNAPSHOT_PIECE_SIZE, SNAPSHOT_SILENCE_MS, SNAPSHOT_WAIT_MS, SNAPSHOT_WAIT_STEP_MS};
use crate::raft::message::{Message, SnapshotData};
use crate::wire::raft::{Head, MessageError};
use crate::wire::raft_decoder::{Decoded, MessageDecoder};

/// Why no more messages come.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// The other server closed the connection.
    #[error("closed by the other server")]
    Closed,
    /// It closed the connection, or died, in the middle of a message.
    #[error("closed by the other server in the middle of a message")]
    ClosedInMessage,
    /// The connection failed.
    #[error(transparent)]
    Failed(#[from] io::Error),
    /// It sent something that is not a message.
    #[error(transparent)]
    Malformed(#[from] MessageError),
    /// A snapshot could not be stored.
    #[error("a snapshot of {size} bytes was not received: {error}")]
    NotStored {
        /// Its size.
        size: u64,
        /// Why.
        error: io::Error,
    },
    /// Whoever gets the messages takes no more.
    #[error("this node is stopping")]
    NotTaken,
}

/// The receiver of the messages has gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotTaken;

/// Where snapshots go while they are received.
pub trait Spools: Send + Sync {
    /// Begins a snapshot of this size; [`io::ErrorKind::WouldBlock`] while there is another one. Blocks, as
    /// everything here.
    fn begin(&self, size: u64) -> io::Result<Box<dyn Spool>>;
}

/// A snapshot that is being received. Dropping it removes it.
pub trait Spool: Send {
    /// Appends these bytes.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// All of them were written.
    fn finish(self: Box<Self>) -> io::Result<SnapshotData>;
}

/// Passes what arrives to `deliver`, whose future is awaited before the next message is looked at. `received`
/// is what was read from the stream behind CONNECT. The caller closes the stream, whatever the reason to end.
pub async fn receive<F, D>(
    stream: &Stream,
    received: BytesMut,
    spools: &Arc<dyn Spools>,
    mut deliver: F,
) -> Ended
where
    F: FnMut(Message) -> D,
    D: Future<Output = Result<(), NotTaken>>,
{
    if let Err(error) = stream.notice_dead_host() {
        return error.into();
    }
    let mut decoder = MessageDecoder::new(received);
    loop {
        let message = match next_message(stream, &mut decoder, spools).await {
            Ok(message) => message,
            Err(ended) => return ended,
        };
        if deliver(message).await == Err(NotTaken) {
            return Ended::NotTaken;
        }
    }
}

async fn next_message(
    stream: &Stream,
    decoder: &mut MessageDecoder,
    spools: &Arc<dyn Spools>,
) -> Result<Message, Ended> {
    loop {
        match decoder.next_message()? {
            Some(Decoded::Message(message)) => return Ok(message),
            Some(Decoded::Snapshot(head)) => return receive_snapshot(stream, decoder, spools, head).await,
            None => {}
        }
        match read(stream, &mut decoder.space()).await? {
            0 if decoder.is_between_messages() => return Err(Ended::Closed),
            0 => return Err(Ended::ClosedInMessage),
            _ => {}
        }
    }
}

async fn receive_snapshot(
    stream: &Stream,
    decoder: &mut MessageDecoder,
    spools: &Arc<dyn Spools>,
    head: Head,
) -> Result<Message, Ended> {
    let size = head.payload_size();
    let not_stored = |error| Ended::NotStored { size, error };
    let mut spool = begin(spools, size).await.map_err(not_stored)?;
    let mut left = size;
    let mut piece = decoder.take(left);
    while left > 0 {
        let full = left.min(SNAPSHOT_PIECE_SIZE as u64) as usize;
        piece.reserve(full.saturating_sub(piece.len()));
        while piece.len() < full {
            let room = full - piece.len();
            let silence = Duration::from_millis(SNAPSHOT_SILENCE_MS);
            match timeout(silence, read(stream, &mut (&mut piece).limit(room))).await {
                Ok(Ok(0)) => return Err(Ended::ClosedInMessage),
                Ok(read) => drop(read?),
                Err(_) => return Err(not_stored(io::Error::other("its server sends no more of it"))),
            }
        }
        left -= piece.len() as u64;
        let written = spawn_blocking(move || {
            spool.write(&piece)?;
            piece.clear();
            Ok((spool, piece))
        });
        (spool, piece) = written.await.map_err(io::Error::other).and_then(|done| done).map_err(not_stored)?;
    }
    let finished = spawn_blocking(move || spool.finish());
    let data = finished.await.map_err(io::Error::other).and_then(|done| done).map_err(not_stored)?;
    Ok(head.complete_with(data))
}

/// Waits for its turn.
async fn begin(spools: &Arc<dyn Spools>, size: u64) -> io::Result<Box<dyn Spool>> {
    for _ in 0..SNAPSHOT_WAIT_MS / SNAPSHOT_WAIT_STEP_MS {
        let spools = spools.clone();
        match spawn_blocking(move || spools.begin(size)).await.map_err(io::Error::other)? {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            begun => return begun,
        }
        sleep(Duration::from_millis(SNAPSHOT_WAIT_STEP_MS)).await;
    }
    Err(io::Error::other("another one is still being received or installed"))
}

async fn read(stream: &Stream, buffer: &mut impl BufMut) -> io::Result<usize> {
    loop {
        stream.readable().await?;
        match stream.try_read_all(buffer) {
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            done => return done,
        }
    }
}

#[cfg(test)]
#[path = "receive_test.rs"]
mod tests;

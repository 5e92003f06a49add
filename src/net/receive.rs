//! Messages from another server, on the connection that it opened with CONNECT. Runs in the task that
//! accepted the connection.
//!
//! Messages are handed over strictly in order, one at a time, and nothing is read while one is being handed
//! over: a server that is too fast is held up by TCP. We never write here; answers travel on a connection of
//! our own, see [`super::peer`].

use std::future::Future;
use std::io;

use bytes::BytesMut;

use super::stream::Stream;
use crate::raft::message::Message;
use crate::wire::raft::MessageError;
use crate::wire::raft_decoder::MessageDecoder;

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
    /// Whoever gets the messages takes no more.
    #[error("this node is stopping")]
    NotTaken,
}

/// The receiver of the messages has gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotTaken;

/// Passes what arrives to `deliver`, whose future is awaited before the next message is looked at. `received`
/// is what was read from the stream behind CONNECT. The caller closes the stream, whatever the reason to end.
pub async fn receive<F, D>(stream: &Stream, received: BytesMut, mut deliver: F) -> Ended
where
    F: FnMut(Message) -> D,
    D: Future<Output = Result<(), NotTaken>>,
{
    if let Err(error) = stream.notice_dead_host() {
        return error.into();
    }
    let mut decoder = MessageDecoder::new(received);
    loop {
        match decoder.next_message() {
            Ok(Some(message)) => match deliver(message).await {
                Ok(()) => continue,
                Err(NotTaken) => return Ended::NotTaken,
            },
            Ok(None) => {}
            Err(error) => return error.into(),
        }
        match read(stream, &mut decoder).await {
            Ok(0) if decoder.is_between_messages() => return Ended::Closed,
            Ok(0) => return Ended::ClosedInMessage,
            Ok(_) => {}
            Err(error) => return error.into(),
        }
    }
}

async fn read(stream: &Stream, decoder: &mut MessageDecoder) -> io::Result<usize> {
    loop {
        stream.readable().await?;
        match stream.try_read(&mut decoder.space()) {
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            done => return done,
        }
    }
}

#[cfg(test)]
#[path = "receive_test.rs"]
mod tests;

//! The socket of a client and what it has sent. Shared between the session that answers and, while a
//! statement runs long, the check from within SQLite whether the client still waits.

use super::gateway::is_interrupt;
use crate::config::AWAKE_US;
use crate::db::Verdict;
use crate::net::framed::{Fill, ReadBuffer};
use crate::net::stream::{Detached, Stream};
use crate::wire::frame::Header;
use crate::wire::handshake;
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use std::io;
use std::time::{Duration, Instant};

/// The connection is over: the client left, the socket failed, or the stream cannot be followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed;

/// See the module documentation.
pub struct Client {
    stream: Stream,
    input: Mutex<Input>,
}

#[derive(Default)]
struct Input {
    buffer: ReadBuffer,
    /// Nothing more will arrive.
    ended: bool,
}

impl Input {
    /// Takes what is there. `false` if there is nothing to wait for: the end was reached, or the buffer is
    /// full.
    fn note(&mut self, read: io::Result<Fill>) -> bool {
        match read {
            Ok(Fill::Bytes) => true,
            Ok(Fill::Full) => false,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => true,
            Ok(Fill::Eof | Fill::EofInFrame) | Err(_) => {
                self.ended = true;
                false
            }
        }
    }

    fn interrupted(&self) -> bool {
        self.buffer.peek_header().is_some_and(is_interrupt)
    }
}

impl Client {
    /// Of a connection that was just accepted.
    pub fn new(stream: Stream) -> Client {
        Client { stream, input: Mutex::default() }
    }

    /// The first word of the connection.
    pub async fn read_protocol(&self) -> Result<[u8; handshake::SIZE], Closed> {
        loop {
            if let Some(word) = self.input.lock().buffer.next_version() {
                return Ok(word);
            }
            self.receive().await?;
        }
    }

    /// The next request. May be cancelled.
    pub async fn next_frame(&self) -> Result<(Header, Bytes), Closed> {
        loop {
            match self.input.lock().buffer.next_frame() {
                Ok(Some(frame)) => return Ok((frame.header, frame.body)),
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!(%error, "connection closed: request too large");
                    return Err(Closed);
                }
            }
            self.receive().await?;
        }
    }

    /// Waits for a request for a moment, without sleeping. Other sessions of the worker have their turn, and
    /// other threads: the client may be waiting for this very processor.
    pub async fn look_out(&self) {
        let begin = Instant::now();
        while !self.has_arrived() && begin.elapsed() < Duration::from_micros(AWAKE_US) {
            std::thread::yield_now();
            tokio::task::yield_now().await;
        }
    }

    /// Takes what has arrived. True if there is something, or the end.
    fn has_arrived(&self) -> bool {
        let mut input = self.input.lock();
        if input.ended || input.buffer.peek_header().is_some() {
            return true;
        }
        match input.buffer.try_fill(&self.stream) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            read => {
                input.note(read);
                true
            }
        }
    }

    async fn receive(&self) -> Result<(), Closed> {
        if self.input.lock().ended || self.stream.readable().await.is_err() {
            return Err(Closed);
        }
        let mut input = self.input.lock();
        let read = input.buffer.try_fill(&self.stream);
        input.note(read);
        Ok(())
    }

    /// Ends when the client has closed the connection. Reads ahead meanwhile, up to the bound of the buffer.
    /// To be polled while a request waits for something else.
    pub async fn gone(&self) {
        loop {
            if self.input.lock().ended || self.stream.readable().await.is_err() {
                return;
            }
            if self.read_ahead() && !self.input.lock().ended {
                return std::future::pending().await;
            }
        }
    }

    /// Takes what has arrived. True if nothing more can be learned from the socket for now.
    fn read_ahead(&self) -> bool {
        let mut input = self.input.lock();
        let read = input.buffer.try_fill_ahead(&self.stream);
        !input.note(read)
    }

    /// Whether the client still waits for its answer, without waiting for anything.
    pub fn verdict(&self) -> Verdict {
        self.read_ahead();
        let input = self.input.lock();
        if input.ended || input.interrupted() { Verdict::Stop } else { Verdict::Waiting }
    }

    /// Whether the next request is an INTERRUPT.
    pub fn is_interrupted(&self) -> bool {
        self.input.lock().interrupted()
    }

    /// Takes the INTERRUPT that ended a query: the query's answer is also its own.
    pub async fn take_interrupt(&self) -> Result<(), Closed> {
        // Without one the statement was stopped because the client left.
        if self.is_interrupted() { self.next_frame().await.map(drop) } else { Err(Closed) }
    }

    /// The connection, and what was read from it and not taken: for whoever goes on with it elsewhere.
    pub fn hand_over(&self) -> Result<(Detached, BytesMut), Closed> {
        let stream = self.stream.detach().map_err(|_| Closed)?;
        Ok((stream, self.input.lock().buffer.take_rest()))
    }

    /// Writes everything and empties the buffer, whose memory is used again.
    pub async fn send(&self, out: &mut BytesMut) -> Result<(), Closed> {
        let sent = self.stream.write_all(out).await;
        out.clear();
        sent.map_err(|_| Closed)
    }
}

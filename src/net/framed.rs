//! Incoming bytes of a client connection, cut into the version word and request frames.
//!
//! Memory follows what has arrived, never what a header announces: the buffer at most doubles. A session
//! reads ahead while a request runs, to see an INTERRUPT or the end of the stream, and at most
//! [`READ_AHEAD_MAX`] bytes then.

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::stream::Stream;
use crate::config::{READ_AHEAD_MAX, READ_SIZE};
use crate::wire::frame::{HEADER_SIZE, Header, TooLarge};
use crate::wire::handshake;

/// A request frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Its header.
    pub header: Header,
    /// Its body, as long as the header says.
    pub body: Bytes,
}

/// What a read brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fill {
    /// Some bytes.
    Bytes,
    /// The peer closed its side after whole frames.
    Eof,
    /// The peer closed its side in the middle of a frame.
    EofInFrame,
    /// Nothing: the buffer holds all that may be read ahead.
    Full,
}

/// The bytes of one connection that have arrived and were not taken yet.
#[derive(Debug, Default)]
pub struct ReadBuffer {
    bytes: BytesMut,
}

impl ReadBuffer {
    /// An empty buffer, without an allocation.
    pub fn new() -> ReadBuffer {
        ReadBuffer::default()
    }

    /// Takes the version word, the first bytes of a connection.
    pub fn next_version(&mut self) -> Option<[u8; handshake::SIZE]> {
        let word = *self.bytes.first_chunk()?;
        self.bytes.advance(word.len());
        Some(word)
    }

    /// The header of the next frame, which may be incomplete or too large.
    pub fn peek_header(&self) -> Option<Header> {
        self.bytes.first_chunk().map(|header| Header::decode(*header))
    }

    /// Takes the next frame if all of it is here. After an error the stream cannot be followed any more.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, TooLarge> {
        let Some(header) = self.peek_header() else { return Ok(None) };
        let size = header.request_size()?;
        if self.bytes.len() - HEADER_SIZE < size {
            return Ok(None);
        }
        self.bytes.advance(HEADER_SIZE);
        let body = self.bytes.split_to(size).freeze();
        if size > READ_AHEAD_MAX {
            // Let the memory go with the body, instead of keeping it for the rest of the connection.
            self.bytes = BytesMut::from(&self.bytes[..]);
        }
        Ok(Some(Frame { header, body }))
    }

    /// Takes everything that was not taken yet: behind CONNECT, the beginning of the messages between
    /// servers.
    pub fn take_rest(&mut self) -> BytesMut {
        std::mem::take(&mut self.bytes)
    }

    /// Takes bytes of the next frame without waiting. To be called when [`ReadBuffer::next_frame`] has none
    /// and the stream is readable; `WouldBlock` if nothing has arrived after all.
    pub fn try_fill(&mut self, stream: &Stream) -> io::Result<Fill> {
        self.try_read(stream, self.missing() + READ_SIZE)
    }

    /// Takes bytes while a request runs, without waiting. [`Fill::Full`] means that there is no more to be
    /// learned before the next frame is taken.
    pub fn try_fill_ahead(&mut self, stream: &Stream) -> io::Result<Fill> {
        match READ_AHEAD_MAX.saturating_sub(self.bytes.len()) {
            0 => Ok(Fill::Full),
            room => self.try_read(stream, room),
        }
    }

    /// Reads once, at most `room` bytes.
    fn try_read(&mut self, stream: &Stream, room: usize) -> io::Result<Fill> {
        self.bytes.reserve(room.min(self.bytes.len().max(READ_SIZE)));
        loop {
            match stream.try_read(&mut (&mut self.bytes).limit(room)) {
                Ok(0) if self.ends_in_frame() => return Ok(Fill::EofInFrame),
                Ok(0) => return Ok(Fill::Eof),
                Ok(_) => return Ok(Fill::Bytes),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Bytes of the next frame that are not here yet, as far as is known.
    fn missing(&self) -> usize {
        let Some(header) = self.peek_header() else { return HEADER_SIZE - self.bytes.len() };
        (HEADER_SIZE + header.request_size().unwrap_or(0)).saturating_sub(self.bytes.len())
    }

    fn ends_in_frame(&self) -> bool {
        let mut rest = &self.bytes[..];
        while let Some((header, body)) = rest.split_first_chunk() {
            let size = usize::try_from(Header::decode(*header).body_size()).unwrap_or(usize::MAX);
            let Some(next) = body.get(size..) else { return true };
            rest = next;
        }
        !rest.is_empty()
    }
}

#[cfg(test)]
#[path = "framed_test.rs"]
mod tests;

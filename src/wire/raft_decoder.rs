//! The bytes of a connection between servers, cut into messages. Pure: whoever owns the socket puts bytes in.
//!
//! ```text
//! preamble (16 bytes) | header (up to RAFT_HEADER_SIZE_MAX) | payload (up to *_PAYLOAD_SIZE_MAX) | ...
//! ```
//!
//! Memory follows what has arrived, never what is announced: beyond 1 MiB both buffers at most double. A
//! payload has a buffer of its own, so that entries kept in the log do not keep the bytes around them. It is
//! filled from the socket directly, except for the little that arrived together with its header.
//!
//! The payload of a snapshot is not collected here: whoever owns the socket takes it away.

use bytes::buf::Limit;
use bytes::{Buf, BufMut, BytesMut};

use super::raft::{Head, MessageError, PREAMBLE_SIZE, Preamble};
use crate::config::{APPEND_BYTES_MAX, PEER_READ_SIZE};
use crate::raft::message::Message;

/// See the module documentation.
#[derive(Debug, Default)]
pub struct MessageDecoder {
    /// What has arrived and belongs to no payload.
    bytes: BytesMut,
    /// The message whose payload is arriving.
    partial: Option<Partial>,
}

/// What a stream is cut into.
#[derive(Debug, PartialEq, Eq)]
pub enum Decoded {
    /// A whole message.
    Message(Message),
    /// A snapshot begins: the next bytes of the stream are its payload, [`Head::payload_size`] in all. What
    /// is here of them is for [`MessageDecoder::take`], the rest is to be read without this decoder.
    Snapshot(Head),
}

#[derive(Debug)]
struct Partial {
    head: Head,
    payload: BytesMut,
}

impl Partial {
    fn missing(&self) -> usize {
        self.head.payload_size() as usize - self.payload.len()
    }

    /// How much to make room for. What a leader of ours sends gets exactly the memory it needs.
    fn room(&self) -> usize {
        self.missing().min(self.payload.len().max(APPEND_BYTES_MAX))
    }
}

impl MessageDecoder {
    /// With the bytes that were read from the connection before.
    pub fn new(bytes: BytesMut) -> MessageDecoder {
        MessageDecoder { bytes, partial: None }
    }

    /// The next message, if all of it is here. After an error the stream cannot be followed any more.
    pub fn next_message(&mut self) -> Result<Option<Decoded>, MessageError> {
        let mut partial = match self.partial.take() {
            Some(partial) => partial,
            None => match self.next_head()? {
                Some(head) if head.is_of_snapshot() => return Ok(Some(Decoded::Snapshot(head))),
                Some(head) => Partial { head, payload: BytesMut::new() },
                None => return Ok(None),
            },
        };
        let here = partial.missing().min(self.bytes.len());
        if here > 0 {
            partial.payload.reserve(partial.room().max(here));
            partial.payload.put_slice(&self.bytes[..here]);
            self.bytes.advance(here);
        }
        if partial.missing() > 0 {
            self.partial = Some(partial);
            return Ok(None);
        }
        Ok(Some(Decoded::Message(partial.head.complete(partial.payload.freeze()))))
    }

    /// Takes a whole header. The preamble is checked before anything behind it is waited for.
    fn next_head(&mut self) -> Result<Option<Head>, MessageError> {
        let Some(preamble) = self.bytes.first_chunk() else { return Ok(None) };
        let preamble = Preamble::decode(*preamble)?;
        let size = PREAMBLE_SIZE + preamble.header_size;
        if self.bytes.len() < size {
            return Ok(None);
        }
        self.bytes.advance(PREAMBLE_SIZE);
        let header = self.bytes.split_to(preamble.header_size).freeze();
        if size > PEER_READ_SIZE {
            // Let the memory go with the header, instead of keeping it for the rest of the connection.
            self.bytes = BytesMut::from(&self.bytes[..]);
        }
        Head::decode(preamble, header).map(Some)
    }

    /// Takes at most so many bytes of what has arrived.
    pub fn take(&mut self, most: u64) -> BytesMut {
        let here = self.bytes.len().min(usize::try_from(most).unwrap_or(usize::MAX));
        self.bytes.split_to(here)
    }

    /// Where to put the bytes that arrive next. Has room for at least one.
    pub fn space(&mut self) -> Limit<&mut BytesMut> {
        let (buffer, room) = match &mut self.partial {
            Some(partial) => {
                if partial.payload.len() == partial.payload.capacity() {
                    partial.payload.reserve(partial.room());
                }
                let room = partial.missing().min(partial.payload.capacity() - partial.payload.len());
                (&mut partial.payload, room)
            }
            None => {
                let room = self.bytes.len().max(PEER_READ_SIZE);
                self.bytes.reserve(room);
                (&mut self.bytes, room)
            }
        };
        buffer.limit(room)
    }

    /// Whether the stream could end here without cutting a message.
    pub fn is_between_messages(&self) -> bool {
        self.partial.is_none() && self.bytes.is_empty()
    }
}

#[cfg(test)]
#[path = "raft_decoder_test.rs"]
mod tests;

//! The messages between servers: bytes to values and back. Pure: no sockets, no clock.
//! [`super::raft_decoder`] cuts a stream into messages.
//!
//! ```text
//! message         u64 type | u64 size of the header | header | payload
//!                 type: 1 AppendEntries     2 AppendEntriesResult  3 RequestVote
//!                       4 RequestVoteResult 5 InstallSnapshot      6 TimeoutNow
//!                 of the type only the low 16 bits count; the others are sent as 0
//!
//! 1  0 term | 8 previous index | 16 previous term | 24 leader's commit index | 32 number of entries n |
//!    40 n times { u64 term | u8 kind | 3 unused | u32 size } | 40+16n stamp
//!    payload: the entries, one after the other; every size is a multiple of 8
//!    kind: 1 command, 2 barrier, 3 change of the configuration
//! 2  0 term | 8 rejected index | 16 last index | 24 features, absent from old servers
//! 3  0 term | 8 candidate | 16 last index | 24 last term | 32 flags, absent from old servers
//!    flags: bit 0 disrupt leader, 1 pre-vote, 2 keeps the promise of leases (C sends 0)
//! 4  0 term | 8 granted, not 0 for yes | 16 flags, absent from old servers
//!    flags: bit 0 pre-vote, 1 keeps the promise of leases (C sends 0)
//! 5  0 term | 8 last index | 16 last term | 24 configuration's index | 32 size c of the configuration |
//!    40 configuration, see [`crate::raft::configuration`] | 40+c u64 size of the payload | 48+c unused word
//!    payload: the snapshot, not compressed
//! 6  0 term | 8 last index | 16 last term
//! ```
//!
//! C sends uninitialised memory in what is called unused here, and as the stamp; it may also leave the last
//! word of types 1 and 5 out. We send zeros for what is unused. Receivers ignore whatever follows the fields
//! of types 1 and 5; the headers of the others have one of the sizes above exactly.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::codec::{Reader, Truncated};
use crate::config::{
    APPEND_BYTES_MAX, APPEND_PAYLOAD_SIZE_MAX, RAFT_HEADER_SIZE_MAX, SNAPSHOT_PAYLOAD_SIZE_MAX,
};
use crate::raft::configuration::{Configuration, ConfigurationError};
use crate::raft::message::{
    AppendEntries, AppendEntriesResult, Features, InstallSnapshot, Message, RequestVote, RequestVoteResult,
    SnapshotData, TimeoutNow,
};
use crate::raft::types::{Entry, EntryKind, Index, ServerId, Stamp, Term};

/// Size of what precedes every header.
pub const PREAMBLE_SIZE: usize = 16;

const ENTRY_HEADER_SIZE: usize = 16;
const APPEND_ENTRIES_SIZE_MIN: usize = 40;
const INSTALL_SNAPSHOT_SIZE_MIN: usize = 48;

const VOTE_DISRUPT: u64 = 1;
const VOTE_PRE_VOTE: u64 = 1 << 1;
const VOTE_KEEPS_LEASE: u64 = 1 << 2;
const RESULT_PRE_VOTE: u64 = 1;
const RESULT_KEEPS_LEASE: u64 = 1 << 1;

/// The types of messages, with their numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageType {
    /// See [`AppendEntries`].
    AppendEntries = 1,
    /// See [`AppendEntriesResult`].
    AppendEntriesResult = 2,
    /// See [`RequestVote`].
    RequestVote = 3,
    /// See [`RequestVoteResult`].
    RequestVoteResult = 4,
    /// See [`InstallSnapshot`].
    InstallSnapshot = 5,
    /// See [`TimeoutNow`].
    TimeoutNow = 6,
}

impl MessageType {
    fn from_word(word: u64) -> Option<MessageType> {
        Some(match word & 0xffff {
            1 => MessageType::AppendEntries,
            2 => MessageType::AppendEntriesResult,
            3 => MessageType::RequestVote,
            4 => MessageType::RequestVoteResult,
            5 => MessageType::InstallSnapshot,
            6 => MessageType::TimeoutNow,
            _ => return None,
        })
    }

    fn allows_header_of(self, size: usize) -> bool {
        match self {
            MessageType::AppendEntries => size >= APPEND_ENTRIES_SIZE_MIN,
            MessageType::AppendEntriesResult => matches!(size, 24 | 32),
            MessageType::RequestVote => matches!(size, 32 | 40),
            MessageType::RequestVoteResult => matches!(size, 16 | 24),
            MessageType::InstallSnapshot => size >= INSTALL_SNAPSHOT_SIZE_MIN,
            MessageType::TimeoutNow => size == 24,
        }
    }
}

/// Why bytes are not a message. The stream cannot be followed any further.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// A type that does not exist.
    #[error("message type {0} is unknown")]
    UnknownType(u64),
    /// No header of this type has this size.
    #[error("header of {kind:?} announces {size} bytes")]
    HeaderSize {
        /// The type.
        kind: MessageType,
        /// The size announced.
        size: u64,
    },
    /// The header ends before its fields do.
    #[error("header is {0}")]
    Truncated(#[from] Truncated),
    /// An entry of a kind that does not exist.
    #[error("entry has the unknown kind {0}")]
    EntryKind(u8),
    /// The size of an entry is not a multiple of 8.
    #[error("entry of {0} bytes is not a whole number of words")]
    EntrySize(u32),
    /// What follows the header is larger than is accepted.
    #[error("payload of {size} bytes is larger than the limit of {limit} bytes")]
    PayloadSize {
        /// The size announced.
        size: u64,
        /// Largest size accepted.
        limit: u64,
    },
    /// The configuration of a snapshot.
    #[error(transparent)]
    Configuration(#[from] ConfigurationError),
}

/// A message as bytes: first the head, then the payloads, which are shared with whoever else holds them, or a
/// snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// Preamble and header.
    pub head: Bytes,
    /// What follows, none of them empty.
    pub payloads: Vec<Bytes>,
    /// What follows instead, to be read while it is sent.
    pub snapshot: Option<SnapshotData>,
}

impl Encoded {
    /// Bytes in all.
    pub fn size(&self) -> u64 {
        let payloads = self.payloads.iter().map(Bytes::len).sum::<usize>();
        (self.head.len() + payloads) as u64 + self.snapshot.as_ref().map_or(0, SnapshotData::size)
    }
}

impl Encoded {
    /// Leaves out so many bytes at the beginning, at most those that are in memory.
    pub fn advance(&mut self, size: usize) {
        let mut left = size;
        for piece in std::iter::once(&mut self.head).chain(&mut self.payloads) {
            let here = left.min(piece.len());
            piece.advance(here);
            left -= here;
        }
        self.payloads.retain(|piece| !piece.is_empty());
    }
}

/// The bytes of a message. An answer that does not say which vote it answers has the form of old servers, who
/// make no promises either.
///
/// # Panics
/// If an entry is larger than the 32 bits of its size can say; the log on disk has the same limit.
pub fn encode(message: Message) -> Encoded {
    let mut payloads = Vec::new();
    let mut snapshot = None;
    let head = match message {
        Message::AppendEntries(message) => encode_append_entries(message, &mut payloads),
        Message::AppendEntriesResult(AppendEntriesResult { term, rejected, last_index, features }) => {
            encode_words(MessageType::AppendEntriesResult, &[term.0, rejected.0, last_index.0, features.0])
        }
        Message::RequestVote(message) => encode_request_vote(&message),
        Message::RequestVoteResult(message) => encode_request_vote_result(&message),
        Message::InstallSnapshot(message) => {
            let head = encode_install_snapshot(&message);
            snapshot = Some(message.data);
            head
        }
        Message::TimeoutNow(TimeoutNow { term, last_index, last_term }) => {
            encode_words(MessageType::TimeoutNow, &[term.0, last_index.0, last_term.0])
        }
    };
    Encoded { head, payloads, snapshot }
}

fn begin(kind: MessageType, header_size: usize) -> BytesMut {
    let mut out = BytesMut::with_capacity(PREAMBLE_SIZE + header_size);
    out.put_u64_le(kind as u64);
    out.put_u64_le(header_size as u64);
    out
}

fn encode_words(kind: MessageType, words: &[u64]) -> Bytes {
    let mut out = begin(kind, words.len() * 8);
    words.iter().for_each(|word| out.put_u64_le(*word));
    out.freeze()
}

fn encode_append_entries(message: AppendEntries, payloads: &mut Vec<Bytes>) -> Bytes {
    let entries = message.entries;
    let size = APPEND_ENTRIES_SIZE_MIN + entries.len() * ENTRY_HEADER_SIZE + 8;
    let mut out = begin(MessageType::AppendEntries, size);
    out.put_u64_le(message.term.0);
    out.put_u64_le(message.prev_index.0);
    out.put_u64_le(message.prev_term.0);
    out.put_u64_le(message.leader_commit.0);
    out.put_u64_le(entries.len() as u64);
    for entry in &entries {
        out.put_u64_le(entry.term.0);
        out.put_u8(entry.kind as u8);
        out.put_bytes(0, 3);
        let size = entry.payload.len();
        out.put_u32_le(u32::try_from(size).expect("the log holds no entry of more than 32 bits of size"));
    }
    out.put_u64_le(message.stamp.0);
    payloads.extend(entries.into_iter().map(|entry| entry.payload).filter(|payload| !payload.is_empty()));
    out.freeze()
}

fn flag(set: bool, bit: u64) -> u64 {
    if set { bit } else { 0 }
}

fn encode_request_vote(message: &RequestVote) -> Bytes {
    let RequestVote { term, candidate, last_index, last_term, .. } = *message;
    let flags = flag(message.disrupt_leader, VOTE_DISRUPT)
        | flag(message.pre_vote, VOTE_PRE_VOTE)
        | flag(message.keeps_lease, VOTE_KEEPS_LEASE);
    encode_words(MessageType::RequestVote, &[term.0, candidate.0, last_index.0, last_term.0, flags])
}

fn encode_request_vote_result(message: &RequestVoteResult) -> Bytes {
    let words = [message.term.0, u64::from(message.granted)];
    let Some(pre_vote) = message.pre_vote else {
        return encode_words(MessageType::RequestVoteResult, &words);
    };
    let flags = flag(pre_vote, RESULT_PRE_VOTE) | flag(message.keeps_lease, RESULT_KEEPS_LEASE);
    encode_words(MessageType::RequestVoteResult, &[words[0], words[1], flags])
}

fn encode_install_snapshot(message: &InstallSnapshot) -> Bytes {
    let configuration = message.configuration.encode();
    // With the unused word: releases of C up to 1.18.6 send it, and nobody is known to mind it.
    let mut out = begin(MessageType::InstallSnapshot, INSTALL_SNAPSHOT_SIZE_MIN + configuration.len() + 8);
    out.put_u64_le(message.term.0);
    out.put_u64_le(message.last_index.0);
    out.put_u64_le(message.last_term.0);
    out.put_u64_le(message.configuration_index.0);
    out.put_u64_le(configuration.len() as u64);
    out.put_slice(&configuration);
    out.put_u64_le(message.data.size());
    out.put_u64_le(0);
    out.freeze()
}

/// What stands before a header: of a known type, which may have a header of this size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Preamble {
    /// Type of the message.
    pub kind: MessageType,
    /// Size of the header in bytes, at most [`RAFT_HEADER_SIZE_MAX`].
    pub header_size: usize,
}

impl Preamble {
    /// Reads a preamble.
    pub fn decode(bytes: [u8; PREAMBLE_SIZE]) -> Result<Preamble, MessageError> {
        let mut bytes = &bytes[..];
        let (word, size) = (bytes.get_u64_le(), bytes.get_u64_le());
        let kind = MessageType::from_word(word).ok_or(MessageError::UnknownType(word))?;
        let refused = MessageError::HeaderSize { kind, size };
        let header_size = usize::try_from(size).map_err(|_| refused.clone())?;
        if header_size > RAFT_HEADER_SIZE_MAX || !kind.allows_header_of(header_size) {
            return Err(refused);
        }
        Ok(Preamble { kind, header_size })
    }
}

/// A message without its payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    message: Message,
    /// Sizes of the entries, which have no payload yet.
    entry_sizes: Vec<u32>,
    payload_size: u64,
}

impl Head {
    /// Reads the header of a message. `header` has the size that the preamble says.
    pub fn decode(preamble: Preamble, header: Bytes) -> Result<Head, MessageError> {
        let size = header.len() as u64;
        if header.len() != preamble.header_size || !preamble.kind.allows_header_of(header.len()) {
            return Err(MessageError::HeaderSize { kind: preamble.kind, size });
        }
        let mut header = Reader::new(header);
        let message = match preamble.kind {
            MessageType::AppendEntries => return decode_append_entries(&mut header),
            MessageType::InstallSnapshot => return decode_install_snapshot(&mut header),
            MessageType::AppendEntriesResult => decode_append_entries_result(&mut header),
            MessageType::RequestVote => decode_request_vote(&mut header),
            MessageType::RequestVoteResult => decode_request_vote_result(&mut header),
            MessageType::TimeoutNow => decode_timeout_now(&mut header),
        }?;
        Ok(Head { message, entry_sizes: Vec::new(), payload_size: 0 })
    }

    /// Bytes that follow the header.
    pub fn payload_size(&self) -> u64 {
        self.payload_size
    }

    /// Whether the payload is a snapshot, for [`Head::complete_with`].
    pub fn is_of_snapshot(&self) -> bool {
        matches!(self.message, Message::InstallSnapshot(_))
    }

    /// The message, whose entries are slices of `payload`.
    ///
    /// # Panics
    /// If the payload does not have the size announced.
    pub fn complete(self, payload: Bytes) -> Message {
        assert_eq!(payload.len() as u64, self.payload_size, "the payload must be complete");
        let mut message = self.message;
        let mut payload = Reader::new(payload);
        if let Message::AppendEntries(message) = &mut message {
            // Messages of ours fit. One of C's may hold a whole log, all of which would stay in memory for as
            // long as one of its entries does.
            let apart = self.payload_size > APPEND_BYTES_MAX as u64 && message.entries.len() > 1;
            for (entry, size) in message.entries.iter_mut().zip(self.entry_sizes) {
                let slice = payload.take(size as usize).expect("the payload is the sum of all sizes");
                entry.payload = if apart { Bytes::copy_from_slice(&slice) } else { slice };
            }
        }
        message
    }

    /// The message, whose snapshot is kept elsewhere.
    pub fn complete_with(mut self, data: SnapshotData) -> Message {
        if let Message::InstallSnapshot(message) = &mut self.message {
            message.data = data;
        }
        self.message
    }
}

fn payload_size(size: u64, limit: u64) -> Result<u64, MessageError> {
    if size > limit { Err(MessageError::PayloadSize { size, limit }) } else { Ok(size) }
}

fn decode_append_entries(header: &mut Reader) -> Result<Head, MessageError> {
    let term = Term(header.u64()?);
    let prev_index = Index(header.u64()?);
    let prev_term = Term(header.u64()?);
    let leader_commit = Index(header.u64()?);
    let (entries, entry_sizes) = decode_entry_headers(header)?;
    let stamp = if header.remaining() < 8 { Stamp(0) } else { Stamp(header.u64()?) };
    let sum = entry_sizes.iter().map(|size| u64::from(*size)).sum();
    let payload_size = payload_size(sum, APPEND_PAYLOAD_SIZE_MAX)?;
    let message = AppendEntries { term, prev_index, prev_term, leader_commit, entries, stamp };
    Ok(Head { message: Message::AppendEntries(message), entry_sizes, payload_size })
}

/// The entries, still without their payload, and the sizes of these.
fn decode_entry_headers(header: &mut Reader) -> Result<(Vec<Entry>, Vec<u32>), MessageError> {
    let offset = header.offset();
    let count = usize::try_from(header.u64()?).unwrap_or(usize::MAX);
    if count > header.remaining() / ENTRY_HEADER_SIZE {
        return Err(Truncated { offset }.into());
    }
    let mut entries = Vec::with_capacity(count);
    let mut sizes = Vec::with_capacity(count);
    for _ in 0..count {
        let term = Term(header.u64()?);
        let kind = match header.u8()? {
            1 => EntryKind::Command,
            2 => EntryKind::Barrier,
            3 => EntryKind::Change,
            kind => return Err(MessageError::EntryKind(kind)),
        };
        header.take(3)?;
        let size = header.u32()?;
        if !size.is_multiple_of(8) {
            return Err(MessageError::EntrySize(size));
        }
        entries.push(Entry { term, kind, payload: Bytes::new() });
        sizes.push(size);
    }
    Ok((entries, sizes))
}

fn decode_append_entries_result(header: &mut Reader) -> Result<Message, MessageError> {
    Ok(Message::AppendEntriesResult(AppendEntriesResult {
        term: Term(header.u64()?),
        rejected: Index(header.u64()?),
        last_index: Index(header.u64()?),
        features: Features(optional_word(header)?.unwrap_or(0)),
    }))
}

fn decode_request_vote(header: &mut Reader) -> Result<Message, MessageError> {
    let term = Term(header.u64()?);
    let candidate = ServerId(header.u64()?);
    let last_index = Index(header.u64()?);
    let last_term = Term(header.u64()?);
    let flags = optional_word(header)?.unwrap_or(0);
    Ok(Message::RequestVote(RequestVote {
        term,
        candidate,
        last_index,
        last_term,
        disrupt_leader: flags & VOTE_DISRUPT != 0,
        pre_vote: flags & VOTE_PRE_VOTE != 0,
        keeps_lease: flags & VOTE_KEEPS_LEASE != 0,
    }))
}

fn decode_request_vote_result(header: &mut Reader) -> Result<Message, MessageError> {
    let term = Term(header.u64()?);
    let granted = header.u64()? != 0;
    let flags = optional_word(header)?;
    Ok(Message::RequestVoteResult(RequestVoteResult {
        term,
        granted,
        pre_vote: flags.map(|flags| flags & RESULT_PRE_VOTE != 0),
        keeps_lease: flags.is_some_and(|flags| flags & RESULT_KEEPS_LEASE != 0),
    }))
}

fn decode_install_snapshot(header: &mut Reader) -> Result<Head, MessageError> {
    let term = Term(header.u64()?);
    let last_index = Index(header.u64()?);
    let last_term = Term(header.u64()?);
    let configuration_index = Index(header.u64()?);
    let size = usize::try_from(header.u64()?).unwrap_or(usize::MAX);
    let configuration = Configuration::decode(header.take(size)?)?;
    let payload_size = payload_size(header.u64()?, SNAPSHOT_PAYLOAD_SIZE_MAX)?;
    let data = SnapshotData::new(Bytes::new());
    let message = InstallSnapshot { term, last_index, last_term, configuration_index, configuration, data };
    Ok(Head { message: Message::InstallSnapshot(message), entry_sizes: Vec::new(), payload_size })
}

fn decode_timeout_now(header: &mut Reader) -> Result<Message, MessageError> {
    let (term, last_index, last_term) = (Term(header.u64()?), Index(header.u64()?), Term(header.u64()?));
    Ok(Message::TimeoutNow(TimeoutNow { term, last_index, last_term }))
}

/// The last word, which old servers leave out.
fn optional_word(header: &mut Reader) -> Result<Option<u64>, Truncated> {
    if header.remaining() == 0 { Ok(None) } else { header.u64().map(Some) }
}

#[cfg(test)]
#[path = "raft_test.rs"]
mod tests;

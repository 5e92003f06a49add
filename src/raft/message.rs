//! The six messages between servers, as plain values (dissertation figure 3.1 and sections 3.10, 5, 9.6).
//! Their bytes are the business of `wire::raft`. Built and read by the core, carried by whoever owns it.
//!
//! A field that older servers leave out has a value that says "absent"; no message depends on its presence.
//! The answers carry no sender: the connection identifies it, and so does `Input::Receive`.
//!
//! Two fields go beyond what C sends, in places that C fills with garbage or zeros and never reads. See
//! [`lease`](super::lease) for their use:
//!
//! * [`AppendEntries::stamp`] travels in the last word of the header, behind the entry headers, where C sends
//!   uninitialised memory. Reading it from a C leader gives an arbitrary number, which is sent back to it in
//!   the features word, where C ignores it.
//! * [`Features`] travel in the features word of AppendEntriesResult, where C sends 0, and as bits of the
//!   flags of votes, which C sends as 0.

use super::configuration::Configuration;
use super::types::{Entry, Index, ServerId, Stamp, Term};
use bytes::Bytes;
use std::any::Any;
use std::fmt;
use std::io::{self, Read};
use std::sync::Arc;

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// A candidate asks for a vote.
    RequestVote(RequestVote),
    /// The answer.
    RequestVoteResult(RequestVoteResult),
    /// A leader replicates entries, or shows that it is there.
    AppendEntries(AppendEntries),
    /// The answer to it and to InstallSnapshot.
    AppendEntriesResult(AppendEntriesResult),
    /// A leader replaces the state of a follower that is too far behind.
    InstallSnapshot(InstallSnapshot),
    /// A leader asks a follower to take over.
    TimeoutNow(TimeoutNow),
}

/// Asks for a vote (dissertation figure 3.1), or whether it would be given (9.6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestVote {
    /// Term of the election; of a pre-vote, the term that would follow the candidate's.
    pub term: Term,
    /// Who asks.
    pub candidate: ServerId,
    /// Index of the candidate's last durable entry.
    pub last_index: Index,
    /// Term of that entry.
    pub last_term: Term,
    /// The leader itself asked for this election: do not protect it (dissertation 4.2.3). Flag bit 0.
    pub disrupt_leader: bool,
    /// Only a question; nothing is persisted. Flag bit 1.
    pub pre_vote: bool,
    /// The sender keeps the promise that leases rest on. Flag bit 2; C sends 0.
    pub keeps_lease: bool,
}

/// Answers [`RequestVote`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestVoteResult {
    /// The responder's term. Of a pre-vote: the term asked for, unless the responder's is higher.
    pub term: Term,
    /// Whether the vote is, or would be, given.
    pub granted: bool,
    /// Which question is answered; `None` from servers that do not say. Flag bit 0.
    pub pre_vote: Option<bool>,
    /// The sender keeps the promise that leases rest on. Flag bit 1; C sends 0.
    pub keeps_lease: bool,
}

/// Replicates entries (dissertation figure 3.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppendEntries {
    /// The leader's term.
    pub term: Term,
    /// Index before the first entry.
    pub prev_index: Index,
    /// Term of the entry there; 0 if the index is 0.
    pub prev_term: Term,
    /// The leader's commit index.
    pub leader_commit: Index,
    /// None for a heartbeat.
    pub entries: Vec<Entry>,
    /// To be sent back in the answer. 0 or arbitrary from C.
    pub stamp: Stamp,
}

/// Answers [`AppendEntries`] and [`InstallSnapshot`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppendEntriesResult {
    /// The responder's term.
    pub term: Term,
    /// `prev_index` of the refused message, or index of the snapshot that could not be installed; 0 for
    /// success.
    pub rejected: Index,
    /// For success: everything up to here is stored and equal to the leader's log. Otherwise a hint where the
    /// logs may meet.
    pub last_index: Index,
    /// What the responder can do; 0 from C, absent before raft 0.18.
    pub features: Features,
}

/// What the sender of an AppendEntriesResult can do, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Features(pub u64);

impl Features {
    const KEEPS_LEASE: u64 = 1 << 63;
    const STAMP: u64 = (1 << 48) - 1;

    /// This server keeps the promise that leases rest on, and answers the message with this stamp.
    pub fn lease(stamp: Stamp) -> Features {
        Features(Features::KEEPS_LEASE | (stamp.0 & Features::STAMP))
    }

    /// The stamp, from a server that keeps the promise.
    pub fn stamp(self) -> Option<Stamp> {
        (self.0 & Features::KEEPS_LEASE != 0).then_some(Stamp(self.0 & Features::STAMP))
    }
}

/// Replaces the state of a follower, in one piece (dissertation 5; without its chunks, as in C).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstallSnapshot {
    /// The leader's term.
    pub term: Term,
    /// Last index in the snapshot.
    pub last_index: Index,
    /// Term of that entry.
    pub last_term: Term,
    /// Index of the entry that carried the configuration.
    pub configuration_index: Index,
    /// The last configuration committed at `last_index`.
    pub configuration: Configuration,
    /// All databases, opaque to the core.
    pub data: SnapshotData,
}

/// Where the databases in a snapshot are: mostly a file. The core passes it on and never looks inside.
#[derive(Clone)]
pub struct SnapshotData(Arc<dyn SnapshotSource>);

/// What [`SnapshotData`] stands for.
pub trait SnapshotSource: Any + Send + Sync {
    /// Bytes in all, not compressed.
    fn size(&self) -> u64;
    /// The bytes from the first one on. The end comes after [`size`](SnapshotSource::size) of them, and only
    /// if they are sound as far as can be told; else there is an error.
    fn open(&self) -> io::Result<Box<dyn Read + Send>>;
}

impl SnapshotData {
    /// Stands for this.
    pub fn new(source: impl SnapshotSource) -> SnapshotData {
        SnapshotData(Arc::new(source))
    }

    /// See [`SnapshotSource::size`].
    pub fn size(&self) -> u64 {
        self.0.size()
    }

    /// See [`SnapshotSource::open`].
    pub fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        self.0.open()
    }

    /// What it stands for, if that is of this type.
    pub fn downcast<T: SnapshotSource>(self) -> Option<Arc<T>> {
        let source: Arc<dyn Any + Send + Sync> = self.0;
        source.downcast().ok()
    }
}

impl SnapshotSource for Bytes {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(io::Cursor::new(self.clone())))
    }
}

/// Equal if it is the same, or empty: others may be of the same content, but nothing is read to find out.
impl PartialEq for SnapshotData {
    fn eq(&self, other: &SnapshotData) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || (self.size(), other.size()) == (0, 0)
    }
}

impl Eq for SnapshotData {}

impl fmt::Debug for SnapshotData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.size())
    }
}

/// Asks a follower to campaign at once (dissertation 3.10).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimeoutNow {
    /// The leader's term.
    pub term: Term,
    /// The leader's last index.
    pub last_index: Index,
    /// Term of that entry.
    pub last_term: Term,
}

impl Message {
    /// Term of the message.
    pub fn term(&self) -> Term {
        match self {
            Message::RequestVote(message) => message.term,
            Message::RequestVoteResult(message) => message.term,
            Message::AppendEntries(message) => message.term,
            Message::AppendEntriesResult(message) => message.term,
            Message::InstallSnapshot(message) => message.term,
            Message::TimeoutNow(message) => message.term,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_features_word_of_a_c_server_carries_no_stamp() {
        assert_eq!(Features(0).stamp(), None);
        assert_eq!(Features(77).stamp(), None);
        assert_eq!(Features::lease(Stamp(77)).stamp(), Some(Stamp(77)));
        assert_eq!(Features::lease(Stamp(0)).stamp(), Some(Stamp(0)));
    }

    #[test]
    fn garbage_from_a_c_leader_is_sent_back_without_pretending_anything() {
        assert_eq!(Features::lease(Stamp(u64::MAX)).0, (1 << 63) | ((1 << 48) - 1));
    }
}

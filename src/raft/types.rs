//! The vocabulary of the Raft core as types: no term, index, id or time travels as a bare integer.

use bytes::Bytes;
use std::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub u64);

        impl $name {
            /// The following value.
            pub fn next(self) -> $name {
                $name(self.0 + 1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// A term of the Raft clock; 0 before the first.
    Term
}
number! {
    /// Position of an entry in the log, from 1; 0 is "before the first entry".
    Index
}
number! {
    /// Identity of a server in a configuration.
    ServerId
}
number! {
    /// Milliseconds of a monotonic clock whose origin means nothing. The driver provides it; it never goes
    /// back.
    Time
}
number! {
    /// Number of a request to the disk. Requests become durable in this order.
    Seq
}
number! {
    /// Chosen by the driver to recognise the answer to something it proposed.
    Token
}

number! {
    /// Orders what a leader sends: a follower's answer carries the stamp of the message it answers, so the
    /// leader knows when that message left. It grows for as long as a leadership lasts; 0 is none.
    Stamp
}

/// What a server does in a cluster. The numbers are those of the log and of the Raft messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Replicates, does not vote.
    Standby = 0,
    /// Replicates, votes, may lead.
    Voter = 1,
    /// Member in name only.
    Spare = 2,
}

impl Role {
    /// Its name in the messages of the C library.
    pub fn name(self) -> &'static str {
        match self {
            Role::Standby => "stand-by",
            Role::Voter => "voter",
            Role::Spare => "spare",
        }
    }
}

/// What an entry of the log means. The numbers are those of the log and of the Raft messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EntryKind {
    /// A command for the databases.
    Command = 1,
    /// Nothing; committing it commits everything before it.
    Barrier = 2,
    /// A new configuration.
    Change = 3,
}

/// One entry of the log. Cloning shares the payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Term of the leader that appended it.
    pub term: Term,
    /// How to read the payload.
    pub kind: EntryKind,
    /// A multiple of 8 bytes.
    pub payload: Bytes,
}

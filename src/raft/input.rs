//! Everything that can happen to a server, as values. The driver builds them; only the core reads them.

use super::configuration::Configuration;
use super::types::{Entry, Index, Seq, ServerId, Term, Token};
use bytes::Bytes;

/// The snapshot a log starts from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotPoint {
    /// Last index it contains.
    pub index: Index,
    /// Term of that entry.
    pub term: Term,
    /// The last configuration committed at that index.
    pub configuration: Configuration,
    /// Index of the entry that carried that configuration.
    pub configuration_index: Index,
}

/// What the disk held when the server started.
#[derive(Debug, Clone)]
pub struct Start {
    /// Persisted term.
    pub term: Term,
    /// Persisted vote of that term.
    pub voted_for: Option<ServerId>,
    /// Newest snapshot, already restored by the driver.
    pub snapshot: Option<SnapshotPoint>,
    /// Index of `entries[0]`; the next index to append when there is none.
    pub first_index: Index,
    /// The log, from `first_index` on; it may begin before the snapshot's index (trailing entries).
    pub entries: Vec<Entry>,
}

/// One event. The driver passes them to [`Raft::step`](super::Raft::step) one at a time.
#[derive(Debug, Clone)]
pub enum Input {
    /// First input of every server, exactly once.
    Start(Start),
    /// The deadline passed; harmless at any other time.
    Tick,
    /// Every disk request up to `seq` is durable.
    Persisted {
        /// Highest durable request.
        seq: Seq,
    },
    /// A disk request failed; nothing from `seq` on is durable or will be. Requests before it may still be
    /// reported durable. The server gives up leadership and never leads again: fence the node.
    DiskFailed {
        /// First request that failed.
        seq: Seq,
    },
    /// Append these commands to the log, if this server leads.
    Propose {
        /// Names the proposal in the outputs.
        token: Token,
        /// Payload of each command, in order.
        commands: Vec<Bytes>,
    },
    /// Complete once everything now in the log is committed and applied.
    Barrier {
        /// Names the barrier in the outputs.
        token: Token,
    },
    /// The driver has applied everything up to `index`.
    Applied {
        /// Highest applied index.
        index: Index,
    },
    /// The snapshot asked for by [`Output::TakeSnapshot`](super::Output::TakeSnapshot) is on disk.
    SnapshotTaken {
        /// Its index.
        index: Index,
        /// Size of the databases in it, uncompressed; the dynamic trailing strategy compares it with the log.
        size_bytes: u64,
    },
    /// The snapshot could not be written; the core asks again after another threshold of entries.
    SnapshotFailed {
        /// Its index.
        index: Index,
    },
}

//! What a server wants done, as values. The core appends them to [`Outputs`]; the driver carries them out in
//! the order given, and completely, before it calls `step` again.
//!
//! **What waits for the disk.** Requests to the disk carry a [`Seq`] and become durable in that order; the
//! driver only queues them and reports with `Input::Persisted`. No other output of this module needs to be
//! held back: `Commit` and `Complete` are not produced before the entries they speak of are durable on a
//! quorum, this server counting as one of it only after its own `Persisted` (dissertation 10.2.1). An output
//! that may be produced earlier but must not leave before a request is durable, such as the answer to an
//! append, carries `after: Seq`.

use super::configuration::Configuration;
use super::input::SnapshotPoint;
use super::message::{Message, SnapshotData};
use super::types::{Entry, Index, Role, Seq, ServerId, Term, Token};

/// What one or several steps want done, oldest first.
pub type Outputs = Vec<Output>;

/// Why a proposal, a barrier, a read, a change or a transfer did not complete. The texts are C's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// This server did not lead: nothing was appended.
    #[error("not leader")]
    NotLeader,
    /// Leadership ended while the entry waited: it may or may not survive.
    #[error("leadership lost")]
    LeadershipLost,
    /// There was no space for the entry. Nobody has it.
    #[error("database or disk is full")]
    DiskFull,
    /// No server with this id can be removed or become leader.
    #[error("server ID is not valid")]
    BadId,
    /// A server with this id is a member.
    #[error("server ID already in use")]
    DuplicateId,
    /// A server with this address is a member.
    #[error("server address already in use")]
    DuplicateAddress,
    /// The server has this role.
    #[error("server is already {}", .0.name())]
    AlreadyInRole(Role),
    /// No server with this id can get another role.
    #[error("no server has ID {0}")]
    UnknownServer(ServerId),
    /// Another change, or the election of this leader, is not committed yet. Try again later.
    #[error("a configuration change is already in progress")]
    CantChange,
    /// The configuration would be too large for a snapshot.
    #[error("data is too big")]
    TooBig,
    /// The server to promote did not catch up in time.
    #[error("no connection to remote server available")]
    NoConnection,
    /// There is nobody to transfer the leadership to.
    #[error("there's no other voting server")]
    NoOtherVoter,
    /// The target did not become leader in time, or somebody else did.
    #[error("leadership was not transferred")]
    NotTransferred,
}

/// The Raft states, dissertation figure 3.3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Replicates what a leader sends.
    Follower,
    /// Asks for votes.
    Candidate,
    /// Appends and replicates.
    Leader,
}

/// One effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Write term and vote durably, then report `Persisted { seq }`.
    PersistVote {
        /// Current term.
        term: Term,
        /// Vote given in that term.
        voted_for: Option<ServerId>,
        /// Names the request.
        seq: Seq,
    },
    /// Append durably to the log, then report `Persisted { seq }`.
    Append {
        /// Index of the first entry.
        first_index: Index,
        /// The entries.
        entries: Vec<Entry>,
        /// Names the request.
        seq: Seq,
    },
    /// Remove everything from `from` on from the log on disk, then report `Persisted { seq }`.
    Truncate {
        /// First index removed.
        from: Index,
        /// Names the request.
        seq: Seq,
    },
    /// Send a message. It may be lost, but not altered. If a queue is full, drop it and report
    /// `PeerUnreachable`.
    Send {
        /// To whom.
        to: ServerId,
        /// Where that server is reached.
        address: String,
        /// What.
        message: Message,
        /// Hold the message back until this request is durable; drop it if the disk fails, or if there was no
        /// space for this request or one before it.
        after: Option<Seq>,
    },
    /// Send InstallSnapshot with the snapshot at `index` and this term, then report `SnapshotSent`.
    SendSnapshot {
        /// To whom.
        to: ServerId,
        /// Where that server is reached.
        address: String,
        /// Current term, for the message.
        term: Term,
        /// Last index of the snapshot, the newest one.
        index: Index,
    },
    /// Read entries of the log on disk, then report `EntriesRead`: as many as fit in one message, at least
    /// one. All of them are committed, and durable unless the disk has dropped them behind a snapshot since.
    /// There is at most one of these for a server at a time.
    ReadEntries {
        /// For whom.
        to: ServerId,
        /// Index of the first.
        first: Index,
        /// Index of the last one that can be had this way.
        last: Index,
    },
    /// Carry out all earlier disk requests, then replace snapshot, log and databases by this, durably and as
    /// one step, then report `SnapshotInstalled`. The log is empty afterwards and continues behind the
    /// snapshot. No `Append`, `Truncate` or `TakeSnapshot` is asked for in the meantime.
    InstallSnapshot {
        /// What the snapshot contains.
        snapshot: SnapshotPoint,
        /// The databases, as in the message.
        data: SnapshotData,
    },
    /// The proposal was appended in memory at these positions; `Complete` follows later.
    Accepted {
        /// The proposal.
        token: Token,
        /// Index of its first entry.
        first_index: Index,
        /// Term of its entries.
        term: Term,
    },
    /// Everything up to this index is committed: apply in order, then report `Applied`.
    Commit {
        /// Highest committed index.
        up_to: Index,
    },
    /// A proposal, barrier, read, change or transfer ended. Comes after the `Commit` that contains it.
    Complete {
        /// What ended.
        token: Token,
        /// Index of its (last) entry, or why not. Of a read: what was applied when it was confirmed. Of a
        /// transfer: the commit index.
        result: Result<Index, Refusal>,
    },
    /// Capture all databases at exactly this index, which is the applied one, and write a snapshot.
    TakeSnapshot {
        /// Last index it contains.
        index: Index,
        /// Term of that entry.
        term: Term,
        /// Last committed configuration.
        configuration: Configuration,
        /// Index of the entry that carried it.
        configuration_index: Index,
    },
    /// The state, the term or the known leader changed.
    RoleChanged {
        /// State entered.
        state: State,
        /// Current term.
        term: Term,
        /// Leader, if known.
        leader: Option<ServerId>,
    },
    /// The configuration in force changed (it may be uncommitted).
    ConfigurationChanged {
        /// The configuration in force.
        configuration: Configuration,
    },
}

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
use super::types::{Entry, Index, Seq, ServerId, Term, Token};

/// What one or several steps want done, oldest first.
pub type Outputs = Vec<Output>;

/// Why a proposal or a barrier did not complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// This server did not lead: nothing was appended.
    #[error("not leader")]
    NotLeader,
    /// Leadership ended while the entry waited: it may or may not survive.
    #[error("leadership lost")]
    LeadershipLost,
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
    /// A proposal or barrier ended. Comes after the `Commit` that contains it.
    Complete {
        /// The proposal or barrier.
        token: Token,
        /// Index of its (last) entry, or why not.
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

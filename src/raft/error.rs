//! Why the core refuses an input. Every case is a mistake of the driver or a data directory that makes no
//! sense; what a peer sends never ends here.

use super::configuration::ConfigurationError;
use super::types::{Index, Seq, ServerId, Term, Time};

/// An input that must not occur. The server is as it was before, and nothing was put out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StepError {
    /// Another input came before `Start`.
    #[error("the server was not started")]
    NotStarted,
    /// `Start` came twice.
    #[error("the server was started before")]
    AlreadyStarted,
    /// Time went backwards.
    #[error("the time went back from {before} to {now}")]
    ClockWentBack {
        /// Time of the previous input.
        before: Time,
        /// Time of this one.
        now: Time,
    },
    /// A log without a snapshot must begin with the configuration of the bootstrap.
    #[error(
        "without a snapshot the log must begin with a configuration at index 1, not at index {first_index}"
    )]
    NoBeginning {
        /// Where it begins.
        first_index: Index,
    },
    /// Entries between the snapshot and the log are missing.
    #[error("the snapshot ends at index {snapshot_index}, but the log begins at index {first_index}")]
    GapAfterSnapshot {
        /// Last index of the snapshot.
        snapshot_index: Index,
        /// First index of the log.
        first_index: Index,
    },
    /// The log ends before the snapshot does.
    #[error("the log ends at index {last_index}, behind its snapshot's index {snapshot_index}")]
    BehindSnapshot {
        /// Last index of the snapshot.
        snapshot_index: Index,
        /// Last index of the log.
        last_index: Index,
    },
    /// Log and snapshot do not belong together.
    #[error("entry {index} has term {entry_term}, but the snapshot that ends there has term {snapshot_term}")]
    SnapshotTermDiffers {
        /// Last index of the snapshot.
        index: Index,
        /// Term of the snapshot.
        snapshot_term: Term,
        /// Term of the log's entry there.
        entry_term: Term,
    },
    /// The log or the snapshot is from a later term than the metadata, which must then have been lost.
    #[error("index {index} is of term {term}, later than the persisted term {persisted_term}")]
    TermFromFuture {
        /// Where.
        index: Index,
        /// Term found there.
        term: Term,
        /// Term of the metadata.
        persisted_term: Term,
    },
    /// An index so high that no log can have reached it.
    #[error("index {0} is out of range")]
    IndexOutOfRange(Index),
    /// An entry that should hold a configuration does not.
    #[error("the configuration at index {index} cannot be read: {source}")]
    Configuration {
        /// Index of the entry.
        index: Index,
        /// What is wrong with it.
        source: ConfigurationError,
    },
    /// The disk answered a request that was not made.
    #[error("disk request {seq} is unknown: the last one was {last}")]
    UnknownRequest {
        /// The request named.
        seq: Seq,
        /// The last request made.
        last: Seq,
    },
    /// A request was reported durable after it, or one before it, had failed; or the reverse.
    #[error("disk request {seq} was reported both durable and failed")]
    ContradictoryRequest {
        /// The request named.
        seq: Seq,
    },
    /// A proposal without commands.
    #[error("a proposal needs at least one command")]
    EmptyProposal,
    /// A command that the log format cannot hold.
    #[error("a command of {len} bytes is not a multiple of 8")]
    UnalignedCommand {
        /// Its length.
        len: usize,
    },
    /// Entries were applied that are not committed, or fewer than before.
    #[error("index {index} cannot be applied: {applied} is applied, {committed} is committed")]
    AppliedOutOfOrder {
        /// Index reported.
        index: Index,
        /// Applied so far.
        applied: Index,
        /// Committed so far.
        committed: Index,
    },
    /// A snapshot was reported that was not asked for.
    #[error("no snapshot at index {index} was asked for")]
    UnknownSnapshot {
        /// Its index.
        index: Index,
    },
    /// Entries were read that were not asked for.
    #[error("no entries were to be read for server {to}")]
    UnknownRead {
        /// For whom they were reported.
        to: ServerId,
    },
    /// A snapshot was reported installed that was not to be installed.
    #[error("no snapshot at index {index} is being installed")]
    UnknownInstallation {
        /// Its index.
        index: Index,
    },
    /// An address that the log format cannot hold.
    #[error("the address {address:?} contains a NUL")]
    AddressWithNul {
        /// The address.
        address: String,
    },
}

//! The Raft core: one server's part of the consensus algorithm of Ongaro's dissertation, "Consensus: Bridging
//! Theory and Practice" (sections are cited as "dissertation 3.6.2"), as a pure state machine.
//!
//! The owner (the node's driver, or a test) passes one [`Input`] at a time to [`Raft::step`] and carries out
//! the [`Output`]s in order. The core has no clock, no I/O, no threads and no randomness of its own:
//!
//! * **Deterministic.** Options, seed and the inputs determine the outputs.
//! * **Time is data.** `now` counts milliseconds and never goes back.
//! * **Durability is explicit.** Requests to the disk are numbered; see [`output`] for what waits for them.
//! * **`step` is total.** Any input in any state yields outputs or a [`StepError`], which leaves the server
//!   as it was. Assertions guard our own logic only and stay on in release builds.
//! * **A configuration is in force once appended** and given up when truncated (dissertation 4.1).
//!
//! Limit: there is no communication with other servers. A server that is the only voter of its configuration
//! leads; every other one stays a follower for ever.

mod barrier;
mod commit;
pub mod configuration;
mod election;
mod error;
mod history;
pub mod input;
mod leader;
mod log;
mod options;
pub mod output;
mod persistence;
mod snapshot;
mod start;
pub mod types;

pub use configuration::{Configuration, ConfigurationError, Server};
pub use error::StepError;
pub use input::{Input, SnapshotPoint, Start};
pub use options::{Options, TrailingStrategy};
pub use output::{Output, Outputs, Refusal, State};
pub use types::{Entry, EntryKind, Index, Role, Seq, ServerId, Term, Time, Token};

use history::ConfigurationHistory;
use leader::Leader;
use log::Log;
use persistence::Persistence;
use snapshot::SnapshotSchedule;

/// One server.
#[derive(Debug, Clone)]
pub struct Raft {
    options: Options,
    started: bool,
    now: Time,
    term: Term,
    voted_for: Option<ServerId>,
    standing: Standing,
    log: Log,
    persistence: Persistence,
    configurations: ConfigurationHistory,
    commit_index: Index,
    applied_index: Index,
    snapshots: SnapshotSchedule,
}

/// The Raft state with the data that lives only as long as it (dissertation figure 3.3).
#[derive(Debug, Clone)]
enum Standing {
    Follower { leader: Option<ServerId> },
    Leader(Leader),
}

/// A server as seen from outside, for tests and metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status<'a> {
    /// Raft state.
    pub state: State,
    /// Current term.
    pub term: Term,
    /// Vote given in that term.
    pub voted_for: Option<ServerId>,
    /// Leader, if known.
    pub leader: Option<ServerId>,
    /// Index of the newest entry, durable or not.
    pub last_index: Index,
    /// Term of that entry.
    pub last_term: Term,
    /// Highest index durable on this server.
    pub persisted_index: Index,
    /// Highest index known to be committed.
    pub commit_index: Index,
    /// Highest index the driver has applied.
    pub applied_index: Index,
    /// Last index of the newest snapshot; 0 without one.
    pub snapshot_index: Index,
    /// Oldest index the log in memory holds; one past the last if it holds none.
    pub first_index: Index,
    /// The configuration in force, committed or not. Without servers if there is none.
    pub configuration: &'a Configuration,
}

impl Raft {
    /// A server that waits for [`Input::Start`]. The seed is where the randomness of election timeouts comes
    /// from; a server that cannot campaign draws nothing.
    pub fn new(options: Options, _seed: u64) -> Raft {
        Raft {
            options,
            started: false,
            now: Time(0),
            term: Term(0),
            voted_for: None,
            standing: Standing::Follower { leader: None },
            log: Log::default(),
            persistence: Persistence::default(),
            configurations: ConfigurationHistory::default(),
            commit_index: Index(0),
            applied_index: Index(0),
            snapshots: SnapshotSchedule::default(),
        }
    }

    /// Lets one thing happen and appends what it causes to `out`. On an error nothing happened.
    pub fn step(&mut self, now: Time, input: Input, out: &mut Outputs) -> Result<(), StepError> {
        if now < self.now {
            return Err(StepError::ClockWentBack { before: self.now, now });
        }
        match input {
            Input::Start(start) => self.start(start, out)?,
            _ if !self.started => return Err(StepError::NotStarted),
            Input::Tick => {}
            Input::Persisted { seq } => self.persisted(seq, out)?,
            Input::DiskFailed { seq } => self.disk_failed(seq, out)?,
            Input::Propose { token, commands } => self.propose(token, commands, out)?,
            Input::Barrier { token } => self.barrier(token, out),
            Input::Applied { index } => self.applied(index, out)?,
            Input::SnapshotTaken { index, size_bytes } => self.snapshot_taken(index, size_bytes)?,
            Input::SnapshotFailed { index } => self.snapshot_failed(index)?,
        }
        self.now = now;
        self.check_invariants();
        Ok(())
    }

    /// When to send [`Input::Tick`] at the latest. `None`: not before something else happens.
    pub fn deadline(&self) -> Option<Time> {
        // Only elections and heartbeats are timed, and a sole voter has neither.
        None
    }

    /// A read-only view.
    pub fn status(&self) -> Status<'_> {
        let (state, leader) = match &self.standing {
            Standing::Follower { leader } => (State::Follower, *leader),
            Standing::Leader(_) => (State::Leader, Some(self.options.id)),
        };
        Status {
            state,
            term: self.term,
            voted_for: self.voted_for,
            leader,
            last_index: self.log.last_index(),
            last_term: self.log.last_term(),
            persisted_index: self.persistence.persisted_index(),
            commit_index: self.commit_index,
            applied_index: self.applied_index,
            snapshot_index: self.log.snapshot_index(),
            first_index: self.log.first_index(),
            configuration: self.configurations.current(),
        }
    }

    /// The entry at `index`, if it is in memory. Entries that are committed and not applied always are.
    pub fn entry(&self, index: Index) -> Option<&Entry> {
        self.log.get(index)
    }

    /// The entries in memory from `index` on, oldest first, committed or not.
    pub fn entries_from(&self, index: Index) -> impl DoubleEndedIterator<Item = &Entry> {
        self.log.entries_from(index)
    }

    /// What must hold between any two steps; the other half of the assertions made where state is written.
    fn check_invariants(&self) {
        let status = self.status();
        assert!(
            status.snapshot_index <= status.applied_index
                && status.applied_index <= status.commit_index
                && status.commit_index <= status.last_index
                && status.persisted_index <= status.last_index,
            "indexes out of order: {status:?}"
        );
        assert!(status.last_term <= status.term, "an entry of a later term: {status:?}");
        if let Standing::Leader(leader) = &self.standing {
            leader.check_waiting_between(self.commit_index, self.log.last_index());
        }
    }
}

#[cfg(test)]
#[path = "mod_test.rs"]
mod tests;

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
//! Elections are in `election`, the follower's side of replication in `follower`, the leader's in
//! `replication`, `read_back` and `progress`, changes of the configuration in `membership`, reads in
//! [`lease`].

mod barrier;
mod commit;
pub mod configuration;
mod disk_full;
mod election;
mod error;
mod follower;
mod history;
pub mod input;
mod leader;
pub mod lease;
mod log;
mod membership;
pub mod message;
mod options;
pub mod output;
mod persistence;
mod planted;
mod progress;
mod read_back;
mod replication;
mod rng;
mod snapshot;
mod start;
pub mod types;

pub use configuration::{Configuration, ConfigurationError, Server};
pub use error::StepError;
pub use input::{Change, Input, Peer, SnapshotPoint, Start};
pub use message::{Message, SnapshotData, SnapshotSource};
pub use options::{Options, TrailingStrategy};
pub use output::{Output, Outputs, Refusal, State};
#[doc(hidden)]
pub use planted::Bug;
pub use types::{Entry, EntryKind, Index, Role, Seq, ServerId, Stamp, Term, Time, Token};

use election::{Candidate, ElectionTimer, Follower, TERM_MAX};
use follower::Installation;
use history::ConfigurationHistory;
use leader::Leader;
use log::Log;
use membership::Transfer;
use persistence::Persistence;
use rng::Rng;
use snapshot::SnapshotSchedule;
use std::collections::{BTreeMap, BTreeSet};

/// One server.
#[derive(Debug, Clone)]
pub struct Raft {
    options: Options,
    rng: Rng,
    started: bool,
    now: Time,
    started_at: Time,
    term: Term,
    voted_for: Option<ServerId>,
    standing: Standing,
    /// What the owner was told last about state, term and leader.
    reported_role: Option<(State, Term, Option<ServerId>)>,
    timer: ElectionTimer,
    /// When a leader of the then current term was last heard.
    last_contact: Option<Time>,
    /// The other servers that are known to keep the promise described in [`lease`].
    lease_keepers: BTreeSet<ServerId>,
    transfer: Option<Transfer>,
    log: Log,
    persistence: Persistence,
    configurations: ConfigurationHistory,
    commit_index: Index,
    applied_index: Index,
    snapshots: SnapshotSchedule,
    /// For whom entries are being read back, and from where on. Outlives the leadership, as the answer does.
    reading: BTreeMap<ServerId, Index>,
    installation: Option<Installation>,
    /// The disk was full, and is tried again then.
    full_until: Option<Time>,
    /// The newest snapshot that arrived during an installation, or while one of our own was written.
    next_installation: Option<(Peer, message::InstallSnapshot)>,
    #[cfg(feature = "planted-bugs")]
    bug: Option<Bug>,
}

/// The Raft state with the data that lives only as long as it (dissertation figure 3.3).
#[derive(Debug, Clone)]
enum Standing {
    Follower(Follower),
    Candidate(Candidate),
    Leader(Box<Leader>),
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
    /// Where a leader other than this server is reached, as it introduced itself.
    pub leader_address: Option<&'a str>,
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
    /// Oldest index of the log; one past the last if it holds nothing.
    pub first_index: Index,
    /// The configuration in force, committed or not. Without servers if there is none.
    pub configuration: &'a Configuration,
}

impl Raft {
    /// A server that waits for [`Input::Start`]. The seed is where the randomness of election timeouts comes
    /// from.
    pub fn new(options: Options, seed: u64) -> Raft {
        Raft {
            options,
            rng: Rng::new(seed),
            started: false,
            now: Time(0),
            started_at: Time(0),
            term: Term(0),
            voted_for: None,
            standing: Standing::Follower(Follower::default()),
            reported_role: None,
            timer: ElectionTimer::default(),
            last_contact: None,
            lease_keepers: BTreeSet::new(),
            transfer: None,
            log: Log::default(),
            persistence: Persistence::default(),
            configurations: ConfigurationHistory::default(),
            commit_index: Index(0),
            applied_index: Index(0),
            snapshots: SnapshotSchedule::default(),
            reading: BTreeMap::new(),
            installation: None,
            full_until: None,
            next_installation: None,
            #[cfg(feature = "planted-bugs")]
            bug: None,
        }
    }

    /// Lets one thing happen and appends what it causes to `out`. On an error nothing happened.
    pub fn step(&mut self, now: Time, input: Input, out: &mut Outputs) -> Result<(), StepError> {
        if now < self.now {
            return Err(StepError::ClockWentBack { before: self.now, now });
        }
        let before = std::mem::replace(&mut self.now, now);
        let result = self.handle(input, out);
        if result.is_err() {
            self.now = before;
        }
        self.evict();
        self.check_invariants();
        result
    }

    fn handle(&mut self, input: Input, out: &mut Outputs) -> Result<(), StepError> {
        match input {
            Input::Start(start) => self.start(start, out)?,
            _ if !self.started => return Err(StepError::NotStarted),
            Input::Tick => self.tick(out),
            Input::Receive { from, message } => self.receive(from, message, out),
            Input::PeerUnreachable { id } => self.peer_unreachable(id),
            Input::ConnectionLost { leader } => self.connection_lost(leader),
            Input::Persisted { seq } => self.persisted(seq, out)?,
            Input::DiskFailed { seq } => self.disk_failed(seq, out)?,
            Input::DiskFull { seq, stored } => self.disk_full(seq, stored, out)?,
            Input::Propose { token, commands } => self.propose(token, commands, out)?,
            Input::Barrier { token } => self.barrier(token, out),
            Input::Read { token } => self.read(token, out),
            Input::Change { token, change } => self.change(token, change, out)?,
            Input::Transfer { token, to } => self.start_transfer(token, to, out),
            Input::Applied { index } => self.applied(index, out)?,
            Input::SnapshotTaken { index, size_bytes } => self.snapshot_taken(index, size_bytes, out)?,
            Input::SnapshotFailed { index } => self.snapshot_failed(index, out)?,
            Input::RetrySnapshot => self.retry_snapshot(out),
            Input::SnapshotSent { to, ok } => self.snapshot_sent(to, ok),
            Input::EntriesRead { to, entries } => self.entries_read(to, entries, out)?,
            Input::SnapshotInstalled { index, ok } => self.snapshot_installed(index, ok, out)?,
        }
        Ok(())
    }

    fn tick(&mut self, out: &mut Outputs) {
        self.transfer_tick(out);
        self.disk_full_tick(out);
        match self.standing {
            Standing::Leader(_) => self.leader_tick(out),
            Standing::Follower(_) | Standing::Candidate(_) => self.election_tick(out),
        }
    }

    fn receive(&mut self, from: Peer, message: Message, out: &mut Outputs) {
        // A server without a disk takes no part, since it can promise nothing; one of a term near the end of
        // all terms is no Raft server; and what we send to ourselves goes another way.
        if self.persistence.has_failed() || message.term() > TERM_MAX || from.id == self.options.id {
            return;
        }
        match message {
            Message::RequestVote(message) => self.receive_request_vote(from, message, out),
            Message::RequestVoteResult(message) => self.receive_vote_result(from, &message, out),
            Message::AppendEntries(message) => self.receive_append_entries(from, message, out),
            Message::AppendEntriesResult(message) => self.receive_append_result(&from, &message, out),
            Message::InstallSnapshot(message) => self.receive_install_snapshot(from, message, out),
            Message::TimeoutNow(message) => self.receive_timeout_now(&from, message, out),
        }
    }

    /// A message leaves only when it does not run ahead of the disk: not before `after`, and not before the
    /// term and vote it speaks of are durable (dissertation figure 3.1).
    fn send(&self, to: ServerId, address: &str, message: Message, after: Option<Seq>, out: &mut Outputs) {
        let metadata = self.persistence.metadata_in_flight();
        let after = after.max(metadata.filter(|_| !self.has(Bug::AnswerBeforeVoteIsDurable)));
        out.push(Output::Send { to, address: address.to_owned(), message, after });
    }

    /// When to send [`Input::Tick`] at the latest. `None`: not before something else happens.
    pub fn deadline(&self) -> Option<Time> {
        let deadline = match &self.standing {
            _ if !self.started => None,
            Standing::Leader(leader) => self.leader_deadline(leader),
            Standing::Follower(_) | Standing::Candidate(_) => self.election_deadline(),
        };
        deadline.into_iter().chain(self.transfer_deadline()).chain(self.full_until).min()
    }

    /// Whether [`Input::Persisted`] changes more than what the next step will find. If not, it may come late,
    /// together with whatever comes next: what an answer waits for is only that the request is durable.
    pub fn awaits_disk(&self) -> bool {
        match &self.standing {
            Standing::Follower(follower) => follower.is_handed_over_to(),
            Standing::Candidate(_) => true,
            Standing::Leader(leader) => {
                self.transfer.is_some() || leader.leases.has_reads() || self.commits_with_disk()
            }
        }
    }

    /// A read-only view.
    pub fn status(&self) -> Status<'_> {
        let (state, leader) = self.role();
        let leader_address = match &self.standing {
            Standing::Follower(follower) => follower.leader.as_ref().map(|leader| leader.address.as_str()),
            Standing::Candidate(_) | Standing::Leader(_) => None,
        };
        Status {
            state,
            term: self.term,
            voted_for: self.voted_for,
            leader,
            leader_address,
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

    /// Term of the entry at `index`, if it is in the log or the last one of the snapshot.
    pub fn term_at(&self, index: Index) -> Option<Term> {
        self.log.term_at(index)
    }

    /// The entry at `index`, if it is in memory. Entries that are not applied always are.
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

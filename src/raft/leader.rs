//! What only a leader has, and how it appends to its log (dissertation 3.5). Part of the core.

use super::configuration::Configuration;
use super::error::StepError;
use super::lease::Leases;
use super::membership::Promotion;
use super::output::{Output, Outputs, Refusal};
use super::progress::Progress;
use super::types::{Entry, EntryKind, Index, Seq, ServerId, Time, Token};
use super::{Raft, Standing};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};

/// A proposal or barrier that completes when `index` is committed.
#[derive(Debug, Clone)]
struct Waiting {
    token: Token,
    index: Index,
}

/// State of a leader; it ends with the leadership.
#[derive(Debug, Clone)]
pub struct Leader {
    /// In log order.
    waiting: VecDeque<Waiting>,
    /// Every other server of the configuration in force.
    pub progress: BTreeMap<ServerId, Progress>,
    /// Leases and reads.
    pub leases: Leases,
    /// The promotion under way.
    pub promotion: Option<Promotion>,
    /// When the quorum was last checked.
    pub quorum_checked: Time,
    /// Once this is committed, this leader knows what older terms have committed (dissertation 6.4).
    pub term_start: Index,
}

impl Leader {
    /// A leader from now on.
    pub fn new(now: Time, lease_ms: u64, term_start: Index) -> Leader {
        Leader {
            waiting: VecDeque::new(),
            progress: BTreeMap::new(),
            leases: Leases::new(lease_ms),
            promotion: None,
            quorum_checked: now,
            term_start,
        }
    }

    /// Keeps track of exactly the other servers of this configuration.
    pub fn follow_configuration(
        &mut self,
        configuration: &Configuration,
        own_id: ServerId,
        last_index: Index,
    ) {
        self.progress.retain(|id, _| configuration.contains(*id));
        for server in configuration.servers.iter().filter(|server| server.id != own_id) {
            self.progress.entry(server.id).or_insert_with(|| Progress::new(last_index));
        }
    }

    /// Completes `token` when `index` is committed.
    pub fn wait(&mut self, token: Token, index: Index) {
        if let Some(last) = self.waiting.back() {
            assert!(last.index <= index, "waiting for {index} after waiting for {}", last.index);
        }
        self.waiting.push_back(Waiting { token, index });
    }

    /// Completes everything that waits for an index up to `commit_index`.
    pub fn complete_through(&mut self, commit_index: Index, out: &mut Outputs) {
        while self.waiting.front().is_some_and(|waiting| waiting.index <= commit_index) {
            let Waiting { token, index } = self.waiting.pop_front().expect("front() has just returned it");
            out.push(Output::Complete { token, result: Ok(index) });
        }
    }

    /// Refuses what waits for entries behind `kept`, for which there was no space.
    pub fn refuse_behind(&mut self, kept: Index, out: &mut Outputs) {
        let split = self.waiting.partition_point(|waiting| waiting.index <= kept);
        for Waiting { token, .. } in self.waiting.drain(split..) {
            out.push(Output::Complete { token, result: Err(Refusal::DiskFull) });
        }
    }

    /// Completes everything that still waits with "leadership lost".
    pub fn refuse_waiting(self, out: &mut Outputs) {
        let promoted = self.promotion.iter().map(|promotion| promotion.token);
        for token in self.waiting.iter().map(|waiting| waiting.token).chain(promoted) {
            out.push(Output::Complete { token, result: Err(Refusal::LeadershipLost) });
        }
        self.leases.refuse_reads(out);
    }

    /// Asserts that nothing waits for what is committed or for what does not exist.
    pub fn check_waiting_between(&self, commit_index: Index, last_index: Index) {
        let lowest = self.waiting.front().map_or(last_index, |waiting| waiting.index);
        let highest = self.waiting.back().map_or(commit_index, |waiting| waiting.index);
        assert!(
            (self.waiting.is_empty() || lowest > commit_index) && highest <= last_index,
            "waiting for {lowest} to {highest}, committed {commit_index}, last {last_index}"
        );
    }
}

impl Raft {
    pub(super) fn propose(
        &mut self,
        token: Token,
        commands: Vec<Bytes>,
        out: &mut Outputs,
    ) -> Result<(), StepError> {
        if commands.is_empty() {
            return Err(StepError::EmptyProposal);
        }
        if let Some(command) = commands.iter().find(|command| command.len() % 8 != 0) {
            return Err(StepError::UnalignedCommand { len: command.len() });
        }
        if self.accepting_leader().is_none() {
            out.push(Output::Complete { token, result: Err(Refusal::NotLeader) });
            return Ok(());
        }
        let entry = |payload| Entry { term: self.term, kind: EntryKind::Command, payload };
        let entries: Vec<Entry> = commands.into_iter().map(entry).collect();
        let appended = self.append_as_leader(entries);
        out.push(Output::Accepted { token, first_index: appended.first_index, term: self.term });
        self.wait(token, self.log.last_index());
        out.push(appended.into_output());
        // Without waiting for our own disk (dissertation 10.2.1).
        self.replicate(out);
        Ok(())
    }

    /// Appends entries of the current term to the log in memory and numbers the disk request for them.
    pub(super) fn append_as_leader(&mut self, entries: Vec<Entry>) -> Appended {
        assert!(matches!(self.standing, Standing::Leader(_)), "only a leader appends on its own account");
        assert!(entries.iter().all(|entry| entry.term == self.term), "a leader appends entries of its term");
        let first_index = self.log.append(entries.iter().cloned());
        let seq = self.persistence.append(first_index, self.log.last_index());
        Appended { first_index, entries, seq }
    }

    /// Completes `token` when `index` is committed.
    pub(super) fn wait(&mut self, token: Token, index: Index) {
        match &mut self.standing {
            Standing::Leader(leader) => leader.wait(token, index),
            _ => unreachable!("only a leader has anything to wait for"),
        }
    }
}

/// Entries a leader has appended in memory and must still send to the disk.
#[must_use]
#[derive(Debug)]
pub struct Appended {
    /// Index of the first entry.
    pub first_index: Index,
    entries: Vec<Entry>,
    seq: Seq,
}

impl Appended {
    /// The request to the disk.
    pub fn into_output(self) -> Output {
        Output::Append { first_index: self.first_index, entries: self.entries, seq: self.seq }
    }
}

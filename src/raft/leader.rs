//! What only a leader has, and how it appends to its log (dissertation 3.5). Part of the core.

use super::error::StepError;
use super::output::{Output, Outputs, Refusal};
use super::types::{Entry, EntryKind, Index, Seq, Token};
use super::{Raft, Standing};
use bytes::Bytes;
use std::collections::VecDeque;

/// A proposal or barrier that completes when `index` is committed.
#[derive(Debug, Clone)]
struct Waiting {
    token: Token,
    index: Index,
}

/// State of a leader; it ends with the leadership.
#[derive(Debug, Clone, Default)]
pub struct Leader {
    /// In log order.
    waiting: VecDeque<Waiting>,
}

impl Leader {
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

    /// Completes everything that still waits with "leadership lost".
    pub fn refuse_waiting(self, out: &mut Outputs) {
        for Waiting { token, .. } in self.waiting {
            out.push(Output::Complete { token, result: Err(Refusal::LeadershipLost) });
        }
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
        if !matches!(self.standing, Standing::Leader(_)) {
            out.push(Output::Complete { token, result: Err(Refusal::NotLeader) });
            return Ok(());
        }
        let entry = |payload| Entry { term: self.term, kind: EntryKind::Command, payload };
        let entries: Vec<Entry> = commands.into_iter().map(entry).collect();
        let appended = self.append_as_leader(entries);
        out.push(Output::Accepted { token, first_index: appended.first_index, term: self.term });
        self.wait(token, self.log.last_index());
        out.push(appended.into_output());
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
            Standing::Follower { .. } => unreachable!("only a leader has anything to wait for"),
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

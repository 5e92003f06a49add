//! What a follower does with AppendEntries and InstallSnapshot (dissertation 3.5, 3.6 and 5). Part of the
//! core.
//!
//! A message that no correct leader sends is dropped without an answer; it cannot harm the log.

use super::Raft;
use super::configuration::Configuration;
use super::history::ConfigurationHistory;
use super::input::{Peer, SnapshotPoint};
use super::log::{INDEX_MAX, Log};
use super::message::{AppendEntries, AppendEntriesResult, Features, InstallSnapshot, Message};
use super::output::{Output, Outputs};
use super::planted::Bug;
use super::types::{Entry, EntryKind, Index, Seq, Stamp};
use super::{Standing, StepError};

/// A snapshot on its way to the disk. Until it arrives there, log and databases stay as they are.
#[derive(Debug, Clone)]
pub struct Installation {
    point: SnapshotPoint,
    leader: Peer,
    term: super::Term,
}

/// How our log relates to a message that matches it at `prev_index`.
enum Tail {
    /// Everything is there.
    Present,
    /// The entries from this one on, in the message, are not there.
    Missing(usize),
    /// Our log differs from this index on, where the message has this entry.
    Differs(Index, usize),
}

impl Raft {
    pub(super) fn receive_append_entries(&mut self, from: Peer, message: AppendEntries, out: &mut Outputs) {
        let AppendEntries { prev_index, stamp, .. } = message;
        if message.term < self.term {
            // The sender may lead again by now, in our term, where nothing of this may count: neither a stamp
            // that it has given out again since, nor a refusal at 0, which reads as success up to the hint.
            let hint = if prev_index > Index(0) { self.log.last_index() } else { Index(0) };
            self.answer(&from, self.result(prev_index, hint, Stamp(0)), None, out);
            return;
        }
        let Some(changes) = decode_changes(&message) else { return };
        if self.leads_in(message.term) {
            return;
        }
        self.follow(message.term, from.clone(), out);
        if self.installation.is_some() && !self.has(Bug::AppendDuringInstallation) {
            // There is no log to compare with. A heartbeat learns the truth that needs none: index 0 matches.
            if message.entries.is_empty() {
                self.answer(&from, self.result(Index(0), Index(0), stamp), None, out);
            }
            return;
        }
        if !self.matches_at(&message) {
            self.answer_mismatch(&from, prev_index, stamp, out);
            return;
        }
        let mut last_new = Index(prev_index.0 + message.entries.len() as u64);
        let leader_commit = message.leader_commit;
        let first_missing = match self.compare_tail(&message) {
            Tail::Missing(first) | Tail::Differs(_, first) if self.full_until.is_some() => {
                // As if the message ended here.
                last_new = Index(prev_index.0 + first as u64);
                None
            }
            Tail::Present
                if self.has(Bug::TruncateMatchingTail)
                    && last_new > prev_index
                    && self.log.last_index() > last_new.max(self.commit_index) =>
            {
                let from = last_new.max(self.commit_index).next();
                let seq = self.persistence.truncate(from);
                out.push(Output::Truncate { from, seq });
                self.truncate_from(from, out);
                None
            }
            Tail::Present => None,
            Tail::Missing(first) => Some(first),
            Tail::Differs(index, _) if index <= self.commit_index => return,
            Tail::Differs(index, first) => {
                let seq = self.persistence.truncate(index);
                out.push(Output::Truncate { from: index, seq });
                self.truncate_from(index, out);
                Some(first)
            }
        };
        if let Some(first) = first_missing {
            self.append_as_follower(message.entries, first, changes, out);
        }
        self.acknowledge(&from, last_new, first_missing.is_some(), stamp, out);
        // Only what this message has shown to be equal to the leader's log is known to be committed
        // (dissertation figure 3.1: "index of last new entry").
        let matched = if self.has(Bug::CommitUnmatched) { self.log.last_index() } else { last_new };
        let commit = leader_commit.min(matched);
        if commit > self.commit_index {
            self.advance_commit(commit, out);
        }
    }

    /// Answers that everything up to `last_new` is stored, and no more: what follows in our log may not be in
    /// the leader's. An answer to entries waits until they are durable; one to a heartbeat says what is.
    fn acknowledge(&self, to: &Peer, last_new: Index, appended: bool, stamp: Stamp, out: &mut Outputs) {
        let in_flight = self.persistence.append_in_flight(last_new);
        let in_flight = in_flight.filter(|_| !self.has(Bug::AcknowledgeBeforePersist));
        let last_new = if self.has(Bug::SuccessReportsLastStored) {
            last_new.max(self.persistence.persisted_index())
        } else {
            last_new
        };
        if appended {
            self.answer(to, self.result(Index(0), last_new, stamp), in_flight, out);
        } else {
            let stored = last_new.min(self.persistence.persisted_index());
            self.answer(to, self.result(Index(0), stored, stamp), None, out);
        }
    }

    fn answer_mismatch(&self, to: &Peer, prev_index: Index, stamp: Stamp, out: &mut Outputs) {
        if self.full_until.is_some() {
            // What is missing could not be stored, so the leader need not look for it yet.
            self.answer(to, self.result(Index(0), Index(0), stamp), None, out);
        } else if prev_index > self.commit_index {
            let hint = self.where_logs_may_meet(prev_index);
            self.answer(to, self.result(prev_index, hint, stamp), None, out);
        }
    }

    fn result(&self, rejected: Index, last_index: Index, stamp: Stamp) -> AppendEntriesResult {
        AppendEntriesResult { term: self.term, rejected, last_index, features: Features::lease(stamp) }
    }

    fn answer(&self, to: &Peer, result: AppendEntriesResult, after: Option<Seq>, out: &mut Outputs) {
        self.send(to.id, &to.address, Message::AppendEntriesResult(result), after, out);
    }

    /// Two leaders in one term cannot be; whoever claims to be the other one is not followed.
    fn leads_in(&self, term: super::Term) -> bool {
        term == self.term && matches!(self.standing, Standing::Leader(_))
    }

    /// The consistency check of AppendEntries (dissertation 3.5). What a snapshot contains is committed, so
    /// it is in every leader's log (dissertation 3.6.3), whether or not its term is still known.
    fn matches_at(&self, message: &AppendEntries) -> bool {
        let matches = match self.log.term_at(message.prev_index) {
            Some(term) => term == message.prev_term,
            None => message.prev_index < self.log.first_index(),
        };
        matches || self.has(Bug::NoConsistencyCheck) && message.prev_index <= self.log.last_index()
    }

    /// The end of our log, or of the part before the conflicting term: a leader skips all of that term's
    /// entries at once (dissertation 3.5, last paragraphs).
    fn where_logs_may_meet(&self, prev_index: Index) -> Index {
        let Some(conflicting) = self.log.term_at(prev_index) else { return self.log.last_index() };
        let mut index = prev_index;
        while index > self.commit_index && self.log.term_at(index) == Some(conflicting) {
            index = Index(index.0 - 1);
        }
        index
    }

    fn compare_tail(&self, message: &AppendEntries) -> Tail {
        let positions = (message.prev_index.0 + 1..).map(Index);
        for (n, (index, entry)) in positions.zip(&message.entries).enumerate() {
            match self.log.term_at(index) {
                Some(term) if term == entry.term => {}
                Some(_) if self.has(Bug::KeepConflictingTail) => {}
                Some(_) => return Tail::Differs(index, n),
                None if index < self.log.first_index() => {}
                None => return Tail::Missing(n),
            }
        }
        Tail::Present
    }

    /// Appends the entries of a message from the `first` on.
    fn append_as_follower(
        &mut self,
        mut entries: Vec<Entry>,
        first: usize,
        changes: Vec<(Index, Configuration)>,
        out: &mut Outputs,
    ) {
        entries.drain(..first);
        let first_index = self.log.append(entries.iter().cloned());
        let seq = self.persistence.append(first_index, self.log.last_index());
        out.push(Output::Append { first_index, entries, seq });
        for (index, configuration) in changes {
            if index >= first_index {
                self.put_in_force(index, configuration, out);
            }
        }
    }

    // ---- snapshots ----

    pub(super) fn receive_install_snapshot(
        &mut self,
        from: Peer,
        message: InstallSnapshot,
        out: &mut Outputs,
    ) {
        let InstallSnapshot { last_index, last_term, .. } = message;
        if message.term < self.term {
            let result = self.result(last_index, self.log.last_index(), Stamp(0));
            self.answer(&from, result, None, out);
            return;
        }
        let sensible = Index(0) < last_index && last_index <= Index(INDEX_MAX.0 / 2);
        if !sensible || last_term > message.term || self.leads_in(message.term) {
            return;
        }
        self.follow(message.term, from.clone(), out);
        if self.installation.is_some() {
            // The log is about to be replaced and says nothing.
            self.next_installation = Some((from, message));
            return;
        }
        let present = last_index <= self.commit_index || self.log.term_at(last_index) == Some(last_term);
        if present && !self.has(Bug::InstallOlderSnapshot) {
            // Nothing in it that is not here (dissertation 5.3).
            let in_flight = self.persistence.append_in_flight(last_index);
            // A full disk may owe us what is committed.
            let stored = last_index.min(self.persistence.last_index());
            self.answer(&from, self.result(Index(0), stored, Stamp(0)), in_flight, out);
            return;
        }
        if self.snapshots.is_in_progress() {
            self.next_installation = Some((from, message));
            return;
        }
        let point = SnapshotPoint {
            index: last_index,
            term: last_term,
            configuration: message.configuration,
            configuration_index: message.configuration_index,
        };
        self.installation = Some(Installation { point: point.clone(), leader: from, term: self.term });
        out.push(Output::InstallSnapshot { snapshot: point, data: message.data });
    }

    pub(super) fn snapshot_installed(
        &mut self,
        index: Index,
        ok: bool,
        out: &mut Outputs,
    ) -> Result<(), StepError> {
        let Some(Installation { point, leader, term }) =
            self.installation.take_if(|installation| installation.point.index == index)
        else {
            return Err(StepError::UnknownInstallation { index });
        };
        if ok {
            self.replace_log(point, out);
        }
        // Another term has another leader, which does not wait for this.
        if term == self.term {
            let rejected = if ok { Index(0) } else { index };
            let last_index = if ok { index } else { self.persistence.persisted_index() };
            self.answer(&leader, self.result(rejected, last_index, Stamp(0)), None, out);
        }
        self.receive_next_installation(out);
        Ok(())
    }

    /// The snapshot that came while this server was busy with another one. Its leader waits for an answer,
    /// for long: sending a snapshot again is expensive.
    pub(super) fn receive_next_installation(&mut self, out: &mut Outputs) {
        if let Some((from, message)) = self.next_installation.take() {
            self.receive_install_snapshot(from, message, out);
        }
    }

    /// The snapshot takes the place of the whole log (dissertation 5.3).
    fn replace_log(&mut self, point: SnapshotPoint, out: &mut Outputs) {
        let SnapshotPoint { index, term, configuration, configuration_index } = point;
        assert!(index > self.commit_index, "a snapshot at {index} replaces what is committed");
        self.log = Log::new(index, term, index.next(), Vec::new());
        self.persistence.replace_log(index);
        self.commit_index = index;
        self.applied_index = index;
        self.snapshots.restart_at(index);
        self.configurations = ConfigurationHistory::default();
        self.put_in_force(configuration_index.min(index), configuration, out);
    }
}

/// The configurations among the entries, by index; `None` if the message is not one a leader sends: entries
/// that no log can hold, or of a later term than their leader's.
fn decode_changes(message: &AppendEntries) -> Option<Vec<(Index, Configuration)>> {
    let AppendEntries { prev_index, entries, .. } = message;
    if prev_index.0.checked_add(entries.len() as u64).is_none_or(|last| last > INDEX_MAX.0 / 2) {
        return None;
    }
    let mut changes = Vec::new();
    for (index, entry) in (prev_index.0 + 1..).map(Index).zip(entries) {
        if entry.term > message.term || entry.payload.len() % 8 != 0 {
            return None;
        }
        if entry.kind == EntryKind::Change {
            changes.push((index, Configuration::decode(entry.payload.clone()).ok()?));
        }
    }
    Some(changes)
}

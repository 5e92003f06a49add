//! From durable to committed to applied (dissertation 3.5, 3.6.2). Part of the core.

use super::configuration::{Configuration, Server};
use super::error::StepError;
use super::output::{Output, Outputs};
use super::planted::Bug;
use super::types::{EntryKind, Index, Role, Seq, ServerId};
use super::{Raft, Standing};

impl Raft {
    pub(super) fn persisted(&mut self, seq: Seq, out: &mut Outputs) -> Result<(), StepError> {
        self.persistence.acknowledge(seq)?;
        // Before anything is committed, or the databases are ahead of the snapshot when it is captured.
        if !self.has(Bug::SnapshotAfterCommit) {
            self.take_snapshot_if_due(out);
        }
        self.count_votes(out);
        self.commit_by_counting(out);
        self.confirm_reads(out);
        self.time_out_target(out);
        self.take_over(out);
        if self.has(Bug::SnapshotAfterCommit) {
            self.take_snapshot_if_due(out);
        }
        Ok(())
    }

    /// The disk lost everything from request `seq` on and will do nothing more.
    ///
    /// What is not durable and not committed leaves the log in memory, so that it cannot outlive a restart in
    /// anybody's belief. A leader steps down, and everything that waited for a commit gets "leadership lost",
    /// requests before `seq` included: their entries may yet be reported durable and survive. The server
    /// stays a follower; its owner fences the node, since after a failed sync nothing about the disk is
    /// certain.
    pub(super) fn disk_failed(&mut self, seq: Seq, out: &mut Outputs) -> Result<(), StepError> {
        let lost = self.persistence.fail(seq)?;
        self.step_down(out);
        self.give_up_transfer(out);
        if let Some(lost) = lost {
            // Never at or below the commit index: a quorum of others may hold what our own disk does not
            // (dissertation 10.2.1).
            self.truncate_from(lost.max(self.commit_index.next()), out);
        }
        Ok(())
    }

    /// Removes entries from the log in memory and what depends on them.
    pub(super) fn truncate_from(&mut self, index: Index, out: &mut Outputs) {
        assert!(index > self.commit_index, "truncation at {index}, committed {}", self.commit_index);
        self.log.truncate_from(index);
        if self.has(Bug::ConfigurationNotRolledBack) {
            return;
        }
        if self.configurations.truncate_from(index) {
            let configuration = self.configurations.current().clone();
            out.push(Output::ConfigurationChanged { configuration });
        }
    }

    /// The leader's commit rule: an index commits once a quorum stores it and its entry is of the current
    /// term; everything before it commits with it (dissertation 3.6.2, figure 3.7).
    pub(super) fn commit_by_counting(&mut self, out: &mut Outputs) {
        if !matches!(self.standing, Standing::Leader(_)) {
            return;
        }
        if let Some(index) = self.quorum_index(self.match_index(self.options.id))
            && index > self.commit_index
            && (self.log.term_at(index) == Some(self.term) || self.has(Bug::CommitOlderTerm))
        {
            self.advance_commit(index, out);
        }
    }

    /// Whether anything would commit if this leader's disk had all of its log.
    pub(super) fn commits_with_disk(&self) -> bool {
        self.quorum_index(self.log.last_index()).is_some_and(|index| index > self.commit_index)
    }

    /// The highest index that a quorum of the voters of the configuration in force stores, if this server
    /// does up to `own`. A leader that is no voter does not count itself (dissertation 4.2.2).
    fn quorum_index(&self, own: Index) -> Option<Index> {
        let configuration = self.configurations.current();
        let counts = |server: &&Server| {
            server.role == Role::Voter
                || (server.role == Role::Standby && self.has(Bug::StandbysCount))
                || (server.id == self.options.id && self.has(Bug::RemovedLeaderCountsItself))
        };
        let servers = configuration.servers.iter().filter(counts);
        let stored =
            |server: &Server| if server.id == self.options.id { own } else { self.match_index(server.id) };
        let mut stored: Vec<Index> = servers.map(stored).collect();
        stored.sort_unstable_by(|a, b| b.cmp(a));
        let quorum = if self.has(Bug::HalfIsQuorum) {
            configuration.voters().count().div_ceil(2).max(1)
        } else {
            configuration.quorum()
        };
        stored.get(quorum - 1).copied()
    }

    /// Up to where a server is known to store our log (dissertation figure 3.1, matchIndex); only a
    /// leader knows about others. For this server that is what its disk has confirmed, not what it appended.
    pub fn match_index(&self, id: ServerId) -> Index {
        match &self.standing {
            _ if id == self.options.id && self.has(Bug::LeaderCountsUnpersisted) => self.log.last_index(),
            _ if id == self.options.id => self.persistence.persisted_index(),
            Standing::Leader(leader) => leader.progress.get(&id).map_or(Index(0), |other| other.matched),
            _ => Index(0),
        }
    }

    /// Commits everything up to `index`, and completes what waited for it.
    pub(super) fn advance_commit(&mut self, index: Index, out: &mut Outputs) {
        assert!(index > self.commit_index, "commit index went from {} to {index}", self.commit_index);
        assert!(index <= self.log.last_index(), "committed {index}, which is not in the log");
        let before = std::mem::replace(&mut self.commit_index, index);
        out.push(Output::Commit { up_to: index });
        if self.has(Bug::ConfigurationAtCommit) {
            self.put_committed_in_force(before, out);
        }
        if let Standing::Leader(leader) = &mut self.standing {
            leader.complete_through(index, out);
            self.leave_if_removed(out);
        }
    }

    /// What [`Bug::ConfigurationAtCommit`] does.
    fn put_committed_in_force(&mut self, before: Index, out: &mut Outputs) {
        for index in (before.0 + 1..=self.commit_index.0).map(Index) {
            let change = self.log.get(index).filter(|entry| entry.kind == EntryKind::Change);
            let configuration = change.map(|entry| Configuration::decode(entry.payload.clone()));
            if let Some(Ok(configuration)) = configuration {
                self.put_in_force(index, configuration, out);
            }
        }
    }

    /// A leader that is no voter any more leads until that is committed (dissertation 4.2.2). It tells the
    /// others, since nobody may be elected until they know.
    fn leave_if_removed(&mut self, out: &mut Outputs) {
        let committed = self.configurations.current_index() <= self.commit_index;
        if self.has(Bug::RemovedLeaderStays) {
            return;
        }
        if committed && !self.configurations.current().is_voter(self.options.id) {
            self.heartbeat(out);
            self.step_down(out);
        }
    }

    pub(super) fn applied(&mut self, index: Index, out: &mut Outputs) -> Result<(), StepError> {
        let (applied, committed) = (self.applied_index, self.commit_index);
        if index < applied || index > committed {
            return Err(StepError::AppliedOutOfOrder { index, applied, committed });
        }
        self.applied_index = index;
        self.configurations.forget_before(index);
        self.take_snapshot_if_due(out);
        self.confirm_reads(out);
        Ok(())
    }
}

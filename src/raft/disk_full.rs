//! A disk without space: what could not be written leaves the log, and the server goes on. Part of the core.
//!
//! Nothing is lost that was promised: an entry counts as stored here once it is durable, and answers wait for
//! that. So entries that the disk dropped may leave the log in memory as in a truncation, unless others have
//! made them committed: then they stay, may be applied already, and are written once there is space.
//!
//! * A leader steps down, since its log must never get shorter within a term in which others may hold the
//!   rest. Servers with space elect one of themselves. A sole voter, whom nobody can replace, is elected at
//!   once; a server alone has told nobody, and goes on leading.
//! * A follower takes no entries before the disk is tried again. It answers them like heartbeats, so that
//!   its leader knows it to be there: what matches is stored, and what does not match waits.
//! * Votes are requests like any other. A server whose disk lacks a committed entry does not campaign.

use super::error::StepError;
use super::output::{Output, Outputs};
use super::types::{Index, Seq, Time};
use super::{Raft, Standing};
use crate::config::DISK_FULL_RETRY_MS;

impl Raft {
    pub(super) fn disk_full(&mut self, seq: Seq, stored: Index, out: &mut Outputs) -> Result<(), StepError> {
        let before = self.persistence.persisted_index();
        self.persistence.drop_appends(seq, stored)?;
        self.full_until = Some(Time(self.now.0 + DISK_FULL_RETRY_MS));
        // What was stored of the dropped append counts, too.
        self.commit_by_counting(out);
        let kept = self.persistence.persisted_index().max(self.commit_index);
        // Of a proposal of several entries some are stored: that is no clean refusal.
        let partly = self.persistence.persisted_index() > before;
        if partly || !self.is_alone() {
            let led = matches!(self.standing, Standing::Leader(_));
            self.step_down(out);
            self.give_up_transfer(out);
            if led && self.configurations.current().is_sole_voter(self.options.id) {
                self.hurry_election();
            }
        } else if let Standing::Leader(leader) = &mut self.standing {
            leader.refuse_behind(kept, out);
        }
        if kept < self.log.last_index() {
            self.truncate_from(kept.next(), out);
        }
        Ok(())
    }

    /// The disk is tried again, with what it owes us.
    pub(super) fn disk_full_tick(&mut self, out: &mut Outputs) {
        if self.full_until.is_none_or(|until| self.now < until) {
            return;
        }
        // Under an installation the log may have no future; if it has, it still lacks what is missing.
        let wait = self.installation.is_some();
        self.full_until = wait.then_some(Time(self.now.0 + DISK_FULL_RETRY_MS));
        let first_index = self.persistence.last_index().next();
        if wait || self.persistence.has_failed() || first_index > self.log.last_index() {
            return;
        }
        let entries = self.log.entries_from(first_index).cloned().collect();
        let seq = self.persistence.append(first_index, self.log.last_index());
        out.push(Output::Append { first_index, entries, seq });
    }

    /// No other server was ever sent what is not committed here.
    fn is_alone(&self) -> bool {
        let [current, previous] = [self.configurations.current(), self.configurations.previous()];
        let id = self.options.id;
        let alone = current.servers.len() == 1 && current.is_voter(id);
        let committed = self.configurations.current_index() <= self.commit_index;
        alone && (committed || previous.servers.len() == 1)
    }
}

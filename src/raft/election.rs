//! Becoming leader and ceasing to be one. Part of the core.

use super::leader::Leader;
use super::output::{Output, Outputs, State};
use super::{Raft, Standing};

impl Raft {
    /// A server that is a quorum by itself needs nobody's vote. It leads in the term it has and persists
    /// nothing, as C does: a higher term would only tell others apart, and there are none.
    pub(super) fn lead_if_sole_voter(&mut self, out: &mut Outputs) {
        if self.configurations.current().is_sole_voter(self.options.id) {
            self.become_leader(out);
        }
    }

    fn become_leader(&mut self, out: &mut Outputs) {
        assert!(
            matches!(self.standing, Standing::Follower { .. }),
            "became leader twice in term {}",
            self.term
        );
        assert!(!self.persistence.has_failed(), "became leader without a disk");
        self.standing = Standing::Leader(Leader::default());
        out.push(Output::RoleChanged {
            state: State::Leader,
            term: self.term,
            leader: Some(self.options.id),
        });
        // Entries of older terms do not commit by counting, because another leader might still replace them
        // (dissertation 3.6.2). No other server can become leader here, so all that is durable is committed.
        let persisted = self.persistence.persisted_index();
        if persisted > self.commit_index {
            self.advance_commit(persisted, out);
        }
    }

    /// Back to follower, with no known leader. What waited for a commit learns that its outcome is unknown
    /// (dissertation 6.3); `RoleChanged` goes first, so that the driver can undo what it executed ahead of
    /// the commit before it answers anybody.
    pub(super) fn step_down(&mut self, out: &mut Outputs) {
        let follower = Standing::Follower { leader: None };
        if let Standing::Leader(leader) = std::mem::replace(&mut self.standing, follower) {
            out.push(Output::RoleChanged { state: State::Follower, term: self.term, leader: None });
            leader.refuse_waiting(out);
        }
    }
}

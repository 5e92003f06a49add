//! Barriers: learning that everything in the log is committed and applied (dissertation 6.4). Part of the
//! core.

use super::Raft;
use super::output::{Output, Outputs, Refusal};
use super::types::{Entry, EntryKind, Index, Token};
use bytes::Bytes;

/// What a barrier entry carries, as C writes it. Readers ignore it.
static BARRIER_PAYLOAD: [u8; 8] = [0; 8];

impl Raft {
    pub(super) fn barrier(&mut self, token: Token, out: &mut Outputs) {
        if self.accepting_leader().is_none() {
            out.push(Output::Complete { token, result: Err(Refusal::NotLeader) });
            return;
        }
        let last_index = self.log.last_index();
        // Nothing is outstanding, and no other server can have been elected in the meantime: a sole voter is
        // its own quorum, so asking it (dissertation 6.4) is asking ourselves. With other voters only a
        // committed entry or a round of heartbeats proves that.
        let sole_voter = self.configurations.current().is_sole_voter(self.options.id);
        if sole_voter && self.applied_index == last_index {
            out.push(Output::Complete { token, result: Ok(last_index) });
            return;
        }
        if let Some(pending) = self.pending_barrier() {
            self.wait(token, pending);
            return;
        }
        self.wait(token, self.log.last_index().next());
        self.append_barrier(out);
    }

    /// Appends a barrier and replicates it.
    pub(super) fn append_barrier(&mut self, out: &mut Outputs) {
        let payload = Bytes::from_static(&BARRIER_PAYLOAD);
        let appended =
            self.append_as_leader(vec![Entry { term: self.term, kind: EntryKind::Barrier, payload }]);
        out.push(appended.into_output());
        self.replicate(out);
    }

    /// The newest entry if it is a barrier of this term that has not committed: it serves for every barrier
    /// asked for until something else is appended.
    pub(super) fn pending_barrier(&self) -> Option<Index> {
        let last_index = self.log.last_index();
        let joinable = |entry: &&Entry| entry.kind == EntryKind::Barrier && entry.term == self.term;
        self.log.last().filter(joinable).map(|_| last_index).filter(|index| *index > self.commit_index)
    }
}

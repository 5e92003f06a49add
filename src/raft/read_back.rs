//! Entries that leave memory, and come back for a server that lags (see [`super::log`]). Part of the core.
//!
//! An entry may leave memory once it is applied and durable here: it is committed, so it is never truncated,
//! and it never has to be applied or written again. Only a leader can need it. Between the request and its
//! answer anything may happen; what was read is taken for what it is: entries that may be sent by whoever
//! leads now, if the follower still needs exactly them. If they cannot be read, the follower has to wait,
//! longer each time, and finally gets the snapshot, if that contains them.

use super::error::StepError;
use super::message::{AppendEntries, Message};
use super::output::Outputs;
use super::planted::Bug;
use super::types::{Entry, Index, ServerId, Stamp, Term};
use super::{Raft, Standing};

impl Raft {
    /// Keeps the memory of the log within its bound, as far as possible.
    pub(super) fn evict(&mut self) {
        let (applied, durable) = (self.applied_index, self.persistence.persisted_index());
        let through = match () {
            () if self.has(Bug::EvictBeforeApplied) => durable,
            () if self.has(Bug::EvictBeforeDurable) => applied,
            () => applied.min(durable),
        };
        self.log.evict(through, self.options.log_memory_bytes);
    }

    pub(super) fn entries_read(
        &mut self,
        to: ServerId,
        entries: Vec<Entry>,
        out: &mut Outputs,
    ) -> Result<(), StepError> {
        let Some(first) = self.reading.remove(&to) else { return Err(StepError::UnknownRead { to }) };
        let as_expected = self.log.has(first, &entries) || self.has(Bug::ReadBackNotCompared);
        if self.has(Bug::ReadBackOutlivesLeadership) {
            self.send_to_anybody(to, first, entries.clone(), out);
        }
        let Standing::Leader(leader) = &mut self.standing else { return Ok(()) };
        let Some(progress) = leader.progress.get_mut(&to) else { return Ok(()) };
        if as_expected && !entries.is_empty() {
            progress.fetch(first, entries);
        } else if first >= self.log.first_index() {
            progress.fail_to_fetch(self.now, self.options.heartbeat_timeout_ms);
        }
        self.replicate_to(to, false, out);
        Ok(())
    }

    /// What [`Bug::ReadBackOutlivesLeadership`] does.
    fn send_to_anybody(&mut self, to: ServerId, first: Index, entries: Vec<Entry>, out: &mut Outputs) {
        let Some(server) = self.configurations.current().get(to) else { return };
        let prev_index = Index(first.0 - 1);
        let message = AppendEntries {
            term: self.term,
            prev_index,
            prev_term: self.log.term_at(prev_index).unwrap_or(Term(0)),
            leader_commit: self.commit_index,
            entries,
            stamp: Stamp(0),
        };
        self.send(to, &server.address, Message::AppendEntries(message), None, out);
    }
}

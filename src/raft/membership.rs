//! Changes of the configuration, one server at a time (dissertation 4.1), the catching up of new voters
//! (4.2.1), and the transfer of leadership (3.10). Part of the core.

use super::configuration::{Configuration, Server};
use super::input::Change;
use super::leader::Leader;
use super::message::{Message, TimeoutNow};
use super::output::{Output, Outputs, Refusal};
use super::planted::Bug;
use super::progress::Mode;
use super::types::{Entry, EntryKind, Index, Role, ServerId, Time, Token};
use super::{Raft, Standing, StepError};
use crate::config::{CATCH_UP_ROUND_MS_MAX, CATCH_UP_ROUNDS_MAX, CONFIGURATION_SIZE_MAX};

/// A server that catches up before it becomes a voter: rounds, each replicating what the log held at its
/// start, until one is short (dissertation 4.2.1).
#[derive(Debug, Clone)]
pub struct Promotion {
    /// The server.
    pub id: ServerId,
    /// The change that waits for it.
    pub token: Token,
    round: u32,
    round_index: Index,
    round_start: Time,
}

/// A leadership on its way to another server. It outlives the leadership, to learn how it ended.
#[derive(Debug, Clone)]
pub struct Transfer {
    /// The new leader.
    pub to: ServerId,
    /// Names the transfer.
    pub token: Token,
    started: Time,
    sent: bool,
}

/// What a change amounts to.
enum Plan {
    Append(Configuration),
    Promote(ServerId),
}

impl Raft {
    pub(super) fn change(
        &mut self,
        token: Token,
        change: Change,
        out: &mut Outputs,
    ) -> Result<(), StepError> {
        if let Change::Add { address, .. } = &change
            && address.contains('\0')
        {
            return Err(StepError::AddressWithNul { address: address.clone() });
        }
        match self.plan(change) {
            Err(refusal) => out.push(Output::Complete { token, result: Err(refusal) }),
            Ok(Plan::Append(configuration)) => self.append_configuration(token, configuration, out),
            Ok(Plan::Promote(id)) => self.start_promotion(token, id, out),
        }
        Ok(())
    }

    fn plan(&self, change: Change) -> Result<Plan, Refusal> {
        let leader = self.accepting_leader().ok_or(Refusal::NotLeader)?;
        // One change at a time, and none before this term has committed an entry: a leader that does not know
        // what is committed could start from a configuration that shares no majority with the one in force
        // elsewhere (dissertation 4.1; corrected on the raft-dev list, 10 July 2015).
        let uncommitted = self.configurations.current_index() > self.commit_index;
        let uncommitted = uncommitted && !self.has(Bug::TwoChangesAtOnce);
        let unknown = self.commit_index < leader.term_start && !self.has(Bug::ChangeBeforeTermCommit);
        if uncommitted || unknown || leader.promotion.is_some() {
            return Err(Refusal::CantChange);
        }
        let mut configuration = self.configurations.current().clone();
        let matched = |id| leader.progress.get(&id).map(|progress| progress.matched);
        match change {
            Change::Add { id, address } => {
                if configuration.contains(id) {
                    return Err(Refusal::DuplicateId);
                }
                if configuration.by_address(&address).is_some() {
                    return Err(Refusal::DuplicateAddress);
                }
                configuration.servers.push(Server { id, address, role: Role::Spare });
            }
            Change::Assign { id, role } => {
                let server = configuration.servers.iter_mut().find(|server| server.id == id);
                let server = server.ok_or(Refusal::UnknownServer(id))?;
                if server.role == role {
                    return Err(Refusal::AlreadyInRole(role));
                }
                if role == Role::Voter && matched(id) != Some(self.log.last_index()) {
                    return Ok(Plan::Promote(id));
                }
                server.role = role;
            }
            Change::Remove { id } => {
                if !configuration.contains(id) {
                    return Err(Refusal::BadId);
                }
                configuration.servers.retain(|server| server.id != id);
            }
        }
        if configuration.voters().next().is_none() {
            // Nobody could ever undo it, or do anything else.
            return Err(Refusal::NoOtherVoter);
        }
        if configuration.encoded_len() as u64 > CONFIGURATION_SIZE_MAX {
            return Err(Refusal::TooBig);
        }
        Ok(Plan::Append(configuration))
    }

    fn append_configuration(&mut self, token: Token, configuration: Configuration, out: &mut Outputs) {
        let payload = configuration.encode();
        let appended =
            self.append_as_leader(vec![Entry { term: self.term, kind: EntryKind::Change, payload }]);
        let index = appended.first_index;
        self.wait(token, index);
        out.push(appended.into_output());
        self.put_in_force(index, configuration, out);
        self.replicate(out);
    }

    /// A configuration is in force as soon as its entry is in the log (dissertation 4.1).
    pub(super) fn put_in_force(&mut self, index: Index, configuration: Configuration, out: &mut Outputs) {
        if self.has(Bug::ConfigurationAtCommit) && index > self.commit_index {
            return;
        }
        out.push(Output::ConfigurationChanged { configuration: configuration.clone() });
        self.configurations.push(index, configuration);
        let last_index = self.log.last_index();
        if let Standing::Leader(leader) = &mut self.standing {
            leader.follow_configuration(self.configurations.current(), self.options.id, last_index);
        }
    }

    // ---- promotion ----

    fn start_promotion(&mut self, token: Token, id: ServerId, out: &mut Outputs) {
        let round_index = self.log.last_index();
        let Standing::Leader(leader) = &mut self.standing else { return };
        leader.promotion = Some(Promotion { id, token, round: 1, round_index, round_start: self.now });
        self.replicate(out);
    }

    /// Ends the round if `id`, which stores more than before, is being promoted and has reached its end.
    pub(super) fn promote_if_caught_up(&mut self, id: ServerId, out: &mut Outputs) {
        let last_index = self.log.last_index();
        let Standing::Leader(leader) = &mut self.standing else { return };
        let Leader { promotion: Some(promotion), progress, .. } = &mut **leader else { return };
        let matched = progress.get(&id).map(|progress| progress.matched);
        if promotion.id != id || matched.is_none_or(|matched| matched < promotion.round_index) {
            return;
        }
        let duration_ms = self.now.0 - promotion.round_start.0;
        if matched < Some(last_index) && duration_ms >= self.options.election_timeout_ms {
            promotion.round += 1;
            promotion.round_index = last_index;
            promotion.round_start = self.now;
            return;
        }
        let token = promotion.token;
        leader.promotion = None;
        let mut configuration = self.configurations.current().clone();
        for server in configuration.servers.iter_mut().filter(|server| server.id == id) {
            server.role = Role::Voter;
        }
        self.append_configuration(token, configuration, out);
    }

    pub(super) fn promotion_tick(&mut self, out: &mut Outputs) {
        let Standing::Leader(leader) = &self.standing else { return };
        if self.promotion_deadline(leader).is_none_or(|deadline| self.now < deadline) {
            return;
        }
        let Standing::Leader(leader) = &mut self.standing else { return };
        if let Some(Promotion { token, .. }) = leader.promotion.take() {
            out.push(Output::Complete { token, result: Err(Refusal::NoConnection) });
        }
    }

    /// When a server has had its time to catch up.
    pub(super) fn promotion_deadline(&self, leader: &Leader) -> Option<Time> {
        let promotion = leader.promotion.as_ref()?;
        let last_round = promotion.round >= CATCH_UP_ROUNDS_MAX;
        let limit_ms = if last_round { self.options.election_timeout_ms } else { CATCH_UP_ROUND_MS_MAX };
        Some(Time(promotion.round_start.0 + limit_ms))
    }

    // ---- transfer ----

    pub(super) fn start_transfer(&mut self, token: Token, to: Option<ServerId>, out: &mut Outputs) {
        match self.transfer_target(to) {
            Ok(to) => {
                self.transfer = Some(Transfer { to, token, started: self.now, sent: false });
                self.time_out_target(out);
            }
            Err(refusal) => out.push(Output::Complete { token, result: Err(refusal) }),
        }
    }

    /// The server asked for, or else the voter that stores most of the log.
    fn transfer_target(&self, to: Option<ServerId>) -> Result<ServerId, Refusal> {
        let leader = self.accepting_leader().ok_or(Refusal::NotLeader)?;
        let others = || self.configurations.current().voters().filter(|voter| voter.id != self.options.id);
        match to {
            Some(to) if others().any(|voter| voter.id == to) => Ok(to),
            Some(_) => Err(Refusal::BadId),
            None => {
                // Of two with the same log, one may be gone: it has answered nothing lately.
                let rank = |id| {
                    let progress = leader.progress.get(&id)?;
                    Some((progress.mode == Mode::Pipeline, progress.matched, progress.stamp))
                };
                let best = others().max_by_key(|voter| rank(voter.id));
                best.map(|voter| voter.id).ok_or(Refusal::NoOtherVoter)
            }
        }
    }

    /// Lets the target of a transfer campaign, once it has everything and everything is committed, so that
    /// nobody's request ends in doubt (dissertation 3.10).
    pub(super) fn time_out_target(&mut self, out: &mut Outputs) {
        let keeps_lease = self.has(Bug::LeaseAfterTransfer) || self.has(Bug::LeaseBackAfterTransfer);
        let Some(transfer) = &mut self.transfer else { return };
        let Standing::Leader(leader) = &mut self.standing else { return };
        let last_index = self.log.last_index();
        let matched = leader.progress.get(&transfer.to).map(|progress| progress.matched);
        if transfer.sent || matched != Some(last_index) || self.commit_index < last_index {
            return;
        }
        let Some(target) = self.configurations.current().get(transfer.to) else { return };
        transfer.sent = true;
        // In this term, voters will not protect this leader any more: see `lease`.
        if !keeps_lease {
            leader.leases.end();
        }
        let message = TimeoutNow { term: self.term, last_index, last_term: self.log.last_term() };
        self.send(target.id, &target.address, Message::TimeoutNow(message), None, out);
    }

    pub(super) fn transfer_tick(&mut self, out: &mut Outputs) {
        if self.transfer_deadline().is_some_and(|deadline| self.now >= deadline) {
            self.give_up_transfer(out);
        }
    }

    /// The target has not become leader; if we still lead, we go on (dissertation 3.10).
    pub(super) fn give_up_transfer(&mut self, out: &mut Outputs) {
        if let Some(Transfer { token, .. }) = self.transfer.take() {
            out.push(Output::Complete { token, result: Err(Refusal::NotTransferred) });
        }
    }

    /// Whether the leadership of this server is on its way to another one. That goes on after it has stepped
    /// down, until it hears from a leader, and ends after an election timeout in any case.
    pub fn is_transferring(&self) -> bool {
        self.transfer.is_some()
    }

    /// When a transfer has had its time.
    pub(super) fn transfer_deadline(&self) -> Option<Time> {
        let started = self.transfer.as_ref()?.started;
        Some(Time(started.0 + self.options.election_timeout_ms))
    }

    /// The leader, unless it is handing over: then nothing more is accepted (dissertation 3.10).
    pub(super) fn accepting_leader(&self) -> Option<&Leader> {
        match &self.standing {
            Standing::Leader(leader) if self.transfer.is_none() || self.has(Bug::LeaseAfterTransfer) => {
                Some(leader)
            }
            _ => None,
        }
    }
}

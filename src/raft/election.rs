//! Followers, candidates and votes: how a server becomes leader and ceases to be one (dissertation 3.4), with
//! pre-vote (9.6) and protection of a leader that works (4.2.3). Part of the core.
//!
//! Where C and the dissertation differ, and what is done here:
//!
//! * A server that is no voter in its own configuration gives votes (dissertation 4.2.2); C refuses. The
//!   candidate decides whose votes count. Otherwise a promotion that only the leader's disk holds when it
//!   restarts leaves two voters of which one refuses for ever.
//! * A voter that a change makes a non-voter may lead until that change is committed (dissertation 4.2.2); in
//!   C only while it does lead. Otherwise it may be the only one to have that change, and refuse all others.
//! * A candidate that hears from nobody goes back to pre-vote; C keeps raising its term. So only the first
//!   election after TimeoutNow disrupts a leader, which the lease relies on.
//! * Of two candidates that ask each other for a pre-vote one gives its own away, and who grants one after
//!   the leader's connection ended campaigns later: with short timeouts they would often split the votes.
//! * TimeoutNow waits for our disk; C since 1.16 ignores it meanwhile.
//! * A refused pre-vote tells a responder's higher term. In C two servers can refuse each other for ever, one
//!   because of its log and one because of its term.
//! * One vote a term, without C's exception for the target of a transfer.

use super::Raft;
use super::Standing;
use super::configuration::Server;
use super::input::Peer;
use super::leader::Leader;
use super::message::{Message, RequestVote, RequestVoteResult, TimeoutNow};
use super::output::{Output, Outputs, Refusal, State};
use super::planted::Bug;
use super::types::{Index, Seq, ServerId, Term, Time};
use crate::config::HASTY_CAMPAIGNS_MAX;
use std::collections::BTreeSet;

/// Highest term a server takes part in, so that no arithmetic on terms overflows. Real terms end long before.
pub const TERM_MAX: Term = Term(u64::MAX / 2);

/// When a follower or candidate campaigns.
#[derive(Debug, Clone, Default)]
pub struct ElectionTimer {
    timeout_ms: u64,
    pub fires_at: Time,
}

/// State of a follower.
#[derive(Debug, Clone, Default)]
pub struct Follower {
    /// The leader of the current term, once it was heard.
    pub leader: Option<Peer>,
    /// The leader's connection has ended, and nothing came on another one since.
    pub connection_lost: bool,
    /// The leader hands over to this server, whose disk is not there yet.
    handover: Option<TimeoutNow>,
}

impl Follower {
    /// Whether it campaigns as soon as its log is on disk.
    pub fn is_handed_over_to(&self) -> bool {
        self.handover.is_some()
    }
}

/// State of a candidate.
#[derive(Debug, Clone)]
pub struct Candidate {
    phase: Phase,
    /// Who gave its vote in this phase.
    votes: BTreeSet<ServerId>,
    /// Our own vote, which counts once it is durable.
    own_vote: Option<Seq>,
    /// How many more campaigns follow after a short timeout, because a leader is known to be gone.
    hasty_campaigns_left: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Asks whether it would win (dissertation 9.6).
    PreVote,
    /// Asks for votes.
    Vote,
}

impl Raft {
    // ---- timers ----

    /// When this server campaigns, if it may: only a voter does (dissertation 4.2.1), and nobody without a
    /// disk.
    pub(super) fn election_deadline(&self) -> Option<Time> {
        (self.may_lead() && !self.persistence.has_failed()).then_some(self.timer.fires_at)
    }

    /// Voters may lead, and whoever is a voter until the newest change is committed: it may be the only one
    /// to have that change, and too long a log to vote for anybody else (dissertation 4.2.2).
    fn may_lead(&self) -> bool {
        let committed = self.configurations.current_index() <= self.commit_index;
        let id = self.options.id;
        let demoted = !committed && self.configurations.previous().is_voter(id);
        self.configurations.current().is_voter(id) || (demoted && !self.has(Bug::DemotedVoterGivesUp))
    }

    /// A random timeout, so that candidates seldom meet (dissertation 3.4).
    fn draw_timer(&mut self) {
        let base = self.options.election_timeout_ms;
        self.timer.timeout_ms = base + self.rng.below(base);
        self.restart_timer();
    }

    /// A much shorter one for a leader known to be gone: others campaign only if they lost it too.
    fn draw_hasty_timer(&mut self) {
        let base = self.options.vote_window_ms();
        self.timer.timeout_ms = base + self.rng.below(base);
        self.restart_timer();
    }

    fn restart_timer(&mut self) {
        self.timer.fires_at = Time(self.now.0 + self.timer.timeout_ms);
    }

    /// Nobody else can be elected: as soon as it may give a vote.
    pub(super) fn hurry_election(&mut self) {
        self.timer.fires_at = self.vote_window_end().max(self.now);
    }

    /// End of the time in which this server gives no vote; see the module `lease`.
    pub(super) fn vote_window_end(&self) -> Time {
        let started = if self.has(Bug::LeaseForgottenByRestart) { Time(0) } else { self.started_at };
        let since = self.last_contact.map_or(started, |contact| contact.max(started));
        if self.has(Bug::LeaseWithoutMargin) {
            return Time(since.0 + self.options.lease_ms());
        }
        Time(since.0 + self.options.vote_window_ms())
    }

    /// The connection of the leader ended. That proves nothing: the leader may live and a lease may be
    /// running. So it only moves the campaign forward, not before the vote window ends.
    pub(super) fn connection_lost(&mut self, id: ServerId) {
        let Standing::Follower(follower) = &mut self.standing else { return };
        if follower.leader.as_ref().is_none_or(|leader| leader.id != id) {
            return;
        }
        follower.connection_lost = true;
        // The delay keeps those who lost the leader together from splitting the votes.
        let window_end = self.vote_window_end().max(self.now);
        let delay_ms = self.rng.below(self.options.lease_ms() / 2 + 1);
        self.timer.fires_at = self.timer.fires_at.min(Time(window_end.0 + delay_ms));
        if self.has(Bug::ConnectionLostIsDeath) {
            self.timer.fires_at = self.now;
        }
    }

    pub(super) fn election_tick(&mut self, out: &mut Outputs) {
        if self.election_deadline().is_none_or(|deadline| self.now < deadline) {
            return;
        }
        let hasty_campaigns_left = match &self.standing {
            Standing::Leader(_) => return,
            Standing::Follower(follower) if follower.connection_lost => HASTY_CAMPAIGNS_MAX,
            Standing::Follower(_) => 0,
            Standing::Candidate(candidate) => candidate.hasty_campaigns_left.saturating_sub(1),
        };
        // A candidate offers what is durable, so nothing may be in flight that it would have to deny later;
        // and the log under an installation has no future.
        let writing = self.persistence.persisted_index() < self.log.last_index();
        if writing || self.installation.is_some() || self.term >= TERM_MAX {
            if hasty_campaigns_left > 0 {
                self.draw_hasty_timer()
            } else {
                self.draw_timer()
            }
            return;
        }
        if (self.has(Bug::DisruptForever) || self.has(Bug::NoPromise))
            && matches!(&self.standing, Standing::Candidate(candidate) if candidate.phase == Phase::Vote)
        {
            self.campaign(Phase::Vote, true, 0, out);
            return;
        }
        // A sole voter has nobody to ask.
        let sole_voter = self.configurations.current().is_sole_voter(self.options.id);
        let phase = if sole_voter { Phase::Vote } else { Phase::PreVote };
        self.campaign(phase, false, hasty_campaigns_left, out);
    }

    // ---- standing ----

    /// What a voter does at its start. Alone since the bootstrap, nobody else can ever have led: it leads at
    /// once in the term it has and persists nothing, as C does. A sole voter that had company must not do the
    /// same: another server may have led in this term, and entries with one index and term would differ. It
    /// is elected, in a new term, as soon as it may give a vote.
    pub(super) fn start_election_timer(&mut self, out: &mut Outputs) {
        let configuration = self.configurations.current();
        let sole_voter = configuration.is_sole_voter(self.options.id);
        let always_alone =
            configuration.servers.len() == 1 && self.configurations.current_index() <= Index(1);
        if sole_voter && (always_alone || self.has(Bug::SoleVoterKeepsTerm)) {
            self.become_leader(out);
            return;
        }
        self.draw_timer();
        if sole_voter {
            self.hurry_election();
        }
    }

    fn campaign(&mut self, phase: Phase, disrupt_leader: bool, hasty: u8, out: &mut Outputs) {
        if hasty > 0 {
            self.draw_hasty_timer()
        } else {
            self.draw_timer()
        }
        let mut own_vote = None;
        let mut votes = BTreeSet::new();
        match phase {
            Phase::PreVote => {
                votes.insert(self.options.id);
            }
            Phase::Vote => {
                own_vote = Some(self.set_term_and_vote(self.term.next(), Some(self.options.id), out));
            }
        }
        self.standing =
            Standing::Candidate(Candidate { phase, votes, own_vote, hasty_campaigns_left: hasty });
        self.report_role(out);
        let last_index = self.persistence.persisted_index();
        let request = RequestVote {
            term: if phase == Phase::PreVote { self.term.next() } else { self.term },
            candidate: self.options.id,
            last_index,
            last_term: self.log.term_at(last_index).expect("the durable end of the log is in memory"),
            disrupt_leader,
            pre_vote: phase == Phase::PreVote,
            keeps_lease: true,
        };
        let others = self.configurations.current().voters().filter(|voter| voter.id != self.options.id);
        for Server { id, address, .. } in others {
            self.send(*id, address, Message::RequestVote(request.clone()), own_vote, out);
        }
    }

    /// Counts the votes, and goes on to the election or to leadership with a quorum of them.
    pub(super) fn count_votes(&mut self, out: &mut Outputs) {
        let Standing::Candidate(candidate) = &mut self.standing else { return };
        if candidate.own_vote.is_some_and(|seq| self.persistence.is_durable(seq)) {
            candidate.votes.insert(self.options.id);
        }
        let configuration = self.configurations.current();
        let votes = configuration.voters().filter(|voter| candidate.votes.contains(&voter.id)).count();
        if votes < configuration.quorum() {
            return;
        }
        match candidate.phase {
            Phase::PreVote => {
                let hasty = candidate.hasty_campaigns_left;
                self.campaign(Phase::Vote, false, hasty, out);
            }
            Phase::Vote => self.become_leader(out),
        }
    }

    fn become_leader(&mut self, out: &mut Outputs) {
        assert!(!matches!(self.standing, Standing::Leader(_)), "became leader twice in term {}", self.term);
        assert!(!self.persistence.has_failed(), "became leader without a disk");
        let sole_voter = self.configurations.current().is_sole_voter(self.options.id);
        let term_start = if sole_voter { self.log.last_index() } else { self.log.last_index().next() };
        let mut leader = Leader::new(self.now, self.options.lease_ms(), term_start);
        leader.follow_configuration(self.configurations.current(), self.options.id, self.log.last_index());
        self.standing = Standing::Leader(Box::new(leader));
        self.report_role(out);
        let persisted = self.persistence.persisted_index();
        if sole_voter {
            // Entries of older terms do not commit by counting, because another leader might still replace
            // them (dissertation 3.6.2). No other server can become leader here, so all that is durable is
            // committed.
            if persisted > self.commit_index {
                self.advance_commit(persisted, out);
            }
            self.replicate(out);
        } else {
            // An entry of its own term lets a leader commit what older terms left (dissertation 6.4).
            self.append_barrier(out);
        }
    }

    /// Back to follower. What waited for a commit learns that its outcome is unknown (dissertation 6.3);
    /// `RoleChanged` goes first, so that the driver can undo what it executed ahead of the commit before it
    /// answers anybody.
    pub(super) fn become_follower(&mut self, leader: Option<Peer>, out: &mut Outputs) {
        let was_follower = matches!(self.standing, Standing::Follower(_));
        let follower = Standing::Follower(Follower { leader, ..Follower::default() });
        let before = std::mem::replace(&mut self.standing, follower);
        if !was_follower {
            self.draw_timer();
        }
        self.report_role(out);
        if let Standing::Leader(leader) = before {
            leader.refuse_waiting(out);
        }
    }

    /// Gives up leadership, to nobody in particular.
    pub(super) fn step_down(&mut self, out: &mut Outputs) {
        if matches!(self.standing, Standing::Leader(_)) {
            self.become_follower(None, out);
        }
    }

    /// Reports state, term and leader if they differ from what was reported before.
    pub(super) fn report_role(&mut self, out: &mut Outputs) {
        let (state, leader) = self.role();
        let role = (state, self.term, leader);
        if self.reported_role != Some(role) {
            self.reported_role = Some(role);
            out.push(Output::RoleChanged { state, term: self.term, leader });
        }
    }

    /// A term never goes back, and a vote within it is never taken back (dissertation figure 3.1).
    fn set_term_and_vote(&mut self, term: Term, vote: Option<ServerId>, out: &mut Outputs) -> Seq {
        assert!(
            term > self.term || (term == self.term && (self.voted_for.is_none() || self.voted_for == vote)),
            "term {} with vote {:?} followed by term {term} with vote {vote:?}",
            self.term,
            self.voted_for
        );
        self.term = term;
        self.voted_for = vote;
        let seq = self.persistence.write_metadata();
        out.push(Output::PersistVote { term, voted_for: vote, seq });
        seq
    }

    /// Enters a higher term as a follower without a leader (dissertation 3.3).
    pub(super) fn adopt_term(&mut self, term: Term, out: &mut Outputs) {
        if self.has(Bug::TermNotPersisted) {
            (self.term, self.voted_for) = (term, None);
            self.become_follower(None, out);
            return;
        }
        self.set_term_and_vote(term, None, out);
        self.become_follower(None, out);
    }

    /// A leader of this term or a later one has spoken: follow it (dissertation 3.4).
    pub(super) fn follow(&mut self, term: Term, leader: Peer, out: &mut Outputs) {
        if term > self.term {
            self.adopt_term(term, out);
        }
        let id = leader.id;
        match &mut self.standing {
            Standing::Follower(follower) if follower.leader.as_ref() == Some(&leader) => {
                follower.connection_lost = false;
            }
            _ => self.become_follower(Some(leader), out),
        }
        self.last_contact = Some(self.now);
        self.restart_timer();
        self.transfer_ends_with_leader(id, out);
    }

    // ---- messages ----

    pub(super) fn receive_request_vote(&mut self, from: Peer, request: RequestVote, out: &mut Outputs) {
        let RequestVote { term, candidate, pre_vote, disrupt_leader, .. } = request;
        if candidate != from.id {
            // Votes are recorded for one id and answered to another: not a Raft server.
            return;
        }
        self.note_lease_promise(candidate, request.keeps_lease);
        if !disrupt_leader && self.protects_leader() {
            // Without a look at the term: a server that was cut off must not end a leadership that works
            // (dissertation 4.2.3).
            self.answer_vote(from, &request, false, out);
            return;
        }
        let up_to_date = self.log_is_up_to_date(&request);
        let free = term > self.term
            || self.voted_for.is_none_or(|voted_for| voted_for == candidate)
            || self.has(Bug::VoteTwice);
        let refuses =
            self.has(Bug::NonVoterRefusesVote) && !self.configurations.current().is_voter(self.options.id);
        // While a snapshot is installed the log does not say what this server holds.
        let granted =
            term >= self.term && self.installation.is_none() && up_to_date && (pre_vote || free) && !refuses;
        if !pre_vote {
            let vote = granted.then_some(candidate);
            if term > self.term {
                self.set_term_and_vote(term, vote, out);
                self.become_follower(None, out);
            } else if granted && self.voted_for.is_none() {
                self.set_term_and_vote(term, vote, out);
            }
            if granted {
                self.restart_timer();
            }
        } else if granted {
            self.make_way(&request);
        }
        self.answer_vote(from, &request, granted, out);
    }

    /// Another server is about to be elected. Two that lost their leader together would split the votes if
    /// this one campaigned before it is done; of two that ask each other, one keeps its own pre-vote.
    fn make_way(&mut self, request: &RequestVote) {
        let behind = (request.last_term, request.last_index) > (self.log.last_term(), self.log.last_index());
        let own_id = self.options.id;
        match &mut self.standing {
            Standing::Follower(follower) if follower.connection_lost => {}
            Standing::Candidate(candidate) if candidate.phase == Phase::PreVote => {
                if behind || request.candidate < own_id {
                    candidate.votes.remove(&own_id);
                }
                if candidate.hasty_campaigns_left == 0 {
                    return;
                }
            }
            _ => return,
        }
        let delay_ms = self.options.vote_window_ms() + self.rng.below(self.options.lease_ms() / 2 + 1);
        self.timer.fires_at = self.timer.fires_at.max(Time(self.now.0 + delay_ms));
    }

    fn answer_vote(&self, to: Peer, request: &RequestVote, granted: bool, out: &mut Outputs) {
        let result = RequestVoteResult {
            term: if request.pre_vote { self.term.max(request.term) } else { self.term },
            granted,
            pre_vote: Some(request.pre_vote),
            keeps_lease: true,
        };
        self.send(to.id, &to.address, Message::RequestVoteResult(result), None, out);
    }

    /// Whether a vote would endanger a leader, or the lease it may hold (dissertation 4.2.3, 6.4.1).
    fn protects_leader(&self) -> bool {
        let lost = matches!(&self.standing, Standing::Follower(Follower { connection_lost: true, .. }));
        let promised = !(self.has(Bug::NoPromise) || lost && self.has(Bug::ConnectionLostIsDeath));
        if promised && self.now < self.vote_window_end() {
            return true;
        }
        match &self.standing {
            Standing::Leader(_) => true,
            Standing::Candidate(_) => false,
            Standing::Follower(follower) => {
                let heard = |contact: Time| self.now.0 < contact.0 + self.options.election_timeout_ms;
                follower.leader.is_some() && !follower.connection_lost && self.last_contact.is_some_and(heard)
            }
        }
    }

    pub(super) fn receive_vote_result(&mut self, from: Peer, result: &RequestVoteResult, out: &mut Outputs) {
        self.note_lease_promise(from.id, result.keeps_lease);
        if !self.configurations.current().is_voter(from.id) {
            return;
        }
        let Standing::Candidate(candidate) = &mut self.standing else { return };
        let asks_pre_vote = candidate.phase == Phase::PreVote;
        // The answer to a granted pre-vote has the term asked for, which is not ours yet.
        let asked = if asks_pre_vote { self.term.next() } else { self.term };
        if result.term > asked {
            self.adopt_term(result.term, out);
            return;
        }
        let answers_this = result.pre_vote.is_none_or(|pre_vote| pre_vote == asks_pre_vote);
        if result.granted && result.term == asked && answers_this {
            candidate.votes.insert(from.id);
            self.count_votes(out);
        }
    }

    /// The leader hands over (dissertation 3.10).
    pub(super) fn receive_timeout_now(&mut self, from: &Peer, message: TimeoutNow, out: &mut Outputs) {
        let Standing::Follower(follower) = &mut self.standing else { return };
        let from_leader = follower.leader.as_ref().is_some_and(|leader| leader.id == from.id);
        // A leader is known in the current term only, so a message of another term is not from it.
        if from_leader && message.term == self.term {
            follower.handover = Some(message);
            self.take_over(out);
        }
    }

    /// Campaigns if the leader hands over and this server holds exactly its log. C up to 1.11 asks as soon as
    /// it has sent everything, and accepts no writes until it is answered or an election timeout has passed:
    /// so what is on its way to the disk is waited for.
    pub(super) fn take_over(&mut self, out: &mut Outputs) {
        let last_index = self.log.last_index();
        let durable = self.persistence.persisted_index() == last_index;
        let Standing::Follower(follower) = &mut self.standing else { return };
        let Some(TimeoutNow { last_index: index, last_term, .. }) = follower.handover else { return };
        let same_log = index == last_index && last_term == self.log.last_term();
        if same_log && !durable {
            return;
        }
        follower.handover = None;
        let voter = self.configurations.current().is_voter(self.options.id);
        if same_log && voter && self.installation.is_none() && self.term < TERM_MAX {
            self.campaign(Phase::Vote, true, 0, out);
        }
    }

    // ---- transfer, the waiting side ----

    /// Somebody else leads: if the leadership was to be transferred, that is how it ended.
    fn transfer_ends_with_leader(&mut self, leader: ServerId, out: &mut Outputs) {
        if let Some(transfer) = self.transfer.take() {
            let result =
                if transfer.to == leader { Ok(self.commit_index) } else { Err(Refusal::NotTransferred) };
            out.push(Output::Complete { token: transfer.token, result });
        }
    }

    /// State and known leader.
    pub(super) fn role(&self) -> (State, Option<ServerId>) {
        match &self.standing {
            Standing::Follower(follower) => {
                (State::Follower, follower.leader.as_ref().map(|leader| leader.id))
            }
            Standing::Candidate(_) => (State::Candidate, None),
            Standing::Leader(_) => (State::Leader, Some(self.options.id)),
        }
    }

    /// Whether a candidate's log contains everything that may be committed here (dissertation 3.6.1): its
    /// last term, then its last index, decide.
    fn log_is_up_to_date(&self, request: &RequestVote) -> bool {
        let (last_term, last_index) = (self.log.last_term(), self.log.last_index());
        if self.has(Bug::VoteIgnoresLog) {
            return true;
        }
        if self.has(Bug::VoteIgnoresLastTerm) {
            return request.last_index >= last_index;
        }
        if self.has(Bug::VoteComparesSeparately) {
            return request.last_term >= last_term && request.last_index >= last_index;
        }
        (request.last_term, request.last_index) >= (last_term, last_index)
    }
}

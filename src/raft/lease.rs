//! Linearizable reads without an entry in the log (dissertation 6.4), most of them without a message: the
//! lease (6.4.1). Part of the core.
//!
//! **Without a lease** a read notes the commit index and is confirmed by a *round*: messages sent after it
//! arrived and acknowledged by a quorum. One round serves all reads that arrived before it. Whoever is
//! elected later needs a vote from one of those voters, given after its acknowledgement; so nobody had been
//! elected when the read arrived. Entries that were appended after the read and are committed prove the same.
//!
//! **With a lease** it is confirmed at once. Let L be [`Options::lease_ms`] and W, a little more,
//! [`Options::vote_window_ms`].
//!
//! * *Promise of every server*, whatever its role: outside of an election that the leader asked for, it gives
//!   no vote, not even to itself, until W has passed since it last processed a message of a leader **and
//!   since its own start**, before which it may have processed one and forgotten it.
//! * *The lease* runs until s + L, where s is the latest time such that a quorum of voters has acknowledged a
//!   message sent at s or later. Acknowledgements carry the [`Stamp`] of what they answer, and the leader
//!   knows when it gave that stamp out; the time at which the answer arrives plays no part.
//!
//! *Claim*: while a leader X of term T has a lease, no leader of a later term has been elected. Let U be the
//! first one. Quorums of one configuration intersect, and so do those of neighbouring ones; X's configuration
//! and that of U's voters are the same or neighbours, because a further change would need a leader between T
//! and U. So there is a voter that acknowledged X's message, processed at c >= s, and voted for U at u. Not u
//! < c: it would then have refused X's message, being in a later term. So u > c, and either u >= c + W, which
//! is later than s + L even if the two clocks run apart by an eighth and both are rounded; or the voter
//! restarted in between, which makes u later still; or the election was one a leader asked for.
//!
//! *Elections a leader asked for*, by TimeoutNow, are not held up. If X asked, X has no lease: it ends before
//! the message leaves and **never comes back in that term**, since the message may be delayed for ever. If a
//! leader of an earlier term asked, the candidate campaigned in the term after that one, which is at most T:
//! our candidates mark only their first election as asked for. If one of a later term asked, it was elected
//! before U.
//!
//! *C servers* know no promise: they vote right after a restart, and as targets of a transfer they mark all
//! elections up to the one they win as asked for. So their acknowledgements do not count, and X takes no
//! lease while any voter of its configuration is not known to keep the promise, be it silent or be it C.
//! Every message that can say so does
//! ([`RequestVote::keeps_lease`](super::message::RequestVote::keeps_lease),
//! [`Features`](super::message::Features)). Rounds need only a quorum of such servers, itself included.
//! Without one, reads are confirmed by a barrier entry, which any server's acknowledgement commits.
//!
//! **Fast failover.** That the leader's connection ended is a hint ([`Input::ConnectionLost`](super::Input)):
//! the follower campaigns when W has passed instead of an election timeout, and answers others by the same
//! rule. It rests on the promise alone, never on what the end of a connection means. Those that still hear
//! the leader refuse.
//!
//! *A sole voter* needs nobody: any other server's election takes its vote. That it led before a restart is
//! no matter either, unless it was elected by others; then it waits as everyone does.

use super::configuration::Configuration;
use super::leader::Leader;
use super::output::{Output, Outputs, Refusal};
use super::planted::Bug;
use super::types::{Index, ServerId, Stamp, Time, Token};
use super::{Raft, Standing};
use std::collections::VecDeque;

/// A read that waits.
#[derive(Debug, Clone)]
struct PendingRead {
    token: Token,
    /// What must be applied.
    index: Index,
    /// A quorum that answered this stamp confirms it,
    stamp: Stamp,
    /// and so does the commit of an entry behind this one.
    last_index: Index,
}

/// What a leader knows about its lease, and the reads that wait for it.
#[derive(Debug, Clone)]
pub struct Leases {
    lease_ms: u64,
    /// The newest stamp given out.
    current: Stamp,
    /// When stamps were given out first, for as long as a lease can come of it; at most one for a
    /// millisecond.
    given: VecDeque<(Stamp, Time)>,
    /// Voters may have been told not to protect this leader.
    ended: bool,
    /// The stamp of the newest round for waiting reads.
    round: Stamp,
    /// When that round was asked for.
    round_begin: Time,
    /// That round has taken too long: of the servers that send stamps back too few are there.
    round_overdue: bool,
    /// In order of arrival.
    reads: VecDeque<PendingRead>,
}

impl Leases {
    /// Of a new leader.
    pub fn new(lease_ms: u64) -> Leases {
        Leases {
            lease_ms,
            current: Stamp(0),
            given: VecDeque::new(),
            ended: false,
            round: Stamp(0),
            round_begin: Time(0),
            round_overdue: false,
            reads: VecDeque::new(),
        }
    }

    /// Whether reads wait.
    pub fn has_reads(&self) -> bool {
        !self.reads.is_empty()
    }

    /// The stamp for a message sent now.
    pub fn stamp(&mut self, now: Time) -> Stamp {
        if self.given.back().is_none_or(|(_, given)| *given < now) {
            self.next_stamp(now);
        }
        self.current
    }

    /// A stamp that no message carries yet.
    fn next_stamp(&mut self, now: Time) {
        self.current = self.current.next();
        while self.given.front().is_some_and(|(_, given)| given.0 + self.lease_ms < now.0) {
            self.given.pop_front();
        }
        if self.given.back().is_none_or(|(_, given)| *given < now) {
            self.given.push_back((self.current, now));
        }
    }

    /// A stamp as a server sent it back; 0 if it was never given out.
    pub fn known(&self, stamp: Stamp) -> Stamp {
        if stamp <= self.current { stamp } else { Stamp(0) }
    }

    /// When a message with this stamp or a later one was sent at the earliest; `None`: too long ago.
    fn given_at(&self, stamp: Stamp) -> Option<Time> {
        let given = self.given.iter().rev().find(|(given, _)| *given <= stamp);
        given.map(|(_, time)| *time)
    }

    /// The newest stamp given out.
    pub fn newest(&self) -> Stamp {
        self.current
    }

    /// No lease in this term any more.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// Refuses every read that waits.
    pub fn refuse_reads(self, out: &mut Outputs) {
        for PendingRead { token, .. } in self.reads {
            out.push(Output::Complete { token, result: Err(Refusal::LeadershipLost) });
        }
    }
}

impl Raft {
    /// Whether this server leads, accepts entries, and has applied everything that leaders before it
    /// committed: only then may it execute transactions, on whose state the next entries build (dissertation
    /// 6.4, step 1).
    pub fn is_ready_to_execute(&self) -> bool {
        self.accepting_leader().is_some_and(|leader| self.applied_index >= leader.term_start)
    }

    /// Until when this server may read what it has applied without asking anybody, provided that
    /// `applied_index` has reached the commit index. `None`: it may not.
    ///
    /// The owner may let other threads read until then, on the clock that it passes to `step`.
    pub fn lease_until(&self) -> Option<Time> {
        let leader = self.accepting_leader()?;
        if self.commit_index < leader.term_start && !self.has(Bug::ReadBeforeTermCommit) {
            // What older terms committed is not all known yet (dissertation 6.4).
            return None;
        }
        let configuration = self.configurations.current();
        if configuration.is_sole_voter(self.options.id) {
            return Some(Time(u64::MAX));
        }
        let promised = |id| id == self.options.id || self.lease_keepers.contains(&id);
        let promised = |id| promised(id) || self.has(Bug::LeaseCountsCServers);
        if leader.leases.ended || !configuration.voters().all(|voter| promised(voter.id)) {
            return None;
        }
        let since = leader.leases.given_at(self.quorum_stamp(leader))?;
        Some(Time(since.0 + self.options.lease_ms()))
    }

    /// The newest stamp that a quorum has answered.
    fn quorum_stamp(&self, leader: &Leader) -> Stamp {
        let configuration: &Configuration = self.configurations.current();
        let answered = |id: ServerId| {
            if id == self.options.id {
                leader.leases.current
            } else {
                leader.progress.get(&id).map_or(Stamp(0), |progress| progress.stamp)
            }
        };
        let mut stamps: Vec<Stamp> = configuration.voters().map(|voter| answered(voter.id)).collect();
        stamps.sort_unstable_by(|a, b| b.cmp(a));
        let quorum = configuration.quorum();
        let quorum = if self.has(Bug::ReadQuorumTooSmall) { (quorum - 1).max(1) } else { quorum };
        stamps.get(quorum - 1).copied().unwrap_or(Stamp(0))
    }

    /// A server's messages say whether it keeps the promise. It may be replaced by one that does not.
    pub(super) fn note_lease_promise(&mut self, id: ServerId, keeps: bool) {
        if keeps == self.lease_keepers.contains(&id) {
            return;
        }
        if keeps {
            // Strangers are not remembered, or there would be no bound.
            if self.configurations.current().contains(id) {
                self.lease_keepers.insert(id);
            }
        } else {
            self.lease_keepers.remove(&id);
        }
    }

    pub(super) fn read(&mut self, token: Token, out: &mut Outputs) {
        let last_index = self.log.last_index();
        let now = self.now;
        let Some(leader) = self.accepting_leader() else {
            out.push(Output::Complete { token, result: Err(Refusal::NotLeader) });
            return;
        };
        let index = if self.has(Bug::ReadBeforeTermCommit) {
            self.commit_index
        } else {
            self.commit_index.max(leader.term_start)
        };
        let until = self.lease_until();

        let unconfirmed = self.has(Bug::ReadWithoutRound);
        let Standing::Leader(leader) = &mut self.standing else { return };
        let stamp = if unconfirmed { Stamp(0) } else { leader.leases.current.next() };
        leader.leases.reads.push_back(PendingRead { token, index, stamp, last_index });
        self.confirm_reads(out);
        // A lease that is half over is renewed before anybody has to wait for it.
        if until.is_none_or(|until| until.0 < now.0.saturating_add(self.options.lease_ms() / 2)) {
            self.ask_for_reads(out);
        }
    }

    /// Starts a round, unless one is under way: then the next one begins when it ends.
    fn ask_for_reads(&mut self, out: &mut Outputs) {
        let overdue = matches!(&self.standing, Standing::Leader(leader) if leader.leases.round_overdue);
        if overdue || !self.can_ask_a_quorum() {
            let waiting =
                matches!(&self.standing, Standing::Leader(leader) if !leader.leases.reads.is_empty());
            if waiting && self.pending_barrier().is_none() {
                self.append_barrier(out);
            }
            return;
        }
        let Standing::Leader(leader) = &self.standing else { return };
        if self.quorum_stamp(leader) < leader.leases.round {
            return;
        }
        let now = self.now;
        let Standing::Leader(leader) = &mut self.standing else { return };
        leader.leases.next_stamp(now);
        leader.leases.round = leader.leases.current;
        leader.leases.round_begin = now;
        self.heartbeat(out);
    }

    /// Whether a quorum of the voters sends stamps back.
    fn can_ask_a_quorum(&self) -> bool {
        let configuration = self.configurations.current();
        let answers = |id| id == self.options.id || self.lease_keepers.contains(&id);
        configuration.voters().filter(|voter| answers(voter.id)).count() >= configuration.quorum()
    }

    /// Completes the reads that are confirmed and whose state is applied.
    pub(super) fn confirm_reads(&mut self, out: &mut Outputs) {
        let Standing::Leader(leader) = &self.standing else { return };
        if leader.leases.reads.is_empty() {
            return;
        }
        let leased = self.lease_until().is_some_and(|until| self.now < until);
        let stamp = self.quorum_stamp(leader);
        let (mut committed, applied) = (self.commit_index, self.applied_index);
        if self.has(Bug::ReadBeforeBarrierCommit) {
            committed = self.pending_barrier().unwrap_or(committed);
        }
        let Standing::Leader(leader) = &mut self.standing else { return };
        leader.leases.round_overdue &= stamp < leader.leases.round;
        let confirmed = |read: &PendingRead| leased || read.stamp <= stamp || read.last_index < committed;
        let reads = &mut leader.leases.reads;
        while reads.front().is_some_and(|read| confirmed(read) && read.index <= applied) {
            let PendingRead { token, .. } = reads.pop_front().expect("front() has just returned it");
            out.push(Output::Complete { token, result: Ok(applied) });
        }
        // What confirms a read confirms all before it, and none of them waits for a later round.
        if reads.back().is_some_and(|read| !confirmed(read) && read.stamp > leader.leases.current) {
            self.ask_for_reads(out);
        }
    }

    /// Reads must not wait for servers that turn out not to answer with stamps, or are gone: those that do
    /// not send stamps can commit a barrier.
    pub(super) fn read_tick(&mut self, out: &mut Outputs) {
        self.confirm_reads(out);
        let Standing::Leader(leader) = &self.standing else { return };
        let unconfirmed = leader.leases.reads.back().is_some_and(|read| read.last_index >= self.commit_index);
        let unanswered = self.quorum_stamp(leader) < leader.leases.round;
        let since_ms = self.now.0.saturating_sub(leader.leases.round_begin.0);
        let overdue = unanswered && since_ms >= self.options.heartbeat_timeout_ms;
        let overdue = overdue && !self.has(Bug::ReadWaitsForStamps);
        let Standing::Leader(leader) = &mut self.standing else { return };
        leader.leases.round_overdue |= unconfirmed && overdue;
        if unconfirmed && (overdue || !self.can_ask_a_quorum()) {
            self.ask_for_reads(out);
        }
    }
}

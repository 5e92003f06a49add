//! How everything must be well again when nothing more goes wrong: at the end of a run with all servers, and
//! at moments in between with a majority of them.

use super::{Event, Node, RECOVERY_US, World, trace};
use crate::history::{Operation, Outcome};
use crate::random::Random;
use crate::settings::{id_of, node_of};
use dqlite::raft::{Configuration, EntryKind, Raft, Role, State, Status, Term};
use std::fmt::Write;

/// How long a leadership must last.
const STEADY_ELECTION_TIMEOUTS: u64 = 5;

impl World {
    /// What if nothing more went wrong from now on, but some servers never came back, or never heard anything
    /// again? As long as a majority is left, it must get along. The world itself goes on as if nobody had
    /// asked.
    pub(super) fn suppose(&mut self, again: bool) {
        if again {
            let delay = self.random.between(1, self.settings.duration_us / 4);
            self.schedule(delay, Event::Suppose { again });
        }
        self.count("what if the faults ended here");
        let mut branch = self.clone();
        branch.random = Random::new(self.random.draw());
        // Nobody may hear of a configuration that those who are left cannot serve.
        for event in branch.bodies.iter_mut() {
            event.take_if(|event| matches!(event, Event::Deliver { .. }));
        }
        branch.lose_a_minority();
        branch.faults_end = self.now;
        branch.recover();
        match branch.run() {
            Ok(summary) => self.mix(summary.hash),
            Err(why) => {
                self.trace = branch.trace;
                let which = |lost: fn(&Node) -> bool| -> Vec<usize> {
                    (0..branch.nodes.len()).filter(|n| lost(&branch.nodes[*n])).map(|n| n + 1).collect()
                };
                let (gone, deaf) = (which(|node| node.gone), which(|node| node.deaf));
                self.failure.get_or_insert(format!("if {gone:?} were gone and {deaf:?} deaf: {why}"));
            }
        }
    }

    /// Takes servers away for good, but no majority of any configuration. C servers are not made deaf: they
    /// disrupt others for ever when a leader has asked them to campaign.
    fn lose_a_minority(&mut self) {
        let known: Vec<Configuration> =
            (0..self.nodes.len()).flat_map(|node| self.configurations_of(node)).collect();
        let start = self.random.between(0, self.nodes.len() as u64 - 1) as usize;
        for n in 0..self.nodes.len() {
            let node = (start + n) % self.nodes.len();
            if self.random.permille(200) {
                continue;
            }
            self.nodes[node].gone = true;
            let left = |id| !self.nodes[node_of(id)].is_lost();
            let majority = |known: &Configuration| {
                known.voters().filter(|voter| left(voter.id)).count() >= known.quorum()
            };
            if !known.iter().all(majority) || !self.newest_log_is_of_a_voter() {
                self.nodes[node].gone = false;
                continue;
            }
            // A server that can be promoted and hears nothing would become a voter for nothing.
            let votes = known.iter().all(|configuration| configuration.is_voter(id_of(node)));
            if self.random.permille(500) && votes && !self.settings.plain[node] {
                trace!(self, "server {} hears nothing any more", node + 1);
                (self.nodes[node].gone, self.nodes[node].deaf) = (false, true);
                continue;
            }
            trace!(self, "server {} is gone for good", node + 1);
            self.crash(node);
        }
    }

    /// Whether somebody who may campaign has the newest log of those who are left. A stand-by that has it
    /// keeps a server from being elected that counts it as a voter, by a change that was not committed and
    /// that it has lost: the price of stand-bys that never campaign, until a server that is gone comes back.
    fn newest_log_is_of_a_voter(&self) -> bool {
        let end = |node: &Node| match (&node.raft, node.disk.entries.last(), &node.disk.snapshot) {
            (Some(raft), ..) => (raft.status().last_term, raft.status().last_index.0),
            (None, Some(entry), _) => (entry.term, node.disk.last()),
            (None, None, Some((point, _))) => (point.term, point.index.0),
            (None, None, None) => (Term(0), 0),
        };
        let left = || (0..self.nodes.len()).filter(|node| !self.nodes[*node].is_lost());
        let newest = left().map(|node| end(&self.nodes[node])).max();
        let votes = |node| self.configurations_of(node).all(|known| known.is_voter(id_of(node)));
        left().any(|node| Some(end(&self.nodes[node])) == newest && votes(node))
    }

    /// The configuration in force, and the one that would be after a restart.
    fn configurations_of(&self, node: usize) -> impl Iterator<Item = Configuration> {
        let server = &self.nodes[node];
        let running = server.raft.as_ref().map(|raft| raft.status().configuration.clone());
        let change = server.disk.entries.iter().rev().find(|entry| entry.kind == EntryKind::Change);
        let stored = change.map(|entry| Configuration::decode(entry.payload.clone()).unwrap());
        let snapshot = server.disk.snapshot.as_ref().map(|(point, _)| point.configuration.clone());
        let all = running.into_iter().chain(stored.or(snapshot));
        all.filter(|configuration| !configuration.servers.is_empty())
    }

    pub(super) fn recover(&mut self) {
        trace!(self, "no more faults");
        self.recovering = true;
        for (blocked, lags) in self.blocked.iter_mut().zip(&mut self.lags) {
            blocked.fill(0);
            lags.fill((0, 0));
        }
        for node in 0..self.nodes.len() {
            if self.nodes[node].deaf {
                self.blocked.iter_mut().for_each(|row| row[node] = u64::MAX);
            }
            self.nodes[node].paused_until = 0;
            self.nodes[node].full_until = 0;
            if self.nodes[node].raft.is_none() && !self.nodes[node].gone {
                self.boot(node);
            }
        }
        self.schedule(self.settings.election_ms * 3000, Event::CheckRecovery);
    }

    /// One leader, which takes writes, every server that replicates has everything, and reads need no write
    /// to be confirmed.
    pub(super) fn check_recovery(&mut self) {
        let appended = self.probe_ended(self.probe, |outcome| outcome == Outcome::Appended);
        let converged = appended && self.has_converged();
        let term = self.leader().map(|(_, status)| status.term);
        if term != self.steady.0 {
            self.steady = (term, self.now);
        }
        // Whoever hears nothing must not end one leadership after the other.
        let steady_us = if self.nodes.iter().any(|node| node.deaf) { STEADY_ELECTION_TIMEOUTS } else { 0 };
        let steady = self.now - self.steady.1 >= steady_us * self.settings.election_ms * 1000;
        let has_read = self.probe_ended(self.read_probe, |outcome| matches!(outcome, Outcome::Saw(_)));
        if converged && has_read && steady {
            self.events.clear();
            return;
        }
        if self.now > self.faults_end + RECOVERY_US {
            let mut states = String::new();
            for node in &self.nodes {
                write!(states, "\n  {:?}", node.raft.as_ref().map(Raft::status)).unwrap();
            }
            let what = match (converged, has_read) {
                (true, true) => "lasting leadership",
                (true, false) => "reads",
                _ => "recovery",
            };
            self.fail(format!("no {what} after the last fault{states}"));
            return;
        }
        self.schedule(self.settings.election_ms * 1000, Event::CheckRecovery);
        let Some((leader, _)) = self.leader() else { return };
        if !appended {
            self.next_value += 1;
            let operation = Operation::Append { value: self.next_value };
            self.probe = Some(self.probe_with(operation, leader));
        } else if converged && self.probe_ended(self.read_probe, |_| true) || self.read_probe.is_none() {
            self.read_probe = Some(self.probe_with(Operation::Read, leader));
        }
    }

    fn probe_with(&mut self, operation: Operation, node: usize) -> usize {
        let number = self.history.invoke(self.now, operation);
        self.ask(usize::MAX, number, node);
        number
    }

    fn probe_ended(&self, probe: Option<usize>, wanted: fn(Outcome) -> bool) -> bool {
        probe.and_then(|number| self.history.outcome(number)).is_some_and(wanted)
    }

    /// Who leads in the highest term, of those who are left.
    fn leader(&self) -> Option<(usize, Status<'_>)> {
        let status = |node: usize| self.nodes[node].raft.as_ref().map(Raft::status);
        let left = (0..self.nodes.len()).filter(|node| !self.nodes[*node].is_lost());
        let all = left.filter_map(|node| Some((node, status(node)?)));
        all.filter(|(_, status)| status.state == State::Leader).max_by_key(|(_, status)| status.term)
    }

    fn has_converged(&self) -> bool {
        let Some((node, leader)) = self.leader() else { return false };
        let members = leader.configuration.servers.iter().filter(|server| server.role != Role::Spare);
        let mut members =
            members.map(|server| &self.nodes[node_of(server.id)]).filter(|node| !node.is_lost());
        leader.configuration.is_voter(id_of(node))
            && members.all(|node| {
                let status = node.raft.as_ref().map(Raft::status);
                status.is_some_and(|s| s.commit_index == leader.last_index && s.term == leader.term)
            })
    }
}

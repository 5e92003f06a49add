//! What goes wrong in the world, and how everything must be well again when it stops.

use super::{Event, Node, RECOVERY_US, Request, World, trace};
use crate::history::Operation;
use crate::settings::{id_of, node_of};
use dqlite::raft::{Input, Raft, Role, ServerId, State, Token};
use std::fmt::Write;

impl World {
    pub(super) fn fault(&mut self) {
        // Trouble seldom comes alone.
        let burst = self.random.permille(350);
        let (low, high) = if burst { (0, self.settings.election_ms * 100) } else { self.settings.fault_us };
        let delay = self.random.between(low, high);
        self.schedule(delay, Event::Fault);
        if self.settings.coups && self.random.permille(800) {
            return self.coup();
        }
        let any = self.random.between(0, self.nodes.len() as u64 - 1) as usize;
        let node = if self.random.permille(400) { self.leader_hint } else { any };
        let election_us = self.settings.election_ms * 1000;
        let length = self.random.between(election_us / 20, 4 * election_us);
        match self.random.between(0, 9) {
            0..=2 => self.crash(node),
            3 => {
                trace!(self, "server {} is paused for {length} us", node + 1);
                self.nodes[node].paused_until = self.now + length;
            }
            4 => {
                trace!(self, "server {} is cut off for {length} us", node + 1);
                if self.random.permille(400) {
                    self.end_connections(node);
                }
                for other in 0..self.nodes.len() {
                    self.blocked[node][other] = self.now + length;
                    self.blocked[other][node] = self.now + length;
                }
            }
            5 => {
                trace!(self, "server {} cannot send for {length} us", node + 1);
                self.blocked[node].fill(self.now + length);
            }
            6 => {
                trace!(self, "server {} cannot receive for {length} us", node + 1);
                for row in &mut self.blocked {
                    row[node] = self.now + length;
                }
            }
            7 => {
                trace!(self, "server {} cannot reach {} for {length} us", node + 1, any + 1);
                let other = self.random.between(0, self.nodes.len() as u64 - 1) as usize;
                self.blocked[any][other] = self.now + length;
            }
            8 => {
                trace!(self, "connections of server {} end", node + 1);
                self.end_connections(node);
            }
            _ => self.fail_disk(node),
        }
    }

    /// Followers lose the leader, for real or not, and restart while its lease may be running.
    fn coup(&mut self) {
        let (leader, length) = (self.leader_hint, self.random.between(10_000, 600_000));
        let other = (leader + self.random.between(1, 2) as usize) % self.nodes.len();
        if self.random.permille(250) && self.nodes[leader].raft.is_some() {
            let token = Token(self.next_token);
            self.next_token += 1;
            self.summary.transfers += 1;
            self.step(leader, Input::Transfer { token, to: Some(id_of(other)) });
            return;
        }
        let all = self.random.permille(500);
        trace!(self, "server {} loses {} (all: {all}) for {length} us", leader + 1, other + 1);
        for node in (0..self.nodes.len()).filter(|node| *node != leader && (all || *node == other)) {
            self.blocked[node][leader] = self.now + length;
            self.blocked[leader][node] = self.now + length;
            let delay = self.random.between(50, 3000);
            self.schedule(delay, Event::ConnectionLost { node, leader });
        }
        if self.random.permille(600) {
            let third = (0..self.nodes.len()).find(|node| *node != leader && *node != other);
            let delay = self.random.between(50_000, 700_000);
            self.schedule(delay, Event::Blink { node: third.unwrap_or(other) });
        }
    }

    /// The process restarts at once.
    pub(super) fn blink(&mut self, node: usize) {
        if self.nodes[node].raft.is_some() && !self.recovering {
            self.crash(node);
            self.boot(node);
        }
    }

    fn crash(&mut self, node: usize) {
        if self.nodes[node].raft.take().is_none() {
            return;
        }
        trace!(self, "server {} crashes", node + 1);
        let server = &mut self.nodes[node];
        server.life += 1;
        server.held.clear();
        server.asked.clear();
        server.disk.crash(&mut self.random);
        server.state = State::Follower;
        // A killed process closes its connections; a host that vanished does not.
        if self.random.permille(700) {
            self.end_connections(node);
        }
        let election_us = self.settings.election_ms * 1000;
        let delay = if self.random.permille(500) {
            self.random.between(500, election_us / 4)
        } else {
            self.random.between(election_us / 4, 6 * election_us)
        };
        self.schedule(delay, Event::Restart { node });
    }

    /// Everything not synced yet is lost, and nothing more will be written; the owner restarts the server
    /// later.
    fn fail_disk(&mut self, node: usize) {
        let disk = &mut self.nodes[node].disk;
        let first = disk.queue.iter().find_map(|request| match request {
            Request::Vote { seq, .. } | Request::Append { seq, .. } | Request::Truncate { seq, .. } => {
                Some(*seq)
            }
            Request::Install { .. } => None,
        });
        let installs = disk.queue.iter().any(|request| matches!(request, Request::Install { .. }));
        let (Some(seq), false, true) = (first, installs, self.nodes[node].raft.is_some()) else { return };
        trace!(self, "the disk of server {} fails", node + 1);
        self.nodes[node].disk.queue.clear();
        self.nodes[node].disk.syncing = 0;
        self.nodes[node].held.clear();
        self.step(node, Input::DiskFailed { seq });
        self.crash(node);
    }

    // ---- the end ----

    pub(super) fn recover(&mut self) {
        trace!(self, "no more faults");
        self.recovering = true;
        for row in &mut self.blocked {
            row.fill(0);
        }
        for node in 0..self.nodes.len() {
            self.nodes[node].paused_until = 0;
            if self.nodes[node].raft.is_none() {
                self.boot(node);
            }
        }
        self.schedule(self.settings.election_ms * 3000, Event::CheckRecovery);
    }

    /// One leader, which takes writes, and every server that replicates has everything.
    pub(super) fn check_recovery(&mut self) {
        if self.probe.is_some_and(|number| self.history.has_succeeded(number)) && self.has_converged() {
            self.events.clear();
            return;
        }
        if self.now > self.faults_end + RECOVERY_US {
            let mut states = String::new();
            for node in &self.nodes {
                write!(states, "\n  {:?}", node.raft.as_ref().map(Raft::status)).unwrap();
            }
            self.fail(format!("no recovery after the last fault{states}"));
            return;
        }
        self.schedule(self.settings.election_ms * 1000, Event::CheckRecovery);
        if self.probe.is_none_or(|number| !self.history.has_succeeded(number)) {
            self.next_value += 1;
            let number = self.history.invoke(self.now, Operation::Append { value: self.next_value });
            self.probe = Some(number);
            let leads = |node: &Node| {
                let status = node.raft.as_ref().map(Raft::status)?;
                (status.state == State::Leader).then_some(status.term)
            };
            let leaders = self.nodes.iter().enumerate().filter_map(|(n, node)| Some((leads(node)?, n)));
            if let Some((_, node)) = leaders.max() {
                self.ask(usize::MAX, number, node);
            }
        }
    }

    fn has_converged(&self) -> bool {
        let statuses: Vec<_> = self.nodes.iter().filter_map(|n| n.raft.as_ref()).map(Raft::status).collect();
        let Some(leader) =
            statuses.iter().filter(|status| status.state == State::Leader).max_by_key(|s| s.term)
        else {
            return false;
        };
        if !leader.configuration.is_voter(id_of(statuses.iter().position(|status| status == leader).unwrap()))
        {
            return false;
        }
        let members = leader.configuration.servers.iter().filter(|server| server.role != Role::Spare);
        let ids: Vec<ServerId> = members.map(|server| server.id).collect();
        ids.iter().all(|id| {
            let status = &statuses[node_of(*id)];
            status.commit_index == leader.last_index && status.term == leader.term
        })
    }
}

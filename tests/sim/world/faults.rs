//! What goes wrong in the world.

use super::{Event, Request, World, trace};
use crate::history::Operation;
use crate::settings::id_of;
use dqlite::raft::{Input, State};

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
        match self.random.between(0, 14) {
            0..=2 => self.crash(node),
            3 => {
                let leads = self.nodes[node].state == State::Leader;
                self.count(if leads { "pause of a leader" } else { "pause of a follower" });
                trace!(self, "server {} is paused for {length} us", node + 1);
                self.nodes[node].paused_until = self.now + length;
            }
            4..=9 => self.cut(node, any, length),
            10 => {
                trace!(self, "connections of server {} end", node + 1);
                self.end_connections(node);
            }
            11 => {
                trace!(self, "the disk of server {} is full for {length} us", node + 1);
                self.nodes[node].full_until = self.now + length;
            }
            12 | 13 => {
                let lag = self.random.between(election_us / 4, 4 * election_us);
                let (all, other) = (self.nodes.len(), any + (any == node) as usize);
                let other = other % all;
                trace!(
                    self,
                    "from server {} to {} all takes {lag} us more for {length} us",
                    other + 1,
                    node + 1
                );
                self.count("long queue between two servers");
                self.lags[other][node] = (self.now + length, lag);
            }
            _ => {
                if self.is_running(node) && self.nodes[node].disk.queue.iter().all(|r| r.seq().is_some()) {
                    self.fail_disk(node);
                }
            }
        }
    }

    fn block(&mut self, from: usize, to: usize, until: u64) {
        self.blocked[from][to] = self.blocked[from][to].max(until);
    }

    /// Blocks the network, wholly or in part.
    fn cut(&mut self, node: usize, any: usize, length: u64) {
        let all = self.nodes.len();
        let other = self.random.between(0, all as u64 - 1) as usize;
        let kind = self.random.between(0, 5);
        let side: Vec<bool> = (0..all).map(|_| self.random.permille(500)).collect();
        let leads = self.nodes[node].state == State::Leader;
        let (what, until) = (self.random.permille(400), self.now + length);
        self.count(match kind {
            0 if leads => "leader cut off",
            0 => "follower cut off",
            1 => "cannot send",
            2 => "cannot receive",
            3 => "pair cut in one direction",
            4 => "pair cut in both directions",
            _ => "servers split in two",
        });
        trace!(
            self,
            "cut {kind} of server {} for {length} us ({} and {}; {side:?})",
            node + 1,
            any + 1,
            other + 1
        );
        if kind == 0 && what {
            self.end_connections(node);
        }
        if matches!(kind, 0 | 5) && leads && self.random.permille(500) {
            self.write_on(node);
        }
        for from in 0..all {
            for to in 0..all {
                let cut = match kind {
                    0 => from == node || to == node,
                    1 => from == node,
                    2 => to == node,
                    3 => from == any && to == other,
                    4 => (from, to) == (any, other) || (to, from) == (any, other),
                    _ => side[from] != side[to],
                };
                if cut {
                    self.block(from, to, until);
                }
            }
        }
    }

    /// Clients of a leader go on writing while others may elect another one: logs grow apart. Could any
    /// majority go on from there?
    fn write_on(&mut self, node: usize) {
        let election_us = self.settings.election_ms * 1000;
        for _ in 0..self.random.between(1, 50) {
            self.next_value += 1;
            let number = self.history.invoke(self.now, Operation::Append { value: self.next_value });
            let delay = self.random.between(0, election_us);
            self.schedule(delay, Event::Ask { client: usize::MAX, number, node });
        }
        let delay = self.random.between(election_us / 4, 4 * election_us);
        self.schedule(delay, Event::Suppose { again: false });
    }

    /// A server that was asked to campaign is heard late, or hears nothing for a while, or is cut off, and
    /// longer from one of the others.
    pub(super) fn obstruct(&mut self, candidate: usize) {
        let election_us = self.settings.election_ms * 1000;
        let length = self.random.between(election_us / 4, 3 * election_us);
        let longer = self.random.between(length, length + 4 * election_us);
        let (deaf, all) = (self.random.permille(500), self.nodes.len());
        let one = (candidate + self.random.between(1, all as u64 - 1) as usize) % all;
        trace!(
            self,
            "server {} is cut off (deaf: {deaf}) for {length} us, {longer} us from {}",
            candidate + 1,
            one + 1
        );
        self.count("target of a transfer out of reach");
        if self.random.permille(300) {
            let delay = self.random.between(0, 2 * election_us);
            self.schedule(delay, Event::Suppose { again: false });
        }
        let slow = self.random.permille(500);
        for other in 0..all {
            if slow {
                let lag = self.random.between(election_us / 4, 3 * election_us);
                self.lags[candidate][other] = (self.now + length, lag);
                continue;
            }
            self.block(other, candidate, self.now + length);
            self.block(candidate, other, if deaf { 0 } else { self.now + length });
        }
        self.block(one, candidate, self.now + longer);
        self.block(candidate, one, self.now + longer);
    }

    /// Followers lose the leader, for real or not, and restart while its lease may be running.
    fn coup(&mut self) {
        let (leader, length) = (self.leader_hint, self.random.between(10_000, 600_000));
        let other = (leader + self.random.between(1, 2) as usize) % self.nodes.len();
        if self.random.permille(self.settings.transfers) && self.is_running(leader) {
            let token = self.token();
            self.summary.transfers += 1;
            return self.step(leader, Input::Transfer { token, to: Some(id_of(other)) });
        }
        let all = self.random.permille(500);
        trace!(self, "server {} loses {} (all: {all}) for {length} us", leader + 1, other + 1);
        for node in (0..self.nodes.len()).filter(|node| *node != leader && (all || *node == other)) {
            self.block(node, leader, self.now + length);
            self.block(leader, node, self.now + length);
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

    pub(super) fn crash(&mut self, node: usize) {
        if self.nodes[node].raft.take().is_none() {
            return;
        }
        self.count("crash");
        trace!(self, "server {} crashes", node + 1);
        let server = &mut self.nodes[node];
        server.life += 1;
        server.held.clear();
        server.asked.clear();
        if server.disk.crash(&mut self.random) {
            self.count("append torn by a crash");
        }
        self.nodes[node].state = State::Follower;
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

    /// A write fails: the requests from the first one in the queue on are lost, and nothing more will be
    /// written. The node is fenced; its owner restarts it later.
    pub(super) fn fail_disk(&mut self, node: usize) {
        let disk = &mut self.nodes[node].disk;
        let Some(seq) = disk.queue.iter().find_map(Request::seq) else { return };
        trace!(self, "the disk of server {} fails", node + 1);
        self.count("disk failed");
        let server = &mut self.nodes[node];
        server.disk.queue.clear();
        server.disk.syncing = 0;
        server.held.clear();
        self.step(node, Input::DiskFailed { seq });
        self.crash(node);
    }
}

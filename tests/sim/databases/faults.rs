//! What goes wrong in a world of databases.

use super::{Event, World, trace};
use crate::settings::id_of;
use dqlite::raft::{Input, State};

impl World {
    pub(super) fn fault(&mut self) {
        let burst = self.random.permille(300);
        let delay = if burst { (0, self.settings.election_ms * 100) } else { self.settings.fault_us };
        let delay = self.delay(delay);
        self.schedule(delay, Event::Fault);
        let any = self.random.between(0, self.servers.len() as u64 - 1) as usize;
        let leader = self.leaders().last().copied().unwrap_or(any);
        let node = if self.random.permille(600) { leader } else { any };
        let election_us = self.settings.election_ms * 1000;
        let length = self.random.between(election_us / 20, 4 * election_us);
        match self.random.between(0, 10) {
            0 | 1 => self.crash(node),
            2 => {
                self.count("pause");
                trace!(self, "server {} is paused for {length} us", node + 1);
                self.servers[node].paused_until = self.now + length;
            }
            3..=6 => self.cut(node, any, length),
            7 => self.end_connections(node),
            8 => {
                trace!(self, "the disk of server {} is full for {length} us", node + 1);
                self.servers[node].full_until = self.now + length;
            }
            _ => {
                self.count("transfer");
                let to = (any != leader).then_some(id_of(any));
                trace!(self, "server {} is asked to transfer its leadership to {to:?}", leader + 1);
                let token = self.token();
                if self.servers[leader].paused_until <= self.now {
                    self.step(leader, Input::Transfer { token, to });
                }
            }
        }
    }

    fn cut(&mut self, node: usize, any: usize, length: u64) {
        self.count("network cut");
        let kind = self.random.between(0, 3);
        trace!(self, "cut {kind} of server {} and {} for {length} us", node + 1, any + 1);
        let side: Vec<bool> = (0..self.servers.len()).map(|_| self.random.permille(500)).collect();
        let until = self.now + length;
        for from in 0..self.servers.len() {
            for to in 0..self.servers.len() {
                let cut = match kind {
                    0 => from == node || to == node,
                    1 => from == node,
                    2 => to == node,
                    _ => side[from] != side[to],
                };
                if cut {
                    self.blocked[from][to] = self.blocked[from][to].max(until);
                }
            }
        }
        if self.random.permille(300) {
            self.end_connections(node);
        }
    }

    /// Tells those who follow a leader that its connection ended.
    fn end_connections(&mut self, leader: usize) {
        for node in (0..self.servers.len()).filter(|node| *node != leader) {
            let delay = self.delay((50, 3000));
            self.schedule(delay, Event::ConnectionLost { node, leader });
        }
    }

    /// The power goes.
    pub(super) fn crash(&mut self, node: usize) {
        let Some(running) = &self.servers[node].running else { return };
        let led = running.state == State::Leader;
        self.count(if led { "crash of a leader" } else { "crash" });
        trace!(self, "server {} crashes", node + 1);
        if led {
            self.note_abort(node);
        }
        self.lose_sessions(node);
        self.lose_readers(node);
        let server = &mut self.servers[node];
        server.running = None;
        server.life += 1;
        if server.disk.crash(&mut self.random) {
            self.count("append torn by a crash");
        }
        if self.random.permille(700) {
            self.end_connections(node);
        }
        let election_us = self.settings.election_ms * 1000;
        let delay = self.delay((500, 4 * election_us));
        self.schedule(delay, Event::Restart { node });
    }
}

//! Those who want something from the servers: clients, and an administrator who changes the configuration.

use super::{Event, World, trace};
use crate::history::{Operation, Outcome};
use crate::settings::{address_of, id_of};
use bytes::Bytes;
use dqlite::raft::{Change, Index, Input, Refusal, Role, Token};

impl World {
    pub(super) fn client(&mut self, client: usize) {
        if self.recovering {
            return;
        }
        let operation = if self.random.permille(self.settings.appends) {
            self.next_value += 1;
            Operation::Append { value: self.next_value }
        } else {
            Operation::Read
        };
        let node = if self.random.permille(800) {
            self.leader_hint
        } else {
            self.random.between(0, self.nodes.len() as u64 - 1) as usize
        };
        let number = self.history.invoke(self.now, operation);
        self.waits[client] = Some(number);
        let delay = self.random.between(0, 500);
        self.schedule(delay, Event::Ask { client, number, node });
        let patience = self.random.between(self.settings.election_ms * 500, self.settings.election_ms * 8000);
        self.schedule(patience, Event::GiveUp { client, number });
    }

    pub(super) fn client_is_free(&mut self, client: usize) {
        self.waits[client] = None;
        let (low, high) = self.settings.think_us;
        let delay = self.random.between(low, high.max(low));
        self.schedule(delay, Event::Client { client });
    }

    pub(super) fn ask(&mut self, client: usize, number: usize, node: usize) {
        if self.nodes[node].raft.is_none() {
            self.end(number, Outcome::Refused);
            return;
        }
        let token = self.token();
        match self.history.operation(number) {
            Operation::Append { value } => {
                trace!(self, "client {client} asks server {} to append {value} ({number})", node + 1);
                self.nodes[node].asked.insert(token, number);
                let mut commands = vec![Bytes::copy_from_slice(&value.to_le_bytes())];
                if self.random.permille(300) {
                    // Others come along, which mean nothing to the state machine.
                    let more = self.random.between(1, 4) as usize;
                    commands.resize(1 + more, Bytes::from_static(&[0; 16]));
                }
                self.step(node, Input::Propose { token, commands });
            }
            Operation::Read => {
                trace!(self, "client {client} asks server {} to read ({number})", node + 1);
                let server = &self.nodes[node];
                let raft = server.raft.as_ref().unwrap();
                let status = raft.status();
                let leased = raft.lease_until().is_some_and(|until| self.local_time(node) < until);
                if leased && status.applied_index == status.commit_index && self.random.permille(500) {
                    let length = server.list.len() as u64;
                    trace!(self, "server {} answers by its lease", node + 1);
                    self.count("read by lease at once");
                    self.end(number, Outcome::Saw(length));
                    return;
                }
                self.nodes[node].asked.insert(token, number);
                self.step(node, Input::Read { token });
            }
        }
    }

    pub(super) fn complete(&mut self, node: usize, token: Token, result: Result<Index, Refusal>) {
        let Some(number) = self.nodes[node].asked.remove(&token) else { return };
        let length = self.nodes[node].list.len() as u64;
        let outcome = match (self.history.operation(number), result) {
            (Operation::Append { .. }, Ok(_)) => Outcome::Appended,
            (Operation::Read, Ok(_)) => Outcome::Saw(length),
            (_, Err(Refusal::NotLeader | Refusal::DiskFull)) => Outcome::Refused,
            (_, Err(_)) => Outcome::Unknown,
        };
        self.end(number, outcome);
    }

    fn end(&mut self, number: usize, outcome: Outcome) {
        trace!(self, "operation {number}: {outcome:?}");
        self.history.end(self.now, number, outcome);
        if let Some(client) = self.waits.iter().position(|waits| *waits == Some(number)) {
            self.client_is_free(client);
        }
    }

    pub(super) fn admin(&mut self) {
        let (low, high) = self.settings.admin_us;
        let delay = self.random.between(low, high);
        self.schedule(delay, Event::Admin);
        let node = self.leader_hint;
        let Some(raft) = self.nodes[node].raft.as_ref().filter(|_| self.is_running(node)) else { return };
        let configuration = raft.status().configuration.clone();
        let any = self.random.between(0, self.nodes.len() as u64 - 1) as usize;
        let id = id_of(any);
        let change = match configuration.get(id) {
            None => Some(Change::Add { id, address: address_of(any) }),
            Some(_) if self.random.permille(200) => None,
            Some(_) if self.random.permille(150) => Some(Change::Remove { id }),
            Some(server) => {
                let role = match server.role {
                    Role::Spare => self.random.one_of(&[Role::Voter, Role::Voter, Role::Standby]),
                    Role::Standby => self.random.one_of(&[Role::Voter, Role::Voter, Role::Spare]),
                    Role::Voter => self.random.one_of(&[Role::Standby, Role::Spare]),
                };
                Some(Change::Assign { id, role })
            }
        };
        trace!(self, "admin asks server {} for {change:?} (transfer to {id} if none)", node + 1);
        match change {
            Some(change) => {
                self.summary.changes += 1;
                let token = self.token();
                self.step(node, Input::Change { token, change });
            }
            None => {
                self.summary.transfers += 1;
                let token = self.token();
                let to = self.random.permille(700).then_some(id);
                self.step(node, Input::Transfer { token, to });
            }
        }
    }
}

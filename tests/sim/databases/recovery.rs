//! The end of a run: nothing more goes wrong, every client is served once more, and all databases are alike.

use super::reference::NAMES;
use super::{Event, Fate, World, trace};
use std::collections::BTreeMap;

/// Longest time after the last fault in which everything must be well again.
const RECOVERY_US: u64 = 60_000_000;
const CHECK_US: u64 = 50_000;

impl World {
    pub(super) fn recover(&mut self) {
        trace!(self, "nothing more goes wrong");
        self.recovering = true;
        self.blocked.iter_mut().flatten().for_each(|until| *until = 0);
        for node in 0..self.servers.len() {
            // A pause goes on to its end: what came meanwhile waits for that.
            self.servers[node].full_until = 0;
            self.boot(node);
        }
        self.schedule(CHECK_US, Event::CheckRecovery);
    }

    pub(super) fn check_recovery(&mut self) {
        if self.clients_are_done() && self.servers_are_equal() {
            let verdict = self.check_databases();
            self.judge(verdict);
            self.events.clear();
        } else if self.now > self.settings.duration_us + RECOVERY_US {
            self.fail("it is not well again after the faults".into());
        } else {
            self.schedule(CHECK_US, Event::CheckRecovery);
        }
    }

    fn servers_are_equal(&self) -> bool {
        let last = self.reference.last();
        let mut running = self.servers.iter().map(|server| server.running.as_ref());
        running.all(|r| r.is_some_and(|r| r.applier.applied() == last && r.raft.status().last_index == last))
    }

    /// Every acknowledged value is there exactly once, none that was refused, and SQLite is content.
    fn check_databases(&mut self) -> Result<(), String> {
        for (number, name) in NAMES.iter().enumerate() {
            for node in 0..self.servers.len() {
                let at = |why: String| format!("server {}, {name:?}: {why}", node + 1);
                let mut times = BTreeMap::new();
                for value in self.inspect(node, number).map_err(at)? {
                    *times.entry(value as u64).or_insert(0u64) += 1;
                }
                if let Some((value, times)) = times.iter().find(|(_, times)| **times > 1) {
                    return Err(at(format!("value {value} is there {times} times")));
                }
                for (value, fate) in &self.fates[number] {
                    match (fate, times.remove(value).is_some()) {
                        (Fate::Acknowledged, false) => {
                            return Err(at(format!("value {value} was acknowledged and is lost")));
                        }
                        (Fate::Refused, true) => {
                            return Err(at(format!("value {value} was refused and is there")));
                        }
                        _ => {}
                    }
                }
                if let Some((value, _)) = times.pop_first() {
                    return Err(at(format!("value {value} was written by nobody")));
                }
            }
        }
        Ok(())
    }
}

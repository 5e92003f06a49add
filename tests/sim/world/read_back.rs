//! Entries that have left memory and are read back from the disk of their server.

use super::{Event, World};
use dqlite::raft::{Entry, Index, Input, ServerId, State, Term};

impl World {
    pub(super) fn read_entries(&mut self, node: usize, to: ServerId, range: (Index, Index)) {
        let server = &self.nodes[node];
        let raft = server.raft.as_ref().unwrap();
        let asked = raft.status().term;
        let verdict = self.checker.evicted(node, raft, range, &server.disk);
        self.judge(verdict);
        let mut delay = self.random.between(20, 2000);
        if !self.recovering && self.random.permille(100) {
            delay += self.random.between(0, self.settings.election_ms * 4000);
        }
        let life = self.nodes[node].life;
        self.schedule(delay, Event::EntriesRead { node, life, to, range, asked });
    }

    /// What is on disk by now; or the disk fails, or finds something else.
    pub(super) fn entries_read(
        &mut self,
        node: usize,
        to: ServerId,
        (first, last): (Index, Index),
        asked: Term,
    ) {
        let count = self.random.between(1, last.0 - first.0 + 1);
        let disk = &self.nodes[node].disk;
        let mut entries: Vec<Entry> =
            (first.0..first.0 + count).map_while(|i| disk.entry(i).cloned()).collect();
        let raft = self.nodes[node].raft.as_ref().unwrap();
        let leads = raft.status().state == State::Leader;
        let same_term = raft.status().term == asked;
        if entries.is_empty() {
            self.count("read back what was dropped");
        } else if !self.recovering && self.random.permille(self.settings.bad_reads) {
            self.count("read back failed");
            entries.clear();
        } else if !self.recovering && self.random.permille(self.settings.bad_reads) {
            self.count("read back something else");
            let number = self.random.between(0, entries.len() as u64 - 1) as usize;
            entries[number].term = entries[number].term.next();
        } else {
            self.count(match (leads, same_term) {
                (true, true) => "read back",
                (true, false) => "read back for a later leadership",
                (false, _) => "read back for nobody",
            });
        }
        self.step(node, Input::EntriesRead { to, entries });
    }
}

//! What must always hold, seen from outside all servers (dissertation figure 3.2).

use crate::disk::Disk;
use dqlite::raft::{
    Configuration, Entry, EntryKind, Index, Message, Raft, ServerId, SnapshotPoint, State, Term,
};
use std::collections::BTreeMap;

type Verdict = Result<(), String>;

/// An entry that was committed, and the term of the server that was first to say so.
#[derive(Debug, Clone)]
struct Committed {
    entry: Entry,
    term: Term,
}

/// What an entry was when it was appended first anywhere.
#[derive(Debug, Clone)]
struct Appended {
    entry: Entry,
    previous: Option<Term>,
    /// The only server that appended it, if there is only one.
    alone: Option<usize>,
}

#[derive(Debug, Clone, Default)]
pub struct Checker {
    leaders: BTreeMap<Term, usize>,
    appended: BTreeMap<(Index, Term), Appended>,
    committed: Vec<Committed>,
    /// The committed commands, in order.
    list: Vec<u64>,
    /// How many of them each committed entry and all before it are.
    lengths: Vec<usize>,
    /// Where the committed configurations stand.
    changes: Vec<Index>,
    votes: BTreeMap<(usize, Term), ServerId>,
}

impl Checker {
    /// Entries every server begins with are committed.
    pub fn new(bootstrap: &[Entry]) -> Checker {
        let mut checker = Checker::default();
        for entry in bootstrap {
            checker.add(entry, entry.term);
        }
        checker
    }

    fn add(&mut self, entry: &Entry, term: Term) {
        self.committed.push(Committed { entry: entry.clone(), term });
        self.list.extend(value_of(entry));
        self.lengths.push(self.list.len());
        if entry.kind == EntryKind::Change {
            self.changes.push(Index(self.committed.len() as u64));
        }
    }

    /// The committed commands, in order.
    pub fn list(&self) -> &[u64] {
        &self.list
    }

    pub fn highest_term(&self) -> Term {
        self.leaders.keys().next_back().copied().unwrap_or(Term(0))
    }

    /// Election safety: one leader a term. Leader completeness: it has everything committed before its term.
    pub fn became_leader(&mut self, node: usize, raft: &Raft) -> Verdict {
        let status = raft.status();
        let term = status.term;
        if let Some(other) = self.leaders.insert(term, node)
            && other != node
        {
            return Err(format!(
                "election safety: servers {} and {} lead in term {term}",
                other + 1,
                node + 1
            ));
        }
        for (position, committed) in self.committed.iter().enumerate() {
            let index = Index(position as u64 + 1);
            if committed.term >= term || index < status.first_index || index <= status.snapshot_index {
                continue;
            }
            // Of what has left memory, only the term tells.
            let whole = raft.entry(index);
            let lacks = raft.term_at(index) != Some(committed.entry.term);
            if lacks || whole.is_some_and(|entry| *entry != committed.entry) {
                return Err(format!(
                    "leader completeness: leader {} of term {term} lacks entry {index}, committed in term {}",
                    node + 1,
                    committed.term
                ));
            }
        }
        Ok(())
    }

    /// What a message says about term and vote is durable.
    pub fn sent<S>(&mut self, node: usize, to: ServerId, message: &Message, disk: &Disk<S>) -> Verdict {
        let (pre_vote, vote) = match message {
            Message::RequestVote(request) => (request.pre_vote, None),
            Message::RequestVoteResult(result) => {
                (result.pre_vote == Some(true), result.granted.then_some(to))
            }
            _ => (false, None),
        };
        if pre_vote {
            return Ok(());
        }
        let term = message.term();
        // Its disk or C's habits may delay a message; but nobody sends entries in the term of another.
        if matches!(message, Message::AppendEntries(_)) && self.leaders.get(&term) != Some(&node) {
            return Err(format!("server {} sends entries in term {term}, which it did not lead", node + 1));
        }
        if disk.term < term || (disk.term == term && vote.is_some() && disk.voted_for != vote) {
            return Err(format!(
                "server {} speaks of a term or vote that is not durable: {message:?}",
                node + 1
            ));
        }
        match vote {
            Some(candidate) => self.voted(node, term, candidate),
            None => Ok(()),
        }
    }

    /// What a server wants to read back is on its disk.
    pub fn evicted(&self, node: usize, raft: &Raft, (first, last): (Index, Index), disk: &Disk) -> Verdict {
        for index in (first.0..=last.0).map(Index) {
            let term = raft.term_at(index);
            if term.is_none() || disk.entry(index.0).map(|entry| entry.term) != term {
                return Err(format!("server {} has entry {index} neither in memory nor on disk", node + 1));
            }
        }
        Ok(())
    }

    /// One vote a term, restarts or not.
    fn voted(&mut self, node: usize, term: Term, candidate: ServerId) -> Verdict {
        match self.votes.insert((node, term), candidate) {
            Some(other) if other != candidate => {
                Err(format!("server {} voted for {other} and for {candidate} in term {term}", node + 1))
            }
            _ => Ok(()),
        }
    }

    /// What the newest leader believes to be stored elsewhere is durable there (dissertation figure 3.1,
    /// matchIndex). Only a later leader may have had it removed.
    pub fn matched<S: Clone + Default>(&self, leader: &Raft, id: ServerId, disk: &Disk<S>) -> Verdict {
        let status = leader.status();
        if !self.leaders.contains_key(&status.term) || status.term < self.highest_term() {
            return Ok(());
        }
        let index = leader.match_index(id);
        match leader.term_at(index) {
            Some(term) if status.state == State::Leader && index > Index(0) && !disk.holds(index.0, term) => {
                Err(format!("the leader believes that server {id} has entry {index} of term {term}"))
            }
            _ => Ok(()),
        }
    }

    /// Log matching: index and term determine the entry and all before it.
    pub fn appended(
        &mut self,
        node: usize,
        first: Index,
        entries: &[Entry],
        before: Option<Term>,
    ) -> Verdict {
        let mut previous = before;
        for (index, entry) in (first.0..).map(Index).zip(entries) {
            let known = self.appended.entry((index, entry.term)).or_insert_with(|| Appended {
                entry: entry.clone(),
                previous,
                alone: Some(node),
            });
            if known.alone == Some(node) {
                // A server that is a cluster by itself stays in its term when it restarts, and may have lost
                // entries. Nobody else may have seen them.
                *known = Appended { entry: entry.clone(), previous, alone: Some(node) };
            } else {
                known.alone = None;
            }
            let differs = known.entry != *entry
                || (known.previous.is_some() && previous.is_some() && known.previous != previous);
            if differs {
                return Err(format!(
                    "log matching: server {} appended another entry {index} of term {}",
                    node + 1,
                    entry.term
                ));
            }
            known.previous = known.previous.or(previous);
            previous = Some(entry.term);
        }
        Ok(())
    }

    /// When a leader changes the configuration, no other change is uncommitted, and its term has committed an
    /// entry, unless nobody else could be elected.
    pub fn changed(&self, raft: &Raft, first: Index, configuration: &Configuration) -> Verdict {
        let status = raft.status();
        let committed = raft.term_at(status.commit_index).is_none_or(|term| term == status.term);
        if !committed && configuration.voters().count() > 1 {
            return Err(format!(
                "a change was made at {first} before term {} committed anything",
                status.term
            ));
        }
        let older = (status.commit_index.0 + 1..first.0).map(Index);
        for index in older {
            if raft.entry(index).is_some_and(|entry| entry.kind == EntryKind::Change) {
                return Err(format!("a change was made at {first} while the one at {index} is uncommitted"));
            }
        }
        Ok(())
    }

    /// State machine safety: everybody applies the same; and what a leader commits is durable on a quorum.
    pub fn committed<S: Clone + Default>(
        &mut self,
        node: usize,
        raft: &Raft,
        (from, up_to): (Index, Index),
        leads: Option<(&Configuration, &[&Disk<S>])>,
    ) -> Verdict {
        let term = raft.status().term;
        for index in (from.0..=up_to.0).map(Index) {
            let Some(entry) = raft.entry(index) else {
                return Err(format!("server {} committed {index} and does not have it", node + 1));
            };
            match self.committed.get(index.0 as usize - 1) {
                Some(known) if known.entry == *entry => {}
                Some(known) => {
                    return Err(format!(
                        "state machine safety: server {} committed at {index}: {entry:?}, not {:?}",
                        node + 1,
                        known.entry
                    ));
                }
                None if self.committed.len() as u64 + 1 == index.0 => {
                    self.add(entry, term);
                }
                None => return Err(format!("server {} skipped entries before {index}", node + 1)),
            }
        }
        match leads {
            Some((configuration, disks)) => durable_on_a_quorum(raft, configuration, up_to, disks),
            None => Ok(()),
        }
    }

    /// A snapshot captures exactly what was committed at its index, with the configuration committed there.
    pub fn captured(&self, node: usize, point: &SnapshotPoint, list: &[u64]) -> Verdict {
        let older = self.changes.partition_point(|index| *index <= point.index);
        let change = older.checked_sub(1).map(|last| self.changes[last].0 as usize - 1);
        let change = change.map(|position| &self.committed[position].entry.payload);
        if change != Some(&point.configuration.encode()) {
            return Err(format!("server {}: snapshot {} has another configuration", node + 1, point.index));
        }
        if self.list[..self.lengths[point.index.0 as usize - 1]] != *list {
            return Err(format!("server {}: snapshot {} was captured elsewhere", node + 1, point.index));
        }
        Ok(())
    }

    /// A snapshot contains what was committed.
    pub fn installed(&self, node: usize, list: &[u64]) -> Verdict {
        if self.list.starts_with(list) {
            return Ok(());
        }
        Err(format!("server {} installed a snapshot of something else", node + 1))
    }
}

/// What a leader commits is of its own term (dissertation 3.6.2) and durable on a quorum.
fn durable_on_a_quorum<S: Clone + Default>(
    raft: &Raft,
    configuration: &Configuration,
    index: Index,
    disks: &[&Disk<S>],
) -> Verdict {
    let Some(entry) = raft.entry(index) else {
        return Err(format!("entry {index} is committed and has left memory"));
    };
    if entry.term != raft.status().term && configuration.voters().count() > 1 {
        return Err(format!("entry {index} of term {} was committed by counting", entry.term));
    }
    let holders = configuration.voters().filter(|voter| {
        disks.get(voter.id.0 as usize - 1).is_some_and(|disk| disk.holds(index.0, entry.term))
    });
    let holders = holders.count();
    if holders < configuration.quorum() {
        return Err(format!("entry {index} was committed when {holders} voters had it on disk"));
    }
    Ok(())
}

/// What a command appends to the list.
pub fn value_of(entry: &Entry) -> Option<u64> {
    let bytes = <[u8; 8]>::try_from(&entry.payload[..]).ok()?;
    (entry.kind == EntryKind::Command).then_some(u64::from_le_bytes(bytes))
}

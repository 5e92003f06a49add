//! What Raft decides, carried out on the databases: a transaction executed here is published when its entry
//! is committed, one executed elsewhere is applied, and everything speculative is dropped when leadership
//! ends. Calls only, on the Raft thread; the driver makes them, and the simulator of the databases.

use crate::db::{self, Database, Fsm, Proposal, Refused, Registry, Snapshot};
use crate::raft::{EntryKind, Index, Raft, Refusal, Term, Time, Token};
use crate::vfs::{Bug, TransactionId};
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::oneshot;

/// The node cannot go on. The text says why.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Fault(pub String);

/// A transaction executed here whose entry is in the log and not yet committed.
struct Pending {
    /// Shared by those that were proposed together.
    token: Token,
    index: Index,
    term: Term,
    database: Arc<Database>,
    transaction: TransactionId,
    done: oneshot::Sender<Result<(), Refused>>,
}

/// See the module documentation.
pub struct Applier {
    registry: Arc<Registry>,
    fsm: Fsm,
    /// Everything up to here is in the databases.
    applied: Index,
    /// Everything up to here may be.
    committed: Index,
    /// A database cannot be changed before a session has rolled back.
    blocked: bool,
    /// Why transactions were dropped last.
    voided_by: Refused,
    /// The proposals that the core is given together: [`Applier::accept`] moves them to `pending`.
    proposing: Vec<Proposal>,
    pending: VecDeque<Pending>,
}

impl Applier {
    /// Over databases in which nothing is applied.
    pub fn new(registry: Arc<Registry>) -> Applier {
        Applier {
            fsm: Fsm::new(registry.clone()),
            registry,
            applied: Index(0),
            committed: Index(0),
            blocked: false,
            voided_by: Refused::NotLeader,
            proposing: Vec::new(),
            pending: VecDeque::new(),
        }
    }

    /// Everything up to here is in the databases.
    pub fn applied(&self) -> Index {
        self.applied
    }

    /// Everything up to here may be.
    pub fn committed(&self) -> Index {
        self.committed
    }

    /// Whether a session is in the way; try again soon.
    pub fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// It is tried again.
    pub fn unblock(&mut self) {
        self.blocked = false;
    }

    /// Until when this node may read without asking anybody: not while something committed is not applied.
    pub fn lease_until(&self, core: &Raft) -> Option<Time> {
        core.lease_until().filter(|_| self.applied == self.committed)
    }

    /// Brings the databases to the state that the node starts from.
    pub fn start(&mut self, index: Index, snapshot: &Snapshot) -> Result<(), Fault> {
        match self.restore(index, snapshot)? {
            true => Ok(()),
            false => Err(Fault(format!("restore snapshot {index}: a database is in use"))),
        }
    }

    /// Makes the databases those of a snapshot. False if that has to wait for sessions that still roll back.
    pub fn restore(&mut self, index: Index, snapshot: &Snapshot) -> Result<bool, Fault> {
        match self.fsm.replace(snapshot) {
            Ok(()) => {}
            Err(db::FsmError::Busy { .. }) => {
                self.blocked = true;
                return Ok(false);
            }
            Err(error) => return Err(Fault(format!("restore snapshot {index}: {error}"))),
        }
        (self.applied, self.committed) = (index, index.max(self.committed));
        Ok(true)
    }

    /// All databases at the applied index.
    pub fn capture(&self, index: Index) -> Snapshot {
        assert_eq!(index, self.applied, "a snapshot is captured at the applied index");
        self.fsm.capture()
    }

    /// A transaction that was executed here shall be given to the core. False if it was built on transactions
    /// that have been dropped since; that is answered.
    pub fn gather(&mut self, proposal: Proposal) -> bool {
        let is_void = proposal.database.void_count() != proposal.void_count;
        if is_void && !self.has(Bug::VoidIsProposed) {
            let _ = proposal.done.send(Err(self.voided_by));
            return false;
        }
        self.proposing.push(proposal);
        true
    }

    /// What was gathered is about to be given to the core: the commands for it. None if there is nothing.
    pub fn begin_proposal(&self) -> Option<Vec<Bytes>> {
        let commands = self.proposing.iter().map(|proposal| proposal.command.clone());
        (!self.proposing.is_empty()).then(|| commands.collect())
    }

    /// The core accepted what was gathered.
    pub fn accept(&mut self, token: Token, first_index: Index, term: Term) {
        for (index, proposal) in (first_index.0..).map(Index).zip(std::mem::take(&mut self.proposing)) {
            let Proposal { database, transaction, mut done, .. } = proposal;
            if self.has(Bug::PublishAtAppend) {
                let _ = database.publish(transaction);
            }
            if self.has(Bug::AnswerAtAppend) {
                let answered = std::mem::replace(&mut done, oneshot::channel().0);
                let _ = answered.send(Ok(()));
            }
            self.pending.push_back(Pending { token, index, term, database, transaction, done });
        }
    }

    /// The core was given what was gathered. If it did not accept it, these transactions and what was built
    /// on them will never be published.
    pub fn end_proposal(&mut self) {
        for refused in std::mem::take(&mut self.proposing) {
            refused.database.void_speculation();
            let _ = refused.done.send(Err(Refused::NotLeader));
        }
    }

    /// Everything up to here may be applied.
    pub fn commit(&mut self, up_to: Index) {
        self.committed = up_to;
    }

    /// Applies in log order. A transaction executed here only has to be published.
    pub fn apply_committed(&mut self, core: &Raft) -> Result<(), Fault> {
        while self.applied < self.committed && !self.blocked {
            let index = self.applied.next();
            let Some(entry) = core.entry(index) else {
                return Err(Fault(format!("committed entry {index} is missing")));
            };
            match self.pending.front() {
                Some(own) if own.index == index && own.term == entry.term => {
                    let Some(own) = self.pending.pop_front() else { continue };
                    let published = own.database.publish(own.transaction);
                    let published = if self.has(Bug::PublishAtAppend) { Ok(()) } else { published };
                    published.map_err(|e| Fault(format!("publish entry {index}: {e}")))?;
                    // A session that has gone away waits no more; its transaction stands all the same.
                    let _ = own.done.send(Ok(()));
                }
                _ if entry.kind == EntryKind::Command => match self.fsm.apply(entry.payload.clone()) {
                    Ok(()) => {}
                    Err(db::FsmError::Busy { .. }) => {
                        self.blocked = true;
                        return Ok(());
                    }
                    Err(error) => return Err(Fault(format!("apply entry {index}: {error}"))),
                },
                _ => {}
            }
            self.applied = index;
        }
        Ok(())
    }

    /// The core is done with a proposal. Transactions end when they are published, so only a refusal is news.
    pub fn complete(&mut self, token: Token, result: Result<Index, Refusal>) {
        let Err(refusal) = result else { return };
        while self.pending.front().is_some_and(|own| own.token == token)
            && let Some(own) = self.pending.pop_front()
        {
            self.voided_by = refused(refusal);
            own.database.void_speculation();
            let _ = own.done.send(Err(self.voided_by));
        }
    }

    /// Everything up to here is durable on this server, which nobody who is correct wants to know.
    #[cfg(feature = "planted-bugs")]
    pub fn durable_here(&mut self, up_to: Index) {
        if self.has(Bug::AnswerWhenDurableHere) {
            for own in self.pending.iter_mut().filter(|own| own.index <= up_to) {
                let answered = std::mem::replace(&mut own.done, oneshot::channel().0);
                let _ = answered.send(Ok(()));
            }
        }
    }

    fn has(&self, bug: Bug) -> bool {
        self.registry.vfs().has(bug)
    }

    /// Everything speculative is void, here and in the sessions.
    pub fn end_leadership(&mut self) {
        self.registry.status.end_leading();
        self.voided_by = Refused::NotLeader;
        for own in self.pending.drain(..) {
            let lost = match self.registry.vfs().has(Bug::LostIsNotLeader) {
                true => Refused::NotLeader,
                false => Refused::LeadershipLost,
            };
            let _ = own.done.send(Err(lost));
        }
        for database in self.registry.all() {
            database.void_speculation();
        }
    }
}

/// What a session is told of it.
pub fn refused(refusal: Refusal) -> Refused {
    match refusal {
        Refusal::NotLeader => Refused::NotLeader,
        Refusal::DiskFull => Refused::DiskFull,
        _ => Refused::LeadershipLost,
    }
}

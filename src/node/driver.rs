//! The Raft thread: waits for one event, steps the core, carries out what it answers. Never waits for a disk,
//! for SQLite or for a client; runs no SQL.

use super::fault::Fence;
use super::membership::Membership;
use crate::config::DISK_QUEUE_BYTES_MAX;
use crate::db::{Database, Fsm, Proposal, Refused, Registry, Snapshot};
use crate::raft::{
    EntryKind, Index, Input, Output, Outputs, Raft, Refusal, Role, SnapshotPoint, Start, State, Term, Time,
    Token,
};
use crate::store::{self, Store};
use crate::vfs::TransactionId;
use bytes::Bytes;
use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

/// What the driver is made of.
pub struct Parts {
    /// The core, not started.
    pub core: Raft,
    /// The running disk threads.
    pub store: Store,
    /// Their reports.
    pub store_events: mpsc::UnboundedReceiver<store::Event>,
    /// Transactions executed by sessions.
    pub proposals: mpsc::Receiver<Proposal>,
    /// Ends the driver when its sender goes away or sends.
    pub stop: oneshot::Receiver<()>,
    /// The databases.
    pub registry: Arc<Registry>,
    /// What the gateway answers about the cluster.
    pub membership: Arc<Membership>,
    /// Where a fault is recorded.
    pub fence: Arc<Fence>,
    /// Settings of snapshots that may change while running.
    pub compression: Arc<AtomicBool>,
    /// Entries kept on disk behind a snapshot.
    pub trailing: u64,
}

/// A transaction executed here whose entry is in the log and not yet committed.
struct Pending {
    token: Token,
    index: Index,
    term: Term,
    database: Arc<Database>,
    transaction: TransactionId,
    done: oneshot::Sender<Result<(), Refused>>,
}

/// Owns the consensus state of a running node.
pub struct Driver {
    core: Raft,
    outputs: Outputs,
    store: Store,
    store_events: mpsc::UnboundedReceiver<store::Event>,
    proposals: mpsc::Receiver<Proposal>,
    stop: oneshot::Receiver<()>,
    fsm: Fsm,
    registry: Arc<Registry>,
    membership: Arc<Membership>,
    fence: Arc<Fence>,
    compression: Arc<AtomicBool>,
    trailing: u64,
    origin: Instant,
    applied: Index,
    tokens: u64,
    /// The proposal that is being stepped: `Accepted` moves it to `pending`.
    proposing: Option<Proposal>,
    pending: VecDeque<Pending>,
}

/// Everything that can wake the Raft thread.
enum Event {
    Store(store::Event),
    Propose(Proposal),
    Deadline,
    Stop,
}

/// The node cannot go on. The text says why.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Fault(pub String);

impl Driver {
    /// Nothing happens before [`Driver::start`].
    pub fn new(parts: Parts) -> Driver {
        Driver {
            core: parts.core,
            outputs: Outputs::default(),
            store: parts.store,
            store_events: parts.store_events,
            proposals: parts.proposals,
            stop: parts.stop,
            fsm: Fsm::new(parts.registry.clone()),
            registry: parts.registry,
            membership: parts.membership,
            fence: parts.fence,
            compression: parts.compression,
            trailing: parts.trailing,
            origin: Instant::now(),
            applied: Index(0),
            tokens: 0,
            proposing: None,
            pending: VecDeque::new(),
        }
    }

    /// Brings databases and core to the state found on disk. A sole voter leads when this returns.
    pub fn start(&mut self, start: Start, content: Option<Bytes>) -> Result<(), Fault> {
        if let Some(point) = &start.snapshot {
            let content = content.ok_or_else(|| Fault("snapshot without content".into()))?;
            self.fsm.restore(content).map_err(|e| Fault(format!("restore snapshot {}: {e}", point.index)))?;
            self.applied = point.index;
        }
        self.step(Input::Start(start))
    }

    /// Runs until told to stop or until a fault, then closes the log.
    pub async fn run(mut self) {
        let fault = loop {
            match self.select().await {
                Event::Stop => break None,
                event => {
                    if let Err(fault) = self.apply(event) {
                        break Some(fault);
                    }
                }
            }
        };
        if let Some(fault) = fault {
            self.fence.raise(fault.0);
        }
        self.close();
    }

    /// Ends leadership and closes the log, so that the next start finds it whole.
    pub fn close(mut self) {
        self.end_leadership();
        if let Err(error) = self.store.stop() {
            self.fence.raise(error.to_string());
        }
    }

    async fn select(&mut self) -> Event {
        // Proposals wait in their bounded queue while the disk is behind; everything else goes on.
        let disk_has_room = self.store.queued_bytes() < DISK_QUEUE_BYTES_MAX;
        let deadline = self.core.deadline().map(|Time(ms)| self.origin + Duration::from_millis(ms));
        let asleep = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            Some(event) = self.store_events.recv() => Event::Store(event),
            _ = &mut self.stop => Event::Stop,
            Some(proposal) = self.proposals.recv(), if disk_has_room => Event::Propose(proposal),
            () = asleep => Event::Deadline,
        }
    }

    fn apply(&mut self, event: Event) -> Result<(), Fault> {
        match event {
            Event::Store(event) => self.on_store_event(event),
            Event::Propose(proposal) => self.propose(proposal),
            Event::Deadline => self.step(Input::Tick),
            Event::Stop => Ok(()),
        }
    }

    fn on_store_event(&mut self, event: store::Event) -> Result<(), Fault> {
        match event {
            store::Event::Persisted { seq } => self.step(Input::Persisted { seq }),
            store::Event::Failed { seq, error } => {
                // After a failed write or sync the state of the disk is unknown: the node must not go on.
                self.step(Input::DiskFailed { seq })?;
                Err(Fault(format!("writing the log failed: {error}")))
            }
            store::Event::SnapshotStored { index, size_bytes } => {
                self.step(Input::SnapshotTaken { index, size_bytes })
            }
            store::Event::SnapshotFailed { index, error } => {
                tracing::warn!(%index, %error, "snapshot failed, the log keeps growing until one succeeds");
                self.step(Input::SnapshotFailed { index })
            }
            store::Event::SnapshotInstalled { index } | store::Event::SnapshotInstallFailed { index, .. } => {
                Err(Fault(format!("nobody asked for the installation of a snapshot at {index}")))
            }
        }
    }

    fn propose(&mut self, proposal: Proposal) -> Result<(), Fault> {
        if proposal.database.abort_count() != proposal.abort_count {
            // It was built on transactions that have been dropped since.
            let _ = proposal.done.send(Err(Refused::LeadershipLost));
            return Ok(());
        }
        self.tokens += 1;
        let input = Input::Propose { token: Token(self.tokens), commands: vec![proposal.command.clone()] };
        self.proposing = Some(proposal);
        self.step(input)?;
        if let Some(refused) = self.proposing.take() {
            // The core did not accept it: this transaction and what was built on it will never be published.
            refused.database.note_abort();
            let _ = refused.done.send(Err(Refused::NotLeader));
            refused.database.abort();
        }
        Ok(())
    }

    fn step(&mut self, input: Input) -> Result<(), Fault> {
        let now = Time(self.origin.elapsed().as_millis() as u64);
        let mut outputs = std::mem::take(&mut self.outputs);
        self.core.step(now, input, &mut outputs).map_err(|e| Fault(e.to_string()))?;
        for output in outputs.drain(..) {
            self.carry_out(output)?;
        }
        self.outputs = outputs;
        match self.registry.vfs().fault() {
            Some(fault) => Err(Fault(fault)),
            None => Ok(()),
        }
    }

    fn carry_out(&mut self, output: Output) -> Result<(), Fault> {
        match output {
            Output::PersistVote { term, voted_for, seq } => self.store.persist_vote(term, voted_for, seq),
            Output::Append { first_index, entries, seq } => self.store.append(first_index, entries, seq),
            Output::Truncate { from, seq } => self.store.truncate(from, seq),
            Output::Accepted { token, first_index, term } => self.accept(token, first_index, term),
            Output::Commit { up_to } => return self.commit(up_to),
            Output::Complete { token, result } => self.complete(token, result),
            Output::TakeSnapshot { index, term, configuration, configuration_index } => {
                self.take_snapshot(SnapshotPoint { index, term, configuration, configuration_index })
            }
            Output::RoleChanged { state, term, leader } => {
                tracing::info!(?state, %term, ?leader, "role changed");
                self.membership.set_leader(leader);
                match state {
                    State::Leader => self.registry.status.begin_leading(),
                    State::Follower | State::Candidate => self.end_leadership(),
                }
            }
            // Connections to other servers are not there yet.
            Output::Send { .. } | Output::SendSnapshot { .. } | Output::InstallSnapshot { .. } => {}
            Output::ConfigurationChanged { configuration } => {
                let voters = configuration.servers.iter().filter(|s| s.role == Role::Voter).count();
                if voters > 1 {
                    tracing::warn!(voters, "this release does not elect a leader among several voters");
                }
                self.membership.set_configuration(configuration);
            }
        }
        Ok(())
    }

    fn accept(&mut self, token: Token, index: Index, term: Term) {
        let Some(proposal) = self.proposing.take() else { return };
        let Proposal { database, transaction, done, .. } = proposal;
        self.pending.push_back(Pending { token, index, term, database, transaction, done });
    }

    /// Applies in log order. A transaction executed here only has to be published.
    fn commit(&mut self, up_to: Index) -> Result<(), Fault> {
        while self.applied < up_to {
            let index = self.applied.next();
            let entry =
                self.core.entry(index).ok_or_else(|| Fault(format!("committed entry {index} is missing")))?;
            match self.pending.front() {
                Some(own) if own.index == index && own.term == entry.term => {
                    let Some(own) = self.pending.pop_front() else { continue };
                    let published = own.database.publish(own.transaction);
                    published.map_err(|e| Fault(format!("publish entry {index}: {e}")))?;
                    // A session that has gone away waits no more; its transaction stands all the same.
                    let _ = own.done.send(Ok(()));
                }
                _ if entry.kind == EntryKind::Command => {
                    let applied = self.fsm.apply(entry.payload.clone());
                    applied.map_err(|e| Fault(format!("apply entry {index}: {e}")))?;
                }
                _ => {}
            }
            self.applied = index;
        }
        // Reported to the core as one event, after its present answers have been carried out.
        self.step_after_commit()
    }

    fn step_after_commit(&mut self) -> Result<(), Fault> {
        let now = Time(self.origin.elapsed().as_millis() as u64);
        let mut outputs = Outputs::default();
        let input = Input::Applied { index: self.applied };
        self.core.step(now, input, &mut outputs).map_err(|e| Fault(e.to_string()))?;
        outputs.drain(..).try_for_each(|output| self.carry_out(output))
    }

    /// Transactions end when they are published, so only a refusal is news here.
    fn complete(&mut self, token: Token, result: Result<Index, Refusal>) {
        let Err(refusal) = result else { return };
        if self.pending.front().is_some_and(|own| own.token == token)
            && let Some(own) = self.pending.pop_front()
        {
            own.database.note_abort();
            let refused = match refusal {
                Refusal::NotLeader => Refused::NotLeader,
                _ => Refused::LeadershipLost,
            };
            let _ = own.done.send(Err(refused));
        }
    }

    /// Everything speculative is void, here and in the sessions.
    fn end_leadership(&mut self) {
        self.registry.status.end_leading();
        for own in self.pending.drain(..) {
            own.database.note_abort();
            let _ = own.done.send(Err(Refused::LeadershipLost));
        }
        // A database whose write lock is held is aborted by the session that holds it, when it rolls back.
        for database in self.registry.all() {
            database.abort();
        }
    }

    fn take_snapshot(&mut self, point: SnapshotPoint) {
        assert_eq!(point.index, self.applied, "a snapshot is captured at the applied index");
        let content = Box::new(Content(self.fsm.capture()));
        let compression = match self.compression.load(Ordering::Relaxed) {
            true => store::Compression::Lz4,
            false => store::Compression::Off,
        };
        let trailing = self.trailing;
        self.store.store_snapshot(store::SnapshotRequest { point, content, trailing, compression });
    }
}

/// The databases as the store wants them.
struct Content(Snapshot);

impl store::SnapshotContent for Content {
    fn size(&self) -> u64 {
        self.0.size()
    }

    fn write_to(&self, out: &mut dyn Write) -> io::Result<()> {
        self.0.write_to(out)
    }
}

//! The Raft thread: waits for one event, steps the core, carries out what it answers. Never waits for a disk,
//! for SQLite, for another server or for a client; runs no SQL.

use super::applier::{Applier, Fault};
use super::fault::Fence;
use super::held::{Held, HeldMessages, News};
use super::inbound::{Inbound, Received, receive_all};
use super::membership::Membership;
use crate::config::{APPEND_BYTES_MAX, APPLY_RETRY_MS, DISK_QUEUE_BYTES_MAX, INBOUND_MESSAGES_MAX};
use crate::db::{self, Proposal, Refused, Registry, Snapshot};
use crate::net::peer::{PeerEvent, Peers};
use crate::raft::message::InstallSnapshot;
use crate::raft::{
    Change, Entry, Index, Input, Output, Outputs, Raft, Refusal, ServerId, SnapshotData, SnapshotPoint,
    SnapshotSource, Start, State, Term, Time, Token,
};
use crate::store::{self, Spooled, Store, StoredSnapshot};
use crate::wire::raft::encode;
use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

/// What the driver is made of.
pub struct Parts {
    /// The core, not started.
    pub core: Raft,
    /// The running disk threads.
    pub store: Store,
    /// Their reports.
    pub store_events: mpsc::UnboundedReceiver<store::Event>,
    /// Messages that wait for the disk, which takes care of them.
    pub held: Arc<HeldMessages>,
    /// Connections to other servers.
    pub peers: Peers,
    /// Their reports.
    pub peer_events: mpsc::UnboundedReceiver<PeerEvent>,
    /// Connections that other servers open to us.
    pub inbound: mpsc::Receiver<Inbound>,
    /// What sessions ask.
    pub requests: mpsc::UnboundedReceiver<db::Request>,
    /// What clients want changed in the cluster.
    pub orders: mpsc::Receiver<Order>,
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

/// A change of the cluster that a client asked for.
pub struct Order {
    /// What it is.
    pub kind: OrderKind,
    /// Told how it ended.
    pub done: oneshot::Sender<Result<(), Refusal>>,
}

/// The kinds of [`Order`].
pub enum OrderKind {
    /// A change of the configuration.
    Change(Change),
    /// A transfer of leadership, to anybody if nobody is named.
    Transfer(Option<ServerId>),
}

/// Who waits for a token that is not a transaction's.
enum Waiting {
    Read(oneshot::Sender<Result<(), Refused>>),
    Order(oneshot::Sender<Result<(), Refusal>>),
}

/// A snapshot for a server that is far behind.
struct SnapshotOpened {
    to: ServerId,
    address: String,
    term: Term,
    content: Result<StoredSnapshot, store::Error>,
}

/// Old entries of the log for a server that lags.
struct EntriesRead {
    to: ServerId,
    first: Index,
    entries: Result<Vec<Entry>, store::Error>,
}

/// A snapshot of the leader's that is not yet in the databases.
struct Installing {
    index: Index,
    /// Its pages, once they are in memory; then the disk gets its turn.
    snapshot: Option<Snapshot>,
    /// It is on disk.
    stored: bool,
}

/// What came of reading a snapshot that is to be installed.
struct SnapshotRead {
    point: SnapshotPoint,
    content: Arc<Spooled>,
    snapshot: Result<Snapshot, String>,
}

/// Reads until the node stops.
struct WhileRunning<R> {
    inner: R,
    stopped: Arc<AtomicBool>,
}

impl<R: Read> Read for WhileRunning<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self.stopped.load(Ordering::Relaxed) {
            true => Err(io::Error::other("the node stops")),
            false => self.inner.read(out),
        }
    }
}

/// Owns the consensus state of a running node.
pub struct Driver {
    parts: Parts,
    applier: Applier,
    /// What the core was told to be applied.
    reported: Index,
    tokens: u64,
    waiting: HashMap<Token, Waiting>,
    /// As sessions were told.
    transferring: bool,
    installing: Option<Installing>,
    /// At most one for each server that is far behind, and one that is being installed.
    snapshots: (mpsc::UnboundedSender<SnapshotEvent>, mpsc::UnboundedReceiver<SnapshotEvent>),
    /// Told to the thread that reads a snapshot.
    stopped: Arc<AtomicBool>,
    reads: (mpsc::UnboundedSender<EntriesRead>, mpsc::UnboundedReceiver<EntriesRead>),
    /// What other servers send us.
    received: (mpsc::Sender<Received>, mpsc::Receiver<Received>),
    /// Their tasks.
    receivers: JoinSet<()>,
    /// Open connections of each other server to us.
    connections: HashMap<ServerId, usize>,
}

/// From the threads that read snapshots.
enum SnapshotEvent {
    Opened(SnapshotOpened),
    Read(SnapshotRead),
}

/// Everything that can wake the Raft thread.
enum Event {
    Store(store::Event),
    Peer(PeerEvent),
    Snapshot(SnapshotEvent),
    EntriesRead(EntriesRead),
    Inbound(Inbound),
    Received(Received),
    Request(db::Request),
    Order(Order),
    Deadline,
    Retry,
    Stop,
}

impl Driver {
    /// Nothing happens before [`Driver::start`].
    pub fn new(parts: Parts) -> Driver {
        let applier = Applier::new(parts.registry.clone());
        Driver {
            parts,
            applier,
            reported: Index(0),
            tokens: 0,
            waiting: HashMap::new(),
            transferring: false,
            installing: None,
            snapshots: mpsc::unbounded_channel(),
            reads: mpsc::unbounded_channel(),
            stopped: Arc::default(),
            received: mpsc::channel(INBOUND_MESSAGES_MAX),
            receivers: JoinSet::new(),
            connections: HashMap::new(),
        }
    }

    /// Brings databases and core to the state found on disk. A sole voter leads when this returns.
    pub fn start(&mut self, start: Start, snapshot: Option<Snapshot>) -> Result<(), Fault> {
        if let Some(point) = &start.snapshot {
            let snapshot = snapshot.ok_or_else(|| Fault("snapshot without content".into()))?;
            self.applier.start(point.index, &snapshot)?;
            self.reported = point.index;
        }
        self.step(Input::Start(start))
    }

    /// Runs until told to stop or until a fault, then closes the log. To be called on the Raft thread, in a
    /// runtime with sockets.
    pub async fn run(mut self) {
        self.parts.peers.run_on(Handle::current());
        // As a task like those of the connections: a runtime writes to an eventfd to wake its root future,
        // even from its own thread.
        match tokio::spawn(self.run_as_task()).await {
            Ok(()) => {}
            Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
            Err(_) => unreachable!("nobody aborts this task"),
        }
    }

    async fn run_as_task(mut self) {
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
            self.parts.fence.raise(fault.0);
        }
        self.disconnect();
        // The tasks of the connections end now, not when the log is closed: the other servers see that we go.
        tokio::task::yield_now().await;
        self.close();
    }

    fn disconnect(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        self.applier.end_leadership();
        self.parts.registry.status.set_transferring(false);
        self.parts.peers.retain(|_| false);
        self.receivers.abort_all();
    }

    /// Ends leadership and closes the log, so that the next start finds it whole.
    pub fn close(mut self) {
        self.disconnect();
        if let Err(error) = self.parts.store.stop() {
            self.parts.fence.raise(error.to_string());
        }
    }

    async fn select(&mut self) -> Event {
        let parts = &mut self.parts;
        // Requests wait while the disk is behind, and their clients with them; everything else goes on.
        let disk_has_room = parts.store.queued_bytes() < DISK_QUEUE_BYTES_MAX;
        // Nor is anything refused because of a transfer. When that has ended, either this server goes on, or
        // clients who are refused will find the new leader at once.
        let decided = !parts.core.is_transferring();
        let now_ms = parts.registry.status.now_ms();
        let retry = self.applier.is_blocked().then_some(Duration::from_millis(APPLY_RETRY_MS));
        let deadline = parts.core.deadline().map(|Time(ms)| Duration::from_millis(ms.saturating_sub(now_ms)));
        tokio::select! {
            biased;
            _ = &mut parts.stop => Event::Stop,
            () = sleep(deadline) => Event::Deadline,
            Some(event) = parts.store_events.recv() => Event::Store(event),
            Some(event) = parts.peer_events.recv() => Event::Peer(event),
            Some(event) = self.snapshots.1.recv() => Event::Snapshot(event),
            Some(read) = self.reads.1.recv() => Event::EntriesRead(read),
            Some(received) = self.received.1.recv(), if disk_has_room => Event::Received(received),
            Some(inbound) = parts.inbound.recv() => Event::Inbound(inbound),
            Some(order) = parts.orders.recv() => Event::Order(order),
            Some(request) = parts.requests.recv(), if disk_has_room && decided => Event::Request(request),
            () = sleep(retry) => Event::Retry,
        }
    }

    fn apply(&mut self, event: Event) -> Result<(), Fault> {
        self.hear_of_disk()?;
        match event {
            Event::Store(event) => self.on_store_event(event),
            Event::Peer(PeerEvent::Unreachable { id }) => self.step(Input::PeerUnreachable { id }),
            Event::Peer(PeerEvent::SnapshotSent { to, ok }) => self.step(Input::SnapshotSent { to, ok }),
            Event::Snapshot(SnapshotEvent::Opened(opened)) => self.on_snapshot_opened(opened),
            Event::Snapshot(SnapshotEvent::Read(read)) => self.on_snapshot_read(read),
            Event::EntriesRead(read) => self.on_entries_read(read),
            Event::Inbound(inbound) => {
                self.on_inbound(inbound);
                Ok(())
            }
            Event::Received(received) => self.on_received(received),
            Event::Request(db::Request::Propose(proposal)) => self.propose_all(proposal),
            Event::Request(db::Request::Read { done, .. }) => self.read(done),
            Event::Order(Order { kind, done }) => {
                let token = self.wait(Waiting::Order(done));
                self.step(match kind {
                    OrderKind::Change(change) => Input::Change { token, change },
                    OrderKind::Transfer(to) => Input::Transfer { token, to },
                })
            }
            Event::Deadline => self.step(Input::Tick),
            Event::Retry => self.settle(),
            Event::Stop => Ok(()),
        }
    }

    fn on_store_event(&mut self, event: store::Event) -> Result<(), Fault> {
        match event {
            store::Event::Persisted { seq } => {
                match self.parts.held.release(seq) {
                    true => self.step(Input::Persisted { seq }),
                    // That was heard before.
                    false => self.settle(),
                }
            }
            store::Event::Failed { seq, error } => {
                // After a failed write or sync the state of the disk is unknown: the node must not go on.
                // The core does not know the number if nothing was asked of the disk when it failed, as when
                // a full segment could not be closed. What it says then is not the reason.
                let _ = self.step(Input::DiskFailed { seq });
                Err(Fault(format!("writing the log failed: {error}")))
            }
            store::Event::Full { seq, stored, error } => {
                tracing::warn!(%error, "no space for entries of the log");
                self.parts.held.drop_behind(seq);
                // Whatever the core asks for after it has heard of this is carried out again.
                self.parts.store.resume();
                self.step(Input::DiskFull { seq, stored })
            }
            store::Event::SpaceLow { error } => {
                tracing::warn!(%error, "no space for more log: writes are refused, reads go on");
                self.parts.registry.status.set_space_low(true);
                Ok(())
            }
            store::Event::SpaceBack => {
                tracing::info!("there is space for the log again: writes go on");
                self.parts.registry.status.set_space_low(false);
                Ok(())
            }
            store::Event::SnapshotStored { index, size_bytes } => {
                self.step(Input::SnapshotTaken { index, size_bytes })
            }
            store::Event::SnapshotFailed { index, error } => {
                tracing::warn!(%index, %error, "snapshot failed, the log keeps growing until one succeeds");
                self.step(Input::SnapshotFailed { index })
            }
            store::Event::SnapshotSpaceBack => self.step(Input::RetrySnapshot),
            store::Event::SnapshotInstalled { index } => {
                if let Some(installing) = self.installing.as_mut().filter(|i| i.index == index) {
                    installing.stored = true;
                }
                self.settle()
            }
            store::Event::SnapshotInstallFailed { index, error } => {
                tracing::warn!(%index, %error, "the leader's snapshot could not be stored");
                self.installing = None;
                self.step(Input::SnapshotInstalled { index, ok: false })
            }
        }
    }

    /// Another server has connected. Its messages are read on this thread, so that nobody has to wake it.
    fn on_inbound(&mut self, inbound: Inbound) {
        let id = inbound.peer.id;
        *self.connections.entry(id).or_default() += 1;
        self.parts.peers.heard_of(id);
        while self.receivers.try_join_next().is_some() {}
        self.receivers.spawn(receive_all(inbound, self.received.0.clone()));
    }

    fn on_received(&mut self, received: Received) -> Result<(), Fault> {
        match received {
            Received::Message(from, message) => {
                self.parts.peers.heard_of(from.id);
                self.step(Input::Receive { from, message })
            }
            Received::Closed(leader) => {
                let Some(open) = self.connections.get_mut(&leader) else { return Ok(()) };
                *open -= 1;
                if *open > 0 {
                    return Ok(());
                }
                self.connections.remove(&leader);
                self.step(Input::ConnectionLost { leader })
            }
        }
    }

    fn next_token(&mut self) -> Token {
        self.tokens += 1;
        Token(self.tokens)
    }

    fn wait(&mut self, waiting: Waiting) -> Token {
        let token = self.next_token();
        self.waiting.insert(token, waiting);
        token
    }

    /// Proposes a transaction, and with it what else waits: they are one request to the disk and one message
    /// to each follower.
    fn propose_all(&mut self, first: Proposal) -> Result<(), Fault> {
        let mut size = first.command.len();
        let mut read = None;
        self.applier.gather(first);
        while size < APPEND_BYTES_MAX && read.is_none() {
            match self.parts.requests.try_recv() {
                Ok(db::Request::Propose(proposal)) => {
                    size += proposal.command.len();
                    self.applier.gather(proposal);
                }
                Ok(db::Request::Read { done, .. }) => read = Some(done),
                Err(_) => break,
            }
        }
        if let Some(commands) = self.applier.begin_proposal() {
            let token = self.next_token();
            self.step(Input::Propose { token, commands })?;
            self.applier.end_proposal();
        }
        read.map_or(Ok(()), |done| self.read(done))
    }

    fn read(&mut self, done: oneshot::Sender<Result<(), Refused>>) -> Result<(), Fault> {
        let token = self.wait(Waiting::Read(done));
        self.step(Input::Read { token })
    }

    fn step(&mut self, input: Input) -> Result<(), Fault> {
        self.step_once(input)?;
        self.settle()
    }

    /// One call of the core, and everything it answers.
    fn step_once(&mut self, input: Input) -> Result<(), Fault> {
        let now = Time(self.parts.registry.status.now_ms());
        let mut outputs = Outputs::new();
        self.parts.core.step(now, input, &mut outputs).map_err(|e| Fault(e.to_string()))?;
        outputs.into_iter().try_for_each(|output| self.carry_out(output))
    }

    /// Applies what is committed, tells the core, and publishes where that leaves us.
    fn settle(&mut self) -> Result<(), Fault> {
        self.applier.unblock();
        self.restore_installed()?;
        loop {
            self.apply_committed()?;
            if self.reported != self.applier.applied() {
                self.reported = self.applier.applied();
                self.step_once(Input::Applied { index: self.reported })?;
                continue;
            }
            let is_behind = self.parts.store.queued_bytes() >= DISK_QUEUE_BYTES_MAX;
            if !self.parts.held.wake_when_durable(is_behind || self.parts.core.awaits_disk()) {
                break;
            }
            self.hear_of_disk()?;
        }
        let core = &self.parts.core;
        let leased = self.applier.lease_until(core);
        let status = &self.parts.registry.status;
        status.publish(core.is_ready_to_execute(), leased.map_or(0, |Time(ms)| ms));
        if self.transferring != core.is_transferring() {
            self.transferring = core.is_transferring();
            status.set_transferring(self.transferring);
        }
        match self.parts.registry.vfs().fault() {
            Some(fault) => Err(Fault(fault)),
            None => Ok(()),
        }
    }

    fn carry_out(&mut self, output: Output) -> Result<(), Fault> {
        let store = &self.parts.store;
        match output {
            Output::PersistVote { term, voted_for, seq } => store.persist_vote(term, voted_for, seq),
            Output::Append { first_index, entries, seq } => store.append(first_index, entries, seq),
            Output::Truncate { from, seq } => store.truncate(from, seq),
            Output::Send { to, address, message, after: Some(after) } => {
                let recipient = self.parts.peers.recipient(to, &address);
                self.parts.held.keep(after, Held { to, address, recipient, encoded: encode(message) });
            }
            Output::Send { to, address, message, after: None } => {
                self.parts.peers.send(to, &address, message)
            }
            Output::SendSnapshot { to, address, term, index } => self.send_snapshot(to, address, term, index),
            Output::ReadEntries { to, first, last } => {
                let reads = self.reads.0.clone();
                let reply = move |entries| drop(reads.send(EntriesRead { to, first, entries }));
                store.read_entries(first, last, Box::new(reply));
            }
            Output::InstallSnapshot { snapshot, data } => return self.install(snapshot, data),
            Output::Accepted { token, first_index, term } => self.applier.accept(token, first_index, term),
            Output::Commit { up_to } => {
                self.applier.commit(up_to);
                return self.apply_committed();
            }
            Output::Complete { token, result } => self.complete(token, result),
            Output::TakeSnapshot { index, term, configuration, configuration_index } => {
                self.take_snapshot(SnapshotPoint { index, term, configuration, configuration_index });
            }
            Output::RoleChanged { state, term, leader } => {
                tracing::info!(?state, %term, ?leader, "role changed");
                self.parts.membership.set_leader(leader);
                match state {
                    State::Leader => self.parts.registry.status.begin_leading(),
                    State::Follower | State::Candidate => self.applier.end_leadership(),
                }
            }
            Output::ConfigurationChanged { configuration } => {
                self.parts.peers.retain(|id| configuration.contains(id));
                self.parts.membership.set_configuration(configuration);
            }
        }
        Ok(())
    }

    /// What the disk thread has not woken this one for.
    fn hear_of_disk(&mut self) -> Result<(), Fault> {
        let News { durable, undelivered } = self.parts.held.hear();
        for Held { to, address, encoded, .. } in undelivered {
            self.parts.peers.send_encoded(to, &address, encoded);
        }
        durable.map_or(Ok(()), |seq| self.step_once(Input::Persisted { seq }))
    }

    fn apply_committed(&mut self) -> Result<(), Fault> {
        match self.installing {
            None => self.applier.apply_committed(&self.parts.core),
            Some(_) => Ok(()),
        }
    }

    fn complete(&mut self, token: Token, result: Result<Index, Refusal>) {
        match self.waiting.remove(&token) {
            Some(Waiting::Read(done)) => drop(done.send(result.map(drop).map_err(super::applier::refused))),
            Some(Waiting::Order(done)) => drop(done.send(result.map(drop))),
            None => self.applier.complete(token, result),
        }
    }

    fn take_snapshot(&mut self, point: SnapshotPoint) {
        let content = Box::new(Content(self.applier.capture(point.index)));
        let compression = store::Compression::when(self.parts.compression.load(Ordering::Relaxed));
        let trailing = self.parts.trailing;
        self.parts.store.store_snapshot(store::SnapshotRequest { point, content, trailing, compression });
    }

    /// The snapshot thread opens the file, and the task of the peer reads it.
    fn send_snapshot(&mut self, to: ServerId, address: String, term: Term, index: Index) {
        let snapshots = self.snapshots.0.clone();
        let reply = move |content| {
            let opened = SnapshotOpened { to, address, term, content };
            drop(snapshots.send(SnapshotEvent::Opened(opened)));
        };
        self.parts.store.open_snapshot(index, Box::new(reply));
    }

    fn on_snapshot_opened(&mut self, opened: SnapshotOpened) -> Result<(), Fault> {
        let SnapshotOpened { to, address, term, content } = opened;
        match content {
            Ok(StoredSnapshot { point, content }) => {
                let message = InstallSnapshot {
                    term,
                    last_index: point.index,
                    last_term: point.term,
                    configuration_index: point.configuration_index,
                    configuration: point.configuration,
                    data: SnapshotData::new(content),
                };
                self.parts.peers.send_snapshot(to, &address, message);
                Ok(())
            }
            Err(error) => {
                tracing::warn!(%to, %error, "the snapshot for a server that is far behind cannot be read");
                self.step(Input::SnapshotSent { to, ok: false })
            }
        }
    }

    fn on_entries_read(&mut self, EntriesRead { to, first, entries }: EntriesRead) -> Result<(), Fault> {
        let entries = entries.unwrap_or_else(|error| {
            tracing::warn!(%to, %first, %error, "entries for a server that lags cannot be read");
            Vec::new()
        });
        self.step(Input::EntriesRead { to, entries })
    }

    /// First a thread brings the pages into memory, and so knows that they are all there; then the disk, then
    /// the databases: a crash in between restores them from the disk.
    fn install(&mut self, point: SnapshotPoint, data: SnapshotData) -> Result<(), Fault> {
        let content = data.downcast::<Spooled>();
        let content = content.ok_or_else(|| Fault("a snapshot came from nowhere".into()))?;
        self.installing = Some(Installing { index: point.index, snapshot: None, stored: false });
        let (snapshots, stopped) = (self.snapshots.0.clone(), self.stopped.clone());
        tokio::task::spawn_blocking(move || {
            let read = || {
                let inner = content.open().map_err(|e| e.to_string())?;
                Snapshot::read_from(&mut WhileRunning { inner, stopped }).map_err(|e| e.to_string())
            };
            let snapshot = catch_unwind(AssertUnwindSafe(read));
            let snapshot = snapshot.unwrap_or_else(|_| Err("the thread that read it panicked".into()));
            drop(snapshots.send(SnapshotEvent::Read(SnapshotRead { point, content, snapshot })));
        });
        Ok(())
    }

    fn on_snapshot_read(&mut self, read: SnapshotRead) -> Result<(), Fault> {
        let SnapshotRead { point, content, snapshot } = read;
        let index = point.index;
        match (snapshot, &mut self.installing) {
            (Ok(snapshot), Some(installing)) => {
                installing.snapshot = Some(snapshot);
                self.parts.store.install_snapshot(store::InstallRequest { point, content });
                Ok(())
            }
            (Ok(_), None) => Ok(()),
            (Err(error), _) => {
                tracing::warn!(%index, %error, "the leader's snapshot cannot be read");
                self.installing = None;
                self.step(Input::SnapshotInstalled { index, ok: false })
            }
        }
    }

    /// Brings the databases to the state of a snapshot that is on disk. Waits for sessions that still roll
    /// back.
    fn restore_installed(&mut self) -> Result<(), Fault> {
        let Some(Installing { index, snapshot: Some(snapshot), stored: true }) = &self.installing else {
            return Ok(());
        };
        let index = *index;
        if !self.applier.restore(index, snapshot)? {
            return Ok(());
        }
        self.installing = None;
        self.reported = index;
        self.step_once(Input::SnapshotInstalled { index, ok: true })
    }
}

async fn sleep(duration: Option<Duration>) {
    match duration {
        Some(duration) => tokio::time::sleep(duration).await,
        None => std::future::pending().await,
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

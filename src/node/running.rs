//! A started node: its threads, from the lock of the directory to its release.
//!
//! ```text
//! dqlite/raft      Driver: consensus, apply, publish
//! dqlite/disk      log and metadata            dqlite/snap     snapshot files      (two of the store's four)
//! dqlite/client-N  accepting and sessions, including SQL
//! dqlite/restore   brings a leader's snapshot into memory, while there is one
//! ```

use super::attention::Served;
use super::client::Client;
use super::driver::{Driver, Order, Parts};
use super::fault::Fence;
use super::gateway::{self, Shared};
use super::handover::{Handover, Outcome, Report};
use super::held::HeldMessages;
use super::inbound::Inbound;
use super::membership::Membership;
use super::poll::Poller;
use super::role_management::RoleManagement;
use super::settings::Settings;
use super::spools::Spools;
use super::{Error, Node};
use crate::config;
use crate::db::{self, Registry, Snapshot};
use crate::net::connect::Connect;
use crate::net::listen::{BoundSocket, Listener};
use crate::net::peer::{PeerEvent, Peers};
use crate::raft::{Configuration, Options, Peer, Raft, Role, Server, Start};
use crate::store::{self, Loaded, LockedDirectory, Store};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use tokio::runtime::{self, Runtime};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

/// Owns the threads of a running node. Dropping it without [`Running::stop`] is a mistake of ours.
pub struct Running {
    clients: Runtime,
    stop_accepting: oneshot::Sender<()>,
    accepting: tokio::task::JoinHandle<()>,
    raft: JoinHandle<()>,
    stop_raft: oneshot::Sender<()>,
    registry: Arc<Registry>,
    fence: Arc<Fence>,
    handover: Arc<Handover>,
}

impl Running {
    /// Everything that can fail happens before a client could notice.
    pub fn start(
        node: &Node,
        settings: &Settings,
        socket: &BoundSocket,
        connect: Connect,
    ) -> Result<Running, Error> {
        let mut directory = node.directory.lock()?;
        if config::BOOTSTRAP_IDS.contains(&node.id.0) {
            let own = Server { id: node.id, address: node.address.clone(), role: Role::Voter };
            directory.bootstrap(&Configuration { servers: vec![own] })?;
        }
        let clients = client_runtime(settings.client_threads)
            .map_err(|e| Error::failed(format!("cannot start the client threads: {e}")))?;
        let listener = {
            let _inside = clients.enter();
            socket.listen().map_err(|e| Error::failed(format!("cannot listen: {e}")))?
        };
        let registry = Arc::new(Registry::new(node.vfs.clone(), node.status.clone()));
        let loaded = directory.load_with(settings.auto_recovery, |content| {
            Snapshot::read_from(content).map_err(|error| error.to_string())
        })?;
        for note in &loaded.notes {
            tracing::warn!(note, "data directory repaired");
        }
        let membership = Arc::new(Membership::new(node.id));
        let fence = Arc::new(Fence::default());
        let (requests, requests_in) = mpsc::unbounded_channel();
        let (orders, orders_in) = mpsc::channel(config::ORDERS_MAX);
        let (inbound, inbound_in) = mpsc::channel(config::INBOUND_MESSAGES_MAX);
        let (peer_reports, peer_events) = mpsc::unbounded_channel();
        // Reports to a Raft thread that has ended are of no interest.
        let report = Arc::new(move |event| {
            let _ = peer_reports.send(event);
        });
        let own = Peer { id: node.id, address: node.address.clone() };
        let peers = Peers::new(&own, connect.clone(), clients.handle().clone(), report);
        let wiring = Wiring {
            registry: registry.clone(),
            membership: membership.clone(),
            fence: fence.clone(),
            peers,
            peer_events,
            requests: requests_in,
            orders: orders_in,
            inbound: inbound_in,
        };
        let (raft, stop_raft, spools) = start_raft(node, settings, directory, loaded, wiring)?;
        let spools = Arc::new(Spools::new(spools, node.compression.clone()));
        let served = Served::default();
        let shared =
            Shared { registry: registry.clone(), membership, requests, orders, inbound, spools, served };
        let (stop_accepting, stopped) = oneshot::channel();
        let handover = manage_roles(node, &clients, connect.one_at_a_time(), shared.clone());
        let accepting = clients.spawn(accept_clients(listener, shared, stopped));
        Ok(Running { clients, stop_accepting, accepting, raft, stop_raft, registry, fence, handover })
    }

    /// Begins a handover. It ends with the node at the latest.
    pub fn hand_over(&self) -> Arc<Outcome> {
        let outcome = Arc::<Outcome>::default();
        let (handover, report) = (self.handover.clone(), Report(outcome.clone()));
        self.clients.spawn(async move { report.send(handover.run().await) });
        outcome
    }

    /// Ends sessions first, so that nobody writes when the log is closed.
    pub fn stop(self) -> Result<(), Error> {
        self.registry.status.begin_stopping();
        // A thread of its own, since a caller inside another async runtime may not block on this one.
        let Running { clients, stop_accepting, accepting, raft, stop_raft, fence, .. } = self;
        let own_fence = fence.clone();
        let ended = std::thread::Builder::new().name("dqlite/stop".into()).spawn(move || {
            // Either end may be gone already after a fault; there is nothing left to stop then.
            let _ = stop_accepting.send(());
            let closed = clients.block_on(accepting);
            let _ = stop_raft.send(());
            if raft.join().is_err() || closed.is_err() {
                own_fence.raise("internal error while stopping".into());
            }
            drop(clients);
        });
        let ended = ended.map_err(|e| Error::failed(format!("cannot stop the node: {e}")))?;
        if ended.join().is_err() {
            fence.raise("internal error while stopping".into());
        }
        match fence.reason() {
            None => Ok(()),
            Some(reason) => Err(Error::failed(format!("the node had stopped by itself: {reason}"))),
        }
    }
}

/// Starts role management, and prepares a handover.
fn manage_roles(node: &Node, clients: &Runtime, connect: Connect, shared: Shared) -> Arc<Handover> {
    let (id, settings) = (node.id, node.roles.clone());
    let poller = Arc::new(Poller::new(id, connect.clone()));
    let handover = Handover {
        id,
        settings: settings.clone(),
        shared: shared.clone(),
        poller: poller.clone(),
        connect,
        only: tokio::sync::Mutex::new(()),
    };
    clients.spawn(RoleManagement { id, settings, shared, poller }.run());
    Arc::new(handover)
}

/// What connects the Raft thread with the rest of the node.
struct Wiring {
    registry: Arc<Registry>,
    membership: Arc<Membership>,
    fence: Arc<Fence>,
    peers: Peers,
    peer_events: mpsc::UnboundedReceiver<PeerEvent>,
    requests: mpsc::UnboundedReceiver<db::Request>,
    orders: mpsc::Receiver<Order>,
    inbound: mpsc::Receiver<Inbound>,
}

/// Starts the disk threads and the Raft thread, and waits until the state found on disk is applied.
fn start_raft(
    node: &Node,
    settings: &Settings,
    directory: LockedDirectory,
    loaded: Loaded<Snapshot>,
    wiring: Wiring,
) -> Result<(JoinHandle<()>, oneshot::Sender<()>, store::Spools), Error> {
    let (events, store_events) = mpsc::unbounded_channel();
    // The Raft thread outlives the disk threads, except after a fault, when nobody listens any more.
    let held = Arc::new(HeldMessages::default());
    let reports = held.clone();
    let report = Box::new(move |event: store::Event| {
        if reports.report(&event) {
            drop(events.send(event));
        }
    });
    let options = store::Options { segment_size: settings.segment_size };
    let store = Store::start(directory, &loaded, options, report)?;
    let spools = store.spools();
    let core = Raft::new(core_options(node, settings), seed());
    let fence = wiring.fence.clone();
    let (stop_raft, stop) = oneshot::channel();
    let parts = Parts {
        core,
        store,
        store_events,
        held,
        peers: wiring.peers,
        peer_events: wiring.peer_events,
        inbound: wiring.inbound,
        requests: wiring.requests,
        orders: wiring.orders,
        stop,
        registry: wiring.registry,
        membership: wiring.membership,
        fence: wiring.fence,
        compression: node.compression.clone(),
        trailing: settings.snapshot_trailing,
    };
    let (ready, started) = oneshot::channel();
    let (guard, status) = (fence.clone(), node.status.clone());
    let thread = std::thread::Builder::new().name("dqlite/raft".into()).spawn(move || {
        guard.guard("dqlite/raft", move || raft_thread(parts, loaded, ready));
        // However it ended: without this thread nothing can be answered any more.
        status.end_leading();
    });
    let thread = thread.map_err(|e| Error::failed(format!("cannot start the raft thread: {e}")))?;
    match started.blocking_recv() {
        Ok(Ok(())) => Ok((thread, stop_raft, spools)),
        Ok(Err(error)) => {
            let _ = thread.join();
            Err(error)
        }
        Err(_) => {
            let _ = thread.join();
            Err(Error::failed(fence.reason().unwrap_or_else(|| "the raft thread ended".into())))
        }
    }
}

fn raft_thread(parts: Parts, loaded: Loaded<Snapshot>, ready: oneshot::Sender<Result<(), Error>>) {
    let runtime =
        match runtime::Builder::new_current_thread().enable_all().thread_name("dqlite/restore").build() {
            Ok(runtime) => runtime,
            Err(error) => {
                let _ = ready.send(Err(Error::failed(format!("cannot start the raft thread: {error}"))));
                return;
            }
        };
    let mut driver = Driver::new(parts);
    let (snapshot, content) = loaded.snapshot.map(|s| (s.point, s.content)).unzip();
    let start = Start {
        term: loaded.term,
        voted_for: loaded.voted_for,
        snapshot,
        first_index: loaded.first_index,
        entries: loaded.entries,
    };
    if let Err(fault) = driver.start(start, content) {
        driver.close();
        let _ = ready.send(Err(Error::failed(format!("raft_start(): {fault}"))));
        return;
    }
    if ready.send(Ok(())).is_ok() {
        runtime.block_on(driver.run());
    }
}

/// For the randomness of elections; a node that cannot have any starts all the same.
fn seed() -> u64 {
    let mut seed = [0; 8];
    let filled = rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::empty());
    if filled.is_err() { std::process::id().into() } else { u64::from_le_bytes(seed) }
}

fn core_options(node: &Node, settings: &Settings) -> Options {
    Options {
        id: node.id,
        address: node.address.clone(),
        election_timeout_ms: settings.election_timeout_ms,
        heartbeat_timeout_ms: settings.heartbeat_timeout_ms,
        snapshot_threshold: settings.snapshot_threshold,
        snapshot_trailing: settings.snapshot_trailing,
        trailing_strategy: settings.trailing_strategy,
        log_memory_bytes: config::LOG_MEMORY_BYTES,
    }
}

fn client_runtime(threads: u32) -> std::io::Result<Runtime> {
    let number = AtomicUsize::new(0);
    runtime::Builder::new_multi_thread()
        .worker_threads(threads.clamp(1, 512) as usize)
        .max_blocking_threads(config::LONG_STATEMENTS_MAX)
        .thread_name_fn(move || format!("dqlite/client-{}", number.fetch_add(1, Ordering::Relaxed)))
        .enable_io()
        .enable_time()
        .build()
}

/// Accepts until told to stop, then closes every session and waits for their statements to end.
async fn accept_clients(listener: Listener, shared: Shared, mut stopped: oneshot::Receiver<()>) {
    let mut sessions = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            _ = &mut stopped => break,
            Some(_) = sessions.join_next(), if !sessions.is_empty() => {}
            stream = listener.accept() => {
                sessions.spawn(gateway::serve(Client::new(stream), shared.clone()));
            }
        }
    }
    drop(listener);
    sessions.shutdown().await;
}

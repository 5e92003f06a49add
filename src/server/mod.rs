//! `dqlite_server`: a node that founds or joins its cluster by itself and remembers the others.
//!
//! ```text
//! settings ─▶ start: files ─▶ node ─▶ server-info ─▶ join ─▶ node-store ─▶ running ─▶ stop ─┐
//!                 ▲                                                                        │
//!                 └────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Each start makes a new [`Node`]. What the first start decides, address and id, is kept in [`files`] and
//! holds for all later ones, whatever the settings say then; [`contact`] is the way to the cluster.

mod contact;
mod files;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::config::{BOOTSTRAP_IDS, SERVER_REFRESH_PERIOD_MS};
use crate::net::connect::Connect;
use crate::node::{self, ConnectFunc, Node, connect_with, generate_node_id};
use contact::{Contact, RunningContact};
use files::{FileError, Files, ServerInfo, is_line};

/// See the module documentation. All methods may be called from any thread.
pub struct Server {
    path: PathBuf,
    settings: Mutex<Settings>,
    /// 0 until a start knows it. Not behind the lock, which a start holds for long.
    id: AtomicU64,
    running: Mutex<Option<Running>>,
}

#[derive(Clone)]
struct Settings {
    address: Option<String>,
    bind_address: Option<String>,
    auto_bootstrap: bool,
    auto_join: Vec<String>,
    connect: Connect,
    refresh_period: Duration,
}

struct Running {
    node: Arc<Node>,
    contact: RunningContact,
}

/// Why a server refuses.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Start of one that runs.
    #[error("the server runs already")]
    Running,
    /// Stop or handover of one that does not.
    #[error("the server does not run")]
    NotRunning,
    /// The settings do not tell what to do.
    #[error("{0}")]
    Settings(&'static str),
    /// There are other servers in the files, but not this one.
    #[error("there is a node-store but no server-info in {}: who this server is was lost", path.display())]
    OwnInfoLost {
        /// The directory.
        path: PathBuf,
    },
    /// A file of the server.
    #[error(transparent)]
    File(#[from] FileError),
    /// The node inside.
    #[error(transparent)]
    Node(#[from] node::Error),
    /// The cluster was not reached or refused.
    #[error("cannot join the cluster: {0}")]
    Join(String),
}

impl Server {
    /// Keeps its files in an existing directory, which is not looked at yet.
    pub fn new(path: &Path) -> Server {
        let settings = Settings {
            address: None,
            bind_address: None,
            auto_bootstrap: false,
            auto_join: Vec::new(),
            connect: Connect::Tcp,
            refresh_period: Duration::from_millis(SERVER_REFRESH_PERIOD_MS),
        };
        Server {
            path: path.to_owned(),
            settings: Mutex::new(settings),
            id: AtomicU64::new(0),
            running: Mutex::default(),
        }
    }

    /// Where it keeps its files.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the others reach it. This and the other settings count from the next start on.
    pub fn set_address(&self, address: &str) {
        self.settings.lock().address = Some(address.to_owned());
    }

    /// Where it listens, if somewhere else.
    pub fn set_bind_address(&self, address: &str) {
        self.settings.lock().bind_address = Some(address.to_owned());
    }

    /// Whether the first start founds a cluster.
    pub fn set_auto_bootstrap(&self, on: bool) {
        self.settings.lock().auto_bootstrap = on;
    }

    /// Servers through which the first start joins a cluster, in addition to those named before.
    pub fn add_auto_join(&self, addresses: Vec<String>) {
        self.settings.lock().auto_join.extend(addresses);
    }

    /// Replaces the built-in TCP connect; `None` restores it.
    pub fn set_connect_func(&self, connect: Option<ConnectFunc>) {
        self.settings.lock().connect = connect_with(connect);
    }

    /// Time between two looks at who is in the cluster.
    pub fn set_refresh_period(&self, period: Duration) {
        self.settings.lock().refresh_period = period;
    }

    /// Its id, 0 before the first start has come that far.
    pub fn id(&self) -> u64 {
        self.id.load(Ordering::Relaxed)
    }

    /// Starts the node and has it in its cluster. A start that fails leaves nothing running, but may leave
    /// the id for the next one.
    pub fn start(&self) -> Result<(), Error> {
        let mut running = self.running.lock();
        if running.is_some() {
            return Err(Error::Running);
        }
        let settings = self.settings.lock().clone();
        if settings.auto_bootstrap && !settings.auto_join.is_empty() {
            return Err(Error::Settings("auto-bootstrap and auto-join exclude each other"));
        }
        let files = Files::new(&self.path);
        let (stored, known) = (files.server_info()?, files.node_store()?);
        let own = match &stored {
            Some(own) => own.clone(),
            None if known.is_some() => return Err(Error::OwnInfoLost { path: self.path.clone() }),
            None => new_server(&settings)?,
        };
        self.id.store(own.id, Ordering::Relaxed);
        if settings.address.as_ref().is_some_and(|address| *address != own.address) {
            tracing::warn!(address = own.address, "a server keeps the address of its first start");
        }
        let node = self.start_node(&own, &settings)?;
        if stored.is_none() {
            files.write_server_info(&own)?;
        }
        let contact = Contact {
            connect: settings.connect.one_at_a_time(),
            own,
            files,
            known: known.into_iter().flatten().map(|server| server.address).collect(),
            join: settings.auto_join,
            refresh_period: settings.refresh_period,
        };
        // Without a contact the node is dropped, which stops it.
        let contact = contact.start().map_err(Error::Join)?;
        *running = Some(Running { node: Arc::new(node), contact });
        Ok(())
    }

    fn start_node(&self, own: &ServerInfo, settings: &Settings) -> Result<Node, node::Error> {
        let node = Node::create(own.id, &own.address, &self.path)?;
        node.set_connect(settings.connect.clone())?;
        node.set_bind_address(settings.bind_address.as_ref().unwrap_or(&own.address))?;
        node.start()?;
        Ok(node)
    }

    /// See [`Node::handover`].
    pub fn handover(&self) -> Result<(), Error> {
        // Without the lock while it waits, so that the server can be stopped meanwhile.
        let node = self.running.lock().as_ref().map(|running| running.node.clone());
        Ok(node.ok_or(Error::NotRunning)?.handover()?)
    }

    /// Stops it; it may be started again. Of several calls at the same time one does it.
    pub fn stop(&self) -> Result<(), Error> {
        let mut running = self.running.lock();
        let Running { node, contact } = running.take().ok_or(Error::NotRunning)?;
        contact.stop();
        Ok(node.stop()?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A running server is stopped; the outcome has nobody to go to.
        let _ = self.stop();
    }
}

/// Who this server is to be, according to the settings.
fn new_server(settings: &Settings) -> Result<ServerInfo, Error> {
    let address = settings.address.as_ref().filter(|address| is_line(address));
    let address = address.ok_or(Error::Settings("no address set: call dqlite_server_set_address first"))?;
    if !settings.auto_bootstrap && settings.auto_join.is_empty() {
        return Err(Error::Settings(
            "the first start needs a cluster: call dqlite_server_set_auto_bootstrap to found one, or \
             dqlite_server_set_auto_join to join one",
        ));
    }
    let [_, bootstrap_id] = BOOTSTRAP_IDS;
    let id = if settings.auto_bootstrap { bootstrap_id } else { generate_node_id(address.as_bytes()) };
    Ok(ServerInfo { address: address.clone(), id })
}

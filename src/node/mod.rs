//! A node: the composition of Raft core, store, databases and sockets, and its life from create to stop.
//!
//! ```text
//! create ──▶ set, bind ──▶ start ──▶ running ──▶ stop ──▶ stopped
//! ```
//!
//! A node is started once. A start that fails, because another process holds the directory for instance,
//! leaves it as it was: it may be tried again.

pub mod applier;
mod attention;
mod client;
mod driver;
mod fault;
mod gateway;
mod handover;
mod held;
mod id;
mod inbound;
mod membership;
mod poll;
mod role_management;
mod roles;
mod running;
mod settings;
mod spools;

pub use crate::raft::TrailingStrategy;
pub use id::generate_node_id;

use crate::config;
use crate::db::Status;
use crate::net::addr::BindAddress;
use crate::net::connect::{Connect, Connector};
use crate::net::listen::BoundSocket;
use crate::raft::{Configuration, ServerId};
use crate::sqlite;
use crate::store::{self, AutoRecovery, Directory};
use crate::vfs::{self, Vfs};
use parking_lot::Mutex;
use role_management::RoleSettings;
use running::Running;
use settings::Settings;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Connects to another server: called with its address on a thread that may block, returns a connected stream
/// socket, whose ownership passes to the node, or `None`.
pub type ConnectFunc = Box<dyn Fn(&str) -> Option<OwnedFd> + Send + Sync>;

/// The embedder's function as the network layer wants it.
struct Embedder(ConnectFunc);

impl Connector for Embedder {
    fn connect(&self, address: &str) -> io::Result<OwnedFd> {
        (self.0)(address).ok_or_else(|| io::Error::other("the connect function failed"))
    }
}

/// Connects as the embedder says; with `None`, over TCP.
pub fn connect_with(connect: Option<ConnectFunc>) -> Connect {
    connect.map_or(Connect::Tcp, |connect| Connect::Custom(Arc::new(Embedder(connect))))
}

/// What went wrong, in the classes of the C API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// DQLITE_ERROR.
    Failed,
    /// DQLITE_MISUSE: wrong argument, or not in this state.
    Misuse,
}

/// An error of the node, with a text for `dqlite_node_errmsg`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// Its class.
    pub kind: ErrorKind,
    /// What happened, in the words of the C library where clients know them.
    pub message: String,
}

impl Error {
    fn failed(message: impl ToString) -> Error {
        Error { kind: ErrorKind::Failed, message: message.to_string() }
    }

    fn misuse(message: impl ToString) -> Error {
        Error { kind: ErrorKind::Misuse, message: message.to_string() }
    }
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Error {
        Error::failed(error)
    }
}

impl From<sqlite::Error> for Error {
    fn from(error: sqlite::Error) -> Error {
        Error::failed(error)
    }
}

impl From<vfs::Error> for Error {
    fn from(error: vfs::Error) -> Error {
        Error::failed(error)
    }
}

/// One server of this library. All methods may be called from any thread.
pub struct Node {
    id: ServerId,
    address: String,
    directory: Directory,
    vfs: Arc<Vfs>,
    status: Arc<Status>,
    compression: Arc<AtomicBool>,
    roles: Arc<RoleSettings>,
    life: Mutex<Life>,
}

struct Life {
    settings: Settings,
    connect: Connect,
    bind_address: Option<String>,
    stage: Stage,
}

enum Stage {
    /// Not started; bound or not.
    Created(Option<BoundSocket>),
    Running(Running),
    Stopped,
}

impl Node {
    /// Checks the data directory, reads its metadata, registers the VFS. Opens no socket, takes no lock.
    pub fn create(id: u64, address: &str, data_dir: &Path) -> Result<Node, Error> {
        let directory = Directory::open(data_dir)?;
        sqlite::initialize()?;
        if sqlite::threading() == sqlite::Threading::OneAtATime {
            tracing::warn!(
                "this process set SQLite to single-thread mode: statements run one at a time; \
                 go-dqlite regains concurrency with GO_DQLITE_MULTITHREAD=1"
            );
        }
        let life = Life {
            settings: Settings::default(),
            connect: Connect::Tcp,
            bind_address: None,
            stage: Stage::Created(None),
        };
        Ok(Node {
            id: ServerId(id),
            address: address.to_owned(),
            directory,
            vfs: Arc::new(Vfs::register(config::CHECKPOINT_THRESHOLD_FRAMES)?),
            status: Arc::default(),
            compression: Arc::new(AtomicBool::new(true)),
            roles: Arc::default(),
            life: Mutex::new(life),
        })
    }

    /// Binds (does not yet listen on) `ip:port`, `[ip6]:port` or `@abstract-name`. The last call wins.
    pub fn set_bind_address(&self, address: &str) -> Result<(), Error> {
        let mut life = self.life.lock();
        let Stage::Created(socket) = &mut life.stage else { return Err(not_before_start()) };
        let parsed: BindAddress = address.parse().map_err(Error::failed)?;
        // The socket bound before, if any, goes first: it may have the same address.
        *socket = None;
        let bound = BoundSocket::bind(&parsed);
        let bound = bound.map_err(|e| Error::failed(format!("cannot bind to '{address}': {e}")))?;
        life.bind_address = Some(match bound.address() {
            BindAddress::Abstract(name) => format!("@{name}"),
            _ => address.to_owned(),
        });
        life.stage = Stage::Created(Some(bound));
        Ok(())
    }

    /// The address given to `set_bind_address`; with the kernel's name for "@".
    pub fn bind_address(&self) -> Option<String> {
        self.life.lock().bind_address.clone()
    }

    /// Replaces the built-in TCP connect; `None` restores it.
    pub fn set_connect_func(&self, connect: Option<ConnectFunc>) -> Result<(), Error> {
        self.set_connect(connect_with(connect))
    }

    /// The same, for who connects in this way too.
    pub fn set_connect(&self, connect: Connect) -> Result<(), Error> {
        let mut life = self.life.lock();
        life.check_not_running()?;
        life.connect = connect;
        Ok(())
    }

    /// 1 ..= 3 600 000 ms; election timeout = 15 x, heartbeat = 1.5 x.
    pub fn set_network_latency_ms(&self, latency_ms: u64) -> Result<(), Error> {
        self.before_start(|settings| settings.set_network_latency_ms(latency_ms))
    }

    /// Any time.
    pub fn set_failure_domain(&self, code: u64) -> Result<(), Error> {
        self.status.set_failure_domain(code);
        Ok(())
    }

    /// trailing >= 4 and trailing >= threshold, else misuse.
    pub fn set_snapshot_params(
        &self,
        threshold: u32,
        trailing: u32,
        strategy: TrailingStrategy,
    ) -> Result<(), Error> {
        self.before_start(|settings| settings.set_snapshot_params(threshold, trailing, strategy))
    }

    /// Powers of two, 512 ..= 256 KiB, else `Failed`.
    pub fn set_block_size(&self, size: usize) -> Result<(), Error> {
        self.before_start(|settings| settings.set_block_size(size))
    }

    /// 8 KiB ..= 8 MiB, else misuse. Small segments make a log of many files, which is good for tests only;
    /// the C API has no such function. Directories stay readable for every release, whatever the size.
    pub fn set_segment_size(&self, size: usize) -> Result<(), Error> {
        self.before_start(|settings| settings.set_segment_size(size))
    }

    /// Any time.
    pub fn set_target_voters(&self, count: i32) -> Result<(), Error> {
        self.roles.set_target_voters(count);
        Ok(())
    }

    /// Any time.
    pub fn set_target_standbys(&self, count: i32) -> Result<(), Error> {
        self.roles.set_target_standbys(count);
        Ok(())
    }

    /// Worker threads of the client runtime; effective at start.
    pub fn set_pool_thread_count(&self, count: u32) -> Result<(), Error> {
        self.life.lock().settings.client_threads = count;
        Ok(())
    }

    /// Effective at start.
    pub fn set_auto_recovery(&self, enabled: bool) -> Result<(), Error> {
        let recovery = if enabled { AutoRecovery::On } else { AutoRecovery::Off };
        self.life.lock().settings.auto_recovery = recovery;
        Ok(())
    }

    /// Effective at the next snapshot.
    pub fn set_snapshot_compression(&self, enabled: bool) -> Result<(), Error> {
        self.compression.store(enabled, Ordering::Relaxed);
        Ok(())
    }

    /// How long a writer waits for another one's transaction; any time.
    pub fn set_busy_timeout(&self, timeout_ms: u32) -> Result<(), Error> {
        self.status.set_busy_timeout_ms(timeout_ms);
        Ok(())
    }

    /// Accepted and ignored unless running (misuse): databases are always in memory.
    pub fn enable_disk_mode(&self) -> Result<(), Error> {
        self.life.lock().check_not_running()
    }

    /// While it leads, this node gives all servers their roles. Any time; ends with [`Node::handover`].
    pub fn enable_role_management(&self) -> Result<(), Error> {
        self.roles.enable();
        Ok(())
    }

    /// Gives leadership and role to other servers, as far as there are any: to be called before
    /// [`Node::stop`]. Returns within [`config::HANDOVER_WAIT_MS`]; an error says what this server has kept.
    /// Misuse unless running.
    pub fn handover(&self) -> Result<(), Error> {
        // Without the lock while it waits, so that the node can be stopped meanwhile.
        let outcome = match &self.life.lock().stage {
            Stage::Running(running) => running.hand_over(),
            Stage::Created(_) | Stage::Stopped => return Err(Error::misuse("the node is not running")),
        };
        outcome.wait().map_err(Error::failed)
    }

    /// Forces a configuration upon the log of a node that does not run.
    pub fn recover(&self, configuration: &Configuration) -> Result<(), Error> {
        let life = self.life.lock();
        if let Stage::Running(_) = life.stage {
            return Err(store::Error::Locked.into());
        }
        let mut directory = self.directory.lock()?;
        let recovered = directory.recover(configuration, life.settings.auto_recovery)?;
        let (index, term) = (recovered.index, recovered.term);
        tracing::warn!(%index, %term, "a configuration was forced upon the log");
        Ok(())
    }

    /// Index and term of the last entry on disk. Misuse once the node was started.
    pub fn last_entry(&self) -> Result<(u64, u64), Error> {
        let life = self.life.lock();
        let Stage::Created(_) = life.stage else {
            return Err(Error::misuse("the node was started; its last entry can be read only before"));
        };
        let (index, term) = self.directory.last_entry(life.settings.auto_recovery)?;
        Ok((index.0, term.0))
    }

    /// Locks the directory, loads it, starts the threads, listens. Returns when connections are accepted.
    pub fn start(&self) -> Result<(), Error> {
        let mut life = self.life.lock();
        let life = &mut *life;
        let socket = match &mut life.stage {
            Stage::Created(socket) => socket.take(),
            // The lock of the directory is ours already; C meets it through another open file.
            Stage::Running(_) => return Err(store::Error::Locked.into()),
            Stage::Stopped => {
                return Err(Error::misuse("a node can be started only once: create a new one"));
            }
        };
        let Some(socket) = socket else {
            return Err(Error::misuse("no bind address set: call dqlite_node_set_bind_address first"));
        };
        match Running::start(self, &life.settings, &socket, life.connect.clone()) {
            Ok(running) => {
                life.stage = Stage::Running(running);
                Ok(())
            }
            Err(error) => {
                life.stage = Stage::Created(Some(socket));
                Err(error)
            }
        }
    }

    /// Closes every connection, finishes the log, joins the threads. Misuse unless running.
    pub fn stop(&self) -> Result<(), Error> {
        let mut life = self.life.lock();
        match std::mem::replace(&mut life.stage, Stage::Stopped) {
            Stage::Running(running) => running.stop(),
            other => {
                life.stage = other;
                Err(Error::misuse("the node is not running"))
            }
        }
    }

    fn before_start(&self, change: impl FnOnce(&mut Settings) -> Result<(), Error>) -> Result<(), Error> {
        let mut life = self.life.lock();
        life.check_not_running()?;
        change(&mut life.settings)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // A running node is stopped; the outcome has nobody to go to.
        let _ = self.stop();
    }
}

impl Life {
    fn check_not_running(&self) -> Result<(), Error> {
        match self.stage {
            Stage::Running(_) => Err(not_before_start()),
            Stage::Created(_) | Stage::Stopped => Ok(()),
        }
    }
}

fn not_before_start() -> Error {
    Error::misuse("not allowed once the node has been started")
}

//! A node: the composition of Raft core, store, databases and sockets, and its life from create to stop.

use std::path::Path;

/// Connects to another server: called with its address on a thread that may block, returns a connected stream
/// socket, whose ownership passes to the node, or `None`.
pub type ConnectFunc = Box<dyn Fn(&str) -> Option<std::os::fd::OwnedFd> + Send + Sync>;

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

/// How many entries stay in the log behind a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TrailingStrategy {
    /// Always the trailing number.
    #[default]
    Static,
    /// As many as fit in the size of the snapshot, between threshold and trailing.
    Dynamic,
}

/// One server of this library. All methods may be called from any thread.
pub struct Node {}

impl Node {
    /// Checks the data directory, reads its metadata, registers the VFS. Opens no socket, takes no lock.
    pub fn create(id: u64, address: &str, data_dir: &Path) -> Result<Node, Error> {
        let _ = (id, address, data_dir);
        Err(Error { kind: ErrorKind::Failed, message: "skeleton".into() })
    }

    /// Binds (does not yet listen on) `ip:port`, `[ip6]:port` or `@abstract-name`.
    pub fn set_bind_address(&self, address: &str) -> Result<(), Error> {
        let _ = address;
        Err(Error { kind: ErrorKind::Failed, message: "skeleton".into() })
    }
    /// The address given to `set_bind_address`; with the kernel's name for "@".
    pub fn bind_address(&self) -> Option<String> {
        None
    }
    /// Replaces the built-in TCP connect; `None` restores it.
    pub fn set_connect_func(&self, connect: Option<ConnectFunc>) -> Result<(), Error> {
        let _ = connect;
        Ok(())
    }
    /// 1 ..= 3 600 000 ms; election timeout = 15 x, heartbeat = 1.5 x.
    pub fn set_network_latency_ms(&self, latency_ms: u64) -> Result<(), Error> {
        let _ = latency_ms;
        Ok(())
    }
    /// Any time.
    pub fn set_failure_domain(&self, code: u64) -> Result<(), Error> {
        let _ = code;
        Ok(())
    }
    /// trailing >= 4 and trailing >= threshold, else misuse.
    pub fn set_snapshot_params(
        &self,
        threshold: u32,
        trailing: u32,
        strategy: TrailingStrategy,
    ) -> Result<(), Error> {
        let _ = (threshold, trailing, strategy);
        Ok(())
    }
    /// Powers of two, 512 ..= 256 KiB, else `Failed`.
    pub fn set_block_size(&self, size: usize) -> Result<(), Error> {
        let _ = size;
        Ok(())
    }
    /// Any time.
    pub fn set_target_voters(&self, count: i32) -> Result<(), Error> {
        let _ = count;
        Ok(())
    }
    /// Any time.
    pub fn set_target_standbys(&self, count: i32) -> Result<(), Error> {
        let _ = count;
        Ok(())
    }
    /// Worker threads of the client runtime; effective at start.
    pub fn set_pool_thread_count(&self, count: u32) -> Result<(), Error> {
        let _ = count;
        Ok(())
    }
    /// Effective at start.
    pub fn set_auto_recovery(&self, enabled: bool) -> Result<(), Error> {
        let _ = enabled;
        Ok(())
    }
    /// Effective at the next snapshot.
    pub fn set_snapshot_compression(&self, enabled: bool) -> Result<(), Error> {
        let _ = enabled;
        Ok(())
    }
    /// How long a writer waits for another one's transaction; any time.
    pub fn set_busy_timeout(&self, timeout_ms: u32) -> Result<(), Error> {
        let _ = timeout_ms;
        Ok(())
    }
    /// Accepted and ignored unless running (misuse): databases are always in memory.
    pub fn enable_disk_mode(&self) -> Result<(), Error> {
        Ok(())
    }
    /// Not available yet: an error that says so.
    pub fn enable_role_management(&self) -> Result<(), Error> {
        Ok(())
    }
    /// Misuse unless running; not available yet otherwise.
    pub fn handover(&self) -> Result<(), Error> {
        Ok(())
    }
    /// Locks the directory, loads it, starts the threads, listens. Returns when connections are accepted.
    pub fn start(&self) -> Result<(), Error> {
        Ok(())
    }
    /// Closes every connection, finishes the log, joins the threads. Misuse unless running.
    pub fn stop(&self) -> Result<(), Error> {
        Ok(())
    }
}

/// A node id from an address and the clock: SHA-1, as in C.
pub fn generate_node_id(address: &[u8]) -> u64 {
    let _ = address;
    0
}

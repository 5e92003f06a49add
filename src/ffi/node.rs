//! `dqlite_node`: the handle around [`Node`].
//!
//! The handle keeps the text of the last failed call. `create` hands out a handle also when it fails, so that
//! the caller can ask why; such a handle has no node inside and refuses everything but `errmsg` and
//! `destroy`.

use std::ffi::{CString, OsStr, c_char, c_int, c_uint, c_ulonglong, c_void};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::AtomicU64;

use parking_lot::Mutex;

use super::node_info::{NodeId, NodeInfo, NodeInfoExt, read_infos, read_infos_ext};
use super::tracing::enable_if_asked;
use super::{Failure, Handle, OK, ShownText, bytes, catch, guarded, object, take, text};
use crate::node::{self, ConnectFunc, Node, TrailingStrategy};

/// A node: one server of a dqlite cluster, running inside this process.
pub struct NodeHandle {
    magic: AtomicU64,
    /// The text is why `create` failed.
    node: Result<Node, String>,
    last_failure: Mutex<String>,
    shown_failure: ShownText,
    shown_address: ShownText,
}

impl Handle for NodeHandle {
    const MAGIC: u64 = u64::from_be_bytes(*b"dqNODE01");
    const NAME: &'static str = "node";

    fn magic(&self) -> &AtomicU64 {
        &self.magic
    }
}

impl NodeHandle {
    fn new(node: Result<Node, String>) -> NodeHandle {
        let last_failure = node.as_ref().err().cloned().unwrap_or_default();
        NodeHandle {
            magic: AtomicU64::new(NodeHandle::MAGIC),
            node,
            last_failure: Mutex::new(last_failure),
            shown_failure: ShownText::default(),
            shown_address: ShownText::default(),
        }
    }

    fn node(&self) -> Result<&Node, Failure> {
        self.node.as_ref().map_err(|reason| Failure::misuse(format!("this node was not created: {reason}")))
    }
}

/// The body of almost every export: runs `body` on the object and keeps the text of a failure in it.
///
/// # Safety
/// `handle` follows the module's contract for handles.
unsafe fn call(handle: *const NodeHandle, body: impl FnOnce(&NodeHandle) -> Result<(), Failure>) -> c_int {
    // SAFETY: the caller's promise is the one that `object` asks for.
    let handle = match unsafe { object(handle) } {
        Ok(handle) => handle,
        Err(failure) => return failure.code,
    };
    match catch(|| body(handle)) {
        Ok(()) => OK,
        Err(failure) => {
            *handle.last_failure.lock() = failure.text;
            failure.code
        }
    }
}

/// A setter whose only work is one call on the node.
///
/// # Safety
/// As [`call`].
unsafe fn set(handle: *const NodeHandle, setter: impl FnOnce(&Node) -> Result<(), node::Error>) -> c_int {
    // SAFETY: the caller's promise is the same.
    unsafe { call(handle, |handle| Ok(setter(handle.node()?)?)) }
}

/// Creates a node. The node does nothing until dqlite_node_start.
///
/// `id` identifies the server in its cluster; with id 1 and an empty directory the node starts a new cluster
/// of its own. `address` is where the other servers and the clients reach it. `data_dir` is an existing
/// directory that belongs to this node alone.
///
/// On failure a handle is stored in `*n` all the same: dqlite_node_errmsg has the reason, and it must be
/// destroyed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_create(
    id: NodeId,
    address: *const c_char,
    data_dir: *const c_char,
    n: *mut *mut NodeHandle,
) -> c_int {
    guarded(|| {
        if n.is_null() {
            return Err(Failure::misuse("n is NULL"));
        }
        let created = catch(|| {
            // SAFETY: the module's contract for texts.
            let address = unsafe { text(address, "address") }?;
            // SAFETY: the module's contract for texts.
            let data_dir = Path::new(OsStr::from_bytes(unsafe { bytes(data_dir, "data_dir") }?));
            Ok(Node::create(id, address, data_dir)?)
        });
        let code = created.as_ref().err().map_or(OK, |failure| failure.code);
        let handle = Box::new(NodeHandle::new(created.map_err(|failure| failure.text)));
        // SAFETY: an output pointer, checked for NULL.
        unsafe { n.write(Box::into_raw(handle)) };
        Ok(code)
    })
}

/// Destroys a node and everything that it holds. A running node is stopped first. NULL is allowed.
///
/// Must be called also when dqlite_node_create failed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_destroy(n: *mut NodeHandle) {
    guarded(|| {
        // SAFETY: the module's contract; after destroy nobody uses the handle.
        let handle = unsafe { take(n) };
        if let Some(Ok(node)) = handle.as_ref().map(|handle| &handle.node) {
            // It fails for a node that does not run, which is the common case.
            let _ = node.stop();
        }
        Ok(())
    })
}

/// The reason of the last failed call on this node; "" if none failed, "node is NULL" if `n` is NULL.
///
/// The text is never cleared by a call that succeeds, so ask only after a failure. The pointer is valid until
/// the next call of this function, or until the node is destroyed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_errmsg(n: *mut NodeHandle) -> *const c_char {
    if n.is_null() {
        return c"node is NULL".as_ptr();
    }
    guarded(|| {
        // SAFETY: the module's contract for handles.
        let handle = unsafe { object(n.cast_const()) }?;
        let text = handle.last_failure.lock().clone();
        Ok(handle.shown_failure.show(&text))
    })
}

/// Binds the node to the address on which it will listen. Required before dqlite_node_start.
///
/// "10.0.0.1:9001" or "[2001:db8::1]:9001" (numbers, no names), or "@name" for an abstract Unix socket that
/// only this process can reach; "@" lets the kernel choose the name.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_set_bind_address(n: *mut NodeHandle, address: *const c_char) -> c_int {
    let body = |handle: &NodeHandle| {
        // SAFETY: the module's contract for texts.
        let address = unsafe { text(address, "address") }?;
        Ok(handle.node()?.set_bind_address(address)?)
    };
    // SAFETY: the module's contract for handles.
    unsafe { call(n, body) }
}

/// The address given to dqlite_node_set_bind_address, with the chosen name for "@"; NULL if none was given.
///
/// The pointer is valid until the next call of this function, or until the node is destroyed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_get_bind_address(n: *mut NodeHandle) -> *const c_char {
    guarded(|| {
        // SAFETY: the module's contract for handles.
        let handle = unsafe { object(n.cast_const()) }?;
        match handle.node()?.bind_address() {
            Some(address) => Ok(handle.shown_address.show(&address)),
            None => Ok(std::ptr::null()),
        }
    })
}

/// A function of the host program that connects to another server.
///
/// It gets the `arg` given when it was set and the server's address, valid during the call. It stores a
/// connected stream socket in `*fd`, which from then on belongs to the library, and returns 0; or it returns
/// another value. It runs on threads of the library, where it may block, perhaps on several at once.
pub type ConnectFunction =
    Option<unsafe extern "C" fn(arg: *mut c_void, address: *const c_char, fd: *mut c_int) -> c_int>;

/// The host's function together with its argument.
struct Callback {
    function: unsafe extern "C" fn(*mut c_void, *const c_char, *mut c_int) -> c_int,
    arg: *mut c_void,
}

// SAFETY: the header tells the host that its function is called on the library's threads, with this argument.
unsafe impl Send for Callback {}
// SAFETY: as above; the header says "perhaps on several at once".
unsafe impl Sync for Callback {}

impl Callback {
    fn connect(&self, address: &str) -> Option<OwnedFd> {
        let address = CString::new(address).ok()?;
        let mut fd: c_int = -1;
        // SAFETY: the host's function, with its own argument, a text and an output that live during the call.
        let code = unsafe { (self.function)(self.arg, address.as_ptr(), &mut fd) };
        if code != 0 || fd < 0 {
            return None;
        }
        // SAFETY: by contract the descriptor is open and belongs to the library now.
        Some(unsafe { OwnedFd::from_raw_fd(fd) })
    }
}

/// Wraps the host's connect function for the node.
pub(super) fn connect_func(function: ConnectFunction, arg: *mut c_void) -> Option<ConnectFunc> {
    let callback = Callback { function: function?, arg };
    Some(Box::new(move |address| callback.connect(address)))
}

/// Uses `f` to connect to other servers, for instance through TLS; NULL restores plain TCP.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_set_connect_func(
    n: *mut NodeHandle,
    f: ConnectFunction,
    arg: *mut c_void,
) -> c_int {
    // SAFETY: the module's contract for handles.
    unsafe { set(n, |node| node.set_connect_func(connect_func(f, arg))) }
}

/// As dqlite_node_set_network_latency_ms, in nanoseconds (1 000 000 to 3 600 000 000 000). Deprecated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_set_network_latency(
    n: *mut NodeHandle,
    nanoseconds: c_ulonglong,
) -> c_int {
    // Rounded up past the longest latency, so that a nanosecond too many is refused as well.
    let milliseconds = if nanoseconds > 3_600_000_000_000 { u64::MAX } else { nanoseconds / 1_000_000 };
    // SAFETY: the module's contract for handles.
    unsafe { set(n, |node| node.set_network_latency_ms(milliseconds)) }
}

/// Tells how long a message takes to another server, 1 to 3 600 000 milliseconds.
///
/// Elections start after 15 times this value without a leader, heartbeats are sent every 1.5 times. Without
/// this call: 3000 ms and 500 ms. All servers of a cluster should have the same value.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_set_network_latency_ms(
    n: *mut NodeHandle,
    milliseconds: c_uint,
) -> c_int {
    // SAFETY: the module's contract for handles.
    unsafe { set(n, |node| node.set_network_latency_ms(u64::from(milliseconds))) }
}

/// Tells in which failure domain (rack, availability zone) the server is. Role management and clients that
/// assign roles use it to spread the voters. Allowed at any time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_set_failure_domain(n: *mut NodeHandle, code: c_ulonglong) -> c_int {
    // SAFETY: the module's contract for handles.
    unsafe { set(n, |node| node.set_failure_domain(code)) }
}

/// As dqlite_node_set_snapshot_params_v2 with DQLITE_SNAPSHOT_TRAILING_STATIC. Deprecated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_set_snapshot_params(
    n: *mut NodeHandle,
    snapshot_threshold: c_uint,
    snapshot_trailing: c_uint,
) -> c_int {
    let strategy = TrailingStrategy::Static;
    // SAFETY: the module's contract for handles.
    unsafe { set(n, |node| node.set_snapshot_params(snapshot_threshold, snapshot_trailing, strategy)) }
}

/// Sets after how many log entries a snapshot is taken (`snapshot_threshold`, default 1024) and how many
/// entries are kept in the log behind it for servers that lag (`snapshot_trailing`, default 8192).
///
/// `snapshot_trailing` must be at least 4 and at least `snapshot_threshold`. `trailing_strategy` is
/// DQLITE_SNAPSHOT_TRAILING_STATIC or DQLITE_SNAPSHOT_TRAILING_DYNAMIC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_set_snapshot_params_v2(
    n: *mut NodeHandle,
    snapshot_threshold: c_uint,
    snapshot_trailing: c_uint,
    trailing_strategy: c_int,
) -> c_int {
    let body = |handle: &NodeHandle| {
        let strategy = match trailing_strategy {
            0 => TrailingStrategy::Static,
            1 => TrailingStrategy::Dynamic,
            other => return Err(Failure::misuse(format!("no such trailing strategy: {other}"))),
        };
        Ok(handle.node()?.set_snapshot_params(snapshot_threshold, snapshot_trailing, strategy)?)
    };
    // SAFETY: the module's contract for handles.
    unsafe { call(n, body) }
}

/// Sets the unit of writes to the log: a power of two from 512 to 262144 bytes. Any other value is
/// DQLITE_ERROR.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_set_block_size(n: *mut NodeHandle, size: usize) -> c_int {
    // SAFETY: the module's contract for handles.
    unsafe { set(n, |node| node.set_block_size(size)) }
}

/// Sets how many voters role management aims at (default 3; the leader remains one in any case). Allowed at
/// any time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_set_target_voters(n: *mut NodeHandle, voters: c_int) -> c_int {
    // SAFETY: the module's contract for handles.
    unsafe { set(n, |node| node.set_target_voters(voters)) }
}

/// Sets how many stand-bys role management aims at (default 0). Allowed at any time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_set_target_standbys(n: *mut NodeHandle, standbys: c_int) -> c_int {
    // SAFETY: the module's contract for handles.
    unsafe { set(n, |node| node.set_target_standbys(standbys)) }
}

/// Lets the node, while it leads, give the servers of the cluster their roles. Allowed at any time; ends with
/// dqlite_node_handover. Off by default.
///
/// Every second it asks all servers whether they are there. One that does not answer becomes a spare. Then
/// it promotes and demotes servers, one after the other, until the targets are met: first those of other
/// failure domains, then those of less weight (see dqlite_node_set_failure_domain; clients set weights), then
/// stand-bys before spares. Nothing is changed while less than a majority of the voters answers.
///
/// All nodes of a cluster should have the same targets, and no client, such as go-dqlite's app package,
/// should aim at others.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_enable_role_management(n: *mut NodeHandle) -> c_int {
    // SAFETY: the module's contract for handles.
    unsafe { set(n, Node::enable_role_management) }
}

/// Sets how many threads serve clients (default 4). Effective at start.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_set_pool_thread_count(
    n: *mut NodeHandle,
    thread_count: c_uint,
) -> c_int {
    // SAFETY: the module's contract for handles.
    unsafe { set(n, |node| node.set_pool_thread_count(thread_count)) }
}

/// Lets start repair a damaged end of the log by cutting it off (default true). Effective at start.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_set_auto_recovery(n: *mut NodeHandle, enabled: bool) -> c_int {
    // SAFETY: the module's contract for handles.
    unsafe { set(n, |node| node.set_auto_recovery(enabled)) }
}

/// Compresses snapshots on disk (default true). Effective at the next snapshot.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_set_snapshot_compression(n: *mut NodeHandle, enabled: bool) -> c_int {
    // SAFETY: the module's contract for handles.
    unsafe { set(n, |node| node.set_snapshot_compression(enabled)) }
}

/// Sets how long a write waits for another connection's transaction before it fails with SQLITE_BUSY (default
/// 0). Allowed at any time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_set_busy_timeout(n: *mut NodeHandle, msecs: c_uint) -> c_int {
    // SAFETY: the module's contract for handles.
    unsafe { set(n, |node| node.set_busy_timeout(msecs)) }
}

/// Accepted and without effect: databases are always in memory, and durable through the log.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_enable_disk_mode(n: *mut NodeHandle) -> c_int {
    // SAFETY: the module's contract for handles.
    unsafe { set(n, Node::enable_disk_mode) }
}

/// Starts the node: locks and loads the data directory, starts its threads, listens.
///
/// Returns when clients can connect. A node can be started once; create another one to start again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_start(n: *mut NodeHandle) -> c_int {
    let body = |handle: &NodeHandle| {
        enable_if_asked();
        Ok(handle.node()?.start()?)
    };
    // SAFETY: the module's contract for handles.
    unsafe { call(n, body) }
}

/// Stops the node: closes its connections, completes its files, ends its threads.
///
/// Any thread may call it. Call dqlite_node_handover first to hand leadership to another server.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_stop(n: *mut NodeHandle) -> c_int {
    // SAFETY: the module's contract for handles.
    unsafe { set(n, Node::stop) }
}

/// Gives up what the node does for its cluster, before dqlite_node_stop: leadership goes to another voter,
/// and its own role to a server that has less, whereupon it is a spare.
///
/// Blocks for at most 16 seconds. DQLITE_OK means that everything was given up, or that there was nothing.
/// DQLITE_ERROR means that something was not, and dqlite_node_errmsg says what and why; in a cluster of
/// voters only, for instance, leadership goes to another one and the role stays. Stopping is allowed all the
/// same. DQLITE_MISUSE if the node does not run. Any thread may call it; dqlite_node_stop ends it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_handover(n: *mut NodeHandle) -> c_int {
    // SAFETY: the module's contract for handles.
    unsafe { set(n, Node::handover) }
}

/// As dqlite_node_recover_ext, where all servers become voters. Deprecated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_recover(
    n: *mut NodeHandle,
    infos: *mut NodeInfo,
    n_info: c_int,
) -> c_int {
    let body = |handle: &NodeHandle| {
        let node = handle.node()?;
        // SAFETY: the module's contract for arrays.
        let configuration = unsafe { read_infos(infos, n_info) }?;
        Ok(node.recover(&configuration)?)
    };
    // SAFETY: the module's contract for handles.
    unsafe { call(n, body) }
}

/// Replaces the cluster's configuration, for a cluster that has lost too many servers to elect a leader. The
/// node must not run; id and address that it was created with do not matter.
///
/// 1. Stop every server. Of the data directories that are left choose the one with the latest last entry, see
///    dqlite_node_describe_last_entry; what only others have is lost.
/// 2. Call this function on it with the servers that the cluster shall have, at least one of them a voter.
/// 3. Every other server of that list starts with a copy of this directory, or is left out of the list,
///    started with an empty directory and added later. A server that keeps its old directory may bring back
///    what was given up.
///
/// It appends the configuration to the log, in a new term. DQLITE_ERROR if the directory is in use or cannot
/// be loaded, DQLITE_MISUSE for a list that is not one. Calling it again appends again. The program
/// `dqlite recover` does the same and chooses the directory.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_recover_ext(
    n: *mut NodeHandle,
    infos: *mut NodeInfoExt,
    n_info: c_int,
) -> c_int {
    enable_if_asked();
    let body = |handle: &NodeHandle| {
        let node = handle.node()?;
        // SAFETY: the module's contract for arrays.
        let configuration = unsafe { read_infos_ext(infos, n_info) }?;
        Ok(node.recover(&configuration)?)
    };
    // SAFETY: the module's contract for handles.
    unsafe { call(n, body) }
}

/// Tells index and term of the last entry in the log of a node that was not started; 0 and 0 for an empty
/// log.
///
/// Of several data directories the one with the highest term, then the highest index, is the one to recover
/// from. (If the C library forced a configuration upon one of them, which it does in term 1, that one is the
/// newer.) Nothing is changed. Of a damaged log it tells what a start would keep; with
/// dqlite_node_set_auto_recovery off, damage is DQLITE_ERROR, as is a directory that is in use.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_describe_last_entry(
    n: *mut NodeHandle,
    last_entry_index: *mut u64,
    last_entry_term: *mut u64,
) -> c_int {
    let body = |handle: &NodeHandle| {
        if last_entry_index.is_null() || last_entry_term.is_null() {
            return Err(Failure::misuse("last_entry_index and last_entry_term must not be NULL"));
        }
        let (index, term) = handle.node()?.last_entry()?;
        // SAFETY: an output pointer, checked for NULL.
        unsafe { last_entry_index.write(index) };
        // SAFETY: an output pointer, checked for NULL.
        unsafe { last_entry_term.write(term) };
        Ok(())
    };
    // SAFETY: the module's contract for handles.
    unsafe { call(n, body) }
}

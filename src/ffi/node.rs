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

/// A node: one server of a dqlite cluster, running inside this process. From dqlite_node_create to
/// dqlite_node_destroy; a process may have several, each with a directory and an address of its own.
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

/// Creates a node: checks the data directory, removes unfinished files from it unless another node uses it,
/// and reads its metadata. No thread and no socket until later calls.
///
/// `id` is the server's identity and `address` where the other servers and the clients reach it: both belong
/// to the data directory and must be the same at every start. `data_dir` is an existing directory that this
/// user may write, for this node alone, its path at most 894 bytes. All three are copied.
///
/// An id of 1 or 3297041220608546238 (that of dqlite_server) makes the first start on an empty directory
/// found a cluster, with this server as its only voter. With every other id it waits to be added to a cluster
/// by a client of that cluster's leader.
///
/// Stores a handle in `*n`, which belongs to the caller until dqlite_node_destroy. On failure a handle is
/// stored, too: dqlite_node_errmsg has the reason, every other call on it is DQLITE_MISUSE, and it must be
/// destroyed.
///
/// DQLITE_OK; DQLITE_ERROR if the directory is missing, unusable or has damaged metadata, or if SQLite cannot
/// be used; DQLITE_MISUSE for NULL, and without a handle only if `n` is NULL. Since 1.0.0.
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

/// Destroys a node and everything that it holds. A running node is stopped first, as by dqlite_node_stop;
/// what that would have returned is lost. NULL is allowed.
///
/// Required after every dqlite_node_create that stored a handle, also a failed one. In every state, from one
/// thread, while no other call on this node is under way. The handle, and every text that came from it, is
/// invalid afterwards. Since 1.0.0.
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

/// The reason of the last failed call on this node, in English; "" if none failed, "node is NULL" if `n` is
/// NULL. Never NULL for a handle from dqlite_node_create.
///
/// A call that succeeds does not clear it, so ask only after a failure. In every state, from any thread; but
/// calls that fail on several threads replace each other's reason. The text belongs to the node and is valid
/// until the next call of this function on it, or until the node is destroyed. Since 1.2.0.
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

/// Binds the node to the address on which it will listen. Required once before dqlite_node_start; of several
/// calls the last one counts.
///
/// "10.0.0.1:9001" or "[2001:db8::1]:9001": numbers, no names; without a port 8080, and port 0 lets the
/// kernel choose. Or "@name" for an abstract Unix socket that only this process can reach, at most 107 bytes
/// after the @; "@" lets the kernel choose the name. The address is taken at once, clients can connect after
/// dqlite_node_start.
///
/// DQLITE_OK; DQLITE_ERROR for a text that is no address, or one that cannot be bound; DQLITE_MISUSE for
/// NULL, or once the node was started. Since 1.0.0; C 1.11.1 knew no IPv6.
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

/// The address given to dqlite_node_set_bind_address, word for word, but with the chosen name for "@"; NULL
/// if none was given. (A port that the kernel chose is not told.)
///
/// In every state, from any thread. The text belongs to the node and is valid until the next call of this
/// function on it, or until the node is destroyed. Since 1.0.0.
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
/// It gets the `arg` given when it was set, and the address of a server as the cluster knows it, valid during
/// the call. On success it stores a connected stream socket, TCP or Unix, blocking or not, in `*fd`, and
/// returns 0; from then on the library owns the descriptor and closes it. Any other value is a failure, and
/// the library tries again later; then `*fd` remains the host's.
///
/// It runs on threads of the library, where it may block, perhaps on several at once and for the same
/// address. A stop waits for calls under way to return. It must not stop or destroy the node that calls it.
/// NULL where one is set means plain TCP to a numeric IPv4 or IPv6 address, with 2 seconds for each attempt.
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

/// Uses `f` to connect to other servers, for instance through TLS; NULL restores plain TCP. See
/// dqlite_connect_func.
///
/// `f` and what `arg` points to must stay usable until dqlite_node_stop or dqlite_node_destroy has returned.
/// `arg` may be NULL; the library never looks at it. DQLITE_OK; DQLITE_MISUSE while the node runs. Since
/// 1.0.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_set_connect_func(
    n: *mut NodeHandle,
    f: ConnectFunction,
    arg: *mut c_void,
) -> c_int {
    // SAFETY: the module's contract for handles.
    unsafe { set(n, |node| node.set_connect_func(connect_func(f, arg))) }
}

/// As dqlite_node_set_network_latency_ms, but in nanoseconds, 1 000 000 to 3 600 000 000 000, rounded down to
/// milliseconds. Deprecated. Since 1.0.0.
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
/// Heartbeats are sent every 1.5 times this value, rounded down to milliseconds, and who hears no leader for
/// 15 to 30 times this value starts an election. Without this call: 500 ms and 3000 ms. Give all servers of a
/// cluster the same value. DQLITE_OK; DQLITE_MISUSE for another value, or while the node runs. Since 1.9.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_set_network_latency_ms(
    n: *mut NodeHandle,
    milliseconds: c_uint,
) -> c_int {
    // SAFETY: the module's contract for handles.
    unsafe { set(n, |node| node.set_network_latency_ms(u64::from(milliseconds))) }
}

/// Tells in which failure domain (rack, availability zone) the server is: any number, 0 without this call.
/// Role management, and clients that assign roles, use it to spread the voters. Not stored: set it after
/// every create.
///
/// In every state, from any thread. DQLITE_OK. Since 1.5.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_set_failure_domain(n: *mut NodeHandle, code: c_ulonglong) -> c_int {
    // SAFETY: the module's contract for handles.
    unsafe { set(n, |node| node.set_failure_domain(code)) }
}

/// As dqlite_node_set_snapshot_params_v2 with DQLITE_SNAPSHOT_TRAILING_STATIC. Deprecated. Since 1.8.0.
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

/// Sets after how many log entries a snapshot of all databases is taken (`snapshot_threshold`, default 1024)
/// and how many entries are kept in the log behind it for servers that lag (`snapshot_trailing`, default
/// 8192). One transaction is one entry.
///
/// `snapshot_trailing` must be at least 4 and at least `snapshot_threshold`. `trailing_strategy` is
/// DQLITE_SNAPSHOT_TRAILING_STATIC, the default, or DQLITE_SNAPSHOT_TRAILING_DYNAMIC. It decides what is kept
/// ready; files of the log are always removed by `snapshot_trailing`.
///
/// DQLITE_OK; DQLITE_MISUSE, and nothing is changed, for other values or while the node runs. Since 1.18.2.
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

/// Accepted for programs that tune the C library's direct I/O, and without effect here. `size` is a power of
/// two from 512 to 262144 bytes. DQLITE_OK; DQLITE_ERROR for another size; DQLITE_MISUSE while the node runs.
/// Since 1.15.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_set_block_size(n: *mut NodeHandle, size: usize) -> c_int {
    // SAFETY: the module's contract for handles.
    unsafe { set(n, |node| node.set_block_size(size)) }
}

/// Sets how many voters role management aims at (default 3; below 1 counts as 1, since the leader remains
/// one). An odd number is best. Has no effect without dqlite_node_enable_role_management.
///
/// In every state, from any thread; counts from the next second on. DQLITE_OK. Since 1.15.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_set_target_voters(n: *mut NodeHandle, voters: c_int) -> c_int {
    // SAFETY: the module's contract for handles.
    unsafe { set(n, |node| node.set_target_voters(voters)) }
}

/// Sets how many stand-bys role management aims at (default 0; below 0 counts as 0). Has no effect without
/// dqlite_node_enable_role_management.
///
/// In every state, from any thread; counts from the next second on. DQLITE_OK. Since 1.15.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_set_target_standbys(n: *mut NodeHandle, standbys: c_int) -> c_int {
    // SAFETY: the module's contract for handles.
    unsafe { set(n, |node| node.set_target_standbys(standbys)) }
}

/// Lets the node, while it leads, give the servers of the cluster their roles. Off by default; ends with
/// dqlite_node_handover, after which it may be called again.
///
/// Every second it asks all servers whether they are there. One that does not answer within 5 seconds becomes
/// a spare. Then it promotes and demotes servers, one after the other, until the targets are met: first those
/// of other failure domains, then those of less weight (see dqlite_node_set_failure_domain; clients set
/// weights), then stand-bys before spares. Nothing is changed while less than a majority of the voters
/// answers.
///
/// Enable it on all nodes of a cluster, with the same targets, and on none if a client assigns the roles, as
/// go-dqlite's app package does. In every state, from any thread. DQLITE_OK. Since 1.15.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_enable_role_management(n: *mut NodeHandle) -> c_int {
    // SAFETY: the module's contract for handles.
    unsafe { set(n, Node::enable_role_management) }
}

/// Sets how many threads serve clients, SQL included: 1 to 512; 0 counts as 1. The default is one for each
/// processor, at most 4. Statements that take long get threads of their own. In every state; counts from
/// dqlite_node_start. DQLITE_OK. Since 1.16.5.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_set_pool_thread_count(
    n: *mut NodeHandle,
    thread_count: c_uint,
) -> c_int {
    // SAFETY: the module's contract for handles.
    unsafe { set(n, |node| node.set_pool_thread_count(thread_count)) }
}

/// Lets dqlite_node_start set a damaged end of the log aside, in files named corrupt-..., and go on with what
/// is before it (default true). With false such a log is refused with DQLITE_ERROR. The incomplete last write
/// that a power cut leaves is dropped in both cases, and damage elsewhere refused.
///
/// In every state; counts at dqlite_node_start, dqlite_node_recover_ext and dqlite_node_describe_last_entry.
/// DQLITE_OK. Since 1.16.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_set_auto_recovery(n: *mut NodeHandle, enabled: bool) -> c_int {
    // SAFETY: the module's contract for handles.
    unsafe { set(n, |node| node.set_auto_recovery(enabled)) }
}

/// Compresses snapshots on disk, as LZ4 frames (default true). Snapshots are read whatever this says. C
/// releases from 1.18.3 on read only those that are as their own setting says: leave it alone where they may
/// have to.
///
/// In every state, from any thread; counts from the next snapshot on. DQLITE_OK. Since 1.16.2.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_set_snapshot_compression(n: *mut NodeHandle, enabled: bool) -> c_int {
    // SAFETY: the module's contract for handles.
    unsafe { set(n, |node| node.set_snapshot_compression(enabled)) }
}

/// Sets how many milliseconds a statement that writes waits for the open transaction of another connection to
/// the same database, before its client gets SQLITE_BUSY (default 0). That another statement just runs is
/// waited for in any case, and so are transactions whose clients go on at once, for up to 100 milliseconds:
/// with 0, who meets a transaction whose client has paused for 5 is refused.
///
/// In every state, from any thread; counts from the next statement on. DQLITE_OK. Since 1.18.2.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_set_busy_timeout(n: *mut NodeHandle, msecs: c_uint) -> c_int {
    // SAFETY: the module's contract for handles.
    unsafe { set(n, |node| node.set_busy_timeout(msecs)) }
}

/// Accepted for programs written for 1.13 to 1.18.2, and without effect: databases are in memory, and durable
/// through log and snapshots. DQLITE_OK; DQLITE_MISUSE while the node runs. Since 1.13.0, gone in C from
/// 1.18.3 on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_enable_disk_mode(n: *mut NodeHandle) -> c_int {
    // SAFETY: the module's contract for handles.
    unsafe { set(n, Node::enable_disk_mode) }
}

/// Starts the node: locks and loads the data directory, starts its threads, listens. With LIBDQLITE_TRACE in
/// the environment log lines go to standard error from here on.
///
/// Returns when clients can connect, which is before the cluster has a leader; it takes as long as reading
/// the newest snapshot and the log. A node can be started once: create another one to start again. A start
/// that fails leaves the node as it was, so that it may be tried again.
///
/// DQLITE_OK. DQLITE_ERROR if another node uses the directory, which is also the answer if this one runs
/// already ("couldn't lock the raft directory"), if files are damaged ("raft_start(): io: ...", with the name
/// of the file; `dqlite check` tells what to do), or if the address cannot be listened on. DQLITE_MISUSE
/// without a bind address, or after dqlite_node_stop. Since 1.0.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_start(n: *mut NodeHandle) -> c_int {
    let body = |handle: &NodeHandle| {
        enable_if_asked();
        Ok(handle.node()?.start()?)
    };
    // SAFETY: the module's contract for handles.
    unsafe { call(n, body) }
}

/// Stops the node: interrupts statements, closes its connections, completes its files, ends its threads,
/// frees the directory for another node. Transactions that are open are rolled back; a write whose answer was
/// not sent may have happened or not.
///
/// Call dqlite_node_handover first to leave leadership to another server at once. Any thread may call it,
/// also while dqlite_node_handover blocks; of several calls at once one stops the node. It waits for calls of
/// the connect function.
///
/// DQLITE_OK; DQLITE_ERROR, with the reason, if the node had stopped taking part by itself before (a disk
/// that failed, an internal error): it is stopped then, and what was acknowledged is safe. DQLITE_MISUSE if
/// it does not run. Since 1.0.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_stop(n: *mut NodeHandle) -> c_int {
    // SAFETY: the module's contract for handles.
    unsafe { set(n, Node::stop) }
}

/// Gives up what the node does for its cluster, before dqlite_node_stop: leadership goes to another voter,
/// and its own role to a server that has less, whereupon it is a spare. Ends role management on this node.
///
/// Blocks for at most 16 seconds. Any thread may call it; dqlite_node_stop ends it. DQLITE_OK means that
/// everything was given up, or that there was nothing. DQLITE_ERROR means that something was not, and
/// dqlite_node_errmsg says what and why; in a cluster of voters only, for instance, leadership goes to
/// another one and the role stays. Stopping is allowed all the same. DQLITE_MISUSE if the node does not run.
/// Since 1.15.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_node_handover(n: *mut NodeHandle) -> c_int {
    // SAFETY: the module's contract for handles.
    unsafe { set(n, Node::handover) }
}

/// As dqlite_node_recover_ext, where all servers become voters. Deprecated. Since 1.1.0.
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
/// It appends the configuration to the log, in a new term; calling it again appends again. The same node may
/// be started afterwards. The program `dqlite recover` does the same and chooses the directory.
///
/// `infos` are `n_info` elements, which follow each other by their `size`. DQLITE_OK; DQLITE_ERROR if the
/// directory is in use or cannot be loaded ("raft_recover(): ..."); DQLITE_MISUSE for a list that is empty,
/// or has an id, address, role or size that cannot be; DQLITE_NOMEM for a negative `n_info`. Since 1.9.0.
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
/// dqlite_node_set_auto_recovery off, damage is DQLITE_ERROR, as is a directory that is in use. DQLITE_MISUSE
/// for NULL, or once the node was started; on failure nothing is stored. Since 1.17.0.
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

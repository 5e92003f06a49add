//! `dqlite_server`: the handle around [`Server`]. The C library gave this object no way to ask for a text, so
//! the reason of every refusal is logged.

use std::ffi::{OsStr, c_char, c_int, c_uint, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::AtomicU64;

use super::node::{ConnectFunction, connect_func};
use super::node_info::NodeId;
use super::tracing::enable_if_asked;
use super::{Failure, Handle, OK, bytes, catch, guarded, object, take, text};
use crate::server::{self, Server};

/// A server: a node that founds or joins its cluster by itself and remembers the others in files of its own.
/// From dqlite_server_create to dqlite_server_destroy; unlike a node it may be started again after a stop.
///
/// Functions return DQLITE_OK; DQLITE_ERROR, whose reason is a log line; or DQLITE_MISUSE for NULL. All of
/// them may be called from any thread. Since 1.15.1.
pub struct ServerHandle {
    magic: AtomicU64,
    server: Server,
}

impl Handle for ServerHandle {
    const MAGIC: u64 = u64::from_be_bytes(*b"dqSERV01");
    const NAME: &'static str = "server";

    fn magic(&self) -> &AtomicU64 {
        &self.magic
    }
}

impl From<server::Error> for Failure {
    fn from(error: server::Error) -> Failure {
        Failure::error(error.to_string())
    }
}

/// The body of almost every export: runs `body` on the object and logs a failure.
///
/// # Safety
/// `handle` follows the module's contract for handles.
unsafe fn call(handle: *const ServerHandle, body: impl FnOnce(&Server) -> Result<(), Failure>) -> c_int {
    // SAFETY: the caller's promise is the one that `object` asks for.
    let handle = match unsafe { object(handle) } {
        Ok(handle) => handle,
        Err(failure) => return failure.code,
    };
    match catch(|| body(&handle.server)) {
        Ok(()) => OK,
        Err(Failure { code, text }) => {
            tracing::error!(path = %handle.server.path().display(), "dqlite_server: {text}");
            code
        }
    }
}

/// Creates a server that keeps its files in the existing directory `path`, which is copied. Nothing is read
/// or written yet. Stores a handle in `*server`, which belongs to the caller until dqlite_server_destroy.
///
/// There is no text to ask for after a failure: set LIBDQLITE_TRACE=4 in the environment to see the reasons
/// on standard error. They are shown from the first dqlite_server_start on. DQLITE_OK; DQLITE_MISUSE for
/// NULL, without a handle. Since 1.15.1.
/// cbindgen:prefix=DQLITE_API DQLITE_EXPERIMENTAL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_server_create(path: *const c_char, server: *mut *mut ServerHandle) -> c_int {
    guarded(|| {
        if server.is_null() {
            return Err(Failure::misuse("server is NULL"));
        }
        // SAFETY: the module's contract for texts.
        let path = Path::new(OsStr::from_bytes(unsafe { bytes(path, "path") }?));
        let magic = AtomicU64::new(ServerHandle::MAGIC);
        let handle = Box::new(ServerHandle { magic, server: Server::new(path) });
        // SAFETY: an output pointer, checked for NULL.
        unsafe { server.write(Box::into_raw(handle)) };
        Ok(OK)
    })
}

/// Destroys a server. One that runs is stopped first. NULL is allowed. In every state, while no other call on
/// this server is under way. Since 1.15.1.
/// cbindgen:prefix=DQLITE_API DQLITE_EXPERIMENTAL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_server_destroy(server: *mut ServerHandle) {
    guarded(|| {
        // SAFETY: the module's contract; after destroy nobody uses the handle.
        drop(unsafe { take(server) });
        Ok(())
    })
}

/// Sets the address at which the other servers reach this one, in the form of dqlite_node_set_bind_address.
/// Required before the first start; later starts keep the address of the first one.
///
/// This and the other settings may be changed at any time and count from the next start on. Values are
/// checked there. Since 1.15.1.
/// cbindgen:prefix=DQLITE_API DQLITE_EXPERIMENTAL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_server_set_address(
    server: *mut ServerHandle,
    address: *const c_char,
) -> c_int {
    let body = |server: &Server| {
        // SAFETY: the module's contract for texts.
        server.set_address(unsafe { text(address, "address") }?);
        Ok(())
    };
    // SAFETY: the module's contract for handles.
    unsafe { call(server, body) }
}

/// Lets the first start found a new cluster, of which this server is the only voter (default false). Later
/// starts come back to it, whatever this says. Not together with dqlite_server_set_auto_join. Since 1.15.1.
/// cbindgen:prefix=DQLITE_API DQLITE_EXPERIMENTAL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_server_set_auto_bootstrap(server: *mut ServerHandle, on: bool) -> c_int {
    let body = |server: &Server| {
        server.set_auto_bootstrap(on);
        Ok(())
    };
    // SAFETY: the module's contract for handles.
    unsafe { call(server, body) }
}

/// Lets the first start join the cluster of the servers with these `n` addresses, as a spare: nothing
/// promotes it by itself. At least one of them should be a voter: others do not know who leads. Further calls
/// add to the list. Later starts try these servers too. The array and its texts are copied; `addrs` may be
/// NULL if `n` is 0. Since 1.15.1.
/// cbindgen:prefix=DQLITE_API DQLITE_EXPERIMENTAL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_server_set_auto_join(
    server: *mut ServerHandle,
    addrs: *const *const c_char,
    n: c_uint,
) -> c_int {
    let body = |server: &Server| {
        if addrs.is_null() && n > 0 {
            return Err(Failure::misuse("addrs is NULL"));
        }
        let mut addresses = Vec::new();
        for position in 0..n as usize {
            // SAFETY: the position is below the count, so the array has this element.
            let address = unsafe { addrs.add(position).read() };
            // SAFETY: the module's contract for texts.
            addresses.push(unsafe { text(address, "address") }?.to_owned());
        }
        server.add_auto_join(addresses);
        Ok(())
    };
    // SAFETY: the module's contract for handles.
    unsafe { call(server, body) }
}

/// Sets the address to listen on, if it is another one than that of dqlite_server_set_address; its form is
/// that of dqlite_node_set_bind_address. Since 1.15.1.
/// cbindgen:prefix=DQLITE_API DQLITE_EXPERIMENTAL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_server_set_bind_address(
    server: *mut ServerHandle,
    addr: *const c_char,
) -> c_int {
    let body = |server: &Server| {
        // SAFETY: the module's contract for texts.
        server.set_bind_address(unsafe { text(addr, "addr") }?);
        Ok(())
    };
    // SAFETY: the module's contract for handles.
    unsafe { call(server, body) }
}

/// Uses `f` to connect to the servers, this one included; NULL restores plain TCP. `f` and what `arg` points
/// to must stay usable until the server was stopped. See dqlite_connect_func. Since 1.15.1.
/// cbindgen:prefix=DQLITE_API DQLITE_EXPERIMENTAL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_server_set_connect_func(
    server: *mut ServerHandle,
    f: ConnectFunction,
    arg: *mut c_void,
) -> c_int {
    let body = |server: &Server| {
        server.set_connect_func(connect_func(f, arg));
        Ok(())
    };
    // SAFETY: the module's contract for handles.
    unsafe { call(server, body) }
}

/// Starts the server and has it in its cluster: founds one, joins one, or comes back to the one of its files.
///
/// Tries for at most 10 seconds to reach the leader, beside the time to load its data and that of connect
/// functions that do not return. On DQLITE_ERROR nothing runs, and starting may be tried again; it keeps the
/// id. A server that runs is refused, as is one that shall both found and join, or has damaged files. From
/// then on it notes every 30 seconds in `path` who is in the cluster. It may be started again after a stop.
/// Since 1.15.1.
/// cbindgen:prefix=DQLITE_API DQLITE_EXPERIMENTAL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_server_start(server: *mut ServerHandle) -> c_int {
    enable_if_asked();
    // SAFETY: the module's contract for handles.
    unsafe { call(server, |server| Ok(server.start()?)) }
}

/// The id of the server, known from the first start on; 0 before, and for NULL. Any thread may call it. Since
/// 1.15.1.
/// cbindgen:prefix=DQLITE_API DQLITE_EXPERIMENTAL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_server_get_id(server: *mut ServerHandle) -> NodeId {
    guarded(|| {
        // SAFETY: the module's contract for handles.
        let handle = unsafe { object(server.cast_const()) }?;
        Ok(handle.server.id())
    })
}

/// Hands over as dqlite_node_handover does, within 16 seconds. DQLITE_ERROR if the server does not run, or if
/// something was not given up. Any thread may call it. Since 1.15.1.
/// cbindgen:prefix=DQLITE_API DQLITE_EXPERIMENTAL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_server_handover(server: *mut ServerHandle) -> c_int {
    // SAFETY: the module's contract for handles.
    unsafe { call(server, |server| Ok(server.handover()?)) }
}

/// Stops the server, as dqlite_node_stop does. DQLITE_ERROR if it does not run, or had stopped by itself
/// because its disk failed. Any thread may call it; of several calls at once one stops it. Since 1.15.1.
/// cbindgen:prefix=DQLITE_API DQLITE_EXPERIMENTAL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_server_stop(server: *mut ServerHandle) -> c_int {
    // SAFETY: the module's contract for handles.
    unsafe { call(server, |server| Ok(server.stop()?)) }
}

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

/// A server: a node that starts or joins its cluster by itself and remembers the others in files of its own.
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

/// Creates a server that keeps its files in the existing directory `path`. Nothing is read or written yet.
///
/// There is no text to ask for after a failure: set LIBDQLITE_TRACE=4 in the environment to see the reasons
/// on standard error. They are shown from the first dqlite_server_start on.
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

/// Destroys a server. One that runs is stopped first. NULL is allowed.
/// cbindgen:prefix=DQLITE_API DQLITE_EXPERIMENTAL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_server_destroy(server: *mut ServerHandle) {
    guarded(|| {
        // SAFETY: the module's contract; after destroy nobody uses the handle.
        drop(unsafe { take(server) });
        Ok(())
    })
}

/// Sets the address at which the other servers reach this one. Required before the first start; later starts
/// keep the address of the first one.
///
/// This and the other settings may be changed at any time and count from the next start on.
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

/// Lets the first start found a new cluster, of which this server is the only voter.
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
/// add to the list. Later starts try these servers too.
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

/// Sets the address to listen on, if it is another one than that of dqlite_server_set_address.
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

/// Uses `f` to connect to the servers, this one included; NULL restores plain TCP.
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
/// cbindgen:prefix=DQLITE_API DQLITE_EXPERIMENTAL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_server_start(server: *mut ServerHandle) -> c_int {
    enable_if_asked();
    // SAFETY: the module's contract for handles.
    unsafe { call(server, |server| Ok(server.start()?)) }
}

/// The id of the server, known from the first start on; 0 before.
/// cbindgen:prefix=DQLITE_API DQLITE_EXPERIMENTAL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_server_get_id(server: *mut ServerHandle) -> NodeId {
    guarded(|| {
        // SAFETY: the module's contract for handles.
        let handle = unsafe { object(server.cast_const()) }?;
        Ok(handle.server.id())
    })
}

/// Hands over as dqlite_node_handover does. DQLITE_ERROR if the server does not run.
/// cbindgen:prefix=DQLITE_API DQLITE_EXPERIMENTAL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_server_handover(server: *mut ServerHandle) -> c_int {
    // SAFETY: the module's contract for handles.
    unsafe { call(server, |server| Ok(server.handover()?)) }
}

/// Stops the server. DQLITE_ERROR if it does not run. Any thread may call it.
/// cbindgen:prefix=DQLITE_API DQLITE_EXPERIMENTAL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_server_stop(server: *mut ServerHandle) -> c_int {
    // SAFETY: the module's contract for handles.
    unsafe { call(server, |server| Ok(server.stop()?)) }
}

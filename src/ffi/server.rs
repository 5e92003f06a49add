//! `dqlite_server`: a node that finds and joins its cluster by itself (experimental in the C library too).
//!
//! The object keeps its settings. Starting it belongs to a later release and says so in the log, since the C
//! library gave this object no way to ask for a text.

use std::ffi::{OsStr, c_char, c_int, c_uint, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;

use parking_lot::Mutex;

use super::node::ConnectFunction;
use super::node_info::NodeId;
use super::tracing::enable_if_asked;
use super::{Failure, Handle, OK, bytes, guarded, object, take, text};

/// A server: a node that starts or joins its cluster by itself and remembers the others in files of its own.
pub struct ServerHandle {
    magic: AtomicU64,
    settings: Mutex<Settings>,
}

#[derive(Default)]
struct Settings {
    path: PathBuf,
    address: Option<String>,
    bind_address: Option<String>,
    auto_bootstrap: bool,
    auto_join: Vec<String>,
    has_connect_func: bool,
}

impl Handle for ServerHandle {
    const MAGIC: u64 = u64::from_be_bytes(*b"dqSERV01");
    const NAME: &'static str = "server";

    fn magic(&self) -> &AtomicU64 {
        &self.magic
    }
}

/// # Safety
/// `handle` follows the module's contract for handles.
unsafe fn set(
    handle: *const ServerHandle,
    change: impl FnOnce(&mut Settings) -> Result<(), Failure>,
) -> c_int {
    guarded(|| {
        // SAFETY: the caller's promise is the one that `object` asks for.
        let handle = unsafe { object(handle) }?;
        change(&mut handle.settings.lock())?;
        Ok(OK)
    })
}

/// Creates a server that keeps its files in the existing directory `path`. Nothing is read or written yet.
/// cbindgen:prefix=DQLITE_API DQLITE_EXPERIMENTAL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_server_create(path: *const c_char, server: *mut *mut ServerHandle) -> c_int {
    guarded(|| {
        if server.is_null() {
            return Err(Failure::misuse("server is NULL"));
        }
        // SAFETY: the module's contract for texts.
        let path = PathBuf::from(OsStr::from_bytes(unsafe { bytes(path, "path") }?));
        let settings = Mutex::new(Settings { path, ..Settings::default() });
        let handle = Box::new(ServerHandle { magic: AtomicU64::new(ServerHandle::MAGIC), settings });
        // SAFETY: an output pointer, checked for NULL.
        unsafe { server.write(Box::into_raw(handle)) };
        Ok(OK)
    })
}

/// Destroys a server. NULL is allowed.
/// cbindgen:prefix=DQLITE_API DQLITE_EXPERIMENTAL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_server_destroy(server: *mut ServerHandle) {
    guarded(|| {
        // SAFETY: the module's contract; after destroy nobody uses the handle.
        drop(unsafe { take(server) });
        Ok(())
    })
}

/// Sets the address at which the other servers reach this one. Required before the first start.
/// cbindgen:prefix=DQLITE_API DQLITE_EXPERIMENTAL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_server_set_address(
    server: *mut ServerHandle,
    address: *const c_char,
) -> c_int {
    let change = |settings: &mut Settings| {
        // SAFETY: the module's contract for texts.
        settings.address = Some(unsafe { text(address, "address") }?.to_owned());
        Ok(())
    };
    // SAFETY: the module's contract for handles.
    unsafe { set(server, change) }
}

/// Lets the first start found a new cluster.
/// cbindgen:prefix=DQLITE_API DQLITE_EXPERIMENTAL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_server_set_auto_bootstrap(server: *mut ServerHandle, on: bool) -> c_int {
    let change = |settings: &mut Settings| {
        settings.auto_bootstrap = on;
        Ok(())
    };
    // SAFETY: the module's contract for handles.
    unsafe { set(server, change) }
}

/// Lets the first start join the cluster of the servers with these `n` addresses. Further calls add to the
/// list.
/// cbindgen:prefix=DQLITE_API DQLITE_EXPERIMENTAL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_server_set_auto_join(
    server: *mut ServerHandle,
    addrs: *const *const c_char,
    n: c_uint,
) -> c_int {
    let change = |settings: &mut Settings| {
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
        settings.auto_join.append(&mut addresses);
        Ok(())
    };
    // SAFETY: the module's contract for handles.
    unsafe { set(server, change) }
}

/// Sets the address to listen on, if it is another one than that of dqlite_server_set_address.
/// cbindgen:prefix=DQLITE_API DQLITE_EXPERIMENTAL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_server_set_bind_address(
    server: *mut ServerHandle,
    addr: *const c_char,
) -> c_int {
    let change = |settings: &mut Settings| {
        // SAFETY: the module's contract for texts.
        settings.bind_address = Some(unsafe { text(addr, "addr") }?.to_owned());
        Ok(())
    };
    // SAFETY: the module's contract for handles.
    unsafe { set(server, change) }
}

/// Uses `f` to connect to other servers; NULL restores plain TCP.
/// cbindgen:prefix=DQLITE_API DQLITE_EXPERIMENTAL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_server_set_connect_func(
    server: *mut ServerHandle,
    f: ConnectFunction,
    arg: *mut c_void,
) -> c_int {
    let change = |settings: &mut Settings| {
        // Only start calls the function, and start is refused.
        let _ = arg;
        settings.has_connect_func = f.is_some();
        Ok(())
    };
    // SAFETY: the module's contract for handles.
    unsafe { set(server, change) }
}

/// Starts the server. This release cannot do it yet: returns DQLITE_ERROR and logs why (LIBDQLITE_TRACE=4).
/// cbindgen:prefix=DQLITE_API DQLITE_EXPERIMENTAL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_server_start(server: *mut ServerHandle) -> c_int {
    enable_if_asked();
    let refuse = |settings: &mut Settings| {
        tracing::error!(
            path = %settings.path.display(),
            address = settings.address,
            bind_address = settings.bind_address,
            bootstrap = settings.auto_bootstrap,
            join = ?settings.auto_join,
            has_connect_func = settings.has_connect_func,
            "dqlite_server_start is not available in this release yet; use dqlite_node"
        );
        Err(Failure::not_available("dqlite_server_start"))
    };
    // SAFETY: the module's contract for handles.
    unsafe { set(server, refuse) }
}

/// The id of the server, known from the first start on; 0 before.
/// cbindgen:prefix=DQLITE_API DQLITE_EXPERIMENTAL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_server_get_id(server: *mut ServerHandle) -> NodeId {
    guarded(|| {
        // SAFETY: the module's contract for handles.
        unsafe { object(server.cast_const()) }?;
        Ok(0)
    })
}

/// Hands over as dqlite_node_handover does. DQLITE_ERROR if the server does not run.
/// cbindgen:prefix=DQLITE_API DQLITE_EXPERIMENTAL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_server_handover(server: *mut ServerHandle) -> c_int {
    // SAFETY: the module's contract for handles.
    unsafe { set(server, |_| Err(Failure::error("the server does not run"))) }
}

/// Stops the server. DQLITE_ERROR if it does not run.
/// cbindgen:prefix=DQLITE_API DQLITE_EXPERIMENTAL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_server_stop(server: *mut ServerHandle) -> c_int {
    // SAFETY: the module's contract for handles.
    unsafe { set(server, |_| Err(Failure::error("the server does not run"))) }
}

//! Servers as C describes them: `dqlite_node_info`, its extensible successor, and ids.

use std::ffi::{c_char, c_int, c_ulonglong};

use super::{Failure, NOMEM, bytes, guarded, text};
use crate::node;
use crate::raft::configuration::{Configuration, Server};
use crate::raft::types::{Role, ServerId};

/// Identifies a server in its cluster: a number of 64 bits, chosen once for each data directory and never 0.
/// Make one with dqlite_generate_node_id; 1 and 3297041220608546238 found a cluster, see dqlite_node_create.
pub type NodeId = c_ulonglong;

/// A server of a cluster, as dqlite_node_recover takes it. The caller owns it and its text; both are read
/// during the call only. Since 1.1.0.
#[repr(C)]
pub struct NodeInfo {
    /// Identity of the server, not 0, and not that of another one in the list.
    pub id: NodeId,
    /// Where other servers reach it, such as "10.0.0.1:9001"; not NULL, and not that of another one in the
    /// list.
    pub address: *const c_char,
}

/// A server of a cluster with its role, as dqlite_node_recover_ext takes it. The caller owns it and its text;
/// both are read during the call only. Elements of an array may be longer than this structure, if `size` says
/// so and what follows is zero. Since 1.9.0.
#[repr(C)]
pub struct NodeInfoExt {
    /// Size of this element in bytes: sizeof(dqlite_node_info_ext). At least 32, and a multiple of 8.
    pub size: u64,
    /// Identity of the server, not 0, and not that of another one in the list.
    pub id: u64,
    /// Where other servers reach it: a const char pointer converted by (uint64_t)(uintptr_t).
    pub address: u64,
    /// 0 voter, 1 stand-by (gets the log, does not vote), 2 spare (neither). Anything else is DQLITE_MISUSE.
    pub dqlite_role: u64,
}

/// DQLITE_NODE_INFO_EXT_SZ_ORIG of the header.
const INFO_EXT_SIZE: u64 = 32;

const _: () = assert!(size_of::<NodeInfo>() == 16);
const _: () = assert!(size_of::<NodeInfoExt>() as u64 == INFO_EXT_SIZE);

/// Makes an id for a new server from its address and the current time, in nanoseconds.
///
/// Any thread may call it, without a node. Two calls give two different ids, save for a chance of one in
/// 2^64. Returns 0, which is no id, if `address` is NULL. Since 1.4.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dqlite_generate_node_id(address: *const c_char) -> NodeId {
    guarded(|| {
        // SAFETY: the module's contract for texts.
        let address = unsafe { bytes(address, "address") }?;
        Ok(node::generate_node_id(address))
    })
}

/// Reads the servers of `dqlite_node_recover`: voters all.
///
/// # Safety
/// `infos` is NULL or has `count` elements whose addresses follow the module's contract for texts.
pub(super) unsafe fn read_infos(infos: *const NodeInfo, count: c_int) -> Result<Configuration, Failure> {
    let count = checked_count(infos.is_null(), count)?;
    let mut servers = Vec::new();
    for position in 0..count {
        // SAFETY: the position is below the count, so the array has this element.
        let info = unsafe { &*infos.add(position) };
        // SAFETY: an address of the array, see above.
        servers.push(unsafe { server(info.id, info.address, Role::Voter) }?);
    }
    checked(servers)
}

/// Reads the servers of `dqlite_node_recover_ext`. Each element is as long as its `size` says; the words that
/// this library does not know must be zero.
///
/// # Safety
/// As for [`read_infos`], with elements of their own sizes following each other.
pub(super) unsafe fn read_infos_ext(
    infos: *const NodeInfoExt,
    count: c_int,
) -> Result<Configuration, Failure> {
    let count = checked_count(infos.is_null(), count)?;
    let mut servers = Vec::new();
    let mut element = infos;
    for position in 0..count {
        // SAFETY: `element` was advanced by the sizes of the elements before; at least `size` can be read.
        let size = unsafe { (&raw const (*element).size).read() };
        if size < INFO_EXT_SIZE || size % 8 != 0 {
            return Err(Failure::misuse(format!("server {position}: {size} is no valid size of its entry")));
        }
        // SAFETY: the element is at least as long as the structure.
        let info = unsafe { &*element };
        for word in INFO_EXT_SIZE / 8..size / 8 {
            // SAFETY: the word lies inside the element, whose size is a multiple of eight.
            let value = unsafe { element.cast::<u64>().add(word as usize).read() };
            if value != 0 {
                return Err(Failure::misuse(format!("server {position}: unknown field with value {value}")));
            }
        }
        let role = role(info.dqlite_role).ok_or_else(|| {
            Failure::misuse(format!("server {position}: no such role: {}", info.dqlite_role))
        })?;
        let address = std::ptr::with_exposed_provenance(info.address as usize);
        // SAFETY: an address of the array.
        servers.push(unsafe { server(info.id, address, role) }?);
        // SAFETY: the next element, or one past the last, starts where this one ends.
        element = unsafe { element.byte_add(size as usize) };
    }
    checked(servers)
}

fn checked_count(is_null: bool, count: c_int) -> Result<usize, Failure> {
    match usize::try_from(count) {
        // The C library tries to allocate a negative number of entries; callers may know this code.
        Err(_) => Err(Failure { code: NOMEM, text: format!("{count} is no number of servers") }),
        Ok(0) => Err(Failure::misuse("no servers given")),
        Ok(_) if is_null => Err(Failure::misuse("infos is NULL")),
        Ok(count) => Ok(count),
    }
}

/// The C API numbers roles as the client protocol does, not as the log does.
fn role(number: u64) -> Option<Role> {
    match number {
        0 => Some(Role::Voter),
        1 => Some(Role::Standby),
        2 => Some(Role::Spare),
        _ => None,
    }
}

/// # Safety
/// `address` follows the module's contract for texts.
unsafe fn server(id: u64, address: *const c_char, role: Role) -> Result<Server, Failure> {
    if id == 0 {
        return Err(Failure::misuse("0 is no server id"));
    }
    // SAFETY: the caller's promise is the one that `text` asks for.
    let address = unsafe { text(address, "address") }?;
    Ok(Server { id: ServerId(id), address: address.to_owned(), role })
}

fn checked(servers: Vec<Server>) -> Result<Configuration, Failure> {
    for (position, server) in servers.iter().enumerate() {
        for earlier in &servers[..position] {
            if earlier.id == server.id {
                return Err(Failure::misuse(format!("two servers have the id {}", server.id.0)));
            }
            if earlier.address == server.address {
                return Err(Failure::misuse(format!("two servers have the address {}", server.address)));
            }
        }
    }
    let configuration = Configuration { servers };
    if configuration.voters().next().is_none() {
        return Err(Failure::misuse(
            "without a voter nobody could lead: at least one server must be a voter",
        ));
    }
    Ok(configuration)
}

//! The handles, texts and lists of the C API, called as C would call them.

// Every pointer below is NULL or comes from a live value of the test, which is the contract of all exports.
#![allow(clippy::undocumented_unsafe_blocks)]

use super::*;
use crate::raft::types::Role;
use node::{NodeHandle, connect_func};
use node_info::{NodeInfo, NodeInfoExt, read_infos, read_infos_ext};
use server::ServerHandle;
use std::ffi::c_void;
use std::os::fd::{AsRawFd, IntoRawFd};
use std::os::unix::net::UnixStream;
use std::ptr::{null, null_mut};

fn errmsg(node: *mut NodeHandle) -> String {
    unsafe { CStr::from_ptr(dqlite_node_errmsg(node)) }.to_str().unwrap().to_owned()
}

/// A handle whose creation failed: the data directory does not exist.
fn failed_node() -> *mut NodeHandle {
    let mut node = null_mut();
    let code =
        unsafe { dqlite_node_create(1, c"127.0.0.1:1".as_ptr(), c"/nonexistent/x".as_ptr(), &mut node) };
    assert_eq!(code, ERROR);
    assert!(!node.is_null());
    node
}

#[test]
fn a_panic_becomes_the_error_value_of_the_functions_type() {
    assert_eq!(guarded::<c_int>(|| panic!("broken")), ERROR);
    assert_eq!(guarded::<u64>(|| panic!("broken")), 0);
    assert!(guarded::<*const c_char>(|| panic!("broken")).is_null());
    let failure = catch::<()>(|| panic!("page {} is lost", 7)).unwrap_err();
    assert_eq!(failure, Failure::error("internal error: page 7 is lost"));
}

#[test]
fn null_handles_are_refused() {
    unsafe {
        assert_eq!(dqlite_node_start(null_mut()), MISUSE);
        assert_eq!(dqlite_node_stop(null_mut()), MISUSE);
        assert_eq!(dqlite_node_set_block_size(null_mut(), 512), MISUSE);
        assert_eq!(dqlite_server_start(null_mut()), MISUSE);
        assert_eq!(dqlite_server_get_id(null_mut()), 0);
        assert!(dqlite_node_get_bind_address(null_mut()).is_null());
        dqlite_node_destroy(null_mut());
        dqlite_server_destroy(null_mut());
    }
    assert_eq!(errmsg(null_mut()), "node is NULL");
}

#[test]
fn create_without_a_place_for_the_handle_is_misuse() {
    let code = unsafe { dqlite_node_create(1, c"127.0.0.1:1".as_ptr(), c"/tmp".as_ptr(), null_mut()) };
    assert_eq!(code, MISUSE);
}

#[test]
fn a_failed_create_leaves_a_handle_with_the_reason() {
    let node = failed_node();
    let reason = errmsg(node);
    assert!(!reason.is_empty());
    assert_eq!(unsafe { dqlite_node_start(node) }, MISUSE);
    assert_eq!(errmsg(node), format!("this node was not created: {reason}"));
    unsafe { dqlite_node_destroy(node) };
}

#[test]
fn bad_texts_of_create_are_misuse_with_a_handle() {
    let cases: [(*const c_char, *const c_char, &str); 3] = [
        (null(), c"/tmp".as_ptr(), "address is NULL"),
        (c"127.0.0.1:1".as_ptr(), null(), "data_dir is NULL"),
        (c"\xff\xfe".as_ptr(), c"/tmp".as_ptr(), "address is not valid UTF-8"),
    ];
    for (address, data_dir, expected) in cases {
        let mut node = null_mut();
        assert_eq!(unsafe { dqlite_node_create(1, address, data_dir, &mut node) }, MISUSE);
        assert_eq!(errmsg(node), expected);
        unsafe { dqlite_node_destroy(node) };
    }
}

#[test]
fn an_object_of_another_type_is_refused() {
    let mut server: *mut ServerHandle = null_mut();
    assert_eq!(unsafe { dqlite_server_create(c"/tmp".as_ptr(), &mut server) }, OK);
    let failure = unsafe { object::<NodeHandle>(server.cast::<NodeHandle>()) }.err().unwrap();
    assert_eq!(failure, Failure::misuse("this is not a node, or a destroyed one"));
    unsafe { dqlite_server_destroy(server) };
}

#[test]
fn a_shown_text_stays_in_place_until_another_one_is_shown() {
    let shown = ShownText::default();
    let first = shown.show("disk full");
    assert_eq!(shown.show("disk full"), first);
    assert_eq!(unsafe { CStr::from_ptr(shown.show("a\0b")) }, c"ab");
}

#[test]
fn recover_takes_all_servers_as_voters_in_their_order() {
    let infos = [
        NodeInfo { id: 2, address: c"10.0.0.2:1".as_ptr() },
        NodeInfo { id: 1, address: c"10.0.0.1:1".as_ptr() },
    ];
    let configuration = unsafe { read_infos(infos.as_ptr(), 2) }.unwrap();
    let ids: Vec<u64> = configuration.servers.iter().map(|server| server.id.0).collect();
    assert_eq!(ids, [2, 1]);
    assert!(configuration.servers.iter().all(|server| server.role == Role::Voter));
}

#[test]
fn recover_refuses_bad_lists() {
    let info = |id, address: &'static CStr| NodeInfo { id, address: address.as_ptr() };
    let cases: [(&[NodeInfo], c_int, c_int); 7] = [
        (&[info(1, c"a:1")], 0, MISUSE),
        (&[info(1, c"a:1")], -1, NOMEM),
        (&[info(0, c"a:1")], 1, MISUSE),
        (&[NodeInfo { id: 1, address: null() }], 1, MISUSE),
        (&[info(1, c"\xff")], 1, MISUSE),
        (&[info(1, c"a:1"), info(1, c"b:1")], 2, MISUSE),
        (&[info(1, c"a:1"), info(2, c"a:1")], 2, MISUSE),
    ];
    for (infos, count, code) in cases {
        assert_eq!(unsafe { read_infos(infos.as_ptr(), count) }.unwrap_err().code, code);
    }
    assert_eq!(unsafe { read_infos(null(), 1) }.unwrap_err().code, MISUSE);
}

fn info_ext(size: u64, id: u64, address: &'static CStr, role: u64) -> [u64; 4] {
    [size, id, address.as_ptr().expose_provenance() as u64, role]
}

fn read_words(words: &[u64], count: c_int) -> Result<Vec<(u64, Role)>, Failure> {
    let configuration = unsafe { read_infos_ext(words.as_ptr().cast::<NodeInfoExt>(), count) }?;
    Ok(configuration.servers.iter().map(|server| (server.id.0, server.role)).collect())
}

#[test]
fn recover_ext_reads_entries_by_their_own_size() {
    let mut words = Vec::new();
    words.extend(info_ext(40, 1, c"a:1", 0));
    words.push(0);
    words.extend(info_ext(32, 2, c"b:1", 1));
    words.extend(info_ext(32, 3, c"c:1", 2));
    assert_eq!(read_words(&words, 3).unwrap(), [(1, Role::Voter), (2, Role::Standby), (3, Role::Spare)]);
}

#[test]
fn recover_ext_refuses_sizes_fields_and_roles_that_it_does_not_know() {
    for size in [0, 31, 33, 36] {
        assert_eq!(read_words(&info_ext(size, 1, c"a:1", 0), 1).unwrap_err().code, MISUSE, "size {size}");
    }
    let mut longer = info_ext(40, 1, c"a:1", 0).to_vec();
    longer.push(1);
    assert_eq!(read_words(&longer, 1).unwrap_err().code, MISUSE);
    assert_eq!(read_words(&info_ext(32, 1, c"a:1", 3), 1).unwrap_err().code, MISUSE);
}

#[test]
fn recover_ext_refuses_a_list_in_which_nobody_votes() {
    let words = [info_ext(32, 1, c"a:1", 1), info_ext(32, 2, c"b:1", 2)].concat();
    assert_eq!(read_words(&words, 2).unwrap_err().code, MISUSE);
}

/// A host's connect function: `arg` points to what it stores and to the code it returns.
unsafe extern "C" fn connect(arg: *mut c_void, address: *const c_char, fd: *mut c_int) -> c_int {
    let answer = unsafe { &*arg.cast::<(c_int, c_int)>() };
    assert_eq!(unsafe { CStr::from_ptr(address) }, c"10.0.0.1:9001");
    unsafe { fd.write(answer.0) };
    answer.1
}

#[test]
fn a_connect_function_hands_its_descriptor_over() {
    let (one, _other) = UnixStream::pair().unwrap();
    let fd = one.into_raw_fd();
    let mut answer = (fd, 0);
    let function = connect_func(Some(connect), (&raw mut answer).cast()).unwrap();
    let owned = function("10.0.0.1:9001").unwrap();
    assert_eq!(owned.as_raw_fd(), fd);
}

#[test]
fn a_connect_function_that_fails_gives_nothing() {
    for answer in [(-1, 0), (7, 1)] {
        let mut answer: (c_int, c_int) = answer;
        let function = connect_func(Some(connect), (&raw mut answer).cast()).unwrap();
        assert!(function("10.0.0.1:9001").is_none());
    }
    assert!(connect_func(None, null_mut()).is_none());
}

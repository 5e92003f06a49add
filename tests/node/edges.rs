//! Requests at the edge of the protocol, which the recordings with C nodes do not reach: C crashes there,
//! never answers, or takes what cannot be meant.

use crate::cluster::{Cluster, PATIENCE, SPARE, STANDBY, VOTER};
use crate::support::{Client, Failure, TestNode};
use bytes::Bytes;
use dqlite::wire::request::{Request, Server};
use dqlite::wire::response::Response;
use std::io::Write;
use std::time::Instant;
use tempfile::TempDir;

fn node() -> (TempDir, TestNode) {
    let directory = TempDir::new().unwrap();
    let node = TestNode::start(directory.path());
    (directory, node)
}

fn failure(code: u64, message: &str) -> Failure {
    Failure { code, message: message.into() }
}

#[test]
fn an_empty_frame_is_answered_and_the_connection_goes_on() {
    let (_directory, node) = node();
    let mut client = node.open("test.db");
    for kind in [0, 8, 99] {
        client.stream.write_all(&[0, 0, 0, 0, kind, 0, 0, 0]).unwrap();
        assert_eq!(client.receive().unwrap_err(), failure(1005, "request body is empty"));
    }
    assert_eq!(client.integer("SELECT 1"), 1);
}

#[test]
fn a_bad_format_of_describe_is_answered_once() {
    let (_directory, node) = node();
    let mut client = node.connect();
    for format in [1, u64::MAX] {
        let refused = client.call(Request::Describe { format }).unwrap_err();
        assert_eq!(refused, failure(15, "bad format version"));
        assert!(matches!(client.call(Request::Client { id: 1 }), Ok(Response::Welcome { .. })));
    }
}

#[test]
fn an_unknown_role_is_refused() {
    let (_directory, node) = node();
    let mut client = node.connect();
    client.call(Request::Add(Server { id: 2, address: "127.0.0.1:1".into() })).unwrap();
    for role in [3, 9, u64::MAX] {
        let refused = client.call(Request::Assign { id: 2, role: Some(role) }).unwrap_err();
        assert_eq!(refused, failure(1, "server role is not valid"));
    }
    let Ok(Response::Servers(servers)) = client.call(Request::Cluster { format: 1 }) else { panic!() };
    assert_eq!(servers.iter().map(|server| server.role).collect::<Vec<_>>(), [VOTER, SPARE]);
}

#[test]
fn an_address_that_is_no_text_is_refused() {
    let (_directory, node) = node();
    let mut client = node.connect();
    let address = Bytes::from_static(b"127.0.0.1:\xff");
    let refused = client.call(Request::Add(Server { id: 2, address })).unwrap_err();
    assert_eq!(refused, failure(1, "Invalid parameter"));
}

#[test]
fn only_a_voter_tells_who_leads() {
    let cluster = Cluster::with_roles(&[VOTER, STANDBY, SPARE, VOTER], |_, _| {});
    cluster.exec("CREATE TABLE t (n INTEGER)");
    let leader = cluster.members[cluster.leader_index()].id;
    for (member, expected) in cluster.members.iter().zip([leader, 0, 0, leader]) {
        let mut client = Client::connect(member.address).unwrap();
        let begin = Instant::now();
        loop {
            let Ok(Response::Server { id, address }) = client.call(Request::Leader) else { panic!() };
            assert_eq!(id == 0, address.is_empty());
            if id == expected {
                break;
            }
            // A voter hears of the leader with the next heartbeat.
            assert!(id == 0 && begin.elapsed() < PATIENCE, "server {} names {id}", member.id);
        }
    }
}

#[test]
fn virtual_tables_work_and_extensions_cannot_be_loaded() {
    let directory = TempDir::new().unwrap();
    let node = TestNode::start(directory.path());
    let mut client = node.open("test.db");
    client.exec("CREATE VIRTUAL TABLE texts USING fts5(body)").unwrap();
    client.exec("INSERT INTO texts VALUES ('one two'), ('two three')").unwrap();
    let refused = client.query("SELECT load_extension('nosuch')").unwrap_err();
    assert_eq!(refused, failure(1, "not authorized"));
    node.node.stop().unwrap();
    let node = TestNode::start(directory.path());
    assert_eq!(node.open("test.db").integer("SELECT count(*) FROM texts WHERE texts MATCH 'two'"), 2);
}

//! `dqlite_server`: servers that found, join, leave and find their cluster again by themselves.

use crate::support::{Client, free_address};
use dqlite::server::{Error, Server};
use dqlite::wire::request::Request;
use dqlite::wire::response::Response;
use std::fs;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(30);
const BOOTSTRAP_ID: u64 = 3_297_041_220_608_546_238;

struct TestServer {
    server: Server,
    address: SocketAddr,
    directory: TempDir,
}

impl TestServer {
    fn new() -> TestServer {
        let (address, directory) = (free_address(), TempDir::new().unwrap());
        let server = new_server(directory.path(), address);
        TestServer { server, address, directory }
    }

    /// Runs, as a cluster of its own.
    fn founder() -> TestServer {
        let founder = TestServer::new();
        founder.server.set_auto_bootstrap(true);
        founder.server.start().unwrap();
        founder
    }

    /// Runs, in the cluster of the others.
    fn joiner(others: &[&TestServer]) -> TestServer {
        let joiner = TestServer::new();
        joiner.server.add_auto_join(others.iter().map(|other| other.address.to_string()).collect());
        joiner.server.start().unwrap();
        joiner
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    fn file(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn node_store(&self) -> String {
        self.file("node-store")
    }

    /// Its lines in a node-store.
    fn entry(&self, role: &str) -> String {
        format!("{}\n{}\n{role}\n", self.address, self.server.id())
    }
}

fn new_server(directory: &Path, address: SocketAddr) -> Server {
    let server = Server::new(directory);
    server.set_address(&address.to_string());
    server.set_refresh_period(Duration::from_millis(20));
    server
}

/// Three servers, of which the first is the only voter.
fn three() -> [TestServer; 3] {
    let founder = TestServer::founder();
    let second = TestServer::joiner(&[&founder]);
    let third = TestServer::joiner(&[&founder, &second]);
    [founder, second, third]
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_founder_is_the_only_voter_and_writes_down_who_it_is() {
    let founder = TestServer::founder();
    assert_eq!(founder.server.id(), BOOTSTRAP_ID);
    assert_eq!(founder.file("server-info"), format!("v1\n{}\n{BOOTSTRAP_ID}\n", founder.address));
    assert_eq!(founder.node_store(), format!("v1\n{}", founder.entry("voter")));
    let mut client = Client::connect(founder.address).unwrap();
    client.open("test.db").unwrap();
    client.exec("CREATE TABLE t (n INTEGER)").unwrap();
}

#[test]
fn joiners_are_spares_and_all_hear_of_all() {
    let [founder, second, third] = three();
    let all = format!("v1\n{}{}{}", founder.entry("voter"), second.entry("spare"), third.entry("spare"));
    assert_eq!(third.node_store(), all);
    wait_until("refreshed", || [&founder, &second].iter().all(|server| server.node_store() == all));
    // What became of the file does not matter.
    fs::remove_file(founder.path("node-store")).unwrap();
    fs::write(second.path("node-store"), "damaged").unwrap();
    let stores = || fs::read_to_string(founder.path("node-store")).is_ok_and(|store| store == all);
    wait_until("written again", || stores() && second.node_store() == all);
}

#[test]
fn a_follower_comes_back_with_its_id_and_goes_on_refreshing() {
    let [founder, second, third] = three();
    let id = second.server.id();
    second.server.stop().unwrap();
    second.server.start().unwrap();
    assert_eq!(second.server.id(), id);
    // A spare cannot tell who leads; the next one is asked.
    let fourth = TestServer::joiner(&[&third, &founder]);
    let seen = format!("v1\n{}{}", founder.entry("voter"), second.entry("spare"));
    wait_until("refreshed after a restart", || second.node_store().contains(&fourth.entry("spare")));
    assert!(second.node_store().starts_with(&seen));
}

#[test]
fn a_leader_comes_back_and_serves_what_it_had() {
    let [founder, second, third] = three();
    let mut client = Client::connect(founder.address).unwrap();
    client.open("test.db").unwrap();
    client.exec("CREATE TABLE t (n INTEGER); INSERT INTO t VALUES (7)").unwrap();
    founder.server.stop().unwrap();
    founder.server.start().unwrap();
    let mut client = Client::connect(founder.address).unwrap();
    client.open("test.db").unwrap();
    assert_eq!(client.integer("SELECT n FROM t"), 7);
    for server in [third, second, founder] {
        server.server.stop().unwrap();
    }
}

#[test]
fn another_object_on_the_same_directory_is_the_same_server() {
    let [founder, second, _third] = three();
    let (id, elsewhere) = (second.server.id(), free_address());
    second.server.stop().unwrap();
    // Neither asked to join again, nor at the address of its first start.
    let again = new_server(second.directory.path(), elsewhere);
    again.start().unwrap();
    assert_eq!(again.id(), id);
    assert!(Client::connect(elsewhere).is_err());
    let mut client = Client::connect(founder.address).unwrap();
    match client.call(Request::Cluster { format: 1 }).unwrap() {
        Response::Servers(servers) => assert_eq!(servers.len(), 3),
        other => panic!("{other:?}"),
    }
    // And the founder, asked to found again.
    founder.server.stop().unwrap();
    let again = new_server(founder.directory.path(), founder.address);
    again.set_auto_bootstrap(true);
    again.start().unwrap();
    assert_eq!(again.id(), BOOTSTRAP_ID);
}

#[test]
fn servers_that_lost_their_list_find_each_other_by_what_they_were_told() {
    let founder = TestServer::founder();
    let second = TestServer::joiner(&[&founder]);
    for server in [&founder, &second] {
        server.server.stop().unwrap();
        fs::remove_file(server.path("node-store")).unwrap();
        server.server.start().unwrap();
        assert_eq!(server.node_store().lines().count(), 7);
    }
}

#[test]
fn a_cluster_of_voters_starts_again_when_its_servers_start_at_the_same_time() {
    let servers = three();
    let mut leader = Client::connect(servers[0].address).unwrap();
    for server in &servers[1..] {
        leader.call(Request::Assign { id: server.server.id(), role: Some(0) }).unwrap();
    }
    wait_until("voters", || servers.iter().all(|server| server.node_store().matches("voter").count() == 3));
    for server in &servers {
        server.server.stop().unwrap();
    }
    // Each alone would find no leader.
    std::thread::scope(|scope| {
        for server in &servers {
            scope.spawn(|| server.server.start().unwrap());
        }
    });
}

/// The text of a start that must fail, and that must leave nothing running.
fn refused(server: &TestServer) -> String {
    let error = server.server.start().unwrap_err();
    assert!(Client::connect(server.address).is_err(), "{error}");
    assert!(matches!(server.server.stop(), Err(Error::NotRunning)));
    error.to_string()
}

#[test]
fn damaged_files_are_refused_and_left_alone() {
    let server = TestServer::new();
    server.server.set_auto_bootstrap(true);
    let (info, store) = (server.path("server-info"), server.path("node-store"));
    let content = format!("v1\n{}\n{BOOTSTRAP_ID}\n", server.address);
    fs::write(&info, "blah").unwrap();
    assert!(refused(&server).starts_with(&format!("{}:1: ", info.display())));
    assert_eq!(server.file("server-info"), "blah");
    fs::write(&info, &content).unwrap();
    fs::write(&store, "blah").unwrap();
    assert!(refused(&server).starts_with(&format!("{}:1: ", store.display())));
    fs::write(&info, "").unwrap();
    fs::write(&store, format!("v1\n{}\n{BOOTSTRAP_ID}\nvoter\n", server.address)).unwrap();
    assert!(refused(&server).starts_with("there is a node-store but no server-info"));
    assert_eq!(server.server.id(), 0);
    // Repaired, it starts.
    fs::write(&info, &content).unwrap();
    server.server.start().unwrap();
}

#[test]
fn settings_that_do_not_say_what_to_do_are_refused_before_anything_is_written() {
    let server = TestServer::new();
    assert!(refused(&server).starts_with("the first start needs a cluster"));
    server.server.set_auto_bootstrap(true);
    server.server.add_auto_join(vec!["127.0.0.1:1".into()]);
    assert!(refused(&server).starts_with("auto-bootstrap and auto-join"));
    let nowhere = Server::new(server.directory.path());
    nowhere.set_auto_bootstrap(true);
    for _ in 0..2 {
        assert!(nowhere.start().unwrap_err().to_string().starts_with("no address set"));
        // It would not fit into the file.
        nowhere.set_address("127.0.0.1:1\n2");
    }
    assert_eq!(fs::read_dir(server.directory.path()).unwrap().count(), 0);
}

#[test]
fn without_anybody_to_join_the_start_fails_and_the_next_one_keeps_the_id() {
    let absent = TestServer::new();
    let server = TestServer::new();
    server.server.add_auto_join(vec![absent.address.to_string()]);
    let begin = Instant::now();
    let text = refused(&server);
    assert!(begin.elapsed() >= Duration::from_secs(4), "it did not wait for somebody to come up");
    assert!(text.contains(&absent.address.to_string()), "{text}");
    assert!(text.contains(&format!("{} knows none", server.address)), "{text}");
    let id = server.server.id();
    assert_ne!(id, 0);
    // It comes up while the next start is under way.
    std::thread::scope(|scope| {
        scope.spawn(|| server.server.start().unwrap());
        absent.server.set_auto_bootstrap(true);
        absent.server.start().unwrap();
    });
    assert_eq!(server.server.id(), id);
    assert!(server.node_store().ends_with(&server.entry("spare")));
}

#[test]
fn a_cluster_that_refuses_ends_the_start_at_once() {
    let founder = TestServer::founder();
    let second = TestServer::joiner(&[&founder]);
    second.server.stop().unwrap();
    // A server that lost its directory takes the same address with a new id.
    let directory = TempDir::new().unwrap();
    let server = new_server(directory.path(), second.address);
    server.add_auto_join(vec![founder.address.to_string()]);
    let text = server.start().unwrap_err().to_string();
    assert!(text.contains("server address already in use"), "{text}");
}

#[test]
fn start_and_stop_in_the_wrong_order_are_refused() {
    let server = TestServer::new();
    assert!(matches!(server.server.stop(), Err(Error::NotRunning)));
    assert!(matches!(server.server.handover(), Err(Error::NotRunning)));
    server.server.set_auto_bootstrap(true);
    server.server.start().unwrap();
    assert!(matches!(server.server.start(), Err(Error::Running)));
    server.server.stop().unwrap();
    assert!(matches!(server.server.stop(), Err(Error::NotRunning)));
    assert!(matches!(server.server.handover(), Err(Error::NotRunning)));
}

#[test]
fn one_of_many_threads_starts_it_and_one_stops_it() {
    let server = TestServer::new();
    server.server.set_auto_bootstrap(true);
    for _ in 0..3 {
        for act in [Server::start, Server::stop] {
            let done = AtomicUsize::new(0);
            std::thread::scope(|scope| {
                for _ in 0..8 {
                    scope.spawn(|| done.fetch_add(act(&server.server).is_ok().into(), Ordering::Relaxed));
                }
            });
            assert_eq!(done.load(Ordering::Relaxed), 1);
        }
    }
}

#[test]
fn a_handover_makes_a_spare_the_leader() {
    let founder = TestServer::founder();
    let second = TestServer::joiner(&[&founder]);
    founder.server.handover().unwrap();
    let expected = format!("v1\n{}{}", founder.entry("spare"), second.entry("voter"));
    wait_until("roles noted", || founder.node_store() == expected && second.node_store() == expected);
    founder.server.stop().unwrap();
    founder.server.start().unwrap();
    assert_eq!(founder.node_store(), expected);
    assert!(second.server.handover().is_ok());
}

#[test]
fn servers_listen_elsewhere_and_are_reached_through_the_function_of_the_host() {
    let founder = TestServer::new();
    let elsewhere = free_address();
    let calls = Arc::new(AtomicUsize::new(0));
    let connect = || {
        let (calls, name) = (calls.clone(), founder.address.to_string());
        Some(Box::new(move |address: &str| {
            calls.fetch_add(1, Ordering::Relaxed);
            let target = if address == name { elsewhere } else { address.parse().ok()? };
            std::net::TcpStream::connect(target).ok().map(OwnedFd::from)
        }) as dqlite::node::ConnectFunc)
    };
    founder.server.set_bind_address(&elsewhere.to_string());
    founder.server.set_auto_bootstrap(true);
    founder.server.set_connect_func(connect());
    founder.server.start().unwrap();
    assert!(calls.load(Ordering::Relaxed) > 0);
    let joiner = TestServer::new();
    joiner.server.add_auto_join(vec![founder.address.to_string()]);
    joiner.server.set_connect_func(connect());
    joiner.server.start().unwrap();
    assert!(joiner.node_store().contains(&founder.address.to_string()));
}

#[test]
fn a_server_that_is_dropped_while_it_runs_stops() {
    let TestServer { server, address, directory } = TestServer::founder();
    drop(server);
    assert!(Client::connect(address).is_err());
    let again = new_server(directory.path(), address);
    again.start().unwrap();
}

#[test]
fn addresses_may_be_of_version_6() {
    let address: SocketAddr = std::net::TcpListener::bind("[::1]:0").unwrap().local_addr().unwrap();
    let directory = TempDir::new().unwrap();
    let server = new_server(directory.path(), address);
    server.set_auto_bootstrap(true);
    server.start().unwrap();
}

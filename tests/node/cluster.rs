//! Several nodes in one process, over real sockets and disks: what a cluster promises its clients.

use crate::support::{Client, Failure, TestNode, free_address};
use bytes::{Bytes, BytesMut};
use dqlite::node::Node;
use dqlite::raft::message::InstallSnapshot;
use dqlite::raft::{Index, Message, SnapshotData, Term};
use dqlite::wire::handshake::Protocol;
use dqlite::wire::raft::encode;
use dqlite::wire::request::{Request, Server};
use dqlite::wire::response::Response;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

pub const PATIENCE: Duration = Duration::from_secs(30);
/// Roles as clients name them.
pub const VOTER: u64 = 0;
pub const STANDBY: u64 = 1;
pub const SPARE: u64 = 2;
const BUSY_TIMEOUT_MS: u32 = 60_000;

pub struct Member {
    pub id: u64,
    pub address: SocketAddr,
    directory: TempDir,
    latency_ms: u64,
    set: fn(u64, &Node),
    pub node: Option<TestNode>,
}

impl Member {
    pub fn start(&mut self) {
        let (id, latency_ms, set) = (self.id, self.latency_ms, self.set);
        let settings = |node: &Node| {
            node.set_network_latency_ms(latency_ms).unwrap();
            node.set_busy_timeout(BUSY_TIMEOUT_MS).unwrap();
            node.set_snapshot_params(64, 64, Default::default()).unwrap();
            set(id, node);
        };
        self.node = Some(TestNode::start_member(id, self.address, self.directory.path(), settings));
    }

    pub fn stop(&mut self) {
        self.node.take().unwrap().node.stop().unwrap();
    }
}

pub struct Cluster {
    pub members: Vec<Member>,
    latency_ms: u64,
    set: fn(u64, &Node),
}

impl Cluster {
    /// One voter, and the others added and promoted one by one.
    pub fn of(size: u64) -> Cluster {
        Cluster::with_latency(size, 20)
    }

    /// The same with slower elections: the timeout is 15 times the latency.
    pub fn with_latency(size: u64, latency_ms: u64) -> Cluster {
        let mut cluster = Cluster { members: Vec::new(), latency_ms, set: |_, _| {} };
        for id in 1..=size {
            cluster.join(id);
        }
        cluster
    }

    /// Nodes with these roles, of which the first is a voter; each is given its id for more settings.
    pub fn with_roles(roles: &[u64], set: fn(u64, &Node)) -> Cluster {
        let mut cluster = Cluster { members: Vec::new(), latency_ms: 20, set };
        for (id, role) in (1..).zip(roles) {
            cluster.join_as(id, *role);
        }
        cluster
    }

    fn join(&mut self, id: u64) {
        self.join_as(id, VOTER);
    }

    /// A voter has to catch up for this, the others have not.
    pub fn join_as(&mut self, id: u64, role: u64) {
        let directory = TempDir::new().unwrap();
        let (latency_ms, set) = (self.latency_ms, self.set);
        let mut member = Member { id, address: free_address(), directory, latency_ms, set, node: None };
        member.start();
        let address = member.address;
        self.members.push(member);
        if id > 1 {
            self.on_leader(|leader| {
                let server = Server { id, address: address.to_string().into() };
                leader.call(Request::Add(server))?;
                if role == SPARE {
                    return Ok(());
                }
                leader.call(Request::Assign { id, role: Some(role) }).map(drop)
            });
        }
    }

    /// Address of the leader, as a running member knows it.
    fn leader(&self) -> Option<SocketAddr> {
        self.members.iter().filter(|m| m.node.is_some()).find_map(|member| {
            let mut client = Client::connect(member.address).ok()?;
            match client.call(Request::Leader).ok()? {
                Response::Server { id, address } if id != 0 => {
                    let address = String::from_utf8(address.to_vec()).unwrap().parse().unwrap();
                    let running = self.members.iter().any(|m| m.address == address && m.node.is_some());
                    running.then_some(address)
                }
                _ => None,
            }
        })
    }

    pub fn leader_index(&self) -> usize {
        let begin = Instant::now();
        loop {
            if let Some(leader) = self.leader() {
                return self.members.iter().position(|m| m.address == leader).unwrap();
            }
            assert!(begin.elapsed() < PATIENCE, "no leader");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Tries until the leader has done it. Only for what may be done twice.
    pub fn on_leader<T>(&self, mut request: impl FnMut(&mut Client) -> Result<T, Failure>) -> T {
        let begin = Instant::now();
        loop {
            let outcome = self
                .leader()
                .and_then(|leader| Client::connect(leader).ok())
                .map(|mut client| client.open("test.db").and_then(|()| request(&mut client)));
            match outcome {
                Some(Ok(done)) => return done,
                refused => assert!(begin.elapsed() < PATIENCE, "{:?}", refused.map(|r| r.err())),
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn exec(&self, sql: &str) {
        self.on_leader(|leader| leader.exec(sql));
    }

    pub fn integer(&self, sql: &str) -> i64 {
        self.on_leader(|leader| leader.query(sql)).first().map_or(-1, |row| match row[0] {
            dqlite::wire::tuple::Value::Integer(n) => n,
            _ => -1,
        })
    }

    /// The database file as each running member has it, once they agree.
    pub fn converge(&self) {
        let begin = Instant::now();
        loop {
            let dumps: Vec<_> = self
                .members
                .iter()
                .filter(|m| m.node.is_some())
                .map(|member| {
                    let mut client = Client::connect(member.address).unwrap();
                    match client.call(Request::Dump { name: "test.db".into() }) {
                        Ok(Response::Files(files)) => Some(files[0].1.clone()),
                        _ => None,
                    }
                })
                .collect();
            if dumps.iter().all(|dump| dump.is_some() && *dump == dumps[0]) {
                return;
            }
            assert!(begin.elapsed() < PATIENCE, "the databases differ");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn a_follower_that_was_away_gets_what_has_left_the_leaders_memory() {
    let mut cluster = Cluster::of(3);
    cluster.exec("CREATE TABLE t (v BLOB)");
    let away = (cluster.leader_index() + 1) % 3;
    cluster.members[away].stop();
    // Too much for memory, too few entries for a snapshot.
    for _ in 0..24 {
        cluster.exec("INSERT INTO t VALUES (randomblob(1 << 20))");
    }
    cluster.members[away].start();
    cluster.converge();
}

#[test]
fn three_nodes_hold_the_same_database() {
    let cluster = Cluster::of(3);
    cluster.exec("CREATE TABLE t (n INTEGER)");
    for _ in 0..50 {
        cluster.exec("INSERT INTO t VALUES (1)");
    }
    assert!(cluster.integer("SELECT count(*) FROM t") >= 50);
    cluster.converge();
}

#[test]
fn a_new_node_gets_a_snapshot_and_what_came_after() {
    let mut cluster = Cluster::of(1);
    cluster.exec("CREATE TABLE t (n INTEGER, pad BLOB)");
    for _ in 0..300 {
        cluster.exec("INSERT INTO t VALUES (1, randomblob(500))");
    }
    cluster.join(2);
    cluster.join(3);
    cluster.exec("INSERT INTO t VALUES (2, NULL)");
    cluster.converge();
}

/// Names in a node's directory that begin like this.
fn files(member: &Member, prefix: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(member.directory.path()).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with(prefix)).collect()
}

fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_snapshot_of_many_pieces_arrives_and_a_damaged_one_does_not() {
    let mut cluster = Cluster::of(1);
    cluster.exec("CREATE TABLE t (n INTEGER, pad BLOB)");
    for _ in 0..200 {
        cluster.exec("INSERT INTO t VALUES (1, randomblob(20000))");
    }
    cluster.join(2);
    cluster.converge();
    assert!(!files(&cluster.members[1], "snapshot-").is_empty());
    eventually("the received file has its name", || files(&cluster.members[1], "tmp-").is_empty());
    cluster.members[1].stop();
    cluster.members[1].start();
    cluster.converge();

    // The end of the frame, its checksum, is the last thing that is read. Either may be the leader.
    for member in &cluster.members {
        eventually("no snapshot is written", || files(member, "tmp-").is_empty());
        for path in files(member, "snapshot-").into_iter().filter(|path| path.extension().is_none()) {
            let mut bytes = std::fs::read(&path).unwrap();
            *bytes.last_mut().unwrap() ^= 1;
            std::fs::write(path, bytes).unwrap();
        }
    }
    cluster.join_as(3, 1);
    let mut tried = 0;
    eventually("it is sent", || {
        tried += usize::from(!files(&cluster.members[2], "tmp-received").is_empty());
        tried > 0
    });
    eventually("it is given up", || files(&cluster.members[2], "tmp-").is_empty());
    assert_eq!(files(&cluster.members[2], "snapshot-"), [] as [PathBuf; 0]);
    // A sound one takes its place.
    for _ in 0..130 {
        cluster.exec("INSERT INTO t VALUES (2, NULL)");
    }
    cluster.converge();
}

#[test]
fn a_snapshot_that_cannot_be_read_changes_nothing() {
    let cluster = Cluster::of(1);
    cluster.exec("CREATE TABLE t (n INTEGER)");
    let mut stranger = BytesMut::from(&Protocol::Current.encode()[..]);
    let address = Bytes::from(free_address().to_string());
    Request::Connect(Server { id: 9, address }).encode(&mut stranger).unwrap();
    let content = Bytes::from(vec![7; 1 << 20]);
    let message = encode(Message::InstallSnapshot(InstallSnapshot {
        term: Term(100),
        last_index: Index(1000),
        last_term: Term(100),
        configuration_index: Index(1),
        configuration: Default::default(),
        data: SnapshotData::new(content.clone()),
    }));
    stranger.extend([message.head, content].concat());
    let mut stream = TcpStream::connect(cluster.members[0].address).unwrap();
    stream.write_all(&stranger).unwrap();
    eventually("it arrives", || !files(&cluster.members[0], "tmp-received").is_empty());
    eventually("it is refused", || files(&cluster.members[0], "tmp-received").is_empty());
    cluster.exec("INSERT INTO t VALUES (1)");
    assert_eq!(cluster.integer("SELECT count(*) FROM t"), 1);
}

#[test]
fn nothing_acknowledged_is_lost_when_leaders_stop() {
    let mut cluster = Cluster::of(3);
    cluster.exec("CREATE TABLE t (n INTEGER PRIMARY KEY)");
    let mut acknowledged = 0;
    for round in 0..5 {
        for _ in 0..20 {
            acknowledged += 1;
            // A repetition after an unknown outcome is not an error.
            cluster.exec(&format!("INSERT OR IGNORE INTO t VALUES ({acknowledged})"));
        }
        let leader = cluster.leader_index();
        cluster.members[leader].stop();
        cluster.exec(&format!("INSERT OR IGNORE INTO t VALUES ({})", 1000 + round));
        assert_eq!(cluster.integer("SELECT count(*) FROM t WHERE n < 1000"), acknowledged);
        cluster.members[leader].start();
    }
    cluster.exec("INSERT INTO t VALUES (5000)");
    cluster.converge();
}

#[test]
fn leadership_moves_on_request_and_roles_change() {
    let cluster = Cluster::of(3);
    cluster.exec("CREATE TABLE t (n INTEGER)");
    let old = cluster.leader_index();
    let target = cluster.members[(old + 1) % 3].id;
    Client::connect(cluster.members[old].address).unwrap().call(Request::Transfer { id: target }).unwrap();
    let begin = Instant::now();
    while cluster.members[cluster.leader_index()].id != target {
        assert!(begin.elapsed() < PATIENCE);
    }
    cluster.exec("INSERT INTO t VALUES (1)");
    let spare = cluster.members[old].id;
    cluster.on_leader(|leader| leader.call(Request::Assign { id: spare, role: Some(2) }));
    let refused =
        cluster.on_leader(|leader| Ok(leader.call(Request::Assign { id: spare, role: Some(2) }).err()));
    assert_eq!(refused.unwrap().message, "server role is not valid");
    cluster.on_leader(|leader| leader.call(Request::Remove { id: spare }));
    let removed = cluster.on_leader(|leader| Ok(leader.call(Request::Remove { id: spare }).err()));
    assert_eq!(removed.unwrap().message, "server ID is not valid");
    cluster.exec("INSERT INTO t VALUES (2)");
}

#[test]
fn sessions_of_a_leader_that_steps_down_are_told_and_can_go_on() {
    let cluster = Cluster::of(3);
    cluster.exec("CREATE TABLE t (n INTEGER)");
    let old = cluster.leader_index();
    let mut session = Client::connect(cluster.members[old].address).unwrap();
    session.open("test.db").unwrap();
    session.exec("BEGIN IMMEDIATE").unwrap();
    session.exec("INSERT INTO t VALUES (1)").unwrap();
    session.call(Request::Transfer { id: cluster.members[(old + 1) % 3].id }).unwrap();
    assert_eq!(session.exec("COMMIT").unwrap_err().code, 10250);
    assert_eq!(cluster.integer("SELECT count(*) FROM t"), 0);
    cluster.exec("INSERT INTO t VALUES (2)");
    cluster.converge();
}

#[test]
fn no_reader_sees_a_sum_that_never_was_while_leaders_change() {
    let cluster = Cluster::of(3);
    cluster.exec("CREATE TABLE t (id INTEGER PRIMARY KEY, v INTEGER); INSERT INTO t VALUES (1, 0), (2, 0)");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let (cluster, stop) = (&cluster, &stop);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    assert_eq!(cluster.integer("SELECT sum(v) FROM t"), 0);
                }
            });
        }
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                cluster.exec(
                    "BEGIN IMMEDIATE; UPDATE t SET v = v + 1 WHERE id = 1; \
                     UPDATE t SET v = v - 1 WHERE id = 2; COMMIT",
                );
            }
        });
        for _ in 0..8 {
            std::thread::sleep(Duration::from_millis(200));
            let leader = cluster.leader_index();
            if let Ok(mut client) = Client::connect(cluster.members[leader].address) {
                let _ = client.call(Request::Transfer { id: 0 });
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    cluster.converge();
}

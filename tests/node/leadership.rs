//! What clients are told when leadership ends, for every kind of request and every way of losing it, and what
//! they find afterwards. The rule: "leadership lost" (10506) only if something of the request may have
//! reached a log, "not leader" (10250) only if nothing has, so that a client may repeat what was refused
//! with it.

use crate::cluster::{Cluster, PATIENCE};
use crate::support::{Client, Failure, text};
use bytes::Bytes;
use dqlite::wire::request::{Request, Server, Statement};
use dqlite::wire::response::Response;
use dqlite::wire::tuple::{Params, Schema};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const NOT_LEADER: &str = "10250 not leader";
const LOST: &str = "10506 leadership lost";
const NO_DATABASE: &str = "12 no database opened";
/// Computes for ever.
const ENDLESS: &str =
    "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT count(*) FROM c";
/// Returns rows for ever, large ones, so that the buffers of the socket are soon full.
const ENDLESS_ROWS: &str =
    "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT n, zeroblob(100000) FROM c";

/// An answer in a few words.
fn brief(answer: Result<Response, Failure>) -> String {
    match answer {
        Err(failure) => format!("{} {}", failure.code, failure.message),
        Ok(Response::Server { id, .. }) => format!("leader {id}"),
        Ok(Response::Servers(servers)) => format!("{} servers", servers.len()),
        Ok(Response::Files(_)) => "files".into(),
        Ok(Response::Welcome { .. }) => "welcome".into(),
        Ok(Response::Metadata { weight, .. }) => format!("weight {weight}"),
        Ok(Response::Db { id }) => format!("database {id}"),
        Ok(Response::Stmt(stmt)) => format!("statement {}", stmt.id),
        Ok(Response::Result(_)) => "done".into(),
        Ok(Response::Rows(_)) => "rows".into(),
        Ok(Response::Empty) => "empty".into(),
        Ok(Response::Failure { .. }) => unreachable!("decoded as an error"),
    }
}

/// The answer that ends a result, however many frames come before it.
fn last(client: &mut Client) -> String {
    loop {
        let answer = brief(client.receive());
        if answer != "rows" {
            return answer;
        }
    }
}

fn exec_sql(sql: &str) -> Request {
    Request::ExecSql(text(sql, &[]))
}

fn query_sql(sql: &str) -> Request {
    Request::QuerySql(text(sql, &[]))
}

fn open(name: &str) -> Request {
    Request::Open { name: name.to_owned().into(), flags: 0, vfs: Bytes::new() }
}

fn prepare(sql: &str) -> Request {
    Request::Prepare { db: 0, sql: sql.to_owned().into(), schema: Schema::V0 }
}

fn prepared(statement: u32) -> Statement {
    Statement { db: 0, statement, params: Params::from_values::<Bytes>(&[]), schema: Schema::V0 }
}

/// A client of `address` with a database of its own that has a table `t`.
fn client_of(address: SocketAddr, name: &str) -> Client {
    let mut client = Client::connect(address).unwrap();
    client.open(name).unwrap();
    client.exec("CREATE TABLE IF NOT EXISTS t (n INTEGER)").unwrap();
    client
}

fn send(client: &mut Client, request: Request) {
    client.send(request).unwrap();
}

fn transfer(cluster: &Cluster, from: usize, to: usize) {
    let id = cluster.members[to].id;
    let mut client = Client::connect(cluster.members[from].address).unwrap();
    assert_eq!(brief(client.call(Request::Transfer { id })), "empty");
}

/// Every kind of request, its answer by a follower, and its answer by a server that leads again, on a
/// connection whose database was opened in an earlier leadership.
fn every_request(leader: u64) -> Vec<(Request, &'static str, &'static str)> {
    let known = Server { id: leader, address: "127.0.0.1:1".into() };
    vec![
        (Request::Client { id: 7 }, "welcome", "welcome"),
        (prepare("SELECT 1"), NOT_LEADER, NO_DATABASE),
        (Request::Exec(prepared(0)), NOT_LEADER, NO_DATABASE),
        (Request::Query(prepared(0)), NOT_LEADER, NO_DATABASE),
        (Request::Finalize { db: 0, statement: 0 }, NO_DATABASE, NO_DATABASE),
        (exec_sql("INSERT INTO t VALUES (3)"), NOT_LEADER, NO_DATABASE),
        (exec_sql("COMMIT"), NOT_LEADER, NO_DATABASE),
        (query_sql("SELECT n FROM t"), NOT_LEADER, NO_DATABASE),
        (Request::Interrupt { db: 0 }, "empty", "empty"),
        (Request::Add(known), NOT_LEADER, "1 server ID already in use"),
        (Request::Assign { id: leader, role: Some(0) }, NOT_LEADER, "1 server role is not valid"),
        (Request::Assign { id: leader, role: None }, NOT_LEADER, "1 server role is not valid"),
        (Request::Remove { id: 99 }, NOT_LEADER, "1 server ID is not valid"),
        (Request::Transfer { id: leader }, NOT_LEADER, "1 server ID is not valid"),
        (Request::Dump { name: "test.db".into() }, "files", "files"),
        (Request::Cluster { format: 1 }, "3 servers", "3 servers"),
        (Request::Describe { format: 0 }, "weight 0", "weight 0"),
        (Request::Weight { weight: 0 }, "empty", "empty"),
        // The last one, since it ends the state that the others are asked in.
        (open("test.db"), NOT_LEADER, "database 0"),
    ]
}

#[test]
fn every_request_is_answered_as_the_leadership_it_belongs_to_demands() {
    let cluster = Cluster::with_latency(3, 100);
    cluster.exec("CREATE TABLE t (n INTEGER)");
    let here = cluster.leader_index();
    let (there, aside) = ((here + 1) % 3, (here + 2) % 3);
    let id = cluster.members[here].id;

    let mut stranger = Client::connect(cluster.members[aside].address).unwrap();
    let mut writer = client_of(cluster.members[here].address, "test.db");
    let mut reader = client_of(cluster.members[here].address, "test.db");
    assert_eq!(brief(writer.call(prepare("INSERT INTO t VALUES (1)"))), "statement 0");
    writer.exec("BEGIN IMMEDIATE").unwrap();
    assert_eq!(brief(writer.call(Request::Exec(prepared(0)))), "done");
    assert_eq!(brief(reader.call(prepare("SELECT n FROM t"))), "statement 0");
    reader.exec("BEGIN").unwrap();
    reader.query("SELECT count(*) FROM t").unwrap();

    transfer(&cluster, here, there);
    cluster.exec("INSERT INTO t VALUES (2)");
    cluster.converge();
    let now = format!("leader {}", cluster.members[there].id);
    for (who, client) in [("stranger", &mut stranger), ("writer", &mut writer), ("reader", &mut reader)] {
        assert_eq!(brief(client.call(Request::Leader)), now, "{who}");
        for (request, by_follower, _) in every_request(id) {
            let what = format!("{who}: {request:?}");
            assert_eq!(brief(client.call(request)), by_follower, "{what}");
        }
    }

    transfer(&cluster, there, here);
    cluster.exec("INSERT INTO t VALUES (2)");
    for (who, client) in [("writer", &mut writer), ("reader", &mut reader)] {
        assert_eq!(brief(client.call(Request::Leader)), format!("leader {id}"), "{who}");
        for (request, _, by_leader) in every_request(id) {
            let what = format!("{who}: {request:?}");
            assert_eq!(brief(client.call(request)), by_leader, "{what}");
        }
        assert_eq!(brief(client.call(Request::Exec(prepared(0)))), "12 no statement with the given id");
        assert_eq!(brief(client.call(prepare("SELECT 1"))), "statement 0", "{who}");
        // The transaction is gone, the connection is not.
        assert_eq!(client.exec("COMMIT").unwrap_err().message, "cannot commit - no transaction is active");
        assert_eq!(client.integer("SELECT sum(n) FROM t"), 4, "{who}");
    }
}

/// Requests that are in flight when leadership ends, each on a connection and a database of its own.
struct InFlight {
    cases: Vec<(&'static str, Client, &'static str)>,
    address: SocketAddr,
}

impl InFlight {
    fn client(&self, name: &str) -> Client {
        client_of(self.address, name)
    }

    fn add(&mut self, name: &'static str, mut client: Client, request: Request, expected: &'static str) {
        send(&mut client, request);
        self.cases.push((name, client, expected));
    }

    /// What is cut off, however leadership ends: nothing of it can have reached a log.
    fn add_what_never_ends(&mut self) -> Vec<Client> {
        self.add("long read", self.client("long read"), query_sql(ENDLESS), NOT_LEADER);
        let long_write = format!("INSERT INTO t {ENDLESS}");
        self.add("long write", self.client("long write"), exec_sql(&long_write), NOT_LEADER);
        let mut in_transaction = self.client("long write of a transaction");
        in_transaction.exec("BEGIN IMMEDIATE; INSERT INTO t VALUES (1)").unwrap();
        self.add("long write of a transaction", in_transaction, exec_sql(&long_write), NOT_LEADER);
        self.add("rows nobody takes", self.client("rows nobody takes"), query_sql(ENDLESS_ROWS), NOT_LEADER);
        let mut holder = self.client("rows nobody takes and a transaction");
        holder.exec("BEGIN IMMEDIATE; INSERT INTO t VALUES (1)").unwrap();
        self.add("rows nobody takes and a transaction", holder, query_sql(ENDLESS_ROWS), NOT_LEADER);
        let (mut holder, queued) = (self.client("queue"), self.client("queue"));
        holder.exec("BEGIN IMMEDIATE; INSERT INTO t VALUES (1)").unwrap();
        self.add("queue", queued, exec_sql("INSERT INTO t VALUES (1)"), NOT_LEADER);
        // What was committed before the part that was cut off stands, so that "not leader" would be wrong.
        let partly = format!("INSERT INTO t VALUES (1); INSERT INTO t {ENDLESS}");
        self.add("partly", self.client("partly"), exec_sql(&partly), LOST);
        vec![holder]
    }
}

/// All of them together: a database holds nothing of what was refused with "not leader".
fn nothing_of_what_was_refused_is_there(cluster: &Cluster, refused: &[&str]) {
    for name in refused {
        let rows = cluster.on_leader(|_| {
            let leader = cluster.members[cluster.leader_index()].address;
            let mut client = Client::connect(leader).unwrap();
            client.open(name)?;
            client.query("SELECT n FROM t")
        });
        assert!(rows.is_empty(), "{name}: {rows:?}");
    }
}

#[test]
fn what_a_transfer_cuts_off_is_told_so_and_holds_nobody_up() {
    let cluster = Cluster::with_latency(3, 100);
    cluster.exec("CREATE TABLE t (n INTEGER)");
    let here = cluster.leader_index();
    let address = cluster.members[here].address;
    let mut in_flight = InFlight { cases: Vec::new(), address };
    let _holders = in_flight.add_what_never_ends();
    std::thread::sleep(Duration::from_millis(300));

    transfer(&cluster, here, (here + 1) % 3);
    // The old leader follows although some clients have taken nothing yet.
    for name in ["test.db", "rows nobody takes and a transaction"] {
        let mut leader = client_of(cluster.members[(here + 1) % 3].address, name);
        leader.exec("CREATE TABLE u (n INTEGER)").unwrap();
    }
    cluster.converge();
    let begin = Instant::now();
    let applied = |client: &mut Client| {
        let dump = client.call(Request::Dump { name: "rows nobody takes and a transaction".into() });
        let Ok(Response::Files(files)) = dump else { panic!("{dump:?}") };
        files[0].1.clone()
    };
    let [mut old, mut new] =
        [address, cluster.members[(here + 1) % 3].address].map(|a| Client::connect(a).unwrap());
    while applied(&mut old) != applied(&mut new) {
        assert!(begin.elapsed() < PATIENCE, "a client that does not read keeps its node from following");
    }
    let mut refused = Vec::new();
    for (name, mut client, expected) in in_flight.cases {
        assert_eq!(last(&mut client), expected, "{name}");
        assert_eq!(brief(client.call(Request::Interrupt { db: 0 })), "empty", "{name}");
        assert_eq!(brief(client.call(exec_sql("COMMIT"))), NOT_LEADER, "{name}");
        if expected == NOT_LEADER {
            refused.push(name);
        }
    }
    nothing_of_what_was_refused_is_there(&cluster, &refused);
}

type Case = (&'static str, Option<Request>, Request, &'static str);

/// Requests made when there is no quorum any more: a name, what comes before, and the answer. What only waits
/// to begin was not done; what waits for its commit may be.
fn without_a_quorum() -> [Case; 13] {
    let insert = "INSERT INTO t VALUES (1)";
    let several = "INSERT INTO t VALUES (1); INSERT INTO t VALUES (1)";
    let added = Server { id: 9, address: "127.0.0.1:9".into() };
    let in_progress = "5 a configuration change is already in progress";
    [
        ("EXEC_SQL", None, exec_sql(insert), LOST),
        ("several statements", None, exec_sql(several), LOST),
        ("EXEC", Some(prepare(insert)), Request::Exec(prepared(0)), LOST),
        ("COMMIT", Some(exec_sql("BEGIN IMMEDIATE; INSERT INTO t VALUES (1)")), exec_sql("COMMIT"), LOST),
        ("QUERY_SQL", None, query_sql("INSERT INTO t VALUES (1) RETURNING n"), LOST),
        ("read", None, query_sql("SELECT n FROM t"), NOT_LEADER),
        ("prepared read", Some(prepare("SELECT n FROM t")), Request::Query(prepared(0)), NOT_LEADER),
        // Another leader may have written what these do not find here.
        (
            "nothing to change",
            Some(prepare("UPDATE t SET n = 2 WHERE n = 9")),
            Request::Exec(prepared(0)),
            NOT_LEADER,
        ),
        ("no such table", None, exec_sql("INSERT INTO missing VALUES (1)"), NOT_LEADER),
        ("BEGIN", None, exec_sql("BEGIN IMMEDIATE"), NOT_LEADER),
        ("PREPARE", None, prepare("SELECT n FROM t"), NOT_LEADER),
        ("ADD", None, Request::Add(added), "10506 server has lost leadership"),
        ("REMOVE", None, Request::Remove { id: 1 }, in_progress),
    ]
}

#[test]
fn requests_in_flight_when_the_quorum_is_lost_are_told_whether_they_may_have_happened() {
    let mut cluster = Cluster::with_latency(3, 200);
    cluster.exec("CREATE TABLE t (n INTEGER)");
    let here = cluster.leader_index();
    let address = cluster.members[here].address;
    let mut in_flight = InFlight { cases: Vec::new(), address };
    let mut idle = in_flight.client("idle transaction");
    idle.exec("BEGIN IMMEDIATE; INSERT INTO t VALUES (1)").unwrap();
    let later = without_a_quorum().map(|(name, before, request, expected)| {
        let mut client = in_flight.client(name);
        before.into_iter().for_each(|request| drop(client.call(request).unwrap()));
        (name, client, request, expected)
    });
    let _holders = in_flight.add_what_never_ends();
    for other in 1..3 {
        cluster.members[(here + other) % 3].stop();
    }
    // No lease any more, but still the leader.
    std::thread::sleep(Duration::from_millis(300));
    let mut observer = Client::connect(address).unwrap();
    for (name, client, request, expected) in later {
        // The configuration counts from the moment when it is in the log, and the next change is refused.
        let changes = matches!(request, Request::Add(_));
        in_flight.add(name, client, request, expected);
        let begin = Instant::now();
        while changes && brief(observer.call(Request::Cluster { format: 1 })) != "4 servers" {
            assert!(begin.elapsed() < Duration::from_secs(10), "the change is not in the log");
        }
    }

    let mut refused = vec!["idle transaction"];
    for (name, client, expected) in &mut in_flight.cases {
        assert_eq!(last(client), *expected, "{name}");
        if *expected == NOT_LEADER {
            refused.push(name);
        }
    }
    in_flight.cases.push(("idle transaction", idle, NOT_LEADER));
    for (name, client, _) in &mut in_flight.cases {
        assert_eq!(brief(client.call(Request::Leader)), "leader 0", "{name}");
        assert_eq!(brief(client.call(exec_sql("COMMIT"))), NOT_LEADER, "{name}");
    }
    for other in 1..3 {
        cluster.members[(here + other) % 3].start();
    }
    nothing_of_what_was_refused_is_there(&cluster, &refused);
}

#[test]
fn a_transfer_that_fails_delays_requests_and_fails_none() {
    let mut cluster = Cluster::with_latency(3, 100);
    cluster.exec("CREATE TABLE t (n INTEGER)");
    let here = cluster.leader_index();
    let address = cluster.members[here].address;
    let gone = (here + 1) % 3;
    cluster.members[gone].stop();
    let [mut writer, mut committing, mut reader] =
        ["test.db", "commit", "test.db"].map(|n| client_of(address, n));
    committing.exec("BEGIN IMMEDIATE; INSERT INTO t VALUES (1)").unwrap();
    let [mut operator, mut other, mut opening] = [(); 3].map(|()| Client::connect(address).unwrap());
    send(&mut operator, Request::Transfer { id: cluster.members[gone].id });
    std::thread::sleep(Duration::from_millis(100));

    let again = Request::Transfer { id: 0 };
    assert_eq!(brief(other.call(again)), "10250 server is not the leader");
    assert_eq!(brief(other.call(Request::Remove { id: 99 })), "10250 server is not the leader");
    assert_eq!(brief(other.call(Request::Leader)), format!("leader {}", cluster.members[here].id));
    send(&mut writer, exec_sql("INSERT INTO t VALUES (1)"));
    send(&mut committing, exec_sql("COMMIT"));
    send(&mut reader, query_sql("SELECT count(*) FROM t"));
    send(&mut opening, open("test.db"));
    assert_eq!(brief(operator.receive()), "1 leadership transfer failed");
    assert_eq!(brief(writer.receive()), "done");
    assert_eq!(brief(committing.receive()), "done");
    assert_eq!(brief(reader.receive()), "rows");
    assert_eq!(brief(opening.receive()), "database 0");
}

/// A client as go-dqlite with Go's database/sql makes it: one connection, which it gives up on these codes
/// and on the end of the stream; a request is tried three times, each time with a connection to the leader.
struct Following {
    nodes: Vec<SocketAddr>,
    leader: Option<SocketAddr>,
    connection: Option<Client>,
}

const ATTEMPTS: usize = 3;
const GIVEN_UP_ON: [u64; 5] = [10250, 10506, 12, 0, u64::MAX];

impl Following {
    /// Asks one node, which must name itself.
    fn probe(&self, node: SocketAddr) -> Result<Client, Option<SocketAddr>> {
        let mut client = Client::connect(node).map_err(|_| None)?;
        match client.call(Request::Leader) {
            Ok(Response::Server { address, .. }) if !address.is_empty() => {
                let address = String::from_utf8(address.to_vec()).unwrap().parse().unwrap();
                if address == node { Ok(client) } else { Err(Some(address)) }
            }
            _ => Err(None),
        }
    }

    /// The last leader first, then all. If nobody named the leader, Go would wait and ask them all again.
    fn connect(&mut self) -> Result<Client, Failure> {
        let first = self.leader.take();
        for node in first.into_iter().chain(self.nodes.clone()) {
            let found = match self.probe(node) {
                Err(Some(reported)) if first != Some(node) => self.probe(reported).map(|c| (reported, c)),
                outcome => outcome.map(|client| (node, client)),
            };
            if let Ok((address, mut client)) = found {
                self.leader = Some(address);
                client.open("test.db")?;
                return Ok(client);
            }
        }
        panic!("nobody names the leader")
    }

    fn attempt<T>(&mut self, request: impl Fn(&mut Client) -> Result<T, Failure>) -> Result<T, Failure> {
        let mut client = match self.connection.take() {
            Some(client) => client,
            None => self.connect()?,
        };
        let outcome = request(&mut client);
        if !matches!(&outcome, Err(failure) if GIVEN_UP_ON.contains(&failure.code)) {
            self.connection = Some(client);
        }
        outcome
    }

    /// What the application sees, and what was tried in vain.
    fn call<T>(
        &mut self,
        request: impl Fn(&mut Client) -> Result<T, Failure>,
    ) -> (Result<T, Failure>, Vec<Failure>) {
        let mut failures = Vec::new();
        loop {
            match self.attempt(&request) {
                Err(failure) if failures.len() + 1 < ATTEMPTS && GIVEN_UP_ON.contains(&failure.code) => {
                    failures.push(failure);
                }
                outcome => return (outcome, failures),
            }
        }
    }
}

/// Ends the threads that look at it, also when a test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// When a write was acknowledged and by whom.
type Acknowledged = Mutex<Vec<(Instant, SocketAddr)>>;

fn write_until(stop: &AtomicBool, mut client: Following, acknowledged: &Acknowledged) {
    while !stop.load(Ordering::Relaxed) {
        let (outcome, failures) = client.call(|c| c.exec("INSERT INTO t VALUES (1)"));
        for failure in &failures {
            assert_eq!(failure.code, 10250, "in doubt for no reason: {failure:?}");
        }
        outcome.unwrap_or_else(|failure| panic!("a write failed: {failure:?} after {failures:?}"));
        let leader = client.leader.unwrap();
        acknowledged.lock().unwrap_or_else(PoisonError::into_inner).push((Instant::now(), leader));
    }
}

fn read_until(stop: &AtomicBool, mut client: Following) {
    while !stop.load(Ordering::Relaxed) {
        let (outcome, failures) = client.call(|c| c.query("SELECT count(*) FROM t"));
        outcome.unwrap_or_else(|failure| panic!("a read failed: {failure:?} after {failures:?}"));
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Asks a node that hands over, all the time: it names a leader at any moment, and whoever it refuses finds
/// the new one.
fn ask_until(stop: &AtomicBool, cluster: &Cluster, from: usize, to: usize) {
    let [from, to] = [from, to].map(|n| &cluster.members[n]);
    let names = [from, to].map(|member| format!("leader {}", member.id));
    while !stop.load(Ordering::Relaxed) {
        let mut client = Client::connect(from.address).unwrap();
        let named = brief(client.call(Request::Leader));
        assert!(names.contains(&named), "the old leader names {named}");
        if brief(client.call(open("test.db"))) == NOT_LEADER {
            let mut new = Client::connect(to.address).unwrap();
            assert_eq!(brief(new.call(Request::Leader)), names[1], "refused too early");
        }
    }
}

/// Milliseconds without an acknowledged write around each change of the leader, ascending.
fn gaps_ms(mut acknowledged: Vec<(Instant, SocketAddr)>) -> Vec<f64> {
    acknowledged.sort_unstable_by_key(|(time, _)| *time);
    let changes = acknowledged.windows(2).filter(|pair| pair[0].1 != pair[1].1);
    let mut gaps: Vec<f64> = changes.map(|pair| (pair[1].0 - pair[0].0).as_secs_f64() * 1000.0).collect();
    gaps.sort_unstable_by(f64::total_cmp);
    gaps
}

/// `TRANSFERS` and `WRITERS` in the environment make it a measurement, which `--nocapture` shows.
#[test]
fn clients_that_follow_the_leader_see_no_failure_when_it_is_transferred() {
    let setting = |name, default| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let (transfers, writers): (usize, usize) = (setting("TRANSFERS", 8), setting("WRITERS", 2));
    let measured = std::env::var_os("TRANSFERS").is_some();
    let cluster = Cluster::with_latency(3, 200);
    cluster.exec("CREATE TABLE t (n INTEGER)");
    let nodes: Vec<SocketAddr> = cluster.members.iter().map(|m| m.address).collect();
    let client = || Following { nodes: nodes.clone(), leader: None, connection: None };
    let (stop, acknowledged) = (AtomicBool::new(false), Acknowledged::default());
    let mut answered = Vec::new();
    std::thread::scope(|scope| {
        let _stop = Stop(&stop);
        for _ in 0..writers {
            scope.spawn(|| write_until(&stop, client(), &acknowledged));
        }
        scope.spawn(|| read_until(&stop, client()));
        let mut here = cluster.leader_index();
        for _ in 0..transfers {
            std::thread::sleep(Duration::from_millis(150));
            let there = (here + 1) % 3;
            let handed_over = AtomicBool::new(false);
            std::thread::scope(|scope| {
                let _stop = Stop(&handed_over);
                if !measured {
                    scope.spawn(|| ask_until(&handed_over, &cluster, here, there));
                }
                let begin = Instant::now();
                transfer(&cluster, here, there);
                answered.push(begin.elapsed().as_secs_f64() * 1000.0);
            });
            here = there;
        }
        std::thread::sleep(Duration::from_millis(150));
    });
    let acknowledged = acknowledged.into_inner().unwrap();
    // Each write happened once.
    assert_eq!(cluster.integer("SELECT count(*) FROM t"), acknowledged.len() as i64);
    let writes = acknowledged.len();
    let gaps = gaps_ms(acknowledged);
    assert_eq!(gaps.len(), transfers);
    answered.sort_unstable_by(f64::total_cmp);
    for (what, times) in [("ms without a write", gaps), ("ms until TRANSFER was answered", answered)] {
        let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
        let load = format!("{transfers} transfers, {writers} writers, {writes} writes");
        println!("{load}: {what}: median {median:.1}, worst {worst:.1}");
    }
}

//! What clients of a single node can rely on, over real sockets.

// A test reports what goes wrong by panicking.
#![allow(clippy::unwrap_used)]

mod support;

use bytes::Bytes;
use dqlite::wire::request::{Request, Statement};
use dqlite::wire::response::Response;
use dqlite::wire::tuple::{Params, Schema, Value};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use support::{Client, Failure, TestNode, disconnected, text};
use tempfile::TempDir;

fn node() -> (TempDir, TestNode) {
    let directory = TempDir::new().unwrap();
    let node = TestNode::start(directory.path());
    (directory, node)
}

fn failure(code: u64, message: &str) -> Failure {
    Failure { code, message: message.into() }
}

/// A query that runs for many seconds unless something stops it.
const ENDLESS: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000000000) \
                       SELECT count(*) FROM n";

#[test]
fn what_was_written_is_there_after_a_restart() {
    let directory = TempDir::new().unwrap();
    for run in 0..3 {
        let node = TestNode::start(directory.path());
        let mut client = node.open("test.db");
        client.exec("CREATE TABLE IF NOT EXISTS t (n INTEGER)").unwrap();
        assert_eq!(client.integer("SELECT count(*) FROM t"), run * 10);
        for _ in 0..10 {
            client.exec("INSERT INTO t VALUES (1)").unwrap();
        }
        node.node.stop().unwrap();
    }
}

#[test]
fn snapshots_and_trailing_entries_bring_every_database_back() {
    let directory = TempDir::new().unwrap();
    let few = |node: &dqlite::node::Node| node.set_snapshot_params(8, 16, Default::default()).unwrap();
    for run in 0..4 {
        let node = TestNode::start_with(directory.path(), few);
        for name in ["a.db", "b.db"] {
            let mut client = node.open(name);
            client.exec("CREATE TABLE IF NOT EXISTS t (n INTEGER, pad BLOB)").unwrap();
            assert_eq!(client.integer("SELECT count(*) FROM t"), run * 50, "{name}, run {run}");
            for _ in 0..50 {
                client.exec("INSERT INTO t VALUES (1, randomblob(3000))").unwrap();
            }
            assert_eq!(client.text("PRAGMA integrity_check"), "ok");
        }
        node.node.stop().unwrap();
    }
    let names = std::fs::read_dir(directory.path()).unwrap().map(|e| e.unwrap().file_name());
    let snapshots = names.filter(|n| n.to_string_lossy().ends_with(".meta")).count();
    assert_eq!(snapshots, 2, "two snapshots are kept");
}

#[test]
fn independent_writers_never_meet_a_locked_database() {
    let (_directory, node) = node();
    node.open("test.db").exec("CREATE TABLE t (writer INTEGER, n INTEGER, PRIMARY KEY (writer, n))").unwrap();
    std::thread::scope(|scope| {
        for writer in 0..8 {
            let mut client = node.open("test.db");
            scope.spawn(move || {
                for n in 0..100 {
                    let sql = "INSERT INTO t VALUES (?, ?)";
                    client.exec_with(sql, &[Value::Integer(writer), Value::Integer(n)]).unwrap();
                    let mine = format!("SELECT count(*) FROM t WHERE writer = {writer}");
                    assert_eq!(client.integer(&mine), n + 1, "a client reads its own writes");
                }
            });
        }
    });
    let mut client = node.open("test.db");
    assert_eq!(client.integer("SELECT count(*) FROM t"), 800);
    assert_eq!(client.text("PRAGMA integrity_check"), "ok");
}

#[test]
fn readers_see_whole_transactions_only() {
    let (_directory, node) = node();
    let mut writer = node.open("test.db");
    writer
        .exec("CREATE TABLE t (id INTEGER PRIMARY KEY, v INTEGER); INSERT INTO t VALUES (1, 0), (2, 0)")
        .unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            let mut reader = node.open("test.db");
            let stop = &stop;
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    assert_eq!(reader.integer("SELECT sum(v) FROM t"), 0);
                }
            });
        }
        std::thread::scope(|writers| {
            for _ in 0..2 {
                let mut writer = node.open("test.db");
                writers.spawn(move || {
                    for _ in 0..150 {
                        let sql = "BEGIN IMMEDIATE; UPDATE t SET v = v + 1 WHERE id = 1; \
                                   UPDATE t SET v = v - 1 WHERE id = 2; COMMIT";
                        while let Err(refused) = writer.exec(sql) {
                            assert_eq!(refused.code, 5, "{refused:?}");
                        }
                    }
                });
            }
        });
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(writer.integer("SELECT v FROM t WHERE id = 1"), 300);
}

#[test]
fn transactions_span_requests_and_roll_back_when_the_client_leaves() {
    let (_directory, node) = node();
    let mut a = node.open("test.db");
    let mut b = node.open("test.db");
    a.exec("CREATE TABLE t (n INTEGER)").unwrap();
    a.exec("BEGIN").unwrap();
    a.exec("INSERT INTO t VALUES (1)").unwrap();
    assert_eq!(a.integer("SELECT count(*) FROM t"), 1);
    assert_eq!(b.integer("SELECT count(*) FROM t"), 0);
    assert_eq!(b.exec("INSERT INTO t VALUES (2)"), Err(failure(5, "database is locked")));
    a.exec("ROLLBACK").unwrap();
    b.exec("INSERT INTO t VALUES (2)").unwrap();
    a.exec("BEGIN IMMEDIATE").unwrap();
    a.exec("INSERT INTO t VALUES (3)").unwrap();
    drop(a);
    let patience = Instant::now() + Duration::from_secs(10);
    while let Err(refused) = b.exec("INSERT INTO t VALUES (4)") {
        assert_eq!(refused.code, 5);
        assert!(Instant::now() < patience, "the lock of a client that left was never released");
    }
    assert_eq!(b.integer("SELECT sum(n) FROM t"), 6);
}

#[test]
fn a_writer_waits_for_an_open_transaction_up_to_the_busy_timeout() {
    let (_directory, node) = node();
    node.node.set_busy_timeout(300).unwrap();
    let mut a = node.open("test.db");
    let mut b = node.open("test.db");
    a.exec("CREATE TABLE t (n INTEGER)").unwrap();
    a.exec("BEGIN IMMEDIATE").unwrap();
    let begin = Instant::now();
    assert_eq!(b.exec("INSERT INTO t VALUES (2)"), Err(failure(5, "database is locked")));
    assert!(begin.elapsed() >= Duration::from_millis(300));
    b.send(Request::ExecSql(text("INSERT INTO t VALUES (3)", &[]))).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    a.exec("COMMIT").unwrap();
    assert!(matches!(b.receive(), Ok(Response::Result(_))));
}

#[test]
fn a_read_transaction_behind_the_last_commit_cannot_write() {
    let (_directory, node) = node();
    let mut a = node.open("test.db");
    let mut b = node.open("test.db");
    a.exec("CREATE TABLE t (n INTEGER)").unwrap();
    a.exec("BEGIN").unwrap();
    assert_eq!(a.integer("SELECT count(*) FROM t"), 0);
    b.exec("INSERT INTO t VALUES (1)").unwrap();
    assert_eq!(a.exec("INSERT INTO t VALUES (2)"), Err(failure(517, "database is locked")));
    a.exec("ROLLBACK").unwrap();
    a.exec("BEGIN").unwrap();
    assert_eq!(a.integer("SELECT count(*) FROM t"), 1);
    a.exec("INSERT INTO t VALUES (2)").unwrap();
    a.exec("COMMIT").unwrap();
    assert_eq!(b.integer("SELECT count(*) FROM t"), 2);
}

#[test]
fn exec_of_a_statement_that_returns_rows_leaves_nothing_behind() {
    let (_directory, node) = node();
    let mut a = node.open("test.db");
    let mut b = node.open("test.db");
    a.exec("CREATE TABLE t (n INTEGER)").unwrap();
    let refused = failure(1, "rows yielded when none expected for EXEC request");
    assert_eq!(a.exec("INSERT INTO t VALUES (1) RETURNING n"), Err(refused.clone()));
    assert_eq!(b.integer("SELECT count(*) FROM t"), 0);
    b.exec("INSERT INTO t VALUES (2)").unwrap();
    a.exec("BEGIN; INSERT INTO t VALUES (3)").unwrap();
    assert_eq!(a.exec("INSERT INTO t VALUES (4) RETURNING n"), Err(refused));
    a.exec("COMMIT").unwrap();
    assert_eq!(b.integer("SELECT sum(n) FROM t"), 5);
    // Without a row there is nothing to refuse.
    a.exec("UPDATE t SET n = 0 WHERE n > 100 RETURNING n").unwrap();
}

#[test]
fn rows_of_returning_are_written_and_returned() {
    let (_directory, node) = node();
    let mut a = node.open("test.db");
    let mut b = node.open("test.db");
    a.exec("CREATE TABLE t (n INTEGER)").unwrap();
    let sql = "WITH RECURSIVE s(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM s WHERE i < 2000) \
               INSERT INTO t SELECT i FROM s RETURNING n";
    assert_eq!(a.query(sql).unwrap().len(), 2000);
    assert_eq!(b.integer("SELECT count(*) FROM t"), 2000);
}

#[test]
fn parameters_of_several_statements_are_taken_from_left_to_right() {
    let (_directory, node) = node();
    let mut client = node.open("test.db");
    client.exec("CREATE TABLE t (a, b)").unwrap();
    let values = [1, 2, 3].map(Value::Integer);
    let result =
        client.exec_with("INSERT INTO t VALUES (?, ?); INSERT INTO t VALUES (?, ?); -- end", &values);
    assert_eq!(result.unwrap().last_insert_id, 2);
    let rows = client.query("SELECT a, b FROM t").unwrap();
    let int = Value::<Bytes>::Integer;
    assert_eq!(rows, [vec![int(1), int(2)], vec![int(3), Value::Null]]);
}

#[test]
fn statement_ids_are_reused_and_unknown_ones_refused() {
    let (_directory, node) = node();
    let mut client = node.open("test.db");
    let prepare = |client: &mut Client, sql: &'static str| match client
        .call(Request::Prepare { db: 0, sql: sql.into(), schema: Schema::V0 })
        .unwrap()
    {
        Response::Stmt(stmt) => stmt.id,
        other => panic!("{other:?}"),
    };
    assert_eq!([prepare(&mut client, "SELECT 1"), prepare(&mut client, "SELECT 2")], [0, 1]);
    client.call(Request::Finalize { db: 0, statement: 0 }).unwrap();
    let unknown = failure(12, "no statement with the given id");
    for statement in [0, 2, u32::MAX] {
        let query = Statement { db: 0, statement, schema: Schema::V0, params: Params::none() };
        assert_eq!(client.call(Request::Query(query)).unwrap_err(), unknown);
    }
    assert_eq!(prepare(&mut client, "SELECT 3"), 0);
}

#[test]
fn an_interrupt_stops_a_running_query_and_the_connection_goes_on() {
    let (_directory, node) = node();
    let mut client = node.open("test.db");
    client.send(Request::QuerySql(text(ENDLESS, &[]))).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    let begin = Instant::now();
    client.send(Request::Interrupt { db: 0 }).unwrap();
    assert!(matches!(client.receive(), Ok(Response::Empty)));
    assert!(begin.elapsed() < Duration::from_secs(5));
    assert_eq!(client.integer("SELECT 1"), 1);
}

#[test]
fn an_interrupt_between_rows_ends_the_result() {
    let (_directory, node) = node();
    let mut client = node.open("test.db");
    let sql = ENDLESS.replace("count(*)", "i, randomblob(1000)");
    client.send(Request::QuerySql(text(&sql, &[]))).unwrap();
    assert!(matches!(client.receive(), Ok(Response::Rows(_))));
    client.send(Request::Interrupt { db: 0 }).unwrap();
    while !matches!(client.receive().unwrap(), Response::Empty) {}
    assert_eq!(client.integer("SELECT 1"), 1);
}

#[test]
fn long_queries_hold_up_neither_writes_nor_other_reads() {
    let (_directory, node) = node();
    let mut writer = node.open("test.db");
    writer.exec("CREATE TABLE t (n INTEGER)").unwrap();
    // Four times the number of client workers.
    let mut long: Vec<Client> = (0..16).map(|_| node.open("test.db")).collect();
    for client in &mut long {
        client.send(Request::QuerySql(text(ENDLESS, &[]))).unwrap();
    }
    for n in 0..10 {
        writer.exec("INSERT INTO t VALUES (1)").unwrap();
        assert_eq!(writer.integer("SELECT count(*) FROM t"), n + 1);
    }
    for client in &mut long {
        client.stream.set_nonblocking(true).unwrap();
        let mut byte = [0];
        let nothing = client.stream.read(&mut byte).unwrap_err();
        assert_eq!(nothing.kind(), std::io::ErrorKind::WouldBlock, "the long query is over already");
    }
    // Stopping interrupts them; it must not wait for their end.
    let begin = Instant::now();
    node.node.stop().unwrap();
    assert!(begin.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_client_that_leaves_ends_its_query() {
    let (_directory, node) = node();
    let before = || std::fs::read_dir("/proc/self/task").unwrap().count();
    let mut client = node.open("test.db");
    let threads = before();
    client.send(Request::QuerySql(text(ENDLESS, &[]))).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    drop(client);
    // The checkpoint of another connection's writes needs the read lock of that query to be gone.
    let mut other = node.open("test.db");
    other.exec("CREATE TABLE t (n INTEGER)").unwrap();
    let begin = Instant::now();
    node.node.stop().unwrap();
    assert!(begin.elapsed() < Duration::from_secs(5), "{threads} threads before");
}

#[test]
fn a_deleted_database_is_empty_and_can_be_used_again() {
    let (_directory, node) = node();
    let mut client = node.open("test.db");
    client.exec("CREATE TABLE t (n INTEGER); INSERT INTO t VALUES (1)").unwrap();
    client.exec("BEGIN IMMEDIATE; PRAGMA delete_database; COMMIT").unwrap();
    assert_eq!(client.integer("SELECT count(*) FROM sqlite_master"), 0);
    drop(client);
    let mut client = node.open("test.db");
    client.exec("CREATE TABLE t (n INTEGER)").unwrap();
    assert_eq!(client.integer("SELECT count(*) FROM t"), 0);
}

#[test]
fn reserved_database_names_are_refused_with_a_reason() {
    let (_directory, node) = node();
    let long = "n".repeat(600);
    for name in ["", ":memory:", "x-wal", "x-journal", &long] {
        let mut client = node.connect();
        let refused = client.open(name).unwrap_err();
        assert_ne!(refused, disconnected(), "{name}");
        assert_eq!(refused.code, 14, "{refused:?}");
        client.open("fine.db").unwrap();
    }
    for name in ["dir/x.db", "file:x?mode=ro", "ünïcode"] {
        let mut client = node.open(name);
        client.exec("CREATE TABLE t (n INTEGER)").unwrap();
        assert_eq!(node.open(name).integer("SELECT count(*) FROM t"), 0);
    }
}

#[test]
fn the_wal_stays_bounded_under_many_writers() {
    let (_directory, node) = node();
    node.open("test.db").exec("CREATE TABLE t (n INTEGER, pad BLOB)").unwrap();
    let written = Arc::new(AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..6 {
            let (mut client, written) = (node.open("test.db"), written.clone());
            scope.spawn(move || {
                for n in 0..150 {
                    client.exec(&format!("INSERT INTO t VALUES ({n}, randomblob(12000))")).unwrap();
                    written.fetch_add(1, Ordering::Relaxed);
                    client.integer("SELECT count(*) FROM t");
                }
            });
        }
    });
    let mut client = node.open("test.db");
    assert_eq!(client.text("PRAGMA integrity_check"), "ok");
    assert_eq!(client.integer("SELECT count(*) FROM t") as u64, written.load(Ordering::Relaxed));
}

#[test]
fn broken_streams_close_their_own_connection_only() {
    let (_directory, node) = node();
    let mut good = node.open("test.db");
    let word = 1u64.to_le_bytes();
    let header = |words: u32, kind: u8| [&words.to_le_bytes()[..], &[kind, 0, 0, 0]].concat();
    let broken: Vec<Vec<u8>> = vec![
        2u64.to_le_bytes().to_vec(),
        [&word[..], &header(u32::MAX, 0)].concat(),
        [&word[..], &header(0x1000_0001, 8)].concat(),
        [&word[..], &header(1, 8), &[0; 8]].concat(),
        [&word[..], &header(2, 8), &[0; 8], b"no end !"].concat(),
    ];
    for bytes in broken {
        let mut stream = std::net::TcpStream::connect(node.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.write_all(&bytes).unwrap();
        assert_eq!(stream.read(&mut [0; 64]).unwrap_or(0), 0, "{bytes:?}");
    }
    assert_eq!(good.integer("SELECT 1"), 1);
}

#[test]
fn random_bytes_never_stop_the_node() {
    let (_directory, node) = node();
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    for _ in 0..300 {
        let mut stream = std::net::TcpStream::connect(node.address).unwrap();
        let mut bytes = 1u64.to_le_bytes().to_vec();
        for _ in 0..8 {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            // A plausible header before each body, so that the decoders behind it are reached.
            bytes.extend([
                (random >> 8) as u8 % 6,
                0,
                0,
                0,
                (random >> 16) as u8 % 22,
                (random >> 24) as u8 % 3,
                0,
                0,
            ]);
            bytes.extend(random.to_le_bytes().repeat(3));
        }
        let _ = stream.write_all(&bytes);
    }
    assert_eq!(node.open("test.db").integer("SELECT 1"), 1);
    node.node.stop().unwrap();
}

#[test]
fn a_node_is_started_once_and_says_so() {
    let directory = TempDir::new().unwrap();
    let node = TestNode::start(directory.path());
    assert_eq!(node.node.start().unwrap_err().message, "couldn't lock the raft directory");
    let address = support::free_address().to_string();
    let second = dqlite::node::Node::create(1, &address, directory.path()).unwrap();
    assert!(second.start().unwrap_err().message.contains("bind address"));
    second.set_bind_address(&address).unwrap();
    assert_eq!(second.start().unwrap_err().message, "couldn't lock the raft directory");
    node.node.stop().unwrap();
    second.start().unwrap();
    second.stop().unwrap();
    for error in [second.start().unwrap_err(), second.stop().unwrap_err()] {
        assert_eq!(error.kind, dqlite::node::ErrorKind::Misuse);
    }
}

#[test]
fn nothing_is_left_open_after_stop() {
    let count = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let directory = TempDir::new().unwrap();
    let leaked: BTreeSet<i64> = (0..6)
        .map(|_| {
            let before = count() as i64;
            let node = TestNode::start(directory.path());
            node.open("test.db").exec("CREATE TABLE IF NOT EXISTS t (n INTEGER)").unwrap();
            node.node.stop().unwrap();
            drop(node);
            count() as i64 - before
        })
        .collect();
    // Other tests of this process open and close descriptors meanwhile: a leak would never come out at zero.
    assert!(leaked.iter().any(|n| *n <= 0), "{leaked:?}");
}

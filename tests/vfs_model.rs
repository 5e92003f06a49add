//! Random histories against simple models. `VFS_MODEL_ROUNDS=n` runs n times as many, `VFS_MODEL_SEED=n`
//! starts elsewhere; a failure names its seed.

#![allow(clippy::unwrap_used)] // the tools outside of test functions panic too

mod vfs_support;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use dqlite::sqlite::{Error, Step, Value};
use dqlite::vfs::{Database, TransactionId, VfsConnection, View};

use vfs_support::{Bench, Random, assert_intact, assert_same_content, int};

const SQLITE_IOERR_SHMLOCK: i32 = 10 | 20 << 8;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

fn seeds(count: u64) -> impl Iterator<Item = u64> {
    let first = setting("VFS_MODEL_SEED", 1);
    first..first + count * setting("VFS_MODEL_ROUNDS", 1)
}

// ---- one table against a map, through pipelines, aborts, checkpoints and changes of leadership ----

/// What the database should hold: table `m`, and the tables of a changing schema.
#[derive(Debug, Clone, Default, PartialEq)]
struct Content {
    rows: BTreeMap<i64, i64>,
    tables: BTreeMap<String, i64>,
}

struct Node {
    bench: Bench,
    connections: Vec<VfsConnection>,
}

impl Node {
    fn new(threshold: u32, connections: usize) -> Node {
        let bench = Bench::with_threshold(threshold);
        let connections: Vec<_> = (0..connections).map(|_| bench.connect()).collect();
        for connection in connections.iter().step_by(2) {
            connection.execute(b"PRAGMA cache_size = 8").unwrap();
        }
        Node { bench, connections }
    }

    fn check(&self, connection: usize, expected: &Content) {
        check(&self.connections[connection], expected);
    }
}

fn check(connection: &VfsConnection, expected: &Content) {
    let sum: i64 = expected.rows.iter().map(|(k, v)| (k + 1) * v).sum();
    assert_eq!(int(connection, "SELECT coalesce(sum((k + 1) * v), 0) FROM m"), sum);
    assert_eq!(int(connection, "SELECT count(*) FROM m"), expected.rows.len() as i64);
    let tables = int(connection, "SELECT count(*) FROM sqlite_master WHERE name GLOB 'x*'");
    assert_eq!(tables, expected.tables.len() as i64);
    if let Some((table, value)) = expected.tables.iter().next() {
        assert_eq!(int(connection, &format!("SELECT a FROM {table}")), *value);
    }
}

struct History {
    random: Random,
    /// The leader first, then its follower.
    nodes: [Node; 2],
    committed: Content,
    /// The content after each speculative transaction, oldest first.
    speculative: Vec<Content>,
}

impl History {
    fn new(seed: u64) -> History {
        let mut random = Random(seed);
        let thresholds = [random.below(3), random.below(3)].map(|i| [30, 600, 5000][i as usize]);
        let nodes = thresholds.map(|threshold| Node::new(threshold, 4));
        let leader = &nodes[0];
        leader
            .bench
            .write(&leader.connections[0], "CREATE TABLE m(k INTEGER PRIMARY KEY, v INT, pad BLOB)")
            .unwrap();
        let mut history =
            History { random, nodes, committed: Content::default(), speculative: vec![Content::default()] };
        history.publish(1);
        history
    }

    fn newest(&self) -> Content {
        self.speculative.last().unwrap_or(&self.committed).clone()
    }

    fn publish(&mut self, count: usize) {
        for _ in 0..count {
            let pages = self.nodes[0].bench.taken.borrow()[0].pages.clone();
            self.nodes[0].bench.publish(1);
            self.nodes[1].bench.database.append(&pages).unwrap();
            self.committed = self.speculative.remove(0);
        }
    }

    /// One change of the content and the SQL that makes it.
    fn change(&mut self, content: &mut Content) -> String {
        let key = self.random.below(200) as i64;
        match self.random.below(20) {
            0 if !content.rows.is_empty() => {
                content.rows.retain(|k, _| k % 7 != key % 7);
                format!("DELETE FROM m WHERE k % 7 = {}", key % 7)
            }
            1 => {
                let table = format!("x{}", key % 4);
                match content.tables.remove(&table) {
                    Some(_) => format!("DROP TABLE {table}"),
                    None => {
                        content.tables.insert(table.clone(), key);
                        // Columns differ from time to time, so that a stale schema would not fit.
                        let before: String = (0..key % 3).map(|i| format!("z{i}, ")).collect();
                        format!("CREATE TABLE {table}({before} a); INSERT INTO {table}(a) VALUES({key})")
                    }
                }
            }
            _ => {
                let value = self.random.below(1000) as i64;
                let pad = if self.random.chance(2) { 60_000 } else { self.random.below(400) };
                content.rows.insert(key, value);
                format!("REPLACE INTO m VALUES({key}, {value}, randomblob({pad}))")
            }
        }
    }

    fn write(&mut self) {
        let connection = self.random.below(4) as usize;
        let mut content = self.newest();
        let before = content.clone();
        let mut sql = self.change(&mut content);
        let mut lasts = true;
        if self.random.chance(30) || sql.contains(';') {
            sql = format!("BEGIN IMMEDIATE; {sql}");
            for _ in 0..self.random.below(4) {
                let kept = content.clone();
                let step = self.change(&mut content);
                if self.random.chance(40) {
                    sql = format!("{sql}; SAVEPOINT s; {step}; ROLLBACK TO s; RELEASE s");
                    content = kept;
                } else {
                    sql = format!("{sql}; {step}");
                }
            }
            lasts = !self.random.chance(20);
            sql.push_str(if lasts { "; COMMIT" } else { "; ROLLBACK" });
        }
        let leader = &self.nodes[0];
        leader.bench.write(&leader.connections[connection], &sql).unwrap();
        // A transaction that changed nothing is none.
        if self.nodes[0].bench.depth() > self.speculative.len() {
            assert!(lasts, "{sql}");
            self.speculative.push(content);
        } else {
            assert!(!lasts || content == before, "{sql}");
        }
        assert_eq!(self.nodes[0].bench.depth(), self.speculative.len(), "{sql}");
    }

    fn read(&mut self) {
        let connection = self.random.below(4) as usize;
        self.nodes[0].check(connection, &self.committed);
        self.nodes[1].check(connection, &self.committed);
        if self.random.chance(30) {
            let speculative = &self.nodes[0].connections[connection];
            speculative.set_view(View::Speculative).unwrap();
            check(speculative, &self.newest());
            speculative.set_view(View::Committed).unwrap();
        }
    }

    fn step(&mut self) {
        match self.random.below(100) {
            0..60 if self.speculative.len() < 60 => self.write(),
            0..80 => {
                let count = self.random.below(self.speculative.len() as u64 + 1) as usize;
                self.publish(count);
            }
            80..92 => self.read(),
            92..94 => {
                self.nodes[0].bench.abort();
                self.speculative.clear();
            }
            94 => {
                // Another leader: what the old one had not committed is gone.
                self.nodes[0].bench.abort();
                self.speculative.clear();
                self.nodes.swap(0, 1);
            }
            95 => {
                let node = self.random.below(2) as usize;
                self.nodes[node].bench.database.checkpoint();
            }
            96 if self.random.chance(20) => {
                // The follower gets a snapshot.
                let image = self.nodes[0].bench.database.capture();
                self.nodes[1].bench.database.restore(image).unwrap();
            }
            97 => {
                let connection = self.random.below(4) as usize;
                let reader = &self.nodes[0].connections[connection];
                reader.execute(b"BEGIN").unwrap();
                check(reader, &self.committed);
                let before = self.committed.clone();
                self.publish(self.speculative.len());
                self.nodes[0].check(connection, &before);
                self.nodes[0].connections[connection].execute(b"COMMIT").unwrap();
            }
            98 => {
                let connection = self.random.below(4) as usize;
                let node = self.random.below(2) as usize;
                let fresh = self.nodes[node].bench.connect();
                self.nodes[node].connections[connection] = fresh;
            }
            _ => {}
        }
    }
}

#[test]
fn every_view_of_leader_and_follower_agrees_with_the_model_at_every_moment() {
    for seed in seeds(6) {
        println!("seed {seed}");
        let mut history = History::new(seed);
        for _ in 0..1200 {
            history.step();
        }
        history.publish(history.speculative.len());
        history.read();
        assert_same_content(&history.nodes[0].bench.database, &history.nodes[1].bench.database);
        for node in &history.nodes {
            node.connections.iter().for_each(assert_intact);
        }
    }
}

// ---- random SQL against SQLite without any replication ----

/// Random statements over a few tables; the same text goes to both databases.
struct Sql {
    random: Random,
    in_transaction: bool,
}

impl Sql {
    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.random.below(from.len() as u64) as usize]
    }

    fn table(&mut self) -> &'static str {
        self.pick(&["a", "b", "c"])
    }

    fn value(&mut self) -> String {
        let number = self.random.below(50);
        match self.random.below(6) {
            0 => "NULL".into(),
            1 => format!("'text {number}'"),
            2 => format!("zeroblob({})", number * 300),
            3 => format!("{number}.5"),
            _ => number.to_string(),
        }
    }

    fn statement(&mut self) -> String {
        let (table, other) = (self.table(), self.table());
        let (one, two) = (self.value(), self.value());
        match self.random.below(100) {
            0..6 => {
                let rest = self.pick(&["y", "y UNIQUE", "y DEFAULT 3, z", "y CHECK(y <> 7)"]);
                format!("CREATE TABLE {table}(x INTEGER PRIMARY KEY, {rest})")
            }
            6..8 => format!("DROP TABLE {table}"),
            8..11 => format!("CREATE INDEX i_{table} ON {table}(y)"),
            11 => format!("DROP INDEX i_{table}"),
            12 => format!("ALTER TABLE {table} ADD COLUMN w DEFAULT 5"),
            13 => format!(
                "CREATE TRIGGER t_{table} AFTER INSERT ON {table} \
                 BEGIN DELETE FROM {other} WHERE x = new.x - 3; END"
            ),
            14 => format!("PRAGMA user_version = {}", self.random.below(1000)),
            15 => self.pick(&["VACUUM", "PRAGMA auto_vacuum = 1", "PRAGMA auto_vacuum = 0"]).into(),
            16 => "ANALYZE".into(),
            17 => format!("CREATE TEMP TABLE IF NOT EXISTS t AS SELECT * FROM {table}"),
            18..50 => format!("INSERT INTO {table}(y) VALUES({one})"),
            50..56 => format!("INSERT INTO {table}(y) VALUES({one}), ({two}) RETURNING x"),
            56..60 => format!("INSERT INTO {table}(y) SELECT y FROM {other} LIMIT 40"),
            60..70 => format!("UPDATE {table} SET y = {one} WHERE x % 5 = {}", self.random.below(5)),
            70..76 => format!("DELETE FROM {table} WHERE y = {one} OR x % 11 = {}", self.random.below(11)),
            76 => format!("DELETE FROM {table}"),
            77..84 => self.pick(&["BEGIN", "BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"]).into(),
            84..92 => self.pick(&["COMMIT", "COMMIT", "COMMIT", "ROLLBACK"]).into(),
            92..95 => "SAVEPOINT s".into(),
            95..97 => self.pick(&["ROLLBACK TO s", "RELEASE s"]).into(),
            _ => format!("SELECT count(*), sum(x) FROM {table} WHERE y > {one}"),
        }
    }
}

/// Everything a database holds, as text.
fn dump(query: impl Fn(&str) -> Result<Vec<String>, i32>) -> Vec<String> {
    let mut out = query("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY name").unwrap();
    for table in ["a", "b", "c"] {
        out.extend(query(&format!("SELECT * FROM {table} ORDER BY x")).unwrap_or_default());
    }
    out.extend(query("PRAGMA user_version").unwrap());
    out
}

fn run_on_vfs(connection: &VfsConnection, sql: &str) -> Result<Vec<String>, i32> {
    let code = |error: Error| error.code;
    let mut statement = connection.prepare(sql.as_bytes()).map_err(code)?.statement.unwrap();
    let mut rows = Vec::new();
    while statement.step().map_err(code)? == Step::Row {
        let values = (0..statement.column_count()).map(|i| match statement.value(i).unwrap() {
            Value::Null => "NULL".into(),
            Value::Integer(value) => value.to_string(),
            Value::Real(value) => value.to_string(),
            Value::Text(text) => format!("'{}'", String::from_utf8_lossy(text)),
            Value::Blob(blob) => format!("blob of {}", blob.len()),
        });
        rows.push(values.collect::<Vec<String>>().join(" "));
    }
    Ok(rows)
}

fn run_on_plain(connection: &rusqlite::Connection, sql: &str) -> Result<Vec<String>, i32> {
    let code = |error: rusqlite::Error| error.sqlite_error().unwrap().extended_code;
    let mut statement = connection.prepare(sql).map_err(code)?;
    let columns = statement.column_count();
    let mut cursor = statement.raw_query();
    let mut rows = Vec::new();
    while let Some(row) = cursor.next().map_err(code)? {
        let values = (0..columns).map(|i| match row.get_ref(i).unwrap() {
            rusqlite::types::ValueRef::Null => "NULL".into(),
            rusqlite::types::ValueRef::Integer(value) => value.to_string(),
            rusqlite::types::ValueRef::Real(value) => value.to_string(),
            rusqlite::types::ValueRef::Text(text) => format!("'{}'", String::from_utf8_lossy(text)),
            rusqlite::types::ValueRef::Blob(blob) => format!("blob of {}", blob.len()),
        });
        rows.push(values.collect::<Vec<String>>().join(" "));
    }
    Ok(rows)
}

#[test]
fn random_sql_gives_what_plain_sqlite_gives() {
    for seed in seeds(10) {
        println!("seed {seed}");
        let mut sql = Sql { random: Random(seed), in_transaction: false };
        let (leader, follower) = (Bench::with_threshold(100), Bench::with_threshold(40));
        let (writer, reader) = (leader.connect(), leader.connect());
        writer.execute(b"PRAGMA cache_size = 10").unwrap();
        let plain = rusqlite::Connection::open_in_memory().unwrap();
        plain.pragma_update(None, "foreign_keys", true).unwrap();
        for i in 0..500 {
            let statement = sql.statement();
            if writer.autocommit() {
                writer.set_view(View::Speculative).unwrap();
            }
            let (ours, expected) = (run_on_vfs(&writer, &statement), run_on_plain(&plain, &statement));
            assert_eq!(ours, expected, "statement {i}: {statement}");
            leader.take();
            assert_eq!(writer.autocommit(), plain.is_autocommit(), "statement {i}: {statement}");
            sql.in_transaction = !writer.autocommit();
            if sql.random.chance(30) {
                while let Some(transaction) = leader.taken.borrow_mut().pop_front() {
                    leader.database.publish_next(transaction.id).unwrap();
                    follower.database.append(&transaction.pages).unwrap();
                }
                if !sql.in_transaction {
                    let expected = dump(|query| run_on_plain(&plain, query));
                    assert_eq!(dump(|query| run_on_vfs(&reader, query)), expected, "after statement {i}");
                    assert_eq!(dump(|query| run_on_vfs(&writer, query)), expected, "after statement {i}");
                }
            }
        }
        if sql.in_transaction {
            run_on_vfs(&writer, "COMMIT").unwrap();
            leader.take();
        }
        for transaction in leader.taken.borrow().iter() {
            follower.database.append(&transaction.pages).unwrap();
        }
        leader.publish_all();
        assert_same_content(&leader.database, &follower.database);
        assert_intact(&reader);
        assert_intact(&follower.connect());
    }
}

// ---- threads ----

/// A pipeline under full speed: one writer, one publisher, readers that check an invariant with every read.
struct Storm {
    database: Arc<Database>,
    /// Held by whoever ends speculation: the publisher for one publish, the writer for an abort.
    turn: Mutex<()>,
    /// Greatest row that is published; rows are numbered without gaps.
    published: AtomicI64,
    /// Counts aborts: transactions of an earlier generation do not exist any more.
    generation: AtomicUsize,
    stop: AtomicBool,
    reads: AtomicI64,
}

struct Executed {
    generation: usize,
    id: TransactionId,
    row: i64,
}

impl Storm {
    fn write(&self, connections: &[VfsConnection], count: u64, queue: mpsc::SyncSender<Executed>) {
        let mut random = Random(7);
        let mut row = 0;
        for _ in 0..count {
            if random.below(300) == 0 {
                let _turn = self.turn.lock().unwrap();
                self.generation.fetch_add(1, Ordering::Relaxed);
                self.database.abort().unwrap();
                row = self.published.load(Ordering::Relaxed);
            }
            row += 1;
            let amount = random.below(100);
            let sql = format!(
                "BEGIN IMMEDIATE; INSERT INTO t VALUES({row}, {amount}); \
                 UPDATE t SET v = v - {amount} WHERE id = 1 + abs(random()) % {row}; COMMIT"
            );
            let connection = &connections[random.below(connections.len() as u64) as usize];
            connection.set_view(View::Speculative).unwrap();
            connection.execute(sql.as_bytes()).unwrap();
            let id = self.database.take_transaction().unwrap().id;
            queue.send(Executed { generation: self.generation.load(Ordering::Relaxed), id, row }).unwrap();
        }
    }

    fn publish(&self, queue: mpsc::Receiver<Executed>) {
        for executed in queue {
            let _turn = self.turn.lock().unwrap();
            if executed.generation == self.generation.load(Ordering::Relaxed) {
                self.database.publish_next(executed.id).unwrap();
                self.published.store(executed.row, Ordering::SeqCst);
            }
        }
        self.stop.store(true, Ordering::Relaxed);
    }

    fn read(&self, connection: &VfsConnection) {
        let sql = b"SELECT count(*), coalesce(max(id), 0), coalesce(sum(v), 0) FROM t";
        let mut statement = connection.prepare(sql).unwrap().statement.unwrap();
        let mut last = 0;
        while !self.stop.load(Ordering::Relaxed) {
            let lowest = self.published.load(Ordering::SeqCst).max(last);
            match statement.step() {
                Ok(step) => assert_eq!(step, Step::Row),
                // The one statement that starts in the instant of an abort.
                Err(error) => {
                    assert_eq!(error.code, SQLITE_IOERR_SHMLOCK, "{error}");
                    statement.reset();
                    continue;
                }
            }
            let values = [0, 1, 2].map(|i| match statement.value(i).unwrap() {
                Value::Integer(value) => value,
                other => panic!("{other:?}"),
            });
            statement.reset();
            // The publisher publishes first and counts afterwards.
            let highest = self.published.load(Ordering::SeqCst) + 1;
            let [count, greatest, sum] = values;
            assert_eq!((count, sum), (greatest, 0));
            assert!((lowest..=highest).contains(&greatest), "{lowest} <= {greatest} <= {highest}");
            last = greatest;
            self.reads.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[test]
fn readers_see_whole_published_prefixes_while_writers_run_at_full_speed() {
    let count = 4000 * setting("VFS_MODEL_ROUNDS", 1);
    let bench = Bench::with_threshold(300);
    let writers = [bench.connect(), bench.connect(), bench.connect()];
    bench.commit(&writers[0], "CREATE TABLE t(id INTEGER PRIMARY KEY, v INT)");
    let readers = [bench.connect(), bench.connect()];
    let storm = Storm {
        database: Arc::clone(&bench.database),
        turn: Mutex::default(),
        published: AtomicI64::new(0),
        generation: AtomicUsize::new(0),
        stop: AtomicBool::new(false),
        reads: AtomicI64::new(0),
    };
    let (send, receive) = mpsc::sync_channel(40);
    std::thread::scope(|scope| {
        for reader in &readers {
            scope.spawn(|| storm.read(reader));
        }
        scope.spawn(|| storm.publish(receive));
        storm.write(&writers, count, send);
    });
    println!(
        "{} published, {} reads, {} checkpoints",
        storm.published.load(Ordering::Relaxed),
        storm.reads.load(Ordering::Relaxed),
        bench.database.checkpoints()
    );
    assert!(storm.reads.load(Ordering::Relaxed) > 10);
    assert!(bench.database.checkpoints() > 0);
    assert!(bench.database.drained());
    assert_eq!(int(&readers[0], "SELECT max(id) FROM t"), storm.published.load(Ordering::Relaxed));
    assert_intact(&readers[1]);
    assert_eq!(bench.vfs.fault(), None);
}

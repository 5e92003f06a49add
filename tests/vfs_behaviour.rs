//! What the VFS promises to the rest of the node, one test per promise, through real SQLite statements.

use std::sync::Arc;

use dqlite::sqlite::{Error, Step, Value};
use dqlite::vfs::{Database, Transaction, TransactionId, Vfs, VfsConnection, View};

const SQLITE_BUSY: i32 = 5;
const SQLITE_BUSY_SNAPSHOT: i32 = 517;
const SQLITE_CONSTRAINT_UNIQUE: i32 = 2067;

/// Large enough that nothing checkpoints unless a test asks for it.
const NEVER: u32 = u32::MAX;

/// One database, its VFS, and a plan of what is executed but not published.
struct Bench {
    vfs: Vfs,
    database: Arc<Database>,
    taken: std::cell::RefCell<std::collections::VecDeque<Transaction>>,
}

impl Bench {
    fn new() -> Bench {
        Bench::with_threshold(NEVER)
    }

    fn with_threshold(threshold: u32) -> Bench {
        let vfs = Vfs::register(threshold).unwrap();
        let database = vfs.create_database("test.db").unwrap();
        Bench { vfs, database, taken: Default::default() }
    }

    fn connect(&self) -> VfsConnection {
        self.vfs.connect("test.db").unwrap()
    }

    /// Executes as the lane holder does: speculative view, then take what was closed.
    fn write(&self, connection: &VfsConnection, sql: &str) -> Result<(), Error> {
        if connection.autocommit() {
            connection.set_view(View::Speculative).unwrap();
        }
        let result = connection.execute(sql.as_bytes());
        while let Some(transaction) = self.database.take_transaction() {
            self.taken.borrow_mut().push_back(transaction);
        }
        if connection.autocommit() {
            connection.set_view(View::Committed).unwrap();
        }
        result
    }

    fn publish(&self, count: usize) {
        for _ in 0..count {
            let transaction = self.taken.borrow_mut().pop_front().unwrap();
            self.database.publish_next(transaction.id).unwrap();
        }
    }

    fn publish_all(&self) {
        self.publish(self.taken.borrow().len());
    }

    fn commit(&self, connection: &VfsConnection, sql: &str) {
        self.write(connection, sql).unwrap();
        self.publish_all();
    }

    fn abort(&self) {
        self.database.abort().unwrap();
        self.taken.borrow_mut().clear();
    }

    fn depth(&self) -> usize {
        self.taken.borrow().len()
    }

    fn last_taken(&self) -> Transaction {
        self.taken.borrow().back().unwrap().clone()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(self.vfs.fault(), None);
        }
    }
}

fn int(connection: &VfsConnection, sql: &str) -> i64 {
    try_int(connection, sql).unwrap()
}

fn try_int(connection: &VfsConnection, sql: &str) -> Result<i64, Error> {
    let mut statement = connection.prepare(sql.as_bytes())?.statement.unwrap();
    assert_eq!(statement.step()?, Step::Row);
    match statement.value(0)? {
        Value::Integer(value) => Ok(value),
        other => panic!("{sql} gave {other:?}"),
    }
}

fn text(connection: &VfsConnection, sql: &str) -> String {
    let mut statement = connection.prepare(sql.as_bytes()).unwrap().statement.unwrap();
    assert_eq!(statement.step().unwrap(), Step::Row);
    match statement.value(0).unwrap() {
        Value::Text(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
        other => panic!("{sql} gave {other:?}"),
    }
}

fn assert_intact(connection: &VfsConnection) {
    assert_eq!(text(connection, "PRAGMA integrity_check"), "ok");
}

#[test]
fn a_transaction_is_invisible_until_it_is_published() {
    let bench = Bench::new();
    let (writer, reader) = (bench.connect(), bench.connect());
    bench.write(&writer, "CREATE TABLE t(a)").unwrap();
    assert_eq!(int(&reader, "SELECT count(*) FROM sqlite_master"), 0);
    assert_eq!(int(&writer, "SELECT count(*) FROM sqlite_master"), 0);
    assert_eq!(bench.depth(), 1);
    bench.publish(1);
    assert_eq!(int(&reader, "SELECT count(*) FROM t"), 0);
}

//! What the VFS tests share: a database with its pipeline, driven the way a node drives it.

#![allow(dead_code)] // each test file uses its own part

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;

use dqlite::sqlite::{Error, Step, Value};
use dqlite::vfs::{Database, Transaction, Vfs, VfsConnection, View};

/// Large enough that nothing checkpoints unless a test asks for it.
pub const NEVER: u32 = u32::MAX;

/// One database, its VFS, and what is executed but not published.
pub struct Bench {
    pub vfs: Vfs,
    pub database: Arc<Database>,
    pub taken: RefCell<VecDeque<Transaction>>,
}

impl Bench {
    pub fn new() -> Bench {
        Bench::with_threshold(NEVER)
    }

    pub fn with_threshold(threshold: u32) -> Bench {
        let vfs = Vfs::register(threshold).unwrap();
        let database = vfs.create_database("test.db").unwrap();
        Bench { vfs, database, taken: RefCell::default() }
    }

    pub fn connect(&self) -> VfsConnection {
        self.vfs.connect("test.db").unwrap()
    }

    /// Executes as the lane holder does: speculative view, then take what was closed.
    pub fn write(&self, connection: &VfsConnection, sql: &str) -> Result<(), Error> {
        if connection.autocommit() {
            connection.set_view(View::Speculative).unwrap();
        }
        let result = connection.execute(sql.as_bytes());
        self.take();
        if connection.autocommit() {
            connection.set_view(View::Committed).unwrap();
        }
        result
    }

    /// Takes whatever was closed.
    pub fn take(&self) {
        while let Some(transaction) = self.database.take_transaction() {
            self.taken.borrow_mut().push_back(transaction);
        }
    }

    pub fn publish(&self, count: usize) {
        for _ in 0..count {
            let transaction = self.taken.borrow_mut().pop_front().unwrap();
            self.database.publish_next(transaction.id).unwrap();
        }
    }

    pub fn publish_all(&self) {
        self.publish(self.depth());
    }

    /// Executes and publishes.
    pub fn commit(&self, connection: &VfsConnection, sql: &str) {
        self.write(connection, sql).unwrap();
        self.publish_all();
    }

    pub fn abort(&self) {
        self.database.abort().unwrap();
        self.taken.borrow_mut().clear();
    }

    pub fn depth(&self) -> usize {
        self.taken.borrow().len()
    }

    pub fn last_taken(&self) -> Transaction {
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

/// Two databases hold the same bytes.
pub fn assert_same_content(one: &Database, other: &Database) {
    let (one, other) = (one.capture().pages, other.capture().pages);
    assert_eq!(one.len(), other.len());
    for (i, (a, b)) in one.iter().zip(&other).enumerate() {
        assert_eq!(a, b, "page {} differs", i + 1);
    }
}

/// The single integer that a query gives.
pub fn int(connection: &VfsConnection, sql: &str) -> i64 {
    try_int(connection, sql).unwrap()
}

pub fn try_int(connection: &VfsConnection, sql: &str) -> Result<i64, Error> {
    let mut statement = connection.prepare(sql.as_bytes())?.statement.unwrap();
    assert_eq!(statement.step()?, Step::Row);
    match statement.value(0)? {
        Value::Integer(value) => Ok(value),
        other => panic!("{sql} gave {other:?}"),
    }
}

/// The single text that a query gives.
pub fn text(connection: &VfsConnection, sql: &str) -> String {
    let mut statement = connection.prepare(sql.as_bytes()).unwrap().statement.unwrap();
    assert_eq!(statement.step().unwrap(), Step::Row);
    match statement.value(0).unwrap() {
        Value::Text(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
        other => panic!("{sql} gave {other:?}"),
    }
}

pub fn assert_intact(connection: &VfsConnection) {
    assert_eq!(text(connection, "PRAGMA integrity_check"), "ok");
}

/// A statement that writes about `pages` pages into a new table.
pub fn create_big(table: &str, pages: u32) -> String {
    format!(
        "CREATE TABLE {table} AS \
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {pages}) \
         SELECT i, randomblob(3500) x FROM n"
    )
}

/// A generator whose stream never changes (SplitMix64).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

//! What every database must look like at each index of the log, from a state machine of its own to which the
//! committed entries are applied once and in order; and the tables that the simulation works on.

use bytes::Bytes;
use dqlite::db::{Database, DatabaseConnection, Fsm, Registry, Request, Status, Verdict};
use dqlite::raft::{Entry, EntryKind, Index};
use dqlite::sqlite::{self, Step, Value};
use dqlite::vfs::{Bug, Image, Vfs, VfsConnection};
use dqlite::wire::tuple::Params;
use std::collections::BTreeSet;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use tokio::sync::mpsc;

/// The databases.
pub const NAMES: [&str; 2] = ["one", "two"];

pub const ACCOUNTS: u64 = 6;
const TOTAL: i64 = 600;

/// Every row of `log` moves money between two accounts and is counted, in the same transaction.
const SETUP: &str = "
    BEGIN IMMEDIATE;
    CREATE TABLE log(value INTEGER NOT NULL, debtor INTEGER, creditor INTEGER, note BLOB);
    CREATE TABLE accounts(id INTEGER PRIMARY KEY, balance INTEGER NOT NULL);
    CREATE TABLE counter(n INTEGER NOT NULL);
    CREATE TABLE claims(key INTEGER PRIMARY KEY, value INTEGER);
    CREATE TABLE filler(data BLOB);
    CREATE TRIGGER moved AFTER INSERT ON log BEGIN
        UPDATE accounts SET balance = balance - 1 WHERE id = new.debtor;
        UPDATE accounts SET balance = balance + 1 WHERE id = new.creditor;
        UPDATE counter SET n = n + 1;
    END;
    INSERT INTO accounts VALUES (1, 100), (2, 100), (3, 100), (4, 100), (5, 100), (6, 100);
    INSERT INTO counter VALUES (0);
    COMMIT";

const OBSERVE: &[u8] = b"
    SELECT (SELECT count(*) FROM log), (SELECT n FROM counter), (SELECT sum(balance) FROM accounts),
        (SELECT coalesce(sum(value), 0) FROM log), (SELECT count(*) FROM claims),
        (SELECT coalesce(sum(length(data)), 0) FROM filler), (SELECT count(*) FROM sqlite_schema)";

/// What one statement sees of a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Observation {
    pub rows: i64,
    counter: i64,
    total: i64,
    pub values: i64,
    claims: i64,
    filler: i64,
    tables: i64,
}

impl Observation {
    /// None before the tables exist.
    pub fn make(connection: &VfsConnection) -> Result<Option<Observation>, String> {
        match connection.prepare(OBSERVE) {
            Ok(prepared) => Observation::step(&mut prepared.statement.expect("a statement")).map(Some),
            Err(error) if error.message.starts_with("no such table") => Ok(None),
            Err(error) => Err(format!("cannot look: {error}")),
        }
    }

    pub fn sql() -> &'static [u8] {
        OBSERVE
    }

    /// The row of the statement, which must be there.
    pub fn step(statement: &mut sqlite::Statement) -> Result<Observation, String> {
        match statement.step() {
            Ok(Step::Row) => {}
            Ok(Step::Done) => return Err("a look shows nothing".into()),
            Err(error) => return Err(format!("cannot look: {error}")),
        }
        let mut columns = [0; 7];
        for (number, column) in columns.iter_mut().enumerate() {
            *column = match statement.value(number) {
                Ok(Value::Integer(value)) => value,
                other => return Err(format!("column {number} is {other:?}")),
            };
        }
        let [rows, counter, total, values, claims, filler, tables] = columns;
        let seen = Observation { rows, counter, total, values, claims, filler, tables };
        if total != TOTAL || rows != counter {
            return Err(format!("a state that no transaction left: {seen:?}"));
        }
        Ok(seen)
    }
}

/// One database at one index.
#[derive(Debug, PartialEq, Eq, Default)]
pub struct State {
    /// Of all pages; 0 if it does not exist.
    pub hash: u64,
    pub seen: Option<Observation>,
}

/// Applies each committed entry once, and remembers what that made of the databases.
pub struct Reference {
    fsm: Fsm,
    readers: [Option<VfsConnection>; NAMES.len()],
    states: Vec<[Arc<State>; NAMES.len()]>,
    /// Everything that was ever committed.
    committed: [BTreeSet<Observation>; NAMES.len()],
    registry: Arc<Registry>,
}

impl Reference {
    pub fn new() -> Reference {
        let registry = new_registry(1000, None);
        Reference {
            fsm: Fsm::new(registry.clone()),
            readers: [const { None }; NAMES.len()],
            states: vec![Default::default()],
            committed: Default::default(),
            registry,
        }
    }

    /// The index of the newest entry.
    pub fn last(&self) -> Index {
        Index(self.states.len() as u64 - 1)
    }

    pub fn apply(&mut self, entry: &Entry) -> Result<(), String> {
        let newest = self.states.last().expect("the empty state is there");
        let mut state = newest.clone();
        if entry.kind == EntryKind::Command {
            self.fsm.apply(entry.payload.clone()).map_err(|e| format!("the reference: {e}"))?;
            for (number, state) in state.iter_mut().enumerate() {
                let Some(database) = self.registry.get(NAMES[number].as_bytes()) else { continue };
                let hash = hash_of(&database.vfs.capture());
                if hash == state.hash {
                    continue;
                }
                let reader = match &mut self.readers[number] {
                    Some(reader) => reader,
                    reader => reader.insert(connect(&self.registry, NAMES[number])),
                };
                let seen = Observation::make(reader)?;
                self.committed[number].extend(seen);
                *state = Arc::new(State { hash, seen });
            }
        }
        self.states.push(state);
        Ok(())
    }

    pub fn at(&self, index: Index, database: usize) -> &State {
        &self.states[index.0 as usize][database]
    }

    /// Whether a state that looks like this was ever committed.
    pub fn has(&self, database: usize, seen: &Observation) -> bool {
        self.committed[database].contains(seen)
    }

    /// The integers of a statement's first column, in the newest state.
    pub fn column(&self, database: usize, sql: &str) -> Vec<i64> {
        self.readers[database].as_ref().map_or(Vec::new(), |reader| column(reader, sql))
    }
}

/// A node's databases, with the defect if there is to be one.
pub fn new_registry(checkpoint_threshold: u32, bug: Option<Bug>) -> Arc<Registry> {
    #[allow(unused_mut)]
    let mut vfs = Vfs::register(checkpoint_threshold).expect("a VFS can be registered");
    #[cfg(feature = "planted-bugs")]
    if let Some(bug) = bug {
        vfs.plant(bug);
    }
    #[cfg(not(feature = "planted-bugs"))]
    let _ = bug;
    Arc::new(Registry::new(Arc::new(vfs), Arc::<Status>::default()))
}

pub fn connect(registry: &Registry, name: &str) -> VfsConnection {
    registry.vfs().connect(name).expect("the database exists")
}

pub fn column(connection: &VfsConnection, sql: &str) -> Vec<i64> {
    let mut statement =
        connection.prepare(sql.as_bytes()).expect("it compiles").statement.expect("it is one");
    let mut values = Vec::new();
    while statement.step().expect("it runs") == Step::Row {
        match statement.value(0).expect("there is a column") {
            Value::Integer(value) => values.push(value),
            other => panic!("{other:?} is not an integer"),
        }
    }
    values
}

/// Of all pages in order.
pub fn hash_of(image: &Image) -> u64 {
    let mut hash = image.pages.len() as u64;
    for page in &image.pages {
        let (words, _) = page.as_chunks::<8>();
        for word in words {
            hash = (hash ^ u64::from_le_bytes(*word)).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
        }
    }
    hash
}

/// The state of a server's database, to be compared with [`Reference::at`].
pub fn hash_of_database(database: Option<Arc<Database>>) -> u64 {
    database.map_or(0, |database| hash_of(&database.vfs.capture()))
}

/// The command that makes the tables of a database, as a leader proposes it.
pub fn setup_command(name: &str) -> Bytes {
    let registry = new_registry(1000, None);
    registry.status.begin_leading();
    registry.status.publish(true, u64::MAX);
    let (requests, mut proposed) = mpsc::unbounded_channel();
    let name = Bytes::copy_from_slice(name.as_bytes());
    let watch = Arc::new(|| Verdict::Waiting);
    let mut connection = DatabaseConnection::open(&registry, &requests, &name, watch).expect("it opens");
    let executed = pin!(connection.exec_sql(Bytes::from_static(SETUP.as_bytes()), Params::none()));
    let pending = executed.poll(&mut Context::from_waker(Waker::noop())).is_pending();
    assert!(pending, "nothing was committed");
    match proposed.try_recv().expect("a transaction was closed") {
        Request::Propose(proposal) => proposal.command,
        Request::Read { .. } => panic!("it may execute without asking"),
    }
}

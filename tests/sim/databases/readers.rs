//! Readers on every server, leader or not, at all times: what they see is exactly what is applied there, or
//! was when they began.

use super::reference::{NAMES, Observation, column};
use super::{Event, World, trace};
use bytes::Bytes;
use dqlite::db::{Database, Registry};
use dqlite::sqlite::{Statement, Step, Value};
use dqlite::vfs::VfsConnection;
use std::sync::Arc;

pub struct Reader {
    node: usize,
    connection: Option<Connection>,
}

/// Fields drop in this order.
struct Connection {
    /// Rows of `log` that are being read, and the sum so far.
    cursor: Option<(Statement, i64)>,
    /// What a transaction saw first, and when it shall end.
    open: Option<(Observation, u64)>,
    sqlite: Option<VfsConnection>,
    database: Arc<Database>,
    number: usize,
    registry: Arc<Registry>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.cursor = None;
        self.sqlite = None;
        self.registry.close(&self.database);
    }
}

impl Reader {
    pub fn new(node: usize) -> Reader {
        Reader { node, connection: None }
    }
}

impl Connection {
    fn open(registry: &Arc<Registry>, number: usize) -> Option<Connection> {
        let name = Bytes::from_static(NAMES[number].as_bytes());
        // Nobody but the log creates a database on a follower.
        registry.get(&name)?;
        let database = registry.open(&name).ok()?;
        let sqlite = registry.vfs().connect(&name).ok();
        // Without a cache it is the database that answers, each time.
        sqlite.as_ref()?.execute(b"PRAGMA cache_size = 1").ok()?;
        let registry = registry.clone();
        Some(Connection { cursor: None, open: None, sqlite, database, number, registry })
    }

    fn sqlite(&self) -> Result<&VfsConnection, String> {
        self.sqlite.as_ref().ok_or_else(|| "a reader cannot connect".into())
    }

    fn execute(&self, sql: &str) -> Result<(), String> {
        self.sqlite()?.execute(sql.as_bytes()).map_err(|e| format!("{sql}: {e}"))
    }

    /// Reads some rows. The sum of all of them when there are no more.
    fn read_on(&mut self, count: u64) -> Result<Option<i64>, String> {
        let Some((statement, sum)) = &mut self.cursor else { return Ok(None) };
        for _ in 0..count {
            match statement.step().map_err(|e| format!("a reader cannot read on: {e}"))? {
                Step::Done => return Ok(self.cursor.take().map(|(_, sum)| sum)),
                Step::Row => match statement.value(0) {
                    Ok(Value::Integer(value)) => *sum += value,
                    other => return Err(format!("a row of {other:?}")),
                },
            }
        }
        Ok(None)
    }
}

impl World {
    /// One reader does the next thing.
    pub(super) fn look(&mut self, number: usize) {
        let node = self.readers[number].node;
        let delay = self.delay((20, self.settings.held_us / 3));
        self.schedule(delay, Event::Reader { reader: number, node });
        let Some(running) = &self.servers[node].running else { return };
        let registry = running.registry.clone();
        let database = usize::from(self.random.permille(250));
        let reconnect = self.random.permille(30);
        let reader = &mut self.readers[number];
        if reader.connection.is_none() || reconnect {
            reader.connection = None;
            reader.connection = Connection::open(&registry, database);
        }
        let Some(mut connection) = reader.connection.take() else { return };
        let looked = match connection.open {
            None => self.begin_look(node, &mut connection),
            Some((seen, until)) => self.look_again(node, &mut connection, seen, until),
        };
        self.readers[number].connection = Some(connection);
        self.judge(looked.map_err(|why| format!("reader {number} on server {}: {why}", node + 1)));
    }

    fn begin_look(&mut self, node: usize, connection: &mut Connection) -> Result<(), String> {
        let applied = self.servers[node].running.as_ref().map(|running| running.applier.applied());
        let applied = applied.ok_or("it does not run")?;
        let holds = self.random.permille(300);
        if holds {
            connection.execute("BEGIN")?;
        }
        let seen = Observation::make(connection.sqlite()?)?;
        let expected = self.reference.at(applied, connection.number).seen;
        if seen != expected {
            return Err(format!("sees {seen:?} at index {applied}, not {expected:?}"));
        }
        self.summary.hash = self.summary.hash.rotate_left(1) ^ seen.map_or(0, |seen| seen.values as u64);
        self.count("look of a reader");
        if !holds {
            return Ok(());
        }
        let Some(seen) = seen else { return connection.execute("COMMIT") };
        let until = self.now + self.random.between(100, self.settings.held_us);
        connection.open = Some((seen, until));
        if self.random.permille(500) {
            let prepared =
                connection.sqlite()?.prepare(b"SELECT value FROM log").map_err(|e| e.to_string())?;
            connection.cursor = prepared.statement.map(|statement| (statement, 0));
        }
        Ok(())
    }

    fn look_again(
        &mut self,
        node: usize,
        connection: &mut Connection,
        seen: Observation,
        until: u64,
    ) -> Result<(), String> {
        self.count("look in an open read transaction");
        let again = Observation::make(connection.sqlite()?)?;
        if again != Some(seen) {
            return Err(format!("saw {seen:?}, and in the same transaction {again:?}"));
        }
        let ends = until <= self.now;
        let count = if ends { u64::MAX } else { self.random.between(1, 20) };
        if let Some(sum) = connection.read_on(count)?
            && sum != seen.values
        {
            return Err(format!("read rows with the sum {sum} of {seen:?}"));
        }
        if ends {
            trace!(self, "a reader of server {} ends its transaction", node + 1);
            connection.open = None;
            connection.execute("COMMIT")?;
        }
        Ok(())
    }

    /// Readers end with the process.
    pub(super) fn lose_readers(&mut self, node: usize) {
        for reader in self.readers.iter_mut().filter(|reader| reader.node == node) {
            reader.connection = None;
        }
    }

    /// What SQLite says of a server's database, and the rows of `log`.
    pub(super) fn inspect(&self, node: usize, number: usize) -> Result<Vec<i64>, String> {
        let running = self.servers[node].running.as_ref().ok_or("it does not run")?;
        let connection = Connection::open(&running.registry, number).ok_or("it lacks a database")?;
        let sqlite = connection.sqlite()?;
        let mut check = sqlite.prepare(b"PRAGMA integrity_check").map_err(|e| e.to_string())?;
        let check = check.statement.as_mut().ok_or("no statement")?;
        check.step().map_err(|e| e.to_string())?;
        match check.value(0) {
            Ok(Value::Text(b"ok")) => {}
            other => return Err(format!("integrity check: {other:?}")),
        }
        Ok(column(sqlite, "SELECT value FROM log"))
    }
}

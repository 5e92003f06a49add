//! Clients, each with a session on a server that believes to lead, and what they may be told. A session is
//! dropped when its client hangs up or leadership ends, as the gateway does.

use super::reference::{ACCOUNTS, NAMES, Observation};
use super::server::Owner;
use super::{Event, Fate, World, trace};
use bytes::Bytes;
use dqlite::db::{DatabaseConnection, Failure, Verdict};
use dqlite::raft::{Index, Term};
use dqlite::wire::failure;
use dqlite::wire::tuple::{Params, Value};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

const BUSY: u64 = 5;
const BUSY_SNAPSHOT: u64 = 517;
const CONSTRAINT: u64 = 19;
const ERROR: u64 = 1;
/// Keys that clients claim for themselves.
const KEYS: u64 = 200;
const PREPARED: &[u8] = b"INSERT INTO log VALUES (?1, ?2, ?3, zeroblob(50))";

#[derive(Default)]
pub struct Client {
    /// While it has a session.
    home: Option<Home>,
    /// The session, while no request runs.
    connection: Option<DatabaseConnection>,
    running: Option<Running>,
    transaction: Option<Transaction>,
    woken: Arc<Woken>,
    /// Its request will be looked at.
    scheduled: bool,
    /// Something of it was committed after the faults.
    pub served: bool,
}

#[derive(Clone, Copy)]
struct Home {
    node: usize,
    session: u64,
    /// The leadership that the session belongs to.
    period: u64,
    database: usize,
    prepared: Option<u32>,
    /// It will find out that leadership ended.
    notified: bool,
}

type Ended = (DatabaseConnection, Result<Reply, Failure>);

struct Running {
    number: u64,
    work: Work,
    future: Pin<Box<dyn Future<Output = Ended>>>,
    /// Rows of `log` that a client had been told of when this was asked.
    floor: i64,
    /// What became of it in the log.
    entries: Vec<(Index, Term)>,
}

/// A transaction of several requests.
struct Transaction {
    left: Vec<Step>,
    values: Vec<u64>,
    /// COMMIT was sent.
    committing: bool,
    /// What it saw before it wrote.
    seen: Option<Observation>,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Begin { immediate: bool },
    Look,
    Insert,
    Commit,
    Rollback,
}

/// What a request is for.
#[derive(Debug, Clone)]
enum Work {
    /// To have these in `log`, each in a transaction of its own.
    Insert(Vec<u64>),
    Claim(u64),
    Read,
    Prepare,
    /// Space that is taken and given back.
    Filler,
    Schema,
    /// It cannot succeed, or changes nothing.
    Nothing,
    Step(Step),
}

enum Reply {
    Done,
    Saw(Observation),
    Prepared(u32),
}

/// How a request is sent.
enum Call {
    Exec(String),
    /// Of a statement with rows; only looks have rows that matter.
    Query(String, bool),
    Prepare,
    Prepared(u32, [i64; 3]),
}

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Woken>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

async fn run(mut connection: DatabaseConnection, call: Call) -> Ended {
    let answer = match call {
        Call::Exec(sql) => connection.exec_sql(sql.into(), Params::none()).await.map(|_| Reply::Done),
        Call::Query(sql, look) => query(&mut connection, sql.as_bytes(), look).await,
        Call::Prepare => connection.prepare(PREPARED, false).await.map(|p| Reply::Prepared(p.id)),
        Call::Prepared(id, values) => {
            let params = Params::from_values(&values.map(Value::<Bytes>::Integer));
            connection.exec(id, params).await.map(|_| Reply::Done)
        }
    };
    (connection, answer)
}

/// As the gateway: what failed on the way is told only if the end is good.
async fn query(connection: &mut DatabaseConnection, sql: &[u8], look: bool) -> Result<Reply, Failure> {
    let mut query = connection.query_sql(sql, Params::none()).await?;
    let seen = match look {
        true => Observation::step(&mut query.statement).map(Reply::Saw),
        false => query.statement.step().map(|_| Reply::Done).map_err(|e| e.to_string()),
    };
    let failed = seen.as_ref().err().cloned();
    connection.end_query(query).await?;
    match (seen, failed) {
        (Ok(reply), _) => Ok(reply),
        (Err(_), text) => {
            let text = text.unwrap_or_default();
            let code = if text.contains("interrupted") { 9 } else { u64::MAX };
            Err(connection.explain(Failure { code, text: text.into() }))
        }
    }
}

impl World {
    /// After each event: those who were woken will be looked at, and those whose leadership ended find out.
    pub(super) fn wake(&mut self) {
        for number in 0..self.clients.len() {
            let client = &mut self.clients[number];
            let Some(home) = &mut client.home else { continue };
            let node = home.node;
            let registry = self.servers[node].running.as_ref().map(|running| &running.registry);
            let ended = registry.is_some_and(|registry| registry.status.current_period() != home.period);
            let session = home.session;
            if ended && client.running.is_none() && !std::mem::replace(&mut home.notified, true) {
                let delay = self.delay((0, 3000));
                self.schedule(delay, Event::PeriodEnded { client: number, node, session });
            }
            let client = &mut self.clients[number];
            if client.running.is_some() && !client.scheduled && client.woken.0.swap(false, Ordering::Relaxed)
            {
                client.scheduled = true;
                let late = self.random.permille(10);
                let delay = if late { self.delay((100, 10_000)) } else { self.delay((1, 60)) };
                self.schedule(delay, Event::Poll { client: number, node });
            }
        }
        for node in 0..self.servers.len() {
            self.take_later(node);
        }
    }

    /// A client that waits for nothing does something.
    pub(super) fn client(&mut self, number: usize) {
        let client = &self.clients[number];
        if client.running.is_some() || (self.recovering && client.served && client.transaction.is_none()) {
            return;
        }
        if let Some(home) = client.home
            && self.period_of(home.node) != Some(home.period)
        {
            self.abandon(number);
        }
        if self.clients[number].home.is_none() && !self.open_session(number) {
            let delay = self.delay((1000, 30_000));
            return self.schedule(delay, Event::Client { client: number });
        }
        let work = self.next_work(number);
        self.request(number, work);
    }

    fn period_of(&self, node: usize) -> Option<u64> {
        self.servers[node].running.as_ref().map(|running| running.registry.status.current_period())
    }

    fn open_session(&mut self, number: usize) -> bool {
        let leaders = self.leaders();
        if leaders.is_empty() {
            return false;
        }
        let node = self.random.one_of(&leaders);
        if self.servers[node].paused_until > self.now {
            return false;
        }
        let database = usize::from(self.random.permille(250));
        let session = self.number();
        let running = self.servers[node].running.as_ref().expect("a leader runs");
        let (registry, requests) = (&running.registry, &running.requests);
        let watch = Arc::new(|| Verdict::Waiting);
        let name = Bytes::from_static(NAMES[database].as_bytes());
        match DatabaseConnection::open(registry, requests, &name, watch) {
            Ok(connection) => {
                let period = registry.status.current_period();
                let home = Home { node, session, period, database, prepared: None, notified: false };
                (self.clients[number].home, self.clients[number].connection) = (Some(home), Some(connection));
                true
            }
            Err(failure) => {
                self.fail(format!("cannot open: {failure:?}"));
                false
            }
        }
    }

    fn next_work(&mut self, number: usize) -> Work {
        if let Some(transaction) = &mut self.clients[number].transaction {
            return Work::Step(transaction.left.remove(0));
        }
        if self.random.permille(self.settings.interactive) && !self.recovering {
            let immediate = self.random.permille(600);
            let mut left = vec![Step::Begin { immediate }];
            for _ in 0..self.random.between(0, 3) {
                left.push(self.random.one_of(&[Step::Look, Step::Insert, Step::Insert]));
            }
            left.push(if self.random.permille(800) { Step::Commit } else { Step::Rollback });
            let first = left.remove(0);
            self.clients[number].transaction =
                Some(Transaction { left, values: Vec::new(), committing: false, seen: None });
            return Work::Step(first);
        }
        match self.random.between(0, if self.recovering { 49 } else { 99 }) {
            0..=49 => {
                let count = if self.random.permille(150) && !self.recovering { 2 } else { 1 };
                Work::Insert((0..count).map(|_| self.number()).collect())
            }
            50..=64 => Work::Claim(self.random.between(1, KEYS)),
            65..=84 => Work::Read,
            85..=87 => Work::Prepare,
            88..=91 => Work::Filler,
            92..=94 => Work::Schema,
            _ => Work::Nothing,
        }
    }

    fn insert_sql(&mut self, value: u64) -> String {
        let (debtor, creditor) = (self.random.between(1, ACCOUNTS), self.random.between(1, ACCOUNTS));
        let note = if self.random.permille(20) { self.random.between(1000, 40_000) } else { 20 };
        format!("INSERT INTO log VALUES ({value}, {debtor}, {creditor}, zeroblob({note}))")
    }

    fn call(&mut self, home: Home, work: &Work) -> Call {
        match work {
            Work::Insert(values) => {
                let statements: Vec<String> = values.iter().map(|value| self.insert_sql(*value)).collect();
                let sql = statements.join("; ");
                match home.prepared {
                    Some(id) if values.len() == 1 && self.random.permille(700) => {
                        Call::Prepared(id, [values[0] as i64, 1, 2])
                    }
                    _ if values.len() == 1 && self.random.permille(100) => {
                        Call::Query(sql + " RETURNING value", false)
                    }
                    _ => Call::Exec(sql),
                }
            }
            Work::Claim(key) => Call::Exec(format!("INSERT INTO claims VALUES ({key}, {})", home.session)),
            Work::Read | Work::Step(Step::Look) => {
                Call::Query(String::from_utf8_lossy(Observation::sql()).into_owned(), true)
            }
            Work::Prepare => Call::Prepare,
            Work::Filler => Call::Exec(match self.random.between(0, 3) {
                0 => "DELETE FROM filler".into(),
                1 => "VACUUM".into(),
                _ => format!("INSERT INTO filler VALUES (zeroblob({}))", self.random.between(1, 60_000)),
            }),
            Work::Schema => {
                let table = self.random.between(1, 3);
                Call::Exec(match self.random.between(0, 2) {
                    0 => format!("DROP TABLE extra{table}"),
                    1 => format!("ALTER TABLE extra{table} ADD COLUMN c{}", self.number()),
                    _ => format!("CREATE TABLE extra{table}(a UNIQUE, b DEFAULT {})", self.number()),
                })
            }
            Work::Nothing => Call::Exec(match self.random.permille(500) {
                true => "INSERT INTO log VALUES (NULL, 1, 2, NULL)".into(),
                false => "UPDATE accounts SET balance = 0 WHERE id > 1000".into(),
            }),
            Work::Step(Step::Insert) => {
                let value = self.number();
                self.fates[home.database].insert(value, Fate::Unknown);
                Call::Exec(self.insert_sql(value))
            }
            Work::Step(Step::Begin { immediate }) => {
                Call::Exec(if *immediate { "BEGIN IMMEDIATE" } else { "BEGIN" }.into())
            }
            Work::Step(Step::Commit) => Call::Exec("COMMIT".into()),
            Work::Step(Step::Rollback) => Call::Exec("ROLLBACK".into()),
        }
    }

    fn request(&mut self, number: usize, work: Work) {
        let Some(home) = self.clients[number].home else { return };
        let value = self.next_number + 1;
        let call = self.call(home, &work);
        if let Work::Insert(values) = &work {
            self.fates[home.database].extend(values.iter().map(|value| (*value, Fate::Unknown)));
        }
        if let (Work::Step(step), Some(transaction)) = (&work, &mut self.clients[number].transaction) {
            transaction.committing = matches!(step, Step::Commit);
            if matches!(step, Step::Insert) {
                transaction.values.push(value);
            }
        }
        let request = self.number();
        trace!(self, "client {number} asks server {} ({request}): {work:?}", home.node + 1);
        let floor = self.told[home.database];
        let client = &mut self.clients[number];
        let connection = client.connection.take().expect("an idle client with a home has a session");
        let future = Box::pin(run(connection, call));
        client.running = Some(Running { number: request, work, future, floor, entries: Vec::new() });
        if self.random.permille(25) && !self.recovering {
            let longest = self.random.one_of(&[200, 3000, 30_000]);
            let delay = self.delay((1, longest));
            self.schedule(delay, Event::HangUp { client: number, request });
        }
        if self.servers[home.node].paused_until > self.now {
            self.clients[number].scheduled = true;
            self.schedule(1, Event::Poll { client: number, node: home.node });
        } else {
            self.poll(number);
        }
    }

    /// Lets a request go on.
    pub(super) fn poll(&mut self, number: usize) {
        self.clients[number].scheduled = false;
        let Some(Home { node, .. }) = self.clients[number].home else { return };
        if self.servers[node].running.is_none() {
            return;
        }
        self.publish_status(node);
        let client = &mut self.clients[number];
        let Some(request) = &mut client.running else { return };
        let server = self.servers[node].running.as_mut().expect("it was there");
        let before = server.queued();
        let waker = Waker::from(client.woken.clone());
        let polled = {
            let _guard = self.runtime.enter();
            request.future.as_mut().poll(&mut Context::from_waker(&waker))
        };
        server.note_owner(before, Owner { client: number, request: request.number });
        if let Poll::Ready((connection, answer)) = polled {
            self.answered(number, connection, answer);
        }
    }

    /// The log has something of a request.
    pub(super) fn note_entry(&mut self, owner: Owner, index: Index, term: Term) {
        if let Some(running) = &mut self.clients[owner.client].running
            && running.number == owner.request
        {
            running.entries.push((index, term));
        }
    }

    fn answered(&mut self, number: usize, connection: DatabaseConnection, answer: Result<Reply, Failure>) {
        let client = &mut self.clients[number];
        let (Some(home), Some(running)) = (client.home, client.running.take()) else { return };
        client.connection = Some(connection);
        let code = answer.as_ref().err().map_or(0, |failure| failure.code);
        trace!(self, "client {number} is answered ({}): {:?}", running.number, answer.as_ref().err());
        self.mix(code.wrapping_add(running.number << 20));
        match answer {
            Ok(reply) => self.succeeded(number, home, &running, reply),
            Err(failure) => self.failed(number, home, &running, failure),
        }
        let client = &mut self.clients[number];
        if client.transaction.as_ref().is_some_and(|transaction| transaction.left.is_empty()) {
            client.transaction = None;
        }
        let delay = self.delay(self.settings.think_us);
        self.schedule(delay, Event::Client { client: number });
    }

    fn succeeded(&mut self, number: usize, home: Home, running: &Running, reply: Reply) {
        for (index, term) in &running.entries {
            self.check_durable(*index, *term);
            if self.failure.is_some() {
                return;
            }
            let rows = self.reference.at(*index, home.database).seen.map_or(0, |seen| seen.rows);
            self.told[home.database] = self.told[home.database].max(rows);
        }
        if !running.entries.is_empty() {
            self.count("transaction acknowledged");
            self.clients[number].served |= self.recovering;
        }
        match (&running.work, reply) {
            (Work::Insert(values), _) => self.decide(home.database, values, Fate::Acknowledged),
            (Work::Step(Step::Commit), _) => {
                let values = self.clients[number].transaction.as_ref().map(|t| t.values.clone());
                self.decide(home.database, &values.unwrap_or_default(), Fate::Acknowledged);
            }
            (Work::Step(Step::Rollback), _) => self.refuse_transaction(number),
            (Work::Claim(key), _) => self.check_claimed(home.database, *key),
            (Work::Read, Reply::Saw(seen)) => self.check_read(home.database, running.floor, &seen),
            (Work::Step(Step::Look), Reply::Saw(seen)) => self.check_look(number, home.database, seen),
            (_, Reply::Prepared(id)) => {
                if let Some(home) = &mut self.clients[number].home {
                    home.prepared = Some(id);
                }
            }
            _ => {}
        }
    }

    /// An answer never precedes its durability on a majority.
    fn check_durable(&mut self, index: Index, term: Term) {
        let voters = self.settings.nodes - usize::from(self.settings.standby);
        let holders = self.servers[..voters].iter().filter(|server| server.disk.holds(index.0, term)).count();
        if holders <= voters / 2 {
            self.fail(format!("answered when {holders} of {voters} voters had entry {index} of term {term}"));
        } else if self.reference.last() < index {
            self.fail(format!("answered before entry {index} of term {term} was committed"));
        }
    }

    fn check_read(&mut self, database: usize, floor: i64, seen: &Observation) {
        self.count("read");
        if !self.reference.has(database, seen) {
            return self.fail(format!("a client read what was never committed: {seen:?}"));
        }
        if seen.rows < floor {
            return self.fail(format!("stale: a client had been told of {floor} rows, and read {seen:?}"));
        }
        self.told[database] = self.told[database].max(seen.rows);
    }

    /// In a transaction that has not written, everything that it sees is committed, and the same.
    fn check_look(&mut self, number: usize, database: usize, seen: Observation) {
        let Some(transaction) = &mut self.clients[number].transaction else { return };
        if !transaction.values.is_empty() {
            return;
        }
        let first = *transaction.seen.get_or_insert(seen);
        if !self.reference.has(database, &seen) {
            self.fail(format!("a transaction saw what was never committed: {seen:?}"));
        } else if first != seen {
            self.fail(format!("a transaction saw {first:?} and then {seen:?}"));
        }
    }

    /// Whoever is told that a key is taken, or is its own, is told so by a committed state.
    fn check_claimed(&mut self, database: usize, key: u64) {
        let sql = format!("SELECT count(*) FROM claims WHERE key = {key}");
        if self.reference.column(database, &sql) != [1] {
            self.fail(format!("a client was told that key {key} is taken, and nobody has it"));
        }
    }

    fn failed(&mut self, number: usize, home: Home, running: &Running, failure: Failure) {
        let Failure { code, text } = &failure;
        let fate = match *code {
            failure::CODE_NOT_LEADER => Fate::Refused,
            failure::CODE_LEADERSHIP_LOST => Fate::Unknown,
            BUSY | BUSY_SNAPSHOT | 13 => Fate::Refused,
            code if code & 0xff == CONSTRAINT => Fate::Refused,
            ERROR if matches!(running.work, Work::Schema) => Fate::Refused,
            _ => return self.fail(format!("{:?} was answered with {code}: {text}", running.work)),
        };
        self.count(match *code {
            failure::CODE_NOT_LEADER => "refused: not leader",
            failure::CODE_LEADERSHIP_LOST => "leadership lost",
            BUSY | BUSY_SNAPSHOT => "refused: busy",
            13 => "refused: disk full",
            _ => "refused: the statement failed",
        });
        match &running.work {
            Work::Claim(key) if code & 0xff == CONSTRAINT => self.check_claimed(home.database, *key),
            // Of several transactions an earlier one may have been committed.
            Work::Insert(values) if values.len() == 1 || *code == failure::CODE_NOT_LEADER => {
                self.decide(home.database, values, fate);
            }
            Work::Step(Step::Commit) if fate == Fate::Unknown || *code & 0xff == BUSY => {
                // It was sent, and the session goes.
                self.clients[number].transaction = None;
                self.abandon(number);
            }
            Work::Step(_) => self.abandon(number),
            _ => {}
        }
        if fate == Fate::Unknown || *code == failure::CODE_NOT_LEADER {
            self.abandon(number);
        }
    }

    fn decide(&mut self, database: usize, values: &[u64], fate: Fate) {
        for value in values {
            self.fates[database].insert(*value, fate);
        }
    }

    /// What an open transaction wrote never happened.
    fn refuse_transaction(&mut self, number: usize) {
        let client = &mut self.clients[number];
        if let (Some(home), Some(transaction)) = (client.home, client.transaction.take()) {
            self.decide(home.database, &transaction.values, Fate::Refused);
        }
    }

    /// A client gives its session up. Of a request that runs it learns nothing.
    pub(super) fn abandon(&mut self, number: usize) {
        let client = &mut self.clients[number];
        let unknown = client.running.is_some() && client.transaction.as_ref().is_some_and(|t| t.committing);
        if unknown {
            client.transaction = None;
        }
        self.refuse_transaction(number);
        let client = &mut self.clients[number];
        client.running = None;
        client.connection = None;
        client.home = None;
    }

    pub(super) fn hang_up(&mut self, number: usize, request: u64) {
        if self.clients[number].running.as_ref().is_some_and(|running| running.number == request) {
            trace!(self, "client {number} hangs up ({request})");
            self.count("client hung up");
            self.abandon(number);
            let delay = self.delay(self.settings.think_us);
            self.schedule(delay, Event::Client { client: number });
        }
    }

    /// The session of a client that sends nothing notices that leadership ended.
    pub(super) fn period_ended(&mut self, number: usize, session: u64) {
        let client = &self.clients[number];
        if client.running.is_none() && client.home.is_some_and(|home| home.session == session) {
            if client.transaction.is_some() {
                self.count("transaction open when leadership ended");
            }
            self.abandon(number);
        }
    }

    /// All sessions on a server end with its process.
    pub(super) fn lose_sessions(&mut self, node: usize) {
        for number in 0..self.clients.len() {
            let client = &self.clients[number];
            if client.home.is_some_and(|home| home.node == node) {
                let busy = client.running.is_some();
                self.abandon(number);
                if busy {
                    let delay = self.delay((1000, 20_000));
                    self.schedule(delay, Event::Client { client: number });
                }
            }
        }
    }

    /// Whether nobody waits for anything.
    pub(super) fn clients_are_done(&self) -> bool {
        self.clients.iter().all(|client| client.running.is_none() && client.served)
    }
}

//! The SQLite connection of one client: prepared statements, transactions, and the way of a write from the
//! lane over the speculative view to the log.
//!
//! A write statement goes through [`DatabaseConnection::enter`] (lane, speculative view), its steps,
//! [`DatabaseConnection::propose`] (the transaction it closed goes to Raft while the lane is still held, so
//! that the log has the order of execution), [`DatabaseConnection::leave`] (lane passed on), and
//! [`DatabaseConnection::settle`] (nothing computed on the speculative view is answered before what it was
//! computed from is committed).

use super::budget::{Budget, ClientWatch};
use super::lane::LaneGuard;
use super::query::Query;
use super::registry::{Database, Registry};
use super::{CANTOPEN, Failure, INTERRUPT, Proposal, Refused, Request, command};
use crate::config::{PIPELINE_BYTES_MAX, PIPELINE_TRANSACTIONS_MAX};
use crate::sqlite::{self, Statement, Step, TransactionState};
use crate::vfs::{Bug, VfsConnection, View};
use crate::wire::failure;
use crate::wire::response::ExecResult;
use crate::wire::tuple::{Params, Value};
use bytes::Bytes;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// A statement that PREPARE registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prepared {
    /// Its id.
    pub id: u32,
    /// `sqlite3_bind_parameter_count`.
    pub parameters: u64,
    /// Where the text after the statement begins.
    pub tail_offset: usize,
}

/// What the answer to the current request has to wait for.
#[derive(Default)]
struct Gate {
    /// The newest transaction that existed when the speculative view was entered.
    base: Option<u64>,
    /// Nobody has confirmed yet that this node still led then. The commit of an own transaction does.
    unconfirmed: bool,
    /// The outcome of the newest transaction of this request.
    own: Option<oneshot::Receiver<Result<(), Refused>>>,
    /// Transactions of this request.
    proposals: usize,
}

/// See the module documentation. Fields drop in the order that rolls back before the lane is passed on.
pub struct DatabaseConnection {
    statements: Vec<Option<Statement>>,
    sqlite: Option<VfsConnection>,
    lane: Option<LaneGuard>,
    database: Arc<Database>,
    registry: Arc<Registry>,
    requests: mpsc::UnboundedSender<Request>,
    budget: Arc<Budget>,
    /// [`Database::void_count`] when the lane was entered.
    void_count: u64,
    gate: Gate,
    /// Within this request it was made sure that the committed view may be read.
    confirmed: bool,
}

impl Drop for DatabaseConnection {
    fn drop(&mut self) {
        self.statements.clear();
        // Closing rolls back, which releases SQLite's write lock.
        self.sqlite = None;
        self.pass_lane();
        self.registry.close(&self.database);
    }
}

impl DatabaseConnection {
    /// Opens a database, creating it if needed.
    pub fn open(
        registry: &Arc<Registry>,
        requests: &mpsc::UnboundedSender<Request>,
        name: &Bytes,
        watch: ClientWatch,
    ) -> Result<DatabaseConnection, Failure> {
        check_name(name)?;
        let database = registry.open(name)?;
        let mut connection = DatabaseConnection {
            statements: Vec::new(),
            sqlite: None,
            lane: None,
            database: database.clone(),
            registry: registry.clone(),
            requests: requests.clone(),
            budget: Arc::new(Budget::new(registry.status.clone(), registry.turns.clone(), watch)),
            void_count: database.void_count(),
            gate: Gate::default(),
            confirmed: false,
        };
        // From here on a failure drops the connection, which closes the database in the registry.
        let sqlite = registry.vfs().connect(name)?;
        let budget = connection.budget.clone();
        sqlite.set_progress_hook(crate::config::PROGRESS_OPCODES, move || budget.check());
        connection.sqlite = Some(sqlite);
        Ok(connection)
    }

    /// No statement computes until the next request, or until rows go on.
    pub fn rest(&self) {
        self.budget.rest();
    }

    fn sqlite(&self) -> Result<&VfsConnection, Failure> {
        self.sqlite.as_ref().ok_or_else(|| failure::NO_DATABASE.into())
    }

    /// PREPARE. Without `allow_tail` a second statement in the text is refused.
    pub async fn prepare(&mut self, sql: &[u8], allow_tail: bool) -> Result<Prepared, Failure> {
        self.begin_request();
        self.confirm_read().await?;
        self.budget.restart();
        let (statement, tail_offset) = self.compile_first(sql)?;
        let statement = statement.ok_or(failure::EMPTY_STATEMENT)?;
        if !allow_tail && self.has_statement(&sql[tail_offset..]) {
            return Err(failure::NONEMPTY_TAIL.into());
        }
        let parameters = statement.parameter_count() as u64;
        let id = match self.statements.iter().position(Option::is_none) {
            Some(free) => free,
            None => {
                self.statements.push(None);
                self.statements.len() - 1
            }
        };
        self.statements[id] = Some(statement);
        Ok(Prepared { id: id as u32, parameters, tail_offset })
    }

    /// FINALIZE.
    pub fn finalize(&mut self, id: u32) -> Result<(), Failure> {
        self.take_statement(id).map(drop)
    }

    /// EXEC.
    pub async fn exec(&mut self, id: u32, mut params: Params) -> Result<ExecResult, Failure> {
        self.begin_request();
        let mut statement = self.take_statement(id)?;
        let outcome = self.exec_statement(&mut statement, &mut params).await;
        self.statements[id as usize] = Some(statement);
        self.finish(outcome).await
    }

    /// EXEC_SQL: every statement of the text, with one list of parameters consumed from left to right.
    pub async fn exec_sql(&mut self, sql: Bytes, params: Params) -> Result<ExecResult, Failure> {
        self.begin_request();
        // SQLite copies a text without a NUL at its end, here once for each statement that is in it.
        let text = [&sql[..], &[0]].concat();
        let outcome = self.exec_all(&text, params).await;
        self.finish(outcome).await
    }

    async fn exec_all(&mut self, mut sql: &[u8], mut params: Params) -> Result<(), Failure> {
        loop {
            let (statement, tail_offset) = self.compile_confirmed(sql).await?;
            match statement {
                Some(mut statement) => self.exec_statement(&mut statement, &mut params).await?,
                None => return Ok(()),
            }
            sql = &sql[tail_offset..];
        }
    }

    /// QUERY: returns the running statement; rows are taken from it, then [`DatabaseConnection::end_query`].
    pub async fn query(&mut self, id: u32, params: Params) -> Result<Query, Failure> {
        self.begin_request();
        let statement = self.take_statement(id)?;
        self.begin_query(Query::new(statement, Some(id as usize)), params).await
    }

    /// QUERY_SQL: exactly one statement.
    pub async fn query_sql(&mut self, sql: &[u8], params: Params) -> Result<Query, Failure> {
        self.begin_request();
        let (statement, tail_offset) = self.compile_confirmed(sql).await?;
        let statement = statement.ok_or(failure::EMPTY_STATEMENT)?;
        if self.has_statement(&sql[tail_offset..]) {
            return Err(failure::NONEMPTY_TAIL.into());
        }
        self.begin_query(Query::new(statement, None), params).await
    }

    async fn begin_query(&mut self, mut query: Query, mut params: Params) -> Result<Query, Failure> {
        let bound = bind(&mut query.statement, &mut params).and_then(|()| match params.len() {
            0 => Ok(()),
            _ => Err(failure::BIND_PARAMETERS.into()),
        });
        let entered = match bound {
            Ok(()) => self.enter(query.writes).await,
            Err(failure) => Err(failure),
        };
        match entered {
            Ok(()) => {
                self.budget.restart();
                Ok(query)
            }
            Err(failure) => {
                self.end_query(query).await?;
                Err(failure)
            }
        }
    }

    /// The client took what there was, and the query goes on. What it has been given by then must stand.
    pub async fn resume_query(&mut self) -> Result<(), Failure> {
        self.settle_base().await?;
        self.budget.restart();
        Ok(())
    }

    /// Ends a query, complete or not, and waits for what it wrote.
    pub async fn end_query(&mut self, mut query: Query) -> Result<(), Failure> {
        query.statement.reset();
        query.statement.clear_bindings();
        if let Some(slot) = query.slot {
            self.statements[slot] = Some(query.statement);
        } else {
            drop(query.statement);
        }
        self.propose();
        self.leave()?;
        self.settle().await
    }

    async fn finish(&mut self, outcome: Result<(), Failure>) -> Result<ExecResult, Failure> {
        let sqlite = self.sqlite()?;
        let (last_insert_id, rows_affected) = (sqlite.last_insert_rowid(), sqlite.changes());
        let proposals = self.gate.proposals;
        self.leave()?;
        self.settle().await?;
        match outcome {
            Ok(()) => Ok(ExecResult { last_insert_id, rows_affected }),
            // What the same request wrote before stands.
            Err(failure) if proposals > 0 && self.was_cut_off(&failure) => {
                Err(Refused::LeadershipLost.into())
            }
            Err(failure) => Err(self.explain(failure)),
        }
    }

    /// What a client is told of a failure: a statement that was stopped because leadership ended did not fail
    /// for a reason of its own, and can be repeated elsewhere.
    pub fn explain(&self, failure: Failure) -> Failure {
        if self.was_cut_off(&failure) { Refused::NotLeader.into() } else { failure }
    }

    fn was_cut_off(&self, failure: &Failure) -> bool {
        failure.code == INTERRUPT && self.budget.leadership_ended()
    }

    async fn exec_statement(
        &mut self,
        statement: &mut Statement,
        params: &mut Params,
    ) -> Result<(), Failure> {
        bind(statement, params)?;
        let writes = statement.writes();
        self.enter(writes).await?;
        self.budget.restart();
        let outcome = if writes && statement.column_count() > 0 {
            self.step_undoing_rows(statement)
        } else {
            step_to_done(statement)
        };
        statement.clear_bindings();
        self.propose();
        outcome
    }

    /// A statement with RETURNING has made all its changes before its first row, and resetting it would keep
    /// them. EXEC must leave nothing behind when it fails for the row, hence the savepoint.
    fn step_undoing_rows(&self, statement: &mut Statement) -> Result<(), Failure> {
        self.sqlite()?.execute(b"SAVEPOINT dqlite_exec")?;
        let outcome = step_to_done(statement);
        if outcome.is_err() && !self.sqlite()?.autocommit() {
            self.sqlite()?.execute(b"ROLLBACK TO dqlite_exec")?;
        }
        if !self.sqlite()?.autocommit() {
            self.sqlite()?.execute(b"RELEASE dqlite_exec")?;
        }
        outcome
    }

    /// Before a statement runs. A write needs the lane and the speculative view, unless an open transaction
    /// of this connection has them already.
    async fn enter(&mut self, writes: bool) -> Result<(), Failure> {
        if let Some(lane) = &self.lane {
            lane.resume_transaction();
            return Ok(());
        }
        if !writes {
            return self.confirm_read().await;
        }
        let database = self.database.clone();
        let lane = database.lane.acquire(self.registry.status.busy_timeout()).await;
        let lane = lane.map_err(|_| failure::DATABASE_LOCKED)?;
        if self.budget.leadership_ended() {
            // This node may lead again, but the session is to begin anew: see the gateway.
            return Err(Refused::NotLeader.into());
        }
        if self.registry.status.is_space_low() {
            return Err(failure::DISK_FULL.into());
        }
        if !self.registry.status.is_ready() {
            self.confirm().await?;
        }
        self.void_count = database.begin_writing()?;
        let base = database.proposed();
        let upgrade = self.sqlite()?.transaction_state() == TransactionState::Read;
        let admitted = |published: u64| {
            // A transaction that has read the committed view may write only if nothing is speculative.
            let pipeline = database.vfs.pipeline();
            let room = pipeline.count < PIPELINE_TRANSACTIONS_MAX && pipeline.bytes < PIPELINE_BYTES_MAX;
            if upgrade { published == base } else { room }
        };
        database.wait_published(self.void_count, admitted).await?;
        self.lane = Some(lane);
        self.budget.set_urgent(true);
        if upgrade {
            self.sqlite()?.grant_permit();
        } else {
            self.sqlite()?.set_view(View::Speculative)?;
        }
        self.gate.base = Some(base);
        self.gate.unconfirmed = !self.confirmed && !self.registry.status.has_lease();
        Ok(())
    }

    /// Before a statement that reads the committed view: it must be as new as anything a client was ever
    /// told. Within a read transaction the view is fixed already.
    async fn confirm_read(&mut self) -> Result<(), Failure> {
        self.show_committed()?;
        if self.database.vfs.has(Bug::ReadUnconfirmed) {
            return Ok(());
        }
        let begins = self.sqlite()?.transaction_state() == TransactionState::None;
        if begins && !self.confirmed && !self.registry.status.has_lease() {
            self.confirm().await?;
        }
        self.confirmed = true;
        Ok(())
    }

    fn begin_request(&mut self) {
        self.confirmed = false;
    }

    async fn confirm(&mut self) -> Result<(), Failure> {
        let place = self.registry.read_place().await;
        let (done, confirmed) = oneshot::channel();
        // As with proposals: the outcome reports a node that has stopped.
        let _ = self.requests.send(Request::Read { done, place });
        // Whatever the reason: nothing of this request is in any log.
        confirmed.await.unwrap_or(Err(Refused::NotLeader)).map_err(|_| Refused::NotLeader)?;
        self.confirmed = true;
        Ok(())
    }

    /// After a statement ran: the transaction it closed, if any, goes to the log in the order of execution.
    /// Never waits: a session that went away in between would leave a transaction that nobody publishes.
    fn propose(&mut self) {
        if self.lane.is_none() {
            return;
        }
        // One step may close several: PRAGMA optimize commits after each table.
        while let Some(transaction) = self.database.vfs.take_transaction() {
            let (done, outcome) = oneshot::channel();
            let proposal = Proposal {
                database: self.database.clone(),
                transaction: transaction.id,
                void_count: self.void_count,
                command: command::encode_frames(&self.database.name, &transaction.pages),
                done,
            };
            self.database.note_proposed(transaction.id);
            self.gate.own = Some(outcome);
            self.gate.proposals += 1;
            // The queue is closed only once the node has stopped; then the outcome reports it.
            let _ = self.requests.send(Request::Propose(proposal));
        }
    }

    /// After the last statement of a request: without an open write transaction the lane goes to the next
    /// one.
    fn leave(&mut self) -> Result<(), Failure> {
        let Some(lane) = &self.lane else { return Ok(()) };
        let sqlite = self.sqlite()?;
        match sqlite.transaction_state() {
            TransactionState::Write => {
                lane.keep_for_transaction();
                return Ok(());
            }
            // The view stays until somebody reads: a session that only writes never has it mapped anew.
            TransactionState::Read | TransactionState::None => sqlite.revoke_permit(),
        }
        self.pass_lane();
        Ok(())
    }

    /// Before anything reads, the schema included: without the lane nobody may see what is speculative.
    fn show_committed(&mut self) -> Result<(), Failure> {
        let sqlite = self.sqlite()?;
        let keeps = self.lane.is_some() || sqlite.view() == View::Committed;
        if keeps || sqlite.transaction_state() != TransactionState::None {
            return Ok(());
        }
        if let Err(error) = sqlite.set_view(View::Committed) {
            // A connection that cannot be taken off the speculative view must not read again.
            self.statements.clear();
            self.sqlite = None;
            return Err(error.into());
        }
        Ok(())
    }

    fn pass_lane(&mut self) {
        if self.lane.is_some() {
            self.database.end_writing(self.void_count);
        }
        self.budget.set_urgent(false);
        self.lane = None;
    }

    /// Waits until everything that the answer depends on is committed and visible.
    async fn settle(&mut self) -> Result<(), Failure> {
        let gate = std::mem::take(&mut self.gate);
        let Some(own) = gate.own else {
            self.gate = gate;
            return self.settle_base().await;
        };
        match own.await.unwrap_or(Err(Refused::LeadershipLost)) {
            Ok(()) => Ok(()),
            // An earlier transaction of the same request may have been committed.
            Err(Refused::NotLeader) if gate.proposals > 1 => Err(Refused::LeadershipLost.into()),
            Err(refused) => Err(refused.into()),
        }
    }

    async fn settle_base(&mut self) -> Result<(), Failure> {
        if self.database.vfs.has(Bug::AnswerIgnoresBase) {
            self.gate = Gate::default();
        }
        if let Some(base) = self.gate.base.take() {
            self.database.wait_published(self.void_count, |published| published >= base).await?;
        }
        // A failure, or a change of no rows, tells as much about the database as rows do.
        if std::mem::take(&mut self.gate.unconfirmed) {
            self.confirm().await?;
        }
        Ok(())
    }

    fn take_statement(&mut self, id: u32) -> Result<Statement, Failure> {
        let slot = self.statements.get_mut(id as usize);
        slot.and_then(Option::take).ok_or_else(|| failure::NO_STATEMENT.into())
    }

    /// Compiles the first statement of a text. One that writes is confirmed by its commit, one that reads
    /// before it runs, and one that does not compile before the client is told so: the schema may be newer
    /// elsewhere. With the lane, what was executed before is confirmed together with it.
    async fn compile_confirmed(&mut self, sql: &[u8]) -> Result<(Option<Statement>, usize), Failure> {
        self.budget.restart();
        self.show_committed()?;
        let compiled = self.compile_first(sql);
        if compiled.is_ok() || self.confirmed || self.lane.is_some() {
            return compiled;
        }
        self.confirm_read().await?;
        self.compile_first(sql)
    }

    /// Compiles the first statement of a text, if it has one, skipping what compiles to nothing before it.
    fn compile_first(&self, sql: &[u8]) -> Result<(Option<Statement>, usize), Failure> {
        let mut offset = 0;
        loop {
            let prepared = self.sqlite()?.prepare(&sql[offset..])?;
            let tail = offset + prepared.tail_offset;
            match prepared.statement {
                Some(statement) => return Ok((Some(statement), tail)),
                None if tail == offset || tail >= sql.len() => return Ok((None, sql.len())),
                None => offset = tail,
            }
        }
    }

    /// Whether a statement, or something that fails to compile, is in the text.
    fn has_statement(&self, sql: &[u8]) -> bool {
        !matches!(self.compile_first(sql), Ok((None, _)))
    }
}

/// Names that C nodes take for something else: SQLite's private databases, or the WAL and the journal of
/// another database. One of them in the log would stop every C node of the cluster.
fn check_name(name: &[u8]) -> Result<(), Failure> {
    let reserved = name.is_empty() || name == b":memory:";
    if reserved || name.ends_with(b"-wal") || name.ends_with(b"-journal") {
        let text = format!("database name '{}' is reserved: choose another", String::from_utf8_lossy(name));
        return Err(Failure { code: CANTOPEN, text: text.into() });
    }
    Ok(())
}

fn step_to_done(statement: &mut Statement) -> Result<(), Failure> {
    let outcome = match statement.step() {
        Ok(Step::Done) => Ok(()),
        Ok(Step::Row) => Err(failure::ROWS_YIELDED.into()),
        Err(error) => Err(error.into()),
    };
    statement.reset();
    outcome
}

/// Binds as many values as the statement has parameters; the others become NULL.
fn bind(statement: &mut Statement, params: &mut Params) -> Result<(), Failure> {
    statement.clear_bindings();
    for (number, value) in (1..=statement.parameter_count()).zip(params) {
        let value = value.map_err(|_| failure::BIND_PARAMETERS)?;
        let bound = match &value {
            Value::Integer(n) => statement.bind(number, sqlite::Value::Integer(*n)),
            Value::Float(x) => statement.bind(number, sqlite::Value::Real(*x)),
            Value::Text(text) | Value::Iso8601(text) => statement.bind(number, sqlite::Value::Text(text)),
            Value::Blob(blob) => statement.bind(number, sqlite::Value::Blob(blob)),
            Value::Null => statement.bind(number, sqlite::Value::Null),
            Value::Boolean(n) => statement.bind(number, sqlite::Value::Integer(i64::from(*n != 0))),
            Value::UnixTime(_) => return Err(failure::BIND_PARAMETERS.into()),
        };
        bound.map_err(|_| failure::BIND_PARAMETERS)?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "connection_test.rs"]
mod tests;

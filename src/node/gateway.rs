//! One client connection from handshake to close: reads requests, one at a time, and answers them.
//!
//! A session is one task on the client runtime. A point read runs from decoding to writing without leaving
//! its thread. Leadership, cluster and settings are read from what the Raft thread publishes.

use super::attention::{Attention, Served};
use super::client::{Client, Closed};
use super::driver::{Order, OrderKind};
use super::inbound::Inbound;
use super::membership::Membership;
use crate::config::{
    CLIENT_HEARTBEAT_TIMEOUT_MS, DUMP_CHUNK_PAGES, HELD_ROWS_SIZE_MAX, REQUESTS_IN_A_ROW_MAX,
};
use crate::db::{self, ClientWatch, DatabaseConnection, Failure, Fill, Query, Registry, Verdict};
use crate::net::receive::Spools;
use crate::raft::{Change, Peer, Refusal, Role, ServerId};
use crate::wire::failure;
use crate::wire::frame::Header;
use crate::wire::handshake::Protocol;
use crate::wire::request::{Request, RequestType, Server};
use crate::wire::response::{self, ClusterFormat, ExecResult, FileEntry, ServerEntry, Stmt};
use crate::wire::tuple::Schema;
use bytes::{Bytes, BytesMut};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::{mpsc, oneshot, watch};

/// What all sessions of a node share.
#[derive(Clone)]
pub struct Shared {
    /// The databases.
    pub registry: Arc<Registry>,
    /// The cluster.
    pub membership: Arc<Membership>,
    /// The way of transactions and reads to the Raft thread.
    pub requests: mpsc::UnboundedSender<db::Request>,
    /// The way of changes of the cluster to it.
    pub orders: mpsc::Sender<Order>,
    /// The way of other servers' connections to it.
    pub inbound: mpsc::Sender<Inbound>,
    /// Where the snapshots in them go.
    pub spools: Arc<dyn Spools>,
    /// What they have done together.
    pub served: Served,
}

/// Serves one client until it leaves, breaks the protocol, or the task is dropped.
pub async fn serve(client: Client, shared: Shared) {
    let client = Arc::new(client);
    let Ok(word) = client.read_protocol().await else { return };
    let Some(protocol) = Protocol::decode(word) else {
        tracing::debug!(?word, "connection closed: unknown protocol version");
        return;
    };
    let period = shared.registry.status.period();
    let attention = Attention::new(shared.served.clone());
    let (connection, out) = (None, BytesMut::new());
    let mut session = Session { client, shared, protocol, period, connection, attention, out };
    loop {
        for _ in 0..REQUESTS_IN_A_ROW_MAX {
            if session.serve_next().await.is_err() {
                return;
            }
        }
        tokio::task::yield_now().await;
    }
}

struct Session {
    client: Arc<Client>,
    shared: Shared,
    protocol: Protocol,
    /// Its connection is void once leadership has ended.
    period: watch::Receiver<u64>,
    connection: Option<DatabaseConnection>,
    attention: Attention,
    out: BytesMut,
}

impl Session {
    async fn serve_next(&mut self) -> Result<(), Closed> {
        let (header, body) = self.next_frame().await?;
        let request = match Request::decode(header, body) {
            Ok(Request::Connect(server)) => return self.receive_from(server).await,
            Ok(request) => Ok(request),
            Err(error) => match error.failure() {
                Some(failure) => Err(failure.into()),
                None => {
                    tracing::debug!(%error, "connection closed: malformed request");
                    return Err(Closed);
                }
            },
        };
        let client = self.client.clone();
        // A client that leaves while its request waits, for the lane or for rows to be taken, ends the
        // session.
        tokio::select! {
            biased;
            served = self.serve(request) => served,
            () = client.gone() => Err(Closed),
        }
    }

    async fn serve(&mut self, request: Result<Request, Failure>) -> Result<(), Closed> {
        let outcome = match request {
            Ok(request) => self.answer(request).await?,
            Err(failure) => Err(failure),
        };
        if let Err(Failure { code, text }) = outcome {
            response::failure(&mut self.out, code, text.as_bytes());
        }
        self.send(None).await.map(drop)
    }

    /// Writes what is in the buffer, as fast as the client takes it. If leadership ends before that, the
    /// query is lost and everything else that the session has open: locks of a client that does not read must
    /// not keep this node from following the next leader.
    async fn send(&mut self, query: Option<Query>) -> Result<Option<Query>, Closed> {
        if let Some(connection) = &self.connection {
            connection.rest();
        }
        let sending = self.client.send(&mut self.out);
        tokio::pin!(sending);
        tokio::select! {
            biased;
            sent = &mut sending => return sent.map(|()| query),
            Ok(()) = self.period.changed() => {}
        }
        drop(query);
        self.connection = None;
        sending.await.map(|()| None)
    }

    /// The next request. Meanwhile an open transaction is rolled back if leadership ends.
    async fn next_frame(&mut self) -> Result<(Header, Bytes), Closed> {
        if self.attention.is_awake() {
            self.client.look_out().await;
        }
        let frame = loop {
            tokio::select! {
                biased;
                frame = self.client.next_frame() => break frame,
                Ok(()) = self.period.changed() => self.connection = None,
            }
        };
        self.attention.note_request(Instant::now());
        frame
    }

    /// Appends the answer, or returns the failure to answer with.
    async fn answer(&mut self, request: Request) -> Result<Result<(), Failure>, Closed> {
        if self.period.has_changed().unwrap_or(false) {
            self.period.mark_unchanged();
            self.connection = None;
        }
        match request {
            Request::Query(_) | Request::QuerySql(_) => return self.answer_query(request).await,
            Request::Dump { name } => return self.dump(&name).await,
            _ => {}
        }
        Ok(self.answer_at_once(request).await)
    }

    async fn answer_at_once(&mut self, request: Request) -> Result<(), Failure> {
        match request {
            Request::Leader => self.leader().await,
            Request::Client { .. } => response::welcome(&mut self.out, CLIENT_HEARTBEAT_TIMEOUT_MS),
            Request::Open { name, .. } => self.open(&name).await?,
            Request::Prepare { db, sql, schema } => {
                let allow_tail = schema == Schema::V1;
                let stmt = self.leading().await?.connection(db)?.prepare(&sql, allow_tail).await?;
                let (parameters, tail_offset) = (stmt.parameters, stmt.tail_offset as u64);
                let stmt = Stmt { db: 0, id: stmt.id, params: parameters, tail_offset };
                response::stmt(&mut self.out, schema, stmt);
            }
            Request::Exec(exec) => {
                let connection = self.leading().await?.connection(exec.db.into())?;
                let result = connection.exec(exec.statement, exec.params).await?;
                self.result(result);
            }
            Request::ExecSql(exec) => {
                let connection = self.leading().await?.connection(exec.db)?;
                let result = connection.exec_sql(exec.sql, exec.params).await?;
                self.result(result);
            }
            Request::Finalize { db, statement } => {
                self.connection(db.into())?.finalize(statement)?;
                response::empty(&mut self.out);
            }
            Request::Interrupt { .. } => response::empty(&mut self.out),
            Request::Cluster { format } => self.cluster(format)?,
            Request::Describe { format } if format != 0 => return Err(failure::BAD_FORMAT.into()),
            Request::Describe { .. } => {
                let status = &self.shared.registry.status;
                response::metadata(&mut self.out, status.failure_domain(), status.weight());
            }
            Request::Weight { weight } => {
                self.shared.registry.status.set_weight(weight);
                response::empty(&mut self.out);
            }
            Request::Add(server) => {
                let address = String::from_utf8(server.address.to_vec());
                let address = address.map_err(|_| failure::INVALID_PARAMETER)?;
                self.change(Change::Add { id: ServerId(server.id), address }).await?;
            }
            Request::Assign { id, role } => {
                let role = raft_role(role.unwrap_or(0)).ok_or(failure::BAD_SERVER_ROLE)?;
                self.change(Change::Assign { id: ServerId(id), role }).await?;
            }
            Request::Remove { id } => self.change(Change::Remove { id: ServerId(id) }).await?,
            Request::Transfer { id } => {
                self.order(OrderKind::Transfer((id != 0).then_some(ServerId(id)))).await?;
            }
            Request::Query(_) | Request::QuerySql(_) | Request::Dump { .. } | Request::Connect(_) => {
                unreachable!("answered by the caller")
            }
        }
        Ok(())
    }

    /// Who is refused looks for the new leader, and gives up if it fails to find one a few times: so a
    /// refusal waits until there is one, if this node handed over.
    async fn leading(&mut self) -> Result<&mut Session, Failure> {
        let status = &self.shared.registry.status;
        if status.is_leading() {
            return Ok(self);
        }
        status.transfer_ended().await;
        Err(failure::NOT_LEADER.into())
    }

    fn connection(&mut self, db: u64) -> Result<&mut DatabaseConnection, Failure> {
        let open = self.connection.as_mut().filter(|_| db == 0);
        open.ok_or_else(|| failure::NO_DATABASE.into())
    }

    async fn leader(&mut self) {
        let mut leader = self.shared.membership.leader();
        if leader.is_none() {
            self.shared.registry.status.transfer_ended().await;
            leader = self.shared.membership.leader();
        }
        let (id, address) = leader.as_ref().map_or((0, ""), |s| (s.id.0, s.address.as_str()));
        match self.protocol {
            Protocol::Current => response::server(&mut self.out, id, address.as_bytes()),
            Protocol::Legacy => response::legacy_server(&mut self.out, address.as_bytes()),
        }
    }

    async fn open(&mut self, name: &Bytes) -> Result<(), Failure> {
        self.leading().await?;
        if self.connection.is_some() {
            return Err(failure::ALREADY_OPEN.into());
        }
        let client = self.client.clone();
        let watch: ClientWatch = Arc::new(move || client.verdict());
        let Shared { registry, requests, .. } = &self.shared;
        self.connection = Some(DatabaseConnection::open(registry, requests, name, watch)?);
        response::db(&mut self.out, 0);
        Ok(())
    }

    fn result(&mut self, result: ExecResult) {
        response::result(&mut self.out, result);
    }

    fn cluster(&mut self, format: u64) -> Result<(), Failure> {
        let format = ClusterFormat::from_u64(format).ok_or(failure::UNKNOWN_CLUSTER_FORMAT)?;
        let servers = self.shared.membership.servers();
        let entries = servers.iter().map(|s| ServerEntry {
            id: s.id.0,
            address: s.address.as_bytes(),
            role: wire_role(s.role),
        });
        response::servers(&mut self.out, format, entries);
        Ok(())
    }

    async fn answer_query(&mut self, request: Request) -> Result<Result<(), Failure>, Closed> {
        let begun = match self.leading().await {
            Ok(session) => session.begin_query(request).await,
            Err(failure) => Err(failure),
        };
        match begun {
            Ok(query) => self.stream(query).await,
            Err(failure) => Ok(Err(failure)),
        }
    }

    async fn begin_query(&mut self, request: Request) -> Result<Query, Failure> {
        match request {
            Request::Query(q) => self.connection(q.db.into())?.query(q.statement, q.params).await,
            Request::QuerySql(q) => self.connection(q.db)?.query_sql(&q.sql, q.params).await,
            _ => unreachable!("the caller passes these two"),
        }
    }

    /// Sends rows in chunks, each once the client has taken the one before, so that a slow client costs a
    /// cursor and not a thread. Rows of a statement that writes are kept until its commit as far as memory
    /// allows.
    async fn stream(&mut self, mut query: Query) -> Result<Result<(), Failure>, Closed> {
        let failed = loop {
            let fill = query.fill(&mut self.out);
            match fill {
                Fill::Done => break None,
                Fill::Failed(_) if self.client.is_interrupted() => break Some(None),
                Fill::Failed(failure) => break Some(Some(failure)),
                Fill::Part if query.writes && self.out.len() < HELD_ROWS_SIZE_MAX => continue,
                Fill::Part => {}
            }
            let Ok(connection) = self.connection(0) else { return Err(Closed) };
            if let Err(failure) = connection.resume_query().await {
                break Some(Some(failure));
            }
            query = match self.send(Some(query)).await? {
                Some(query) => query,
                None => return Ok(Err(failure::NOT_LEADER.into())),
            };
            if self.client.verdict() == Verdict::Stop {
                break Some(None);
            }
        };
        let Ok(connection) = self.connection(0) else { return Err(Closed) };
        let ended = connection.end_query(query).await;
        match (failed, ended) {
            (None, Ok(())) => Ok(Ok(())),
            // What is left in the buffer was computed from something that will never be committed.
            (_, Err(failure)) => {
                self.out.clear();
                Ok(Err(failure))
            }
            (Some(Some(failure)), Ok(())) => Ok(Err(connection.explain(failure))),
            (Some(None), Ok(())) => {
                self.out.clear();
                self.client.take_interrupt().await?;
                response::empty(&mut self.out);
                Ok(Ok(()))
            }
        }
    }

    async fn dump(&mut self, name: &Bytes) -> Result<Result<(), Failure>, Closed> {
        let Some(database) = self.shared.registry.get(name) else {
            return Ok(Err(failure::NO_SUCH_DATABASE.into()));
        };
        let image = database.vfs.capture();
        // The C library keeps the second name in a buffer of 1024 bytes.
        let wal = [&name[..name.len().min(1019)], b"-wal"].concat();
        let files = [
            FileEntry { name, size: (image.pages.len() * crate::config::PAGE_SIZE) as u64 },
            FileEntry { name: &wal, size: 0 },
        ];
        if response::files_head(&mut self.out, &files).is_err() {
            return Ok(Err(failure::TOO_BIG.into()));
        }
        response::file_head(&mut self.out, files[0]);
        for pages in image.pages.chunks(DUMP_CHUNK_PAGES) {
            pages.iter().for_each(|page| self.out.extend_from_slice(&page[..]));
            self.send(None).await?;
        }
        response::file_head(&mut self.out, files[1]);
        Ok(Ok(()))
    }

    async fn change(&mut self, change: Change) -> Result<(), Failure> {
        self.order(OrderKind::Change(change)).await
    }

    /// Has the Raft thread change the cluster, and waits until that is done.
    async fn order(&mut self, kind: OrderKind) -> Result<(), Failure> {
        self.leading().await?;
        let (done, outcome) = oneshot::channel();
        // The queue is closed only once the node has stopped; then the outcome reports it.
        let _ = self.shared.orders.send(Order { kind, done }).await;
        match outcome.await {
            Ok(Ok(())) => {
                response::empty(&mut self.out);
                Ok(())
            }
            // Somebody else leads than was meant to, but this node does not: C calls it done.
            Ok(Err(Refusal::NotTransferred)) if !self.shared.registry.status.is_leading() => {
                response::empty(&mut self.out);
                Ok(())
            }
            Ok(Err(refusal)) => Err(change_failure(refusal).into()),
            Err(_) => Err(failure::SHUTTING_DOWN.into()),
        }
    }

    /// The connection belongs to another server from here on, which sends messages and gets nothing back: the
    /// Raft thread reads them itself.
    async fn receive_from(&mut self, server: Server) -> Result<(), Closed> {
        let Ok(address) = String::from_utf8(server.address.to_vec()) else { return Err(Closed) };
        let peer = Peer { id: ServerId(server.id), address };
        let (stream, received) = self.client.hand_over()?;
        let spools = self.shared.spools.clone();
        // The queue is closed only once the node has stopped.
        let _ = self.shared.inbound.send(Inbound { peer, stream, received, spools }).await;
        Err(Closed)
    }
}

/// The failure that C answers with.
fn change_failure(refusal: Refusal) -> failure::Failure {
    match refusal {
        Refusal::NotLeader => failure::SERVER_NOT_LEADER,
        Refusal::LeadershipLost => failure::SERVER_LOST_LEADERSHIP,
        Refusal::BadId => failure::BAD_SERVER_ID,
        Refusal::DuplicateId => failure::DUPLICATE_SERVER_ID,
        Refusal::DuplicateAddress => failure::DUPLICATE_SERVER_ADDRESS,
        Refusal::AlreadyInRole(_) => failure::BAD_SERVER_ROLE,
        Refusal::UnknownServer(_) | Refusal::NoOtherVoter => failure::RESOURCE_NOT_FOUND,
        Refusal::CantChange => failure::CHANGE_IN_PROGRESS,
        Refusal::TooBig => failure::TOO_BIG,
        Refusal::NoConnection => failure::NO_CONNECTION,
        Refusal::DiskFull => failure::DISK_FULL,
        Refusal::NotTransferred => failure::TRANSFER_FAILED,
    }
}

/// See [`wire_role`]; `None` if there is no such role.
pub fn raft_role(role: u64) -> Option<Role> {
    [Role::Voter, Role::Standby, Role::Spare].into_iter().find(|known| wire_role(*known) == role)
}

/// Roles have other numbers in the client protocol than in the log.
pub fn wire_role(role: Role) -> u64 {
    match role {
        Role::Voter => 0,
        Role::Standby => 1,
        Role::Spare => 2,
    }
}

/// Whether the next request in the buffer is an INTERRUPT.
pub fn is_interrupt(header: Header) -> bool {
    header.kind == RequestType::Interrupt as u8
}

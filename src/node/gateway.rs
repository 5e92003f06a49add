//! One client connection from handshake to close: reads requests, one at a time, and answers them.
//!
//! A session is one task on the client runtime. A point read runs from decoding to writing without leaving
//! its thread. Leadership, cluster and settings are read from what the Raft thread publishes.

use super::client::{Client, Closed};
use super::membership::Membership;
use crate::config::{CLIENT_HEARTBEAT_TIMEOUT_MS, DUMP_CHUNK_PAGES, HELD_ROWS_SIZE_MAX};
use crate::db::{ClientWatch, DatabaseConnection, Failure, Fill, Proposal, Query, Registry, Verdict};
use crate::raft::{Role, Server};
use crate::wire::failure;
use crate::wire::frame::Header;
use crate::wire::handshake::Protocol;
use crate::wire::request::{Request, RequestType};
use crate::wire::response::{self, ClusterFormat, ExecResult, FileEntry, ServerEntry, Stmt};
use crate::wire::tuple::Schema;
use bytes::{Bytes, BytesMut};
use std::sync::Arc;
use tokio::sync::{mpsc, watch};

/// What all sessions of a node share.
#[derive(Clone)]
pub struct Shared {
    /// The databases.
    pub registry: Arc<Registry>,
    /// The cluster.
    pub membership: Arc<Membership>,
    /// The way to the Raft thread.
    pub proposals: mpsc::Sender<Proposal>,
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
    let mut session = Session { client, shared, protocol, period, connection: None, out: BytesMut::new() };
    while session.serve_next().await.is_ok() {}
}

struct Session {
    client: Arc<Client>,
    shared: Shared,
    protocol: Protocol,
    /// Its connection is void once leadership has ended.
    period: watch::Receiver<u64>,
    connection: Option<DatabaseConnection>,
    out: BytesMut,
}

impl Session {
    async fn serve_next(&mut self) -> Result<(), Closed> {
        let (header, body) = self.next_frame().await?;
        let client = self.client.clone();
        // A client that leaves while its request waits, for the lane or for rows to be taken, ends the
        // session.
        tokio::select! {
            biased;
            served = self.serve_frame(header, body) => served,
            () = client.gone() => Err(Closed),
        }
    }

    async fn serve_frame(&mut self, header: Header, body: Bytes) -> Result<(), Closed> {
        let outcome = match Request::decode(header, body) {
            Ok(request) => self.answer(request).await?,
            Err(error) => match error.failure() {
                Some(failure) => Err(failure.into()),
                None => {
                    tracing::debug!(%error, "connection closed: malformed request");
                    return Err(Closed);
                }
            },
        };
        if let Err(Failure { code, text }) = outcome {
            response::failure(&mut self.out, code, text.as_bytes());
        }
        self.client.send(&mut self.out).await
    }

    /// The next request. Meanwhile an open transaction is rolled back if leadership ends.
    async fn next_frame(&mut self) -> Result<(Header, Bytes), Closed> {
        loop {
            tokio::select! {
                biased;
                frame = self.client.next_frame() => return frame,
                Ok(()) = self.period.changed() => self.connection = None,
            }
        }
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
            Request::Connect(peer) => {
                tracing::warn!(
                    peer = peer.id,
                    "this release runs single nodes: a peer's messages are ignored"
                );
                self.client.discard().await;
                return Err(Closed);
            }
            _ => {}
        }
        Ok(self.answer_at_once(request).await)
    }

    async fn answer_at_once(&mut self, request: Request) -> Result<(), Failure> {
        match request {
            Request::Leader => self.leader(),
            Request::Client { .. } => response::welcome(&mut self.out, CLIENT_HEARTBEAT_TIMEOUT_MS),
            Request::Open { name, .. } => self.open(&name)?,
            Request::Prepare { db, sql, schema } => {
                let allow_tail = schema == Schema::V1;
                let stmt = self.leading()?.connection(db)?.prepare(&sql, allow_tail)?;
                let (parameters, tail_offset) = (stmt.parameters, stmt.tail_offset as u64);
                let stmt = Stmt { db: 0, id: stmt.id, params: parameters, tail_offset };
                response::stmt(&mut self.out, schema, stmt);
            }
            Request::Exec(exec) => {
                let connection = self.leading()?.connection(exec.db.into())?;
                let result = connection.exec(exec.statement, exec.params).await?;
                self.result(result);
            }
            Request::ExecSql(exec) => {
                let connection = self.leading()?.connection(exec.db)?;
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
            Request::Add(server) => self.leading()?.add(server.id, &server.address)?,
            Request::Assign { id, role } => self.leading()?.assign(id, role)?,
            Request::Remove { id } => self.leading()?.remove(id)?,
            Request::Transfer { id } => self.leading()?.transfer(id)?,
            Request::Query(_) | Request::QuerySql(_) | Request::Dump { .. } | Request::Connect(_) => {
                unreachable!("answered by the caller")
            }
        }
        Ok(())
    }

    fn leading(&mut self) -> Result<&mut Session, Failure> {
        if self.shared.registry.status.is_leading() { Ok(self) } else { Err(failure::NOT_LEADER.into()) }
    }

    fn connection(&mut self, db: u64) -> Result<&mut DatabaseConnection, Failure> {
        let open = self.connection.as_mut().filter(|_| db == 0);
        open.ok_or_else(|| failure::NO_DATABASE.into())
    }

    fn leader(&mut self) {
        let leader = self.shared.membership.leader();
        let (id, address) = leader.as_ref().map_or((0, ""), |s| (s.id.0, s.address.as_str()));
        match self.protocol {
            Protocol::Current => response::server(&mut self.out, id, address.as_bytes()),
            Protocol::Legacy => response::legacy_server(&mut self.out, address.as_bytes()),
        }
    }

    fn open(&mut self, name: &Bytes) -> Result<(), Failure> {
        self.leading()?;
        if self.connection.is_some() {
            return Err(failure::ALREADY_OPEN.into());
        }
        let client = self.client.clone();
        let watch: ClientWatch = Arc::new(move || client.verdict());
        let Shared { registry, proposals, .. } = &self.shared;
        self.connection = Some(DatabaseConnection::open(registry, proposals, name, watch)?);
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
        let begun = match self.leading() {
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
            self.client.send(&mut self.out).await?;
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
            (Some(Some(failure)), Ok(())) => Ok(Err(failure)),
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
            self.client.send(&mut self.out).await?;
        }
        response::file_head(&mut self.out, files[1]);
        Ok(Ok(()))
    }

    fn server(&self, id: u64) -> Option<Server> {
        self.shared.membership.servers().into_iter().find(|s| s.id.0 == id)
    }

    fn add(&mut self, id: u64, address: &[u8]) -> Result<(), Failure> {
        if self.server(id).is_some() {
            return Err(failure::DUPLICATE_SERVER_ID.into());
        }
        if self.shared.membership.servers().iter().any(|s| s.address.as_bytes() == address) {
            return Err(failure::DUPLICATE_SERVER_ADDRESS.into());
        }
        Err(single_node("add a server"))
    }

    fn assign(&mut self, id: u64, role: Option<u64>) -> Result<(), Failure> {
        let role = match role {
            None | Some(0) => Role::Voter,
            Some(1) => Role::Standby,
            Some(2) => Role::Spare,
            Some(_) => return Err(failure::BAD_SERVER_ROLE.into()),
        };
        match self.server(id) {
            None => Err(failure::RESOURCE_NOT_FOUND.into()),
            Some(server) if server.role == role => Err(failure::BAD_SERVER_ROLE.into()),
            Some(_) => Err(single_node("change the role of a server")),
        }
    }

    fn remove(&mut self, id: u64) -> Result<(), Failure> {
        match self.server(id) {
            None => Err(failure::BAD_SERVER_ID.into()),
            Some(_) => Err(single_node("remove a server")),
        }
    }

    /// A sole voter has nobody to hand over to.
    fn transfer(&mut self, id: u64) -> Result<(), Failure> {
        match id {
            0 => Err(failure::RESOURCE_NOT_FOUND.into()),
            _ => Err(failure::BAD_SERVER_ID.into()),
        }
    }
}

fn single_node(what: &str) -> Failure {
    let text = format!("cannot {what}: this release runs single nodes, clusters come with the next one");
    Failure { code: failure::UNKNOWN_ERROR.code, text: text.into() }
}

/// Roles have other numbers in the client protocol than in the log.
fn wire_role(role: Role) -> u64 {
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

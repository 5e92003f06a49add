//! Client requests.
//!
//! ```text
//!  0 LEADER     u64 unused                       10 INTERRUPT  u64 db
//!  1 CLIENT     u64 client id                    11 CONNECT    u64 server id, text address
//!  2 HEARTBEAT  (unknown: see below)             12 ADD        u64 server id, text address
//!  3 OPEN       text name, u64 flags, text vfs   13 ASSIGN     u64 server id [, u64 role]
//!  4 PREPARE    u64 db, text sql                 14 REMOVE     u64 server id
//!  5 EXEC       u32 db, u32 statement [, tuple]  15 DUMP       text name
//!  6 QUERY      u32 db, u32 statement [, tuple]  16 CLUSTER    u64 format
//!  7 FINALIZE   u32 db, u32 statement            17 TRANSFER   u64 server id
//!  8 EXEC_SQL   u64 db, text sql [, tuple]       18 DESCRIBE   u64 format
//!  9 QUERY_SQL  u64 db, text sql [, tuple]       19 WEIGHT     u64 weight
//! ```
//!
//! Words after these are ignored. Requests 4, 5, 6, 8 and 9 exist in schemas 0 and 1, CONNECT is taken with
//! any schema, the others exist in schema 0 only. HEARTBEAT was retired before 1.18 and is an unknown type
//! there.
//!
//! Checks come in C's order: type, schema, body, tuple header. What needs state (leadership, database,
//! statement, formats) is the gateway's.

use bytes::{BufMut, Bytes, BytesMut};

use super::failure::{self, Failure};
use super::frame::{self, Header, TooLarge};
use super::tuple::{Params, Schema, TooManyParams};
use crate::codec::{Reader, Truncated, Writer};

/// The type of a request, as in the frame header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum RequestType {
    /// Who is the leader?
    Leader = 0,
    /// Register a client.
    Client = 1,
    /// Open a database.
    Open = 3,
    /// Prepare a statement.
    Prepare = 4,
    /// Execute a prepared statement without rows.
    Exec = 5,
    /// Execute a prepared statement with rows.
    Query = 6,
    /// Discard a prepared statement.
    Finalize = 7,
    /// Execute SQL text without rows.
    ExecSql = 8,
    /// Execute SQL text with rows.
    QuerySql = 9,
    /// Stop the running query.
    Interrupt = 10,
    /// Make this a connection between servers.
    Connect = 11,
    /// Add a server to the configuration, as spare.
    Add = 12,
    /// Give a server a role.
    Assign = 13,
    /// Remove a server from the configuration.
    Remove = 14,
    /// Copy a database out.
    Dump = 15,
    /// List the configuration.
    Cluster = 16,
    /// Transfer leadership.
    Transfer = 17,
    /// Failure domain and weight of this node.
    Describe = 18,
    /// Set the weight of this node.
    Weight = 19,
}

impl RequestType {
    /// The type with this number, if there is one.
    pub fn from_u8(kind: u8) -> Option<RequestType> {
        use RequestType::*;
        Some(match kind {
            0 => Leader,
            1 => Client,
            3 => Open,
            4 => Prepare,
            5 => Exec,
            6 => Query,
            7 => Finalize,
            8 => ExecSql,
            9 => QuerySql,
            10 => Interrupt,
            11 => Connect,
            12 => Add,
            13 => Assign,
            14 => Remove,
            15 => Dump,
            16 => Cluster,
            17 => Transfer,
            18 => Describe,
            19 => Weight,
            _ => return None,
        })
    }

    /// True for the requests that exist in schemas 0 and 1.
    fn has_schemas(self) -> bool {
        use RequestType::*;
        matches!(self, Prepare | Exec | Query | ExecSql | QuerySql)
    }
}

/// A request, decoded. Numbers are as the client sent them; nothing was compared with any state.
#[derive(Debug, Clone)]
pub enum Request {
    /// LEADER.
    Leader,
    /// CLIENT.
    Client {
        /// Any number; C stores it and never uses it.
        id: u64,
    },
    /// OPEN.
    Open {
        /// Name of the database, an opaque key.
        name: Bytes,
        /// Ignored.
        flags: u64,
        /// Ignored.
        vfs: Bytes,
    },
    /// PREPARE.
    Prepare {
        /// Database id.
        db: u64,
        /// SQL text.
        sql: Bytes,
        /// Whether a tail is refused or reported; repeated in the answer.
        schema: Schema,
    },
    /// EXEC.
    Exec(Statement),
    /// QUERY.
    Query(Statement),
    /// FINALIZE.
    Finalize {
        /// Database id.
        db: u32,
        /// Statement id.
        statement: u32,
    },
    /// EXEC_SQL.
    ExecSql(Sql),
    /// QUERY_SQL.
    QuerySql(Sql),
    /// INTERRUPT.
    Interrupt {
        /// Database id, ignored.
        db: u64,
    },
    /// CONNECT: from the next byte on the stream carries the Raft protocol.
    Connect(Server),
    /// ADD.
    Add(Server),
    /// PROMOTE or ASSIGN.
    Assign {
        /// Server id.
        id: u64,
        /// 0 voter, 1 stand-by, 2 spare, others unknown; absent (PROMOTE) means voter.
        role: Option<u64>,
    },
    /// REMOVE.
    Remove {
        /// Server id.
        id: u64,
    },
    /// DUMP.
    Dump {
        /// Name of the database.
        name: Bytes,
    },
    /// CLUSTER.
    Cluster {
        /// 0 without, 1 with roles; others unknown.
        format: u64,
    },
    /// TRANSFER.
    Transfer {
        /// Server id, or 0 for any up-to-date voter.
        id: u64,
    },
    /// DESCRIBE.
    Describe {
        /// 0; others unknown.
        format: u64,
    },
    /// WEIGHT.
    Weight {
        /// The weight that DESCRIBE reports.
        weight: u64,
    },
}

/// The body of EXEC and QUERY.
#[derive(Debug, Clone)]
pub struct Statement {
    /// Database id.
    pub db: u32,
    /// Statement id.
    pub statement: u32,
    /// The schema the parameters came in.
    pub schema: Schema,
    /// The parameters.
    pub params: Params,
}

/// The body of EXEC_SQL and QUERY_SQL.
#[derive(Debug, Clone)]
pub struct Sql {
    /// Database id.
    pub db: u64,
    /// SQL text.
    pub sql: Bytes,
    /// The schema the parameters came in.
    pub schema: Schema,
    /// The parameters.
    pub params: Params,
}

/// The body of CONNECT and ADD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Server id.
    pub id: u64,
    /// Its address.
    pub address: Bytes,
}

/// A request that was not understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The header announces no body.
    #[error("request body is empty")]
    EmptyBody,
    /// No request has this type.
    #[error("unrecognized request type {kind}")]
    UnknownType {
        /// The type.
        kind: u8,
    },
    /// The request does not exist in this schema.
    #[error("unrecognized schema version {schema} of request type {kind:?}")]
    UnknownSchema {
        /// The type.
        kind: RequestType,
        /// The schema.
        schema: u8,
    },
    /// The body ends too early, or a text has no end.
    #[error("malformed request body: {0}")]
    Malformed(#[from] Truncated),
}

impl DecodeError {
    /// What to answer; `None` means that the connection must be closed instead.
    pub fn failure(&self) -> Option<Failure> {
        match self {
            DecodeError::EmptyBody => Some(failure::EMPTY_BODY),
            DecodeError::UnknownType { .. } => Some(failure::UNKNOWN_TYPE),
            DecodeError::UnknownSchema { kind, .. } if kind.has_schemas() => {
                Some(failure::UNKNOWN_SQL_SCHEMA)
            }
            DecodeError::UnknownSchema { .. } => Some(failure::UNKNOWN_SCHEMA),
            DecodeError::Malformed(_) => None,
        }
    }
}

/// A request that cannot be encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// It is too large.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
    /// It has too many parameters for its schema.
    #[error(transparent)]
    TooManyParams(#[from] TooManyParams),
}

fn schema_of(kind: RequestType, schema: u8) -> Result<Schema, DecodeError> {
    match schema {
        _ if kind == RequestType::Connect => Ok(Schema::V0),
        0 => Ok(Schema::V0),
        1 if kind.has_schemas() => Ok(Schema::V1),
        _ => Err(DecodeError::UnknownSchema { kind, schema }),
    }
}

impl Request {
    /// Decodes the frame with this header and body.
    pub fn decode(header: Header, body: Bytes) -> Result<Request, DecodeError> {
        if body.is_empty() {
            return Err(DecodeError::EmptyBody);
        }
        let kind = RequestType::from_u8(header.kind).ok_or(DecodeError::UnknownType { kind: header.kind })?;
        let schema = schema_of(kind, header.schema)?;
        let mut body = Reader::new(body);
        Ok(decode_body(kind, schema, &mut body)?)
    }

    /// The type of the request.
    pub fn kind(&self) -> RequestType {
        match self {
            Request::Leader => RequestType::Leader,
            Request::Client { .. } => RequestType::Client,
            Request::Open { .. } => RequestType::Open,
            Request::Prepare { .. } => RequestType::Prepare,
            Request::Exec(_) => RequestType::Exec,
            Request::Query(_) => RequestType::Query,
            Request::Finalize { .. } => RequestType::Finalize,
            Request::ExecSql(_) => RequestType::ExecSql,
            Request::QuerySql(_) => RequestType::QuerySql,
            Request::Interrupt { .. } => RequestType::Interrupt,
            Request::Connect(_) => RequestType::Connect,
            Request::Add(_) => RequestType::Add,
            Request::Assign { .. } => RequestType::Assign,
            Request::Remove { .. } => RequestType::Remove,
            Request::Dump { .. } => RequestType::Dump,
            Request::Cluster { .. } => RequestType::Cluster,
            Request::Transfer { .. } => RequestType::Transfer,
            Request::Describe { .. } => RequestType::Describe,
            Request::Weight { .. } => RequestType::Weight,
        }
    }

    fn schema(&self) -> Schema {
        match self {
            Request::Prepare { schema, .. } => *schema,
            Request::Exec(statement) | Request::Query(statement) => statement.schema,
            Request::ExecSql(sql) | Request::QuerySql(sql) => sql.schema,
            _ => Schema::V0,
        }
    }

    /// Appends the frame; on an error `out` is as before.
    pub fn encode(&self, out: &mut BytesMut) -> Result<(), EncodeError> {
        let start = frame::begin(out);
        let encoded = self
            .encode_body(out)
            .map_err(EncodeError::from)
            .and_then(|()| Ok(frame::end(out, start, self.kind() as u8, self.schema() as u8)?));
        if encoded.is_err() {
            out.truncate(start);
        }
        encoded
    }

    fn encode_body(&self, out: &mut BytesMut) -> Result<(), TooManyParams> {
        match self {
            Request::Leader => out.put_u64_le(0),
            Request::Client { id } | Request::Remove { id } | Request::Transfer { id } => out.put_u64_le(*id),
            Request::Open { name, flags, vfs } => {
                out.put_text(name);
                out.put_u64_le(*flags);
                out.put_text(vfs);
            }
            Request::Prepare { db, sql, schema: _ } => {
                out.put_u64_le(*db);
                out.put_text(sql);
            }
            Request::Exec(body) | Request::Query(body) => {
                out.put_u32_le(body.db);
                out.put_u32_le(body.statement);
                body.params.encode(body.schema, out)?;
            }
            Request::Finalize { db, statement } => {
                out.put_u32_le(*db);
                out.put_u32_le(*statement);
            }
            Request::ExecSql(body) | Request::QuerySql(body) => {
                out.put_u64_le(body.db);
                out.put_text(&body.sql);
                body.params.encode(body.schema, out)?;
            }
            Request::Interrupt { db } => out.put_u64_le(*db),
            Request::Connect(server) | Request::Add(server) => {
                out.put_u64_le(server.id);
                out.put_text(&server.address);
            }
            Request::Assign { id, role } => {
                out.put_u64_le(*id);
                role.iter().for_each(|role| out.put_u64_le(*role));
            }
            Request::Dump { name } => out.put_text(name),
            Request::Cluster { format } | Request::Describe { format } => out.put_u64_le(*format),
            Request::Weight { weight } => out.put_u64_le(*weight),
        }
        Ok(())
    }
}

fn decode_body(kind: RequestType, schema: Schema, body: &mut Reader) -> Result<Request, Truncated> {
    Ok(match kind {
        RequestType::Leader => body.u64().map(|_| Request::Leader)?,
        RequestType::Client => Request::Client { id: body.u64()? },
        RequestType::Open => Request::Open { name: body.text()?, flags: body.u64()?, vfs: body.text()? },
        RequestType::Prepare => Request::Prepare { db: body.u64()?, sql: body.text()?, schema },
        RequestType::Exec => Request::Exec(decode_statement(schema, body)?),
        RequestType::Query => Request::Query(decode_statement(schema, body)?),
        RequestType::Finalize => Request::Finalize { db: body.u32()?, statement: body.u32()? },
        RequestType::ExecSql => Request::ExecSql(decode_sql(schema, body)?),
        RequestType::QuerySql => Request::QuerySql(decode_sql(schema, body)?),
        RequestType::Interrupt => Request::Interrupt { db: body.u64()? },
        RequestType::Connect => Request::Connect(decode_server(body)?),
        RequestType::Add => Request::Add(decode_server(body)?),
        RequestType::Assign => {
            let id = body.u64()?;
            let role = if body.remaining() > 0 { Some(body.u64()?) } else { None };
            Request::Assign { id, role }
        }
        RequestType::Remove => Request::Remove { id: body.u64()? },
        RequestType::Dump => Request::Dump { name: body.text()? },
        RequestType::Cluster => Request::Cluster { format: body.u64()? },
        RequestType::Transfer => Request::Transfer { id: body.u64()? },
        RequestType::Describe => Request::Describe { format: body.u64()? },
        RequestType::Weight => Request::Weight { weight: body.u64()? },
    })
}

fn decode_statement(schema: Schema, body: &mut Reader) -> Result<Statement, Truncated> {
    let (db, statement) = (body.u32()?, body.u32()?);
    Ok(Statement { db, statement, schema, params: Params::decode(schema, body)? })
}

fn decode_sql(schema: Schema, body: &mut Reader) -> Result<Sql, Truncated> {
    let (db, sql) = (body.u64()?, body.text()?);
    Ok(Sql { db, sql, schema, params: Params::decode(schema, body)? })
}

fn decode_server(body: &mut Reader) -> Result<Server, Truncated> {
    Ok(Server { id: body.u64()?, address: body.text()? })
}

#[cfg(test)]
#[path = "request_test.rs"]
mod tests;

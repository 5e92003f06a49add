//! Responses to clients. Each encoder appends one whole frame to a buffer.
//!
//! ```text
//! 0 FAILURE   u64 code, text message            6 RESULT    u64 last insert id, u64 rows affected
//! 1 SERVER    u64 id, text address              7 ROWS      see [`super::rows`]
//!             (legacy: text address)            8 EMPTY     u64 zero
//! 2 WELCOME   u64 heartbeat timeout ms          9 FILES     u64 n, n x { text name, u64 size, bytes }
//! 3 SERVERS   u64 n, n x { u64 id, text         10 METADATA u64 failure domain, u64 weight
//!             address [, u64 role] }
//! 4 DB        u32 id, u32 zero
//! 5 STMT      u32 db, u32 id, u64 parameters [, u64 offset of the tail: schema 1]
//! ```

use bytes::{BufMut, Bytes, BytesMut};

use super::failure::Failure;
use super::frame::{self, Header, TooLarge};
use super::rows::Rows;
use super::tuple::Schema;
use crate::codec::{Reader, Truncated, Writer, pad8};

/// The type of a response, as in the frame header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ResponseType {
    /// The request failed.
    Failure = 0,
    /// Answer to LEADER.
    Server = 1,
    /// Answer to CLIENT.
    Welcome = 2,
    /// Answer to CLUSTER.
    Servers = 3,
    /// Answer to OPEN.
    Db = 4,
    /// Answer to PREPARE.
    Stmt = 5,
    /// Answer to EXEC and EXEC_SQL.
    Result = 6,
    /// Answer to QUERY and QUERY_SQL.
    Rows = 7,
    /// Success without a value.
    Empty = 8,
    /// Answer to DUMP.
    Files = 9,
    /// Answer to DESCRIBE.
    Metadata = 10,
}

impl ResponseType {
    /// The type with this number, if there is one.
    pub fn from_u8(kind: u8) -> Option<ResponseType> {
        use ResponseType::*;
        [Failure, Server, Welcome, Servers, Db, Stmt, Result, Rows, Empty, Files, Metadata]
            .into_iter()
            .find(|known| *known as u8 == kind)
    }
}

/// What CLUSTER lists of each server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClusterFormat {
    /// Id and address.
    V0,
    /// Id, address and role.
    V1,
}

impl ClusterFormat {
    /// The format with this number, if there is one.
    pub fn from_u64(format: u64) -> Option<ClusterFormat> {
        match format {
            0 => Some(ClusterFormat::V0),
            1 => Some(ClusterFormat::V1),
            _ => None,
        }
    }
}

/// A server as CLUSTER lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerEntry<B> {
    /// Server id.
    pub id: u64,
    /// Its address.
    pub address: B,
    /// 0 voter, 1 stand-by, 2 spare.
    pub role: u64,
}

/// What PREPARE answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stmt {
    /// Database id.
    pub db: u32,
    /// Statement id.
    pub id: u32,
    /// Number of parameters.
    pub params: u64,
    /// Where the text after the statement begins, in bytes of the SQL text. Schema 0 does not carry it.
    pub tail_offset: u64,
}

/// What EXEC answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExecResult {
    /// The connection's last insert id.
    pub last_insert_id: i64,
    /// The connection's number of changed rows.
    pub rows_affected: u64,
}

/// Name and size of a file in FILES.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileEntry<'a> {
    /// Name.
    pub name: &'a [u8],
    /// Size in bytes, a multiple of 8.
    pub size: u64,
}

fn put(out: &mut BytesMut, kind: ResponseType, schema: u8, body: impl FnOnce(&mut BytesMut)) {
    let start = frame::begin(out);
    body(out);
    frame::end(out, start, kind as u8, schema).expect("only ROWS and FILES can outgrow a header");
}

/// FAILURE with a code of SQLite's, or any other, and its text.
pub fn failure(out: &mut BytesMut, code: u64, text: &[u8]) {
    put(out, ResponseType::Failure, 0, |out| {
        out.put_u64_le(code);
        out.put_text(text);
    });
}

impl Failure {
    /// Appends the FAILURE frame.
    pub fn encode(&self, out: &mut BytesMut) {
        failure(out, self.code, self.text.as_bytes());
    }
}

/// SERVER: the leader, or 0 and "" if none is known.
pub fn server(out: &mut BytesMut, id: u64, address: &[u8]) {
    put(out, ResponseType::Server, 0, |out| {
        out.put_u64_le(id);
        out.put_text(address);
    });
}

/// SERVER for a connection of the legacy protocol.
pub fn legacy_server(out: &mut BytesMut, address: &[u8]) {
    put(out, ResponseType::Server, 0, |out| out.put_text(address));
}

/// WELCOME.
pub fn welcome(out: &mut BytesMut, heartbeat_timeout_ms: u64) {
    put(out, ResponseType::Welcome, 0, |out| out.put_u64_le(heartbeat_timeout_ms));
}

/// SERVERS.
pub fn servers<I, B>(out: &mut BytesMut, format: ClusterFormat, servers: I)
where
    I: IntoIterator<Item = ServerEntry<B>, IntoIter: ExactSizeIterator>,
    B: AsRef<[u8]>,
{
    let servers = servers.into_iter();
    put(out, ResponseType::Servers, 0, |out| {
        out.put_u64_le(servers.len() as u64);
        for server in servers {
            out.put_u64_le(server.id);
            out.put_text(server.address.as_ref());
            if format == ClusterFormat::V1 {
                out.put_u64_le(server.role);
            }
        }
    });
}

/// DB.
pub fn db(out: &mut BytesMut, id: u32) {
    put(out, ResponseType::Db, 0, |out| {
        out.put_u32_le(id);
        out.put_u32_le(0);
    });
}

/// STMT, in the schema of its PREPARE.
pub fn stmt(out: &mut BytesMut, schema: Schema, stmt: Stmt) {
    put(out, ResponseType::Stmt, schema as u8, |out| {
        out.put_u32_le(stmt.db);
        out.put_u32_le(stmt.id);
        out.put_u64_le(stmt.params);
        if schema == Schema::V1 {
            out.put_u64_le(stmt.tail_offset);
        }
    });
}

/// RESULT.
pub fn result(out: &mut BytesMut, result: ExecResult) {
    put(out, ResponseType::Result, 0, |out| {
        out.put_i64_le(result.last_insert_id);
        out.put_u64_le(result.rows_affected);
    });
}

/// EMPTY.
pub fn empty(out: &mut BytesMut) {
    put(out, ResponseType::Empty, 0, |out| out.put_u64_le(0));
}

/// METADATA.
pub fn metadata(out: &mut BytesMut, failure_domain: u64, weight: u64) {
    put(out, ResponseType::Metadata, 0, |out| {
        out.put_u64_le(failure_domain);
        out.put_u64_le(weight);
    });
}

/// The beginning of FILES: the header, which counts everything that follows, and the number of files. After
/// it come, for each file, [`file_head`] and its contents, which the caller writes as it has them.
pub fn files_head(out: &mut BytesMut, files: &[FileEntry<'_>]) -> Result<(), TooLarge> {
    let mut body = 8u64;
    for file in files {
        assert!(file.size.is_multiple_of(8), "a file of {} bytes is not a whole number of words", file.size);
        let head = (pad8(file.name.len() + 1) + 8) as u64;
        body = body.saturating_add(head).saturating_add(file.size);
    }
    // A saturated sum is above every limit; only its remainder must stay legal.
    let header = frame::header(ResponseType::Files as u8, 0, body & !7)?;
    out.put_slice(&header.encode());
    out.put_u64_le(files.len() as u64);
    Ok(())
}

/// Name and size of one file of FILES; the contents follow, without padding.
pub fn file_head(out: &mut BytesMut, file: FileEntry<'_>) {
    out.put_text(file.name);
    out.put_u64_le(file.size);
}

/// A response, decoded, for clients and tests.
#[derive(Debug, Clone)]
pub enum Response {
    /// FAILURE.
    Failure {
        /// The code.
        code: u64,
        /// The text.
        message: Bytes,
    },
    /// SERVER.
    Server {
        /// Id of the leader, 0 if unknown.
        id: u64,
        /// Its address, "" if unknown.
        address: Bytes,
    },
    /// WELCOME.
    Welcome {
        /// Heartbeat timeout, in milliseconds.
        heartbeat_timeout_ms: u64,
    },
    /// SERVERS; the roles are 0 if the format has none.
    Servers(Vec<ServerEntry<Bytes>>),
    /// DB.
    Db {
        /// Database id.
        id: u32,
    },
    /// STMT, with a tail offset of 0 in schema 0.
    Stmt(Stmt),
    /// RESULT.
    Result(ExecResult),
    /// ROWS, one frame.
    Rows(Rows),
    /// EMPTY.
    Empty,
    /// FILES: names and contents.
    Files(Vec<(Bytes, Bytes)>),
    /// METADATA.
    Metadata {
        /// Failure domain.
        failure_domain: u64,
        /// Weight.
        weight: u64,
    },
}

/// A response that was not understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ResponseError {
    /// No response has this type.
    #[error("unrecognized response type {kind}")]
    UnknownType {
        /// The type.
        kind: u8,
    },
    /// The body ends too early, or a text has no end.
    #[error("malformed response body: {0}")]
    Malformed(#[from] Truncated),
}

impl Response {
    /// Decodes the frame with this header and body. `format` is the one that was asked for, if this is
    /// SERVERS.
    pub fn decode(header: Header, body: Bytes, format: ClusterFormat) -> Result<Response, ResponseError> {
        let kind =
            ResponseType::from_u8(header.kind).ok_or(ResponseError::UnknownType { kind: header.kind })?;
        let mut body = Reader::new(body);
        Ok(match kind {
            ResponseType::Failure => Response::Failure { code: body.u64()?, message: body.text()? },
            ResponseType::Server => Response::Server { id: body.u64()?, address: body.text()? },
            ResponseType::Welcome => Response::Welcome { heartbeat_timeout_ms: body.u64()? },
            ResponseType::Servers => Response::Servers(decode_servers(format, &mut body)?),
            ResponseType::Db => {
                let id = body.u32()?;
                body.u32()?;
                Response::Db { id }
            }
            ResponseType::Stmt => Response::Stmt(Stmt {
                db: body.u32()?,
                id: body.u32()?,
                params: body.u64()?,
                tail_offset: if header.schema == Schema::V1 as u8 { body.u64()? } else { 0 },
            }),
            ResponseType::Result => Response::Result(ExecResult {
                last_insert_id: body.u64()? as i64,
                rows_affected: body.u64()?,
            }),
            ResponseType::Rows => Response::Rows(Rows::decode(body)?),
            ResponseType::Empty => body.u64().map(|_| Response::Empty)?,
            ResponseType::Files => Response::Files(decode_files(&mut body)?),
            ResponseType::Metadata => Response::Metadata { failure_domain: body.u64()?, weight: body.u64()? },
        })
    }
}

/// A count of items that take at least `size` bytes each, if the body can hold them.
fn decode_count(size: usize, body: &mut Reader) -> Result<usize, Truncated> {
    let offset = body.offset();
    usize::try_from(body.u64()?)
        .ok()
        .filter(|count| *count <= body.remaining() / size)
        .ok_or(Truncated { offset })
}

fn decode_servers(format: ClusterFormat, body: &mut Reader) -> Result<Vec<ServerEntry<Bytes>>, Truncated> {
    (0..decode_count(16, body)?)
        .map(|_| {
            let (id, address) = (body.u64()?, body.text()?);
            let role = if format == ClusterFormat::V1 { body.u64()? } else { 0 };
            Ok(ServerEntry { id, address, role })
        })
        .collect()
}

fn decode_files(body: &mut Reader) -> Result<Vec<(Bytes, Bytes)>, Truncated> {
    (0..decode_count(16, body)?)
        .map(|_| {
            let name = body.text()?;
            let offset = body.offset();
            let size = usize::try_from(body.u64()?).map_err(|_| Truncated { offset })?;
            Ok((name, body.take(size)?))
        })
        .collect()
}

/// Decodes the body of SERVER on a connection of the legacy protocol: the address.
pub fn decode_legacy_server(body: Bytes) -> Result<Bytes, Truncated> {
    Reader::new(body).text()
}

#[cfg(test)]
#[path = "response_test.rs"]
mod tests;

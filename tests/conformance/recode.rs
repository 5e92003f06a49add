//! Every recorded frame, decoded and encoded again: the same bytes must come out.

use bytes::{BufMut, Bytes, BytesMut};
use dqlite::wire::frame::{HEADER_SIZE, Header};
use dqlite::wire::request::Request;
use dqlite::wire::response::{self, ClusterFormat, FileEntry, Response};
use dqlite::wire::rows::{Rows, RowsEnd, RowsFrame, RowsStep};
use dqlite::wire::tuple::{Schema, Value};

use super::replay::{Fixture, Op};

/// Splits what was sent in one piece into frames.
fn split(mut bytes: Bytes) -> Vec<(Header, Bytes)> {
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        let frame = HEADER_SIZE..HEADER_SIZE + size(&bytes);
        assert!(frame.end <= bytes.len(), "half a frame was sent");
        frames.push((header(&bytes), bytes.slice(frame.clone())));
        bytes = bytes.slice(frame.end..);
    }
    frames
}

fn header(frame: &[u8]) -> Header {
    Header::decode(frame[..HEADER_SIZE].try_into().unwrap())
}

fn size(frame: &[u8]) -> usize {
    usize::try_from(header(frame).body_size()).unwrap()
}

/// The request frames of a transcript, without the version words.
pub fn requests(fixture: &Fixture) -> Vec<(Header, Bytes)> {
    let mut greeted = Vec::new();
    let mut frames = Vec::new();
    for step in fixture.steps.iter().filter(|step| step.op == Op::Send) {
        let mut bytes = Bytes::from(step.bytes.clone());
        if !greeted.contains(&&step.connection) {
            greeted.push(&step.connection);
            bytes = bytes.slice(8..);
        }
        frames.extend(split(bytes));
    }
    frames
}

/// A request, decoded and encoded again.
pub fn request(header: Header, body: Bytes) -> Result<Bytes, String> {
    let request = Request::decode(header, body).map_err(|error| error.to_string())?;
    let mut out = BytesMut::new();
    request.encode(&mut out).map_err(|error| error.to_string())?;
    Ok(out.freeze())
}

/// A response, decoded and encoded again.
pub fn response(frame: &[u8], format: ClusterFormat) -> Result<Bytes, String> {
    let (header, body) = (header(frame), Bytes::copy_from_slice(&frame[HEADER_SIZE..]));
    let mut out = BytesMut::new();
    match Response::decode(header, body, format).map_err(|error| error.to_string())? {
        Response::Failure { code, message } => response::failure(&mut out, code, &message),
        Response::Server { id, address } => response::server(&mut out, id, &address),
        Response::Welcome { heartbeat_timeout_ms } => response::welcome(&mut out, heartbeat_timeout_ms),
        Response::Servers(servers) => response::servers(&mut out, format, servers),
        Response::Db { id } => response::db(&mut out, id),
        Response::Stmt(stmt) => {
            let schema = if header.schema == 0 { Schema::V0 } else { Schema::V1 };
            response::stmt(&mut out, schema, stmt);
        }
        Response::Result(result) => response::result(&mut out, result),
        Response::Rows(decoded) => out = rows(decoded)?,
        Response::Empty => response::empty(&mut out),
        Response::Files(files) => {
            let entries: Vec<_> =
                files.iter().map(|(name, content)| FileEntry { name, size: content.len() as u64 }).collect();
            response::files_head(&mut out, &entries).map_err(|error| error.to_string())?;
            for (entry, (_, content)) in entries.iter().zip(&files) {
                response::file_head(&mut out, *entry);
                out.put_slice(content);
            }
        }
        Response::Metadata { failure_domain, weight } => response::metadata(&mut out, failure_domain, weight),
    }
    Ok(out.freeze())
}

fn rows(mut decoded: Rows) -> Result<BytesMut, String> {
    let mut frame = RowsFrame::begin(BytesMut::new(), &decoded.columns);
    let mut values = Vec::new();
    loop {
        match decoded.step(&mut values).map_err(|error| error.to_string())? {
            RowsStep::Row if frame.is_full() => return Err("a row in a full frame".to_owned()),
            RowsStep::Row => frame.row(|row| values.iter().for_each(|value| row.push(borrow(value)))),
            RowsStep::End(RowsEnd::Part) if !frame.is_full() => return Err("a frame ends early".to_owned()),
            RowsStep::End(end) => return frame.finish(end).map_err(|(_, error)| error.to_string()),
        }
    }
}

fn borrow(value: &Value<Bytes>) -> Value<&[u8]> {
    match value {
        Value::Integer(n) => Value::Integer(*n),
        Value::Float(x) => Value::Float(*x),
        Value::Text(text) => Value::Text(text),
        Value::Blob(blob) => Value::Blob(blob),
        Value::Null => Value::Null,
        Value::UnixTime(n) => Value::UnixTime(*n),
        Value::Iso8601(text) => Value::Iso8601(text),
        Value::Boolean(n) => Value::Boolean(*n),
    }
}

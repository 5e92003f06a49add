//! A node in this process and a blocking client for it, shared by the tests that drive a real node.

// A test reports what goes wrong by panicking.
#![allow(clippy::unwrap_used)]

use bytes::{Bytes, BytesMut};
use dqlite::node::Node;
use dqlite::wire::frame::{HEADER_SIZE, Header};
use dqlite::wire::request::{Request, Sql};
use dqlite::wire::response::{ClusterFormat, ExecResult, Response};
use dqlite::wire::rows::{RowsEnd, RowsStep};
use dqlite::wire::tuple::{Params, Schema, Value};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

/// A running node with a directory of its own.
pub struct TestNode {
    pub node: Node,
    pub address: SocketAddr,
}

/// An address nobody listens on.
pub fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

impl TestNode {
    /// Starts node 1 on `directory`.
    pub fn start(directory: &Path) -> TestNode {
        TestNode::start_with(directory, |_| {})
    }

    /// The same after `set` has changed its settings.
    pub fn start_with(directory: &Path, set: impl FnOnce(&Node)) -> TestNode {
        TestNode::start_member(1, free_address(), directory, set)
    }

    /// Starts any node; one with another id than 1 waits to be added to a cluster.
    pub fn start_member(id: u64, address: SocketAddr, directory: &Path, set: impl FnOnce(&Node)) -> TestNode {
        let node = Node::create(id, &address.to_string(), directory).unwrap();
        node.set_bind_address(&address.to_string()).unwrap();
        set(&node);
        node.start().unwrap();
        TestNode { node, address }
    }

    /// A client without a database.
    pub fn connect(&self) -> Client {
        Client::connect(self.address).unwrap()
    }

    /// A client with a database.
    pub fn open(&self, name: &str) -> Client {
        let mut client = self.connect();
        client.open(name).unwrap();
        client
    }
}

/// What a request failed with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub code: u64,
    pub message: String,
}

/// A code and text that the node never sends: the connection is closed.
pub fn disconnected() -> Failure {
    Failure { code: u64::MAX, message: "disconnected".into() }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => panic!("no answer within 30 s"),
            _ => disconnected(),
        }
    }
}

/// A value of a row, owned.
pub type Cell = Value<Bytes>;

/// A blocking connection.
pub struct Client {
    pub stream: TcpStream,
}

impl Client {
    pub fn connect(address: SocketAddr) -> io::Result<Client> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        stream.write_all(&1u64.to_le_bytes())?;
        Ok(Client { stream })
    }

    pub fn send(&mut self, request: Request) -> io::Result<()> {
        let mut out = BytesMut::new();
        request.encode(&mut out).unwrap();
        self.stream.write_all(&out)
    }

    pub fn receive(&mut self) -> Result<Response, Failure> {
        let mut header = [0; HEADER_SIZE];
        self.stream.read_exact(&mut header)?;
        let header = Header::decode(header);
        let mut body = vec![0; header.body_size() as usize];
        self.stream.read_exact(&mut body)?;
        match Response::decode(header, body.into(), ClusterFormat::V1).unwrap() {
            Response::Failure { code, message } => {
                Err(Failure { code, message: String::from_utf8_lossy(&message).into_owned() })
            }
            response => Ok(response),
        }
    }

    pub fn call(&mut self, request: Request) -> Result<Response, Failure> {
        self.send(request)?;
        self.receive()
    }

    pub fn open(&mut self, name: &str) -> Result<(), Failure> {
        let request = Request::Open { name: name.to_owned().into(), flags: 0, vfs: Bytes::new() };
        self.call(request).map(drop)
    }

    pub fn exec(&mut self, sql: &str) -> Result<ExecResult, Failure> {
        self.exec_with(sql, &[])
    }

    pub fn exec_with(&mut self, sql: &str, params: &[Cell]) -> Result<ExecResult, Failure> {
        match self.call(Request::ExecSql(text(sql, params)))? {
            Response::Result(result) => Ok(result),
            other => panic!("{sql}: {other:?}"),
        }
    }

    pub fn query(&mut self, sql: &str) -> Result<Vec<Vec<Cell>>, Failure> {
        self.send(Request::QuerySql(text(sql, &[])))?;
        self.receive_rows()
    }

    pub fn receive_rows(&mut self) -> Result<Vec<Vec<Cell>>, Failure> {
        let mut all = Vec::new();
        loop {
            let mut rows = match self.receive()? {
                Response::Rows(rows) => rows,
                other => panic!("{other:?}"),
            };
            loop {
                let mut row = Vec::new();
                match rows.step(&mut row).unwrap() {
                    RowsStep::Row => all.push(row),
                    RowsStep::End(RowsEnd::Part) => break,
                    RowsStep::End(RowsEnd::Done) => return Ok(all),
                }
            }
        }
    }

    /// The integer that a query with one row and one column returns.
    pub fn integer(&mut self, sql: &str) -> i64 {
        match self.query(sql).unwrap()[0][0] {
            Value::Integer(n) => n,
            ref other => panic!("{sql}: {other:?}"),
        }
    }

    /// The text that a query with one row and one column returns.
    pub fn text(&mut self, sql: &str) -> String {
        match &self.query(sql).unwrap()[0][0] {
            Value::Text(t) => String::from_utf8_lossy(t).into_owned(),
            other => panic!("{sql}: {other:?}"),
        }
    }
}

pub fn text(sql: &str, params: &[Cell]) -> Sql {
    Sql { db: 0, sql: sql.to_owned().into(), schema: Schema::V1, params: Params::from_values(params) }
}

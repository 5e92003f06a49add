//! Replays recorded client connections against a node and compares every byte it answers.
//!
//! A transcript is one file of `wire/`, described by the README there. Connections are opened when they are
//! first named; steps are played in order. What is not in a transcript, where nodes are and when they die, is
//! asked of [`Nodes`]. What the node may do otherwise than the recorded one is passed in
//! as [`Difference`]s; anything else is a [`Mismatch`].

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

/// How long an expected answer may take: much longer than any of them does.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// How long "no answer" is watched, as when it was recorded.
const SILENCE: Duration = Duration::from_millis(400);
/// How long a closed connection may take to be noticed by the node, whose next answer depends on it.
const NOTICE_CLOSE: Duration = Duration::from_millis(200);
/// How long to look for bytes that nobody asked for when a transcript is over.
const UNSOLICITED: Duration = Duration::from_millis(20);

/// The node that a transcript was recorded on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSetup {
    pub id: u64,
    pub address: String,
    pub busy_timeout_ms: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// One write.
    Send,
    /// Exactly one frame.
    Recv,
    /// Nothing for a while.
    NoResponse,
    /// The end of the stream.
    ServerClosed,
    /// The client closes.
    ClientClose,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub connection: String,
    pub op: Op,
    pub bytes: Vec<u8>,
}

/// A recorded transcript.
#[derive(Debug, Clone)]
pub struct Fixture {
    /// Name of the case.
    pub case: String,
    /// Version of the recorded node.
    pub version: String,
    pub node: NodeSetup,
    pub steps: Vec<Step>,
    /// The recorded node died of it.
    pub died: bool,
    /// The recording ends in the middle of an answer.
    pub cut_short: bool,
}

impl Fixture {
    /// Reads every transcript of a directory, in the order of their names.
    pub fn load_all(directory: &Path) -> Vec<Fixture> {
        let mut paths: Vec<_> = std::fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
            .collect();
        paths.sort();
        paths.iter().map(|path| Fixture::load(path)).collect()
    }

    fn load(path: &Path) -> Fixture {
        let json: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let step = |step: &Value| Step {
            connection: text(&step["conn"]),
            op: match step["op"].as_str().unwrap() {
                "send" => Op::Send,
                "recv" => Op::Recv,
                "no_response" => Op::NoResponse,
                "server_closed" => Op::ServerClosed,
                "client_close" => Op::ClientClose,
                other => panic!("{}: unknown step {other}", path.display()),
            },
            bytes: step["hex"].as_str().map(from_hex).unwrap_or_default(),
        };
        Fixture {
            case: text(&json["name"]),
            version: text(&json["server_version"]),
            node: NodeSetup {
                id: json["node"]["id"].as_u64().unwrap(),
                address: text(&json["node"]["address"]),
                busy_timeout_ms: json["node"]["busy_timeout_ms"].as_u64().unwrap().try_into().unwrap(),
            },
            steps: json["steps"].as_array().unwrap().iter().map(step).collect(),
            died: json["upstream_process_died"].as_bool().unwrap(),
            cut_short: json["volatile"].as_str().is_some_and(|note| note.contains("recording stopped")),
        }
    }

    /// What the client did, without what it got.
    pub fn client_side(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter().filter(|step| matches!(step.op, Op::Send | Op::ClientClose))
    }
}

fn from_hex(hex: &str) -> Vec<u8> {
    assert!(hex.len().is_multiple_of(2), "odd number of digits");
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

/// Where a node answers otherwise than the recorded one, on purpose.
#[derive(Debug)]
pub struct Difference {
    /// The case, whatever the version.
    pub case: &'static str,
    /// Index of the step whose answer differs.
    pub step: usize,
    pub instead: Instead,
    /// The rule it follows.
    pub why: &'static str,
}

#[derive(Debug)]
pub enum Instead {
    /// This frame, computed from the recorded one.
    Frame(fn(recorded: &[u8]) -> Vec<u8>),
    /// The recorded frame, but for these bytes.
    Except(&'static [Range<usize>]),
    /// The recorded frame, or at once what a later step records, all between left out.
    OrSkipTo(usize),
}

/// The first answer of a transcript that is not the expected one.
#[derive(Debug)]
pub struct Mismatch {
    pub step: usize,
    pub problem: String,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "step {}: {}", self.step, self.problem)
    }
}

/// The nodes that a transcript is played against.
pub trait Nodes {
    /// Where a connection of this name goes to.
    fn address(&self, connection: &str) -> &str;

    /// Brings the nodes into the state that was recorded at a step, before it is played.
    fn before(&mut self, _step: usize) {}
}

/// Plays a transcript.
pub fn replay(fixture: &Fixture, differences: &[Difference], nodes: &mut impl Nodes) -> Result<(), Mismatch> {
    let mut connections = BTreeMap::new();
    let mut step = 0;
    while step < fixture.steps.len() {
        nodes.before(step);
        let name = &fixture.steps[step].connection;
        if !connections.contains_key(name) {
            let stream = connect(nodes.address(name));
            let stream = stream.map_err(|error| Mismatch { step, problem: format!("connect: {error}") })?;
            connections.insert(name.clone(), stream);
        }
        let difference = differences.iter().find(|d| d.case == fixture.case && d.step == step);
        step = play(fixture, step, difference.map(|d| &d.instead), &mut connections)
            .map_err(|problem| Mismatch { step, problem })?;
    }
    if fixture.cut_short && differences.iter().all(|d| d.case != fixture.case) {
        return Ok(());
    }
    for (name, connection) in &mut connections {
        let unsolicited = match receive_some(connection, UNSOLICITED) {
            Ok(Some(bytes)) if bytes.is_empty() => "the node closed the connection".to_owned(),
            Ok(Some(bytes)) => format!("the node went on with {}", to_hex(&bytes)),
            Ok(None) => continue,
            Err(error) => error.to_string(),
        };
        return Err(Mismatch { step, problem: format!("at the end, on connection {name}: {unsolicited}") });
    }
    Ok(())
}

/// Plays one step; returns the next.
fn play(
    fixture: &Fixture,
    index: usize,
    instead: Option<&Instead>,
    connections: &mut BTreeMap<String, TcpStream>,
) -> Result<usize, String> {
    let step = &fixture.steps[index];
    let stream = connections.get_mut(&step.connection).unwrap();
    match (step.op, instead) {
        (Op::ServerClosed, None) => {
            expect_end(stream)?;
            connections.remove(&step.connection);
        }
        (Op::Send, _) => stream.write_all(&step.bytes).map_err(|error| format!("send: {error}"))?,
        (Op::ClientClose, _) => {
            // The name may be used again only for a new connection.
            drop(connections.remove(&step.connection));
            std::thread::sleep(NOTICE_CLOSE);
        }
        (_, Some(Instead::OrSkipTo(later))) => {
            let got = receive_frame(stream)?;
            if compare(&step.bytes, &got, &[]).is_err() {
                compare(&fixture.steps[*later].bytes, &got, &[])?;
                return Ok(later + 1);
            }
        }
        (_, Some(Instead::Frame(ours))) => compare(&ours(&step.bytes), &receive_frame(stream)?, &[])?,
        (_, Some(Instead::Except(ranges))) => compare(&step.bytes, &receive_frame(stream)?, ranges)?,
        (Op::Recv, None) => compare(&step.bytes, &receive_frame(stream)?, &[])?,
        (Op::NoResponse, None) => match receive_some(stream, SILENCE) {
            Ok(None) => {}
            Ok(Some(bytes)) => return Err(format!("expected silence, got {}", to_hex(&bytes))),
            Err(error) => return Err(format!("expected silence, got an error: {error}")),
        },
    }
    Ok(index + 1)
}

fn connect(address: &str) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn expect_end(stream: &mut TcpStream) -> Result<(), String> {
    let got = match receive_some(stream, ANSWER_TIMEOUT) {
        Ok(Some(bytes)) if bytes.is_empty() => return Ok(()),
        // Closed with bytes of ours unread.
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(()),
        Ok(None) => "nothing".to_owned(),
        Ok(Some(bytes)) => to_hex(&bytes),
        Err(error) => error.to_string(),
    };
    Err(format!("expected the end of the stream, got {got}"))
}

fn receive_frame(stream: &mut TcpStream) -> Result<Vec<u8>, String> {
    let mut frame = vec![0; 8];
    let problem = |what: &str, error: io::Error| format!("expected a frame, no {what} came: {error}");
    stream.set_read_timeout(Some(ANSWER_TIMEOUT)).unwrap();
    stream.read_exact(&mut frame).map_err(|error| problem("header", error))?;
    let words = u32::from_le_bytes(frame[..4].try_into().unwrap());
    frame.resize(8 + words as usize * 8, 0);
    stream.read_exact(&mut frame[8..]).map_err(|error| problem("body", error))?;
    Ok(frame)
}

/// Bytes, an empty vector at the end of the stream, or `None` if nothing came in time.
fn receive_some(stream: &mut TcpStream, timeout: Duration) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = vec![0; 256];
    stream.set_read_timeout(Some(timeout))?;
    match stream.read(&mut bytes) {
        Ok(count) => {
            bytes.truncate(count);
            Ok(Some(bytes))
        }
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => Ok(None),
        Err(error) => Err(error),
    }
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Compares two frames, ignoring `except`; the error shows the lines that differ.
pub fn compare(expected: &[u8], got: &[u8], except: &[Range<usize>]) -> Result<(), String> {
    const LINE: usize = 16;
    const LINES_SHOWN: usize = 8;
    let differs = |at: &usize| expected.get(*at) != got.get(*at) && !except.iter().any(|r| r.contains(at));
    let length = expected.len().max(got.len());
    let mut lines: Vec<usize> = (0..length).filter(differs).map(|at| at / LINE * LINE).collect();
    lines.dedup();
    if lines.is_empty() {
        return Ok(());
    }
    let mut text = format!("expected a frame of {} bytes, got {}", expected.len(), got.len());
    for line in lines.iter().take(LINES_SHOWN) {
        for (what, bytes) in [("expected", expected), ("got", got)] {
            let shown = bytes.get(*line..).map(|rest| &rest[..rest.len().min(LINE)]).unwrap_or_default();
            let _ = write!(text, "\n    {line:6x} {what:>8}  {:32}  {}", to_hex(shown), printable(shown));
        }
    }
    if lines.len() > LINES_SHOWN {
        let _ = write!(text, "\n    and {} more lines", lines.len() - LINES_SHOWN);
    }
    Err(text)
}

fn printable(bytes: &[u8]) -> String {
    bytes.iter().map(|b| if b.is_ascii_graphic() || *b == b' ' { char::from(*b) } else { '.' }).collect()
}

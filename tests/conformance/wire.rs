//! Conformance with the client protocol: connections that were recorded with C nodes, replayed against ours.
//!
//! One test plays all of them, one after another, each against a fresh node: they share an address, because
//! LEADER and CLUSTER answer with it. Those recorded in a cluster are played in the order of the recording,
//! on one cluster, which each leaves as the next one found it.
//!
//! With `WIRE_CONFORMANCE_HOST` in the environment that test starts the nodes of another library instead, and
//! plays what was recorded with the version in `WIRE_CONFORMANCE_VERSION`, without our differences. The
//! variable names a program, which is called with node id, address, busy timeout in milliseconds and an empty
//! directory; it starts a node, writes a line when it is up, and stops when its standard input ends.

// A test reports a broken recording by panicking.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use dqlite::node::Node;
use dqlite::wire::response::ClusterFormat;
use replay::{Difference, Fixture, Instead, NodeSetup, Nodes, Op, replay};
use tempfile::TempDir;
use wire_differences::{
    DIFFERENCES, IN_A_CLUSTER, InACluster, NEVER_THE_SAME, NotReplayed, SUPERSEDED_BY_1_18_6,
};

mod recode;
mod replay;
mod wire_differences;

const REFERENCE: &str = "1.18.6";

/// Held by whoever listens on the recorded address.
static ADDRESS: Mutex<()> = Mutex::new(());

fn fixtures() -> Vec<Fixture> {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/conformance/wire");
    let fixtures = Fixture::load_all(directory.as_ref());
    assert!(fixtures.len() > 150, "only {} transcripts in {directory}", fixtures.len());
    fixtures
}

fn is_listed(list: &[NotReplayed], fixture: &Fixture) -> bool {
    list.iter().any(|entry| entry.case == fixture.case)
}

fn is_in_a_cluster(fixture: &Fixture) -> bool {
    IN_A_CLUSTER.iter().any(|entry| entry.case == fixture.case)
}

fn is_superseded(fixture: &Fixture) -> bool {
    fixture.version != REFERENCE && is_listed(SUPERSEDED_BY_1_18_6, fixture)
}

/// Plays the transcripts one after another, each against a node of its own, which `start` returns running and
/// whose drop stops it. Reports all that fail.
fn replay_all<N>(
    fixtures: &[Fixture],
    differences: &[Difference],
    start: impl Fn(&NodeSetup) -> Result<N, String>,
) {
    let _address = ADDRESS.lock().unwrap_or_else(PoisonError::into_inner);
    let failures: Vec<String> = fixtures
        .iter()
        .filter_map(|fixture| {
            let result = match start(&fixture.node) {
                Ok(_node) => replay(fixture, differences, &mut OnlyNode(&fixture.node.address))
                    .map_err(|mismatch| mismatch.to_string()),
                Err(error) => Err(format!("the node does not start: {error}")),
            };
            result.err().map(|problem| report(fixture, &problem))
        })
        .collect();
    let (failed, played) = (failures.len(), fixtures.len());
    assert!(failures.is_empty(), "{failed} of {played} transcripts:\n\n{}\n", failures.join("\n\n"));
}

fn report(fixture: &Fixture, problem: &str) -> String {
    format!("{} (recorded with {}): {problem}", fixture.case, fixture.version)
}

/// All connections go to one address.
struct OnlyNode<'a>(&'a str);

impl Nodes for OnlyNode<'_> {
    fn address(&self, _connection: &str) -> &str {
        self.0
    }
}

/// One of our nodes, running.
struct RunningNode {
    node: Node,
    address: String,
    _directory: TempDir,
}

impl RunningNode {
    fn start(setup: &NodeSetup) -> Result<RunningNode, String> {
        let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
        let start = || {
            let node = Node::create(setup.id, &setup.address, directory.path())?;
            node.set_bind_address(&setup.address)?;
            node.set_busy_timeout(setup.busy_timeout_ms)?;
            node.start()?;
            Ok(node)
        };
        let node = start().map_err(|error: dqlite::node::Error| error.to_string())?;
        Ok(RunningNode { node, address: setup.address.clone(), _directory: directory })
    }
}

impl Drop for RunningNode {
    fn drop(&mut self) {
        self.node.stop().unwrap();
    }
}

#[test]
fn recorded_connections_are_answered_byte_for_byte() {
    if let Ok(program) = std::env::var("WIRE_CONFORMANCE_HOST") {
        return replay_against_another_library(&program);
    }
    let fixtures: Vec<_> = fixtures()
        .into_iter()
        .filter(|fixture| !is_in_a_cluster(fixture) && !is_superseded(fixture))
        .collect();
    replay_all(&fixtures, DIFFERENCES, RunningNode::start);
}

/// The nodes of a recorded cluster, node 1 first, while one of its transcripts is played.
struct Cluster<'a> {
    nodes: &'a mut Vec<RunningNode>,
    case: &'a InACluster,
}

impl Nodes for Cluster<'_> {
    fn address(&self, connection: &str) -> &str {
        let (_, number) = self.case.connections.iter().find(|(name, _)| *name == connection).unwrap();
        &self.nodes[number - 1].address
    }

    fn before(&mut self, step: usize) {
        if self.case.only_node_1_from == Some(step) {
            self.nodes.truncate(1);
        }
    }
}

/// Nodes 1, 2 and 3 at the recorded address and the two ports behind it; only node 1 is in a cluster.
fn three_nodes(first: &NodeSetup) -> Vec<RunningNode> {
    let (host, port) = first.address.rsplit_once(':').unwrap();
    let port: u64 = port.parse().unwrap();
    let setup = |id| NodeSetup { id, address: format!("{host}:{}", port + id - 1), ..first.clone() };
    (1..=3).map(|id| RunningNode::start(&setup(id)).unwrap()).collect()
}

#[test]
fn connections_recorded_in_a_cluster_are_answered_byte_for_byte() {
    if std::env::var_os("WIRE_CONFORMANCE_HOST").is_some() {
        return;
    }
    let _address = ADDRESS.lock().unwrap_or_else(PoisonError::into_inner);
    let fixtures = fixtures();
    for version in ["1.11.1", REFERENCE] {
        let recorded = |case| fixtures.iter().find(|f| f.case == case && f.version == version).unwrap();
        let mut nodes = three_nodes(&recorded(IN_A_CLUSTER[0].case).node);
        for case in IN_A_CLUSTER {
            let fixture = recorded(case.case);
            if is_superseded(fixture) {
                continue;
            }
            let mut cluster = Cluster { nodes: &mut nodes, case };
            if let Err(mismatch) = replay(fixture, DIFFERENCES, &mut cluster) {
                panic!("{}", report(fixture, &mismatch.to_string()));
            }
        }
    }
}

#[test]
fn a_superseded_transcript_asks_what_its_successor_asks_and_is_answered_otherwise() {
    let fixtures = fixtures();
    let find = |case: &str, reference: bool| {
        fixtures
            .iter()
            .find(|f| f.case == case && (f.version == REFERENCE) == reference)
            .unwrap_or_else(|| panic!("no transcript {case}"))
    };
    for entry in SUPERSEDED_BY_1_18_6 {
        let (old, new) = (find(entry.case, false), find(entry.case, true));
        let same = old.client_side().zip(new.client_side()).all(|(old, new)| old == new);
        assert!(same, "{}: the two clients did different things", entry.case);
        assert!(
            old.client_side().count() <= new.client_side().count(),
            "{}: 1.18.6 was asked less",
            entry.case
        );
        assert_ne!(old.steps, new.steps, "{}: nothing differs", entry.case);
    }
}

#[test]
fn every_exception_is_about_a_recorded_answer() {
    let fixtures = fixtures();
    for entry in SUPERSEDED_BY_1_18_6.iter().chain(NEVER_THE_SAME) {
        assert!(!entry.why.is_empty());
        assert!(fixtures.iter().any(|f| f.case == entry.case), "no transcript {}", entry.case);
    }
    for difference in DIFFERENCES {
        let (case, step) = (difference.case, difference.step);
        assert!(!difference.why.is_empty());
        let mut answers = fixtures
            .iter()
            .filter(|f| f.case == case && !is_superseded(f))
            .map(|f| &f.steps[step])
            .peekable();
        assert!(answers.peek().is_some(), "no transcript {case}");
        for answer in answers {
            assert!(matches!(answer.op, Op::Recv | Op::ServerClosed), "{case}: step {step} is no answer");
            if let Instead::Frame(ours) = &difference.instead {
                assert_ne!(ours(&answer.bytes), answer.bytes, "{case}: step {step} is no difference");
            }
        }
    }
}

#[test]
fn a_transcript_whose_node_died_has_a_difference_or_a_good_answer() {
    for fixture in fixtures().iter().filter(|fixture| fixture.died && !is_superseded(fixture)) {
        let differs = DIFFERENCES.iter().any(|difference| difference.case == fixture.case);
        let ends_well = fixture.steps.last().is_some_and(|step| step.op == Op::Recv);
        assert!(differs || ends_well, "{} records a crash", fixture.case);
    }
}

/// The transcripts but for those with one of these prefixes, each of which must be one.
fn fixtures_except(prefixes: &[&str]) -> Vec<Fixture> {
    let fixtures = fixtures();
    for prefix in prefixes {
        assert!(fixtures.iter().any(|fixture| fixture.case.starts_with(prefix)), "no transcript {prefix}");
    }
    let excepted = |fixture: &Fixture| prefixes.iter().any(|prefix| fixture.case.starts_with(prefix));
    fixtures.into_iter().filter(|fixture| !excepted(fixture)).collect()
}

#[test]
fn recorded_requests_are_reproduced_by_our_encoder() {
    // What our client would not send: broken and unknown requests, a tuple of no parameters, dirty padding.
    let fixtures = fixtures_except(&[
        "exec-bad-schema",
        "prepare-bad-schema",
        "heartbeat",
        "malformed-",
        "unknown-request-type",
        "params-count-zero",
        "query-prepared-v0",
        "text-padding-garbage",
    ]);
    for fixture in &fixtures {
        for (header, body) in recode::requests(fixture) {
            let sent = Bytes::from([&header.encode()[..], &body].concat());
            assert_eq!(recode::request(header, body), Ok(sent), "{}", fixture.case);
        }
    }
}

#[test]
fn recorded_responses_are_reproduced_by_our_encoder() {
    // What our node would not answer, see the differences; and stale bytes in the padding of a blob.
    let fixtures = fixtures_except(&["rows-error-", "rows-header-over-page", "params-all-types-v0"]);
    for fixture in &fixtures {
        for step in fixture.steps.iter().filter(|step| step.op == Op::Recv) {
            // A transcript does not say which format was asked for.
            let ours =
                [ClusterFormat::V0, ClusterFormat::V1].map(|format| recode::response(&step.bytes, format));
            let reproduced = ours.iter().any(|ours| ours.as_ref().is_ok_and(|ours| *ours == step.bytes));
            assert!(reproduced, "{}: {:?} became {ours:?}", fixture.case, step.bytes);
        }
    }
}

/// Plays the node's side of a transcript, with `tamper` applied to each frame it sends.
fn replay_against_script(
    case: &str,
    tamper: impl Fn(usize, &mut Vec<u8>) + Send,
) -> Result<(), replay::Mismatch> {
    let mut fixture = fixtures().into_iter().find(|f| f.case == case && f.version == REFERENCE).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    fixture.node.address = listener.local_addr().unwrap().to_string();
    std::thread::scope(|scope| {
        let steps = &fixture.steps;
        scope.spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            for (index, step) in steps.iter().enumerate() {
                let mut bytes = step.bytes.clone();
                match step.op {
                    // The client leaves at its first mismatch.
                    Op::Send if stream.read_exact(&mut bytes).is_err() => return,
                    Op::Recv => {
                        tamper(index, &mut bytes);
                        let _ = stream.write_all(&bytes);
                    }
                    _ => {}
                }
            }
            // Until the client has looked for more.
            let _ = stream.read(&mut [0]);
        });
        replay(&fixture, &[], &mut OnlyNode(&fixture.node.address))
    })
}

#[test]
fn the_replayer_accepts_what_was_recorded_and_nothing_else() {
    replay_against_script("cluster-v1", |_, _| {}).unwrap();
    let mismatch =
        replay_against_script("cluster-v1", |_, frame| *frame.last_mut().unwrap() ^= 1).unwrap_err();
    assert_eq!(mismatch.step, 2);
    assert!(mismatch.problem.contains("expected a frame of 48 bytes, got 48"), "{mismatch}");
    let mismatch = replay_against_script("cluster-v1", |_, frame| frame.push(0)).unwrap_err();
    assert!(mismatch.problem.contains("went on with 00"), "{mismatch}");
    let mismatch = replay_against_script("cluster-v1", |_, frame| frame[0] -= 1).unwrap_err();
    assert!(mismatch.problem.contains("expected a frame of 48 bytes, got 40"), "{mismatch}");
}

/// A program that runs a node of another library.
struct HostProgram {
    child: Child,
    _directory: TempDir,
}

impl HostProgram {
    fn start(program: &str, setup: &NodeSetup) -> Result<HostProgram, String> {
        let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
        let mut child = Command::new(program)
            .args([&setup.id.to_string(), &setup.address, &setup.busy_timeout_ms.to_string()])
            .arg(directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{program}: {error}"))?;
        let mut line = String::new();
        let read = BufReader::new(child.stdout.take().unwrap()).read_line(&mut line);
        let host = HostProgram { child, _directory: directory };
        match read {
            Ok(count) if count > 0 => Ok(host),
            _ => Err(format!("{program} did not come up")),
        }
    }
}

impl Drop for HostProgram {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        // It may have died of the transcript.
        let _ = self.child.wait();
    }
}

fn replay_against_another_library(program: &str) {
    let version = std::env::var("WIRE_CONFORMANCE_VERSION").expect("the version to play is set too");
    let fixtures: Vec<_> = fixtures()
        .into_iter()
        .filter(|fixture| fixture.version == version)
        .filter(|fixture| !is_in_a_cluster(fixture) && !is_listed(NEVER_THE_SAME, fixture))
        .collect();
    assert!(!fixtures.is_empty(), "nothing was recorded with {version}");
    replay_all(&fixtures, &[], |setup| HostProgram::start(program, setup));
}

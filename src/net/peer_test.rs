use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;

use parking_lot::Mutex;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::*;
use crate::config::{PEER_QUEUE_BYTES_MAX, PEER_RECONNECT_MAX_MS};
use crate::net::connect::Connector;
use crate::net::framed::ReadBuffer;
use crate::net::listen::{BoundSocket, Listener};
use crate::net::receive::{Ended, Spool, Spools, receive};
use crate::raft::message::{AppendEntries, SnapshotData, TimeoutNow};
use crate::raft::types::{Entry, EntryKind, Index, Stamp, Term};

const TWO: ServerId = ServerId(2);
const MIB: usize = 1 << 20;

/// Longest time for anything to happen that must happen.
const PATIENCE: Duration = Duration::from_secs(20);

async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("nothing happened")
}

fn message(term: u64) -> Message {
    Message::TimeoutNow(TimeoutNow { term: Term(term), last_index: Index(1), last_term: Term(1) })
}

fn append(term: u64, size: usize) -> Message {
    let entry = Entry { term: Term(1), kind: EntryKind::Command, payload: vec![7; size].into() };
    Message::AppendEntries(AppendEntries {
        term: Term(term),
        prev_index: Index(1),
        prev_term: Term(1),
        leader_commit: Index(1),
        entries: vec![entry],
        stamp: Stamp(1),
    })
}

fn snapshot(size: usize) -> InstallSnapshot {
    InstallSnapshot {
        term: Term(1),
        last_index: Index(1),
        last_term: Term(1),
        configuration_index: Index(1),
        configuration: Default::default(),
        data: SnapshotData::new(Bytes::from(vec![7; size])),
    }
}

/// Keeps snapshots in memory.
struct Memory;

impl Spools for Memory {
    fn begin(&self, _: u64) -> io::Result<Box<dyn Spool>> {
        Ok(Box::new(Received(Vec::new())))
    }
}

struct Received(Vec<u8>);

impl Spool for Received {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.extend(bytes);
        Ok(())
    }

    fn finish(self: Box<Self>) -> io::Result<SnapshotData> {
        Ok(SnapshotData::new(Bytes::from(self.0)))
    }
}

fn peers(connect: Connect) -> (Peers, UnboundedReceiver<PeerEvent>) {
    let (sender, events) = unbounded_channel();
    let own = Peer { id: ServerId(1), address: "10.0.0.1:9001".into() };
    let report = move |event| {
        let _ = sender.send(event);
    };
    (Peers::new(&own, connect, Handle::current(), Arc::new(report)), events)
}

/// Another server.
struct Other {
    listener: Listener,
    address: String,
}

impl Other {
    fn new() -> Other {
        Other::on(&BoundSocket::bind(&"127.0.0.1:0".parse().unwrap()).unwrap())
    }

    fn on(socket: &BoundSocket) -> Other {
        Other { address: socket.address().to_string(), listener: socket.listen().unwrap() }
    }

    async fn accept(&self) -> Accepted {
        let stream = soon(self.listener.accept()).await;
        let mut buffer = ReadBuffer::new();
        let mut version = None;
        loop {
            version = version.or_else(|| buffer.next_version());
            if version.is_some()
                && let Some(frame) = buffer.next_frame().unwrap()
            {
                assert_eq!(version.and_then(Protocol::decode), Some(Protocol::Current));
                let Ok(Request::Connect(from)) = Request::decode(frame.header, frame.body) else { panic!() };
                return Accepted { stream, from, received: buffer.take_rest() };
            }
            soon(stream.readable()).await.unwrap();
            let _ = buffer.try_fill(&stream);
        }
    }
}

struct Accepted {
    stream: Stream,
    from: Server,
    received: BytesMut,
}

impl Accepted {
    /// The next messages, and the stream closed behind them; fewer if it ends before.
    async fn receive(self, count: usize) -> (Vec<Message>, Ended) {
        let mut messages = Vec::new();
        let spools: Arc<dyn Spools> = Arc::new(Memory);
        let ended = soon(receive(&self.stream, self.received, &spools, |message| {
            messages.push(message);
            let go_on = messages.len() < count;
            std::future::ready(if go_on { Ok(()) } else { Err(crate::net::receive::NotTaken) })
        }))
        .await;
        (messages, ended)
    }
}

const UNREACHABLE: PeerEvent = PeerEvent::Unreachable { id: TWO };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_introduces_itself_and_its_messages_arrive_in_order() {
    let (mut peers, _events) = peers(Connect::Tcp);
    let other = Other::new();
    let sent: Vec<Message> = (0..1000).map(|i| append(i, 8 * (i as usize % 50))).collect();
    for message in &sent {
        peers.send(TWO, &other.address, message.clone());
    }
    let accepted = other.accept().await;
    assert_eq!(accepted.from, Server { id: 1, address: Bytes::from_static(b"10.0.0.1:9001") });
    assert_eq!(accepted.receive(sent.len()).await.0, sent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_the_peer_closes_is_made_again_without_being_needed() {
    let (mut peers, mut events) = peers(Connect::Tcp);
    let other = Other::new();
    peers.send(TWO, &other.address, message(1));
    assert_eq!(other.accept().await.receive(1).await.0, [message(1)]);
    assert_eq!(soon(events.recv()).await, Some(UNREACHABLE));
    let again = other.accept().await;
    peers.send(TWO, &other.address, message(2));
    assert_eq!(again.receive(1).await.0, [message(2)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_does_not_read_costs_a_bounded_amount_of_memory() {
    let (mut peers, mut events) = peers(Connect::Tcp);
    let other = Other::new();
    peers.send(TWO, &other.address, message(0));
    let accepted = other.accept().await;
    // What the kernel buffers comes on top, some megabytes.
    let mut sent = vec![message(0)];
    while events.try_recv().is_err() {
        assert!(sent.len() < 200, "the queue has no bound");
        sent.push(append(sent.len() as u64, MIB));
        peers.send(TWO, &other.address, sent.last().unwrap().clone());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    for _ in 0..100 {
        peers.send(TWO, &other.address, append(0, MIB));
    }
    let bytes = peers.links[&TWO].outbox.bytes();
    assert!(bytes < PEER_QUEUE_BYTES_MAX + MIB + 100, "{bytes} bytes");
    sent.pop();
    assert_eq!(accepted.receive(sent.len()).await.0, sent, "what was queued is not lost");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_are_dropped_and_reported_until_the_peer_listens() {
    let (mut peers, mut events) = peers(Connect::Tcp);
    let bound = BoundSocket::bind(&"127.0.0.1:0".parse().unwrap()).unwrap();
    let address = bound.address().to_string();
    peers.send(TWO, &address, message(1));
    assert_eq!(soon(events.recv()).await, Some(UNREACHABLE));
    let other = Other::on(&bound);
    let accepted = other.accept().await;
    peers.send(TWO, &address, message(2));
    assert_eq!(accepted.receive(1).await.0, [message(2)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_moves_gets_what_is_sent_to_its_new_address_only() {
    let (mut peers, mut events) = peers(Connect::Tcp);
    let (old, new) = (Other::new(), Other::new());
    peers.send(TWO, &old.address, message(1));
    let accepted = old.accept().await;
    peers.send(TWO, &new.address, message(2));
    assert_eq!(soon(events.recv()).await, Some(UNREACHABLE));
    assert_eq!(new.accept().await.receive(1).await.0, [message(2)]);
    let (received, ended) = accepted.receive(2).await;
    assert!(received.len() <= 1 && matches!(ended, Ended::Closed | Ended::Failed(_)), "{ended}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_end_with_membership_and_with_their_owner() {
    let (mut peers, _events) = peers(Connect::Tcp);
    let (two, three) = (Other::new(), Other::new());
    peers.send(TWO, &two.address, message(1));
    peers.send(ServerId(3), &three.address, message(1));
    let (two, three) = (two.accept().await, three.accept().await);
    peers.retain(|id| id == ServerId(3));
    assert!(matches!(two.receive(9).await.1, Ended::Closed));
    assert!(peers.links.contains_key(&ServerId(3)));
    drop(peers);
    assert!(matches!(three.receive(9).await.1, Ended::Closed));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_writes_is_cut_off() {
    let (mut peers, mut events) = peers(Connect::Tcp);
    let other = Other::new();
    peers.send(TWO, &other.address, message(1));
    let accepted = other.accept().await;
    accepted.stream.write_all(b"?").await.unwrap();
    assert_eq!(soon(events.recv()).await, Some(UNREACHABLE));
    let ended = accepted.receive(9).await.1;
    assert!(matches!(ended, Ended::Closed | Ended::Failed(_)), "{ended}");
}

/// The next connection to a server that is heard of all the time.
async fn accept_while_heard_of(peers: &Peers, other: &Other) -> Stream {
    let heard = async {
        loop {
            peers.heard_of(TWO);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::select! {
        stream = soon(other.listener.accept()) => stream,
        () = heard => unreachable!("it has no end"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_accepts_and_closes_is_asked_less_and_less_often() {
    let (mut peers, _events) = peers(Connect::Tcp);
    let other = Other::new();
    peers.send(TWO, &other.address, message(1));
    let start = Instant::now();
    for _ in 0..5 {
        drop(accept_while_heard_of(&peers, &other).await);
    }
    // 20 + 40 + 80 + 160 ms lie between them.
    assert!(start.elapsed() >= Duration::from_millis(300), "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_closes_and_comes_back_is_connected_to_when_it_does() {
    let (mut peers, mut events) = peers(Connect::Tcp);
    let other = Other::new();
    peers.send(TWO, &other.address, message(1));
    drop(other.accept().await);
    assert_eq!(soon(events.recv()).await, Some(PeerEvent::Unreachable { id: TWO }));
    let start = Instant::now();
    accept_while_heard_of(&peers, &other).await;
    assert!(start.elapsed() < Duration::from_millis(PEER_RECONNECT_MAX_MS), "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_closes_is_left_alone_for_a_while() {
    let (mut peers, _events) = peers(Connect::Tcp);
    let other = Other::new();
    peers.send(TWO, &other.address, message(1));
    drop(other.accept().await);
    let start = Instant::now();
    other.accept().await;
    assert!(start.elapsed() >= Duration::from_millis(PEER_RECONNECT_MAX_MS - 10), "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_goes_before_later_messages_and_is_reported_once() {
    let (mut peers, mut events) = peers(Connect::Tcp);
    let other = Other::new();
    let data = snapshot(20 * MIB);
    peers.send(TWO, &other.address, message(1));
    peers.send_snapshot(TWO, &other.address, data.clone());
    peers.send(TWO, &other.address, message(2));
    peers.send_snapshot(TWO, &other.address, snapshot(8));
    let event = |ok| Some(PeerEvent::SnapshotSent { to: TWO, ok });
    assert_eq!(soon(events.recv()).await, event(false), "one at a time");
    let (received, _) = other.accept().await.receive(3).await;
    assert!(received.len() == 3 && received[0] == message(1) && received[2] == message(2));
    let Message::InstallSnapshot(snapshot) = &received[1] else { panic!("{received:?}") };
    let mut content = Vec::new();
    snapshot.data.open().unwrap().read_to_end(&mut content).unwrap();
    assert!(content == vec![7; 20 * MIB]);
    assert_eq!(InstallSnapshot { data: data.data.clone(), ..snapshot.clone() }, data);
    assert_eq!(soon(events.recv()).await, event(true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_does_not_leave_is_reported() {
    let (mut peers, mut events) = peers(Connect::Tcp);
    let other = Other::new();
    let not_sent = Some(PeerEvent::SnapshotSent { to: TWO, ok: false });
    peers.send_snapshot(TWO, &other.address, snapshot(64 * MIB));
    drop(other.accept().await);
    let both = [soon(events.recv()).await, soon(events.recv()).await];
    assert!(both.contains(&not_sent) && both.contains(&Some(UNREACHABLE)), "{both:?}");

    peers.send_snapshot(TWO, &other.address, snapshot(64 * MIB));
    let _unread = other.accept().await;
    drop(peers);
    assert_eq!(soon(events.recv()).await, not_sent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_cannot_make_us_keep_any_number_of_queues() {
    let (mut peers, _events) = peers(Connect::Tcp);
    for id in 1..=PEERS_MAX as u64 + 10 {
        peers.send(ServerId(id), "nowhere", message(1));
        peers.send(TWO, "nowhere", message(1));
    }
    assert_eq!(peers.links.len(), PEERS_MAX);
    assert!(peers.links.contains_key(&TWO), "the one that was longest not sent to goes first");
    assert!(!peers.links.contains_key(&ServerId(3)));
}

/// Hands out one end of a pair for each call, or fails.
struct Pairs(Mutex<Vec<Option<OwnedFd>>>);

impl Connector for Pairs {
    fn connect(&self, address: &str) -> io::Result<OwnedFd> {
        assert_eq!(address, "cluster/two");
        self.0.lock().pop().flatten().ok_or(io::ErrorKind::NotFound.into())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_custom_connect_function_is_called_until_it_succeeds() {
    let (ours, mut theirs) = StdUnixStream::pair().unwrap();
    let calls = Mutex::new(vec![Some(ours.into()), None]);
    let (mut peers, mut events) = peers(Connect::Custom(Arc::new(Pairs(calls))));
    peers.send(TWO, "cluster/two", message(1));
    assert_eq!(soon(events.recv()).await, Some(UNREACHABLE));
    peers.send(TWO, "cluster/two", message(2));
    let read = tokio::task::spawn_blocking(move || {
        let mut bytes = [0; 40 + 40];
        theirs.set_read_timeout(Some(PATIENCE)).unwrap();
        theirs.read_exact(&mut bytes).unwrap();
        bytes
    });
    let bytes = soon(read).await.unwrap();
    assert_eq!(bytes[..17], [1, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 11, 0, 0, 0, 1]);
    assert_eq!(bytes[24..40], *b"10.0.0.1:9001\0\0\0");
    assert_eq!(bytes[40..], encode(message(2)).head);
    assert_eq!(soon(events.recv()).await, Some(UNREACHABLE));
}

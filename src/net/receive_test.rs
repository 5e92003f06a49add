use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::net::UnixStream;

use super::*;
use crate::raft::message::{AppendEntries, InstallSnapshot, SnapshotSource, TimeoutNow};
use crate::raft::types::{Entry, EntryKind, Index, Stamp, Term};
use crate::wire::raft::encode;

fn timeout_now(term: u64) -> Message {
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

fn bytes_of(messages: &[Message]) -> Vec<u8> {
    let mut out = Vec::new();
    for message in messages {
        let encoded = encode(message.clone());
        out.extend(encoded.head);
        encoded.payloads.into_iter().for_each(|payload| out.extend(payload));
    }
    out
}

fn pair() -> (std::os::unix::net::UnixStream, Stream) {
    let (theirs, ours) = std::os::unix::net::UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    (theirs, Stream::Unix(UnixStream::from_std(ours).unwrap()))
}

/// Keeps one snapshot in memory, until it is dropped.
#[derive(Default)]
struct Memory {
    taken: Arc<AtomicBool>,
    largest_write: Arc<AtomicUsize>,
    /// There is space for so many bytes.
    space: Option<usize>,
}

struct Received {
    bytes: Vec<u8>,
    space: Option<usize>,
    largest_write: Arc<AtomicUsize>,
    taken: Arc<AtomicBool>,
}

impl Spools for Memory {
    fn begin(&self, _: u64) -> io::Result<Box<dyn Spool>> {
        if self.taken.swap(true, Ordering::SeqCst) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let (taken, largest_write) = (self.taken.clone(), self.largest_write.clone());
        Ok(Box::new(Received { bytes: Vec::new(), space: self.space, largest_write, taken }))
    }
}

impl Spool for Received {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.largest_write.fetch_max(bytes.len(), Ordering::SeqCst);
        self.bytes.extend(bytes);
        if self.space.is_some_and(|space| self.bytes.len() > space) {
            return Err(io::Error::other("no space"));
        }
        Ok(())
    }

    fn finish(self: Box<Self>) -> io::Result<SnapshotData> {
        Ok(SnapshotData::new(*self))
    }
}

impl SnapshotSource for Received {
    fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn open(&self) -> io::Result<Box<dyn std::io::Read + Send>> {
        Ok(Box::new(io::Cursor::new(self.bytes.clone())))
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        self.taken.store(false, Ordering::SeqCst);
    }
}

fn spools() -> Arc<dyn Spools> {
    Arc::new(Memory::default())
}

/// A snapshot and its bytes.
fn snapshot(term: u64, size: usize) -> Vec<u8> {
    let data = Bytes::from((0..size).map(|at| (at / 5 % 251) as u8).collect::<Vec<u8>>());
    let message = Message::InstallSnapshot(InstallSnapshot {
        term: Term(term),
        last_index: Index(1),
        last_term: Term(1),
        configuration_index: Index(1),
        configuration: Default::default(),
        data: SnapshotData::new(data.clone()),
    });
    [bytes_of(&[message]), data.to_vec()].concat()
}

fn content(message: &Message) -> Vec<u8> {
    let Message::InstallSnapshot(message) = message else { panic!("{message:?}") };
    let mut content = Vec::new();
    message.data.open().unwrap().read_to_end(&mut content).unwrap();
    content
}

#[tokio::test]
async fn a_snapshot_arrives_whole_and_piece_by_piece_and_what_follows_behind_it() {
    for size in [0, 8, SNAPSHOT_PIECE_SIZE, 3 * SNAPSHOT_PIECE_SIZE + 8] {
        let bytes = [bytes_of(&[timeout_now(1)]), snapshot(2, size), bytes_of(&[timeout_now(3)])].concat();
        for split in [0, 60, 150, bytes.len()] {
            let (mut theirs, ours) = pair();
            let (before, rest) = (bytes[..split].to_vec(), bytes[split..].to_vec());
            let writing = std::thread::spawn(move || theirs.write_all(&rest).unwrap());
            let memory = Memory::default();
            let largest_write = memory.largest_write.clone();
            let (received, ended) = receive_into(&ours, &before, Arc::new(memory)).await;
            assert!(matches!(ended, Ended::Closed), "{ended}");
            assert_eq!((&received[0], &received[2]), (&timeout_now(1), &timeout_now(3)));
            assert!(content(&received[1])[..] == snapshot(2, size)[bytes_of_head(2, size)..]);
            let most = if split < bytes.len() { SNAPSHOT_PIECE_SIZE } else { bytes.len() };
            assert!(largest_write.load(Ordering::SeqCst) <= most);
            writing.join().unwrap();
        }
    }
}

fn bytes_of_head(term: u64, size: usize) -> usize {
    snapshot(term, size).len() - size
}

#[tokio::test]
async fn a_snapshot_that_is_cut_off_or_finds_no_space_is_dropped() {
    let bytes = snapshot(1, 3 * SNAPSHOT_PIECE_SIZE);
    for size in [bytes_of_head(1, 3 * SNAPSHOT_PIECE_SIZE), bytes.len() / 2, bytes.len() - 1] {
        let (mut theirs, ours) = pair();
        let rest = bytes[..size].to_vec();
        let writing = std::thread::spawn(move || theirs.write_all(&rest).unwrap());
        let memory = Memory::default();
        let taken = memory.taken.clone();
        let (received, ended) = receive_into(&ours, &[], Arc::new(memory)).await;
        assert!(received.is_empty() && matches!(ended, Ended::ClosedInMessage), "{ended}");
        assert!(!taken.load(Ordering::SeqCst), "there is room for another one");
        writing.join().unwrap();
    }
    let (mut theirs, ours) = pair();
    std::thread::spawn(move || theirs.write_all(&bytes));
    let memory = Memory { space: Some(SNAPSHOT_PIECE_SIZE), ..Memory::default() };
    let taken = memory.taken.clone();
    let (_, ended) = receive_into(&ours, &[], Arc::new(memory)).await;
    let expected = "a snapshot of 786432 bytes was not received: no space";
    assert_eq!(ended.to_string(), expected);
    assert!(!taken.load(Ordering::SeqCst));
}

#[tokio::test(start_paused = true)]
async fn a_second_snapshot_waits_for_the_first_one_for_a_bounded_time() {
    let memory = Arc::new(Memory::default());
    let first = memory.begin(8).unwrap();
    let (mut theirs, ours) = pair();
    theirs.write_all(&snapshot(2, 8)).unwrap();
    let (received, ended) = receive_into(&ours, &[], memory.clone()).await;
    assert!(received.is_empty());
    let expected = "a snapshot of 8 bytes was not received: another one is still being received or installed";
    assert_eq!(ended.to_string(), expected);

    let (mut theirs, ours) = pair();
    theirs.write_all(&snapshot(2, 8)).unwrap();
    drop(theirs);
    let waiting = receive_into(&ours, &[], memory);
    let release = async {
        tokio::time::sleep(Duration::from_millis(SNAPSHOT_WAIT_MS / 2)).await;
        drop(first);
    };
    let ((received, ended), ()) = tokio::join!(waiting, release);
    assert!(received.len() == 1 && matches!(ended, Ended::Closed), "{ended}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_stops_in_the_middle_of_a_snapshot_is_not_waited_for() {
    let (mut theirs, ours) = pair();
    let bytes = snapshot(2, 1000);
    theirs.write_all(&bytes[..bytes.len() - 1]).unwrap();
    let memory = Memory::default();
    let taken = memory.taken.clone();
    let (_, ended) = receive_into(&ours, &[], Arc::new(memory)).await;
    assert!(ended.to_string().ends_with("its server sends no more of it"), "{ended}");
    assert!(!taken.load(Ordering::SeqCst));
}

/// Everything that arrives until the end.
async fn receive_all(stream: &Stream, received: &[u8]) -> (Vec<Message>, Ended) {
    receive_into(stream, received, spools()).await
}

async fn receive_into(stream: &Stream, received: &[u8], spools: Arc<dyn Spools>) -> (Vec<Message>, Ended) {
    let mut messages = Vec::new();
    let ended = receive(stream, BytesMut::from(received), &spools, |message| {
        messages.push(message);
        std::future::ready(Ok(()))
    })
    .await;
    (messages, ended)
}

#[tokio::test]
async fn messages_arrive_in_order_and_those_read_with_connect_first() {
    let messages: Vec<Message> = (1..=20).map(|term| append(term, 64 * term as usize)).collect();
    let bytes = bytes_of(&messages);
    for split in [0, 5, 100, 1000] {
        let (mut theirs, ours) = pair();
        theirs.write_all(&bytes[split..]).unwrap();
        drop(theirs);
        let (received, ended) = receive_all(&ours, &bytes[..split]).await;
        assert_eq!(received, messages);
        assert!(matches!(ended, Ended::Closed), "{ended}");
    }
}

#[tokio::test]
async fn an_end_within_a_message_is_told_from_one_between_messages() {
    let bytes = bytes_of(&[timeout_now(1), append(2, 64)]);
    for size in [1, 41, 150] {
        let (mut theirs, ours) = pair();
        theirs.write_all(&bytes[..size]).unwrap();
        drop(theirs);
        let (_, ended) = receive_all(&ours, &[]).await;
        assert!(matches!(ended, Ended::ClosedInMessage), "{size} bytes: {ended}");
    }
}

#[tokio::test]
async fn nothing_behind_a_malformed_message_is_delivered() {
    let (mut theirs, ours) = pair();
    let mut bytes = bytes_of(&[timeout_now(1)]);
    bytes.extend([0; 16]);
    bytes.extend(bytes_of(&[timeout_now(2)]));
    theirs.write_all(&bytes).unwrap();
    let (received, ended) = receive_all(&ours, &[]).await;
    assert_eq!(received, [timeout_now(1)]);
    assert!(matches!(ended, Ended::Malformed(MessageError::UnknownType(0))), "{ended}");
}

#[tokio::test]
async fn nothing_is_delivered_after_the_node_stops_taking() {
    let (mut theirs, ours) = pair();
    theirs.write_all(&bytes_of(&[timeout_now(1), timeout_now(2)])).unwrap();
    let mut calls = 0;
    let ended = receive(&ours, BytesMut::new(), &spools(), |_| {
        calls += 1;
        std::future::ready(Err(NotTaken))
    })
    .await;
    assert!(matches!(ended, Ended::NotTaken), "{ended}");
    assert_eq!(calls, 1);
}

#[tokio::test]
async fn a_sender_that_is_too_fast_is_held_up_and_loses_nothing() {
    let (theirs, ours) = pair();
    theirs.set_nonblocking(true).unwrap();
    let (mut theirs, messages) = (theirs, (1..=100).map(|term| append(term, 64 << 10)).collect::<Vec<_>>());
    let bytes = bytes_of(&messages);
    let (release, released) = tokio::sync::oneshot::channel::<()>();
    let (taken, mut takes) = tokio::sync::mpsc::unbounded_channel();
    let mut gate = Some(released);
    let receiving = tokio::spawn(async move {
        receive(&ours, BytesMut::new(), &spools(), |message| {
            taken.send(message).unwrap();
            let gate = gate.take();
            async move {
                if let Some(gate) = gate {
                    gate.await.unwrap();
                }
                Ok(())
            }
        })
        .await
    });
    // The first message is taken and holds up all others: what can be written is what the kernel buffers.
    let mut written = theirs.write(&bytes[..100_000]).unwrap();
    let first = takes.recv().await.unwrap();
    loop {
        match theirs.write(&bytes[written..]) {
            Ok(size) => written += size,
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                break;
            }
        }
    }
    tokio::task::yield_now().await;
    assert!(written < bytes.len() / 2, "{written} bytes went nowhere");
    assert!(takes.try_recv().is_err());

    release.send(()).unwrap();
    theirs.set_nonblocking(false).unwrap();
    std::thread::spawn(move || theirs.write_all(&bytes[written..]).unwrap());
    assert!(matches!(receiving.await.unwrap(), Ended::Closed));
    let mut received = vec![first];
    while let Ok(message) = takes.try_recv() {
        received.push(message);
    }
    assert_eq!(received, messages);
}

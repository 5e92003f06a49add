use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::net::stream::Detached;
use crate::raft::message::SnapshotSource;

fn message(head: &'static [u8], payload: usize) -> Encoded {
    let payloads = if payload == 0 { vec![] } else { vec![Bytes::from(vec![b'.'; payload])] };
    Encoded { head: Bytes::from_static(head), payloads, snapshot: None }
}

fn snapshot(head: &'static [u8], size: usize) -> Encoded {
    let data = SnapshotData::new(Bytes::from(vec![b'.'; size]));
    Encoded { head: Bytes::from_static(head), payloads: Vec::new(), snapshot: Some(data) }
}

/// Writes as much as there is to be written, and returns how much that was.
async fn write_all(writing: &mut Writing, outbox: &Outbox) -> usize {
    writing.refill().await.unwrap();
    let size = writing.slices().iter().map(|slice| slice.len()).sum();
    writing.advance(size, outbox);
    size
}

/// Counts what was sent in the low half, and what was dropped in the high one.
struct Count(Arc<AtomicU32>);

impl Ticket for Count {
    fn sent(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        self.0.fetch_add(1 << 16, Ordering::Relaxed);
    }
}

#[test]
fn messages_beyond_the_byte_limit_are_dropped_until_others_were_written() {
    let outbox = Outbox::default();
    let mib = || message(b"", 1 << 20);
    for _ in 0..16 {
        assert_eq!(outbox.push(mib()), Pushed::Queued);
    }
    assert_eq!(outbox.push(mib()), Pushed::FirstDropped);
    assert_eq!(outbox.push(mib()), Pushed::Dropped);
    let mut writing = Writing::default();
    outbox.take(&mut writing);
    assert_eq!(outbox.push(mib()), Pushed::Dropped, "what is being written counts");
    writing.advance((1 << 20) - 1, &outbox);
    assert_eq!(outbox.push(mib()), Pushed::Dropped, "a message counts as long as a byte of it is missing");
    writing.advance(1, &outbox);
    assert_eq!(outbox.push(mib()), Pushed::Queued);
    assert_eq!(outbox.push(mib()), Pushed::FirstDropped, "a new overflow is told again");
    assert_eq!(outbox.bytes(), PEER_QUEUE_BYTES_MAX);
}

#[test]
fn messages_beyond_their_number_are_dropped() {
    let outbox = Outbox::default();
    for _ in 0..PEER_QUEUE_MESSAGES_MAX {
        assert_eq!(outbox.push(message(b"12345678", 0)), Pushed::Queued);
    }
    assert_eq!(outbox.push(message(b"12345678", 0)), Pushed::FirstDropped);
}

#[test]
fn a_message_larger_than_the_limit_passes_also_behind_others() {
    let outbox = Outbox::default();
    assert_eq!(outbox.push(message(b"12345678", 0)), Pushed::Queued);
    assert_eq!(outbox.push(message(b"12345678", PEER_QUEUE_BYTES_MAX + 8)), Pushed::Queued);
    assert_eq!(outbox.push(message(b"12345678", 0)), Pushed::FirstDropped);
}

#[test]
fn bytes_are_written_in_order_however_few_the_socket_takes() {
    let outbox = Outbox::default();
    for step in 1..=15 {
        let mut writing = Writing::greeting(Bytes::from_static(b"hello "));
        outbox.push(message(b"abc", 3));
        outbox.push(message(b"de", 0));
        outbox.take(&mut writing);
        let mut out: Vec<u8> = Vec::new();
        while !writing.is_empty() {
            let all: Vec<u8> = writing.slices().iter().flat_map(|slice| slice.to_vec()).collect();
            let size = step.min(all.len());
            out.extend(&all[..size]);
            writing.advance(size, &outbox);
        }
        assert_eq!(out, b"hello abc...de", "step {step}");
        assert_eq!(outbox.bytes(), 0);
    }
}

#[tokio::test]
async fn a_snapshot_is_reported_when_its_last_byte_was_written_and_not_before() {
    let (outbox, count) = (Outbox::default(), Arc::new(AtomicU32::new(0)));
    let counted = || count.load(Ordering::Relaxed);
    outbox.push(message(b"1", 0));
    let size = 3 * SNAPSHOT_PIECE_SIZE + 8;
    outbox.push_snapshot(snapshot(b"2", size), Box::new(Count(count.clone())));
    for _ in 0..16 {
        assert_eq!(outbox.push(message(b"", 1 << 20)), Pushed::Queued, "a snapshot counts apart");
    }
    let mut writing = Writing::default();
    outbox.take(&mut writing);
    let mut written = 0;
    while written < 2 + size - 8 {
        assert_eq!(counted(), 0);
        written += write_all(&mut writing, &outbox).await;
        assert!(writing.slices().iter().map(|slice| slice.len()).sum::<usize>() <= SNAPSHOT_PIECE_SIZE);
    }
    writing.refill().await.unwrap();
    writing.advance(7, &outbox);
    assert_eq!(counted(), 0);
    writing.advance(1, &outbox);
    assert_eq!(counted(), 1 | 1 << 16);
    assert!(writing.is_empty(), "what is behind a snapshot is not taken with it");
    outbox.take(&mut writing);
    assert!(!writing.is_empty());
    outbox.push_snapshot(snapshot(b"2", 8), Box::new(Count(count.clone())));
    assert_eq!(counted(), 1 | 1 << 16, "there is room for another one");
}

/// Sound up to its end, which fails.
struct Damaged(usize);

impl SnapshotSource for Damaged {
    fn size(&self) -> u64 {
        self.0 as u64
    }

    fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        struct End;
        impl Read for End {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("checksum"))
            }
        }
        Ok(Box::new(io::repeat(b'.').take(self.0 as u64).chain(End)))
    }
}

#[tokio::test]
async fn the_last_bytes_of_a_snapshot_that_turns_out_damaged_are_never_written() {
    for size in [1, SNAPSHOT_PIECE_SIZE - 1, SNAPSHOT_PIECE_SIZE, SNAPSHOT_PIECE_SIZE + 1] {
        let (outbox, count) = (Outbox::default(), Arc::new(AtomicU32::new(0)));
        let encoded = Encoded { snapshot: Some(SnapshotData::new(Damaged(size))), ..message(b"2", 0) };
        outbox.push_snapshot(encoded, Box::new(Count(count.clone())));
        let mut writing = Writing::default();
        outbox.take(&mut writing);
        let mut written = 0;
        let mut error = None;
        // The head, and two pieces at most.
        for _ in 0..4 {
            match writing.refill().await {
                Ok(()) => written += write_all(&mut writing, &outbox).await,
                Err(e) => error = error.or(Some(e.to_string())),
            }
            if error.is_some() {
                break;
            }
        }
        assert_eq!(error.as_deref(), Some("checksum"));
        assert!(written < 1 + size, "{written} of {size} bytes");
        drop(writing);
        assert_eq!(count.load(Ordering::Relaxed), 1 << 16, "dropped, not sent");
    }
}

#[test]
fn a_second_snapshot_is_dropped_while_the_first_one_waits() {
    let (outbox, count) = (Outbox::default(), Arc::new(AtomicU32::new(0)));
    outbox.push_snapshot(snapshot(b"1", 8), Box::new(Count(count.clone())));
    outbox.take(&mut Writing::default());
    outbox.push_snapshot(snapshot(b"1", 8), Box::new(Count(Arc::default())));
    let second = Arc::new(AtomicU32::new(0));
    outbox.push_snapshot(snapshot(b"2", 8), Box::new(Count(second.clone())));
    assert_eq!(second.load(Ordering::Relaxed), 1 << 16, "dropped, not sent");
}

#[test]
fn everything_is_forgotten_when_the_connection_breaks() {
    let (outbox, count) = (Outbox::default(), Arc::new(AtomicU32::new(0)));
    assert!(!outbox.clear());
    outbox.push(message(b"1", 0));
    let mut writing = Writing::default();
    outbox.take(&mut writing);
    outbox.push_snapshot(snapshot(b"2", 8), Box::new(Count(count.clone())));
    assert!(outbox.clear());
    assert_eq!((outbox.bytes(), count.load(Ordering::Relaxed)), (0, 1 << 16));
}

/// An outbox with a connection, and its other end.
fn connected() -> (Outbox, UnixStream) {
    let (own, other) = UnixStream::pair().unwrap();
    own.set_nonblocking(true).unwrap();
    other.set_nonblocking(true).unwrap();
    let outbox = Outbox::default();
    outbox.attach(Arc::new(Detached::Unix(own).attach().unwrap()));
    (outbox, other)
}

/// What has arrived.
fn arrived(mut other: &UnixStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let ended = other.read_to_end(&mut bytes);
    assert!(ended.is_ok() || ended.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock));
    bytes
}

#[tokio::test]
async fn a_message_is_written_at_once_if_nothing_is_before_it() {
    let (outbox, other) = connected();
    assert_eq!(outbox.push_now(message(b"abc", 3)).ok(), Some(Pushed::Queued));
    assert_eq!(arrived(&other), b"abc...");
    assert_eq!(outbox.bytes(), 0, "it was not queued");
    outbox.push(message(b"first", 0));
    assert_eq!(outbox.push_now(message(b"second", 0)).ok(), Some(Pushed::Queued));
    let mut writing = Writing::default();
    outbox.take(&mut writing);
    assert_eq!(outbox.push_now(message(b"third", 0)).ok(), Some(Pushed::Queued));
    assert_eq!(arrived(&other), b"", "what another thread is writing comes first");
    write_all(&mut writing, &outbox).await;
    outbox.take(&mut writing);
    assert_eq!(writing.slices()[0].to_vec(), b"third");
}

#[tokio::test]
async fn the_rest_of_a_message_that_the_socket_did_not_take_is_the_next_to_be_written() {
    let (outbox, other) = connected();
    let mut sent = 0;
    while outbox.bytes() == 0 {
        assert_eq!(outbox.push_now(message(b"head", 100_000)).ok(), Some(Pushed::Queued));
        sent += 1;
    }
    assert_eq!(outbox.push_now(message(b"last", 0)).ok(), Some(Pushed::Queued));
    let mut all = arrived(&other);
    let mut writing = Writing::default();
    outbox.take(&mut writing);
    all.extend(writing.slices().iter().flat_map(|slice| slice.to_vec()));
    let one: Vec<u8> = b"head".iter().copied().chain(std::iter::repeat_n(b'.', 100_000)).collect();
    let expected: Vec<u8> = (0..sent).flat_map(|_| one.clone()).chain(*b"last").collect();
    assert!(all == expected, "{} bytes instead of {}", all.len(), expected.len());
    write_all(&mut writing, &outbox).await;
    assert!(writing.is_empty() && outbox.bytes() == 0);
}

#[tokio::test]
async fn a_connection_that_ended_is_written_to_by_nobody() {
    let (outbox, other) = connected();
    outbox.clear();
    assert_eq!(outbox.push_now(message(b"abc", 0)).ok(), Some(Pushed::Queued));
    assert_eq!(arrived(&other), b"");
    assert_eq!(outbox.bytes(), 3, "it waits for the next one");
    outbox.close();
    let returned = outbox.push_now(message(b"abc", 0)).unwrap_err();
    assert_eq!(returned.head, &b"abc"[..], "there will be no other");
}

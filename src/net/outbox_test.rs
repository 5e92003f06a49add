use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

fn message(head: &'static [u8], payload: usize) -> Encoded {
    let payloads = if payload == 0 { vec![] } else { vec![Bytes::from(vec![b'.'; payload])] };
    Encoded { head: Bytes::from_static(head), payloads }
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

#[test]
fn a_snapshot_is_reported_when_its_last_byte_was_written_and_not_before() {
    let (outbox, count) = (Outbox::default(), Arc::new(AtomicU32::new(0)));
    let counted = || count.load(Ordering::Relaxed);
    outbox.push(message(b"1", 0));
    outbox.push_snapshot(message(b"2", PEER_QUEUE_BYTES_MAX), Box::new(Count(count.clone())));
    assert_eq!(outbox.push(message(b"3", 0)), Pushed::Queued, "a snapshot counts apart");
    let mut writing = Writing::default();
    outbox.take(&mut writing);
    writing.advance(1 + PEER_QUEUE_BYTES_MAX, &outbox);
    assert_eq!(counted(), 0);
    writing.advance(1, &outbox);
    assert_eq!(counted(), 1 | 1 << 16);
    outbox.push_snapshot(message(b"2", 8), Box::new(Count(count.clone())));
    assert_eq!(counted(), 1 | 1 << 16, "there is room for another one");
}

#[test]
fn a_second_snapshot_is_dropped_while_the_first_one_waits() {
    let (outbox, count) = (Outbox::default(), Arc::new(AtomicU32::new(0)));
    outbox.push_snapshot(message(b"1", 8), Box::new(Count(count.clone())));
    outbox.take(&mut Writing::default());
    outbox.push_snapshot(message(b"1", 8), Box::new(Count(Arc::default())));
    let second = Arc::new(AtomicU32::new(0));
    outbox.push_snapshot(message(b"2", 8), Box::new(Count(second.clone())));
    assert_eq!(second.load(Ordering::Relaxed), 1 << 16, "dropped, not sent");
}

#[test]
fn everything_is_forgotten_when_the_connection_breaks() {
    let (outbox, count) = (Outbox::default(), Arc::new(AtomicU32::new(0)));
    assert!(!outbox.clear());
    outbox.push(message(b"1", 0));
    let mut writing = Writing::default();
    outbox.take(&mut writing);
    outbox.push_snapshot(message(b"2", 8), Box::new(Count(count.clone())));
    assert!(outbox.clear());
    assert_eq!((outbox.bytes(), count.load(Ordering::Relaxed)), (0, 1 << 16));
}

use bytes::{BufMut, Bytes, BytesMut};

use super::*;
use crate::raft::message::{AppendEntries, InstallSnapshot, SnapshotData, TimeoutNow};
use crate::raft::types::{Entry, EntryKind, Index, Stamp, Term};
use crate::wire::raft::encode;

fn heartbeat(term: u64) -> Message {
    append(term, &[])
}

fn append(term: u64, sizes: &[usize]) -> Message {
    let entry = |(i, size): (usize, &usize)| Entry {
        term: Term(term),
        kind: EntryKind::Command,
        payload: Bytes::from(vec![i as u8; *size]),
    };
    Message::AppendEntries(AppendEntries {
        term: Term(term),
        prev_index: Index(4),
        prev_term: Term(1),
        leader_commit: Index(3),
        entries: sizes.iter().enumerate().map(entry).collect(),
        stamp: Stamp(9),
    })
}

fn bytes_of(message: &Message) -> Vec<u8> {
    let encoded = encode(message.clone());
    std::iter::once(&encoded.head).chain(&encoded.payloads).flatten().copied().collect()
}

/// Puts bytes in as a socket would: as many at a time as there is space for, and at most `step`.
fn feed(decoder: &mut MessageDecoder, mut bytes: &[u8], step: usize) -> Result<Vec<Message>, MessageError> {
    let mut messages = Vec::new();
    while !bytes.is_empty() {
        let mut space = decoder.space();
        let size = bytes.len().min(step).min(space.remaining_mut());
        assert!(size > 0, "no space to make progress");
        space.put_slice(&bytes[..size]);
        bytes = &bytes[size..];
        while let Some(decoded) = decoder.next_message()? {
            messages.push(whole(decoded));
        }
    }
    Ok(messages)
}

fn whole(decoded: Decoded) -> Message {
    match decoded {
        Decoded::Message(message) => message,
        Decoded::Snapshot(head) => panic!("{head:?}"),
    }
}

fn conversation() -> (Vec<Message>, Vec<u8>) {
    let messages = vec![
        heartbeat(1),
        append(2, &[8, 0, 4144, 64]),
        Message::TimeoutNow(TimeoutNow { term: Term(2), last_index: Index(7), last_term: Term(2) }),
        append(3, &[48 << 10]),
        heartbeat(3),
    ];
    let bytes = messages.iter().flat_map(bytes_of).collect();
    (messages, bytes)
}

#[test]
fn messages_are_the_same_however_their_bytes_arrive() {
    let (messages, bytes) = conversation();
    for step in [1, 7, 16, 4096, usize::MAX] {
        let mut decoder = MessageDecoder::default();
        assert_eq!(feed(&mut decoder, &bytes, step).as_ref(), Ok(&messages), "step {step}");
        assert!(decoder.is_between_messages());
    }
}

#[test]
fn bytes_that_were_read_before_are_not_lost() {
    let (messages, bytes) = conversation();
    for before in [0, 3, 16, 40, 200, bytes.len()] {
        let mut decoder = MessageDecoder::new(BytesMut::from(&bytes[..before]));
        let mut decoded = Vec::new();
        while let Some(message) = decoder.next_message().unwrap() {
            decoded.push(whole(message));
        }
        decoded.extend(feed(&mut decoder, &bytes[before..], usize::MAX).unwrap());
        assert_eq!(decoded, messages, "{before} bytes read before");
    }
}

#[test]
fn no_prefix_of_a_message_is_a_message() {
    let bytes = bytes_of(&append(2, &[8, 24]));
    for size in 0..bytes.len() {
        let mut decoder = MessageDecoder::default();
        assert_eq!(feed(&mut decoder, &bytes[..size], usize::MAX), Ok(vec![]), "prefix of {size} bytes");
        assert_eq!(decoder.is_between_messages(), size == 0, "prefix of {size} bytes");
    }
}

#[test]
fn a_bad_preamble_is_refused_before_its_header_arrives() {
    let mut bytes = vec![3, 0, 0, 0, 0, 0, 0, 0];
    bytes.extend(((4u64 << 20) + 1).to_le_bytes());
    let mut decoder = MessageDecoder::new(BytesMut::from(&bytes[..]));
    assert!(matches!(decoder.next_message(), Err(MessageError::HeaderSize { .. })));
}

#[test]
fn a_large_payload_that_is_announced_and_not_sent_takes_little_memory() {
    let mut bytes = bytes_of(&append(1, &[400 << 20]));
    bytes.truncate(PREAMBLE_SIZE + 40 + 16 + 8 + 8);
    let mut decoder = MessageDecoder::default();
    assert_eq!(feed(&mut decoder, &bytes, usize::MAX), Ok(vec![]));
    assert!(decoder.space().get_ref().capacity() <= 2 * APPEND_BYTES_MAX);
    assert!(!decoder.is_between_messages());
}

#[test]
fn the_payload_of_a_snapshot_is_left_to_the_caller() {
    let snapshot = Message::InstallSnapshot(InstallSnapshot {
        term: Term(1),
        last_index: Index(1),
        last_term: Term(1),
        configuration_index: Index(1),
        configuration: Default::default(),
        data: SnapshotData::new(Bytes::from(vec![7; 24])),
    });
    let bytes = [bytes_of(&heartbeat(1)), bytes_of(&snapshot), vec![7; 24], bytes_of(&heartbeat(2))].concat();
    let mut decoder = MessageDecoder::new(BytesMut::from(&bytes[..]));
    assert_eq!(whole(decoder.next_message().unwrap().unwrap()), heartbeat(1));
    let Some(Decoded::Snapshot(head)) = decoder.next_message().unwrap() else { panic!() };
    assert_eq!(head.payload_size(), 24);
    assert_eq!(decoder.take(24), [7; 24][..]);
    assert_eq!(whole(decoder.next_message().unwrap().unwrap()), heartbeat(2));
    assert_eq!(decoder.take(24).len(), 0);
}

#[test]
fn entries_do_not_keep_more_memory_than_their_message_had_payload() {
    let bytes = bytes_of(&append(2, &[48 << 10, 8]));
    let messages = feed(&mut MessageDecoder::default(), &bytes, usize::MAX).unwrap();
    let [Message::AppendEntries(append)] = &messages[..] else { panic!("{messages:?}") };
    let [first, second] = &append.entries[..] else { panic!("{append:?}") };
    assert_eq!(first.payload.as_ptr_range().end, second.payload.as_ptr(), "slices of one buffer");
}

#[test]
fn the_memory_of_a_large_header_goes_with_it() {
    let bytes = bytes_of(&append(2, &[0; 100_000]));
    let mut decoder = MessageDecoder::default();
    assert_eq!(feed(&mut decoder, &bytes, usize::MAX).unwrap().len(), 1);
    assert!(decoder.bytes.capacity() <= PEER_READ_SIZE);
}

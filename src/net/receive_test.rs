use std::io::Write;

use tokio::net::UnixStream;

use super::*;
use crate::raft::message::{AppendEntries, TimeoutNow};
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

/// Everything that arrives until the end.
async fn receive_all(stream: &Stream, received: &[u8]) -> (Vec<Message>, Ended) {
    let mut messages = Vec::new();
    let ended = receive(stream, BytesMut::from(received), |message| {
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
    let ended = receive(&ours, BytesMut::new(), |_| {
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
        receive(&ours, BytesMut::new(), |message| {
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

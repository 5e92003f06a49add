//! Conformance with the protocol between servers: messages that C servers were recorded to send are
//! understood, and encoded again to the same bytes; messages made by hand are accepted or refused as C does
//! since it decodes strictly.
//!
//! `raft-rpc/*.json` hold what a proxy between C servers saw, each message with the values that the recorder
//! found in it. Payloads are shortened in samples.json, and large messages left out of the others.

// A test reports a broken recording by panicking.
#![allow(clippy::unwrap_used)]

use std::io::Read;
use std::path::PathBuf;

use bytes::{Bytes, BytesMut};
use dqlite::raft::configuration::Configuration;
use dqlite::raft::message::{Message, SnapshotData};
use dqlite::raft::types::{EntryKind, Role};
use dqlite::wire::handshake::Protocol;
use dqlite::wire::raft::{MessageError, encode};
use dqlite::wire::raft_decoder::{Decoded, MessageDecoder};
use dqlite::wire::request::{Request, Server};
use serde_json::Value;

const CAPTURES: [&str; 5] =
    ["samples", "cluster-v1_11_1", "cluster-v1_18_6", "cluster-mixed", "cluster-mixed2"];

const PREAMBLE_SIZE: usize = 16;
const ENTRY_SIZE: usize = 16;

fn load(name: &str) -> Value {
    let directory = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/conformance/raft-rpc"));
    let text = std::fs::read_to_string(directory.join(name).with_extension("json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn bytes_of(hex: &Value) -> Vec<u8> {
    let hex = hex.as_str().unwrap();
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn decode(bytes: &[u8]) -> Result<Option<Message>, MessageError> {
    let mut decoder = MessageDecoder::new(BytesMut::from(bytes));
    decoder.next_message().map(|decoded| decoded.and_then(|decoded| whole(decoded, &mut decoder)))
}

/// The message, if all of it is here.
fn whole(decoded: Decoded, decoder: &mut MessageDecoder) -> Option<Message> {
    match decoded {
        Decoded::Message(message) => Some(message),
        Decoded::Snapshot(head) => {
            let payload = decoder.take(head.payload_size());
            let is_whole = payload.len() as u64 == head.payload_size();
            is_whole.then(|| head.complete_with(SnapshotData::new(payload.freeze())))
        }
    }
}

fn bytes_of_message(message: Message) -> Vec<u8> {
    let encoded = encode(message);
    let mut bytes: Vec<u8> =
        std::iter::once(&encoded.head).chain(&encoded.payloads).flatten().copied().collect();
    if let Some(snapshot) = encoded.snapshot {
        snapshot.open().unwrap().read_to_end(&mut bytes).unwrap();
    }
    bytes
}

/// A recorded message with its payload at full length: zeros stand for what was shortened.
fn complete(recorded: &Value) -> Vec<u8> {
    let mut bytes = bytes_of(&recorded["hex"]);
    let length = recorded["length"].as_u64().unwrap() as usize;
    assert_eq!(bytes.len() < length, recorded["hex_truncated"] == true, "{}", recorded["kind"]);
    bytes.resize(length, 0);
    bytes
}

fn recorded_messages() -> Vec<Value> {
    let all: Vec<Value> =
        CAPTURES.iter().flat_map(|name| load(name)["messages"].as_array().unwrap().clone()).collect();
    assert!(all.len() > 200, "only {} messages", all.len());
    all
}

fn entry_kind(kind: EntryKind) -> &'static str {
    match kind {
        EntryKind::Command => "command",
        EntryKind::Barrier => "barrier",
        EntryKind::Change => "change",
    }
}

fn assert_same_configuration(configuration: &Configuration, decoded: &Value) {
    let decoded = decoded.as_array().unwrap();
    assert_eq!(configuration.servers.len(), decoded.len());
    for (server, decoded) in configuration.servers.iter().zip(decoded) {
        let role = [Role::Standby, Role::Voter, Role::Spare][decoded["role_code"].as_u64().unwrap() as usize];
        assert_eq!(server.id.0, decoded["id"]);
        assert_eq!(server.address, decoded["address"].as_str().unwrap());
        assert_eq!(server.role, role);
    }
}

/// Compares with what the recorder found in the message.
fn assert_same_values(message: &Message, decoded: &Value) {
    assert_eq!(message.term().0, decoded["term"]);
    match message {
        Message::AppendEntries(message) => {
            assert_eq!(decoded["type"], "AppendEntries");
            assert_eq!(message.prev_index.0, decoded["prev_log_index"]);
            assert_eq!(message.prev_term.0, decoded["prev_log_term"]);
            assert_eq!(message.leader_commit.0, decoded["leader_commit"]);
            let entries = decoded["entries"].as_array().unwrap();
            assert_eq!(message.entries.len(), entries.len());
            for (entry, decoded) in message.entries.iter().zip(entries) {
                assert_eq!(entry.term.0, decoded["term"]);
                assert_eq!(entry_kind(entry.kind), decoded["type"]);
                assert_eq!(entry.payload.len() as u64, decoded["size"]);
            }
        }
        Message::AppendEntriesResult(message) => {
            assert_eq!(decoded["type"], "AppendEntriesResult");
            assert_eq!(message.rejected.0, decoded["rejected"]);
            assert_eq!(message.last_index.0, decoded["last_log_index"]);
            assert_eq!(message.features.0, decoded["features"].as_u64().unwrap_or(0));
        }
        Message::RequestVote(message) => {
            assert_eq!(decoded["type"], "RequestVote");
            assert_eq!(message.candidate.0, decoded["candidate_id"]);
            assert_eq!(message.last_index.0, decoded["last_log_index"]);
            assert_eq!(message.last_term.0, decoded["last_log_term"]);
            assert_eq!(message.disrupt_leader, decoded["disrupt_leader"]);
            assert_eq!(message.pre_vote, decoded["pre_vote"]);
            assert!(!message.keeps_lease, "C makes no such promise");
        }
        Message::RequestVoteResult(message) => {
            assert_eq!(decoded["type"], "RequestVoteResult");
            assert_eq!(u64::from(message.granted), decoded["vote_granted"]);
            assert_eq!(message.pre_vote, decoded["pre_vote"].as_bool());
            assert!(!message.keeps_lease, "C makes no such promise");
        }
        Message::InstallSnapshot(message) => {
            assert_eq!(decoded["type"], "InstallSnapshot");
            assert_eq!(message.last_index.0, decoded["last_index"]);
            assert_eq!(message.last_term.0, decoded["last_term"]);
            assert_eq!(message.configuration_index.0, decoded["conf_index"]);
            assert_eq!(message.data.size(), decoded["data_len"]);
            assert_same_configuration(&message.configuration, &decoded["configuration"]);
        }
        Message::TimeoutNow(message) => {
            assert_eq!(decoded["type"], "TimeoutNow");
            assert_eq!(message.last_index.0, decoded["last_log_index"]);
            assert_eq!(message.last_term.0, decoded["last_log_term"]);
        }
    }
}

/// The bytes as we would send them: what C leaves uninitialised is zero, except for the stamp, and what some
/// versions leave out is there.
fn as_we_send(mut bytes: Vec<u8>, message: &Message) -> Vec<u8> {
    let header_size = u64::from_le_bytes(bytes[8..16].try_into().unwrap()) as usize;
    let append = |bytes: &mut Vec<u8>, size: usize| {
        bytes.splice(PREAMBLE_SIZE + header_size..PREAMBLE_SIZE + header_size, vec![0; size - header_size]);
        bytes[8..16].copy_from_slice(&(size as u64).to_le_bytes());
    };
    match message {
        Message::AppendEntries(message) => {
            for entry in 0..message.entries.len() {
                let unused = PREAMBLE_SIZE + 40 + entry * ENTRY_SIZE + 9;
                bytes[unused..unused + 3].fill(0);
            }
        }
        Message::AppendEntriesResult(_) => append(&mut bytes, 32),
        Message::InstallSnapshot(message) => {
            let size = message.configuration.encoded_len();
            append(&mut bytes, 56 + size);
            let servers: usize =
                message.configuration.servers.iter().map(|server| 8 + server.address.len() + 2).sum();
            bytes[PREAMBLE_SIZE + 40 + 9 + servers..PREAMBLE_SIZE + 40 + size].fill(0);
            bytes[PREAMBLE_SIZE + 48 + size..][..8].fill(0);
        }
        _ => {}
    }
    bytes
}

#[test]
fn every_recorded_message_is_understood_and_encoded_again_to_the_same_bytes() {
    for recorded in recorded_messages() {
        let bytes = complete(&recorded);
        let message = decode(&bytes).unwrap().unwrap();
        assert_same_values(&message, &recorded["decoded"]);
        let expected = as_we_send(bytes, &message);
        let again = bytes_of_message(message);
        assert!(again == expected, "{} from {}", recorded["kind"], recorded["sender_version"]);
    }
}

#[test]
fn no_prefix_of_a_recorded_message_is_a_message() {
    for recorded in load("samples")["messages"].as_array().unwrap() {
        let bytes = complete(recorded);
        // Behind the header, all prefixes differ by their length only.
        for size in (0..bytes.len().min(600)).chain([bytes.len() - 1]) {
            assert_eq!(decode(&bytes[..size]), Ok(None), "{size} bytes of {}", recorded["kind"]);
        }
    }
}

#[test]
fn a_recorded_conversation_is_the_same_byte_by_byte_as_in_one_piece() {
    let recorded = recorded_messages();
    let all: Vec<u8> = recorded
        .iter()
        .filter(|message| message["length"].as_u64() < Some(9000))
        .flat_map(complete)
        .collect();
    let mut whole = MessageDecoder::new(BytesMut::from(&all[..]));
    let mut bytewise = MessageDecoder::default();
    let mut count = 0;
    // Of the snapshot that is being taken away.
    let mut left = 0;
    for byte in &all {
        bytes::BufMut::put_u8(&mut bytewise.space(), *byte);
        left -= bytewise.take(left).len() as u64;
        if left > 0 {
            continue;
        }
        while let Some(message) = bytewise.next_message().unwrap() {
            if let Decoded::Snapshot(head) = &message {
                left = head.payload_size();
            }
            assert_eq!(whole.next_message(), Ok(Some(message)));
            assert_eq!(whole.take(left).len() as u64, left);
            count += 1;
        }
    }
    assert!(count > 200 && bytewise.is_between_messages() && whole.is_between_messages());
}

#[test]
fn hand_made_messages_are_accepted_and_refused_as_the_reference_does() {
    let fixture = load("handmade-malformed");
    let cases = fixture["results"]["v1.18.6"].as_object().unwrap();
    assert!(cases.len() >= 20, "only {} cases", cases.len());
    for (name, case) in cases {
        let decoded = decode(&bytes_of(&case["message_hex"]));
        match case["connection_after"].as_str().unwrap() {
            "open" => assert!(matches!(decoded, Ok(Some(_))), "{name}: {decoded:?}"),
            "closed" | "reset" => assert!(decoded.is_err(), "{name} was accepted: {decoded:?}"),
            other => panic!("{name}: {other}"),
        }
    }
}

#[test]
fn a_connection_is_opened_with_the_recorded_bytes() {
    for name in &CAPTURES[1..] {
        for connection in load(name)["connections"].as_array().unwrap() {
            let address = connection["from_address"].as_str().unwrap().to_owned();
            let server = Server { id: connection["from"].as_u64().unwrap(), address: Bytes::from(address) };
            let mut out = BytesMut::from(&Protocol::Current.encode()[..]);
            Request::Connect(server).encode(&mut out).unwrap();
            assert_eq!(out, bytes_of(&connection["handshake_hex"]), "{connection}");
        }
    }
}

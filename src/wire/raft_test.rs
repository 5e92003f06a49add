use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::raft::configuration::Server;
use crate::raft::types::Role;

fn header_of(message: &Message) -> Vec<u8> {
    encode(message.clone()).head[PREAMBLE_SIZE..].to_vec()
}

fn preamble_of(message: &Message) -> Preamble {
    Preamble::decode(*encode(message.clone()).head.first_chunk().unwrap()).unwrap()
}

fn decode_header(kind: MessageType, header: Vec<u8>) -> Result<Head, MessageError> {
    Head::decode(Preamble { kind, header_size: header.len() }, header.into())
}

fn words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn one_entry(kind: u8, size: u32) -> Vec<u8> {
    words(&[1, 0, 0, 0, 1, 1, u64::from(kind) | u64::from(size) << 32])
}

fn append(entries: Vec<Entry>) -> AppendEntries {
    AppendEntries {
        term: Term(2),
        prev_index: Index(0x76),
        prev_term: Term(1),
        leader_commit: Index(0x75),
        entries,
        stamp: Stamp(0x0102),
    }
}

fn snapshot(data: &'static [u8]) -> InstallSnapshot {
    let server = |id, role| Server { id: ServerId(id), address: format!("10.0.0.{id}:9000"), role };
    InstallSnapshot {
        term: Term(1),
        last_index: Index(64),
        last_term: Term(1),
        configuration_index: Index(1),
        configuration: Configuration { servers: vec![server(1, Role::Voter), server(2, Role::Spare)] },
        data: SnapshotData::new(Bytes::from_static(data)),
    }
}

#[test]
fn the_stamp_is_the_word_behind_the_entries() {
    let entry = Entry { term: Term(2), kind: EntryKind::Barrier, payload: Bytes::from_static(&[0; 8]) };
    let encoded = encode(Message::AppendEntries(append(vec![entry])));
    let expected = words(&[1, 64, 2, 0x76, 1, 0x75, 1, 2, 2 | 8 << 32, 0x0102]);
    assert_eq!(encoded.head, expected);
    assert_eq!(encoded.payloads, [Bytes::from_static(&[0; 8])]);
    assert_eq!(encoded.size(), 88);
}

#[test]
fn payloads_are_neither_copied_when_sent_nor_when_received() {
    let payload = Bytes::from(vec![1; 4096]);
    let entry = Entry { term: Term(2), kind: EntryKind::Command, payload: payload.clone() };
    let message = Message::AppendEntries(append(vec![entry]));
    let encoded = encode(message.clone());
    assert_eq!(encoded.payloads[0].as_ptr(), payload.as_ptr());
    let head = decode_header(MessageType::AppendEntries, header_of(&message)).unwrap();
    let Message::AppendEntries(received) = head.complete(payload.clone()) else { panic!() };
    assert_eq!(received.entries[0].payload.as_ptr(), payload.as_ptr());
}

#[test]
fn an_entry_of_a_message_larger_than_ours_does_not_keep_the_others_in_memory() {
    let entry = |size| Entry { term: Term(2), kind: EntryKind::Command, payload: vec![1; size].into() };
    let received = |entries: Vec<Entry>| {
        let payload: Vec<u8> = entries.iter().flat_map(|entry| entry.payload.to_vec()).collect();
        let payload = Bytes::from(payload);
        let message = Message::AppendEntries(append(entries));
        let head = decode_header(MessageType::AppendEntries, header_of(&message)).unwrap();
        assert_eq!(head.clone().complete(payload.clone()), message);
        let Message::AppendEntries(received) = head.complete(payload.clone()) else { panic!() };
        let shares = |entry: &Entry| payload.as_ptr_range().contains(&entry.payload.as_ptr());
        received.entries.iter().map(shares).collect::<Vec<_>>()
    };
    assert_eq!(received(vec![entry(APPEND_BYTES_MAX - 8), entry(8)]), [true, true]);
    assert_eq!(received(vec![entry(APPEND_BYTES_MAX), entry(8)]), [false, false]);
    assert_eq!(received(vec![entry(APPEND_BYTES_MAX + 8)]), [true], "nothing else is in it");
}

#[test]
fn fields_that_older_servers_leave_out_are_absent() {
    let kind = MessageType::AppendEntriesResult;
    let Ok(Head { message: Message::AppendEntriesResult(result), .. }) =
        decode_header(kind, words(&[3, 2, 1]))
    else {
        panic!()
    };
    assert_eq!(result.features, Features(0));

    let kind = MessageType::RequestVote;
    let Ok(Head { message: Message::RequestVote(vote), .. }) = decode_header(kind, words(&[3, 2, 1, 1]))
    else {
        panic!()
    };
    assert!(!vote.disrupt_leader && !vote.pre_vote && !vote.keeps_lease);

    let kind = MessageType::RequestVoteResult;
    let Ok(Head { message: Message::RequestVoteResult(result), .. }) = decode_header(kind, words(&[3, 7]))
    else {
        panic!()
    };
    assert_eq!((result.granted, result.pre_vote, result.keeps_lease), (true, None, false));

    let without_stamp = words(&[1, 0, 0, 0, 0]);
    let Ok(Head { message: Message::AppendEntries(append), .. }) =
        decode_header(MessageType::AppendEntries, without_stamp)
    else {
        panic!()
    };
    assert_eq!(append.stamp, Stamp(0));
}

#[test]
fn headers_of_any_other_size_are_refused() {
    use MessageType::*;
    let refused = |kind, size| {
        let mut preamble = [0; PREAMBLE_SIZE];
        preamble[..8].copy_from_slice(&(kind as u64).to_le_bytes());
        preamble[8..].copy_from_slice(&(size as u64).to_le_bytes());
        Preamble::decode(preamble) == Err(MessageError::HeaderSize { kind, size: size as u64 })
    };
    for (kind, allowed) in [
        (AppendEntriesResult, &[24, 32][..]),
        (RequestVote, &[32, 40]),
        (RequestVoteResult, &[16, 24]),
        (TimeoutNow, &[24]),
    ] {
        for size in 0..=64 {
            assert_eq!(refused(kind, size), !allowed.contains(&size), "{kind:?} of {size} bytes");
        }
    }
    for (kind, min) in [(AppendEntries, 40), (InstallSnapshot, 48)] {
        assert!(refused(kind, min - 1) && !refused(kind, min));
        assert!(!refused(kind, RAFT_HEADER_SIZE_MAX) && refused(kind, RAFT_HEADER_SIZE_MAX + 1));
        assert!(refused(kind, usize::MAX));
    }
}

#[test]
fn only_the_low_16_bits_of_the_type_count() {
    let decode = |word: u64| {
        let mut preamble = [0; PREAMBLE_SIZE];
        preamble[..8].copy_from_slice(&word.to_le_bytes());
        preamble[8] = 40;
        Preamble::decode(preamble)
    };
    assert_eq!(decode(0xdead_beef_0000_0003).map(|preamble| preamble.kind), Ok(MessageType::RequestVote));
    for word in [0, 7, 13, 0xffff, 0x0001_0000] {
        assert_eq!(decode(word), Err(MessageError::UnknownType(word)));
    }
}

#[test]
fn entries_that_make_no_sense_are_refused() {
    let decode = |header| decode_header(MessageType::AppendEntries, header);
    assert!(decode(one_entry(1, 8)).is_ok());
    for kind in [0, 4, 9, 255] {
        assert_eq!(decode(one_entry(kind, 8)), Err(MessageError::EntryKind(kind)));
    }
    assert_eq!(decode(one_entry(1, 12)), Err(MessageError::EntrySize(12)));
    for count in [2, 5, 1 << 60, u64::MAX] {
        let mut header = one_entry(1, 8);
        header[32..40].copy_from_slice(&count.to_le_bytes());
        assert_eq!(decode(header), Err(MessageError::Truncated(Truncated { offset: 32 })), "{count} entries");
    }
}

#[test]
fn payloads_above_the_limit_are_refused() {
    let decode = |header| decode_header(MessageType::AppendEntries, header);
    let limit = u32::try_from(APPEND_PAYLOAD_SIZE_MAX).unwrap();
    assert_eq!(decode(one_entry(1, limit)).unwrap().payload_size(), u64::from(limit));
    let size = u64::from(limit) + 8;
    let refused = MessageError::PayloadSize { size, limit: APPEND_PAYLOAD_SIZE_MAX };
    assert_eq!(decode(one_entry(1, limit + 8)), Err(refused));

    let mut header = header_of(&Message::InstallSnapshot(snapshot(b"")));
    let at = header.len() - 16;
    header[at..at + 8].copy_from_slice(&u64::MAX.to_le_bytes());
    let error = decode_header(MessageType::InstallSnapshot, header).unwrap_err();
    assert_eq!(error, MessageError::PayloadSize { size: u64::MAX, limit: SNAPSHOT_PAYLOAD_SIZE_MAX });
}

#[test]
fn a_snapshot_whose_configuration_does_not_fit_is_refused() {
    for size in [1u64, 8, 1 << 40, u64::MAX] {
        let header = words(&[1, 5, 1, 1, size, 0]);
        assert!(decode_header(MessageType::InstallSnapshot, header).is_err(), "size {size}");
    }
}

#[test]
fn a_snapshot_without_the_unused_word_is_the_same() {
    let snapshot = snapshot(b"12345678");
    let message = Message::InstallSnapshot(snapshot.clone());
    let mut header = header_of(&message);
    header.truncate(header.len() - 8);
    let head = decode_header(MessageType::InstallSnapshot, header).unwrap();
    assert_eq!(head.payload_size(), 8);
    assert_eq!(head.complete_with(snapshot.data), message);
}

#[test]
fn every_prefix_of_a_header_is_an_error_or_an_older_form_never_a_panic() {
    let entry = Entry { term: Term(2), kind: EntryKind::Barrier, payload: Bytes::from_static(&[0; 8]) };
    let messages =
        [Message::AppendEntries(append(vec![entry])), Message::InstallSnapshot(snapshot(b"12345678"))];
    for message in messages {
        let (header, kind) = (header_of(&message), preamble_of(&message).kind);
        for size in 0..header.len() - 8 {
            assert!(decode_header(kind, header[..size].to_vec()).is_err(), "{kind:?}, {size} bytes");
        }
        for size in header.len() - 8..=header.len() {
            assert!(decode_header(kind, header[..size].to_vec()).is_ok(), "{kind:?}, {size} bytes");
        }
    }
}

fn entries() -> impl Strategy<Value = Vec<Entry>> {
    let kind = prop_oneof![Just(EntryKind::Command), Just(EntryKind::Barrier), Just(EntryKind::Change)];
    let entry = (any::<u64>(), kind, 0usize..20, any::<u8>()).prop_map(|(term, kind, words, byte)| Entry {
        term: Term(term),
        kind,
        payload: vec![byte; words * 8].into(),
    });
    vec(entry, 0..20)
}

fn append_entries() -> impl Strategy<Value = Message> {
    (any::<[u64; 5]>(), entries()).prop_map(|([term, prev_index, prev_term, commit, stamp], entries)| {
        Message::AppendEntries(AppendEntries {
            term: Term(term),
            prev_index: Index(prev_index),
            prev_term: Term(prev_term),
            leader_commit: Index(commit),
            entries,
            stamp: Stamp(stamp),
        })
    })
}

fn install_snapshot() -> impl Strategy<Value = Message> {
    let role = prop_oneof![Just(Role::Standby), Just(Role::Voter), Just(Role::Spare)];
    let configuration = vec(role, 0..9).prop_map(|roles| {
        let servers = roles.into_iter().zip(1..).map(|(role, id)| Server {
            id: ServerId(id),
            address: format!("{:x>1$}", id, id as usize),
            role,
        });
        Configuration { servers: servers.collect() }
    });
    (any::<[u64; 4]>(), configuration, vec(any::<u8>(), 0..100)).prop_map(|(words, configuration, data)| {
        Message::InstallSnapshot(InstallSnapshot {
            term: Term(words[0]),
            last_index: Index(words[1]),
            last_term: Term(words[2]),
            configuration_index: Index(words[3]),
            configuration,
            data: SnapshotData::new(Bytes::from(data)),
        })
    })
}

fn votes() -> impl Strategy<Value = Message> {
    let request = (any::<[u64; 4]>(), any::<[bool; 3]>()).prop_map(|(words, flags)| {
        Message::RequestVote(RequestVote {
            term: Term(words[0]),
            candidate: ServerId(words[1]),
            last_index: Index(words[2]),
            last_term: Term(words[3]),
            disrupt_leader: flags[0],
            pre_vote: flags[1],
            keeps_lease: flags[2],
        })
    });
    let result = (any::<u64>(), any::<bool>(), any::<Option<bool>>(), any::<bool>());
    let result = result.prop_map(|(term, granted, pre_vote, keeps_lease)| {
        // Whoever does not say which question it answers makes no promises either.
        let keeps_lease = keeps_lease && pre_vote.is_some();
        Message::RequestVoteResult(RequestVoteResult { term: Term(term), granted, pre_vote, keeps_lease })
    });
    prop_oneof![request, result]
}

fn others() -> impl Strategy<Value = Message> {
    let result = any::<[u64; 4]>().prop_map(|[term, rejected, last_index, features]| {
        Message::AppendEntriesResult(AppendEntriesResult {
            term: Term(term),
            rejected: Index(rejected),
            last_index: Index(last_index),
            features: Features(features),
        })
    });
    let timeout = any::<[u64; 3]>().prop_map(|[term, last_index, last_term]| {
        Message::TimeoutNow(TimeoutNow {
            term: Term(term),
            last_index: Index(last_index),
            last_term: Term(last_term),
        })
    });
    prop_oneof![result, timeout]
}

proptest! {
    #[test]
    fn every_message_is_read_back_as_it_was(
        message in prop_oneof![append_entries(), install_snapshot(), votes(), others()]
    ) {
        let encoded = encode(message.clone());
        let preamble = Preamble::decode(*encoded.head.first_chunk().unwrap()).unwrap();
        let head = Head::decode(preamble, encoded.head.slice(PREAMBLE_SIZE..)).unwrap();
        let payload: Vec<u8> = encoded.payloads.concat();
        prop_assert_eq!(encoded.size(), encoded.head.len() as u64 + head.payload_size());
        prop_assert_eq!(head.is_of_snapshot(), encoded.snapshot.is_some());
        let decoded = match encoded.snapshot {
            Some(snapshot) => {
                prop_assert_eq!(head.payload_size(), snapshot.size());
                head.complete_with(snapshot)
            }
            None => head.complete(payload.into()),
        };
        prop_assert_eq!(decoded, message);
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(kind in 0u64..8, header in vec(any::<u8>(), 0..200)) {
        let mut preamble = [0; PREAMBLE_SIZE];
        preamble[..8].copy_from_slice(&kind.to_le_bytes());
        preamble[8..].copy_from_slice(&(header.len() as u64).to_le_bytes());
        if let Ok(preamble) = Preamble::decode(preamble) {
            let _ = Head::decode(preamble, header.into());
        }
    }
}

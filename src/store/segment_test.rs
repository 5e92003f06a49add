use super::*;
use proptest::prelude::*;

/// The closed segment 1-1 that both C releases write for server 1 at 127.0.0.1:21001.
const GOLDEN: &str = "01000000000000002d99f9868d5085b6010000000000000001000000000000000300000028000000\
    01010000000000000001000000000000003132372e302e302e313a32313030310001000000000000";

fn golden() -> Vec<u8> {
    (0..GOLDEN.len()).step_by(2).map(|i| u8::from_str_radix(&GOLDEN[i..i + 2], 16).unwrap()).collect()
}

fn entry(term: u64, payload: &[u8]) -> Entry {
    Entry { term: Term(term), kind: EntryKind::Command, payload: Bytes::copy_from_slice(payload) }
}

/// A segment of batches with the given entries, and the offset of each batch.
fn segment(batches: &[Vec<Entry>]) -> (Vec<u8>, Vec<usize>) {
    let mut out = FORMAT.to_le_bytes().to_vec();
    let mut offsets = Vec::new();
    for batch in batches {
        offsets.push(out.len());
        encode_batch(&mut out, batch);
    }
    (out, offsets)
}

fn entries(bytes: Vec<u8>) -> Vec<Entry> {
    Segment::parse(bytes.into()).into_entries().collect()
}

fn three_batches() -> (Vec<u8>, Vec<usize>, Vec<Entry>) {
    let all = vec![entry(1, &[1; 8]), entry(1, &[2; 40]), entry(2, &[]), entry(3, &[4; 16])];
    let (bytes, offsets) = segment(&[all[..1].to_vec(), all[1..3].to_vec(), all[3..].to_vec()]);
    (bytes, offsets, all)
}

#[test]
fn the_bytes_are_those_of_the_c_library() {
    let configuration = golden()[40..].to_vec();
    let change = Entry { term: Term(1), kind: EntryKind::Change, payload: configuration.into() };
    assert_eq!(encode_closed(std::slice::from_ref(&change)), golden());
    let segment = Segment::parse(golden().into());
    assert_eq!((segment.used, segment.tail.clone(), segment.count()), (80, Tail::EndOfFile, 1));
    assert_eq!(segment.into_entries().collect::<Vec<_>>(), [change]);
}

#[test]
fn garbage_in_the_unused_bytes_of_an_entry_header_is_ignored() {
    let mut bytes = golden();
    bytes[8 + 16 + 9..8 + 16 + 12].copy_from_slice(&[0xde, 0xad, 0xbe]);
    let head_crc = crc(&bytes[16..40]);
    bytes[8..12].copy_from_slice(&head_crc.to_le_bytes());
    assert_eq!(entries(bytes), entries(golden()));
}

#[test]
fn every_prefix_yields_the_batches_it_holds_whole() {
    let (bytes, offsets, all) = three_batches();
    for len in HEADER_SIZE..bytes.len() {
        let segment = Segment::parse(Bytes::copy_from_slice(&bytes[..len]));
        let whole = offsets.iter().skip(1).filter(|offset| **offset <= len).count();
        assert_eq!(segment.used, offsets[whole], "prefix of {len} bytes");
        let at_boundary = len == offsets[whole];
        assert_eq!(segment.tail == Tail::EndOfFile, at_boundary, "prefix of {len} bytes");
        assert_eq!(segment.batch_behind_fault(), None, "prefix of {len} bytes");
        let expected = [0, 1, 3][whole];
        assert_eq!(segment.into_entries().collect::<Vec<_>>(), all[..expected]);
    }
}

#[test]
fn a_tail_of_zeros_is_the_end_of_an_open_segment() {
    let (mut bytes, _, all) = three_batches();
    let used = bytes.len();
    bytes.resize(used + 100_000, 0);
    let segment = Segment::parse(bytes.into());
    assert_eq!((segment.used, &segment.tail), (used, &Tail::Zeros));
    assert_eq!(segment.into_entries().collect::<Vec<_>>(), all);
}

#[test]
fn each_kind_of_damage_is_named() {
    let (bytes, offsets, _) = three_batches();
    let second = offsets[1];
    let fault = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = bytes.clone();
        change(&mut bytes);
        let segment = Segment::parse(bytes.into());
        assert_eq!(segment.used, second);
        match segment.tail {
            Tail::Fault { batch: 2, fault } => fault,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(fault(&|b| b[second + 8] = 0), BatchFault::NoEntries);
    assert_eq!(fault(&|b| b[second + 12] = 1), BatchFault::TooManyEntries(0x1_0000_0002));
    assert_eq!(fault(&|b| b[second] ^= 1), BatchFault::HeaderChecksum);
    assert_eq!(fault(&|b| b[second + 16] ^= 1), BatchFault::HeaderChecksum);
    assert_eq!(fault(&|b| b[second + 48] ^= 1), BatchFault::DataChecksum { end: offsets[2] });
    assert_eq!(fault(&|b| b.truncate(second + 50)), BatchFault::Short { have: 50, need: 88 });
    let unknown = fault(&|b| {
        b[second + 16 + 16 + 8] = 9;
        let head_crc = crc(&b[second + 8..second + 48]);
        b[second..second + 4].copy_from_slice(&head_crc.to_le_bytes());
    });
    assert_eq!(unknown, BatchFault::UnknownKind { number: 2, kind: 9 });
}

#[test]
fn a_valid_batch_behind_a_damaged_one_is_found_wherever_the_damage_is() {
    let (bytes, offsets, _) = three_batches();
    for damaged in offsets[1]..offsets[2] {
        let mut bytes = bytes.clone();
        bytes[damaged] ^= 0x55;
        let segment = Segment::parse(bytes.into());
        assert_eq!(segment.batch_behind_fault(), Some(offsets[2]), "byte {damaged} damaged");
    }
    // The last one may be a torn write.
    for damaged in offsets[2]..bytes.len() {
        let mut bytes = bytes.clone();
        bytes[damaged] ^= 0x55;
        assert_eq!(Segment::parse(bytes.into()).batch_behind_fault(), None, "byte {damaged} damaged");
    }
}

#[test]
fn a_batch_inside_a_torn_payload_is_not_taken_for_one_of_the_log() {
    let (inner, offsets, _) = three_batches();
    let (mut bytes, _) = segment(&[vec![entry(1, &inner[offsets[0]..])]]);
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    assert_eq!(Segment::parse(bytes.into()).batch_behind_fault(), None);
}

#[test]
fn entries_do_not_keep_a_long_tail_in_memory() {
    let (mut bytes, _, _) = three_batches();
    bytes.resize(1 << 20, 0);
    let start = bytes.as_ptr() as usize;
    let end = start + bytes.len();
    for entry in Segment::parse(bytes.into()).into_entries() {
        assert!(!(start..end).contains(&(entry.payload.as_ptr() as usize)) || entry.payload.is_empty());
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(
        batches in prop::collection::vec(prop::collection::vec((1u64..9, 0usize..20), 1..5), 0..6),
    ) {
        let batches: Vec<Vec<Entry>> = batches
            .into_iter()
            .map(|batch| batch.into_iter().map(|(term, words)| entry(term, &vec![7; words * 8])).collect())
            .collect();
        let (bytes, _) = segment(&batches);
        prop_assert_eq!(entries(bytes), batches.concat());
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 8..400)) {
        let segment = Segment::parse(bytes.into());
        segment.batch_behind_fault();
        prop_assert!(segment.into_entries().count() < 400);
    }
}

use super::super::failure;
use super::super::frame::HEADER_SIZE;
use super::super::rows::{RowsEnd, RowsFrame};
use super::super::tuple::Value;
use super::*;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn encoded(encode: impl FnOnce(&mut BytesMut)) -> Bytes {
    let mut out = BytesMut::new();
    encode(&mut out);
    out.freeze()
}

fn decode(frame: &Bytes) -> Result<Response, ResponseError> {
    let header = Header::decode(frame[..HEADER_SIZE].try_into().unwrap());
    assert_eq!(header.body_size(), (frame.len() - HEADER_SIZE) as u64, "frame length");
    Response::decode(header, frame.slice(HEADER_SIZE..), ClusterFormat::V1)
}

fn voter() -> [ServerEntry<&'static str>; 1] {
    [ServerEntry { id: 1, address: "127.0.0.1:19417", role: 0 }]
}

const STMT: Stmt = Stmt { db: 0, id: 0, params: 0, tail_offset: 9 };

/// Responses as C servers sent them.
#[test]
fn recorded_responses_are_reproduced() {
    let address = "127.0.0.1:19417";
    let recorded = [
        (
            encoded(|out| server(out, 1, address.as_bytes())),
            "03000000 01 00 0000 0100000000000000 3132372e302e302e313a313934313700",
        ),
        (
            encoded(|out| legacy_server(out, address.as_bytes())),
            "02000000 01 00 0000 3132372e302e302e313a313934313700",
        ),
        (encoded(|out| welcome(out, 15_000)), "01000000 02 00 0000 983a000000000000"),
        (encoded(|out| db(out, 0)), "01000000 04 00 0000 00000000 00000000"),
        (
            encoded(|out| stmt(out, Schema::V1, STMT)),
            "03000000 05 01 0000 00000000 00000000 0000000000000000 0900000000000000",
        ),
        (
            encoded(|out| stmt(out, Schema::V0, STMT)),
            "02000000 05 00 0000 00000000 00000000 0000000000000000",
        ),
        (
            encoded(|out| result(out, ExecResult { last_insert_id: 1, rows_affected: 1 })),
            "02000000 06 00 0000 0100000000000000 0100000000000000",
        ),
        (
            encoded(|out| {
                let mut frame = RowsFrame::begin(std::mem::take(out), ["x", "y"]);
                frame.row(|row| {
                    row.push(Value::Integer(1));
                    row.push(Value::Text(b"b"));
                });
                *out = frame.finish(RowsEnd::Done).unwrap();
            }),
            "07000000 07 00 0000 0200000000000000 7800000000000000 7900000000000000
             3100000000000000 0100000000000000 6200000000000000 ffffffffffffffff",
        ),
        (
            encoded(|out| failure::NOT_LEADER.encode(out)),
            "03000000 00 00 0000 0a28000000000000 6e6f74206c6561646572000000000000",
        ),
        (
            encoded(|out| failure(out, 1555, b"UNIQUE constraint failed: p.id")),
            "05000000 00 00 0000 1306000000000000
             554e4951554520636f6e73747261696e74206661696c65643a20702e69640000",
        ),
        (
            encoded(|out| servers(out, ClusterFormat::V1, voter())),
            "05000000 03 00 0000 0100000000000000 0100000000000000 3132372e302e302e313a313934313700
             0000000000000000",
        ),
        (
            encoded(|out| servers(out, ClusterFormat::V0, voter())),
            "04000000 03 00 0000 0100000000000000 0100000000000000 3132372e302e302e313a313934313700",
        ),
        (encoded(empty), "01000000 08 00 0000 0000000000000000"),
        (
            encoded(|out| failure::RESOURCE_NOT_FOUND.encode(out)),
            "04000000 00 00 0000 0100000000000000 5265736f75726365206e6f7420666f756e64000000000000",
        ),
        (encoded(|out| metadata(out, 3, 5)), "02000000 0a 00 0000 0300000000000000 0500000000000000"),
    ];
    for (ours, text) in recorded {
        assert_eq!(ours, hex(text), "{text}");
    }
}

#[test]
fn files_are_streamed_behind_a_header_that_counts_all_of_them() {
    let files = [FileEntry { name: b"dump.db", size: 8192 }, FileEntry { name: b"dump.db-wal", size: 0 }];
    let contents = [vec![7; 8192], vec![]];
    let frame = encoded(|out| {
        files_head(out, &files).unwrap();
        for (file, content) in files.iter().zip(&contents) {
            file_head(out, *file);
            out.put_slice(content);
        }
    });
    assert_eq!(frame[..32], hex("06040000 09 00 0000 0200000000000000 64756d702e646200 0020000000000000"));
    assert_eq!(frame[frame.len() - 24..], hex("64756d702e64622d77616c0000000000 0000000000000000"));
    let Ok(Response::Files(decoded)) = decode(&frame) else { panic!("not FILES") };
    assert_eq!(decoded.len(), 2);
    assert_eq!(decoded[0], (Bytes::from("dump.db"), Bytes::from(vec![7; 8192])));
    assert_eq!(decoded[1], (Bytes::from("dump.db-wal"), Bytes::new()));
}

#[test]
fn files_beyond_the_word_count_of_a_header_are_an_error_that_leaves_the_buffer_alone() {
    for size in [32 << 30, u64::MAX - 7] {
        let mut out = BytesMut::new();
        let file = FileEntry { name: b"db", size };
        assert!(files_head(&mut out, &[file, file]).is_err());
        assert!(out.is_empty());
    }
}

fn samples() -> Vec<Bytes> {
    let stmt_of = |schema| encoded(|out| stmt(out, schema, STMT));
    vec![
        encoded(|out| failure(out, 1, b"syntax error")),
        encoded(|out| server(out, 0, b"")),
        encoded(|out| welcome(out, 15_000)),
        encoded(|out| servers(out, ClusterFormat::V1, voter())),
        encoded(|out| db(out, 0)),
        stmt_of(Schema::V0),
        stmt_of(Schema::V1),
        encoded(|out| result(out, ExecResult { last_insert_id: -1, rows_affected: 3 })),
        encoded(empty),
        encoded(|out| metadata(out, 3, 5)),
        encoded(|out| {
            let file = FileEntry { name: b"db", size: 8 };
            files_head(out, &[file]).unwrap();
            file_head(out, file);
            out.put_u64_le(1);
        }),
    ]
}

#[test]
fn every_prefix_of_a_response_is_an_error_never_a_panic() {
    for frame in samples() {
        let header = Header::decode(frame[..HEADER_SIZE].try_into().unwrap());
        decode(&frame).unwrap();
        for end in HEADER_SIZE..frame.len() {
            let prefix = frame.slice(HEADER_SIZE..end);
            assert!(
                Response::decode(header, prefix, ClusterFormat::V1).is_err(),
                "kind {}: {} bytes",
                header.kind,
                end - HEADER_SIZE
            );
        }
    }
}

#[test]
fn what_the_server_encodes_the_client_reads() {
    let decoded: Vec<_> = samples().iter().map(|frame| decode(frame).unwrap()).collect();
    assert!(matches!(&decoded[0], Response::Failure { code: 1, message } if message == "syntax error"));
    assert!(matches!(&decoded[1], Response::Server { id: 0, address } if address.is_empty()));
    let Response::Servers(servers) = &decoded[3] else { panic!("not SERVERS") };
    assert_eq!(servers[0], ServerEntry { id: 1, address: "127.0.0.1:19417".into(), role: 0 });
    assert!(matches!(decoded[5], Response::Stmt(Stmt { tail_offset: 0, .. })));
    assert!(matches!(decoded[6], Response::Stmt(STMT)));
    assert!(matches!(decoded[7], Response::Result(ExecResult { last_insert_id: -1, rows_affected: 3 })));
    assert!(matches!(decoded[9], Response::Metadata { failure_domain: 3, weight: 5 }));
    let legacy = encoded(|out| legacy_server(out, b"a:1"));
    assert_eq!(decode_legacy_server(legacy.slice(HEADER_SIZE..)).unwrap(), "a:1");
}

#[test]
fn a_count_that_the_body_cannot_hold_is_refused_without_allocating() {
    for kind in [ResponseType::Servers, ResponseType::Files] {
        let body = [&u64::MAX.to_le_bytes()[..], &[0; 16]].concat();
        let header = Header { words: 3, kind: kind as u8, schema: 0, extra: 0 };
        assert!(Response::decode(header, body.into(), ClusterFormat::V1).is_err());
    }
}

#[test]
fn an_unknown_response_type_is_an_error() {
    let header = Header { words: 1, kind: 11, schema: 0, extra: 0 };
    let error = Response::decode(header, vec![0; 8].into(), ClusterFormat::V1).unwrap_err();
    assert_eq!(error, ResponseError::UnknownType { kind: 11 });
}

proptest::proptest! {
    #[test]
    fn random_bodies_never_panic(kind in 0u8..12, body in proptest::collection::vec(0u8..12, 0..120)) {
        let header = Header { words: (body.len() / 8) as u32, kind, schema: 0, extra: 0 };
        if let Ok(Response::Rows(mut rows)) = Response::decode(header, body.into(), ClusterFormat::V1) {
            let mut row = Vec::new();
            while let Ok(super::super::rows::RowsStep::Row) = rows.step(&mut row) {}
        }
    }
}

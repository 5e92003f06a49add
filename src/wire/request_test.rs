use super::*;
use crate::wire::tuple::Value;

fn hex(text: &str) -> Bytes {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn split(frame: &Bytes) -> (Header, Bytes) {
    let header = Header::decode(frame[..frame::HEADER_SIZE].try_into().unwrap());
    assert_eq!(header.body_size(), (frame.len() - frame::HEADER_SIZE) as u64, "frame length");
    (header, frame.slice(frame::HEADER_SIZE..))
}

fn decode(text: &str) -> Request {
    let (header, body) = split(&hex(text));
    Request::decode(header, body).unwrap()
}

fn encode(request: &Request) -> Bytes {
    let mut out = BytesMut::new();
    request.encode(&mut out).unwrap();
    out.freeze()
}

fn params<const N: usize>(values: [Value<&[u8]>; N]) -> Params {
    Params::from_values(&values)
}

fn error(kind: u8, schema: u8, body: &[u8]) -> DecodeError {
    let header = Header { words: (body.len() / 8) as u32, kind, schema, extra: 0 };
    Request::decode(header, Bytes::copy_from_slice(body)).unwrap_err()
}

/// One request of every type, with tuples of both schemas.
fn samples() -> Vec<Request> {
    let server = || Server { id: 2, address: "127.0.0.1:19992".into() };
    let statement = |schema| Statement {
        db: 0,
        statement: 3,
        schema,
        params: params([Value::Integer(-1), Value::Text(b"text"), Value::Blob(b"\x01\x02\x03")]),
    };
    let sql = |schema| Sql {
        db: 0,
        sql: "SELECT ?, ?".into(),
        schema,
        params: params([Value::Float(2.5), Value::Null, Value::Iso8601(b"2024-05-06"), Value::Boolean(1)]),
    };
    vec![
        Request::Leader,
        Request::Client { id: 7 },
        Request::Open { name: "test.db".into(), flags: 6, vfs: "volatile".into() },
        Request::Prepare { db: 0, sql: "SELECT 1".into(), schema: Schema::V0 },
        Request::Prepare { db: 1, sql: "SELECT 1; SELECT 2".into(), schema: Schema::V1 },
        Request::Exec(statement(Schema::V0)),
        Request::Exec(Statement { params: Params::none(), ..statement(Schema::V1) }),
        Request::Query(statement(Schema::V1)),
        Request::Finalize { db: 0, statement: 9 },
        Request::ExecSql(sql(Schema::V0)),
        Request::QuerySql(sql(Schema::V1)),
        Request::Interrupt { db: 0 },
        Request::Connect(server()),
        Request::Add(server()),
        Request::Assign { id: 2, role: None },
        Request::Assign { id: 2, role: Some(9) },
        Request::Remove { id: 2 },
        Request::Dump { name: "test.db".into() },
        Request::Cluster { format: 1 },
        Request::Transfer { id: 0 },
        Request::Describe { format: 0 },
        Request::Weight { weight: 5 },
    ]
}

#[test]
fn every_request_survives_encoding_and_decoding() {
    for request in samples() {
        let frame = encode(&request);
        let (header, body) = split(&frame);
        let decoded = Request::decode(header, body).unwrap();
        assert_eq!(decoded.kind(), request.kind());
        assert_eq!(encode(&decoded), frame, "{request:?}");
    }
}

#[test]
fn trailing_words_and_the_extra_field_are_ignored() {
    for request in samples() {
        let takes_the_rest = matches!(request.kind(), RequestType::Assign)
            || matches!(&request, Request::Exec(s) if s.params.len() == 0);
        if takes_the_rest {
            continue;
        }
        let frame = encode(&request);
        let (header, body) = split(&frame);
        let longer = Bytes::from([&body[..], &[0xaa; 16]].concat());
        let header = Header { words: header.words + 2, extra: 0xbeef, ..header };
        let decoded = Request::decode(header, longer).unwrap();
        assert_eq!(decoded.kind(), request.kind());
    }
}

#[test]
fn every_prefix_of_a_body_is_refused_or_complete_never_a_panic() {
    for request in samples() {
        let (header, body) = split(&encode(&request));
        for len in 0..body.len() {
            match Request::decode(header, body.slice(..len)) {
                Err(DecodeError::EmptyBody) => assert_eq!(len, 0),
                Err(DecodeError::Malformed(_)) => {}
                // What is left out may be optional: the role, the tuple, values that are decoded when needed.
                Ok(Request::Assign { role: None, .. }) => assert_eq!(len, 8),
                Ok(Request::Exec(Statement { params, .. }) | Request::Query(Statement { params, .. }))
                | Ok(Request::ExecSql(Sql { params, .. }) | Request::QuerySql(Sql { params, .. })) => {
                    let values: Result<Vec<_>, _> = params.clone().collect();
                    assert!(params.len() == 0 || values.is_err(), "{request:?}, {len} bytes");
                }
                other => panic!("{request:?}, {len} bytes: {other:?}"),
            }
        }
    }
}

#[test]
fn a_text_without_an_end_is_malformed() {
    for kind in [RequestType::Prepare, RequestType::ExecSql, RequestType::Add, RequestType::Connect] {
        let error = error(kind as u8, 0, b"\0\0\0\0\0\0\0\0SELECT 1SELECT 2");
        assert!(matches!(error, DecodeError::Malformed(_)), "{kind:?}: {error}");
        assert_eq!(error.failure(), None);
    }
}

#[test]
fn unknown_types_are_answered_with_1005_and_heartbeat_is_one() {
    for kind in [2, 20, 127, 255] {
        let error = error(kind, 0, &[0; 8]);
        assert_eq!(error, DecodeError::UnknownType { kind });
        assert_eq!(error.failure(), Some(failure::UNKNOWN_TYPE));
    }
    for kind in 0..=u8::MAX {
        assert!(RequestType::from_u8(kind).is_none_or(|known| known as u8 == kind));
    }
}

#[test]
fn unknown_schemas_are_answered_with_1_where_there_are_two_and_with_1005_where_there_is_one() {
    for kind in (0..=19).filter_map(RequestType::from_u8) {
        use RequestType::*;
        let expected = match kind {
            Connect => continue,
            Prepare | Exec | Query | ExecSql | QuerySql => {
                (2, Failure { code: 1, text: "unrecognized schema version" })
            }
            _ => (1, Failure { code: 1005, text: "unrecognized schema version" }),
        };
        let (schema, failure) = expected;
        assert_eq!(error(kind as u8, schema, &[0; 8]).failure(), Some(failure), "{kind:?}");
    }
}

#[test]
fn the_schema_is_checked_before_the_body_and_the_type_before_the_schema() {
    let unterminated = [0xff; 16];
    assert!(matches!(error(4, 2, &unterminated), DecodeError::UnknownSchema { .. }));
    assert!(matches!(error(99, 2, &unterminated), DecodeError::UnknownType { .. }));
}

#[test]
fn an_empty_body_is_answered_with_a_failure() {
    assert_eq!(error(0, 0, &[]).failure(), Some(failure::EMPTY_BODY));
}

#[test]
fn connect_is_understood_with_any_schema() {
    let frame = encode(&Request::Connect(Server { id: 2, address: "a:1".into() }));
    let (header, body) = split(&frame);
    assert!(Request::decode(Header { schema: 77, ..header }, body).is_ok());
}

#[test]
fn a_tuple_header_longer_than_the_body_is_malformed() {
    for (schema, tuple) in [(0, [9u8, 1, 1, 1, 1, 1, 1, 1]), (1, [5, 0, 0, 0, 1, 1, 1, 1])] {
        let body = [&[0; 8], &tuple[..]].concat();
        assert!(matches!(error(5, schema, &body), DecodeError::Malformed(_)), "schema {schema}");
    }
}

#[test]
fn a_promote_has_no_role_and_an_assign_ignores_what_follows_it() {
    assert!(matches!(decode("01000000 0d 00 0000 0700000000000000"), Request::Assign { id: 7, role: None }));
    assert!(matches!(
        decode("03000000 0d 00 0000 0200000000000000 0100000000000000 ffffffffffffffff"),
        Request::Assign { id: 2, role: Some(1) }
    ));
}

#[test]
fn a_request_that_cannot_be_encoded_leaves_the_buffer_as_it_was() {
    let values = vec![Value::<&[u8]>::Null; 256];
    let statement =
        Statement { db: 0, statement: 0, schema: Schema::V0, params: Params::from_values(&values) };
    let mut out = BytesMut::from(&b"before"[..]);
    let error = Request::Exec(statement.clone()).encode(&mut out).unwrap_err();
    assert_eq!(error, EncodeError::TooManyParams(TooManyParams { count: 256, limit: 255 }));
    assert_eq!(out, &b"before"[..]);
    Request::Exec(Statement { schema: Schema::V1, ..statement }).encode(&mut out).unwrap();
}

/// Requests as C clients sent them, and what they say.
#[test]
fn recorded_requests_are_understood_and_reproduced() {
    let recorded = [
        ("01000000 00 00 0000 0000000000000000", Request::Leader),
        ("01000000 01 00 0000 8877665544332211", Request::Client { id: 0x1122_3344_5566_7788 }),
        (
            "05000000 03 00 0000 6f70656e5f64622e6462000000000000 0000000000000000
             766f6c6174696c650000000000000000",
            Request::Open { name: "open_db.db".into(), flags: 0, vfs: "volatile".into() },
        ),
        (
            "04000000 04 01 0000 0000000000000000 53454c45435420313b2053454c4543542032000000000000",
            Request::Prepare { db: 0, sql: "SELECT 1; SELECT 2".into(), schema: Schema::V1 },
        ),
        (
            "03000000 05 00 0000 00000000 00000000 01 03 000000000000 6f6e650000000000",
            Request::Exec(Statement {
                db: 0,
                statement: 0,
                schema: Schema::V0,
                params: params([Value::Text(b"one")]),
            }),
        ),
        (
            "04000000 06 00 0000 00000000 00000000 02 01 03 0000000000 0100000000000000 6200000000000000",
            Request::Query(Statement {
                db: 0,
                statement: 0,
                schema: Schema::V0,
                params: params([Value::Integer(1), Value::Text(b"b")]),
            }),
        ),
        (
            "0f000000 09 00 0000 0000000000000000 53454c454354203f2c3f2c3f2c3f2c3f2c3f2c3f00000000
             07 01 02 03 04 05 0a 0b fbffffffffffffff 0000000000000440 7465787400000000
             0300000000000000 0102030000000000 0000000000000000
             323032342d30352d30362030373a30383a30390000000000 0100000000000000",
            Request::QuerySql(Sql {
                db: 0,
                sql: "SELECT ?,?,?,?,?,?,?".into(),
                schema: Schema::V0,
                params: params([
                    Value::Integer(-5),
                    Value::Float(2.5),
                    Value::Text(b"text"),
                    Value::Blob(&[1, 2, 3]),
                    Value::Null,
                    Value::Iso8601(b"2024-05-06 07:08:09"),
                    Value::Boolean(1),
                ]),
            }),
        ),
        ("02000000 0d 00 0000 0200000000000000 0100000000000000", Request::Assign { id: 2, role: Some(1) }),
        ("01000000 10 00 0000 0100000000000000", Request::Cluster { format: 1 }),
        ("01000000 0f 00 0000 64756d702e646200", Request::Dump { name: "dump.db".into() }),
        (
            "03000000 0b 00 0000 0200000000000000 3132372e302e302e313a313939393200",
            Request::Connect(Server { id: 2, address: "127.0.0.1:19992".into() }),
        ),
    ];
    for (text, request) in recorded {
        assert_eq!(encode(&request), hex(text), "{request:?}");
        assert_eq!(format!("{:?}", decode(text).kind()), format!("{:?}", request.kind()));
        assert_eq!(encode(&decode(text)), hex(text));
    }
}

proptest::proptest! {
    #[test]
    fn random_bodies_never_panic(
        kind in 0u8..24,
        schema in 0u8..3,
        words in proptest::collection::vec(proptest::array::uniform8(0u8..12), 0..15),
    ) {
        let body: Vec<u8> = words.concat();
        let header = Header { words: (body.len() / 8) as u32, kind, schema, extra: 0 };
        if let Ok(request) = Request::decode(header, body.into()) {
            let mut out = BytesMut::new();
            request.encode(&mut out).unwrap();
        }
    }
}

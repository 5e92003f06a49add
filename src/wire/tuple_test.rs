use super::*;
use proptest::prelude::*;

fn encoded(schema: Schema, values: &[Value<&[u8]>]) -> Bytes {
    let mut out = BytesMut::new();
    Params::from_values(values).encode(schema, &mut out).unwrap();
    out.freeze()
}

fn decoded(schema: Schema, body: impl Into<Bytes>) -> Params {
    Params::decode(schema, &mut Reader::new(body.into())).unwrap()
}

fn owned(value: &Value<&[u8]>) -> Value<Bytes> {
    match *value {
        Value::Integer(n) => Value::Integer(n),
        Value::Float(x) => Value::Float(x),
        Value::Text(text) => Value::Text(Bytes::copy_from_slice(text)),
        Value::Blob(blob) => Value::Blob(Bytes::copy_from_slice(blob)),
        Value::Null => Value::Null,
        Value::UnixTime(n) => Value::UnixTime(n),
        Value::Iso8601(text) => Value::Iso8601(Bytes::copy_from_slice(text)),
        Value::Boolean(n) => Value::Boolean(n),
    }
}

#[test]
fn the_header_of_a_parameter_tuple_takes_the_words_of_the_table() {
    let words = |schema, count| {
        let values = vec![Value::<&[u8]>::Integer(1); count];
        encoded(schema, &values).len() / 8 - count
    };
    for (count, v0, v1) in [
        (1, 1, 1),
        (4, 1, 1),
        (5, 1, 2),
        (7, 1, 2),
        (8, 2, 2),
        (12, 2, 2),
        (13, 2, 3),
        (15, 2, 3),
        (255, 32, 33),
    ] {
        assert_eq!((words(Schema::V0, count), words(Schema::V1, count)), (v0, v1), "{count} parameters");
    }
    assert_eq!(words(Schema::V0, 0), 0);
    assert_eq!(
        encoded(Schema::V1, &[Value::Integer(1); 5])[..16],
        *b"\x05\0\0\0\x01\x01\x01\x01\x01\0\0\0\0\0\0\0"
    );
}

#[test]
fn a_count_of_zero_and_an_absent_tuple_are_both_no_parameters() {
    assert_eq!(decoded(Schema::V0, vec![0; 8]).count(), 0);
    assert_eq!(decoded(Schema::V1, vec![0; 8]).count(), 0);
    assert_eq!(decoded(Schema::V1, vec![]).count(), 0);
}

#[test]
fn a_value_is_decoded_only_when_it_is_asked_for_and_nothing_follows_a_bad_one() {
    for bad in [0, 6, 7, 8, 9, 12, 255] {
        let mut body = vec![3, 1, bad, 1, 0, 0, 0, 0];
        body.extend([7u64, 8, 9].iter().flat_map(|n| n.to_le_bytes()));
        let mut params = decoded(Schema::V0, body);
        assert_eq!(params.len(), 3);
        assert_eq!(params.next(), Some(Ok(Value::Integer(7))));
        assert_eq!(params.next(), Some(Err(ValueError::UnknownType { code: bad })));
        assert_eq!(params.next(), None);
    }
}

#[test]
fn a_boolean_parameter_is_zero_or_one() {
    for (sent, expected) in [(0u64, 0), (1, 1), (7, 1), (u64::MAX, 1)] {
        let body = [&[1, BOOLEAN, 0, 0, 0, 0, 0, 0], &sent.to_le_bytes()[..]].concat();
        assert_eq!(decoded(Schema::V0, body).next(), Some(Ok(Value::Boolean(expected))));
    }
}

#[test]
fn a_null_takes_one_word_whatever_it_holds_and_a_nan_is_passed_on() {
    let mut body = vec![3, NULL, FLOAT, INTEGER, 0, 0, 0, 0];
    body.extend(0xdead_beef_u64.to_le_bytes());
    body.extend(f64::NAN.to_le_bytes());
    body.extend(5u64.to_le_bytes());
    let mut params = decoded(Schema::V0, body);
    assert_eq!(params.next(), Some(Ok(Value::Null)));
    assert!(matches!(params.next(), Some(Ok(Value::Float(x))) if x.is_nan()));
    assert_eq!(params.next(), Some(Ok(Value::Integer(5))));
}

#[test]
fn a_blob_length_near_the_end_of_64_bits_is_refused() {
    let mut body = vec![1, BLOB, 0, 0, 0, 0, 0, 0];
    body.extend((u64::MAX - 6).to_le_bytes());
    body.extend([0; 32]);
    assert!(matches!(decoded(Schema::V0, body).next(), Some(Err(ValueError::Truncated(_)))));
}

#[test]
fn parameters_left_over_can_be_encoded_again() {
    let mut params = Params::from_values(&[Value::Integer(1), Value::Text(&b"b"[..])]);
    params.next();
    let mut out = BytesMut::new();
    params.encode(Schema::V0, &mut out).unwrap();
    assert_eq!(out, encoded(Schema::V0, &[Value::Text(b"b")]));
}

fn value() -> impl Strategy<Value = Value<Vec<u8>>> {
    let text = || proptest::collection::vec(1u8.., 0..20);
    prop_oneof![
        any::<i64>().prop_map(Value::Integer),
        any::<f64>().prop_map(Value::Float),
        text().prop_map(Value::Text),
        proptest::collection::vec(any::<u8>(), 0..20).prop_map(Value::Blob),
        Just(Value::Null),
        any::<i64>().prop_map(Value::UnixTime),
        text().prop_map(Value::Iso8601),
        any::<i64>().prop_map(Value::Boolean),
    ]
}

fn borrowed(value: &Value<Vec<u8>>) -> Value<&[u8]> {
    match value {
        Value::Integer(n) => Value::Integer(*n),
        Value::Float(x) => Value::Float(*x),
        Value::Text(text) => Value::Text(text),
        Value::Blob(blob) => Value::Blob(blob),
        Value::Null => Value::Null,
        Value::UnixTime(n) => Value::UnixTime(*n),
        Value::Iso8601(text) => Value::Iso8601(text),
        Value::Boolean(n) => Value::Boolean(*n),
    }
}

proptest! {
    #[test]
    fn parameters_are_read_back_as_written(values in proptest::collection::vec(value(), 0..40), v1: bool) {
        let schema = if v1 { Schema::V1 } else { Schema::V0 };
        let values: Vec<_> = values
            .iter()
            .map(borrowed)
            .filter(|value| !matches!(value, Value::UnixTime(_)))
            .map(|value| if let Value::Boolean(n) = value { Value::Boolean(n & 1) } else { value })
            .collect();
        let read: Vec<_> = decoded(schema, encoded(schema, &values)).map(Result::unwrap).collect();
        prop_assert_eq!(read, values.iter().map(owned).collect::<Vec<_>>());
    }

    #[test]
    fn rows_are_read_back_as_written(values in proptest::collection::vec(value(), 1..40)) {
        let mut out = Vec::new();
        let mut row = RowEncoder::new(&mut out, values.len());
        values.iter().for_each(|value| row.push(borrowed(value)));
        row.finish();
        let out = Bytes::from(out);
        let mut read = Vec::new();
        decode_row(values.len(), &mut Reader::new(out.clone()), &mut read).unwrap();
        prop_assert_eq!(&read, &values.iter().map(|v| owned(&borrowed(v))).collect::<Vec<_>>());
        for len in 0..out.len() {
            prop_assert!(decode_row(values.len(), &mut Reader::new(out.slice(..len)), &mut read).is_err());
        }
    }

    #[test]
    fn random_bytes_never_panic(body in proptest::collection::vec(any::<u8>(), 0..200), v1: bool) {
        let schema = if v1 { Schema::V1 } else { Schema::V0 };
        if let Ok(params) = Params::decode(schema, &mut Reader::new(body.into())) {
            let count = params.len();
            prop_assert!(params.count() <= count);
        }
    }
}

use super::*;
use crate::wire::frame::{HEADER_SIZE, Header};

/// A result with one INTEGER column `x`, as the server would send it: all its frames.
fn result_of(rows: i64, name: &str) -> Vec<Bytes> {
    let mut frames = Vec::new();
    let mut left = 0..rows;
    loop {
        let mut frame = RowsFrame::begin(BytesMut::new(), [name]);
        let end = loop {
            if frame.is_full() {
                break RowsEnd::Part;
            }
            match left.next() {
                Some(n) => frame.row(|row| row.push(Value::Integer(n))),
                None => break RowsEnd::Done,
            }
        };
        assert!(frames.len() < 100, "the result does not end");
        frames.push(frame.finish(end).unwrap().freeze());
        if end == RowsEnd::Done {
            return frames;
        }
    }
}

fn decode(frame: &Bytes) -> Rows {
    Rows::decode(Reader::new(frame.slice(HEADER_SIZE..))).unwrap()
}

#[test]
fn a_frame_ends_with_the_row_that_reaches_the_limit() {
    let sizes = |rows| result_of(rows, "x").iter().map(Bytes::len).collect::<Vec<_>>();
    assert_eq!(sizes(0), [32]);
    assert_eq!(sizes(254), [4096]);
    assert_eq!(sizes(255), [4112, 32]);
    assert_eq!(sizes(600), [4112, 4112, 1472]);
    let header = Header::decode(result_of(255, "x")[0][..HEADER_SIZE].try_into().unwrap());
    assert_eq!(header, Header { words: 0x201, kind: 7, schema: 0, extra: 0 });
}

#[test]
fn every_frame_holds_a_row_even_when_the_names_fill_it() {
    let frames = result_of(3, &"n".repeat(5000));
    assert_eq!(frames.len(), 4);
    let mut row = Vec::new();
    for (n, frame) in frames[..3].iter().enumerate() {
        let mut rows = decode(frame);
        assert_eq!(rows.step(&mut row), Ok(RowsStep::Row));
        assert_eq!(row, [Value::Integer(n as i64)]);
        assert_eq!(rows.step(&mut row), Ok(RowsStep::End(RowsEnd::Part)));
    }
    assert_eq!(decode(&frames[3]).step(&mut row), Ok(RowsStep::End(RowsEnd::Done)));
}

#[test]
fn a_row_has_its_type_codes_in_nibbles_low_half_first() {
    let mut frame = RowsFrame::begin(BytesMut::new(), ["x", "y", "z"]);
    frame.row(|row| {
        row.push(Value::Integer(1));
        row.push(Value::Text(b"b"));
        row.push(Value::Boolean(7));
    });
    let out = frame.finish(RowsEnd::Done).unwrap();
    let row = &out[HEADER_SIZE + 8 + 24..];
    assert_eq!(row[..8], [0x31, 0x0b, 0, 0, 0, 0, 0, 0]);
    assert_eq!(row[8..16], 1u64.to_le_bytes());
    assert_eq!(row[16..24], *b"b\0\0\0\0\0\0\0");
    assert_eq!(row[24..32], 7u64.to_le_bytes());
    assert_eq!(row[32..], [0xff; 8]);
}

#[test]
fn the_row_header_takes_a_second_word_from_the_seventeenth_column() {
    for (columns, size) in [(1, 8), (16, 8), (17, 16), (32, 16), (33, 24)] {
        let names = vec![""; columns];
        let mut frame = RowsFrame::begin(BytesMut::new(), &names);
        frame.row(|row| (0..columns).for_each(|_| row.push(Value::Null)));
        let out = frame.finish(RowsEnd::Done).unwrap();
        assert_eq!(out.len(), HEADER_SIZE + 8 + 8 * columns + size + 8 * columns + 8, "{columns} columns");
    }
}

#[test]
fn a_result_without_columns_is_a_count_and_a_marker() {
    let names: [&str; 0] = [];
    let out = RowsFrame::begin(BytesMut::new(), names).finish(RowsEnd::Done).unwrap().freeze();
    assert_eq!(out[..], *b"\x02\0\0\0\x07\0\0\0\0\0\0\0\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff");
    assert_eq!(decode(&out).step(&mut Vec::new()), Ok(RowsStep::End(RowsEnd::Done)));
}

#[test]
fn an_abandoned_frame_leaves_what_was_before_it() {
    let mut frame = RowsFrame::begin(BytesMut::from(&b"earlier!"[..]), ["v"]);
    frame.row(|row| row.push(Value::Text(b"half a result")));
    assert_eq!(frame.rows(), 1);
    assert_eq!(frame.abandon(), &b"earlier!"[..]);
}

#[test]
fn the_limit_counts_from_the_frame_not_from_the_buffer() {
    let frame = RowsFrame::begin(BytesMut::from(&[0; 8192][..]), ["x"]);
    assert!(!frame.is_full());
    let mut frame = frame;
    frame.row(|row| row.push(Value::Null));
    assert!(!frame.is_full());
}

#[test]
#[should_panic(expected = "fewer values than columns")]
fn a_row_with_a_missing_value_is_a_bug_of_the_caller() {
    RowsFrame::begin(BytesMut::new(), ["a", "b"]).row(|row| row.push(Value::Null));
}

#[test]
fn every_prefix_of_a_frame_is_an_error_never_a_panic() {
    let mut frame = RowsFrame::begin(BytesMut::new(), ["x", "longer than a word"]);
    for text in ["", "1234567", "12345678"] {
        frame.row(|row| {
            row.push(Value::Text(text.as_bytes()));
            row.push(Value::Blob(text.as_bytes()));
        });
    }
    let out = frame.finish(RowsEnd::Part).unwrap().freeze();
    let body = out.slice(HEADER_SIZE..);
    let read = |body: Bytes| -> Result<usize, ValueError> {
        let (mut rows, mut row, mut count) = (Rows::decode(Reader::new(body))?, Vec::new(), 0);
        while rows.step(&mut row)? == RowsStep::Row {
            count += 1;
        }
        Ok(count)
    };
    assert_eq!(read(body.clone()), Ok(3));
    for len in 0..body.len() {
        assert!(read(body.slice(..len)).is_err(), "prefix of {len} bytes was accepted");
    }
}

#[test]
fn a_column_count_that_the_body_cannot_hold_is_refused_without_allocating() {
    for count in [3u64, 1 << 40, u64::MAX] {
        let body = [&count.to_le_bytes()[..], &[0; 16]].concat();
        assert!(Rows::decode(Reader::new(body.into())).is_err(), "{count}");
    }
}

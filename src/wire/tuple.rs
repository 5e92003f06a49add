//! Values, and the tuples of values that carry parameters and rows.
//!
//! ```text
//! parameters   schema 0: u8 count  |  schema 1: u32 count
//!              count x u8 type code, zeros up to a whole word
//!              count x value
//! row          columns x 4-bit type code, even ones in the low half of a byte, zeros up to a word
//!              columns x value
//! value        INTEGER 1, UNIXTIME 9    i64
//!              FLOAT 2                  f64
//!              TEXT 3, ISO8601 10       text
//!              BLOB 4                   blob
//!              NULL 5                   one word
//!              BOOLEAN 11               u64
//! ```

use bytes::{BufMut, Bytes, BytesMut};

use crate::codec::{Reader, Truncated, Writer, pad8};

const INTEGER: u8 = 1;
const FLOAT: u8 = 2;
const TEXT: u8 = 3;
const BLOB: u8 = 4;
const NULL: u8 = 5;
const UNIX_TIME: u8 = 9;
const ISO8601: u8 = 10;
const BOOLEAN: u8 = 11;

/// A value of a parameter or of a row. `B` holds the bytes: a slice of SQLite's when encoding, [`Bytes`] of
/// the frame when decoding.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<B> {
    /// An integer.
    Integer(i64),
    /// A float. A NaN parameter is passed on as such; the one who binds it makes it NULL, as SQLite does.
    Float(f64),
    /// A text in the database's encoding, which is UTF-8 by convention only. Encoded up to its first NUL.
    Text(B),
    /// A blob. An empty one is a zero-length blob, not NULL.
    Blob(B),
    /// NULL.
    Null,
    /// Seconds since 1970, from an integer in a DATETIME, DATE or TIMESTAMP column. Never a parameter.
    UnixTime(i64),
    /// A date as text, from such a column, "" standing for NULL; as a parameter it is bound as a text.
    Iso8601(B),
    /// An integer from a BOOLEAN column, as stored. As a parameter it is 0 or 1.
    Boolean(i64),
}

impl<B: AsRef<[u8]>> Value<B> {
    fn code(&self) -> u8 {
        match self {
            Value::Integer(_) => INTEGER,
            Value::Float(_) => FLOAT,
            Value::Text(_) => TEXT,
            Value::Blob(_) => BLOB,
            Value::Null => NULL,
            Value::UnixTime(_) => UNIX_TIME,
            Value::Iso8601(_) => ISO8601,
            Value::Boolean(_) => BOOLEAN,
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Value::Integer(n) | Value::UnixTime(n) | Value::Boolean(n) => out.put_i64_le(*n),
            Value::Float(x) => out.put_f64_le(*x),
            Value::Text(text) | Value::Iso8601(text) => out.put_text(text.as_ref()),
            Value::Blob(blob) => out.put_blob(blob.as_ref()),
            Value::Null => out.put_u64_le(0),
        }
    }
}

/// A value of a tuple that cannot be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// The type code does not exist, or not in this kind of tuple.
    #[error("unknown value type {code}")]
    UnknownType {
        /// The code.
        code: u8,
    },
    /// The body ends before the value.
    #[error(transparent)]
    Truncated(#[from] Truncated),
}

fn decode(code: u8, values: &mut Reader) -> Result<Value<Bytes>, ValueError> {
    Ok(match code {
        INTEGER => Value::Integer(values.u64()? as i64),
        FLOAT => Value::Float(f64::from_bits(values.u64()?)),
        TEXT => Value::Text(values.text()?),
        BLOB => Value::Blob(values.blob()?),
        NULL => values.u64().map(|_| Value::Null)?,
        UNIX_TIME => Value::UnixTime(values.u64()? as i64),
        ISO8601 => Value::Iso8601(values.text()?),
        BOOLEAN => Value::Boolean(values.u64()? as i64),
        _ => return Err(ValueError::UnknownType { code }),
    })
}

/// The layout of a request that carries SQL or parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Schema {
    /// 8-bit parameter count; PREPARE refuses a tail.
    V0 = 0,
    /// 32-bit parameter count; PREPARE answers with the offset of the tail.
    V1 = 1,
}

impl Schema {
    /// The most parameters that a tuple of this schema can carry.
    pub const fn params_max(self) -> usize {
        match self {
            Schema::V0 => u8::MAX as usize,
            Schema::V1 => u32::MAX as usize,
        }
    }

    fn count_size(self) -> usize {
        match self {
            Schema::V0 => 1,
            Schema::V1 => 4,
        }
    }
}

/// The parameters of a request, decoded one at a time: an iterator, so that several statements can each take
/// what they need and a bad value that nobody needs is never noticed, as in C.
///
/// After an error there are no more values.
#[derive(Debug, Clone)]
pub struct Params {
    types: Reader,
    values: Reader,
}

impl Params {
    /// No parameters.
    pub fn none() -> Params {
        Params { types: Reader::new(Bytes::new()), values: Reader::new(Bytes::new()) }
    }

    /// Checks the header of a tuple that fills the rest of `body`. Nothing left means no parameters.
    pub fn decode(schema: Schema, body: &mut Reader) -> Result<Params, Truncated> {
        if body.remaining() == 0 {
            return Ok(Params::none());
        }
        let truncated = Truncated { offset: body.offset() };
        let count = match schema {
            Schema::V0 => usize::from(body.u8()?),
            Schema::V1 => usize::try_from(body.u32()?).map_err(|_| truncated)?,
        };
        let types = body.take(count)?;
        let header = schema.count_size() + count;
        body.take(pad8(header) - header)?;
        Ok(Params { types: Reader::new(types), values: Reader::new(body.rest()) })
    }

    /// A tuple of the given values, for [`Params::encode`].
    pub fn from_values<B: AsRef<[u8]>>(values: &[Value<B>]) -> Params {
        let mut types = BytesMut::with_capacity(values.len());
        let mut encoded = Vec::new();
        for value in values {
            types.put_u8(value.code());
            value.encode(&mut encoded);
        }
        Params { types: Reader::new(types.freeze()), values: Reader::new(encoded.into()) }
    }

    /// Appends the tuple, without the values already taken; nothing at all if none are left.
    pub fn encode(&self, schema: Schema, out: &mut BytesMut) -> Result<(), TooManyParams> {
        let (types, values) = (self.types.clone().rest(), self.values.clone().rest());
        if types.is_empty() {
            return Ok(());
        }
        let too_many = TooManyParams { count: types.len(), limit: schema.params_max() };
        match schema {
            Schema::V0 => out.put_u8(u8::try_from(types.len()).map_err(|_| too_many)?),
            Schema::V1 => out.put_u32_le(u32::try_from(types.len()).map_err(|_| too_many)?),
        }
        out.put_slice(&types);
        out.put_padding(schema.count_size() + types.len());
        out.put_slice(&values);
        Ok(())
    }
}

/// More parameters than the schema can count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{count} parameters, at most {limit} can be sent")]
pub struct TooManyParams {
    /// How many there are.
    pub count: usize,
    /// How many there may be.
    pub limit: usize,
}

impl Iterator for Params {
    type Item = Result<Value<Bytes>, ValueError>;

    fn next(&mut self) -> Option<Self::Item> {
        let code = self.types.u8().ok()?;
        let value = match code {
            // C knows this type in rows only.
            UNIX_TIME => Err(ValueError::UnknownType { code }),
            _ => decode(code, &mut self.values),
        };
        Some(match value {
            Ok(Value::Boolean(n)) => Ok(Value::Boolean(i64::from(n != 0))),
            Err(error) => {
                *self = Params::none();
                Err(error)
            }
            other => other,
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.types.remaining(), Some(self.types.remaining()))
    }
}

impl ExactSizeIterator for Params {}

const fn row_header_size(columns: usize) -> usize {
    pad8(columns.div_ceil(2))
}

/// Appends one row to a buffer, value by value: the header is filled in as the values come.
#[derive(Debug)]
pub struct RowEncoder<'a> {
    out: &'a mut Vec<u8>,
    header: usize,
    columns: usize,
    filled: usize,
}

impl<'a> RowEncoder<'a> {
    pub(super) fn new(out: &'a mut Vec<u8>, columns: usize) -> RowEncoder<'a> {
        let header = out.len();
        out.put_bytes(0, row_header_size(columns));
        RowEncoder { out, header, columns, filled: 0 }
    }

    /// The value of the next column.
    pub fn push(&mut self, value: Value<&[u8]>) {
        assert!(self.filled < self.columns, "a row of {} columns got one more value", self.columns);
        let shift = self.filled % 2 * 4;
        self.out[self.header + self.filled / 2] |= value.code() << shift;
        value.encode(self.out);
        self.filled += 1;
    }

    pub(super) fn finish(self) {
        assert_eq!(self.filled, self.columns, "a row has fewer values than columns");
    }
}

/// Decodes the row that starts at the cursor, into `row`.
pub(super) fn decode_row(
    columns: usize,
    body: &mut Reader,
    row: &mut Vec<Value<Bytes>>,
) -> Result<(), ValueError> {
    row.clear();
    let header = body.take(row_header_size(columns))?;
    for column in 0..columns {
        let code = header.get(column / 2).map_or(0, |codes| codes >> (column % 2 * 4) & 0xf);
        row.push(decode(code, body)?);
    }
    Ok(())
}

#[cfg(test)]
#[path = "tuple_test.rs"]
mod tests;

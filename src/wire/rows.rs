//! ROWS frames.
//!
//! ```text
//! u64 columns, columns x text name
//! any number of rows, see [`super::tuple`]
//! u64 ff..ff: the result is complete ("done")   or   u64 ee..ee: another frame follows ("part")
//! ```
//!
//! A row is never split. A frame ends as "part" once it has reached [`ROWS_FRAME_SIZE`] bytes, header
//! included, and holds a row: the size is checked before each step, so a result that ends exactly there takes
//! one more frame, without rows. Clients compare these bytes. (C checks the size alone and so sends empty
//! frames for ever when the names fill one.)

use bytes::{BufMut, Bytes, BytesMut};

use super::frame::{self, HEADER_SIZE, TooLarge};
use super::response::ResponseType;
use super::tuple::{self, RowEncoder, Value, ValueError};
use crate::codec::{Reader, Truncated, Writer};
use crate::config::ROWS_FRAME_SIZE;

const DONE: u64 = 0xffff_ffff_ffff_ffff;
const PART: u64 = 0xeeee_eeee_eeee_eeee;

/// How a ROWS frame ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowsEnd {
    /// The result is complete.
    Done,
    /// More frames follow.
    Part,
}

/// A ROWS frame under construction at the end of a buffer, which it owns meanwhile, so that a statement can
/// go on in another thread with a half-filled frame. What the buffer held before is kept.
///
/// The frame is built apart: many small values go into a `Vec` for a third of what they cost in a `BytesMut`.
#[derive(Debug)]
pub struct RowsFrame {
    out: BytesMut,
    frame: Vec<u8>,
    columns: usize,
    rows: usize,
}

impl RowsFrame {
    /// Starts a frame with the names of the columns; every frame of a result repeats them.
    pub fn begin<I>(out: BytesMut, names: I) -> RowsFrame
    where
        I: IntoIterator<IntoIter: ExactSizeIterator, Item: AsRef<[u8]>>,
    {
        let names = names.into_iter();
        let columns = names.len();
        // With room for the row that goes beyond the limit, if it is not a large one.
        let mut frame = Vec::with_capacity(ROWS_FRAME_SIZE + ROWS_FRAME_SIZE / 4);
        frame.put_bytes(0, HEADER_SIZE);
        frame.put_u64_le(columns as u64);
        for name in names {
            frame.put_text(name.as_ref());
        }
        RowsFrame { out, frame, columns, rows: 0 }
    }

    /// Appends a row: `fill` pushes exactly one value for each column.
    pub fn row(&mut self, fill: impl FnOnce(&mut RowEncoder<'_>)) {
        let mut row = RowEncoder::new(&mut self.frame, self.columns);
        fill(&mut row);
        row.finish();
        self.rows += 1;
    }

    /// True if no further row belongs in this frame: ask before each step.
    pub fn is_full(&self) -> bool {
        self.rows > 0 && self.frame.len() >= ROWS_FRAME_SIZE
    }

    /// Rows in this frame so far.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Closes the frame and gives the buffer back; if the frame is too large, without it.
    pub fn finish(mut self, end: RowsEnd) -> Result<BytesMut, (BytesMut, TooLarge)> {
        self.frame.put_u64_le(match end {
            RowsEnd::Done => DONE,
            RowsEnd::Part => PART,
        });
        match frame::header(ResponseType::Rows as u8, 0, (self.frame.len() - HEADER_SIZE) as u64) {
            Ok(header) => {
                self.frame[..HEADER_SIZE].copy_from_slice(&header.encode());
                self.out.extend_from_slice(&self.frame);
                Ok(self.out)
            }
            Err(error) => Err((self.out, error)),
        }
    }

    /// Drops the frame and gives the buffer back as it was, so that a failure can follow cleanly.
    pub fn abandon(self) -> BytesMut {
        self.out
    }
}

/// The rows of a received frame, decoded one at a time.
#[derive(Debug, Clone)]
pub struct Rows {
    /// Names of the columns.
    pub columns: Vec<Bytes>,
    body: Reader,
}

/// What comes next in a received frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowsStep {
    /// A row.
    Row,
    /// The end of the frame.
    End(RowsEnd),
}

impl Rows {
    /// Reads the names of the columns.
    pub fn decode(mut body: Reader) -> Result<Rows, Truncated> {
        let count = body.u64()?;
        // Each name takes a word at least: do not believe a count that the body cannot hold.
        if count > (body.remaining() / 8) as u64 {
            return Err(Truncated { offset: body.offset() });
        }
        let columns = (0..count).map(|_| body.text()).collect::<Result<_, _>>()?;
        Ok(Rows { columns, body })
    }

    /// Reads the next row into `row`, or the marker at the end, where it stays.
    pub fn step(&mut self, row: &mut Vec<Value<Bytes>>) -> Result<RowsStep, ValueError> {
        let mut ahead = self.body.clone();
        match ahead.u64()? {
            DONE => return Ok(RowsStep::End(RowsEnd::Done)),
            PART => return Ok(RowsStep::End(RowsEnd::Part)),
            _ => {}
        }
        if self.columns.is_empty() {
            // A row without columns has no bytes, so that only a marker can stand here.
            return Err(ValueError::Truncated(Truncated { offset: self.body.offset() }));
        }
        tuple::decode_row(self.columns.len(), &mut self.body, row)?;
        Ok(RowsStep::Row)
    }
}

#[cfg(test)]
#[path = "rows_test.rs"]
mod tests;

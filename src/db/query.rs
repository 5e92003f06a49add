//! Rows of a running statement, encoded straight into the send buffer.

use super::Failure;
use crate::config::ROWS_CHUNK_SIZE;
use crate::sqlite::{self, Run, Statement, Step};
use crate::wire::failure;
use crate::wire::rows::{RowsEnd, RowsFrame};
use crate::wire::tuple::Value;
use bytes::BytesMut;

/// How the declared type of a column changes the encoding of its values (wire specification, 7.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Declared {
    Date,
    Boolean,
    Other,
}

impl Declared {
    fn of(decltype: Option<Vec<u8>>) -> Declared {
        let is = |name: &str| decltype.as_ref().is_some_and(|d| d.eq_ignore_ascii_case(name.as_bytes()));
        if is("DATETIME") || is("DATE") || is("TIMESTAMP") {
            Declared::Date
        } else if is("BOOLEAN") {
            Declared::Boolean
        } else {
            Declared::Other
        }
    }

    /// A storage class that the declared type has no encoding for keeps its natural one: clients decode by
    /// the code of each row.
    fn value(self, value: sqlite::Value<'_>) -> Value<&[u8]> {
        match (self, value) {
            (Declared::Date, sqlite::Value::Integer(n)) => Value::UnixTime(n),
            (Declared::Date, sqlite::Value::Text(text)) => Value::Iso8601(text),
            (Declared::Date, sqlite::Value::Null) => Value::Iso8601(b""),
            (Declared::Boolean, sqlite::Value::Integer(n)) => Value::Boolean(n),
            (Declared::Boolean, sqlite::Value::Null) => Value::Boolean(0),
            (_, sqlite::Value::Integer(n)) => Value::Integer(n),
            (_, sqlite::Value::Real(x)) => Value::Float(x),
            (_, sqlite::Value::Text(text)) => Value::Text(text),
            (_, sqlite::Value::Blob(blob)) => Value::Blob(blob),
            (_, sqlite::Value::Null) => Value::Null,
        }
    }
}

/// Why [`Query::fill`] stopped.
#[derive(Debug)]
pub enum Fill {
    /// The last frame is complete: nothing more will come.
    Done,
    /// Enough for one write to the socket; there is more.
    Part,
    /// The statement failed. Complete frames are in the buffer, the one that was being filled is not.
    Failed(Failure),
}

/// A statement that yields rows.
pub struct Query {
    /// Bound, and stepped by [`Query::fill`] only.
    pub statement: Statement,
    /// Where a prepared statement goes back to.
    pub slot: Option<usize>,
    /// It may write: its answer must wait for the commit.
    pub writes: bool,
    names: Vec<Vec<u8>>,
    declared: Vec<Declared>,
    /// The first step was made; the current row, if any, is not encoded yet.
    stepped: Option<Step>,
}

impl Query {
    /// Of a statement with its parameters bound.
    pub fn new(statement: Statement, slot: Option<usize>) -> Query {
        let writes = statement.writes();
        Query { statement, slot, writes, names: Vec::new(), declared: Vec::new(), stepped: None }
    }

    /// Steps the statement and appends whole ROWS frames to `out`, up to a chunk worth one write.
    pub fn fill(&mut self, out: &mut BytesMut) -> Fill {
        let begin = out.len();
        loop {
            match self.fill_frame(out) {
                Ok(RowsEnd::Done) => return Fill::Done,
                Ok(RowsEnd::Part) if out.len() - begin >= ROWS_CHUNK_SIZE => return Fill::Part,
                Ok(RowsEnd::Part) => {}
                Err(failure) => return Fill::Failed(failure),
            }
        }
    }

    fn fill_frame(&mut self, out: &mut BytesMut) -> Result<RowsEnd, Failure> {
        // The columns are known for sure only after the first step: the schema may have changed since
        // prepare.
        let mut step = match self.stepped.take() {
            Some(step) => step,
            None => self.first_step()?,
        };
        let mut frame = RowsFrame::begin(std::mem::take(out), &self.names);
        let mut run = self.statement.run();
        let end = loop {
            match step {
                Step::Done => break Ok(RowsEnd::Done),
                Step::Row => {
                    if let Err(error) = encode_row(&run, &self.declared, &mut frame) {
                        break Err(error);
                    }
                }
            }
            if frame.is_full() {
                break Ok(RowsEnd::Part);
            }
            match run.step() {
                Ok(next) => step = next,
                Err(error) => break Err(error),
            }
        };
        drop(run);
        self.close_frame(frame, end, out)
    }

    fn first_step(&mut self) -> Result<Step, Failure> {
        let step = self.statement.step()?;
        let columns = 0..self.statement.column_count();
        self.names = columns.clone().map(|i| self.statement.column_name(i)).collect();
        self.declared = columns.map(|i| Declared::of(self.statement.column_decltype(i))).collect();
        Ok(step)
    }

    fn close_frame(
        &mut self,
        frame: RowsFrame,
        end: Result<RowsEnd, sqlite::Error>,
        out: &mut BytesMut,
    ) -> Result<RowsEnd, Failure> {
        let end = match end {
            Ok(end) => end,
            Err(error) => {
                *out = frame.abandon();
                return Err(error.into());
            }
        };
        match frame.finish(end) {
            Ok(buffer) => *out = buffer,
            Err((buffer, _)) => {
                *out = buffer;
                return Err(failure::TOO_BIG.into());
            }
        }
        if end == RowsEnd::Part {
            // The check of the next frame comes before its first step, as in C.
            self.stepped = Some(self.statement.step()?);
        }
        Ok(end)
    }
}

fn encode_row(run: &Run<'_>, declared: &[Declared], frame: &mut RowsFrame) -> Result<(), sqlite::Error> {
    let mut outcome = Ok(());
    frame.row(|row| {
        for (i, declared) in declared.iter().enumerate() {
            let value = run.value(i).unwrap_or_else(|error| {
                outcome = Err(error);
                sqlite::Value::Null
            });
            row.push(declared.value(value));
        }
    });
    outcome
}

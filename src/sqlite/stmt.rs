//! Prepared statements: compile with tail, bind, step, read columns.

use std::ffi::{c_char, c_int, c_uchar};
use std::ptr;
use std::slice;
use std::sync::Arc;

use libsqlite3_sys as ffi;

use super::conn::Inner;
use super::{Error, Guard};

/// A compiled statement. It keeps its connection's handle open and may be moved to another thread.
#[derive(Debug)]
pub struct Statement {
    raw: *mut ffi::sqlite3_stmt,
    inner: Arc<Inner>,
    writes: bool,
}

// SAFETY: the raw statement is used only under the lock of its connection, which any thread may take.
unsafe impl Send for Statement {}

/// The outcome of compiling the first statement of a text.
#[derive(Debug)]
pub struct Prepared {
    /// The statement; none if the text held only blanks and comments.
    pub statement: Option<Statement>,
    /// Offset of the first byte after the statement.
    pub tail_offset: usize,
}

/// What a step produced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A row is ready to be read.
    Row,
    /// The statement has finished.
    Done,
}

/// One column of the current row. Texts are bytes: SQLite does not promise UTF-8.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// `NULL`.
    Null,
    /// `INTEGER`.
    Integer(i64),
    /// `REAL`.
    Real(f64),
    /// `TEXT`.
    Text(&'a [u8]),
    /// `BLOB`.
    Blob(&'a [u8]),
}

impl Statement {
    pub(super) fn prepare(inner: &Arc<Inner>, sql: &[u8]) -> Result<Prepared, Error> {
        let Ok(len) = c_int::try_from(sql.len()) else { return Err(Error::from_code(ffi::SQLITE_TOOBIG)) };
        let _guard = inner.enter();
        inner.refresh_schema()?;
        inner.noticed().clear();
        let mut raw = ptr::null_mut();
        let mut tail: *const c_char = ptr::null();
        let start: *const c_char = sql.as_ptr().cast();
        // SAFETY: open handle, ours while the guard lives; `len` bytes of text are readable; results are
        // locals.
        let code = unsafe { ffi::sqlite3_prepare_v3(inner.handle(), start, len, 0, &mut raw, &mut tail) };
        inner.check(code)?;
        let tail_offset = if tail.is_null() { sql.len() } else { tail.addr() - start.addr() };
        if raw.is_null() {
            return Ok(Prepared { statement: None, tail_offset });
        }
        // SAFETY: `raw` was just compiled.
        let readonly = unsafe { ffi::sqlite3_stmt_readonly(raw) } != 0;
        let writes = !readonly || inner.noticed().optimize();
        let statement = Statement { raw, inner: Arc::clone(inner), writes };
        Ok(Prepared { statement: Some(statement), tail_offset })
    }

    /// Whether running this statement may write to a database: not read-only, or `PRAGMA optimize`, which
    /// claims to be read-only but runs statements that are not.
    pub fn writes(&self) -> bool {
        self.writes
    }

    /// Number of the highest parameter.
    pub fn parameter_count(&self) -> usize {
        let _guard = self.inner.enter();
        // SAFETY: the statement lives as long as `self`.
        let count = unsafe { ffi::sqlite3_bind_parameter_count(self.raw) };
        usize::try_from(count).unwrap_or(0)
    }

    /// Sets parameter `number`, counted from 1. Texts and blobs are copied.
    pub fn bind(&mut self, number: usize, value: Value<'_>) -> Result<(), Error> {
        let Ok(number) = c_int::try_from(number) else { return Err(Error::from_code(ffi::SQLITE_RANGE)) };
        let _guard = self.inner.enter();
        let raw = self.raw;
        let code = match value {
            // SAFETY: the statement lives as long as `self`; SQLite checks the number.
            Value::Null => unsafe { ffi::sqlite3_bind_null(raw, number) },
            // SAFETY: as above.
            Value::Integer(value) => unsafe { ffi::sqlite3_bind_int64(raw, number, value) },
            // SAFETY: as above.
            Value::Real(value) => unsafe { ffi::sqlite3_bind_double(raw, number, value) },
            Value::Text(text) => {
                let encoding = ffi::SQLITE_UTF8 as c_uchar;
                let copy = ffi::SQLITE_TRANSIENT();
                let (start, len) = (text.as_ptr().cast(), text.len() as u64);
                // SAFETY: as above; SQLite copies the `len` readable bytes before it returns.
                unsafe { ffi::sqlite3_bind_text64(raw, number, start, len, copy, encoding) }
            }
            Value::Blob(blob) => {
                let (start, len) = (blob.as_ptr().cast(), blob.len() as u64);
                // SAFETY: as above; SQLite copies the `len` readable bytes before it returns.
                unsafe { ffi::sqlite3_bind_blob64(raw, number, start, len, ffi::SQLITE_TRANSIENT()) }
            }
        };
        self.inner.check(code)
    }

    /// Sets all parameters to NULL.
    pub fn clear_bindings(&mut self) {
        let _guard = self.inner.enter();
        // SAFETY: the statement lives as long as `self`.
        unsafe { ffi::sqlite3_clear_bindings(self.raw) };
    }

    /// Runs the statement up to its next row or its end.
    pub fn step(&mut self) -> Result<Step, Error> {
        self.run().step()
    }

    /// Ends the current run, so that the statement can be bound and stepped again.
    pub fn reset(&mut self) {
        let _guard = self.inner.enter();
        // The result repeats the failure of the last step, which was reported then.
        // SAFETY: the statement lives as long as `self`.
        unsafe { ffi::sqlite3_reset(self.raw) };
    }

    /// Number of result columns.
    pub fn column_count(&self) -> usize {
        let _guard = self.inner.enter();
        // SAFETY: the statement lives as long as `self`.
        let count = unsafe { ffi::sqlite3_column_count(self.raw) };
        usize::try_from(count).unwrap_or(0)
    }

    /// Name of result column `column`, counted from 0.
    pub fn column_name(&self, column: usize) -> Vec<u8> {
        let _guard = self.inner.enter();
        // SAFETY: the statement lives as long as `self`; an absent column gives NULL.
        let name = unsafe { ffi::sqlite3_column_name(self.raw, column_number(column)) };
        // SAFETY: NULL or a text that lasts until the next call on this statement.
        unsafe { copy_bytes(name) }.unwrap_or_default()
    }

    /// Declared type of result column `column`, if it is a table's column that has one.
    pub fn column_decltype(&self, column: usize) -> Option<Vec<u8>> {
        let _guard = self.inner.enter();
        // SAFETY: the statement lives as long as `self`; an absent column gives NULL.
        let name = unsafe { ffi::sqlite3_column_decltype(self.raw, column_number(column)) };
        // SAFETY: NULL or a text that lasts until the next call on this statement.
        unsafe { copy_bytes(name) }
    }

    /// Column `column` of the current row, counted from 0; NULL if there is no row or no such column. Fails
    /// only if SQLite runs out of memory converting a text.
    pub fn value(&self, column: usize) -> Result<Value<'_>, Error> {
        let _guard = self.inner.enter();
        self.read_column(column)
    }

    /// Exclusive use of the connection for many steps and rows: taking it for each value costs as much as
    /// the value.
    pub fn run(&mut self) -> Run<'_> {
        let guard = self.inner.enter();
        Run { statement: self, _guard: guard }
    }

    /// Under the guard.
    fn make_step(&self) -> Result<Step, Error> {
        self.inner.refresh_schema()?;
        // SAFETY: the statement lives as long as `self`; the guard keeps its connection ours.
        let code = unsafe { ffi::sqlite3_step(self.raw) };
        self.inner.resume_hook_panic();
        match code {
            ffi::SQLITE_ROW => Ok(Step::Row),
            ffi::SQLITE_DONE => Ok(Step::Done),
            _ => Err(self.inner.last_error()),
        }
    }

    /// Under the guard, which is what `sqlite3_value` functions on a column's value ask for.
    fn read_column(&self, column: usize) -> Result<Value<'_>, Error> {
        // SAFETY: the statement lives as long as `self`; an absent row or column gives a NULL value.
        let raw = unsafe { ffi::sqlite3_column_value(self.raw, column_number(column)) };
        // SAFETY: a value of the current row, which nobody else uses while the connection is ours.
        let value = match unsafe { ffi::sqlite3_value_type(raw) } {
            // SAFETY: as above.
            ffi::SQLITE_INTEGER => Value::Integer(unsafe { ffi::sqlite3_value_int64(raw) }),
            // SAFETY: as above.
            ffi::SQLITE_FLOAT => Value::Real(unsafe { ffi::sqlite3_value_double(raw) }),
            ffi::SQLITE_TEXT => {
                // SAFETY: as above.
                let start = unsafe { ffi::sqlite3_value_text(raw) };
                Value::Text(self.value_bytes(raw, start.cast())?)
            }
            ffi::SQLITE_BLOB => {
                // SAFETY: as above.
                let start = unsafe { ffi::sqlite3_value_blob(raw) };
                Value::Blob(self.value_bytes(raw, start.cast())?)
            }
            _ => Value::Null,
        };
        Ok(value)
    }

    /// The bytes of a text or blob, at the address SQLite just gave for it. They stay put until the next step
    /// or reset, both of which need `&mut self`.
    fn value_bytes(&self, raw: *mut ffi::sqlite3_value, start: *const u8) -> Result<&[u8], Error> {
        // SAFETY: a value of the current row; called right after the accessor that gave its address.
        let len = unsafe { ffi::sqlite3_value_bytes(raw) };
        match usize::try_from(len) {
            Ok(len) if len > 0 && !start.is_null() => {
                // SAFETY: SQLite guarantees `len` bytes at `start`.
                Ok(unsafe { slice::from_raw_parts(start, len) })
            }
            _ if start.is_null() && self.inner.last_error().primary_code() == ffi::SQLITE_NOMEM => {
                Err(self.inner.last_error())
            }
            _ => Ok(&[]),
        }
    }
}

/// A statement whose connection is this thread's.
pub struct Run<'a> {
    statement: &'a Statement,
    _guard: Guard<'a>,
}

impl Run<'_> {
    /// As [`Statement::step`].
    pub fn step(&mut self) -> Result<Step, Error> {
        self.statement.make_step()
    }

    /// As [`Statement::value`].
    pub fn value(&self, column: usize) -> Result<Value<'_>, Error> {
        self.statement.read_column(column)
    }
}

impl Drop for Statement {
    fn drop(&mut self) {
        let _guard = self.inner.enter();
        // SAFETY: the statement is ours alone and not used again.
        unsafe { ffi::sqlite3_finalize(self.raw) };
    }
}

/// A column number for SQLite; one that cannot exist becomes -1, which SQLite answers with NULL.
fn column_number(column: usize) -> c_int {
    c_int::try_from(column).unwrap_or(-1)
}

/// # Safety
/// `text` is NULL or NUL-terminated and valid during the call.
unsafe fn copy_bytes(text: *const c_char) -> Option<Vec<u8>> {
    // SAFETY: the caller's promise.
    (!text.is_null()).then(|| unsafe { std::ffi::CStr::from_ptr(text) }.to_bytes().to_vec())
}

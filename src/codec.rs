//! Bounded reading and writing of the little-endian, 8-byte-word encodings shared by the client protocol, the
//! Raft messages, the log and the snapshots. Pure: no I/O, no state beyond a cursor.
//!
//! ```text
//! u8 u16 u32 u64   little-endian, no alignment of their own
//! text             bytes, NUL, zeros up to the next multiple of 8   ("" = 8 zero bytes)
//! blob             u64 length, bytes, zeros up to the next multiple of 8
//! ```
//!
//! Every read checks what remains first; a short input is a [`Truncated`] error, never a panic.

use bytes::{BufMut, Bytes, BytesMut};
use std::ffi::CStr;

/// The input ended before the value did, or a text had no NUL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("truncated at byte {offset}")]
pub struct Truncated {
    /// Offset of the value that could not be read.
    pub offset: usize,
}

/// Rounds a length up to a whole number of 8-byte words.
pub const fn pad8(len: usize) -> usize {
    len.next_multiple_of(8)
}

/// A cursor over shared bytes: values that borrow (texts, blobs, payloads) are slices of the same allocation.
#[derive(Debug, Clone)]
pub struct Reader {
    bytes: Bytes,
    offset: usize,
}

impl Reader {
    /// Starts at the first byte.
    pub fn new(bytes: Bytes) -> Reader {
        Reader { bytes, offset: 0 }
    }

    /// Offset of the next byte.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// Bytes not read yet.
    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.offset
    }

    /// The next `len` bytes, without copying.
    pub fn take(&mut self, len: usize) -> Result<Bytes, Truncated> {
        if len > self.remaining() {
            return Err(Truncated { offset: self.offset });
        }
        let out = self.bytes.slice(self.offset..self.offset + len);
        self.offset += len;
        Ok(out)
    }

    /// Everything that is left, without copying.
    pub fn rest(&mut self) -> Bytes {
        let out = self.bytes.slice(self.offset..);
        self.offset = self.bytes.len();
        out
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Truncated> {
        let end = self.offset.checked_add(N).ok_or(Truncated { offset: self.offset })?;
        let slice = self.bytes.get(self.offset..end).ok_or(Truncated { offset: self.offset })?;
        let mut out = [0; N];
        out.copy_from_slice(slice);
        self.offset = end;
        Ok(out)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, Truncated> {
        Ok(self.array::<1>()?[0])
    }

    /// Two bytes, little-endian.
    pub fn u16(&mut self) -> Result<u16, Truncated> {
        self.array().map(u16::from_le_bytes)
    }

    /// Four bytes, little-endian.
    pub fn u32(&mut self) -> Result<u32, Truncated> {
        self.array().map(u32::from_le_bytes)
    }

    /// Eight bytes, little-endian.
    pub fn u64(&mut self) -> Result<u64, Truncated> {
        self.array().map(u64::from_le_bytes)
    }

    /// A NUL-terminated text without any padding rule; the NUL is consumed, not returned.
    pub fn cstring(&mut self) -> Result<Bytes, Truncated> {
        let rest = &self.bytes[self.offset..];
        let len = rest.iter().position(|b| *b == 0).ok_or(Truncated { offset: self.offset })?;
        let out = self.take(len)?;
        self.offset += 1;
        Ok(out)
    }

    /// A text padded to whole words. The padding is skipped whatever it holds: writers leak garbage there.
    pub fn text(&mut self) -> Result<Bytes, Truncated> {
        let start = self.offset;
        let out = self.cstring()?;
        let end = start + pad8(out.len() + 1);
        if end > self.bytes.len() {
            self.offset = start;
            return Err(Truncated { offset: start });
        }
        self.offset = end;
        Ok(out)
    }

    /// A blob with its u64 length, padded to whole words.
    pub fn blob(&mut self) -> Result<Bytes, Truncated> {
        let start = self.offset;
        let len = self.u64()?;
        let fits = usize::try_from(len).ok().and_then(|l| l.checked_next_multiple_of(8));
        match fits {
            Some(padded) if padded <= self.remaining() => {
                let out = self.bytes.slice(self.offset..self.offset + len as usize);
                self.offset += padded;
                Ok(out)
            }
            _ => {
                self.offset = start;
                Err(Truncated { offset: start })
            }
        }
    }
}

/// Appends encoded values to a growing buffer; the counterpart of [`Reader`].
pub trait Writer: BufMut {
    /// Zeros up to the next multiple of 8 after a value of `len` bytes.
    fn put_padding(&mut self, len: usize) {
        self.put_bytes(0, pad8(len) - len);
    }

    /// A text: bytes, NUL, zero padding. The text must not contain a NUL; it is cut there, as C would.
    fn put_text(&mut self, text: &[u8]) {
        // The standard library finds a NUL a word at a time, where `position` takes byte by byte.
        let len = CStr::from_bytes_until_nul(text).map_or(text.len(), CStr::count_bytes);
        self.put_slice(&text[..len]);
        self.put_u8(0);
        self.put_padding(len + 1);
    }

    /// A blob: u64 length, bytes, zero padding.
    fn put_blob(&mut self, blob: &[u8]) {
        self.put_u64_le(blob.len() as u64);
        self.put_slice(blob);
        self.put_padding(blob.len());
    }
}

impl Writer for BytesMut {}
impl Writer for Vec<u8> {}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded() -> Vec<u8> {
        let mut out = Vec::new();
        out.put_u64_le(7);
        out.put_text(b"");
        out.put_text(b"1234567");
        out.put_text(b"12345678");
        out.put_blob(b"abc");
        out.put_blob(b"");
        out
    }

    fn decode(bytes: Bytes) -> Result<(u64, [Bytes; 5]), Truncated> {
        let mut r = Reader::new(bytes);
        Ok((r.u64()?, [r.text()?, r.text()?, r.text()?, r.blob()?, r.blob()?]))
    }

    #[test]
    fn what_is_written_is_read_back() {
        let bytes = encoded();
        assert_eq!(bytes.len(), 8 + 8 + 8 + 16 + 16 + 8);
        let (word, texts) = decode(bytes.into()).unwrap();
        assert_eq!(word, 7);
        assert_eq!(texts.map(|t| t.to_vec()), [&b""[..], b"1234567", b"12345678", b"abc", b""]);
    }

    #[test]
    fn every_prefix_is_an_error_never_a_panic() {
        let bytes = Bytes::from(encoded());
        for len in 0..bytes.len() {
            assert!(decode(bytes.slice(..len)).is_err(), "prefix of {len} bytes was accepted");
        }
    }

    #[test]
    fn a_blob_length_whose_padding_overflows_is_refused() {
        for len in [u64::MAX, u64::MAX - 6, u64::MAX - 7, 1 << 63] {
            let mut bytes = len.to_le_bytes().to_vec();
            bytes.extend([0; 64]);
            assert!(Reader::new(bytes.into()).blob().is_err(), "length {len:#x}");
        }
    }

    #[test]
    fn garbage_in_the_padding_of_a_text_is_ignored() {
        let mut r = Reader::new(Bytes::from_static(b"ab\0garbXY"));
        assert_eq!(r.text().unwrap(), &b"ab"[..]);
        assert_eq!(r.remaining(), 1);
    }
}

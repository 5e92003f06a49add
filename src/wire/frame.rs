//! The frame header, the same in both directions.
//!
//! ```text
//! offset 0  u32  words    length of the body in 8-byte words
//!        4  u8   kind     request or response type
//!        5  u8   schema   revision of the body's layout, per type
//!        6  u16  extra    sent as 0, ignored when received
//! ```

use bytes::{BufMut, BytesMut};

use crate::config::REQUEST_SIZE_MAX;

/// Size of a frame header in bytes.
pub const HEADER_SIZE: usize = 8;

/// A body is larger than a header can announce, or than the receiver accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("frame body of {size} bytes is larger than the limit of {limit} bytes")]
pub struct TooLarge {
    /// Length of the body.
    pub size: u64,
    /// Largest length allowed.
    pub limit: u64,
}

/// The header of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Length of the body in 8-byte words. Zero is legal here and refused by [`super::request`].
    pub words: u32,
    /// Request or response type.
    pub kind: u8,
    /// Revision of the body's layout.
    pub schema: u8,
    /// Always sent as 0.
    pub extra: u16,
}

impl Header {
    /// Reads a header; every bit pattern is one.
    pub fn decode(bytes: [u8; HEADER_SIZE]) -> Header {
        let [w0, w1, w2, w3, kind, schema, e0, e1] = bytes;
        Header {
            words: u32::from_le_bytes([w0, w1, w2, w3]),
            kind,
            schema,
            extra: u16::from_le_bytes([e0, e1]),
        }
    }

    /// The header's bytes.
    pub fn encode(self) -> [u8; HEADER_SIZE] {
        let [w0, w1, w2, w3] = self.words.to_le_bytes();
        let [e0, e1] = self.extra.to_le_bytes();
        [w0, w1, w2, w3, self.kind, self.schema, e0, e1]
    }

    /// Length of the body in bytes.
    pub fn body_size(self) -> u64 {
        u64::from(self.words) * 8
    }

    /// Length of a request's body in bytes, if it is within [`REQUEST_SIZE_MAX`].
    pub fn request_size(self) -> Result<usize, TooLarge> {
        let size = self.body_size();
        let too_large = TooLarge { size, limit: REQUEST_SIZE_MAX };
        if size > REQUEST_SIZE_MAX {
            return Err(too_large);
        }
        usize::try_from(size).map_err(|_| too_large)
    }
}

/// The header of a body of `size` bytes, which is a multiple of 8.
pub(super) fn header(kind: u8, schema: u8, size: u64) -> Result<Header, TooLarge> {
    assert!(size.is_multiple_of(8), "frame body of {size} bytes is not a whole number of words");
    let words = u32::try_from(size / 8).map_err(|_| TooLarge { size, limit: u64::from(u32::MAX) * 8 })?;
    Ok(Header { words, kind, schema, extra: 0 })
}

/// Leaves room for a header at the end of `out`; returns where it begins, for [`end`].
pub(super) fn begin(out: &mut BytesMut) -> usize {
    let start = out.len();
    out.put_bytes(0, HEADER_SIZE);
    start
}

/// Fills in the header of a frame that [`begin`] started and whose body is everything after it.
pub(super) fn end(out: &mut BytesMut, start: usize, kind: u8, schema: u8) -> Result<(), TooLarge> {
    let size = (out.len() - start - HEADER_SIZE) as u64;
    let header = header(kind, schema, size)?;
    out[start..start + HEADER_SIZE].copy_from_slice(&header.encode());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_back_as_written() {
        let header = Header { words: 0x0102_0304, kind: 5, schema: 6, extra: 0x0708 };
        assert_eq!(header.encode(), [4, 3, 2, 1, 5, 6, 8, 7]);
        assert_eq!(Header::decode(header.encode()), header);
    }

    #[test]
    fn a_request_above_the_limit_is_refused_and_one_at_the_limit_is_not() {
        let at = |words| Header { words, kind: 0, schema: 0, extra: 0 }.request_size();
        let limit_words = u32::try_from(REQUEST_SIZE_MAX / 8).unwrap();
        assert_eq!(at(0), Ok(0));
        assert_eq!(at(limit_words), Ok(REQUEST_SIZE_MAX as usize));
        for words in [limit_words + 1, 0x1000_0001, 0x2000_0000, u32::MAX] {
            assert_eq!(at(words), Err(TooLarge { size: u64::from(words) * 8, limit: REQUEST_SIZE_MAX }));
        }
    }

    #[test]
    fn a_body_beyond_the_word_count_of_a_header_is_an_error() {
        assert!(header(0, 0, u64::from(u32::MAX) * 8).is_ok());
        assert!(header(0, 0, (u64::from(u32::MAX) + 1) * 8).is_err());
    }
}

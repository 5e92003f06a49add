//! The commands inside Raft entries: one write transaction is one FRAMES command.
//!
//! ```text
//!  0        u8 format = 1, u8 type, 6 bytes zero
//!  FRAMES (type 2), L = padded name, N pages of P bytes
//!  8        text  database name                    L bytes
//!  8+L      u64   transaction id = 0    u32 truncate = 0    u8 is_commit = 1    3 bytes zero
//! 24+L      u32   N                     u16 P = 4096        2 bytes zero
//! 32+L      N x u64 page number, then N x P bytes of page image, in the same order
//! ```
//!
//! OPEN (1), UNDO (3) and CHECKPOINT (4) are read and do nothing: old C leaders still write the last one.
//! Image lists are applied in order, so a page that occurs twice ends as its later image.

use crate::codec::{Reader, Truncated, Writer, pad8};
use crate::config::PAGE_SIZE;
use crate::vfs::PageRef;
use bytes::{BufMut, Bytes, BytesMut};

const FORMAT: u8 = 1;
const OPEN: u8 = 1;
const FRAMES: u8 = 2;
const UNDO: u8 = 3;
const CHECKPOINT: u8 = 4;

/// One decoded command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Pages written by one transaction.
    Frames(Frames),
    /// A command that carries nothing to apply.
    Inert,
}

/// The pages written by one transaction of one database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frames {
    /// Name of the database.
    pub database: Bytes,
    /// Page number and image, in the order in which they are applied.
    pub pages: Vec<(u32, Bytes)>,
}

/// Why a command cannot be applied. The node stops applying rather than skipping it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// The payload ends inside a field.
    #[error("command is cut off: {0}")]
    Truncated(#[from] Truncated),
    /// First byte is not 1.
    #[error("command has format {0}, expected 1")]
    Format(u8),
    /// Unknown type.
    #[error("command has unknown type {0}")]
    Type(u8),
    /// A transaction in pieces, which only servers older than 1.10 produced.
    #[error("command holds a part of a transaction, which this version does not apply")]
    Partial,
    /// Pages of another size than ours.
    #[error("command has pages of {0} bytes, expected 4096")]
    PageSize(u16),
    /// A page number SQLite cannot have.
    #[error("command has page number {0}, expected 1 to 4294967294")]
    PageNumber(u64),
}

/// Encodes the pages of one transaction. One allocation, one copy of each page.
pub fn encode_frames(database: &[u8], pages: &[(u32, PageRef)]) -> Bytes {
    let size = 32 + pad8(database.len() + 1) + pages.len() * (8 + PAGE_SIZE);
    let mut out = BytesMut::with_capacity(size);
    out.put_u8(FORMAT);
    out.put_u8(FRAMES);
    out.put_bytes(0, 6);
    out.put_text(database);
    out.put_u64_le(0);
    out.put_u32_le(0);
    out.put_u8(1);
    out.put_bytes(0, 3);
    out.put_u32_le(u32::try_from(pages.len()).expect("SQLite's page numbers have 32 bits"));
    out.put_u16_le(PAGE_SIZE as u16);
    out.put_bytes(0, 2);
    for (number, _) in pages {
        out.put_u64_le(u64::from(*number));
    }
    for (_, page) in pages {
        out.put_slice(&page[..]);
    }
    debug_assert_eq!(out.len(), size);
    out.freeze()
}

/// Decodes the payload of a command entry. Page images stay slices of the payload.
pub fn decode(payload: Bytes) -> Result<Command, CommandError> {
    let mut r = Reader::new(payload);
    let format = r.u8()?;
    if format != FORMAT {
        return Err(CommandError::Format(format));
    }
    let kind = r.u8()?;
    r.take(6)?;
    match kind {
        FRAMES => decode_frames(r).map(Command::Frames),
        OPEN | CHECKPOINT => r.text().map(|_| Command::Inert).map_err(CommandError::from),
        UNDO => r.u64().map(|_| Command::Inert).map_err(CommandError::from),
        other => Err(CommandError::Type(other)),
    }
}

fn decode_frames(mut r: Reader) -> Result<Frames, CommandError> {
    let database = r.text()?;
    r.take(12)?; // transaction id and truncate: always written as zero, never read
    let is_commit = r.u8()?;
    r.take(3)?;
    let count = r.u32()? as usize;
    let page_size = r.u16()?;
    r.take(2)?;
    if is_commit == 0 {
        return Err(CommandError::Partial);
    }
    if usize::from(page_size) != PAGE_SIZE {
        return Err(CommandError::PageSize(page_size));
    }
    // The bodies follow the numbers: checking both sizes first keeps a made-up count from allocating
    // anything.
    if count.saturating_mul(8 + PAGE_SIZE) > r.remaining() {
        return Err(Truncated { offset: r.offset() }.into());
    }
    let mut pages = Vec::with_capacity(count);
    for _ in 0..count {
        let number = r.u64()?;
        match u32::try_from(number) {
            Ok(number) if number != 0 && number != u32::MAX => pages.push((number, Bytes::new())),
            _ => return Err(CommandError::PageNumber(number)),
        }
    }
    for page in &mut pages {
        page.1 = r.take(PAGE_SIZE)?;
    }
    Ok(Frames { database, pages })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn page(fill: u8) -> PageRef {
        Arc::new([fill; PAGE_SIZE])
    }

    #[test]
    fn header_bytes_are_those_of_a_real_log() {
        let bytes = encode_frames(b"test.db", &[(1, page(7)), (2, page(8))]);
        assert_eq!(bytes.len(), 0x2038);
        let expected: [u8; 0x38] = [
            1, 2, 0, 0, 0, 0, 0, 0, b't', b'e', b's', b't', b'.', b'd', b'b', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
            0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0, 0x10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0,
        ];
        assert_eq!(&bytes[..0x38], &expected);
        assert!(bytes[0x38..0x1038].iter().all(|b| *b == 7));
        assert!(bytes[0x1038..].iter().all(|b| *b == 8));
    }

    #[test]
    fn names_are_padded_to_words_with_their_nul() {
        for (len, padded) in [(7, 8), (8, 16), (15, 16), (16, 24)] {
            let bytes = encode_frames(&vec![b'n'; len], &[]);
            assert_eq!(bytes.len(), 32 + padded, "name of {len} bytes");
        }
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        let Command::Frames(frames) =
            decode(encode_frames(b"a.db", &[(9, page(1)), (2, page(2)), (9, page(3))])).unwrap()
        else {
            panic!("not frames");
        };
        assert_eq!(frames.database, &b"a.db"[..]);
        let pages: Vec<(u32, u8)> = frames.pages.iter().map(|(n, p)| (*n, p[0])).collect();
        assert_eq!(pages, [(9, 1), (2, 2), (9, 3)]);
    }

    #[test]
    fn every_prefix_is_an_error_never_a_panic() {
        let bytes = encode_frames(b"test.db", &[(1, page(7))]);
        for len in (0..64).chain([100, bytes.len() - 1]) {
            assert!(decode(bytes.slice(..len)).is_err(), "prefix of {len} bytes was accepted");
        }
    }

    #[test]
    fn impossible_fields_are_named_in_the_error() {
        let good = encode_frames(b"t", &[(1, page(0))]).to_vec();
        let with = |at: usize, bytes: &[u8]| {
            let mut bad = good.clone();
            bad[at..at + bytes.len()].copy_from_slice(bytes);
            decode(bad.into()).unwrap_err()
        };
        assert_eq!(with(0, &[2]), CommandError::Format(2));
        assert_eq!(with(1, &[9]), CommandError::Type(9));
        assert_eq!(with(28, &[0]), CommandError::Partial);
        assert_eq!(with(36, &[0, 2]), CommandError::PageSize(512));
        assert_eq!(with(40, &[0; 8]), CommandError::PageNumber(0));
        assert_eq!(with(40, &[0, 0, 0, 0, 1, 0, 0, 0]), CommandError::PageNumber(1 << 32));
        assert!(matches!(with(32, &[255; 4]), CommandError::Truncated(_)));
    }

    #[test]
    fn inert_commands_decode_to_nothing() {
        for (kind, body) in [(OPEN, &b"test.db\0"[..]), (UNDO, &[0; 8]), (CHECKPOINT, b"test.db\0")] {
            let mut bytes = vec![1, kind, 0, 0, 0, 0, 0, 0];
            bytes.extend_from_slice(body);
            assert_eq!(decode(bytes.into()), Ok(Command::Inert));
        }
    }
}

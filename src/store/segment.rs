//! Segments: the bytes of the log. Pure, except that entries are slices of the buffer that was read.
//!
//! ```text
//! segment   u64 format = 1 | batch | batch | ... | zeros (open segments only)
//!
//! batch   0      4      8            16                16 + 16 n          16 + 16 n + sum of sizes
//!        +------+------+------------+-----------------+------------------+
//!        | CRC  | CRC  | n >= 1     | n entry headers | n payloads       |
//!        | head | data |            |                 |                  |
//!        +------+------+------------+-----------------+------------------+
//!        CRC head covers bytes 8 .. 16 + 16 n, CRC data all payloads as one run.
//!
//! entry header   u64 term | u8 type: 1 command, 2 barrier, 3 change | 3 unused bytes | u32 payload size
//! ```
//!
//! The C library writes the format together with the first batch: before that it is 0.
//!
//! The unused bytes may hold garbage: they are checked as stored and otherwise ignored. We write zeros.

use super::crc::{Crc, crc};
use crate::codec::{Reader, Truncated};
use crate::config::BATCH_ENTRIES_MAX;
use crate::raft::{Entry, EntryKind, Term};
use bytes::{BufMut, Bytes};
use std::ops::Range;

/// Value of a segment's first word.
pub(super) const FORMAT: u64 = 1;
/// Bytes before the first batch.
pub(super) const HEADER_SIZE: usize = 8;
/// Bytes of a batch before its entry headers.
pub(super) const BATCH_HEADER_SIZE: usize = 16;
/// Bytes of one entry header.
pub(super) const ENTRY_HEADER_SIZE: usize = 16;

/// Bytes an entry takes in a batch.
pub(super) fn entry_size(entry: &Entry) -> usize {
    ENTRY_HEADER_SIZE + entry.payload.len()
}

/// Bytes of a batch of these entries.
pub(super) fn batch_size(entries: &[Entry]) -> usize {
    BATCH_HEADER_SIZE + entries.iter().map(entry_size).sum::<usize>()
}

/// Appends one batch to `out`.
///
/// # Panics
/// If there are no entries, more than a reader believes, or one whose size its header cannot hold.
pub(super) fn encode_batch(out: &mut Vec<u8>, entries: &[Entry]) {
    let count = entries.len() as u64;
    assert!((1..=BATCH_ENTRIES_MAX).contains(&count), "a batch of {count} entries");
    out.reserve(batch_size(entries));
    let start = out.len();
    out.put_u64_le(0);
    out.put_u64_le(count);
    let mut data_crc = Crc::new();
    for entry in entries {
        let size = u32::try_from(entry.payload.len()).expect("callers bound payloads far below 4 GiB");
        out.put_u64_le(entry.term.0);
        out.put_u8(entry.kind as u8);
        out.put_bytes(0, 3);
        out.put_u32_le(size);
        data_crc.update(&entry.payload);
    }
    let head_crc = crc(&out[start + 8..]);
    out[start..start + 4].copy_from_slice(&head_crc.to_le_bytes());
    out[start + 4..start + 8].copy_from_slice(&data_crc.value().to_le_bytes());
    for entry in entries {
        out.put_slice(&entry.payload);
    }
}

/// A whole closed segment with these entries, in as few batches as the format allows.
pub(super) fn encode_closed(entries: &[Entry]) -> Vec<u8> {
    let mut out = Vec::new();
    out.put_u64_le(FORMAT);
    for batch in entries.chunks(BATCH_ENTRIES_MAX as usize) {
        encode_batch(&mut out, batch);
    }
    out
}

/// Why the bytes at some offset are not a batch. The texts complete "entries batch N starting at byte B: ".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum BatchFault {
    #[error("number of entries is zero")]
    NoEntries,
    #[error("number of entries is {0}, more than a batch can hold")]
    TooManyEntries(u64),
    #[error("header checksum mismatch")]
    HeaderChecksum,
    #[error("data checksum mismatch")]
    DataChecksum {
        /// Where the batch would end.
        end: usize,
    },
    #[error("short read: {have} bytes instead of {need}")]
    Short { have: usize, need: usize },
    #[error("entry {number} has the unknown type {kind}")]
    UnknownKind { number: usize, kind: u8 },
}

impl BatchFault {
    /// Whether this is damage of the kind that the C library sets aside.
    pub(super) fn is_checksum_or_count(&self) -> bool {
        !matches!(self, BatchFault::Short { .. } | BatchFault::UnknownKind { .. })
    }

    /// Whether the batch is as somebody wrote it, in words we do not know.
    pub(super) fn is_unknown_kind(&self) -> bool {
        matches!(self, BatchFault::UnknownKind { .. })
    }
}

/// One entry by its place in the segment.
#[derive(Debug, Clone)]
struct Record {
    term: Term,
    kind: EntryKind,
    payload: Range<usize>,
}

/// Reads the batch at `offset` and returns where it ends.
fn read_batch(bytes: &Bytes, offset: usize, records: &mut Vec<Record>) -> Result<usize, BatchFault> {
    let batch = bytes.slice(offset.min(bytes.len())..);
    let available = batch.len();
    let short = |need: usize| move |_: Truncated| BatchFault::Short { have: available, need };
    let mut reader = Reader::new(batch.clone());
    let header = short(BATCH_HEADER_SIZE);
    let head_crc = reader.u32().map_err(header)?;
    let data_crc = reader.u32().map_err(header)?;
    let count = reader.u64().map_err(header)?;
    if count == 0 {
        return Err(BatchFault::NoEntries);
    }
    if count > BATCH_ENTRIES_MAX {
        return Err(BatchFault::TooManyEntries(count));
    }
    let headers_size = count as usize * ENTRY_HEADER_SIZE;
    let headers = reader.take(headers_size).map_err(short(BATCH_HEADER_SIZE + headers_size))?;
    let data_start = reader.offset();
    if crc(&batch[8..data_start]) != head_crc {
        return Err(BatchFault::HeaderChecksum);
    }
    // From here on the header is as somebody wrote it; sizes are u32, so no sum of them overflows.
    let mut headers = Reader::new(headers);
    let mut found = Vec::with_capacity(count as usize);
    let mut end = data_start;
    let mut unknown = None;
    for number in 1..=count as usize {
        let (term, kind, size) = read_entry_header(&mut headers).map_err(header)?;
        let payload = offset + end..offset + end + size;
        end += size;
        match kind {
            Ok(kind) => found.push(Record { term, kind, payload }),
            Err(kind) => unknown = unknown.or(Some(BatchFault::UnknownKind { number, kind })),
        }
    }
    let data = reader.take(end - data_start).map_err(short(end))?;
    if crc(&data) != data_crc {
        return Err(BatchFault::DataChecksum { end: offset + end });
    }
    if let Some(fault) = unknown {
        return Err(fault);
    }
    records.append(&mut found);
    Ok(offset + end)
}

/// Term, type (or the number that is none) and payload size.
fn read_entry_header(reader: &mut Reader) -> Result<(Term, Result<EntryKind, u8>, usize), Truncated> {
    let term = Term(reader.u64()?);
    let kind = match reader.u8()? {
        1 => Ok(EntryKind::Command),
        2 => Ok(EntryKind::Barrier),
        3 => Ok(EntryKind::Change),
        other => Err(other),
    };
    reader.take(3)?;
    Ok((term, kind, reader.u32()? as usize))
}

/// How a segment ends behind its last valid batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Tail {
    /// Exactly there.
    EndOfFile,
    /// With zeros only, as an open segment does.
    Zeros,
    /// With bytes that are not a batch.
    Fault {
        /// Number of the batch, from 1.
        batch: usize,
        fault: BatchFault,
    },
}

/// A segment in memory.
#[derive(Debug)]
pub(super) struct Segment {
    bytes: Bytes,
    records: Vec<Record>,
    /// First byte behind the last valid batch.
    pub(super) used: usize,
    pub(super) tail: Tail,
}

impl Segment {
    /// Reads batches until the first fault. The caller has checked the format word.
    pub(super) fn parse(bytes: Bytes) -> Segment {
        let mut records = Vec::new();
        let mut used = HEADER_SIZE;
        let mut batch = 1;
        let tail = loop {
            if used == bytes.len() {
                break Tail::EndOfFile;
            }
            match read_batch(&bytes, used, &mut records) {
                Ok(end) => used = end,
                Err(_) if bytes.slice(used..).iter().all(|byte| *byte == 0) => break Tail::Zeros,
                Err(fault) => break Tail::Fault { batch, fault },
            }
            batch += 1;
        };
        Segment { bytes, records, used, tail }
    }

    /// Everything up to the end of the last valid batch.
    pub(super) fn content(&self) -> Bytes {
        self.bytes.slice(..self.used)
    }

    /// Number of entries in valid batches.
    pub(super) fn count(&self) -> u64 {
        self.records.len() as u64
    }

    /// The entries of the valid batches. A buffer that is mostly tail is given up for a smaller one, because
    /// the payloads keep it in memory for as long as the log holds them.
    pub(super) fn into_entries(self) -> impl Iterator<Item = Entry> {
        let wasteful = self.bytes.len() - self.used > self.bytes.len() / 4;
        let bytes = if wasteful { Bytes::copy_from_slice(&self.bytes[..self.used]) } else { self.bytes };
        self.records.into_iter().map(move |record| Entry {
            term: record.term,
            kind: record.kind,
            payload: bytes.slice(record.payload),
        })
    }

    /// Offset of a valid batch behind a faulty one, if there is any. Our writer starts a batch only when the
    /// one before it is durable, so such a batch proves that the faulty one once was, too: damage, not a torn
    /// write.
    pub(super) fn batch_behind_fault(&self) -> Option<usize> {
        let Tail::Fault { fault, .. } = &self.tail else { return None };
        let mut records = Vec::new();
        if let BatchFault::DataChecksum { end } = fault {
            // The header is sound, so the next batch can only be behind it; a payload may hold anything.
            return read_batch(&self.bytes, *end, &mut records).ok().map(|_| *end);
        }
        let mut budget = SEARCH_BYTES_MAX;
        let mut offset = self.used + 8;
        while offset < self.bytes.len() && budget > 0 {
            budget = budget.saturating_sub(self.search_cost(offset));
            if read_batch(&self.bytes, offset, &mut records).is_ok() {
                return Some(offset);
            }
            offset += 8;
        }
        None
    }

    /// Bytes that reading a batch at `offset` would checksum.
    fn search_cost(&self, offset: usize) -> usize {
        let mut reader = Reader::new(self.bytes.slice(offset..));
        let count = reader.u64().and_then(|_| reader.u64()).unwrap_or(0);
        if count > BATCH_ENTRIES_MAX { 0 } else { count as usize * ENTRY_HEADER_SIZE }
    }
}

/// Bytes that the search for a batch behind a faulty one may checksum. A search that needs more has met a
/// payload made to be slow; the tail then counts as torn.
const SEARCH_BYTES_MAX: usize = 1 << 30;

#[cfg(test)]
#[path = "segment_test.rs"]
mod tests;

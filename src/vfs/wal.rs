//! The frames of one database's write-ahead log, in the shape in which SQLite reads and writes its WAL file.
//! Nothing here is durable or leaves the node: the checksums in it are SQLite's own business.
//!
//! ```text
//! file: 32-byte header, then frames of 24 + 4096 bytes, frame n (from 1) at 32 + (n - 1) * 4120
//! frame header: page number u32, size after commit u32, salts 2 x u32, checksums 2 x u32, all big-endian
//! ```

use crate::config::PAGE_SIZE;

use super::pages::{PageNumber, PageRef, page_from};

const FILE_HEADER_SIZE: usize = 32;
const FRAME_HEADER_SIZE: usize = 24;
const FRAME_SIZE: usize = FRAME_HEADER_SIZE + PAGE_SIZE;

/// One frame. SQLite writes the header first, so the page may still be missing.
#[derive(Debug, Clone)]
struct Frame {
    header: [u8; FRAME_HEADER_SIZE],
    page: PageRef,
}

/// A read or write that no SQLite would do.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("unexpected access to the WAL: {len} bytes at {offset}, {frames} frames")]
pub(super) struct BadAccess {
    len: usize,
    offset: u64,
    frames: usize,
}

/// Why a read gave no bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ReadError {
    /// Past the last frame.
    PastEnd,
    /// See [`BadAccess`].
    Bad(BadAccess),
}

/// Where a byte offset of the file falls.
enum Place {
    FileHeader(usize),
    Frame { slot: usize, offset: usize },
}

/// The WAL of one database: committed frames, then speculative ones, then those of the open write
/// transaction.
#[derive(Debug, Default)]
pub(super) struct Wal {
    header: [u8; FILE_HEADER_SIZE],
    frames: Vec<Frame>,
}

fn place(offset: u64) -> Option<Place> {
    let offset = usize::try_from(offset).ok()?;
    match offset.checked_sub(FILE_HEADER_SIZE) {
        None => Some(Place::FileHeader(offset)),
        Some(rest) => Some(Place::Frame { slot: rest / FRAME_SIZE, offset: rest % FRAME_SIZE }),
    }
}

impl Wal {
    /// Number of frames, which is also the number of the last one.
    pub(super) fn frame_count(&self) -> u32 {
        u32::try_from(self.frames.len()).expect("frame numbers are u32 and `write` refuses more")
    }

    /// Size of the file as SQLite sees it.
    pub(super) fn file_size(&self) -> u64 {
        match self.frames.len() {
            0 => 0,
            count => (FILE_HEADER_SIZE + count * FRAME_SIZE) as u64,
        }
    }

    /// Page number and image of frame `number`, counted from 1.
    pub(super) fn frame(&self, number: u32) -> (PageNumber, &PageRef) {
        let frame = &self.frames[number as usize - 1];
        (page_number(&frame.header), &frame.page)
    }

    /// Page numbers and images of a range of frames, first and last included, in order.
    pub(super) fn range(&self, first: u32, last: u32) -> impl Iterator<Item = (PageNumber, &PageRef)> {
        self.frames[first as usize - 1..last as usize].iter().map(|f| (page_number(&f.header), &f.page))
    }

    /// Appends a frame that SQLite did not write; it needs no salts and no checksum because none is ever
    /// checked.
    pub(super) fn push(&mut self, page_number: PageNumber, page: PageRef) {
        let mut header = [0; FRAME_HEADER_SIZE];
        header[..4].copy_from_slice(&page_number.to_be_bytes());
        self.frames.push(Frame { header, page });
    }

    /// Drops all frames above `last`; the caller lets go of them when it holds no lock.
    #[must_use]
    pub(super) fn truncate(&mut self, last: u32) -> Vec<PageRef> {
        let keep = (last as usize).min(self.frames.len());
        self.frames.drain(keep..).map(|f| f.page).collect()
    }

    /// Takes the first `count` frames out; the rest is renumbered from 1.
    pub(super) fn take_first(&mut self, count: u32) -> impl Iterator<Item = (PageNumber, PageRef)> {
        self.frames.drain(..count as usize).map(|f| (page_number(&f.header), f.page))
    }

    /// Reads part of the file header, or a part of one frame.
    pub(super) fn read(&self, out: &mut [u8], offset: u64) -> Result<(), ReadError> {
        let bad = || ReadError::Bad(self.bad_access(out.len(), offset));
        match place(offset).ok_or_else(bad)? {
            Place::FileHeader(start) => {
                let bytes = self.header.get(start..start + out.len()).ok_or_else(bad)?;
                out.copy_from_slice(bytes);
            }
            Place::Frame { slot, offset: start } => {
                let frame = self.frames.get(slot).ok_or(ReadError::PastEnd)?;
                if start + out.len() > FRAME_SIZE {
                    return Err(bad());
                }
                let in_header = FRAME_HEADER_SIZE.saturating_sub(start).min(out.len());
                let (head, body) = out.split_at_mut(in_header);
                if in_header > 0 {
                    head.copy_from_slice(&frame.header[start..start + in_header]);
                }
                if !body.is_empty() {
                    let from = (start + in_header) - FRAME_HEADER_SIZE;
                    body.copy_from_slice(&frame.page[from..from + body.len()]);
                }
            }
        }
        Ok(())
    }

    /// Writes the file header, a frame header or a page. Frames up to `base` are not the open transaction's
    /// and cannot be touched; a frame header may extend the file by one frame.
    pub(super) fn write(&mut self, bytes: &[u8], offset: u64, base: u32) -> Result<(), BadAccess> {
        match place(offset) {
            Some(Place::FileHeader(0)) if bytes.len() == FILE_HEADER_SIZE => {
                self.header.copy_from_slice(bytes);
                Ok(())
            }
            Some(Place::Frame { slot, offset: 0 })
                if bytes.len() == FRAME_HEADER_SIZE && (base as usize..u32::MAX as usize).contains(&slot) =>
            {
                let mut header = [0; FRAME_HEADER_SIZE];
                header.copy_from_slice(bytes);
                let count = self.frames.len();
                match self.frames.get_mut(slot) {
                    Some(frame) => frame.header = header,
                    None if slot == count => {
                        self.frames.push(Frame { header, page: super::pages::zeros() });
                    }
                    None => return Err(self.bad_access(bytes.len(), offset)),
                }
                Ok(())
            }
            Some(Place::Frame { slot, offset: FRAME_HEADER_SIZE }) if slot >= base as usize => {
                match (self.frames.get_mut(slot), page_from(bytes)) {
                    (Some(frame), Some(page)) => {
                        frame.page = page;
                        Ok(())
                    }
                    _ => Err(self.bad_access(bytes.len(), offset)),
                }
            }
            _ => Err(self.bad_access(bytes.len(), offset)),
        }
    }

    fn bad_access(&self, len: usize, offset: u64) -> BadAccess {
        BadAccess { len, offset, frames: self.frames.len() }
    }
}

fn page_number(header: &[u8; FRAME_HEADER_SIZE]) -> PageNumber {
    u32::from_be_bytes([header[0], header[1], header[2], header[3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame_offset(number: u32) -> u64 {
        32 + u64::from(number - 1) * 4120
    }

    fn append(wal: &mut Wal, number: u32, page: PageNumber, fill: u8, base: u32) -> Result<(), BadAccess> {
        let mut header = [fill; 24];
        header[..4].copy_from_slice(&page.to_be_bytes());
        wal.write(&header, frame_offset(number), base)?;
        wal.write(&[fill; PAGE_SIZE], frame_offset(number) + 24, base)
    }

    #[test]
    fn what_sqlite_writes_it_reads_back_in_every_shape_it_uses() {
        let mut wal = Wal::default();
        assert_eq!(wal.file_size(), 0);
        wal.write(&[5; 32], 0, 0).unwrap();
        append(&mut wal, 1, 7, 1, 0).unwrap();
        append(&mut wal, 2, 9, 2, 0).unwrap();
        assert_eq!(wal.file_size(), 32 + 2 * 4120);
        let mut checksum = [0; 8];
        wal.read(&mut checksum, 24).unwrap();
        assert_eq!(checksum, [5; 8]);
        wal.read(&mut checksum, frame_offset(2) + 16).unwrap();
        assert_eq!(checksum, [2; 8]);
        let mut frame = vec![0; 4120];
        wal.read(&mut frame, frame_offset(1)).unwrap();
        assert_eq!(frame[..8], [0, 0, 0, 7, 1, 1, 1, 1]);
        assert_eq!(frame[24..], [1; PAGE_SIZE]);
        let mut page = [0; PAGE_SIZE];
        wal.read(&mut page, frame_offset(2) + 24).unwrap();
        assert_eq!(page, [2; PAGE_SIZE]);
        assert_eq!(wal.read(&mut page, frame_offset(3) + 24), Err(ReadError::PastEnd));
    }

    #[test]
    fn frames_below_the_open_transaction_cannot_be_written() {
        let mut wal = Wal::default();
        append(&mut wal, 1, 7, 1, 0).unwrap();
        assert!(append(&mut wal, 1, 7, 2, 1).is_err());
        assert!(wal.write(&[2; PAGE_SIZE], frame_offset(1) + 24, 1).is_err());
        append(&mut wal, 2, 7, 3, 1).unwrap();
        append(&mut wal, 2, 8, 4, 1).unwrap();
        assert_eq!(wal.frame(2).0, 8);
        assert_eq!(wal.frame(1).1[0], 1);
    }

    #[test]
    fn a_rewritten_page_leaves_earlier_holders_their_image() {
        let mut wal = Wal::default();
        append(&mut wal, 1, 7, 1, 0).unwrap();
        let held = PageRef::clone(wal.frame(1).1);
        append(&mut wal, 1, 7, 2, 0).unwrap();
        assert_eq!((held[0], wal.frame(1).1[0]), (1, 2));
    }

    #[test]
    fn accesses_that_no_sqlite_does_are_refused() {
        let mut wal = Wal::default();
        append(&mut wal, 1, 7, 1, 0).unwrap();
        assert!(append(&mut wal, 3, 7, 1, 0).is_err(), "a hole");
        assert!(wal.write(&[0; 31], 0, 0).is_err());
        assert!(wal.write(&[0; 8], 8, 0).is_err());
        assert!(wal.write(&[0; PAGE_SIZE - 1], frame_offset(1) + 24, 0).is_err());
        let mut out = vec![0; 4121];
        assert!(matches!(wal.read(&mut out, frame_offset(1)), Err(ReadError::Bad(_))));
        assert!(matches!(wal.read(&mut out[..33], 0), Err(ReadError::Bad(_))));
    }

    #[test]
    fn taking_the_first_frames_renumbers_the_rest() {
        let mut wal = Wal::default();
        for number in 1..=5 {
            append(&mut wal, number, number + 10, number as u8, 0).unwrap();
        }
        let taken: Vec<_> = wal.take_first(3).map(|(number, page)| (number, page[0])).collect();
        assert_eq!(taken, [(11, 1), (12, 2), (13, 3)]);
        assert_eq!(wal.range(1, 2).map(|(n, _)| n).collect::<Vec<_>>(), [14, 15]);
        assert_eq!(wal.truncate(1).len(), 1);
        assert_eq!(wal.frame_count(), 1);
    }
}

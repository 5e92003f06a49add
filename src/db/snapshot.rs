//! The content of a snapshot: every database at one index of the log.
//!
//! ```text
//!  0    u64   format = 1
//!  8    u64   number of databases
//!  then for each database, in order of creation
//!  +0   text  name                       L bytes
//!  +L   u64   main_size in bytes         u64 wal_size in bytes
//!  +..  main_size bytes: pages 1..n      wal_size bytes: a SQLite WAL, 32 + k * (24 + 4096), or none
//! ```
//!
//! We write `wal_size` 0. Readers of C releases up to 1.18.2 split the two parts by the size in the header of
//! page 1, so `main_size` always equals it. A WAL (written by releases up to 1.16) is merged while reading:
//! later frames win, and the size after the last frame counts.

use crate::codec::{Reader, Truncated, Writer};
use crate::config::PAGE_SIZE;
use crate::vfs::{Image, PageRef};
use bytes::{Buf, BufMut, Bytes};
use std::io::{self, Write};
use std::sync::Arc;

const FORMAT: u64 = 1;
const WAL_HEADER_SIZE: usize = 32;
const FRAME_HEADER_SIZE: usize = 24;

/// All databases at one index. Holds pages by reference: taking it copies nothing.
pub struct Snapshot {
    /// Name and pages, in order of creation.
    pub databases: Vec<(Bytes, Image)>,
}

/// Why the content of a snapshot cannot be restored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// The content ends inside a field, a page or a frame.
    #[error("snapshot is cut off: {0}")]
    Truncated(#[from] Truncated),
    /// First word is not 1.
    #[error("snapshot has format {0}, expected 1")]
    Format(u64),
    /// A size that is no whole number of pages or frames.
    #[error("database {database:?} in the snapshot has {part} of {size} bytes, not a whole number of {unit}")]
    Size {
        /// Name of the database.
        database: String,
        /// "a main part" or "a WAL".
        part: &'static str,
        /// The size found.
        size: u64,
        /// "pages" or "frames".
        unit: &'static str,
    },
    /// Main part and WAL together leave a page without content.
    #[error("database {database:?} in the snapshot lacks page {page}")]
    MissingPage {
        /// Name of the database.
        database: String,
        /// First page without content.
        page: u32,
    },
    /// Bytes after the last database.
    #[error("snapshot has {0} bytes after its last database")]
    TrailingBytes(usize),
}

impl Snapshot {
    /// Size of the encoded content in bytes.
    pub fn size(&self) -> u64 {
        let head = |name: &Bytes| (crate::codec::pad8(name.len() + 1) + 16) as u64;
        let pages = |image: &Image| (image.pages.len() * PAGE_SIZE) as u64;
        16 + self.databases.iter().map(|(name, image)| head(name) + pages(image)).sum::<u64>()
    }

    /// Writes the encoded content, page by page.
    pub fn write_to(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut head = Vec::with_capacity(64);
        head.put_u64_le(FORMAT);
        head.put_u64_le(self.databases.len() as u64);
        for (name, image) in &self.databases {
            head.put_text(name);
            head.put_u64_le((image.pages.len() * PAGE_SIZE) as u64);
            head.put_u64_le(0);
            out.write_all(&head)?;
            head.clear();
            for page in &image.pages {
                out.write_all(&page[..])?;
            }
        }
        out.write_all(&head)
    }

    /// Reads the encoded content of any C release.
    pub fn decode(content: Bytes) -> Result<Snapshot, SnapshotError> {
        let mut r = Reader::new(content);
        let format = r.u64()?;
        if format != FORMAT {
            return Err(SnapshotError::Format(format));
        }
        let count = r.u64()?;
        let mut databases = Vec::new();
        for _ in 0..count {
            databases.push(decode_database(&mut r)?);
        }
        match r.remaining() {
            0 => Ok(Snapshot { databases }),
            left => Err(SnapshotError::TrailingBytes(left)),
        }
    }
}

fn decode_database(r: &mut Reader) -> Result<(Bytes, Image), SnapshotError> {
    let name = r.text()?;
    let main_size = r.u64()?;
    let wal_size = r.u64()?;
    let database = || String::from_utf8_lossy(&name).into_owned();
    if main_size % PAGE_SIZE as u64 != 0 {
        let (part, unit) = ("a main part", "pages");
        return Err(SnapshotError::Size { database: database(), part, size: main_size, unit });
    }
    let mut main = r.take(length(main_size, r)?)?;
    let mut pages = Vec::with_capacity(main.len() / PAGE_SIZE);
    while main.has_remaining() {
        pages.push(Some(take_page(&mut main)));
    }
    let frame_size = (FRAME_HEADER_SIZE + PAGE_SIZE) as u64;
    let frames = wal_size.saturating_sub(WAL_HEADER_SIZE as u64);
    if wal_size != 0 && (wal_size < WAL_HEADER_SIZE as u64 || frames % frame_size != 0) {
        let (part, unit) = ("a WAL", "frames");
        return Err(SnapshotError::Size { database: database(), part, size: wal_size, unit });
    }
    let wal = r.take(length(wal_size, r)?)?;
    if frames != 0 {
        merge_wal(&mut pages, wal.slice(WAL_HEADER_SIZE..));
    }
    let missing = pages.iter().position(Option::is_none);
    if let Some(page) = missing.or(pages.is_empty().then_some(0)) {
        return Err(SnapshotError::MissingPage { database: database(), page: page as u32 + 1 });
    }
    Ok((name, Image { pages: pages.into_iter().flatten().collect() }))
}

fn length(size: u64, r: &Reader) -> Result<usize, Truncated> {
    usize::try_from(size).map_err(|_| Truncated { offset: r.offset() })
}

fn take_page(bytes: &mut Bytes) -> PageRef {
    let mut page: PageRef = Arc::new([0; PAGE_SIZE]);
    let target = Arc::get_mut(&mut page).expect("the page was allocated on the line above");
    bytes.copy_to_slice(target);
    page
}

/// Lays the frames over the main part. The frame header is big-endian: page number, then the size of the
/// database in pages after a commit, or 0 inside a transaction (SQLite file format, section 4.1).
fn merge_wal(pages: &mut Vec<Option<PageRef>>, mut frames: Bytes) {
    let frame_size = FRAME_HEADER_SIZE + PAGE_SIZE;
    let last = frames.len() - frame_size;
    let size = u32::from_be_bytes([frames[last + 4], frames[last + 5], frames[last + 6], frames[last + 7]]);
    pages.resize(size as usize, None);
    while frames.has_remaining() {
        let number = frames.get_u32();
        frames.advance(FRAME_HEADER_SIZE - 4);
        let page = take_page(&mut frames);
        if let Some(slot) = pages.get_mut((number as usize).wrapping_sub(1)) {
            *slot = Some(page);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(fill: u8) -> PageRef {
        Arc::new([fill; PAGE_SIZE])
    }

    fn encoded(databases: &[(&str, &[u8])]) -> Vec<u8> {
        let image = |fills: &[u8]| Image { pages: fills.iter().map(|f| page(*f)).collect() };
        let databases = databases.iter().map(|(n, p)| (Bytes::from(n.to_string()), image(p))).collect();
        let snapshot = Snapshot { databases };
        let mut out = Vec::new();
        snapshot.write_to(&mut out).unwrap();
        assert_eq!(out.len() as u64, snapshot.size());
        out
    }

    /// A snapshot as releases up to 1.16 write it.
    fn with_wal(main: &[u8], frames: &[(u32, u32, u8)]) -> Vec<u8> {
        let mut out = Vec::new();
        out.put_u64_le(1);
        out.put_u64_le(1);
        out.put_text(b"test.db");
        out.put_u64_le((main.len() * PAGE_SIZE) as u64);
        out.put_u64_le((WAL_HEADER_SIZE + frames.len() * (FRAME_HEADER_SIZE + PAGE_SIZE)) as u64);
        main.iter().for_each(|fill| out.put_slice(&[*fill; PAGE_SIZE]));
        out.put_bytes(0xee, WAL_HEADER_SIZE);
        for (number, size, fill) in frames {
            out.put_u32(*number);
            out.put_u32(*size);
            out.put_bytes(0xee, 16);
            out.put_bytes(*fill, PAGE_SIZE);
        }
        out
    }

    fn fills(content: Vec<u8>) -> Result<Vec<u8>, SnapshotError> {
        let snapshot = Snapshot::decode(content.into())?;
        Ok(snapshot.databases.iter().flat_map(|(_, image)| image.pages.iter().map(|p| p[0])).collect())
    }

    #[test]
    fn what_is_written_is_read_back() {
        let snapshot = Snapshot::decode(encoded(&[("a.db", &[1, 2]), ("bb", &[3])]).into()).unwrap();
        let names: Vec<_> = snapshot.databases.iter().map(|(n, _)| n.clone()).collect();
        assert_eq!(names, ["a.db", "bb"]);
        assert_eq!(fills(encoded(&[("a.db", &[1, 2]), ("bb", &[3])])).unwrap(), [1, 2, 3]);
        assert!(Snapshot::decode(encoded(&[]).into()).unwrap().databases.is_empty());
    }

    #[test]
    fn head_bytes_are_those_of_a_real_snapshot() {
        let bytes = encoded(&[("test.db", &[1, 2])]);
        let head = [1u64, 1, u64::from_le_bytes(*b"test.db\0"), 0x2000, 0].map(u64::to_le_bytes).concat();
        assert_eq!(&bytes[..40], &head[..]);
        assert_eq!(bytes.len(), 8232);
    }

    #[test]
    fn a_wal_is_merged_and_its_last_size_counts() {
        assert_eq!(fills(with_wal(&[1], &[(2, 0, 7), (1, 2, 8), (2, 2, 9)])).unwrap(), [8, 9]);
        assert_eq!(fills(with_wal(&[1, 2, 3], &[(1, 3, 7), (3, 1, 8)])).unwrap(), [7]);
        assert_eq!(fills(with_wal(&[1, 2], &[])).unwrap(), [1, 2]);
        assert_eq!(fills(with_wal(&[], &[(1, 1, 5)])).unwrap(), [5]);
    }

    #[test]
    fn a_page_without_content_is_refused() {
        let missing = |page| Err(SnapshotError::MissingPage { database: "test.db".into(), page });
        assert_eq!(fills(with_wal(&[1], &[(3, 3, 7)])), missing(2));
        assert_eq!(fills(with_wal(&[], &[])), missing(1));
    }

    #[test]
    fn every_prefix_is_an_error_never_a_panic() {
        let bytes = Bytes::from(with_wal(&[1], &[(1, 1, 2)]));
        for len in (0..80).chain((80..bytes.len()).step_by(61)) {
            assert!(Snapshot::decode(bytes.slice(..len)).is_err(), "prefix of {len} bytes was accepted");
        }
    }
}

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

use crate::codec::{Truncated, Writer};
use crate::config::{DATABASE_NAME_MAX, PAGE_SIZE};
use crate::vfs::{Image, PageRef};
use bytes::{BufMut, Bytes};
use std::collections::{HashMap, HashSet};
use std::io::{self, Read, Write};
use std::sync::Arc;

const FORMAT: u64 = 1;
const WAL_HEADER_SIZE: usize = 32;
const FRAME_HEADER_SIZE: usize = 24;
/// Pages to make room for before they have been read: what a damaged size announces may not exist.
const PAGES_EXPECTED_MAX: u64 = 1 << 16;

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
    /// The content cannot be read any further.
    #[error("{0}")]
    Unreadable(String),
    /// The name of a database is longer than any.
    #[error("snapshot has a name of more than {DATABASE_NAME_MAX} bytes at byte {offset}")]
    Name {
        /// Where the name begins.
        offset: usize,
    },
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
    /// Two databases with one name.
    #[error("snapshot contains database {database:?} twice")]
    Duplicate {
        /// Name of the databases.
        database: String,
    },
    /// Bytes after the last database.
    #[error("snapshot goes on after its last database")]
    TrailingBytes,
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

    /// Reads the encoded content of any C release, to its end. What is in memory is one page at a time, and
    /// what becomes of it.
    pub fn read_from(content: &mut dyn Read) -> Result<Snapshot, SnapshotError> {
        let mut content = Content { inner: content, offset: 0 };
        let format = content.u64()?;
        if format != FORMAT {
            return Err(SnapshotError::Format(format));
        }
        let count = content.u64()?;
        let mut databases = Vec::new();
        let mut names = HashSet::new();
        for _ in 0..count {
            let (name, image) = content.database()?;
            if !names.insert(name.clone()) {
                let database = String::from_utf8_lossy(&name).into_owned();
                return Err(SnapshotError::Duplicate { database });
            }
            databases.push((name, image));
        }
        if content.is_at_end()? { Ok(Snapshot { databases }) } else { Err(SnapshotError::TrailingBytes) }
    }
}

/// The content of a snapshot as it is read.
struct Content<'a> {
    inner: &'a mut dyn Read,
    offset: usize,
}

impl Content<'_> {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), SnapshotError> {
        self.inner.read_exact(out).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => Truncated { offset: self.offset }.into(),
            _ => SnapshotError::Unreadable(error.to_string()),
        })?;
        self.offset += out.len();
        Ok(())
    }

    fn is_at_end(&mut self) -> Result<bool, SnapshotError> {
        match self.fill(&mut [0]) {
            Ok(()) => Ok(false),
            Err(SnapshotError::Truncated(_)) => Ok(true),
            Err(error) => Err(error),
        }
    }

    fn u64(&mut self) -> Result<u64, SnapshotError> {
        let mut word = [0; 8];
        self.fill(&mut word)?;
        Ok(u64::from_le_bytes(word))
    }

    /// Ends in the word that has a NUL.
    fn name(&mut self) -> Result<Bytes, SnapshotError> {
        let start = self.offset;
        let mut name = Vec::new();
        while name.len() <= DATABASE_NAME_MAX {
            let mut word = [0; 8];
            self.fill(&mut word)?;
            name.extend(word.iter().take_while(|byte| **byte != 0));
            if word.contains(&0) {
                return Ok(name.into());
            }
        }
        Err(SnapshotError::Name { offset: start })
    }

    fn page(&mut self) -> Result<PageRef, SnapshotError> {
        let mut page: PageRef = Arc::new([0; PAGE_SIZE]);
        self.fill(Arc::get_mut(&mut page).expect("the page was allocated on the line above"))?;
        Ok(page)
    }

    fn database(&mut self) -> Result<(Bytes, Image), SnapshotError> {
        let name = self.name()?;
        let main_size = self.u64()?;
        let wal_size = self.u64()?;
        let database = || String::from_utf8_lossy(&name).into_owned();
        if main_size % PAGE_SIZE as u64 != 0 {
            let (part, unit) = ("a main part", "pages");
            return Err(SnapshotError::Size { database: database(), part, size: main_size, unit });
        }
        let frame_size = (FRAME_HEADER_SIZE + PAGE_SIZE) as u64;
        let frames = wal_size.saturating_sub(WAL_HEADER_SIZE as u64);
        if wal_size != 0 && (wal_size < WAL_HEADER_SIZE as u64 || frames % frame_size != 0) {
            let (part, unit) = ("a WAL", "frames");
            return Err(SnapshotError::Size { database: database(), part, size: wal_size, unit });
        }
        let count = main_size / PAGE_SIZE as u64;
        let mut pages = Vec::with_capacity(count.min(PAGES_EXPECTED_MAX) as usize);
        for _ in 0..count {
            pages.push(self.page()?);
        }
        if wal_size > 0 {
            self.fill(&mut [0; WAL_HEADER_SIZE])?;
            pages = self.merge_wal(pages, frames / frame_size, &name)?;
        }
        if pages.is_empty() {
            return Err(SnapshotError::MissingPage { database: database(), page: 1 });
        }
        Ok((name, Image { pages }))
    }

    /// Lays the frames over the main part. The frame header is big-endian: page number, then the size of the
    /// database in pages after a commit, or 0 inside a transaction (SQLite file format, section 4.1).
    fn merge_wal(
        &mut self,
        main: Vec<PageRef>,
        frames: u64,
        name: &[u8],
    ) -> Result<Vec<PageRef>, SnapshotError> {
        let mut size = main.len() as u32;
        let mut newer = HashMap::new();
        for _ in 0..frames {
            let mut header = [0; FRAME_HEADER_SIZE];
            self.fill(&mut header)?;
            let [n0, n1, n2, n3, s0, s1, s2, s3, ..] = header;
            size = u32::from_be_bytes([s0, s1, s2, s3]);
            newer.insert(u32::from_be_bytes([n0, n1, n2, n3]), self.page()?);
        }
        let mut main = main.into_iter();
        let page = |page: u32| {
            let older = main.next();
            let missing =
                || SnapshotError::MissingPage { database: String::from_utf8_lossy(name).into_owned(), page };
            newer.remove(&page).or(older).ok_or_else(missing)
        };
        (1..=size).map(page).collect()
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

    fn decode(mut content: &[u8]) -> Result<Snapshot, SnapshotError> {
        Snapshot::read_from(&mut content)
    }

    fn fills(content: Vec<u8>) -> Result<Vec<u8>, SnapshotError> {
        let snapshot = decode(&content)?;
        Ok(snapshot.databases.iter().flat_map(|(_, image)| image.pages.iter().map(|p| p[0])).collect())
    }

    #[test]
    fn what_is_written_is_read_back() {
        let snapshot = decode(&encoded(&[("a.db", &[1, 2]), ("bb", &[3])])).unwrap();
        let names: Vec<_> = snapshot.databases.iter().map(|(n, _)| n.clone()).collect();
        assert_eq!(names, ["a.db", "bb"]);
        assert_eq!(fills(encoded(&[("a.db", &[1, 2]), ("bb", &[3])])).unwrap(), [1, 2, 3]);
        assert!(decode(&encoded(&[])).unwrap().databases.is_empty());
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
    fn a_name_that_comes_twice_is_refused() {
        let twice = decode(&encoded(&[("a.db", &[1]), ("b.db", &[2]), ("a.db", &[3])]));
        assert_eq!(twice.err(), Some(SnapshotError::Duplicate { database: "a.db".into() }));
    }

    #[test]
    fn a_page_without_content_is_refused() {
        let missing = |page| Err(SnapshotError::MissingPage { database: "test.db".into(), page });
        assert_eq!(fills(with_wal(&[1], &[(3, 3, 7)])), missing(2));
        assert_eq!(fills(with_wal(&[], &[])), missing(1));
        // No memory for what a size only announces.
        assert_eq!(fills(with_wal(&[1], &[(1, u32::MAX, 7)])), missing(2));
    }

    #[test]
    fn sizes_that_nothing_follows_take_no_memory() {
        let mut content = with_wal(&[], &[]);
        content.truncate(24);
        content.put_u64_le(u64::MAX / PAGE_SIZE as u64 * PAGE_SIZE as u64);
        content.put_u64_le(0);
        assert!(matches!(fills(content), Err(SnapshotError::Truncated(_))));
    }

    #[test]
    fn an_error_of_the_source_is_told_as_it_is() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::new(io::ErrorKind::InvalidData, "LZ4 frame: bad"))
            }
        }
        let content = encoded(&[("a.db", &[1])]);
        for len in [0, 20, 100, content.len()] {
            let error = Snapshot::read_from(&mut (&content[..len]).chain(Broken)).err();
            assert_eq!(error, Some(SnapshotError::Unreadable("LZ4 frame: bad".into())), "{len} bytes");
        }
    }

    #[test]
    fn every_prefix_is_an_error_never_a_panic() {
        let bytes = with_wal(&[1], &[(1, 1, 2)]);
        for len in (0..80).chain((80..bytes.len()).step_by(61)) {
            assert!(decode(&bytes[..len]).is_err(), "prefix of {len} bytes was accepted");
        }
    }
}

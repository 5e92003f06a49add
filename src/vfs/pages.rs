//! Database pages: the shared page type, and the two page images that are made here instead of by SQLite.
//!
//! ```text
//! page 1, bytes 0..100: the database header (all integers big-endian)
//!   0 magic (16)   16 page size u16   18 write version = 2 (WAL)   19 read version = 2
//!  21 64  22 32  23 32   24 change counter   28 size in pages   32, 36 freelist   40 schema cookie
//!  48 default cache size  52 autovacuum root  60 user version  64 incremental vacuum  68 application id
//!  92 change counter at which 28 and 96 were valid   96 SQLite version number
//! page 1, bytes 100..: the root of the schema table; empty: 0d, first free block 0000, cells 0000,
//!   start of the cell area u16 (= page size), fragments 00
//! ```

use std::sync::{Arc, LazyLock};

use crate::config::PAGE_SIZE;

/// One page image, shared by reference between the page store, WAL frames, commands and snapshots. A page
/// that somebody else can see is never modified; a change makes another page.
pub type PageRef = Arc<[u8; PAGE_SIZE]>;

/// Page number, counted from 1.
pub type PageNumber = u32;

const MAGIC: &[u8; 16] = b"SQLite format 3\0";
const HEADER_SIZE: usize = 100;
const SIZE_OFFSET: usize = 28;
const SCHEMA_COOKIE_OFFSET: usize = 40;
const VALID_FOR_OFFSET: usize = 92;

static ZEROS: LazyLock<PageRef> = LazyLock::new(|| Arc::new([0; PAGE_SIZE]));

/// A page of zeros: stands in for pages that no transaction has written, such as the one at the pending byte.
pub(super) fn zeros() -> PageRef {
    Arc::clone(&ZEROS)
}

/// Copies bytes into a page of their own; `None` unless they are exactly one page.
pub fn page_from(bytes: &[u8]) -> Option<PageRef> {
    Arc::<[u8]>::from(bytes).try_into().ok()
}

/// Page 1 of a database that nobody has written to, as SQLite leaves it after switching a new file to WAL
/// mode.
pub(super) fn empty_database(sqlite_version: u32) -> PageRef {
    let mut page = [0; PAGE_SIZE];
    page[..16].copy_from_slice(MAGIC);
    put_u16(&mut page, 16, PAGE_SIZE as u16);
    page[18..24].copy_from_slice(&[2, 2, 0, 64, 32, 32]);
    put_u32(&mut page, 24, 1);
    put_u32(&mut page, SIZE_OFFSET, 1);
    put_u32(&mut page, VALID_FOR_OFFSET, 1);
    put_u32(&mut page, 96, sqlite_version);
    put_empty_root(&mut page);
    Arc::new(page)
}

/// Page 1 of a deleted database, made from its last page 1: an empty schema, and size 0 as the mark that
/// every node recognises. The schema cookie moves on, so that other connections drop their cached schema.
pub(super) fn deleted_database(last: &[u8; PAGE_SIZE]) -> PageRef {
    let mut page = [0; PAGE_SIZE];
    page[..HEADER_SIZE].copy_from_slice(&last[..HEADER_SIZE]);
    for offset in [SIZE_OFFSET, 32, 36, 48, 52, 60, 64, 68] {
        put_u32(&mut page, offset, 0);
    }
    let cookie = get_u32(last, SCHEMA_COOKIE_OFFSET).wrapping_add(1);
    put_u32(&mut page, SCHEMA_COOKIE_OFFSET, cookie);
    page[VALID_FOR_OFFSET..VALID_FOR_OFFSET + 4].copy_from_slice(&[1, 0, 0, 0]);
    put_empty_root(&mut page);
    Arc::new(page)
}

/// The database size in pages that a page 1 declares; 0 marks a deleted database.
pub(super) fn declared_size(page1: &[u8; PAGE_SIZE]) -> u32 {
    get_u32(page1, SIZE_OFFSET)
}

/// Whether a page 1 belongs to a WAL-mode database of our page size, which is all that the VFS can serve.
pub(super) fn is_wal_page1(page1: &[u8; PAGE_SIZE]) -> bool {
    page1.starts_with(MAGIC)
        && page1[16..18] == (PAGE_SIZE as u16).to_be_bytes()
        && page1[18] == 2
        && page1[19] == 2
}

fn put_empty_root(page: &mut [u8; PAGE_SIZE]) {
    page[HEADER_SIZE] = 0x0d;
    put_u16(page, HEADER_SIZE + 5, PAGE_SIZE as u16);
}

fn put_u16(page: &mut [u8; PAGE_SIZE], offset: usize, value: u16) {
    page[offset..offset + 2].copy_from_slice(&value.to_be_bytes());
}

fn put_u32(page: &mut [u8; PAGE_SIZE], offset: usize, value: u32) {
    page[offset..offset + 4].copy_from_slice(&value.to_be_bytes());
}

fn get_u32(page: &[u8; PAGE_SIZE], offset: usize) -> u32 {
    u32::from_be_bytes([page[offset], page[offset + 1], page[offset + 2], page[offset + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_database_has_the_page_that_sqlite_itself_would_write() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("new.db");
        let sqlite = rusqlite::Connection::open(&path).unwrap();
        sqlite.pragma_update(None, "page_size", PAGE_SIZE as i64).unwrap();
        sqlite.pragma_update(None, "journal_mode", "WAL").unwrap();
        sqlite.execute_batch("BEGIN IMMEDIATE; ROLLBACK").unwrap();
        let written = std::fs::read(&path).unwrap();
        let version = rusqlite::version_number() as u32;
        assert_eq!(written, empty_database(version).to_vec());
    }

    #[test]
    fn a_deleted_database_declares_no_pages_and_a_moved_schema_cookie() {
        let mut last = *empty_database(3_040_001);
        put_u32(&mut last, SCHEMA_COOKIE_OFFSET, 41);
        put_u32(&mut last, 60, 7);
        put_u32(&mut last, SIZE_OFFSET, 12);
        last[200] = 9;
        let page = deleted_database(&last);
        assert_eq!(declared_size(&page), 0);
        assert_eq!(get_u32(&page[..].try_into().unwrap(), SCHEMA_COOKIE_OFFSET), 42);
        assert_eq!(page[60..64], [0; 4]);
        assert_eq!(page[92..96], [1, 0, 0, 0]);
        assert_eq!(page[200], 0);
        assert!(is_wal_page1(&page));
    }

    #[test]
    fn only_whole_pages_become_pages() {
        assert!(page_from(&[7; PAGE_SIZE]).is_some());
        assert!(page_from(&[7; PAGE_SIZE - 1]).is_none());
        assert!(page_from(&[7; PAGE_SIZE + 1]).is_none());
    }
}

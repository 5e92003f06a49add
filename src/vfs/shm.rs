//! The WAL-index of one database in two views. SQLite finds the newest frame of a page through it, and trusts
//! only what lies at or below the `mxFrame` of its header; so two headers over one index make two states of
//! one database: the *committed* view that readers see and the *speculative* view that the next writer builds
//! on.
//!
//! ```text
//! region 0, 32 KiB, native byte order
//!      0  header, copy 1 (48 bytes)       48  header, copy 2
//!     96  nBackfill u32     100  read marks 5 x u32     120  lock bytes
//!    128  nBackfillAttempted u32                        132  unused
//!    136  page numbers of frames 1..4062, u32 each
//!  16384  hash slots 8192 x u16: 1-based entry of this region, 0 = empty
//!         hash = page * 383 mod 8192, linear probing
//! region k >= 1: page numbers 4096 x u32 (from frame 4063 + 4096 (k - 1)), then 8192 hash slots
//!
//! header: version 3007000 u32, 0 u32, change counter u32, isInit u8 = 1, big-endian checksums u8,
//!         page size u16, mxFrame u32, database size u32, frame checksum 2 x u32, salts 2 x 4 bytes,
//!         checksum of bytes 0..40 2 x u32
//!
//! memory: C = memfd of 32 KiB, S = memfd of one OS page; regions >= 1 are heap memory
//!   committed view   = C[0 .. 32 KiB]
//!   speculative view = S[0 .. page] + C[page .. 32 KiB]
//!   a handle switches by mapping the first page of the one over that of the other, at the same address
//! ```
//!
//! Both views share the hash slots and all page numbers outside the first OS page. That is safe because
//! frames only ever get appended above both `mxFrame`s, and an entry above a reader's own `mxFrame` means
//! nothing to it.
//!
//! SQLite's threads read and write this memory while we do. All our accesses are atomic; headers are written
//! in SQLite's order (copy 2, fence, copy 1), so that a torn read is noticed by the reader.

use std::ffi::c_void;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering, fence};

use rustix::io;
use rustix::mm::{MapFlags, ProtFlags};

use crate::config::PAGE_SIZE;

use super::View;
use super::pages::PageNumber;

/// Size of a WAL-index region, as SQLite asks for it.
pub(super) const REGION_SIZE: usize = 32 << 10;

const HEADER_SIZE: usize = 48;
const HEADER_WORDS: usize = HEADER_SIZE / 4;
const CHECKPOINT_INFO_OFFSET: usize = 96;
const BACKFILL_ATTEMPTED_OFFSET: usize = 128;
const FIRST_ENTRY_OFFSET: usize = 136;
const HASH_OFFSET: usize = 16 << 10;
const HASH_SLOTS: usize = 8192;
const ENTRIES: usize = 4096;
const FIRST_REGION_ENTRIES: usize = (HASH_OFFSET - FIRST_ENTRY_OFFSET) / 4;
const VERSION: u32 = 3_007_000;
const MARK_UNUSED: u32 = u32::MAX;
/// `nBackfill`, then the read marks: mark 0 stands for "main file only", mark 1 is ready to be used.
const FRESH_CHECKPOINT_INFO: [u32; 6] = [0, 0, 0, MARK_UNUSED, MARK_UNUSED, MARK_UNUSED];

/// The header of one view, as far as it varies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// Grows with every header that is ever written, by SQLite and by us.
    pub(super) change_counter: u32,
    /// Last frame of this view.
    pub(super) last_frame: u32,
    /// Database size of this view in pages.
    pub(super) size: u32,
    /// SQLite keeps the checksum of the last frame here. Nobody checks it; headers of ours hold a unique
    /// number.
    pub(super) frame_checksum: [u32; 2],
    /// Bytes as in the WAL file: salt 1 and salt 2, big-endian.
    pub(super) salts: [u32; 2],
}

impl Header {
    fn to_words(self) -> [u32; HEADER_WORDS] {
        let page_size = (PAGE_SIZE as u16).to_ne_bytes();
        let kind = [1, u8::from(cfg!(target_endian = "big")), page_size[0], page_size[1]];
        let mut words = [0; HEADER_WORDS];
        words[0] = VERSION;
        words[2] = self.change_counter;
        words[3] = u32::from_ne_bytes(kind);
        words[4] = self.last_frame;
        words[5] = self.size;
        words[6..8].copy_from_slice(&self.frame_checksum);
        words[8] = self.salts[0].to_be();
        words[9] = self.salts[1].to_be();
        let checksum = checksum(&words[..10]);
        words[10..].copy_from_slice(&checksum);
        words
    }

    fn from_words(words: &[u32; HEADER_WORDS]) -> Header {
        assert_eq!(words[10..], checksum(&words[..10]), "a WAL-index header is damaged: {words:x?}");
        Header {
            change_counter: words[2],
            last_frame: words[4],
            size: words[5],
            frame_checksum: [words[6], words[7]],
            salts: [u32::from_be(words[8]), u32::from_be(words[9])],
        }
    }
}

/// SQLite's checksum over native words, which come in pairs.
fn checksum(words: &[u32]) -> [u32; 2] {
    words.chunks_exact(2).fold([0, 0], |[s0, s1], pair| {
        let s0 = s0.wrapping_add(pair[0]).wrapping_add(s1);
        [s0, s1.wrapping_add(pair[1]).wrapping_add(s0)]
    })
}

/// Region and entry (both from 0) of a frame.
fn locate(frame: u32) -> (usize, usize) {
    let entry = frame as usize - 1;
    match entry.checked_sub(FIRST_REGION_ENTRIES) {
        None => (0, entry),
        Some(rest) => (1 + rest / ENTRIES, rest % ENTRIES),
    }
}

fn entry_offset(region: usize, entry: usize) -> usize {
    entry * 4 + if region == 0 { FIRST_ENTRY_OFFSET } else { 0 }
}

fn entries_in(region: usize) -> usize {
    if region == 0 { FIRST_REGION_ENTRIES } else { ENTRIES }
}

fn first_slot(page: PageNumber) -> usize {
    page.wrapping_mul(383) as usize % HASH_SLOTS
}

/// The OS page size, if the two views can be made from it: their unshared part is one OS page, which may end
/// anywhere up to the hash slots.
pub(super) fn supported_os_page_size() -> Result<usize, usize> {
    let size = rustix::param::page_size();
    if (FIRST_ENTRY_OFFSET..=HASH_OFFSET).contains(&size) { Ok(size) } else { Err(size) }
}

/// The two files behind region 0; every handle maps them for itself.
#[derive(Debug)]
pub(super) struct IndexFiles {
    committed: OwnedFd,
    speculative: OwnedFd,
    os_page_size: usize,
}

impl IndexFiles {
    /// Creates the two files, filled with zeros.
    pub(super) fn create(os_page_size: usize) -> io::Result<IndexFiles> {
        let flags = rustix::fs::MemfdFlags::CLOEXEC;
        let committed = rustix::fs::memfd_create("dqlite-committed", flags)?;
        rustix::fs::ftruncate(&committed, REGION_SIZE as u64)?;
        let speculative = rustix::fs::memfd_create("dqlite-speculative", flags)?;
        rustix::fs::ftruncate(&speculative, os_page_size as u64)?;
        Ok(IndexFiles { committed, speculative, os_page_size })
    }

    fn first_page_of(&self, view: View) -> &OwnedFd {
        match view {
            View::Committed => &self.committed,
            View::Speculative => &self.speculative,
        }
    }
}

/// A shared mapping of one of the files, unmapped when dropped.
#[derive(Debug)]
struct Mapping {
    address: NonNull<u8>,
    len: usize,
}

// SAFETY: the memory belongs to no thread, and every access to it is atomic.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(file: impl AsFd, len: usize) -> io::Result<Mapping> {
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
        let address = unsafe { rustix::mm::mmap(ptr::null_mut(), len, protection, flags, file, 0) }?;
        let address = NonNull::new(address.cast()).expect("the kernel never maps at address 0 unasked");
        Ok(Mapping { address, len })
    }

    /// Replaces the start of the mapping by the start of another file, at the same address.
    fn replace_start(&self, file: impl AsFd, len: usize) -> io::Result<()> {
        assert!(len <= self.len, "{len} bytes do not fit the mapping of {}", self.len);
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED | MapFlags::FIXED);
        // SAFETY: only memory inside this mapping is replaced, and it stays mapped throughout.
        unsafe { rustix::mm::mmap(self.address.as_ptr().cast(), len, protection, flags, file, 0) }?;
        Ok(())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and nobody uses it any more. It cannot fail for a range that is mapped.
        let _ = unsafe { rustix::mm::munmap(self.address.as_ptr().cast(), self.len) };
    }
}

/// One file handle's mapping of region 0.
#[derive(Debug)]
pub(super) struct ViewMapping(Mapping);

impl ViewMapping {
    /// Maps region 0 as `view` sees it.
    pub(super) fn new(files: &IndexFiles, view: View) -> io::Result<ViewMapping> {
        let mapping = ViewMapping(Mapping::new(&files.committed, REGION_SIZE)?);
        if view == View::Speculative {
            mapping.switch(files, view)?;
        }
        Ok(mapping)
    }

    /// Shows another view at the same address.
    pub(super) fn switch(&self, files: &IndexFiles, view: View) -> io::Result<()> {
        self.0.replace_start(files.first_page_of(view), files.os_page_size)
    }

    /// The address for SQLite.
    pub(super) fn address(&self) -> *mut c_void {
        self.0.address.as_ptr().cast()
    }
}

/// A region that all views and all handles share. Its address is stable as long as the database lives.
type Region = [AtomicU32; REGION_SIZE / 4];

/// The database's own access to both views. Methods that write are called under the database's lock only.
#[derive(Debug)]
pub(super) struct WalIndex {
    committed: Mapping,
    speculative: Mapping,
    os_page_size: usize,
    /// Regions from 1 on; SQLite may ask for them in any order.
    regions: Vec<Option<Arc<Region>>>,
}

impl WalIndex {
    /// Maps both views. The headers are zeros until [`WalIndex::reset`].
    pub(super) fn new(files: &IndexFiles) -> io::Result<WalIndex> {
        Ok(WalIndex {
            committed: Mapping::new(&files.committed, REGION_SIZE)?,
            speculative: Mapping::new(&files.speculative, files.os_page_size)?,
            os_page_size: files.os_page_size,
            regions: Vec::new(),
        })
    }

    /// The header of a view. The caller knows that nobody writes it meanwhile.
    pub(super) fn header(&self, view: View) -> Header {
        let mut words = [0; HEADER_WORDS];
        for (i, word) in words.iter_mut().enumerate() {
            *word = self.word(view, 0, i * 4).load(Ordering::Relaxed);
        }
        Header::from_words(&words)
    }

    /// Writes the header of a view the way SQLite does, so that a concurrent reader sees the old one, the new
    /// one, or two copies that differ.
    pub(super) fn set_header(&self, view: View, header: &Header) {
        let words = header.to_words();
        fence(Ordering::SeqCst);
        for copy in [1, 0] {
            for (i, word) in words.iter().enumerate() {
                self.word(view, 0, copy * HEADER_SIZE + i * 4).store(*word, Ordering::Relaxed);
            }
            fence(Ordering::SeqCst);
        }
    }

    /// Starts a generation of the WAL without committed frames: no backfill, no read marks, then the headers.
    pub(super) fn reset(&self, committed: &Header, speculative: &Header) {
        for (view, header) in [(View::Committed, committed), (View::Speculative, speculative)] {
            for (i, value) in FRESH_CHECKPOINT_INFO.iter().enumerate() {
                self.word(view, 0, CHECKPOINT_INFO_OFFSET + i * 4).store(*value, Ordering::Relaxed);
            }
            self.word(view, 0, BACKFILL_ATTEMPTED_OFFSET).store(0, Ordering::Relaxed);
            self.set_header(view, header);
        }
    }

    /// Enters a frame as the last one into both views' index. As in SQLite, the first entry of a region
    /// clears the region, and leftovers of frames that were dropped are cleared by the frame that takes their
    /// place.
    pub(super) fn extend(&mut self, frame: u32, page: PageNumber) {
        let (region, entry) = locate(frame);
        self.ensure_region(region);
        let offset = entry_offset(region, entry);
        if entry == 0 {
            self.clear_from(region, 0);
        } else if self.word(View::Speculative, region, offset).load(Ordering::Relaxed) != 0 {
            self.clear_from(region, entry);
        }
        let mut slot = first_slot(page);
        let mut probes = 0;
        while self.hash_slot(region, slot).load(Ordering::Relaxed) != 0 {
            slot = (slot + 1) % HASH_SLOTS;
            probes += 1;
            assert!(probes <= entry, "region {region} holds more hash entries than its {entry} frames");
        }
        self.set_entry(region, offset, page);
        let value = u16::try_from(entry + 1).expect("a region has at most 4096 entries");
        self.hash_slot(region, slot).store(value, Ordering::Release);
    }

    /// Copies the page numbers of published frames to the committed view, where the views do not share them.
    pub(super) fn publish_entries(&self, first: u32, last: u32) {
        let unshared = ((self.os_page_size - FIRST_ENTRY_OFFSET) / 4) as u32;
        for frame in first..=last.min(unshared) {
            let offset = entry_offset(0, frame as usize - 1);
            let page = self.word(View::Speculative, 0, offset).load(Ordering::Relaxed);
            self.word(View::Committed, 0, offset).store(page, Ordering::Relaxed);
        }
    }

    /// The address of a region from 1 on, for SQLite; created if asked for.
    pub(super) fn region_address(&mut self, region: usize, create: bool) -> *mut c_void {
        if create {
            self.ensure_region(region);
        }
        match self.regions.get(region - 1) {
            Some(Some(memory)) => memory.as_ptr().cast_mut().cast(),
            _ => ptr::null_mut(),
        }
    }

    /// How many regions exist, region 0 included.
    pub(super) fn region_count(&self) -> usize {
        1 + self.regions.iter().flatten().count()
    }

    fn ensure_region(&mut self, region: usize) {
        if region > self.regions.len() {
            self.regions.resize(region, None);
        }
        if let Some(missing @ None) = region.checked_sub(1).and_then(|i| self.regions.get_mut(i)) {
            *missing = Some(Arc::new([const { AtomicU32::new(0) }; REGION_SIZE / 4]));
        }
    }

    /// Removes the entries of a region from `entry` on, hash slots included. Slots that remain stay
    /// reachable: they were filled before the removed ones, so no probe for them runs through a removed one.
    fn clear_from(&self, region: usize, entry: usize) {
        for slot in 0..HASH_SLOTS {
            let slot = self.hash_slot(region, slot);
            if usize::from(slot.load(Ordering::Relaxed)) > entry {
                slot.store(0, Ordering::Relaxed);
            }
        }
        for entry in entry..entries_in(region) {
            self.set_entry(region, entry_offset(region, entry), 0);
        }
    }

    /// Writes a page number into both views.
    fn set_entry(&self, region: usize, offset: usize, page: PageNumber) {
        for view in [View::Committed, View::Speculative] {
            self.word(view, region, offset).store(page, Ordering::Relaxed);
        }
    }

    fn word(&self, view: View, region: usize, offset: usize) -> &AtomicU32 {
        let address = self.region_start(view, region, offset).wrapping_add(offset).cast();
        // SAFETY: the offset is a multiple of 4 inside a region that lives as long as `self`; everybody but
        // SQLite accesses it atomically, and SQLite tolerates changes at any moment.
        unsafe { AtomicU32::from_ptr(address) }
    }

    fn hash_slot(&self, region: usize, slot: usize) -> &AtomicU16 {
        let offset = HASH_OFFSET + slot * 2;
        let address = self.region_start(View::Committed, region, offset).wrapping_add(offset).cast();
        // SAFETY: as in `word`, with 2 bytes.
        unsafe { AtomicU16::from_ptr(address) }
    }

    /// Where the region holding `offset` starts in memory, for one view.
    fn region_start(&self, view: View, region: usize, offset: usize) -> *mut u8 {
        assert!(offset < REGION_SIZE, "offset {offset} is outside a WAL-index region");
        match region.checked_sub(1) {
            None if view == View::Speculative && offset < self.os_page_size => {
                self.speculative.address.as_ptr()
            }
            None => self.committed.address.as_ptr(),
            Some(i) => {
                let memory = self.regions[i].as_ref().expect("a frame's region exists once it was entered");
                memory.as_ptr().cast_mut().cast()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index() -> (IndexFiles, WalIndex) {
        index_with(supported_os_page_size().unwrap())
    }

    /// Works for every multiple of the real OS page size, so machines with larger pages are tested on this
    /// one.
    fn index_with(os_page_size: usize) -> (IndexFiles, WalIndex) {
        let files = IndexFiles::create(os_page_size).unwrap();
        let index = WalIndex::new(&files).unwrap();
        (files, index)
    }

    fn header(last_frame: u32) -> Header {
        Header { change_counter: 7, last_frame, size: 9, frame_checksum: [1, 2], salts: [3, 0xdead_beef] }
    }

    /// SQLite's search: the newest frame of a page at or below `last`.
    fn find(index: &WalIndex, view: View, page: PageNumber, last: u32) -> Option<u32> {
        let (newest_region, _) = locate(last.max(1));
        (0..=newest_region).rev().find_map(|region| {
            let first = if region == 0 { 0 } else { FIRST_REGION_ENTRIES + ENTRIES * (region - 1) };
            let mut slot = first_slot(page);
            let mut found = None;
            loop {
                let entry = usize::from(index.hash_slot(region, slot).load(Ordering::Relaxed));
                if entry == 0 {
                    return found;
                }
                let frame = (first + entry) as u32;
                let number =
                    index.word(view, region, entry_offset(region, entry - 1)).load(Ordering::Relaxed);
                if frame <= last && number == page {
                    found = Some(frame);
                }
                slot = (slot + 1) % HASH_SLOTS;
            }
        })
    }

    #[test]
    fn frames_fall_into_regions_as_sqlite_counts_them() {
        assert_eq!([1, 4062, 4063, 8158, 8159].map(locate), [(0, 0), (0, 4061), (1, 0), (1, 4095), (2, 0)]);
        assert_eq!(entry_offset(0, 0), 136);
        assert_eq!(entry_offset(0, 4061) + 4, HASH_OFFSET);
        assert_eq!(entry_offset(1, 4095) + 4, HASH_OFFSET);
    }

    #[test]
    fn a_header_reads_back_and_stays_in_its_view() {
        let (_files, index) = index();
        index.reset(&header(0), &header(5));
        assert_eq!(index.header(View::Committed), header(0));
        assert_eq!(index.header(View::Speculative), header(5));
        let copies =
            [0, HEADER_SIZE].map(|start| index.word(View::Committed, 0, start + 16).load(Ordering::Relaxed));
        assert_eq!(copies, [0, 0]);
    }

    #[test]
    #[should_panic(expected = "damaged")]
    fn a_damaged_header_is_noticed() {
        let (_files, index) = index();
        index.reset(&header(0), &header(0));
        index.word(View::Committed, 0, 20).store(10, Ordering::Relaxed);
        index.header(View::Committed);
    }

    #[test]
    fn every_frame_is_found_in_every_region() {
        let (_files, mut index) = index();
        let page_of = |frame: u32| frame * 7919 % 3000 + 1;
        let mut newest = std::collections::HashMap::new();
        for frame in 1..=13_000 {
            index.extend(frame, page_of(frame));
            newest.insert(page_of(frame), frame);
            if frame % 1000 == 0 || (4060..4066).contains(&frame) || (8156..8162).contains(&frame) {
                for (page, expected) in &newest {
                    for view in [View::Committed, View::Speculative] {
                        assert_eq!(find(&index, view, *page, frame), Some(*expected));
                    }
                }
            }
        }
        assert_eq!(index.region_count(), 4);
        assert_eq!(find(&index, View::Committed, 4000, 13_000), None);
    }

    #[test]
    fn leftovers_above_the_last_frame_are_cleared_by_the_next_one() {
        for (keep, reached) in [(0, 500), (10, 3000), (4061, 4062), (4062, 6000), (5000, 8158), (8158, 9000)]
        {
            let (_files, mut index) = index();
            (1..=reached).for_each(|frame| index.extend(frame, frame));
            index.extend(keep + 1, 77_777);
            assert_eq!(find(&index, View::Committed, 77_777, keep + 1), Some(keep + 1));
            // Even a reader that trusted everything in this region would find nothing above.
            let (region, entry) = locate(keep + 1);
            let used = (0..HASH_SLOTS).filter(|s| index.hash_slot(region, *s).load(Ordering::Relaxed) != 0);
            assert_eq!(used.count(), entry + 1, "kept {keep} of {reached}");
            for frame in 1..=keep {
                assert_eq!(find(&index, View::Speculative, frame, keep + 1), Some(frame));
            }
        }
    }

    #[test]
    fn publishing_completes_the_committed_view_whatever_the_size_of_memory_pages() {
        for os_page_size in [4096, 16_384] {
            let (files, index) = index_with(os_page_size);
            let writer = ViewMapping::new(&files, View::Speculative).unwrap();
            let reader = ViewMapping::new(&files, View::Committed).unwrap();
            let entry = |mapping: &ViewMapping, frame: usize| {
                let address =
                    mapping.address().cast::<u32>().wrapping_add(FIRST_ENTRY_OFFSET / 4 + frame - 1);
                // SAFETY: inside the mapping and aligned; only atomic accesses.
                unsafe { AtomicU32::from_ptr(address) }.load(Ordering::Relaxed)
            };
            // What SQLite does in the speculative view.
            for frame in 1..=FIRST_REGION_ENTRIES {
                let offset = entry_offset(0, frame - 1);
                index.word(View::Speculative, 0, offset).store(frame as u32 + 50, Ordering::Relaxed);
            }
            let unshared = (os_page_size - FIRST_ENTRY_OFFSET) / 4;
            assert_eq!((entry(&writer, unshared), entry(&reader, unshared)), (unshared as u32 + 50, 0));
            index.publish_entries(1, 700);
            index.publish_entries(701, 5000);
            for frame in 1..=FIRST_REGION_ENTRIES {
                assert_eq!(entry(&reader, frame), frame as u32 + 50);
                assert_eq!(entry(&writer, frame), frame as u32 + 50);
            }
        }
    }

    #[test]
    fn a_handle_sees_the_other_view_at_the_same_address() {
        let (files, index) = index();
        index.reset(&header(1), &header(2));
        let mapping = ViewMapping::new(&files, View::Committed).unwrap();
        let address = mapping.address();
        let last_frame = || {
            // SAFETY: inside the mapping, aligned, and not written while this reads.
            unsafe { address.cast::<u32>().add(4).read_volatile() }
        };
        assert_eq!(last_frame(), 1);
        mapping.switch(&files, View::Speculative).unwrap();
        assert_eq!((mapping.address(), last_frame()), (address, 2));
        mapping.switch(&files, View::Committed).unwrap();
        assert_eq!(last_frame(), 1);
    }

    #[test]
    fn regions_may_be_asked_for_in_any_order() {
        let (_files, mut index) = index();
        assert!(index.region_address(3, false).is_null());
        let third = index.region_address(3, true);
        assert!(!third.is_null());
        assert!(index.region_address(1, false).is_null());
        (1..=5000).for_each(|frame| index.extend(frame, frame));
        assert_eq!(index.region_address(3, true), third);
        assert_eq!(find(&index, View::Committed, 4999, 5000), Some(4999));
    }
}

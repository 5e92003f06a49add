//! Images of a whole database: captured by reference for a snapshot, restored from one.

use std::sync::atomic::Ordering;

use super::database::{Database, State, random_word};
use super::locks::LockMask;
use super::pages::{PageRef, is_wal_page1, zeros};
use super::{Error, shm::Header};

const ALL_LOCKS: LockMask = 0xff;

/// The committed state of a database: all its pages, page 1 first.
#[derive(Debug, Clone)]
pub struct Image {
    /// One reference for each page.
    pub pages: Vec<PageRef>,
}

impl Database {
    /// The committed view as of this moment. Copies references, no pages; later writes do not show in it.
    pub fn capture(&self) -> Image {
        let state = self.state.read();
        let size = state.committed_header().size as usize;
        let mut pages: Vec<PageRef> = state.pages.iter().take(size).map(PageRef::clone).collect();
        pages.resize_with(size, zeros);
        if state.committed > 0 {
            for (number, page) in state.wal.range(1, state.committed) {
                if let Some(place) = pages.get_mut(number as usize - 1) {
                    *place = PageRef::clone(page);
                }
            }
        }
        Image { pages }
    }

    /// Replaces the whole content by an image. Nobody may hold a WAL lock; speculative transactions are
    /// dropped.
    pub fn restore(&self, image: Image) -> Result<(), Error> {
        let size = u32::try_from(image.pages.len()).map_err(|_| Error::BadImage)?;
        if !image.pages.first().is_some_and(|page| is_wal_page1(page)) {
            return Err(Error::BadImage);
        }
        let salt = random_word()?;
        let mut state = self.state.write();
        if !state.locks.are_free(ALL_LOCKS) {
            return Err(Error::Busy);
        }
        let unused = state.replace(image.pages, size, salt);
        self.history.fetch_add(1, Ordering::AcqRel);
        drop(state);
        drop(unused);
        Ok(())
    }
}

impl State {
    fn replace(&mut self, pages: Vec<PageRef>, size: u32, salt: u32) -> [Vec<PageRef>; 2] {
        let frames = self.wal.truncate(0);
        let pages = std::mem::replace(&mut self.pages, pages);
        self.pipeline.clear();
        self.committed = 0;
        let newest = self.speculative_header();
        let salts = [newest.salts[0].wrapping_add(1), salt];
        let mut header = Header { last_frame: 0, size, salts, ..newest };
        self.stamp(&mut header, newest.change_counter);
        self.index.reset(&header, &header);
        [frames, pages]
    }
}

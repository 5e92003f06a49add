//! Images of a whole database: captured by reference for a snapshot, restored from one.

use std::sync::atomic::Ordering;

use super::database::{Database, State, random_word};
use super::locks::LockMask;
use super::pages::{PageRef, deleted_database, is_wal_page1, zeros};
use super::{Bug, Error, View, shm::Header};

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
        let speculative = self.has(Bug::CaptureIsSpeculative) && state.writer.is_none();
        let view = if speculative { View::Speculative } else { View::Committed };
        let header = state.index.header(view);
        let size = header.size as usize;
        let mut pages: Vec<PageRef> = state.pages.iter().take(size).map(PageRef::clone).collect();
        pages.resize_with(size, zeros);
        if header.last_frame > 0 {
            for (number, page) in state.wal.range(1, header.last_frame) {
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
        replace_all(&[(self, Replacement::Image(image))]).map_err(|(_, error)| error)
    }
}

/// What a database is to become.
#[derive(Debug, Clone)]
pub enum Replacement {
    /// The content of an image.
    Image(Image),
    /// Deleted, as after `PRAGMA delete_database`.
    Deleted,
}

/// Replaces the content of several databases in one step, or of none: nobody may hold a WAL lock of any of
/// them. Speculative transactions are dropped. Connections that are open stay open and find the new content
/// at their next statement; images captured before keep what they hold. The databases must be different ones.
///
/// On failure says which of them was in the way.
pub fn replace_all(changes: &[(&Database, Replacement)]) -> Result<(), (usize, Error)> {
    let at = |position| move |error| (position, error);
    let mut salts = Vec::with_capacity(changes.len());
    for (position, (_, replacement)) in changes.iter().enumerate() {
        check(replacement).map_err(at(position))?;
        salts.push(random_word().map_err(at(position))?);
    }
    // Whoever else takes one of these locks holds no other: there is no order to keep.
    let mut states: Vec<_> = changes.iter().map(|(database, _)| database.state.write()).collect();
    let is_in_use =
        |state: &State| !state.locks.are_free(ALL_LOCKS) && !state.planted.has(Bug::RestoreUnderReaders);
    if let Some(position) = states.iter().position(|state| is_in_use(state)) {
        return Err((position, Error::Busy));
    }
    let mut unused = Vec::with_capacity(changes.len());
    for ((state, (database, replacement)), salt) in states.iter_mut().zip(changes).zip(salts) {
        let pages = match replacement {
            Replacement::Image(image) => image.pages.clone(),
            Replacement::Deleted => vec![deleted_database(state.newest_page1(state.committed))],
        };
        unused.push(state.replace(pages, salt));
        database.history.fetch_add(1, Ordering::AcqRel);
    }
    drop(states);
    drop(unused);
    Ok(())
}

fn check(replacement: &Replacement) -> Result<(), Error> {
    let Replacement::Image(Image { pages }) = replacement else { return Ok(()) };
    let is_ours = pages.first().is_some_and(|page| is_wal_page1(page));
    if is_ours && u32::try_from(pages.len()).is_ok() { Ok(()) } else { Err(Error::BadImage) }
}

impl State {
    fn replace(&mut self, pages: Vec<PageRef>, salt: u32) -> [Vec<PageRef>; 2] {
        let size = u32::try_from(pages.len()).expect("the number of pages was checked before");
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

//! Removing the end of the log. The disk thread does it when no open segment holds entries any more.
//!
//! A crash at any point leaves a directory that [`super::load`] understands: segments go from the last one
//! down, so the log only gets shorter at its end; the segment that holds the cut is replaced by a shorter one
//! with the same first index, and while both exist the shorter one is valid. Each step is durable before the
//! next.

use super::directory::write_closed;
use super::error::{Error, synced};
use super::fs::Fs;
use super::list::Listing;
use super::segment::{Segment, Tail};
use crate::raft::{Entry, Index};
use std::io;
use std::path::Path;

/// Removes every entry from `from` on from the closed segments.
pub(super) fn truncate(fs: &dyn Fs, dir: &Path, from: Index) -> Result<(), Error> {
    let failed = |e: io::Error| Error::disk("truncate the log in", dir, &e);
    let listing = Listing::scan(fs, dir).map_err(failed)?;
    for name in listing.closed.iter().rev().take_while(|name| name.last >= from) {
        let path = dir.join(name.to_string());
        if name.first < from {
            let entries = read(fs, &path, (from.0 - name.first.0) as usize)?;
            write_closed(fs, dir, name.first, &entries).map_err(failed)?;
        }
        fs.remove(&path).and_then(|()| synced(fs.sync_dir(dir))).map_err(failed)?;
    }
    Ok(())
}

/// The first `count` entries of a closed segment.
fn read(fs: &dyn Fs, path: &Path, count: usize) -> Result<Vec<Entry>, Error> {
    let bytes = fs.read(path).map_err(|e| Error::disk("read", path, &e))?;
    let segment = Segment::parse(bytes.into());
    if segment.tail != Tail::EndOfFile || segment.count() < count as u64 {
        let used = segment.used;
        return Err(Error::Disk(format!("read {}: damaged at byte {used}", path.display())));
    }
    Ok(segment.into_entries().take(count).collect())
}

//! Removing the end of the log. The disk thread does it when no open segment holds entries any more.
//!
//! Segments go from the last one down, so the log only gets shorter at its end. The one that holds the cut
//! becomes an open segment first: its name says no last index any more, so a shorter one can take its place
//! at once. Each step is durable before the next:
//!
//! ```text
//! 0000000000000004-0000000000000009      as it was
//! open-7                                 with entries 4 to 9, then with 4 to 6
//! 0000000000000004-0000000000000006
//! ```
//!
//! The name says no first index either: that follows from the closed segment before, or else from the
//! snapshot. If neither tells it, which takes a segment longer than the log kept behind a snapshot, then the
//! shorter one is closed while the longer one is still there. [`super::load`] knows which one is valid; the C
//! library takes either, and if it starts on what a crash leaves then, the other is in its way later.
//!
//! The shorter one is written to a spare segment under a temporary name, which takes no space on a full disk.
//! Without a spare nothing happens, and the disk thread tries again.

use super::error::{Error, describe, synced};
use super::fs::{File, Fs};
use super::list::{ClosedName, Listing, TEMPORARY_PREFIX};
use super::prepare::{Segments, Spare};
use super::segment::{Segment, Tail, encode_closed};
use crate::raft::{Entry, Index};
use std::io;
use std::path::Path;

/// Removes every entry from `from` on from the closed segments.
pub(super) fn truncate(fs: &dyn Fs, dir: &Path, from: Index, segments: &Segments) -> Result<(), Error> {
    let failed = |e: io::Error| Error::disk("truncate the log in", dir, &e);
    let listing = Listing::scan(fs, dir).map_err(failed)?;
    for (position, name) in listing.closed.iter().enumerate().rev() {
        let path = dir.join(name.to_string());
        if name.last < from {
            break;
        }
        if name.first >= from {
            fs.remove(&path).and_then(|()| synced(fs.sync_dir(dir))).map_err(failed)?;
            continue;
        }
        let entries = read(fs, &path, (from.0 - name.first.0) as usize)?;
        let Spare { name: open, file, .. } = segments.take()?;
        let temporary = dir.join(format!("{TEMPORARY_PREFIX}{open}"));
        let open = dir.join(open.to_string());
        fs.rename(&open, &temporary).and_then(|()| synced(fs.sync_dir(dir))).map_err(failed)?;
        write(&*file, &encode_closed(&entries)).map_err(|e| {
            let _ = fs.remove(&temporary);
            failed(e)
        })?;
        let shorter = dir.join(ClosedName { first: name.first, last: Index(from.0 - 1) }.to_string());
        let steps: &[(&Path, &Path)] = match known_by_its_place(&listing, position) {
            true => &[(&path, &open), (&temporary, &open), (&open, &shorter)],
            false => &[(&temporary, &shorter)],
        };
        let replaced = steps.iter().try_for_each(|(old, new)| {
            fs.rename(old, new)?;
            fs.sync_dir(dir)
        });
        let removed = replaced.and_then(|()| match steps {
            [_] => fs.remove(&path).and_then(|()| fs.sync_dir(dir)),
            _ => Ok(()),
        });
        // Half-way, this cannot be tried again.
        removed.map_err(|e| Error::Disk(describe("truncate the log in", dir, &e)))?;
    }
    Ok(())
}

/// Gives a spare segment its whole content. Its blocks are there already.
fn write(file: &dyn File, content: &[u8]) -> io::Result<()> {
    file.write_at(content, 0)?;
    file.set_len(content.len() as u64)?;
    synced(file.sync())
}

/// Whether start-up gives the segment its first index even if it is open.
fn known_by_its_place(listing: &Listing, position: usize) -> bool {
    let first = listing.closed[position].first;
    match (position.checked_sub(1), listing.snapshots.last()) {
        (Some(before), _) => listing.closed[before].last.next() == first,
        (None, Some(snapshot)) => snapshot.index.next() == first,
        (None, None) => first == Index(1),
    }
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

//! `metadata1` and `metadata2`: the current term and the vote given in it. Written by the disk thread, read
//! when a node is created and again, under the lock, when it starts.
//!
//! ```text
//!  0          8           16         24            32
//! +----------+-----------+----------+-------------+
//! | format=1 | version   | term     | voted for   |     u64 each; voted for 0 = nobody
//! +----------+-----------+----------+-------------+
//! ```
//!
//! The version grows by one with each write; odd ones go to `metadata1`, even ones to `metadata2`, so that a
//! write never touches the file that is in force. The higher version wins.
//!
//! There is no checksum: a file that is half old and half new, or that has its size and not its bytes, would
//! be believed or refused. So a new one is written beside and renamed over the old one when it is durable.
//! That takes two syncs instead of one, in an election: safety before latency.
//! The C library writes in place; what a crash leaves of the first write to a file may be too short, and then
//! counts as absent. A file that became too short later is refused: it may have been the one in force.

use super::directory::{write_recycled, write_whole};
use super::error::{Error, is_no_space};
use super::fs::Fs;
use crate::codec::Reader;
use crate::raft::{ServerId, Term};
use bytes::{BufMut, Bytes};
use std::io;
use std::path::Path;

const FORMAT: u64 = 1;
const SIZE: usize = 32;

/// Term and vote as last written; all zero in a directory that never had any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Metadata {
    version: u64,
    /// Current term; 0 if none was ever written.
    pub term: Term,
    /// Vote given in that term.
    pub voted_for: Option<ServerId>,
}

fn is_missing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

impl Metadata {
    /// Whether the directory has no metadata at all.
    pub fn is_absent(&self) -> bool {
        self.version == 0
    }

    /// Where it is stored.
    pub(super) fn file_name(&self) -> &'static str {
        if self.version % 2 == 1 { "metadata1" } else { "metadata2" }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(SIZE);
        out.put_u64_le(FORMAT);
        out.put_u64_le(self.version);
        out.put_u64_le(self.term.0);
        out.put_u64_le(self.voted_for.map_or(0, |id| id.0));
        out
    }

    /// Reads one file's content; `None` if it is too short to count. The error is the C library's.
    pub(super) fn decode(name: &str, content: Vec<u8>) -> Result<Option<Metadata>, Error> {
        let size = content.len();
        if size > SIZE {
            return Err(Error::Metadata(format!("{name} has size {size} instead of {SIZE}")));
        }
        let mut reader = Reader::new(Bytes::from(content));
        let mut word = || reader.u64();
        let (Ok(format), Ok(version), Ok(term), Ok(voted_for)) = (word(), word(), word(), word()) else {
            return Ok(None);
        };
        let refuse = |reason: String| Error::Metadata(format!("decode content of {name}: {reason}"));
        if format != FORMAT {
            return Err(refuse(format!("bad format version {format}")));
        }
        if version == 0 {
            return Err(refuse("version is set to zero".into()));
        }
        let voted_for = (voted_for != 0).then_some(ServerId(voted_for));
        Ok(Some(Metadata { version, term: Term(term), voted_for }))
    }

    /// Reads what is in force in `dir`.
    pub(super) fn read(fs: &dyn Fs, dir: &Path) -> Result<Metadata, Error> {
        let read = |name: &'static str| match fs.read(&dir.join(name)) {
            Ok(content) => Ok((content.len(), Metadata::decode(name, content)?)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok((0, Some(Metadata::default()))),
            Err(e) => Err(Error::Metadata(format!("read {name}: {e}"))),
        };
        let ((first_size, first), (second_size, second)) = (read("metadata1")?, read("metadata2")?);
        // Only the first write of a file can leave it short: that of version 1 or 2.
        let short = match (first, second) {
            (None, Some(second)) if !second.is_absent() => Some(("metadata1", first_size)),
            (Some(first), None) if first.version > 1 => Some(("metadata2", second_size)),
            _ => None,
        };
        if let Some((name, size)) = short {
            return Err(Error::Metadata(format!("{name} has size {size} instead of {SIZE}")));
        }
        let (first, second) = (first.unwrap_or_default(), second.unwrap_or_default());
        if first.version == second.version && !first.is_absent() {
            let version = first.version;
            return Err(Error::Metadata(format!("metadata1 and metadata2 are both at version {version}")));
        }
        Ok(if first.version > second.version { first } else { second })
    }

    /// Writes the same again if it was the first write, which left one file only.
    pub(super) fn complete(&mut self, fs: &dyn Fs, dir: &Path) -> Result<(), Error> {
        if self.version == 1 { self.write(fs, dir, self.term, self.voted_for) } else { Ok(()) }
    }

    /// Makes a new term and vote durable, and then current.
    pub(super) fn write(
        &mut self,
        fs: &dyn Fs,
        dir: &Path,
        term: Term,
        voted_for: Option<ServerId>,
    ) -> Result<(), Error> {
        let next = Metadata { version: self.version + 1, term, voted_for };
        let (name, bytes) = (next.file_name(), next.encode());
        let written = write_whole(fs, dir, name, &bytes).or_else(|e| match is_no_space(&e) {
            // The file of this name is not in force: its place will do.
            true => write_recycled(fs, dir, name, &bytes)
                .map_err(|again| if is_missing(&again) { e } else { again }),
            false => Err(e),
        });
        written.map_err(|e| Error::disk("write", &dir.join(name), &e))?;
        *self = next;
        Ok(())
    }
}

#[cfg(test)]
#[path = "metadata_test.rs"]
mod tests;

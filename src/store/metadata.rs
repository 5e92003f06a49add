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
//! write never touches the file that is in force. The higher version wins. A file that is too short is a
//! write that was cut off before its first sync: it counts as absent.

use super::error::Error;
use super::fs::{Existing, Fs};
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

/// What to do with a file that is too short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ShortFile {
    /// Remove it. Only for the holder of the lock: somebody else's may be about to grow.
    Remove,
    /// Leave it.
    Keep,
}

impl Metadata {
    /// Whether the directory has no metadata at all.
    pub fn is_absent(&self) -> bool {
        self.version == 0
    }

    fn encode(&self) -> Vec<u8> {
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
    pub(super) fn read(fs: &dyn Fs, dir: &Path, short: ShortFile) -> Result<Metadata, Error> {
        let read = |name: &'static str| -> Result<Metadata, Error> {
            let path = dir.join(name);
            let failed = |e: io::Error| Error::Metadata(format!("read {name}: {e}"));
            let content = match fs.read(&path) {
                Ok(content) => content,
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Metadata::default()),
                Err(e) => return Err(failed(e)),
            };
            let found = Metadata::decode(name, content)?;
            if found.is_none() && short == ShortFile::Remove {
                fs.remove(&path).map_err(failed)?;
            }
            Ok(found.unwrap_or_default())
        };
        let (first, second) = (read("metadata1")?, read("metadata2")?);
        if first.version == second.version && !first.is_absent() {
            let version = first.version;
            return Err(Error::Metadata(format!("metadata1 and metadata2 are both at version {version}")));
        }
        Ok(if first.version > second.version { first } else { second })
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
        let path = dir.join(if next.version % 2 == 1 { "metadata1" } else { "metadata2" });
        let write = || match fs.open(&path) {
            Ok(file) => {
                file.write_at(&next.encode(), 0)?;
                file.sync_data()
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let file = fs.create(&path, Existing::Refuse)?;
                file.write_at(&next.encode(), 0)?;
                file.sync()?;
                fs.sync_dir(dir)
            }
            Err(e) => Err(e),
        };
        write().map_err(|e| Error::disk("write", &path, &e))?;
        *self = next;
        Ok(())
    }
}

#[cfg(test)]
#[path = "metadata_test.rs"]
mod tests;

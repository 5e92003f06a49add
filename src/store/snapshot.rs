//! The two files of a snapshot: bytes, reading and writing. Which snapshots and segments are kept is decided
//! in [`super::snapshot_writer`], whose thread also writes; start-up reads.
//!
//! ```text
//! snapshot-T-I-S.meta   term T and index I exist only in the name
//!  0          8              16                24            32
//! +----------+--------------+-----------------+-------------+---------------------------+
//! | format=1 | u32 CRC, 0,0 | configuration   | u64 size c, | c bytes: configuration    |
//! |          | of 16 .. end | index           | <= 1 MiB    |                           |
//! +----------+--------------+-----------------+-------------+---------------------------+
//!
//! snapshot-T-I-S        the content, raw or as one LZ4 frame (told apart by the frame's magic number)
//! LZ4 frame             04 22 4d 18 | 4c: linked blocks, content size, content checksum | 40: 64 KiB blocks
//!                       | u64 content size | header checksum | blocks | end mark | content checksum
//! ```
//!
//! The C library takes a frame without its content size for an empty one, so it is always written.

use super::crc::crc;
use super::error::describe;
use super::fs::{Existing, File, Fs};
use super::list::{SnapshotName, TEMPORARY_PREFIX};
use crate::codec::{Reader, Truncated};
use crate::config::{CONFIGURATION_SIZE_MAX, SNAPSHOT_SYNC_BYTES};
use crate::raft::{Configuration, Index, SnapshotPoint};
use bytes::{BufMut, Bytes};
use lz4_flex::frame::{BlockMode, BlockSize, FrameDecoder, FrameEncoder, FrameInfo};
use parking_lot::Mutex;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

const META_FORMAT: u64 = 1;
/// Bytes of a `.meta` file before the configuration.
const META_HEADER_SIZE: usize = 32;
const LZ4_MAGIC: [u8; 4] = [0x04, 0x22, 0x4d, 0x18];
/// An LZ4 block holds at most this many times its own size.
const LZ4_RATIO_MAX: u64 = 255;
/// Bytes collected before they are written to a snapshot file.
const WRITE_SIZE: usize = 1 << 20;

/// What a snapshot consists of, produced while it is written.
pub trait SnapshotContent: Send {
    /// Exact number of bytes that [`write_to`](SnapshotContent::write_to) produces.
    fn size(&self) -> u64;
    /// Writes all of it.
    fn write_to(&self, out: &mut dyn Write) -> io::Result<()>;
}

/// How the content is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// As one LZ4 frame. What C releases from 1.18.3 on expect unless told otherwise.
    Lz4,
    /// As it is.
    Off,
}

fn encode_meta(point: &SnapshotPoint) -> Vec<u8> {
    let configuration = point.configuration.encode();
    let mut out = Vec::with_capacity(META_HEADER_SIZE + configuration.len());
    out.put_u64_le(META_FORMAT);
    out.put_u64_le(0);
    out.put_u64_le(point.configuration_index.0);
    out.put_u64_le(configuration.len() as u64);
    out.put_slice(&configuration);
    let checksum = crc(&out[16..]);
    out[8..12].copy_from_slice(&checksum.to_le_bytes());
    out
}

/// Reads the content of a `.meta` file. Bytes behind the configuration are ignored.
fn decode_meta(name: SnapshotName, bytes: Bytes) -> Result<SnapshotPoint, String> {
    let have = bytes.len();
    let short = |need: usize| move |_: Truncated| format!("short read: {have} bytes instead of {need}");
    let mut reader = Reader::new(bytes.clone());
    let mut word = || reader.u64().map_err(short(META_HEADER_SIZE));
    let (format, checksum, configuration_index, size) = (word()?, word()?, word()?, word()?);
    if format != META_FORMAT {
        return Err(format!("unexpected format version {format}"));
    }
    if size == 0 || size > CONFIGURATION_SIZE_MAX {
        return Err(format!("configuration of {size} bytes"));
    }
    let end = META_HEADER_SIZE + size as usize;
    let configuration = reader.take(size as usize).map_err(short(end))?;
    if u64::from(crc(&bytes[16..end])) != checksum {
        return Err("checksum mismatch".into());
    }
    let configuration = Configuration::decode(configuration).map_err(|e| e.to_string())?;
    let configuration_index = Index(configuration_index);
    Ok(SnapshotPoint { index: name.index, term: name.term, configuration, configuration_index })
}

/// Reads a snapshot. The error names the file.
pub(super) fn read(fs: &dyn Fs, dir: &Path, name: SnapshotName) -> Result<(SnapshotPoint, Bytes), String> {
    let file = |name: &str| fs.read(&dir.join(name)).map_err(|e| format!("read {name}: {e}"));
    let meta = name.meta();
    let point = decode_meta(name, file(&meta)?.into()).map_err(|reason| format!("read {meta}: {reason}"))?;
    let data = name.to_string();
    let content = decode_content(file(&data)?).map_err(|reason| format!("read {data}: {reason}"))?;
    Ok((point, content))
}

/// Undoes the compression, if there is any.
fn decode_content(stored: Vec<u8>) -> Result<Bytes, String> {
    if !stored.starts_with(&LZ4_MAGIC) {
        return Ok(stored.into());
    }
    let most = (stored.len() as u64).saturating_mul(LZ4_RATIO_MAX);
    let announced = announced_size(&stored).ok_or("LZ4 frame: its header is cut off")?;
    if let Some(size) = announced.filter(|size| *size > most) {
        return Err(format!("content size {size} is more than the frame can hold"));
    }
    let mut content = Vec::with_capacity(announced.unwrap_or(0) as usize);
    let mut decoder = FrameDecoder::new(Complete(&stored)).take(announced.unwrap_or(most) + 1);
    decoder
        .read_to_end(&mut content)
        .map_err(|e| format!("LZ4 frame: {e}, after {} bytes", content.len()))?;
    match announced {
        Some(size) if size != content.len() as u64 => {
            Err(format!("LZ4 frame: {} bytes of content instead of {size}", content.len()))
        }
        _ => Ok(content.into()),
    }
}

/// A source that fails when it is read beyond its end: the decoder would take a frame that ends between two
/// blocks for complete, without having seen its checksum.
struct Complete<'a>(&'a [u8]);

impl Read for Complete<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.0.is_empty() && !out.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is cut off"));
        }
        self.0.read(out)
    }
}

/// The content size in a frame's header, if it is there; `None` if the frame ends before. The decoder checks
/// it at the end; we need it before. A frame that ends inside its header would be empty for the decoder.
fn announced_size(frame: &[u8]) -> Option<Option<u64>> {
    const CONTENT_SIZE: u8 = 0x08;
    let flags = *frame.get(4)?;
    if flags & CONTENT_SIZE == 0 {
        return Some(None);
    }
    let size = frame.get(6..14)?;
    Some(Some(u64::from_le_bytes(size.try_into().ok()?)))
}

/// Where a snapshot is written.
pub(super) struct Target<'a> {
    pub(super) fs: &'a dyn Fs,
    pub(super) dir: &'a Path,
    pub(super) name: SnapshotName,
    /// Held while names change.
    pub(super) names: &'a Mutex<()>,
    /// Set by somebody who cannot wait for the end.
    pub(super) cancelled: &'a AtomicBool,
}

impl Target<'_> {
    /// Writes both files, the content last: with it the snapshot is complete. On an error both are gone
    /// again.
    pub(super) fn write(
        &self,
        point: &SnapshotPoint,
        content: &dyn SnapshotContent,
        compression: Compression,
    ) -> Result<(), String> {
        let meta = self.name.meta();
        let data = self.name.to_string();
        let failed = |name: &str, e: io::Error| describe("write", &self.dir.join(name), &e);
        let done = self
            .replace(&meta, |sink| sink.write_all(&encode_meta(point)))
            .map_err(|e| failed(&meta, e))
            .and_then(|()| {
                let write = |sink: &mut Sink<'_>| write_content(sink, content, compression);
                self.replace(&data, write).map_err(|e| failed(&data, e))
            });
        if done.is_err() {
            let temporary = |name: &String| format!("{TEMPORARY_PREFIX}{name}");
            for name in [temporary(&meta), temporary(&data), data, meta] {
                // What is not there need not be removed; anything else is removed at the next start.
                let _ = self.fs.remove(&self.dir.join(name));
            }
        }
        done
    }

    /// Writes a file under a temporary name and renames it once it is durable.
    fn replace(&self, name: &str, write: impl FnOnce(&mut Sink<'_>) -> io::Result<()>) -> io::Result<()> {
        let temporary = self.dir.join(format!("{TEMPORARY_PREFIX}{name}"));
        let file = self.fs.create(&temporary, Existing::Replace)?;
        let mut sink = Sink { file, buffer: Vec::new(), offset: 0, unsynced: 0, cancelled: self.cancelled };
        write(&mut sink)?;
        sink.flush()?;
        sink.file.sync()?;
        let _names = self.names.lock();
        self.fs.rename(&temporary, &self.dir.join(name))?;
        self.fs.sync_dir(self.dir)
    }
}

fn write_content(
    sink: &mut Sink<'_>,
    content: &dyn SnapshotContent,
    compression: Compression,
) -> io::Result<()> {
    let size = content.size();
    let written = match compression {
        Compression::Off => {
            let mut counted = Counted { inner: sink, count: 0 };
            content.write_to(&mut counted)?;
            counted.count
        }
        Compression::Lz4 => {
            let frame = FrameInfo::new()
                .block_mode(BlockMode::Linked)
                .block_size(BlockSize::Max64KB)
                .content_size(Some(size))
                .content_checksum(true);
            let mut counted = Counted { inner: FrameEncoder::with_frame_info(frame, sink), count: 0 };
            content.write_to(&mut counted)?;
            counted.inner.finish()?;
            counted.count
        }
    };
    if written != size {
        return Err(io::Error::other(format!("{written} bytes of content instead of {size}")));
    }
    Ok(())
}

/// Appends to a file in large pieces.
struct Sink<'a> {
    file: Box<dyn File>,
    buffer: Vec<u8>,
    offset: u64,
    unsynced: usize,
    cancelled: &'a AtomicBool,
}

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= WRITE_SIZE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(io::Error::other("the node stops"));
        }
        self.file.write_at(&self.buffer, self.offset)?;
        self.offset += self.buffer.len() as u64;
        self.unsynced += self.buffer.len();
        self.buffer.clear();
        if self.unsynced >= SNAPSHOT_SYNC_BYTES {
            self.file.sync_data()?;
            self.unsynced = 0;
        }
        Ok(())
    }
}

struct Counted<W> {
    inner: W,
    count: u64,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.count += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
#[path = "snapshot_test.rs"]
mod tests;

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
use super::error::Error;
use super::fs::{Existing, File, Fs, ReadAt};
use super::list::{SnapshotName, TEMPORARY_PREFIX};
use crate::codec::{Reader, Truncated};
use crate::config::{CONFIGURATION_SIZE_MAX, SNAPSHOT_SPACE_LEFT, SNAPSHOT_SYNC_BYTES};
use crate::raft::{Configuration, Index, SnapshotPoint, SnapshotSource};
use bytes::{BufMut, Bytes};
use lz4_flex::frame::{BlockMode, BlockSize, FrameDecoder, FrameEncoder, FrameInfo};
use parking_lot::Mutex;
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const META_FORMAT: u64 = 1;
/// Bytes of a `.meta` file before the configuration.
const META_HEADER_SIZE: usize = 32;
const LZ4_MAGIC: [u8; 4] = [0x04, 0x22, 0x4d, 0x18];
/// An LZ4 block holds at most this many times its own size.
const LZ4_RATIO_MAX: u64 = 255;
/// Bytes of a frame that tell how much it holds.
const LZ4_HEAD_SIZE: u64 = 14;
/// Bytes read from a snapshot file at once.
const READ_SIZE: usize = 64 << 10;
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

impl Compression {
    /// As it was set.
    pub fn when(is_set: bool) -> Compression {
        if is_set { Compression::Lz4 } else { Compression::Off }
    }
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

/// A snapshot on the disk.
#[derive(Clone)]
pub struct StoredSnapshot {
    /// Where it is in the log.
    pub point: SnapshotPoint,
    /// Its content, which stays readable when newer snapshots have taken its place.
    pub content: StoredContent,
}

/// Opens a snapshot, of which the content is not looked at yet. The error names the file.
pub(super) fn open(fs: &dyn Fs, dir: &Path, name: SnapshotName) -> Result<StoredSnapshot, String> {
    let meta = name.meta();
    let bytes = fs.read(&dir.join(&meta)).map_err(|e| format!("read {meta}: {e}"))?;
    let point = decode_meta(name, bytes.into()).map_err(|reason| format!("read {meta}: {reason}"))?;
    let content = StoredContent::open(fs, &dir.join(name.to_string())).map_err(|e| e.to_string())?;
    Ok(StoredSnapshot { point, content })
}

/// Reads all of a snapshot. The error names the file.
pub(super) fn check(fs: &dyn Fs, dir: &Path, name: SnapshotName) -> Result<(), String> {
    let mut content = open(fs, dir, name)?.content.open().map_err(|e| e.to_string())?;
    io::copy(&mut content, &mut io::sink()).map(drop).map_err(|e| e.to_string())
}

/// The content of a snapshot in a file.
#[derive(Clone)]
pub struct StoredContent {
    /// For errors.
    name: String,
    file: Arc<dyn ReadAt>,
    is_compressed: bool,
    size: u64,
}

impl StoredContent {
    pub(super) fn open(fs: &dyn Fs, path: &Path) -> io::Result<StoredContent> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let context = |e: io::Error| io::Error::new(e.kind(), format!("read {name}: {e}"));
        let file = fs.open_read(path).map_err(context)?;
        let stored_size = fs.size(path).map_err(context)?;
        StoredContent::of(name, file, stored_size)
    }

    fn of(name: String, file: Arc<dyn ReadAt>, stored_size: u64) -> io::Result<StoredContent> {
        let mut head = Vec::new();
        let beginning = FileReader { file: Arc::clone(&file), offset: 0 };
        beginning.take(LZ4_HEAD_SIZE).read_to_end(&mut head)?;
        let is_compressed = head.starts_with(&LZ4_MAGIC);
        let mut content = StoredContent { name, file, is_compressed, size: stored_size };
        if is_compressed {
            let most = stored_size.saturating_mul(LZ4_RATIO_MAX);
            let announced = announced_size(&head).ok_or("its header is cut off".to_owned());
            let announced = match announced {
                Ok(Some(size)) if size > most => Err(format!("{size} bytes are more than it can hold")),
                announced => announced,
            };
            content.size = match announced.map_err(|reason| content.damaged(&reason))? {
                Some(size) => size,
                None => content.count(most)?,
            };
        }
        Ok(content)
    }

    /// How much it is, by reading all of it.
    fn count(&self, most: u64) -> io::Result<u64> {
        let size = io::copy(&mut self.decompress().take(most.saturating_add(1)), &mut io::sink())?;
        if size > most { Err(self.damaged(&"it holds more than is possible")) } else { Ok(size) }
    }

    /// Without checking the size.
    fn decompress(&self) -> FrameDecoder<Complete<BufReader<FileReader>>> {
        FrameDecoder::new(Complete(self.stored()))
    }

    fn stored(&self) -> BufReader<FileReader> {
        BufReader::with_capacity(READ_SIZE, FileReader { file: Arc::clone(&self.file), offset: 0 })
    }

    fn damaged(&self, reason: &dyn std::fmt::Display) -> io::Error {
        let text = format!("read {}: LZ4 frame: {reason}", self.name);
        io::Error::new(io::ErrorKind::InvalidData, text)
    }
}

impl SnapshotSource for StoredContent {
    fn size(&self) -> u64 {
        self.size
    }

    fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        let inner: Box<dyn Read + Send> = match self.is_compressed {
            true => Box::new(self.decompress()),
            false => Box::new(self.stored()),
        };
        Ok(Box::new(Exact { inner, content: self.clone(), done: 0 }))
    }
}

/// Reads a file from `offset` on.
struct FileReader {
    file: Arc<dyn ReadAt>,
    offset: u64,
}

impl Read for FileReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let size = self.file.read_at(out, self.offset)?;
        self.offset += size as u64;
        Ok(size)
    }
}

/// Reads as much as was announced: anything else is an error.
struct Exact {
    inner: Box<dyn Read + Send>,
    content: StoredContent,
    done: u64,
}

impl Read for Exact {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let StoredContent { name, is_compressed, size, .. } = &self.content;
        let read = self.inner.read(out).map_err(|e| match is_compressed {
            true => self.content.damaged(&format_args!("{e}, after {} bytes", self.done)),
            false => io::Error::new(e.kind(), format!("read {name}: {e}")),
        })?;
        self.done += read as u64;
        let is_short = read == 0 && !out.is_empty() && self.done < *size;
        if is_short || self.done > *size {
            let text = format!("read {name}: {} bytes of content instead of {size}", self.done);
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        Ok(read)
    }
}

/// A source that fails when it is read beyond its end: the decoder would take a frame that ends between two
/// blocks for complete, without having seen its checksum.
struct Complete<R>(R);

impl<R: Read> Read for Complete<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self.0.read(out)? {
            0 if !out.is_empty() => Err(io::Error::new(io::ErrorKind::InvalidData, "it is cut off")),
            size => Ok(size),
        }
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
    pub(super) fs: &'a Arc<dyn Fs>,
    pub(super) dir: &'a Path,
    pub(super) name: SnapshotName,
    /// Held while names change.
    pub(super) names: &'a Mutex<()>,
    /// Set by somebody who cannot wait for the end.
    pub(super) cancelled: &'a Arc<AtomicBool>,
}

impl Target<'_> {
    /// Writes both files, the content last: with it the snapshot is complete. On an error both are gone
    /// again.
    pub(super) fn write(
        &self,
        point: &SnapshotPoint,
        content: &dyn SnapshotContent,
        compression: Compression,
    ) -> Result<(), Error> {
        let data = self.name.to_string();
        let written = || {
            self.write_meta(point)?;
            let mut writer = ContentWriter::new(self.sink(&data)?, compression, content.size());
            content.write_to(&mut writer)?;
            writer.finish()?;
            self.rename(&self.temporary(&data), &data)
        };
        self.or_remove(written())
    }

    /// As [`Target::write`], with a content that is in a file already, durable and as it has to be stored.
    pub(super) fn adopt(&self, point: &SnapshotPoint, content: &Path) -> Result<(), Error> {
        let adopted = self.write_meta(point).and_then(|()| self.rename(content, &self.name.to_string()));
        self.or_remove(adopted)
    }

    fn write_meta(&self, point: &SnapshotPoint) -> io::Result<()> {
        let meta = self.name.meta();
        let mut sink = self.sink(&meta)?;
        sink.write_all(&encode_meta(point))?;
        sink.finish()?;
        self.rename(&self.temporary(&meta), &meta)
    }

    fn or_remove(&self, done: io::Result<()>) -> Result<(), Error> {
        let (data, meta) = (self.name.to_string(), self.name.meta());
        let path = self.dir.join(&data);
        done.map_err(|e| {
            for name in [self.temporary(&meta), self.temporary(&data), path.clone(), self.dir.join(meta)] {
                // What is not there need not be removed; anything else is removed at the next start.
                let _ = self.fs.remove(&name);
            }
            Error::disk("write", &path, &e)
        })
    }

    fn temporary(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{TEMPORARY_PREFIX}{name}"))
    }

    fn sink(&self, name: &str) -> io::Result<Sink> {
        Sink::create(self.fs, &self.temporary(name), self.cancelled)
    }

    /// Gives a durable file its name.
    fn rename(&self, from: &Path, name: &str) -> io::Result<()> {
        let _names = self.names.lock();
        self.fs.rename(from, &self.dir.join(name))?;
        self.fs.sync_dir(self.dir)
    }
}

/// Writes a content of known size to a file.
pub(super) struct ContentWriter {
    out: Encoder,
    size: u64,
    written: u64,
}

enum Encoder {
    Off(Sink),
    Lz4(Box<FrameEncoder<Sink>>),
}

impl ContentWriter {
    pub(super) fn new(sink: Sink, compression: Compression, size: u64) -> ContentWriter {
        let frame = FrameInfo::new()
            .block_mode(BlockMode::Linked)
            .block_size(BlockSize::Max64KB)
            .content_size(Some(size))
            .content_checksum(true);
        let out = match compression {
            Compression::Off => Encoder::Off(sink),
            Compression::Lz4 => Encoder::Lz4(Box::new(FrameEncoder::with_frame_info(frame, sink))),
        };
        ContentWriter { out, size, written: 0 }
    }

    /// Makes the file durable.
    pub(super) fn finish(self) -> io::Result<()> {
        let ContentWriter { out, size, written } = self;
        if written != size {
            return Err(io::Error::other(format!("{written} bytes of content instead of {size}")));
        }
        match out {
            Encoder::Off(sink) => sink.finish(),
            Encoder::Lz4(encoder) => encoder.finish()?.finish(),
        }
    }
}

impl Write for ContentWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = match &mut self.out {
            Encoder::Off(sink) => sink.write(bytes),
            Encoder::Lz4(encoder) => encoder.write(bytes),
        }?;
        self.written += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Appends to a file in large pieces, of which the disk gets each before the next: one sync of all at the end
/// would hold up those of the log.
pub(super) struct Sink {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    file: Box<dyn File>,
    buffer: Vec<u8>,
    offset: u64,
    unsynced: usize,
    cancelled: Arc<AtomicBool>,
}

impl Sink {
    pub(super) fn create(fs: &Arc<dyn Fs>, path: &Path, cancelled: &Arc<AtomicBool>) -> io::Result<Sink> {
        let file = fs.create(path, Existing::Replace)?;
        let (fs, cancelled) = (Arc::clone(fs), Arc::clone(cancelled));
        let dir = path.parent().unwrap_or(path).to_owned();
        Ok(Sink { fs, dir, file, buffer: Vec::new(), offset: 0, unsynced: 0, cancelled })
    }

    fn finish(mut self) -> io::Result<()> {
        self.flush()?;
        self.file.sync()
    }
}

impl Write for Sink {
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
            // Only now, so that a small snapshot is always tried: it may be what frees space.
            if self.fs.free_space(&self.dir).is_some_and(|free| free < SNAPSHOT_SPACE_LEFT) {
                return Err(rustix::io::Errno::NOSPC.into());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "snapshot_test.rs"]
mod tests;

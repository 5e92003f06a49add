//! The few file operations the store uses, as a trait, so that tests can count them and make them fail. Every
//! thread of the store uses it; it has no state. The real one is [`Disk`].

use super::blocks::BLOCK_SIZE;
use super::error::synced;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::{Errno, ReadWriteFlags, pwritev2};
use std::cell::Cell;
use std::ffi::OsString;
use std::fs;
use std::io::{self, IoSlice};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

/// Mode of every file: the log is the database, so nobody else may read it.
const FILE_MODE: u32 = 0o600;

/// What to do when a file that is to be created exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// Fail with [`io::ErrorKind::AlreadyExists`].
    Refuse,
    /// Empty it.
    Replace,
}

/// A directory tree.
pub trait Fs: Send + Sync {
    /// Names in a directory, in no particular order.
    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>>;
    /// Size of a file in bytes.
    fn size(&self, path: &Path) -> io::Result<u64>;
    /// A whole file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// A file for reading piece by piece, which goes on when its name is gone.
    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn ReadAt>> {
        Ok(Arc::new(self.read(path)?))
    }
    /// Bytes that files may still grow by, if that is known.
    fn free_space(&self, _dir: &Path) -> Option<u64> {
        None
    }
    /// A new file, readable by its owner only.
    fn create(&self, path: &Path, existing: Existing) -> io::Result<Box<dyn File>>;
    /// An existing file, for writing.
    fn open(&self, path: &Path) -> io::Result<Box<dyn File>>;
    /// Gives a file another name, replacing what has it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// A new directory in a directory.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes creations, renames and removals in a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

/// A file open for reading.
pub trait ReadAt: Send + Sync {
    /// Reads at `offset`; 0 bytes are the end.
    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<usize>;
}

/// A file open for writing.
pub trait File: Send {
    /// Writes all of `bytes` at `offset`.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Whole [blocks](super::blocks) are written from now on and nothing else: if the file system can,
    /// without the page cache.
    fn set_direct(&self) {}
    /// Writes all of `bytes` at `offset` and makes them durable. A lack of space is reported only if writing
    /// again and a sync that succeeds leave no doubt about what is there.
    fn write_durably(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_at(bytes, offset)?;
        synced(self.sync_data())
    }
    /// Reserves blocks for the first `size` bytes and makes the file that long. Fails with
    /// [`io::ErrorKind::Unsupported`] where the file system cannot.
    fn allocate(&self, size: u64) -> io::Result<()>;
    /// Cuts or extends the file.
    fn set_len(&self, size: u64) -> io::Result<()>;
    /// Makes the content durable, and of the rest only what is needed to read it back.
    fn sync_data(&self) -> io::Result<()>;
    /// Makes content and attributes durable.
    fn sync(&self) -> io::Result<()>;
}

/// The operating system's.
#[derive(Debug, Clone, Copy)]
pub struct Disk;

impl Fs for Disk {
    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name())).collect()
    }

    fn size(&self, path: &Path) -> io::Result<u64> {
        Ok(fs::metadata(path)?.len())
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        fs::read(path)
    }

    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn ReadAt>> {
        Ok(Arc::new(fs::File::open(path)?))
    }

    fn free_space(&self, dir: &Path) -> Option<u64> {
        let found = rustix::fs::statvfs(dir).ok()?;
        found.f_bavail.checked_mul(found.f_frsize)
    }

    fn create(&self, path: &Path, existing: Existing) -> io::Result<Box<dyn File>> {
        let mut options = fs::OpenOptions::new();
        options.write(true).mode(FILE_MODE);
        match existing {
            Existing::Refuse => options.create_new(true),
            Existing::Replace => options.create(true).truncate(true),
        };
        Ok(Box::new(DiskFile::new(options.open(path)?)))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn File>> {
        Ok(Box::new(DiskFile::new(fs::OpenOptions::new().write(true).open(path)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        fs::create_dir(path)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        fs::File::open(dir)?.sync_all()
    }
}

impl ReadAt for fs::File {
    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, out, offset)
    }
}

impl ReadAt for Vec<u8> {
    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|offset| self.get(offset..)).unwrap_or_default();
        let size = rest.len().min(out.len());
        out[..size].copy_from_slice(&rest[..size]);
        Ok(size)
    }
}

struct DiskFile {
    file: fs::File,
    is_direct: Cell<bool>,
}

impl DiskFile {
    fn new(file: fs::File) -> DiskFile {
        DiskFile { file, is_direct: Cell::new(false) }
    }

    fn set_flag(&self, is_direct: bool) -> rustix::io::Result<()> {
        let mut flags = fcntl_getfl(&self.file)?;
        flags.set(OFlags::DIRECT, is_direct);
        fcntl_setfl(&self.file, flags)?;
        self.is_direct.set(is_direct);
        Ok(())
    }

    fn write_direct(&self, bytes: &[u8], offset: u64, flags: ReadWriteFlags) -> rustix::io::Result<()> {
        let mut done = 0;
        while done < bytes.len() {
            match pwritev2(&self.file, &[IoSlice::new(&bytes[done..])], offset + done as u64, flags) {
                // A part of a block is written again with the rest of it.
                Ok(size) if size >= BLOCK_SIZE => done += size - size % BLOCK_SIZE,
                Ok(size) if done + size == bytes.len() => break,
                Ok(_) => return Err(Errno::INVAL),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Whether these blocks were written without the page cache. A file system may accept the flag and refuse
    /// the write, because of larger blocks for example; a sandbox may refuse the call. Then this is not tried
    /// again.
    fn has_written(&self, bytes: &[u8], offset: u64, flags: ReadWriteFlags) -> io::Result<bool> {
        if !self.is_direct.get() {
            return Ok(false);
        }
        match self.write_direct(bytes, offset, flags) {
            Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS | Errno::PERM) => {
                self.set_flag(false)?;
                Ok(false)
            }
            written => Ok(written.map(|()| true)?),
        }
    }
}

impl File for DiskFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        match self.has_written(bytes, offset, ReadWriteFlags::empty())? {
            true => Ok(()),
            false => self.file.write_all_at(bytes, offset),
        }
    }

    fn set_direct(&self) {
        // Not on every file system.
        let _ = self.set_flag(true);
    }

    fn write_durably(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        // With nothing in the page cache, a lack of space is the disk's answer to this write.
        if self.has_written(bytes, offset, ReadWriteFlags::DSYNC)? {
            return Ok(());
        }
        self.write_at(bytes, offset)?;
        synced(self.sync_data())
    }

    fn allocate(&self, size: u64) -> io::Result<()> {
        Ok(rustix::fs::fallocate(&self.file, rustix::fs::FallocateFlags::empty(), 0, size)?)
    }

    fn set_len(&self, size: u64) -> io::Result<()> {
        self.file.set_len(size)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::super::blocks::Blocks;
    use super::*;

    #[test]
    fn blocks_are_written_with_and_without_the_page_cache() {
        let dir = tempfile::tempdir().unwrap();
        for is_direct in [false, true] {
            let path = dir.path().join(is_direct.to_string());
            let file = Disk.create(&path, Existing::Refuse).unwrap();
            if is_direct {
                file.set_direct();
            }
            let mut blocks = Blocks::default();
            blocks.reserve(5000).extend_from_slice(&[7; 5000]);
            blocks.pad();
            file.write_durably(blocks.as_slice(), 4096).unwrap();
            file.write_at(&blocks.as_slice()[..4096], 0).unwrap();
            // Nobody asks for this: it stands for a file system with larger blocks.
            file.write_durably(b"end", 4096 + 8192).unwrap();
            let expected = [&vec![7; 4096 + 5000][..], &[0; 8192 - 5000], b"end"].concat();
            assert!(Disk.read(&path).unwrap() == expected, "direct: {is_direct}");
        }
    }
}

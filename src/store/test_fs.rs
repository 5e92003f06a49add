//! The system's file operations for tests: recorded, one at a time, held up or made to fail. For crashes see
//! [`super::crash_fs`].

use super::fs::{Disk, Existing, File, Fs, ReadAt};
use super::{Compression, Spool, Spooled, Spools, Store};
use parking_lot::{Condvar, Mutex};
use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long something may take that must happen.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Default)]
struct State {
    operations: Vec<String>,
    held: Option<&'static str>,
    failing: Option<&'static str>,
    /// What fails once an operation was done.
    failing_after: Option<(&'static str, &'static str)>,
    is_holding: bool,
    /// What there is no space for, and how many times more.
    full: Option<(Vec<&'static str>, usize)>,
    space: Option<u64>,
}

/// Operations are named "sync_data open-1", "rename open-1 0000000000000001-0000000000000009" and so on.
#[derive(Clone, Default)]
pub(super) struct TestFs {
    shared: Arc<(Mutex<State>, Condvar)>,
}

impl TestFs {
    pub(super) fn new() -> TestFs {
        TestFs::default()
    }

    /// Holds up the next operation with this name, and all others behind it.
    pub(super) fn hold(&self, operation: &'static str) {
        self.shared.0.lock().held = Some(operation);
    }

    /// Waits until the operation is held up.
    pub(super) fn wait_until_held(&self) {
        let mut state = self.shared.0.lock();
        while !state.is_holding {
            let waited = self.shared.1.wait_for(&mut state, PATIENCE);
            assert!(!waited.timed_out(), "{:?} was never tried", state.held);
        }
    }

    pub(super) fn release(&self) {
        let mut state = self.shared.0.lock();
        state.held = None;
        state.is_holding = false;
        self.shared.1.notify_all();
    }

    /// Makes all operations fail whose name starts like this.
    pub(super) fn fail(&self, operation: &'static str) {
        self.shared.0.lock().failing = Some(operation);
    }

    /// Makes all operations fail whose name starts with the second, once one was done that starts with the
    /// first.
    pub(super) fn fail_after(&self, done: &'static str, operation: &'static str) {
        self.shared.0.lock().failing_after = Some((done, operation));
    }

    /// There is no space for operations whose names start with one of these, as many times. A write gets half
    /// of its bytes to the file.
    pub(super) fn no_space(&self, operations: &[&'static str], times: usize) {
        self.shared.0.lock().full = Some((operations.to_vec(), times));
    }

    /// So much space is said to be free.
    pub(super) fn set_space(&self, space: u64) {
        self.shared.0.lock().space = Some(space);
    }

    /// There is space again.
    pub(super) fn free(&self) {
        self.shared.0.lock().full = None;
    }

    fn finds_no_space(&self, operation: &str) -> bool {
        let mut state = self.shared.0.lock();
        let full = state
            .full
            .as_mut()
            .filter(|(full, times)| *times > 0 && full.iter().any(|full| operation.starts_with(full)));
        full.map(|(_, times)| *times -= 1).is_some()
    }

    pub(super) fn operations(&self) -> Vec<String> {
        self.shared.0.lock().operations.clone()
    }

    /// How often an operation was done.
    pub(super) fn count(&self, operation: &str) -> usize {
        self.operations().iter().filter(|done| *done == operation).count()
    }

    fn run<T>(&self, operation: String, action: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        if self.finds_no_space(&operation) {
            return Err(rustix::io::Errno::NOSPC.into());
        }
        let mut state = self.shared.0.lock();
        while state.held == Some(&operation) {
            state.is_holding = true;
            self.shared.1.notify_all();
            self.shared.1.wait(&mut state);
        }
        let failing = state.failing.is_some_and(|failing| operation.starts_with(failing));
        if let Some((done, failing)) = state.failing_after
            && operation.starts_with(done)
        {
            (state.failing, state.failing_after) = (Some(failing), None);
        }
        state.operations.push(operation);
        if failing {
            return Err(io::Error::from(rustix::io::Errno::IO));
        }
        action()
    }

    fn file(&self, name: String, file: Box<dyn File>) -> Box<dyn File> {
        Box::new(TestFile { fs: self.clone(), name, file })
    }
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().into()
}

impl Fs for TestFs {
    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        Disk.list(dir)
    }
    fn size(&self, path: &Path) -> io::Result<u64> {
        Disk.size(path)
    }
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.run(format!("read {}", name(path)), || Disk.read(path))
    }
    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn ReadAt>> {
        Disk.open_read(path)
    }
    fn free_space(&self, _: &Path) -> Option<u64> {
        self.shared.0.lock().space
    }
    fn create(&self, path: &Path, existing: Existing) -> io::Result<Box<dyn File>> {
        let file = self.run(format!("create {}", name(path)), || Disk.create(path, existing))?;
        Ok(self.file(name(path), file))
    }
    fn open(&self, path: &Path) -> io::Result<Box<dyn File>> {
        Ok(self.file(name(path), Disk.open(path)?))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.run(format!("rename {} {}", name(from), name(to)), || Disk.rename(from, to))
    }
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.run(format!("create_dir {}", name(path)), || Disk.create_dir(path))
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.run(format!("remove {}", name(path)), || Disk.remove(path))
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.run("sync_dir".into(), || Disk.sync_dir(dir))
    }
}

struct TestFile {
    fs: TestFs,
    name: String,
    file: Box<dyn File>,
}

impl TestFile {
    fn run(&self, operation: &str, action: impl FnOnce(&dyn File) -> io::Result<()>) -> io::Result<()> {
        self.fs.run(format!("{operation} {}", self.name), || action(&*self.file))
    }
}

impl File for TestFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if self.fs.finds_no_space(&format!("write {}", self.name)) {
            self.file.write_at(&bytes[..bytes.len() / 2], offset)?;
            return Err(rustix::io::Errno::NOSPC.into());
        }
        self.run("write", |file| file.write_at(bytes, offset))
    }
    fn set_direct(&self) {
        self.file.set_direct();
    }
    fn allocate(&self, size: u64) -> io::Result<()> {
        self.run("allocate", |file| file.allocate(size))
    }
    fn set_len(&self, size: u64) -> io::Result<()> {
        self.run("set_len", |file| file.set_len(size))
    }
    // The order of operations is what tests look at; a real sync would only make them slow.
    fn sync_data(&self) -> io::Result<()> {
        self.run("sync_data", |_| Ok(()))
    }
    fn sync(&self) -> io::Result<()> {
        self.run("sync", |_| Ok(()))
    }
}

/// Begins to receive a snapshot, once the one before is gone.
pub(super) fn begin(spools: &Spools, size: u64, compression: Compression) -> io::Result<Spool> {
    let since = Instant::now();
    loop {
        match spools.begin(size, compression) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock && since.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(1));
            }
            begun => return begun,
        }
    }
}

/// As a leader's snapshot is received.
pub(super) fn receive(store: &Store, content: &[u8], compression: Compression) -> io::Result<Spooled> {
    let mut spool = begin(&store.spools(), content.len() as u64, compression)?;
    spool.write(content)?;
    spool.finish()
}

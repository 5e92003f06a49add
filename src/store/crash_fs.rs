//! A file system in memory that loses power: it can tell which directories a restart may find.
//!
//! What it promises is what the store may rely on, and no more:
//!
//! * `sync_data` makes the bytes of a file durable and every growth of it; `sync` also makes it shorter;
//!   `sync_dir` makes names durable. Nothing else does, in whatever order things were done.
//! * Of what is not durable **any part** survives: each sector of a write, each change of a size and each
//!   creation, renaming and removal for itself. Bytes within a surviving size that were not written are 0.
//! * A sector may be torn anywhere: of its new bytes a part is there, and in place of the others the old ones
//!   or zeros. Bytes that no write changes stay as they are, also in the same sector: they are on the disk,
//!   and the same ones are on their way to it. (A kernel writes whole blocks, whatever a program wrote.)
//! * A renaming happens or does not; one from folder to folder is durable with either of them. Changes of
//!   one name happen in their order: a later one is not there without the earlier ones.
//!
//! A disk with a [`Fault`] lets operations fail, with or without an effect. After a failed sync the kernel
//! may take what it should have made durable for clean: everybody reads it, and no later sync brings it to
//! the disk unless it is asked for again. That is true of bytes and of sizes.
//!
//! A process that is killed loses nothing of this: [`Model`] with all its pending changes is what the next
//! one starts from, and the power may fail later.

use super::fs::{Existing, File, Fs};
use super::mend::FOLDER_PREFIX;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::Arc;

const SECTOR: usize = 512;

/// Random numbers, the same for the same seed (SplitMix64).
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    pub(super) fn between(&mut self, first: u64, last: u64) -> u64 {
        first + self.below(last + 1 - first)
    }

    fn torn(&mut self, len: usize) -> Fate {
        let at = self.below(len as u64 + 1) as usize;
        Fate::Torn { at, is_head: self.below(2) == 0, zeros: self.below(2) == 0 }
    }
}

/// Names and contents.
pub(super) type Files = BTreeMap<String, Arc<Vec<u8>>>;

/// A change of a file that is not durable.
#[derive(Debug, Clone)]
enum Change {
    /// New bytes within one sector.
    Bytes {
        offset: usize,
        bytes: Arc<[u8]>,
    },
    Grow(usize),
    Cut(usize),
}

/// A change of the directory that is not durable. The number is that of the file.
#[derive(Debug, Clone)]
enum NameChange {
    Create(String, usize),
    Rename(String, String, usize),
    Remove(String),
}

impl NameChange {
    fn names(&self) -> Vec<&String> {
        match self {
            NameChange::Create(name, _) | NameChange::Remove(name) => vec![name],
            NameChange::Rename(from, to, _) => vec![from, to],
        }
    }

    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            NameChange::Create(name, file) => drop(names.insert(name.clone(), *file)),
            NameChange::Rename(from, to, file) => {
                names.remove(from);
                names.insert(to.clone(), *file);
            }
            NameChange::Remove(name) => drop(names.remove(name)),
        }
    }

    fn describe(&self) -> String {
        match self {
            NameChange::Create(name, _) => format!("create {name}"),
            NameChange::Rename(from, to, _) => format!("rename {from} {to}"),
            NameChange::Remove(name) => format!("remove {name}"),
        }
    }
}

#[derive(Debug, Clone, Default)]
struct Inode {
    durable: Arc<Vec<u8>>,
    pending: Vec<Change>,
    now: Arc<Vec<u8>>,
    /// Some of `now` is neither durable nor pending, because of a failed sync.
    is_forgotten: bool,
}

impl Inode {
    /// What the next sync leaves on the disk, if that is not what can be read now.
    fn synced(&self) -> Option<Vec<u8>> {
        let synced = |durable: &Arc<Vec<u8>>| {
            let mut content = durable.to_vec();
            self.pending.iter().for_each(|change| apply(&mut content, change, Fate::Kept));
            content
        };
        self.is_forgotten.then(|| synced(&self.durable))
    }

    fn change(&mut self, change: Change) {
        apply(Arc::make_mut(&mut self.now), &change, Fate::Kept);
        self.pending.push(change);
    }

    fn write(&mut self, bytes: &[u8], offset: usize) {
        let synced = self.synced();
        let size = synced.as_ref().map_or(self.now.len(), Vec::len);
        if offset + bytes.len() > size {
            self.change(Change::Grow(offset + bytes.len()));
        }
        let mut done = 0;
        while done < bytes.len() {
            let start = offset + done;
            let end = bytes.len().min(done + SECTOR - start % SECTOR);
            let piece = &bytes[done..end];
            // What is there already is no more at risk than it was.
            let is_there = |(position, byte): (usize, &u8)| {
                let place = start + position;
                let synced = synced.as_ref().unwrap_or(&self.now);
                self.now.get(place) == Some(byte) && synced.get(place) == Some(byte)
            };
            let is_new = |at: &(usize, &u8)| !is_there(*at);
            let first = piece.iter().enumerate().find(is_new).map(|(position, _)| position);
            let last = piece.iter().enumerate().rfind(is_new).map(|(position, _)| position);
            if let (Some(first), Some(last)) = (first, last) {
                self.change(Change::Bytes { offset: start + first, bytes: piece[first..=last].into() });
            }
            done = end;
        }
    }

    fn set_len(&mut self, size: usize) {
        let now = self.now.len();
        let synced = self.synced().map_or(now, |synced| synced.len());
        if size < now.max(synced) {
            self.change(Change::Cut(size));
        }
        if size > now.min(synced) {
            self.change(Change::Grow(size));
        }
    }

    /// A failed sync: what was pending never becomes durable by itself.
    fn forget(&mut self) {
        self.is_forgotten |= !self.pending.is_empty();
        self.pending.clear();
    }

    fn sync(&mut self, with_cuts: bool) {
        let (cuts, others) = std::mem::take(&mut self.pending)
            .into_iter()
            .partition(|change| !with_cuts && matches!(change, Change::Cut(_)));
        self.pending = cuts;
        let others: Vec<Change> = others;
        let durable = Arc::make_mut(&mut self.durable);
        others.iter().for_each(|change| apply(durable, change, Fate::Kept));
    }
}

/// What becomes of a pending change when the power fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Lost,
    Kept,
    /// Of the new bytes only those before (or from) this place survive; the others are the old ones, or
    /// zeros. Anything but bytes survives.
    Torn {
        at: usize,
        is_head: bool,
        zeros: bool,
    },
}

fn apply(content: &mut Vec<u8>, change: &Change, fate: Fate) {
    match (change, fate) {
        (_, Fate::Lost) => {}
        // Faster than `resize` in a build for tests.
        (Change::Grow(size), _) => content.extend_from_slice(&vec![0; size.saturating_sub(content.len())]),
        (Change::Cut(size), _) => content.truncate(*size),
        (Change::Bytes { offset, bytes }, fate) => {
            for (position, byte) in bytes.iter().enumerate() {
                let Some(place) = content.get_mut(offset + position) else { break };
                match fate {
                    Fate::Torn { at, is_head, zeros } if (position < at) != is_head => {
                        if zeros {
                            *place = 0;
                        }
                    }
                    _ => *place = *byte,
                }
            }
        }
    }
}

/// A pending change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Name(usize),
    File(usize, usize),
}

/// Everything at one moment.
#[derive(Debug, Clone, Default)]
pub(super) struct Model {
    inodes: Vec<Inode>,
    durable: BTreeMap<String, usize>,
    pending: Vec<NameChange>,
    now: BTreeMap<String, usize>,
}

impl Model {
    /// A directory in which everything is durable.
    pub(super) fn new(files: &Files) -> Model {
        let inode = |content: &Arc<Vec<u8>>| Inode {
            durable: Arc::clone(content),
            pending: Vec::new(),
            now: Arc::clone(content),
            is_forgotten: false,
        };
        let names: BTreeMap<_, _> = files.keys().cloned().zip(0..).collect();
        let inodes = files.values().map(inode).collect();
        Model { inodes, durable: names.clone(), pending: Vec::new(), now: names }
    }

    /// Pending changes of all files that may be found after a crash, and of the names.
    fn units(&self) -> Vec<Unit> {
        let mut reachable: BTreeSet<usize> = self.durable.values().copied().collect();
        reachable.extend(self.pending.iter().filter_map(|change| match change {
            NameChange::Create(_, file) | NameChange::Rename(_, _, file) => Some(*file),
            NameChange::Remove(_) => None,
        }));
        let names = (0..self.pending.len()).map(Unit::Name);
        let of_file = |file: usize| (0..self.inodes[file].pending.len()).map(move |at| Unit::File(file, at));
        names.chain(reachable.into_iter().flat_map(of_file)).collect()
    }

    /// Which pending changes are bytes, which can be torn, and how many bytes.
    fn writes(&self) -> Vec<Option<usize>> {
        let len = |unit| match unit {
            Unit::File(file, at) => match &self.inodes[file].pending[at] {
                Change::Bytes { bytes, .. } => Some(bytes.len()),
                Change::Grow(_) | Change::Cut(_) => None,
            },
            Unit::Name(_) => None,
        };
        self.units().into_iter().map(len).collect()
    }

    /// Crashes to try: nothing that is pending survives, everything, each single change does or does not, is
    /// torn, and random parts. A `brief` list has neither single changes nor torn ones for certain.
    pub(super) fn crashes(&self, random: &mut Random, is_brief: bool) -> Vec<Vec<Fate>> {
        let writes = self.writes();
        let count = writes.len();
        let (lost, kept) = (vec![Fate::Lost; count], vec![Fate::Kept; count]);
        let mut all = vec![lost.clone(), kept.clone()];
        for at in if is_brief { 0..0 } else { 0..count } {
            let mut one = |all_others: &[Fate], fate| {
                let mut fates = all_others.to_vec();
                fates[at] = fate;
                all.push(fates);
            };
            one(&lost, Fate::Kept);
            one(&kept, Fate::Lost);
            if let Some(len) = writes[at] {
                one(&kept, random.torn(len));
            }
        }
        let parts = if count < 2 { 0 } else { 6 };
        all.extend((0..if is_brief { parts / 3 } else { parts }).map(|_| self.any_crash(random)));
        all
    }

    /// A random part of the pending changes survives.
    pub(super) fn any_crash(&self, random: &mut Random) -> Vec<Fate> {
        let fate = |write: Option<usize>| match random.below(5) {
            0 | 1 => Fate::Lost,
            2 | 3 => Fate::Kept,
            _ => random.torn(write.unwrap_or(0)),
        };
        self.writes().into_iter().map(fate).collect()
    }

    /// What a restart finds if this becomes of the pending changes.
    pub(super) fn after_crash(&self, fates: &[Fate]) -> Files {
        let mut names = self.durable.clone();
        let mut contents: BTreeMap<usize, Vec<u8>> = BTreeMap::new();
        let mut lost: BTreeSet<&String> = BTreeSet::new();
        for (unit, fate) in self.units().into_iter().zip(fates) {
            match unit {
                Unit::Name(at) => {
                    let change = &self.pending[at];
                    if *fate == Fate::Lost || change.names().iter().any(|name| lost.contains(name)) {
                        lost.extend(change.names());
                    } else {
                        change.apply(&mut names);
                    }
                }
                Unit::File(file, at) => {
                    let inode = &self.inodes[file];
                    let content = contents.entry(file).or_insert_with(|| inode.durable.to_vec());
                    apply(content, &inode.pending[at], *fate);
                }
            }
        }
        let contents: BTreeMap<_, _> =
            contents.into_iter().map(|(file, content)| (file, Arc::new(content))).collect();
        let content = |file: usize| contents.get(&file).unwrap_or(&self.inodes[file].durable);
        let is_there = |name: &str| folder(name).is_empty() || names.contains_key(folder(name));
        let names = names.iter().filter(|(name, _)| is_there(name));
        names.map(|(name, file)| (name.clone(), Arc::clone(content(*file)))).collect()
    }

    /// What a restart finds if nothing that is pending survives.
    pub(super) fn at_worst(&self) -> Files {
        self.after_crash(&vec![Fate::Lost; self.units().len()])
    }

    /// Pending changes and what becomes of them, for people.
    pub(super) fn describe(&self, fates: &[Fate]) -> String {
        let name_of = |file| self.now.iter().find(|(_, now)| **now == file).map_or("?", |(name, _)| name);
        let what = |unit| match unit {
            Unit::Name(at) => self.pending[at].describe(),
            Unit::File(file, at) => match &self.inodes[file].pending[at] {
                Change::Bytes { offset, bytes } => {
                    format!("{} bytes at {offset} of {}", bytes.len(), name_of(file))
                }
                Change::Grow(size) => format!("grow {} to {size}", name_of(file)),
                Change::Cut(size) => format!("cut {} to {size}", name_of(file)),
            },
        };
        let line = |(unit, fate): (Unit, &Fate)| format!("  {}: {fate:?}\n", what(unit));
        self.units().into_iter().zip(fates).map(line).collect()
    }

    fn inode(&mut self, name: &str) -> io::Result<usize> {
        self.now.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn change(&mut self, change: NameChange) {
        change.apply(&mut self.now);
        self.pending.push(change);
    }

    fn create(&mut self, name: &str, existing: Existing) -> io::Result<usize> {
        match (self.now.get(name), existing) {
            (Some(_), Existing::Refuse) => Err(io::ErrorKind::AlreadyExists.into()),
            (Some(file), Existing::Replace) => {
                self.inodes[*file].set_len(0);
                Ok(*file)
            }
            (None, _) => {
                let file = self.inodes.len();
                self.inodes.push(Inode::default());
                self.change(NameChange::Create(name.into(), file));
                Ok(file)
            }
        }
    }
}

/// The files of a real directory.
pub(super) fn files(dir: &Path) -> Files {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| (name(&path), Arc::new(std::fs::read(&path).unwrap()))).collect()
}

/// What an operation does that fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// Nothing. What a sync should have made durable is as it was.
    None,
    /// A write gets half of its bytes to the file. What a sync should have made durable can be read until the
    /// power fails, and never will be durable unless it is written again.
    Half,
    /// Everything.
    All,
}

/// Operations that fail: the one with this number, counted from 0 and with those that only read, and all
/// later ones if it lasts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fault {
    pub(super) at: usize,
    pub(super) lasts: bool,
    pub(super) errno: rustix::io::Errno,
    pub(super) effect: Effect,
}

type Hook = Box<dyn FnMut(&str, &Model) + Send>;

#[derive(Default)]
struct State {
    model: Model,
    hook: Option<Hook>,
    /// Syncs whose description begins like this do nothing.
    lie: Option<&'static str>,
    fault: Option<Fault>,
    /// Operations so far.
    count: usize,
    /// Those that failed.
    failed: Vec<String>,
}

impl State {
    /// Counts an operation; some if it is to fail.
    fn fault(&mut self, operation: &str, reads: bool) -> Option<Fault> {
        let number = self.count;
        self.count += 1;
        let is_hit = |fault: &Fault| {
            let is_read_only = fault.errno == rustix::io::Errno::ROFS;
            (number == fault.at || fault.lasts && number > fault.at) && !(reads && is_read_only)
        };
        let fault = self.fault.filter(is_hit)?;
        self.failed.push(operation.into());
        Some(fault)
    }
}

/// The model as the store's file system. It has one directory, whatever its path, and in it the folders of
/// repairs.
#[derive(Clone, Default)]
pub(super) struct CrashFs(Arc<Mutex<State>>);

impl CrashFs {
    /// Goes on from a model, with what is pending in it.
    pub(super) fn new(model: Model) -> CrashFs {
        CrashFs(Arc::new(Mutex::new(State { model, ..State::default() })))
    }

    /// Calls this before each change and each sync, with how everything is.
    pub(super) fn before_each(&self, hook: impl FnMut(&str, &Model) + Send + 'static) {
        self.0.lock().hook = Some(Box::new(hook));
    }

    /// Makes a disk that only pretends to do the syncs whose description begins like this: "sync_data open",
    /// "sync_dir after rename tmp-snapshot".
    pub(super) fn lie_about(&self, sync: Option<&'static str>) {
        self.0.lock().lie = sync;
    }

    /// Makes operations fail, or none any more.
    pub(super) fn fail(&self, fault: Option<Fault>) {
        self.0.lock().fault = fault;
    }

    /// Makes every operation fail; a sync takes what it was for to be clean.
    pub(super) fn fail_and_forget(&self) {
        let errno = rustix::io::Errno::IO;
        self.fail(Some(Fault { at: 0, lasts: true, errno, effect: Effect::Half }));
    }

    /// Whether some operation fails.
    pub(super) fn may_fail(&self) -> bool {
        self.0.lock().fault.is_some()
    }

    /// Which operations have failed.
    pub(super) fn failed(&self) -> Vec<String> {
        self.0.lock().failed.clone()
    }

    /// How everything is.
    pub(super) fn model(&self) -> Model {
        self.0.lock().model.clone()
    }

    /// Does something with an effect. `half` is what a fault may leave of it.
    fn run<T>(
        &self,
        operation: &str,
        action: impl FnOnce(&mut Model) -> io::Result<T>,
        half: impl FnOnce(&mut Model),
    ) -> io::Result<T> {
        let state = &mut *self.0.lock();
        if let Some(hook) = &mut state.hook {
            hook(operation, &state.model);
        }
        let Some(Fault { errno, effect, .. }) = state.fault(operation, false) else {
            return action(&mut state.model);
        };
        match effect {
            Effect::None => {}
            Effect::Half => half(&mut state.model),
            Effect::All => drop(action(&mut state.model)?),
        }
        Err(errno.into())
    }

    fn look<T>(&self, operation: &str, action: impl FnOnce(&mut Model) -> io::Result<T>) -> io::Result<T> {
        let state = &mut *self.0.lock();
        match state.fault(operation, true) {
            Some(fault) => Err(fault.errno.into()),
            None => action(&mut state.model),
        }
    }

    fn sync(
        &self,
        operation: &str,
        action: impl FnOnce(&mut Model),
        half: impl FnOnce(&mut Model),
    ) -> io::Result<()> {
        let lie = self.0.lock().lie;
        let action = |model: &mut Model| {
            if !lie.is_some_and(|lie| operation.starts_with(lie)) {
                action(model);
            }
            Ok(())
        };
        self.run(operation, action, half)
    }

    fn open_file(&self, name: String, number: usize) -> Box<dyn File> {
        Box::new(CrashFile { fs: self.clone(), name, number })
    }
}

/// The one folder level that a directory may have, which repairs make; empty for the directory itself.
fn sub_folder(dir: &Path) -> &str {
    let last = dir.file_name().and_then(|name| name.to_str()).unwrap_or("");
    if last.starts_with(FOLDER_PREFIX) { last } else { "" }
}

fn name(path: &Path) -> String {
    let last = path.file_name().unwrap().to_str().unwrap();
    match path.parent().map_or("", sub_folder) {
        "" => last.into(),
        folder => format!("{folder}/{last}"),
    }
}

fn folder(name: &str) -> &str {
    name.split_once('/').map_or("", |(folder, _)| folder)
}

impl Fs for CrashFs {
    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        let inside = |name: &&String| folder(name) == sub_folder(dir);
        self.look("list", |model| Ok(model.now.keys().filter(inside).map(OsString::from).collect()))
    }

    fn size(&self, path: &Path) -> io::Result<u64> {
        let name = name(path);
        self.look(&format!("size {name}"), |model| {
            model.inode(&name).map(|file| model.inodes[file].now.len() as u64)
        })
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let name = name(path);
        self.look(&format!("read {name}"), |model| {
            model.inode(&name).map(|file| model.inodes[file].now.to_vec())
        })
    }

    fn create(&self, path: &Path, existing: Existing) -> io::Result<Box<dyn File>> {
        let name = name(path);
        let file = self.run(&format!("create {name}"), |model| model.create(&name, existing), |_| {})?;
        Ok(self.open_file(name, file))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn File>> {
        let name = name(path);
        let file = self.look(&format!("open {name}"), |model| model.inode(&name))?;
        Ok(self.open_file(name, file))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let name = name(path);
        let action = |model: &mut Model| model.create(&name, Existing::Refuse).map(|_| ());
        self.run(&format!("create_dir {name}"), action, |_| {})
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (name(from), name(to));
        let action = |model: &mut Model| {
            let file = model.inode(&from)?;
            model.change(NameChange::Rename(from.clone(), to.clone(), file));
            Ok(())
        };
        self.run(&format!("rename {from} {to}"), action, |_| {})
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let name = name(path);
        let action = |model: &mut Model| {
            model.inode(&name)?;
            model.change(NameChange::Remove(name.clone()));
            Ok(())
        };
        self.run(&format!("remove {name}"), action, |_| {})
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let last = self.0.lock().model.pending.last().map_or("nothing".into(), NameChange::describe);
        let action = |model: &mut Model| {
            let inside =
                |change: &NameChange| change.names().iter().any(|name| folder(name) == sub_folder(dir));
            let (synced, pending) = std::mem::take(&mut model.pending).into_iter().partition(inside);
            model.pending = pending;
            let synced: Vec<NameChange> = synced;
            synced.iter().for_each(|change| change.apply(&mut model.durable));
        };
        self.sync(&format!("sync_dir after {last}"), action, |_| {})
    }
}

struct CrashFile {
    fs: CrashFs,
    name: String,
    number: usize,
}

impl CrashFile {
    fn run(
        &self,
        operation: &str,
        action: impl FnOnce(&mut Inode),
        half: impl FnOnce(&mut Inode),
    ) -> io::Result<()> {
        let operation = format!("{operation} {}", self.name);
        let action = |model: &mut Model| {
            action(&mut model.inodes[self.number]);
            Ok(())
        };
        self.fs.run(&operation, action, |model| half(&mut model.inodes[self.number]))
    }

    fn sync_with(&self, operation: &str, with_cuts: bool) -> io::Result<()> {
        let operation = format!("{operation} {}", self.name);
        let action = |model: &mut Model| model.inodes[self.number].sync(with_cuts);
        self.fs.sync(&operation, action, |model| model.inodes[self.number].forget())
    }
}

impl File for CrashFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let write = |inode: &mut Inode, bytes: &[u8]| inode.write(bytes, offset as usize);
        self.run("write", |inode| write(inode, bytes), |inode| write(inode, &bytes[..bytes.len() / 2]))
    }

    fn allocate(&self, size: u64) -> io::Result<()> {
        self.run("allocate", |inode| inode.set_len(inode.now.len().max(size as usize)), |_| {})
    }

    fn set_len(&self, size: u64) -> io::Result<()> {
        self.run("set_len", |inode| inode.set_len(size as usize), |_| {})
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync_with("sync_data", false)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_with("sync", true)
    }
}

#[cfg(test)]
#[path = "crash_test.rs"]
mod tests;

//! Every file of every sound directory, cut short and with flipped bytes, without auto-recovery: nothing
//! panics, and the node either does not start or starts with the same history.
//!
//! What the format cannot tell, and what is allowed therefore:
//!
//! * **The last batch of the last open segment that has one** may be missing, and nothing else, when a byte
//!   of it is flipped: a power cut in the middle of its write leaves the same picture.
//! * **An open segment that was cut short** ends with the last batch it still holds: closing cuts it behind
//!   its last batch before it is renamed, and nothing in the file tells how many there were.
//! * **Metadata** has no checksum: a flipped byte may show as another term or vote. Entries and snapshot are
//!   the same, or the start is refused.
//! * **The content of a snapshot without compression** has no checksum, and an LZ4 frame whose magic number
//!   is gone looks like such a one. The store gives it out as it is; `db::snapshot` checks its structure.
//! * **Snapshot data of no bytes** does not count, as in C: then an older snapshot and the log have it all.
//!
//! One test in a process of its own: it starts programs, and a child holds the locks of all directories for a
//! moment.

#![allow(clippy::unwrap_used)]

use dqlite::store::fs::{Existing, File, Fs};
use dqlite::store::{AutoRecovery, Directory, Error, Loaded};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

/// Bytes of a segment before its first batch, of a batch before its entry headers, and of one of these.
const HEADER_SIZE: usize = 8;
const BATCH_HEADER_SIZE: usize = 16;
const ENTRY_HEADER_SIZE: usize = 16;

/// Places at the beginning and the end of a file, and random ones, at which it is damaged.
const PLACES: [usize; 3] = [64, 16, 40];
/// Bytes to read for each fixture; larger directories are tried less often. `DAMAGE=` multiplies it.
const BYTES: usize = 40 << 20;
/// What decompressing a byte costs in a build for tests, in bytes read.
const COMPRESSED_COST: usize = 20;
/// Zeros that are left behind the last batch of an open segment: reading 8 MiB of them takes long.
const ZEROS: usize = 4096;

/// Names and contents.
type Files = BTreeMap<String, Arc<Vec<u8>>>;

/// A directory in memory, with what start-up does to one.
#[derive(Clone)]
struct Memory(Arc<Mutex<Files>>);

struct Handle(Memory, String);

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().into()
}

impl Memory {
    fn get(&self, path: &Path) -> io::Result<Arc<Vec<u8>>> {
        self.0.lock().unwrap().get(&name(path)).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Fs for Memory {
    fn list(&self, _: &Path) -> io::Result<Vec<OsString>> {
        Ok(self.0.lock().unwrap().keys().map(OsString::from).collect())
    }
    fn size(&self, path: &Path) -> io::Result<u64> {
        self.get(path).map(|content| content.len() as u64)
    }
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.get(path).map(|content| content.to_vec())
    }
    fn create(&self, path: &Path, _: Existing) -> io::Result<Box<dyn File>> {
        self.0.lock().unwrap().insert(name(path), Arc::default());
        self.open(path)
    }
    fn open(&self, path: &Path) -> io::Result<Box<dyn File>> {
        self.get(path)?;
        Ok(Box::new(Handle(self.clone(), name(path))))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let content = self.get(from)?;
        self.remove(from)?;
        self.0.lock().unwrap().insert(name(to), content);
        Ok(())
    }
    fn create_dir(&self, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.lock().unwrap().remove(&name(path)).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
}

impl File for Handle {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut files = self.0.0.lock().unwrap();
        let content = Arc::make_mut(files.get_mut(&self.1).unwrap());
        let end = offset as usize + bytes.len();
        content.resize(content.len().max(end), 0);
        content[offset as usize..end].copy_from_slice(bytes);
        Ok(())
    }
    fn allocate(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn set_len(&self, size: u64) -> io::Result<()> {
        let mut files = self.0.0.lock().unwrap();
        Arc::make_mut(files.get_mut(&self.1).unwrap()).resize(size as usize, 0);
        Ok(())
    }
    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Random numbers, always the same ones (SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }
}

#[derive(Debug, Clone, Copy)]
enum Damage {
    Flip { at: usize, mask: u8 },
    Cut(usize),
}

fn fixtures() -> Vec<PathBuf> {
    let all = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/datadir");
    let is_sound = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.starts_with("v1_") || name.starts_with("cluster-")
    };
    let mut sound: Vec<_> =
        std::fs::read_dir(all).unwrap().map(|entry| entry.unwrap().path()).filter(is_sound).collect();
    sound.sort();
    assert!(sound.len() >= 30, "the fixtures are there");
    sound
}

fn unpack(fixture: &Path) -> Files {
    let dir = tempfile::tempdir().unwrap();
    let status = Command::new("sh")
        .args(["-c", "zstd -dcq \"$0\" | tar -xf - -C \"$1\""])
        .arg(fixture.join("data.tar.zst"))
        .arg(dir.path())
        .status()
        .unwrap();
    assert!(status.success(), "zstd and tar must be installed (make deps)");
    let paths = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Files = paths.map(|path| (name(&path), Arc::new(std::fs::read(&path).unwrap()))).collect();
    for (_, content) in files.iter_mut().filter(|(name, _)| name.starts_with("open-")) {
        let used = content.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        *content = Arc::new(content[..content.len().min(used.next_multiple_of(8) + ZEROS)].to_vec());
    }
    files
}

fn load(files: &Files, dir: &Path) -> Result<Loaded, Error> {
    let fs = Arc::new(Memory(Arc::new(Mutex::new(files.clone()))));
    Directory::open_on(fs, dir)?.lock()?.load(AutoRecovery::Off)
}

/// Where the batches of a sound segment begin and end, and how many entries each has.
fn batches(content: &[u8]) -> Vec<(usize, usize, u64)> {
    let size = |at: usize| u32::from_le_bytes(content[at..at + 4].try_into().unwrap()) as usize;
    let (mut batches, mut begin) = (Vec::new(), HEADER_SIZE);
    while begin + BATCH_HEADER_SIZE <= content.len() && size(begin + 8) > 0 {
        let count = size(begin + 8);
        let headers = begin + BATCH_HEADER_SIZE;
        let payloads: usize = (0..count).map(|entry| size(headers + entry * ENTRY_HEADER_SIZE + 12)).sum();
        let end = headers + count * ENTRY_HEADER_SIZE + payloads;
        batches.push((begin, end, count as u64));
        begin = end;
    }
    batches
}

/// At most this many damages of a file.
fn damages(len: usize, count: usize, random: &mut Random) -> Vec<Damage> {
    let [first, last, others] = PLACES;
    let mut places: BTreeSet<usize> = (0..len.min(first)).chain(len.saturating_sub(last)..len).collect();
    places.extend((0..if len > 0 { others } else { 0 }).map(|_| random.below(len as u64) as usize));
    let mut damages: Vec<_> = places.iter().map(|at| Damage::Cut(*at)).collect();
    damages.extend(places.iter().map(|at| Damage::Flip { at: *at, mask: 1 << random.below(8) }));
    while damages.len() > count {
        damages.swap_remove(random.below(damages.len() as u64) as usize);
    }
    damages
}

fn apply(content: &[u8], damage: Damage) -> Vec<u8> {
    let mut content = content.to_vec();
    match damage {
        Damage::Flip { at, mask } => content[at] ^= mask,
        Damage::Cut(len) => content.truncate(len),
    }
    content
}

/// Whether every entry up to the same last one is there, if need be as an older snapshot.
fn is_complete(loaded: &Loaded, sound: &Loaded) -> bool {
    let snapshot = |loaded: &Loaded| loaded.snapshot.as_ref().map_or(0, |snapshot| snapshot.point.index.0);
    let behind = loaded.entries.len().min(sound.entries.len());
    loaded.next_index() == sound.next_index()
        && loaded.first_index.0 <= snapshot(loaded) + 1
        && snapshot(loaded) <= snapshot(sound)
        && loaded.entries[loaded.entries.len() - behind..] == sound.entries[sound.entries.len() - behind..]
}

/// What of a loaded directory differs, or nothing.
fn difference(loaded: &Loaded, sound: &Loaded) -> Option<&'static str> {
    let point = |loaded: &Loaded| loaded.snapshot.as_ref().map(|snapshot| snapshot.point.clone());
    let content = |loaded: &Loaded| loaded.snapshot.as_ref().map(|snapshot| snapshot.content.clone());
    if (loaded.first_index, &loaded.entries) != (sound.first_index, &sound.entries) {
        Some("entries")
    } else if point(loaded) != point(sound) {
        Some("snapshot")
    } else if content(loaded) != content(sound) {
        Some("content")
    } else {
        ((loaded.term, loaded.voted_for) != (sound.term, sound.voted_for)).then_some("vote")
    }
}

/// Whether the format cannot tell this damage; see the module.
fn is_allowed(name: &str, content: &[u8], damage: Damage, loaded: &Loaded, sound: &Loaded) -> bool {
    let is_data = name.starts_with("snapshot-") && !name.ends_with(".meta");
    match (difference(loaded, sound), damage) {
        (None, _) => true,
        (Some("vote"), _) => name.starts_with("metadata"),
        (Some("content"), Damage::Flip { at, .. }) => is_data && (is_raw(content) || at < 4),
        (Some("content"), Damage::Cut(len)) => is_data && (is_raw(content) || len < 4),
        (Some(_), Damage::Cut(0)) if is_data => is_complete(loaded, sound),
        (Some("entries"), damage) if name.starts_with("open-") => {
            let batches = batches(content);
            let lost: u64 = match (damage, batches.last()) {
                (Damage::Flip { at, .. }, Some((begin, end, count))) if (*begin..*end).contains(&at) => {
                    *count
                }
                (Damage::Flip { .. }, _) => 0,
                (Damage::Cut(len), _) => {
                    batches.iter().filter(|(_, end, _)| *end > len).map(|(.., count)| count).sum()
                }
            };
            let left = sound.entries.len() - lost as usize;
            lost > 0 && loaded.first_index == sound.first_index && loaded.entries == sound.entries[..left]
        }
        _ => false,
    }
}

fn is_raw(content: &[u8]) -> bool {
    content.get(..4) != Some(&[0x04, 0x22, 0x4d, 0x18])
}

#[test]
fn a_damaged_directory_is_refused_or_has_the_same_history() {
    let (dir, mut random) = (tempfile::tempdir().unwrap(), Random(7));
    let (mut tried, mut refused) = (0, 0);
    let factor = std::env::var("DAMAGE").map_or(1, |factor| factor.parse().unwrap());
    for fixture in fixtures() {
        let files = unpack(&fixture);
        let sound = load(&files, dir.path()).unwrap();
        let content = sound.snapshot.as_ref().map_or(0, |snapshot| snapshot.content.len());
        let size: usize =
            files.values().map(|content| content.len()).sum::<usize>() + COMPRESSED_COST * content;
        let count = (BYTES * factor / (size + 1)).max(files.len() * 8) / files.len().max(1);
        for (name, content) in &files {
            for damage in damages(content.len(), count, &mut random) {
                let mut damaged = files.clone();
                damaged.insert(name.clone(), Arc::new(apply(content, damage)));
                tried += 1;
                match load(&damaged, dir.path()) {
                    Err(_) => refused += 1,
                    Ok(loaded) => assert!(
                        is_allowed(name, content, damage, &loaded, &sound),
                        "{}, {name}, {damage:?}: other {:?}; {:?}",
                        fixture.display(),
                        difference(&loaded, &sound),
                        loaded.notes
                    ),
                }
            }
        }
    }
    println!("damage: {tried} directories, {refused} refused, the others with the same history");
}

//! Mending a damaged directory with the consent of its operator: as much of snapshot and log is kept as is
//! sound and connected, and what is in the way moves into a folder `removed-N` inside the directory. Nothing
//! is deleted. Runs on the caller's thread, under the lock.
//!
//! 1. The newest snapshot that can be read is kept; newer ones move away.
//! 2. Of the closed segments the run without a gap is kept that begins at index 1, or reaches the snapshot. A
//!    damaged segment at its end is cut behind its last sound batch. What follows it moves away.
//! 3. Open segments follow a run that was not cut; of the first damaged one the sound batches stay.
//! 4. Metadata that are damaged, missing or behind the log are written anew, in a term that nobody can have
//!    been in ([`FORCED_TERM_STEP`](crate::config::FORCED_TERM_STEP)): a vote that was forgotten is none in
//!    that term.
//!
//! A server that lost entries it had acknowledged may take part in electing a leader that lacks them, too.
//! That is why a start does not do this.

use super::directory;
use super::error::{Error, describe};
use super::fs::{Disk, Fs};
use super::inspect::{Inspection, lock_if_present};
use super::list::{ClosedName, Listing, OpenName, SnapshotName};
use super::metadata::Metadata;
use super::recover::forced_term;
use super::segment::{FORMAT, Segment, Tail};
use super::snapshot;
use crate::codec::Reader;
use crate::raft::{Entry, EntryKind, Index, Term};
use bytes::Bytes;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Name of the folders for what moves away, before their number.
pub(super) const FOLDER_PREFIX: &str = "removed-";

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A file moves away as a whole.
    Move {
        /// Its name.
        file: String,
        /// Why.
        reason: String,
    },
    /// A segment keeps its sound beginning; the original moves away.
    Cut {
        /// Its name.
        file: String,
        /// Name of what is kept.
        kept: String,
        /// Bytes that are kept.
        used: usize,
        /// What is wrong behind them.
        reason: String,
    },
    /// Term and vote are written anew.
    NewTerm {
        /// The term, without a vote.
        term: Term,
        /// Why.
        reason: String,
    },
}

/// What is to be done to a directory.
pub struct Mending {
    /// In the order in which they are done: the log only ever gets shorter at its end.
    pub steps: Vec<Step>,
    /// Last index of snapshot and log afterwards.
    pub last_index: Index,
    fs: Arc<dyn Fs>,
    path: PathBuf,
    /// Kept from the look at the directory to the end of its repair, so that both see the same.
    lock: Option<directory::Lock>,
}

impl Mending {
    /// Finds out what is to be done, and changes nothing. No steps: a start loses nothing.
    pub fn plan(path: &Path) -> Result<Mending, Error> {
        Mending::plan_on(Arc::new(Disk), path)
    }

    pub(super) fn plan_on(fs: Arc<dyn Fs>, path: &Path) -> Result<Mending, Error> {
        let found = Inspection::of_on(&*fs, path)?;
        let lock = lock_if_present(path)?;
        let (steps, last_index) = (Vec::new(), Index(0));
        let mut mending = Mending { steps, last_index, fs, path: path.to_owned(), lock };
        if let Ok(contents) = &found.contents
            && !contents.is_lossy()
        {
            mending.last_index = contents.last_index;
            return Ok(mending);
        }
        let listing =
            Listing::scan(&*mending.fs, path).map_err(|e| Error::Load(describe("list", path, &e)))?;
        let snapshot = mending.snapshot(&listing);
        let fs = Arc::clone(&mending.fs);
        let mut log = Salvage::new(&*fs, path, snapshot);
        log.closed(&listing);
        log.open(&listing)?;
        mending.last_index = Index(log.next.0 - 1);
        let highest = log.highest_term;
        // The end of the log goes first.
        mending.steps.extend(log.steps.into_iter().rev());
        mending.metadata(&found.metadata, highest)?;
        Ok(mending)
    }

    fn snapshot(&mut self, listing: &Listing) -> Option<SnapshotName> {
        for name in listing.snapshots.iter().rev() {
            match snapshot::check(&*self.fs, &self.path, *name) {
                Ok(()) => return Some(*name),
                Err(reason) => {
                    for file in [name.to_string(), name.meta()] {
                        self.steps.push(Step::Move { file, reason: reason.clone() });
                    }
                }
            }
        }
        None
    }

    fn metadata(&mut self, found: &Result<Metadata, Error>, highest: Term) -> Result<(), Error> {
        let reason = match found {
            Ok(metadata) if metadata.term >= highest => return Ok(()),
            Ok(metadata) if metadata.is_absent() => "metadata1 and metadata2 are missing".into(),
            Ok(metadata) => format!("the log is at term {highest}, the metadata at {}", metadata.term),
            Err(error) => error.to_string(),
        };
        let mut term = found.as_ref().map_or(highest, |metadata| metadata.term.max(highest));
        let list = self.fs.list(&self.path);
        let folders = list.map_err(|e| Error::Load(describe("list", &self.path, &e)))?;
        for name in ["metadata1", "metadata2"] {
            // A repair that was cut off may have moved them away already.
            for folder in folders.iter().filter(|name| name.to_string_lossy().starts_with(FOLDER_PREFIX)) {
                let moved = self.fs.read(&self.path.join(folder).join(name)).ok();
                if let Some(Ok(Some(readable))) = moved.map(|content| Metadata::decode(name, content)) {
                    term = term.max(readable.term);
                }
            }
            let Ok(content) = self.fs.read(&self.path.join(name)) else { continue };
            if let Ok(Some(readable)) = Metadata::decode(name, content) {
                term = term.max(readable.term);
            }
            // Also a sound one, whose place the new term may take.
            self.steps.push(Step::Move { file: name.into(), reason: reason.clone() });
        }
        self.steps.push(Step::NewTerm { term: forced_term(term)?, reason });
        Ok(())
    }

    /// Does it, and returns the folder with what was moved away, if anything was.
    pub fn run(mut self) -> Result<Option<PathBuf>, Error> {
        if self.lock.is_none() {
            self.lock = Some(directory::lock(&self.path)?);
        }
        let moves = |step: &Step| !matches!(step, Step::NewTerm { .. });
        let aside = self.steps.iter().any(moves).then(|| self.make_folder()).transpose()?;
        for step in &self.steps {
            let done = match (step, &aside) {
                (Step::NewTerm { term, .. }, _) => self.write_term(*term)?,
                (Step::Move { file, .. }, Some(aside)) => self.set_aside(file, aside),
                (Step::Cut { file, kept, used, .. }, Some(aside)) => self.cut(file, kept, *used, aside),
                (_, None) => Ok(()),
            };
            let failed = |e: io::Error| Error::Disk(format!("{}: {e}", step.file()));
            done.and_then(|()| self.fs.sync_dir(&self.path)).map_err(failed)?;
        }
        Ok(aside)
    }

    fn make_folder(&self) -> Result<PathBuf, Error> {
        for number in 1.. {
            let folder = self.path.join(format!("{FOLDER_PREFIX}{number}"));
            // Durable before anything in it: what moved there must not go with it.
            match self.fs.create_dir(&folder).and_then(|()| self.fs.sync_dir(&self.path)) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(Error::Disk(describe("create", &folder, &e))),
                Ok(()) => return Ok(folder),
            }
        }
        unreachable!("the numbers do not end")
    }

    fn set_aside(&self, file: &str, aside: &Path) -> io::Result<()> {
        self.fs.rename(&self.path.join(file), &aside.join(file))?;
        self.fs.sync_dir(aside)
    }

    /// The original is safe before the shorter one takes its place.
    fn cut(&self, file: &str, kept: &str, used: usize, aside: &Path) -> io::Result<()> {
        let original = self.path.join(file);
        let bytes = self.fs.read(&original)?;
        directory::write_whole(&*self.fs, aside, file, &bytes)?;
        directory::write_whole(&*self.fs, &self.path, kept, &bytes[..used])?;
        if kept != file {
            self.fs.remove(&original)?;
        }
        Ok(())
    }

    fn write_term(&self, term: Term) -> Result<io::Result<()>, Error> {
        let mut metadata = Metadata::read(&*self.fs, &self.path)?;
        metadata.write(&*self.fs, &self.path, term, None).map(Ok)
    }
}

impl Step {
    /// The file that it is about.
    pub fn file(&self) -> &str {
        match self {
            Step::Move { file, .. } | Step::Cut { file, .. } => file,
            Step::NewTerm { .. } => "metadata",
        }
    }
}

/// Gives files that root created to the owner of the directory, whose node could not read them otherwise.
pub fn give_to_owner(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt, chown};
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let owner = fs::metadata(path)?;
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let found = entry.metadata()?;
        if found.uid() == 0 && owner.uid() != 0 {
            chown(entry.path(), Some(owner.uid()), Some(owner.gid()))?;
            if found.is_dir() {
                give_to_owner(&entry.path())?;
            }
        }
    }
    Ok(())
}

/// A segment as far as it is sound.
struct Sound {
    entries: Vec<Entry>,
    used: usize,
    fault: Option<String>,
}

/// Collects what of the log is kept.
struct Salvage<'a> {
    fs: &'a dyn Fs,
    path: &'a Path,
    snapshot: Option<SnapshotName>,
    /// Index behind what is kept.
    next: Index,
    /// Whether the run of closed segments ends before its files do.
    is_cut: bool,
    highest_term: Term,
    /// From the beginning of the log to its end.
    steps: Vec<Step>,
}

/// Closed segments without a gap.
struct Run {
    first: Index,
    next: Index,
    /// Term of the entry at the snapshot's index, if it has that entry.
    term_at_snapshot: Option<Term>,
    highest_term: Term,
    starts_with_change: bool,
    steps: Vec<Step>,
    is_cut: bool,
}

impl Salvage<'_> {
    fn new<'a>(fs: &'a dyn Fs, path: &'a Path, snapshot: Option<SnapshotName>) -> Salvage<'a> {
        let next = snapshot.map_or(Index(1), |name| name.index.next());
        let highest_term = snapshot.map_or(Term(0), |name| name.term);
        Salvage { fs, path, snapshot, next, is_cut: false, highest_term, steps: Vec::new() }
    }

    fn closed(&mut self, listing: &Listing) {
        let runs = self.runs(&listing.closed);
        let chosen = runs.iter().rposition(|run| self.is_usable(run));
        let next = self.next;
        for (position, run) in runs.into_iter().enumerate() {
            let is_chosen = Some(position) == chosen;
            if is_chosen {
                self.next = run.next;
                self.highest_term = self.highest_term.max(run.highest_term);
                self.steps.extend(run.steps);
                self.is_cut = run.is_cut;
            } else if chosen.is_some_and(|chosen| position > chosen) || run.next > next || run.is_cut {
                // Behind the end of what is kept, or damaged. Sound segments from before the snapshot may
                // stay: they are ignored.
                self.is_cut |= chosen.is_none_or(|chosen| position > chosen);
                let reason = "not connected with what is kept of the log";
                let files = run.steps.iter().map(|step| step.file().to_owned());
                let whole = listing.closed.iter().filter(|name| run.holds(name)).map(ClosedName::to_string);
                let mut names: Vec<String> = files.chain(whole).collect();
                names.sort();
                names.dedup();
                let moves = names.into_iter().map(|file| Step::Move { file, reason: reason.into() });
                self.steps.extend(moves);
            }
        }
    }

    fn is_usable(&self, run: &Run) -> bool {
        match self.snapshot {
            None => run.first == Index(1) && run.starts_with_change,
            Some(name) => {
                run.first <= name.index.next()
                    && run.next > name.index
                    && run.term_at_snapshot.is_none_or(|term| term == name.term)
            }
        }
    }

    fn runs(&mut self, closed: &[ClosedName]) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        for (position, name) in closed.iter().enumerate() {
            // Sorted by first, then last index. Of two with one first index the shorter one was left by a
            // truncation; the longer one is what was truncated.
            if let Some(shorter) = position.checked_sub(1).map(|before| closed[before])
                && shorter.first == name.first
            {
                let reason = format!("it was truncated to {shorter}");
                self.steps.push(Step::Move { file: name.to_string(), reason });
                continue;
            }
            let sound = self.sound_closed(*name);
            let continues = runs.last().is_some_and(|run| run.next == name.first && !run.is_cut);
            if !continues {
                runs.push(Run::new(name.first));
            }
            let run = runs.last_mut().expect("one was just added");
            run.extend(*name, sound, self.snapshot);
        }
        runs
    }

    fn sound_closed(&self, name: ClosedName) -> Sound {
        let mut sound = self.sound(&name.to_string());
        let expected = name.last.0 - name.first.0 + 1;
        let count = sound.entries.len() as u64;
        if sound.fault.is_none() && count != expected {
            sound.fault = Some(format!("found {count} entries, not the {expected} of its name"));
        }
        if count > expected {
            sound.entries.clear();
        }
        sound
    }

    /// Everything up to the first fault. Zeros at the end are none in an open segment.
    fn sound(&self, file: &str) -> Sound {
        let broken = |fault: String| Sound { entries: Vec::new(), used: 0, fault: Some(fault) };
        let bytes = match self.fs.read(&self.path.join(file)) {
            Ok(bytes) => Bytes::from(bytes),
            Err(e) => return broken(e.to_string()),
        };
        let is_open = file.starts_with("open-");
        match Reader::new(bytes.clone()).u64() {
            _ if is_open && bytes.iter().all(|byte| *byte == 0) => {
                return Sound { entries: Vec::new(), used: 0, fault: None };
            }
            Err(_) => return broken(format!("file has only {} bytes", bytes.len())),
            Ok(format) if format != FORMAT => return broken(format!("unexpected format version {format}")),
            Ok(_) => {}
        }
        let segment = Segment::parse(bytes);
        let used = segment.used;
        let fault = match &segment.tail {
            Tail::EndOfFile => None,
            Tail::Zeros if is_open => None,
            Tail::Zeros => Some(format!("zeros behind the last batch, from byte {used} on")),
            Tail::Fault { batch, fault } => {
                Some(format!("entries batch {batch} starting at byte {used}: {fault}"))
            }
        };
        Sound { entries: segment.into_entries().collect(), used, fault }
    }

    fn open(&mut self, listing: &Listing) -> Result<(), Error> {
        for name in &listing.open {
            let file = name.to_string();
            let sound = self.sound(&file);
            if self.is_cut {
                if sound.used > 0 || sound.fault.is_some() {
                    let reason = "it continues a part of the log that is not kept".into();
                    self.steps.push(Step::Move { file, reason });
                }
                continue;
            }
            let is_beginning = self.next == Index(1);
            let starts_wrong = sound.entries.first().is_some_and(|entry| entry.kind != EntryKind::Change);
            if is_beginning && starts_wrong {
                break;
            }
            self.take_open(*name, sound);
        }
        if self.next > Index(1) {
            return Ok(());
        }
        Err(Error::Load(
            "nothing can be kept: there is neither a snapshot that can be read nor the beginning of the log"
                .into(),
        ))
    }

    fn take_open(&mut self, name: OpenName, sound: Sound) {
        self.next = Index(self.next.0 + sound.entries.len() as u64);
        let terms = sound.entries.iter().map(|entry| entry.term);
        self.highest_term = terms.fold(self.highest_term, Term::max);
        let Some(reason) = sound.fault else { return };
        let file = name.to_string();
        self.is_cut = true;
        self.steps.push(match sound.entries.is_empty() {
            true => Step::Move { file, reason },
            false => Step::Cut { kept: file.clone(), file, used: sound.used, reason },
        });
    }
}

impl Run {
    fn new(first: Index) -> Run {
        Run {
            first,
            next: first,
            term_at_snapshot: None,
            highest_term: Term(0),
            starts_with_change: false,
            steps: Vec::new(),
            is_cut: false,
        }
    }

    fn holds(&self, name: &ClosedName) -> bool {
        name.first >= self.first && name.first < self.next
    }

    fn extend(&mut self, name: ClosedName, sound: Sound, snapshot: Option<SnapshotName>) {
        let position = snapshot.and_then(|snapshot| snapshot.index.0.checked_sub(self.next.0));
        if let Some(entry) = position.and_then(|position| sound.entries.get(position as usize)) {
            self.term_at_snapshot = Some(entry.term);
        }
        if self.next == self.first {
            self.starts_with_change = sound.entries.first().is_some_and(|e| e.kind == EntryKind::Change);
        }
        self.highest_term = sound.entries.iter().map(|entry| entry.term).fold(self.highest_term, Term::max);
        self.next = Index(self.next.0 + sound.entries.len() as u64);
        let Some(reason) = sound.fault else { return };
        self.is_cut = true;
        let file = name.to_string();
        self.steps.push(if sound.entries.is_empty() {
            Step::Move { file, reason }
        } else {
            let kept = ClosedName { first: name.first, last: Index(self.next.0 - 1) }.to_string();
            Step::Cut { file, kept, used: sound.used, reason }
        });
    }
}

//! A disk on which any operation fails, once or from then on, of a life as in [`super`]: reading and writing,
//! opening, renaming, syncing. An operation that fails may have been done, half or not at all.
//!
//! Whatever fails, the store ends without a panic and says what failed and on what; nothing it reported
//! durable is missing from what a process or a machine that starts again finds on a sound disk.
//!
//! `FAULT_LIVES=` sets how many lives are tried, each with every operation failing in one way at least.

use super::*;
use rustix::io::Errno;
use std::collections::BTreeSet;

const LIVES_DEFAULT: u64 = 2;
/// Requests of a life.
const STEPS: usize = 12;

/// How a life with a fault went.
struct Outcome {
    /// Operations that failed.
    failed: Vec<String>,
    /// What the store or its start said, unless it could go on.
    error: Option<String>,
    fs: CrashFs,
    expected: Expected,
}

fn life(seed: u64, dir: &Path, before: &Files, fault: Option<Fault>) -> Outcome {
    let fs = CrashFs::new(Model::new(before));
    let expected = Arc::new(Mutex::new(match before.is_empty() {
        true => Expected::of_a_new_directory(),
        false => Expected::of(&load(before, dir).unwrap()),
    }));
    fs.fail(fault);
    let points = Arc::default();
    let life = Life::start(fs.clone(), dir, Arc::clone(&expected), seed, &points);
    let error = life.and_then(|life| life.run(STEPS)).err();
    fs.fail(None);
    let expected = expected.lock().clone();
    Outcome { failed: fs.failed(), error, fs, expected }
}

/// A restart of the process, which may see what is not durable, and a restart of the machine.
fn check(outcome: &Outcome, dir: &Path, random: &mut Random) -> Result<usize, String> {
    let model = outcome.fs.model();
    let restarted = CrashFs::new(model.clone());
    let mut directory = Directory::open_on(Arc::new(restarted), dir).and_then(|directory| directory.lock());
    let loaded = directory.as_mut().map_err(|e| e.clone()).and_then(|it| it.load(AutoRecovery::Off));
    outcome.expected.check(&loaded.map_err(|e| e.to_string())?)?;
    drop(directory);
    let crashes = model.crashes(random, true);
    for fates in &crashes {
        let loaded = load(&model.after_crash(fates), dir)?;
        let found = outcome.expected.check(&loaded);
        found.map_err(|reason| format!("after a crash with\n{}{reason}", model.describe(fates)))?;
    }
    Ok(crashes.len())
}

/// Files with a snapshot and several segments, to start from.
pub(super) fn grown(seed: u64, dir: &Path) -> Files {
    let outcome = life(seed, dir, &Files::new(), None);
    assert_eq!(outcome.error, None);
    let model = outcome.fs.model();
    model.after_crash(&vec![Fate::Kept; model.writes().len()])
}

/// Whether a text names a file, or at least the directory, and the reason.
fn is_precise(error: &str, dir: &Path, errno: Errno) -> bool {
    let names = ["metadata1", "metadata2", "segment 0", "segment open-", "snapshot-", dir.to_str().unwrap()];
    error.contains(&io::Error::from(errno).to_string()) && names.iter().any(|name| error.contains(name))
}

/// Counts of what was tried.
#[derive(Default)]
struct Tried {
    lives: usize,
    /// Lives that went on as if nothing had happened.
    tolerated: usize,
    directories: usize,
    /// Kinds of operations that failed first.
    kinds: BTreeSet<String>,
}

impl Tried {
    /// One life. False if it had ended before the fault.
    fn run(&mut self, seed: u64, dir: &Path, before: &Files, fault: Fault) -> bool {
        let mut context = format!("seed {seed}, {} files, {fault:?}", before.len());
        let outcome = catch_unwind(AssertUnwindSafe(|| life(seed, dir, before, Some(fault))));
        let outcome = outcome.unwrap_or_else(|_| panic!("a panic: {context}"));
        let Some(first) = outcome.failed.first() else { return false };
        context += &format!(", {first}");
        self.kinds.insert(first.split(' ').next().unwrap().to_owned());
        self.lives += 1;
        match &outcome.error {
            None => self.tolerated += 1,
            Some(error) => assert!(is_precise(error, dir, fault.errno), "{context}: {error}"),
        }
        let checked = check(&outcome, dir, &mut Random(seed));
        self.directories += checked.unwrap_or_else(|reason| panic!("{context}: {reason}"));
        true
    }
}

#[test]
fn whatever_operation_fails_is_told_and_nothing_reported_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let mut tried = Tried::default();
    let errors = [(Errno::IO, false), (Errno::IO, true), (Errno::ROFS, true)];
    let effects = [Effect::None, Effect::Half, Effect::All];
    for seed in 1..=setting("FAULT_LIVES", LIVES_DEFAULT) {
        for before in [Files::new(), grown(seed + 1000, dir.path())] {
            for (errno, lasts) in errors {
                for (first, effect) in effects.into_iter().enumerate() {
                    // Every operation fails in one way at least.
                    let at = (first..).step_by(effects.len());
                    let mut faults = at.map(|at| Fault { at, lasts, errno, effect });
                    while tried.run(seed, dir.path(), &before, faults.next().unwrap()) {}
                }
            }
        }
    }
    let Tried { lives, tolerated, directories, kinds } = tried;
    let text = format!(
        "crash simulation: {lives} lives on a failing disk, {tolerated} not hindered by it; \
         {directories} directories\n"
    );
    // Also shown when the test passes.
    std::io::stderr().write_all(text.as_bytes()).unwrap();
    let expected = "allocate create list open read remove rename set_len size sync sync_data sync_dir write";
    assert!(kinds.iter().map(String::as_str).eq(expected.split(' ')), "{kinds:?}");
}

//! Repairs of damaged directories that are cut off at any operation by a loss of power, and repaired again.

use super::faults::grown;
use super::*;
use crate::store::mend::{Mending, Step};

const SEEDS: u64 = 4;

fn plan(fs: &CrashFs, dir: &Path) -> Result<Mending, Error> {
    Mending::plan_on(Arc::new(fs.clone()), dir)
}

/// What can become of a file.
fn damages(files: &Files) -> Vec<(String, Files)> {
    let mut all = Vec::new();
    for (name, content) in files {
        let used = content.iter().rposition(|byte| *byte != 0).unwrap_or(0);
        let mut add = |what: &str, content: Option<Vec<u8>>| {
            let mut damaged = files.clone();
            match content {
                Some(content) => damaged.insert(name.clone(), Arc::new(content)),
                None => damaged.remove(name),
            };
            all.push((format!("{name} {what}"), damaged));
        };
        for part in 1..4 {
            let mut flipped = content.to_vec();
            if let Some(byte) = flipped.get_mut(used * part / 3) {
                *byte ^= 0x10;
            }
            add(&format!("flipped at {part}/3"), Some(flipped));
        }
        add("cut", Some(content[..used / 2].to_vec()));
        add("gone", None);
    }
    all
}

/// Every file is there, whatever its name, unless it was never finished.
fn assert_kept(before: &Files, after: &Files, context: &str) {
    for (name, content) in before.iter().filter(|(name, _)| !name.starts_with("tmp-")) {
        assert!(after.values().any(|kept| kept == content), "{context}: {name} is gone");
    }
}

/// The number of crash points, and of directories after a crash.
fn explore(before: &Files, dir: &Path, damage: &str) -> (usize, usize) {
    let fs = CrashFs::new(Model::new(before));
    let mending = plan(&fs, dir).unwrap();
    let last = mending.last_index;
    let points = Arc::new(Mutex::new(Vec::new()));
    let taken = Arc::clone(&points);
    fs.before_each(move |operation, model| taken.lock().push((operation.to_owned(), model.clone())));
    mending.run().unwrap();
    points.lock().push(("the end".into(), fs.model()));
    let (mut random, mut count) = (Random(1), 0);
    let points = points.lock();
    for (operation, model) in &*points {
        for fates in model.crashes(&mut random, false) {
            count += 1;
            let context = format!("{damage}, before {operation}:\n{}", model.describe(&fates));
            let found = model.after_crash(&fates);
            assert_kept(before, &found, &context);
            let fs = CrashFs::new(Model::new(&found));
            let again = plan(&fs, dir).unwrap_or_else(|e| panic!("{context}: {e}"));
            assert_eq!(again.last_index, last, "{context}");
            again.run().unwrap();
            let model = fs.model();
            let repaired = model.after_crash(&vec![Fate::Lost; model.writes().len()]);
            assert_kept(before, &repaired, &context);
            let after = CrashFs::new(Model::new(&repaired));
            let left = plan(&after, dir).unwrap();
            assert!(left.steps.is_empty(), "{context}: there is more to do: {:?}", left.steps);
            drop(left);
            let loaded = load(&repaired, dir).unwrap_or_else(|e| panic!("{context}: {e}"));
            assert_eq!(loaded.next_index(), last.next(), "{context}");
        }
    }
    (points.len(), count)
}

#[test]
fn a_repair_that_is_cut_off_anywhere_is_finished_by_the_next_one_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (mut repairs, mut points, mut directories) = (0, 0, 0);
    for seed in 1..=SEEDS {
        for (damage, before) in damages(&grown(seed, dir.path())) {
            let planned = plan(&CrashFs::new(Model::new(&before)), dir.path());
            // Nothing to do, or nothing to keep.
            if !planned.is_ok_and(|mending| !mending.steps.is_empty()) {
                continue;
            }
            let (tried, found) = explore(&before, dir.path(), &format!("seed {seed}, {damage}"));
            (repairs, points, directories) = (repairs + 1, points + tried, directories + found);
        }
    }
    let text =
        format!("crash simulation: {repairs} repairs, {points} crash points, {directories} directories\n");
    // Also shown when the test passes.
    std::io::stderr().write_all(text.as_bytes()).unwrap();
    assert!(repairs > 15 && points > 100, "{text}");
}

#[test]
fn a_term_that_a_repair_moved_away_is_not_used_again() {
    let dir = tempfile::tempdir().unwrap();
    let server = Some(ServerId(1));
    let voted_in = Term(50_000_000);
    let mut directory = Directory::open(dir.path()).unwrap().lock().unwrap();
    directory.bootstrap(&configuration()).unwrap();
    directory.recover(&configuration(), AutoRecovery::Off).unwrap();
    let mut metadata = directory.metadata();
    metadata.write(&crate::store::fs::Disk, dir.path(), voted_in, server).unwrap();
    drop(directory);
    // The repair is cut off when both files have moved.
    std::fs::create_dir(dir.path().join("removed-2")).unwrap();
    for name in ["metadata1", "metadata2"] {
        std::fs::rename(dir.path().join(name), dir.path().join("removed-2").join(name)).unwrap();
    }
    let mending = Mending::plan(dir.path()).unwrap();
    let Some(Step::NewTerm { term, .. }) = mending.steps.last() else { panic!("{:?}", mending.steps) };
    assert!(*term > voted_in, "{term}");
}

//! Many seeds, and known defects that they must find.

use super::{Summary, World};
use crate::{in_parallel, number};
use dqlite::vfs::Bug;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// With so many failures no more seeds are begun.
const FAILURES_MAX: usize = 5;
const REPORT_EVERY: Duration = Duration::from_secs(5);

/// A panic of anything that is real is a failure like any other.
fn run(world: &mut World) -> Result<Summary, String> {
    catch_unwind(AssertUnwindSafe(|| world.run())).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string()));
        Err(format!("panicked: {}", text.unwrap_or_default()))
    })
}

fn run_seed(seed: u64, tenths: u64) -> Result<Summary, String> {
    let first = run(&mut World::new(seed, tenths, None, false))?;
    if number("SIM_ONCE", 0) == 1 {
        return Ok(first);
    }
    let second = run(&mut World::new(seed, tenths, None, false))?;
    if first != second {
        return Err(format!("not deterministic: {first:?} then {second:?}"));
    }
    Ok(first)
}

fn write_trace(seed: u64, tenths: u64, bug: Option<Bug>) -> String {
    let mut world = World::new(seed, tenths, bug, true);
    let result = run(&mut world);
    let path = format!("{}/sim-databases-{seed}.txt", env!("CARGO_TARGET_TMPDIR"));
    let mut lines = world.trace.take().unwrap_or_default();
    lines.push(format!("{result:?}"));
    std::fs::write(&path, lines.join("\n") + "\n").unwrap();
    let tail = lines.len().saturating_sub(25);
    format!("{path}\n{}", lines[tail..].join("\n"))
}

#[test]
fn no_seed_breaks_a_promise_of_the_databases() {
    let tenths = number("SIM_DB_TENTHS", 10);
    if std::env::var_os("SIM_DB_SEED").is_some() {
        let seed = number("SIM_DB_SEED", 0);
        let trace = write_trace(seed, tenths, None);
        let result = run_seed(seed, tenths);
        println!("{trace}\n{result:?}");
        assert!(result.is_ok(), "seed {seed}: {result:?}");
        return;
    }
    let (first, runs) = (number("SIM_DB_FIRST", 1), number("SIM_DB_RUNS", 4));
    let begin = Instant::now();
    let state = Mutex::new((Summary::default(), Vec::new(), 0, Instant::now()));
    in_parallel(first..first + runs, |seed| {
        if state.lock().unwrap().1.len() >= FAILURES_MAX {
            return;
        }
        let result = run_seed(seed, tenths);
        let mut state = state.lock().unwrap();
        let (total, failures, done, reported) = &mut *state;
        *done += 1;
        match result {
            Ok(summary) => total.add(&summary),
            Err(why) => {
                println!("sim: databases: seed {seed} FAILED: {why}");
                failures.push((seed, why));
            }
        }
        if reported.elapsed() >= REPORT_EVERY {
            *reported = Instant::now();
            println!("sim: databases: {done} of {runs} seeds, {} failed", failures.len());
        }
    });
    let (total, mut failures, done, _) = state.into_inner().unwrap();
    let times = if number("SIM_ONCE", 0) == 1 { "once" } else { "twice" };
    println!(
        "sim: databases: seeds {first} to {}: {done} done, each {times}, {} failed; {:.1} simulated minutes, \
         {} events, {:.0} s, fingerprint {:016x}\nsim: databases: {:?}",
        first + runs - 1,
        failures.len(),
        total.simulated_us as f64 / 6e7,
        total.events,
        begin.elapsed().as_secs_f64(),
        total.hash,
        total.counts
    );
    failures.sort();
    if let Some((seed, why)) = failures.first() {
        let others: Vec<u64> = failures.iter().map(|(seed, _)| *seed).collect();
        let trace = write_trace(*seed, tenths, None);
        panic!("seeds {others:?} failed; SIM_DB_SEED={seed} SIM_DB_TENTHS={tenths}: {why}\n{trace}");
    }
}

/// `SIM_DB_BUG=AnswerAtAppend` tries this one only, and with `SIM_DB_SEED=7` traces that seed.
#[cfg(feature = "planted-bugs")]
#[test]
fn every_planted_bug_of_the_databases_is_found() {
    /// How many seeds may be needed.
    const SEEDS: u64 = 60;
    let tenths = number("SIM_DB_TENTHS", 10);
    let seeds = number("SIM_DB_BUG_SEEDS", SEEDS);
    let only = std::env::var("SIM_DB_BUG").ok();
    let is_wanted =
        |bug: &Bug| only.as_ref().is_none_or(|only| only.split(',').any(|o| o == format!("{bug:?}")));
    let bugs: Vec<Bug> = Bug::ALL.iter().copied().filter(is_wanted).collect();
    if let ([bug], Some(_)) = (&bugs[..], std::env::var_os("SIM_DB_SEED")) {
        println!("{}", write_trace(number("SIM_DB_SEED", 0), tenths, Some(*bug)));
        return;
    }
    std::panic::set_hook(Box::new(|_| {}));
    let missed = Mutex::new(Vec::new());
    in_parallel(0..bugs.len() as u64, |n| {
        let bug = bugs[n as usize];
        let found = (1..=seeds).find_map(|seed| {
            let result = run(&mut World::new(seed, tenths, Some(bug), false));
            result.err().map(|why| (seed, why.chars().take(160).collect::<String>()))
        });
        match found {
            Some((seed, why)) => println!("databases, {bug:?}: seed {seed}: {why}"),
            None => missed.lock().unwrap().push(bug),
        }
    });
    drop(std::panic::take_hook());
    let missed = missed.into_inner().unwrap();
    assert!(missed.is_empty(), "not found with {seeds} seeds: {missed:?}");
}

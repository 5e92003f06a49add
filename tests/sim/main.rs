//! The deterministic simulator of the Raft core: several servers with model disks, clocks and a model
//! network, in which everything goes wrong that may. One seed decides everything; each run is made twice and
//! compared.
//!
//! `SIM_SEED=7` runs one seed and writes its trace, one line an event, to `target/tmp/sim-7.txt`.
//! `SIM_RUNS=1000` runs that many seeds, from `SIM_FIRST` on. `SIM_SECONDS=60` is how long faults last in
//! each of them, in simulated time.

// A broken run ends the test; that is what a panic is for here.
#![allow(clippy::unwrap_used)]

mod check;
mod describe;
mod disk;
mod history;
#[cfg(feature = "planted-bugs")]
mod planted;
mod random;
mod settings;
mod world;

use dqlite::raft::Bug;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use world::{Summary, World};

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// Runs a world to its end. A panic of the core is a failure like any other.
fn run(world: &mut World) -> Result<Summary, String> {
    catch_unwind(AssertUnwindSafe(|| world.run())).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string()));
        Err(format!("panicked: {}", text.unwrap_or_default()))
    })
}

/// Runs a seed twice.
fn run_seed(seed: u64, seconds: u64, bug: Option<Bug>) -> Result<Summary, String> {
    let first = run(&mut World::new(seed, seconds, bug, false))?;
    let second = run(&mut World::new(seed, seconds, bug, false))?;
    if first != second {
        return Err(format!("not deterministic: {first:?} then {second:?}"));
    }
    Ok(first)
}

/// Runs a failing seed again and keeps what happened.
fn write_trace(seed: u64, seconds: u64, bug: Option<Bug>) -> String {
    let mut world = World::new(seed, seconds, bug, true);
    let result = run(&mut world);
    let path = format!("{}/sim-{seed}.txt", env!("CARGO_TARGET_TMPDIR"));
    let mut lines = world.trace.take().unwrap_or_default();
    lines.push(format!("{result:?}"));
    std::fs::write(&path, lines.join("\n") + "\n").unwrap();
    let tail = lines.len().saturating_sub(25);
    format!("{path}\n{}", lines[tail..].join("\n"))
}

/// Calls `work` with every number of the range, on `SIM_THREADS` threads.
fn in_parallel(range: std::ops::Range<u64>, work: impl Fn(u64) + Sync) {
    let next = AtomicU64::new(range.start);
    std::thread::scope(|scope| {
        for _ in 0..number("SIM_THREADS", 2) {
            scope.spawn(|| {
                loop {
                    match next.fetch_add(1, Ordering::Relaxed) {
                        number if number < range.end => work(number),
                        _ => return,
                    }
                }
            });
        }
    });
}

#[test]
fn no_seed_breaks_a_promise() {
    let seconds = number("SIM_SECONDS", 10);
    if std::env::var_os("SIM_SEED").is_some() {
        let seed = number("SIM_SEED", 0);
        let trace = write_trace(seed, seconds, None);
        let result = run_seed(seed, seconds, None);
        println!("{trace}\n{result:?}");
        assert!(result.is_ok(), "seed {seed}: {result:?}");
        return;
    }
    let (first, runs) = (number("SIM_FIRST", 1), number("SIM_RUNS", 20));
    let failures = Mutex::new(Vec::new());
    let total = Mutex::new(Summary::default());
    in_parallel(first..first + runs, |seed| {
        if failures.lock().unwrap().len() >= 5 {
            return;
        }
        match run_seed(seed, seconds, None) {
            Ok(summary) => total.lock().unwrap().add(&summary),
            Err(why) => failures.lock().unwrap().push((seed, why)),
        }
    });
    println!("sim: {runs} seeds from {first}: {:?}", total.lock().unwrap());
    let mut failures = failures.into_inner().unwrap();
    failures.sort();
    if let Some((seed, why)) = failures.first() {
        let others: Vec<u64> = failures.iter().map(|(seed, _)| *seed).collect();
        panic!("seeds {others:?} failed; SIM_SEED={seed}: {why}\n{}", write_trace(*seed, seconds, None));
    }
}

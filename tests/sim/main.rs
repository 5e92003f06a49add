//! The deterministic simulator of the Raft core: several servers with model disks, clocks and a model
//! network, in which everything goes wrong that may. One seed decides everything; each run is made twice and
//! compared.
//!
//! `SIM_SEED=7` runs one seed and writes its trace, one line an event, to `target/tmp/sim-7.txt`.
//! `SIM_RUNS=1000` runs that many seeds, from `SIM_FIRST` on, on `SIM_THREADS` threads. `SIM_SECONDS=60` is
//! how long faults last in each of them, in simulated time. `SIM_ONCE=1` runs each seed once. `make check`
//! and `make sim-long` run them optimised, with the settings of cargo in `optimised.toml`. A seed means the
//! same world there, if both builds have the feature `planted-bugs` or neither has: with it, some servers
//! vote as C's do.

// A broken run ends the test; that is what a panic is for here.
#![allow(clippy::unwrap_used)]

mod check;
mod databases;
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
use std::time::{Duration, Instant};
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

/// Runs a seed twice; once with `SIM_ONCE=1`.
fn run_seed(seed: u64, seconds: u64, bug: Option<Bug>) -> Result<Summary, String> {
    let first = run(&mut World::new(seed, seconds, bug, false))?;
    if number("SIM_ONCE", 0) == 1 {
        return Ok(first);
    }
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
    let processors = std::thread::available_parallelism().map_or(2, |count| count.get() as u64);
    std::thread::scope(|scope| {
        for _ in 0..number("SIM_THREADS", processors) {
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
    let progress = Mutex::new(Progress::new(first, runs, seconds));
    in_parallel(first..first + runs, |seed| {
        if progress.lock().unwrap().failures.len() < FAILURES_MAX {
            let result = run_seed(seed, seconds, None);
            progress.lock().unwrap().finished(seed, result);
        }
    });
    let mut progress = progress.into_inner().unwrap();
    println!("sim: {}", progress.summary());
    progress.failures.sort();
    if let Some((seed, why)) = progress.failures.first() {
        let others: Vec<u64> = progress.failures.iter().map(|(seed, _)| *seed).collect();
        panic!("seeds {others:?} failed; SIM_SEED={seed}: {why}\n{}", write_trace(*seed, seconds, None));
    }
}

/// With so many failures no more seeds are begun.
const FAILURES_MAX: usize = 5;

/// How often it is told how far a simulation is.
const REPORT_EVERY: Duration = Duration::from_secs(5);

/// How far a simulation of many seeds is.
struct Progress {
    first: u64,
    runs: u64,
    /// Asked for in each seed.
    seconds: u64,
    begin: Instant,
    reported: Instant,
    done: u64,
    total: Summary,
    failures: Vec<(u64, String)>,
}

impl Progress {
    fn new(first: u64, runs: u64, seconds: u64) -> Progress {
        let (begin, reported) = (Instant::now(), Instant::now());
        Progress {
            first,
            runs,
            seconds,
            begin,
            reported,
            done: 0,
            total: Summary::default(),
            failures: Vec::new(),
        }
    }

    fn finished(&mut self, seed: u64, result: Result<Summary, String>) {
        self.done += 1;
        match result {
            Ok(summary) => self.total.add(&summary),
            Err(why) => {
                let feature = if cfg!(feature = "planted-bugs") { " --features planted-bugs" } else { "" };
                println!("sim: seed {seed} FAILED: {why}");
                println!(
                    "sim: SIM_SEED={seed} SIM_SECONDS={} cargo test --config tests/sim/optimised.toml\
                     {feature} --test sim -- --nocapture --exact no_seed_breaks_a_promise",
                    self.seconds
                );
                self.failures.push((seed, why));
            }
        }
        if self.reported.elapsed() >= REPORT_EVERY {
            self.reported = Instant::now();
            self.report();
        }
    }

    fn report(&self) {
        let (Progress { first, runs, done, .. }, elapsed) = (self, self.begin.elapsed().as_secs_f64());
        let rate = *done as f64 / elapsed;
        let left = ((runs - done) as f64 / rate) as u64;
        println!(
            "sim: {done} of {runs} seeds from {first} on, {:.1} simulated hours, {rate:.1} seeds/s, {} h \
             {:02} min {:02} s left, {} failed",
            self.total.simulated_us as f64 / 3.6e9,
            left / 3600,
            left / 60 % 60,
            left % 60,
            self.failures.len()
        );
    }

    /// What all seeds together went through. The fingerprint tells whether two machines did the same.
    fn summary(&self) -> String {
        let Summary {
            hash,
            events,
            appends,
            reads,
            leaders,
            changes,
            transfers,
            installations,
            simulated_us,
            ref counts,
        } = self.total;
        let times = if number("SIM_ONCE", 0) == 1 { "once" } else { "twice" };
        format!(
            "seeds {} to {}: {} done, each {times}, {} failed; {:.1} simulated hours, {events} events, \
             {leaders} elections, {appends} appends, {reads} reads, {installations} snapshots installed, \
             {changes} changes, {transfers} transfers, {:.0} s, fingerprint {hash:016x}\n\
             sim: {counts:?}",
            self.first,
            self.first + self.runs - 1,
            self.done,
            self.failures.len(),
            simulated_us as f64 / 3.6e9,
            self.begin.elapsed().as_secs_f64(),
        )
    }
}

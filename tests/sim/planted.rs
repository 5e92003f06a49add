//! Every known defect must be found: proof that the simulator looks where it has to.
//!
//! `cargo test --config tests/sim/optimised.toml --features planted-bugs --test sim`;
//! `SIM_BUG=VoteTwice,HalfIsQuorum` tries these only, `SIM_BUG_SEEDS=1000` that many seeds, and
//! `SIM_BUG=VoteTwice SIM_SEED=7` traces that seed.

use crate::world::{Summary, World};
use crate::{in_parallel, number, run, write_trace};
use dqlite::raft::Bug;
use std::sync::Mutex;

/// How many seeds may be needed. The slowest one takes 172.
const SEEDS: u64 = 1000;

/// The first seed up to `seeds` that fails with the defect, and why.
fn find(bug: Bug, seeds: u64, seconds: u64) -> Option<(u64, String)> {
    (1..=seeds).find_map(|seed| {
        let result: Result<Summary, String> = run(&mut World::new(seed, seconds, Some(bug), false));
        result.err().map(|why| (seed, why.lines().next().unwrap_or_default().chars().take(120).collect()))
    })
}

#[test]
fn every_planted_bug_is_found() {
    let seconds = number("SIM_SECONDS", 20);
    let seeds = number("SIM_BUG_SEEDS", SEEDS);
    let only = std::env::var("SIM_BUG").ok();
    if let Some(bug) =
        Bug::ALL.iter().find(|bug| only.as_ref().is_some_and(|only| *only == format!("{bug:?}")))
        && std::env::var_os("SIM_SEED").is_some()
    {
        println!("{}", write_trace(number("SIM_SEED", 0), seconds, Some(*bug)));
        return;
    }
    std::panic::set_hook(Box::new(|_| {}));
    let bugs: Vec<Bug> = Bug::ALL
        .iter()
        .copied()
        .filter(|bug| only.as_ref().is_none_or(|only| only.split(',').any(|o| o == format!("{bug:?}"))))
        .collect();
    let missed = Mutex::new(Vec::new());
    in_parallel(0..bugs.len() as u64, |n| {
        let bug = bugs[n as usize];
        match find(bug, seeds, seconds) {
            Some((seed, why)) => println!("{bug:?}: seed {seed}: {why}"),
            None => missed.lock().unwrap().push(bug),
        }
    });
    drop(std::panic::take_hook());
    let missed = missed.into_inner().unwrap();
    assert!(missed.is_empty(), "not found with {seeds} seeds: {missed:?}");
}

//! What kind of world of databases a seed makes.

use crate::random::Random;
use crate::settings::{address_of, id_of};
use dqlite::raft::{Options, TrailingStrategy};

#[derive(Debug, Clone)]
pub struct Settings {
    pub nodes: usize,
    /// The last server does not vote.
    pub standby: bool,
    pub election_ms: u64,
    pub threshold: u64,
    pub trailing: u64,
    /// Of the log, in bytes; entries have some 4 to 100 KiB.
    pub log_memory: u64,
    /// How long faults last.
    pub duration_us: u64,
    pub delay_us: (u64, u64),
    pub sync_us: (u64, u64),
    /// Until the Raft thread comes to a request.
    pub take_us: (u64, u64),
    pub loss: u64,
    pub fault_us: (u64, u64),
    pub clients: usize,
    /// Time a client waits between requests.
    pub think_us: (u64, u64),
    /// How many requests in a thousand belong to transactions of several requests.
    pub interactive: u64,
    /// How long a writer waits for somebody's open transaction: not at all, or for ever.
    pub patient: bool,
    /// Committed frames after which databases checkpoint.
    pub checkpoint: u32,
    /// Readers on each server, whether it leads or not.
    pub readers: usize,
    /// How long these keep a transaction open.
    pub held_us: u64,
}

impl Settings {
    pub fn draw(random: &mut Random, seconds_tenths: u64) -> Settings {
        let election_ms = random.one_of(&[40, 60, 100, 200]);
        let election_us = election_ms * 1000;
        let nodes = random.one_of(&[1, 1, 2, 3, 3, 3, 3, 3, 4, 5]) as usize;
        let clients = random.one_of(&[1, 3, 8, 24, 64]) as usize;
        let slow = random.permille(500);
        Settings {
            nodes,
            standby: nodes >= 4 && random.permille(500),
            election_ms,
            threshold: random.one_of(&[5, 30, 200, 5000]),
            trailing: random.one_of(&[0, 10, 100]),
            log_memory: random.one_of(&[0, 50_000, 16 << 20]),
            duration_us: seconds_tenths * 100_000,
            delay_us: if slow { (500, election_us / 6) } else { (50, 1500) },
            sync_us: if random.permille(500) { (1000, election_us / 4) } else { (50, 2000) },
            take_us: random.one_of(&[(1, 40), (1, 40), (200, 3000)]),
            loss: random.one_of(&[0, 0, 10, 50]),
            fault_us: random.one_of(&[(election_us / 8, 2 * election_us), (election_us, 6 * election_us)]),
            clients,
            think_us: if clients > 8 { (1000, 40_000) } else { (20, random.one_of(&[200, 5000])) },
            interactive: random.one_of(&[0, 30, 150, 400]),
            patient: random.permille(600),
            checkpoint: random.one_of(&[1, 10, 100, 1000]) as u32,
            readers: random.between(1, 3) as usize,
            held_us: random.one_of(&[5_000, 100_000]),
        }
    }

    pub fn options(&self, node: usize) -> Options {
        Options {
            id: id_of(node),
            address: address_of(node),
            election_timeout_ms: self.election_ms,
            heartbeat_timeout_ms: self.election_ms / 6,
            snapshot_threshold: self.threshold,
            snapshot_trailing: self.trailing,
            trailing_strategy: TrailingStrategy::Static,
            log_memory_bytes: self.log_memory as usize,
        }
    }
}

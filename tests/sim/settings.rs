//! What kind of world a seed makes.

use crate::random::Random;
use dqlite::raft::{Options, ServerId, TrailingStrategy};

#[derive(Debug, Clone)]
pub struct Settings {
    pub nodes: usize,
    /// Whether all servers begin as voters, or the first one alone.
    pub together: bool,
    /// Which servers behave like C's towards leases.
    pub plain: Vec<bool>,
    pub election_ms: u64,
    pub heartbeat_ms: u64,
    pub threshold: u64,
    pub trailing: u64,
    /// Memory of the log; most entries take some 64 bytes.
    pub log_memory: u64,
    /// How many reads of old entries in a thousand fail, and as many find something else.
    pub bad_reads: u64,
    /// How long faults last.
    pub duration_us: u64,
    pub delay_us: (u64, u64),
    pub loss: u64,
    pub duplication: u64,
    /// How many messages in a thousand arrive when much else has happened.
    pub late: u64,
    pub sync_us: (u64, u64),
    /// Time between faults.
    pub fault_us: (u64, u64),
    /// Time between changes of the configuration; none if the upper bound is 0.
    pub admin_us: (u64, u64),
    /// Time a client waits between operations.
    pub think_us: (u64, u64),
    pub clients: usize,
    /// How many operations in a thousand are appends.
    pub appends: u64,
    /// Parts in a million by which a clock may be off.
    pub drift: u64,
    /// A world made to break leases: quick, with clocks far apart, and all faults aimed at the leader.
    pub coups: bool,
    /// How many of these faults in a thousand are transfers of the leadership.
    pub transfers: u64,
}

impl Settings {
    pub fn draw(random: &mut Random, seconds: u64) -> Settings {
        let election_ms = random.one_of(&[60, 150, 150, 300, 300, 1000]);
        let election_us = election_ms * 1000;
        let nodes = random.one_of(&[2, 3, 3, 3, 4, 5, 5, 7]) as usize;
        let slow_network = random.permille(300);
        let slow_disk = random.permille(200);
        let calm = random.permille(200);
        let mixed = random.permille(200);
        if random.permille(300) {
            return Settings::with_coups(random, seconds);
        }
        Settings {
            nodes,
            together: random.permille(600),
            plain: (0..nodes).map(|_| mixed && random.permille(500)).collect(),
            election_ms,
            heartbeat_ms: election_ms / random.one_of(&[3, 6, 10]),
            threshold: random.one_of(&[4, 16, 64, 1000]),
            trailing: random.one_of(&[0, 4, 16, 64]),
            log_memory: random.one_of(&[0, 0, 100, 1000, 1000, 1 << 20]),
            bad_reads: random.one_of(&[0, 10, 200]),
            duration_us: seconds * 1_000_000,
            delay_us: if slow_network { (200, election_us / 6) } else { (50, 2000) },
            loss: random.one_of(&[0, 0, 10, 50, 150]),
            duplication: random.one_of(&[0, 10, 100]),
            late: random.one_of(&[4, 4, 4, 50]),
            sync_us: if slow_disk { (1000, election_us / 3) } else { (50, 3000) },
            fault_us: if calm { (election_us, 20 * election_us) } else { (election_us / 8, 3 * election_us) },
            admin_us: random.one_of(&[(0, 0), (election_us, 8 * election_us), (1000, election_us)]),
            think_us: random.one_of(&[(100, 5000), (1000, election_us / 4)]),
            clients: random.between(1, 6) as usize,
            appends: 550,
            drift: random.one_of(&[0, 1000, 50_000]),
            coups: false,
            transfers: 0,
        }
    }

    fn with_coups(random: &mut Random, seconds: u64) -> Settings {
        let mixed = random.permille(300);
        Settings {
            nodes: 3,
            together: true,
            plain: (0..3).map(|_| mixed && random.permille(500)).collect(),
            election_ms: 1000,
            heartbeat_ms: 100,
            threshold: 1000,
            trailing: 64,
            log_memory: random.one_of(&[0, 1000, 1 << 20]),
            bad_reads: 10,
            duration_us: seconds * 1_000_000,
            delay_us: (50, 500),
            loss: 0,
            duplication: 0,
            late: 4,
            sync_us: (50, 300),
            fault_us: (100_000, 1_500_000),
            admin_us: (0, 0),
            think_us: (1000, 60_000),
            clients: 3,
            appends: random.one_of(&[10, 300]),
            drift: 50_000,
            coups: true,
            transfers: random.one_of(&[200, 200, 700]),
        }
    }

    pub fn options(&self, node: usize) -> Options {
        Options {
            id: id_of(node),
            address: address_of(node),
            election_timeout_ms: self.election_ms,
            heartbeat_timeout_ms: self.heartbeat_ms,
            snapshot_threshold: self.threshold,
            snapshot_trailing: self.trailing,
            trailing_strategy: TrailingStrategy::Static,
            log_memory_bytes: self.log_memory as usize,
        }
    }
}

pub fn id_of(node: usize) -> ServerId {
    ServerId(node as u64 + 1)
}

pub fn node_of(id: ServerId) -> usize {
    id.0 as usize - 1
}

pub fn address_of(node: usize) -> String {
    format!("s{}", node + 1)
}

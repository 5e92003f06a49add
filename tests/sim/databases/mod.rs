//! The simulator of the databases: each server has, beside the core, the real thing from the VFS up to the
//! sessions. Clients execute real SQL on whoever believes to lead, on top of what is not committed yet, while
//! leaders change, crash, are cut off or run out of disk; readers on every server look on all the time.
//!
//! What is real: SQLite, `vfs`, `db` and `node::applier`. What is not: time, disks, the network, and the
//! driver around the core, whose order of doing things `server.rs` repeats. Sessions are polled by hand, each
//! some time after it was woken, so that one seed decides everything here, too.
//!
//! `SIM_DB_SEED=7` runs one seed and writes its trace; `SIM_DB_RUNS=`, `SIM_DB_FIRST=`, `SIM_DB_TENTHS=` (how
//! long faults last, in tenths of a simulated second) and `SIM_ONCE=1` are as for the simulator of the core.

mod campaign;
mod clients;
mod faults;
mod readers;
mod recovery;
mod reference;
mod server;
mod settings;

use crate::check::Checker;
use crate::random::Random;
use crate::settings::{address_of, id_of};
use bytes::Bytes;
use clients::Client;
use dqlite::raft::{
    Configuration, Entry, EntryKind, Index, Message, Role, Server as Member, ServerId, SnapshotPoint, State,
    Term, Token,
};
use dqlite::vfs::Bug;
use readers::Reader;
use reference::{NAMES, Reference, setup_command};
use server::Server;
use settings::Settings;
use std::collections::BTreeMap;
use std::time::Duration;

/// Events in a run, beyond which something goes round in circles.
const EVENTS_MAX: u64 = 2_000_000;

/// What became of a value that somebody wanted to be in `log`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Unknown,
    Acknowledged,
    /// It was said not to have been executed.
    Refused,
}

#[derive(Debug, Clone)]
enum Event {
    Tick { node: usize, life: u64, time: u64 },
    Deliver { from: usize, to: usize, message: Message },
    ConnectionLost { node: usize, leader: usize },
    Unreachable { node: usize, life: u64, peer: usize },
    Synced { node: usize, life: u64 },
    SnapshotRead { node: usize, life: u64, point: SnapshotPoint, content: Bytes },
    SnapshotWritten { node: usize, life: u64, point: SnapshotPoint, content: Bytes },
    EntriesRead { node: usize, life: u64, to: ServerId, range: (Index, Index) },
    SnapshotSent { node: usize, life: u64, to: ServerId, ok: bool },
    Requests { node: usize, life: u64 },
    Retry { node: usize, life: u64 },
    Checkpoint { node: usize },
    Client { client: usize },
    Poll { client: usize, node: usize },
    HangUp { client: usize, request: u64 },
    PeriodEnded { client: usize, node: usize, session: u64 },
    Reader { reader: usize, node: usize },
    Fault,
    Restart { node: usize },
    Recover,
    CheckRecovery,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Summary {
    /// Of everything that happened.
    pub hash: u64,
    pub events: u64,
    pub simulated_us: u64,
    /// How often what happened.
    pub counts: BTreeMap<&'static str, u64>,
}

impl Summary {
    pub fn add(&mut self, other: &Summary) {
        self.hash ^= other.hash;
        self.events += other.events;
        self.simulated_us += other.simulated_us;
        for (what, count) in &other.counts {
            *self.counts.entry(what).or_default() += count;
        }
    }
}

pub struct World {
    // Whatever uses the databases of a server goes before it.
    clients: Vec<Client>,
    readers: Vec<Reader>,
    servers: Vec<Server>,
    random: Random,
    settings: Settings,
    now: u64,
    order: u64,
    events: BTreeMap<(u64, u64), Event>,
    /// Until when nothing gets from one server to another.
    blocked: Vec<Vec<u64>>,
    checker: Checker,
    reference: Reference,
    /// Of the values in each database.
    fates: [BTreeMap<u64, Fate>; NAMES.len()],
    /// How many rows of `log` in each database a client was told of.
    told: [i64; NAMES.len()],
    next_number: u64,
    recovering: bool,
    /// Where sessions wait for a timeout. Its clock is the simulation's.
    runtime: tokio::runtime::Runtime,
    bug: Option<Bug>,
    summary: Summary,
    failure: Option<String>,
    pub trace: Option<Vec<String>>,
}

macro_rules! trace {
    ($world:expr, $($arg:tt)*) => {
        if $world.trace.is_some() {
            $world.note(format_args!($($arg)*).to_string());
        }
    };
}
use trace;

impl World {
    pub fn new(seed: u64, tenths: u64, bug: Option<Bug>, traced: bool) -> World {
        dqlite::sqlite::initialize().expect("SQLite can be used");
        let mut random = Random::new(seed);
        let settings = Settings::draw(&mut random, tenths);
        let bootstrap = bootstrap(&settings);
        let mut world = World {
            clients: (0..settings.clients).map(|_| Client::default()).collect(),
            readers: Vec::new(),
            servers: (0..settings.nodes).map(|_| Server::new(bootstrap.clone())).collect(),
            now: 0,
            order: 0,
            events: BTreeMap::new(),
            blocked: vec![vec![0; settings.nodes]; settings.nodes],
            checker: Checker::new(&bootstrap),
            reference: Reference::new(),
            fates: Default::default(),
            told: [0; NAMES.len()],
            next_number: 1,
            recovering: false,
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .start_paused(true)
                .build()
                .expect("a runtime"),
            bug,
            summary: Summary::default(),
            failure: None,
            trace: traced.then(Vec::new),
            random,
            settings,
        };
        trace!(world, "{:?}", world.settings);
        for entry in &bootstrap {
            let verdict = world.reference.apply(entry);
            world.judge(verdict);
        }
        for node in 0..world.servers.len() {
            world.boot(node);
            world.schedule(1000, Event::Checkpoint { node });
            for _ in 0..world.settings.readers {
                let reader = world.readers.len();
                world.readers.push(Reader::new(node));
                world.schedule(2000, Event::Reader { reader, node });
            }
        }
        for client in 0..world.clients.len() {
            world.schedule(1000, Event::Client { client });
        }
        world.schedule(world.settings.election_ms * 3000, Event::Fault);
        let end = world.settings.duration_us + world.settings.election_ms * 3000;
        world.schedule(end, Event::Recover);
        world
    }

    /// Runs to the end, or to the first thing that must not be.
    pub fn run(&mut self) -> Result<Summary, String> {
        while self.failure.is_none() {
            let Some(((time, _), event)) = self.events.pop_first() else { break };
            let passed = Duration::from_micros(time - self.now);
            self.now = time;
            // Timeouts that end wake their sessions.
            self.runtime.block_on(tokio::time::advance(passed));
            self.summary.events += 1;
            if self.summary.events > EVENTS_MAX {
                self.fail("there is no end to it".into());
            }
            if !self.recovering || !matches!(event, Event::Fault) {
                self.happen(event);
            }
            self.wake();
        }
        self.summary.simulated_us = self.now;
        match self.failure.take() {
            Some(why) => Err(why),
            None => Ok(self.summary.clone()),
        }
    }

    /// Adds a line to the trace.
    fn note(&mut self, what: String) {
        let time = self.now as f64 / 1000.0;
        self.trace.get_or_insert_default().push(format!("{time:>12.3} ms  {what}"));
    }

    fn count(&mut self, what: &'static str) {
        *self.summary.counts.entry(what).or_default() += 1;
    }

    fn fail(&mut self, why: String) {
        trace!(self, "FAILED: {why}");
        self.failure.get_or_insert(why);
    }

    fn judge(&mut self, verdict: Result<(), String>) {
        if let Err(why) = verdict {
            self.fail(why);
        }
    }

    fn schedule(&mut self, delay: u64, event: Event) {
        self.schedule_at(self.now + delay, event);
    }

    fn schedule_at(&mut self, time: u64, event: Event) {
        self.order += 1;
        self.events.insert((time, self.order), event);
    }

    /// A delay between these, both included.
    fn delay(&mut self, (low, high): (u64, u64)) -> u64 {
        self.random.between(low, high.max(low))
    }

    fn mix(&mut self, value: u64) {
        self.summary.hash = (self.summary.hash ^ value).wrapping_mul(0x0000_0100_0000_01B3).rotate_left(23);
    }

    /// Of a token, a value, a request or a session: none comes twice.
    fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    fn token(&mut self) -> Token {
        Token(self.number())
    }

    fn is_alive(&self, node: usize, life: u64) -> bool {
        self.servers[node].life == life && self.servers[node].running.is_some()
    }

    fn happen(&mut self, event: Event) {
        if let Some(node) = event.node() {
            let resume = self.servers[node].paused_until;
            if resume > self.now {
                self.schedule_at(resume, event);
                return;
            }
        }
        match event {
            Event::Tick { node, life, time } => {
                if self.is_alive(node, life) {
                    self.tick(node, time);
                }
            }
            Event::Deliver { from, to, message } => self.deliver(from, to, message),
            Event::ConnectionLost { node, leader } => self.connection_lost(node, leader),
            Event::Unreachable { node, life, peer } => {
                if self.is_alive(node, life) {
                    self.unreachable(node, peer);
                }
            }
            Event::Synced { node, life } => {
                if self.is_alive(node, life) {
                    self.synced(node);
                }
            }
            Event::SnapshotRead { node, life, point, content } => {
                if self.is_alive(node, life) {
                    self.snapshot_read(node, point, content);
                }
            }
            Event::SnapshotWritten { node, life, point, content } => {
                if self.is_alive(node, life) {
                    self.snapshot_written(node, point, content);
                }
            }
            Event::EntriesRead { node, life, to, range } => {
                if self.is_alive(node, life) {
                    self.entries_read(node, to, range);
                }
            }
            Event::SnapshotSent { node, life, to, ok } => {
                if self.is_alive(node, life) {
                    self.snapshot_sent(node, to, ok);
                }
            }
            Event::Requests { node, life } => {
                if self.is_alive(node, life) {
                    self.take_request(node);
                }
            }
            Event::Retry { node, life } => {
                if self.is_alive(node, life) {
                    self.retry(node);
                }
            }
            Event::Checkpoint { node } => self.checkpoint(node),
            Event::Client { client } => self.client(client),
            Event::Poll { client, .. } => self.poll(client),
            Event::HangUp { client, request } => self.hang_up(client, request),
            Event::PeriodEnded { client, session, .. } => self.period_ended(client, session),
            Event::Reader { reader, .. } => self.look(reader),
            Event::Fault => self.fault(),
            Event::Restart { node } => self.boot(node),
            Event::Recover => self.recover(),
            Event::CheckRecovery => self.check_recovery(),
        }
    }

    /// The servers that believe to lead.
    fn leaders(&self) -> Vec<usize> {
        let leads = |server: &Server| server.running.as_ref().is_some_and(|r| r.state == State::Leader);
        (0..self.servers.len()).filter(|node| leads(&self.servers[*node])).collect()
    }
}

impl Event {
    /// The process it happens to, which must not be paused.
    fn node(&self) -> Option<usize> {
        match self {
            Event::Tick { node, .. }
            | Event::Deliver { to: node, .. }
            | Event::ConnectionLost { node, .. }
            | Event::Unreachable { node, .. }
            | Event::Synced { node, .. }
            | Event::SnapshotRead { node, .. }
            | Event::SnapshotWritten { node, .. }
            | Event::EntriesRead { node, .. }
            | Event::SnapshotSent { node, .. }
            | Event::Requests { node, .. }
            | Event::Retry { node, .. }
            | Event::Checkpoint { node }
            | Event::Poll { node, .. }
            | Event::PeriodEnded { node, .. }
            | Event::Reader { node, .. } => Some(*node),
            _ => None,
        }
    }
}

/// What every server has from the beginning: who is there, and the tables.
fn bootstrap(settings: &Settings) -> Vec<Entry> {
    let role = |n| if settings.standby && n + 1 == settings.nodes { Role::Standby } else { Role::Voter };
    let members = (0..settings.nodes).map(|n| Member { id: id_of(n), address: address_of(n), role: role(n) });
    let payload = Configuration { servers: members.collect() }.encode();
    let mut entries = vec![Entry { term: Term(1), kind: EntryKind::Change, payload }];
    for name in NAMES {
        entries.push(Entry { term: Term(1), kind: EntryKind::Command, payload: setup_command(name) });
    }
    entries
}

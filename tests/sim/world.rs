//! The world: servers with clocks and disks, a network, clients, an administrator, and what goes wrong.
//! Events happen one after the other in the order of their time; nothing depends on anything but the seed.

use crate::check::{Checker, value_of};
use crate::describe::{as_plain, describe, describe_message};
use crate::disk::{Disk, Done, Request};
use crate::history::History;
use crate::random::Random;
use crate::settings::{Settings, address_of, id_of, node_of};
use bytes::Bytes;
use dqlite::raft::message::{InstallSnapshot, SnapshotData};
use dqlite::raft::{
    Bug, Configuration, Entry, EntryKind, Index, Input, Message, Output, Outputs, Peer, Raft, Role, Seq,
    Server, ServerId, SnapshotPoint, State, Term, Time, Token,
};
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::io::Read;

mod clients;
mod faults;
mod read_back;
mod recovery;

/// Longest time after the last fault in which everything must be well again.
const RECOVERY_US: u64 = 60_000_000;

/// Events in a run, beyond which something goes round in circles. Usual are 2000 a second.
const EVENTS_MAX: u64 = 50_000;
const EVENTS_PER_SECOND_MAX: u64 = 20_000;

#[derive(Debug, Clone)]
enum Event {
    Tick { node: usize, life: u64, time: u64 },
    Deliver { from: usize, to: usize, message: Message },
    ConnectionLost { node: usize, leader: usize },
    Unreachable { node: usize, life: u64, peer: usize },
    Synced { node: usize, life: u64 },
    SnapshotWritten { node: usize, life: u64, point: SnapshotPoint, list: Vec<u64> },
    EntriesRead { node: usize, life: u64, to: ServerId, range: (Index, Index), asked: Term },
    Client { client: usize },
    Ask { client: usize, number: usize, node: usize },
    GiveUp { client: usize, number: usize },
    Admin,
    Fault,
    Restart { node: usize },
    Blink { node: usize },
    Suppose { again: bool },
    Recover,
    CheckRecovery,
}

/// A process, its clock, and what it has in memory.
#[derive(Clone)]
struct Node {
    raft: Option<Raft>,
    disk: Disk,
    /// Counts restarts: what was meant for an earlier process is lost.
    life: u64,
    /// When it wants a tick, in true time; nothing else is worth a step.
    due: u64,
    /// The tick that will come first.
    tick: Option<u64>,
    /// What the clock shows is `offset_us` plus the true time, at this rate in parts in a million.
    rate: u64,
    offset_us: u64,
    paused_until: u64,
    /// Until when its disk has no space for entries and snapshots.
    full_until: u64,
    /// It never starts again.
    gone: bool,
    /// It hears nothing any more.
    deaf: bool,
    /// The state machine.
    list: Vec<u64>,
    applied: u64,
    configuration: Configuration,
    /// Messages that wait for the disk.
    held: Vec<(Seq, usize, Message)>,
    durable: Seq,
    /// The last request whose end the core has not been told yet.
    unheard: Option<Seq>,
    /// Requests of clients, by token.
    asked: BTreeMap<Token, usize>,
    state: State,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Summary {
    /// Of everything that happened.
    pub hash: u64,
    pub events: u64,
    pub appends: u64,
    pub reads: u64,
    pub leaders: u64,
    pub changes: u64,
    pub transfers: u64,
    pub installations: u64,
    pub simulated_us: u64,
    /// How often what happened.
    pub counts: BTreeMap<&'static str, u64>,
}

impl Summary {
    pub fn add(&mut self, other: &Summary) {
        self.hash ^= other.hash;
        self.events += other.events;
        self.appends += other.appends;
        self.reads += other.reads;
        self.leaders += other.leaders;
        self.changes += other.changes;
        self.transfers += other.transfers;
        self.installations += other.installations;
        self.simulated_us += other.simulated_us;
        for (what, count) in &other.counts {
            *self.counts.entry(what).or_default() += count;
        }
    }
}

#[derive(Clone)]
pub struct World {
    random: Random,
    settings: Settings,
    now: u64,
    order: u64,
    events: BinaryHeap<std::cmp::Reverse<(u64, u64, usize)>>,
    /// The events by number; an event is taken when its time has come.
    bodies: Vec<Option<Event>>,
    free: Vec<usize>,
    nodes: Vec<Node>,
    /// Until when nothing gets from one server to another.
    blocked: Vec<Vec<u64>>,
    /// Until when messages take so much longer.
    lags: Vec<Vec<(u64, u64)>>,
    checker: Checker,
    history: History,
    next_value: u64,
    next_token: u64,
    /// The client whose turn it is waits for this operation.
    waits: Vec<Option<usize>>,
    leader_hint: usize,
    faults_end: u64,
    recovering: bool,
    probe: Option<usize>,
    read_probe: Option<usize>,
    /// In which term somebody leads, and since when.
    steady: (Option<Term>, u64),
    summary: Summary,
    /// Planted in every server; without the feature it is ignored.
    #[cfg_attr(not(feature = "planted-bugs"), allow(dead_code))]
    bug: Option<Bug>,
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
    pub fn new(seed: u64, seconds: u64, bug: Option<Bug>, traced: bool) -> World {
        let mut random = Random::new(seed);
        let settings = Settings::draw(&mut random, seconds);
        let founders = if settings.together { settings.nodes } else { 1 };
        let servers = (0..founders)
            .map(|n| Server { id: id_of(n), address: address_of(n), role: Role::Voter })
            .collect();
        let payload = Configuration { servers }.encode();
        let bootstrap = vec![Entry { term: Term(1), kind: EntryKind::Change, payload }];
        let nodes = (0..settings.nodes)
            .map(|n| {
                Node::new(if n < founders { bootstrap.clone() } else { Vec::new() }, &settings, &mut random)
            })
            .collect();
        let mut world = World {
            now: 0,
            order: 0,
            events: BinaryHeap::new(),
            bodies: Vec::new(),
            free: Vec::new(),
            nodes,
            blocked: vec![vec![0; settings.nodes]; settings.nodes],
            lags: vec![vec![(0, 0); settings.nodes]; settings.nodes],
            checker: Checker::new(&bootstrap),
            history: History::default(),
            next_value: 1,
            next_token: 1,
            waits: vec![None; settings.clients],
            leader_hint: 0,
            faults_end: settings.duration_us,
            recovering: false,
            probe: None,
            read_probe: None,
            steady: (None, 0),
            summary: Summary::default(),
            bug,
            failure: None,
            trace: traced.then(Vec::new),
            random,
            settings,
        };
        trace!(world, "{:?}", world.settings);
        for node in 0..world.nodes.len() {
            world.boot(node);
        }
        for client in 0..world.settings.clients {
            world.schedule(1000 + client as u64, Event::Client { client });
        }
        world.schedule(world.settings.election_ms * 3000, Event::Fault);
        if world.settings.admin_us.1 > 0 {
            world.schedule(world.settings.election_ms * 2000, Event::Admin);
        }
        world.schedule(world.settings.election_ms * 2000, Event::Suppose { again: true });
        world.schedule(world.faults_end, Event::Recover);
        if world.settings.drift > 0 {
            world.count("world with clocks that run apart");
        }
        if world.settings.plain.iter().any(|plain| *plain) {
            world.count("world with C servers");
        }
        world
    }

    /// Runs to the end, or to the first thing that must not be.
    pub fn run(&mut self) -> Result<Summary, String> {
        while self.failure.is_none() {
            let Some(std::cmp::Reverse((time, _, number))) = self.events.pop() else { break };
            let Some(event) = self.bodies[number].take() else { continue };
            self.free.push(number);
            self.now = time;
            self.summary.events += 1;
            if self.summary.events > EVENTS_MAX + self.now / 1_000_000 * EVENTS_PER_SECOND_MAX {
                self.fail("the servers talk without end".into());
            }
            if !self.recovering || !matches!(event, Event::Fault | Event::Admin | Event::Suppose { .. }) {
                self.happen(event);
            }
        }
        if self.failure.is_none()
            && let Err(why) = self.history.check(self.checker.list())
        {
            self.fail(why);
        }
        self.summary.simulated_us = self.now;
        (self.summary.appends, self.summary.reads) = self.history.successes();
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
        let number = self.free.pop().unwrap_or(self.bodies.len());
        if number == self.bodies.len() {
            self.bodies.push(None);
        }
        self.bodies[number] = Some(event);
        self.order += 1;
        self.events.push(std::cmp::Reverse((time, self.order, number)));
    }

    fn mix(&mut self, value: u64) {
        self.summary.hash = (self.summary.hash ^ value).wrapping_mul(0x0000_0100_0000_01B3).rotate_left(23);
    }

    fn token(&mut self) -> Token {
        self.next_token += 1;
        Token(self.next_token)
    }

    // ---- events ----

    fn happen(&mut self, event: Event) {
        if let Some(node) = event.node() {
            let resume = self.nodes[node].paused_until;
            if resume > self.now {
                self.schedule_at(resume, event);
                return;
            }
        }
        let alive = |world: &World, node: usize, life: u64| {
            world.nodes[node].life == life && world.nodes[node].raft.is_some()
        };
        match event {
            Event::Tick { node, life, time } => {
                if alive(self, node, life) && self.nodes[node].tick == Some(time) {
                    self.tick(node);
                }
            }
            Event::Deliver { from, to, message } => self.deliver(from, to, message),
            Event::ConnectionLost { node, leader } => {
                self.step(node, Input::ConnectionLost { leader: id_of(leader) });
            }
            Event::Unreachable { node, life, peer } => {
                if alive(self, node, life) {
                    self.step(node, Input::PeerUnreachable { id: id_of(peer) });
                }
            }
            Event::Synced { node, life } => {
                if alive(self, node, life) {
                    self.synced(node);
                }
            }
            Event::SnapshotWritten { node, life, point, list } => {
                if alive(self, node, life) && (self.is_full(node) || self.random.permille(20)) {
                    self.count("snapshot not written");
                    self.step(node, Input::SnapshotFailed { index: point.index });
                } else if alive(self, node, life) {
                    let index = point.index;
                    let trailing = self.settings.trailing;
                    self.nodes[node].disk.store_snapshot(point, list, trailing);
                    self.step(node, Input::SnapshotTaken { index, size_bytes: 100 });
                }
            }
            Event::EntriesRead { node, life, to, range, asked } => {
                if alive(self, node, life) {
                    self.entries_read(node, to, range, asked);
                }
            }
            Event::Client { client } => self.client(client),
            Event::Ask { client, number, node } => self.ask(client, number, node),
            Event::GiveUp { client, number } => {
                if self.waits[client] == Some(number) {
                    trace!(self, "client {client} gives up on {number}");
                    self.client_is_free(client);
                }
            }
            Event::Admin => self.admin(),
            Event::Fault => self.fault(),
            Event::Restart { node } => {
                if self.nodes[node].raft.is_none() && !self.nodes[node].gone {
                    self.boot(node);
                }
            }
            Event::Blink { node } => self.blink(node),
            Event::Suppose { again } => self.suppose(again),
            Event::Recover => self.recover(),
            Event::CheckRecovery => self.check_recovery(),
        }
    }

    /// Passes one input to a server and carries out what it wants.
    fn step(&mut self, node: usize, input: Input) {
        let unheard = self.nodes[node].unheard.take().map(|seq| Input::Persisted { seq });
        let mut inputs: VecDeque<_> = unheard.into_iter().chain([input]).collect();
        while let Some(input) = inputs.pop_front() {
            let now = self.local_time(node);
            let Some(raft) = &mut self.nodes[node].raft else { return };
            let awaits_disk = raft.awaits_disk() || !matches!(input, Input::Persisted { .. });
            let mut outputs = Outputs::new();
            let result = raft.step(now, input, &mut outputs);
            let can_wait = |output: &Output| matches!(output, Output::TakeSnapshot { .. });
            if !awaits_disk && !outputs.iter().all(can_wait) {
                let waited = format!("server {} did not await its disk for {outputs:?}", node + 1);
                return self.fail(waited);
            }
            let Some(raft) = &self.nodes[node].raft else { return };
            let status = raft.status();
            let state = [status.term.0, status.last_index.0, status.commit_index.0, outputs.len() as u64];
            for value in state.into_iter().chain([node as u64, now.0]) {
                self.mix(value);
            }
            if let Err(error) = result {
                self.fail(format!("server {} refused an input: {error}", node + 1));
            }
            for output in outputs {
                self.carry_out(node, output, &mut inputs);
                if self.failure.is_some() {
                    return;
                }
            }
        }
        self.check_leases();
        self.start_sync(node);
        self.schedule_tick(node);
    }

    /// Sees to it that there is a tick in time. One that comes early schedules the next one: deadlines move
    /// with every message, ticks are few.
    fn schedule_tick(&mut self, node: usize) {
        let (now, server) = (self.now, &mut self.nodes[node]);
        let deadline = server.raft.as_ref().and_then(Raft::deadline);
        server.due = deadline.map_or(u64::MAX, |deadline| server.true_time(deadline).max(now + 1));
        if server.due < server.tick.unwrap_or(u64::MAX) {
            let (life, time) = (server.life, server.due);
            server.tick = Some(time);
            self.schedule_at(time, Event::Tick { node, life, time });
        }
    }

    fn tick(&mut self, node: usize) {
        self.nodes[node].tick = None;
        if self.nodes[node].due <= self.now {
            self.step(node, Input::Tick);
        } else {
            self.schedule_tick(node);
        }
    }

    fn local_time(&self, node: usize) -> Time {
        self.nodes[node].local_time(self.now)
    }

    fn carry_out(&mut self, node: usize, output: Output, inputs: &mut VecDeque<Input>) {
        if self.trace.is_some()
            && let Some(line) = describe(&output)
        {
            trace!(self, "server {}: {line}", node + 1);
        }
        match output {
            Output::PersistVote { term, voted_for, seq } => {
                self.nodes[node].disk.queue.push_back(Request::Vote { term, voted_for, seq });
            }
            Output::Append { first_index, entries, seq } => self.append(node, first_index, entries, seq),
            Output::Truncate { from, seq } => {
                self.nodes[node].disk.queue.push_back(Request::Truncate { from, seq });
            }
            Output::Send { to, message, after, .. } => match after {
                Some(seq) if seq > self.nodes[node].durable => {
                    self.nodes[node].held.push((seq, node_of(to), message));
                }
                _ => self.send(node, node_of(to), message),
            },
            Output::SendSnapshot { to, term, index, .. } => {
                let ok = self.send_snapshot(node, node_of(to), term, index);
                inputs.push_back(Input::SnapshotSent { to, ok });
            }
            Output::InstallSnapshot { snapshot: point, data } => {
                let mut bytes = Vec::new();
                data.open().unwrap().read_to_end(&mut bytes).unwrap();
                let list = bytes.chunks(8).map(|c| u64::from_le_bytes(c.try_into().unwrap())).collect();
                self.nodes[node].disk.queue.push_back(Request::Install { point, content: list });
            }
            Output::ReadEntries { to, first, last } => self.read_entries(node, to, (first, last)),
            Output::Commit { up_to } => self.commit(node, up_to, inputs),
            Output::Complete { token, result } => self.complete(node, token, result),
            Output::TakeSnapshot { index, term, configuration, configuration_index } => {
                let point = SnapshotPoint { index, term, configuration, configuration_index };
                let verdict = self.checker.captured(node, &point, &self.nodes[node].list);
                self.judge(verdict);
                let (life, list) = (self.nodes[node].life, self.nodes[node].list.clone());
                let delay = self.random.between(1000, 50_000);
                self.schedule(delay, Event::SnapshotWritten { node, life, point, list });
            }
            Output::RoleChanged { state, .. } => {
                let led = std::mem::replace(&mut self.nodes[node].state, state) == State::Leader;
                if state == State::Leader && !led {
                    self.summary.leaders += 1;
                    self.leader_hint = node;
                    let raft = self.nodes[node].raft.as_ref().unwrap();
                    let verdict = self.checker.became_leader(node, raft);
                    self.judge(verdict);
                }
            }
            Output::ConfigurationChanged { configuration } => self.nodes[node].configuration = configuration,
            Output::Accepted { .. } => {}
        }
    }

    fn append(&mut self, node: usize, first: Index, entries: Vec<Entry>, seq: Seq) {
        let server = &self.nodes[node];
        let raft = server.raft.as_ref().unwrap();
        let previous = Index(first.0 - 1);
        let before = match &server.disk.snapshot {
            _ if previous == Index(0) => Some(Term(0)),
            Some((point, _)) if point.index == previous => Some(point.term),
            _ => raft.term_at(previous),
        };
        let verdict = self.checker.appended(node, first, &entries, before);
        let changes = entries.iter().any(|entry| entry.kind == EntryKind::Change);
        let verdict = match verdict {
            Ok(()) if changes && server.state == State::Leader => {
                self.checker.changed(raft, first, &server.configuration)
            }
            verdict => verdict,
        };
        self.judge(verdict);
        self.nodes[node].disk.queue.push_back(Request::Append { first, entries, seq });
    }

    fn commit(&mut self, node: usize, up_to: Index, inputs: &mut VecDeque<Input>) {
        let server = &self.nodes[node];
        let raft = server.raft.as_ref().unwrap();
        let disks: Vec<&Disk> = self.nodes.iter().map(|node| &node.disk).collect();
        let from = Index(server.applied + 1);
        let leads = server.state == State::Leader;
        let verdict = self.checker.committed(
            node,
            raft,
            (from, up_to),
            leads.then_some((&server.configuration, &disks)),
        );
        let values: Vec<u64> =
            (from.0..=up_to.0).filter_map(|index| raft.entry(Index(index)).and_then(value_of)).collect();
        self.judge(verdict);
        let server = &mut self.nodes[node];
        server.list.extend(values);
        server.applied = up_to.0;
        inputs.push_back(Input::Applied { index: up_to });
    }

    fn start_sync(&mut self, node: usize) {
        let disk = &mut self.nodes[node].disk;
        if disk.syncing > 0 || disk.queue.is_empty() {
            return;
        }
        disk.syncing = disk.queue.len();
        let (low, high) = self.settings.sync_us;
        let mut delay = self.random.between(low, high);
        if self.random.permille(5) {
            delay *= 20;
        }
        let life = self.nodes[node].life;
        self.schedule(delay, Event::Synced { node, life });
    }

    fn synced(&mut self, node: usize) {
        let full = self.is_full(node);
        for done in self.nodes[node].disk.finish_sync(full) {
            match done {
                Done::NoSpace => {
                    let leads = self.nodes[node].state == State::Leader;
                    self.count(if leads { "full disk of a leader" } else { "full disk of a follower" });
                    let server = &mut self.nodes[node];
                    let (seq, stored) = server.disk.drop_appends(&mut self.random);
                    server.held.retain(|(after, ..)| *after < seq);
                    trace!(self, "no space for request {seq} of server {}, stored {stored}", node + 1);
                    self.step(node, Input::DiskFull { seq, stored });
                }
                Done::NotInstalled(index) => {
                    self.count("snapshot not installed");
                    self.step(node, Input::SnapshotInstalled { index, ok: false });
                }
                Done::Persisted(seq) => {
                    self.nodes[node].durable = seq;
                    let held = std::mem::take(&mut self.nodes[node].held);
                    for (after, to, message) in held {
                        if after <= seq {
                            self.send(node, to, message);
                        } else {
                            self.nodes[node].held.push((after, to, message));
                        }
                    }
                    // As late as the driver does.
                    if self.nodes[node].raft.as_ref().is_some_and(Raft::awaits_disk) {
                        self.step(node, Input::Persisted { seq });
                    } else {
                        self.nodes[node].unheard = Some(seq);
                    }
                }
                Done::Installed(index, list) => {
                    self.summary.installations += 1;
                    let verdict = self.checker.installed(node, &list);
                    self.judge(verdict);
                    self.nodes[node].list = list;
                    self.nodes[node].applied = index.0;
                    self.step(node, Input::SnapshotInstalled { index, ok: true });
                }
            }
        }
        self.start_sync(node);
    }

    /// Neither crashed nor paused.
    fn is_running(&self, node: usize) -> bool {
        self.nodes[node].raft.is_some() && self.nodes[node].paused_until <= self.now
    }

    fn is_full(&self, node: usize) -> bool {
        self.nodes[node].full_until > self.now
    }

    // ---- network ----

    fn send(&mut self, from: usize, to: usize, message: Message) {
        let message = match &self.nodes[from].raft {
            Some(raft) if self.settings.plain[from] => {
                let commit_index = raft.status().commit_index;
                // Leaders decide how much they send; C's do it otherwise.
                let entries_max = if self.random.permille(30) { self.random.between(0, 2) } else { u64::MAX };
                as_plain(message, commit_index, entries_max as usize)
            }
            _ => message,
        };

        let verdict = self.checker.sent(from, id_of(to), &message, &self.nodes[from].disk);
        self.judge(verdict);
        let snapshot = matches!(message, Message::InstallSnapshot(_));
        let lost = self.blocked[from][to] > self.now || self.random.permille(self.settings.loss);
        if lost && !self.recovering {
            self.count("message lost");
            // A stream that loses something breaks, and one end may notice.
            if snapshot || self.random.permille(500) {
                let life = self.nodes[from].life;
                let delay = self.random.between(100, 20_000);
                self.schedule(delay, Event::Unreachable { node: from, life, peer: to });
            }
            return;
        }
        let copies = if self.random.permille(self.settings.duplication) { 2 } else { 1 };
        if copies == 2 {
            self.count("message duplicated");
        }
        for _ in 0..copies {
            let (low, high) = self.settings.delay_us;
            let mut delay = self.random.between(low, high);
            let (until, lag) = self.lags[from][to];
            if until > self.now {
                self.count("message behind a long queue");
                delay += lag;
            }
            let dangerous = match &message {
                Message::TimeoutNow(_) => true,
                Message::RequestVote(request) => request.disrupt_leader,
                _ => false,
            };
            if self.random.permille(if dangerous { 200 } else { self.settings.late }) {
                // Somewhere, it lay in a queue.
                self.count("message late");
                delay += self.random.between(0, self.settings.election_ms * 4000);
            }
            self.schedule(delay, Event::Deliver { from, to, message: message.clone() });
        }
    }

    fn deliver(&mut self, from: usize, to: usize, message: Message) {
        if self.blocked[from][to] > self.now || self.nodes[to].raft.is_none() {
            return;
        }
        if self.trace.is_some() {
            let line = describe_message(&message);
            trace!(self, "server {} receives from {}: {line}", to + 1, from + 1);
        }
        let result = matches!(message, Message::AppendEntriesResult(_));
        let campaigns = matches!(message, Message::TimeoutNow(_));
        let peer = Peer { id: id_of(from), address: address_of(from) };
        self.step(to, Input::Receive { from: peer, message });
        if campaigns && !self.recovering && self.random.permille(300) {
            self.obstruct(to);
        }
        if let (true, Some(raft)) = (result, &self.nodes[to].raft) {
            let verdict = self.checker.matched(raft, id_of(from), &self.nodes[from].disk);
            self.judge(verdict);
        }
    }

    fn send_snapshot(&mut self, from: usize, to: usize, term: Term, index: Index) -> bool {
        let Some((point, list)) = self.nodes[from].disk.snapshot.clone() else { return false };
        if point.index != index {
            return false;
        }
        let message = Message::InstallSnapshot(InstallSnapshot {
            term,
            last_index: point.index,
            last_term: point.term,
            configuration_index: point.configuration_index,
            configuration: point.configuration,
            data: SnapshotData::new(Bytes::from(
                list.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>(),
            )),
        });
        self.send(from, to, message);
        true
    }

    /// Tells those who follow `leader` that its connection ended.
    fn end_connections(&mut self, leader: usize) {
        if self.nodes[leader].raft.is_some() && self.nodes[leader].state == State::Leader {
            self.count("connections of a living leader lost");
        }
        for node in 0..self.nodes.len() {
            if node != leader && self.blocked[leader][node] <= self.now {
                let delay = self.random.between(50, 3000);
                self.schedule(delay, Event::ConnectionLost { node, leader });
            }
        }
    }

    fn boot(&mut self, node: usize) {
        trace!(self, "server {} starts", node + 1);
        let leased = |n: &Node| {
            n.raft.as_ref().and_then(Raft::lease_until).is_some_and(|until| n.local_time(self.now) < until)
        };
        if self.nodes.iter().any(leased) {
            self.count("restart while another has a lease");
        }
        let seed = self.random.draw();
        #[allow(unused_mut)]
        let mut raft = Raft::new(self.settings.options(node), seed);
        #[cfg(feature = "planted-bugs")]
        {
            let plain = self.settings.plain[node].then_some(Bug::NoPromise);
            if let Some(bug) = plain.or(self.bug) {
                raft.plant(bug);
            }
        }
        let server = &mut self.nodes[node];
        server.raft = Some(raft);
        server.durable = Seq(0);
        server.unheard = None;
        server.paused_until = 0;
        server.tick = None;
        server.list = server.disk.snapshot.as_ref().map_or(Vec::new(), |(_, list)| list.clone());
        server.applied = server.disk.snapshot.as_ref().map_or(0, |(point, _)| point.index.0);
        let start = server.disk.start();
        self.step(node, Input::Start(start));
    }

    /// The claim of the lease itself: whoever holds one is the leader of the highest term.
    fn check_leases(&mut self) {
        let highest = self.checker.highest_term();
        for node in 0..self.nodes.len() {
            let server = &self.nodes[node];
            let Some(raft) = server.raft.as_ref().filter(|_| server.state == State::Leader) else { continue };
            if raft.status().term < highest
                && raft.lease_until().is_some_and(|until| self.local_time(node) < until)
            {
                self.fail(format!("server {} holds a lease while another leads in term {highest}", node + 1));
            }
        }
    }
}

impl Node {
    fn new(entries: Vec<Entry>, settings: &Settings, random: &mut Random) -> Node {
        let drift = settings.drift;
        Node {
            raft: None,
            disk: Disk::new(entries),
            life: 0,
            due: u64::MAX,
            tick: None,
            rate: 1_000_000 - drift + random.between(0, 2 * drift),
            offset_us: random.between(0, 1_000_000_000),
            paused_until: 0,
            full_until: 0,
            gone: false,
            deaf: false,
            list: Vec::new(),
            applied: 0,
            configuration: Configuration::default(),
            held: Vec::new(),
            durable: Seq(0),
            unheard: None,
            asked: BTreeMap::new(),
            state: State::Follower,
        }
    }

    fn is_lost(&self) -> bool {
        self.gone || self.deaf
    }

    fn local_time(&self, now: u64) -> Time {
        Time((self.offset_us + now * self.rate / 1_000_000) / 1000)
    }

    /// The first moment at which the clock shows `time`.
    fn true_time(&self, time: Time) -> u64 {
        (time.0 * 1000).saturating_sub(self.offset_us) * 1_000_000 / self.rate + 1
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
            | Event::SnapshotWritten { node, .. }
            | Event::EntriesRead { node, .. }
            | Event::Ask { node, .. } => Some(*node),
            _ => None,
        }
    }
}

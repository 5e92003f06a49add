//! One server: the core, its model disk, and its databases. What the driver does with outputs is done here in
//! the same order, and by the same `Applier`.

use super::reference::{NAMES, hash_of_database, new_registry};
use super::{Event, World, trace};
use crate::describe::{describe, describe_message};
use crate::disk::{Disk, Done, Request as DiskRequest};
use crate::settings::{address_of, id_of, node_of};
use bytes::Bytes;
use dqlite::config::APPLY_RETRY_MS;
use dqlite::db::{Refused, Registry, Request, Snapshot};
use dqlite::node::applier::{Applier, Fault, refused};
use dqlite::raft::message::{InstallSnapshot, SnapshotData};
use dqlite::raft::{
    Configuration, Entry, Index, Input, Message, Output, Outputs, Peer, Raft, Seq, ServerId, SnapshotPoint,
    State, Term, Time, Token,
};
use std::collections::{BTreeMap, VecDeque};
use std::io::Read;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// How often a server may try in vain to apply an entry.
const RETRIES_MAX: u32 = 50;

/// A machine: its disk, and the process while there is one.
pub struct Server {
    pub running: Option<Running>,
    pub disk: Disk<Bytes>,
    /// Counts processes: what was meant for an earlier one is lost.
    pub life: u64,
    pub paused_until: u64,
    /// Until when its disk has no space for entries.
    pub full_until: u64,
}

/// A process.
pub struct Running {
    pub raft: Raft,
    pub applier: Applier,
    pub registry: Arc<Registry>,
    pub requests: mpsc::UnboundedSender<Request>,
    pub state: State,
    /// What sessions asked, and who, in the same order.
    queue: mpsc::UnboundedReceiver<Request>,
    owners: VecDeque<Owner>,
    /// A request will be taken from the queue.
    taking: bool,
    /// Whose transaction the core is being given.
    proposing: Vec<Owner>,
    reads: BTreeMap<Token, oneshot::Sender<Result<(), Refused>>>,
    configuration: Configuration,
    /// Messages that wait for the disk.
    held: Vec<(Seq, usize, Message)>,
    installing: Option<Installing>,
    reported: Index,
    /// The last entry of each append that is not durable yet.
    #[cfg_attr(not(feature = "planted-bugs"), allow(dead_code))]
    appends: VecDeque<(Seq, Index)>,
    tick: Option<u64>,
    retrying: bool,
    /// How often an entry could not be applied.
    retries: u32,
}

/// The client and the number of its request.
#[derive(Debug, Clone, Copy)]
pub struct Owner {
    pub client: usize,
    pub request: u64,
}

struct Installing {
    index: Index,
    snapshot: Snapshot,
    stored: bool,
}

impl Server {
    pub fn new(entries: Vec<Entry>) -> Server {
        Server { running: None, disk: Disk::new(entries), life: 0, paused_until: 0, full_until: 0 }
    }

    /// Until when its sessions may read without asking, on the clock of the core.
    fn lease(&self) -> Option<Time> {
        self.running.as_ref().and_then(|running| running.applier.lease_until(&running.raft))
    }
}

impl Running {
    /// Requests in the queue.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// What came into the queue since it had that many was asked by this one.
    pub fn note_owner(&mut self, before: usize, owner: Owner) {
        for _ in before..self.queue.len() {
            self.owners.push_back(owner);
        }
    }
}

impl World {
    pub(super) fn boot(&mut self, node: usize) {
        if self.servers[node].running.is_some() {
            return;
        }
        trace!(self, "server {} starts", node + 1);
        let seed = self.random.draw();
        let registry = new_registry(self.settings.checkpoint, self.bug);
        registry.status.set_busy_timeout_ms(if self.settings.patient { 1_000_000 } else { 0 });
        let (requests, queue) = mpsc::unbounded_channel();
        let mut running = Running {
            raft: Raft::new(self.settings.options(node), seed),
            applier: Applier::new(registry.clone()),
            registry,
            requests,
            state: State::Follower,
            queue,
            owners: VecDeque::new(),
            taking: false,
            proposing: Vec::new(),
            reads: BTreeMap::new(),
            configuration: Configuration::default(),
            held: Vec::new(),
            installing: None,
            reported: Index(0),
            appends: VecDeque::new(),
            tick: None,
            retrying: false,
            retries: 0,
        };
        let server = &mut self.servers[node];
        if let Some((point, content)) = &server.disk.snapshot {
            let snapshot = Snapshot::read_from(&mut &content[..]).expect("the disk keeps what it was given");
            running.applier.start(point.index, &snapshot).expect("nobody uses the databases yet");
            running.reported = point.index;
        }
        server.running = Some(running);
        server.paused_until = 0;
        let start = server.disk.start();
        self.step(node, Input::Start(start));
    }

    fn running(&mut self, node: usize) -> &mut Running {
        self.servers[node].running.as_mut().expect("the caller knows that it runs")
    }

    /// Passes one input to a server, carries out what it wants, and applies what is committed.
    pub(super) fn step(&mut self, node: usize, input: Input) {
        if self.servers[node].running.is_none() || self.failure.is_some() {
            return;
        }
        self.step_once(node, input);
        self.settle(node);
        self.start_sync(node);
        self.schedule_tick(node);
    }

    fn step_once(&mut self, node: usize, input: Input) {
        let now = Time(self.now / 1000);
        let running = self.running(node);
        let mut outputs = Outputs::new();
        let result = running.raft.step(now, input, &mut outputs);
        let status = running.raft.status();
        let state = [status.term.0, status.last_index.0, status.commit_index.0, outputs.len() as u64];
        for value in state.into_iter().chain([node as u64, now.0]) {
            self.mix(value);
        }
        if let Err(error) = result {
            self.fail(format!("server {} refused an input: {error}", node + 1));
        }
        for output in outputs {
            if self.failure.is_none() {
                self.carry_out(node, output);
            }
        }
    }

    /// As `Driver::settle`.
    fn settle(&mut self, node: usize) {
        self.running(node).applier.unblock();
        self.restore_installed(node);
        while self.failure.is_none() {
            self.apply_committed(node);
            let running = self.running(node);
            if running.reported == running.applier.applied() {
                break;
            }
            running.reported = running.applier.applied();
            let index = running.reported;
            self.step_once(node, Input::Applied { index });
            self.compare(node);
        }
        self.publish_status(node);
        let running = self.running(node);
        let (fault, blocked) = (running.registry.vfs().fault(), running.applier.is_blocked());
        if let Some(fault) = fault {
            self.fail(format!("server {}: {fault}", node + 1));
        }
        if blocked && !std::mem::replace(&mut self.running(node).retrying, true) {
            self.count("databases in use when they had to change");
            let life = self.servers[node].life;
            self.schedule(APPLY_RETRY_MS * 1000, Event::Retry { node, life });
        }
    }

    /// Readers may put a restore off for long; but a session of an earlier leadership, which alone is in the
    /// way of an entry, ends soon.
    pub(super) fn retry(&mut self, node: usize) {
        self.running(node).retrying = false;
        self.settle(node);
        let running = self.running(node);
        let waits = running.applier.is_blocked() && running.installing.is_none();
        running.retries = if waits { running.retries + 1 } else { 0 };
        if running.retries > RETRIES_MAX {
            self.fail(format!("server {} cannot apply what is committed", node + 1));
        }
        self.start_sync(node);
        self.schedule_tick(node);
    }

    /// What sessions know of leadership, as of now.
    pub(super) fn publish_status(&mut self, node: usize) {
        let now = Time(self.now / 1000);
        let leased = self.servers[node].lease().is_some_and(|until| now < until);
        let running = self.running(node);
        // The clock of sessions is a real one, so the lease lasts for ever, or has ended.
        let ready = running.raft.is_ready_to_execute();
        running.registry.status.publish(ready, if leased { u64::MAX } else { 0 });
        running.registry.status.set_transferring(running.raft.is_transferring());
    }

    fn apply_committed(&mut self, node: usize) {
        let running = self.running(node);
        if running.installing.is_none() {
            let applied = running.applier.apply_committed(&running.raft);
            self.judge(applied.map_err(|Fault(fault)| format!("server {}: {fault}", node + 1)));
        }
    }

    /// The databases are what the log up to the applied index made of them elsewhere.
    fn compare(&mut self, node: usize) {
        let running = self.servers[node].running.as_ref().expect("the caller knows that it runs");
        let applied = running.applier.applied();
        for (number, name) in NAMES.iter().enumerate() {
            let hash = hash_of_database(running.registry.get(name.as_bytes()));
            if hash != self.reference.at(applied, number).hash {
                let why = format!("server {}: {name:?} has other pages at index {applied}", node + 1);
                return self.fail(why);
            }
        }
        let hash = self.reference.at(applied, 0).hash ^ self.reference.at(applied, 1).hash.rotate_left(1);
        self.mix(hash);
    }

    fn carry_out(&mut self, node: usize, output: Output) {
        if self.trace.is_some()
            && let Some(line) = describe(&output)
        {
            trace!(self, "  server {}: {line}", node + 1);
        }
        match output {
            Output::PersistVote { term, voted_for, seq } => {
                self.servers[node].disk.queue.push_back(DiskRequest::Vote { term, voted_for, seq });
            }
            Output::Append { first_index, entries, seq } => self.append(node, first_index, entries, seq),
            Output::Truncate { from, seq } => {
                self.count("log truncated");
                self.servers[node].disk.queue.push_back(DiskRequest::Truncate { from, seq });
            }
            Output::Send { to, message, after: Some(after), .. } => {
                self.running(node).held.push((after, node_of(to), message));
            }
            Output::Send { to, message, after: None, .. } => self.send(node, node_of(to), message),
            Output::SendSnapshot { to, term, index, .. } => self.send_snapshot(node, to, term, index),
            Output::ReadEntries { to, first, last } => {
                let (delay, life) = (self.delay((20, 5000)), self.servers[node].life);
                self.schedule(delay, Event::EntriesRead { node, life, to, range: (first, last) });
            }
            Output::InstallSnapshot { snapshot: point, data } => {
                let mut content = Vec::new();
                data.open().and_then(|mut data| data.read_to_end(&mut content)).expect("it is in memory");
                let (delay, life) = (self.delay((20, 5000)), self.servers[node].life);
                let content = Bytes::from(content);
                let snapshot = Snapshot { databases: Vec::new() };
                self.running(node).installing =
                    Some(Installing { index: point.index, snapshot, stored: false });
                self.schedule(delay, Event::SnapshotRead { node, life, point, content });
            }
            Output::Accepted { token, first_index, term } => self.accept(node, token, first_index, term),
            Output::Commit { up_to } => self.commit(node, up_to),
            Output::Complete { token, result } => match self.running(node).reads.remove(&token) {
                Some(done) => drop(done.send(result.map(drop).map_err(refused))),
                None => self.running(node).applier.complete(token, result),
            },
            Output::TakeSnapshot { index, term, configuration, configuration_index } => {
                let point = SnapshotPoint { index, term, configuration, configuration_index };
                let mut content = Vec::new();
                let captured = self.running(node).applier.capture(index);
                captured.write_to(&mut content).expect("memory takes everything");
                let (delay, life) = (self.delay((500, 30_000)), self.servers[node].life);
                let content = Bytes::from(content);
                self.schedule(delay, Event::SnapshotWritten { node, life, point, content });
            }
            Output::RoleChanged { state, .. } => self.role_changed(node, state),
            Output::ConfigurationChanged { configuration } => {
                self.running(node).configuration = configuration;
            }
        }
    }

    fn role_changed(&mut self, node: usize, state: State) {
        let led = std::mem::replace(&mut self.running(node).state, state) == State::Leader;
        if state == State::Leader {
            self.running(node).registry.status.begin_leading();
            if !led {
                self.count("leader elected");
                let raft = &self.servers[node].running.as_ref().expect("it runs").raft;
                let verdict = self.checker.became_leader(node, raft);
                self.judge(verdict);
            }
            return;
        }
        if led {
            self.note_abort(node);
        }
        self.running(node).applier.end_leadership();
    }

    /// How deep the pipelines were that an end of leadership cuts off.
    pub(super) fn note_abort(&mut self, node: usize) {
        let registry = self.running(node).registry.clone();
        for database in NAMES.iter().filter_map(|name| registry.get(name.as_bytes())) {
            self.count(match database.vfs.pipeline().count {
                0 => "pipeline cut off: empty",
                1 => "pipeline cut off: 1 deep",
                2..=7 => "pipeline cut off: 2 to 7 deep",
                8..=31 => "pipeline cut off: 8 to 31 deep",
                _ => "pipeline cut off: 32 deep or more",
            });
        }
    }

    fn accept(&mut self, node: usize, token: Token, first_index: Index, term: Term) {
        let running = self.running(node);
        running.applier.accept(token, first_index, term);
        for (index, owner) in (first_index.0..).map(Index).zip(std::mem::take(&mut running.proposing)) {
            self.note_entry(owner, index, term);
        }
    }

    fn append(&mut self, node: usize, first: Index, entries: Vec<Entry>, seq: Seq) {
        let running = self.servers[node].running.as_ref().expect("it runs");
        let previous = Index(first.0 - 1);
        let before = match &self.servers[node].disk.snapshot {
            _ if previous == Index(0) => Some(Term(0)),
            Some((point, _)) if point.index == previous => Some(point.term),
            _ => running.raft.term_at(previous),
        };
        let verdict = self.checker.appended(node, first, &entries, before);
        self.judge(verdict);
        let last = Index(first.0 + entries.len() as u64 - 1);
        self.running(node).appends.push_back((seq, last));
        self.servers[node].disk.queue.push_back(DiskRequest::Append { first, entries, seq });
    }

    fn commit(&mut self, node: usize, up_to: Index) {
        let running = self.servers[node].running.as_ref().expect("it runs");
        let disks: Vec<&Disk<Bytes>> = self.servers.iter().map(|server| &server.disk).collect();
        let from = running.applier.committed().next();
        let leads = running.state == State::Leader;
        let configuration = leads.then_some((&running.configuration, &disks[..]));
        let mut verdict = self.checker.committed(node, &running.raft, (from, up_to), configuration);
        while verdict.is_ok() && self.reference.last() < up_to {
            let entry = running.raft.entry(self.reference.last().next()).expect("the checker has seen it");
            verdict = self.reference.apply(entry);
        }
        self.judge(verdict);
        self.running(node).applier.commit(up_to);
        if self.failure.is_none() {
            self.apply_committed(node);
        }
    }

    // ---- what sessions ask ----

    /// Takes a request, and the proposals that wait behind it; none during a transfer. As the driver does.
    pub(super) fn take_request(&mut self, node: usize) {
        let running = self.running(node);
        running.taking = false;
        if running.raft.is_transferring() {
            return self.take_later(node);
        }
        let mut gathered = 0;
        let mut read = None;
        while read.is_none()
            && let Ok(request) = self.running(node).queue.try_recv()
        {
            let owner = self.running(node).owners.pop_front().expect("each request has an owner");
            match request {
                Request::Read { done, .. } => read = Some(done),
                Request::Propose(proposal) => match self.running(node).applier.gather(proposal) {
                    true => {
                        self.running(node).proposing.push(owner);
                        gathered += 1;
                    }
                    false => self.count("transaction void before it was proposed"),
                },
            }
        }
        if gathered > 1 {
            self.count("transactions proposed together");
        }
        if let Some(commands) = self.running(node).applier.begin_proposal() {
            let token = self.token();
            self.step(node, Input::Propose { token, commands });
            let running = self.running(node);
            running.applier.end_proposal();
            running.proposing.clear();
        }
        if let Some(done) = read {
            let token = self.token();
            self.running(node).reads.insert(token, done);
            self.step(node, Input::Read { token });
        }
        self.take_later(node);
    }

    /// The Raft thread comes to the queue in a while, if there is anything in it.
    pub(super) fn take_later(&mut self, node: usize) {
        let life = self.servers[node].life;
        let Some(running) = &mut self.servers[node].running else { return };
        if running.queue.is_empty() || std::mem::replace(&mut running.taking, true) {
            return;
        }
        let (transferring, slow) = (running.raft.is_transferring(), self.random.permille(20));
        let delay = if transferring || slow { (100, 5000) } else { self.settings.take_us };
        let delay = self.delay(delay);
        self.schedule(delay, Event::Requests { node, life });
    }

    // ---- disk ----

    fn start_sync(&mut self, node: usize) {
        let disk = &mut self.servers[node].disk;
        if disk.syncing > 0 || disk.queue.is_empty() {
            return;
        }
        disk.syncing = disk.queue.len();
        let (delay, life) = (self.delay(self.settings.sync_us), self.servers[node].life);
        self.schedule(delay, Event::Synced { node, life });
    }

    pub(super) fn synced(&mut self, node: usize) {
        let full = self.servers[node].full_until > self.now;
        for done in self.servers[node].disk.finish_sync(full) {
            match done {
                Done::NoSpace => {
                    self.count("disk full");
                    let (seq, stored) = self.servers[node].disk.drop_appends(&mut self.random);
                    self.note_abort(node);
                    self.running(node).held.retain(|(after, ..)| *after < seq);
                    self.running(node).appends.clear();
                    self.step(node, Input::DiskFull { seq, stored });
                }
                Done::NotInstalled(index) => {
                    self.running(node).installing = None;
                    self.step(node, Input::SnapshotInstalled { index, ok: false });
                }
                Done::Persisted(seq) => self.persisted(node, seq),
                Done::Installed(index, _) => {
                    self.count("snapshot stored");
                    if let Some(installing) = self.running(node).installing.as_mut()
                        && installing.index == index
                    {
                        installing.stored = true;
                    }
                    self.settle(node);
                }
            }
            if self.failure.is_some() {
                return;
            }
        }
        self.start_sync(node);
        self.schedule_tick(node);
    }

    fn persisted(&mut self, node: usize, seq: Seq) {
        #[cfg(feature = "planted-bugs")]
        {
            let running = self.running(node);
            running.appends.retain(|(append, last)| {
                if *append <= seq {
                    running.applier.durable_here(*last);
                }
                *append > seq
            });
        }
        let held = std::mem::take(&mut self.running(node).held);
        for (after, to, message) in held {
            if after <= seq {
                self.send(node, to, message);
            } else {
                self.running(node).held.push((after, to, message));
            }
        }
        self.step(node, Input::Persisted { seq });
    }

    pub(super) fn entries_read(&mut self, node: usize, to: ServerId, (first, last): (Index, Index)) {
        self.count("entries read back");
        let disk = &self.servers[node].disk;
        let entries = (first.0..=last.0).map_while(|index| disk.entry(index).cloned()).collect();
        self.step(node, Input::EntriesRead { to, entries });
    }

    // ---- snapshots ----

    pub(super) fn snapshot_written(&mut self, node: usize, point: SnapshotPoint, content: Bytes) {
        if self.servers[node].full_until > self.now || self.random.permille(20) {
            return self.step(node, Input::SnapshotFailed { index: point.index });
        }
        self.count("snapshot taken");
        let (index, size_bytes) = (point.index, content.len() as u64);
        self.servers[node].disk.store_snapshot(point, content, self.settings.trailing);
        self.step(node, Input::SnapshotTaken { index, size_bytes });
    }

    /// Its pages are in memory: the disk gets its turn.
    pub(super) fn snapshot_read(&mut self, node: usize, point: SnapshotPoint, content: Bytes) {
        let snapshot = Snapshot::read_from(&mut &content[..]).expect("the network alters nothing");
        match &mut self.running(node).installing {
            Some(installing) if installing.index == point.index => installing.snapshot = snapshot,
            _ => return,
        }
        self.servers[node].disk.queue.push_back(DiskRequest::Install { point, content });
        self.start_sync(node);
    }

    /// As `Driver::restore_installed`.
    fn restore_installed(&mut self, node: usize) {
        let running = self.running(node);
        let Some(Installing { index, snapshot, stored: true }) = &running.installing else { return };
        let index = *index;
        match running.applier.restore(index, snapshot) {
            Ok(true) => {}
            Ok(false) => return,
            Err(Fault(fault)) => return self.fail(format!("server {}: {fault}", node + 1)),
        }
        running.installing = None;
        running.reported = index;
        self.count("snapshot installed");
        self.compare(node);
        self.step_once(node, Input::SnapshotInstalled { index, ok: true });
    }

    fn send_snapshot(&mut self, from: usize, to: ServerId, term: Term, index: Index) {
        let stored = self.servers[from].disk.snapshot.clone();
        let Some((point, content)) = stored.filter(|(point, _)| point.index == index) else {
            return self.snapshot_sent_later(from, to, false);
        };
        let message = Message::InstallSnapshot(InstallSnapshot {
            term,
            last_index: point.index,
            last_term: point.term,
            configuration_index: point.configuration_index,
            configuration: point.configuration,
            data: SnapshotData::new(content),
        });
        self.send(from, node_of(to), message);
        self.snapshot_sent_later(from, to, true);
    }

    fn snapshot_sent_later(&mut self, node: usize, to: ServerId, ok: bool) {
        let (delay, life) = (self.delay((10, 1000)), self.servers[node].life);
        self.schedule(delay, Event::SnapshotSent { node, life, to, ok });
    }

    pub(super) fn snapshot_sent(&mut self, node: usize, to: ServerId, ok: bool) {
        self.step(node, Input::SnapshotSent { to, ok });
    }

    // ---- network and time ----

    fn send(&mut self, from: usize, to: usize, message: Message) {
        let verdict = self.checker.sent(from, id_of(to), &message, &self.servers[from].disk);
        self.judge(verdict);
        let lost = self.blocked[from][to] > self.now || self.random.permille(self.settings.loss);
        if lost && !self.recovering {
            // A stream that loses something breaks, and one end may notice; a snapshot in pieces surely.
            if matches!(message, Message::InstallSnapshot(_)) || self.random.permille(500) {
                let (delay, life) = (self.delay((100, 20_000)), self.servers[from].life);
                self.schedule(delay, Event::Unreachable { node: from, life, peer: to });
            }
            return;
        }
        let mut delay = self.delay(self.settings.delay_us);
        if self.random.permille(5) {
            delay += self.delay((0, self.settings.election_ms * 3000));
        }
        self.schedule(delay, Event::Deliver { from, to, message });
    }

    pub(super) fn deliver(&mut self, from: usize, to: usize, message: Message) {
        if self.blocked[from][to] > self.now || self.servers[to].running.is_none() {
            return;
        }
        if self.trace.is_some() {
            trace!(self, "server {} receives from {}: {}", to + 1, from + 1, describe_message(&message));
        }
        let result = matches!(message, Message::AppendEntriesResult(_));
        let peer = Peer { id: id_of(from), address: address_of(from) };
        self.step(to, Input::Receive { from: peer, message });
        if let (true, Some(running)) = (result, &self.servers[to].running) {
            let verdict = self.checker.matched(&running.raft, id_of(from), &self.servers[from].disk);
            self.judge(verdict);
        }
    }

    pub(super) fn connection_lost(&mut self, node: usize, leader: usize) {
        self.step(node, Input::ConnectionLost { leader: id_of(leader) });
    }

    pub(super) fn unreachable(&mut self, node: usize, peer: usize) {
        self.step(node, Input::PeerUnreachable { id: id_of(peer) });
    }

    /// One that comes early schedules the next one.
    fn schedule_tick(&mut self, node: usize) {
        let (now, life) = (self.now, self.servers[node].life);
        let Some(running) = &mut self.servers[node].running else { return };
        let Some(Time(deadline)) = running.raft.deadline() else { return };
        let time = (deadline * 1000).max(now + 1);
        if time < running.tick.unwrap_or(u64::MAX) {
            running.tick = Some(time);
            self.schedule_at(time, Event::Tick { node, life, time });
        }
    }

    pub(super) fn tick(&mut self, node: usize, time: u64) {
        let now = self.now;
        let running = self.running(node);
        if running.tick != Some(time) {
            return;
        }
        running.tick = None;
        match running.raft.deadline() {
            Some(Time(deadline)) if deadline * 1000 <= now => self.step(node, Input::Tick),
            _ => self.schedule_tick(node),
        }
    }

    /// Somebody asks a server's databases for a checkpoint, at a moment that is as good as any.
    pub(super) fn checkpoint(&mut self, node: usize) {
        let delay = self.delay((1000, 100_000));
        self.schedule(delay, Event::Checkpoint { node });
        let Some(running) = &self.servers[node].running else { return };
        let mut done = 0;
        for database in running.registry.all() {
            let (before, deep) = (database.vfs.checkpoints(), !database.vfs.drained());
            database.vfs.checkpoint();
            if database.vfs.checkpoints() > before {
                done += 1 + u64::from(deep);
            }
        }
        for what in ["checkpoint", "checkpoint under a pipeline"].iter().take(done as usize) {
            self.count(what);
        }
    }
}

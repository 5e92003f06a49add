//! Our core and our store, as `src/node/driver.rs` puts them together, without databases and sockets.
//!
//! Durable, `ours`: dqlite::store, group commit with fdatasync on segments filled with zeros, which its
//! threads prepare and close while it is measured. The leader sends entries before they are durable here, and
//! counts itself only then.
//!
//! `our-core` is the same core on the file of the peers, which tells apart what core and store cost.

use crate::append_file::{AppendFile, Record};
use crate::gauge::{Gauge, leader_first};
use crate::load::Cluster;
use crate::{ELECTION_TIMEOUT_MS, HEARTBEAT_MS};
use bytes::Bytes;
use dqlite::config;
use dqlite::raft::{
    Configuration, Entry, EntryKind, Index, Input, Message, Options, Output, Outputs, Peer, Raft, Refusal,
    Role, Seq, Server, ServerId, Start, State, Time, Token, TrailingStrategy,
};
use dqlite::store::{self, AutoRecovery, Directory, Store};
use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{oneshot, watch};

enum Event {
    Store(store::Event),
    Message(Peer, Message),
    EntriesRead(ServerId, Vec<Entry>),
    Propose(Bytes, oneshot::Sender<Result<(), Refusal>>),
}

pub struct Ours {
    leader: UnboundedSender<Event>,
    gauges: Vec<Arc<Gauge>>,
}

impl Cluster for Ours {
    async fn propose(&self, payload: Bytes) -> Result<(), String> {
        let (done, ended) = oneshot::channel();
        self.leader.send(Event::Propose(payload, done)).map_err(|_| "the leader has ended")?;
        ended.await.map_err(|_| "the leader has ended")?.map_err(|refusal| refusal.to_string())
    }

    fn gauges(&self) -> &[Arc<Gauge>] {
        &self.gauges
    }

    async fn check(&self, _acknowledged: u64) -> Result<(), String> {
        Ok(())
    }
}

/// Which log the core has.
#[derive(Clone, Copy)]
pub enum LogKind {
    Store,
    AppendFile,
}

pub async fn start(directory: &Path, nodes: usize, kind: LogKind) -> Result<Ours, String> {
    let gauges = Gauge::several(nodes);
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..nodes).map(|_| unbounded_channel()).unzip();
    let (leads, mut leader) = watch::channel(None);
    for (position, events) in receivers.into_iter().enumerate() {
        let mut node =
            Node::open(directory, position, &senders, (kind, gauges[position].clone()), leads.clone())?;
        node.start()?;
        tokio::spawn(async move {
            if let Err(error) = node.run(events).await {
                // Whoever waits for this node would wait for ever.
                eprintln!("peers: node {} of ours has ended: {error}", node.position + 1);
                std::process::exit(1);
            }
        });
    }
    let leader = leader.wait_for(Option::is_some).await.map_err(|error| error.to_string())?;
    let position = leader.ok_or("no leader")?;
    Ok(Ours { leader: senders[position].clone(), gauges: leader_first(gauges, position) })
}

enum Log {
    Store(Store),
    AppendFile(AppendFile),
}

struct Node {
    position: usize,
    core: Raft,
    start: Option<Start>,
    log: Log,
    clock: Instant,
    servers: Vec<UnboundedSender<Event>>,
    gauge: Arc<Gauge>,
    leads: watch::Sender<Option<usize>>,
    /// Commands of each append that is not durable.
    appends: VecDeque<(Seq, u64)>,
    held: VecDeque<(Seq, ServerId, Message)>,
    proposing: Option<oneshot::Sender<Result<(), Refusal>>>,
    pending: VecDeque<(Index, oneshot::Sender<Result<(), Refusal>>)>,
    committed: Index,
    tokens: u64,
}

fn id(position: usize) -> ServerId {
    ServerId(position as u64 + 1)
}

fn options(position: usize) -> Options {
    Options {
        id: id(position),
        address: address(position),
        election_timeout_ms: ELECTION_TIMEOUT_MS,
        heartbeat_timeout_ms: HEARTBEAT_MS,
        snapshot_threshold: u64::MAX,
        snapshot_trailing: config::SNAPSHOT_TRAILING,
        trailing_strategy: TrailingStrategy::Static,
        log_memory_bytes: config::LOG_MEMORY_BYTES,
    }
}

fn address(position: usize) -> String {
    format!("node-{position}")
}

impl Node {
    fn open(
        directory: &Path,
        position: usize,
        servers: &[UnboundedSender<Event>],
        (kind, gauge): (LogKind, Arc<Gauge>),
        leads: watch::Sender<Option<usize>>,
    ) -> Result<Node, String> {
        let server = |position| Server { id: id(position), address: address(position), role: Role::Voter };
        let configuration = Configuration { servers: (0..servers.len()).map(server).collect() };
        let path = directory.join(format!("node-{position}"));
        std::fs::create_dir(&path).map_err(|error| error.to_string())?;
        let describe = |error: store::Error| error.to_string();
        let mut locked = Directory::open(&path).and_then(|directory| directory.lock()).map_err(describe)?;
        locked.bootstrap(&configuration).map_err(describe)?;
        let loaded = locked.load(AutoRecovery::Off).map_err(describe)?;
        let events = servers[position].clone();
        let on_event = Box::new(move |event| drop(events.send(Event::Store(event))));
        let log = match kind {
            LogKind::Store => Log::Store(
                Store::start(locked, &loaded, store::Options::default(), on_event).map_err(describe)?,
            ),
            LogKind::AppendFile => {
                let file = AppendFile::create(directory, position, gauge.clone());
                Log::AppendFile(file.map_err(|error| error.to_string())?)
            }
        };
        let start = Start {
            term: loaded.term,
            voted_for: loaded.voted_for,
            snapshot: None,
            first_index: loaded.first_index,
            entries: loaded.entries,
        };
        Ok(Node {
            position,
            core: Raft::new(options(position), position as u64),
            start: Some(start),
            log,
            clock: Instant::now(),
            servers: servers.to_vec(),
            gauge,
            leads,
            appends: VecDeque::new(),
            held: VecDeque::new(),
            proposing: None,
            pending: VecDeque::new(),
            committed: Index(0),
            tokens: 0,
        })
    }

    fn start(&mut self) -> Result<(), String> {
        let start = self.start.take().ok_or("started twice")?;
        self.step(Input::Start(start))
    }

    async fn run(&mut self, mut events: UnboundedReceiver<Event>) -> Result<(), String> {
        loop {
            let deadline = self.core.deadline().map(|Time(ms)| self.clock + Duration::from_millis(ms));
            let sleep = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = sleep => self.step(Input::Tick)?,
                event = events.recv() => match event {
                    Some(event) => self.on_event(event)?,
                    None => return Ok(()),
                },
            }
        }
    }

    fn on_event(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Store(store::Event::Persisted { seq }) => self.persisted(seq),
            Event::Store(event) => Err(format!("the store says {event:?}")),
            Event::Message(from, message) => self.step(Input::Receive { from, message }),
            Event::EntriesRead(to, entries) => self.step(Input::EntriesRead { to, entries }),
            Event::Propose(payload, done) => {
                self.tokens += 1;
                self.proposing = Some(done);
                self.step(Input::Propose { token: Token(self.tokens), commands: vec![payload] })?;
                if let Some(refused) = self.proposing.take() {
                    let _ = refused.send(Err(Refusal::NotLeader));
                }
                Ok(())
            }
        }
    }

    fn persisted(&mut self, seq: Seq) -> Result<(), String> {
        let mut commands = 0;
        while self.appends.front().is_some_and(|(append, _)| *append <= seq) {
            commands += self.appends.pop_front().map_or(0, |(_, commands)| commands);
        }
        // The file counts for itself: it reports every append, the store every sync.
        if let Log::Store(_) = &self.log {
            self.gauge.synced(commands);
        }
        while self.held.front().is_some_and(|(after, ..)| *after <= seq) {
            if let Some((_, to, message)) = self.held.pop_front() {
                self.send(to, message);
            }
        }
        self.step(Input::Persisted { seq })
    }

    /// One call of the core, what it answers, and the application of what that commits.
    fn step(&mut self, input: Input) -> Result<(), String> {
        self.step_once(input)?;
        while self.core.status().applied_index < self.committed {
            let index = self.committed;
            while self.pending.front().is_some_and(|(pending, _)| *pending <= index) {
                if let Some((_, done)) = self.pending.pop_front() {
                    let _ = done.send(Ok(()));
                }
            }
            self.step_once(Input::Applied { index })?;
        }
        Ok(())
    }

    fn step_once(&mut self, input: Input) -> Result<(), String> {
        let now = Time(self.clock.elapsed().as_millis() as u64);
        let mut outputs = Outputs::new();
        self.core.step(now, input, &mut outputs).map_err(|error| error.to_string())?;
        outputs.into_iter().try_for_each(|output| self.carry_out(output))
    }

    fn carry_out(&mut self, output: Output) -> Result<(), String> {
        match output {
            Output::PersistVote { term, voted_for, seq } => match &self.log {
                Log::Store(store) => store.persist_vote(term, voted_for, seq),
                Log::AppendFile(_) => {
                    let vote = voted_for.map_or(0, |server| server.0).to_le_bytes();
                    let payload = Bytes::copy_from_slice(&vote);
                    let record = Record { term: term.0, index: 0, payload, is_command: false };
                    self.append_records(vec![record], seq);
                }
            },
            Output::Append { first_index, entries, seq } => self.append(first_index, entries, seq),
            Output::Truncate { from, seq } => match &self.log {
                Log::Store(store) => store.truncate(from, seq),
                Log::AppendFile(_) => return Err("a truncation: not while it is measured".into()),
            },
            Output::Send { to, message, after: Some(after), .. } => self.held.push_back((after, to, message)),
            Output::Send { to, message, after: None, .. } => self.send(to, message),
            Output::ReadEntries { to, first, last } => {
                let events = self.servers[self.position].clone();
                let reply = move |entries: Result<_, _>| {
                    let _ = events.send(Event::EntriesRead(to, entries.unwrap_or_default()));
                };
                match &self.log {
                    Log::Store(store) => store.read_entries(first, last, Box::new(reply)),
                    Log::AppendFile(_) => return Err("a follower lags by more than the log in memory".into()),
                }
            }
            Output::Accepted { first_index, .. } => {
                self.pending.extend(self.proposing.take().map(|done| (first_index, done)));
            }
            Output::Commit { up_to } => self.committed = up_to,
            Output::Complete { result: Err(refusal), .. } => {
                for (_, done) in self.pending.drain(..) {
                    let _ = done.send(Err(refusal));
                }
            }
            Output::RoleChanged { state: State::Leader, .. } => {
                self.leads.send_replace(Some(self.position));
            }
            Output::Complete { .. } | Output::RoleChanged { .. } | Output::ConfigurationChanged { .. } => {}
            Output::SendSnapshot { .. } | Output::InstallSnapshot { .. } | Output::TakeSnapshot { .. } => {
                return Err("no snapshots are taken while it is measured".into());
            }
        }
        Ok(())
    }

    fn append(&mut self, first_index: Index, entries: Vec<Entry>, seq: Seq) {
        let is_command = |entry: &Entry| entry.kind == EntryKind::Command;
        self.appends.push_back((seq, entries.iter().filter(|entry| is_command(entry)).count() as u64));
        match &self.log {
            Log::Store(store) => store.append(first_index, entries, seq),
            Log::AppendFile(_) => {
                let record = |(entry, index): (Entry, u64)| {
                    let is_command = is_command(&entry);
                    Record { term: entry.term.0, index, payload: entry.payload, is_command }
                };
                self.append_records(entries.into_iter().zip(first_index.0..).map(record).collect(), seq);
            }
        }
    }

    fn append_records(&self, records: Vec<Record>, seq: Seq) {
        if let Log::AppendFile(file) = &self.log {
            let events = self.servers[self.position].clone();
            let done = move || drop(events.send(Event::Store(store::Event::Persisted { seq })));
            file.append(records, done);
        }
    }

    fn send(&self, to: ServerId, message: Message) {
        let from = Peer { id: id(self.position), address: address(self.position) };
        // Nodes end with the process only.
        let _ = self.servers[to.0 as usize - 1].send(Event::Message(from, message));
    }
}

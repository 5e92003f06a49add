//! raft-rs 0.7.0 (crate `raft`), driven by a Ready loop as TiKV does it: proposals that wait share a Ready,
//! the leader sends before its own disk is done, appends are asynchronous (`advance_append_async`,
//! `on_persist_ready`).
//!
//! Durable: `append_file`. A Ready that must be synced is persisted, and its messages leave, once its records
//! are. raft-rs itself hands out committed entries only when they are persisted here, too: a leader whose own
//! disk is the slowest does not acknowledge what two others have.

use crate::append_file::{AppendFile, Record};
use crate::gauge::{Gauge, leader_first};
use crate::load::Cluster;
use crate::{ELECTION_TIMEOUT_MS, HEARTBEAT_MS};
use bytes::Bytes;
use raft::eraftpb::{Entry, EntryType, Message, MessageType};
use raft::storage::MemStorage;
use raft::{Config, RawNode, StateRole};
use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{oneshot, watch};
use tokio::time::MissedTickBehavior;

const TICK_MS: u64 = 100;
/// As in our core: `APPEND_BYTES_MAX` and `INFLIGHT_MESSAGES_MAX`.
const MESSAGE_BYTES_MAX: u64 = 1 << 20;
const INFLIGHT_MESSAGES_MAX: usize = 4096;

enum Event {
    Message(Message),
    Persisted { ready: u64 },
    Propose(Bytes, oneshot::Sender<Result<(), String>>),
}

pub struct RaftRs {
    leader: UnboundedSender<Event>,
    gauges: Vec<Arc<Gauge>>,
}

impl Cluster for RaftRs {
    async fn propose(&self, payload: Bytes) -> Result<(), String> {
        let (done, ended) = oneshot::channel();
        self.leader.send(Event::Propose(payload, done)).map_err(|_| "the leader has ended")?;
        ended.await.map_err(|_| "the leader gave it up")?
    }

    fn gauges(&self) -> &[Arc<Gauge>] {
        &self.gauges
    }

    async fn check(&self, _acknowledged: u64) -> Result<(), String> {
        Ok(())
    }
}

pub async fn start(directory: &Path, nodes: usize) -> Result<RaftRs, String> {
    let gauges = Gauge::several(nodes);
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..nodes).map(|_| unbounded_channel()).unzip();
    let (leads, mut leader) = watch::channel(None);
    for (position, events) in receivers.into_iter().enumerate() {
        let log = AppendFile::create(directory, position, gauges[position].clone());
        let log = log.map_err(|error| error.to_string())?;
        let mut node =
            Node::new(position, log, &senders, leads.clone()).map_err(|error| error.to_string())?;
        if position == 0 {
            node.raw.campaign().map_err(|error| error.to_string())?;
        }
        tokio::spawn(async move {
            if let Err(error) = node.run(events).await {
                eprintln!("peers: node {} of raft-rs has ended: {error}", position + 1);
                std::process::exit(1);
            }
        });
    }
    let leader = leader.wait_for(Option::is_some).await.map_err(|error| error.to_string())?;
    let position = leader.ok_or("no leader")?;
    Ok(RaftRs { leader: senders[position].clone(), gauges: leader_first(gauges, position) })
}

/// A Ready that is not persisted yet, and what must not leave before it is.
struct Unpersisted {
    ready: u64,
    must_sync: bool,
    messages: Vec<Message>,
}

struct Node {
    position: usize,
    raw: RawNode<MemStorage>,
    log: AppendFile,
    nodes: Vec<UnboundedSender<Event>>,
    leads: watch::Sender<Option<usize>>,
    unpersisted: VecDeque<Unpersisted>,
    pending: VecDeque<(u64, oneshot::Sender<Result<(), String>>)>,
}

impl Node {
    fn new(
        position: usize,
        log: AppendFile,
        nodes: &[UnboundedSender<Event>],
        leads: watch::Sender<Option<usize>>,
    ) -> raft::Result<Node> {
        let voters: Vec<u64> = (1..=nodes.len() as u64).collect();
        let storage = MemStorage::new_with_conf_state((voters, vec![]));
        let config = Config {
            id: position as u64 + 1,
            election_tick: (ELECTION_TIMEOUT_MS / TICK_MS) as usize,
            heartbeat_tick: (HEARTBEAT_MS / TICK_MS) as usize,
            max_size_per_msg: MESSAGE_BYTES_MAX,
            max_inflight_msgs: INFLIGHT_MESSAGES_MAX,
            batch_append: true,
            check_quorum: true,
            pre_vote: true,
            ..Config::default()
        };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        Ok(Node {
            position,
            raw: RawNode::new(&config, storage, &logger)?,
            log,
            nodes: nodes.to_vec(),
            leads,
            unpersisted: VecDeque::new(),
            pending: VecDeque::new(),
        })
    }

    async fn run(&mut self, mut events: UnboundedReceiver<Event>) -> Result<(), String> {
        let mut ticks = tokio::time::interval(Duration::from_millis(TICK_MS));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                biased;
                _ = ticks.tick() => {
                    self.raw.tick();
                }
                event = events.recv() => match event {
                    Some(event) => self.on_event(event)?,
                    None => return Ok(()),
                },
            }
            // Whatever waits shares the next Ready.
            while let Ok(event) = events.try_recv() {
                self.on_event(event)?;
            }
            while self.raw.has_ready() {
                self.on_ready()?;
            }
        }
    }

    fn on_event(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Message(message) => self.raw.step(message).map_err(|error| error.to_string()),
            Event::Persisted { ready } => {
                self.persisted(ready);
                Ok(())
            }
            Event::Propose(payload, done) => {
                match self.propose(payload) {
                    Ok(index) => self.pending.push_back((index, done)),
                    Err(error) => drop(done.send(Err(error.to_string()))),
                }
                Ok(())
            }
        }
    }

    /// As `RawNode::propose`, which would copy the payload.
    fn propose(&mut self, payload: Bytes) -> raft::Result<u64> {
        let mut message = Message::default();
        message.set_msg_type(MessageType::MsgPropose);
        message.from = self.raw.raft.id;
        message.set_entries(vec![Entry { data: payload, ..Entry::default() }].into());
        self.raw.raft.step(message)?;
        Ok(self.raw.raft.raft_log.last_index())
    }

    fn on_ready(&mut self) -> Result<(), String> {
        let mut ready = self.raw.ready();
        self.send(ready.take_messages());
        self.apply(&ready.take_committed_entries());
        let number = ready.number();
        let mut records: Vec<Record> = ready.entries().iter().map(record).collect();
        {
            let mut storage = self.raw.raft.raft_log.store.wl();
            storage.append(ready.entries()).map_err(|error| error.to_string())?;
            if let Some(state) = ready.hs() {
                storage.set_hardstate(state.clone());
                if ready.must_sync() {
                    let payload = Bytes::copy_from_slice(&state.vote.to_le_bytes());
                    records.push(Record { term: state.term, index: 0, payload, is_command: false });
                }
            }
        }
        if ready.ss().is_some_and(|state| state.raft_state == StateRole::Leader) {
            self.leads.send_replace(Some(self.position));
        }
        let (must_sync, messages) = (ready.must_sync(), ready.take_persisted_messages());
        self.unpersisted.push_back(Unpersisted { ready: number, must_sync, messages });
        self.raw.advance_append_async(ready);
        self.raw.advance_apply();
        if must_sync {
            let events = self.nodes[self.position].clone();
            self.log.append(records, move || drop(events.send(Event::Persisted { ready: number })));
        } else {
            self.persisted(0);
        }
        Ok(())
    }

    /// A Ready without anything to sync is persisted as soon as those before it are.
    fn persisted(&mut self, up_to: u64) {
        while self.unpersisted.front().is_some_and(|next| next.ready <= up_to || !next.must_sync) {
            if let Some(Unpersisted { ready, messages, .. }) = self.unpersisted.pop_front() {
                self.raw.on_persist_ready(ready);
                self.send(messages);
            }
        }
    }

    fn apply(&mut self, entries: &[Entry]) {
        let Some(last) = entries.last() else { return };
        while self.pending.front().is_some_and(|(index, _)| *index <= last.index) {
            if let Some((_, done)) = self.pending.pop_front() {
                let _ = done.send(Ok(()));
            }
        }
    }

    fn send(&self, messages: Vec<Message>) {
        for message in messages {
            // Nodes end with the process only.
            let _ = self.nodes[message.to as usize - 1].send(Event::Message(message));
        }
    }
}

fn record(entry: &Entry) -> Record {
    let is_command = entry.get_entry_type() == EntryType::EntryNormal && !entry.data.is_empty();
    Record { term: entry.term, index: entry.index, payload: entry.data.clone(), is_command }
}

//! openraft 0.9.25.
//!
//! Durable: `append_file`; `append` returns at once and the callback is called when the records are durable.
//! openraft 0.9 gains nothing by that: its core hands over one command at a time and waits for the callback
//! before it looks at the next (`RaftCore::append_to_log`), and it sends entries to others only then.

use crate::append_file::{AppendFile, Record};
use crate::gauge::{Gauge, leader_first};
use crate::load::Cluster;
use crate::{ELECTION_TIMEOUT_MS, HEARTBEAT_MS};
use bytes::Bytes;
use openraft::error::{InstallSnapshotError, RPCError, RaftError, RemoteError};
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
    VoteRequest, VoteResponse,
};
use openraft::storage::{LogFlushed, RaftLogStorage, RaftStateMachine};
use openraft::{
    BasicNode, Config, Entry, EntryPayload, LogId, LogState, RaftLogReader, RaftNetwork, RaftNetworkFactory,
    RaftSnapshotBuilder, Snapshot, SnapshotMeta, SnapshotPolicy, StorageError, StorageIOError,
    StoredMembership, Vote,
};
use std::collections::BTreeMap;
use std::io::{self, Cursor};
use std::ops::RangeBounds;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// What is proposed. openraft wants a type that could be serialized.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Command(Bytes);

openraft::declare_raft_types!(
    pub Types: D = Command, R = (), NodeId = u64, Node = BasicNode
);

type Raft = openraft::Raft<Types>;
type Failure = StorageError<u64>;

/// The nodes of the process, once all of them are there.
type Nodes = Arc<OnceLock<Vec<Raft>>>;

pub struct Openraft {
    leader: Raft,
    gauges: Vec<Arc<Gauge>>,
}

impl Cluster for Openraft {
    async fn propose(&self, payload: Bytes) -> Result<(), String> {
        let answer = self.leader.client_write(Command(payload)).await;
        answer.map(drop).map_err(|error| error.to_string())
    }

    fn gauges(&self) -> &[Arc<Gauge>] {
        &self.gauges
    }

    async fn check(&self, _acknowledged: u64) -> Result<(), String> {
        Ok(())
    }
}

pub async fn start(directory: &Path, nodes: usize) -> Result<Openraft, String> {
    let gauges = Gauge::several(nodes);
    let config = Config {
        election_timeout_min: ELECTION_TIMEOUT_MS,
        election_timeout_max: 2 * ELECTION_TIMEOUT_MS,
        heartbeat_interval: HEARTBEAT_MS,
        snapshot_policy: SnapshotPolicy::Never,
        ..Config::default()
    };
    let config = Arc::new(config.validate().map_err(|error| error.to_string())?);
    let shared = Nodes::default();
    let mut rafts = Vec::new();
    for (position, gauge) in gauges.iter().enumerate() {
        let file =
            AppendFile::create(directory, position, gauge.clone()).map_err(|error| error.to_string())?;
        let log = LogStore { file, log: Arc::default() };
        let id = position as u64 + 1;
        let raft = Raft::new(id, config.clone(), Links(shared.clone()), log, Machine::default()).await;
        rafts.push(raft.map_err(|error| error.to_string())?);
    }
    let members: BTreeMap<u64, BasicNode> = (1..=nodes as u64).map(|id| (id, BasicNode::default())).collect();
    let first = rafts[0].clone();
    let _ = shared.set(rafts.clone());
    first.initialize(members).await.map_err(|error| error.to_string())?;
    let leader = first.wait(None).metrics(|metrics| metrics.current_leader.is_some(), "a leader").await;
    let leader = leader.map_err(|error| error.to_string())?.current_leader.ok_or("no leader")?;
    let position = leader as usize - 1;
    Ok(Openraft { leader: rafts[position].clone(), gauges: leader_first(gauges, position) })
}

// ---- from node to node ----

#[derive(Clone)]
struct Links(Nodes);

struct Link {
    nodes: Nodes,
    target: u64,
}

impl RaftNetworkFactory<Types> for Links {
    type Network = Link;

    async fn new_client(&mut self, target: u64, _node: &BasicNode) -> Link {
        Link { nodes: self.0.clone(), target }
    }
}

type Answer<T, E = openraft::error::Infallible> = Result<T, RPCError<u64, BasicNode, RaftError<u64, E>>>;

impl Link {
    fn raft(&self) -> &Raft {
        &self.nodes.wait()[self.target as usize - 1]
    }

    fn answer<T, E: std::error::Error>(&self, result: Result<T, RaftError<u64, E>>) -> Answer<T, E> {
        result.map_err(|error| RPCError::RemoteError(RemoteError::new(self.target, error)))
    }
}

impl RaftNetwork<Types> for Link {
    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        _option: RPCOption,
    ) -> Answer<AppendEntriesResponse<u64>> {
        self.answer(self.raft().append_entries(request).await)
    }

    async fn install_snapshot(
        &mut self,
        request: InstallSnapshotRequest<Types>,
        _option: RPCOption,
    ) -> Answer<InstallSnapshotResponse<u64>, InstallSnapshotError> {
        self.answer(self.raft().install_snapshot(request).await)
    }

    async fn vote(&mut self, request: VoteRequest<u64>, _option: RPCOption) -> Answer<VoteResponse<u64>> {
        self.answer(self.raft().vote(request).await)
    }
}

// ---- the log ----

#[derive(Default)]
struct Log {
    entries: BTreeMap<u64, Entry<Types>>,
    vote: Option<Vote<u64>>,
}

/// The entries in memory, and their records in a file.
#[derive(Clone)]
struct LogStore {
    file: AppendFile,
    log: Arc<Mutex<Log>>,
}

impl LogStore {
    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn record(entry: &Entry<Types>) -> Record {
    let (payload, is_command) = match &entry.payload {
        EntryPayload::Normal(Command(payload)) => (payload.clone(), true),
        EntryPayload::Blank => (Bytes::new(), false),
        EntryPayload::Membership(membership) => (Bytes::from(membership.to_string()), false),
    };
    Record { term: entry.log_id.leader_id.term, index: entry.log_id.index, payload, is_command }
}

fn not_while_measured(what: &str) -> Failure {
    let error = io::Error::other(format!("{what}: not while it is measured"));
    StorageIOError::write_logs(&error).into()
}

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + std::fmt::Debug + Send>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry<Types>>, Failure> {
        Ok(self.log().entries.range(range).map(|(_, entry)| entry.clone()).collect())
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = LogStore;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, Failure> {
        let last_log_id = self.log().entries.last_key_value().map(|(_, entry)| entry.log_id);
        Ok(LogState { last_purged_log_id: None, last_log_id })
    }

    async fn get_log_reader(&mut self) -> LogStore {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote<u64>) -> Result<(), Failure> {
        self.file.vote_and_wait(vote.leader_id.term, vote.leader_id.node_id).await;
        self.log().vote = Some(*vote);
        Ok(())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote<u64>>, Failure> {
        Ok(self.log().vote)
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<Types>) -> Result<(), Failure>
    where
        I: IntoIterator<Item = Entry<Types>> + Send,
        I::IntoIter: Send,
    {
        let mut records = Vec::new();
        {
            let mut log = self.log();
            for entry in entries {
                records.push(record(&entry));
                log.entries.insert(entry.log_id.index, entry);
            }
        }
        self.file.append(records, || callback.log_io_completed(Ok(())));
        Ok(())
    }

    async fn truncate(&mut self, _log_id: LogId<u64>) -> Result<(), Failure> {
        Err(not_while_measured("a truncation"))
    }

    async fn purge(&mut self, _log_id: LogId<u64>) -> Result<(), Failure> {
        Err(not_while_measured("a purge"))
    }
}

// ---- the state machine: counts nothing, keeps nothing ----

#[derive(Default)]
struct Machine {
    applied: Option<LogId<u64>>,
    membership: StoredMembership<u64, BasicNode>,
}

struct NoSnapshots;

impl RaftSnapshotBuilder<Types> for NoSnapshots {
    async fn build_snapshot(&mut self) -> Result<Snapshot<Types>, Failure> {
        Err(not_while_measured("a snapshot"))
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotBuilder = NoSnapshots;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<LogId<u64>>, StoredMembership<u64, BasicNode>), Failure> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<()>, Failure>
    where
        I: IntoIterator<Item = Entry<Types>> + Send,
        I::IntoIter: Send,
    {
        let mut answers = Vec::new();
        for entry in entries {
            self.applied = Some(entry.log_id);
            if let EntryPayload::Membership(membership) = entry.payload {
                self.membership = StoredMembership::new(Some(entry.log_id), membership);
            }
            answers.push(());
        }
        Ok(answers)
    }

    async fn get_snapshot_builder(&mut self) -> NoSnapshots {
        NoSnapshots
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Cursor<Vec<u8>>>, Failure> {
        Err(not_while_measured("a snapshot"))
    }

    async fn install_snapshot(
        &mut self,
        _meta: &SnapshotMeta<u64, BasicNode>,
        _snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Result<(), Failure> {
        Err(not_while_measured("a snapshot"))
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<Types>>, Failure> {
        Ok(None)
    }
}

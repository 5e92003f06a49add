//! async-raft 0.6.1.
//!
//! Durable: `append_file`; `append_entry_to_log` and `replicate_to_log` end when the records are durable. The
//! leader appends one entry at a time, waits for it, and only then sends it to others; followers get up to
//! 300 in one request. Its safety has known holes (docs/ARCHITECTURE.md, D1), which do not show while nothing
//! fails.

use crate::append_file::{AppendFile, Record};
use crate::gauge::{Gauge, leader_first};
use crate::load::Cluster;
use crate::{ELECTION_TIMEOUT_MS, HEARTBEAT_MS};
use anyhow::{Result as Anyhow, anyhow};
use async_raft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, ClientWriteRequest, Entry, EntryPayload,
    InstallSnapshotRequest, InstallSnapshotResponse, MembershipConfig, VoteRequest, VoteResponse,
};
use async_raft::storage::{CurrentSnapshotData, HardState, InitialState};
use async_raft::{AppData, AppDataResponse, Config, NodeId, RaftNetwork, RaftStorage, SnapshotPolicy};
use async_trait::async_trait;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Command(Bytes);

#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Done;

impl AppData for Command {}
impl AppDataResponse for Done {}

type Raft = async_raft::Raft<Command, Done, Links, LogStore>;

pub struct AsyncRaft {
    leader: Raft,
    gauges: Vec<Arc<Gauge>>,
}

impl Cluster for AsyncRaft {
    async fn propose(&self, payload: Bytes) -> Result<(), String> {
        let answer = self.leader.client_write(ClientWriteRequest::new(Command(payload))).await;
        answer.map(drop).map_err(|error| error.to_string())
    }

    fn gauges(&self) -> &[Arc<Gauge>] {
        &self.gauges
    }

    async fn check(&self, _acknowledged: u64) -> Result<(), String> {
        Ok(())
    }
}

pub async fn start(directory: &Path, nodes: usize) -> Result<AsyncRaft, String> {
    let gauges = Gauge::several(nodes);
    let config = Config::build("peers".into())
        .election_timeout_min(ELECTION_TIMEOUT_MS)
        .election_timeout_max(2 * ELECTION_TIMEOUT_MS)
        .heartbeat_interval(HEARTBEAT_MS)
        .snapshot_policy(SnapshotPolicy::LogsSinceLast(u64::MAX))
        .validate();
    let config = Arc::new(config.map_err(|error| error.to_string())?);
    let links = Arc::new(Links(OnceLock::new()));
    let mut rafts = Vec::new();
    for (position, gauge) in gauges.iter().enumerate() {
        let file =
            AppendFile::create(directory, position, gauge.clone()).map_err(|error| error.to_string())?;
        let id = position as NodeId + 1;
        let store = Arc::new(LogStore { id, file, log: Mutex::default() });
        rafts.push(Raft::new(id, config.clone(), links.clone(), store));
    }
    let _ = links.0.set(rafts.clone());
    rafts[0].initialize((1..=nodes as NodeId).collect()).await.map_err(|error| error.to_string())?;
    let mut metrics = rafts[0].metrics();
    let leader = loop {
        if let Some(leader) = metrics.borrow_and_update().current_leader {
            break leader;
        }
        metrics.changed().await.map_err(|error| error.to_string())?;
    };
    let position = leader as usize - 1;
    Ok(AsyncRaft { leader: rafts[position].clone(), gauges: leader_first(gauges, position) })
}

/// From node to node.
struct Links(OnceLock<Vec<Raft>>);

impl Links {
    fn raft(&self, target: NodeId) -> &Raft {
        &self.0.wait()[target as usize - 1]
    }
}

#[async_trait]
impl RaftNetwork<Command> for Links {
    async fn append_entries(
        &self,
        target: NodeId,
        rpc: AppendEntriesRequest<Command>,
    ) -> Anyhow<AppendEntriesResponse> {
        Ok(self.raft(target).append_entries(rpc).await?)
    }

    async fn install_snapshot(
        &self,
        target: NodeId,
        rpc: InstallSnapshotRequest,
    ) -> Anyhow<InstallSnapshotResponse> {
        Ok(self.raft(target).install_snapshot(rpc).await?)
    }

    async fn vote(&self, target: NodeId, rpc: VoteRequest) -> Anyhow<VoteResponse> {
        Ok(self.raft(target).vote(rpc).await?)
    }
}

#[derive(Default)]
struct Log {
    entries: BTreeMap<u64, Entry<Command>>,
    hard_state: Option<HardState>,
    membership: Option<MembershipConfig>,
    applied: u64,
}

/// The entries in memory, and their records in a file.
struct LogStore {
    id: NodeId,
    file: AppendFile,
    log: Mutex<Log>,
}

impl LogStore {
    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn insert(&self, entry: &Entry<Command>) {
        let mut log = self.log();
        if let EntryPayload::ConfigChange(change) = &entry.payload {
            log.membership = Some(change.membership.clone());
        }
        log.entries.insert(entry.index, entry.clone());
    }
}

fn record(entry: &Entry<Command>) -> Record {
    let (payload, is_command) = match &entry.payload {
        EntryPayload::Normal(normal) => (normal.data.0.clone(), true),
        EntryPayload::ConfigChange(change) => (Bytes::from(format!("{:?}", change.membership)), false),
        EntryPayload::Blank | EntryPayload::SnapshotPointer(_) => (Bytes::new(), false),
    };
    Record { term: entry.term, index: entry.index, payload, is_command }
}

/// What stops a node; nothing does.
#[derive(Debug, thiserror::Error)]
#[error("stopped")]
struct Stopped;

#[async_trait]
impl RaftStorage<Command, Done> for LogStore {
    type Snapshot = Cursor<Vec<u8>>;
    type ShutdownError = Stopped;

    async fn get_membership_config(&self) -> Anyhow<MembershipConfig> {
        Ok(self.log().membership.clone().unwrap_or_else(|| MembershipConfig::new_initial(self.id)))
    }

    async fn get_initial_state(&self) -> Anyhow<InitialState> {
        Ok(InitialState::new_initial(self.id))
    }

    async fn save_hard_state(&self, state: &HardState) -> Anyhow<()> {
        self.file.vote_and_wait(state.current_term, state.voted_for.unwrap_or(0)).await;
        self.log().hard_state = Some(state.clone());
        Ok(())
    }

    async fn get_log_entries(&self, start: u64, stop: u64) -> Anyhow<Vec<Entry<Command>>> {
        Ok(self.log().entries.range(start..stop).map(|(_, entry)| entry.clone()).collect())
    }

    async fn delete_logs_from(&self, _start: u64, _stop: Option<u64>) -> Anyhow<()> {
        Err(anyhow!("a truncation: not while it is measured"))
    }

    async fn append_entry_to_log(&self, entry: &Entry<Command>) -> Anyhow<()> {
        self.insert(entry);
        self.file.append_and_wait(vec![record(entry)]).await;
        Ok(())
    }

    async fn replicate_to_log(&self, entries: &[Entry<Command>]) -> Anyhow<()> {
        entries.iter().for_each(|entry| self.insert(entry));
        self.file.append_and_wait(entries.iter().map(record).collect()).await;
        Ok(())
    }

    async fn apply_entry_to_state_machine(&self, index: &u64, _data: &Command) -> Anyhow<Done> {
        self.log().applied = *index;
        Ok(Done)
    }

    async fn replicate_to_state_machine(&self, entries: &[(&u64, &Command)]) -> Anyhow<()> {
        if let Some((index, _)) = entries.last() {
            self.log().applied = **index;
        }
        Ok(())
    }

    async fn do_log_compaction(&self) -> Anyhow<CurrentSnapshotData<Cursor<Vec<u8>>>> {
        Err(anyhow!("a snapshot: not while it is measured"))
    }

    async fn create_snapshot(&self) -> Anyhow<(String, Box<Cursor<Vec<u8>>>)> {
        Err(anyhow!("a snapshot: not while it is measured"))
    }

    async fn finalize_snapshot_installation(
        &self,
        _index: u64,
        _term: u64,
        _delete_through: Option<u64>,
        _id: String,
        _snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Anyhow<()> {
        Err(anyhow!("a snapshot: not while it is measured"))
    }

    async fn get_current_snapshot(&self) -> Anyhow<Option<CurrentSnapshotData<Cursor<Vec<u8>>>>> {
        Ok(None)
    }
}

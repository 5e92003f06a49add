//! hiqlite 0.15.3, all of it: the nodes in this process, connected by its own network over TCP. The clients
//! are tasks of the process that leads, which is what hiqlite is for: their statements go to the leader
//! through memory, while those of ours go through TCP from another process.
//!
//! Durable, by `NodeConfig::wal_sync` (hiqlite-wal 0.15.1, `writer.rs`): only with `LogSync::Immediate` is
//! msync (MS_SYNC) done before openraft is told that an entry is stored. `ImmediateAsync` begins to write
//! back (sync_file_range) and does not wait; `IntervalMillis(200)`, the default, waits for nothing: power
//! cuts lose what both acknowledged. The SQLite file is written with synchronous=OFF and made again from the
//! log after a crash.

use crate::gauge::Gauge;
use crate::load::Cluster;
use bytes::Bytes;
use hiqlite::{Client, LogSync, Node, NodeConfig, Param};
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// The same as in the workload `insert` of benches/load.
const SCHEMA: &str = "CREATE TABLE rows (id INTEGER PRIMARY KEY AUTOINCREMENT, client INTEGER, value)";
const INSERT: &str = "INSERT INTO rows (client, value) VALUES ($1, $2)";
const COUNT: &str = "SELECT count(*) AS held FROM rows";
const TEXT_100: &str =
    "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-+0123456789abcdefghijklmnopqrstuvwxyz";

/// Between two looks at who leads.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

pub struct Hiqlite {
    leader: Client,
    /// They stop when their clients are dropped.
    _nodes: Vec<Client>,
}

impl Cluster for Hiqlite {
    async fn propose(&self, _payload: Bytes) -> Result<(), String> {
        let values = vec![Param::Integer(0), Param::Text(TEXT_100.into())];
        match self.leader.execute(INSERT, values).await {
            Ok(1) => Ok(()),
            Ok(rows) => Err(format!("an INSERT of one row changed {rows}")),
            Err(error) => Err(error.to_string()),
        }
    }

    fn gauges(&self) -> &[Arc<Gauge>] {
        &[]
    }

    async fn check(&self, acknowledged: u64) -> Result<(), String> {
        let row = self.leader.query_raw_one(COUNT, vec![]).await;
        let held: i64 = row.map_err(|error| error.to_string())?.get("held");
        match held == acknowledged as i64 {
            true => Ok(()),
            false => Err(format!("{acknowledged} rows were acknowledged, {held} are there")),
        }
    }
}

/// What peers.py calls the settings. The default is the last one.
pub fn wal_sync(library: &str) -> Option<LogSync> {
    match library {
        "hiqlite" => Some(LogSync::Immediate),
        "hiqlite-async" => Some(LogSync::ImmediateAsync),
        "hiqlite-interval" => Some(LogSync::IntervalMillis(200)),
        _ => None,
    }
}

pub async fn start(directory: &Path, nodes: usize, wal_sync: LogSync) -> Result<Hiqlite, String> {
    let servers = servers(nodes).map_err(|error| error.to_string())?;
    let mut starts = JoinSet::new();
    for (position, server) in servers.iter().enumerate() {
        let path = directory.join(format!("node-{position}"));
        std::fs::create_dir(&path).map_err(|error| error.to_string())?;
        let config = NodeConfig {
            node_id: server.id,
            nodes: servers.clone(),
            listen_addr_api: "127.0.0.1".into(),
            listen_addr_raft: "127.0.0.1".into(),
            data_dir: path.to_string_lossy().into_owned().into(),
            wal_sync: wal_sync.clone(),
            secret_raft: "secret between the nodes".into(),
            secret_api: "secret of the clients".into(),
            ..NodeConfig::default()
        };
        starts.spawn(async move { hiqlite::start_node(config).await });
    }
    let mut clients = Vec::new();
    while let Some(started) = starts.join_next().await {
        let client = started.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        clients.push(client);
    }
    let leader = loop {
        if let Some(leader) = leader_of_all(&clients, nodes).await {
            break leader;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    };
    leader.execute(SCHEMA, vec![]).await.map_err(|error| error.to_string())?;
    Ok(Hiqlite { leader, _nodes: clients })
}

/// The leader's client, once all nodes are voters.
async fn leader_of_all(clients: &[Client], nodes: usize) -> Option<Client> {
    for client in clients {
        let metrics = client.metrics_db().await.ok()?;
        if metrics.current_leader == Some(metrics.id) && client.is_leader_db().await {
            return (metrics.membership_config.voter_ids().count() == nodes).then(|| client.clone());
        }
    }
    None
}

fn servers(nodes: usize) -> std::io::Result<Vec<Node>> {
    // All of them are bound before one is released, so that they differ.
    let sockets: Vec<TcpListener> =
        (0..2 * nodes).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
    let address = |socket: &TcpListener| socket.local_addr().map(|address| address.to_string());
    let pairs = sockets.chunks(2).zip(1..);
    pairs
        .map(|(pair, id)| Ok(Node { id, addr_raft: address(&pair[0])?, addr_api: address(&pair[1])? }))
        .collect()
}

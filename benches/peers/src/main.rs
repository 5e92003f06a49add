//! One cluster of one library in this process, under load:
//!
//! ```text
//! peers LIBRARY NODES PAYLOAD_BYTES PROPOSERS WARM_UP_MS MEASURED_MS DIRECTORY
//! ```
//!
//! PROPOSERS are numbers with commas between; each gives a line of JSON. The payload of hiqlite is a row that
//! is inserted, whatever PAYLOAD_BYTES says. peers.py runs this again and again and prints the table.
//!
//! The nodes share one tokio runtime with the proposers. What they send each other is passed on as values
//! through memory, without bytes in between; hiqlite has its own network. Nothing takes snapshots while it is
//! measured.

mod append_file;
mod async_raft_0_6;
mod gauge;
#[cfg(feature = "hiqlite")]
mod hiqlite_product;
mod load;
mod openraft_0_9;
mod ours;
mod raft_rs;

use bytes::Bytes;
use load::{Cluster, Load, measure};
use ours::LogKind;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The same for all libraries whose nodes are connected here; hiqlite keeps its own.
const ELECTION_TIMEOUT_MS: u64 = 2000;
const HEARTBEAT_MS: u64 = 200;
/// Until a cluster has a leader.
const PATIENCE: Duration = Duration::from_secs(60);

const USAGE: &str = "peers LIBRARY NODES PAYLOAD_BYTES PROPOSERS WARM_UP_MS MEASURED_MS DIRECTORY";
const LIBRARIES: &str =
    "ours, our-core, raft-rs, openraft, async-raft, hiqlite, hiqlite-async, hiqlite-interval";

struct Arguments {
    library: String,
    nodes: usize,
    proposers: Vec<usize>,
    load: Load,
    directory: String,
}

fn arguments() -> Option<Arguments> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [library, nodes, payload, proposers, warm_up_ms, measured_ms, directory] = &words[..] else {
        return None;
    };
    let load = Load {
        warm_up: Duration::from_millis(warm_up_ms.parse().ok()?),
        measured: Duration::from_millis(measured_ms.parse().ok()?),
        payload: Bytes::from(vec![0x5a; payload.parse().ok()?]),
    };
    Some(Arguments {
        library: library.clone(),
        nodes: nodes.parse().ok().filter(|nodes| *nodes > 0)?,
        proposers: proposers.split(',').map(|word| word.parse().ok()).collect::<Option<_>>()?,
        load,
        directory: directory.clone(),
    })
}

async fn run(arguments: Arguments) -> Result<(), String> {
    let directory = Path::new(&arguments.directory);
    let nodes = arguments.nodes;
    match &*arguments.library {
        "ours" => series(&arguments, ours::start(directory, nodes, LogKind::Store)).await,
        "our-core" => series(&arguments, ours::start(directory, nodes, LogKind::AppendFile)).await,
        "raft-rs" => series(&arguments, raft_rs::start(directory, nodes)).await,
        "openraft" => series(&arguments, openraft_0_9::start(directory, nodes)).await,
        "async-raft" => series(&arguments, async_raft_0_6::start(directory, nodes)).await,
        #[cfg(feature = "hiqlite")]
        name if name.starts_with("hiqlite") => {
            let wal_sync = hiqlite_product::wal_sync(name).ok_or_else(|| unknown(name))?;
            series(&arguments, hiqlite_product::start(directory, nodes, wal_sync)).await
        }
        other => Err(unknown(other)),
    }
}

fn unknown(library: &str) -> String {
    format!("{library} is none of {LIBRARIES}, or was not built")
}

async fn series<C: Cluster>(
    arguments: &Arguments,
    start: impl Future<Output = Result<C, String>>,
) -> Result<(), String> {
    let cluster = tokio::time::timeout(PATIENCE, start).await;
    let cluster = Arc::new(cluster.map_err(|_| format!("no leader within {PATIENCE:?}"))??);
    let acknowledged = Arc::new(AtomicU64::new(0));
    for proposers in &arguments.proposers {
        let sample = measure(&cluster, &arguments.load, *proposers, &acknowledged).await?;
        println!("{}", serde_json::to_string(&sample).map_err(|error| error.to_string())?);
    }
    cluster.check(acknowledged.load(Ordering::SeqCst)).await
}

#[tokio::main]
async fn main() {
    let Some(arguments) = arguments() else {
        eprintln!("usage: {USAGE}\nlibraries: {LIBRARIES}");
        std::process::exit(2);
    };
    let status = match run(arguments).await {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("peers: {error}");
            1
        }
    };
    // Without waiting for the nodes: what they have left to do is of no interest.
    std::process::exit(status);
}

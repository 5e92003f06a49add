//! Proposers, and what they measure: how often a cluster acknowledged, how long that took, what it cost.

use crate::gauge::Gauge;
use bytes::Bytes;
use rustix::time::{ClockId, clock_gettime};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// A cluster in this process that has a leader.
pub trait Cluster: Send + Sync + 'static {
    /// Ends when the leader acknowledges.
    fn propose(&self, payload: Bytes) -> impl Future<Output = Result<(), String>> + Send;
    /// What the disks of the nodes did, the leader's first; empty if the cluster does not tell.
    fn gauges(&self) -> &[Arc<Gauge>];
    /// Looks whether the cluster has what it acknowledged.
    fn check(&self, acknowledged: u64) -> impl Future<Output = Result<(), String>> + Send;
}

/// How long is proposed, and what.
#[derive(Clone)]
pub struct Load {
    pub warm_up: Duration,
    pub measured: Duration,
    pub payload: Bytes,
}

/// What came of it, of the measured time.
#[derive(serde::Serialize)]
pub struct Sample {
    pub proposers: usize,
    pub rate: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    /// Processor time of the whole process: all nodes and the proposers.
    pub cpu_us_op: f64,
    /// Commands in one sync of the leader; 0 if the cluster does not tell.
    pub per_sync: f64,
}

/// Runs this many proposers, each with one proposal at a time. `acknowledged` counts all of the cluster's
/// life.
pub async fn measure<C: Cluster>(
    cluster: &Arc<C>,
    load: &Load,
    proposers: usize,
    acknowledged: &Arc<AtomicU64>,
) -> Result<Sample, String> {
    let begin = Instant::now() + load.warm_up;
    let end = begin + load.measured;
    let mut tasks = JoinSet::new();
    for _ in 0..proposers {
        let (cluster, load, acknowledged) = (cluster.clone(), load.clone(), acknowledged.clone());
        tasks.spawn(async move { propose_until(&*cluster, load.payload, begin, end, &acknowledged).await });
    }
    tokio::time::sleep_until(begin.into()).await;
    let before = Spent::until_now(&**cluster);
    tokio::time::sleep_until(end.into()).await;
    let after = Spent::until_now(&**cluster);
    let mut latencies_us = Vec::new();
    while let Some(task) = tasks.join_next().await {
        latencies_us.extend(task.map_err(|error| error.to_string())??);
    }
    latencies_us.sort_unstable_by(f64::total_cmp);
    let done = latencies_us.len() as f64;
    let percentile = |part: f64| latencies_us.get((done * part) as usize).copied().unwrap_or_default();
    let syncs = after.syncs - before.syncs;
    Ok(Sample {
        proposers,
        rate: done / load.measured.as_secs_f64(),
        p50_us: percentile(0.5),
        p99_us: percentile(0.99),
        cpu_us_op: (after.cpu_us - before.cpu_us) / done.max(1.0),
        per_sync: if syncs == 0 { 0.0 } else { (after.commands - before.commands) as f64 / syncs as f64 },
    })
}

/// The latencies of what was acknowledged in the measured time, in microseconds.
async fn propose_until<C: Cluster>(
    cluster: &C,
    payload: Bytes,
    begin: Instant,
    end: Instant,
    acknowledged: &AtomicU64,
) -> Result<Vec<f64>, String> {
    let mut latencies_us = Vec::new();
    loop {
        let proposed = Instant::now();
        if proposed >= end {
            return Ok(latencies_us);
        }
        cluster.propose(payload.clone()).await?;
        is_durable(cluster.gauges(), acknowledged.fetch_add(1, Ordering::SeqCst) + 1)?;
        let now = Instant::now();
        if now >= begin && now < end {
            latencies_us.push((now - proposed).as_secs_f64() * 1e6);
        }
    }
}

/// Equal durability, checked with every acknowledgement: logs are prefixes of each other, so a majority of
/// the disks must hold as many commands as were acknowledged.
fn is_durable(gauges: &[Arc<Gauge>], acknowledged: u64) -> Result<(), String> {
    if gauges.is_empty() {
        return Ok(());
    }
    let mut durable: Vec<u64> = gauges.iter().map(|gauge| gauge.commands()).collect();
    durable.sort_unstable();
    let by_majority = durable[(durable.len() - 1) / 2];
    if by_majority < acknowledged {
        return Err(format!(
            "{acknowledged} commands were acknowledged, a majority has {by_majority} on disk"
        ));
    }
    Ok(())
}

struct Spent {
    cpu_us: f64,
    syncs: u64,
    commands: u64,
}

impl Spent {
    fn until_now(cluster: &impl Cluster) -> Spent {
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        let leader = cluster.gauges().first();
        Spent {
            cpu_us: cpu.tv_sec as f64 * 1e6 + cpu.tv_nsec as f64 / 1e3,
            syncs: leader.map_or(0, |gauge| gauge.syncs()),
            commands: leader.map_or(0, |gauge| gauge.commands()),
        }
    }
}

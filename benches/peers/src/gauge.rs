//! What one node's disk did so far.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Default)]
pub struct Gauge {
    commands: AtomicU64,
    syncs: AtomicU64,
}

impl Gauge {
    /// One for each node.
    pub fn several(nodes: usize) -> Vec<Arc<Gauge>> {
        (0..nodes).map(|_| Arc::default()).collect()
    }

    /// So many commands more are durable, by one sync. Said before anybody is told who might acknowledge
    /// them.
    pub fn synced(&self, commands: u64) {
        self.commands.fetch_add(commands, Ordering::SeqCst);
        self.syncs.fetch_add(1, Ordering::SeqCst);
    }

    pub fn commands(&self) -> u64 {
        self.commands.load(Ordering::SeqCst)
    }

    pub fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::SeqCst)
    }
}

/// The gauges with the leader's first, as `Cluster::gauges` has them.
pub fn leader_first(mut gauges: Vec<Arc<Gauge>>, leader: usize) -> Vec<Arc<Gauge>> {
    gauges.swap(0, leader);
    gauges
}

//! What a server is told once, before it starts. Owned by the core.

use super::types::ServerId;
use crate::config::LEASE_MS_MAX;

/// How many entries stay in the log behind a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TrailingStrategy {
    /// Always [`Options::snapshot_trailing`].
    #[default]
    Static,
    /// As many of the newest as fit in the size of the snapshot, between threshold and trailing.
    Dynamic,
}

/// Settings of one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Who this server is in the configuration.
    pub id: ServerId,
    /// Where others reach it; announced to them.
    pub address: String,
    /// Shortest time without a leader after which a voter campaigns, in milliseconds.
    pub election_timeout_ms: u64,
    /// Longest time a leader stays silent, in milliseconds.
    pub heartbeat_timeout_ms: u64,
    /// Applied entries since the last snapshot that make the next one due. 0 asks for one after every entry.
    pub snapshot_threshold: u64,
    /// Entries kept in the log behind a snapshot.
    pub snapshot_trailing: u64,
    /// Whether fewer than that may be kept.
    pub trailing_strategy: TrailingStrategy,
    /// Memory for entries that are applied and on disk; beyond it the oldest are read back when needed.
    pub log_memory_bytes: usize,
}

impl Options {
    /// How long a leader may trust that no other was elected, counted from the sending of the last message
    /// that a quorum acknowledged. See [`lease`](super::lease).
    pub fn lease_ms(&self) -> u64 {
        LEASE_MS_MAX.min(self.election_timeout_ms / 4)
    }

    /// How long after its last contact with a leader, and after its start, a server gives no vote. It covers
    /// the lease, clocks that run apart by an eighth, and the rounding of two clocks to milliseconds.
    pub fn vote_window_ms(&self) -> u64 {
        let lease_ms = self.lease_ms();
        lease_ms + lease_ms / 8 + 2
    }
}

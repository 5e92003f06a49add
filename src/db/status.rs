//! What sessions need to know about the node, published by the Raft thread and by setters, read without
//! asking anyone: leadership on every request, the busy timeout on every write.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;

/// Shared between the Raft thread, which writes leadership, and the sessions, which read it.
pub struct Status {
    leading: AtomicBool,
    /// Counts the times leadership ended: database connections of an earlier period are void.
    period: watch::Sender<u64>,
    stopping: AtomicBool,
    busy_timeout_ms: AtomicU32,
    failure_domain: AtomicU64,
    weight: AtomicU64,
}

impl Default for Status {
    fn default() -> Status {
        Status {
            leading: AtomicBool::new(false),
            period: watch::Sender::new(0),
            stopping: AtomicBool::new(false),
            busy_timeout_ms: AtomicU32::new(0),
            failure_domain: AtomicU64::new(0),
            weight: AtomicU64::new(0),
        }
    }
}

impl Status {
    /// Whether this node leads, as far as it knows.
    pub fn is_leading(&self) -> bool {
        self.leading.load(Ordering::Acquire)
    }

    /// This node leads: everything committed before is applied.
    pub fn begin_leading(&self) {
        self.leading.store(true, Ordering::Release);
    }

    /// This node leads no longer. Sessions give up their database connections.
    pub fn end_leading(&self) {
        if self.leading.swap(false, Ordering::AcqRel) {
            self.period.send_modify(|period| *period += 1);
        }
    }

    /// The current period of leadership; watch it to learn of the end.
    pub fn period(&self) -> watch::Receiver<u64> {
        self.period.subscribe()
    }

    /// Statements that still run shall be interrupted.
    pub fn begin_stopping(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// See [`Status::begin_stopping`].
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// How long a writer waits for another one's transaction.
    pub fn busy_timeout(&self) -> Duration {
        Duration::from_millis(self.busy_timeout_ms.load(Ordering::Relaxed).into())
    }

    /// See [`Status::busy_timeout`].
    pub fn set_busy_timeout_ms(&self, timeout_ms: u32) {
        self.busy_timeout_ms.store(timeout_ms, Ordering::Relaxed);
    }

    /// Answer to DESCRIBE.
    pub fn failure_domain(&self) -> u64 {
        self.failure_domain.load(Ordering::Relaxed)
    }

    /// See [`Status::failure_domain`].
    pub fn set_failure_domain(&self, code: u64) {
        self.failure_domain.store(code, Ordering::Relaxed);
    }

    /// Answer to DESCRIBE; not persisted, as in C.
    pub fn weight(&self) -> u64 {
        self.weight.load(Ordering::Relaxed)
    }

    /// See [`Status::weight`].
    pub fn set_weight(&self, weight: u64) {
        self.weight.store(weight, Ordering::Relaxed);
    }
}

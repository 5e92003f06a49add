//! What sessions need to know about the node, published by the Raft thread and by setters, read without
//! asking anyone: leadership on every request, the busy timeout on every write.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;

/// Shared between the Raft thread, which writes leadership, and the sessions, which read it.
pub struct Status {
    leading: AtomicBool,
    /// The leader has applied what leaders before it committed.
    ready: AtomicBool,
    /// Until when reads need nobody's confirmation, on the clock of [`Status::now_ms`]; 0 if they need it
    /// now.
    lease_until_ms: AtomicU64,
    /// Counts the times leadership ended: database connections of an earlier period are void.
    period: watch::Sender<u64>,
    /// A transfer of this node's leadership is under way: who leads next is known when it ends.
    transferring: watch::Sender<bool>,
    stopping: AtomicBool,
    space_is_low: AtomicBool,
    busy_timeout_ms: AtomicU32,
    failure_domain: AtomicU64,
    weight: AtomicU64,
}

impl Default for Status {
    fn default() -> Status {
        Status {
            leading: AtomicBool::new(false),
            ready: AtomicBool::new(false),
            lease_until_ms: AtomicU64::new(0),
            period: watch::Sender::new(0),
            transferring: watch::Sender::new(false),
            stopping: AtomicBool::new(false),
            space_is_low: AtomicBool::new(false),
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

    /// Milliseconds on the clock of the Raft core and of the lease. It goes on while the machine sleeps, or a
    /// leader that slept would believe in a lease that has long expired.
    pub fn now_ms(&self) -> u64 {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        now.tv_sec.unsigned_abs() * 1000 + now.tv_nsec.unsigned_abs() / 1_000_000
    }

    /// Whether transactions may be executed: this node leads and its databases are up to date.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    /// Whether what the databases hold now may be read without asking anybody.
    pub fn has_lease(&self) -> bool {
        self.now_ms() < self.lease_until_ms.load(Ordering::Acquire)
    }

    /// What the Raft thread knows after each step.
    pub fn publish(&self, ready: bool, lease_until_ms: u64) {
        self.ready.store(ready, Ordering::Release);
        self.lease_until_ms.store(lease_until_ms, Ordering::Release);
    }

    /// This node leads.
    pub fn begin_leading(&self) {
        self.leading.store(true, Ordering::Release);
    }

    /// This node leads no longer. Sessions give up their database connections.
    pub fn end_leading(&self) {
        self.publish(false, 0);
        if self.leading.swap(false, Ordering::AcqRel) {
            self.period.send_modify(|period| *period += 1);
        }
    }

    /// Whether this node's leadership is on its way to another one.
    pub fn set_transferring(&self, transferring: bool) {
        self.transferring.send_replace(transferring);
    }

    /// Waits until no transfer is under way. A transfer has a deadline.
    pub async fn transfer_ended(&self) {
        // The sender lives as long as `self`.
        let _ = self.transferring.subscribe().wait_for(|transferring| !transferring).await;
    }

    /// Number of the current period of leadership.
    pub fn current_period(&self) -> u64 {
        *self.period.borrow()
    }

    /// The current period of leadership; watch it to learn of the end.
    pub fn period(&self) -> watch::Receiver<u64> {
        self.period.subscribe()
    }

    /// Whether the disk has only its reserve left: no transaction may begin to write.
    pub fn is_space_low(&self) -> bool {
        self.space_is_low.load(Ordering::Acquire)
    }

    /// See [`Status::is_space_low`].
    pub fn set_space_low(&self, is_low: bool) {
        self.space_is_low.store(is_low, Ordering::Release);
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

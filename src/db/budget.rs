//! Keeps a long statement from holding up others: SQLite calls [`Budget::check`] every few thousand instructions.
//!
//! A statement runs on the client worker that read its request. Once it has run longer than its budget, the
//! worker's other sessions are handed to another thread, and this one goes on in place, whatever it is doing. So
//! nothing has to be restarted, and any number of long statements delays no short one.

use super::status::Status;
use crate::config::{CLIENT_CHECK_INTERVAL_MS, STATEMENT_BUDGET_US};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What the client did while its statement was running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It waits for the answer.
    Waiting,
    /// It sent an INTERRUPT or closed the connection.
    Stop,
}

/// Looks at the client's socket without waiting.
pub type ClientWatch = Arc<dyn Fn() -> Verdict + Send + Sync>;

/// Of one database connection.
pub struct Budget {
    state: Mutex<State>,
    status: Arc<Status>,
    watch: ClientWatch,
}

struct State {
    /// When the statement was started, or when the thread last looked at the client.
    since: Instant,
    handed_over: bool,
}

impl Budget {
    /// Checks on the client through `watch`.
    pub fn new(status: Arc<Status>, watch: ClientWatch) -> Budget {
        Budget { state: Mutex::new(State { since: Instant::now(), handed_over: false }), status, watch }
    }

    /// A statement begins to run, or goes on after its client took what there was.
    pub fn restart(&self) {
        *self.state.lock() = State { since: Instant::now(), handed_over: false };
    }

    /// True if the statement must be interrupted. Called from within SQLite, between two of its instructions.
    pub fn check(&self) -> bool {
        if self.status.is_stopping() {
            return true;
        }
        let mut state = self.state.lock();
        let elapsed = state.since.elapsed();
        if !state.handed_over {
            if elapsed < Duration::from_micros(STATEMENT_BUDGET_US) {
                return false;
            }
            state.handed_over = true;
            hand_over_worker();
            return false;
        }
        if elapsed < Duration::from_millis(CLIENT_CHECK_INTERVAL_MS) {
            return false;
        }
        state.since = Instant::now();
        drop(state);
        (self.watch)() == Verdict::Stop
    }
}

/// Lets another thread run the sessions of this worker. `block_in_place` moves them before it runs its closure
/// and never takes them back while this thread is busy, so an empty closure is enough.
fn hand_over_worker() {
    if tokio::runtime::Handle::try_current()
        .is_ok_and(|h| h.runtime_flavor() == tokio::runtime::RuntimeFlavor::MultiThread)
    {
        tokio::task::block_in_place(|| {});
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    /// Spins like a long statement until `done`, asking its budget all the time.
    fn spin(budget: &Budget, done: &AtomicBool) {
        while !done.load(Ordering::Acquire) {
            assert!(!budget.check());
        }
    }

    #[test]
    fn long_statements_leave_the_only_worker_to_others() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let done = Arc::new(AtomicBool::new(false));
        let mut long = Vec::new();
        for _ in 0..8 {
            let done = done.clone();
            let budget = Budget::new(Arc::default(), Arc::new(|| Verdict::Waiting));
            long.push(runtime.spawn(async move { spin(&budget, &done) }));
        }
        let short = runtime.spawn(async { tokio::task::yield_now().await });
        runtime.block_on(short).unwrap();
        done.store(true, Ordering::Release);
        long.into_iter().for_each(|task| runtime.block_on(task).unwrap());
    }

    #[test]
    fn a_client_that_interrupts_stops_its_statement() {
        let budget = Budget::new(Arc::default(), Arc::new(|| Verdict::Stop));
        budget.restart();
        while !budget.check() {}
    }

    #[test]
    fn a_stopping_node_stops_every_statement_at_once() {
        let status: Arc<Status> = Arc::default();
        let budget = Budget::new(status.clone(), Arc::new(|| Verdict::Waiting));
        assert!(!budget.check());
        status.begin_stopping();
        assert!(budget.check());
    }
}

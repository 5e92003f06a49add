//! Keeps a long statement from holding up others: SQLite calls [`Budget::check`] every few thousand
//! instructions.
//!
//! A statement runs on the client worker that read its request. When it has run longer than its budget, and
//! now and then after that, the thread makes sure that somebody runs the other sessions: another worker that
//! is free, or else a new thread, to which it gives up its place. The statement itself goes on where it is.
//! So nothing has to be restarted, and any number of long statements delays no short one.

use super::status::Status;
use crate::config::{CLIENT_CHECK_INTERVAL_MS, HAND_OVER_INTERVAL_MS, STATEMENT_BUDGET_US};
use parking_lot::Mutex;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};
use tokio::runtime::{Handle, RuntimeFlavor};

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
    /// The period of leadership that the connection belongs to.
    period: u64,
    watch: ClientWatch,
}

struct State {
    /// When the thread has to look after the other sessions.
    next_hand_over: Instant,
    /// When it has to look at the client.
    next_look: Instant,
}

impl State {
    fn starting() -> State {
        let now = Instant::now();
        let budget = Duration::from_micros(STATEMENT_BUDGET_US);
        State { next_hand_over: now + budget, next_look: now + LOOK_INTERVAL }
    }
}

const LOOK_INTERVAL: Duration = Duration::from_millis(CLIENT_CHECK_INTERVAL_MS);
const HAND_OVER_INTERVAL: Duration = Duration::from_millis(HAND_OVER_INTERVAL_MS);

impl Budget {
    /// Checks on the client through `watch`.
    pub fn new(status: Arc<Status>, watch: ClientWatch) -> Budget {
        let period = status.current_period();
        Budget { state: Mutex::new(State::starting()), status, period, watch }
    }

    /// A statement begins to run, or goes on after its client took what there was.
    pub fn restart(&self) {
        *self.state.lock() = State::starting();
    }

    /// Whether the leadership under which the connection was opened is over. Its statements are interrupted.
    pub fn leadership_ended(&self) -> bool {
        self.status.current_period() != self.period
    }

    /// True if the statement must be interrupted. Called from within SQLite, between two of its instructions.
    pub fn check(&self) -> bool {
        if self.status.is_stopping() || self.leadership_ended() {
            return true;
        }
        let now = Instant::now();
        let mut state = self.state.lock();
        if now >= state.next_hand_over {
            state.next_hand_over = now + HAND_OVER_INTERVAL;
            drop(state);
            hand_over_worker();
            state = self.state.lock();
        }
        if now < state.next_look {
            return false;
        }
        state.next_look = now + LOOK_INTERVAL;
        drop(state);
        (self.watch)() == Verdict::Stop
    }
}

/// Makes sure that the sessions of this worker are run by somebody while its thread is busy.
///
/// `block_in_place` offers the place of this thread to a new one, and takes it back at the end if the new
/// thread has not come for it. Waiting for a task of the runtime to run in between tells that either it has,
/// or another worker has time for such tasks.
fn hand_over_worker() {
    let Ok(runtime) = Handle::try_current() else { return };
    if runtime.runtime_flavor() != RuntimeFlavor::MultiThread {
        return;
    }
    let (ran, seen) = mpsc::sync_channel::<()>(1);
    runtime.spawn(async move { drop(ran) });
    tokio::task::block_in_place(|| {
        // Ends with "disconnected" when the task has run; a time-out only means that there is much to do.
        let _ = seen.recv_timeout(HAND_OVER_INTERVAL);
    });
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
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
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
    fn the_end_of_leadership_stops_every_statement_at_once() {
        let status: Arc<Status> = Arc::default();
        status.begin_leading();
        let budget = Budget::new(status.clone(), Arc::new(|| Verdict::Waiting));
        assert!(!budget.check());
        status.end_leading();
        assert!(budget.check());
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

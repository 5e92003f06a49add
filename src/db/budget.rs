//! Keeps a long statement from holding up others: SQLite calls [`Budget::check`] every few thousand
//! instructions.
//!
//! A statement runs on the client worker that read its request. When it has run longer than its budget, and
//! now and then after that, the thread makes sure that somebody runs the other sessions: another worker that
//! is free, or else a new thread, to which it gives up its place. The statement itself goes on where it is.
//! So nothing has to be restarted, and any number of long statements delays no short one. From then on it
//! takes turns with other long ones.

use super::status::Status;
use super::turns::{Stopped, Turn, Turns, blocking_runtime};
use crate::config::{CLIENT_CHECK_INTERVAL_MS, HAND_OVER_INTERVAL_MS, LONG_YIELD_US, STATEMENT_BUDGET_US};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
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
    turns: Turns,
    /// Others wait for its statements, so these wait for nobody's turn.
    urgent: AtomicBool,
    /// The period of leadership that the connection belongs to.
    period: u64,
    watch: ClientWatch,
}

struct State {
    /// When the thread has to look after the other sessions.
    next_hand_over: Instant,
    /// When it has to look at the client.
    next_look: Instant,
    /// When a long statement lets other threads go first.
    next_yield: Instant,
    /// Held by a statement that has outgrown its budget, while it computes.
    turn: Option<Turn>,
}

impl State {
    fn starting() -> State {
        let now = Instant::now();
        let budget = Duration::from_micros(STATEMENT_BUDGET_US);
        State { next_hand_over: now + budget, next_look: now + LOOK_INTERVAL, next_yield: now, turn: None }
    }
}

const LOOK_INTERVAL: Duration = Duration::from_millis(CLIENT_CHECK_INTERVAL_MS);
const HAND_OVER_INTERVAL: Duration = Duration::from_millis(HAND_OVER_INTERVAL_MS);

impl Budget {
    /// Checks on the client through `watch`.
    pub fn new(status: Arc<Status>, turns: Turns, watch: ClientWatch) -> Budget {
        let period = status.current_period();
        let (state, urgent) = (Mutex::new(State::starting()), AtomicBool::new(false));
        Budget { state, status, turns, urgent, period, watch }
    }

    /// A statement begins to run, or goes on after its client took what there was.
    pub fn restart(&self) {
        *self.state.lock() = State::starting();
    }

    /// The statement has ended, or rests while its client takes rows.
    pub fn rest(&self) {
        self.state.lock().turn = None;
    }

    /// Whether the connection holds the write lane.
    pub fn set_urgent(&self, urgent: bool) {
        self.urgent.store(urgent, Ordering::Relaxed);
    }

    /// Whether the leadership under which the connection was opened is over. Its statements are interrupted.
    pub fn leadership_ended(&self) -> bool {
        self.status.current_period() != self.period
    }

    /// True if the statement must be interrupted. Called from within SQLite, between two of its instructions.
    pub fn check(&self) -> bool {
        if self.is_over() {
            return true;
        }
        let now = Instant::now();
        let mut state = self.state.lock();
        if now < state.next_hand_over {
            // The threads of a write run for microseconds each. The kernel would let this one finish its
            // slice first, some milliseconds.
            let yields = state.turn.is_some() && now >= state.next_yield;
            if yields {
                state.next_yield = now + Duration::from_micros(LONG_YIELD_US);
            }
            drop(state);
            if yields {
                std::thread::yield_now();
            }
            return false;
        }
        state.next_hand_over = now + HAND_OVER_INTERVAL;
        let turn = state.turn.take();
        drop(state);
        hand_over_worker();
        match self.next_turn(turn) {
            Ok(turn) => self.state.lock().turn = turn,
            Err(Stopped) => return true,
        }
        self.client_left()
    }

    /// Whatever the client does, its statements must end.
    fn is_over(&self) -> bool {
        self.status.is_stopping() || self.leadership_ended()
    }

    fn next_turn(&self, turn: Option<Turn>) -> Result<Option<Turn>, Stopped> {
        if self.urgent.load(Ordering::Relaxed) {
            return Ok(None);
        }
        self.turns.take(turn, HAND_OVER_INTERVAL, || self.is_over() || self.client_left())
    }

    /// Looks at the client, now and then.
    fn client_left(&self) -> bool {
        let now = Instant::now();
        let mut state = self.state.lock();
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
    let Some(runtime) = blocking_runtime() else { return };
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
            let budget = Budget::new(Arc::default(), Turns::default(), Arc::new(|| Verdict::Waiting));
            long.push(runtime.spawn(async move { spin(&budget, &done) }));
        }
        let short = runtime.spawn(async { tokio::task::yield_now().await });
        runtime.block_on(short).unwrap();
        done.store(true, Ordering::Release);
        long.into_iter().for_each(|task| runtime.block_on(task).unwrap());
    }

    #[test]
    fn a_statement_that_others_wait_for_waits_for_no_turn() {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let turns = Turns::default();
        let mut held = Vec::new();
        while let Ok(Some(turn)) = turns.take(None, HAND_OVER_INTERVAL, || true) {
            held.push(turn);
        }
        let budget = Budget::new(Arc::default(), turns, Arc::new(|| Verdict::Waiting));
        budget.set_urgent(true);
        let long = runtime.spawn(async move {
            let begin = Instant::now();
            while begin.elapsed() < 4 * HAND_OVER_INTERVAL {
                assert!(!budget.check());
            }
        });
        runtime.block_on(long).unwrap();
    }

    #[test]
    fn a_client_that_interrupts_stops_its_statement() {
        let budget = Budget::new(Arc::default(), Turns::default(), Arc::new(|| Verdict::Stop));
        budget.restart();
        while !budget.check() {}
    }

    #[test]
    fn the_end_of_leadership_stops_every_statement_at_once() {
        let status: Arc<Status> = Arc::default();
        status.begin_leading();
        let budget = Budget::new(status.clone(), Turns::default(), Arc::new(|| Verdict::Waiting));
        assert!(!budget.check());
        status.end_leading();
        assert!(budget.check());
    }

    #[test]
    fn a_stopping_node_stops_every_statement_at_once() {
        let status: Arc<Status> = Arc::default();
        let budget = Budget::new(status.clone(), Turns::default(), Arc::new(|| Verdict::Waiting));
        assert!(!budget.check());
        status.begin_stopping();
        assert!(budget.check());
    }
}

//! The write lane of one database: one session at a time runs statements that write.
//!
//! First in, first out. A waiter gives up after the busy timeout, but only while the holder sits inside an
//! *open transaction*, whose end depends on its client. While the holder merely executes a statement the wait
//! is short and bounded by that statement, so even a timeout of zero waits it out: with the default settings
//! a client never sees "database is locked" just because another client's statement is running.
//!
//! The lane is held while SQL runs, not while Raft commits: see docs/ARCHITECTURE.md, section 6a.

use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// The lane is held by an open transaction of another session and the busy timeout has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Busy;

/// What the session holding the lane is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holder {
    /// Executing; it will let go when the request ends.
    Statement,
    /// Inside a transaction that its client has to end.
    Transaction,
}

struct Waiter {
    number: u64,
    /// Its busy timeout has passed: it fails as soon as a holder keeps a transaction open.
    overdue: bool,
    outcome: oneshot::Sender<Result<(), Busy>>,
}

#[derive(Default)]
struct State {
    holder: Option<Holder>,
    /// Arrival number of the session that holds the lane.
    holder_number: u64,
    queue: VecDeque<Waiter>,
    arrivals: u64,
}

/// See the module documentation. At most one waiter per client connection, hence bounded by their number.
#[derive(Default)]
pub struct Lane {
    state: Mutex<State>,
}

/// Holds the lane, or a place in its queue, until dropped; then the longest waiting session gets the lane.
pub struct LaneGuard {
    lane: Arc<Lane>,
    number: u64,
}

impl Lane {
    /// Waits for the lane; see the module documentation for when a wait fails.
    pub async fn acquire(self: &Arc<Lane>, busy_timeout: Duration) -> Result<LaneGuard, Busy> {
        let (guard, mut outcome) = {
            let mut state = self.state.lock();
            if state.holder == Some(Holder::Transaction) && busy_timeout.is_zero() {
                return Err(Busy);
            }
            state.arrivals += 1;
            let number = state.arrivals;
            let guard = LaneGuard { lane: self.clone(), number };
            if state.holder.is_none() {
                state.give_to(number);
                return Ok(guard);
            }
            let (sender, outcome) = oneshot::channel();
            state.queue.push_back(Waiter { number, overdue: busy_timeout.is_zero(), outcome: sender });
            (guard, outcome)
        };
        if !busy_timeout.is_zero() {
            tokio::select! {
                biased;
                ended = &mut outcome => return ended.unwrap_or(Err(Busy)).map(|()| guard),
                () = tokio::time::sleep(busy_timeout) => {}
            }
            self.state.lock().time_out(guard.number);
        }
        outcome.await.unwrap_or(Err(Busy)).map(|()| guard)
    }

    /// Sessions waiting now.
    pub fn waiting(&self) -> usize {
        self.state.lock().queue.len()
    }
}

impl State {
    fn give_to(&mut self, number: u64) {
        self.holder = Some(Holder::Statement);
        self.holder_number = number;
    }

    fn release(&mut self) {
        self.holder = None;
        while let Some(waiter) = self.queue.pop_front() {
            // A waiter that has gone away removed itself from the queue before its channel closed.
            if waiter.outcome.send(Ok(())).is_ok() {
                return self.give_to(waiter.number);
            }
        }
    }

    /// The busy timeout of a waiter has passed. No effect on one whose outcome is already on its way.
    fn time_out(&mut self, number: u64) {
        if let Some(waiter) = self.queue.iter_mut().find(|w| w.number == number) {
            waiter.overdue = true;
        }
        if self.holder == Some(Holder::Transaction) {
            self.turn_away_overdue();
        }
    }

    fn turn_away_overdue(&mut self) {
        for waiter in std::mem::take(&mut self.queue) {
            if waiter.overdue {
                // A closed channel means that the session has gone away: there is nobody to tell.
                let _ = waiter.outcome.send(Err(Busy));
            } else {
                self.queue.push_back(waiter);
            }
        }
    }
}

impl LaneGuard {
    /// The transaction stays open beyond the request: waiters whose timeout has passed are turned away.
    pub fn keep_for_transaction(&self) {
        let mut state = self.lane.state.lock();
        debug_assert_eq!(state.holder_number, self.number, "only the holder keeps the lane");
        state.holder = Some(Holder::Transaction);
        state.turn_away_overdue();
    }
}

impl Drop for LaneGuard {
    fn drop(&mut self) {
        let mut state = self.lane.state.lock();
        if state.holder.is_some() && state.holder_number == self.number {
            state.release();
        } else {
            state.queue.retain(|w| w.number != self.number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::task::JoinHandle;

    const FOREVER: Duration = Duration::from_secs(3600);

    fn waiter(lane: &Arc<Lane>, timeout: Duration) -> JoinHandle<Result<LaneGuard, Busy>> {
        let lane = lane.clone();
        tokio::spawn(async move { lane.acquire(timeout).await })
    }

    async fn settle() {
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_lane_passes_in_order_of_arrival() {
        let lane = Arc::new(Lane::default());
        let first = lane.acquire(FOREVER).await.unwrap();
        let mut waiting = Vec::new();
        for _ in 0..3 {
            waiting.push(waiter(&lane, FOREVER));
            settle().await;
        }
        drop(first);
        for next in waiting {
            drop(next.await.unwrap().unwrap());
        }
        assert!(lane.acquire(Duration::ZERO).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_running_statement_is_waited_out_even_without_a_timeout() {
        let lane = Arc::new(Lane::default());
        let holder = lane.acquire(Duration::ZERO).await.unwrap();
        let waiting = waiter(&lane, Duration::ZERO);
        settle().await;
        assert!(!waiting.is_finished());
        drop(holder);
        assert!(waiting.await.unwrap().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn an_open_transaction_turns_away_those_whose_timeout_has_passed() {
        let lane = Arc::new(Lane::default());
        let holder = lane.acquire(Duration::ZERO).await.unwrap();
        let impatient = waiter(&lane, Duration::ZERO);
        let patient = waiter(&lane, Duration::from_millis(500));
        settle().await;
        holder.keep_for_transaction();
        assert!(matches!(impatient.await.unwrap(), Err(Busy)));
        assert!(lane.acquire(Duration::ZERO).await.is_err());
        let begin = tokio::time::Instant::now();
        assert!(matches!(patient.await.unwrap(), Err(Busy)));
        assert_eq!(begin.elapsed().as_millis(), 500);
        assert_eq!(lane.waiting(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_transaction_that_ends_in_time_lets_the_waiter_in() {
        let lane = Arc::new(Lane::default());
        let holder = lane.acquire(Duration::ZERO).await.unwrap();
        holder.keep_for_transaction();
        let patient = waiter(&lane, Duration::from_millis(500));
        settle().await;
        tokio::time::advance(Duration::from_millis(499)).await;
        drop(holder);
        assert!(patient.await.unwrap().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiter_that_goes_away_never_keeps_the_lane() {
        let lane = Arc::new(Lane::default());
        let holder = lane.acquire(Duration::ZERO).await.unwrap();
        let queued = waiter(&lane, FOREVER);
        let granted = waiter(&lane, FOREVER);
        settle().await;
        queued.abort();
        let _ = queued.await;
        assert_eq!(lane.waiting(), 1);
        drop(holder);
        // Granted, but dropped before it ever ran again.
        granted.abort();
        let _ = granted.await;
        assert!(lane.acquire(Duration::ZERO).await.is_ok());
    }
}

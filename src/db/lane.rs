//! The write lane of one database: one session at a time runs statements that write.
//!
//! First in, first out. While the holder executes a single statement, the wait is short and bounded by that
//! statement, so that even a busy timeout of zero waits it out: with the default settings a client never sees
//! "database is locked" just because another client's statement is running.
//!
//! The end of an *open transaction* depends on its client, and there a waiter gives up when
//!
//! * its busy timeout has passed, and
//! * the client of the transaction pauses, or the waiter has been patient for long enough.
//!
//! A transaction that moves, one request after the other, ends soon: to wait for it costs less than to
//! refuse, be asked again and refuse again, and lets transactions happen in turns.
//!
//! The lane is held while SQL runs, not while Raft commits: see docs/ARCHITECTURE.md, section 6a.

use crate::config::{LANE_PATIENCE_MS, TRANSACTION_PAUSE_MS};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// The lane is held by an open transaction of another session that it was not worth waiting for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Busy;

/// What the session holding the lane is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holder {
    /// Executing outside a transaction; it will let go when the request ends.
    Statement,
    /// Executing within a transaction that its client has to end.
    Transaction,
    /// Waiting for the next request in such a transaction, since then.
    Idle(Instant),
}

struct Waiter {
    number: u64,
    /// The holder was executing when it looked: whether it will have to give up, and when, is known once the
    /// holder keeps a transaction open.
    wants_news: bool,
    /// To look again.
    signal: Arc<Notify>,
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

/// What a waiter finds.
enum Look {
    Granted,
    GiveUp,
    /// Until it is told, or until then.
    Wait(Option<Instant>),
}

impl Lane {
    /// Waits for the lane; see the module documentation for when a wait fails.
    pub async fn acquire(self: &Arc<Lane>, busy_timeout: Duration) -> Result<LaneGuard, Busy> {
        let (guard, signal) = {
            let mut state = self.state.lock();
            state.arrivals += 1;
            let number = state.arrivals;
            let guard = LaneGuard { lane: self.clone(), number };
            if state.holder.is_none() {
                state.give_to(number);
                return Ok(guard);
            }
            let signal = Arc::new(Notify::new());
            state.queue.push_back(Waiter { number, wants_news: false, signal: signal.clone() });
            (guard, signal)
        };
        let arrival = Instant::now();
        loop {
            let look = self.state.lock().look(guard.number, arrival, busy_timeout);
            match look {
                Look::Granted => return Ok(guard),
                Look::GiveUp => return Err(Busy),
                Look::Wait(None) => signal.notified().await,
                Look::Wait(Some(until)) => {
                    tokio::select! {
                        biased;
                        () = signal.notified() => {}
                        () = tokio::time::sleep_until(until) => {}
                    }
                }
            }
        }
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
        if let Some(waiter) = self.queue.pop_front() {
            self.give_to(waiter.number);
            waiter.signal.notify_one();
        }
    }

    fn look(&mut self, number: u64, arrival: Instant, busy_timeout: Duration) -> Look {
        if self.holder_number == number {
            return Look::Granted;
        }
        let patience_ends = arrival + Duration::from_millis(LANE_PATIENCE_MS);
        let until = match self.holder {
            Some(Holder::Transaction) => Some(patience_ends),
            Some(Holder::Idle(since)) => {
                Some(patience_ends.min(since + Duration::from_millis(TRANSACTION_PAUSE_MS)))
            }
            Some(Holder::Statement) | None => None,
        };
        let until = until.map(|until| until.max(arrival + busy_timeout));
        if until.is_some_and(|until| until <= Instant::now()) {
            return Look::GiveUp;
        }
        if let Some(waiter) = self.queue.iter_mut().find(|waiter| waiter.number == number) {
            waiter.wants_news = !matches!(self.holder, Some(Holder::Idle(_)));
        }
        Look::Wait(until)
    }
}

impl LaneGuard {
    /// The next request in the transaction begins.
    pub fn resume_transaction(&self) {
        let mut state = self.lane.state.lock();
        if let Some(Holder::Idle(_)) = state.holder {
            state.holder = Some(Holder::Transaction);
        }
    }

    /// The transaction stays open beyond the request.
    pub fn keep_for_transaction(&self) {
        let mut state = self.lane.state.lock();
        debug_assert_eq!(state.holder_number, self.number, "only the holder keeps the lane");
        state.holder = Some(Holder::Idle(Instant::now()));
        for waiter in state.queue.iter_mut().filter(|waiter| waiter.wants_news) {
            waiter.wants_news = false;
            waiter.signal.notify_one();
        }
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
    async fn a_transaction_that_pauses_turns_away_those_whose_timeout_has_passed() {
        let lane = Arc::new(Lane::default());
        let holder = lane.acquire(Duration::ZERO).await.unwrap();
        let impatient = waiter(&lane, Duration::ZERO);
        let patient = waiter(&lane, Duration::from_millis(500));
        settle().await;
        let begin = Instant::now();
        holder.keep_for_transaction();
        assert!(matches!(impatient.await.unwrap(), Err(Busy)));
        assert_eq!(begin.elapsed().as_millis(), TRANSACTION_PAUSE_MS.into());
        assert!(lane.acquire(Duration::ZERO).await.is_err());
        assert_eq!(begin.elapsed().as_millis(), TRANSACTION_PAUSE_MS.into(), "refused at once");
        assert!(matches!(patient.await.unwrap(), Err(Busy)));
        assert_eq!(begin.elapsed().as_millis(), 500);
        assert_eq!(lane.waiting(), 0);
    }

    /// A request of a millisecond each time, and as much until the next one.
    async fn go_on(holder: &LaneGuard, requests: u64) {
        for _ in 0..requests {
            holder.resume_transaction();
            tokio::time::sleep(Duration::from_millis(1)).await;
            holder.keep_for_transaction();
            tokio::time::sleep(Duration::from_millis(TRANSACTION_PAUSE_MS - 1)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_transaction_that_moves_is_waited_for_even_without_a_timeout() {
        let lane = Arc::new(Lane::default());
        let holder = lane.acquire(Duration::ZERO).await.unwrap();
        let early = waiter(&lane, Duration::ZERO);
        settle().await;
        holder.keep_for_transaction();
        go_on(&holder, 5).await;
        let late = waiter(&lane, Duration::ZERO);
        go_on(&holder, 5).await;
        assert!(!early.is_finished() && !late.is_finished());
        drop(holder);
        drop(early.await.unwrap().unwrap());
        drop(late.await.unwrap().unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_beyond_timeout_and_patience_for_a_transaction_that_goes_on_and_on() {
        let lane = Arc::new(Lane::default());
        let holder = lane.acquire(Duration::ZERO).await.unwrap();
        holder.keep_for_transaction();
        let begin = Instant::now();
        let impatient = waiter(&lane, Duration::ZERO);
        let patient = waiter(&lane, Duration::from_millis(3 * LANE_PATIENCE_MS));
        settle().await;
        go_on(&holder, LANE_PATIENCE_MS / TRANSACTION_PAUSE_MS - 1).await;
        assert!(!impatient.is_finished());
        go_on(&holder, 2).await;
        assert!(matches!(impatient.await.unwrap(), Err(Busy)));
        // A single statement that takes long is part of the transaction, too.
        holder.resume_transaction();
        assert!(matches!(patient.await.unwrap(), Err(Busy)));
        assert_eq!(u128::from(3 * LANE_PATIENCE_MS), begin.elapsed().as_millis());
    }

    #[tokio::test(start_paused = true)]
    async fn who_came_during_a_statement_of_a_transaction_is_refused_once_its_client_pauses() {
        let lane = Arc::new(Lane::default());
        let holder = lane.acquire(Duration::ZERO).await.unwrap();
        holder.keep_for_transaction();
        holder.resume_transaction();
        let impatient = waiter(&lane, Duration::ZERO);
        settle().await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        let begin = Instant::now();
        holder.keep_for_transaction();
        assert!(matches!(impatient.await.unwrap(), Err(Busy)));
        assert_eq!(begin.elapsed().as_millis(), TRANSACTION_PAUSE_MS.into());
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

//! Long statements take turns, so that any number of them leaves a processor to everything else.
//!
//! The threads of a node wait for each other: a write wakes the Raft thread, that one the disk thread, and
//! so on. With a computing statement for every processor each of these wake-ups waits until the kernel takes
//! a processor away from one of them, some milliseconds, and a write has a dozen. So the statements that
//! compute at a time are one fewer than there are processors (and at least one); the others wait in line,
//! and each goes on for [`LONG_TURN_MS`]. A statement that holds the write lane waits for nobody, since
//! others wait for it.

use crate::config::LONG_TURN_MS;
use crate::sqlite;
use std::pin::pin;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::{Duration, Instant};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// See the module documentation. One for all databases of a node.
#[derive(Debug, Clone)]
pub struct Turns {
    /// First in, first out.
    free: Arc<Semaphore>,
}

/// The right to compute, until dropped.
#[derive(Debug)]
pub struct Turn {
    _permit: OwnedSemaphorePermit,
    ends: Instant,
}

impl Default for Turns {
    fn default() -> Turns {
        let processors = available_parallelism().map_or(1, usize::from);
        Turns::of((processors - 1).max(1))
    }
}

impl Turns {
    fn of(count: usize) -> Turns {
        Turns { free: Arc::new(Semaphore::new(count)) }
    }

    /// Takes a turn, or the next one after `turn` if that has ended. While it waits it asks `stop` every
    /// `interval`; `Err` if that is true. Blocks the thread, which must not be needed elsewhere.
    pub fn take(
        &self,
        turn: Option<Turn>,
        interval: Duration,
        mut stop: impl FnMut() -> bool,
    ) -> Result<Option<Turn>, Stopped> {
        if turn.as_ref().is_some_and(|turn| Instant::now() < turn.ends) {
            return Ok(turn);
        }
        drop(turn);
        if let Ok(permit) = self.free.clone().try_acquire_owned() {
            return Ok(Some(Turn::begin(permit)));
        }
        // Whoever waited with the lock of the whole process would keep the one whose turn it is from it.
        let Some(runtime) = blocking_runtime().filter(|_| can_wait()) else { return Ok(None) };
        let free = self.free.clone();
        tokio::task::block_in_place(|| {
            runtime.block_on(async {
                let mut permit = pin!(free.acquire_owned());
                loop {
                    match tokio::time::timeout(interval, permit.as_mut()).await {
                        Ok(permit) => return Ok(permit.ok().map(Turn::begin)),
                        Err(_) if stop() => return Err(Stopped),
                        Err(_) => {}
                    }
                }
            })
        })
    }
}

/// The statement that waited is to be interrupted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stopped;

impl Turn {
    fn begin(permit: OwnedSemaphorePermit) -> Turn {
        Turn { _permit: permit, ends: Instant::now() + Duration::from_millis(LONG_TURN_MS) }
    }
}

fn can_wait() -> bool {
    sqlite::threading() == sqlite::Threading::PerConnection
}

/// The runtime of this thread if a task on it may block.
pub fn blocking_runtime() -> Option<Handle> {
    Handle::try_current().ok().filter(|runtime| runtime.runtime_flavor() == RuntimeFlavor::MultiThread)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::thread;

    const INTERVAL: Duration = Duration::from_millis(1);

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
    }

    #[test]
    fn no_more_statements_compute_than_there_are_turns_and_each_gets_on() {
        let (runtime, turns) = (runtime(), Turns::of(2));
        let (computing, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let statement = |_| {
            let (turns, computing, most) = (turns.clone(), computing.clone(), most.clone());
            runtime.spawn(async move {
                for _ in 0..20 {
                    let turn = turns.take(None, INTERVAL, || false).unwrap();
                    most.fetch_max(computing.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    thread::sleep(INTERVAL);
                    computing.fetch_sub(1, Ordering::SeqCst);
                    drop(turn);
                }
            })
        };
        let statements: Vec<_> = (0..8).map(statement).collect();
        statements.into_iter().for_each(|task| runtime.block_on(task).unwrap());
        assert!(most.load(Ordering::SeqCst) <= 2);
    }

    #[test]
    fn a_turn_lasts_until_its_end_and_then_the_next_in_line_has_it() {
        let (runtime, turns) = (runtime(), Turns::of(1));
        let first = turns.take(None, INTERVAL, || false).unwrap();
        let waiting = {
            let turns = turns.clone();
            runtime.spawn(async move { turns.take(None, INTERVAL, || false).unwrap().is_some() })
        };
        let mut held = turns.take(first, INTERVAL, || false).unwrap();
        assert!(held.is_some() && !waiting.is_finished());
        // Until the other one stands in line there is nobody to give way to; it may even be done by then.
        while let Some(turn) = held.as_mut().filter(|_| !waiting.is_finished()) {
            turn.ends = Instant::now();
            held = turns.take(held, INTERVAL, || false).unwrap();
        }
        assert!(runtime.block_on(waiting).unwrap());
    }

    #[test]
    fn a_statement_that_waits_can_be_stopped() {
        let (runtime, turns) = (runtime(), Turns::of(1));
        let _held = turns.take(None, INTERVAL, || false).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let waiting = {
            let (turns, stop) = (turns.clone(), stop.clone());
            runtime.spawn(async move { turns.take(None, INTERVAL, || stop.load(Ordering::Relaxed)).err() })
        };
        stop.store(true, Ordering::Relaxed);
        assert_eq!(runtime.block_on(waiting).unwrap(), Some(Stopped));
    }
}

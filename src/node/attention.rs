//! Whether a session waits awake for the next request of its client.
//!
//! To wake up a processor that sleeps takes some 50 us, on virtual machines above all: as long as all the
//! rest of a point read. While one client alone asks one thing after the other, its session can look for the
//! next request for a moment instead of sleeping, which shortens a read by a third and more on a quiet
//! machine. On a busy one it only keeps the processor from the client itself. So it is tried now and then,
//! and kept up as long as the time from one request to the next is clearly shorter with it.
//!
//! ```text
//!            alone, quick, and not tried for a while
//!   asleep ────────────────────────────────────────▶ awake
//!      ▲      not clearly faster, or not alone         │
//!      └──────────────────────────────────────────────┘
//! ```

use crate::config::{AWAKE_TRIAL_WINDOWS_MAX, AWAKE_TRIAL_WINDOWS_MIN, AWAKE_WINDOWS, QUICK_REQUESTS_US};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Requests that are judged together.
const WINDOW: usize = 32;

/// Requests that all sessions of a node have served, whole windows only.
#[derive(Debug, Clone, Default)]
pub struct Served(Arc<AtomicU64>);

/// Of one session; see the module documentation.
#[derive(Debug)]
pub struct Attention {
    served: Served,
    /// What the others had served when the window began.
    served_by_others: u64,
    served_here: u64,
    awake: bool,
    last_request: Option<Instant>,
    /// The window: times from one request to the next.
    times_us: Vec<u32>,
    /// The median of the last window asleep: a write among reads tells nothing.
    asleep_us: u64,
    /// Windows until it is awake again, or, while it is, until it looks how fast it would be asleep.
    windows_left: u32,
    /// Windows asleep before the next trial; twice as many after each that failed.
    windows_before_trial: u32,
}

impl Attention {
    /// Asleep.
    pub fn new(served: Served) -> Attention {
        Attention {
            served,
            served_by_others: 0,
            served_here: 0,
            awake: false,
            last_request: None,
            times_us: Vec::new(),
            asleep_us: 0,
            windows_left: AWAKE_TRIAL_WINDOWS_MIN,
            windows_before_trial: AWAKE_TRIAL_WINDOWS_MIN,
        }
    }

    /// Whether to look for the next request instead of sleeping.
    pub fn is_awake(&self) -> bool {
        self.awake
    }

    /// A request has arrived.
    pub fn note_request(&mut self, now: Instant) {
        let Some(last) = self.last_request.replace(now) else { return };
        self.times_us.push(u32::try_from(now.duration_since(last).as_micros()).unwrap_or(u32::MAX));
        if self.times_us.len() == WINDOW {
            let (_, median_us, _) = self.times_us.select_nth_unstable(WINDOW / 2);
            let median_us = u64::from(*median_us);
            self.times_us.clear();
            let alone = self.is_alone();
            self.end_window(median_us, alone);
        }
    }

    /// Whether next to nobody else asked anything in this window.
    fn is_alone(&mut self) -> bool {
        let own = WINDOW as u64;
        self.served_here += own;
        let by_others = self.served.0.fetch_add(own, Ordering::Relaxed) + own - self.served_here;
        by_others == std::mem::replace(&mut self.served_by_others, by_others)
    }

    fn end_window(&mut self, median_us: u64, alone: bool) {
        self.windows_left = self.windows_left.saturating_sub(1);
        if !self.awake {
            self.asleep_us = median_us;
            if self.windows_left == 0 && alone && median_us <= QUICK_REQUESTS_US {
                self.awake = true;
                self.windows_left = AWAKE_WINDOWS;
            }
        } else if alone && median_us * 10 < self.asleep_us * 9 {
            self.windows_before_trial = AWAKE_TRIAL_WINDOWS_MIN;
            if self.windows_left == 0 {
                // One window asleep, to compare with.
                self.sleep_for(1);
            }
        } else {
            self.sleep_for(self.windows_before_trial);
            self.windows_before_trial = (self.windows_before_trial * 2).min(AWAKE_TRIAL_WINDOWS_MAX);
        }
    }

    fn sleep_for(&mut self, windows: u32) {
        self.awake = false;
        self.windows_left = windows;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// A client on a machine where a request takes so long.
    struct Machine {
        now: Instant,
        asleep_us: u64,
        awake_us: u64,
    }

    impl Machine {
        /// How many of the requests were waited for awake.
        fn run(&mut self, attention: &mut Attention, requests: u32) -> u32 {
            let mut awake = 0;
            for _ in 0..requests {
                let us = if attention.is_awake() { self.awake_us } else { self.asleep_us };
                awake += u32::from(attention.is_awake());
                self.now += Duration::from_micros(us);
                attention.note_request(self.now);
            }
            awake
        }
    }

    fn machine(asleep_us: u64, awake_us: u64) -> Machine {
        Machine { now: Instant::now(), asleep_us, awake_us }
    }

    #[test]
    fn one_quick_client_is_waited_for_awake_where_that_is_faster() {
        let mut attention = Attention::new(Served::default());
        let awake = machine(140, 80).run(&mut attention, 10_000);
        assert!(awake > 9_000, "{awake} of 10,000");
    }

    #[test]
    fn where_it_is_not_faster_it_is_hardly_tried() {
        for (asleep_us, awake_us) in [(45, 130), (140, 135)] {
            let mut attention = Attention::new(Served::default());
            let awake = machine(asleep_us, awake_us).run(&mut attention, 100_000);
            assert!((1..1_000).contains(&awake), "{awake} of 100,000");
        }
    }

    #[test]
    fn a_client_that_takes_its_time_is_never_waited_for_awake() {
        let mut attention = Attention::new(Served::default());
        assert_eq!(machine(QUICK_REQUESTS_US + 1, 1).run(&mut attention, 10_000), 0);
    }

    #[test]
    fn writes_among_the_reads_change_nothing() {
        let mut attention = Attention::new(Served::default());
        let (mut reads, mut writes) = (machine(140, 80), machine(900, 840));
        let mut awake = 0;
        for _ in 0..1_000 {
            awake += reads.run(&mut attention, 9);
            writes.now = reads.now;
            writes.run(&mut attention, 1);
            reads.now = writes.now;
        }
        assert!(awake > 8_000, "{awake} of 9,000");
    }

    #[test]
    fn a_machine_that_gets_busy_is_noticed_within_a_window() {
        let mut attention = Attention::new(Served::default());
        let mut machine = machine(140, 80);
        machine.run(&mut attention, 1_000);
        while !attention.is_awake() {
            machine.run(&mut attention, 1);
        }
        machine.awake_us = 150;
        machine.run(&mut attention, 2 * WINDOW as u32);
        assert!(!attention.is_awake());
    }

    #[test]
    fn nobody_is_awake_while_others_ask_as_well() {
        let served = Served::default();
        let (mut one, mut other) = (Attention::new(served.clone()), Attention::new(served));
        let (mut its, mut others) = (machine(140, 80), machine(140, 80));
        its.run(&mut one, 1_000);
        let mut awake = 0;
        for _ in 0..1_000 {
            awake += its.run(&mut one, WINDOW as u32) + others.run(&mut other, WINDOW as u32);
        }
        // Until both have ended a window beside the other one.
        assert!(awake <= 4 * WINDOW as u32, "{awake} of 64,000");
    }
}

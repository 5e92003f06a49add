//! What a leader knows about one other server: how far its log agrees, and what may be sent to it next
//! (dissertation figure 3.1, nextIndex and matchIndex; 10.2.1 for pipelining). Owned by the leader.
//!
//! ```text
//!              success                         rejected, connection lost
//!   Probe ----------------> Pipeline ---------------------------------> Probe
//!     |                        |
//!     |  entries it needs are only in the snapshot
//!     v                        v
//!   Snapshot ---- installed ----> Pipeline;  failed, ignored, timed out ----> Probe
//! ```
//!
//! C servers ignore a snapshot that comes while they write one of their own. Messages stay in order, so a
//! refusal of a message that followed the snapshot tells that nothing is being installed; which message an
//! answer belongs to is found by counting. The next snapshot waits as long as this one took, so that a server
//! that is busy for long, or whose disk is full, gets snapshots at most half of the time.

use super::log::INDEX_MAX;
use super::types::{Entry, Index, Stamp, Time};
use crate::config::{
    INFLIGHT_BYTES_MAX, INFLIGHT_MESSAGES_MAX, INSTALL_SNAPSHOT_TIMEOUT_MS, READ_BACK_ATTEMPTS_MAX,
};
use std::collections::VecDeque;

/// Answers that a probe waits for before a marker is sent.
const UNANSWERED_MAX: usize = 4;

/// No log gets here, and still nobody takes an index behind it for senseless.
const MARKERS_BEGIN: Index = Index(INDEX_MAX.0 / 4);

/// How entries are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Where the logs agree is a guess: one message at a time, until one succeeds.
    Probe {
        /// A message is out and its answer has not come.
        waiting: bool,
    },
    /// The logs agree: messages follow each other without waiting, up to a window.
    Pipeline,
    /// A snapshot is on its way.
    Snapshot {
        /// Its index.
        index: Index,
        /// When it was asked for.
        since: Time,
        /// Once it has left: how many answers it takes until one is to a message behind it.
        answers_until_behind: Option<usize>,
    },
}

/// A message with entries that was not acknowledged.
#[derive(Debug, Clone)]
struct Inflight {
    last: Index,
    size: usize,
}

/// See the module.
#[derive(Debug, Clone)]
pub struct Progress {
    /// How entries are sent.
    pub mode: Mode,
    /// The next entry to send.
    pub next: Index,
    /// Everything up to here is stored there and equal to our log (matchIndex).
    pub matched: Index,
    /// When the last message left; `None` before the first.
    pub last_send: Option<Time>,
    /// Whether it answered since the last check of the quorum.
    pub recent: bool,
    /// The newest message of ours it answered.
    pub stamp: Stamp,
    /// Its answers do not tell which message they belong to, as those of C servers.
    pub counted: bool,
    /// Messages that may still be answered, including a snapshot.
    unanswered: usize,
    /// Markers sent, each with the number of its own.
    markers: u64,
    /// Messages behind the newest marker.
    behind_marker: usize,
    /// How many answers it takes until one is to this probe.
    answers_until_probe: usize,
    /// Where the shortest message of this probe ends, once one is sent.
    probe_end: Option<Index>,
    /// When it may get a snapshot again.
    next_snapshot: Time,
    /// Entries that were read back from the disk, from `next` on.
    fetched: Vec<Entry>,
    /// How often in a row that was in vain, and when to try again.
    failed_reads: u32,
    next_read: Time,
    inflight: VecDeque<Inflight>,
    inflight_size: usize,
}

impl Progress {
    /// Of a server about which nothing is known, when our log ends at `last_index`.
    pub fn new(last_index: Index) -> Progress {
        Progress {
            mode: Mode::Probe { waiting: false },
            next: last_index.next(),
            matched: Index(0),
            last_send: None,
            recent: false,
            stamp: Stamp(0),
            counted: false,
            unanswered: 0,
            markers: 0,
            behind_marker: 0,
            answers_until_probe: 1,
            probe_end: None,
            next_snapshot: Time(0),
            fetched: Vec::new(),
            failed_reads: 0,
            next_read: Time(0),
            inflight: VecDeque::new(),
            inflight_size: 0,
        }
    }

    /// Whether entries may be sent without being asked for by the clock.
    pub fn may_send(&self) -> bool {
        match self.mode {
            Mode::Probe { waiting } => !waiting,
            Mode::Pipeline => {
                self.inflight_size < INFLIGHT_BYTES_MAX && self.inflight.len() < INFLIGHT_MESSAGES_MAX
            }
            Mode::Snapshot { .. } => false,
        }
    }

    /// A message was sent that attaches at `last`, the end of our log, and carries nothing.
    pub fn sent_heartbeat(&mut self, now: Time, last: Index) {
        self.count_message(now);
        if matches!(self.mode, Mode::Probe { .. }) {
            self.probe_until(last);
        }
    }

    fn count_message(&mut self, now: Time) {
        self.last_send = Some(now);
        self.unanswered += 1;
        self.behind_marker += 1;
    }

    /// Whether so many answers are missing that some of them will never come, and counting leads nowhere.
    pub fn needs_marker(&self) -> bool {
        matches!(self.mode, Mode::Probe { .. }) && self.answers_until_probe > UNANSWERED_MAX
    }

    /// A message is about to be sent that attaches at the index returned, far behind any log: it will be
    /// refused, and the refusal names the index. Whatever is answered behind it was sent behind it.
    pub fn send_marker(&mut self, now: Time) -> Index {
        self.count_message(now);
        self.behind_marker = 0;
        self.markers += 1;
        Index(MARKERS_BEGIN.0 + self.markers)
    }

    /// Whether this is the answer to the newest marker, or to an older one, which tells nothing.
    pub fn marker_answered(&mut self, rejected: Index) -> bool {
        if rejected <= MARKERS_BEGIN {
            return false;
        }
        if rejected.0 - MARKERS_BEGIN.0 == self.markers && self.needs_marker() {
            self.unanswered = self.behind_marker;
            self.probe_from(self.next);
        }
        true
    }

    /// A message was sent that attaches before `next`; with entries, they end at `last` and have this size,
    /// otherwise it is 0.
    pub fn sent(&mut self, now: Time, last: Index, size: usize) {
        self.count_message(now);
        match &mut self.mode {
            Mode::Probe { .. } => self.probe_until(last),
            Mode::Pipeline if size > 0 => {
                assert!(last >= self.next, "sent up to {last} again, next is {}", self.next);
                self.move_to(last.next());
                self.inflight.push_back(Inflight { last, size });
                self.inflight_size += size;
            }
            Mode::Pipeline | Mode::Snapshot { .. } => {}
        }
    }

    fn probe_until(&mut self, last: Index) {
        self.mode = Mode::Probe { waiting: true };
        self.probe_end = Some(self.probe_end.map_or(last, |end| end.min(last)));
    }

    /// Whether a snapshot is worth sending, if one is needed: to a server that is there, and not so soon
    /// after one in vain.
    pub fn may_send_snapshot(&self, now: Time) -> bool {
        self.recent && now >= self.next_snapshot && !matches!(self.mode, Mode::Snapshot { .. })
    }

    /// A snapshot at `index` is about to be sent.
    pub fn send_snapshot(&mut self, now: Time, index: Index) {
        self.forget_fetched();
        self.failed_reads = 0;
        self.set_mode(Mode::Snapshot { index, since: now, answers_until_behind: None });
    }

    /// All of the snapshot has left.
    pub fn snapshot_sent(&mut self) {
        if let Mode::Snapshot { answers_until_behind, .. } = &mut self.mode {
            self.unanswered += 1;
            self.behind_marker += 1;
            *answers_until_behind = Some(self.unanswered);
        }
    }

    /// An answer came, whatever it says.
    pub fn answered(&mut self) {
        self.recent = true;
        self.unanswered = self.unanswered.saturating_sub(1);
        self.answers_until_probe = self.answers_until_probe.saturating_sub(1);
        if let Mode::Snapshot { answers_until_behind: Some(count), .. } = &mut self.mode {
            *count = count.saturating_sub(1);
        }
    }

    /// A C server answered with success: it stores entries up to `last`. They are ours up to the end of the
    /// message behind this answer. What follows is ours too if that message reached into our term, from
    /// `term_start` on, since nobody else's entries can follow those; otherwise it may be anything, and does
    /// not count. Until then there is one message at a time, or nobody knows which one is answered.
    pub fn succeeded_with_tail(&mut self, last: Index, term_start: Index) -> bool {
        let end = match self.mode {
            Mode::Pipeline => return self.succeeded(last),
            Mode::Snapshot { index, .. } if last < index => return false,
            Mode::Snapshot { index, .. } => index,
            Mode::Probe { .. } if self.answers_until_probe > 0 => return false,
            Mode::Probe { .. } => self.probe_end.unwrap_or(Index(0)),
        };
        if self.matched.max(end) >= term_start {
            return self.succeeded(last);
        }
        let news = end.min(last) > self.matched;
        self.matched = self.matched.max(end.min(last));
        self.probe_from(self.matched.next());
        // Without news, the shortest message of this probe carried nothing. The next one may, but not before
        // it is time: this answer would ask for it at once, and so on.
        self.mode = Mode::Probe { waiting: !news };
        news
    }

    /// Everything up to `last` is stored there. Says whether that is more than was known.
    pub fn succeeded(&mut self, last: Index) -> bool {
        while self.inflight.front().is_some_and(|message| message.last <= last) {
            let message = self.inflight.pop_front().expect("front() has just returned it");
            self.inflight_size -= message.size;
        }
        let news = last > self.matched;
        self.matched = self.matched.max(last);
        self.move_to(self.next.max(self.matched.next()));
        match self.mode {
            Mode::Snapshot { index, .. } if self.matched < index => {}
            // A success at 0 says nothing, since every log agrees there, and is no reason to send the same
            // again: the follower may still be writing it.
            Mode::Probe { .. } | Mode::Snapshot { .. } if self.matched > Index(0) => {
                self.set_mode(Mode::Pipeline);
            }
            Mode::Probe { .. } | Mode::Snapshot { .. } | Mode::Pipeline => {}
        }
        news
    }

    /// The message behind `rejected` was refused; the logs may meet at `hint`.
    pub fn rejected(&mut self, now: Time, heartbeat_ms: u64, rejected: Index, hint: Index) {
        let lower = Index(hint.0.saturating_add(1)).min(rejected).max(self.matched.next());
        match self.mode {
            // An answer to an older message, or to one before the connection was lost.
            Mode::Probe { .. } if rejected.next() != self.next => {}
            Mode::Pipeline if rejected <= self.matched => {}
            // Refused; or neither there nor being installed: a C server that installs one has an empty log.
            Mode::Snapshot { index, since, answers_until_behind: Some(0) }
                if rejected == index || hint > Index(0) =>
            {
                if rejected != index {
                    // Ignored: that answer will not come.
                    self.unanswered = self.unanswered.saturating_sub(1);
                }
                let pause_ms = (now.0 - since.0).clamp(heartbeat_ms, INSTALL_SNAPSHOT_TIMEOUT_MS);
                self.next_snapshot = Time(now.0 + pause_ms);
                self.probe_from(self.matched.next());
            }
            Mode::Snapshot { .. } => {}
            Mode::Probe { .. } | Mode::Pipeline => self.probe_from(lower),
        }
    }

    /// What was sent may be lost. The clock decides when to try again.
    pub fn lost(&mut self) {
        let agreed = match self.mode {
            // If it arrived, the log there begins behind it.
            Mode::Snapshot { index, .. } => index.max(self.matched),
            Mode::Probe { .. } | Mode::Pipeline => self.matched,
        };
        self.unanswered = 0;
        self.forget_fetched();
        self.probe_from(agreed.next());
        self.mode = Mode::Probe { waiting: true };
    }

    fn probe_from(&mut self, next: Index) {
        self.move_to(next);
        self.answers_until_probe = self.unanswered + 1;
        self.probe_end = None;
        self.set_mode(Mode::Probe { waiting: false });
    }

    fn move_to(&mut self, next: Index) {
        if next != self.next {
            self.forget_fetched();
        }
        self.next = next;
    }

    /// Whether to read entries from the disk for it: not while it is silent.
    pub fn may_read(&self, now: Time) -> bool {
        self.recent && now >= self.next_read
    }

    /// Whether entries could not be read for so long that a snapshot is the better way.
    pub fn reads_in_vain(&self) -> bool {
        self.failed_reads >= READ_BACK_ATTEMPTS_MAX
    }

    /// Entries from `first` on were read for it.
    pub fn fetch(&mut self, first: Index, entries: Vec<Entry>) {
        self.failed_reads = 0;
        if first == self.next && !matches!(self.mode, Mode::Snapshot { .. }) {
            self.fetched = entries;
        }
    }

    /// They could not be read.
    pub fn fail_to_fetch(&mut self, now: Time, heartbeat_ms: u64) {
        self.failed_reads = self.failed_reads.saturating_add(1);
        self.next_read = Time(now.0 + (heartbeat_ms << self.failed_reads.min(4)));
    }

    /// What was read from `next` on; nothing if that is not there.
    pub fn fetched(&self) -> &[Entry] {
        &self.fetched
    }

    /// It may need what was read much later or never.
    pub fn forget_fetched(&mut self) {
        self.fetched = Vec::new();
    }

    fn set_mode(&mut self, mode: Mode) {
        self.mode = mode;
        self.inflight.clear();
        self.inflight_size = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEARTBEAT_MS: u64 = 100;

    /// A server that stores entries up to 5 of 10.
    fn pipeline() -> Progress {
        let mut progress = Progress::new(Index(10));
        progress.sent(Time(1), Index(10), 0);
        progress.rejected(Time(9), HEARTBEAT_MS, Index(10), Index(5));
        assert_eq!((progress.mode, progress.next), (Mode::Probe { waiting: false }, Index(6)));
        progress.sent(Time(2), Index(5), 0);
        assert!(progress.succeeded(Index(5)));
        assert_eq!((progress.mode, progress.matched), (Mode::Pipeline, Index(5)));
        progress
    }

    #[test]
    fn a_probe_sends_one_message_and_waits() {
        let mut progress = Progress::new(Index(10));
        assert!(progress.may_send());
        progress.sent(Time(1), Index(10), 0);
        assert!(!progress.may_send());
        progress.rejected(Time(9), HEARTBEAT_MS, Index(7), Index(5));
        assert!(!progress.may_send(), "the answer to another message ends no wait");
    }

    #[test]
    fn a_pipeline_sends_on_until_its_window_is_full() {
        let mut progress = pipeline();
        progress.sent(Time(3), Index(7), INFLIGHT_BYTES_MAX - 1);
        assert_eq!((progress.may_send(), progress.next), (true, Index(8)));
        progress.sent(Time(3), Index(8), 1);
        assert!(!progress.may_send());
        assert!(progress.succeeded(Index(7)));
        assert!(progress.may_send());

        let mut progress = pipeline();
        for n in 0..INFLIGHT_MESSAGES_MAX as u64 {
            assert!(progress.may_send());
            progress.sent(Time(3), Index(6 + n), 16);
        }
        assert!(!progress.may_send());
    }

    #[test]
    fn a_refused_pipeline_probes_where_the_logs_are_known_to_agree() {
        let mut progress = pipeline();
        progress.sent(Time(3), Index(7), 8);
        progress.sent(Time(3), Index(8), 8);
        progress.rejected(Time(9), HEARTBEAT_MS, Index(5), Index(5));
        assert_eq!(progress.mode, Mode::Pipeline, "what is known to agree cannot be refused");
        progress.rejected(Time(9), HEARTBEAT_MS, Index(7), Index(0));
        assert_eq!((progress.mode, progress.next), (Mode::Probe { waiting: false }, Index(6)));
        progress.rejected(Time(9), HEARTBEAT_MS, Index(8), Index(0));
        assert_eq!(progress.next, Index(6));
    }

    #[test]
    fn a_lost_connection_sends_again_from_what_was_acknowledged_but_not_at_once() {
        let mut progress = pipeline();
        progress.sent(Time(3), Index(8), 8);
        progress.lost();
        assert_eq!((progress.mode, progress.next), (Mode::Probe { waiting: true }, Index(6)));
    }

    /// A snapshot at 9 that has left after one message whose answer has not come.
    fn snapshot() -> Progress {
        let mut progress = pipeline();
        (0..2).for_each(|_| progress.answered());
        progress.sent(Time(4), Index(10), 0);
        progress.send_snapshot(Time(5), Index(9));
        progress.snapshot_sent();
        progress
    }

    fn reject(progress: &mut Progress, now: u64, rejected: u64, hint: u64) {
        progress.answered();
        progress.rejected(Time(now), HEARTBEAT_MS, Index(rejected), Index(hint));
    }

    #[test]
    fn a_snapshot_ends_with_its_confirmation() {
        let mut progress = snapshot();
        let mode = progress.mode;
        progress.succeeded(Index(6));
        assert_eq!(progress.mode, mode);
        progress.succeeded(Index(9));
        assert_eq!((progress.mode, progress.next), (Mode::Pipeline, Index(10)));
    }

    #[test]
    fn a_snapshot_ends_with_its_refusal_and_the_next_one_waits() {
        let mut progress = snapshot();
        reject(&mut progress, 6, 9, 5);
        assert!(matches!(progress.mode, Mode::Snapshot { .. }), "that may have been a message before it");
        reject(&mut progress, 7, 9, 0);
        assert_eq!((progress.mode, progress.next), (Mode::Probe { waiting: false }, Index(6)));
        assert!(!progress.may_send_snapshot(Time(7 + HEARTBEAT_MS - 1)));
        assert!(progress.may_send_snapshot(Time(7 + HEARTBEAT_MS)));
    }

    #[test]
    fn a_snapshot_was_ignored_when_a_message_behind_it_finds_another_log() {
        let mut progress = snapshot();
        progress.sent(Time(300), Index(10), 0);
        reject(&mut progress, 310, 10, 5);
        assert!(matches!(progress.mode, Mode::Snapshot { .. }), "that was a message before it");
        let mut installing = progress.clone();
        reject(&mut installing, 311, 10, 0);
        assert!(matches!(installing.mode, Mode::Snapshot { .. }), "a C server that installs has no log");
        reject(&mut progress, 311, 10, 5);
        assert_eq!((progress.mode, progress.unanswered), (Mode::Probe { waiting: false }, 0));
        assert!(!progress.may_send_snapshot(Time(311 + 305)), "as long as this one took");
        assert!(progress.may_send_snapshot(Time(311 + 306)));
    }

    #[test]
    fn after_a_lost_connection_a_snapshot_is_taken_for_installed_until_a_probe_tells() {
        let mut progress = snapshot();
        progress.lost();
        assert_eq!((progress.mode, progress.next), (Mode::Probe { waiting: true }, Index(10)));
        reject(&mut progress, 20, 9, 5);
        assert_eq!((progress.mode, progress.next), (Mode::Probe { waiting: false }, Index(6)));
    }

    /// A C server with entries of others behind 70 answers a probe that ends there.
    #[test]
    fn what_a_c_server_stores_behind_a_message_of_old_entries_does_not_count() {
        let term_start = Index(100);
        let mut progress = Progress::new(Index(100));
        progress.sent(Time(1), Index(100), 0);
        reject(&mut progress, 2, 100, 60);
        progress.sent(Time(3), Index(70), 8);
        progress.sent(Time(9), Index(70), 8);
        progress.answered();
        assert!(progress.succeeded_with_tail(Index(120), term_start));
        assert_eq!((progress.mode, progress.matched), (Mode::Probe { waiting: false }, Index(70)));

        progress.sent(Time(10), Index(105), 8);
        progress.answered();
        assert!(!progress.succeeded_with_tail(Index(120), term_start), "the second answer to the last probe");
        progress.answered();
        assert!(progress.succeeded_with_tail(Index(104), term_start));
        assert_eq!((progress.mode, progress.matched), (Mode::Pipeline, Index(104)));
    }

    #[test]
    fn a_probe_that_carried_nothing_is_followed_by_one_that_does() {
        let mut progress = Progress::new(Index(10));
        progress.sent(Time(1), Index(10), 0);
        reject(&mut progress, 2, 10, 5);
        progress.sent(Time(3), Index(5), 0);
        progress.answered();
        assert!(progress.succeeded_with_tail(Index(8), Index(11)), "what agrees up to 5 is news");
        progress.sent_heartbeat(Time(4), Index(5));
        progress.answered();
        assert!(!progress.succeeded_with_tail(Index(8), Index(11)));
        assert_eq!(progress.mode, Mode::Probe { waiting: true });
        progress.sent(Time(9), Index(12), 8);
        progress.answered();
        assert!(progress.succeeded_with_tail(Index(12), Index(11)));
        assert_eq!((progress.mode, progress.matched), (Mode::Pipeline, Index(12)));
    }

    /// A C server of which many answers were lost, and which may have entries of others.
    #[test]
    fn a_marker_tells_where_counting_answers_begins_again() {
        let mut progress = Progress::new(Index(10));
        (0..9).for_each(|_| progress.sent(Time(1), Index(10), 0));
        reject(&mut progress, 2, 10, 5);
        assert!(progress.needs_marker());
        let marker = progress.send_marker(Time(3));
        progress.sent(Time(4), Index(8), 8);
        progress.answered();
        assert!(
            !progress.succeeded_with_tail(Index(20), Index(7)),
            "behind the marker, and not yet known to be"
        );
        progress.answered();
        assert!(progress.marker_answered(marker));
        assert_eq!((progress.mode, progress.next), (Mode::Probe { waiting: false }, Index(6)));
        progress.sent(Time(5), Index(8), 8);
        progress.answered();
        assert!(
            !progress.succeeded_with_tail(Index(20), Index(7)),
            "the answer to the message before this one"
        );
        progress.answered();
        assert!(progress.succeeded_with_tail(Index(20), Index(7)));
        assert!(!progress.marker_answered(Index(8)), "an index that a log may have");
    }

    #[test]
    fn the_log_of_a_c_server_behind_a_snapshot_is_not_trusted_either() {
        let mut progress = snapshot();
        assert!(!progress.succeeded_with_tail(Index(7), Index(10)));
        assert!(progress.succeeded_with_tail(Index(12), Index(10)));
        assert_eq!((progress.mode, progress.matched), (Mode::Probe { waiting: false }, Index(9)));
    }

    #[test]
    fn success_at_the_beginning_of_the_log_proves_no_agreement() {
        let mut progress = Progress::new(Index(10));
        progress.sent(Time(1), Index(10), 0);
        assert!(!progress.succeeded(Index(0)));
        assert_eq!((progress.mode, progress.next), (Mode::Probe { waiting: true }, Index(11)));
    }
}

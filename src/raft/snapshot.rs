//! When to take a snapshot, and what the log keeps behind it (dissertation 5.1). Part of the core.

use super::Raft;
use super::error::StepError;
use super::options::{Options, TrailingStrategy};
use super::output::{Output, Outputs};
use super::planted::Bug;
use super::types::{Index, Term};

/// The snapshot being written, and when the next one is due.
#[derive(Debug, Clone, Default)]
pub struct SnapshotSchedule {
    in_progress: Option<(Index, Term)>,
    /// Index of the newest snapshot, or of a later attempt at one. Counting from the attempt keeps a disk
    /// that cannot hold a snapshot from being asked again after every entry.
    last_attempt: Index,
}

impl SnapshotSchedule {
    /// Nothing in progress; the newest snapshot is at `snapshot_index`.
    pub fn new(snapshot_index: Index) -> SnapshotSchedule {
        SnapshotSchedule { in_progress: None, last_attempt: snapshot_index }
    }

    /// Whether a snapshot is being written.
    pub fn is_in_progress(&self) -> bool {
        self.in_progress.is_some()
    }

    /// A snapshot at `index` was installed.
    pub fn restart_at(&mut self, index: Index) {
        assert!(self.in_progress.is_none(), "a snapshot was installed while one was written");
        self.last_attempt = index;
    }
}

impl Raft {
    /// Asks for a snapshot of what is applied, once that is a threshold of entries more than last time.
    pub(super) fn take_snapshot_if_due(&mut self, out: &mut Outputs) {
        let index = self.applied_index;
        let since_last = index.0 - self.snapshots.last_attempt.0;
        // At least one entry, or a threshold of 0 would repeat the same snapshot.
        let due = since_last >= self.options.snapshot_threshold.max(1);
        if !due || self.snapshots.in_progress.is_some() || self.persistence.has_failed() {
            return;
        }
        // A quorum of others may have committed what our own disk still writes; a snapshot must not be ahead
        // of the log on disk, or a crash leaves a gap between them.
        let ahead = self.persistence.persisted_index() < index && !self.has(Bug::SnapshotAheadOfDisk);
        if self.installation.is_some() || ahead {
            return;
        }
        let term = self.log.term_at(index).expect("entries are dropped only once a snapshot contains them");
        // The last configuration committed at the index, not the one in force, which may still be truncated
        // (dissertation 5.1).
        let (configuration_index, configuration) =
            self.configurations.at(index).expect("a log that is not empty begins with a configuration");
        let configuration = if self.has(Bug::SnapshotOfUncommittedConfiguration) {
            self.configurations.current()
        } else {
            configuration
        };
        let configuration = configuration.clone();
        self.snapshots.in_progress = Some((index, term));
        self.snapshots.last_attempt = index;
        out.push(Output::TakeSnapshot { index, term, configuration, configuration_index });
    }

    pub(super) fn snapshot_taken(
        &mut self,
        index: Index,
        size_bytes: u64,
        out: &mut Outputs,
    ) -> Result<(), StepError> {
        let term = self.finish_snapshot(index)?;
        self.log.set_snapshot(index, term);
        let trailing = self.trailing(size_bytes);
        self.log.drop_through(Index(index.0.saturating_sub(trailing)));
        self.receive_next_installation(out);
        Ok(())
    }

    pub(super) fn snapshot_failed(&mut self, index: Index, out: &mut Outputs) -> Result<(), StepError> {
        self.finish_snapshot(index)?;
        self.receive_next_installation(out);
        Ok(())
    }

    /// Counts from the newest snapshot again, as if there had been no attempt since.
    pub(super) fn retry_snapshot(&mut self, out: &mut Outputs) {
        if self.snapshots.in_progress.is_none() {
            self.snapshots.last_attempt = self.log.snapshot_index();
            self.take_snapshot_if_due(out);
        }
    }

    fn finish_snapshot(&mut self, index: Index) -> Result<Term, StepError> {
        match self.snapshots.in_progress {
            Some((in_progress, term)) if in_progress == index => {
                self.snapshots.in_progress = None;
                Ok(term)
            }
            _ => Err(StepError::UnknownSnapshot { index }),
        }
    }

    /// How many entries up to the snapshot's index stay in the log.
    fn trailing(&self, snapshot_size_bytes: u64) -> u64 {
        let Options { snapshot_threshold, snapshot_trailing, trailing_strategy, .. } = self.options;
        match trailing_strategy {
            TrailingStrategy::Static => snapshot_trailing,
            // Sending the log is cheaper than sending the snapshot as long as it is smaller.
            TrailingStrategy::Dynamic => {
                let fitting = self.newest_entries_within(snapshot_size_bytes, snapshot_trailing);
                fitting.max(snapshot_threshold).min(snapshot_trailing)
            }
        }
    }

    /// How many of the newest entries, at most `count_max`, have payloads that sum up to at most
    /// `size_bytes`.
    fn newest_entries_within(&self, size_bytes: u64, count_max: u64) -> u64 {
        let mut left = size_bytes;
        let mut count = 0;
        for size in self.log.payload_sizes() {
            if size > left || count == count_max {
                break;
            }
            left -= size;
            count += 1;
        }
        count
    }
}

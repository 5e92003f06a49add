//! The first input: taking over what the disk held. Part of the core.

use super::Raft;
use super::configuration::Configuration;
use super::error::StepError;
use super::history::ConfigurationHistory;
use super::input::Start;
use super::log::{INDEX_MAX, Log};
use super::output::{Output, Outputs};
use super::persistence::Persistence;
use super::snapshot::SnapshotSchedule;
use super::types::{Entry, EntryKind, Index, Term};

impl Raft {
    pub(super) fn start(&mut self, start: Start, out: &mut Outputs) -> Result<(), StepError> {
        if self.started {
            return Err(StepError::AlreadyStarted);
        }
        check(&start)?;
        self.configurations = configurations(&start)?;

        let (snapshot_index, snapshot_term) = snapshot_position(&start);
        // The bootstrap entry is committed by definition: every server of a cluster begins with it.
        let bootstrapped = start.snapshot.is_none() && !start.entries.is_empty();
        self.commit_index = if bootstrapped { Index(1) } else { snapshot_index };
        self.applied_index = snapshot_index;
        self.snapshots = SnapshotSchedule::new(snapshot_index);
        self.term = start.term;
        self.voted_for = start.voted_for;
        self.log = Log::new(snapshot_index, snapshot_term, start.first_index, start.entries);
        self.persistence = Persistence::new(self.log.last_index());
        self.started = true;
        self.started_at = self.now;

        let configuration = self.configurations.current();
        if !configuration.servers.is_empty() {
            out.push(Output::ConfigurationChanged { configuration: configuration.clone() });
        }
        self.report_role(out);
        if self.commit_index > self.applied_index {
            out.push(Output::Commit { up_to: self.commit_index });
        }
        self.start_election_timer(out);
        Ok(())
    }
}

fn snapshot_position(start: &Start) -> (Index, Term) {
    start.snapshot.as_ref().map_or((Index(0), Term(0)), |snapshot| (snapshot.index, snapshot.term))
}

/// Refuses a log and a snapshot that cannot be the two halves of one history.
fn check(start: &Start) -> Result<(), StepError> {
    let (snapshot_index, snapshot_term) = snapshot_position(start);
    let first_index = start.first_index;
    for index in [first_index, snapshot_index] {
        // Leaves room for the entries, whose number is bounded by memory, on both sides of every comparison.
        if index > Index(INDEX_MAX.0 / 2) {
            return Err(StepError::IndexOutOfRange(index));
        }
    }
    if first_index == Index(0) || (start.snapshot.is_some() && snapshot_index == Index(0)) {
        return Err(StepError::IndexOutOfRange(Index(0)));
    }
    let last_index = Index(first_index.0 - 1 + start.entries.len() as u64);
    if first_index > snapshot_index.next() {
        if start.snapshot.is_none() {
            return Err(StepError::NoBeginning { first_index });
        }
        return Err(StepError::GapAfterSnapshot { snapshot_index, first_index });
    }
    if last_index < snapshot_index {
        return Err(StepError::BehindSnapshot { snapshot_index, last_index });
    }
    if start.snapshot.is_none() && start.entries.first().is_some_and(|entry| entry.kind != EntryKind::Change)
    {
        return Err(StepError::NoBeginning { first_index });
    }
    if snapshot_term > start.term {
        let persisted_term = start.term;
        return Err(StepError::TermFromFuture { index: snapshot_index, term: snapshot_term, persisted_term });
    }
    for (index, entry) in indexed(start) {
        if entry.term > start.term {
            return Err(StepError::TermFromFuture { index, term: entry.term, persisted_term: start.term });
        }
        if index == snapshot_index && entry.term != snapshot_term {
            let entry_term = entry.term;
            return Err(StepError::SnapshotTermDiffers { index, snapshot_term, entry_term });
        }
    }
    Ok(())
}

/// The snapshot's configuration, then those of the log. The newest is in force, committed or not; entries of
/// a lower term may follow ones of a higher (a forced configuration is written with term 1), so only their
/// position says which is newest.
fn configurations(start: &Start) -> Result<ConfigurationHistory, StepError> {
    let mut history = ConfigurationHistory::default();
    let mut newest = Index(0);
    if let Some(snapshot) = &start.snapshot {
        // C dqlite 1.11 put the configuration in force into a snapshot even if it was uncommitted, hence
        // newer than the snapshot. It then has to serve for the snapshot's own index as well.
        newest = snapshot.configuration_index.min(snapshot.index);
        history.push(newest, snapshot.configuration.clone());
    }
    for (index, entry) in indexed(start) {
        if entry.kind == EntryKind::Change && index > newest {
            let configuration = Configuration::decode(entry.payload.clone());
            history.push(index, configuration.map_err(|source| StepError::Configuration { index, source })?);
        }
    }
    Ok(history)
}

fn indexed(start: &Start) -> impl Iterator<Item = (Index, &Entry)> {
    (start.first_index.0..).map(Index).zip(&start.entries)
}

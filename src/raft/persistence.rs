//! What this server asked its disk to do, and how much of its log is durable. Owned by the core.
//!
//! Requests are numbered; the disk carries them out in order and reports the highest durable one. Only then
//! may the entries count as stored here (dissertation 10.2.1): the core never assumes that a write has
//! happened.

use super::error::StepError;
use super::types::{Index, Seq};
use std::collections::VecDeque;

/// An append that is not durable yet.
#[derive(Debug, Clone)]
struct Append {
    seq: Seq,
    first: Index,
    last: Index,
}

/// Requests in flight and the durable part of the log.
#[derive(Debug, Clone, Default)]
pub struct Persistence {
    last_seq: Seq,
    durable_seq: Seq,
    /// First request that failed; the disk does nothing from it on.
    failed: Option<Seq>,
    persisted_index: Index,
    appends: VecDeque<Append>,
    /// The last request that writes term and vote.
    metadata: Seq,
}

impl Persistence {
    /// A disk that holds the log up to `persisted_index`, with nothing in flight.
    pub fn new(persisted_index: Index) -> Persistence {
        Persistence { persisted_index, ..Persistence::default() }
    }

    /// Highest index up to which the log in memory is durable.
    pub fn persisted_index(&self) -> Index {
        self.persisted_index
    }

    /// Whether a request failed: nothing can become durable any more.
    pub fn has_failed(&self) -> bool {
        self.failed.is_some()
    }

    /// Numbers an append of the entries from `first` to `last`.
    pub fn append(&mut self, first: Index, last: Index) -> Seq {
        assert_eq!(first, self.last_index().next(), "append leaves a gap or overlaps on disk");
        assert!(last >= first, "append from {first} to {last} is empty");
        assert!(!self.has_failed(), "append after the disk failed");
        self.last_seq = self.last_seq.next();
        self.appends.push_back(Append { seq: self.last_seq, first, last });
        self.last_seq
    }

    /// Numbers a removal of everything from `from` on. What is removed counts as durable no more, whatever
    /// the disk has yet to report about it.
    pub fn truncate(&mut self, from: Index) -> Seq {
        assert!(!self.has_failed(), "truncation after the disk failed");
        self.forget_from(from);
        self.last_seq = self.last_seq.next();
        self.last_seq
    }

    /// Numbers a write of term and vote.
    pub fn write_metadata(&mut self) -> Seq {
        assert!(!self.has_failed(), "term or vote changed after the disk failed");
        self.last_seq = self.last_seq.next();
        self.metadata = self.last_seq;
        self.last_seq
    }

    /// The log was replaced by a snapshot that ends at `index`.
    pub fn replace_log(&mut self, index: Index) {
        self.appends.clear();
        self.persisted_index = index;
    }

    /// Whether a request is durable.
    pub fn is_durable(&self, seq: Seq) -> bool {
        seq <= self.durable_seq
    }

    /// The request that makes the current term and vote durable, while it is in flight.
    pub fn metadata_in_flight(&self) -> Option<Seq> {
        (self.metadata > self.durable_seq).then_some(self.metadata)
    }

    /// The request that makes the entry at `index` durable, while it is in flight.
    pub fn append_in_flight(&self, index: Index) -> Option<Seq> {
        if index <= self.persisted_index {
            return None;
        }
        let position = self.appends.partition_point(|append| append.last < index);
        self.appends.get(position).map(|append| append.seq)
    }

    fn forget_from(&mut self, from: Index) {
        let before = Index(from.0 - 1);
        self.persisted_index = self.persisted_index.min(before);
        self.appends.retain(|append| append.first < from);
        if let Some(append) = self.appends.back_mut() {
            append.last = append.last.min(before);
        }
    }

    /// Everything up to `seq` is durable. Hearing it again changes nothing.
    pub fn acknowledge(&mut self, seq: Seq) -> Result<(), StepError> {
        self.check_known(seq)?;
        if self.failed.is_some_and(|failed| seq >= failed) {
            return Err(StepError::ContradictoryRequest { seq });
        }
        self.durable_seq = self.durable_seq.max(seq);
        while self.appends.front().is_some_and(|append| append.seq <= seq) {
            let append = self.appends.pop_front().expect("front() has just returned it");
            assert_eq!(append.first, self.persisted_index.next(), "appends become durable in log order");
            self.persisted_index = append.last;
        }
        Ok(())
    }

    /// Nothing from `seq` on is durable or will be. Returns the first index lost that way, if any.
    pub fn fail(&mut self, seq: Seq) -> Result<Option<Index>, StepError> {
        self.check_known(seq)?;
        if seq <= self.durable_seq {
            return Err(StepError::ContradictoryRequest { seq });
        }
        self.failed = Some(self.failed.map_or(seq, |failed| failed.min(seq)));
        let keep = self.appends.partition_point(|append| append.seq < seq);
        let lost = self.appends.get(keep).map(|append| append.first);
        self.appends.truncate(keep);
        Ok(lost)
    }

    /// The appends from `seq` on are dropped, except for entries up to `stored`.
    pub fn drop_appends(&mut self, seq: Seq, stored: Index) -> Result<(), StepError> {
        self.check_known(seq)?;
        let earlier = self.appends.front().is_some_and(|append| append.seq < seq);
        if seq <= self.durable_seq || self.has_failed() || earlier {
            return Err(StepError::ContradictoryRequest { seq });
        }
        // If a truncation came in between, what is left of it does not belong to our log any more.
        if let Some(append) = self.appends.front().filter(|append| append.seq == seq) {
            self.persisted_index = self.persisted_index.max(stored.min(append.last));
        }
        self.appends.clear();
        Ok(())
    }

    /// The end of what is durable or in flight.
    pub fn last_index(&self) -> Index {
        self.appends.back().map_or(self.persisted_index, |append| append.last)
    }

    fn check_known(&self, seq: Seq) -> Result<(), StepError> {
        if seq > self.last_seq {
            return Err(StepError::UnknownRequest { seq, last: self.last_seq });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Entries 1 to 3 durable, 4 to 5 and 6 to 6 in flight as requests 1 and 2.
    fn two_in_flight() -> Persistence {
        let mut disk = Persistence::new(Index(3));
        assert_eq!(disk.append(Index(4), Index(5)), Seq(1));
        assert_eq!(disk.append(Index(6), Index(6)), Seq(2));
        disk
    }

    #[test]
    fn nothing_counts_as_durable_before_the_disk_says_so() {
        let mut disk = two_in_flight();
        assert_eq!(disk.persisted_index(), Index(3));
        disk.acknowledge(Seq(1)).unwrap();
        assert_eq!(disk.persisted_index(), Index(5));
        disk.acknowledge(Seq(2)).unwrap();
        assert_eq!(disk.persisted_index(), Index(6));
    }

    #[test]
    fn one_report_covers_all_requests_before_it_and_may_be_repeated() {
        let mut disk = two_in_flight();
        disk.acknowledge(Seq(2)).unwrap();
        disk.acknowledge(Seq(1)).unwrap();
        disk.acknowledge(Seq(2)).unwrap();
        assert_eq!(disk.persisted_index(), Index(6));
    }

    #[test]
    fn a_failure_loses_its_request_and_all_behind_it_but_none_before() {
        let mut disk = two_in_flight();
        assert_eq!(disk.fail(Seq(2)), Ok(Some(Index(6))));
        assert!(disk.has_failed());
        disk.acknowledge(Seq(1)).unwrap();
        assert_eq!(disk.persisted_index(), Index(5));
        assert_eq!(disk.acknowledge(Seq(2)), Err(StepError::ContradictoryRequest { seq: Seq(2) }));

        let mut disk = two_in_flight();
        assert_eq!(disk.fail(Seq(1)), Ok(Some(Index(4))));
        assert_eq!(disk.fail(Seq(2)), Ok(None), "already lost");
        assert_eq!(disk.acknowledge(Seq(1)), Err(StepError::ContradictoryRequest { seq: Seq(1) }));
        assert_eq!(disk.persisted_index(), Index(3));
    }

    #[test]
    fn reports_about_requests_never_made_or_already_durable_are_refused() {
        let mut disk = two_in_flight();
        assert_eq!(disk.acknowledge(Seq(3)), Err(StepError::UnknownRequest { seq: Seq(3), last: Seq(2) }));
        assert_eq!(disk.fail(Seq(3)), Err(StepError::UnknownRequest { seq: Seq(3), last: Seq(2) }));
        disk.acknowledge(Seq(1)).unwrap();
        assert_eq!(disk.fail(Seq(1)), Err(StepError::ContradictoryRequest { seq: Seq(1) }));
        assert_eq!(
            disk.fail(Seq(0)),
            Err(StepError::ContradictoryRequest { seq: Seq(0) }),
            "no request is 0"
        );
    }

    #[test]
    fn what_is_truncated_counts_as_durable_no_more_whatever_is_reported_later() {
        let mut disk = two_in_flight();
        assert_eq!(disk.truncate(Index(5)), Seq(3));
        assert_eq!(disk.append(Index(5), Index(9)), Seq(4));
        disk.acknowledge(Seq(2)).unwrap();
        assert_eq!(disk.persisted_index(), Index(4), "entries 5 and 6 on disk are not those in memory");
        disk.acknowledge(Seq(4)).unwrap();
        assert_eq!(disk.persisted_index(), Index(9));

        let mut disk = two_in_flight();
        disk.truncate(Index(2));
        assert_eq!(disk.persisted_index(), Index(1));
        disk.acknowledge(Seq(3)).unwrap();
        assert_eq!(disk.persisted_index(), Index(1));
    }

    #[test]
    fn term_and_vote_are_in_flight_until_their_own_request_is_durable() {
        let mut disk = two_in_flight();
        assert_eq!(disk.metadata_in_flight(), None);
        let seq = disk.write_metadata();
        disk.append(Index(7), Index(7));
        assert_eq!(disk.metadata_in_flight(), Some(seq));
        disk.acknowledge(Seq(2)).unwrap();
        assert_eq!(disk.metadata_in_flight(), Some(seq));
        disk.acknowledge(seq).unwrap();
        assert_eq!(disk.metadata_in_flight(), None);
        assert!(disk.is_durable(seq));
    }

    #[test]
    fn an_entry_is_in_flight_with_the_request_that_writes_it() {
        let mut disk = two_in_flight();
        assert_eq!(disk.append_in_flight(Index(3)), None);
        assert_eq!(disk.append_in_flight(Index(5)), Some(Seq(1)));
        assert_eq!(disk.append_in_flight(Index(6)), Some(Seq(2)));
        disk.acknowledge(Seq(2)).unwrap();
        assert_eq!(disk.append_in_flight(Index(6)), None);
    }

    #[test]
    fn a_snapshot_replaces_everything_durable_or_in_flight() {
        let mut disk = two_in_flight();
        disk.replace_log(Index(50));
        disk.acknowledge(Seq(2)).unwrap();
        assert_eq!(disk.persisted_index(), Index(50));
        disk.append(Index(51), Index(51));
    }

    #[test]
    #[should_panic(expected = "gap or overlaps")]
    fn an_append_that_does_not_continue_the_disk_is_a_bug() {
        two_in_flight().append(Index(8), Index(8));
    }
}

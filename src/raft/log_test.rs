use super::*;
use crate::raft::EntryKind;
use bytes::Bytes;

fn entry(term: u64) -> Entry {
    Entry { term: Term(term), kind: EntryKind::Command, payload: Bytes::from(vec![term as u8; 8]) }
}

fn log(terms: &[u64]) -> Log {
    Log::new(Index(0), Term(0), Index(1), terms.iter().copied().map(entry).collect())
}

/// Trailing entries 3 and 4, snapshot at 4, then 5 and 6.
fn compacted() -> Log {
    Log::new(Index(4), Term(2), Index(3), [2, 2, 2, 3].map(entry).into())
}

fn terms(log: &Log, from: u64) -> Vec<u64> {
    log.entries_from(Index(from)).map(|entry| entry.term.0).collect()
}

#[test]
fn an_empty_log_ends_at_index_0_in_term_0() {
    let log = Log::default();
    assert_eq!((log.first_index(), log.last_index(), log.last_term()), (Index(1), Index(0), Term(0)));
    assert_eq!(log.term_at(Index(0)), Some(Term(0)));
    assert_eq!(log.term_at(Index(1)), None);
    assert_eq!(log.get(Index(0)), None);
}

#[test]
fn a_log_of_nothing_but_a_snapshot_ends_where_the_snapshot_does() {
    let log = Log::new(Index(9), Term(4), Index(10), vec![]);
    assert_eq!((log.last_index(), log.last_term()), (Index(9), Term(4)));
    assert_eq!(log.term_at(Index(8)), None);
}

#[test]
fn appended_entries_follow_the_newest_and_share_their_payload() {
    let mut log = log(&[1, 1]);
    let entry = entry(2);
    let payload = entry.payload.as_ptr();
    assert_eq!(log.append([entry]), Index(3));
    assert_eq!(log.get(Index(3)).unwrap().clone().payload.as_ptr(), payload);
    assert_eq!((log.last_index(), log.last_term()), (Index(3), Term(2)));
}

#[test]
fn terms_are_known_for_entries_in_memory_and_for_the_snapshot() {
    let mut log = compacted();
    let known = |log: &Log| (2..8).map(|i| log.term_at(Index(i)).map(|t| t.0)).collect::<Vec<_>>();
    assert_eq!(known(&log), [None, Some(2), Some(2), Some(2), Some(3), None]);
    log.drop_through(Index(4));
    assert_eq!(known(&log), [None, None, Some(2), Some(2), Some(3), None]);
    assert_eq!(log.first_index(), Index(5));
}

#[test]
fn iteration_starts_at_the_index_or_at_the_first_entry() {
    let log = compacted();
    assert_eq!(terms(&log, 0), [2, 2, 2, 3]);
    assert_eq!(terms(&log, 5), [2, 3]);
    assert_eq!(terms(&log, 6), [3]);
    assert_eq!(terms(&log, 7), [0; 0]);
    assert_eq!(terms(&log, u64::MAX), [0; 0]);
}

#[test]
fn truncation_removes_the_entry_and_all_behind_it() {
    let mut log = log(&[1, 1, 2, 2]);
    log.truncate_from(Index(5));
    assert_eq!(terms(&log, 1), [1, 1, 2, 2]);
    log.truncate_from(Index(3));
    assert_eq!(terms(&log, 1), [1, 1]);
    assert_eq!(log.append([entry(3)]), Index(3), "the slot of a truncated entry is used again");
}

#[test]
fn truncation_right_behind_the_snapshot_keeps_the_trailing_entries() {
    let mut log = compacted();
    log.truncate_from(Index(5));
    assert_eq!((log.last_index(), log.last_term()), (Index(4), Term(2)));
    assert_eq!(terms(&log, 0), [2, 2]);
}

#[test]
#[should_panic(expected = "reaches into the snapshot")]
fn truncation_into_the_snapshot_is_a_bug() {
    compacted().truncate_from(Index(4));
}

#[test]
#[should_panic(expected = "beyond the snapshot")]
fn dropping_what_no_snapshot_contains_is_a_bug() {
    compacted().drop_through(Index(5));
}

#[test]
fn a_snapshot_takes_the_place_of_dropped_entries() {
    let mut log = log(&[1, 1, 2, 2]);
    log.set_snapshot(Index(3), Term(2));
    log.drop_through(Index(1));
    assert_eq!((log.first_index(), log.snapshot_index()), (Index(2), Index(3)));
    log.drop_through(Index(1));
    assert_eq!(log.first_index(), Index(2), "dropping twice changes nothing");
    log.drop_through(Index(3));
    assert_eq!(terms(&log, 0), [2]);
}

#[test]
#[should_panic(expected = "term of the entry at 2")]
fn a_snapshot_that_disagrees_with_the_log_is_a_bug() {
    log(&[1, 1]).set_snapshot(Index(2), Term(2));
}

/// Memory of so many entries of this file.
fn memory_of(count: usize) -> usize {
    count * (size_of::<Entry>() + 8)
}

#[test]
fn the_oldest_entries_are_evicted_as_far_as_the_bound_asks_for_and_no_further_than_is_allowed() {
    let mut log = log(&[1, 1, 2, 2, 3]);
    log.evict(Index(5), memory_of(5));
    assert_eq!(log.first_whole(), Index(1), "everything fits");
    log.evict(Index(5), memory_of(3) + 1);
    assert_eq!(log.first_whole(), Index(3));
    log.evict(Index(3), 0);
    assert_eq!(log.first_whole(), Index(4), "entry 4 must stay");
    assert!(log.is_evicted(Index(3)) && !log.is_evicted(Index(4)) && !log.is_evicted(Index(6)));
    assert_eq!((log.get(Index(3)), log.get(Index(4))), (None, Some(&entry(2))));
    assert_eq!(terms(&log, 0), [2, 3]);
}

#[test]
fn of_an_evicted_entry_index_term_kind_and_size_stay_known() {
    assert_eq!(size_of::<Header>(), 16);
    let mut log = log(&[1, 1, 2]);
    log.evict(Index(2), 0);
    assert_eq!((log.first_index(), log.last_index(), log.last_term()), (Index(1), Index(3), Term(2)));
    assert_eq!(log.term_at(Index(2)), Some(Term(1)));
    assert_eq!(log.payload_sizes().collect::<Vec<_>>(), [8, 8, 8]);
    assert!(log.has(Index(1), &[entry(1), entry(1), entry(2)]));
    assert!(!log.has(Index(2), &[entry(2)]), "another term");
    assert!(!log.has(Index(2), &[Entry { payload: Bytes::new(), ..entry(1) }]), "another size");
    assert!(!log.has(Index(2), &[Entry { kind: EntryKind::Barrier, ..entry(1) }]), "another kind");
    assert!(!log.has(Index(3), &[entry(2), entry(2)]), "more than there are");
    assert!(!log.has(Index(0), &[entry(1)]));
}

#[test]
fn memory_is_counted_through_appends_truncations_evictions_and_drops() {
    let mut log = compacted();
    log.evict(Index(3), 0);
    log.append([entry(3), entry(3)]);
    assert_eq!(log.entries_size, memory_of(5));
    log.truncate_from(Index(7));
    assert_eq!(log.entries_size, memory_of(3));
    log.truncate_from(Index(7));
    log.drop_through(Index(3));
    assert_eq!((log.first_index(), log.entries_size), (Index(4), memory_of(3)));
    log.drop_through(Index(4));
    assert_eq!((log.first_whole(), log.entries_size), (Index(5), memory_of(2)));
    log.evict(Index(6), 0);
    log.drop_through(Index(4));
    assert_eq!((log.first_index(), log.first_whole(), log.entries_size), (Index(5), Index(7), 0));
    log.append([entry(3)]);
    assert_eq!((log.last_index(), terms(&log, 0)), (Index(7), vec![3]));
}

#[test]
#[should_panic(expected = "only whole entries are removed")]
fn truncating_what_has_left_memory_is_a_bug() {
    let mut log = log(&[1, 1]);
    log.evict(Index(2), 0);
    log.truncate_from(Index(2));
}

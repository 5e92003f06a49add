//! What the clients did and saw, and whether one order explains it: linearizability of a list that is only
//! ever appended to.
//!
//! Every append has its own value, so the final list orders the appends, and a read that saw `n` values
//! stands behind the n-th of them. That order is the only candidate; it must not contradict real time.

use std::collections::BTreeMap;

/// What an operation was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Append { value: u64 },
    Read,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// No answer, or one that leaves it open.
    Unknown,
    /// Refused: it certainly did not happen.
    Refused,
    Appended,
    /// How long the list was.
    Saw(u64),
}

#[derive(Debug, Clone)]
struct Record {
    operation: Operation,
    invoked: u64,
    /// When, and how it ended.
    ended: Option<(u64, Outcome)>,
}

/// All operations, by a number.
#[derive(Debug, Clone, Default)]
pub struct History {
    records: Vec<Record>,
}

impl History {
    pub fn invoke(&mut self, now: u64, operation: Operation) -> usize {
        self.records.push(Record { operation, invoked: now, ended: None });
        self.records.len() - 1
    }

    pub fn end(&mut self, now: u64, number: usize, outcome: Outcome) {
        let record = &mut self.records[number];
        assert!(record.ended.is_none(), "operation {number} ended twice");
        record.ended = Some((now, outcome));
    }

    pub fn operation(&self, number: usize) -> Operation {
        self.records[number].operation
    }

    /// How an operation ended, if it has.
    pub fn outcome(&self, number: usize) -> Option<Outcome> {
        self.records[number].ended.map(|(_, outcome)| outcome)
    }

    /// How many appends and reads succeeded.
    pub fn successes(&self) -> (u64, u64) {
        let count = |wanted: fn(&Outcome) -> bool| {
            self.records.iter().filter(|r| r.ended.as_ref().is_some_and(|(_, o)| wanted(o))).count() as u64
        };
        (count(|o| *o == Outcome::Appended), count(|o| matches!(o, Outcome::Saw(_))))
    }

    /// Checks the history against the list as it is in the end.
    pub fn check(&self, list: &[u64]) -> Result<(), String> {
        let mut positions = BTreeMap::new();
        for (position, value) in list.iter().enumerate() {
            if positions.insert(*value, position as u64).is_some() {
                return Err(format!("value {value} was appended twice"));
            }
        }
        // (time, is an end, number, place in the order)
        let mut moments = Vec::new();
        for (number, record) in self.records.iter().enumerate() {
            let outcome = record.ended.map_or(Outcome::Unknown, |(_, outcome)| outcome);
            let place = match (record.operation, outcome) {
                (Operation::Append { value }, Outcome::Refused) => {
                    if positions.contains_key(&value) {
                        return Err(format!("append of {value} was refused and happened"));
                    }
                    continue;
                }
                (Operation::Append { value }, outcome) => match positions.get(&value) {
                    Some(position) => 2 * (position + 1),
                    None if outcome == Outcome::Appended => {
                        return Err(format!("append of {value} was acknowledged and is lost"));
                    }
                    None => continue,
                },
                (Operation::Read, Outcome::Saw(length)) => 2 * length + 1,
                (Operation::Read, _) => continue,
            };
            moments.push((record.invoked, false, number, place));
            if let Some((ended, outcome)) = record.ended
                && outcome != Outcome::Unknown
            {
                moments.push((ended, true, number, place));
            }
        }
        // What ends when something else begins may be concurrent with it: beginnings first.
        moments.sort_unstable();
        let mut latest = (0, usize::MAX);
        for (time, ends, number, place) in moments {
            if ends {
                latest = latest.max((place, number));
            } else if place < latest.0 {
                let (late, early) = (&self.records[latest.1], &self.records[number]);
                return Err(format!(
                    "not linearizable: {:?} ended before {:?} began at {time}, which did not see it\n  \
                     {late:?}\n  {early:?}",
                    late.operation, early.operation
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_read_a_lost_append_and_a_wrong_order_are_found() {
        let mut history = History::default();
        let first = history.invoke(1, Operation::Append { value: 10 });
        history.end(2, first, Outcome::Appended);
        let read = history.invoke(3, Operation::Read);
        let second = history.invoke(3, Operation::Append { value: 11 });
        history.end(4, read, Outcome::Saw(1));
        assert_eq!(history.check(&[10, 11]), Ok(()));
        assert!(history.check(&[11]).is_err(), "acknowledged and lost");
        assert!(history.check(&[11, 10]).is_err(), "wrong order");
        history.end(5, second, Outcome::Appended);
        let stale = history.invoke(6, Operation::Read);
        history.end(7, stale, Outcome::Saw(1));
        assert!(history.check(&[10, 11]).is_err(), "stale");
    }

    #[test]
    fn a_read_must_not_go_back_behind_another_read() {
        let mut history = History::default();
        history.invoke(1, Operation::Append { value: 10 });
        for (time, seen) in [(2, 1), (4, 0)] {
            let read = history.invoke(time, Operation::Read);
            history.end(time + 1, read, Outcome::Saw(seen));
        }
        assert!(history.check(&[10]).is_err());
    }
}

//! Messages that must not leave before what they say is on disk. Owned by the Raft thread.

use crate::raft::message::Message;
use crate::raft::{Seq, ServerId};
use std::collections::VecDeque;

/// A message, and where it goes.
pub(super) struct Held {
    pub(super) to: ServerId,
    pub(super) address: String,
    pub(super) message: Message,
}

/// Messages, each behind a request to the disk, in the order of those.
#[derive(Default)]
pub(super) struct HeldMessages(VecDeque<(Seq, Held)>);

impl HeldMessages {
    /// Keeps a message until this request is durable.
    pub(super) fn keep(&mut self, after: Seq, held: Held) {
        self.0.push_back((after, held));
    }

    /// The next message that may leave, now that every request up to this one is durable.
    pub(super) fn release(&mut self, durable: Seq) -> Option<Held> {
        let is_due = self.0.front().is_some_and(|(after, _)| *after <= durable);
        if is_due { self.0.pop_front().map(|(_, held)| held) } else { None }
    }

    /// The requests from this one on were not carried out. Among the messages behind them are answers that
    /// say that entries are stored, and later requests will be durable: they must never leave. To lose the
    /// others does no harm.
    pub(super) fn drop_behind(&mut self, lost: Seq) {
        self.0.retain(|(after, _)| *after < lost);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::message::TimeoutNow;
    use crate::raft::{Index, Term};

    fn message(number: u64) -> Held {
        let message = TimeoutNow { term: Term(1), last_index: Index(1), last_term: Term(1) };
        Held { to: ServerId(number), address: String::new(), message: Message::TimeoutNow(message) }
    }

    fn released(held: &mut HeldMessages, durable: u64) -> Vec<u64> {
        std::iter::from_fn(|| held.release(Seq(durable))).map(|held| held.to.0).collect()
    }

    fn held(requests: &[u64]) -> HeldMessages {
        let mut held = HeldMessages::default();
        requests.iter().for_each(|after| held.keep(Seq(*after), message(*after)));
        held
    }

    #[test]
    fn messages_leave_in_order_and_not_before_their_request_is_durable() {
        let mut held = held(&[1, 2, 2, 5]);
        assert_eq!(released(&mut held, 0), []);
        assert_eq!(released(&mut held, 2), [1, 2, 2]);
        assert_eq!(released(&mut held, 4), []);
        assert_eq!(released(&mut held, 9), [5]);
    }

    #[test]
    fn what_was_behind_a_request_that_a_full_disk_dropped_never_leaves() {
        let mut held = held(&[3, 4, 6]);
        held.drop_behind(Seq(4));
        held.keep(Seq(7), message(7));
        assert_eq!(released(&mut held, 7), [3, 7]);
    }
}

//! Messages that must not leave before what they say is on disk. The Raft thread puts them in, and the disk
//! thread sends them itself once they may leave. A follower does little else than to store entries and to
//! answer: its Raft thread is not woken for that, and hears of it before the next thing that it does.

use crate::net::peer::Recipient;
use crate::raft::{Seq, ServerId};
use crate::store::Event;
use crate::wire::raft::Encoded;
use parking_lot::Mutex;
use std::collections::VecDeque;

/// A message, and where it goes.
pub struct Held {
    /// To whom.
    pub to: ServerId,
    /// Where that server is reached.
    pub address: String,
    /// The way there, as it was when the message was written.
    pub recipient: Recipient,
    /// The message.
    pub encoded: Encoded,
}

/// Something that leaves, from any thread and without waiting for anything.
pub trait Leave: Sized {
    /// Gives it back if there is no way any more.
    fn leave(self) -> Result<(), Self>;
}

impl Leave for Held {
    fn leave(self) -> Result<(), Held> {
        let Held { to, address, recipient, encoded } = self;
        recipient.send_now(encoded).map_err(|encoded| Held { to, address, recipient, encoded })
    }
}

/// What the Raft thread did not know.
pub struct News<M> {
    /// Every request up to this one is durable.
    pub durable: Option<Seq>,
    /// Messages that may leave and did not: their way has been given up.
    pub undelivered: Vec<M>,
}

/// Messages, each behind a request to the disk, in the order of those.
pub struct HeldMessages<M = Held>(Mutex<State<M>>);

struct State<M> {
    messages: VecDeque<(Seq, M)>,
    /// Every request up to this one is durable.
    durable: Seq,
    /// What the Raft thread knows of that.
    heard: Seq,
    /// It need not be woken to know more.
    is_quiet: bool,
    /// Requests were not carried out, and the Raft thread does not know which: later ones may be durable, and
    /// nothing leaves before it has dropped the messages behind the others.
    in_doubt: bool,
    undelivered: Vec<M>,
}

impl<M> Default for HeldMessages<M> {
    fn default() -> HeldMessages<M> {
        HeldMessages(Mutex::new(State {
            messages: VecDeque::new(),
            durable: Seq(0),
            heard: Seq(0),
            is_quiet: false,
            in_doubt: false,
            undelivered: Vec::new(),
        }))
    }
}

impl<M: Leave> HeldMessages<M> {
    /// On the disk thread: what the disk reports. False if the Raft thread need not be woken for it.
    pub fn report(&self, event: &Event) -> bool {
        let mut state = self.0.lock();
        match event {
            Event::Persisted { seq } if !state.in_doubt => {
                state.release(*seq);
                !state.is_quiet || !state.undelivered.is_empty()
            }
            Event::Full { .. } => {
                state.in_doubt = true;
                true
            }
            _ => true,
        }
    }

    /// Keeps a message until this request is durable.
    pub fn keep(&self, after: Seq, message: M) {
        let mut state = self.0.lock();
        state.messages.push_back((after, message));
        if after <= state.durable {
            let durable = state.durable;
            state.release(durable);
        }
    }

    /// On the Raft thread, which has been told that every request up to this one is durable. True if it did
    /// not know that.
    pub fn release(&self, durable: Seq) -> bool {
        let mut state = self.0.lock();
        state.release(durable);
        let is_news = durable > state.heard;
        state.heard = state.heard.max(durable);
        is_news
    }

    /// On the Raft thread, which has been told that the requests from this one on were not carried out.
    /// Among the messages behind them are answers that say that entries are stored, and later requests will
    /// be durable: they must never leave. To lose the others does no harm.
    pub fn drop_behind(&self, lost: Seq) {
        let mut state = self.0.lock();
        state.messages.retain(|(after, _)| *after < lost);
        state.in_doubt = false;
    }

    /// What the Raft thread does not know yet.
    pub fn hear(&self) -> News<M> {
        let mut state = self.0.lock();
        let durable = (state.durable > state.heard).then_some(state.durable);
        state.heard = state.durable;
        News { durable, undelivered: std::mem::take(&mut state.undelivered) }
    }

    /// Whether the Raft thread is to be woken when something is durable. True if there is news already.
    pub fn wake_when_durable(&self, wake: bool) -> bool {
        let mut state = self.0.lock();
        state.is_quiet = !wake;
        wake && state.durable > state.heard
    }
}

impl<M: Leave> State<M> {
    fn release(&mut self, durable: Seq) {
        self.durable = self.durable.max(durable);
        while self.messages.front().is_some_and(|(after, _)| *after <= self.durable)
            && let Some((_, message)) = self.messages.pop_front()
        {
            self.undelivered.extend(message.leave().err());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::Index;
    use crate::store::Error;
    use std::cell::RefCell;
    use std::rc::Rc;

    /// A message that leaves to a list, if there is one.
    #[derive(Debug)]
    struct Note(u64, Option<Rc<RefCell<Vec<u64>>>>);

    impl Leave for Note {
        fn leave(self) -> Result<(), Note> {
            match &self.1 {
                Some(left) => left.borrow_mut().push(self.0),
                None => return Err(self),
            }
            Ok(())
        }
    }

    /// Messages behind these requests, and what has left of them.
    fn held(requests: &[u64]) -> (HeldMessages<Note>, Rc<RefCell<Vec<u64>>>) {
        let (held, left) = (HeldMessages::default(), Rc::default());
        requests.iter().for_each(|after| held.keep(Seq(*after), Note(*after, Some(Rc::clone(&left)))));
        (held, left)
    }

    fn persisted(seq: u64) -> Event {
        Event::Persisted { seq: Seq(seq) }
    }

    fn full(seq: u64) -> Event {
        Event::Full { seq: Seq(seq), stored: Index(0), error: Error::NoSpace(String::new()) }
    }

    #[test]
    fn messages_leave_in_order_and_not_before_their_request_is_durable() {
        let (held, left) = held(&[1, 2, 2]);
        assert_eq!(left.take(), []);
        assert!(held.report(&persisted(2)));
        assert_eq!(left.take(), [1, 2, 2]);
        held.keep(Seq(2), Note(2, Some(left.clone())));
        assert_eq!(left.take(), [2], "its request is durable already");
        held.keep(Seq(5), Note(5, Some(left.clone())));
        held.report(&persisted(4));
        assert_eq!(left.take(), []);
        held.report(&persisted(9));
        assert_eq!(left.take(), [5]);
    }

    #[test]
    fn what_was_behind_a_request_that_a_full_disk_dropped_never_leaves() {
        let (held, left) = held(&[3, 4, 6]);
        held.wake_when_durable(false);
        held.report(&persisted(3));
        assert!(held.report(&full(4)), "the Raft thread has to know");
        // A vote is durable, and the Raft thread has not yet heard that the entries before it are not.
        held.keep(Seq(5), Note(5, Some(left.clone())));
        assert!(held.report(&persisted(7)), "it hears of this in its order");
        assert_eq!(held.hear().durable, Some(Seq(3)));
        assert_eq!(left.take(), [3]);
        held.drop_behind(Seq(4));
        assert!(held.release(Seq(7)));
        held.keep(Seq(8), Note(8, Some(left.clone())));
        held.report(&persisted(8));
        assert_eq!(left.take(), [8]);
    }

    #[test]
    fn the_raft_thread_is_woken_only_if_it_wants_and_misses_nothing() {
        let (held, left) = held(&[1, 2]);
        assert!(held.report(&persisted(1)));
        assert!(held.release(Seq(1)), "news");
        assert!(!held.wake_when_durable(false));
        assert!(!held.report(&persisted(2)));
        assert_eq!(left.take(), [1, 2], "what may leave leaves all the same");
        assert!(held.wake_when_durable(true), "there is news already");
        assert_eq!(held.hear().durable, Some(Seq(2)));
        assert_eq!(held.hear().durable, None, "once is enough");
        assert!(!held.release(Seq(2)));
        assert!(!held.wake_when_durable(true));
        assert!(held.report(&persisted(3)));
    }

    #[test]
    fn a_message_whose_way_was_given_up_comes_back() {
        let (held, _) = held(&[]);
        held.wake_when_durable(false);
        held.keep(Seq(1), Note(1, None));
        assert!(held.report(&persisted(1)), "the Raft thread has to send it another way");
        assert_eq!(held.hear().undelivered.iter().map(|note| note.0).collect::<Vec<_>>(), [1]);
        assert!(held.hear().undelivered.is_empty());
    }
}

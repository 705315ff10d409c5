//! Whole messages waiting for the view.

use std::{collections::VecDeque, sync::Arc, time::Instant};

use parking_lot::Mutex;

use super::waiter::{Hub, Sleeper, Watch};
use crate::protocol::message::Message;

/// Messages that may wait before reading stops and TCP pushes back.
const MAX_MESSAGES: usize = 1024;
/// Bytes that may wait. One message is always welcome, however large its limit lets it be.
const MAX_BYTES: usize = 1024 * 1024;
/// A queue that once was longer than this is given back when it is empty.
const KEPT_CAPACITY: usize = 32;

/// What [`Inbox::take`] found.
#[derive(Debug)]
pub enum Taken {
    /// The oldest message.
    Message(Message),
    /// Nothing yet (or not in time).
    Nothing,
    /// Nothing, and nothing more will come.
    End,
}

/// A bounded queue from the driver to the view. Any thread may use it.
#[derive(Debug, Default)]
pub struct Inbox {
    state: Mutex<State>,
    arrived: Sleeper,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Message>,
    bytes: usize,
    ended: bool,
    paused: bool,
    watches: Vec<Watch>,
    sleepers: usize,
}

impl State {
    fn is_full(&self) -> bool {
        !self.ended && (self.queue.len() >= MAX_MESSAGES || self.bytes >= MAX_BYTES)
    }

    /// Room that is worth waking the driver for. Every single place would cost a wake-up, and a
    /// copy of all that waits behind it.
    fn is_half_empty(&self) -> bool {
        self.queue.len() <= MAX_MESSAGES / 2 && self.bytes <= MAX_BYTES / 2
    }
}

impl Inbox {
    /// Adds a message. After the end it is dropped: nobody asked for it any more.
    pub(super) fn push(&self, message: Message) {
        let mut state = self.state.lock();
        if state.ended {
            return;
        }
        state.bytes += message.payload.len();
        state.queue.push_back(message);
        let watches = std::mem::take(&mut state.watches);
        drop(state);
        self.arrived.wake_one();
        watches.into_iter().for_each(Watch::ring);
    }

    /// True when reading has to stop; the taker that makes room is told so by [`Inbox::take`].
    pub(super) fn pause_if_full(&self) -> bool {
        let mut state = self.state.lock();
        state.paused = state.is_full();
        state.paused
    }

    /// Says that nothing more will come. What is queued can still be taken.
    pub(super) fn end(&self) {
        let mut state = self.state.lock();
        state.ended = true;
        let watches = std::mem::take(&mut state.watches);
        drop(state);
        self.arrived.wake_all();
        watches.into_iter().for_each(Watch::ring);
    }

    /// Takes the oldest message, sleeping until `deadline` (`None`: for ever) if there is none.
    ///
    /// The second value is true when the driver waits for the room that this made.
    pub(super) fn take(&self, deadline: Option<Instant>) -> (Taken, bool) {
        let mut state = self.state.lock();
        let mut in_time = true;
        loop {
            if let Some(message) = state.queue.pop_front() {
                state.bytes -= message.payload.len();
                if state.queue.is_empty() && state.queue.capacity() > KEPT_CAPACITY {
                    state.queue = VecDeque::new();
                }
                let made_room = state.paused && state.is_half_empty();
                if made_room {
                    state.paused = false;
                }
                return (Taken::Message(message), made_room);
            }
            if state.ended {
                return (Taken::End, false);
            }
            if !in_time {
                return (Taken::Nothing, false);
            }
            state.sleepers += 1;
            in_time = self.arrived.sleep(&mut state, deadline);
            state.sleepers -= 1;
        }
    }

    /// Lets those who wait for a message look at the clock again.
    pub(super) fn on_step(&self) {
        // With the lock, so that nobody is between looking and falling asleep.
        let _state = self.state.lock();
        self.arrived.wake_all();
    }

    /// Tells `watch` as soon as [`Inbox::take`] would not sleep, which may be now.
    pub(super) fn watch(&self, watch: Watch) {
        let mut state = self.state.lock();
        if state.queue.is_empty() && !state.ended {
            state.watches.push(watch);
        } else {
            drop(state);
            watch.ring();
        }
    }

    /// Forgets a watch that nobody waits for any more.
    pub(super) fn unwatch(&self, hub: &Arc<Hub>, token: u64) {
        self.state
            .lock()
            .watches
            .retain(|watch| !watch.is(hub, token));
    }

    /// Whether somebody waits for a message now.
    pub fn is_awaited(&self) -> bool {
        let state = self.state.lock();
        state.sleepers > 0 || !state.watches.is_empty()
    }

    /// How many messages wait, and whether the end has come behind them.
    pub fn len(&self) -> (usize, bool) {
        let state = self.state.lock();
        (state.queue.len(), state.ended)
    }
}

#[cfg(test)]
mod tests {
    use std::{thread, time::Duration};

    use bytes::Bytes;

    use super::*;
    use crate::protocol::message::Kind;

    fn text(payload: &'static str) -> Message {
        Message {
            kind: Kind::Text,
            payload: Bytes::from_static(payload.as_bytes()),
        }
    }

    fn payload(taken: Taken) -> Option<Bytes> {
        match taken {
            Taken::Message(message) => Some(message.payload),
            Taken::Nothing | Taken::End => None,
        }
    }

    #[test]
    fn messages_come_out_in_order_and_before_the_end() {
        let inbox = Inbox::default();
        inbox.push(text("a"));
        inbox.push(text("b"));
        inbox.end();
        inbox.push(text("too late"));
        assert_eq!(inbox.len(), (2, true));
        assert_eq!(payload(inbox.take(None).0).unwrap(), "a");
        assert_eq!(payload(inbox.take(None).0).unwrap(), "b");
        assert!(matches!(inbox.take(None).0, Taken::End));
    }

    #[test]
    fn a_full_inbox_pauses_and_the_taker_learns_that_it_made_room() {
        let inbox = Inbox::default();
        for _ in 0..MAX_MESSAGES {
            assert!(!inbox.pause_if_full());
            inbox.push(text("x"));
        }
        assert!(inbox.pause_if_full());
        for left in (0..MAX_MESSAGES).rev() {
            // Once, and not before it is worth it.
            assert_eq!(inbox.take(None).1, left == MAX_MESSAGES / 2, "{left} left");
        }
    }

    #[test]
    fn one_message_may_fill_the_inbox_and_its_taker_learns_that_it_made_room() {
        let inbox = Inbox::default();
        for size in [MAX_BYTES, 10 * MAX_BYTES] {
            assert!(!inbox.pause_if_full());
            inbox.push(Message {
                kind: Kind::Binary,
                payload: vec![0; size].into(),
            });
            assert!(inbox.pause_if_full());
            assert!(inbox.take(None).1);
        }
    }

    #[test]
    fn a_watch_rings_once_and_one_that_was_given_up_never() {
        let hub = Hub::new().unwrap();
        let inbox = Inbox::default();
        for token in 1..=3 {
            inbox.watch(Watch::new(Arc::clone(&hub), token));
        }
        inbox.unwatch(&hub, 2);
        inbox.unwatch(&Hub::new().unwrap(), 3);
        inbox.push(text("a"));
        inbox.end();
        assert_eq!(hub.drain(), [1, 3]);
    }

    #[test]
    fn after_the_end_nothing_is_full() {
        let inbox = Inbox::default();
        for _ in 0..MAX_MESSAGES {
            inbox.push(text("x"));
        }
        assert!(inbox.pause_if_full());
        inbox.end();
        assert!(!inbox.pause_if_full());
    }

    #[test]
    fn a_sleeper_is_woken_by_a_message_by_the_end_and_by_the_clock() {
        let inbox = Arc::new(Inbox::default());
        let sleeper = {
            let inbox = Arc::clone(&inbox);
            thread::spawn(move || (payload(inbox.take(None).0), inbox.take(None).0))
        };
        inbox.push(text("hello"));
        inbox.end();
        let (first, second) = sleeper.join().unwrap();
        assert_eq!(first.unwrap(), "hello");
        assert!(matches!(second, Taken::End));

        let silent = Inbox::default();
        let deadline = Instant::now() + Duration::from_millis(5);
        assert!(matches!(silent.take(Some(deadline)).0, Taken::Nothing));
        assert!(Instant::now() >= deadline);
    }
}

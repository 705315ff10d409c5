//! Whole messages waiting for the view.

mod queue;

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

pub(crate) use self::queue::Room;
use self::queue::{Answer, State};
pub use self::queue::{Front, Received};
use crate::{
    engine::{
        base::{
            clock,
            sync::{Condvar, Mutex},
        },
        resources::{
            budget::Account,
            descriptor::{self, Raw},
            readiness::Readiness,
        },
        wakeup::hub::{Hub, Watch, Watches},
    },
    protocol::message::{Kind, Message},
};

/// Time until the driver first looks whether a view sleeps in [`Inbox::take_coarse`]. Most views
/// begin a longer sleep as soon as they run: for that one they need not wake the driver.
const FIRST_LOOK: Duration = Duration::from_secs(2);

/// The thread and the event loops that wait for the messages of [`Inbox::push`].
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    /// One thread: see [`Inbox::wake_thread`].
    pub(crate) sleeper: bool,
    /// Event loops.
    pub(crate) watches: Watches,
}

/// A bounded queue from the driver to the view. Any thread may use it.
#[derive(Debug)]
pub(crate) struct Inbox {
    state: Mutex<State>,
    arrived: Condvar,
}

impl Inbox {
    /// An empty one, which is full when `max_bytes` wait in it. Its driver has to see to
    /// [`Inbox::look_at`] from the beginning.
    pub(crate) fn new(max_bytes: usize) -> Self {
        Self {
            state: Mutex::new(State {
                max_bytes,
                look_at: clock::now().checked_add(FIRST_LOOK),
                ..State::default()
            }),
            arrived: Condvar::default(),
        }
    }

    /// Adds all `messages`. After the end they are dropped: no view takes them any more.
    ///
    /// Returns the thread and the event loops that wait for them and have to be woken.
    #[must_use]
    pub(crate) fn push(&self, messages: &mut Vec<Message>) -> Waiting {
        if messages.is_empty() {
            return Waiting::default();
        }
        let mut state = self.state.lock();
        if state.ended {
            messages.clear();
            return Waiting::default();
        }
        state.received += messages.len() as u64;
        for message in messages.drain(..) {
            state.bytes += message.payload.len();
            state.queue.push(message);
        }
        state.update_account();
        state.update_readiness();
        let sleepers = self.arrived.sleepers();
        let watches = std::mem::take(&mut state.watches);
        drop(state);
        if sleepers > 1 {
            // There may be a message for each sleeping thread.
            self.arrived.notify_all();
        }
        Waiting {
            sleeper: sleepers == 1,
            watches,
        }
    }

    /// Wakes a thread that sleeps in [`Inbox::take`]; false when there is none.
    pub(crate) fn wake_thread(&self) -> bool {
        self.arrived.notify_one()
    }

    /// The room for further messages. `None` when reading has to stop; [`Inbox::take`] tells the
    /// taker that it has made room.
    pub(crate) fn room(&self) -> Option<Room> {
        self.state.lock().room()
    }

    /// Notes that no more messages will come. Those in the queue can still be taken.
    pub(crate) fn end(&self) {
        let mut state = self.state.lock();
        state.ended = true;
        state.update_readiness();
        let watches = std::mem::take(&mut state.watches);
        drop(state);
        self.arrived.notify_all();
        watches.into_iter().for_each(Watch::notify);
    }

    /// From now on, reports to `account` what this inbox holds.
    pub(crate) fn count_in(&self, account: Account) {
        self.state.lock().account = account;
    }

    /// Ends the inbox and drops its messages: there is no room for them, or no view to take them.
    pub(crate) fn discard(&self) {
        let mut state = self.state.lock();
        let queue = std::mem::take(&mut state.queue);
        state.bytes = 0;
        state.update_account();
        drop(state);
        drop(queue);
        self.end();
    }

    /// Notes that the view has let go of the message that it took last.
    pub(crate) fn forget_taken(&self) {
        let mut state = self.state.lock();
        state.taken = 0;
        state.update_account();
    }

    /// The kind of the oldest message, which stays here.
    pub(crate) fn front(&self, large_bytes: usize) -> Front {
        match &self.state.lock().queue.first {
            Some(Message {
                kind: Kind::Binary,
                payload,
            }) if payload.len() > large_bytes => Front::Large(payload.clone()),
            Some(_) => Front::Other,
            None => Front::Nothing,
        }
    }

    /// Counts `bytes` of former messages, which the view holds, among what is buffered.
    pub(crate) fn count_held(&self, bytes: usize) {
        let mut state = self.state.lock();
        state.held = bytes;
        state.update_account();
    }

    /// Whether nothing waits to be taken.
    pub(crate) fn is_empty(&self) -> bool {
        self.state.lock().queue.is_empty()
    }

    /// As [`Inbox::take`], but never sleeps. The second value is true, too, when the driver waits
    /// for the view to find nothing: see [`Inbox::await_answers`].
    pub(crate) fn take_now(&self) -> (Received, bool) {
        let mut state = self.state.lock();
        let found = state.take();
        if matches!(found.0, Received::Message(_)) {
            found
        } else {
            (found.0, state.ask())
        }
    }

    /// Takes the oldest message, sleeping until `deadline` (`None`: for ever) if there is none.
    ///
    /// The second value is true when the driver waits for the room that this made.
    pub(crate) fn take(&self, deadline: Option<Instant>) -> (Received, bool) {
        let state = self.state.lock();
        let mut state = (self.arrived).wait_while(state, deadline, State::has_nothing);
        state.take()
    }

    /// Sleeps until [`Inbox::take`] has something to give, or until `deadline`. Takes nothing.
    pub(crate) fn await_news(&self, deadline: Option<Instant>) {
        let state = self.state.lock();
        drop((self.arrived).wait_while(state, deadline, State::has_nothing));
    }

    /// The descriptor that is readable while a message or the unread end waits.
    ///
    /// # Errors
    /// The system's error when it has no descriptor left.
    pub(crate) fn descriptor(&self) -> io::Result<Raw> {
        let mut state = self.state.lock();
        if state.readiness.is_none() {
            state.readiness = Some(Box::new(Readiness::new()?));
            state.update_readiness();
        }
        Ok(state
            .readiness
            .as_ref()
            .map_or(descriptor::NONE, |readiness| readiness.descriptor()))
    }

    /// Notes that callers that select have read the end.
    pub(crate) fn mark_end_read(&self) {
        let mut state = self.state.lock();
        state.is_end_read = true;
        state.update_readiness();
    }

    /// Closes the descriptor, if there is one.
    pub(crate) fn close_descriptor(&self) {
        let readiness = self.state.lock().readiness.take();
        drop(readiness);
    }

    /// As [`Inbox::take`], but at the end of the time it may sleep a little longer. It has no timer
    /// of its own, which each sleep would set and cancel: that is 0.27 of the 4.7 µs of processor
    /// time for which two threads wake each other. [`Inbox::end_sleep`] ends the sleep instead. Calls
    /// `wake_driver` when the driver would not look by `deadline`.
    pub(crate) fn take_coarse(
        &self,
        deadline: Instant,
        wake_driver: impl Fn(),
    ) -> (Received, bool) {
        let mut state = self.state.lock();
        loop {
            let found = state.take();
            if !matches!(found, (Received::Nothing, _)) || clock::now() >= deadline {
                // Other threads may sleep on.
                if self.arrived.sleepers() == 0 {
                    state.coarse_until = None;
                }
                return found;
            }
            let first = state.coarse_until.map_or(deadline, |it| it.min(deadline));
            state.coarse_until = Some(first);
            if state.look_at.is_none_or(|at| at > deadline) {
                state.look_at = Some(deadline);
                wake_driver();
            }
            (state, _) = self.arrived.wait(state, None);
        }
    }

    /// Ends a sleep of [`Inbox::take_coarse`] that has lasted long enough. Returns when to look
    /// again; `None` when no such sleep goes on: then the driver need not look any more.
    pub(crate) fn end_sleep(&self, now: Instant) -> Option<Instant> {
        let mut state = self.state.lock();
        state.look_at = state.coarse_until.filter(|until| *until > now);
        let look_at = state.look_at;
        if look_at.is_none() && state.coarse_until.take().is_some() {
            drop(state);
            // Those whose time is not over sleep again.
            self.arrived.notify_all();
        }
        look_at
    }

    /// When the driver has to see to [`Inbox::end_sleep`].
    pub(crate) fn look_at(&self) -> Option<Instant> {
        self.state.lock().look_at
    }

    /// Lets threads that wait for a message look at the clock again.
    pub(crate) fn on_step(&self) {
        // With the lock, so that no thread is between its look at the clock and its sleep.
        drop(self.state.lock());
        self.arrived.notify_all();
    }

    /// Notifies `watch` as soon as [`Inbox::take`] would not sleep, which may be now.
    pub(crate) fn watch(&self, watch: Watch) {
        let mut state = self.state.lock();
        if state.has_nothing() {
            state.watches.push(watch);
        } else {
            drop(state);
            watch.notify();
        }
    }

    /// As [`Inbox::watch`], if [`Inbox::take`] would sleep now; else it does nothing and returns
    /// false.
    ///
    /// The second value is true when the driver waits for the view to find nothing: see
    /// [`Inbox::await_answers`].
    pub(crate) fn listen(&self, watch: impl FnOnce() -> Watch) -> (bool, bool) {
        let mut state = self.state.lock();
        let would_sleep = state.has_nothing();
        if would_sleep {
            state.watches.push(watch());
        }
        (would_sleep, would_sleep && state.ask())
    }

    /// Whether the view still has something to answer. If so, the next [`Inbox::take_now`] or
    /// [`Inbox::listen`] that finds nothing tells its caller to wake the driver.
    pub(crate) fn await_answers(&self) -> bool {
        let mut state = self.state.lock();
        let is_due = state.answer != Answer::Given || !state.queue.is_empty();
        if is_due && !state.ended {
            state.answer = Answer::Awaited;
        }
        state.answer == Answer::Awaited
    }

    /// Whether the view has asked for more since [`Inbox::await_answers`].
    pub(crate) fn is_answered(&self) -> bool {
        self.state.lock().answer != Answer::Awaited
    }

    /// Forgets a watch whose task has stopped waiting; false if there is none.
    pub(crate) fn unwatch(&self, hub: &Arc<Hub>, token: u64) -> bool {
        let watches = &mut self.state.lock().watches;
        let before = watches.len();
        watches.retain(|watch| !watch.is(hub, token));
        watches.len() < before
    }

    /// Notifies the watch of `token` on the list of `hub`, if there is one.
    pub(crate) fn rouse(&self, hub: &Arc<Hub>, token: u64) {
        let mut state = self.state.lock();
        let at = state.watches.iter().position(|watch| watch.is(hub, token));
        let watch = at.map(|at| state.watches.swap_remove(at));
        drop(state);
        if let Some(watch) = watch {
            watch.notify();
        }
    }

    /// The messages that wait, which stay here.
    pub(crate) fn waiting_messages(&self) -> Vec<Message> {
        let state = self.state.lock();
        let queue = &state.queue;
        queue.first.iter().chain(&queue.rest).cloned().collect()
    }

    /// Whether nothing waits to be taken, and some watch waits for a message: what took the last one
    /// is done with it.
    pub(crate) fn is_listened_to(&self) -> bool {
        let state = self.state.lock();
        state.has_nothing() && !state.watches.is_empty()
    }

    /// Counts a message that nobody has to take.
    pub(crate) fn count_passed(&self) {
        self.state.lock().received += 1;
    }

    /// Whether a thread or an event loop waits for a message now.
    pub(crate) fn is_awaited(&self) -> bool {
        let state = self.state.lock();
        self.arrived.sleepers() > 0 || !state.watches.is_empty()
    }

    /// How many messages have come so far.
    pub(crate) fn received(&self) -> u64 {
        self.state.lock().received
    }

    /// How many messages have come so far, how many of them wait, and the bytes of these.
    pub(crate) fn counts(&self) -> (u64, usize, usize) {
        let state = self.state.lock();
        (state.received, state.queue.len(), state.bytes)
    }

    /// How many messages wait, and whether the end has come after them.
    pub(crate) fn len(&self) -> (usize, bool) {
        let state = self.state.lock();
        (state.queue.len(), state.ended)
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread, time::Duration};

    use bytes::Bytes;

    use super::{queue::MAX_MESSAGES, *};
    use crate::protocol::message::Kind;

    const MAX_BYTES: usize = 1000;

    fn text(payload: &'static str) -> Message {
        Message {
            kind: Kind::Text,
            payload: Bytes::from_static(payload.as_bytes()),
        }
    }

    fn push(inbox: &Inbox, message: Message) {
        let waiting = inbox.push(&mut vec![message]);
        if waiting.sleeper {
            inbox.wake_thread();
        }
        waiting.watches.into_iter().for_each(Watch::notify);
    }

    fn payload(taken: Received) -> Option<Bytes> {
        match taken {
            Received::Message(message) => Some(message.payload),
            Received::Nothing | Received::End => None,
        }
    }

    #[test]
    fn messages_come_out_in_order_and_before_the_end() {
        let inbox = Inbox::new(MAX_BYTES);
        push(&inbox, text("a"));
        push(&inbox, text("b"));
        inbox.end();
        push(&inbox, text("too late"));
        assert_eq!(inbox.len(), (2, true));
        assert_eq!(payload(inbox.take(None).0).unwrap(), "a");
        assert_eq!(payload(inbox.take(None).0).unwrap(), "b");
        assert!(matches!(inbox.take(None).0, Received::End));
    }

    #[test]
    fn a_full_inbox_pauses_and_the_taker_learns_that_it_made_room() {
        let inbox = Inbox::new(MAX_MESSAGES * 2);
        for _ in 0..MAX_MESSAGES {
            assert!(inbox.room().is_some());
            push(&inbox, text("x"));
        }
        assert!(inbox.room().is_none());
        for left in (0..MAX_MESSAGES).rev() {
            // Once, and not before it is worth it.
            assert_eq!(inbox.take(None).1, left == MAX_MESSAGES / 2, "{left} left");
        }
    }

    #[test]
    fn one_message_may_fill_the_inbox_and_its_taker_learns_that_it_made_room() {
        let inbox = Inbox::new(MAX_BYTES);
        for size in [MAX_BYTES, 10 * MAX_BYTES] {
            assert!(inbox.room().is_some());
            push(
                &inbox,
                Message {
                    kind: Kind::Binary,
                    payload: vec![0; size].into(),
                },
            );
            assert!(inbox.room().is_none());
            assert!(inbox.take(None).1);
        }
    }

    #[test]
    fn a_watch_is_notified_once_and_never_after_unwatch() {
        let hub = Hub::new().unwrap();
        let inbox = Inbox::new(MAX_BYTES);
        for token in 1..=3 {
            inbox.watch(Watch::new(Arc::clone(&hub), token));
        }
        inbox.unwatch(&hub, 2);
        inbox.unwatch(&Hub::new().unwrap(), 3);
        push(&inbox, text("a"));
        inbox.end();
        assert_eq!(hub.drain(), [1, 3]);
    }

    #[test]
    fn listen_notifies_its_watch_later_or_makes_none_if_there_is_something_now() {
        let hub = Hub::new().unwrap();
        let inbox = Inbox::new(MAX_BYTES);
        let listen = |token| inbox.listen(|| Watch::new(Arc::clone(&hub), token)).0;
        assert!(listen(1));
        push(&inbox, text("a"));
        assert!(!listen(2));
        assert_eq!(payload(inbox.take(None).0).unwrap(), "a");
        assert!(listen(3));
        inbox.end();
        assert!(!listen(4));
        assert_eq!(hub.drain(), [1, 3]);
    }

    #[test]
    fn a_view_that_listens_has_answered_all_that_it_has_taken() {
        let hub = Hub::new().unwrap();
        let inbox = Inbox::new(MAX_BYTES);
        let listen = || inbox.listen(|| Watch::new(Arc::clone(&hub), 1));
        push(&inbox, text("a"));
        assert!(inbox.await_answers());
        assert_eq!(listen(), (false, false));
        assert_eq!(payload(inbox.take_now().0).unwrap(), "a");
        assert_eq!(listen(), (true, true));
        assert!(inbox.is_answered());
        assert!(!inbox.await_answers());
    }

    #[test]
    fn a_caller_that_awaits_news_takes_none() {
        let inbox = Arc::new(Inbox::new(MAX_BYTES));
        inbox.await_news(Some(clock::now()));
        let waiting = {
            let inbox = Arc::clone(&inbox);
            thread::spawn(move || inbox.await_news(None))
        };
        push(&inbox, text("a"));
        waiting.join().unwrap();
        assert_eq!(inbox.len(), (1, false));
    }

    #[test]
    fn the_descriptor_stays_the_same_until_it_is_closed() {
        let inbox = Inbox::new(MAX_BYTES);
        let descriptor = inbox.descriptor().unwrap();
        push(&inbox, text("a"));
        inbox.end();
        inbox.mark_end_read();
        assert_eq!(inbox.descriptor().unwrap(), descriptor);
        inbox.close_descriptor();
        inbox.close_descriptor();
    }

    #[test]
    fn after_the_end_nothing_is_full() {
        let inbox = Inbox::new(MAX_MESSAGES * 2);
        for _ in 0..MAX_MESSAGES {
            push(&inbox, text("x"));
        }
        assert!(inbox.room().is_none());
        inbox.end();
        assert!(inbox.room().is_some());
    }

    #[test]
    fn a_coarse_sleep_ends_when_the_driver_looks_and_its_time_is_over() {
        // A thread that begins when the time is over does not sleep: then another one does.
        let (inbox, until, sleeper, called) = loop {
            let inbox = Arc::new(Inbox::new(MAX_BYTES));
            let (call, called) = mpsc::channel();
            let until = clock::now() + Duration::from_millis(50);
            let sleeper = {
                let inbox = Arc::clone(&inbox);
                thread::spawn(move || inbox.take_coarse(until, || call.send(()).unwrap()).0)
            };
            if called.recv().is_ok() {
                break (inbox, until, sleeper, called);
            }
            sleeper.join().unwrap();
        };
        assert_eq!(inbox.look_at(), Some(until));
        let early = until.checked_sub(Duration::from_millis(1)).unwrap();
        assert_eq!(inbox.end_sleep(early), Some(until));
        while clock::now() < until {
            thread::yield_now();
        }
        // The watch ends with the sleep, and there is one call for it.
        assert_eq!(inbox.end_sleep(until), None);
        assert!(matches!(sleeper.join().unwrap(), Received::Nothing));
        assert_eq!(inbox.look_at(), None);
        assert!(called.recv().is_err());
    }

    #[test]
    fn a_coarse_sleep_ends_in_time_whatever_another_thread_takes() {
        let later = clock::now() + Duration::from_secs(60);
        let take_message = |inbox: &Arc<Inbox>| {
            // None is woken: the message is taken at once.
            let _ = inbox.push(&mut vec![text("here")]);
            let taken = inbox.take_coarse(later, || {}).0;
            assert_eq!(payload(taken).unwrap(), "here");
        };
        let sleep_longer = |inbox: &Arc<Inbox>| {
            let it = Arc::clone(inbox);
            thread::spawn(move || it.take_coarse(later, || {}).0);
            while inbox.arrived.sleepers() < 2 {
                thread::yield_now();
            }
        };
        for meanwhile in [&take_message as &dyn Fn(&Arc<Inbox>), &sleep_longer] {
            let inbox = Arc::new(Inbox::new(MAX_BYTES));
            let until = clock::now() + Duration::from_secs(1);
            let sleeper = {
                let inbox = Arc::clone(&inbox);
                thread::spawn(move || inbox.take_coarse(until, || {}).0)
            };
            while inbox.arrived.sleepers() == 0 {
                assert!(!sleeper.is_finished(), "it did not sleep");
                thread::yield_now();
            }
            meanwhile(&inbox);
            while !sleeper.is_finished() {
                let now = clock::now();
                assert!(now < until + Duration::from_secs(20), "it sleeps on");
                inbox.end_sleep(now);
                thread::yield_now();
            }
            assert!(matches!(sleeper.join().unwrap(), Received::Nothing));
            inbox.end();
        }
    }

    #[test]
    fn a_message_ends_a_coarse_sleep_and_the_watch_ends_after_it() {
        let inbox = Inbox::new(MAX_BYTES);
        push(&inbox, text("here"));
        let until = clock::now() + Duration::from_secs(60);
        assert_eq!(payload(inbox.take_coarse(until, || {}).0).unwrap(), "here");
        assert_eq!(inbox.end_sleep(clock::now()), None);
    }

    #[test]
    fn a_sleeper_is_woken_by_a_message_by_the_end_and_by_the_clock() {
        let inbox = Arc::new(Inbox::new(MAX_BYTES));
        let sleeper = {
            let inbox = Arc::clone(&inbox);
            thread::spawn(move || (payload(inbox.take(None).0), inbox.take(None).0))
        };
        push(&inbox, text("hello"));
        inbox.end();
        let (first, second) = sleeper.join().unwrap();
        assert_eq!(first.unwrap(), "hello");
        assert!(matches!(second, Received::End));

        let silent = Inbox::new(MAX_BYTES);
        let deadline = Instant::now() + Duration::from_millis(5);
        assert!(matches!(silent.take(Some(deadline)).0, Received::Nothing));
        assert!(Instant::now() >= deadline);
    }
}

//! Taking messages from a connection, and waiting for them.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use super::{
    Connection,
    inbox::{Front, Received},
    posts::Posted,
};
use crate::{
    engine::{base::clock, resources::descriptor::Raw, wakeup::hub::Watch},
    protocol::message::{Kind, Message},
};

/// The longest coarse sleep: a moment so far ahead is still within the range of the clock.
const LONGEST_COARSE: Duration = Duration::from_secs(24 * 60 * 60);

/// A page's ping, without blanks, and its answer.
const PING: &[u8] = br#"{"ping":1}"#;
const PONG: &[u8] = br#"{"pong":1}"#;
/// A ping with more blanks is answered by the view.
const LONGEST_PING: usize = 32;

fn is_ping(message: &Message) -> bool {
    let payload = &message.payload;
    message.kind == Kind::Text
        && payload.len() <= LONGEST_PING
        && (payload.iter().filter(|byte| !byte.is_ascii_whitespace())).eq(PING)
}

impl Connection {
    /// Moves `messages` to the view's inbox, and sees to it that the view wakes.
    pub(crate) fn deliver(self: &Arc<Self>, messages: &mut Vec<Message>) {
        if self.answer(messages) {
            return;
        }
        let bytes = messages.iter().map(|message| message.payload.len()).sum();
        let waiting = self.inbox.push(messages);
        if waiting.sleeper {
            self.turns.add(Arc::<Self>::clone(self), bytes);
        }
        for watch in waiting.watches {
            self.turns.notify(watch, bytes);
        }
    }

    /// Does what needs no view: answers a page's pings, and passes on events of rooms, if that is asked
    /// for. True when none of `messages` is left.
    pub(super) fn answer(self: &Arc<Self>, messages: &mut Vec<Message>) -> bool {
        self.answer_pings_of(messages) || self.pass_events_of(messages)
    }

    fn answer_pings_of(self: &Arc<Self>, messages: &mut Vec<Message>) -> bool {
        if self.answers_pings.load(Ordering::Relaxed) {
            messages.retain(|message| !is_ping(message) || !self.write(Kind::Text, PONG));
            return messages.is_empty();
        }
        false
    }

    /// From now on answers the pings of a page, which are messages, while there is room for that.
    pub fn answer_pings(&self) {
        self.answers_pings.store(true, Ordering::Relaxed);
    }

    /// Lets views run that have waited for long; to be called by the driver between any two reads.
    pub(crate) fn hurry_views(&self) {
        self.turns.hurry();
    }

    /// Takes the oldest message if there is one; costs no system call.
    pub fn take_now(&self) -> Received {
        if self.is_foreign() {
            return Received::End;
        }
        let (taken, is_awaited) = self.inbox.take_now();
        if is_awaited {
            self.wake.notify_one();
        }
        taken
    }

    /// Takes the oldest message, sleeping until `deadline` (`None`: for ever) if there is none.
    pub fn take(self: &Arc<Self>, deadline: Option<Instant>) -> Received {
        let taken = self.take_now();
        if !matches!(taken, Received::Nothing) {
            return taken;
        }
        self.make_way();
        let (taken, made_room) = self.inbox.take(deadline);
        if made_room {
            self.wake.notify_one();
        }
        taken
    }

    /// As [`Connection::take`], but at the end of `time` it may sleep a little longer; for views
    /// that wait long and are woken often.
    pub fn take_coarse(self: &Arc<Self>, time: Duration) -> Received {
        if self.is_foreign() {
            return Received::End;
        }
        self.make_way();
        let deadline = clock::now() + time.min(LONGEST_COARSE);
        let (taken, made_room) = self.inbox.take_coarse(deadline, || self.wake.notify_one());
        if made_room {
            self.wake.notify_one();
        }
        taken
    }

    /// Sleeps until there is a message or the end to take, or until `deadline` (`None`: for ever).
    pub fn await_news(self: &Arc<Self>, deadline: Option<Instant>) {
        if !self.is_foreign() {
            self.make_way();
            self.inbox.await_news(deadline);
        }
    }

    /// Whether a message is there, but the view has taken messages for so long that others are to
    /// run first.
    pub fn owes_a_pause(&self) -> bool {
        !self.is_foreign() && !self.inbox.is_empty() && self.has_run_long()
    }

    /// To be called by a task before it takes a message that is there: whether it has gone on for
    /// so long that others are to run first.
    pub fn has_run_long(&self) -> bool {
        self.time_slice.is_over()
    }

    /// The kind of the oldest message, which stays where it is: a binary one of more than
    /// `large_bytes`, which the caller may copy before it takes the message, or another.
    pub fn front(&self, large_bytes: usize) -> Front {
        let own = self.own();
        own.map_or(Front::Nothing, |own| own.inbox.front(large_bytes))
    }

    /// The descriptor that is readable while a message or the unread end waits. Made on first use;
    /// `None` in a forked child.
    ///
    /// # Errors
    /// The system's error when it has no descriptor left.
    pub fn descriptor(&self) -> io::Result<Option<Raw>> {
        self.own().map(|own| own.inbox.descriptor()).transpose()
    }

    /// Notes that callers that select on [`Connection::descriptor`] have read the end.
    pub fn mark_end_read(&self) {
        if !self.is_foreign() {
            self.inbox.mark_end_read();
        }
    }

    /// Closes the descriptor of [`Connection::descriptor`], if there is one.
    pub fn close_descriptor(&self) {
        if !self.is_foreign() {
            self.inbox.close_descriptor();
        }
    }

    /// How many whole messages wait, and whether the end has come after them.
    pub fn waiting(&self) -> (usize, bool) {
        self.own().map_or((0, true), |own| own.inbox.len())
    }

    /// Counts `bytes` of former messages, which the view holds until their turn comes, among what is
    /// buffered.
    pub fn count_held(&self, bytes: usize) {
        if !self.is_foreign() {
            self.inbox.count_held(bytes);
        }
    }

    /// Notifies `watch` as soon as there is a message or the end.
    pub fn watch_inbox(&self, watch: Watch) {
        if !self.is_foreign() {
            self.inbox.watch(watch);
        }
    }

    /// As [`Connection::watch_inbox`], unless there is a message or the end now: then it returns
    /// false and makes no watch.
    pub fn listen(&self, watch: impl FnOnce() -> Watch) -> bool {
        if self.is_foreign() {
            return false;
        }
        let (would_sleep, is_awaited) = self.inbox.listen(watch);
        if is_awaited {
            self.wake.notify_one();
        }
        would_sleep
    }

    /// Takes what a client has posted under this number, the first of which is 1: frames of a client.
    /// Never waits.
    pub fn post(&self, number: u64, frames: &[u8]) -> Posted {
        let Some(posts) = self.posts.as_deref().filter(|_| !self.is_foreign()) else {
            return Posted::Over;
        };
        if self.is_ending() {
            return Posted::Over;
        }
        let posted = posts.put(number, frames);
        if posted == Posted::Taken {
            self.wake.notify_one();
        }
        posted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::connection::settings::{Settings, Transport};

    const SETTINGS: Settings = Settings {
        transport: Transport::Events([7; 16]),
        receive_buffer_bytes: 10,
        ..Settings::SMALL
    };

    #[test]
    fn a_post_is_taken_once_and_in_order() {
        let (connection, _peer) = Connection::for_test(1, &SETTINGS, "");
        let posts = connection.posts.as_ref().unwrap();
        assert_eq!(connection.post(2, b"late"), Posted::Gap);
        assert_eq!(connection.post(1, b"a"), Posted::Taken);
        assert_eq!(connection.post(1, b"b"), Posted::Taken);
        assert_eq!(connection.post(2, b"long enough"), Posted::Taken);
        assert_eq!(connection.post(3, b""), Posted::Busy);
        assert_eq!(posts.take().unwrap(), b"along enough");
        assert_eq!(connection.post(3, b""), Posted::Taken);
        assert_eq!(posts.take(), None);
    }

    #[test]
    fn a_websocket_takes_no_posts() {
        let (connection, _peer) = Connection::for_test(1, &Settings::SMALL, "");
        assert_eq!(connection.post(1, b""), Posted::Over);
    }
}

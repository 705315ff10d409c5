//! The messages in an inbox, and how many of them there may be.

use std::{collections::VecDeque, time::Instant};

use bytes::Bytes;

use crate::{
    engine::{
        resources::{
            budget::{self, Account},
            readiness::Readiness,
        },
        wakeup::hub::Watches,
    },
    protocol::message::Message,
};

/// Messages that may wait before reading stops and TCP pushes back.
pub(super) const MAX_MESSAGES: usize = 1024;
/// A queue that once was longer than this is given back when it is empty.
const KEPT_CAPACITY: usize = 32;
/// The result of [`Inbox::take`](super::Inbox::take).
#[derive(Debug)]
pub enum Received {
    /// The oldest message.
    Message(Message),
    /// No message yet (or none in time).
    Nothing,
    /// No message, and none will come any more.
    End,
}

/// The kind of the oldest message in an inbox.
#[derive(Debug)]
pub enum Front {
    /// No message.
    Nothing,
    /// A large binary message.
    Large(Bytes),
    /// Another message.
    Other,
}

/// The room in an inbox. The message that fills it may be larger than what is left.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    messages: usize,
    bytes: usize,
}

impl Room {
    /// Whether there is room for another message after so many with so many bytes.
    pub(crate) fn holds(self, messages: usize, bytes: usize) -> bool {
        messages < self.messages && bytes < self.bytes
    }

    /// Takes the place of a message; false when there is none for another one.
    pub(crate) fn take(&mut self, message: &Message) -> bool {
        self.messages = self.messages.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(message.payload.len());
        self.messages > 0 && self.bytes > 0
    }
}

/// Messages in their order. A single one needs no memory of its own: most connections never have
/// two, and an idle one holds nothing.
#[derive(Debug, Default)]
pub(super) struct Queue {
    pub(super) first: Option<Message>,
    /// Behind the first: empty when there is none.
    pub(super) rest: VecDeque<Message>,
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.rest.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    pub(super) fn push(&mut self, message: Message) {
        if self.first.is_none() {
            self.first = Some(message);
        } else {
            self.rest.push_back(message);
        }
    }

    pub(super) fn pop(&mut self) -> Option<Message> {
        let message = self.first.take()?;
        self.first = self.rest.pop_front();
        if self.first.is_none() && self.rest.capacity() > KEPT_CAPACITY {
            self.rest = VecDeque::new();
        }
        Some(message)
    }
}

/// Whether the view is done with the messages that it has taken.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) enum Answer {
    /// It has asked for more since.
    #[default]
    Given,
    /// It may still be at work.
    Due,
    /// It may still be at work, and the driver waits until it asks for more.
    Awaited,
}

/// The inbox behind its lock.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) queue: Queue,
    pub(super) bytes: usize,
    /// Messages that have come so far.
    pub(super) received: u64,
    /// Bytes that may wait. One message is always welcome, however large its limit lets it be.
    pub(super) max_bytes: usize,
    pub(super) ended: bool,
    pub(super) paused: bool,
    /// Bytes of the message that the view took last, and still holds as a rule.
    pub(super) taken: usize,
    /// Bytes of former messages that the view holds until their turn comes.
    pub(super) held: usize,
    pub(super) account: Account,
    pub(super) answer: Answer,
    pub(super) watches: Watches,
    /// Made for the first caller that selects on this inbox.
    pub(super) readiness: Option<Box<Readiness>>,
    /// A caller that selects has read the end.
    pub(super) is_end_read: bool,
    /// Until when threads sleep in [`Inbox::take_coarse`]: the first of them.
    pub(super) coarse_until: Option<Instant>,
    /// When the driver will look at that.
    pub(super) look_at: Option<Instant>,
}

impl State {
    /// Whether there is neither a message nor the end to take.
    pub(super) fn has_nothing(&self) -> bool {
        self.queue.is_empty() && !self.ended
    }

    /// Whether reading has to stop.
    pub(super) fn is_full(&self) -> bool {
        !self.ended && (self.queue.len() >= MAX_MESSAGES || self.bytes >= self.max_bytes)
    }

    /// Takes the oldest message. The second value is true when that made room for which the driver
    /// waits.
    pub(super) fn take(&mut self) -> (Received, bool) {
        let Some(message) = self.queue.pop() else {
            let nothing = if self.ended {
                Received::End
            } else {
                Received::Nothing
            };
            return (nothing, false);
        };
        if self.answer == Answer::Given {
            self.answer = Answer::Due;
        }
        self.bytes -= message.payload.len();
        self.taken = message.payload.len();
        self.update_account();
        self.update_readiness();
        let made_room = self.paused && self.is_half_empty();
        if made_room {
            self.paused = false;
        }
        (Received::Message(message), made_room)
    }

    /// Reports to the account how many bytes the inbox holds.
    pub(super) fn update_account(&mut self) {
        let queued = budget::cost(self.queue.len(), self.bytes);
        let with_view = self.taken.saturating_add(self.held);
        self.account.set(queued.saturating_add(with_view));
    }

    /// Keeps the descriptor readable while a message or the unread end waits.
    pub(super) fn update_readiness(&mut self) {
        if let Some(readiness) = &mut self.readiness {
            let has_end = self.ended && !self.is_end_read;
            readiness.set(has_end || !self.queue.is_empty());
        }
    }

    /// Notes that the view has asked for more than there is; whether the driver waits for that.
    pub(super) fn ask(&mut self) -> bool {
        std::mem::take(&mut self.answer) == Answer::Awaited
    }

    /// Room that is worth waking the driver for. Every single place would cost a wake-up, and a
    /// copy of all that waits after it.
    pub(super) fn is_half_empty(&self) -> bool {
        self.queue.len() <= MAX_MESSAGES / 2 && self.bytes <= self.max_bytes / 2
    }

    /// The room for further messages; `None` when reading has to stop.
    pub(super) fn room(&mut self) -> Option<Room> {
        self.paused = self.is_full();
        // After the end there is always room: `Inbox::push` drops all messages.
        (!self.paused).then(|| Room {
            messages: MAX_MESSAGES.saturating_sub(self.queue.len()),
            bytes: self.max_bytes.saturating_sub(self.bytes),
        })
    }
}

//! A connection as a member of groups.

use super::{
    Connection,
    beat::{is_like_beats, one_more_blank},
    outbox::outcome::Sent,
};
use std::sync::atomic::Ordering;

use crate::{
    engine::groups::{Delivery, Handed, Member, Memberships, Message, WhenFull},
    protocol::{
        close::{self, CloseFrame},
        deflate::Deflater,
    },
};

/// Bytes of the messages that are sent at once.
const TOGETHER_BYTES: usize = 64 * 1024;

impl Connection {
    /// Sends the first ones of `messages` in one write: as many as go together, if there is room for
    /// them now. Returns how many; 0 when [`Connection::send`] has to be called. Never sleeps.
    pub fn send_together(&self, mut messages: Vec<Message>) -> usize {
        if self.is_foreign() {
            return 0;
        }
        let mut bytes = 0;
        let end = messages.iter().position(|message| {
            bytes += message.frame_len();
            bytes > TOGETHER_BYTES
        });
        messages.truncate(end.unwrap_or(messages.len()));
        if messages.is_empty() {
            return 0;
        }
        let count = messages.len();
        let delivery = Delivery::of(messages, self.deflater.as_deref());
        let delivery = self.delivery_unlike_beats(&delivery).unwrap_or(delivery);
        let sent = self.with_frames_of(&delivery, |delivery| self.outbox.take_whole(delivery));
        if sent != Sent::Written {
            self.wake.notify_one();
        }
        if matches!(sent, Sent::Written | Sent::Queued) {
            self.count_sent(count as u64);
            count
        } else {
            0
        }
    }

    /// Whether a group has closed it, and so neither its view nor the engine.
    pub fn is_closed_by_group(&self) -> bool {
        self.is_closed_by_group.load(Ordering::Relaxed)
    }

    /// The messages of `delivery` as [`Connection::unlike_beats`] has them, if that changes any.
    fn delivery_unlike_beats(&self, delivery: &Delivery) -> Option<Delivery> {
        self.beat.get()?;
        let is_like = |message: &Message| is_like_beats(message.kind(), &message.payload());
        delivery
            .messages()
            .iter()
            .find(|message| is_like(message))?;
        let messages = delivery.messages().iter().map(|message| {
            if is_like(message) {
                Message::new(message.kind(), &one_more_blank(&message.payload()), &[])
            } else {
                message.clone()
            }
        });
        Some(Delivery::of(messages.collect(), None))
    }

    /// Has `send` called with what this connection may get of `delivery` now: without compression
    /// while its view compresses a message, which may refer to earlier ones of its own only.
    fn with_frames_of<T>(&self, delivery: &Delivery, send: impl FnOnce(&Delivery) -> T) -> T {
        match &self.deflater {
            Some(deflater) if delivery.is_compressed() => match deflater.interrupt() {
                // Held until they are sent.
                Some(_interrupted) => send(delivery),
                None => send(&delivery.plain()),
            },
            _ => send(delivery),
        }
    }
}

impl Member for Connection {
    fn is_foreign(&self) -> bool {
        Self::is_foreign(self)
    }

    fn memberships(&self) -> &Memberships {
        &self.memberships
    }

    fn deflater(&self) -> Option<&Deflater> {
        self.deflater.as_deref()
    }

    fn take(&self, delivery: &Delivery, when_full: WhenFull, owes_loss: bool) -> Handed {
        if self.is_foreign() {
            return Handed::default();
        }
        let own = self.delivery_unlike_beats(delivery);
        let delivery = own.as_ref().unwrap_or(delivery);
        let (handed, sent) = self.with_frames_of(delivery, |delivery| {
            self.outbox.take_frames(delivery, when_full, owes_loss)
        });
        self.count_sent(handed.delivered);
        if handed.is_closed {
            Self::close(self, &CloseFrame::of(close::TRY_AGAIN_LATER, "too slow"));
        } else if matches!(sent, Sent::Queued | Sent::Closed) {
            self.wake.notify_one();
        }
        handed
    }

    fn close(&self, frame: &CloseFrame) {
        self.is_closed_by_group.store(true, Ordering::Relaxed);
        Self::close(self, frame);
    }
}

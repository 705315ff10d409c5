//! Frames of groups, whose bytes all members share.

use std::io::IoSlice;

use bytes::Bytes;

use super::{
    Outbox,
    outcome::Sent,
    queue::{Droppable, Queued, State},
};
use crate::{
    engine::{
        base::sync::MutexGuard,
        groups::{Delivery, Handed, WhenFull},
    },
    protocol::message::Kind,
};

impl Outbox {
    /// Takes the frames of `delivery`, in one write if nothing waits; [`Sent::Full`] when there is no
    /// room for all of them: then it has taken none. Never sleeps.
    pub(crate) fn take_whole(&self, delivery: &Delivery) -> Sent {
        let joined = &delivery.framed(self.framing).joined;
        let mut state = self.state.lock();
        if !self.clear_corked(&mut state) {
            return Sent::Closed;
        }
        if !state.fits(joined.len(), self.capacity) || !state.has_priority(joined.len()) {
            Sent::Full
        } else if state.is_idle() {
            self.write_through(&mut state, joined, &[])
        } else {
            state.push(joined.clone());
            Sent::Queued
        }
    }

    /// Takes the frames of `delivery`, in one write if nothing waits. Frames for which there is no
    /// room are treated as `when_full` says; a member that is to be closed for it takes none of
    /// those that follow. The news of a loss goes before the next frame, if its message has such
    /// news; `owes_loss` says that there was a loss before. Never sleeps.
    ///
    /// The second value is [`Sent::Queued`] when the driver has to be woken.
    pub(crate) fn take_frames(
        &self,
        delivery: &Delivery,
        when_full: WhenFull,
        owes_loss: bool,
    ) -> (Handed, Sent) {
        let mut handed = Handed {
            owes_loss,
            ..Handed::default()
        };
        let framed = delivery.framed(self.framing);
        let mut state = self.state.lock();
        if !self.clear_corked(&mut state) {
            return (handed, Sent::Closed);
        }
        let mut written = 0;
        if state.is_idle() && state.has_priority(framed.joined.len()) && !owes_loss {
            match self.write_some(&mut state, &[IoSlice::new(&framed.joined)]) {
                Some(length) if length == framed.joined.len() => {
                    handed.delivered = framed.each.len() as u64;
                    return (handed, Sent::Written);
                }
                Some(length) => written = length,
                None => return (handed, Sent::Closed),
            }
        }
        let begun = state.queue_rest(&framed.each, written);
        handed.delivered = begun as u64;
        for (frame, message) in framed.each.iter().zip(delivery.messages()).skip(begun) {
            let loss = || {
                let text = message.loss()?;
                Some(self.framing.encode(Kind::Text, text.as_bytes()).into())
            };
            state.take_frame(frame, loss, when_full, self.capacity, &mut handed);
            if handed.is_closed {
                break;
            }
        }
        (handed, Sent::Queued)
    }

    /// Writes what is corked before all else. False when the outbox is closed.
    fn clear_corked(&self, state: &mut MutexGuard<'_, State>) -> bool {
        let is_closed = state.is_closed()
            || (!state.corked.is_empty() && self.write_corked(state) == Sent::Closed);
        !is_closed
    }
}

impl State {
    /// Queues the rest of the frame that has begun, after the socket has taken `written` bytes of
    /// `frames`. Returns how many of them need no place any more.
    fn queue_rest(&mut self, frames: &[Bytes], mut written: usize) -> usize {
        for (at, frame) in frames.iter().enumerate() {
            if written == 0 {
                return at;
            }
            if written < frame.len() {
                self.push(frame.slice(written..));
                self.mid_frame = true;
                return at + 1;
            }
            written -= frame.len();
        }
        frames.len()
    }

    /// Queues a frame if there is room for it, or can be made. Notes in `handed` what becomes of it.
    /// `loss` is the news that it is lost, for its client.
    fn take_frame(
        &mut self,
        frame: &Bytes,
        loss: impl Fn() -> Option<Bytes>,
        when_full: WhenFull,
        capacity: usize,
        handed: &mut Handed,
    ) {
        let may_drop = matches!(when_full, WhenFull::DropOldest | WhenFull::KeepLatest);
        let told = if handed.owes_loss {
            // The frame may be that news itself.
            loss().filter(|told| told != frame)
        } else {
            None
        };
        let length = frame.len() + told.as_ref().map_or(0, Bytes::len);
        if !self.fits(length, capacity) && may_drop {
            let drops_all = when_full == WhenFull::KeepLatest;
            handed.dropped += self.make_room(length, capacity, drops_all);
        }
        // The newest one waits in any case where older ones make way for it: beside a frame that has
        // begun, and what its view has sent, there may be no room for it.
        let is_only_one = || {
            let mut waiting = self.queue.iter().skip(usize::from(self.mid_frame));
            may_drop && waiting.all(|it| it.droppable.is_none())
        };
        if self.fits(length, capacity) || is_only_one() {
            if let Some(told) = told {
                self.push(told);
            }
            self.push(Queued {
                bytes: Bytes::clone(frame),
                droppable: may_drop.then(|| Box::new(Droppable { loss: loss() })),
            });
            handed.delivered += 1;
            handed.owes_loss = false;
        } else if when_full == WhenFull::Close {
            handed.is_closed = true;
        } else {
            handed.dropped += 1;
            handed.owes_loss = true;
        }
    }
}

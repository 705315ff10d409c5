//! Frames of groups, whose bytes all members share.

use bytes::Bytes;

use super::{Outbox, outcome::Sent, queue::Queued};
use crate::engine::groups::{Delivery, Handed, WhenFull};

impl Outbox {
    /// Takes the frames of `delivery`, in one write if nothing waits; [`Sent::Full`] when there is no
    /// room for all of them: then it has taken none. Never sleeps.
    pub(crate) fn take_whole(&self, delivery: &Delivery) -> Sent {
        let joined = &delivery.framed(self.framing).joined;
        let mut state = self.state.lock();
        if state.sealed {
            return Sent::Closed;
        }
        if !state.corked.is_empty() && self.write_corked(&mut state) == Sent::Closed {
            return Sent::Closed;
        }
        if !state.fits(joined.len(), self.capacity) || state.reserved.bytes > 0 {
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
    /// those that follow. Never sleeps.
    ///
    /// The second value is [`Sent::Queued`] when the driver has to be woken.
    pub(crate) fn take_frames(&self, delivery: &Delivery, when_full: WhenFull) -> (Handed, Sent) {
        let mut handed = Handed::default();
        let framed = delivery.framed(self.framing);
        let mut state = self.state.lock();
        if state.sealed {
            return (handed, Sent::Closed);
        }
        if !state.corked.is_empty() && self.write_corked(&mut state) == Sent::Closed {
            return (handed, Sent::Closed);
        }
        let mut written = 0;
        if state.is_idle() && state.reserved.bytes == 0 {
            match self.write_all(&mut state, &framed.joined) {
                Some(length) if length == framed.joined.len() => {
                    handed.delivered = framed.each.len() as u64;
                    return (handed, Sent::Written);
                }
                Some(length) => written = length,
                None => return (handed, Sent::Closed),
            }
        }
        for frame in &framed.each {
            if written >= frame.len() {
                written -= frame.len();
            } else if written > 0 {
                state.push(frame.slice(written..));
                state.mid_frame = true;
                written = 0;
            } else {
                let may_drop = matches!(when_full, WhenFull::DropOldest | WhenFull::KeepLatest);
                if !state.fits(frame.len(), self.capacity) && may_drop {
                    let drops_all = when_full == WhenFull::KeepLatest;
                    handed.dropped += state.make_room(frame.len(), self.capacity, drops_all);
                }
                if state.fits(frame.len(), self.capacity) {
                    state.push(Queued {
                        bytes: Bytes::clone(frame),
                        may_drop,
                    });
                } else if when_full == WhenFull::Close {
                    handed.is_closed = true;
                    break;
                } else {
                    handed.dropped += 1;
                    continue;
                }
            }
            handed.delivered += 1;
        }
        (handed, Sent::Queued)
    }
}

//! Sending through a connection: at once, corked with others, or when there is room.

use std::{
    borrow::Cow,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Connection, End, Initiator,
    beat::{Beat, is_like_beats, one_more_blank},
    outbox::outcome::{Corked, Sent},
};
use crate::{
    engine::{
        base::{error::Error, panics::contain},
        wakeup::{View, hub::Watch},
    },
    protocol::{
        close::{self, CloseFrame},
        deflate::Deflater,
        frame::{self, First, Opcode},
        message::Kind,
    },
};

/// Bytes that are compressed in about a millisecond.
const SLOW_TO_COMPRESS: usize = 64 * 1024;
/// Bytes that are copied in about a millisecond.
const SLOW_TO_COPY: usize = 1024 * 1024;

impl Connection {
    /// Bytes of the largest payload for [`Connection::cork`] and [`Connection::write`]. More take
    /// the system long to copy.
    pub const MAX_AT_ONCE: usize = 16 * 1024;

    /// Bytes of the largest payload of a control frame (RFC 6455 section 5.5).
    pub const MAX_CONTROL: usize = frame::MAX_CONTROL_PAYLOAD_BYTES;

    /// Hands a message over; false when the connection is closed.
    ///
    /// True means written or queued, not received. Messages of one caller keep their order. While
    /// the outbox is full the caller sleeps for up to `timeout`; with `None` it never sleeps: the
    /// peer that cannot keep up is closed with 1013 instead.
    ///
    /// # Errors
    /// [`Error::SendTimeout`] when no room was made in time; nothing was queued.
    pub fn send(
        &self,
        kind: Kind,
        payload: &[u8],
        timeout: Option<Duration>,
    ) -> Result<bool, Error> {
        let wake = || self.wake.notify_one();
        let sent = self.hand_over(kind, payload, |first, payload| {
            self.outbox.send(first, payload, timeout, wake)
        })?;
        if sent == Sent::Full {
            self.close(&CloseFrame::of(close::TRY_AGAIN_LATER, "too slow"));
        }
        Ok(matches!(sent, Sent::Written | Sent::Queued))
    }

    /// As [`Connection::send`], but never sleeps: what finds no room waits all the same, as long as
    /// the process does not buffer too much. `None` when it does; the caller then has to send no more
    /// before [`Connection::has_room`].
    pub fn send_beyond(&self, kind: Kind, payload: &[u8]) -> Option<bool> {
        let sent = self.hand_over(kind, payload, |first, payload| {
            Ok(self.outbox.send_beyond(first, payload))
        });
        match sent {
            Ok(Sent::Beyond) => None,
            sent => Some(matches!(sent, Ok(Sent::Written | Sent::Queued))),
        }
    }

    /// Whether a small message would not have to wait, or nothing can be sent.
    pub fn has_room(&self) -> bool {
        self.is_foreign() || self.outbox.has_room(0)
    }

    /// Compresses a message, gives it to `send`, counts it, and wakes the driver if it has to act.
    fn hand_over(
        &self,
        kind: Kind,
        payload: &[u8],
        send: impl FnOnce(First, &[u8]) -> Result<Sent, Error>,
    ) -> Result<Sent, Error> {
        if self.is_foreign() {
            return Ok(Sent::Closed);
        }
        let payload = &*self.unlike_beats(kind, payload);
        let deflater = self.deflater.as_deref();
        let deflated = deflater.and_then(|deflater| deflater.deflate(payload));
        let sent = match &deflated {
            None => send(Opcode::from(kind).into(), payload),
            Some(deflated) => send(First::compressed(kind), deflated.payload()),
        }?;
        if let Sent::Written | Sent::Queued | Sent::Beyond = sent {
            self.count_sent(1);
            if let Some(deflated) = deflated {
                deflated.was_sent();
            }
        }
        if let Sent::Queued | Sent::Beyond | Sent::Closed = sent {
            self.wake.notify_one();
        }
        Ok(sent)
    }

    /// Hands a message over only if there is room now; `None` when there is not.
    pub fn try_send(&self, kind: Kind, payload: &[u8]) -> Option<bool> {
        // A caller that tries again and again need not compress each time.
        let compresses = self.deflater.is_some() && !self.is_foreign();
        if compresses && !self.outbox.has_room(payload.len()) {
            return None;
        }
        self.send(kind, payload, Some(Duration::ZERO)).ok()
    }

    /// Sleeps until [`Connection::try_send`] is worth another try, or until `deadline` (`None`: for
    /// ever).
    pub fn await_room(&self, deadline: Option<Instant>) {
        if !self.is_foreign() {
            self.outbox.await_room(deadline);
        }
    }

    /// To be called by a caller of [`Connection::await_room`] that gives up: the room is for others
    /// then.
    pub fn give_way(&self) {
        if !self.is_foreign() {
            self.outbox.give_way();
        }
    }

    /// The error of a sender that has found no room for `waited`.
    pub fn no_room(&self, waited: Duration) -> Error {
        self.outbox.no_room(waited)
    }

    /// Corks a small message, to go out in one write with those that follow; costs no system
    /// call. False when it was not corked: then [`Connection::send`] has to be called.
    ///
    /// Only for the view that takes the messages, and done only while more of them wait. Corked
    /// messages go out with the next message that is not corked, when [`Connection::take`] finds
    /// nothing, or after about a millisecond: whichever is first.
    pub fn cork(self: &Arc<Self>, kind: Kind, payload: &[u8]) -> bool {
        self.cork_for(self, kind, payload)
    }

    /// As [`Connection::cork`], for the view that takes the messages of `sender`.
    pub fn cork_for(self: &Arc<Self>, sender: &Self, kind: Kind, payload: &[u8]) -> bool {
        if self.is_foreign() || sender.inbox.is_empty() {
            return false;
        }
        let payload = &*self.unlike_beats(kind, payload);
        let deflater = self.deflater.as_deref();
        if deflater.is_some_and(|deflater| deflater.wants(payload.len())) {
            return false;
        }
        let corked = self.outbox.cork(kind.into(), payload);
        if corked == Corked::First {
            let is_own = std::ptr::eq(self.as_ref(), sender);
            (self.turns.flush_timer).expect(Arc::<Self>::clone(self), is_own);
        }
        let is_corked = corked != Corked::No;
        if is_corked {
            self.count_sent(1);
        }
        is_corked
    }

    /// Writes a message that needs no compression if nothing waits for the socket. False when it
    /// was not written: then [`Connection::send`] has to be called. Never sleeps, and up to
    /// [`Connection::MAX_AT_ONCE`] takes so little time that a lock may be held meanwhile.
    pub fn write(self: &Arc<Self>, kind: Kind, payload: &[u8]) -> bool {
        if self.is_foreign() {
            return false;
        }
        let payload = &*self.unlike_beats(kind, payload);
        let deflater = self.deflater.as_deref();
        if deflater.is_some_and(|deflater| deflater.wants(payload.len())) {
            return false;
        }
        if self.turns.flush_timer.collects() {
            let corked = self.outbox.cork(kind.into(), payload);
            if corked == Corked::First {
                let is_collected = self.turns.flush_timer.collect(Arc::<Self>::clone(self));
                if !is_collected {
                    self.uncork();
                }
            }
            if corked != Corked::No {
                self.count_sent(1);
                return true;
            }
        }
        let sent = self.outbox.write(kind.into(), payload);
        if sent == Sent::Queued {
            self.wake.notify_one();
        }
        let is_taken = matches!(sent, Sent::Written | Sent::Queued);
        if is_taken {
            self.count_sent(1);
        }
        is_taken
    }

    /// Whether sending so many bytes takes more than about a millisecond: too long to block an
    /// event loop.
    pub fn is_slow_to_send(&self, length: usize) -> bool {
        let compresses = |deflater: &Deflater| deflater.wants(length);
        length > SLOW_TO_COMPRESS && self.deflater.as_deref().is_some_and(compresses)
            || length > SLOW_TO_COPY
    }

    /// To be called before sleeping. True when the engine sends what is corked: then
    /// [`Connection::uncork_all`] need not be called. Takes no system call.
    pub fn begin_to_sleep(&self) -> bool {
        self.time_slice.end();
        self.turns.flush_timer.collects()
    }

    /// To be called by a thread that is about to sleep: sends what it has corked and wakes the next
    /// view's thread, as neither may wait until this thread wakes.
    pub(crate) fn make_way(self: &Arc<Self>) {
        if !self.begin_to_sleep() {
            self.uncork_all();
        }
        self.turns.pass_on();
    }

    /// Sends what this connection's view has corked, on this and on other connections: no further
    /// message follows that it could go out with.
    pub fn uncork_all(&self) {
        self.uncork();
        self.turns.flush_timer.flush();
    }

    /// Whether [`Connection::uncork_all`] has something to do.
    pub fn has_corked(&self) -> bool {
        self.is_corked() || (!self.is_foreign() && self.turns.flush_timer.has_work())
    }

    /// Whether anything is corked for this connection's peer.
    pub fn is_corked(&self) -> bool {
        !self.is_foreign() && self.outbox.is_corked()
    }

    /// Sends what is corked.
    fn uncork(&self) {
        if self.outbox.uncork().leaves_rest() {
            self.wake.notify_one();
        }
    }

    /// From now on sends an empty text message whenever nothing was sent for `every`. The first call
    /// counts.
    pub fn begin_beat(&self, every: Duration) {
        if !self.is_foreign() && self.beat.set(Box::new(Beat::new(every))).is_ok() {
            self.wake.notify_one();
        }
    }

    /// Sends an empty text message if one is due at `now`; returns the moment of the next look.
    pub(crate) fn beat(&self, now: Instant) -> Option<Instant> {
        let beat = self.beat.get()?;
        if beat.due().is_some_and(|due| due <= now) {
            // Where something waits for the socket this sends nothing: the peer gets that.
            self.outbox.write(Opcode::Text, b"");
            beat.note(now);
        }
        beat.due()
    }

    /// The payload of the application's message as it goes out. A text of blanks, or an empty one,
    /// gets one more blank on a connection with a heartbeat, which else it would be taken for.
    pub(super) fn unlike_beats<'a>(&self, kind: Kind, payload: &'a [u8]) -> Cow<'a, [u8]> {
        if self.beat.get().is_some() && is_like_beats(kind, payload) {
            Cow::Owned(one_more_blank(payload))
        } else {
            Cow::Borrowed(payload)
        }
    }

    /// Ends a connection whose outbox may have written a frame in part: the peer would take a close
    /// frame for the rest of that frame.
    fn break_down(&self) {
        self.begin_end(End::new(Initiator::Local, close::INTERNAL_ERROR, ""));
        self.inbox.end();
        self.outbox.cut();
        self.wake.notify_one();
    }

    /// Notifies `watch` as soon as there is more room in the outbox or none is needed any more.
    pub fn watch_outbox(&self, watch: Watch) {
        if !self.is_foreign() {
            self.outbox.watch(watch);
        }
    }

    /// Sends a ping or a pong of the user's own, of at most [`Connection::MAX_CONTROL`] bytes, in
    /// its turn among the messages. False when it could not be queued. Never sleeps.
    pub fn send_control(&self, opcode: Opcode, payload: &[u8]) -> bool {
        // A client that gets events has no answer to a ping, and a server that carries sends its own.
        let has_controls = self.transport.framing().is_answered() && !self.is_carried();
        if self.is_foreign() || payload.len() > Self::MAX_CONTROL || !has_controls {
            return false;
        }
        match (self.outbox).send(opcode, payload, None, || self.wake.notify_one()) {
            Ok(Sent::Written) => true,
            Ok(Sent::Queued) => {
                self.wake.notify_one();
                true
            }
            Ok(Sent::Beyond | Sent::Full | Sent::Closed) | Err(_) => false,
        }
    }
}

impl View for Connection {
    fn wake_thread(&self) -> bool {
        self.inbox.wake_thread()
    }

    fn send_corked(&self) {
        if contain(|| self.uncork()).is_none() {
            contain(|| self.break_down());
        }
    }
}

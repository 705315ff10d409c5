//! Bytes on their way to the peer.
//!
//! A sender writes to the socket itself while nothing is queued, so a reply costs one system call
//! and no wake-up. Bytes that the socket does not take are queued for the driver, within a limit.
//! Small replies may be corked, to go out in one write; every other write sends them first.

mod cork;
mod group_frames;
mod moving;
pub(crate) mod outcome;
mod queue;
#[cfg(test)]
mod tests;
mod writing;

use std::{
    mem,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;

use self::{
    outcome::{Passage, Sent},
    queue::{Reserved, State},
};
use crate::{
    engine::{
        base::{
            clock,
            error::Error,
            sync::{Condvar, Mutex, MutexGuard},
        },
        resources::{budget::Account, socket::Socket},
        wakeup::hub::{Hub, Watch},
    },
    protocol::{
        close::CloseFrame,
        frame::{self, First, Opcode},
        framing::{Framed, Framing},
    },
};

/// A bounded queue from any thread to the socket.
#[derive(Debug)]
pub(crate) struct Outbox {
    state: Mutex<State>,
    room: Condvar,
    capacity: usize,
    framing: Framing,
    /// Writing what is corked panics.
    #[cfg(test)]
    pub(crate) is_broken: std::sync::atomic::AtomicBool,
}

impl Outbox {
    /// An outbox on `socket` that queues up to `capacity` bytes. The first of them are `head`,
    /// the head of the response, which no frame can overtake. Without a socket it is cut already.
    pub(crate) fn new(
        socket: impl Into<Option<Arc<Socket>>>,
        capacity: usize,
        head: Bytes,
        framing: Framing,
    ) -> Self {
        Self {
            state: Mutex::new(State::new(socket.into(), head, framing)),
            room: Condvar::default(),
            capacity,
            framing,
            #[cfg(test)]
            is_broken: std::sync::atomic::AtomicBool::new(false),
        }
    }

    /// Sends one message as one frame.
    ///
    /// With `timeout` the sender sleeps while there is no room; without, it learns that there is
    /// none. An empty queue has room for any message. A sender that is about to sleep, or to give
    /// up, calls `wake_driver` if it has left something there for the socket to take.
    pub(crate) fn send(
        &self,
        first: impl Into<First>,
        payload: &[u8],
        timeout: Option<Duration>,
        wake_driver: impl Fn(),
    ) -> Result<Sent, Error> {
        let framed = self.framing.frame(first, payload);
        let (head, payload) = framed.pieces();
        let length = head.len() + payload.len();
        let mut deadline = None;
        let mut leaves_rest = false;
        let mut state = self.state.lock();
        loop {
            if state.is_closed() {
                return Ok(Sent::Closed);
            }
            if !state.corked.is_empty() {
                // All in one write if the copy is cheap; else one after the other.
                let together = state.cork(self.capacity, head, payload);
                let sent = self.write_corked(&mut state);
                if together || sent == Sent::Closed {
                    return Ok(sent);
                }
                leaves_rest |= sent == Sent::Queued;
            }
            // A message may also go in after a ping or pong that waits alone.
            let reserved = state.reserved.bytes;
            if state.admit_within(timeout, length, self.capacity) {
                let sent = self.enter(&mut state, framed);
                if state.reserved.bytes < reserved {
                    // Smaller messages need not wait for this one any more.
                    self.announce_room(state);
                }
                return Ok(sent);
            }
            if mem::take(&mut leaves_rest) {
                wake_driver();
            }
            let Some(timeout) = timeout else {
                return Ok(Sent::Full);
            };
            let deadline = *deadline.get_or_insert_with(|| clock::now().checked_add(timeout));
            let in_time;
            (state, in_time) = self.room.wait(state, deadline);
            if !in_time {
                return Err(self.give_up(state, length, timeout));
            }
        }
    }

    /// Writes a message for which there is room, or queues it after others.
    #[inline]
    fn enter(&self, state: &mut MutexGuard<'_, State>, framed: Framed<'_>) -> Sent {
        if state.is_idle() {
            let (head, payload) = framed.pieces();
            self.write_through(state, head, payload)
        } else {
            state.push(framed.into_bytes());
            Sent::Queued
        }
    }

    /// Sleeps until room has been made or the outbox is closed, which may be now, or until `deadline`
    /// (`None`: for ever).
    pub(crate) fn await_room(&self, deadline: Option<Instant>) {
        let state = self.state.lock();
        if !state.takes_any() {
            drop(self.room.wait(state, deadline));
        }
    }

    /// Takes back what a sender that only tries has reserved: to be called when it gives up.
    pub(crate) fn give_way(&self) {
        let mut state = self.state.lock();
        if state.reserved.bytes > 0 {
            // Perhaps for another one, which needs it and asks again.
            state.reserved = Reserved::default();
            self.announce_room(state);
        }
    }

    /// The error of a sender that has found no room for `waited`.
    pub(crate) fn no_room(&self, waited: Duration) -> Error {
        Error::SendTimeout {
            waited,
            capacity: self.capacity,
        }
    }

    /// As [`Outbox::send`], for a sender that can neither wait nor give up: the message waits beyond
    /// the capacity where there is no room.
    pub(crate) fn send_beyond(&self, first: impl Into<First>, payload: &[u8]) -> Sent {
        let framed = self.framing.frame(first, payload);
        let (head, payload) = framed.pieces();
        let mut state = self.state.lock();
        if state.is_closed() {
            return Sent::Closed;
        }
        state.queue_corked();
        if state.fits(head.len() + payload.len(), self.capacity) {
            return self.enter(&mut state, framed);
        }
        state.push(framed.into_bytes());
        Sent::Beyond
    }

    /// Ends the wait of a sender of `length` bytes, and returns its error. Senders of smaller
    /// messages need not wait for it any more.
    fn give_up(&self, mut state: MutexGuard<'_, State>, length: usize, waited: Duration) -> Error {
        if !waited.is_zero() && state.reserved.bytes == length {
            state.reserved = Reserved::default();
            self.announce_room(state);
        }
        self.no_room(waited)
    }

    /// Sends one message if nothing waits for the socket; [`Sent::Full`] if something does.
    pub(crate) fn write(&self, opcode: Opcode, payload: &[u8]) -> Sent {
        let framed = self.framing.frame(opcode, payload);
        let (head, payload) = framed.pieces();
        let length = head.len() + payload.len();
        let mut state = self.state.lock();
        if state.is_closed() {
            Sent::Closed
        } else if state.is_idle() && state.has_priority(length) && state.fits(length, self.capacity)
        {
            self.write_through(&mut state, head, payload)
        } else if state.cork(self.capacity, head, payload) {
            self.write_corked(&mut state)
        } else {
            Sent::Full
        }
    }

    /// Sends a ping ahead of all that waits.
    pub(crate) fn ping(&self) {
        let mut state = self.state.lock();
        if !state.sealed {
            state.ping = true;
            self.write_out(state);
        }
    }

    /// Answers pings: `pongs` are whole frames. Those that still wait are replaced, so a flood of
    /// pings takes no memory.
    pub(crate) fn pong(&self, pongs: Bytes) {
        let mut state = self.state.lock();
        if !state.sealed {
            state.pong = Some(pongs);
            self.write_out(state);
        }
    }

    /// How our bytes, and the last ping among them, get through to the peer.
    pub(crate) fn passage(&self) -> Passage {
        let state = self.state.lock();
        let unsent = state.socket.as_ref().map_or(0, |socket| socket.unsent());
        let taken = state.written.saturating_sub(unsent);
        let is_blocked = !state.queue.is_empty() || state.pong.is_some() || state.ping;
        Passage {
            taken,
            is_blocked,
            is_clear: !is_blocked && unsent == 0,
            has_ping: !state.ping && taken >= state.pinged_at,
        }
    }

    /// Takes no message from now on. Its queue goes out, and the close frame may follow.
    pub(crate) fn refuse(&self) {
        let mut state = self.state.lock();
        state.refuses = true;
        self.announce_room(state);
    }

    /// Queues the close frame after everything else; nothing can follow it.
    pub(crate) fn seal(&self, close: &CloseFrame) -> Sent {
        let close = self.framing.close(close);
        let mut state = self.state.lock();
        if state.sealed {
            return Sent::Closed;
        }
        state.queue_corked();
        state.push(close);
        state.sealed = true;
        let sent = self.flush_queue(&mut state);
        self.announce_room(state);
        sent
    }

    /// Drops everything and lets go of the socket; waiting senders get [`Sent::Closed`].
    pub(crate) fn cut(&self) {
        let mut state = self.state.lock();
        state.cut();
        self.announce_room(state);
    }

    /// From now on, reports to `account` how many bytes this outbox holds.
    pub(crate) fn count_in(&self, mut account: Account) {
        let mut state = self.state.lock();
        account.set(state.queued);
        state.account = account;
    }

    /// Drops all that waits and queues `close`. Of a frame that is written in part, a small rest
    /// is kept before `close`; when the rest is large, the peer gets no close frame. A socket that
    /// another process has is left to it.
    pub(crate) fn shed(&self, close: &CloseFrame) {
        let close = self.framing.close(close);
        let mut state = self.state.lock();
        if state.socket.is_some() {
            if state.shed(close) {
                self.flush_queue(&mut state);
            } else if !state.is_held {
                state.cut();
            }
        }
        self.announce_room(state);
    }

    /// Wakes the senders that wait for room.
    fn announce_room(&self, mut state: MutexGuard<'_, State>) {
        let watches = mem::take(&mut state.watches);
        drop(state);
        self.room.notify_all();
        watches.into_iter().for_each(Watch::notify);
    }

    /// Whether a thread or an event loop waits for room now.
    pub(crate) fn is_awaited(&self) -> bool {
        let state = self.state.lock();
        self.room.sleepers() > 0 || !state.watches.is_empty()
    }

    /// Lets threads that wait for room look at the clock again.
    pub(crate) fn on_step(&self) {
        // With the lock, so that no thread is between its look at the clock and its sleep.
        drop(self.state.lock());
        self.room.notify_all();
    }

    /// Notifies `watch` when room has been made or the outbox is closed, which may be now.
    pub(crate) fn watch(&self, watch: Watch) {
        let mut state = self.state.lock();
        if state.takes_any() {
            drop(state);
            watch.notify();
        } else {
            state.watches.push(watch);
        }
    }

    /// Forgets a watch whose task has stopped waiting.
    pub(crate) fn unwatch(&self, hub: &Arc<Hub>, token: u64) {
        let mut state = self.state.lock();
        let before = state.watches.len();
        state.watches.retain(|watch| !watch.is(hub, token));
        let is_gone = state.watches.len() < before;
        drop(state);
        if is_gone {
            self.give_way();
        }
    }

    /// Bytes that the socket has taken so far.
    pub(crate) fn written(&self) -> u64 {
        self.state.lock().written
    }

    /// Bytes that wait for the socket.
    pub(crate) fn queued(&self) -> usize {
        let state = self.state.lock();
        let control = state.control().map_or(0, |control| control.len());
        state.queued + state.carried() + state.corked.len() + control
    }

    /// Whether anything waits for the socket to take it.
    pub(crate) fn is_blocked(&self) -> bool {
        let state = self.state.lock();
        !state.queue.is_empty() || state.pong.is_some() || state.ping
    }

    /// True when a message of `payload_len` bytes would not have to wait, or nothing can be sent.
    /// Otherwise its sender is expected to wait.
    pub(crate) fn has_room(&self, payload_len: usize) -> bool {
        let mut state = self.state.lock();
        let length = frame::head(Opcode::Binary, payload_len).len() + payload_len;
        state.is_closed() || state.admit(length, self.capacity, false)
    }

    /// True when nothing can follow what is queued now.
    pub(crate) fn is_sealed(&self) -> bool {
        self.state.lock().sealed
    }

    /// True when the outbox has let go of the socket: nothing can be sent any more.
    pub(crate) fn is_cut(&self) -> bool {
        self.state.lock().socket.is_none()
    }
}

//! Writing to the socket: as many bytes as it takes, in the order in which they may go.
//!
//! `write_through` writes a message that finds the outbox empty, `flush_queue` what is queued. `flush`
//! is the driver's call, `write_out` that of senders; both also announce the room that they make.

use std::{
    io::{self, IoSlice},
    mem,
};

use bytes::Bytes;

use super::{Outbox, outcome::Sent, queue::State};
use crate::engine::{base::sync::MutexGuard, resources::socket::is_transient, wakeup::hub::Watch};

impl Outbox {
    /// Writes `head` and `payload`, and queues what the socket does not take. To be called only
    /// while nothing else waits.
    pub(super) fn write_through(
        &self,
        state: &mut MutexGuard<'_, State>,
        head: &[u8],
        payload: &[u8],
    ) -> Sent {
        let length = head.len() + payload.len();
        let slices = [IoSlice::new(head), IoSlice::new(payload)];
        let Some(written) = self.write_some(state, &slices) else {
            return Sent::Closed;
        };
        if written == length {
            return Sent::Written;
        }
        let mut rest = Vec::with_capacity(length - written);
        rest.extend_from_slice(head.get(written..).unwrap_or_default());
        rest.extend_from_slice(&payload[written.saturating_sub(head.len())..]);
        state.push(Bytes::from(rest));
        state.mid_frame = written > 0;
        Sent::Queued
    }

    /// Writes `slices` as far as the socket takes them, and returns how many it took; `None` when
    /// the connection is lost. To be called only while nothing else waits.
    pub(super) fn write_some(
        &self,
        state: &mut MutexGuard<'_, State>,
        slices: &[IoSlice<'_>],
    ) -> Option<usize> {
        let socket = state.socket.as_ref()?;
        let written = match socket.send(slices) {
            Ok(written) => written,
            Err(error) if is_transient(&error) => 0,
            Err(_) => {
                self.break_off(state);
                return None;
            }
        };
        state.written += written as u64;
        Some(written)
    }

    /// Writes what the socket takes.
    pub(crate) fn flush(&self) -> Sent {
        self.write_out(self.state.lock())
    }

    /// Writes what the socket takes, and always wakes the senders that wait for the room that this
    /// makes: the next flush may find the queue empty, and would announce nothing.
    pub(super) fn write_out(&self, mut state: MutexGuard<'_, State>) -> Sent {
        state.queue_corked();
        let before = state.queued;
        let sent = self.flush_queue(&mut state);
        if state.queued < before || sent == Sent::Closed {
            self.announce_room(state);
        }
        sent
    }

    /// Writes on when a server that carries the connection has taken something, and wakes those that
    /// wait for room.
    pub(crate) fn refill(&self) {
        let mut state = self.state.lock();
        self.flush_queue(&mut state);
        self.announce_room(state);
    }

    /// Writes what the socket takes of what is queued.
    pub(super) fn flush_queue(&self, state: &mut MutexGuard<'_, State>) -> Sent {
        if state.is_held && state.socket.is_some() {
            return Sent::Queued;
        }
        self.write_queue(state)
    }

    fn write_queue(&self, state: &mut MutexGuard<'_, State>) -> Sent {
        loop {
            let Some(socket) = state.socket.clone() else {
                return Sent::Closed;
            };
            // Control frames go between frames and before those that have not begun. Ping and pong
            // have one place each, and stay in it until the socket has taken them.
            let control = if state.mid_frame {
                None
            } else {
                state.control()
            };
            let written = if let Some(control) = &control {
                socket.send(&[IoSlice::new(control)])
            } else if state.queue.is_empty() {
                return Sent::Written;
            } else {
                // Only to the end of a frame that is half out: a control frame may be next.
                let is_alone = state.mid_frame || socket.is_carried();
                let most = if is_alone { 1 } else { usize::MAX };
                socket.send_queue(state.queue.iter().take(most).map(|queued| &queued.bytes))
            };
            match (written, control) {
                (Ok(written), Some(control)) => state.consume_control(control, written),
                (Ok(written), None) => state.consume(written),
                (Err(error), _) if error.kind() == io::ErrorKind::Interrupted => {}
                (Err(error), _) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Sent::Queued;
                }
                (Err(_), _) => {
                    self.break_off(state);
                    return Sent::Closed;
                }
            }
        }
    }

    /// Drops everything after an error: the peer takes nothing any more. The reading side finds
    /// out how the connection ended. Where the system has failed and not the peer, it finds so as
    /// well: without anything to read the connection would stay.
    fn break_off(&self, state: &mut MutexGuard<'_, State>) {
        if let Some(socket) = &state.socket {
            socket.hang_up();
        }
        state.cut();
        self.room.notify_all();
        mem::take(&mut state.watches)
            .into_iter()
            .for_each(Watch::notify);
    }
}

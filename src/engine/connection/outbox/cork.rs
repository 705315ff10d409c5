//! Small messages that wait for each other, to go out in one write.

use std::mem;

use bytes::Bytes;

use super::{
    Outbox,
    outcome::{Corked, Sent},
    queue::State,
};
use crate::{engine::base::sync::MutexGuard, protocol::frame::Opcode};

/// Bytes that are corked at most. Above that, a system call costs less than the copy.
const MAX_CORKED_BYTES: usize = 16 * 1024;

impl State {
    /// Adds a frame to those that are corked, if it is small enough and nothing else waits. While
    /// bytes wait for the socket it is full, and the sender has to notice that.
    pub(super) fn cork(&mut self, capacity: usize, head: &[u8], payload: &[u8]) -> bool {
        let length = self.corked.len() + head.len() + payload.len();
        let fits = length <= MAX_CORKED_BYTES.min(capacity);
        let controls = self.pong.is_some() || self.ping;
        let alone = self.queue.is_empty() && !controls && self.has_priority(length);
        // A server that carries the connection sends each message by itself.
        let is_carried = self
            .socket
            .as_ref()
            .is_some_and(|socket| socket.is_carried());
        let corks = fits && alone && !self.is_closed() && !is_carried && !self.is_held;
        if corks {
            self.corked.reserve(head.len() + payload.len());
            self.corked.extend_from_slice(head);
            self.corked.extend_from_slice(payload);
        }
        corks
    }

    /// Queues what is corked.
    pub(super) fn queue_corked(&mut self) {
        if !self.corked.is_empty() {
            let corked = mem::take(&mut self.corked);
            self.push(Bytes::from(corked));
        }
    }
}

impl Outbox {
    /// Corks a small message if nothing waits for the socket. As [`Outbox::send`] it keeps
    /// its place.
    pub(crate) fn cork(&self, opcode: Opcode, payload: &[u8]) -> Corked {
        let framed = self.framing.frame(opcode, payload);
        let (head, payload) = framed.pieces();
        let mut state = self.state.lock();
        let first = state.corked.is_empty();
        if !state.cork(self.capacity, head, payload) {
            Corked::No
        } else if first {
            Corked::First
        } else {
            Corked::More
        }
    }

    /// Whether anything is corked.
    pub(crate) fn is_corked(&self) -> bool {
        !self.state.lock().corked.is_empty()
    }

    /// Writes what is corked.
    pub(crate) fn uncork(&self) -> Sent {
        #[cfg(test)]
        assert!(
            !self.is_broken.load(std::sync::atomic::Ordering::SeqCst),
            "an outbox fails"
        );
        let mut state = self.state.lock();
        if state.corked.is_empty() {
            return Sent::Written;
        }
        self.write_corked(&mut state)
    }

    /// Writes what is corked, which is all that waits. As a rule the socket takes it whole.
    pub(super) fn write_corked(&self, state: &mut MutexGuard<'_, State>) -> Sent {
        let corked = mem::take(&mut state.corked);
        self.write_through(state, &corked, &[])
    }
}

//! The bytes that wait for the socket, their order, and which sender may add to them.

use std::{collections::VecDeque, mem, sync::Arc, time::Duration};

use bytes::{Buf, Bytes};

use crate::{
    engine::{
        resources::{budget::Account, socket::Socket},
        wakeup::hub::Watches,
    },
    protocol::{frame::Opcode, framing::Framing},
};

/// When all else is dropped, the unsent rest of a frame that has begun is kept up to this size.
const MAX_REST_BYTES: usize = 64 * 1024;

/// Bytes in the queue.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) bytes: Bytes,
    /// Of a frame that may be dropped until it has begun to be written. Boxed, as few frames may.
    pub(super) droppable: Option<Box<Droppable>>,
}

/// A frame that may be dropped.
#[derive(Debug)]
pub(super) struct Droppable {
    /// The frame that takes its place then: it tells the client so.
    pub(super) loss: Option<Bytes>,
}

impl From<Bytes> for Queued {
    fn from(bytes: Bytes) -> Self {
        Self {
            bytes,
            droppable: None,
        }
    }
}

/// The outbox behind its lock.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(super) struct State {
    /// `None` once the connection is over.
    pub(super) socket: Option<Arc<Socket>>,
    pub(super) queue: VecDeque<Queued>,
    /// Bytes in `queue`, without `corked`, `pong` and `ping`.
    pub(super) queued: usize,
    /// Corked frames, all whole: kept so that later ones go out in the same write. They follow
    /// `queue`.
    pub(super) corked: Vec<u8>,
    /// Nothing may be put before the front of `queue`: a frame that has been written in part, or the
    /// head of the 101 response.
    pub(super) mid_frame: bool,
    /// The pongs of the driver's latest turn. They replace those of an earlier one that still wait
    /// (RFC 6455 section 5.5.3).
    pub(super) pong: Option<Bytes>,
    /// A ping waits. One is enough, however long the peer takes nothing.
    pub(super) ping: bool,
    /// A close frame is queued (or can no longer be): no data may follow it.
    pub(super) sealed: bool,
    /// The connection has begun to end: nothing but the close frame is taken any more.
    pub(super) refuses: bool,
    pub(super) watches: Watches,
    pub(super) reserved: Reserved,
    /// Bytes that the socket has taken so far.
    pub(super) written: u64,
    /// The value of `written` from which on the last ping is among those bytes.
    pub(super) pinged_at: u64,
    pub(super) account: Account,
    /// Nothing is written: another process has the socket, or is about to let go of it.
    pub(super) is_held: bool,
    /// Another process has got what waits. Only this has sealed it: no close frame is queued.
    pub(super) is_given: bool,
    pub(super) framing: Framing,
}

/// The largest message whose sender waits for room. Until it is in, a smaller one is admitted only if
/// its sender cannot wait.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reserved {
    /// 0 when no sender waits.
    pub(super) bytes: usize,
    /// That sender is a thread that sleeps. A task may have given up unnoticed.
    pub(super) by_thread: bool,
}

impl State {
    /// The state of a new outbox on `socket`: `head` waits, which no frame can overtake.
    pub(super) fn new(socket: Option<Arc<Socket>>, head: Bytes, framing: Framing) -> Self {
        Self {
            socket,
            queued: head.len(),
            mid_frame: !head.is_empty(),
            queue: [head]
                .into_iter()
                .filter(|head| !head.is_empty())
                .map(Queued::from)
                .collect(),
            framing,
            ..Self::default()
        }
    }

    /// Whether no message is taken any more.
    pub(super) fn is_closed(&self) -> bool {
        self.sealed || self.refuses
    }

    /// Whether nothing waits, and the socket may be written to.
    pub(super) fn is_idle(&self) -> bool {
        let is_empty = self.queue.is_empty() && self.corked.is_empty();
        is_empty && self.pong.is_none() && !self.ping && !self.is_held
    }

    /// Queues bytes after all others.
    pub(super) fn push(&mut self, bytes: impl Into<Queued>) {
        let queued = bytes.into();
        self.queued += queued.bytes.len();
        self.queue.push_back(queued);
        self.account.set(self.queued);
    }

    /// Drops frames that may be dropped, the oldest first, until there is room for `length` bytes;
    /// or all of them. Their client is told of it in their place, once for each room. Returns how many.
    pub(super) fn make_room(&mut self, length: usize, capacity: usize, drops_all: bool) -> u64 {
        let mut dropped = 0;
        // A frame that has begun has to be finished.
        let mut at = usize::from(self.mid_frame);
        while at < self.queue.len() && (drops_all || !self.fits(length, capacity)) {
            let Some(droppable) = self.queue[at].droppable.take() else {
                at += 1;
                continue;
            };
            if let Some(old) = self.queue.remove(at) {
                self.queued -= old.bytes.len();
                dropped += 1;
                let is_told = |loss: &Bytes| self.queue.range(..at).any(|it| it.bytes == *loss);
                if let Some(loss) = droppable.loss.filter(|loss| !is_told(loss)) {
                    self.queued += loss.len();
                    self.queue.insert(at, loss.into());
                    at += 1;
                }
            }
        }
        dropped
    }

    /// Bytes that a server which carries the connection has yet to send.
    pub(super) fn carried(&self) -> usize {
        self.socket.as_ref().map_or(0, |socket| socket.held())
    }

    /// Whether there is room for `length` bytes.
    pub(super) fn fits(&self, length: usize, capacity: usize) -> bool {
        let carried = self.carried();
        (self.queue.is_empty() && carried == 0) || self.queued + carried + length <= capacity
    }

    /// Whether no sender has to wait now.
    pub(super) fn takes_any(&self) -> bool {
        self.is_closed() || (self.queue.is_empty() && self.carried() == 0 && !self.is_reserved(0))
    }

    /// Whether a thread sleeps whose message is larger than `length` bytes and gets the room first.
    pub(super) fn is_reserved(&self, length: usize) -> bool {
        length < self.reserved.bytes && self.reserved.by_thread
    }

    /// Whether a message of `length` bytes need not let a larger one go first. An empty queue takes
    /// any message, unless a thread sleeps with a larger one: a task may have given up unnoticed.
    pub(super) fn has_priority(&self, length: usize) -> bool {
        length >= self.reserved.bytes || (self.queue.is_empty() && !self.is_reserved(length))
    }

    /// Whether a message of `length` bytes may go in now. If not, and it is
    /// the largest so far, the room is reserved for it. `sleeps`: its sender is a thread that will
    /// sleep, else a task with a watch.
    pub(super) fn admit(&mut self, length: usize, capacity: usize, sleeps: bool) -> bool {
        let enters = self.has_priority(length) && self.fits(length, capacity);
        if enters {
            if length >= self.reserved.bytes || self.watches.is_empty() {
                self.reserved = Reserved::default();
            }
        } else if length >= self.reserved.bytes {
            let by_thread = sleeps || (length == self.reserved.bytes && self.reserved.by_thread);
            self.reserved = Reserved {
                bytes: length,
                by_thread,
            };
        }
        enters
    }

    /// As [`State::admit`], for a sender that waits for `timeout`. One that cannot wait does not wait for
    /// those that can.
    pub(super) fn admit_within(
        &mut self,
        timeout: Option<Duration>,
        length: usize,
        capacity: usize,
    ) -> bool {
        match timeout {
            Some(timeout) => self.admit(length, capacity, !timeout.is_zero()),
            None => self.fits(length, capacity),
        }
    }

    /// The control frames to write next: the pongs if some wait, else the ping if one waits.
    pub(super) fn control(&self) -> Option<Bytes> {
        let ping = || self.framing.frame(Opcode::Ping, &[]).into_bytes();
        (self.pong.clone()).or_else(|| self.ping.then(ping))
    }

    /// Notes that the first `written` bytes of [`State::control`] are out.
    pub(super) fn consume_control(&mut self, mut control: Bytes, written: usize) {
        if self.pong.take().is_none() {
            self.ping = false;
            self.pinged_at = self.written + control.len() as u64;
        }
        self.written += written as u64;
        control.advance(written);
        if !control.is_empty() {
            self.queued += control.len();
            self.queue.push_front(control.into());
            self.mid_frame = true;
        }
    }

    /// Notes that the first `written` bytes of the queue are out.
    pub(super) fn consume(&mut self, mut written: usize) {
        self.queued -= written;
        self.written += written as u64;
        self.account.set(self.queued);
        while let Some(Queued { bytes: front, .. }) = self.queue.front_mut() {
            if written < front.len() {
                front.advance(written);
                self.mid_frame = self.mid_frame || written > 0;
                return;
            }
            written -= front.len();
            self.queue.pop_front();
            self.mid_frame = false;
        }
        self.queue = VecDeque::new();
    }

    /// Drops everything and lets go of the socket.
    pub(super) fn cut(&mut self) {
        self.socket = None;
        self.sealed = true;
        self.queue = VecDeque::new();
        self.queued = 0;
        self.corked = Vec::new();
        self.pong = None;
        self.ping = false;
        self.account.set(0);
    }

    /// Drops all but a small rest of the frame that has been written in part, and puts `close`
    /// after it. False when the rest is large: then no close frame can be sent any more.
    pub(super) fn shed(&mut self, close: Bytes) -> bool {
        if self.socket.as_ref().is_some_and(|socket| !socket.shed()) {
            return false;
        }
        let is_given = mem::take(&mut self.is_given);
        if self.sealed && !is_given && self.queue.len() <= 1 {
            // The close frame is on its way, or has left.
            return true;
        }
        self.corked = Vec::new();
        self.pong = None;
        self.ping = false;
        let rest = self.queue.pop_front().filter(|_| self.mid_frame);
        self.queue = VecDeque::new();
        self.queued = 0;
        self.account.set(0);
        self.sealed = true;
        let is_small = rest
            .as_ref()
            .is_none_or(|rest| rest.bytes.len() <= MAX_REST_BYTES);
        if is_small {
            if let Some(rest) = rest {
                self.push(rest);
            }
            self.push(close);
        }
        is_small
    }
}

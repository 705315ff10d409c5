//! Bytes on their way to the peer.
//!
//! A sender writes to the socket itself while nothing is queued, so a reply costs one system call
//! and no wake-up. What the socket does not take is queued for the driver, within a limit.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes};
use parking_lot::{Mutex, MutexGuard};

use super::{
    error::Error,
    socket::Socket,
    waiter::{Sleeper, Watch},
};
use crate::protocol::frame::{self, Opcode};

/// Buffers handed to one system call.
const MAX_SLICES: usize = 32;

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// The socket took all of it.
    Written,
    /// It is queued; the driver has to be woken.
    Queued,
    /// No room, and the sender would not wait.
    Full,
    /// The outbox is closed: nothing more goes out.
    Closed,
}

/// What a flush left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flushed {
    /// Nothing.
    Everything,
    /// The socket takes no more for now.
    Blocked,
}

/// A bounded queue from any thread to the socket.
#[derive(Debug)]
pub(super) struct Outbox {
    state: Mutex<State>,
    room: Sleeper,
    capacity: usize,
}

#[derive(Debug)]
struct State {
    /// `None` once the connection is over.
    socket: Option<Arc<Socket>>,
    queue: VecDeque<Bytes>,
    queued: usize,
    /// The front of `queue` has been written in part; nothing may be put before it.
    mid_frame: bool,
    /// At most one pong waits: only the latest ping needs an answer (RFC 6455 section 5.5.3).
    pong: Option<Bytes>,
    /// A ping waits. One is enough, however long the peer takes nothing.
    ping: bool,
    /// A close frame is queued (or can no longer be): no data may follow it.
    sealed: bool,
    watches: Vec<Watch>,
}

impl State {
    fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.pong.is_none() && !self.ping
    }

    fn push(&mut self, bytes: Bytes) {
        self.queued += bytes.len();
        self.queue.push_back(bytes);
    }

    /// The control frame that goes out next: a pong before a ping.
    fn control(&self) -> Option<Bytes> {
        let ping = || self.ping.then(|| frame::encode(Opcode::Ping, &[]));
        self.pong.clone().or_else(ping)
    }

    /// Notes that the first `written` bytes of [`State::control`] are out.
    fn consume_control(&mut self, mut control: Bytes, written: usize) {
        if self.pong.take().is_none() {
            self.ping = false;
        }
        control.advance(written);
        if !control.is_empty() {
            self.queued += control.len();
            self.queue.push_front(control);
            self.mid_frame = true;
        }
    }

    fn consume(&mut self, mut written: usize) {
        self.queued -= written;
        while let Some(front) = self.queue.front_mut() {
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

    fn cut(&mut self) {
        self.socket = None;
        self.sealed = true;
        self.queue = VecDeque::new();
        self.queued = 0;
        self.pong = None;
        self.ping = false;
    }
}

impl Outbox {
    /// An outbox on `socket` that queues up to `capacity` bytes.
    pub(super) fn new(socket: Arc<Socket>, capacity: usize) -> Self {
        Self {
            state: Mutex::new(State {
                socket: Some(socket),
                queue: VecDeque::new(),
                queued: 0,
                mid_frame: false,
                pong: None,
                ping: false,
                sealed: false,
                watches: Vec::new(),
            }),
            room: Sleeper::default(),
            capacity,
        }
    }

    /// Sends bytes that are no frame: the head of the 101 response, before anything else.
    pub(super) fn send_raw(&self, bytes: Bytes) -> Sent {
        let mut state = self.state.lock();
        state.push(bytes);
        self.flush_queue(&mut state)
    }

    /// Sends one message as one frame.
    ///
    /// With `patience` the sender sleeps while there is no room; without, it learns that there
    /// is none. An empty queue has room for any message.
    pub(super) fn send(
        &self,
        opcode: Opcode,
        payload: &[u8],
        patience: Option<Duration>,
    ) -> Result<Sent, Error> {
        let head = frame::head(opcode, payload.len());
        let length = head.len() + payload.len();
        let mut deadline = None;
        let mut state = self.state.lock();
        loop {
            if state.sealed {
                return Ok(Sent::Closed);
            }
            if state.is_idle() {
                return Ok(self.write_through(&mut state, &head, payload));
            }
            if state.queued + length <= self.capacity {
                state.push(frame::encode(opcode, payload));
                return Ok(Sent::Queued);
            }
            let Some(patience) = patience else {
                return Ok(Sent::Full);
            };
            let deadline = *deadline.get_or_insert_with(|| Instant::now().checked_add(patience));
            if !self.room.sleep(&mut state, deadline) {
                return Err(Error::SendTimeout {
                    waited: patience,
                    capacity: self.capacity,
                });
            }
        }
    }

    fn write_through(
        &self,
        state: &mut MutexGuard<'_, State>,
        head: &[u8],
        payload: &[u8],
    ) -> Sent {
        let Some(socket) = &state.socket else {
            return Sent::Closed;
        };
        let length = head.len() + payload.len();
        let written = match socket.send(&[IoSlice::new(head), IoSlice::new(payload)]) {
            Ok(written) => written,
            Err(error) if is_transient(&error) => 0,
            Err(_) => {
                self.break_off(state);
                return Sent::Closed;
            }
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

    /// Sends a ping ahead of all that waits.
    pub(super) fn ping(&self) {
        let mut state = self.state.lock();
        if !state.sealed {
            state.ping = true;
            self.flush_queue(&mut state);
        }
    }

    /// Answers a ping. A pong that still waits is replaced, so a flood of pings takes no memory.
    pub(super) fn pong(&self, payload: &[u8]) {
        let mut state = self.state.lock();
        if !state.sealed {
            state.pong = Some(frame::encode(Opcode::Pong, payload));
            self.flush_queue(&mut state);
        }
    }

    /// Queues the close frame behind everything else; nothing can follow it.
    pub(super) fn seal(&self, close: Bytes) -> Sent {
        let mut state = self.state.lock();
        if state.sealed {
            return Sent::Closed;
        }
        state.push(close);
        state.sealed = true;
        let sent = self.flush_queue(&mut state);
        self.announce_room(state);
        sent
    }

    /// Writes what the socket takes.
    pub(super) fn flush(&self) -> Flushed {
        let mut state = self.state.lock();
        let before = state.queued;
        let sent = self.flush_queue(&mut state);
        if state.queued < before || sent == Sent::Closed {
            self.announce_room(state);
        }
        match sent {
            Sent::Queued => Flushed::Blocked,
            Sent::Written | Sent::Full | Sent::Closed => Flushed::Everything,
        }
    }

    fn flush_queue(&self, state: &mut MutexGuard<'_, State>) -> Sent {
        loop {
            let Some(socket) = state.socket.clone() else {
                return Sent::Closed;
            };
            // Control frames go between frames and before those that have not begun. They leave
            // their places only when the socket takes them, so there is never more than one each.
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
                let most = if state.mid_frame { 1 } else { MAX_SLICES };
                let mut slices = [IoSlice::new(&[]); MAX_SLICES];
                let mut used = 0;
                for (slice, bytes) in slices.iter_mut().zip(state.queue.iter().take(most)) {
                    *slice = IoSlice::new(bytes);
                    used += 1;
                }
                socket.send(&slices[..used])
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

    /// The peer takes nothing any more. How it went is for the reading side to find out.
    fn break_off(&self, state: &mut MutexGuard<'_, State>) {
        state.cut();
        self.room.wake_all();
        std::mem::take(&mut state.watches)
            .into_iter()
            .for_each(Watch::ring);
    }

    /// Drops everything and lets go of the socket; senders in wait learn that it is over.
    pub(super) fn cut(&self) {
        let mut state = self.state.lock();
        state.cut();
        self.announce_room(state);
    }

    fn announce_room(&self, mut state: MutexGuard<'_, State>) {
        let watches = std::mem::take(&mut state.watches);
        drop(state);
        self.room.wake_all();
        watches.into_iter().for_each(Watch::ring);
    }

    /// Tells `watch` when room has been made or the outbox is closed, which may be now.
    pub(super) fn watch(&self, watch: Watch) {
        let mut state = self.state.lock();
        if state.sealed || state.queue.is_empty() {
            drop(state);
            watch.ring();
        } else {
            state.watches.push(watch);
        }
    }

    /// Bytes that wait for the socket.
    pub(super) fn queued(&self) -> usize {
        let state = self.state.lock();
        state.queued + state.control().map_or(0, |control| control.len())
    }

    /// True when the socket is gone for sending.
    pub(super) fn is_cut(&self) -> bool {
        self.state.lock().socket.is_none()
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

//! Bytes on their way to the peer.
//!
//! A sender writes to the socket itself while nothing is queued, so a reply costs one system call
//! and no wake-up. What the socket does not take is queued for the driver, within a limit. Small
//! replies may be held back, to go out in one write; every other write sends them first.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    mem,
    sync::Arc,
    time::Duration,
};

use bytes::{Buf, Bytes};

use crate::{
    engine::{
        base::{
            clock,
            error::Error,
            sync::{Condvar, Mutex, MutexGuard},
        },
        resources::{budget::Account, socket::Socket},
        wakeup::hub::{Hub, Watch, Watches},
    },
    protocol::frame::{self, First, Opcode},
};

/// Buffers handed to one system call.
const MAX_SLICES: usize = 32;

/// Bytes that are held back at most. Above that, a system call costs less than the copy.
const MAX_HELD_BYTES: usize = 16 * 1024;

/// The largest rest of a frame that has begun which is kept when all else is given up.
const MAX_REST_BYTES: usize = 64 * 1024;

/// Whether a message was held back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    /// It was, and is the first: the caller has to see to it that it is released.
    First,
    /// It was, behind others.
    More,
    /// It was not.
    No,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    /// The socket took all of it.
    Written,
    /// It is queued; the driver has to be woken.
    Queued,
    /// No room, and the sender would not wait.
    Full,
    /// The outbox is closed: nothing more goes out.
    Closed,
}

/// How far our bytes have come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Passage {
    /// Bytes that the peer's system has taken, as far as ours can tell.
    pub(crate) taken: u64,
    /// Something waits for the socket.
    pub(crate) is_blocked: bool,
    /// All that was ever sent has been taken.
    pub(crate) is_clear: bool,
    /// The last ping is among what has been taken.
    pub(crate) has_ping: bool,
}

/// What a flush left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flushed {
    /// Nothing.
    Everything,
    /// The socket takes no more for now.
    Blocked,
}

impl From<Sent> for Flushed {
    fn from(sent: Sent) -> Self {
        match sent {
            Sent::Queued => Self::Blocked,
            Sent::Written | Sent::Full | Sent::Closed => Self::Everything,
        }
    }
}

/// A bounded queue from any thread to the socket.
#[derive(Debug)]
pub(crate) struct Outbox {
    state: Mutex<State>,
    room: Condvar,
    capacity: usize,
    /// Releasing what is held panics.
    #[cfg(test)]
    pub(crate) is_broken: std::sync::atomic::AtomicBool,
}

#[derive(Debug)]
struct State {
    /// `None` once the connection is over.
    socket: Option<Arc<Socket>>,
    queue: VecDeque<Bytes>,
    queued: usize,
    /// Whole frames that wait for more of their kind. Their place is behind `queue`.
    held: Vec<u8>,
    /// The front of `queue` has been written in part; nothing may be put before it.
    mid_frame: bool,
    /// Pongs of one turn at most: only the latest ping needs an answer (RFC 6455 section 5.5.3).
    pong: Option<Bytes>,
    /// A ping waits. One is enough, however long the peer takes nothing.
    ping: bool,
    /// A close frame is queued (or can no longer be): no data may follow it.
    sealed: bool,
    watches: Watches,
    reserved: Reserved,
    /// Bytes that the socket has taken so far.
    written: u64,
    /// How many those were when the last ping was among them.
    pinged_at: u64,
    account: Account,
}

/// The largest message whose sender waits for room. Smaller messages do not take the room before it
/// if their senders can wait, too.
#[derive(Clone, Copy, Debug, Default)]
struct Reserved {
    /// 0 when no sender waits.
    bytes: usize,
    /// That sender is a thread that sleeps. A task may have given up unnoticed.
    by_thread: bool,
}

impl State {
    fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.held.is_empty() && self.pong.is_none() && !self.ping
    }

    /// Adds a frame to those that are held, if it is small enough and nothing else waits. While
    /// bytes wait for the socket it is full, and the sender has to notice that.
    fn hold(&mut self, capacity: usize, head: &[u8], payload: &[u8]) -> bool {
        let length = self.held.len() + head.len() + payload.len();
        let fits = length <= MAX_HELD_BYTES.min(capacity);
        let alone =
            self.queue.is_empty() && self.pong.is_none() && !self.ping && self.reserved.bytes == 0;
        let held = fits && alone && !self.sealed;
        if held {
            self.held.reserve(head.len() + payload.len());
            self.held.extend_from_slice(head);
            self.held.extend_from_slice(payload);
        }
        held
    }

    /// Queues what is held.
    fn release(&mut self) {
        if !self.held.is_empty() {
            let held = mem::take(&mut self.held);
            self.push(Bytes::from(held));
        }
    }

    fn push(&mut self, bytes: Bytes) {
        self.queued += bytes.len();
        self.queue.push_back(bytes);
        self.account.set(self.queued);
    }

    /// Whether there is room for `length` bytes.
    fn fits(&self, length: usize, capacity: usize) -> bool {
        self.queue.is_empty() || self.queued + length <= capacity
    }

    /// Whether a thread sleeps that is to have the room before a message of `length` bytes.
    fn is_reserved(&self, length: usize) -> bool {
        length < self.reserved.bytes && self.reserved.by_thread
    }

    /// Whether a message of `length` bytes may go in now. If not, its sender is expected to wait:
    /// asleep if it `sleeps`, else by a watch.
    fn admit(&mut self, length: usize, capacity: usize, sleeps: bool) -> bool {
        // An empty queue takes any message, unless a thread sleeps with a larger one.
        let has_priority =
            length >= self.reserved.bytes || (self.queue.is_empty() && !self.is_reserved(length));
        let enters = has_priority && self.fits(length, capacity);
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

    /// The control frames that go out next: pongs before a ping.
    fn control(&self) -> Option<Bytes> {
        let ping = || self.ping.then(|| frame::encode(Opcode::Ping, &[]));
        self.pong.clone().or_else(ping)
    }

    /// Notes that the first `written` bytes of [`State::control`] are out.
    fn consume_control(&mut self, mut control: Bytes, written: usize) {
        if self.pong.take().is_none() {
            self.ping = false;
            self.pinged_at = self.written + control.len() as u64;
        }
        self.written += written as u64;
        control.advance(written);
        if !control.is_empty() {
            self.queued += control.len();
            self.queue.push_front(control);
            self.mid_frame = true;
        }
    }

    fn consume(&mut self, mut written: usize) {
        self.queued -= written;
        self.written += written as u64;
        self.account.set(self.queued);
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
        self.held = Vec::new();
        self.pong = None;
        self.ping = false;
        self.account.set(0);
    }

    /// Drops all but a small rest of the frame that has been written in part, and puts `close`
    /// behind it. False when the rest is large: then no close frame can be sent any more.
    fn shed(&mut self, close: Bytes) -> bool {
        if self.sealed && self.queue.len() <= 1 {
            // The close frame is on its way, or has left.
            return true;
        }
        self.held = Vec::new();
        self.pong = None;
        self.ping = false;
        let rest = self.queue.pop_front().filter(|_| self.mid_frame);
        self.queue = VecDeque::new();
        self.queued = 0;
        self.sealed = true;
        let is_small = rest
            .as_ref()
            .is_none_or(|rest| rest.len() <= MAX_REST_BYTES);
        if is_small {
            if let Some(rest) = rest {
                self.push(rest);
            }
            self.push(close);
        }
        is_small
    }
}

impl Outbox {
    /// An outbox on `socket` that queues up to `capacity` bytes. The first of them are `head`,
    /// the 101 response, which no frame can overtake.
    pub(crate) fn new(socket: Arc<Socket>, capacity: usize, head: Bytes) -> Self {
        Self {
            state: Mutex::new(State {
                socket: Some(socket),
                queued: head.len(),
                mid_frame: !head.is_empty(),
                queue: [head].into_iter().filter(|head| !head.is_empty()).collect(),
                held: Vec::new(),
                pong: None,
                ping: false,
                sealed: false,
                watches: Watches::new(),
                reserved: Reserved::default(),
                written: 0,
                pinged_at: 0,
                account: Account::default(),
            }),
            room: Condvar::default(),
            capacity,
            #[cfg(test)]
            is_broken: std::sync::atomic::AtomicBool::new(false),
        }
    }

    /// Sends one message as one frame.
    ///
    /// With `patience` the sender sleeps while there is no room; without, it learns that there
    /// is none. An empty queue has room for any message. A sender that is about to sleep, or to give
    /// up, calls `wake_driver` if it has left something there for the socket to take.
    pub(crate) fn send(
        &self,
        first: impl Into<First>,
        payload: &[u8],
        patience: Option<Duration>,
        wake_driver: impl Fn(),
    ) -> Result<Sent, Error> {
        let first = first.into();
        let head = frame::head(first, payload.len());
        let length = head.len() + payload.len();
        let mut deadline = None;
        let mut leaves_rest = false;
        let mut state = self.state.lock();
        loop {
            if state.sealed {
                return Ok(Sent::Closed);
            }
            if !state.held.is_empty() {
                // All in one write if the copy is cheap; else one after the other.
                let together = state.hold(self.capacity, &head, payload);
                let sent = self.write_held(&mut state);
                if together || sent == Sent::Closed {
                    return Ok(sent);
                }
                leaves_rest |= sent == Sent::Queued;
            }
            // Behind a ping or pong that waits alone, too.
            let reserved = state.reserved.bytes;
            let may_enter = match patience {
                Some(patience) => state.admit(length, self.capacity, !patience.is_zero()),
                // A sender that cannot wait does not wait for those that can.
                None => state.fits(length, self.capacity),
            };
            if may_enter {
                let sent = if state.is_idle() {
                    self.write_through(&mut state, &head, payload)
                } else {
                    state.push(frame::encode(first, payload));
                    Sent::Queued
                };
                if state.reserved.bytes < reserved {
                    // Smaller ones need not wait for this one any more.
                    self.announce_room(state);
                }
                return Ok(sent);
            }
            if mem::take(&mut leaves_rest) {
                wake_driver();
            }
            let Some(patience) = patience else {
                return Ok(Sent::Full);
            };
            let deadline = *deadline.get_or_insert_with(|| clock::now().checked_add(patience));
            let in_time;
            (state, in_time) = self.room.wait(state, deadline);
            if !in_time {
                if !patience.is_zero() {
                    self.give_up(state, length);
                }
                return Err(Error::SendTimeout {
                    waited: patience,
                    capacity: self.capacity,
                });
            }
        }
    }

    /// Ends the wait of a sender of `length` bytes. Senders of smaller messages need not wait for
    /// it any more.
    fn give_up(&self, mut state: MutexGuard<'_, State>, length: usize) {
        if state.reserved.bytes == length {
            state.reserved = Reserved::default();
            self.announce_room(state);
        }
    }

    /// Sends one message if nothing waits for the socket; [`Sent::Full`] if something does.
    pub(crate) fn write(&self, opcode: Opcode, payload: &[u8]) -> Sent {
        let head = frame::head(opcode, payload.len());
        let mut state = self.state.lock();
        if state.sealed {
            Sent::Closed
        } else if state.is_idle() && state.reserved.bytes == 0 {
            self.write_through(&mut state, &head, payload)
        } else if state.hold(self.capacity, &head, payload) {
            self.write_held(&mut state)
        } else {
            Sent::Full
        }
    }

    /// Holds a small message back if nothing waits for the socket. As [`Outbox::send`] it keeps
    /// its place.
    pub(crate) fn hold(&self, opcode: Opcode, payload: &[u8]) -> Held {
        let mut state = self.state.lock();
        let first = state.held.is_empty();
        if !state.hold(self.capacity, &frame::head(opcode, payload.len()), payload) {
            Held::No
        } else if first {
            Held::First
        } else {
            Held::More
        }
    }

    /// Whether anything is held back.
    pub(crate) fn is_holding(&self) -> bool {
        !self.state.lock().held.is_empty()
    }

    /// Writes what is held back.
    pub(crate) fn release(&self) -> Flushed {
        #[cfg(test)]
        assert!(
            !self.is_broken.load(std::sync::atomic::Ordering::SeqCst),
            "an outbox fails"
        );
        let mut state = self.state.lock();
        if state.held.is_empty() {
            return Flushed::Everything;
        }
        self.write_held(&mut state).into()
    }

    /// Writes what is held back, which is all that waits. As a rule the socket takes it whole.
    fn write_held(&self, state: &mut MutexGuard<'_, State>) -> Sent {
        let held = mem::take(&mut state.held);
        self.write_through(state, &held, &[])
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
        state.written += written as u64;
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

    /// Queues the close frame behind everything else; nothing can follow it.
    pub(crate) fn seal(&self, close: Bytes) -> Sent {
        let mut state = self.state.lock();
        if state.sealed {
            return Sent::Closed;
        }
        state.release();
        state.push(close);
        state.sealed = true;
        let sent = self.flush_queue(&mut state);
        self.announce_room(state);
        sent
    }

    /// Writes what the socket takes.
    pub(crate) fn flush(&self) -> Flushed {
        self.write_out(self.state.lock()).into()
    }

    /// Writes what the socket takes, and always wakes the senders that wait for the room that this
    /// makes: there may be nothing left for the next flush to announce.
    fn write_out(&self, mut state: MutexGuard<'_, State>) -> Sent {
        state.release();
        let before = state.queued;
        let sent = self.flush_queue(&mut state);
        if state.queued < before || sent == Sent::Closed {
            self.announce_room(state);
        }
        sent
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

    /// The peer takes nothing any more. The reading side finds out how the connection ended.
    fn break_off(&self, state: &mut MutexGuard<'_, State>) {
        state.cut();
        self.room.notify_all();
        mem::take(&mut state.watches)
            .into_iter()
            .for_each(Watch::ring);
    }

    /// Drops everything and lets go of the socket; waiting senders get [`Sent::Closed`].
    pub(crate) fn cut(&self) {
        let mut state = self.state.lock();
        state.cut();
        self.announce_room(state);
    }

    /// From now on, reports to `account` what this outbox holds.
    pub(crate) fn count_in(&self, mut account: Account) {
        let mut state = self.state.lock();
        account.set(state.queued);
        state.account = account;
    }

    /// Gives up what waits, but for a frame that has begun if little of it is left, and queues
    /// `close` behind it. When there is much left the peer gets no close frame.
    pub(crate) fn shed(&self, close: Bytes) {
        let mut state = self.state.lock();
        if state.socket.is_some() {
            if state.shed(close) {
                self.flush_queue(&mut state);
            } else {
                state.cut();
            }
        }
        self.announce_room(state);
    }

    fn announce_room(&self, mut state: MutexGuard<'_, State>) {
        let watches = mem::take(&mut state.watches);
        drop(state);
        self.room.notify_all();
        watches.into_iter().for_each(Watch::ring);
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

    /// Tells `watch` when room has been made or the outbox is closed, which may be now.
    pub(crate) fn watch(&self, watch: Watch) {
        let mut state = self.state.lock();
        if state.sealed || (state.queue.is_empty() && !state.is_reserved(0)) {
            drop(state);
            watch.ring();
        } else {
            state.watches.push(watch);
        }
    }

    /// Forgets a watch whose task has stopped waiting.
    pub(crate) fn unwatch(&self, hub: &Arc<Hub>, token: u64) {
        let mut state = self.state.lock();
        let before = state.watches.len();
        state.watches.retain(|watch| !watch.is(hub, token));
        if state.watches.len() < before && state.reserved.bytes > 0 {
            // Perhaps the room was reserved for this one. Another sender that needs it asks again.
            state.reserved = Reserved::default();
            self.announce_room(state);
        }
    }

    /// Bytes that wait for the socket.
    pub(crate) fn queued(&self) -> usize {
        let state = self.state.lock();
        let control = state.control().map_or(0, |control| control.len());
        state.queued + state.held.len() + control
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
        state.sealed || state.admit(length, self.capacity, false)
    }

    /// True when nothing can follow what is queued now.
    pub(crate) fn is_sealed(&self) -> bool {
        self.state.lock().sealed
    }

    /// True when the socket is gone for sending.
    pub(crate) fn is_cut(&self) -> bool {
        self.state.lock().socket.is_none()
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests {
    use std::{
        io::Read,
        os::{fd::IntoRawFd, unix::net::UnixStream},
        thread,
    };

    use socket2::SockRef;

    use super::*;

    const CAPACITY: usize = 64 * 1024;
    const PATIENCE: Duration = Duration::from_secs(20);

    fn pong(payload: &[u8]) -> Bytes {
        frame::encode(Opcode::Pong, payload)
    }

    /// An outbox whose socket takes little, and the peer that reads what it took.
    fn narrow(capacity: usize) -> (Arc<Outbox>, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        SockRef::from(&ours).set_send_buffer_size(4096).unwrap();
        theirs.set_nonblocking(true).unwrap();
        let socket = Arc::new(Socket::take_over(ours.into_raw_fd()).unwrap());
        (
            Arc::new(Outbox::new(socket, capacity, Bytes::new())),
            theirs,
        )
    }

    /// Sends until no more is taken without waiting; returns what was.
    fn fill(outbox: &Outbox) -> Vec<u8> {
        let payload = [b'x'; 1000];
        let mut sent = Vec::new();
        while outbox.send(Opcode::Binary, &payload, None, || {}).unwrap() != Sent::Full {
            sent.extend_from_slice(&frame::encode(Opcode::Binary, &payload));
        }
        sent
    }

    /// Fills the socket by whole messages: nothing is left in the queue, yet nothing more goes.
    fn fill_socket_only(outbox: &Outbox) {
        while outbox.send(Opcode::Binary, &[], None, || {}).unwrap() == Sent::Written {}
        // The frame of two bytes that did not fit went into the queue whole.
        let mut state = outbox.state.lock();
        state.queue.clear();
        state.queued = 0;
    }

    /// All that the peer can read now.
    fn read_now(peer: &mut UnixStream) -> Vec<u8> {
        let mut bytes = Vec::new();
        let error = peer.read_to_end(&mut bytes);
        assert!(
            error.is_ok() || error.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
        );
        bytes
    }

    /// All that comes until the outbox is empty.
    fn drain(outbox: &Outbox, peer: &mut UnixStream) -> Vec<u8> {
        let mut bytes = read_now(peer);
        while outbox.flush() == Flushed::Blocked {
            bytes.extend(read_now(peer));
        }
        bytes.extend(read_now(peer));
        bytes
    }

    /// Waits until a thread sleeps for room.
    fn await_sleeper(outbox: &Outbox, sender: &thread::JoinHandle<Result<Sent, Error>>) {
        while outbox.room.sleepers() == 0 {
            assert!(!sender.is_finished(), "it did not sleep");
            thread::yield_now();
        }
    }

    fn send_from_a_thread(
        outbox: &Arc<Outbox>,
        size: usize,
    ) -> thread::JoinHandle<Result<Sent, Error>> {
        let outbox = Arc::clone(outbox);
        thread::spawn(move || outbox.send(Opcode::Binary, &vec![b'y'; size], Some(PATIENCE), || {}))
    }

    #[test]
    fn a_message_is_written_at_once_while_nothing_waits() {
        let (outbox, mut peer) = narrow(CAPACITY);
        assert_eq!(
            outbox.send(Opcode::Text, b"hello", None, || {}).unwrap(),
            Sent::Written
        );
        assert_eq!(read_now(&mut peer), b"\x81\x05hello");
        assert_eq!(outbox.queued(), 0);
    }

    #[test]
    fn what_the_socket_does_not_take_waits_and_comes_out_whole_and_in_order() {
        let (outbox, mut peer) = narrow(CAPACITY);
        let sent = fill(&outbox);
        assert!(outbox.queued() > CAPACITY / 2 && outbox.queued() <= CAPACITY);
        assert_eq!(drain(&outbox, &mut peer), sent);
        assert_eq!(outbox.queued(), 0);
    }

    #[test]
    fn an_empty_queue_has_room_for_any_message_even_while_a_ping_waits() {
        let (outbox, _peer) = narrow(10);
        fill_socket_only(&outbox);
        outbox.ping();
        assert_eq!(outbox.queued(), 2);
        let sent = outbox.send(Opcode::Binary, &[0; 100], None, || {}).unwrap();
        assert_eq!(sent, Sent::Queued);
    }

    #[test]
    fn a_message_larger_than_all_room_is_taken_behind_a_pong_and_everybody_hears_when_it_is_out() {
        let (outbox, mut peer) = narrow(10);
        fill_socket_only(&outbox);
        outbox.pong(pong(b"?"));
        let hub = Hub::new().unwrap();
        // There is room at once: only messages use it up.
        outbox.watch(Watch::new(Arc::clone(&hub), 1));
        assert_eq!(hub.drain(), [1]);
        let sent = outbox.send(Opcode::Binary, &[0; 100], Some(Duration::ZERO), || {});
        assert_eq!(sent.unwrap(), Sent::Queued);
        outbox.watch(Watch::new(Arc::clone(&hub), 2));
        let sender = send_from_a_thread(&outbox, 100);
        await_sleeper(&outbox, &sender);
        drain(&outbox, &mut peer);
        assert_eq!(hub.drain(), [2]);
        assert_eq!(sender.join().unwrap().unwrap(), Sent::Written);
    }

    #[test]
    fn what_is_held_leaves_in_one_piece_and_in_its_place() {
        let (outbox, mut peer) = narrow(CAPACITY);
        assert_eq!(outbox.hold(Opcode::Text, b"1"), Held::First);
        assert_eq!(outbox.hold(Opcode::Text, b"2"), Held::More);
        assert_eq!(read_now(&mut peer), b"");
        assert_eq!((outbox.queued(), outbox.is_blocked()), (6, false));
        assert_eq!(
            outbox.send(Opcode::Text, b"3", None, || {}).unwrap(),
            Sent::Written
        );
        assert_eq!(read_now(&mut peer), b"\x81\x011\x81\x012\x81\x013");
        assert_eq!(outbox.hold(Opcode::Text, b"4"), Held::First);
        outbox.ping();
        assert_eq!(read_now(&mut peer), b"\x89\0\x81\x014");
        assert_eq!(outbox.hold(Opcode::Text, b"5"), Held::First);
        assert_eq!(outbox.release(), Flushed::Everything);
        assert_eq!(read_now(&mut peer), b"\x81\x015");
        assert_eq!(outbox.hold(Opcode::Text, b"6"), Held::First);
        outbox.seal(frame::encode(Opcode::Close, b""));
        assert_eq!(read_now(&mut peer), b"\x81\x016\x88\0");
        assert_eq!(outbox.hold(Opcode::Text, b"7"), Held::No);
    }

    #[test]
    fn what_is_held_and_does_not_fit_into_the_socket_waits_like_all_else() {
        let (outbox, mut peer) = narrow(CAPACITY);
        assert_eq!(outbox.hold(Opcode::Binary, &[b'x'; 10_000]), Held::First);
        assert_eq!(outbox.release(), Flushed::Blocked);
        assert!(outbox.is_blocked());
        assert_eq!(outbox.hold(Opcode::Binary, b"y"), Held::No);
        let came = drain(&outbox, &mut peer);
        assert_eq!(came, *frame::encode(Opcode::Binary, &[b'x'; 10_000]));
    }

    #[test]
    fn a_sender_out_of_patience_learns_the_limit_and_leaves_nothing_behind() {
        let (outbox, mut peer) = narrow(CAPACITY);
        let sent = fill(&outbox);
        let patience = Some(Duration::from_millis(1));
        let error = outbox
            .send(Opcode::Text, &[b'z'; 1000], patience, || {})
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "the client took nothing for 0.0 s while 65536 bytes were waiting for it"
        );
        assert_eq!(drain(&outbox, &mut peer), sent);
    }

    #[test]
    fn a_sleeping_sender_is_woken_whoever_makes_the_room() {
        let makers: [fn(&Outbox); 3] = [
            |outbox| {
                outbox.flush();
            },
            |outbox| outbox.pong(pong(b"")),
            Outbox::ping,
        ];
        for make_room in makers {
            let (outbox, mut peer) = narrow(2000);
            fill(&outbox);
            let sender = send_from_a_thread(&outbox, 1000);
            await_sleeper(&outbox, &sender);
            read_now(&mut peer);
            make_room(&outbox);
            let sent = sender.join().unwrap();
            assert!(matches!(sent, Ok(Sent::Written | Sent::Queued)), "{sent:?}");
        }
    }

    #[test]
    fn a_sleeping_sender_is_woken_by_the_seal_and_by_the_cut() {
        let enders: [fn(&Outbox); 2] = [
            |outbox| {
                outbox.seal(frame::encode(Opcode::Close, b""));
            },
            Outbox::cut,
        ];
        for end in enders {
            let (outbox, _peer) = narrow(2000);
            fill(&outbox);
            let sender = send_from_a_thread(&outbox, 1000);
            await_sleeper(&outbox, &sender);
            end(&outbox);
            assert_eq!(sender.join().unwrap().unwrap(), Sent::Closed);
        }
    }

    #[test]
    fn a_peer_that_hung_up_ends_the_outbox_and_wakes_the_sleeping() {
        let (outbox, peer) = narrow(2000);
        fill(&outbox);
        let sender = send_from_a_thread(&outbox, 1000);
        await_sleeper(&outbox, &sender);
        drop(peer);
        assert_eq!(outbox.flush(), Flushed::Everything);
        assert_eq!(sender.join().unwrap().unwrap(), Sent::Closed);
        assert!(outbox.is_cut());
        assert_eq!(outbox.queued(), 0);
    }

    #[test]
    fn control_frames_overtake_messages_that_have_not_begun_and_never_cut_into_one() {
        let (outbox, mut peer) = narrow(CAPACITY);
        let sent = fill(&outbox);
        outbox.ping();
        outbox.ping();
        outbox.pong(pong(b"1"));
        outbox.pong(pong(b"22"));
        let came = drain(&outbox, &mut peer);
        assert_eq!(came.len(), sent.len() + 2 + 4);
        let frame = sent.len() / (sent.len() / 1004);
        let at = came
            .windows(4)
            .position(|bytes| bytes == b"\x8a\x0222")
            .unwrap();
        assert_eq!(at % frame, 0);
        assert!(at < sent.len());
        assert_eq!(came[at + 4..at + 6], *b"\x89\0");
    }

    #[test]
    fn a_flood_of_pings_leaves_one_pong() {
        let (outbox, mut peer) = narrow(CAPACITY);
        fill_socket_only(&outbox);
        let before = read_now(&mut peer).len();
        assert!(before > 0);
        fill_socket_only(&outbox);
        for count in 0..100_000_u32 {
            outbox.pong(pong(&count.to_be_bytes()));
        }
        assert_eq!(outbox.queued(), 6);
        let came = drain(&outbox, &mut peer);
        assert_eq!(came[came.len() - 4..], 99_999_u32.to_be_bytes());
    }

    #[test]
    fn the_close_frame_comes_last_and_only_once() {
        let (outbox, mut peer) = narrow(CAPACITY);
        let mut sent = fill(&outbox);
        let close = frame::encode(Opcode::Close, b"\x03\xe8");
        sent.extend_from_slice(&close);
        assert_eq!(outbox.seal(close.clone()), Sent::Queued);
        assert_eq!(outbox.seal(close), Sent::Closed);
        outbox.ping();
        outbox.pong(pong(b"late"));
        assert_eq!(
            outbox.send(Opcode::Text, b"late", None, || {}).unwrap(),
            Sent::Closed
        );
        assert_eq!(drain(&outbox, &mut peer), sent);
    }

    #[test]
    fn a_watch_rings_once_when_there_is_room_or_nothing_to_wait_for() {
        let hub = Hub::new().unwrap();
        let watch = |token| Watch::new(Arc::clone(&hub), token);
        let (outbox, mut peer) = narrow(2000);
        outbox.watch(watch(1));
        assert_eq!(hub.drain(), [1]);
        fill(&outbox);
        outbox.watch(watch(2));
        outbox.flush();
        assert!(hub.drain().is_empty());
        drain(&outbox, &mut peer);
        assert_eq!(hub.drain(), [2]);
        fill(&outbox);
        outbox.watch(watch(3));
        read_now(&mut peer);
        outbox.pong(pong(b""));
        assert_eq!(hub.drain(), [3]);
        fill(&outbox);
        outbox.watch(watch(6));
        outbox.unwatch(&hub, 6);
        outbox.watch(watch(4));
        outbox.cut();
        outbox.watch(watch(5));
        assert_eq!(hub.drain(), [4, 5]);
    }
}

//! A connection that another server carries: an ASGI server keeps its client, and speaks the frames.
//!
//! A task of that server's event loop moves messages. It hands over those that come, which wait here
//! as the frames of a client until the driver takes them in, and takes those that go out, which the
//! outbox writes here in place of a socket. A token on the loop's hub wakes it.

use std::{
    io::{self, IoSlice},
    sync::Arc,
};

use super::{end::End, settings::Settings};
use crate::{
    engine::{
        base::sync::Mutex,
        resources::{budget::Account, socket::Carriage},
        wakeup::hub::Hub,
    },
    protocol::{
        client::Reader,
        close::CloseFrame,
        frame::{self, Opcode},
        message::{Kind, Message},
    },
};

/// Bytes that wait for the task before the outbox has to wait. A single write may be larger.
const MAX_WAITING_BYTES: usize = 16 * 1024;
/// The same for messages that wait for the driver.
const MAX_BROUGHT_BYTES: usize = 64 * 1024;
const MAX_BROUGHT_MESSAGES: usize = 32;
/// A message that the server is about to send is waited for up to this size when all else is dropped.
const MAX_REST_BYTES: usize = 64 * 1024;

/// An event that a server is to send.
#[derive(Debug, PartialEq, Eq)]
pub enum Outgoing {
    /// A message.
    Message(Message),
    /// The close, which is the last.
    Close(CloseFrame),
}

/// The part of a connection between its driver, its outbox and the server's task.
#[derive(Debug)]
pub(crate) struct Carrier {
    hub: Arc<Hub>,
    token: u64,
    max_waiting: usize,
    max_message_bytes: usize,
    /// Only the driver knows whether the client may send now.
    is_metered: bool,
    state: Mutex<State>,
}

#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own: of the task, the driver, or the server"
)]
#[derive(Debug, Default)]
struct State {
    /// Whole frames for the client.
    out: Reader,
    /// Their bytes.
    waiting: usize,
    /// Bytes of the message that the server has been given and has not taken yet.
    under_way: usize,
    /// Bytes in the server's own buffers, as far as it tells.
    in_server: usize,
    /// The task has found nothing to send.
    is_idle: bool,
    /// Frames of the client.
    brought: Vec<u8>,
    /// The number of their messages, and the bytes of these.
    messages: usize,
    bytes: usize,
    /// The driver has taken some, and has not passed all of them on.
    in_hand: bool,
    /// The task waits for room to bring more.
    awaits_room: bool,
    /// The server takes no more: frames for it are dropped.
    is_broken: bool,
    /// How the client has gone.
    left: Option<End>,
    /// The connection has no driver any more.
    is_over: bool,
    account: Account,
}

impl State {
    fn count(&mut self) {
        let held = self.waiting + self.under_way + self.in_server + self.brought.len();
        self.account.set(held);
    }

    fn drop_waiting(&mut self) {
        self.out = Reader::default();
        self.waiting = 0;
    }

    /// The next frame that is for the server.
    fn next(&mut self) -> Option<Outgoing> {
        while let Ok(Some(frame)) = self.out.next_frame() {
            let length = frame::head(Opcode::Binary, frame.payload.len()).len();
            self.under_way = length + frame.payload.len();
            self.waiting = self.waiting.saturating_sub(self.under_way);
            if self.waiting == 0 {
                // Its memory belongs to the payload alone from now on.
                self.out = Reader::default();
            }
            let kind = match frame.opcode {
                opcode if opcode == Opcode::Text as u8 => Kind::Text,
                opcode if opcode == Opcode::Binary as u8 => Kind::Binary,
                opcode if opcode == Opcode::Close as u8 => {
                    let frame = CloseFrame::parse(&frame.payload);
                    return Some(Outgoing::Close(frame.unwrap_or_default()));
                }
                _ => continue,
            };
            return Some(Outgoing::Message(Message {
                kind,
                payload: frame.payload,
            }));
        }
        self.under_way = 0;
        None
    }
}

impl Carrier {
    /// A carrier whose task has `token` on the list of `hub` when there is something for it.
    pub(crate) fn new(hub: Arc<Hub>, token: u64, settings: &Settings) -> Arc<Self> {
        let rates = settings.rates;
        Arc::new(Self {
            hub,
            token,
            max_waiting: settings.send_buffer_bytes.min(MAX_WAITING_BYTES),
            max_message_bytes: settings.limits.max_message_bytes,
            is_metered: rates.messages.is_some() || rates.bytes.is_some(),
            state: Mutex::new(State::default()),
        })
    }

    /// From now on, reports to `account` how many bytes are held here.
    pub(crate) fn count_in(&self, account: Account) {
        self.state.lock().account = account;
    }

    /// Takes what the task has brought: frames of a client.
    pub(crate) fn take_brought(&self) -> Vec<u8> {
        let mut state = self.state.lock();
        (state.messages, state.bytes) = (0, 0);
        state.in_hand = true;
        let brought = std::mem::take(&mut state.brought);
        state.count();
        brought
    }

    /// Notes that the driver has passed on all that it has taken.
    pub(crate) fn empty_hand(&self) {
        self.state.lock().in_hand = false;
    }

    /// Whether a message may go to the inbox past the driver, which has no part in it.
    pub(super) fn may_pass(&self, length: usize) -> bool {
        let state = self.state.lock();
        let is_first = state.brought.is_empty() && !state.in_hand;
        is_first && !self.is_metered && length <= self.max_message_bytes && state.left.is_none()
    }

    /// Whether the task has brought something.
    pub(crate) fn has_brought(&self) -> bool {
        !self.state.lock().brought.is_empty()
    }

    /// How the client has gone, if it has.
    pub(crate) fn left(&self) -> Option<End> {
        self.state.lock().left.clone()
    }

    /// Whether the client's end may still be found, though nothing can be sent any more.
    pub(crate) fn awaits_end(&self) -> bool {
        let state = self.state.lock();
        state.is_broken && state.left.is_none()
    }

    /// Notes that the driver is gone.
    pub(crate) fn end(&self) {
        let mut state = self.state.lock();
        state.is_over = true;
        state.is_broken = true;
        state.brought = Vec::new();
        state.drop_waiting();
        (state.under_way, state.in_server) = (0, 0);
        state.count();
        drop(state);
        self.wake();
    }

    /// Takes a message of the client, as a frame.
    pub(super) fn put(&self, kind: Kind, payload: &[u8]) {
        let mut state = self.state.lock();
        let most = self.max_message_bytes;
        frame::append_as_client(&mut state.brought, kind.into(), payload, most);
        state.messages += 1;
        state.bytes += payload.len();
        state.count();
    }

    /// Notes that the task waits for room. Returns the number and the bytes of the messages that
    /// wait here; `None` when there are too many already.
    pub(super) fn await_room(&self) -> Option<(usize, usize)> {
        let mut state = self.state.lock();
        state.awaits_room = true;
        let has_place = state.messages < MAX_BROUGHT_MESSAGES && state.bytes < MAX_BROUGHT_BYTES;
        has_place.then_some((state.messages, state.bytes))
    }

    /// Whether the task waits for room.
    pub(super) fn awaits_room(&self) -> bool {
        self.state.lock().awaits_room
    }

    /// Notes that there is room.
    pub(super) fn on_room(&self) {
        self.state.lock().awaits_room = false;
    }

    /// The next frame for the server, which has taken the one before.
    pub(super) fn next(&self) -> Option<Outgoing> {
        let mut state = self.state.lock();
        let next = state.next();
        state.count();
        next
    }

    /// Notes that the task goes to sleep; false when there is something for it.
    pub(super) fn sleep(&self) -> bool {
        let mut state = self.state.lock();
        state.is_idle = state.waiting == 0;
        state.is_idle
    }

    /// Notes the bytes in the server's own buffers.
    pub(super) fn note_in_server(&self, bytes: usize) {
        let mut state = self.state.lock();
        // After the end no call takes these bytes off the count.
        if !state.is_over {
            state.in_server = bytes;
            state.count();
        }
    }

    /// Notes how the client has gone.
    pub(super) fn leave(&self, end: End) {
        let mut state = self.state.lock();
        state.left.get_or_insert(end);
        state.is_broken = true;
        state.drop_waiting();
        state.count();
    }

    /// Whether the driver is gone.
    pub(super) fn is_over(&self) -> bool {
        self.state.lock().is_over
    }

    /// Wakes the task.
    pub(super) fn wake(&self) {
        self.hub.announce(self.token);
    }
}

impl Carriage for Carrier {
    fn send(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let length = slices.iter().map(|slice| slice.len()).sum();
        let mut state = self.state.lock();
        if state.is_broken {
            return Ok(length);
        }
        let held = state.waiting + state.under_way;
        if held > 0 && held + length > self.max_waiting {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        for slice in slices {
            state.out.feed(slice);
        }
        state.waiting += length;
        state.count();
        let wakes = std::mem::take(&mut state.is_idle);
        drop(state);
        if wakes {
            self.wake();
        }
        Ok(length)
    }

    fn held(&self) -> usize {
        let state = self.state.lock();
        state.waiting + state.under_way
    }

    fn shed(&self) -> bool {
        let mut state = self.state.lock();
        if state.waiting > self.max_waiting {
            // A single write: a close frame waits in the outbox.
            state.drop_waiting();
            state.count();
        }
        state.under_way.max(state.in_server) <= MAX_REST_BYTES
    }

    fn hang_up(&self) {
        self.state.lock().is_broken = true;
    }
}

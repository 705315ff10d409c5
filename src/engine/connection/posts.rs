//! Messages that come beside the connection: by POST, where the client has no WebSocket.
//!
//! Each POST has the next number, so that one which a client repeats is taken once. Its messages wait
//! here as the frames of a WebSocket client, and the driver takes them in by the rules for these.

use parking_lot::Mutex;

use super::settings::Settings;
use crate::{
    engine::resources::budget::Account,
    protocol::{
        frame::{self, Opcode},
        message::Kind,
    },
};

/// What has become of a post.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Posted {
    /// It is taken, or was before.
    Taken,
    /// The view is behind: the client has to send it again later.
    Busy,
    /// A message is larger than allowed, and the connection is closed for it.
    TooLarge,
    /// The connection has ended.
    Over,
    /// Posts before it are missing.
    Gap,
}

/// A part of a post.
#[derive(Clone, Copy, Debug)]
pub enum Part<'a> {
    /// A message.
    Message(Kind, &'a [u8]),
    /// The client closes: code and reason.
    Close(Option<u16>, &'a str),
}

impl Part<'_> {
    /// Whether this is a message of more than `limit` bytes.
    fn is_larger_than(&self, limit: usize) -> bool {
        matches!(self, Self::Message(_, payload) if payload.len() > limit)
    }

    fn append(&self, frames: &mut Vec<u8>) {
        match self {
            Self::Message(kind, payload) => {
                frame::append_as_client(frames, Opcode::from(*kind), payload);
            }
            Self::Close(code, reason) => {
                // A reason goes with a code only.
                let payload = code.map_or_else(Vec::new, |code| {
                    [&code.to_be_bytes(), reason.as_bytes()].concat()
                });
                frame::append_as_client(frames, Opcode::Close, &payload);
            }
        }
    }
}

/// The posts of one connection.
#[derive(Debug)]
pub(crate) struct Posts {
    pub(super) max_message_bytes: usize,
    /// A further post waits as long as so many bytes do.
    capacity: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The number of the last one.
    last: u64,
    /// Frames that the driver has not taken yet.
    frames: Vec<u8>,
    account: Account,
}

impl Posts {
    pub(super) fn new(settings: &Settings, account: Account) -> Self {
        Self {
            max_message_bytes: settings.limits.max_message_bytes,
            capacity: settings.receive_buffer_bytes,
            state: Mutex::new(State {
                last: 0,
                frames: Vec::new(),
                account,
            }),
        }
    }

    /// Puts a post in, unless it is one that came before.
    pub(super) fn put(&self, number: u64, parts: &[Part<'_>]) -> Posted {
        let mut state = self.state.lock();
        if number <= state.last {
            return Posted::Taken;
        }
        if number > state.last + 1 {
            return Posted::Gap;
        }
        if (parts.iter()).any(|part| part.is_larger_than(self.max_message_bytes)) {
            return Posted::TooLarge;
        }
        if state.frames.len() > self.capacity {
            return Posted::Busy;
        }
        for part in parts {
            part.append(&mut state.frames);
        }
        state.last = number;
        let length = state.frames.len();
        state.account.set(length);
        Posted::Taken
    }

    /// Takes the frames that wait; `None` when there are none.
    pub(crate) fn take(&self) -> Option<Vec<u8>> {
        let mut state = self.state.lock();
        state.account.set(0);
        let frames = std::mem::take(&mut state.frames);
        (!frames.is_empty()).then_some(frames)
    }
}

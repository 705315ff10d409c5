//! Messages that come beside the connection: by POST, where the client has no WebSocket.
//!
//! Each POST has the next number, so that one which a client repeats is taken once. Its body is read
//! and validated as a [`PostBody`]; its messages wait here as the frames of a WebSocket client, and the
//! driver takes them in by the rules for these.

use parking_lot::Mutex;

use super::settings::Settings;
use crate::{
    engine::resources::budget::{Account, Share},
    protocol::post::{self, Post, Refusal},
};

/// The memory that a body takes in the end, in times of its size: itself, its frames, and the one
/// message that is being decoded.
const COPIES: usize = 3;

/// Bytes that may come behind a request whose response waits. A client sends a further request there
/// at most, which gets no answer.
pub(crate) const MOST_BEHIND_REQUEST: usize = 64 * 1024;

/// The outcome of a post.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Posted {
    /// It is taken, or was before.
    Taken,
    /// The view is behind: the client has to send it again later.
    Busy,
    /// The connection has ended.
    Over,
    /// Posts before it are missing.
    Gap,
}

/// The body of a post as it comes in. It counts among the bytes that the process buffers.
#[derive(Debug)]
pub struct PostBody {
    bytes: Vec<u8>,
    max_message_bytes: usize,
    account: Account,
}

/// A post that is validated, which counts as well.
#[derive(Debug)]
pub struct PostRead {
    /// Its content.
    pub post: Post,
    _account: Account,
}

/// Why a body is not taken.
#[derive(Debug, PartialEq, Eq)]
pub enum NotTaken {
    /// It is wrong.
    Refused(Refusal),
    /// The process buffers too much as it is: the client has to send it again later.
    NoRoom,
}

impl PostBody {
    /// A body of which nothing has come yet.
    pub fn new(max_message_bytes: usize) -> Self {
        Self {
            bytes: Vec::new(),
            max_message_bytes,
            account: Account::of(&Share::new()),
        }
    }

    /// Takes in what has come.
    ///
    /// # Errors
    /// It is larger than a body may be, or there is no room for it.
    pub fn take_in(&mut self, chunk: &[u8]) -> Result<(), NotTaken> {
        let length = self.bytes.len().saturating_add(chunk.len());
        if length > post::max_bytes(self.max_message_bytes) {
            return Err(NotTaken::Refused(Refusal::TooMuch("it is too large")));
        }
        if !self.account.try_set(length.saturating_mul(COPIES)) {
            return Err(NotTaken::NoRoom);
        }
        self.bytes.extend_from_slice(chunk);
        Ok(())
    }

    /// Validates the whole body.
    ///
    /// # Errors
    /// [`NotTaken::Refused`].
    pub fn read(mut self) -> Result<PostRead, NotTaken> {
        let post = post::parse(&self.bytes, self.max_message_bytes).map_err(NotTaken::Refused)?;
        self.account.set(post.frames.len());
        Ok(PostRead {
            post,
            _account: self.account,
        })
    }
}

/// The posts of one connection.
#[derive(Debug)]
pub(crate) struct Posts {
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
            capacity: settings.receive_buffer_bytes,
            state: Mutex::new(State {
                last: 0,
                frames: Vec::new(),
                account,
            }),
        }
    }

    /// Puts the frames of a post in, unless it is one that came before.
    pub(super) fn put(&self, number: u64, frames: &[u8]) -> Posted {
        let mut state = self.state.lock();
        if number <= state.last {
            return Posted::Taken;
        }
        if number > state.last + 1 {
            return Posted::Gap;
        }
        if state.frames.len() > self.capacity {
            return Posted::Busy;
        }
        state.frames.extend_from_slice(frames);
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

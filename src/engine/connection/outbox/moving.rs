//! An outbox whose socket another process writes to, or did so before.

use std::{io, mem, sync::Arc};

use bytes::Bytes;

use super::{Outbox, outcome::Sent, queue::State};
use crate::{
    engine::resources::descriptor::Owned,
    protocol::{close::CloseFrame, frame::Opcode},
};

impl Outbox {
    /// From now on keeps what is sent, until [`Outbox::release`].
    pub(crate) fn hold(&self) {
        self.state.lock().is_held = true;
    }

    /// Whether it keeps what is sent.
    pub(crate) fn is_held(&self) -> bool {
        self.state.lock().is_held
    }

    /// Writes `unsent`, then what was kept, and from now on all at once.
    pub(crate) fn release(&self, unsent: Vec<u8>) -> Sent {
        let mut state = self.state.lock();
        state.is_held = false;
        if let Some(socket) = &state.socket {
            socket.keep();
        }
        if !unsent.is_empty() && state.socket.is_some() {
            state.queued += unsent.len();
            let queued = state.queued;
            state.account.set(queued);
            state.queue.push_front(Bytes::from(unsent).into());
            // Its first frame may have begun.
            state.mid_frame = true;
        }
        self.write_out(state)
    }

    /// Stops writing, and copies what is unsent. Nothing can be sent any more. `None` when that is so
    /// already.
    ///
    /// # Errors
    /// The system has no descriptor left; nothing has changed.
    pub(crate) fn give(&self) -> io::Result<Option<(Owned, Vec<u8>)>> {
        let mut state = self.state.lock();
        let socket = match &state.socket {
            Some(socket) if !state.sealed => Arc::clone(socket),
            _ => return Ok(None),
        };
        let client = socket.share()?;
        // It may end here meanwhile, and stays open there.
        socket.let_go();
        state.queue_corked();
        let unsent = state.unsent();
        (state.is_held, state.is_given, state.sealed) = (true, true, true);
        self.announce_room(state);
        Ok(Some((client, unsent)))
    }

    /// Undoes [`Outbox::give`], and queues a close frame after all else. A connection that was shed
    /// meanwhile has one already, or ends without: the rest of a frame that had begun is gone.
    pub(crate) fn take_back(&self, close: &CloseFrame) {
        let mut state = self.state.lock();
        state.is_held = false;
        if let Some(socket) = &state.socket {
            socket.keep();
        }
        if mem::take(&mut state.is_given) {
            state.sealed = false;
            drop(state);
            self.seal(close);
        } else if state.mid_frame && state.queue.is_empty() {
            state.cut();
        }
    }

    /// Drops everything, and leaves the socket to the process that has it now.
    pub(crate) fn let_go(&self) {
        let mut state = self.state.lock();
        if let Some(socket) = &state.socket {
            socket.let_go();
        }
        state.cut();
        self.announce_room(state);
    }
}

impl State {
    /// All that waits, in the order in which it would be written.
    fn unsent(&self) -> Vec<u8> {
        let pong = self.pong.clone();
        let ping = || self.framing.frame(Opcode::Ping, &[]).into_bytes();
        let control = pong.into_iter().chain(self.ping.then(ping));
        // A frame that has begun goes on first.
        let begun = usize::from(self.mid_frame);
        let parts = |from, most| {
            let parts = self.queue.iter().skip(from).take(most);
            parts.map(|queued| queued.bytes.clone())
        };
        let all: Vec<_> = parts(0, begun)
            .chain(control)
            .chain(parts(begun, usize::MAX))
            .collect();
        all.concat()
    }
}

//! Giving a connection to another process, which goes on with it.
//!
//! The driver stands still first, at a boundary of messages if the peer compresses: from then on
//! nothing is read, and the outbox keeps what is sent. What the other process needs is copied, and
//! nothing is lost before it has said that it goes on: then this connection *parts*, or it is *taken
//! back*. In the other process the outbox keeps what is sent, too, until the giver knows that.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

pub use super::stage::{Incoming, Pulse};
use super::{Connection, End, Initiator, settings::Transport, stage::Stage};
use crate::{
    engine::{base::clock, resources::descriptor::Owned, wakeup::hub::Hub},
    protocol::{
        close::{self, CloseFrame},
        deflate::Agreement,
        message::Message,
    },
};

/// The parts of a connection that another process goes on with.
#[derive(Debug)]
pub struct Parts {
    /// A descriptor of the socket.
    pub client: Owned,
    /// Received bytes, and the keepalive.
    pub incoming: Incoming,
    /// Bytes to be written before all others: whole frames, and the rest of one that has begun.
    pub unsent: Vec<u8>,
    /// Messages that its view has not taken.
    pub unread: Vec<Message>,
}

/// The answer of [`Connection::stand_still`] to a driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It goes on.
    Running,
    /// It does nothing until it is woken.
    Still,
    /// It ends, and leaves the socket as it is.
    Gone,
}

impl Connection {
    /// Whether another process could go on with it: it has a socket of its own, and no window of
    /// compressed messages.
    pub fn is_movable(&self) -> bool {
        let has_socket = matches!(self.transport, Transport::WebSocket) && !self.is_carried();
        let keeps_window = |agreement: Agreement| {
            !(agreement.server_no_context_takeover && agreement.client_no_context_takeover)
        };
        has_socket && !self.is_foreign() && !self.agreement.is_some_and(keeps_window)
    }

    /// The parameters of its compression.
    pub fn agreement(&self) -> Option<Agreement> {
        self.agreement
    }

    /// Leaves it out of the closes of a drain: it is to move, or is closed by the caller.
    pub fn spare(&self) {
        self.is_spared
            .store(true, std::sync::atomic::Ordering::SeqCst);
    }

    pub(super) fn is_spared(&self) -> bool {
        self.is_spared.load(std::sync::atomic::Ordering::SeqCst)
    }

    /// Has it stand still soon, so that [`Connection::give_away`] need not wait for that. It goes on
    /// by [`Connection::go_on`].
    pub fn halt(&self) {
        if self.is_movable() && !self.is_ending() {
            self.ask(&mut self.moving.get_or_init(Box::default).stage.lock());
        }
    }

    fn ask(&self, stage: &mut Stage) {
        if matches!(stage, Stage::Here) {
            *stage = Stage::Asked;
            self.wake.notify_one();
        }
    }

    /// Whether it stands still, and [`Connection::give_away`] does not wait.
    pub fn is_still(&self) -> bool {
        let moving = self.moving.get();
        moving.is_some_and(|moving| matches!(*moving.stage.lock(), Stage::Still(_)))
    }

    /// Takes back [`Connection::halt`].
    pub fn go_on(&self) {
        if let Some(moving) = self.moving.get() {
            let mut stage = moving.stage.lock();
            if matches!(*stage, Stage::Asked | Stage::Still(_)) {
                *stage = Stage::Here;
                self.wake.notify_one();
            }
        }
    }

    /// Has it stand still, which takes `patience` at most, and copies its parts. From then on nothing
    /// can be sent, until [`Connection::part`] or [`Connection::take_back`].
    ///
    /// `None` when it ends, cannot be moved, or cannot stand still in time: then it goes on.
    ///
    /// # Errors
    /// The system has no descriptor left. The connection goes on.
    pub fn give_away(&self, patience: Duration) -> io::Result<Option<Parts>> {
        if !self.is_movable() {
            return Ok(None);
        }
        let Some(incoming) = self.await_still(clock::now().checked_add(patience)) else {
            self.go_on();
            return Ok(None);
        };
        let unread = self.inbox.waiting_messages();
        let given = self.outbox.give();
        match given {
            Ok(Some((client, unsent))) => Ok(Some(Parts {
                client,
                incoming,
                unsent,
                unread,
            })),
            Ok(None) => {
                self.restore();
                Ok(None)
            }
            Err(error) => {
                self.restore();
                Err(error)
            }
        }
    }

    fn await_still(&self, deadline: Option<Instant>) -> Option<Incoming> {
        if self.is_ending() {
            // Its driver may be gone.
            return None;
        }
        let moving = self.moving.get_or_init(Box::default);
        let mut stage = moving.stage.lock();
        self.ask(&mut stage);
        let is_asked = |stage: &Stage| matches!(stage, Stage::Asked);
        let mut stage = moving.changed.wait_while(stage, deadline, is_asked);
        match std::mem::replace(&mut *stage, Stage::Given) {
            Stage::Still(incoming) => Some(incoming),
            other => {
                *stage = other;
                None
            }
        }
    }

    fn restore(&self) {
        self.set_stage(Stage::Here);
        self.wake.notify_one();
    }

    fn set_stage(&self, next: Stage) {
        if let Some(moving) = self.moving.get() {
            let mut stage = moving.stage.lock();
            *stage = next;
            drop(stage);
            moving.changed.notify_all();
        }
    }

    /// Ends it here without a word to its peer, which another process serves from now on.
    pub fn part(&self) {
        self.begin_end(End::new(
            Initiator::Local,
            close::SERVICE_RESTART,
            "handed over",
        ));
        self.inbox.discard();
        self.set_stage(Stage::Gone);
        self.outbox.let_go();
        self.wake.notify_one();
    }

    /// Goes on with a connection that was given away, to close it with `frame`: no other process has
    /// it.
    pub fn take_back(&self, frame: &CloseFrame) {
        self.begin_end(End::by_frame(Initiator::Local, frame));
        self.outbox.take_back(frame);
        self.inbox.end();
        self.restore();
    }

    /// Lets a connection that came from another process send: first the `unsent` bytes, whose frame
    /// may have begun, then what was sent since.
    pub fn release(&self, unsent: Vec<u8>) {
        self.outbox.release(unsent);
        self.wake.notify_one();
    }

    /// Puts messages into the inbox that another process has received and not handed over.
    pub(crate) fn put_unread(self: &Arc<Self>, mut unread: Vec<Message>) {
        self.deliver(&mut unread);
    }

    /// Removes the watch for messages of `token` on the list of `hub`; false if there is none, or it
    /// was notified.
    pub fn unlisten(&self, hub: &Arc<Hub>, token: u64) -> bool {
        !self.is_foreign() && self.inbox.unwatch(hub, token)
    }

    /// Notifies the watch for messages of `token` on the list of `hub`, as if one had come. Does
    /// nothing if there is no such watch.
    pub fn rouse(&self, hub: &Arc<Hub>, token: u64) {
        if !self.is_foreign() {
            self.inbox.rouse(hub, token);
        }
    }

    /// Whether the driver has to call [`Connection::stand_still`]: a move was begun.
    pub(crate) fn has_move(&self) -> bool {
        self.moving.get().is_some()
    }

    /// Tells what the driver is to do. `incoming` gives the bytes that it has read and not taken in,
    /// and its keepalive; `None` if it cannot stop here.
    pub(crate) fn stand_still(&self, incoming: impl FnOnce() -> Option<Incoming>) -> Standing {
        let Some(moving) = self.moving.get() else {
            return Standing::Running;
        };
        // Before the lock: it is taken under no other one.
        let is_ending = self.is_ending();
        let mut stage = moving.stage.lock();
        match *stage {
            Stage::Here => Standing::Running,
            Stage::Still(_) | Stage::Given => Standing::Still,
            Stage::Gone => Standing::Gone,
            Stage::Asked => {
                let next = if is_ending {
                    Stage::Here
                } else if let Some(incoming) = incoming() {
                    Stage::Still(incoming)
                } else {
                    return Standing::Running;
                };
                let is_still = matches!(next, Stage::Still(_));
                *stage = next;
                drop(stage);
                moving.changed.notify_all();
                if is_still {
                    Standing::Still
                } else {
                    Standing::Running
                }
            }
        }
    }

    /// To be called when the driver ends: nobody waits for it any more.
    pub(crate) fn end_move(&self) {
        if let Some(moving) = self.moving.get() {
            let mut stage = moving.stage.lock();
            if matches!(*stage, Stage::Asked) {
                *stage = Stage::Here;
            }
            drop(stage);
            moving.changed.notify_all();
        }
    }
}

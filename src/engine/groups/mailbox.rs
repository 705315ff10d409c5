//! The messages of groups for what is no connection: channels, and what processes tell each other.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use parking_lot::Mutex;

use super::{
    member::{Handed, Member, WhenFull},
    memberships::Memberships,
    message::Delivery,
};
use crate::{
    engine::{
        base::fork,
        wakeup::hub::{Hub, Watch},
    },
    protocol::{close::CloseFrame, message::Kind},
};

/// A bounded queue of messages, which wakes the event loop that takes them.
#[derive(Debug)]
pub struct Mailbox {
    memberships: Memberships,
    state: Mutex<State>,
    capacity: usize,
    hub: Arc<Hub>,
    token: u64,
    generation: u64,
}

#[derive(Debug, Default)]
struct State {
    messages: VecDeque<(Kind, Bytes)>,
    bytes: usize,
}

impl Mailbox {
    /// A mailbox for up to `capacity` bytes that announces `token` on `hub` when something comes
    /// into it while it is empty. It drops what has no room, and stays when the group's members are
    /// closed.
    pub fn new(capacity: usize, hub: Arc<Hub>, token: u64) -> Arc<Self> {
        Arc::new(Self {
            memberships: Memberships::default(),
            state: Mutex::default(),
            capacity,
            hub,
            token,
            generation: fork::generation(),
        })
    }

    /// Takes the oldest message.
    pub fn pop(&self) -> Option<(Kind, Bytes)> {
        let mut state = self.state.lock();
        let message = state.messages.pop_front();
        if let Some((_, payload)) = &message {
            state.bytes -= payload.len();
        }
        message
    }

    /// Leaves all groups, for good.
    pub fn end(&self) {
        self.memberships.end();
        *self.state.lock() = State::default();
    }
}

impl State {
    /// Makes room for `length` bytes by dropping messages; returns how many. `None`: there is none.
    fn make_room(&mut self, length: usize, capacity: usize, when_full: WhenFull) -> Option<u64> {
        let mut dropped = 0;
        let fits = |state: &Self| state.messages.is_empty() || state.bytes + length <= capacity;
        while !fits(self) {
            match when_full {
                WhenFull::Close | WhenFull::DropNewest => return None,
                WhenFull::DropOldest => {
                    if let Some((_, payload)) = self.messages.pop_front() {
                        self.bytes -= payload.len();
                        dropped += 1;
                    }
                }
                WhenFull::KeepLatest => {
                    dropped += self.messages.len() as u64;
                    self.messages.clear();
                    self.bytes = 0;
                }
            }
        }
        Some(dropped)
    }
}

impl Member for Mailbox {
    fn is_foreign(&self) -> bool {
        self.generation != fork::generation()
    }

    fn memberships(&self) -> &Memberships {
        &self.memberships
    }

    fn take(&self, delivery: &Delivery, when_full: WhenFull, _: bool) -> Handed {
        let mut handed = Handed::default();
        let mut state = self.state.lock();
        let was_empty = state.messages.is_empty();
        for message in delivery.messages() {
            let payload = message.payload();
            match state.make_room(payload.len(), self.capacity, when_full) {
                Some(dropped) => {
                    state.bytes += payload.len();
                    state.messages.push_back((message.kind(), payload));
                    handed.delivered += 1;
                    handed.dropped += dropped;
                }
                None => handed.dropped += 1,
            }
        }
        handed.owes_loss = handed.dropped > 0;
        drop(state);
        if was_empty {
            Watch::new(Arc::clone(&self.hub), self.token).notify();
        }
        handed
    }

    fn close(&self, _frame: &CloseFrame) {}
}

//! A connection in one room: a member of the room's group under the name that its client knows.
//!
//! A connection has a seat in each room, so one connection may be in a group under two names. What
//! comes while the seat is *held* waits: the client gets the answer to its join first. A seat ends
//! with its connection, when it is left, and when its user is evicted.

use std::sync::{
    Arc, Weak,
    atomic::{AtomicBool, Ordering},
};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;

use super::{
    member::{Eviction, Handed, Member, WhenFull},
    memberships::{Joined, MemberId, Membership, Memberships},
    message::{Delivery, Message},
    numbered,
    passage::Passage,
};
use crate::{
    engine::history::Position,
    protocol::{close::CloseFrame, deflate::Deflater, message::Kind, room_request::RoomEvent},
};

/// Bytes that wait for a held seat at most. It misses what comes beyond that, and is told so.
const MAX_HELD_BYTES: usize = 1024 * 1024;

/// The facts about a connection that its seats share. Any thread may use it.
#[derive(Debug)]
pub struct Seats {
    connection: Weak<dyn Member>,
    id: MemberId,
    user: Option<Box<str>>,
    number: u64,
}

/// A connection in one room. Any thread may use it.
#[derive(Debug)]
pub struct Seat {
    memberships: Memberships,
    shared: Arc<Seats>,
    room: Arc<str>,
    is_over: AtomicBool,
    passage: ArcSwapOption<Passage>,
    /// Locked while messages are handed on, so that nothing comes after a leave.
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Apart: most of a seat's life there is none.
    held: Option<Box<HeldMessages>>,
    /// Whether it has missed messages of which its client is not told yet.
    owes_loss: bool,
    /// How far its client is, in a group that has a history.
    at: Option<Position>,
}

#[derive(Debug, Default)]
struct HeldMessages {
    deliveries: Vec<(Delivery, WhenFull)>,
    bytes: usize,
    is_over_full: bool,
    ended: Option<Message>,
}

impl Seats {
    /// Of `connection`, which is evicted by `id` and by `user`; its seats are reported by `number`.
    pub fn new<M: Member + 'static>(
        connection: &Arc<M>,
        id: MemberId,
        user: Option<&str>,
        number: u64,
    ) -> Arc<Self> {
        let weak: Weak<M> = Arc::downgrade(connection);
        Arc::new(Self {
            connection: weak,
            id,
            user: user.map(Box::from),
            number,
        })
    }

    /// A held seat, which the client calls `room`. `None` when the connection is over.
    pub fn take(self: &Arc<Self>, room: &str) -> Option<Arc<Seat>> {
        let connection = self.connection.upgrade().filter(|c| !c.is_foreign())?;
        let seat = Arc::new(Seat {
            memberships: Memberships::default(),
            shared: Arc::clone(self),
            room: room.into(),
            is_over: AtomicBool::new(false),
            passage: ArcSwapOption::const_empty(),
            state: Mutex::new(State {
                held: Some(Box::default()),
                owes_loss: false,
                at: None,
            }),
        });
        let enter = || Some((Arc::clone(&seat), 0, false));
        let entered = connection.memberships().join(self.id, || None, enter);
        (entered != Joined::Over).then_some(seat)
    }
}

impl Seat {
    /// Hands on what has come so far, and from now on all at once, to a client that is at `at`. False
    /// when the seat is over.
    pub fn open(&self, at: Option<Position>) -> bool {
        let mut state = self.state.lock();
        state.at = at;
        let held = state.held.take().unwrap_or_default();
        state.owes_loss = held.is_over_full;
        for (delivery, when_full) in &held.deliveries {
            self.hand_on(&mut state, delivery, *when_full);
        }
        if let Some(ended) = held.ended {
            self.end_by(ended);
        }
        !self.is_over.load(Ordering::Acquire)
    }

    /// From now on passes on the events of its client that `passage` names.
    pub fn let_pass(&self, passage: Arc<Passage>) {
        self.passage.store(Some(passage));
    }

    /// Leaves all groups, for good: nothing comes after this call.
    pub fn leave(self: &Arc<Self>) {
        let state = self.state.lock();
        let was_over = self.is_over.swap(true, Ordering::AcqRel);
        drop(state);
        if !was_over {
            self.memberships.end();
        }
        if let Some(connection) = self.shared.connection.upgrade() {
            connection.memberships().take_out(self, |_| ());
        }
    }

    /// Whether it was left, or its user evicted, or its connection has ended.
    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }

    /// Whether messages were lost of which its client is not told yet.
    pub fn owes_loss(&self) -> bool {
        self.state.lock().owes_loss
    }

    /// How far its client is, in a group that has a history.
    pub fn position(&self) -> Option<Position> {
        self.state.lock().at
    }

    fn hand_on(&self, state: &mut State, delivery: &Delivery, when_full: WhenFull) -> Handed {
        let Some(connection) = self.shared.connection.upgrade().filter(|_| !self.is_over()) else {
            return Handed::default();
        };
        let handed = connection.take(delivery, when_full, state.owes_loss);
        state.owes_loss = handed.owes_loss;
        if let Some(at) = delivery.messages().iter().rev().find_map(Message::position) {
            state.at = Some(at);
        }
        handed
    }

    fn end_by(&self, ended: Message) {
        if self.is_over.swap(true, Ordering::AcqRel) {
            return;
        }
        if let Some(connection) = self.shared.connection.upgrade() {
            let delivery = Delivery::of(vec![ended], connection.deflater());
            connection.take(&delivery, WhenFull::Close, false);
        }
        self.memberships.end();
    }
}

impl Membership for Seat {
    fn name(&self) -> &str {
        &self.room
    }

    fn is_of(&self, _registry: usize) -> bool {
        // It is no group: those of its room are its own memberships.
        false
    }

    fn pass(&self, event: &RoomEvent<'_>) -> bool {
        let Some(passage) = self.passage.load_full().filter(|_| !self.is_over()) else {
            return false;
        };
        // It is in the room's group alone.
        let group = self.memberships.group();
        group.is_some_and(|group| passage.pass(group.name(), self.shared.id, event))
    }

    fn end(&self, _slot: u32) {
        // The connection has ended. It may be closed while it takes a message, so without the lock.
        if !self.is_over.swap(true, Ordering::AcqRel) {
            self.memberships.end();
        }
    }
}

impl Member for Seat {
    fn is_foreign(&self) -> bool {
        (self.shared.connection.upgrade()).is_none_or(|connection| connection.is_foreign())
    }

    fn memberships(&self) -> &Memberships {
        &self.memberships
    }

    fn deflater(&self) -> Option<&Deflater> {
        None
    }

    fn carrier(&self) -> Option<Arc<dyn Member>> {
        self.shared.connection.upgrade()
    }

    fn room(&self) -> Option<&Arc<str>> {
        Some(&self.room)
    }

    fn take(&self, delivery: &Delivery, when_full: WhenFull, _: bool) -> Handed {
        let mut state = self.state.lock();
        let Some(held) = &mut state.held else {
            return self.hand_on(&mut state, delivery, when_full);
        };
        if held.ended.is_some() {
            // Nothing comes after an eviction.
            return Handed::default();
        }
        held.bytes += delivery
            .messages()
            .iter()
            .map(Message::frame_len)
            .sum::<usize>();
        if held.is_over_full || held.bytes > MAX_HELD_BYTES {
            // Messages from before a gap are of no use after it.
            held.is_over_full = true;
            held.deliveries.clear();
        } else {
            held.deliveries.push((delivery.clone(), when_full));
        }
        Handed {
            delivered: delivery.messages().len() as u64,
            ..Handed::default()
        }
    }

    fn evict(&self, eviction: &Eviction) -> Option<u64> {
        if !eviction.names(self.shared.id, self.shared.user.as_deref()) {
            return None;
        }
        let text = numbered::room_ended(&self.room, "evicted", &eviction.reason);
        let ended = Message::new(Kind::Text, text.as_bytes(), &[]);
        let mut state = self.state.lock();
        match &mut state.held {
            Some(held) => held.ended = Some(ended),
            None => self.end_by(ended),
        }
        Some(self.shared.number)
    }

    fn close(&self, frame: &CloseFrame) {
        if let Some(connection) = self.shared.connection.upgrade().filter(|_| !self.is_over()) {
            connection.close(frame);
        }
    }
}

//! A connection in one room: a member of the room's group under the name that its client knows.
//!
//! A connection has a seat in each room, so one connection may be in a group under two names. What
//! comes while the seat is *held* waits: the client gets the answer to its join first. A seat ends
//! with its connection, when it is left, and when its user is evicted.

use std::{
    collections::HashSet,
    sync::{Arc, Weak},
};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;

use super::{
    group::{ByName, Name, Named},
    member::{Eviction, Handed, Member, WhenFull},
    memberships::{Joined, MemberId, Membership, Memberships},
    message::{Delivery, Message},
    numbered,
    passage::Passage,
};
use crate::{
    engine::history::Position,
    protocol::{close::CloseFrame, message::Kind, room_request::RoomEvent},
};

/// Bytes that wait for a held seat at most. It misses what comes beyond that, and is told so.
const MAX_HELD_BYTES: usize = 1024 * 1024;

/// The seats of one connection, by the names that its client knows. Any thread may use it.
///
/// It is in the connection's memberships, so that the seats end with the connection; they stay here
/// until they are left.
#[derive(Debug)]
pub struct Seats {
    owner: Arc<Owner>,
    table: Mutex<Table>,
}

/// The facts about a connection that its seats share.
#[derive(Debug)]
struct Owner {
    connection: Weak<dyn Member>,
    id: MemberId,
    user: Option<Box<str>>,
    number: u64,
}

#[derive(Debug, Default)]
struct Table {
    by_room: HashSet<ByName<Seat>>,
    /// The connection has ended.
    is_over: bool,
}

/// A connection in one room. Any thread may use it.
///
/// A page may be in many rooms, so what a seat rarely has is kept apart.
#[derive(Debug)]
pub struct Seat {
    memberships: Memberships,
    owner: Arc<Owner>,
    room: Name,
    passage: ArcSwapOption<Passage>,
    /// Locked while messages are handed on, so that nothing comes after a leave.
    state: Mutex<State>,
}

/// `None` for a seat that is open, in a group without a history, and owes its client nothing.
type State = Option<Box<More>>;

#[derive(Debug, Default)]
struct More {
    held: Option<HeldMessages>,
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
        let seats = Arc::new(Self {
            owner: Arc::new(Owner {
                connection: weak,
                id,
                user: user.map(Box::from),
                number,
            }),
            table: Mutex::default(),
        });
        let enter = || Some((Arc::clone(&seats), 0, false));
        if connection.is_foreign()
            || connection.memberships().join(id, || None, enter) == Joined::Over
        {
            seats.table.lock().is_over = true;
        }
        seats
    }

    /// A held seat, which the client calls `room`, in place of the one that had this name. `None`
    /// when the connection is over.
    pub fn take(&self, room: &str) -> Option<Arc<Seat>> {
        (self.owner.connection.upgrade()).filter(|connection| !connection.is_foreign())?;
        let held = Some(HeldMessages::default());
        let seat = Arc::new(Seat {
            memberships: Memberships::of_seat(),
            owner: Arc::clone(&self.owner),
            room: Name::new(room),
            passage: ArcSwapOption::const_empty(),
            state: Mutex::new(Some(Box::new(More {
                held,
                ..More::default()
            }))),
        });
        let mut table = self.table.lock();
        if table.is_over {
            return None;
        }
        let before = table.by_room.replace(ByName(Arc::clone(&seat)));
        drop(table);
        if let Some(ByName(before)) = before {
            before.leave();
        }
        Some(seat)
    }

    /// The seat that the client calls `room`, also one that has ended and was not left.
    pub fn find(&self, room: &str) -> Option<Arc<Seat>> {
        let table = self.table.lock();
        table
            .by_room
            .get(room.as_bytes())
            .map(|ByName(seat)| Arc::clone(seat))
    }

    /// The names of the rooms in which there is a seat.
    pub fn rooms(&self) -> Vec<String> {
        let table = self.table.lock();
        let rooms = table.by_room.iter();
        rooms.map(|ByName(seat)| seat.room.to_string()).collect()
    }

    /// The names of those whose seats have ended by themselves.
    pub fn ended(&self) -> Vec<String> {
        let table = self.table.lock();
        let ended = table.by_room.iter().filter(|ByName(seat)| seat.is_over());
        ended.map(|ByName(seat)| seat.room.to_string()).collect()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.table.lock().by_room.len()
    }

    /// Leaves a room, for good: nothing comes after this call.
    pub fn leave(&self, seat: &Arc<Seat>) {
        seat.leave();
        let mut table = self.table.lock();
        let found = table.by_room.get(seat.room.as_bytes());
        if found.is_some_and(|ByName(found)| Arc::ptr_eq(found, seat)) {
            table.by_room.remove(seat.room.as_bytes());
            if table.by_room.is_empty() {
                table.by_room = HashSet::new();
            }
        }
    }
}

impl Membership for Seats {
    fn name(&self) -> &'static str {
        ""
    }

    fn is_of(&self, _registry: usize) -> bool {
        // It is no group: those of the rooms are the seats' own memberships.
        false
    }

    fn has_rooms(&self) -> bool {
        true
    }

    fn pass(&self, event: &RoomEvent<'_>) -> bool {
        self.find(&event.room).is_some_and(|seat| seat.pass(event))
    }

    fn end(&self, _slot: u32) {
        let mut table = self.table.lock();
        table.is_over = true;
        let seats = table.by_room.iter().map(|ByName(seat)| Arc::clone(seat));
        let seats: Vec<_> = seats.collect();
        drop(table);
        for seat in seats {
            // The connection may be closed while the seat hands it a message, so without its lock.
            seat.memberships.end();
        }
    }
}

impl Named for Seat {
    fn key(&self) -> &Name {
        &self.room
    }
}

impl Seat {
    /// Hands on what has come so far, and from now on all at once, to a client that is at `at`. False
    /// when the seat is over.
    pub fn open(&self, at: Option<Position>) -> bool {
        let mut state = self.state.lock();
        let held = state.take().and_then(|more| more.held).unwrap_or_default();
        note(&mut state, held.is_over_full, at);
        for (delivery, when_full) in &held.deliveries {
            self.hand_on(&mut state, delivery, *when_full);
        }
        if let Some(ended) = held.ended {
            self.end_by(ended);
        }
        !self.is_over()
    }

    /// From now on passes on the events of its client that `passage` names.
    pub fn let_pass(&self, passage: Arc<Passage>) {
        self.passage.store(Some(passage));
    }

    fn leave(&self) {
        let state = self.state.lock();
        let ended = self.memberships.close();
        drop(state);
        ended.end();
    }

    /// Whether it was left, or its user evicted, or its connection has ended.
    pub fn is_over(&self) -> bool {
        self.memberships.is_over()
    }

    /// Whether messages were lost of which its client is not told yet.
    pub fn owes_loss(&self) -> bool {
        let state = self.state.lock();
        state.as_ref().is_some_and(|more| more.owes_loss)
    }

    /// How far its client is, in a group that has a history.
    pub fn position(&self) -> Option<Position> {
        self.state.lock().as_ref().and_then(|more| more.at)
    }

    fn hand_on(&self, state: &mut State, delivery: &Delivery, when_full: WhenFull) -> Handed {
        let Some(connection) = self.owner.connection.upgrade().filter(|_| !self.is_over()) else {
            return Handed::default();
        };
        let (owed, at) = (state.as_ref()).map_or((false, None), |more| (more.owes_loss, more.at));
        let handed = connection.take(delivery, when_full, owed);
        let newest = (delivery.messages().iter().rev()).find_map(|it| it.position);
        note(state, handed.owes_loss, newest.or(at));
        handed
    }

    fn end_by(&self, ended: Message) {
        let memberships = self.memberships.close();
        if memberships.was_over() {
            return;
        }
        if let Some(connection) = self.owner.connection.upgrade() {
            let delivery = Delivery::of(vec![ended], connection.deflater());
            connection.take(&delivery, WhenFull::Close, false);
        }
        memberships.end();
    }

    fn pass(&self, event: &RoomEvent<'_>) -> bool {
        let Some(passage) = self.passage.load_full() else {
            return false;
        };
        // It is in the room's group alone.
        let group = self.memberships.group();
        group.is_some_and(|group| passage.pass(group.name(), self.owner.id, event))
    }
}

/// Notes what an open seat has to remember.
fn note(state: &mut State, owes_loss: bool, at: Option<Position>) {
    if !owes_loss && at.is_none() {
        *state = None;
        return;
    }
    let more = state.get_or_insert_default();
    (more.owes_loss, more.at) = (owes_loss, at);
}

impl Member for Seat {
    fn is_foreign(&self) -> bool {
        (self.owner.connection.upgrade()).is_none_or(|connection| connection.is_foreign())
    }

    fn memberships(&self) -> &Memberships {
        &self.memberships
    }

    fn carrier(&self) -> Option<Arc<dyn Member>> {
        self.owner.connection.upgrade()
    }

    fn id(&self) -> Option<MemberId> {
        Some(self.owner.id)
    }

    fn room(&self) -> Option<&str> {
        Some(&self.room)
    }

    fn take(&self, delivery: &Delivery, when_full: WhenFull, _: bool) -> Handed {
        let mut state = self.state.lock();
        let Some(held) = state.as_mut().and_then(|more| more.held.as_mut()) else {
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
        if !eviction.names(self.owner.id, self.owner.user.as_deref()) {
            return None;
        }
        let text = numbered::room_ended(&self.room, "evicted", &eviction.reason);
        let ended = Message::new(Kind::Text, text.as_bytes(), &[]);
        let mut state = self.state.lock();
        match state.as_mut().and_then(|more| more.held.as_mut()) {
            Some(held) => held.ended = Some(ended),
            None => self.end_by(ended),
        }
        Some(self.owner.number)
    }

    fn close(&self, frame: &CloseFrame) {
        if let Some(connection) = self.owner.connection.upgrade().filter(|_| !self.is_over()) {
            connection.close(frame);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{groups::Mailbox, wakeup::hub::Hub};

    fn seats() -> (Arc<Mailbox>, Arc<Seats>) {
        let mailbox = Mailbox::new(200, Hub::new().unwrap(), 7);
        let seats = Seats::new(&mailbox, [1; 16], None, 1);
        (mailbox, seats)
    }

    #[test]
    fn a_seat_is_small() {
        // With the counters of its `Arc` this is one of malloc's sizes.
        assert_eq!(size_of::<Seat>(), 88);
    }

    #[test]
    fn a_seat_is_found_until_it_is_left() {
        let (_mailbox, seats) = seats();
        let long = "r".repeat(100);
        let [one, two] = ["room", long.as_str()].map(|room| seats.take(room).unwrap());
        assert!(Arc::ptr_eq(&seats.find(&long).unwrap(), &two));
        assert_eq!((seats.count(), seats.ended().len()), (2, 0));
        seats.leave(&two);
        seats.leave(&two);
        assert!(two.is_over() && seats.find(&long).is_none());
        assert_eq!(seats.rooms(), ["room"]);
        assert!(!one.is_over());
    }

    #[test]
    fn a_second_seat_in_a_room_ends_the_first_one() {
        let (_mailbox, seats) = seats();
        let [one, two] = [(); 2].map(|()| seats.take("room").unwrap());
        assert!(one.is_over() && !two.is_over());
        seats.leave(&one);
        assert!(Arc::ptr_eq(&seats.find("room").unwrap(), &two));
    }

    #[test]
    fn seats_end_with_their_connection_and_wait_to_be_left() {
        let (mailbox, seats) = seats();
        let seat = seats.take("room").unwrap();
        mailbox.memberships().end();
        assert!(seat.is_over() && seats.take("other").is_none());
        assert_eq!(seats.ended(), ["room"]);
        seats.leave(&seat);
        assert_eq!(seats.count(), 0);
        let late = Seats::new(&mailbox, [1; 16], None, 1);
        assert!(late.take("room").is_none());
    }

    #[test]
    fn nothing_is_left_of_a_connection_that_nobody_uses() {
        let (mailbox, seats) = seats();
        let seat = Arc::downgrade(&seats.take("room").unwrap());
        drop((mailbox, seats));
        assert!(seat.upgrade().is_none());
    }
}

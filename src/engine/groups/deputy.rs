//! Members on their way to another process.
//!
//! There a *deputy* is the member until the connection comes. It keeps what no history has, and the
//! rest is read from the history, after the position at which the member has left here.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use parking_lot::Mutex;

use super::{
    group::{Registry, State as GroupState},
    member::{Eviction, Handed, Member, WhenFull, delivery_to},
    memberships::{Left, MemberId, Memberships},
    message::{Delivery, Message},
    recorded::Mismatch,
    registry::Groups,
    stamps::{Cut, Stamps},
};
use crate::{
    engine::history::Position,
    protocol::{close::CloseFrame, framing::Framing},
};

/// Bytes that it keeps at most: a connection that is behind by more cannot be told of all.
const MAX_BYTES: usize = 1024 * 1024;

/// How far a member of a group with a history is, and whether it gets numbers.
pub type Standing = (Position, bool);

/// The point at which a member has left, and in a group with a history its standing.
pub type Departed = (Cut, Option<Standing>);

/// The deputy of a connection in its groups. Any thread may use it.
#[derive(Debug, Default)]
pub struct Deputy {
    memberships: Memberships,
    /// By what it is evicted, if it is that of a connection in a room: its name, and its user's.
    seat: Option<(MemberId, Option<String>)>,
    state: Mutex<State>,
    has_begun: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    backlog: Backlog,
    /// The code and reason with which the group was closed meanwhile.
    closed: Option<CloseFrame>,
    evicted: Option<String>,
}

/// The messages that it keeps.
#[derive(Debug, Default)]
struct Backlog {
    messages: Vec<Message>,
    bytes: usize,
    is_over_full: bool,
}

impl Backlog {
    /// Keeps a message, unless there are too many.
    fn push(&mut self, message: &Message) {
        self.bytes += message.frame_len();
        self.is_over_full |= self.bytes > MAX_BYTES;
        if !self.is_over_full {
            self.messages.push(message.clone());
        }
    }

    /// Takes the messages that are not among those that `but` names. `None` when there were too many.
    fn take(&mut self, but: &Stamps) -> Option<Vec<Message>> {
        let kept = std::mem::take(&mut self.messages);
        let is_new = |message: &Message| !message.stamp.is_some_and(|stamp| but.has(stamp));
        (!self.is_over_full).then(|| kept.into_iter().filter(is_new).collect())
    }
}

impl Deputy {
    /// That of a connection, or, with its name and that of its user, of a connection in a room.
    pub fn new(seat: Option<(MemberId, Option<String>)>) -> Arc<Self> {
        Arc::new(Self {
            seat,
            ..Self::default()
        })
    }

    /// Notes that its marker has come.
    pub(super) fn begin(&self) {
        self.has_begun.store(true, Ordering::Release);
    }

    /// Whether its marker has come, if it awaits one.
    pub fn has_begun(&self) -> bool {
        self.has_begun.load(Ordering::Acquire)
    }

    /// The reason for which it was evicted from its room, if it was.
    pub fn evicted(&self) -> Option<String> {
        self.state.lock().evicted.clone()
    }

    /// The messages that it has kept and `got` does not have, as frames for `member`, which is closed
    /// if the group was meanwhile. `None` when it was too much.
    pub fn hand_over(&self, member: &dyn Member, got: &Stamps) -> Option<Vec<u8>> {
        let mut state = self.state.lock();
        let (kept, closed) = (state.backlog.take(got), state.closed.take());
        drop(state);
        if let Some(frame) = closed {
            member.close(&frame);
        }
        let mut messages = kept?;
        if let Some(room) = member.room() {
            messages = messages.iter().map(|each| each.in_room(room)).collect();
        }
        Some(frames_of(messages, member))
    }

    /// Leaves all groups, for good.
    pub fn leave(&self) {
        self.memberships.end();
    }
}

impl Member for Deputy {
    fn is_foreign(&self) -> bool {
        false
    }

    fn memberships(&self) -> &Memberships {
        &self.memberships
    }

    fn is_seat(&self) -> bool {
        self.seat.is_some()
    }

    fn evict(&self, eviction: &Eviction) -> Option<u64> {
        let (id, user) = self.seat.as_ref()?;
        if eviction.names(*id, user.as_deref()) {
            self.state.lock().evicted = Some(eviction.reason.clone());
            self.memberships.end();
        }
        // The process that has the connection tells its client.
        None
    }

    fn take(&self, delivery: &Delivery, _: WhenFull, _: bool) -> Handed {
        let mut state = self.state.lock();
        let messages = delivery.messages().iter();
        for message in messages.filter(|message| message.position.is_none()) {
            state.backlog.push(message);
        }
        Handed::default()
    }

    fn close(&self, frame: &CloseFrame) {
        let closed = &mut self.state.lock().closed;
        closed.get_or_insert_with(|| frame.clone());
    }
}

/// Messages as frames for `member`.
pub fn frames_of(messages: Vec<Message>, member: &dyn Member) -> Vec<u8> {
    if messages.is_empty() {
        return Vec::new();
    }
    delivery_to(member, messages)
        .framed(Framing::WebSocket)
        .joined
        .to_vec()
}

impl Groups {
    /// Ends a membership as [`Groups::leave`], and tells at which message, and where the member is in
    /// a group with a history; `None` when there was none.
    pub fn depart(&self, name: &str, member: &dyn Member) -> Option<Departed> {
        let group = self.find(name).filter(|_| !member.is_foreign())?;
        let mut found = None;
        let departure = member.memberships().leave(&group, |slot| {
            let mut state = group.state.lock();
            let standing = state.standing_of(slot);
            let departure = state.leave(slot);
            found = Some((state.cut(), standing));
            Some(departure)
        })?;
        if departure.was_last {
            Registry::remove_if_unused(self, &group);
        }
        self.notify(name);
        found
    }

    /// Makes `member` a member in place of `before`, without a message in between. It gets none that
    /// is among those of `got`. With `at`, only where the group with its history is as far.
    ///
    /// Returns the number of the first entry for it; `None` when `before` is no member any more, or
    /// the member is over.
    ///
    /// # Errors
    /// The group with its history is not as far here, or further on.
    pub fn succeed<M: Member + 'static>(
        self: &Arc<Self>,
        name: &str,
        before: &dyn Member,
        member: &Arc<M>,
        id: MemberId,
        got: &Stamps,
        at: Option<Standing>,
    ) -> Result<Option<u64>, Mismatch> {
        let Some(group) = self.find(name) else {
            return Ok(None);
        };
        let mut outcome = Ok(None);
        let weak = Arc::downgrade(member);
        let left = before.memberships().leave(&group, |held| {
            let enter = |state: &mut GroupState| {
                if let Some((at, _)) = at {
                    let here = state.recorded.as_ref().map(|recorded| recorded.position);
                    outcome = Mismatch::check(here, at).map(|()| None);
                    outcome.ok()?;
                }
                let (slot, _) = state.enter(weak);
                state.filter(slot, got.clone());
                if let (Some((_, true)), Some(recorded)) = (at, &mut state.recorded) {
                    recorded.numbered.insert(slot);
                }
                state.leave(held);
                outcome = Ok(Some(state.cut().until));
                Some((slot, false))
            };
            let enter = || self.enter(name, enter);
            member.memberships().join(id, || self.find(name), enter);
            match outcome {
                Err(_) => return None,
                Ok(Some(_)) => {}
                Ok(None) => {
                    group.state.lock().leave(held);
                }
            }
            Some(Left {
                was_last: false,
                is_awaited: true,
            })
        });
        if left.is_some() {
            self.notify(name);
        }
        outcome
    }
}

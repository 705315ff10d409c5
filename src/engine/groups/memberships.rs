//! The groups of one member.

use std::{collections::HashMap, fmt, sync::Arc};

use parking_lot::Mutex;
use smallvec::SmallVec;

use crate::protocol::room_request::RoomEvent;

/// The name of a member that other processes know, so that they can exclude it.
pub type MemberId = [u8; 16];

/// A member of so many groups finds them in a map.
const FEW: usize = 16;

/// A group, as its members know it.
pub(crate) trait Membership: fmt::Debug + Send + Sync {
    /// The group's name.
    fn name(&self) -> &str;

    /// Whether it is a group of the registry at this address.
    fn is_of(&self, registry: usize) -> bool;

    /// Whether it is a group, and not what belongs to one.
    fn is_group(&self) -> bool {
        false
    }

    /// Passes an event of the member on to the others; false for what does not.
    fn pass(&self, _event: &RoomEvent<'_>) -> bool {
        false
    }

    /// Ends the membership of the member at `place`.
    fn end(&self, slot: u32);
}

/// Two groups are the same when they are the same object: a registry has one for each name.
fn key_of<M: ?Sized>(group: &Arc<M>) -> usize {
    Arc::as_ptr(group).cast::<()>().addr()
}

/// The groups that a member belongs to, until it is over. Any thread may use it.
#[derive(Debug, Default)]
pub struct Memberships(Mutex<State>);

#[derive(Debug, Default)]
enum State {
    /// It has never been in a group.
    #[default]
    Unused,
    Open(Box<Open>),
    /// It can join no more groups.
    Over,
}

#[derive(Debug)]
struct Open {
    id: MemberId,
    held: All,
    /// A warning about messages that it missed was given.
    is_warned: bool,
}

/// A group, and the place of the member in it.
type Seated = (Arc<dyn Membership>, u32);

#[derive(Debug)]
enum All {
    Few(SmallVec<[Seated; 1]>),
    Many(HashMap<usize, Seated>),
}

impl All {
    fn has(&self, key: usize) -> bool {
        match self {
            Self::Few(few) => few.iter().any(|(group, _)| key_of(group) == key),
            Self::Many(many) => many.contains_key(&key),
        }
    }

    fn place(&self, key: usize) -> Option<u32> {
        match self {
            Self::Few(few) => few
                .iter()
                .find(|(group, _)| key_of(group) == key)
                .map(|held| held.1),
            Self::Many(many) => many.get(&key).map(|held| held.1),
        }
    }

    fn insert(&mut self, held: Seated) {
        if let Self::Few(few) = self {
            if few.len() < FEW {
                few.push(held);
                return;
            }
            let many = few.drain(..).map(|held| (key_of(&held.0), held));
            *self = Self::Many(many.collect());
        }
        if let Self::Many(many) = self {
            many.insert(key_of(&held.0), held);
        }
    }

    fn remove(&mut self, key: usize) -> Option<Seated> {
        match self {
            Self::Few(few) => {
                let at = few.iter().position(|(group, _)| key_of(group) == key);
                at.map(|at| few.swap_remove(at))
            }
            Self::Many(many) => many.remove(&key),
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Few(few) => few.is_empty(),
            Self::Many(many) => many.is_empty(),
        }
    }

    fn find(&self, is_it: impl Fn(&Arc<dyn Membership>) -> bool) -> Option<Arc<dyn Membership>> {
        let found = match self {
            Self::Few(few) => few.iter().find(|(group, _)| is_it(group)),
            Self::Many(many) => many.values().find(|(group, _)| is_it(group)),
        };
        found.map(|(group, _)| Arc::clone(group))
    }

    fn for_each(&self, mut call: impl FnMut(&Seated)) {
        match self {
            Self::Few(few) => few.iter().for_each(call),
            Self::Many(many) => many.values().for_each(&mut call),
        }
    }
}

/// The outcome of a wish to join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Joined {
    /// The member is the first one of the group in this process.
    First,
    /// The group had members in this process already.
    More,
    /// It was a member before.
    Already,
    /// The member is over.
    Over,
    /// It cannot become one here and now.
    Refused,
}

/// A member has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Left {
    /// The group has no member any more.
    pub(super) was_last: bool,
    /// Messages from before wait for the member.
    pub(super) is_awaited: bool,
}

impl Memberships {
    /// Notes the group that `enter` gives, with the member's place there and whether the member is
    /// the group's first one here. Not called when the member is over, or is in the group that
    /// `find` gives. It may give `None`.
    pub(crate) fn join<G: Membership + 'static>(
        &self,
        id: MemberId,
        find: impl FnOnce() -> Option<Arc<G>>,
        enter: impl FnOnce() -> Option<(Arc<G>, u32, bool)>,
    ) -> Joined {
        let mut state = self.0.lock();
        if matches!(*state, State::Unused) {
            *state = State::Open(Box::new(Open {
                id,
                held: All::Few(SmallVec::new()),
                is_warned: false,
            }));
        }
        let State::Open(open) = &mut *state else {
            return Joined::Over;
        };
        if find().is_some_and(|group| open.held.has(key_of(&group))) {
            return Joined::Already;
        }
        let Some((group, slot, is_first)) = enter() else {
            if open.held.is_empty() && !open.is_warned {
                *state = State::Unused;
            }
            return Joined::Refused;
        };
        open.held.insert((group, slot));
        if is_first {
            Joined::First
        } else {
            Joined::More
        }
    }

    /// Whether the member is in `group`.
    pub(super) fn has<G: Membership>(&self, group: &Arc<G>) -> bool {
        match &*self.0.lock() {
            State::Open(open) => open.held.has(key_of(group)),
            State::Unused | State::Over => false,
        }
    }

    /// Calls `leave` with the member's place in `group`, and returns what that returns; `None` when
    /// it is not in it.
    pub(super) fn leave<G: Membership>(
        &self,
        group: &Arc<G>,
        leave: impl FnOnce(u32) -> Left,
    ) -> Option<Left> {
        self.leave_if(group, |slot| Some(leave(slot)))
    }

    /// The same, but the member stays where `leave` gives `None`.
    pub(super) fn leave_if<G: Membership>(
        &self,
        group: &Arc<G>,
        leave: impl FnOnce(u32) -> Option<Left>,
    ) -> Option<Left> {
        let mut state = self.0.lock();
        let State::Open(open) = &mut *state else {
            return None;
        };
        let (held, slot) = open.held.remove(key_of(group))?;
        // Under the lock: a member that joins again meanwhile would have two places.
        let Some(departure) = leave(slot) else {
            open.held.insert((held, slot));
            return None;
        };
        // Callers that wait for it look at its id.
        if open.held.is_empty() && !open.is_warned && !departure.is_awaited {
            *state = State::Unused;
        }
        Some(departure)
    }

    /// The member's place in `other`, which is no group; `None` when it is not in it.
    pub(crate) fn place_in<G: Membership>(&self, other: &Arc<G>) -> Option<u32> {
        match &*self.0.lock() {
            State::Open(open) => open.held.place(key_of(other)),
            State::Unused | State::Over => None,
        }
    }

    /// Calls `leave` with the member's place in `other`, which is no group; false when it is not in it.
    pub(crate) fn take_out<G: Membership>(&self, other: &Arc<G>, leave: impl FnOnce(u32)) -> bool {
        let mut state = self.0.lock();
        let State::Open(open) = &mut *state else {
            return false;
        };
        let held = open.held.remove(key_of(other));
        // Under the lock: as in `leave`.
        held.map(|(_, slot)| leave(slot)).is_some()
    }

    /// Takes the member out of the group `name` of the registry at this address, and out of what
    /// else has that name. It may join again.
    pub(super) fn end_named(&self, name: &str, registry: usize) {
        let mut ended: SmallVec<[Seated; 2]> = SmallVec::new();
        let mut state = self.0.lock();
        if let State::Open(open) = &mut *state {
            let mut keys: SmallVec<[usize; 2]> = SmallVec::new();
            open.held.for_each(|(group, _)| {
                if group.name() == name && (group.is_of(registry) || !group.is_group()) {
                    keys.push(key_of(group));
                }
            });
            ended.extend(keys.into_iter().filter_map(|key| open.held.remove(key)));
        }
        drop(state);
        for (group, slot) in ended {
            group.end(slot);
        }
    }

    fn find(&self, is_it: impl Fn(&Arc<dyn Membership>) -> bool) -> Option<Arc<dyn Membership>> {
        match &*self.0.lock() {
            State::Open(open) => open.held.find(is_it),
            State::Unused | State::Over => None,
        }
    }

    /// The first of its groups.
    pub(super) fn group(&self) -> Option<Arc<dyn Membership>> {
        self.find(|group| group.is_group())
    }

    /// Has an event passed on by the room that it is for; false when Python is to decide on it.
    pub(crate) fn pass(&self, event: &RoomEvent<'_>) -> bool {
        let room = self.find(|room| !room.is_group() && room.name() == event.room);
        room.is_some_and(|room| room.pass(event))
    }

    /// Takes the member out of all its groups. It can join none from now on.
    pub(crate) fn end(&self) {
        let before = std::mem::replace(&mut *self.0.lock(), State::Over);
        if let State::Open(open) = before {
            open.held.for_each(|(group, slot)| group.end(*slot));
        }
    }

    /// The names of its groups in the registry at the address `registry`.
    pub(super) fn names(&self, registry: usize) -> Vec<String> {
        let mut names = Vec::new();
        if let State::Open(open) = &*self.0.lock() {
            open.held.for_each(|(group, _)| {
                if group.is_of(registry) {
                    names.push(group.name().to_owned());
                }
            });
        }
        names
    }

    /// Its name, while it belongs to a group.
    pub(super) fn id(&self) -> Option<MemberId> {
        match &*self.0.lock() {
            State::Open(open) => Some(open.id),
            State::Unused | State::Over => None,
        }
    }

    /// Whether this is the first warning about the member; notes that it was given.
    pub(super) fn warn_once(&self) -> bool {
        match &mut *self.0.lock() {
            State::Open(open) => !std::mem::replace(&mut open.is_warned, true),
            State::Unused | State::Over => false,
        }
    }
}

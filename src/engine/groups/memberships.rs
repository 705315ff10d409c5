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

    /// Whether it is a group of the registry at this address, or belongs to one.
    fn is_of(&self, registry: usize) -> bool;

    /// Whether it is a group, and not what belongs to one.
    fn is_group(&self) -> bool {
        false
    }

    /// Whether it is the rooms of the member, which pass its events on.
    fn has_rooms(&self) -> bool {
        false
    }

    /// Passes an event of the member on to the others; false for what does not.
    fn pass(&self, _event: &RoomEvent<'_>) -> bool {
        false
    }

    /// Ends the membership of the member at `slot`.
    fn end(&self, slot: u32);
}

/// Two groups are the same when they are the same object: a registry has one for each name.
fn key_of<M: ?Sized>(group: &Arc<M>) -> usize {
    Arc::as_ptr(group).cast::<()>().addr()
}

/// The groups that a member belongs to, until it is over. Any thread may use it.
#[derive(Debug, Default)]
pub struct Memberships(Mutex<State>);

#[derive(Debug)]
enum State {
    /// It is in no group.
    Unused {
        /// The member is that of a room. It knows its name itself, and there may be many.
        is_seat: bool,
    },
    /// The member of a room is in one group: without an allocation.
    Sole {
        group: Arc<dyn Membership>,
        slot: u32,
        is_warned: bool,
    },
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

    fn iter(&self) -> impl Iterator<Item = &Seated> {
        let (few, many) = match self {
            Self::Few(few) => (&few[..], None),
            Self::Many(many) => (&[][..], Some(many)),
        };
        few.iter().chain(many.into_iter().flat_map(HashMap::values))
    }
}

impl Default for State {
    fn default() -> Self {
        Self::Unused { is_seat: false }
    }
}

impl State {
    fn place(&self, key: usize) -> Option<u32> {
        match self {
            Self::Sole { group, slot, .. } => (key_of(group) == key).then_some(*slot),
            Self::Open(open) => open.held.place(key),
            Self::Unused { .. } | Self::Over => None,
        }
    }

    fn insert(&mut self, id: MemberId, held: Seated) {
        match std::mem::take(self) {
            Self::Unused { is_seat: true } => {
                let (group, slot) = held;
                *self = Self::Sole {
                    group,
                    slot,
                    is_warned: false,
                };
            }
            Self::Unused { is_seat: false } => {
                *self = Self::open(id, [held].into_iter().collect(), false);
            }
            Self::Sole {
                group,
                slot,
                is_warned,
            } => {
                let both = [(group, slot), held].into_iter().collect();
                *self = Self::open(id, both, is_warned);
            }
            Self::Open(mut open) => {
                open.held.insert(held);
                *self = Self::Open(open);
            }
            Self::Over => *self = Self::Over,
        }
    }

    fn open(id: MemberId, held: SmallVec<[Seated; 1]>, is_warned: bool) -> Self {
        Self::Open(Box::new(Open {
            id,
            held: All::Few(held),
            is_warned,
        }))
    }

    fn remove(&mut self, key: usize) -> Option<Seated> {
        match self {
            Self::Sole { group, slot, .. } if key_of(group) == key => {
                let held = (Arc::clone(group), *slot);
                *self = Self::Unused { is_seat: true };
                Some(held)
            }
            Self::Open(open) => open.held.remove(key),
            Self::Sole { .. } | Self::Unused { .. } | Self::Over => None,
        }
    }

    fn id(&self) -> Option<MemberId> {
        match self {
            Self::Open(open) => Some(open.id),
            Self::Sole { .. } | Self::Unused { .. } | Self::Over => None,
        }
    }

    /// The groups, and the places of the member in them.
    fn held(&self) -> impl Iterator<Item = (&Arc<dyn Membership>, u32)> {
        let (sole, open) = match self {
            Self::Sole { group, slot, .. } => (Some((group, *slot)), None),
            Self::Open(open) => (None, Some(open)),
            Self::Unused { .. } | Self::Over => (None, None),
        };
        let all = open.into_iter().flat_map(|open| open.held.iter());
        sole.into_iter()
            .chain(all.map(|(group, slot)| (group, *slot)))
    }
}

/// The memberships of a member that is over, which are to be ended.
pub(super) struct Ended(State);

impl Ended {
    /// Whether it was over before.
    pub(super) fn was_over(&self) -> bool {
        matches!(self.0, State::Over)
    }

    /// Ends them.
    pub(super) fn end(self) {
        self.0.held().for_each(|(group, slot)| group.end(slot));
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
    /// Those of the member of a room, whose name is found elsewhere.
    pub(super) fn of_seat() -> Self {
        Self(Mutex::new(State::Unused { is_seat: true }))
    }

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
        if matches!(*state, State::Over) {
            return Joined::Over;
        }
        if find().is_some_and(|group| state.place(key_of(&group)).is_some()) {
            return Joined::Already;
        }
        let Some((group, slot, is_first)) = enter() else {
            return Joined::Refused;
        };
        state.insert(id, (group, slot));
        if is_first {
            Joined::First
        } else {
            Joined::More
        }
    }

    /// Calls `leave` with the member's place in `group`, and returns what that returns; `None` when
    /// it is not in it. Where `leave` gives `None` the member stays.
    pub(super) fn leave<G: Membership>(
        &self,
        group: &Arc<G>,
        leave: impl FnOnce(u32) -> Option<Left>,
    ) -> Option<Left> {
        let mut state = self.0.lock();
        let (held, slot) = state.remove(key_of(group))?;
        // Under the lock: a member that joins again meanwhile would have two places.
        let Some(departure) = leave(slot) else {
            let id = state.id().unwrap_or_default();
            state.insert(id, (held, slot));
            return None;
        };
        // Callers that wait for it look at its id.
        let is_done = |open: &Open| open.held.iter().next().is_none() && !open.is_warned;
        if !departure.is_awaited && matches!(&*state, State::Open(open) if is_done(open)) {
            *state = State::default();
        }
        Some(departure)
    }

    /// The member's place in `group`, or in what is no group; `None` when it is not in it.
    pub(crate) fn place_in<G: Membership>(&self, group: &Arc<G>) -> Option<u32> {
        self.0.lock().place(key_of(group))
    }

    /// Calls `call` with the member's place in `group`; `None` when it is not in it.
    pub(super) fn at_place<G: Membership, T>(
        &self,
        group: &Arc<G>,
        call: impl FnOnce(u32) -> T,
    ) -> Option<T> {
        let state = self.0.lock();
        // Under the lock: the place of a member that leaves meanwhile may be another's.
        state.place(key_of(group)).map(call)
    }

    /// Calls `leave` with the member's place in `other`, which is no group; false when it is not in it.
    pub(crate) fn take_out<G: Membership>(&self, other: &Arc<G>, leave: impl FnOnce(u32)) -> bool {
        let mut state = self.0.lock();
        let held = state.remove(key_of(other));
        // Under the lock: as in `leave`.
        held.map(|(_, slot)| leave(slot)).is_some()
    }

    /// Takes the member out of the group `name` of the registry at this address, and out of what
    /// belongs to that group. It may join again: if it has done so, and is not at `slot` any more,
    /// it stays, and the result is false.
    pub(super) fn end_named(&self, name: &str, registry: usize, slot: u32) -> bool {
        let mut state = self.0.lock();
        let named = state.held();
        let named = named.filter(|(group, _)| group.name() == name && group.is_of(registry));
        let named = named.map(|(group, at)| (key_of(group), group.is_group() && at == slot));
        let named: SmallVec<[(usize, bool); 2]> = named.collect();
        if !named.iter().any(|(_, is_there)| *is_there) {
            return false;
        }
        let ended = (named.into_iter()).filter_map(|(key, _)| state.remove(key));
        let ended: SmallVec<[Seated; 2]> = ended.collect();
        drop(state);
        for (group, slot) in ended {
            group.end(slot);
        }
        true
    }

    fn find(&self, is_it: impl Fn(&Arc<dyn Membership>) -> bool) -> Option<Arc<dyn Membership>> {
        let state = self.0.lock();
        let mut groups = state.held().map(|(group, _)| group);
        groups.find(|group| is_it(group)).map(Arc::clone)
    }

    /// The first of its groups.
    pub(super) fn group(&self) -> Option<Arc<dyn Membership>> {
        self.find(|group| group.is_group())
    }

    /// Has an event passed on by the room that it is for; false when Python is to decide on it.
    pub(crate) fn pass(&self, event: &RoomEvent<'_>) -> bool {
        let rooms = self.find(|other| other.has_rooms());
        rooms.is_some_and(|rooms| rooms.pass(event))
    }

    /// Takes the member out of all its groups. It can join none from now on.
    pub(crate) fn end(&self) {
        self.close().end();
    }

    /// The first half of [`Memberships::end`]: it is over. The second one takes locks of groups.
    pub(super) fn close(&self) -> Ended {
        Ended(std::mem::replace(&mut *self.0.lock(), State::Over))
    }

    /// Whether it can join no more groups.
    pub(super) fn is_over(&self) -> bool {
        matches!(*self.0.lock(), State::Over)
    }

    /// The names of its groups in the registry at the address `registry`.
    pub(super) fn names(&self, registry: usize) -> Vec<String> {
        let state = self.0.lock();
        let groups = state.held().map(|(group, _)| group);
        let its = groups.filter(|group| group.is_group() && group.is_of(registry));
        its.map(|group| group.name().to_owned()).collect()
    }

    /// Its name, while it belongs to a group, and is no member of a room.
    pub(super) fn id(&self) -> Option<MemberId> {
        self.0.lock().id()
    }

    /// Whether this is the first warning about the member; notes that it was given.
    pub(super) fn warn_once(&self) -> bool {
        match &mut *self.0.lock() {
            State::Sole { is_warned, .. } => !std::mem::replace(is_warned, true),
            State::Open(open) => !std::mem::replace(&mut open.is_warned, true),
            State::Unused { .. } | State::Over => false,
        }
    }
}

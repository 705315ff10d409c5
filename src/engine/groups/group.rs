//! One group: its members in this process, and the messages that wait for them.

use std::{
    borrow::Borrow,
    collections::VecDeque,
    fmt,
    hash::{Hash, Hasher},
    sync::{Arc, Weak},
};

use parking_lot::Mutex;
use smallvec::SmallVec;

use super::{
    member::Member,
    memberships::{Departure, Membership},
    parcel::Message,
};
use crate::protocol::close::CloseFrame;

/// A group's name. Short ones need no allocation.
type Name = SmallVec<[u8; 16]>;

/// A registry, as its groups know it.
pub(super) trait Registry: fmt::Debug + Send + Sync {
    /// Ends the membership of the member at `place` of `group`.
    fn end(&self, group: &Group, place: u32);

    /// Removes `group` if it has no members and nothing waits in its queue.
    fn remove_if_unused(&self, group: &Group);
}

/// One group. It exists while it has members, or messages wait for those that have left.
#[derive(Debug)]
pub(crate) struct Group {
    name: Name,
    registry: Weak<dyn Registry>,
    /// The fan-out thread that serves it.
    pub(super) thread: u32,
    pub(super) state: Mutex<State>,
}

/// A group behind its lock.
#[derive(Debug, Default)]
pub(super) struct State {
    /// The places of members. A member keeps its place, so that the fan-out meets each one once.
    places: SmallVec<[Place; 1]>,
    /// The first of the vacant places, each of which names the next; `places.len()` is none.
    vacant: u32,
    members: u32,
    /// How many entries were ever put into the queue. A member gets those that come after it.
    sequence: u64,
    /// What waits, while something does.
    pub(super) pending: Option<Box<Pending>>,
}

#[derive(Debug)]
enum Place {
    Taken {
        member: Weak<dyn Member>,
        /// The entry that was the next one when the member joined.
        since: u64,
        /// The entry that was the next one when the member left.
        until: u64,
    },
    Vacant(u32),
}

/// The queue of a group, while its fan-out runs.
#[derive(Debug, Default)]
pub(super) struct Pending {
    entries: VecDeque<Entry>,
    /// The members that have left since the fan-out began, by the number of the entry that was the
    /// next one then, and by their places.
    left: VecDeque<(u64, u32)>,
}

/// What is published to a group.
#[derive(Clone, Debug)]
pub(crate) enum Entry {
    /// A message to all members.
    Message(Message),
    /// All members are closed.
    Close(CloseFrame),
}

impl Entry {
    /// Bytes that it holds.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Message(message) => message.frame_len(),
            Self::Close(_) => 0,
        }
    }
}

/// Entries that are handed out together.
#[derive(Debug)]
pub(super) struct Batch {
    /// The number of the first entry.
    pub(super) first: u64,
    pub(super) entries: Vec<Entry>,
}

impl Group {
    pub(super) fn new(name: &str, registry: Weak<dyn Registry>, thread: u32) -> Self {
        Self {
            name: Name::from_slice(name.as_bytes()),
            registry,
            thread,
            state: Mutex::default(),
        }
    }

    /// The number of its members in this process.
    pub(super) fn members(&self) -> u32 {
        self.state.lock().members
    }

    /// The fan-out is over.
    pub(super) fn on_idle(&self) {
        if let Some(registry) = self.registry.upgrade().filter(|_| self.members() == 0) {
            registry.remove_if_unused(self);
        }
    }
}

impl Membership for Group {
    fn name(&self) -> &str {
        // It was made from a `str`.
        std::str::from_utf8(&self.name).unwrap_or_default()
    }

    fn is_of(&self, registry: usize) -> bool {
        self.registry.as_ptr().cast::<()>().addr() == registry
    }

    fn end(&self, place: u32) {
        if let Some(registry) = self.registry.upgrade() {
            registry.end(self, place);
        }
    }
}

impl State {
    /// Gives a member a place; also whether it is the first.
    pub(super) fn enter(&mut self, member: Weak<dyn Member>) -> (u32, bool) {
        let taken = Place::Taken {
            member,
            since: self.sequence,
            until: u64::MAX,
        };
        let is_first = self.members == 0;
        self.members += 1;
        let place = self.vacant;
        match self.places.get_mut(place as usize) {
            Some(free) => {
                if let Place::Vacant(next) = *free {
                    self.vacant = next;
                }
                *free = taken;
            }
            None => {
                self.places.push(taken);
                self.vacant = u32::try_from(self.places.len()).unwrap_or(u32::MAX);
            }
        }
        (place, is_first)
    }

    /// Ends a membership. What waits in the queue reaches the member all the same.
    pub(super) fn leave(&mut self, place: u32) -> Departure {
        self.members -= 1;
        let is_awaited = self.pending.is_some();
        match (&mut self.pending, self.places.get_mut(place as usize)) {
            (Some(pending), Some(Place::Taken { until, .. })) => {
                *until = self.sequence;
                pending.left.push_back((self.sequence, place));
            }
            _ => self.vacate(place),
        }
        Departure {
            was_last: self.members == 0,
            is_awaited,
        }
    }

    /// Ends the membership of a member that can get nothing any more; true when the group is
    /// unused then.
    pub(super) fn withdraw(&mut self, place: u32) -> bool {
        self.members -= 1;
        self.vacate(place);
        self.is_unused()
    }

    fn vacate(&mut self, place: u32) {
        if let Some(taken) = self.places.get_mut(place as usize) {
            *taken = Place::Vacant(self.vacant);
            self.vacant = place;
        }
    }

    #[cfg(test)]
    pub(super) fn places(&self) -> usize {
        self.places.len()
    }

    /// Whether it has no members, and nothing waits for those that have left.
    pub(super) fn is_unused(&self) -> bool {
        self.members == 0 && self.pending.is_none()
    }

    /// Puts an entry into the queue. True when a fan-out has to be started for it.
    pub(super) fn push(&mut self, entry: Entry) -> bool {
        self.sequence += 1;
        let is_first = self.pending.is_none();
        let pending = self.pending.get_or_insert_default();
        pending.entries.push_back(entry);
        is_first
    }

    /// Takes the entries that are to be handed out next: a close alone, or messages of about
    /// `most` bytes, all from before or all from after a member has left. `None` when nothing
    /// waits: then the fan-out is over.
    pub(super) fn next(&mut self, most: usize) -> Option<Batch> {
        let waiting = self.pending.as_ref().map_or(0, |p| p.entries.len());
        let first = self.sequence - waiting as u64;
        self.vacate_left(first);
        let Some(pending) = self.pending.as_mut().filter(|_| waiting > 0) else {
            self.pending = None;
            return None;
        };
        let end = pending.left.front().map_or(u64::MAX, |(until, _)| *until);
        let mut bytes = 0;
        let mut count = 0;
        for (number, entry) in (first..end).zip(&pending.entries) {
            let is_close = matches!(entry, Entry::Close(_));
            if number > first && (is_close || bytes + entry.len() > most) {
                break;
            }
            count += 1;
            bytes += entry.len();
            if is_close {
                break;
            }
        }
        let entries = pending.entries.drain(..count).collect();
        Some(Batch { first, entries })
    }

    /// Vacates the places of members that have got all entries before number `first`, which were
    /// all for them.
    fn vacate_left(&mut self, first: u64) {
        while let Some(pending) = &mut self.pending {
            match pending.left.pop_front() {
                Some((until, place)) if until <= first => self.vacate(place),
                Some(later) => {
                    pending.left.push_front(later);
                    return;
                }
                None => return,
            }
        }
    }

    /// Gives the members that get entry number `first`, or join behind it, from place `from` on:
    /// each with the number of the first entry for it, as many as `into` has room for. Gives the
    /// place to go on from, `None` at the end.
    pub(super) fn members_from(
        &self,
        from: usize,
        first: u64,
        into: &mut Vec<(Weak<dyn Member>, u64)>,
    ) -> Option<usize> {
        for (at, place) in self.places.iter().enumerate().skip(from) {
            if into.len() == into.capacity() {
                return Some(at);
            }
            match place {
                Place::Taken {
                    member,
                    since,
                    until,
                } if *until > first => {
                    into.push((Weak::clone(member), *since));
                }
                _ => {}
            }
        }
        None
    }
}

/// A group in the registry, found by its name.
#[derive(Debug)]
pub(super) struct ByName(pub(super) Arc<Group>);

impl Borrow<[u8]> for ByName {
    fn borrow(&self) -> &[u8] {
        &self.0.name
    }
}

impl Hash for ByName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.name[..].hash(state);
    }
}

impl PartialEq for ByName {
    fn eq(&self, other: &Self) -> bool {
        self.0.name == other.0.name
    }
}

impl Eq for ByName {}

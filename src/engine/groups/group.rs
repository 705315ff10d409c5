//! One group: its members in this process, and the messages that wait for them.

use std::{
    borrow::Borrow,
    collections::{HashMap, HashSet, VecDeque},
    fmt,
    hash::{Hash, Hasher},
    ops::{Deref, Range},
    sync::{Arc, Weak},
};

use parking_lot::Mutex;
use smallvec::SmallVec;

use super::{
    member::{Eviction, Member},
    memberships::{Left, Membership},
    message::Message,
    stamps::{Cut, Stamps},
};
use crate::{engine::history::Position, protocol::close::CloseFrame};

/// Members that the fan-out serves at once: so many places, one after the other.
pub(super) const STRETCH: usize = 64;

/// The name of a group, or of a room. Short ones need no allocation.
#[derive(Debug)]
pub(super) struct Name(SmallVec<[u8; 16]>);

impl Name {
    pub(super) fn new(name: &str) -> Self {
        Self(SmallVec::from_slice(name.as_bytes()))
    }
}

impl Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        // It was made from a `str`.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// A registry, as its groups know it.
pub(super) trait Registry: fmt::Debug + Send + Sync {
    /// Ends the membership of the member at `place` of `group`.
    fn end(&self, group: &Group, slot: u32);

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
    slots: SmallVec<[Slot; 1]>,
    /// The first of the vacant places, each of which names the next; `places.len()` is none.
    vacant: u32,
    members: u32,
    /// How many entries were ever put into the queue. A member gets those that come after it.
    sequence: u64,
    /// The entries that wait, while there are some.
    pub(super) pending: Option<Box<Pending>>,
    /// For a group with a history.
    pub(super) recorded: Option<Box<Recorded>>,
    /// For a group whose messages are numbered by their publishers.
    stamped: Option<Box<Stamped>>,
}

/// How far the messages of each publisher have come.
#[derive(Debug, Default)]
struct Stamped {
    last: Stamps,
    /// The members, by their places, that have got messages in another process, and which.
    got: HashMap<u32, Arc<Stamps>>,
}

/// How far a group with a history is in this process.
#[derive(Debug)]
pub(super) struct Recorded {
    /// The newest message that was put into the queue. All later ones will be, in order.
    pub(super) position: Position,
    /// The position after the last gap: from here on all messages were put into the queue.
    pub(super) whole_since: Position,
    /// The places of members that get messages with their numbers.
    pub(super) numbered: HashSet<u32>,
}

#[derive(Debug)]
enum Slot {
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
#[derive(Debug)]
pub(super) struct Pending {
    entries: VecDeque<Entry>,
    /// The number of the next entry for each stretch of members.
    next: SmallVec<[u64; 1]>,
    /// The members that have left since the fan-out began, by the number of the entry that was the
    /// next one then, and by their places.
    left: VecDeque<(u64, u32)>,
}

/// An entry that is published to a group.
#[derive(Clone, Debug)]
pub(crate) enum Entry {
    /// A message to all members.
    Message(Message),
    /// All members are closed.
    Close(CloseFrame),
    /// The named ones are members no more.
    Eviction(Eviction),
    /// Messages may be missing here. Members of rooms are told, and those that get numbers by this
    /// text.
    Gap(Option<Message>),
}

impl Entry {
    /// Bytes that it holds.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Message(message) | Self::Gap(Some(message)) => message.frame_len(),
            Self::Close(_) | Self::Gap(None) => 0,
            Self::Eviction(eviction) => eviction.reason.len(),
        }
    }
}

/// Entries that are handed out together: messages, or one of another kind alone.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// The number of the first entry.
    pub(super) first: u64,
    pub(super) entries: Vec<Entry>,
}

/// The outcome of [`State::next`]: whether a batch is due to a stretch of members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// They have got all that they can get now.
    Nothing,
    /// The batch as it was.
    SameBatch,
    /// The batch, which has changed.
    NewBatch,
}

/// The outcome of a pass over all members.
#[derive(Clone, Copy, Debug)]
pub(super) struct Passed {
    /// Bytes of the entries that were removed, because all members have got them.
    pub(super) bytes: usize,
    /// The number of the first entry that waits.
    pub(super) first: u64,
    /// Nothing waits: the fan-out is over.
    pub(super) is_over: bool,
}

/// A member that is to get entries.
pub(super) struct Recipient {
    pub(super) member: Weak<dyn Member>,
    /// Its place.
    pub(super) slot: u32,
    /// The number of the first entry for it.
    pub(super) since: u64,
    /// Whether it gets messages with their positions.
    pub(super) is_numbered: bool,
    /// The messages that it has got in another process.
    pub(super) got: Option<Arc<Stamps>>,
}

impl Group {
    pub(super) fn new(name: &str, registry: Weak<dyn Registry>, thread: u32) -> Self {
        Self {
            name: Name::new(name),
            registry,
            thread,
            state: Mutex::default(),
        }
    }

    /// The number of its members in this process.
    pub(super) fn members(&self) -> u32 {
        self.state.lock().members
    }

    /// The address of its registry.
    pub(super) fn registry(&self) -> usize {
        self.registry.as_ptr().cast::<()>().addr()
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
        &self.name
    }

    fn is_of(&self, registry: usize) -> bool {
        self.registry() == registry
    }

    fn is_group(&self) -> bool {
        true
    }

    fn end(&self, slot: u32) {
        if let Some(registry) = self.registry.upgrade() {
            registry.end(self, slot);
        }
    }
}

impl State {
    /// Puts a member into a place; also returns whether it is the first.
    pub(super) fn enter(&mut self, member: Weak<dyn Member>) -> (u32, bool) {
        let taken = Slot::Taken {
            member,
            since: self.sequence,
            until: u64::MAX,
        };
        let is_first = self.members == 0;
        self.members += 1;
        let slot = self.vacant;
        match self.slots.get_mut(slot as usize) {
            Some(free) => {
                if let Slot::Vacant(next) = *free {
                    self.vacant = next;
                }
                *free = taken;
            }
            None => {
                self.slots.push(taken);
                self.vacant = u32::try_from(self.slots.len()).unwrap_or(u32::MAX);
                if let Some(pending) = &mut self.pending {
                    let stretches = self.slots.len().div_ceil(STRETCH);
                    pending.next.resize(stretches, self.sequence);
                }
            }
        }
        (slot, is_first)
    }

    /// Ends a membership. Messages in the queue reach the member all the same.
    pub(super) fn leave(&mut self, slot: u32) -> Left {
        self.members -= 1;
        let is_awaited = self.pending.is_some();
        match (&mut self.pending, self.slots.get_mut(slot as usize)) {
            (Some(pending), Some(Slot::Taken { until, .. })) => {
                *until = self.sequence;
                pending.left.push_back((self.sequence, slot));
            }
            _ => self.vacate(slot),
        }
        Left {
            was_last: self.members == 0,
            is_awaited,
        }
    }

    /// Ends the membership of a member that can get nothing any more; true when the group is
    /// unused then.
    pub(super) fn withdraw(&mut self, slot: u32) -> bool {
        self.members -= 1;
        self.vacate(slot);
        self.is_unused()
    }

    fn vacate(&mut self, slot: u32) {
        if let Some(taken) = self.slots.get_mut(slot as usize) {
            *taken = Slot::Vacant(self.vacant);
            self.vacant = slot;
        }
        if let Some(recorded) = &mut self.recorded {
            recorded.numbered.remove(&slot);
        }
        if let Some(stamped) = &mut self.stamped {
            stamped.got.remove(&slot);
        }
    }

    #[cfg(test)]
    pub(super) fn slots(&self) -> usize {
        self.slots.len()
    }

    /// Whether it has no members, and nothing waits for those that have left.
    pub(super) fn is_unused(&self) -> bool {
        self.members == 0 && self.pending.is_none()
    }

    /// Puts an entry into the queue. True when a fan-out has to be started for it.
    pub(super) fn push(&mut self, entry: Entry) -> bool {
        let starts = self.pending.is_none();
        let pending = self.pending.get_or_insert_with(|| {
            let stretches = self.slots.len().div_ceil(STRETCH);
            Box::new(Pending {
                entries: VecDeque::new(),
                next: SmallVec::from_elem(self.sequence, stretches),
                left: VecDeque::new(),
            })
        });
        if let Entry::Message(message) = &entry {
            if let Some(stamp) = message.stamp {
                self.stamped.get_or_insert_default().last.note(stamp);
            }
        }
        pending.entries.push_back(entry);
        self.sequence += 1;
        starts
    }

    /// Takes the entries that the members of `stretch` are to get next, about `most` bytes, into
    /// `batch`, and those members into `recipients`. `None` after the last stretch.
    pub(super) fn next(
        &mut self,
        stretch: usize,
        most: usize,
        batch: &mut Batch,
        recipients: &mut Vec<Recipient>,
    ) -> Option<Next> {
        let numbers = self.numbers();
        let pending = self.pending.as_mut()?;
        let next = pending.next.get_mut(stretch)?;
        // A member may have left and joined again at another place: what was published in between
        // is for neither, and what comes after waits until all have got what came before.
        let end = (pending.left.front()).map_or(numbers.end, |(until, _)| *until);
        let at = |number: u64| usize::try_from(number - numbers.start).unwrap_or(usize::MAX);
        let first = *next;
        let waiting = pending.entries.range(at(first)..at(end.max(first)));
        let count = count_of_batch(waiting.clone(), most);
        if count == 0 {
            return Some(Next::Nothing);
        }
        let is_new = batch.first != first || batch.entries.len() != count;
        if is_new {
            batch.first = first;
            batch.entries.clear();
            batch.entries.extend(waiting.take(count).cloned());
        }
        *next += count as u64;
        recipients.extend(self.recipients_of(first, stretch));
        Some(if is_new {
            Next::NewBatch
        } else {
            Next::SameBatch
        })
    }

    /// The members of `stretch` that are to get the entry with this number.
    fn recipients_of(&self, number: u64, stretch: usize) -> impl Iterator<Item = Recipient> {
        let numbered = (self.recorded.as_deref()).map(|recorded| &recorded.numbered);
        let is_numbered =
            move |slot: u32| numbered.is_some_and(|numbered| numbered.contains(&slot));
        let got = move |slot: u32| self.stamped.as_ref()?.got.get(&slot).cloned();
        let slots = self.slots.iter().enumerate();
        let slots = slots.skip(stretch * STRETCH).take(STRETCH);
        let slots = slots.filter_map(|(place, slot)| Some((u32::try_from(place).ok()?, slot)));
        slots.filter_map(move |(place, slot)| match slot {
            Slot::Taken {
                member,
                since,
                until,
            } if *until > number => Some(Recipient {
                member: Weak::clone(member),
                slot: place,
                since: *since,
                is_numbered: is_numbered(place),
                got: got(place),
            }),
            _ => None,
        })
    }

    /// Ends a pass over all stretches: removes the entries that all members have got.
    pub(super) fn end_pass(&mut self) -> Passed {
        let numbers = self.numbers();
        let mut passed = Passed {
            bytes: 0,
            first: numbers.start,
            is_over: true,
        };
        let Some(pending) = &mut self.pending else {
            return passed;
        };
        passed.first = pending.next.iter().min().copied().unwrap_or(numbers.end);
        let count = usize::try_from(passed.first - numbers.start).unwrap_or(usize::MAX);
        passed.bytes = pending.entries.drain(..count).map(|e| e.len()).sum();
        passed.is_over = pending.entries.is_empty();
        let gone = pending
            .left
            .partition_point(|(until, _)| *until <= passed.first);
        let gone: SmallVec<[_; 8]> = pending.left.drain(..gone).collect();
        for (_, slot) in gone {
            self.vacate(slot);
        }
        if passed.is_over {
            self.pending = None;
        }
        passed
    }

    /// The point that the next entry comes after.
    pub(super) fn cut(&self) -> Cut {
        let last = self.stamped.as_ref().map(|stamped| stamped.last.clone());
        Cut {
            got: last.unwrap_or_default(),
            until: self.sequence,
        }
    }

    /// In a group that has a history: how far it is, and whether the member at `slot` gets numbers.
    pub(super) fn standing_of(&self, slot: u32) -> Option<(Position, bool)> {
        let of = self.recorded.as_deref()?;
        Some((of.position, of.numbered.contains(&slot)))
    }

    /// In a group that has a history: has the member at `slot` get numbers from now on, and returns
    /// how far it is.
    pub(super) fn number(&mut self, slot: u32) -> Option<Position> {
        let of = self.recorded.as_deref_mut()?;
        of.numbered.insert(slot);
        Some(of.position)
    }

    /// Leaves out messages that the member at `slot` has got in another process.
    pub(super) fn filter(&mut self, slot: u32, got: Stamps) {
        if got.each().next().is_some() {
            let stamped = self.stamped.get_or_insert_default();
            stamped.got.insert(slot, Arc::new(got));
        }
    }

    /// Whether all entries before this number have reached their members.
    pub(super) fn has_handed_out(&self, until: u64) -> bool {
        self.pending.is_none() || self.numbers().start >= until
    }

    /// The numbers of the entries that wait.
    fn numbers(&self) -> Range<u64> {
        let waiting = self.pending.as_ref().map_or(0, |p| p.entries.len());
        self.sequence - waiting as u64..self.sequence
    }
}

/// How many of the `waiting` entries are handed out together.
fn count_of_batch<'a>(waiting: impl Iterator<Item = &'a Entry>, most: usize) -> usize {
    let mut bytes = 0;
    let mut count = 0;
    for entry in waiting {
        let is_alone = !matches!(entry, Entry::Message(_));
        if count > 0 && (is_alone || bytes + entry.len() > most) {
            break;
        }
        count += 1;
        bytes += entry.len();
        if is_alone {
            break;
        }
    }
    count
}

/// Something with a name, by which [`ByName`] finds it.
pub(super) trait Named {
    fn key(&self) -> &Name;
}

/// A group in the registry, or a seat of a connection, found by its name.
#[derive(Debug)]
pub(super) struct ByName<T>(pub(super) Arc<T>);

impl Named for Group {
    fn key(&self) -> &Name {
        &self.name
    }
}

impl<T: Named> Borrow<[u8]> for ByName<T> {
    fn borrow(&self) -> &[u8] {
        &self.0.key().0
    }
}

impl<T: Named> Hash for ByName<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.key().0[..].hash(state);
    }
}

impl<T: Named> PartialEq for ByName<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0.key().0 == other.0.key().0
    }
}

impl<T: Named> Eq for ByName<T> {}

//! All groups of one backend in this process.

use std::{
    collections::HashSet,
    fmt,
    hash::{BuildHasher, RandomState},
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::{Mutex, RwLock};

use super::{
    envelope,
    fan_out::{FanOut, FanOutThread},
    group::{ByName, Entry, Group, Registry, State},
    markers::{Markers, Token},
    member::{Eviction, Member, WhenFull, Whom},
    memberships::{Joined, MemberId, Membership},
    message::Message,
    notices::{Notice, Notices},
    passage::Publisher,
    seal::Key,
    stamps::Stamp,
    statistics::{Event, Statistics},
    waiting_publishers::WaitingPublishers,
};
use crate::{
    engine::{
        base::{fork, panics::contain},
        wakeup::call::Wait,
    },
    protocol::close::CloseFrame,
};

/// All groups of one backend in this process. Any thread may use it.
#[derive(Debug)]
pub struct Groups {
    generation: u64,
    names: Mutex<HashSet<ByName<Group>>>,
    random: RandomState,
    pub(super) fan_out: Arc<FanOut>,
    key: Option<Key>,
    observer: RwLock<Option<Weak<dyn Observer>>>,
    pub(super) markers: Markers,
    evictions: AtomicU64,
}

/// Receives a call when the members of a group have changed, on any thread, with no lock held. It
/// must not sleep.
pub trait Observer: fmt::Debug + Send + Sync {
    /// The group `name` has a member more or less than before.
    fn on_members(&self, name: &str);
}

impl Groups {
    /// A registry without groups, whose fan-outs run on `threads`, at least one.
    ///
    /// With a `key`, envelopes are sealed with it, and those without the right seal are refused.
    pub fn new(threads: Vec<FanOutThread>, when_full: WhenFull, key: Option<&[u8]>) -> Arc<Self> {
        Arc::new(Self {
            generation: fork::generation(),
            names: Mutex::default(),
            random: RandomState::new(),
            fan_out: FanOut::new(threads, when_full),
            key: key.and_then(Key::new),
            observer: RwLock::default(),
            markers: Markers::default(),
            evictions: AtomicU64::new(0),
        })
    }

    /// Has `observer` called from now on, in place of the one before: a start may fail after it.
    pub(crate) fn observe(&self, observer: Weak<dyn Observer>) {
        *self.observer.write() = Some(observer);
    }

    pub(super) fn notify(&self, name: &str) {
        let observer = self.observer.read().as_ref().and_then(Weak::upgrade);
        if let Some(observer) = observer {
            contain(|| observer.on_members(name));
        }
    }

    /// Counters of what was published and delivered.
    pub fn statistics(&self) -> &Statistics {
        &self.fan_out.statistics
    }

    /// How many evictions have come here, of whichever group: one that a new member has just missed is
    /// among them.
    pub fn evictions(&self) -> u64 {
        self.evictions.load(Ordering::Acquire)
    }

    /// Events for the log.
    pub fn notices(&self) -> &Notices {
        &self.fan_out.notices
    }

    /// Counts and reports that a task, which does `what`, has failed and begins anew.
    pub(crate) fn note_restart(&self, what: &str) {
        self.fan_out.note_restart(what);
    }

    /// Whether it belongs to a parent process, whose locks may be held for ever.
    pub(super) fn is_foreign(&self) -> bool {
        self.generation != fork::generation()
    }

    /// Makes `member` a member of the group `name`. Messages that are published later reach it.
    pub fn join<M: Member + 'static>(
        self: &Arc<Self>,
        name: &str,
        member: &Arc<M>,
        id: MemberId,
    ) -> Joined {
        if self.is_foreign() || member.is_foreign() {
            return Joined::Over;
        }
        let weak = Arc::downgrade(member);
        let enter = || self.enter(name, |state| Some(state.enter(weak)));
        let joined = member.memberships().join(id, || self.find(name), enter);
        if matches!(joined, Joined::First | Joined::More) {
            self.notify(name);
        }
        joined
    }

    /// Ends the membership; `None` when there was none, else whether the group has no member in
    /// this process any more. Messages that were published here before still reach the
    /// member, later ones do not.
    pub fn leave(&self, name: &str, member: &dyn Member) -> Option<bool> {
        let group = self.find(name).filter(|_| !member.is_foreign())?;
        let memberships = member.memberships();
        let departure = memberships.leave(&group, |slot| Some(group.state.lock().leave(slot)))?;
        if departure.was_last {
            self.remove_if_unused(&group);
        }
        self.notify(name);
        Some(departure.was_last)
    }

    /// Whether `member` is in the group `name`.
    pub fn is_member(&self, name: &str, member: &dyn Member) -> bool {
        let group = self.find(name).filter(|_| !member.is_foreign());
        group.is_some_and(|group| member.memberships().place_in(&group).is_some())
    }

    /// The names of the groups of `member` here.
    pub fn names_of(self: &Arc<Self>, member: &dyn Member) -> Vec<String> {
        if self.is_foreign() || member.is_foreign() {
            return Vec::new();
        }
        member.memberships().names(Arc::as_ptr(self).addr())
    }

    /// The number of members of the group `name` in this process.
    pub fn count(&self, name: &str) -> usize {
        self.find(name).map_or(0, |group| group.members() as usize)
    }

    /// The names of all groups with members here, and the numbers of these.
    pub fn counts(&self) -> Vec<(String, usize)> {
        if self.is_foreign() {
            return Vec::new();
        }
        let names = self.names.lock();
        names
            .iter()
            .map(|ByName(group)| (group.name().to_owned(), group.members() as usize))
            .filter(|(_, members)| *members > 0)
            .collect()
    }

    /// Whether `more` bytes may be published. False while the engine is behind by many messages.
    pub fn has_room(&self, more: usize) -> bool {
        self.fan_out.has_room(more)
    }

    /// `None` when `more` bytes may be published now. Else a wait until there may be room for them.
    pub fn wait_for_room(&self, more: usize) -> Option<Arc<Wait>> {
        if self.has_room(more) {
            return None;
        }
        let wait = self.waiting().wait(more);
        // There may be room since.
        (!self.has_room(more)).then_some(wait)
    }

    /// The publishers that wait for room, here and on the way to other processes.
    pub(crate) fn waiting(&self) -> &WaitingPublishers {
        &self.fan_out.waiting
    }

    /// Bytes that wait in the queues of all groups.
    #[cfg(test)]
    pub(super) fn waiting_bytes(&self) -> usize {
        self.fan_out.waiting_bytes()
    }

    /// Places of the group `name`, taken or not.
    #[cfg(test)]
    pub(super) fn slots(&self, name: &str) -> usize {
        (self.find(name)).map_or(0, |group| group.state.lock().slots())
    }

    /// Sends `message` to all members of the group `name` in this process. Never sleeps. To be
    /// called only while there is [room](Groups::has_room): what waits takes memory.
    pub fn publish(self: &Arc<Self>, name: &str, message: Message) {
        self.fan_out.statistics.count_in(name, Event::Published);
        self.put(name, Entry::Message(message));
    }

    /// Closes all members of the group `name` in this process, after what was published before.
    pub fn close(self: &Arc<Self>, name: &str, frame: CloseFrame) {
        self.put(name, Entry::Close(frame));
    }

    /// Hands `messages` to `members` of the group `name`, in turns with other work.
    pub(crate) async fn hand_out(
        &self,
        name: &str,
        messages: Vec<Message>,
        members: Vec<Weak<dyn Member>>,
    ) {
        let thread = self.fan_out.thread_for(self.random.hash_one(name));
        self.fan_out.hand_out(thread, name, messages, members).await;
    }

    /// Runs `task` on the thread that serves the group `name`.
    pub(crate) fn spawn_beside(&self, name: &str, task: impl Future<Output = ()> + Send + 'static) {
        let thread = self.fan_out.thread_for(self.random.hash_one(name));
        self.fan_out.spawn(thread, task);
    }

    /// The envelope in which a message to the group `name` goes to other processes.
    pub fn envelope_of(&self, name: &str, message: &Message) -> Vec<u8> {
        self.seal(name, envelope::of_message(message))
    }

    /// `bytes` for other processes, sealed for `name` if there is a key. No group may have that name
    /// when they are a backend's own.
    pub(crate) fn seal(&self, name: &str, bytes: Vec<u8>) -> Vec<u8> {
        match &self.key {
            Some(key) => key.seal(name, &bytes),
            None => bytes,
        }
    }

    /// The bytes that were sealed for `name`; `None` with a wrong seal.
    pub(crate) fn open<'a>(&self, name: &str, sealed: &'a [u8]) -> Option<&'a [u8]> {
        match &self.key {
            Some(key) => key.open(name, sealed),
            None => Some(sealed),
        }
    }

    /// Hands what another process has published to the members here. False for bytes that are no
    /// [envelope](super::envelope), or one with a wrong seal.
    pub fn deliver(self: &Arc<Self>, name: &str, envelope: &[u8]) -> bool {
        let Some(envelope) = self.open(name, envelope) else {
            return false;
        };
        if let Some(entry) = envelope::read(envelope) {
            self.put(name, entry);
        } else if let Some(tokens) = envelope::markers_of(envelope) {
            self.on_markers(name, &tokens);
        } else {
            return false;
        }
        true
    }

    /// As [`Groups::deliver`], for a message with a number of its publisher's.
    #[cfg(unix)]
    pub(crate) fn deliver_stamped(
        self: &Arc<Self>,
        name: &str,
        envelope: &[u8],
        stamp: Stamp,
    ) -> bool {
        let entry = match self.open(name, envelope).and_then(envelope::read) {
            Some(Entry::Message(message)) => Entry::Message(message.stamped(stamp)),
            Some(entry) => entry,
            None => return false,
        };
        self.put(name, entry);
        true
    }

    /// Notes the envelope of a group that does not exist here: it may be an eviction, which counts.
    #[cfg(unix)]
    pub(crate) fn note_eviction(&self, name: &str, envelope: &[u8]) {
        let opened = self.open(name, envelope);
        if let Some(eviction) = opened.and_then(envelope::eviction_in) {
            self.put(name, Entry::Eviction(eviction));
        }
    }

    /// Whether the group `name` exists here: a member may get what is published.
    #[cfg(unix)]
    pub(crate) fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// The message of an envelope; `None` for bytes that are none, or have a wrong seal.
    pub fn message_of(&self, name: &str, envelope: &[u8]) -> Option<Message> {
        match self.open(name, envelope).and_then(envelope::read)? {
            Entry::Message(message) => Some(message),
            Entry::Close(_) | Entry::Gap(_) | Entry::Eviction(_) => None,
        }
    }

    fn on_markers(&self, name: &str, tokens: &[Token]) {
        if !self.is_foreign() {
            for token in tokens {
                self.markers.on_marker(name, *token);
            }
        }
    }

    fn put(&self, name: &str, entry: Entry) {
        if self.is_foreign() {
            return;
        }
        if matches!(entry, Entry::Eviction(_)) {
            // First: a member that is not found here sees it.
            self.evictions.fetch_add(1, Ordering::AcqRel);
        }
        let Some(group) = self.find(name) else {
            return;
        };
        if let Entry::Eviction(
            eviction @ Eviction {
                whom: Whom::User(_),
                ..
            },
        ) = &entry
        {
            self.notices().add(Notice::Evicted {
                group: name.to_owned(),
                eviction: eviction.clone(),
            });
        }
        self.fan_out.put(&group, entry);
    }

    /// Messages of the group `name` may have been lost on their way here. Members of rooms are told
    /// before the next message; in a group with a history its positions say what is missing.
    pub fn note_loss(&self, name: &str) {
        if self.position_of(name).is_none() {
            self.put(name, Entry::Gap(None));
        }
    }

    /// The group `name`, if it has members; none in a forked child.
    pub(super) fn find(&self, name: &str) -> Option<Arc<Group>> {
        if self.is_foreign() {
            return None;
        }
        let names = self.names.lock();
        names
            .get(name.as_bytes())
            .map(|ByName(group)| Arc::clone(group))
    }

    /// Has `enter` give a member a place in the group `name`, which is made if need be.
    pub(super) fn enter(
        self: &Arc<Self>,
        name: &str,
        enter: impl FnOnce(&mut State) -> Option<(u32, bool)>,
    ) -> Option<(Arc<Group>, u32, bool)> {
        let mut names = self.names.lock();
        let group = if let Some(ByName(group)) = names.get(name.as_bytes()) {
            Arc::clone(group)
        } else {
            let thread = self.fan_out.thread_for(self.random.hash_one(name));
            let registry: Weak<Self> = Arc::downgrade(self);
            let group = Arc::new(Group::new(name, registry, thread));
            names.insert(ByName(Arc::clone(&group)));
            group
        };
        let entered = enter(&mut group.state.lock());
        drop(names);
        let (slot, is_first) = entered?;
        Some((group, slot, is_first))
    }
}

impl Publisher for Groups {
    fn publish_event(&self, name: &str, event: Message) -> bool {
        let has_room = self.has_room(event.frame_len());
        if has_room {
            self.put(name, Entry::Message(event));
        }
        has_room
    }
}

impl Registry for Groups {
    fn end(&self, group: &Group, slot: u32) {
        if !self.is_foreign() {
            let is_unused = group.state.lock().withdraw(slot);
            if is_unused {
                self.remove_if_unused(group);
            }
            self.notify(group.name());
        }
    }

    fn remove_if_unused(&self, group: &Group) {
        let mut names = self.names.lock();
        let is_same = |ByName(found): &ByName<Group>| std::ptr::eq(Arc::as_ptr(found), group);
        let name = group.name().as_bytes();
        if names.get(name).is_some_and(is_same) && group.state.lock().is_unused() {
            names.remove(name);
            // Many groups that were there for a while leave no table behind.
            if names.len() < names.capacity() / 8 {
                let few = names.len() * 2;
                names.shrink_to(few);
            }
        }
    }
}

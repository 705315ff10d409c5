//! The users that are present in one group.
//!
//! A room knows each user once, as a [`Person`]: with the *local connections*, which are in this
//! process, and with the number of those in each other process, the *shares*, which records tell. A
//! user joins when a person enters the room: with the first connection, here or elsewhere. A person
//! without any connection stays for the grace, and leaves when that is over, or is back before.
//!
//! Both are *events*, in the order in which this process sees them, so a user joins before the same
//! user leaves. Each has a number; a connection that watches gets those from its own joining on. The
//! room's task (`registry.rs`) takes them in rounds, several at once, and one round tells all that
//! watch: the more they are, the rarer the rounds. The task also ends the graces, and reports the
//! users who have left to the signals.
//!
//! A connection that moves to another process goes on there after the changes that it knows. For that
//! a room sums up its users as one number, the *digest*, and keeps the latest changes.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, HashSet, VecDeque},
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{
    claim::{Claim, Decision},
    event::{Change, Event},
    facts::{Facts, Info},
    person::{Leaver, Person},
    record::{Record, Source, Telling},
};
use crate::engine::{
    base::clock,
    groups::{Member, Membership},
};

/// The time between two rounds in which those that watch are told of events: at least so much, and
/// some more for each of them.
const SHORTEST_ROUND: Duration = Duration::from_millis(50);
const ROUND_FOR_EACH: Duration = Duration::from_micros(20);
/// For so long it is known of which users this process has told that they have left: longer than what
/// another process tells is on its way.
const GONE: Duration = Duration::from_secs(5);
/// Zero would say that there is a connection.
const SHORTEST_AWAY: Duration = Duration::from_millis(1);

/// The registry, as its rooms know it.
pub(super) trait Owner: std::fmt::Debug + Send + Sync {
    /// The connection at `place` of `room` has ended.
    fn end(&self, room: &Room, slot: u32);
}

/// One group in which users are present.
#[derive(Debug)]
pub(super) struct Room {
    pub(super) name: Arc<str>,
    registry: Weak<dyn Owner>,
    /// The address of the registry that has its group.
    groups: usize,
    pub(super) state: Mutex<State>,
    /// Notified when the room's task has something to do.
    pub(super) changed: Notify,
}

/// A room behind its lock.
#[derive(Debug, Default)]
pub(super) struct State {
    people: HashMap<String, Person>,
    /// The connections here, by their places.
    local: HashMap<u32, LocalConnection>,
    next_slot: u32,
    watching: HashMap<u32, Watcher>,
    /// The events that the watching connections are still to be told.
    events: VecDeque<Event>,
    /// How many events there ever were.
    count: u64,
    /// How many there were when the latest connection began to watch.
    watched_at: u64,
    /// When they were told last.
    told_at: Option<Instant>,
    /// Users whose grace ends then, unless they have come back.
    leaving: BinaryHeap<Reverse<(Instant, String)>>,
    grace: Duration,
    /// Whether there may be other processes.
    pub(super) is_shared: bool,
    /// Departures and returns that are still to be reported, in order.
    moves: Vec<Move>,
    /// The claims to tell that a user has joined. See `claim.rs`.
    pub(super) claims: HashMap<String, Claim>,
    /// The users of which this process has told that they have left, and since when.
    pub(super) gone: HashMap<String, Instant>,
    gone_in_order: VecDeque<(Instant, String)>,
    /// Whether the watching connections are being told of events.
    is_telling: bool,
    /// What is kept for connections that come from other processes.
    recent: Recent,
}

/// The latest changes, and what the users were before and after them: a connection that watches in
/// another process goes on here after those that it knows.
#[derive(Debug, Default)]
struct Recent {
    /// All users, as one number.
    digest: u64,
    /// When that has last changed.
    changed_at: Option<Instant>,
    /// How many changes there were.
    count: u64,
    /// The changes, with their numbers and times.
    changes: VecDeque<(u64, Instant, Event)>,
    /// The digests, each with the number of the next change, and since when it was that; `None` for
    /// one that was there before the first change.
    digests: VecDeque<(u64, Option<Instant>, u64)>,
}

/// For so long changes are kept, and so many of them: longer than they take to all processes.
const RECENT: Duration = Duration::from_secs(5);
const MAX_RECENT: usize = 64;
/// After so long without a change other processes know of all of them, as a rule.
const QUIET: Duration = Duration::from_millis(20);
/// Changes take less from one process to another. A digest that comes twice within that time says not
/// which changes are known: one user may have come and gone in between.
const UNSURE: Duration = Duration::from_millis(500);

/// The facts about a connection that is present, for another process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Its user, without what the connection says about it; `None` for one that only watches.
    pub facts: Option<Facts>,
    /// What it says about the user, as JSON, and when it has said so.
    pub info: Option<(String, u64)>,
    /// Whether it gets the users that join and leave.
    pub watches: bool,
    /// How long a user without connections stays in this group.
    pub grace: Duration,
}

/// The users that a connection knows which was told of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// All of them, as one number.
    pub digest: u64,
    /// The same before the last change; `None` before the first one.
    pub before: Option<u64>,
}

impl Recent {
    fn add(&mut self, change: Change, facts: &Arc<Facts>) {
        let event = Event {
            number: 0,
            change,
            facts: Arc::clone(facts),
        };
        self.changes.push_back((self.count, clock::now(), event));
        self.count += 1;
        if self.changes.len() > MAX_RECENT {
            self.changes.pop_front();
        }
    }

    /// Notes the change of a user from one digest to another one.
    fn note(&mut self, before: u64, after: u64) {
        if before == after {
            return;
        }
        if self.digests.is_empty() {
            self.digests.push_back((0, None, self.digest));
        }
        let now = clock::now();
        self.digest ^= before ^ after;
        self.changed_at = Some(now);
        self.digests.push_back((self.count, Some(now), self.digest));
        if self.digests.len() > 2 * MAX_RECENT {
            self.digests.pop_front();
        }
    }

    /// Forgets changes from long ago. Returns when the next one is to be forgotten.
    fn forget(&mut self, now: Instant) -> Option<Instant> {
        while self
            .changes
            .front()
            .is_some_and(|(_, at, _)| *at + RECENT <= now)
        {
            self.changes.pop_front();
        }
        self.changes.front().map(|(_, at, _)| *at + RECENT)
    }

    /// The users now, and before the last change.
    fn known(&self) -> Known {
        let before = self.digests.len().checked_sub(2);
        Known {
            digest: self.digest,
            before: before.map(|index| self.digests[index].2),
        }
    }

    /// The number of the change by which the users became those that are `known`. `None` if that is
    /// not here, or has happened more than once.
    fn only_change(&self, known: Known) -> Option<u64> {
        let mut found = (self.digests.iter())
            .zip(self.digests.iter().skip(1))
            .filter(|((.., before), (.., after))| {
                known.before == Some(*before) && known.digest == *after
            })
            .map(|(_, (count, ..))| *count);
        found.next().filter(|_| found.next().is_none())
    }

    /// The number of the change after which the users were those of `digest`, from shortly before
    /// `at` on. `None` if they were not, or more than once.
    fn only_time(&self, digest: u64, at: Instant) -> Option<u64> {
        let from = at.checked_sub(UNSURE)?;
        let Some((_, known_since, _)) = self.digests.front() else {
            return (digest == self.digest).then_some(self.count);
        };
        if known_since.is_some_and(|since| since > from) {
            return None;
        }
        let ends = (self.digests.iter().skip(1)).map(|(_, at, _)| *at);
        let mut found = (self.digests.iter())
            .zip(ends.chain([None]))
            .filter(|((.., then), _)| *then == digest)
            .filter(|((_, since, _), _)| since.is_none_or(|it| it <= at + UNSURE))
            .filter(|(_, until)| until.is_none_or(|it| it >= from))
            .map(|((count, ..), _)| *count);
        found.next().filter(|_| found.next().is_none())
    }

    /// The changes since the users were those that are `known`, at the moment `at` of another
    /// process. `None` if that is not sure, or long ago.
    fn since(&self, known: Known, at: Instant) -> Option<impl Iterator<Item = &Event>> {
        // A change that was late is found by the users before and after it.
        let since = (self.only_time(known.digest, at)).or_else(|| self.only_change(known))?;
        let first = self.count - self.changes.len() as u64;
        let later = self
            .changes
            .iter()
            .filter(move |(number, ..)| *number >= since);
        (since >= first).then(|| later.map(|(.., event)| event))
    }
}

/// A user has left the room, or was back before another process knew of that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Move {
    pub(super) facts: Arc<Facts>,
    /// The process that reports it, if the user has left. If not, it is this one.
    pub(super) left_by: Option<Leaver>,
}

#[derive(Debug)]
struct LocalConnection {
    key: String,
    name: Arc<str>,
}

/// A connection that gets the users that join and leave.
#[derive(Clone, Debug)]
pub(super) struct Watcher {
    pub(super) member: Weak<dyn Member>,
    key: String,
    /// The first event for it.
    since: u64,
}

/// The next step of a room's task.
#[derive(Debug)]
pub(super) enum Next {
    /// Send events to the watching connections.
    Tell(Vec<Event>, Vec<Watcher>),
    /// Sleep until then, or until something changes.
    Sleep(Option<Instant>),
    /// No user is present any more.
    Nothing,
}

impl Room {
    pub(super) fn new(name: &str, registry: Weak<dyn Owner>, groups: usize) -> Self {
        Self {
            name: name.into(),
            registry,
            groups,
            state: Mutex::default(),
            changed: Notify::new(),
        }
    }
}

impl Membership for Room {
    fn name(&self) -> &str {
        &self.name
    }

    fn is_of(&self, registry: usize) -> bool {
        self.groups == registry
    }

    fn end(&self, slot: u32) {
        if let Some(registry) = self.registry.upgrade() {
            registry.end(self, slot);
        }
    }
}

impl Watcher {
    /// Whether it is to get all events from the number `first` on, which are of the users `keys`.
    pub(super) fn gets_all(&self, first: u64, keys: &HashSet<&str>) -> bool {
        self.since <= first && !keys.contains(self.key.as_str())
    }

    /// Whether it is to get `event`. A user gets no events about the own joining and leaving.
    pub(super) fn gets(&self, event: &Event, is_in_room: bool) -> bool {
        let is_for_it = is_in_room || event.change != Change::Updated { is_said: false };
        is_for_it && event.number >= self.since && event.facts.key != self.key
    }
}

impl State {
    /// A connection here. Returns its place, and whether its user has joined by it.
    pub(super) fn enter(
        &mut self,
        facts: Facts,
        name: Arc<str>,
        info: Option<Info>,
        grace: Duration,
        now: Instant,
    ) -> (u32, bool) {
        self.grace = grace;
        self.end_grace_of(&facts.key, now);
        let slot = self.new_slot();
        let key = facts.key.clone();
        self.local.insert(
            slot,
            LocalConnection {
                key: key.clone(),
                name: Arc::clone(&name),
            },
        );
        let is_new = !self.people.contains_key(&key);
        let person = (self.people.entry(key.clone())).or_insert_with(|| Person::new(facts));
        let before = Arc::clone(&person.facts);
        person.enter(slot, &name, info);
        if is_new {
            let facts = Arc::clone(&person.facts);
            self.note_event(Change::Joined, facts);
        } else {
            self.note_update(&key, &before);
        }
        self.note_digest(&key);
        (slot, is_new)
    }

    fn new_slot(&mut self) -> u32 {
        while self.local.contains_key(&self.next_slot)
            || self.watching.contains_key(&self.next_slot)
        {
            self.next_slot = self.next_slot.wrapping_add(1);
        }
        let slot = self.next_slot;
        self.next_slot = slot.wrapping_add(1);
        slot
    }

    /// A connection here that is told of the users, and is none of them. Returns its place. Unless it
    /// `watches` it is told from [`State::resume_watch`] on.
    pub(super) fn only_watch(
        &mut self,
        member: Weak<dyn Member>,
        grace: Duration,
        watches: bool,
    ) -> u32 {
        self.grace = grace;
        let slot = self.new_slot();
        self.watched_at = self.count;
        self.watching.insert(
            slot,
            Watcher {
                member,
                key: String::new(),
                since: if watches { self.count } else { u64::MAX },
            },
        );
        slot
    }

    /// The facts about the connection at `slot` that another process needs.
    pub(super) fn standing(&self, slot: u32) -> Option<Standing> {
        let watcher = self.watching.get(&slot);
        let local = self.local.get(&slot);
        if watcher.is_none() && local.is_none() {
            return None;
        }
        let person = local.and_then(|local| self.people.get(&local.key));
        let facts = person.map(|person| Facts {
            info: "null".to_owned(),
            connections: Vec::new(),
            ..(*person.facts).clone()
        });
        Some(Standing {
            facts,
            info: person.and_then(|person| person.said_by(slot)),
            watches: watcher.is_some(),
            grace: self.grace,
        })
    }

    /// Whether another process has told that it has the connection at `slot`, too, or does not tell
    /// of it.
    pub(super) fn is_elsewhere(&self, slot: u32) -> bool {
        let person = (self.local.get(&slot)).and_then(|local| self.people.get(&local.key));
        person.is_none_or(|person| person.is_elsewhere(slot))
    }

    /// Ends the telling of the connection at `slot`. Returns the users of which it knows then, and
    /// the events that are still to be told. `None` while it is being told of some, while the users
    /// say not which changes it knows, or while other processes may not know of all changes, if that
    /// `waits`.
    pub(super) fn end_watch(
        &mut self,
        slot: u32,
        is_in_room: bool,
        waits: bool,
    ) -> Option<(Known, Vec<Event>)> {
        let is_quiet = || match self.recent.changed_at {
            Some(at) => at + QUIET <= clock::now(),
            None => true,
        };
        let Some(watcher) = self.watching.get_mut(&slot) else {
            return Some((self.recent.known(), Vec::new()));
        };
        let is_sure = || {
            let digest = self.recent.digest;
            self.recent.only_time(digest, clock::now()).is_some()
        };
        if self.is_telling || !is_sure() || (waits && !is_quiet()) {
            return None;
        }
        let left = self
            .events
            .iter()
            .filter(|event| watcher.gets(event, is_in_room))
            .map(|event| renewed(&self.people, event.clone()))
            .collect();
        // It keeps its place until it leaves.
        watcher.since = u64::MAX;
        Some((self.recent.known(), left))
    }

    /// Has the connection at `slot` told of all that comes after the users that are `known`, at the
    /// moment `at` of another process. Returns what has come since. `None` if it is not sure
    /// when the users were so.
    pub(super) fn resume_watch(
        &mut self,
        slot: u32,
        member: Weak<dyn Member>,
        (known, at): (Known, Instant),
        is_in_room: bool,
    ) -> Option<Vec<Event>> {
        let key = self.local.get(&slot).map(|local| local.key.clone());
        let mut watcher = Watcher {
            member,
            key: key.unwrap_or_default(),
            since: 0,
        };
        let missed = (self.recent.since(known, at)?)
            .filter(|event| watcher.gets(event, is_in_room))
            .map(|event| renewed(&self.people, event.clone()))
            .collect();
        watcher.since = self.count;
        self.watched_at = self.count;
        self.watching.insert(slot, watcher);
        Some(missed)
    }

    /// Notes how others see the user `key` now.
    fn note_digest(&mut self, key: &str) {
        let Some(person) = self.people.get_mut(key) else {
            return;
        };
        let digest = person.digest_now();
        let before = std::mem::replace(&mut person.digest, digest);
        self.recent.note(before, digest);
    }

    /// Changes what the connection at `slot` says about its user. Returns the user's key, if the user
    /// is present by it.
    pub(super) fn set_info(&mut self, slot: u32, info: Info) -> Option<String> {
        let connection = self.local.get(&slot)?;
        let (key, name) = (connection.key.clone(), Arc::clone(&connection.name));
        let person = self.people.get_mut(&key)?;
        let before = Arc::clone(&person.facts);
        person.enter(slot, &name, Some(info));
        self.note_update(&key, &before);
        self.note_digest(&key);
        Some(key)
    }

    /// Sends the connection at `slot` the users that join and leave from now on.
    pub(super) fn watch(&mut self, slot: u32, member: Weak<dyn Member>) {
        let Some(connection) = self.local.get(&slot) else {
            return;
        };
        let since = self.count;
        self.watched_at = since;
        self.watching.entry(slot).or_insert_with(|| Watcher {
            member,
            key: connection.key.clone(),
            since,
        });
    }

    /// A connection has left, or ended. Returns the key of its user.
    pub(super) fn leave(&mut self, slot: u32, now: Instant) -> Option<String> {
        self.watching.remove(&slot);
        let connection = self.local.remove(&slot)?;
        let person = self.people.get_mut(&connection.key)?;
        let before = Arc::clone(&person.facts);
        person.leave(slot, now);
        if person.connections() == 0 {
            let until = now + self.grace;
            person.until = Some(until);
            self.leaving.push(Reverse((until, connection.key.clone())));
        } else {
            self.note_update(&connection.key, &before);
        }
        self.note_digest(&connection.key);
        Some(connection.key)
    }

    /// This process tells that the user `key` has joined, and no other one claims that.
    pub(super) fn note_told(&mut self, key: &str) {
        if let Some(person) = self.people.get_mut(key) {
            person.is_told = true;
        }
    }

    /// The process `source` has the claim `id` to tell that the user `key` has joined. True when
    /// it is to learn that this one does so.
    pub(super) fn contest(
        &mut self,
        source: Source,
        key: &str,
        id: u64,
        is_in_order: bool,
    ) -> bool {
        if let Some(claim) = self.claims.get_mut(key) {
            claim.contest(source, id, is_in_order);
            return false;
        }
        self.people.get(key).is_some_and(|person| person.is_told)
    }

    /// Ends the claim to tell that the user `key` has joined. Returns its number, and the decision.
    pub(super) fn decide(&mut self, key: &str) -> Option<(u64, Decision)> {
        let claim = self.claims.remove(key)?;
        let (id, decision) = (claim.id, claim.decide());
        if decision != Decision::Lost {
            self.note_told(key);
        }
        Some((id, decision))
    }

    /// Notes what the process `source` tells of a user.
    pub(super) fn note(&mut self, source: Source, record: &Record, now: Instant) {
        self.grace = record.grace;
        let key = &record.facts.key;
        if let Some(claim) = self.claims.get_mut(key) {
            claim.note_telling(source, record.telling);
        }
        let mut is_back = false;
        if record.connections > 0 {
            self.end_grace_of(key, now);
            is_back = self.note_back(record, now);
        }
        if !self.people.contains_key(key) {
            if record.connections == 0 && record.away >= record.grace {
                return;
            }
            self.people
                .insert(key.clone(), Person::new((*record.facts).clone()));
            self.note_event(Change::Joined, Arc::clone(&record.facts));
        }
        let grace = self.grace;
        if let Some(person) = self.people.get_mut(key) {
            let before = Arc::clone(&person.facts);
            person.is_told |= is_back;
            person.note(source, record, now);
            if let Some(until) = person.expected_until().filter(|_| record.has_moved) {
                self.leaving.push(Reverse((until, key.clone())));
            }
            if person.connections() == 0 && person.until.is_none() {
                let until = now + grace.saturating_sub(record.away);
                person.until = Some(until);
                self.leaving.push(Reverse((until, key.clone())));
            }
            if person.connections() > 0 {
                self.note_update(key, &before);
            }
            self.note_digest(key);
        }
    }

    /// Notes that a user is there in another process. True when this one tells that it has joined: it
    /// has told that it has left, and to the other one it came back in time.
    fn note_back(&mut self, record: &Record, now: Instant) -> bool {
        self.forget_gone(now);
        let is_gone = self.gone.remove(&record.facts.key).is_some();
        // Also where that one had told it before: its connection to this one was lost for a while.
        let is_back = is_gone && !matches!(record.telling, Telling::Claimed(_));
        if is_back {
            self.moves.push(Move {
                facts: Arc::clone(&record.facts),
                left_by: None,
            });
        }
        is_back
    }

    fn forget_gone(&mut self, now: Instant) {
        while let Some((at, _)) = self.gone_in_order.front() {
            if *at + GONE > now {
                break;
            }
            if let Some((at, key)) = self.gone_in_order.pop_front() {
                if self.gone.get(&key) == Some(&at) {
                    self.gone.remove(&key);
                }
            }
        }
    }

    /// The process `source` has ended.
    pub(super) fn forget(&mut self, source: Source, now: Instant) {
        for claim in self.claims.values_mut() {
            claim.forget(source);
        }
        self.end_shares(now, |_, person| person.forget(source));
    }

    /// The process `source` has told of all its users, which have the keys `keys`.
    pub(super) fn complete(&mut self, source: Source, keys: &HashSet<String>, now: Instant) {
        self.end_shares(now, |key, person| {
            !keys.contains(key) && person.take_share(source, Leaver::There(source))
        });
    }

    /// Begins the grace of those users whose last connection is gone by `end`.
    fn end_shares(&mut self, now: Instant, mut end: impl FnMut(&str, &mut Person) -> bool) {
        let until = now + self.grace;
        let mut changed = Vec::new();
        for (key, person) in &mut self.people {
            let before = Arc::clone(&person.facts);
            if end(key, person) {
                person.until = Some(until);
                self.leaving.push(Reverse((until, key.clone())));
                changed.push((key.clone(), None));
            } else if !Arc::ptr_eq(&before, &person.facts) {
                changed.push((key.clone(), Some(before)));
            }
        }
        for (key, before) in changed {
            if let Some(before) = before {
                self.note_update(&key, &before);
            }
            self.note_digest(&key);
        }
    }

    /// Whether a user has a connection here, or this process may have to report that it has left.
    pub(super) fn is_used_here(&self) -> bool {
        let may_be_reported = |person: &Person| {
            person.until.is_some() && matches!(person.leaver, Leaver::Here | Leaver::Unknown)
        };
        let is_used = !self.local.is_empty() || !self.watching.is_empty();
        is_used || self.people.values().any(may_be_reported) || !self.gone.is_empty()
    }

    /// Forgets all users; none of them has a connection here.
    pub(super) fn abandon(&mut self) {
        if self.local.is_empty() && self.watching.is_empty() {
            self.people.clear();
            self.leaving.clear();
            self.events.clear();
            self.gone.clear();
            self.gone_in_order.clear();
            self.recent = Recent::default();
        }
    }

    /// Removes the users whose grace is over. Returns what is to be reported.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<Move> {
        self.forget_gone(now);
        while let Some(Reverse((until, _))) = self.leaving.peek() {
            if *until > now {
                break;
            }
            let Some(Reverse((until, key))) = self.leaving.pop() else {
                break;
            };
            // Others have come back, and some of them have left again since.
            if (self.people.get(&key)).is_none_or(|person| person.until != Some(until)) {
                self.give_up_expected(&key, now);
                continue;
            }
            self.remove(&key, now);
        }
        std::mem::take(&mut self.moves)
    }

    /// Gives up connections of the user `key` that have moved, and of which no process has told.
    fn give_up_expected(&mut self, key: &str, now: Instant) {
        let Some(person) = self.people.get_mut(key) else {
            return;
        };
        let before = Arc::clone(&person.facts);
        if !person.give_up_expected(now) {
            return;
        }
        if person.connections() == 0 && person.until.is_none() {
            let until = now + self.grace;
            person.until = Some(until);
            self.leaving.push(Reverse((until, key.to_owned())));
        } else {
            self.note_update(key, &before);
        }
        self.note_digest(key);
    }

    /// Removes the user `key` if its grace is over: whoever comes now is not back in time.
    fn end_grace_of(&mut self, key: &str, now: Instant) {
        let until = self.people.get(key).and_then(|person| person.until);
        if until.is_some_and(|until| until <= now) {
            self.remove(key, now);
        }
    }

    fn remove(&mut self, key: &str, now: Instant) {
        if let Some(person) = self.people.remove(key) {
            self.note_event(Change::Left, Arc::clone(&person.facts));
            self.recent.note(person.digest, 0);
            if self.is_shared && matches!(person.leaver, Leaver::Here | Leaver::Unknown) {
                self.gone.insert(key.to_owned(), now);
                self.gone_in_order.push_back((now, key.to_owned()));
            }
            self.moves.push(Move {
                facts: person.facts,
                left_by: Some(person.leaver),
            });
        }
    }

    /// Returns the next step of the room's task.
    pub(super) fn next(&mut self, now: Instant) -> Next {
        let mut wake_at = self.leaving.peek().map(|Reverse((until, _))| *until);
        let forgotten = self.gone_in_order.front().map(|(at, _)| *at + GONE);
        let recent = self.recent.forget(now);
        wake_at = wake_at.into_iter().chain(forgotten).chain(recent).min();
        if !self.events.is_empty() {
            let watching = u32::try_from(self.watching.len()).unwrap_or(u32::MAX);
            let pause = SHORTEST_ROUND + ROUND_FOR_EACH.saturating_mul(watching);
            let due = self.told_at.map_or(now, |told_at| told_at + pause);
            if due <= now {
                let watching = self.watching.values().cloned().collect();
                let events = self
                    .events
                    .drain(..)
                    .map(|event| renewed(&self.people, event));
                self.is_telling = true;
                return Next::Tell(events.collect(), watching);
            }
            wake_at = Some(wake_at.map_or(due, |wake_at| wake_at.min(due)));
        }
        if self.is_unused() {
            return Next::Nothing;
        }
        Next::Sleep(wake_at)
    }

    /// The watching connections have got the events.
    pub(super) fn end_telling(&mut self, now: Instant) {
        self.told_at = Some(now);
        self.is_telling = false;
    }

    /// Whether no user is present, and no event is left to send.
    pub(super) fn is_unused(&self) -> bool {
        let is_empty = self.people.is_empty() && self.gone.is_empty() && self.claims.is_empty();
        is_empty && self.events.is_empty() && self.watching.is_empty()
    }

    /// The time of what is said now about the user `key`: later than that of all before, also where
    /// the clock was set back, or that of another machine is ahead.
    pub(super) fn next_stamp(&self, key: &str) -> u64 {
        let known = self.people.get(key).map_or(0, |person| person.stamp);
        clock::wall_ms().max(known.saturating_add(1))
    }

    /// The facts about the user `key`.
    pub(super) fn facts(&self, key: &str) -> Option<Arc<Facts>> {
        self.people.get(key).map(|person| Arc::clone(&person.facts))
    }

    /// All users that are present, with the number of their connections.
    pub(super) fn members(&self, now: Instant) -> Vec<(Arc<Facts>, u32)> {
        let people = self.people.values();
        people
            // The task removes others as soon as it runs.
            .filter(|person| person.until.is_none_or(|until| until > now))
            .map(|person| (Arc::clone(&person.facts), person.connections()))
            .collect()
    }

    /// The record by which this process tells of the user `key`.
    pub(super) fn record(&self, key: &str, now: Instant) -> Option<Record> {
        self.people
            .get(key)
            .map(|person| self.record_of(person, now))
    }

    /// The records of all users of which this process tells: here, or without any connection.
    pub(super) fn records(&self, now: Instant) -> Vec<Record> {
        let people = self.people.values();
        people
            .filter(|person| person.here() > 0 || person.until.is_some())
            .map(|person| self.record_of(person, now))
            .collect()
    }

    fn record_of(&self, person: &Person, now: Instant) -> Record {
        let left = person
            .until
            .map(|until| until.saturating_duration_since(now));
        Record {
            facts: person.facts_here(),
            stamp: if person.here() > 0 {
                person.stamp_here()
            } else {
                person.stamp
            },
            connections: person.here(),
            away: left.map_or(Duration::ZERO, |left| {
                self.grace.saturating_sub(left).max(SHORTEST_AWAY)
            }),
            grace: self.grace,
            telling: match self.claims.get(&person.facts.key) {
                Some(claim) => claim.telling(),
                None if person.is_told => Telling::Told,
                None => Telling::Nothing,
            },
            has_moved: person.has_moved(now),
        }
    }

    /// Notes that what others see of the user `key` is not as `before` any more, if that is so.
    fn note_update(&mut self, key: &str, before: &Facts) {
        let Some(person) = self.people.get(key) else {
            return;
        };
        let facts = Arc::clone(&person.facts);
        if before.connections == facts.connections {
            return;
        }
        let ids = |facts: &Facts| -> Vec<Arc<str>> {
            (facts.connections.iter().map(|each| Arc::clone(&each.id))).collect()
        };
        let is_said = ids(before) == ids(&facts) || before.info != facts.info;
        // Watching connections get the latest facts: one event that waits suffices for all of them.
        let waiting = self
            .events
            .iter_mut()
            .rev()
            .find(|event| event.facts.key == key);
        if let Some(event) = waiting.filter(|event| event.number >= self.watched_at) {
            if let Change::Updated { is_said: was_said } = &mut event.change {
                *was_said |= is_said;
            }
            if event.change != Change::Left {
                self.recent.add(Change::Updated { is_said }, &facts);
                return;
            }
        }
        self.note_event(Change::Updated { is_said }, facts);
    }

    fn note_event(&mut self, change: Change, facts: Arc<Facts>) {
        let number = self.count;
        self.count += 1;
        self.recent.add(change, &facts);
        if !self.watching.is_empty() {
            self.events.push_back(Event {
                number,
                change,
                facts,
            });
        }
    }
}

/// The event with what is known now of a user that is there.
fn renewed(people: &HashMap<String, Person>, event: Event) -> Event {
    match people.get(&event.facts.key) {
        Some(person) if event.change != Change::Left => Event {
            facts: Arc::clone(&person.facts),
            ..event
        },
        _ => event,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(1);
    const USER: &str = "user:7";

    fn facts() -> Facts {
        Facts {
            since: "s".to_owned(),
            key: USER.to_owned(),
            user: None,
            info: "{}".to_owned(),
            connections: Vec::new(),
        }
    }

    /// Processes that tell each other of one user. A record is on its way until it is handed over.
    struct Processes {
        rooms: Vec<State>,
        /// From a process to another one.
        told: Vec<(usize, usize, Record)>,
        now: Instant,
    }

    impl Processes {
        /// Each has a connection of the user, and knows those of the others.
        fn with_a_connection_each(count: usize) -> (Self, Vec<u32>) {
            let mut all = Self::without_connections(count);
            let local = (0..count).map(|number| all.enter(number)).collect();
            all.hand_over(|_, _| true);
            (all, local)
        }

        fn enter(&mut self, number: usize) -> u32 {
            self.enter_as(number, number)
        }

        /// The connection `name` is in the process `number`.
        fn enter_as(&mut self, number: usize, name: usize) -> u32 {
            let (name, now) = (name.to_string().into(), self.now);
            let (slot, _) = self.rooms[number].enter(facts(), name, None, GRACE, now);
            self.tell(number);
            slot
        }

        fn without_connections(count: usize) -> Self {
            Self {
                rooms: (0..count).map(|_| State::default()).collect(),
                told: Vec::new(),
                now: Instant::now(),
            }
        }

        /// The names of the connections, as a process knows them.
        fn known_to(&self, number: usize) -> Vec<String> {
            let members = self.rooms[number].members(self.now);
            let contacts = members.iter().flat_map(|(facts, _)| &facts.connections);
            contacts.map(|contact| contact.id.to_string()).collect()
        }

        fn leave(&mut self, number: usize, slot: u32) {
            self.rooms[number].leave(slot, self.now);
            self.tell(number);
        }

        fn tell(&mut self, from: usize) {
            let record = self.rooms[from].record(USER, self.now).unwrap();
            let record = Record::decode(record.encode().into()).unwrap();
            for to in (0..self.rooms.len()).filter(|to| *to != from) {
                self.told.push((from, to, record.clone()));
            }
        }

        /// Hands over what `is_due` says, by sender and receiver.
        fn hand_over(&mut self, is_due: impl Fn(usize, usize) -> bool) {
            for (from, to, record) in std::mem::take(&mut self.told) {
                if is_due(from, to) {
                    self.rooms[to].note(from as Source, &record, self.now);
                } else {
                    self.told.push((from, to, record));
                }
            }
        }

        /// The processes that report the departure; the first acts for others.
        fn reporters(mut self) -> Vec<usize> {
            self.hand_over(|_, _| true);
            let end = self.now + GRACE * 2;
            let leavers = self
                .rooms
                .iter_mut()
                .map(|room| match &room.expire(end)[..] {
                    [
                        Move {
                            left_by: Some(leaver),
                            ..
                        },
                    ] => *leaver,
                    other => unreachable!("{other:?}"),
                });
            let reports = |(number, leaver)| match leaver {
                Leaver::Here => Some(number),
                Leaver::Unknown if number == 0 => Some(number),
                _ => None,
            };
            leavers.enumerate().filter_map(reports).collect()
        }
    }

    #[test]
    fn one_process_reports_a_departure_whatever_they_knew_when_their_connections_ended() {
        for count in 1..=3 {
            // Of three processes two may have connections, and so on.
            for leaving in 1..=count {
                // Whether what one has told reaches the other before that one's connection ends.
                for heard in 0..1_u32 << (count * count) {
                    let (mut all, local) = Processes::with_a_connection_each(count);
                    for (number, slot) in local.iter().enumerate().rev() {
                        all.leave(number, *slot);
                        if number >= leaving {
                            all.hand_over(|_, _| true);
                        }
                        all.hand_over(|from, to| heard & (1 << (from * count + to)) != 0);
                    }
                    let reporters = all.reporters();
                    assert_eq!(
                        reporters.len(),
                        1,
                        "{count} {leaving} {heard:b}: {reporters:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn who_comes_back_and_leaves_again_is_reported_once() {
        let (mut all, local) = Processes::with_a_connection_each(2);
        all.leave(1, local[1]);
        all.hand_over(|_, _| true);
        all.leave(0, local[0]);
        all.hand_over(|_, _| true);
        let again = all.enter(1);
        all.hand_over(|_, _| true);
        all.leave(1, again);
        assert_eq!(all.reporters(), [1]);
    }

    #[test]
    fn numbers_that_another_process_tells_cannot_be_too_large() {
        let (mut all, _) = Processes::with_a_connection_each(1);
        let record = |connections| Record {
            facts: Arc::new(facts()),
            stamp: u64::MAX,
            connections,
            away: Duration::ZERO,
            grace: Duration::from_millis(u64::MAX),
            telling: Telling::Nothing,
            has_moved: false,
        };
        for source in 1..3 {
            all.rooms[0].note(source, &record(u32::MAX), all.now);
        }
        assert_eq!(all.rooms[0].members(all.now)[0].1, u32::MAX);
    }

    /// A connection is in the first process and moves to the second one, of which the third one has
    /// not heard yet. It watches there.
    fn moved() -> Processes {
        let mut all = Processes::without_connections(3);
        let old = all.enter_as(0, 7);
        all.hand_over(|_, _| true);
        all.rooms[2].only_watch(Weak::<crate::engine::groups::Deputy>::new(), GRACE, true);
        assert!(!all.rooms[0].is_elsewhere(old));
        all.enter_as(1, 7);
        all.hand_over(|_, to| to == 0);
        assert!(all.rooms[0].is_elsewhere(old));
        all.leave(0, old);
        all.hand_over(|from, _| from == 0);
        all
    }

    #[test]
    fn nobody_sees_a_connection_move_whoever_is_heard_first() {
        let mut all = moved();
        for number in 0..3 {
            assert_eq!(all.known_to(number), ["7"]);
        }
        all.hand_over(|_, _| true);
        all.now += GRACE * 3;
        for number in 0..3 {
            assert_eq!(all.known_to(number), ["7"]);
            assert!(all.rooms[number].expire(all.now).is_empty());
            assert!(all.rooms[number].events.is_empty());
        }
    }

    #[test]
    fn a_process_that_does_not_tell_of_what_has_moved_there_is_not_waited_for() {
        let mut all = moved();
        all.told.clear();
        all.now += GRACE * 2;
        assert!(all.rooms[2].expire(all.now).is_empty());
        assert!(all.known_to(2).is_empty());
        all.now += GRACE * 2;
        assert_eq!(all.rooms[2].expire(all.now).len(), 1);
    }

    #[test]
    fn who_watches_goes_on_behind_what_it_knows() {
        let mut all = Processes::without_connections(2);
        let nobody = Weak::<crate::engine::groups::Deputy>::new();
        let watches = all.rooms[0].only_watch(nobody.clone(), GRACE, true);
        let other = all.enter_as(0, 1);
        all.hand_over(|_, _| true);
        let ended = all.rooms[0].end_watch(watches, false, true);
        assert!(ended.is_none(), "others may not know of it yet");
        let (known, left) = all.rooms[0].end_watch(watches, false, false).unwrap();
        assert_eq!(left.len(), 1, "it is told of what is left");
        // There more has come meanwhile.
        all.leave(0, other);
        all.hand_over(|_, _| true);
        all.rooms[1].expire(all.now + GRACE * 2);
        let slot = all.rooms[1].only_watch(nobody.clone(), GRACE, false);
        let resumed = all.rooms[1].resume_watch(slot, nobody.clone(), (known, clock::now()), false);
        let changes: Vec<_> = resumed.unwrap().iter().map(|event| event.change).collect();
        assert_eq!(changes, [Change::Left]);
        assert!(
            all.rooms[1].events.is_empty(),
            "nothing before that is for it"
        );
        let others = Known {
            digest: known.digest ^ 1,
            before: None,
        };
        let unknown = all.rooms[1].resume_watch(slot, nobody, (others, clock::now()), false);
        assert!(unknown.is_none());
    }

    #[test]
    fn a_watcher_goes_on_after_a_change_that_comes_late() {
        let mut all = Processes::without_connections(2);
        let nobody = Weak::<crate::engine::groups::Deputy>::new();
        let watches = all.rooms[0].only_watch(nobody.clone(), GRACE, true);
        let other = all.enter_as(0, 1);
        let (known, _) = all.rooms[0].end_watch(watches, false, false).unwrap();
        let long_ago = clock::now().checked_sub(UNSURE * 4).unwrap();
        let slot = all.rooms[1].only_watch(nobody.clone(), GRACE, false);
        let too_early = all.rooms[1].resume_watch(slot, nobody.clone(), (known, long_ago), false);
        assert!(too_early.is_none(), "it has not come yet");
        all.leave(0, other);
        all.hand_over(|_, _| true);
        all.rooms[1].expire(all.now + GRACE * 2);
        let resumed = all.rooms[1].resume_watch(slot, nobody, (known, long_ago), false);
        let changes: Vec<_> = resumed.unwrap().iter().map(|event| event.change).collect();
        assert_eq!(changes, [Change::Left], "it knows that the user has joined");
    }

    #[test]
    fn who_watches_does_not_go_on_where_a_user_may_have_come_and_gone() {
        let mut all = Processes::without_connections(1);
        let nobody = Weak::<crate::engine::groups::Deputy>::new();
        let watches = all.rooms[0].only_watch(nobody.clone(), GRACE, true);
        let (known, _) = all.rooms[0].end_watch(watches, false, true).unwrap();
        let other = all.enter(0);
        all.leave(0, other);
        all.rooms[0].expire(all.now + GRACE * 2);
        let now = clock::now();
        for (at, is_sure) in [(now, false), (now.checked_sub(UNSURE * 2).unwrap(), true)] {
            let resumed = all.rooms[0].resume_watch(watches, nobody.clone(), (known, at), false);
            assert_eq!(resumed.map(|events| events.len()), is_sure.then_some(2));
        }
        assert!(all.rooms[0].end_watch(watches, false, false).is_none());
    }
}

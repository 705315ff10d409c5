//! The users that are present in one group.

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
use crate::engine::groups::{Member, MemberId, Membership};

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
    slots: HashMap<MemberId, u32>,
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
    claims: HashMap<String, Claim>,
    /// The users of which this process has told that they have left, and since when.
    gone: HashMap<String, Instant>,
    gone_in_order: VecDeque<(Instant, String)>,
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
    id: MemberId,
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
    pub(super) fn new(name: &str, registry: Weak<dyn Owner>) -> Self {
        Self {
            name: name.into(),
            registry,
            state: Mutex::default(),
            changed: Notify::new(),
        }
    }
}

impl Membership for Room {
    fn name(&self) -> &str {
        &self.name
    }

    fn is_of(&self, _registry: usize) -> bool {
        // It is no group; the group of this name is another membership.
        false
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
        id: MemberId,
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
                id,
                key: key.clone(),
                name: Arc::clone(&name),
            },
        );
        self.slots.insert(id, slot);
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

    /// A connection here that is told of the users, and is none of them. Returns its place.
    pub(super) fn only_watch(&mut self, member: Weak<dyn Member>, grace: Duration) -> u32 {
        self.grace = grace;
        let slot = self.new_slot();
        self.watched_at = self.count;
        self.watching.insert(
            slot,
            Watcher {
                member,
                key: String::new(),
                since: self.count,
            },
        );
        slot
    }

    /// Changes what the connection `id` says about its user. Returns its key if it is here.
    pub(super) fn say(&mut self, id: MemberId, info: Info) -> Option<String> {
        let slot = *self.slots.get(&id)?;
        let connection = self.local.get(&slot)?;
        let (key, name) = (connection.key.clone(), Arc::clone(&connection.name));
        let person = self.people.get_mut(&key)?;
        let before = Arc::clone(&person.facts);
        person.enter(slot, &name, Some(info));
        self.note_update(&key, &before);
        Some(key)
    }

    /// Sends the connection `id` the users that join and leave from now on.
    pub(super) fn watch(&mut self, id: MemberId, member: Weak<dyn Member>) {
        let Some(slot) = self.slots.get(&id) else {
            return;
        };
        let Some(connection) = self.local.get(slot) else {
            return;
        };
        let since = self.count;
        self.watched_at = since;
        self.watching.entry(*slot).or_insert_with(|| Watcher {
            member,
            key: connection.key.clone(),
            since,
        });
    }

    /// A connection has left, or ended. Returns the key of its user.
    pub(super) fn leave(&mut self, slot: u32, now: Instant) -> Option<String> {
        self.watching.remove(&slot);
        let connection = self.local.remove(&slot)?;
        if self.slots.get(&connection.id) == Some(&slot) {
            self.slots.remove(&connection.id);
        }
        let person = self.people.get_mut(&connection.key)?;
        let before = Arc::clone(&person.facts);
        person.leave(slot);
        let is_away = person.connections() == 0;
        if person.connections() == 0 {
            let until = now + self.grace;
            person.until = Some(until);
            self.leaving.push(Reverse((until, connection.key.clone())));
        }
        if !is_away {
            self.note_update(&connection.key, &before);
        }
        Some(connection.key)
    }

    /// Claims to tell that the user `key` has joined.
    pub(super) fn claim(&mut self, key: &str, claim: Claim) {
        self.claims.insert(key.to_owned(), claim);
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

    /// All claims have come that may go before the claim `id` of this process.
    pub(super) fn be_ready(&mut self, key: &str, id: u64) {
        if let Some(claim) = self.claims.get_mut(key) {
            claim.be_ready(id);
        }
    }

    /// Ends the claim to tell that the user `key` has joined. Returns its number, and the decision.
    pub(super) fn decide(&mut self, key: &str) -> Option<(u64, Decision)> {
        let claim = self.claims.remove(key)?;
        let (id, decision) = (claim.id(), claim.decide());
        if decision != Decision::Lost {
            self.note_told(key);
        }
        Some((id, decision))
    }

    /// Notes what the process `source` tells of a user.
    pub(super) fn note(&mut self, source: Source, record: &Record, now: Instant) {
        self.grace = record.grace;
        let key = &record.facts.key;
        if record.telling == Telling::Told {
            if let Some(claim) = self.claims.get_mut(key) {
                claim.lose();
            }
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
            person.note(source, record);
            if person.connections() == 0 && person.until.is_none() {
                let until = now + grace.saturating_sub(record.away);
                person.until = Some(until);
                self.leaving.push(Reverse((until, key.clone())));
            }
            if person.connections() > 0 {
                self.note_update(key, &before);
            }
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

    /// This process does not tell that the user `key` has left.
    pub(super) fn is_not_gone(&mut self, key: &str) {
        self.gone.remove(key);
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
            } else if !Arc::ptr_eq(&before, &person.facts) {
                changed.push((key.clone(), before));
            }
        }
        for (key, before) in changed {
            self.note_update(&key, &before);
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
                continue;
            }
            self.remove(&key, now);
        }
        std::mem::take(&mut self.moves)
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
        wake_at = wake_at.into_iter().chain(forgotten).min();
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
    }

    /// Whether no user is present, and no event is left to send.
    pub(super) fn is_unused(&self) -> bool {
        let is_empty = self.people.is_empty() && self.gone.is_empty() && self.claims.is_empty();
        is_empty && self.events.is_empty() && self.watching.is_empty()
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
        let is_said = ids(before) == ids(&facts);
        // Watching connections get the latest facts: one event that waits suffices for all of them.
        let waiting = self
            .events
            .iter_mut()
            .rev()
            .find(|event| event.facts.key == key);
        if let Some(event) = waiting.filter(|event| event.number >= self.watched_at) {
            match &mut event.change {
                Change::Joined => return,
                Change::Updated { is_said: was_said } => {
                    *was_said |= is_said;
                    return;
                }
                Change::Left => {}
            }
        }
        self.note_event(Change::Updated { is_said }, facts);
    }

    fn note_event(&mut self, change: Change, facts: Arc<Facts>) {
        let number = self.count;
        self.count += 1;
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
            let mut all = Self {
                rooms: (0..count).map(|_| State::default()).collect(),
                told: Vec::new(),
                now: Instant::now(),
            };
            let local = (0..count).map(|number| all.enter(number)).collect();
            all.hand_over(|_, _| true);
            (all, local)
        }

        fn enter(&mut self, number: usize) -> u32 {
            let id = [u8::try_from(number).unwrap(); 16];
            let now = self.now;
            let (slot, _) = self.rooms[number].enter(id, facts(), "a".into(), None, GRACE, now);
            self.tell(number);
            slot
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
        };
        for source in 1..3 {
            all.rooms[0].note(source, &record(u32::MAX), all.now);
        }
        assert_eq!(all.rooms[0].members(all.now)[0].1, u32::MAX);
    }
}

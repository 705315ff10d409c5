//! All rooms of one backend in this process.

use std::{
    collections::{HashMap, HashSet, hash_map::RandomState},
    hash::BuildHasher,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time;

use super::{
    claim::{Claim, Decision},
    event,
    facts::{Facts, Info},
    outgoing::{Announcer, Outgoing},
    person::Leaver,
    record::{Record, Source},
    room::{Move, Next, Owner, Room, State, Watcher},
};
use crate::engine::{
    base::{clock, fork, panics::keep_up},
    groups::{Groups, Joined, Member, MemberId, Message, Notice},
    wakeup::call::Wait,
};

/// The users that are present in the groups of one backend. Any thread may use it.
#[derive(Debug)]
pub struct Presence {
    generation: u64,
    groups: Arc<Groups>,
    rooms: Mutex<HashMap<Arc<str>, Arc<Room>>>,
    outgoing: Outgoing,
    /// How many claims there were.
    claims: AtomicU64,
    /// Departures and returns that this process reports.
    departed: Mutex<Vec<Departed>>,
}

/// A user that has left, or that is back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Departed {
    /// The group.
    pub name: Arc<str>,
    /// The user.
    pub facts: Arc<Facts>,
    /// Whether it is there: it has come back before all processes knew that it had left, so that
    /// nobody else tells that it has joined.
    pub is_back: bool,
}

/// A connection that becomes present.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// Its user, without what the connection says about it.
    pub facts: Facts,
    /// Its info, as JSON. `None` is nothing.
    pub info: Option<String>,
    /// Whether it gets the users that join and leave.
    pub watches: bool,
    /// Whether its user is present by it.
    pub is_present: bool,
    /// The connection's name, for others.
    pub name: Arc<str>,
    /// How long a user without connections stays in this group.
    pub grace: Duration,
    /// Whether this process tells when the user joins, if no other one does.
    pub tells: bool,
    /// When it has said its info, in milliseconds since 1970; `None` for now.
    pub said_at: Option<u64>,
}

impl Arrival {
    /// Its info, with its time in this room.
    fn said(&self, state: &State) -> Option<Info> {
        let json = self.info.clone()?;
        let now = || state.next_stamp(&self.facts.key);
        let stamp = self.said_at.unwrap_or_else(now);
        Some(Info { json, stamp })
    }
}

/// The outcome for a connection that was to be present.
#[derive(Clone, Debug)]
pub enum Entered {
    /// It is over.
    Over,
    /// Its user was present already.
    Present,
    /// Its user has joined by it. After the wait, if there is one, [`Presence::tells`] has to be
    /// asked who tells that.
    Joined(Arc<Facts>, Option<Arc<Wait>>),
}

impl Presence {
    /// The presence in `groups`, without any user.
    pub fn new(groups: Arc<Groups>) -> Arc<Self> {
        Arc::new(Self {
            generation: fork::generation(),
            groups,
            rooms: Mutex::default(),
            outgoing: Outgoing::default(),
            claims: AtomicU64::new(0),
            departed: Mutex::default(),
        })
    }

    /// Has the other processes told by `announcer` from now on, in place of the one before.
    pub fn announce_by(&self, announcer: Weak<dyn Announcer>) {
        self.outgoing.announce_by(announcer);
    }

    fn is_foreign(&self) -> bool {
        self.generation != fork::generation()
    }

    /// Makes the user of `member` present in the group `name`, or changes what it says, and has it
    /// told from now on if that is wanted.
    pub fn enter<M: Member + 'static>(
        self: &Arc<Self>,
        name: &str,
        member: &Arc<M>,
        id: MemberId,
        arrival: Arrival,
    ) -> Entered {
        if self.is_foreign() || member.is_foreign() {
            return Entered::Over;
        }
        let weak: Weak<M> = Arc::downgrade(member);
        let weak: Weak<dyn Member> = weak;
        let mut joined = None;
        let entry = member.memberships().join(
            id,
            || self.find(name),
            || {
                let (room, slot) = self.change(name, |room, state| {
                    let (slot, news) = self.place(room, state, &weak, &arrival);
                    joined = news;
                    slot
                });
                Some((room, slot, false))
            },
        );
        if matches!(entry, Joined::Over | Joined::Refused) {
            return Entered::Over;
        }
        if let Some(room) = self.find(name) {
            let own = || member.memberships().place_in(&room);
            if let Some(slot) = (entry == Joined::Already).then(own).flatten() {
                self.update(&room, slot, weak, &arrival);
            }
            room.changed.notify_one();
        }
        self.outgoing.send();
        joined.unwrap_or(Entered::Present)
    }

    /// Puts a connection into its place in a room. Returns its user, too, if that has joined by it.
    fn place(
        &self,
        room: &Room,
        state: &mut State,
        member: &Weak<dyn Member>,
        arrival: &Arrival,
    ) -> (u32, Option<Entered>) {
        let member = || Weak::clone(member);
        if !arrival.is_present {
            let slot = state.only_watch(member(), arrival.grace, arrival.watches);
            return (slot, None);
        }
        let (facts, info) = (arrival.facts.clone(), arrival.said(state));
        let (name, now) = (Arc::clone(&arrival.name), clock::now());
        let (slot, is_new) = state.enter(facts, name, info, arrival.grace, now);
        let key = &arrival.facts.key;
        let claimed = (is_new && arrival.tells).then(|| self.claim(state, key));
        if arrival.watches {
            // At once: it misses none that join when this one is seen to be present.
            state.watch(slot, member());
        }
        self.note_change(room, state, key);
        let joined = is_new.then(|| state.facts(key)).flatten();
        let joined = joined.map(|facts| Entered::Joined(facts, claimed.flatten()));
        (slot, joined)
    }

    /// Changes what the connection at `slot` says, and whether it is told.
    fn update(&self, room: &Room, slot: u32, member: Weak<dyn Member>, arrival: &Arrival) {
        let mut state = room.state.lock();
        let said = arrival.said(&state);
        if let Some(key) = said.and_then(|info| state.set_info(slot, info)) {
            self.note_change(room, &state, &key);
        }
        if arrival.watches {
            state.watch(slot, member);
        }
    }

    /// Claims to tell that the user `key` has joined, if there may be other processes.
    fn claim(&self, state: &mut State, key: &str) -> Option<Arc<Wait>> {
        if !self.outgoing.is_taken() {
            state.note_told(key);
            return None;
        }
        let number = self.claims.fetch_add(1, Ordering::Relaxed);
        // With the process's number: a forked child inherits the keys of the hash. Neither the
        // smallest number nor the largest one: they mean something else.
        let hash = RandomState::new().hash_one((std::process::id(), number));
        let id = (hash >> 1) | 1;
        let (wait, ticket) = Wait::new(|| ());
        state.claims.insert(key.to_owned(), Claim::new(id, ticket));
        Some(wait)
    }

    /// Whether this process tells that the user `key` has joined the group `name`. Behind
    /// [`Entered::Joined`], when its wait is over, or has taken too long.
    pub fn tells(&self, name: &str, key: &str) -> bool {
        // It is better told twice than by nobody.
        let Some(room) = self.find(name) else {
            return true;
        };
        let mut state = room.state.lock();
        let decided = state.decide(key);
        let Some((id, decision)) = decided else {
            return true;
        };
        if decision == Decision::Won(true) {
            self.note_change(&room, &state, key);
        }
        drop(state);
        room.changed.notify_one();
        if let Some(announcer) = self.outgoing.announcer() {
            announcer.end_claim(id);
        }
        self.outgoing.send();
        decision != Decision::Lost
    }

    /// The process `source` has the claim `id` to tell that the user `key` has joined the group
    /// `name`. With `is_in_order` it goes first if it comes before [`Presence::be_ready`], else if it
    /// is smaller.
    pub fn contest(&self, source: Source, name: &str, key: &str, id: u64, is_in_order: bool) {
        if let Some(room) = self.find(name) {
            let mut state = room.state.lock();
            if state.contest(source, key, id, is_in_order) {
                self.note_change(&room, &state, key);
            }
            drop(state);
            // The room's task sends what is to be told.
            room.changed.notify_one();
        }
    }

    /// All claims of other processes have come that may go before the claim `id` of this one.
    pub fn be_ready(&self, name: &str, key: &str, id: u64) {
        if let Some(room) = self.find(name) {
            if let Some(claim) = room.state.lock().claims.get_mut(key) {
                claim.be_ready(id);
            }
        }
    }

    /// Hands over the records that wait.
    pub fn send(&self) {
        self.outgoing.send();
    }

    /// Ends the presence of a connection. Its user stays with another one, and for the grace.
    pub fn leave(&self, name: &str, member: &dyn Member) {
        if self.is_foreign() || member.is_foreign() {
            return;
        }
        let Some(room) = self.find(name) else {
            return;
        };
        let memberships = member.memberships();
        if memberships.take_out(&room, |slot| self.withdraw(&room, slot)) {
            self.outgoing.send();
        }
    }

    fn withdraw(&self, room: &Room, slot: u32) {
        let mut state = room.state.lock();
        if let Some(key) = state.leave(slot, clock::now()) {
            self.note_change(room, &state, &key);
        }
        drop(state);
        room.changed.notify_one();
    }

    /// All users that are present in the group `name`, with the number of their connections; those
    /// first that have joined first.
    pub fn members(&self, name: &str) -> Vec<(Arc<Facts>, u32)> {
        let Some(room) = self.find(name) else {
            return Vec::new();
        };
        let mut members = room.state.lock().members(clock::now());
        members.sort_unstable();
        members
    }

    /// Notes what the process `source` tells of a user of the group `name`.
    pub fn note(self: &Arc<Self>, source: Source, name: &str, record: &Record) {
        if self.is_foreign() {
            return;
        }
        self.change(name, |_, state| state.note(source, record, clock::now()));
    }

    /// Forgets what the process `source` has told: it has ended. Its users stay for the grace.
    pub fn forget(&self, source: Source) {
        if self.is_foreign() {
            return;
        }
        for room in self.all() {
            room.state.lock().forget(source, clock::now());
            room.changed.notify_one();
        }
    }

    /// All that this process tells another one that it meets, and the number of the first note
    /// after it.
    pub fn records(&self) -> (u64, Vec<(Arc<str>, Record)>) {
        let count = self.outgoing.count();
        let mut all = Vec::new();
        if self.is_foreign() {
            return (count, all);
        }
        for room in self.all() {
            let records = room.state.lock().records(clock::now());
            all.extend(
                records
                    .into_iter()
                    .map(|record| (Arc::clone(&room.name), record)),
            );
        }
        (count, all)
    }

    /// How many notes there were.
    pub fn count_notes(&self) -> u64 {
        self.outgoing.count()
    }

    /// All that this process tells of the group `name`, and the number of the first note after it.
    pub fn records_of(&self, name: &str) -> (u64, Vec<Record>) {
        let count = self.outgoing.count();
        let Some(room) = self.find(name) else {
            return (count, Vec::new());
        };
        let state = room.state.lock();
        // Notes of a room are added under its lock.
        (self.outgoing.count(), state.records(clock::now()))
    }

    /// Notes that the process `source` has told of all its users of the group `name`, which have
    /// the keys `keys`. Of others it has none any more.
    pub fn complete(&self, source: Source, name: &str, keys: &HashSet<String>) {
        if let Some(room) = self.find(name) {
            let mut state = room.state.lock();
            state.complete(source, keys, clock::now());
            drop(state);
            room.changed.notify_one();
        }
    }

    /// Whether a user of the group `name` has a connection here, or this process may have to report
    /// that it has left.
    pub fn is_used_here(&self, name: &str) -> bool {
        self.find(name)
            .is_some_and(|room| room.state.lock().is_used_here())
    }

    /// Forgets what other processes have told of the group `name`, in which this one has no user.
    pub fn abandon(&self, name: &str) {
        if let Some(room) = self.find(name) {
            room.state.lock().abandon();
            room.changed.notify_one();
        }
    }

    /// Takes the users that have left since the last call, or are back, and that this process reports.
    pub fn take_departed(&self) -> Vec<Departed> {
        std::mem::take(&mut *self.departed.lock())
    }

    fn all(&self) -> Vec<Arc<Room>> {
        self.rooms.lock().values().cloned().collect()
    }

    /// The room `name`, none in a forked child: it may have the lock of another thread.
    pub(super) fn find(&self, name: &str) -> Option<Arc<Room>> {
        if self.is_foreign() {
            return None;
        }
        self.rooms.lock().get(name).map(Arc::clone)
    }

    /// Changes the room `name`, which is made if need be. A room without users after that is removed
    /// by its task.
    pub(super) fn change<T>(
        self: &Arc<Self>,
        name: &str,
        change: impl FnOnce(&Room, &mut State) -> T,
    ) -> (Arc<Room>, T) {
        let mut rooms = self.rooms.lock();
        let (room, is_new) = match rooms.get(name) {
            Some(room) => (Arc::clone(room), false),
            None => {
                let owner: Weak<Self> = Arc::downgrade(self);
                let groups = Arc::as_ptr(&self.groups).addr();
                let room = Arc::new(Room::new(name, owner, groups));
                room.state.lock().is_shared = self.outgoing.is_taken();
                rooms.insert(Arc::clone(&room.name), Arc::clone(&room));
                (room, true)
            }
        };
        let changed = change(&room, &mut room.state.lock());
        drop(rooms);
        if is_new {
            let (registry, served) = (Arc::downgrade(self), Arc::clone(&room));
            let groups = Arc::downgrade(&self.groups);
            let begin = move || serve(Weak::clone(&registry), Arc::clone(&served));
            let task = keep_up(begin, move || {
                if let Some(groups) = groups.upgrade() {
                    groups.note_restart("telling of the users of a group");
                }
            });
            self.groups.spawn_beside(name, task);
        }
        room.changed.notify_one();
        (room, changed)
    }

    fn note_change(&self, room: &Room, state: &State, key: &str) {
        if let Some(record) = state.record(key, clock::now()) {
            self.outgoing.add(&room.name, || record);
        }
    }

    fn remove_if_unused(&self, room: &Arc<Room>) -> bool {
        let mut rooms = self.rooms.lock();
        let is_unused = room.state.lock().is_unused();
        if is_unused {
            rooms.remove(&room.name);
        }
        is_unused
    }

    fn report(&self, room: &Room, moves: Vec<Move>) {
        if moves.is_empty() {
            return;
        }
        let acts_for_others = || match self.outgoing.announcer() {
            Some(announcer) => announcer.acts_for_others(&room.name),
            None => true,
        };
        let is_own = |each: &Move| match each.left_by {
            None | Some(Leaver::Here) => true,
            Some(Leaver::There(_)) => false,
            Some(Leaver::Unknown) => acts_for_others(),
        };
        let (own, others): (Vec<_>, Vec<_>) = moves.into_iter().partition(is_own);
        if !others.is_empty() {
            let mut state = room.state.lock();
            for each in others {
                state.gone.remove(&each.facts.key);
            }
        }
        let own: Vec<_> = own
            .into_iter()
            .map(|each| Departed {
                name: Arc::clone(&room.name),
                is_back: each.left_by.is_none(),
                facts: each.facts,
            })
            .collect();
        if !own.is_empty() {
            self.departed.lock().extend(own);
            self.groups.notices().add(Notice::MembersLeft);
        }
    }
}

impl Owner for Presence {
    fn end(&self, room: &Room, slot: u32) {
        if !self.is_foreign() {
            self.withdraw(room, slot);
            self.outgoing.send();
        }
    }
}

/// Messages, and those that get them.
type Letter = (Vec<Message>, Vec<Weak<dyn Member>>);

/// Does what a room has to do, until no user is present any more.
async fn serve(registry: Weak<Presence>, room: Arc<Room>) {
    loop {
        let changed = room.changed.notified();
        let Some(presence) = registry.upgrade() else {
            return;
        };
        let wake_at = match presence.step(&room) {
            Next::Tell(events, watching) => {
                presence.tell(&room.name, &events, watching).await;
                room.state.lock().end_telling(clock::now());
                continue;
            }
            Next::Sleep(wake_at) => wake_at,
            Next::Nothing if presence.remove_if_unused(&room) => return,
            Next::Nothing => continue,
        };
        drop(presence);
        match wake_at {
            None => changed.await,
            Some(wake_at) => tokio::select! {
                () = changed => {}
                () = clock::sleep_until(time::Instant::from_std(wake_at)) => {}
            },
        }
    }
}

impl Presence {
    fn step(&self, room: &Room) -> Next {
        let now = clock::now();
        let mut state = room.state.lock();
        let moves = state.expire(now);
        let next = state.next(now);
        drop(state);
        self.report(room, moves);
        self.outgoing.send();
        next
    }

    /// Tells those that watch of `events`.
    async fn tell(&self, name: &str, events: &[event::Event], watching: Vec<Watcher>) {
        let first = events.first().map_or(0, |event| event.number);
        let keys: HashSet<&str> = events
            .iter()
            .map(|event| event.facts.key.as_str())
            .collect();
        let mut all = Vec::new();
        let mut some: Vec<Letter> = Vec::new();
        let is_for_all = |event: &event::Event| {
            !matches!(event.change, event::Change::Updated { is_said: false })
        };
        let are_for_all = events.iter().all(is_for_all);
        for watcher in watching {
            let is_in_room = (watcher.member.upgrade()).is_some_and(|it| it.room().is_some());
            if watcher.gets_all(first, &keys) && (is_in_room || are_for_all) {
                all.push(watcher.member);
            } else if events.iter().any(|event| watcher.gets(event, is_in_room)) {
                let its = events
                    .iter()
                    .filter(|event| watcher.gets(event, is_in_room));
                some.push((event::messages(name, its), vec![watcher.member]));
            }
        }
        if !all.is_empty() {
            some.push((event::messages(name, events.iter()), all));
        }
        for (messages, members) in some {
            self.groups.hand_out(name, messages, members).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use tokio::{runtime::Handle, task::yield_now};

    use super::*;
    use crate::engine::{
        connection::{Connection, settings::Settings},
        groups::{Eviction, FanOutThread, Seats, WhenFull, Whom, envelope},
    };

    const ID: MemberId = [1; 16];

    fn presence() -> Arc<Presence> {
        let thread = FanOutThread {
            runtime: Handle::current(),
            hurry_views: Arc::new(|| {}),
            has_failed: Arc::<AtomicBool>::default(),
        };
        Presence::new(Groups::new(vec![thread], WhenFull::Close, None))
    }

    fn arrival(name: &str, info: Option<&str>) -> Arrival {
        Arrival {
            facts: Facts::default(),
            info: info.map(str::to_owned),
            watches: false,
            is_present: true,
            name: name.into(),
            grace: Duration::from_secs(60),
            tells: false,
            said_at: None,
        }
    }

    /// The connections of the user, and what they say.
    fn connections(presence: &Presence) -> Vec<(String, String)> {
        let members = presence.members("room");
        let all = members.iter().flat_map(|(facts, _)| &facts.connections);
        all.map(|each| (each.id.to_string(), each.info.to_string()))
            .collect()
    }

    #[tokio::test]
    async fn an_eviction_ends_the_presence_in_that_group_alone() {
        let backends = [presence(), presence()];
        let (connection, _peer) = Connection::for_test(1, &Settings::SMALL, "");
        for presence in &backends {
            presence.groups.join("room", &connection, ID);
            presence.enter("room", &connection, ID, arrival("a", None));
        }
        let eviction = Eviction {
            whom: Whom::Member(ID),
            reason: String::new(),
        };
        let [here, elsewhere] = &backends;
        let envelope = here.groups.seal("room", envelope::of_eviction(&eviction));
        assert!(here.groups.deliver("room", &envelope));
        while here.groups.count("room") > 0 {
            yield_now().await;
        }
        assert!(connections(here).is_empty());
        assert_eq!(elsewhere.groups.count("room"), 1);
        assert_eq!(connections(elsewhere).len(), 1);
    }

    #[tokio::test]
    async fn what_is_said_last_counts_also_behind_a_clock_that_was_set_back() {
        let presence = presence();
        let [one, two] = [(); 2].map(|()| Connection::for_test(1, &Settings::SMALL, ""));
        let ahead = Arrival {
            said_at: Some(clock::wall_ms() + 3_600_000),
            ..arrival("one", Some("1"))
        };
        presence.enter("room", &one.0, ID, ahead);
        let info = || presence.members("room")[0].0.info.clone();
        presence.enter("room", &two.0, ID, arrival("two", Some("2")));
        assert_eq!(info(), "2");
        presence.enter("room", &one.0, ID, arrival("one", Some("3")));
        assert_eq!(info(), "3");
    }

    #[tokio::test]
    async fn a_connection_under_two_names_keeps_its_place_under_each() {
        let presence = presence();
        let (connection, _peer) = Connection::for_test(1, &Settings::SMALL, "");
        let seats = Seats::new(&connection, ID, None, 1);
        let [stays, goes] = ["stays", "goes"].map(|name| {
            let seat = seats.take(name).unwrap();
            presence.enter("room", &seat, ID, arrival(name, Some("1")));
            seat
        });
        presence.leave("room", goes.as_ref());
        presence.enter("room", &stays, ID, arrival("stays", Some("2")));
        assert_eq!(
            connections(&presence),
            [("stays".to_owned(), "2".to_owned())]
        );
    }
}

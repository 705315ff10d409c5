//! A shard without a server: whatever happens in whatever order, every call gets its outcome, and the
//! subscriptions end as they are wanted.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use proptest::prelude::*;

use super::{
    config::{Address, Kind, Login, Server},
    shard::Shard,
    state::{Change, Route, State, Status},
    upkeep::PART,
};
use crate::engine::{
    backends::call::{Call, Reply},
    connection::{Connection, settings::Settings},
    groups::{Groups, Notice, WhenFull},
};

const NODES: usize = 3;

fn shard(kind: Kind) -> Shard {
    let server = Server {
        kind,
        nodes: vec![node(0)],
        login: Login::default(),
        tls: None,
        prefix: "test:".to_owned(),
    };
    let groups = Groups::new(Vec::new(), WhenFull::Close, None);
    Shard::new(server, Duration::from_secs(3600), false, groups)
}

fn node(number: usize) -> Address {
    Address::Tcp("node".to_owned(), u16::try_from(number).unwrap())
}

/// What may happen to a shard.
#[derive(Clone, Debug)]
enum Event {
    Hold(u8),
    Release(u8),
    Publish(u8),
    Connect(usize),
    Lose(usize),
    /// A node says that it has given a part away, by which its connection ends.
    GiveAway(usize),
    Confirm(usize),
    Refuse(usize),
    TakePublishes(usize),
    /// The slots begin anew at these of the nodes.
    Map(Vec<usize>),
    NoMap,
    /// Another part of the subscriptions is brought in line with the routes.
    Sweep,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let name = 0..6_u8;
    let place = 0..=NODES;
    let event = prop_oneof![
        3 => name.clone().prop_map(Event::Hold),
        2 => name.clone().prop_map(Event::Release),
        3 => name.prop_map(Event::Publish),
        3 => place.clone().prop_map(Event::Connect),
        2 => place.clone().prop_map(Event::Lose),
        1 => place.clone().prop_map(Event::GiveAway),
        3 => place.clone().prop_map(Event::Confirm),
        1 => place.clone().prop_map(Event::Refuse),
        2 => place.prop_map(Event::TakePublishes),
        2 => prop::collection::vec(0..NODES, 1..5).prop_map(Event::Map),
        1 => Just(Event::NoMap),
        3 => Just(Event::Sweep),
    ];
    prop::collection::vec(event, 0..80)
}

/// A shard, and what its servers and callers know.
struct World {
    shard: Shard,
    /// By route: the subscriptions that its node has confirmed.
    subscribed: HashMap<usize, HashSet<String>>,
    held: HashMap<u8, usize>,
    calls: Vec<Arc<Call>>,
}

impl World {
    fn new(kind: Kind) -> Self {
        Self {
            shard: shard(kind),
            subscribed: HashMap::new(),
            held: HashMap::new(),
            calls: Vec::new(),
        }
    }

    fn is_needed(&self, place: usize) -> bool {
        self.shard.needed_routes().contains(&place)
    }

    fn is_up(&self, place: usize) -> bool {
        self.subscribed.contains_key(&place)
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Hold(name) => {
                self.calls.extend(self.shard.subscribe(&format!("{name}")));
                *self.held.entry(name).or_default() += 1;
            }
            Event::Release(name) => {
                if let Some(holds) = self.held.get_mut(&name).filter(|holds| **holds > 0) {
                    *holds -= 1;
                    self.shard.release(&format!("{name}"), true);
                }
            }
            Event::Publish(name) => self
                .calls
                .push(self.shard.publish(&format!("{name}"), b"x")),
            Event::Connect(place) if self.is_needed(place) && !self.is_up(place) => {
                self.subscribed.insert(place, HashSet::new());
                self.shard.on_connected(place);
            }
            Event::Lose(place) if self.is_needed(place) || self.is_up(place) => {
                self.subscribed.remove(&place);
                self.shard.on_lost(place, &"lost".into());
            }
            Event::GiveAway(place) if self.is_up(place) => self.give_away(place),
            Event::Confirm(place) if self.is_up(place) => self.confirm(place, false),
            Event::Refuse(place) if self.is_up(place) => self.confirm(place, true),
            Event::TakePublishes(place) if self.is_up(place) => {
                for publish in self.shard.take_publishes(place, 100, 1000) {
                    publish.finish(Ok(Reply::Number(1)));
                }
            }
            Event::Map(nodes) if self.shard.is_cluster() => self.map(&nodes),
            Event::NoMap if self.shard.is_cluster() => {
                self.shard.on_no_map(&"no map".into());
            }
            Event::Sweep => self.shard.sweep(),
            _ => {}
        }
    }

    fn map(&mut self, nodes: &[usize]) {
        let share = 16384 / nodes.len();
        let mut map: Vec<(Address, Vec<(u16, u16)>)> = Vec::new();
        for (part, &number) in nodes.iter().enumerate() {
            let first = u16::try_from(part * share).unwrap();
            let last = u16::try_from(((part + 1) * share - 1).max(usize::from(first))).unwrap();
            let last = if part + 1 == nodes.len() { 16383 } else { last };
            match map.iter_mut().find(|(address, _)| *address == node(number)) {
                Some((_, ranges)) => ranges.push((first, last)),
                None => map.push((node(number), vec![(first, last)])),
            }
        }
        self.shard.on_map(&map);
    }

    fn give_away(&mut self, place: usize) {
        if self.shard.is_cluster() {
            self.shard.on_given_away(place);
            self.happen(Event::Lose(place));
            assert!(!self.is_needed(place), "it may be a replica now");
        }
    }

    /// The node of a route answers all that it was asked for.
    fn confirm(&mut self, place: usize, refuses: bool) {
        for change in self.shard.take_changes(place, 1000) {
            let known = self.subscribed.get_mut(&place).unwrap();
            match change {
                Change::Subscribe(name, serial) if refuses => {
                    self.shard.on_refused(&name, serial, false, &"no".into());
                }
                Change::Subscribe(name, serial) => {
                    known.insert(name.to_string());
                    self.shard.on_subscribed(&name, serial);
                }
                Change::Unsubscribe(name) => {
                    known.remove(&*name);
                }
            }
        }
        self.shard.on_changed();
    }

    /// All that is needed comes up, and answers.
    fn settle(&mut self) {
        for _ in 0..10 {
            if self.shard.is_cluster() {
                self.map(&[0, 1, 2]);
            }
            let places: Vec<_> = self.subscribed.keys().copied().collect();
            for place in places {
                if !self.is_needed(place) {
                    self.happen(Event::Lose(place));
                }
            }
            for place in 0..10 {
                self.happen(Event::Connect(place));
                self.shard.ask_again();
                while self.shard.is_sweeping() {
                    self.shard.sweep();
                }
                self.happen(Event::Confirm(place));
                self.happen(Event::TakePublishes(place));
            }
        }
    }
}

fn holds_together(state: &State) {
    let unconfirmed = state.wanted.values().filter(|it| !state.is_confirmed(it));
    assert_eq!(state.unconfirmed(), unconfirmed.count());
    let is_idle = |route: &&Route| route.status == Status::Idle;
    let mut idle = state.routes.iter().filter(is_idle);
    assert!(
        idle.all(|route| route.publishes.is_empty()),
        "a call waits for nothing"
    );
}

fn lives_up_to_it(kind: Kind, events: Vec<Event>) {
    let mut world = World::new(kind);
    for event in events {
        world.happen(event);
        holds_together(&world.shard.state.lock());
    }
    world.settle();
    for call in &world.calls {
        assert!(call.outcome().is_some(), "a call hangs");
    }
    let wanted: HashSet<_> = (world.held.iter())
        .filter(|(_, holds)| **holds > 0)
        .map(|(name, _)| format!("{name}"))
        .collect();
    let mut subscribed: Vec<_> = world.subscribed.values().flatten().cloned().collect();
    subscribed.sort();
    let before = subscribed.len();
    subscribed.dedup();
    assert_eq!(before, subscribed.len(), "twice: {subscribed:?}");
    assert_eq!(subscribed.into_iter().collect::<HashSet<_>>(), wanted);
    assert_eq!(world.shard.status(), Ok(()));
    let state = world.shard.state.lock();
    assert!(!state.has_outage);
    drop(state);
    let mut is_lost = false;
    while let Some(notice) = world.shard.groups.notices().take(Some(Instant::now())) {
        match notice {
            Notice::Lost(_) => assert!(!std::mem::replace(&mut is_lost, true)),
            Notice::Regained(_) => assert!(std::mem::replace(&mut is_lost, false)),
            _ => {}
        }
    }
    assert!(!is_lost, "each loss is followed by its end");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_single_server_gets_what_is_wanted(events in events()) {
        lives_up_to_it(Kind::Single, events);
    }

    #[test]
    fn what_a_stranger_publishes_is_no_message(
        bytes in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..100),
            prop::collection::vec(0..3_u8, 0..100),
        ],
    ) {
        let groups = |key| Groups::new(Vec::new(), WhenFull::Close, key);
        groups(None).deliver("room", &bytes);
        let sealed = groups(Some(&b"key"[..]));
        prop_assert!(!sealed.deliver("room", &bytes));
        prop_assert_eq!(sealed.open("room", &bytes), None);
    }

    #[test]
    fn the_nodes_of_a_cluster_get_what_is_wanted(events in events()) {
        lives_up_to_it(Kind::Cluster, events);
    }
}

/// Subscriptions to many groups, half of them at each of two nodes.
fn many_subscriptions(count: usize) -> World {
    let mut world = World::new(Kind::Cluster);
    let names: Vec<_> = (0..count).map(|number| format!("room-{number}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    world.calls.extend(world.shard.subscribe_all(&names));
    world.map(&[0, 1]);
    while world.shard.is_sweeping() {
        world.shard.sweep();
    }
    for place in 1..=2 {
        world.happen(Event::Connect(place));
    }
    for place in [1, 2].repeat(count) {
        world.shard.sweep();
        world.happen(Event::Confirm(place));
    }
    assert_eq!(world.shard.state.lock().unconfirmed(), 0);
    world
}

fn queued(world: &World) -> usize {
    let changes = |place| world.shard.take_changes(place, usize::MAX).len();
    (1..=2).map(changes).sum()
}

#[test]
fn many_subscriptions_move_in_parts_and_a_map_that_is_the_same_moves_none() {
    let mut world = many_subscriptions(500);
    world.map(&[0, 1]);
    assert!(!world.shard.is_sweeping());
    world.map(&[1, 0]);
    let (mut parts, mut moved) = (0, queued(&world));
    assert_eq!(moved, 0, "under the lock of the map");
    while world.shard.is_sweeping() {
        world.shard.sweep();
        parts += 1;
        let more = queued(&world);
        assert!(more <= 2 * PART);
        moved += more;
    }
    assert!(parts >= 500 / PART);
    assert!(moved >= 500, "{moved}");
}

#[test]
fn who_may_have_missed_messages_is_told_while_another_node_is_away() {
    let mut world = many_subscriptions(20);
    let (member, _peer) = Connection::for_test(1, &Settings::SMALL, "");
    for number in 0..20 {
        let name = format!("room-{number}");
        world.shard.groups.join(&name, &member, [1; 16]);
    }
    let mut of_second: Vec<_> = world.subscribed[&2].iter().cloned().collect();
    of_second.sort();
    world.happen(Event::Lose(1));
    world.happen(Event::Lose(2));
    world.happen(Event::Connect(2));
    while world.shard.is_sweeping() {
        world.shard.sweep();
    }
    world.happen(Event::Confirm(2));
    let take = || world.shard.groups.notices().take(Some(Instant::now()));
    let notices: Vec<_> = std::iter::from_fn(take).collect();
    assert!(matches!(&notices[0], Notice::Lost(_)), "{notices:?}");
    assert_eq!(notices[1..], [Notice::Interrupted(of_second)]);
}

#[test]
fn what_waits_for_a_node_that_loses_its_part_goes_to_the_next_one_at_once() {
    let mut world = World::new(Kind::Cluster);
    world.happen(Event::Publish(0));
    world.map(&[0]);
    world.happen(Event::Connect(1));
    world.happen(Event::TakePublishes(1));
    // Its task has not taken this one when another node has all of the cluster.
    world.happen(Event::Publish(0));
    world.map(&[1]);
    world.happen(Event::Lose(1));
    world.happen(Event::Connect(2));
    world.happen(Event::TakePublishes(2));
    assert!(world.calls.iter().all(|call| call.outcome().is_some()));
}

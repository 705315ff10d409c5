//! The state of a shard: its routes, the wanted subscriptions, and what waits to be published.
//!
//! A *route* leads to one node. A single server has one, and so has the service of sentinels; a
//! cluster has one for each master. The route at place 0 is the one for channels of which it is not
//! known yet where they belong.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ops::Bound,
    sync::Arc,
    time::Instant,
};

use redis::Cmd;
use tokio::sync::Notify;

use super::{
    cluster::Map,
    config::Address,
    history::ScriptCall,
    lag::Lag,
    measure,
    slots::{SLOTS, slot_of},
};
use crate::engine::backends::call::{Outcome, Reason, Ticket};

/// Bytes that wait for a node at most.
const MOST_QUEUED: usize = measure::MOST_MESSAGE;
/// Subscriptions that are changed in one piece.
pub(super) const CHANGES: usize = 1000;
/// The place of the route for channels that belong to no node yet.
pub(super) const UNKNOWN: usize = 0;

#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(super) struct State {
    pub(super) is_stopped: bool,
    pub(super) routes: Vec<Route>,
    /// The route of each hash slot; empty where there are none.
    pub(super) slots: Vec<u16>,
    /// In the order of their names, so that a sweep goes on where it was.
    pub(super) wanted: BTreeMap<Arc<str>, Wanted>,
    /// Subscriptions up to this name are in line with the routes; `None` when all are. There may be
    /// so many of them that they are looked through in parts.
    pub(super) swept: Option<Arc<str>>,
    /// A node has refused a subscription since the last sweep.
    pub(super) has_refused: bool,
    /// How many connections with subscriptions there were.
    pub(super) connections: u64,
    pub(super) serial: u64,
    /// The messages that a node has refused because they belong to another one.
    pub(super) moved: Vec<Publish>,
    pub(super) is_map_doubtful: bool,
    /// A loss was reported, and its end was not.
    pub(super) has_outage: bool,
    /// The groups whose members may have missed messages, until that is reported.
    pub(super) interrupted: BTreeSet<String>,
    /// Some of them have their subscription again.
    pub(super) has_back: bool,
    pub(super) losses: u64,
}

/// The way to one node.
#[derive(Debug, Default)]
pub(super) struct Route {
    /// `None` while it is not known.
    pub(super) address: Option<Address>,
    pub(super) status: Status,
    /// Whether anything leads to it.
    pub(super) is_current: bool,
    /// Another node has sent a command here since the last map.
    pub(super) is_asked: bool,
    /// It has given a part away, and so it may be a replica now: the map comes first.
    pub(super) awaits_map: bool,
    pub(super) failures: u32,
    /// The number of the connection that has the subscriptions, zero while there is none.
    pub(super) connection: u64,
    /// How many subscriptions it has confirmed.
    pub(super) confirmed: usize,
    /// The lag of the connection that has the subscriptions.
    pub(super) lag: Lag,
    pub(super) publishes: VecDeque<Publish>,
    pub(super) publish_bytes: usize,
    pub(super) changes: VecDeque<Change>,
    pub(super) wakeups: Arc<Wakeups>,
}

/// The wake-ups of a route's task.
#[derive(Debug, Default)]
pub(super) struct Wakeups {
    pub(super) publish: Notify,
    pub(super) subscribe: Notify,
    pub(super) end: Notify,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Status {
    /// Not needed yet.
    #[default]
    Idle,
    /// The first attempt is under way: calls wait for it.
    Connecting,
    Up,
    /// It is tried again and again; calls fail at once.
    Away(Reason),
}

/// A subscription that groups need.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    pub(super) slot: u16,
    pub(super) route: usize,
    pub(super) standing: Standing,
    /// The connection with which it stands so. With another one it is new.
    pub(super) connection: u64,
    /// Tells the latest attempt to subscribe from earlier ones.
    pub(super) serial: u64,
    /// Joins that are under way, and other reasons to keep it without members.
    pub(super) holds: usize,
    /// It was lost: messages may have been missed.
    pub(super) was_lost: bool,
    pub(super) waiters: Vec<Ticket>,
}

/// How far a subscription is with a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Standing {
    #[default]
    New,
    /// An attempt is queued or under way.
    Asked,
    Refused,
    Confirmed,
}

/// A command that is to be sent.
#[derive(Clone, Debug)]
pub(super) enum Command {
    /// As it is.
    Plain(Cmd),
    /// A script of the history.
    Script(ScriptCall),
}

/// A message that is to be published, or another call that has to keep its place among them.
#[derive(Debug)]
pub(super) struct Publish {
    pub(super) command: Command,
    pub(super) channel: Vec<u8>,
    pub(super) bytes: usize,
    /// `None` when no caller waits for the outcome.
    pub(super) ticket: Option<Ticket>,
    pub(super) deadline: Instant,
    /// The connection has ended before the first reply.
    pub(super) is_repeated: bool,
    /// The name of the run of the node that has sent it to this one, which is getting the slot.
    pub(super) asks: Option<Arc<[u8]>>,
}

impl Publish {
    pub(super) fn new(
        command: Command,
        channel: Vec<u8>,
        bytes: usize,
        ticket: Option<Ticket>,
        deadline: Instant,
    ) -> Self {
        Self {
            command,
            channel,
            bytes,
            ticket,
            deadline,
            is_repeated: false,
            asks: None,
        }
    }

    /// Whether it is of use still.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.deadline > now && self.ticket.as_ref().is_none_or(Ticket::is_awaited)
    }

    /// Whether it may be sent once more when there was no reply: it changes nothing in the server.
    pub(super) fn may_repeat(&self) -> bool {
        !self.is_repeated && matches!(self.command, Command::Script(ScriptCall::Read { .. }))
    }

    pub(super) fn finish(self, outcome: Outcome) {
        if let Some(ticket) = self.ticket {
            ticket.finish(outcome);
        }
    }
}

/// A change of the subscriptions of a node.
#[derive(Debug)]
pub(super) enum Change {
    Subscribe(Arc<str>, u64),
    Unsubscribe(Arc<str>),
}

impl Route {
    pub(super) fn new(address: Option<Address>) -> Self {
        Self {
            address,
            is_current: true,
            ..Self::default()
        }
    }

    /// Notes that the connection with the subscriptions has gone.
    pub(super) fn disconnect(&mut self) {
        self.connection = 0;
        self.confirmed = 0;
        self.changes.clear();
    }
}

impl State {
    pub(super) fn new(address: Option<Address>, is_cluster: bool) -> Self {
        Self {
            routes: vec![Route::new(address)],
            slots: vec![0; if is_cluster { SLOTS } else { 0 }],
            is_map_doubtful: is_cluster,
            ..Self::default()
        }
    }

    /// The hash slot of a channel; zero where there are none.
    fn slot_of(&self, channel: &[u8]) -> u16 {
        if self.slots.is_empty() {
            return 0;
        }
        u16::try_from(slot_of(channel)).unwrap_or_default()
    }

    fn route_of(&self, slot: u16) -> usize {
        self.slots
            .get(usize::from(slot))
            .map_or(0, |&route| usize::from(route))
    }

    /// The number of the connection for subscriptions of the node of a channel; zero without one.
    pub(super) fn connection_for(&self, channel: &[u8]) -> u64 {
        let route = self.routes.get(self.route_of(self.slot_of(channel)));
        route.map_or(0, |route| route.connection)
    }

    /// How many subscriptions no node has confirmed.
    pub(super) fn unconfirmed(&self) -> usize {
        let confirmed: usize = self.routes.iter().map(|route| route.confirmed).sum();
        self.wanted.len().saturating_sub(confirmed)
    }

    /// Whether the connection with which a subscription stands as it does is there.
    fn is_live(&self, wanted: &Wanted) -> bool {
        wanted.connection != 0 && wanted.connection == self.routes[wanted.route].connection
    }

    /// The subscription to `name`, if the attempt `serial` is the latest one and had no outcome yet.
    pub(super) fn asked(&mut self, name: &str, serial: u64) -> Option<&mut Wanted> {
        let is_it = |wanted: &Wanted| wanted.serial == serial && self.is_live(wanted);
        if !self.wanted.get(name).is_some_and(is_it) {
            return None;
        }
        let wanted = self.wanted.get_mut(name)?;
        (wanted.standing == Standing::Asked).then_some(wanted)
    }

    pub(super) fn is_confirmed(&self, wanted: &Wanted) -> bool {
        wanted.standing == Standing::Confirmed && self.is_live(wanted)
    }

    /// The place of the route to a node, which is made if need be.
    pub(super) fn place_of(&mut self, address: &Address) -> usize {
        let is_it = |route: &Route| route.address.as_ref() == Some(address);
        if let Some(place) = self.routes.iter().position(is_it) {
            return place;
        }
        // An old one whose node has gone is used again.
        let is_free = |(place, route): &(usize, &Route)| {
            *place != UNKNOWN && !route.is_current && route.status == Status::Idle
        };
        let free = self.routes.iter().enumerate().find(is_free);
        let free = free.map(|(place, _)| place);
        let route = Route::new(Some(address.clone()));
        match free {
            Some(place) => {
                self.routes[place] = route;
                place
            }
            None => {
                self.routes.push(route);
                self.routes.len() - 1
            }
        }
    }

    /// The places of the routes to the nodes of the slots, as the map has them. Routes are made for its
    /// nodes; those to other nodes are not current any more.
    pub(super) fn slots_of(&mut self, map: &Map) -> Vec<u16> {
        let is_in_map = |route: &Route| {
            map.iter()
                .any(|(address, _)| route.address.as_ref() == Some(address))
        };
        // First, so that no route is used for another node that the map has further down.
        for route in &mut self.routes {
            // A node that is getting its first slots is not in the map.
            route.is_current = std::mem::take(&mut route.is_asked) || is_in_map(route);
        }
        let mut slots = vec![0; self.slots.len()];
        for (address, ranges) in map {
            let place = self.place_of(address);
            let Ok(number) = u16::try_from(place) else {
                continue;
            };
            self.routes[place].is_current = true;
            for &(first, last) in ranges {
                let range = usize::from(first)..=usize::from(last);
                if let Some(slots) = slots.get_mut(range) {
                    slots.fill(number);
                }
            }
        }
        slots
    }

    /// Notes whether there are slots that no node serves; true when that was otherwise.
    pub(super) fn note_gaps(&mut self, has_gaps: bool) -> bool {
        let unknown = &mut self.routes[UNKNOWN];
        unknown.is_current = has_gaps;
        let status = if has_gaps {
            Status::Away("no node of the cluster serves this part of it".into())
        } else {
            Status::Idle
        };
        std::mem::replace(&mut unknown.status, status.clone()) != status
    }

    /// Why a call that needs a route has to fail, if it has.
    pub(super) fn reason_against(&self, route: usize) -> Option<Reason> {
        if self.is_stopped {
            return Some("it was closed".into());
        }
        match &self.routes[route].status {
            Status::Away(reason) => Some(Arc::clone(reason)),
            Status::Idle | Status::Connecting | Status::Up => None,
        }
    }

    /// Notes that a route is needed.
    pub(super) fn need(&mut self, route: usize) {
        let status = &mut self.routes[route].status;
        if *status == Status::Idle {
            *status = Status::Connecting;
            self.is_map_doubtful |= route == UNKNOWN && !self.slots.is_empty();
        }
    }

    /// Whether the task that looks after the routes has something to do.
    pub(super) fn needs_look(&self) -> bool {
        self.is_map_doubtful || (self.routes.iter()).any(|it| it.status == Status::Connecting)
    }

    pub(super) fn has_failed_routes(&self) -> bool {
        (self.routes.iter()).any(|it| it.is_current && matches!(it.status, Status::Away(_)))
    }

    /// Puts a message into the queue of its route. Its call gets the reason if that is not possible.
    pub(super) fn dispatch(&mut self, mut publish: Publish) {
        publish.asks = None;
        let place = self.route_of(self.slot_of(&publish.channel));
        self.queue(place, publish);
    }

    /// As [`State::dispatch`], for a message that belongs to the route at `place`.
    pub(super) fn queue(&mut self, place: usize, publish: Publish) {
        if let Some(reason) = self.reason_against(place) {
            publish.finish(Err(reason));
            return;
        }
        self.need(place);
        let route = &mut self.routes[place];
        if publish.bytes > MOST_QUEUED {
            publish.finish(Err("a message has 64 MiB at most".into()));
            return;
        }
        if route.publish_bytes + publish.bytes > MOST_QUEUED {
            publish.finish(Err("more is published than the server takes".into()));
            return;
        }
        route.publish_bytes += publish.bytes;
        route.publishes.push_back(publish);
        if route.publishes.len() == 1 && route.status == Status::Up {
            route.wakeups.publish.notify_one();
        }
    }

    /// Notes that the subscription to `channel`, that of `name`, is held once more.
    pub(super) fn hold(&mut self, name: &str, channel: impl FnOnce() -> Vec<u8>) {
        if let Some(wanted) = self.wanted.get_mut(name) {
            wanted.holds += 1;
            return;
        }
        let slot = self.slot_of(&channel());
        let wanted = Wanted {
            slot,
            route: self.route_of(slot),
            holds: 1,
            ..Wanted::default()
        };
        self.wanted.insert(name.into(), wanted);
    }

    /// Asks the node of a wanted subscription for it, unless that was done, or is not possible now.
    pub(super) fn ask(&mut self, name: &str) {
        let Some((name, wanted)) = self.wanted.get_key_value(name) else {
            return;
        };
        let place = wanted.route;
        let is_done = self.is_live(wanted)
            && matches!(wanted.standing, Standing::Asked | Standing::Confirmed);
        if is_done || self.routes[place].status != Status::Up {
            return;
        }
        let name = Arc::clone(name);
        self.serial += 1;
        let (serial, connection) = (self.serial, self.routes[place].connection);
        if let Some(wanted) = self.wanted.get_mut(&name) {
            wanted.standing = Standing::Asked;
            wanted.connection = connection;
            wanted.serial = serial;
        }
        self.change(place, Change::Subscribe(name, serial));
    }

    /// Has all subscriptions brought in line with the routes, as these are now.
    pub(super) fn begin_sweep(&mut self) {
        self.has_refused = false;
        self.swept = Some("".into());
    }

    /// The subscriptions among the next `count` that are not in line with the routes.
    pub(super) fn sweep(&mut self, count: usize) -> Vec<Arc<str>> {
        let Some(swept) = &self.swept else {
            return Vec::new();
        };
        let rest = (Bound::Excluded(&**swept), Bound::Unbounded);
        let mut part = self.wanted.range::<str, _>(rest).take(count).peekable();
        let (mut found, mut last) = (Vec::new(), None);
        while let Some((name, wanted)) = part.next() {
            if part.peek().is_none() {
                last = Some(name);
            }
            let is_in_line = self.route_of(wanted.slot) == wanted.route
                && self.is_live(wanted)
                && matches!(wanted.standing, Standing::Asked | Standing::Confirmed);
            if !is_in_line {
                found.push(Arc::clone(name));
            }
        }
        self.swept = last.map(Arc::clone);
        found
    }

    /// Brings a subscription in line with the routes. Returns those that wait for it in vain, with
    /// the reason, and whether messages may have been missed.
    pub(super) fn tend(&mut self, name: &str) -> (Option<(Vec<Ticket>, Reason)>, bool) {
        let Some((key, wanted)) = self.wanted.get_key_value(name) else {
            return (None, false);
        };
        let (key, before, is_live) = (Arc::clone(key), wanted.route, self.is_live(wanted));
        let place = self.route_of(wanted.slot);
        let reason = self.reason_against(place);
        let Some(wanted) = self.wanted.get_mut(name) else {
            return (None, false);
        };
        let is_new = !is_live || before != place;
        let was_lost = is_new && wanted.standing == Standing::Confirmed;
        if is_new {
            wanted.route = place;
            wanted.standing = Standing::New;
            wanted.was_lost |= was_lost;
            // The former node may still confirm it.
            wanted.serial = 0;
        }
        let failed = reason.map(|reason| (std::mem::take(&mut wanted.waiters), reason));
        if is_new && is_live {
            self.routes[before].confirmed -= usize::from(was_lost);
            self.change(before, Change::Unsubscribe(key));
        }
        self.need(place);
        self.ask(name);
        (failed, was_lost)
    }

    pub(super) fn change(&mut self, place: usize, change: Change) {
        let route = &mut self.routes[place];
        route.changes.push_back(change);
        if route.changes.len() == 1 {
            route.wakeups.subscribe.notify_one();
        }
    }

    /// Ends a subscription.
    pub(super) fn forget(&mut self, name: &str) {
        let Some((name, wanted)) = self.wanted.remove_entry(name) else {
            return;
        };
        self.interrupted.remove(&*name);
        if self.is_live(&wanted) {
            let is_confirmed = wanted.standing == Standing::Confirmed;
            self.routes[wanted.route].confirmed -= usize::from(is_confirmed);
            self.change(wanted.route, Change::Unsubscribe(name));
        }
    }
}

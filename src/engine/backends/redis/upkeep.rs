//! The work of a shard's tasks with its state: they note the states of its nodes, and take the
//! messages that are to be sent to them.

use std::{
    collections::{BTreeSet, HashSet, VecDeque},
    sync::Arc,
};

use super::{
    cluster::Map,
    config::Address,
    lag::Lag,
    shard::Shard,
    state::{Change, Publish, Route, Standing, State, Status, UNKNOWN, Wakeups},
};
use crate::engine::{
    backends::call::{Reason, Reply},
    base::clock,
    groups::{Event, Notice},
};

/// Subscriptions that are looked at under one lock: others need it, and the engine's thread.
pub(super) const PART: usize = if cfg!(test) { 2 } else { 1000 };

impl Shard {
    // -- for the task that looks after the routes ------------------------------------------------

    pub(super) fn is_stopped(&self) -> bool {
        self.state.lock().is_stopped
    }

    /// Whether the map of the cluster has to be asked for, because it is needed and doubtful.
    pub(super) fn is_map_doubtful(&self) -> bool {
        let state = self.state.lock();
        let is_used = state.routes.iter().any(|it| it.status != Status::Idle);
        self.is_cluster() && is_used && (state.is_map_doubtful || state.has_failed_routes())
    }

    /// Whether anything leads to a node already.
    pub(super) fn is_used(&self) -> bool {
        let state = self.state.lock();
        state.routes.iter().any(|it| it.status != Status::Idle)
    }

    /// The routes that are needed, which are those whose tasks have to run.
    pub(super) fn needed_routes(&self) -> Vec<usize> {
        let state = self.state.lock();
        let is_needed = |(place, route): &(usize, &Route)| {
            let leads_nowhere = self.is_cluster() && *place == UNKNOWN;
            let has_to_wait = leads_nowhere || route.awaits_map;
            !has_to_wait && route.is_current && route.status != Status::Idle
        };
        let routes = state.routes.iter().enumerate().filter(is_needed);
        routes.map(|(place, _)| place).collect()
    }

    /// The nodes that are known of a cluster: those that have given a part away, which know to whom;
    /// those that served it last; then those of the settings.
    pub(super) fn known_nodes(&self) -> Vec<Address> {
        let state = self.state.lock();
        let gave = |route: &&Route| route.awaits_map;
        let up = |route: &&Route| route.status == Status::Up;
        let mut nodes: Vec<_> = (state.routes.iter().filter(gave))
            .chain(state.routes.iter().filter(up))
            .chain(&state.routes)
            .filter_map(|route| route.address.clone())
            .chain(self.server.nodes.iter().cloned())
            .collect();
        let mut seen = HashSet::new();
        nodes.retain(|node| seen.insert(node.clone()));
        nodes
    }

    /// Notes that the cluster's map could not be got.
    pub(super) fn on_no_map(&self, reason: &Reason) {
        let mut state = self.state.lock();
        for route in &mut state.routes {
            route.awaits_map = false;
        }
        if state.routes.iter().all(|route| route.status != Status::Up) {
            self.note_lost_node(&mut state, UNKNOWN, reason, true);
        }
        drop(state);
        self.look.notify_one();
    }

    /// Takes the map of a cluster: the masters, and the first and last slots of each.
    pub(super) fn on_map(&self, map: &Map) {
        let mut state = self.state.lock();
        state.is_map_doubtful = false;
        let slots = state.slots_of(map);
        // Slots that no node serves.
        let is_other = state.note_gaps(slots.contains(&0));
        let has_moved = std::mem::replace(&mut state.slots, slots) != state.slots;
        if has_moved || is_other || state.has_refused {
            state.begin_sweep();
        }
        Self::dispatch_anew(&mut state);
        for route in &mut state.routes {
            // Unless its task is about to end.
            let has_no_task = route.connection == 0 && std::mem::take(&mut route.awaits_map);
            if !route.is_current && has_no_task {
                route.status = Status::Idle;
            }
            // Not where there is no task: the next one would end at once.
            if !route.is_current && route.status != Status::Idle {
                route.wakeups.end.notify_one();
            }
        }
        self.end_outage_if_over(&mut state);
        drop(state);
        self.look.notify_one();
    }

    /// Moves messages to the routes that lead to their nodes now.
    fn dispatch_anew(state: &mut State) {
        let mut publishes = std::mem::take(&mut state.moved);
        for route in &mut state.routes {
            if route.status != Status::Up {
                publishes.extend(route.publishes.drain(..));
                route.publish_bytes = 0;
            }
        }
        for publish in publishes {
            state.dispatch(publish);
        }
    }

    /// Whether subscriptions are left to be brought in line with the routes.
    pub(super) fn is_sweeping(&self) -> bool {
        self.state.lock().swept.is_some()
    }

    /// Brings some more subscriptions in line with the routes.
    pub(super) fn sweep(&self) {
        self.sweep_some(&mut self.state.lock());
    }

    fn sweep_some(&self, state: &mut State) {
        for name in state.sweep(PART) {
            self.tend(state, &name);
        }
        self.end_outage_if_over(state);
    }

    /// Brings one subscription in line with the routes.
    pub(super) fn tend(&self, state: &mut State, name: &str) {
        let (failed, was_lost) = state.tend(name);
        if let Some((waiters, reason)) = failed {
            for ticket in waiters {
                ticket.finish(Err(Arc::clone(&reason)));
            }
        }
        // Members of groups with a history get what they have missed.
        if was_lost && self.groups.count(name) > 0 && self.groups.position_of(name).is_none() {
            state.interrupted.insert(name.to_owned());
        }
    }

    // -- for the task of a route -----------------------------------------------------------------

    pub(super) fn wakeups(&self, route: usize) -> Option<Arc<Wakeups>> {
        let state = self.state.lock();
        Some(Arc::clone(&state.routes.get(route)?.wakeups))
    }

    /// The address of a route, and how often in a row it could not be reached.
    pub(super) fn target(&self, route: usize) -> (Option<Address>, u32) {
        let state = self.state.lock();
        match state.routes.get(route) {
            Some(route) => (route.address.clone(), route.failures),
            None => (None, 0),
        }
    }

    /// Notes where a route has led to. Sentinels find a new address each time.
    pub(super) fn on_found(&self, route: usize, address: &Address) {
        if let Some(route) = self.state.lock().routes.get_mut(route) {
            route.address = Some(address.clone());
        }
    }

    /// Notes that a node is connected, and asks it for all subscriptions that belong to it.
    pub(super) fn on_connected(&self, place: usize) {
        let mut state = self.state.lock();
        state.connections += 1;
        let connection = state.connections;
        let route = &mut state.routes[place];
        route.status = Status::Up;
        route.failures = 0;
        route.connection = connection;
        route.confirmed = 0;
        route.lag = Lag::default();
        route.changes.clear();
        route.wakeups.publish.notify_one();
        state.begin_sweep();
        self.sweep_some(&mut state);
        drop(state);
        self.look.notify_one();
    }

    /// Notes that the node of a route has given a part of the cluster away. The task ends then.
    pub(super) fn on_given_away(&self, place: usize) {
        if let Some(route) = self.state.lock().routes.get_mut(place) {
            route.awaits_map = true;
        }
    }

    /// Notes that the task of a route has ended.
    pub(super) fn on_lost(&self, place: usize, reason: &Reason) {
        let mut state = self.state.lock();
        let route = &mut state.routes[place];
        if !route.is_current {
            // The cluster has given its part to other nodes.
            route.status = Status::Idle;
            route.failures = 0;
            route.awaits_map = false;
            route.disconnect();
            route.publish_bytes = 0;
            for publish in std::mem::take(&mut route.publishes) {
                state.dispatch(publish);
            }
            state.begin_sweep();
            return;
        }
        let was_up = route.status == Status::Up;
        route.failures = if was_up { 0 } else { route.failures + 1 };
        self.note_lost_node(&mut state, place, reason, !was_up);
        state.is_map_doubtful = self.is_cluster();
    }

    /// Notes that a node cannot be reached; `is_away` when it will not be back at once.
    fn note_lost_node(&self, state: &mut State, place: usize, reason: &Reason, is_away: bool) {
        let route = &mut state.routes[place];
        route.disconnect();
        let was_away = matches!(route.status, Status::Away(_));
        route.status = if is_away {
            Status::Away(Arc::clone(reason))
        } else {
            Status::Connecting
        };
        let publishes = if is_away {
            route.publish_bytes = 0;
            std::mem::take(&mut route.publishes)
        } else {
            VecDeque::new()
        };
        if !was_away {
            // Its confirmed subscriptions are lost; calls that wait for one fail, or go on waiting.
            state.begin_sweep();
        }
        self.begin_outage(state, place, reason);
        for publish in publishes {
            publish.finish(Err(Arc::clone(reason)));
        }
    }

    /// Notes what is known of the lag of a route.
    pub(super) fn note_lag(&self, place: usize, note: impl FnOnce(&mut Lag)) {
        if let Some(route) = self.state.lock().routes.get_mut(place) {
            note(&mut route.lag);
        }
    }

    /// Takes messages to publish, of `most` bytes together or one. Those that are of no use any more
    /// are dropped.
    pub(super) fn take_publishes(&self, place: usize, count: usize, most: usize) -> Vec<Publish> {
        let mut state = self.state.lock();
        let Some(route) = state.routes.get_mut(place) else {
            return Vec::new();
        };
        let (mut taken, mut bytes) = (Vec::new(), 0);
        let now = clock::now();
        while taken.len() < count {
            match route.publishes.front() {
                Some(next) if taken.is_empty() || bytes + next.bytes <= most => {}
                _ => break,
            }
            let Some(publish) = route.publishes.pop_front() else {
                break;
            };
            route.publish_bytes -= publish.bytes;
            if publish.is_due(now) {
                bytes += publish.bytes;
                taken.push(publish);
            }
        }
        if !route.publishes.is_empty() {
            route.wakeups.publish.notify_one();
        }
        taken
    }

    /// Queues what is to be sent, or could not be done by a node.
    pub(super) fn send_all(&self, publishes: impl IntoIterator<Item = Publish>) {
        let mut state = self.state.lock();
        for publish in publishes {
            state.dispatch(publish);
        }
        let needs_look = state.needs_look();
        drop(state);
        if needs_look {
            self.look.notify_one();
        }
    }

    /// Keeps a message that a node has refused, until the cluster's map is known anew.
    pub(super) fn on_moved(&self, publish: Publish) {
        let mut state = self.state.lock();
        state.moved.push(publish);
        state.is_map_doubtful = true;
        drop(state);
        self.look.notify_one();
    }

    /// Sends messages to the node that is getting their slot from the one at `place`. The map stays:
    /// `to` has no say in other messages of the slot. The node at `place` has the run `run`.
    pub(super) fn on_sent_on(
        &self,
        place: usize,
        publishes: Vec<Publish>,
        to: &str,
        run: &Arc<[u8]>,
    ) {
        let mut state = self.state.lock();
        let (_, address) = to.rsplit_once(' ').unwrap_or_default();
        let found = match (address.rsplit_once(':'), &state.routes[place].address) {
            // A node without a host is where the other one is.
            (Some(("", port)), Some(Address::Tcp(host, _))) => Some((host.clone(), port)),
            (Some((host, port)), _) => Some((host.to_owned(), port)),
            (None, _) => None,
        };
        let node = found.and_then(|(host, port)| Some(Address::Tcp(host, port.parse().ok()?)));
        match node {
            Some(node) => {
                let place = state.place_of(&node);
                state.routes[place].is_asked = true;
                state.routes[place].is_current = true;
                for mut publish in publishes {
                    publish.asks = Some(Arc::clone(run));
                    state.queue(place, publish);
                }
            }
            None => {
                let reason: Reason = format!("a node has sent it to {to:?}").into();
                for publish in publishes {
                    publish.finish(Err(Arc::clone(&reason)));
                }
            }
        }
        drop(state);
        self.look.notify_one();
    }

    /// Takes changes of the subscriptions, at most `count`.
    pub(super) fn take_changes(&self, place: usize, count: usize) -> Vec<Change> {
        let mut state = self.state.lock();
        let Some(route) = state.routes.get_mut(place) else {
            return Vec::new();
        };
        let count = count.min(route.changes.len());
        let taken = route.changes.drain(..count).collect();
        if !route.changes.is_empty() {
            route.wakeups.subscribe.notify_one();
        }
        taken
    }

    /// Notes that the server has confirmed a subscription.
    pub(super) fn on_subscribed(&self, name: &str, serial: u64) {
        let mut state = self.state.lock();
        let Some(wanted) = state.asked(name, serial) else {
            return;
        };
        wanted.standing = Standing::Confirmed;
        let was_lost = std::mem::replace(&mut wanted.was_lost, false);
        if was_lost {
            self.behind.add(name);
            self.groups.note_loss(name);
        }
        let waiters = std::mem::take(&mut wanted.waiters);
        let place = wanted.route;
        state.has_back |= was_lost;
        state.routes[place].confirmed += 1;
        self.end_outage_if_over(&mut state);
        drop(state);
        for ticket in waiters {
            ticket.finish(Ok(Reply::Number(0)));
        }
    }

    /// Notes that a node has answered to changes. Reports the groups whose members may have missed
    /// something while it was away, also where other nodes still are.
    pub(super) fn on_changed(&self) {
        let mut state = self.state.lock();
        let has_more = || state.routes.iter().any(|route| !route.changes.is_empty());
        if !state.has_back || state.swept.is_some() || has_more() {
            return;
        }
        state.has_back = false;
        let interrupted = std::mem::take(&mut state.interrupted);
        let is_back = |name: &String| {
            let wanted = state.wanted.get(name.as_str());
            wanted.is_some_and(|wanted| state.is_confirmed(wanted))
        };
        let (back, rest) = interrupted.into_iter().partition::<BTreeSet<_>, _>(is_back);
        state.interrupted = rest;
        drop(state);
        if !back.is_empty() {
            let back = back.into_iter().collect();
            self.groups.notices().add(Notice::Interrupted(back));
        }
    }

    /// Notes that the server has refused a subscription. Those who wait for it get the reason; if
    /// others need it, too, it is asked for again later.
    pub(super) fn on_refused(&self, name: &str, serial: u64, has_moved: bool, why: &Reason) {
        let mut state = self.state.lock();
        let Some(wanted) = state.asked(name, serial) else {
            return;
        };
        wanted.standing = Standing::Refused;
        if has_moved {
            state.has_refused = true;
            state.is_map_doubtful = true;
            drop(state);
            self.look.notify_one();
            return;
        }
        let waiters = std::mem::take(&mut wanted.waiters);
        let waiting = waiters.iter().filter(|it| it.is_awaited()).count();
        let (place, holds) = (wanted.route, wanted.holds);
        state.has_refused = true;
        if holds > waiting || self.groups.count(name) > 0 {
            self.begin_outage(&mut state, place, why);
        }
        drop(state);
        for ticket in waiters {
            ticket.finish(Err(Arc::clone(why)));
        }
    }

    /// Asks nodes once more for what they have refused.
    pub(super) fn ask_again(&self) {
        let mut state = self.state.lock();
        if state.has_refused {
            state.begin_sweep();
            drop(state);
            self.look.notify_one();
        }
    }

    /// Reports that something is lost, unless that was reported.
    fn begin_outage(&self, state: &mut State, place: usize, reason: &Reason) {
        if state.has_outage {
            return;
        }
        state.losses += 1;
        state.has_outage = true;
        let reason = match &state.routes[place].address {
            Some(address) => format!("{address}: {reason}"),
            None => reason.to_string(),
        };
        self.groups.statistics().count(Event::Lost);
        self.groups.notices().add(Notice::Lost(reason));
    }

    /// Reports the end of an outage, and the groups whose members may have missed something.
    pub(super) fn end_outage_if_over(&self, state: &mut State) {
        let has_news = state.has_outage || !state.interrupted.is_empty();
        if state.swept.is_some() || !has_news {
            return;
        }
        if state.has_outage {
            let is_up = |route: &Route| matches!(route.status, Status::Up | Status::Idle);
            let all_are_up = (state.routes.iter()).all(|route| !route.is_current || is_up(route));
            if state.unconfirmed() > 0 || !all_are_up {
                return;
            }
            state.has_outage = false;
            let what = state.routes.iter().find_map(|it| it.address.as_ref());
            let what = what.map(Address::to_string).unwrap_or_default();
            self.groups.statistics().count(Event::Regained);
            self.groups.notices().add(Notice::Regained(what));
        }
        let groups: Vec<_> = std::mem::take(&mut state.interrupted).into_iter().collect();
        if !groups.is_empty() {
            (self.groups.notices()).add(Notice::Interrupted(groups));
        }
    }
}

//! One shard: what its callers do. [`super::upkeep`] has what its tasks do.

use std::{
    borrow::Cow,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use super::{
    behind::Behind,
    channel,
    config::{Kind, Server},
    history::ScriptCall,
    state::{CHANGES, Command, Publish, State, Status, Wanted},
};
use crate::engine::{
    backends::call::{Call, Reason, Ticket, lost},
    base::{clock, sync::Mutex},
    groups::Groups,
    history::{Limits, Position},
};

/// One shard, as its callers and its tasks know it. Any thread may use it.
#[derive(Debug)]
pub(super) struct Shard {
    pub(super) server: Server,
    pub(super) timeout: Duration,
    pub(super) keeps_history: bool,
    pub(super) groups: Arc<Groups>,
    pub(super) state: Mutex<State>,
    /// Groups whose members here miss messages.
    pub(super) behind: Behind,
    /// Wakes the task that looks after the routes.
    pub(super) look: Notify,
}

impl Shard {
    pub(super) fn new(
        server: Server,
        timeout: Duration,
        keeps_history: bool,
        groups: Arc<Groups>,
    ) -> Self {
        let is_cluster = matches!(server.kind, Kind::Cluster);
        let address = match server.kind {
            Kind::Single => server.nodes.first().cloned(),
            Kind::Cluster | Kind::Sentinel { .. } => None,
        };
        let state = State::new(address, is_cluster);
        Self {
            server,
            timeout,
            keeps_history,
            groups,
            state: Mutex::new(state),
            behind: Behind::default(),
            look: Notify::new(),
        }
    }

    pub(super) fn is_cluster(&self) -> bool {
        matches!(self.server.kind, Kind::Cluster)
    }

    /// The channel of a group.
    pub(super) fn channel_of(&self, name: &str) -> Vec<u8> {
        channel::of_group(&self.server.prefix, name)
    }

    /// The group of a channel.
    pub(super) fn name_of<'a>(&self, channel: &'a [u8]) -> Option<Cow<'a, str>> {
        channel::group_of(&self.server.prefix, channel)
    }

    // -- for callers -----------------------------------------------------------------------------

    /// Publishes `payload` on the channel of `name`. The outcome is the number of connections that
    /// got it.
    pub(super) fn publish(&self, name: &str, payload: &[u8]) -> Arc<Call> {
        let (call, ticket) = Call::new(lost);
        self.put(name, payload, Some(ticket));
        call
    }

    /// Publishes, without a caller that waits for the outcome.
    pub(super) fn send(&self, name: &str, payload: &[u8]) {
        self.put(name, payload, None);
    }

    fn put(&self, name: &str, payload: &[u8], ticket: Option<Ticket>) {
        let channel = self.channel_of(name);
        let mut command = redis::cmd(self.publish_command());
        command.arg(&channel[..]).arg(payload);
        self.queue(Command::Plain(command), channel, payload.len(), ticket);
    }

    /// The command that publishes.
    fn publish_command(&self) -> &'static str {
        if self.is_cluster() {
            "SPUBLISH"
        } else {
            "PUBLISH"
        }
    }

    /// Keeps `envelope`, and publishes it on the channel of `name`. The outcome is its offset.
    pub(super) fn record(&self, name: &str, envelope: &[u8], limits: Limits) -> Arc<Call> {
        let (call, ticket) = Call::new(lost);
        let channel = self.channel_of(name);
        let append = Command::Script(ScriptCall::Append {
            envelope: envelope.to_vec(),
            limits,
            publish: self.publish_command(),
        });
        self.queue(append, channel, envelope.len(), Some(ticket));
        call
    }

    /// Reads what is kept of `name` after `after`. The outcome is a page.
    pub(super) fn read(&self, name: &str, after: Option<Position>, limits: Limits) -> Arc<Call> {
        let (call, ticket) = Call::new(lost);
        let channel = self.channel_of(name);
        let read = Command::Script(ScriptCall::Read { after, limits });
        self.queue(read, channel, 0, Some(ticket));
        call
    }

    fn queue(&self, command: Command, channel: Vec<u8>, length: usize, ticket: Option<Ticket>) {
        let bytes = channel.len() + length;
        let deadline = clock::now() + self.timeout;
        let publish = Publish::new(command, channel, bytes, ticket, deadline);
        self.send_all([publish]);
    }

    /// Makes sure that there is a subscription to `name`. `None` when there is one already. In any
    /// case, a failure too, [`Shard::release`] has to follow.
    pub(super) fn subscribe(&self, name: &str) -> Option<Arc<Call>> {
        self.subscribe_all(&[name]).pop()
    }

    /// As [`Shard::subscribe`] for many names: the calls that wait for a reply. They go to the server
    /// together.
    pub(super) fn subscribe_all(&self, names: &[&str]) -> Vec<Arc<Call>> {
        let mut calls = Vec::new();
        for part in names.chunks(CHANGES) {
            let mut state = self.state.lock();
            // Under one lock: else the first one leaves alone, and the others wait for its reply.
            calls.extend((part.iter()).filter_map(|name| self.want(&mut state, name)));
            let needs_look = state.needs_look();
            drop(state);
            if needs_look {
                self.look.notify_one();
            }
        }
        calls
    }

    fn want(&self, state: &mut State, name: &str) -> Option<Arc<Call>> {
        state.hold(name, || self.channel_of(name));
        if state.swept.is_some() {
            self.tend(state, name);
        }
        let wanted = state.wanted.get(name)?;
        if state.is_confirmed(wanted) {
            return None;
        }
        let route = wanted.route;
        if let Some(reason) = state.reason_against(route) {
            return Some(Call::finished(Err(reason)));
        }
        let (call, ticket) = Call::new(lost);
        if let Some(wanted) = state.wanted.get_mut(name) {
            wanted.waiters.push(ticket);
        }
        state.need(route);
        state.ask(name);
        Some(call)
    }

    /// Follows each [`Shard::subscribe`]. With `if_empty` the subscription ends unless there are
    /// members, or other joins under way.
    pub(super) fn release(&self, name: &str, if_empty: bool) {
        let mut state = self.state.lock();
        if let Some(wanted) = state.wanted.get_mut(name) {
            wanted.holds = wanted.holds.saturating_sub(1);
        }
        if if_empty {
            self.drop_if_unused(&mut state, name);
        }
    }

    /// Ends the subscription to `name`, unless there are members.
    pub(super) fn unsubscribe(&self, name: &str) {
        self.drop_if_unused(&mut self.state.lock(), name);
    }

    fn drop_if_unused(&self, state: &mut State, name: &str) {
        // A member that joins now holds the subscription, or is counted already.
        let is_unused = |wanted: &Wanted| wanted.holds == 0 && self.groups.count(name) == 0;
        if state.wanted.get(name).is_some_and(is_unused) {
            state.forget(name);
            self.end_outage_if_over(state);
        }
    }

    /// The number of the connection that brings what is published to `name`, or would bring it if that
    /// was wanted; zero while it does not come.
    pub(super) fn subscription(&self, name: &str) -> u64 {
        let state = self.state.lock();
        match state.wanted.get(name) {
            Some(wanted) if state.is_confirmed(wanted) => wanted.connection,
            Some(_) => 0,
            None => state.connection_for(&self.channel_of(name)),
        }
    }

    /// Whether the server is there, or was not needed yet.
    pub(super) fn status(&self) -> Result<(), Reason> {
        let state = self.state.lock();
        let mut reasons = (state.routes.iter()).filter_map(|route| match &route.status {
            Status::Away(reason) if route.is_current => Some(Arc::clone(reason)),
            _ => None,
        });
        reasons.next().map_or(Ok(()), Err)
    }

    /// How often a node was lost.
    pub(super) fn losses(&self) -> u64 {
        self.state.lock().losses
    }

    /// The longest lag of its nodes that are connected; `None` before it was measured.
    pub(super) fn lag(&self) -> Option<Duration> {
        let now = Instant::now();
        let state = self.state.lock();
        let routes = state.routes.iter();
        let connected = routes.filter(|it| it.is_current && it.status == Status::Up);
        connected.filter_map(|route| route.lag.read(now)).max()
    }

    /// Ends the tasks. Calls that are under way fail, and so do all later ones.
    pub(super) fn stop(&self) {
        let mut state = self.state.lock();
        state.is_stopped = true;
        state.moved.clear();
        for route in &mut state.routes {
            route.publishes.clear();
        }
        for wanted in state.wanted.values_mut() {
            wanted.waiters.clear();
        }
        drop(state);
        self.look.notify_one();
        self.behind.added.notify_one();
    }
}

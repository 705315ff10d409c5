//! Redis, or Valkey: processes publish to its channels, and subscribe to those of the groups that
//! have members in them.
//!
//! A [`Redis`] is one backend of this process. It has a [`shard`] for each server of its settings; a
//! group belongs to one of them by its name. A shard has [routes](shard) to nodes: one to a single
//! server or to the master that sentinels name, one to each master of a cluster.
//!
//! # Tasks, all on the first thread of the engine
//!
//! - [`routes`]: one for each shard. It runs the routes that are needed, begins a route anew when it
//!   has failed, and asks for the map of a cluster. Nothing is connected before the first call.
//! - [`link`]: one for each route, with two connections: one publishes, many messages in one piece;
//!   the other one has the subscriptions. It ends when either of them fails.
//! - [`catch_up`]: one for each shard. It reads what members here have missed of groups with a
//!   [`history`].
//! - [`incoming`]: one. It hands what the server pushes to the groups. While these have no room
//!   nothing more is read: so memory is bounded here, and the server closes the connection when its
//!   own limit is reached (`client-output-buffer-limit pubsub`).
//!
//! # Outcomes for callers
//!
//! A caller gets a [`Call`], for which it may sleep as it likes. Its outcome is there when the server
//! has replied. While a node is away calls fail at once with the reason; those that come while the
//! first attempt to connect is under way wait for its outcome.
//!
//! # Names
//!
//! The name of a channel begins with a prefix that is made from the project's key, so that projects
//! never meet: the server does not keep the channels of its databases apart.

use std::{
    sync::{Arc, OnceLock, Weak},
    time::{Duration, Instant},
};

use tokio::{
    task::{spawn_blocking, yield_now},
    time::sleep,
};

mod batch;
mod behind;
mod catch_up;
mod channel;
mod cluster;
mod config;
mod connection;
mod history;
mod incoming;
mod lag;
mod link;
mod measure;
mod member_count;
mod routes;
mod sentinel;
mod shard;
mod slots;
mod state;
mod stream;
#[cfg(test)]
mod tests;
mod upkeep;

pub use self::config::{Address, Config, Kind, Login, Server};
use self::{
    incoming::{Arrivals, Incoming, Pushed},
    member_count::MemberCount,
    shard::Shard,
    stream::Gate,
};
use crate::engine::{
    backends::{
        call::{Call, Reason},
        exchange::Exchange,
    },
    base::{clock, error::Error, fork, panics::contain},
    groups::{Event, Groups, Observer, Offer},
    history::{Limits, Position},
    runtime::Engine,
};

/// Messages of more bytes are authenticated on a thread of their own.
const LARGE: usize = 64 * 1024;
/// How long the groups take what arrives before the engine has to look at its sockets.
const TURN: Duration = Duration::from_micros(100);
/// How long what arrives waits for room in the groups, each time.
const BETWEEN_PASSES: Duration = Duration::from_millis(1);

/// How often the histories of groups that have members here are read: that is use.
const USE_PERIOD: Duration = Duration::from_secs(60 * 60);

/// The parts of a [`Redis`].
#[derive(Debug)]
struct Backend {
    groups: Arc<Groups>,
    shards: Vec<Arc<Shard>>,
    member_count: Arc<MemberCount>,
    incoming: Incoming,
    exchange: OnceLock<Arc<Exchange>>,
}

/// The backend in Redis of the groups of this process. Any thread may use it.
#[derive(Debug)]
pub struct Redis {
    generation: u64,
    backend: Arc<Backend>,
}

/// Where one server is, and how it is.
#[derive(Clone, Debug)]
pub struct Status {
    /// `None` when it can be reached, or was not needed yet; else the reason why not.
    pub reason: Option<Reason>,
    /// How often it was lost.
    pub losses: u64,
    /// How long an answer takes after what waits for this process; `None` while none has come.
    pub lag: Option<Duration>,
}

impl Redis {
    /// A backend for `groups`. Connects to nothing yet.
    ///
    /// # Errors
    /// [`Error::Io`] when the system gives the engine no thread or no descriptor.
    pub fn new(groups: &Arc<Groups>, config: &Config) -> Result<Self, Error> {
        let engine = Engine::current()?;
        let runtime = engine.handle();
        let (incoming, arrivals) = Incoming::new();
        let shards = config.servers.iter().map(|server| {
            let groups = Arc::clone(groups);
            let (timeout, keeps_history) = (config.timeout, config.keeps_history);
            Arc::new(Shard::new(server.clone(), timeout, keeps_history, groups))
        });
        let backend = Arc::new(Backend {
            groups: Arc::clone(groups),
            shards: shards.collect(),
            member_count: Arc::new(MemberCount::new(runtime.clone())),
            incoming,
            exchange: OnceLock::new(),
        });
        let weak: Weak<Backend> = Arc::downgrade(&backend);
        let gate = Arc::clone(&backend.incoming.gate);
        runtime.spawn(Backend::receive(weak.clone(), arrivals, gate));
        for (number, shard) in backend.shards.iter().enumerate() {
            let incoming = backend.incoming.of_shard(number);
            runtime.spawn(routes::run(routes::Running(Arc::clone(shard)), incoming));
            runtime.spawn(catch_up::run(Arc::clone(shard)));
        }
        runtime.spawn(Backend::use_histories(weak.clone()));
        groups.observe(weak);
        Ok(Self {
            generation: fork::generation(),
            backend,
        })
    }

    fn is_foreign(&self) -> bool {
        self.generation != fork::generation()
    }

    /// Hands `exchange` what comes for it from now on. Only the first one counts.
    pub fn use_exchange(&self, exchange: Arc<Exchange>) {
        let _ = self.backend.exchange.set(exchange);
    }

    /// Publishes an envelope of the group `name`. The outcome is the number of processes that got
    /// it, as far as the server knows.
    pub fn publish(&self, name: &str, envelope: &[u8]) -> Arc<Call> {
        self.in_shard(name, |shard| shard.publish(name, envelope))
    }

    /// Keeps an envelope of the group `name`, and publishes it. The outcome is its offset.
    pub fn record(&self, name: &str, envelope: &[u8], limits: Limits) -> Arc<Call> {
        self.in_shard(name, |shard| shard.record(name, envelope, limits))
    }

    /// Reads what is kept of the group `name` after `after`. The outcome is a page, which may end
    /// before the newest message.
    pub fn read(&self, name: &str, after: Option<Position>, limits: Limits) -> Arc<Call> {
        self.in_shard(name, |shard| shard.read(name, after, limits))
    }

    /// Subscribes to the messages of groups, with one round trip to each server. Returns the calls
    /// of those to which that was not done before. In any case, a failure too, [`Redis::release`]
    /// has to follow for each name once the group has its member.
    pub fn subscribe(&self, names: &[&str]) -> Vec<Arc<Call>> {
        if self.is_foreign() {
            return vec![Call::finished(Err(FOREIGN.into()))];
        }
        let shards = &self.backend.shards;
        let mut parts = vec![Vec::new(); shards.len()];
        for name in names {
            if let Some(part) = parts.get_mut(slots::shard_of(name, shards.len())) {
                part.push(*name);
            }
        }
        let parts = shards.iter().zip(&parts);
        parts
            .flat_map(|(shard, names)| shard.subscribe_all(names))
            .collect()
    }

    /// Follows [`Redis::subscribe`]. With `if_empty` the subscription ends unless there are members.
    pub fn release(&self, name: &str, if_empty: bool) {
        if let Some(shard) = self.shard_of(name) {
            shard.release(name, if_empty);
        }
    }

    /// Ends the subscription to the group `name`, unless it has members.
    pub fn unsubscribe(&self, name: &str) {
        if !self.is_foreign() {
            self.backend.on_members(name);
        }
    }

    /// The number of the connection that brings all messages of the group `name`, or would bring them.
    /// It is another one after each gap; zero while they do not come.
    pub fn subscription(&self, name: &str) -> u64 {
        let shard = self.shard_of(name);
        shard.map_or(0, |shard| shard.subscription(name))
    }

    /// Counts the members of the group `name` in all processes.
    pub fn count(&self, name: &str) -> Arc<Call> {
        let backend = &self.backend;
        self.in_shard(name, |shard| {
            backend.member_count.count(&backend.groups, shard, name)
        })
    }

    /// How each of the servers is.
    pub fn status(&self) -> Vec<Status> {
        if self.is_foreign() {
            return Vec::new();
        }
        let status = |shard: &Arc<Shard>| Status {
            reason: shard.status().err(),
            losses: shard.losses(),
            lag: shard.lag(),
        };
        self.backend.shards.iter().map(status).collect()
    }

    /// The shard of a group; `None` in a forked child.
    fn shard_of(&self, name: &str) -> Option<&Arc<Shard>> {
        (self.backend.shard_of(name)).filter(|_| !self.is_foreign())
    }

    fn in_shard(&self, name: &str, call: impl FnOnce(&Arc<Shard>) -> Arc<Call>) -> Arc<Call> {
        if self.is_foreign() {
            return Call::finished(Err(FOREIGN.into()));
        }
        match self.backend.shard_of(name) {
            Some(shard) => call(shard),
            None => Call::finished(Err("no server is configured".into())),
        }
    }
}

const FOREIGN: &str = "it belongs to the parent process";

impl Backend {
    fn shard_of(&self, name: &str) -> Option<&Arc<Shard>> {
        self.shards.get(slots::shard_of(name, self.shards.len()))
    }

    /// Hands what arrives to the groups, until the way is closed.
    async fn receive(weak: Weak<Self>, mut arrivals: Arrivals, gate: Arc<Gate>) {
        let mut began = Instant::now();
        while let Some(pushed) = arrivals.recv().await {
            let Some(backend) = weak.upgrade() else {
                return;
            };
            let length = pushed.len();
            // Later messages wait in the server, or are lost there when they become too many.
            while !backend.groups.has_room(length) {
                sleep(BETWEEN_PASSES).await;
            }
            if length > LARGE {
                let handled = spawn_blocking(move || backend.on_message(&pushed)).await;
                drop(handled);
            } else {
                contain(|| backend.on_message(&pushed));
            }
            gate.subtract(length);
            if began.elapsed() >= TURN {
                yield_now().await;
                began = Instant::now();
            }
        }
    }

    /// Uses the histories of groups that have members here: else they lose their numbering.
    async fn use_histories(weak: Weak<Self>) {
        loop {
            clock::sleep_until(clock::task_now() + USE_PERIOD).await;
            let Some(backend) = weak.upgrade() else {
                return;
            };
            for name in backend.groups.recorded_names() {
                if let Some(shard) = backend.shard_of(&name) {
                    shard.behind.add(&name);
                }
            }
        }
    }

    fn on_message(&self, pushed: &Pushed) {
        let Some(shard) = self.shards.get(pushed.shard) else {
            return;
        };
        let Some(name) = shard.name_of(&pushed.channel) else {
            return;
        };
        let (name, payload) = (&*name, &pushed.payload[..]);
        let is_known = if Exchange::is_message(payload) {
            let exchange = self.exchange.get();
            exchange.is_some_and(|exchange| exchange.on_message(name, payload))
        } else {
            self.take(shard, name, payload)
        };
        if !is_known {
            self.groups.statistics().count(Event::Unreadable);
        }
    }

    /// Takes what came on the channel of a group, or of answers to a count. False for anything else.
    fn take(&self, shard: &Shard, name: &str, payload: &[u8]) -> bool {
        if self.groups.count(name) == 0 {
            // Messages are for nobody here: so they are not looked at.
            return self
                .member_count
                .on_message(&self.groups, shard, name, payload)
                || name != self.member_count.own_name();
        }
        let offered = history::announced(payload)
            .and_then(|(at, envelope)| self.groups.offer(name, at, envelope));
        if offered == Some(Offer::Behind) {
            shard.behind.add(name);
        }
        offered.is_some()
            || self.groups.deliver(name, payload)
            || (self.member_count).on_message(&self.groups, shard, name, payload)
    }
}

impl Observer for Backend {
    fn on_members(&self, name: &str) {
        if self.groups.count(name) == 0 {
            if let Some(shard) = self.shard_of(name) {
                shard.unsubscribe(name);
            }
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        if self.is_foreign() {
            #[expect(
                clippy::mem_forget,
                reason = "its locks may be held for ever, by threads of the parent"
            )]
            std::mem::forget(Arc::clone(&self.backend));
            return;
        }
        for shard in &self.backend.shards {
            shard.stop();
        }
    }
}

//! The registry of all connections, and how they are closed when the process ends.
//!
//! Many clients that are closed at once reconnect at once, so the closing can be spread over a
//! window (a drain): a task on the engine's clock then closes one connection after the other. A
//! later drain can only end sooner: it takes the place of one that would take longer.

use std::{
    collections::{HashMap, hash_map::RandomState},
    hash::BuildHasher,
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::{runtime::Handle, task::AbortHandle, time};

use super::{
    Connection,
    settings::Key,
    traffic::{Overview, Traffic},
};
use crate::{
    engine::base::{
        clock,
        error::Error,
        panics::contain,
        sync::{Condvar, Mutex},
    },
    protocol::close::CloseFrame,
};

/// The engine's connections, from adoption until their descriptor is closed.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    state: Mutex<State>,
    emptied: Condvar,
}

#[derive(Debug, Default)]
struct State {
    connections: HashMap<u64, Weak<Connection>>,
    /// The connections that take posts, by their keys.
    by_key: HashMap<Key, Weak<Connection>>,
    /// The traffic of those that have ended.
    ended: Traffic,
    shutting_down: bool,
    drain: Option<Drain>,
}

/// A drain that is under way.
#[derive(Debug)]
struct Drain {
    end: time::Instant,
    task: AbortHandle,
}

impl State {
    /// Refuses new connections, stops a drain that is under way, and returns those still open.
    /// Those that are spared are not among them, unless it `closes_all`; nor are those that have just
    /// come from another process, which are closed by who opens them.
    fn leave(&mut self, closes_all: bool) -> Vec<Arc<Connection>> {
        self.shutting_down = true;
        if let Some(drain) = self.drain.take() {
            drain.task.abort();
        }
        self.open()
            .filter(|connection| {
                let is_spared = connection.is_spared() || connection.outbox.is_held();
                connection.needs_close() && (closes_all || !is_spared)
            })
            .collect()
    }

    fn open(&self) -> impl Iterator<Item = Arc<Connection>> {
        self.connections.values().filter_map(Weak::upgrade)
    }
}

/// A connection's entry in the registry. Dropping it removes it.
#[derive(Debug)]
pub(crate) struct Registration {
    registry: Arc<Registry>,
    connection: Arc<Connection>,
}

impl Registry {
    /// Enters a connection.
    pub(crate) fn register(
        registry: &Arc<Self>,
        connection: &Arc<Connection>,
    ) -> Result<Registration, Error> {
        let mut state = registry.state.lock();
        // The client of a carried one has its 101 as good as now, that of a moved one for long: they
        // are closed by who opens them.
        let is_told = connection.is_carried() || connection.outbox.is_held();
        if state.shutting_down && !is_told {
            return Err(Error::ShuttingDown);
        }
        let weak = Arc::downgrade(connection);
        state.connections.insert(connection.id(), weak);
        if let Some(key) = connection.transport.key() {
            state.by_key.insert(key, Arc::downgrade(connection));
        }
        Ok(Registration {
            registry: Arc::clone(registry),
            connection: Arc::clone(connection),
        })
    }

    /// The connection that takes posts to `key`.
    pub(crate) fn find(&self, key: &Key) -> Option<Arc<Connection>> {
        self.state.lock().by_key.get(key)?.upgrade()
    }

    /// The open connections, and the traffic of these and of all before them.
    pub(crate) fn overview(&self) -> Overview {
        let (connections, mut traffic) = {
            let state = self.state.lock();
            (state.open().collect::<Vec<_>>(), state.ended)
        };
        for connection in &connections {
            traffic += connection.traffic();
        }
        Overview {
            connections: connections.len(),
            traffic,
            latencies: connections.iter().filter_map(|c| c.latency()).collect(),
        }
    }

    /// Closes every connection with `frame` and refuses new ones.
    pub(crate) fn close_all(&self, frame: &CloseFrame) {
        self.close_those(frame, true);
    }

    fn close_those(&self, frame: &CloseFrame, closes_all: bool) {
        let connections = self.state.lock().leave(closes_all);
        for connection in connections {
            // When closing one panics, the others must still get their close frame.
            contain(|| connection.close(frame));
        }
    }

    /// Closes every connection with `frame`, spread over `window` on the clock of `runtime`, and
    /// refuses new ones. Does not wait.
    ///
    /// Returns the time until the last one begins to close. That is less than `window` when a drain
    /// that ends sooner is under way already: then nothing changes.
    pub(crate) fn drain(&self, runtime: &Handle, frame: CloseFrame, window: Duration) -> Duration {
        let now = clock::task_now();
        let Some(end) = now.checked_add(window).filter(|_| !window.is_zero()) else {
            self.close_those(&frame, false);
            return Duration::ZERO;
        };
        let mut state = self.state.lock();
        if let Some(drain) = state.drain.as_ref().filter(|drain| drain.end <= end) {
            return if state.connections.is_empty() {
                Duration::ZERO
            } else {
                drain.end.duration_since(now)
            };
        }
        let connections = state.leave(false);
        if connections.is_empty() {
            return Duration::ZERO;
        }
        // A map's order is independent of the order in which the connections came.
        let plan: Vec<_> = moments(connections.len(), window)
            .map(|moment| now + moment)
            .zip(connections.iter().map(Arc::downgrade))
            .collect();
        let task = runtime.spawn(close_in_turn(plan, frame)).abort_handle();
        state.drain = Some(Drain { end, task });
        window
    }

    /// Takes new connections again.
    pub(crate) fn reopen(&self) {
        let mut state = self.state.lock();
        state.shutting_down = false;
        if let Some(drain) = state.drain.take() {
            drain.task.abort();
        }
    }

    /// Lets all threads and tasks that wait look at the clock again. Returns the number of
    /// connections.
    pub(crate) fn on_step(&self) -> usize {
        let connections: Vec<_> = self.state.lock().open().collect();
        for connection in &connections {
            contain(|| connection.on_step());
        }
        connections.len()
    }

    /// Closes every connection with `frame`, refuses new ones, and sleeps until the last is gone
    /// or `grace` is over.
    pub(crate) fn shut_down(&self, frame: &CloseFrame, grace: Duration) {
        self.close_all(frame);
        self.wait_until_empty(grace);
    }

    /// Sleeps until the last connection is gone or `grace` is over.
    pub(crate) fn wait_until_empty(&self, grace: Duration) {
        let deadline = clock::now().checked_add(grace);
        let is_early = |state: &State| !state.connections.is_empty();
        drop((self.emptied).wait_while(self.state.lock(), deadline, is_early));
    }
}

/// Moments for closing `count` connections: `window` in as many equal parts, and in each a random
/// moment.
fn moments(count: usize, window: Duration) -> impl Iterator<Item = Duration> {
    let part = window / u32::try_from(count).unwrap_or(u32::MAX).max(1);
    let random = RandomState::new();
    (0..u32::MAX).take(count).map(move |index| {
        let jitter = (random.hash_one(index) >> 54) as u32;
        part.saturating_mul(index)
            .saturating_add(part / 1024 * jitter)
    })
}

async fn close_in_turn(plan: Vec<(time::Instant, Weak<Connection>)>, frame: CloseFrame) {
    for (moment, connection) in plan {
        clock::sleep_until(moment).await;
        if let Some(connection) = connection.upgrade() {
            contain(|| connection.close(&frame));
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        // Before the registry's lock: this takes those of the inbox and the outbox.
        let carried = self.connection.traffic().without_waiting();
        let mut state = self.registry.state.lock();
        state.connections.remove(&self.connection.id());
        state.ended += carried;
        if let Some(key) = self.connection.transport.key() {
            state.by_key.remove(&key);
        }
        if state.connections.is_empty() {
            self.registry.emptied.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{thread, time::Instant};

    use super::*;
    use crate::{engine::connection::settings::Settings, protocol::close};

    fn connection(id: u64) -> Arc<Connection> {
        Connection::for_test(id, &Settings::SMALL, "").0
    }

    fn going_away() -> CloseFrame {
        CloseFrame::new(Some(close::GOING_AWAY), "").unwrap()
    }

    #[test]
    fn shutting_down_closes_all_waits_for_the_last_and_refuses_the_next() {
        let registry = Arc::new(Registry::default());
        let connections: Vec<_> = (0..10).map(connection).collect();
        let registrations: Vec<_> = connections
            .iter()
            .map(|connection| Registry::register(&registry, connection).unwrap())
            .collect();
        let stopping = {
            let registry = Arc::clone(&registry);
            // A grace that no clock reaches must do no harm.
            thread::spawn(move || registry.shut_down(&going_away(), Duration::MAX))
        };
        while !connections
            .iter()
            .all(|connection| connection.end().is_some())
        {
            thread::yield_now();
        }
        assert!(!stopping.is_finished());
        assert!(matches!(
            Registry::register(&registry, &connection(11)),
            Err(Error::ShuttingDown)
        ));
        drop(registrations);
        stopping.join().unwrap();
        assert!(registry.state.lock().connections.is_empty());
    }

    #[test]
    fn shutting_down_ends_at_its_grace_and_at_once_without_connections() {
        let registry = Arc::new(Registry::default());
        registry.shut_down(&going_away(), Duration::MAX);
        let registry = Arc::new(Registry::default());
        let connection = connection(1);
        let _registration = Registry::register(&registry, &connection).unwrap();
        let grace = Duration::from_millis(20);
        let start = Instant::now();
        registry.shut_down(&going_away(), grace);
        assert!(start.elapsed() >= grace);
    }

    #[test]
    fn a_connection_that_has_just_come_from_another_process_is_left_to_who_opens_it() {
        let registry = Arc::new(Registry::default());
        let (coming, open) = (connection(1), connection(2));
        coming.outbox.hold();
        let _registrations =
            [&coming, &open].map(|connection| Registry::register(&registry, connection).unwrap());
        registry.close_those(&going_away(), false);
        assert!(coming.end().is_none());
        assert!(open.end().is_some());
    }

    fn registered(
        registry: &Arc<Registry>,
        count: u64,
    ) -> (Vec<Arc<Connection>>, Vec<Registration>) {
        let connections: Vec<_> = (0..count).map(connection).collect();
        let registrations = connections
            .iter()
            .map(|connection| Registry::register(registry, connection).unwrap())
            .collect();
        (connections, registrations)
    }

    fn restarting() -> CloseFrame {
        CloseFrame::new(Some(1012), "").unwrap()
    }

    fn told(connections: &[Arc<Connection>]) -> usize {
        let ended = connections
            .iter()
            .filter(|connection| connection.is_ending());
        ended.count()
    }

    const S: Duration = Duration::from_secs(1);
    /// Timers are late by up to a millisecond.
    const LATE: Duration = Duration::from_millis(5);

    #[tokio::test(start_paused = true)]
    async fn a_drain_closes_one_after_the_other_within_its_window() {
        let registry = Arc::new(Registry::default());
        let (connections, _registrations) = registered(&registry, 100);
        let runtime = Handle::current();
        assert_eq!(registry.drain(&runtime, restarting(), 10 * S), 10 * S);
        assert!(matches!(
            Registry::register(&registry, &connection(101)),
            Err(Error::ShuttingDown)
        ));
        for second in 0..10_usize {
            // Each of the hundred parts closes one connection, between its beginning and its end.
            assert!(told(&connections) <= 10 * second + 1, "{second}");
            assert!(told(&connections) + 1 >= 10 * second, "{second}");
            time::sleep(S).await;
        }
        time::sleep(LATE).await;
        assert_eq!(told(&connections), 100);
        assert!(connections.iter().all(|c| c.end().unwrap().code == 1012));
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_drain_can_only_hurry_the_first() {
        let registry = Arc::new(Registry::default());
        let (connections, registrations) = registered(&registry, 60);
        let runtime = Handle::current();
        registry.drain(&runtime, restarting(), 60 * S);
        time::sleep(30 * S).await;
        assert_eq!(registry.drain(&runtime, going_away(), 60 * S), 30 * S);
        assert_eq!(registry.drain(&runtime, going_away(), 3 * S), 3 * S);
        let early = told(&connections);
        assert!((29..=31).contains(&early), "{early}");
        time::sleep(3 * S + LATE).await;
        assert_eq!(told(&connections), 60);
        let codes = connections.iter().map(|c| c.end().unwrap().code);
        assert_eq!(codes.filter(|code| *code == 1012).count(), early);
        drop(registrations);
        assert_eq!(registry.drain(&runtime, restarting(), S), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn closing_all_at_once_overtakes_a_drain() {
        let registry = Arc::new(Registry::default());
        let (connections, _registrations) = registered(&registry, 9);
        let runtime = Handle::current();
        registry.drain(&runtime, restarting(), 9 * S);
        let (none, window) = (Duration::ZERO, Duration::ZERO);
        assert_eq!(registry.drain(&runtime, going_away(), window), none);
        assert_eq!(told(&connections), 9);
        assert!(registry.state.lock().drain.is_none());
    }

    #[tokio::test]
    async fn a_drain_of_no_connection_is_over_at_once() {
        let registry = Registry::default();
        let runtime = Handle::current();
        assert_eq!(
            registry.drain(&runtime, restarting(), 9 * S),
            Duration::ZERO
        );
        assert!(registry.state.lock().shutting_down);
    }

    #[test]
    fn moments_are_jittered_and_stay_in_their_part_of_the_window() {
        let all: Vec<_> = moments(1000, 1000 * S).collect();
        for (index, moment) in (0_u32..).zip(&all) {
            assert!((S * index..S * (index + 1)).contains(moment), "{index}");
        }
        let halves = all.iter().filter(|moment| moment.subsec_millis() < 500);
        assert!((400..600).contains(&halves.count()));
        assert_eq!(moments(0, S).count(), 0);
        assert_eq!(moments(3, Duration::MAX).count(), 3);
    }
}

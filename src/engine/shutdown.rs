//! Who is connected, and how all of them are told that the process ends.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::{connection::Connection, error::Error, waiter::Sleeper};
use crate::protocol::close::CloseFrame;

/// The engine's connections, from adoption until their descriptor is closed.
#[derive(Debug, Default)]
pub(super) struct Registry {
    state: Mutex<State>,
    emptied: Sleeper,
}

#[derive(Debug, Default)]
struct State {
    connections: HashMap<u64, Weak<Connection>>,
    shutting_down: bool,
}

/// A connection's entry in the registry. Dropping it removes it.
#[derive(Debug)]
pub(super) struct Registration {
    registry: Arc<Registry>,
    id: u64,
}

impl Registry {
    /// Enters a connection.
    pub(super) fn register(
        registry: &Arc<Self>,
        connection: &Arc<Connection>,
    ) -> Result<Registration, Error> {
        let mut state = registry.state.lock();
        if state.shutting_down {
            return Err(Error::ShuttingDown);
        }
        let id = connection.id();
        state.connections.insert(id, Arc::downgrade(connection));
        Ok(Registration {
            registry: Arc::clone(registry),
            id,
        })
    }

    /// Closes every connection with `frame` and refuses new ones.
    pub(super) fn close_all(&self, frame: &CloseFrame) {
        let mut state = self.state.lock();
        state.shutting_down = true;
        let connections: Vec<_> = state
            .connections
            .values()
            .filter_map(Weak::upgrade)
            .collect();
        drop(state);
        for connection in connections {
            connection.close(frame);
        }
    }

    /// Closes every connection with `frame`, refuses new ones, and sleeps until the last is gone
    /// or `grace` is over.
    pub(super) fn shut_down(&self, frame: &CloseFrame, grace: Duration) {
        self.close_all(frame);
        self.wait_until_empty(grace);
    }

    /// Sleeps until the last connection is gone or `grace` is over.
    fn wait_until_empty(&self, grace: Duration) {
        let deadline = Instant::now().checked_add(grace);
        let mut state = self.state.lock();
        while !state.connections.is_empty() {
            if !self.emptied.sleep(&mut state, deadline) {
                return;
            }
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut state = self.registry.state.lock();
        state.connections.remove(&self.id);
        if state.connections.is_empty() {
            self.registry.emptied.wake_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        os::{fd::IntoRawFd, unix::net::UnixStream},
        thread,
    };

    use bytes::Bytes;

    use super::*;
    use crate::{
        engine::{connection::Settings, socket::Socket},
        protocol::{close, limits::Limits},
    };

    fn connection(id: u64) -> Arc<Connection> {
        let (ours, _) = UnixStream::pair().unwrap();
        let socket = Arc::new(Socket::take_over(ours.into_raw_fd()).unwrap());
        let settings = Settings {
            limits: Limits::default(),
            ping_interval: None,
            ping_timeout: None,
            send_buffer_bytes: 1000,
            send_timeout: None,
            close_timeout: Duration::from_secs(1),
        };
        Arc::new(Connection::new(id, socket, &settings, Bytes::new()))
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
    fn shutting_down_ends_at_its_grace_and_at_once_with_nobody_connected() {
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
}

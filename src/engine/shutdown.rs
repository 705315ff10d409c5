//! Who is connected, and how all of them are told that the process ends.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};

use super::{connection::Connection, error::Error};
use crate::protocol::close::CloseFrame;

/// The engine's connections, from adoption until their descriptor is closed.
#[derive(Debug, Default)]
pub(super) struct Registry {
    state: Mutex<State>,
    emptied: Condvar,
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

    /// Closes every connection with `frame`, refuses new ones, and sleeps until the last is gone
    /// or `grace` is over.
    pub(super) fn shut_down(&self, frame: &CloseFrame, grace: Duration) {
        let deadline = Instant::now() + grace;
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
        state = self.state.lock();
        while !state.connections.is_empty() {
            if self.emptied.wait_until(&mut state, deadline).timed_out() {
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
            self.registry.emptied.notify_all();
        }
    }
}

//! How a view on an event loop sleeps until its connection has something for it.
//!
//! A thread sleeps on a condition variable. Event loops cannot: they watch one descriptor for all
//! their connections ([`Hub`]) and are told by [`Watch`] which of them are ready, so many messages
//! cost one wake-up.

use std::{
    io::{self, Read, Write},
    os::{
        fd::{AsRawFd, RawFd},
        unix::net::UnixStream,
    },
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use smallvec::SmallVec;

use super::{relay::Relay, runtime, sync::Mutex};

/// One event loop's list of ready connections and the descriptor that says it is not empty.
///
/// Any thread may add to it; only the loop drains it.
#[derive(Debug)]
pub struct Hub {
    ready: Mutex<Ready>,
    bell: UnixStream,
    rope: UnixStream,
    generation: u64,
    /// Grows with each wish to be told: somebody is about to yield to the loop.
    steps: AtomicU64,
}

#[derive(Debug, Default)]
struct Ready {
    tokens: Vec<u64>,
    has_rung: bool,
    /// Who is told when the loop has served all that was on the list: one for each thread of the
    /// engine that has rung since.
    relays: SmallVec<[Arc<Relay>; 1]>,
}

impl Hub {
    /// Opens the hub's descriptor.
    ///
    /// # Errors
    /// Whatever the system says when it has no descriptor left.
    pub fn new() -> io::Result<Arc<Self>> {
        let (bell, rope) = UnixStream::pair()?;
        bell.set_nonblocking(true)?;
        rope.set_nonblocking(true)?;
        Ok(Arc::new(Self {
            ready: Mutex::default(),
            bell,
            rope,
            generation: runtime::generation(),
            steps: AtomicU64::new(0),
        }))
    }

    /// The descriptor that becomes readable when [`Hub::drain`] has something to give.
    pub fn descriptor(&self) -> RawFd {
        self.bell.as_raw_fd()
    }

    /// Takes the tokens of all connections that became ready, in order.
    pub fn drain(&self) -> Vec<u64> {
        let mut rung = [0; 64];
        // Silence the bell before taking the list: a token that comes later rings again.
        while matches!((&self.bell).read(&mut rung), Ok(n) if n == rung.len()) {}
        let mut ready = self.ready.lock();
        ready.has_rung = false;
        std::mem::take(&mut ready.tokens)
    }

    /// Says that whoever was on the list of [`Hub::drain`] has had a turn.
    ///
    /// One of them may have forked: in the child this does nothing, for a thread that exists in the
    /// parent only may have locked the engine.
    pub fn served(&self) {
        if self.generation != runtime::generation() {
            return;
        }
        let relays = std::mem::take(&mut self.ready.lock().relays);
        for relay in relays {
            relay.on_served(self);
        }
    }

    /// A number that grows while the loop's views come back to it.
    pub(super) fn steps(&self) -> u64 {
        self.steps.load(Ordering::Relaxed)
    }

    /// Adds `token` to the list, as a [`Watch`] does for a connection.
    pub fn announce(&self, token: u64) {
        let mut ready = self.ready.lock();
        ready.tokens.push(token);
        let first = !std::mem::replace(&mut ready.has_rung, true);
        drop(ready);
        if first {
            self.pull();
        }
    }

    fn pull(&self) {
        // A full pipe already rings; a closed one belongs to a loop that is gone.
        let _ = (&self.rope).write(&[1]);
    }

    /// As announcing, but without ringing; false when it has rung or will already.
    fn note(&self, token: u64) -> bool {
        let mut ready = self.ready.lock();
        ready.tokens.push(token);
        ready.tokens.len() == 1 && !ready.has_rung
    }

    /// Rings for what was noted. Whether that was news, and `relay` will be told of its end.
    pub(super) fn ring(&self, relay: &Arc<Relay>) -> bool {
        let mut ready = self.ready.lock();
        if ready.tokens.is_empty() || ready.has_rung {
            return false;
        }
        ready.has_rung = true;
        let first = !ready.relays.iter().any(|other| Arc::ptr_eq(other, relay));
        if first {
            ready.relays.push(Arc::clone(relay));
        }
        drop(ready);
        self.pull();
        first
    }
}

/// A wish to be told once through a [`Hub`].
#[derive(Debug)]
pub struct Watch {
    hub: Arc<Hub>,
    token: u64,
}

/// Those who wait for one connection: mostly one, who then needs no memory of its own.
pub(super) type Watches = SmallVec<[Watch; 1]>;

impl Watch {
    /// A wish to find `token` among the ready of `hub`.
    pub fn new(hub: Arc<Hub>, token: u64) -> Self {
        hub.steps.fetch_add(1, Ordering::Relaxed);
        Self { hub, token }
    }

    /// Whether this is the wish to find `token` among the ready of `hub`.
    pub(super) fn is(&self, hub: &Arc<Hub>, token: u64) -> bool {
        self.token == token && Arc::ptr_eq(&self.hub, hub)
    }

    /// Fulfils the wish.
    pub(super) fn ring(self) {
        self.hub.announce(self.token);
    }

    /// Fulfils the wish, but for the ringing, if anybody has to ring: that hub is given.
    pub(super) fn note(self) -> Option<Arc<Hub>> {
        self.hub.note(self.token).then_some(self.hub)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hub_rings_once_for_many_and_again_after_it_was_drained() {
        let hub = Hub::new().unwrap();
        let mut byte = [0; 8];
        for token in 1..=3 {
            Watch::new(Arc::clone(&hub), token).ring();
        }
        assert_eq!(hub.drain(), [1, 2, 3]);
        assert!((&hub.bell).read(&mut byte).is_err());
        Watch::new(Arc::clone(&hub), 4).ring();
        assert_eq!((&hub.bell).read(&mut byte).unwrap(), 1);
        assert_eq!(hub.drain(), [4]);
    }
}

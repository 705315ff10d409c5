//! Markers: points among the messages of a group that several processes agree on.
//!
//! Where a server brings what is published in a group to all processes in the same order, a message
//! of a random name divides all others there: each has come before it, or comes after it, wherever
//! one looks. By it a member that moves leaves in one process, and begins in the other one. A marker
//! is no message: no member gets it, and nothing counts it.

use std::{collections::HashMap, fmt};

use parking_lot::Mutex;

/// The name of a marker, which is random, and used once.
pub type Token = [u8; 16];

/// The action at a marker. Messages after the marker are put into the group's queue later.
type Act = Box<dyn FnOnce() + Send>;

/// The markers that are awaited in this process, each with the name of its group.
#[derive(Default)]
pub(super) struct Markers(Mutex<HashMap<Token, (String, Act)>>);

impl fmt::Debug for Markers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Markers").finish_non_exhaustive()
    }
}

impl Markers {
    /// Has `act` called when the marker `token` comes in the group `name`. It must not sleep.
    pub(super) fn expect(&self, name: &str, token: Token, act: Act) {
        self.0.lock().insert(token, (name.to_owned(), act));
    }

    /// Expects a marker no more: what was to be done at it has begun, or never will.
    pub(super) fn forget(&self, token: Token) {
        let forgotten = self.0.lock().remove(&token);
        // Without the lock: it may be the last to know a member.
        drop(forgotten);
    }

    /// Does what is to be done at a marker that has come in the group `name`.
    pub(super) fn on_marker(&self, name: &str, token: Token) {
        if let Some(act) = self.take(name, token) {
            act();
        }
    }

    fn take(&self, name: &str, token: Token) -> Option<Act> {
        let mut expected = self.0.lock();
        if expected.get(&token)?.0 != name {
            return None;
        }
        expected.remove(&token).map(|(_, act)| act)
    }
}

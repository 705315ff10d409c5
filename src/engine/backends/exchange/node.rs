//! This process as one of those that tell each other of presence.

use std::{
    collections::hash_map::RandomState,
    hash::BuildHasher,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{
    state::{self, State},
    wire::{Message, Packet},
};
use crate::engine::{
    base::{
        clock, fork,
        sync::{Condvar, Mutex, MutexGuard},
    },
    groups::Groups,
    presence::{Announcer, Presence, Source},
};

/// The start of all that is published.
pub(super) const MARK: &[u8] = b"\x01presence ";
/// By more than that no time of this process is ahead of its clock, unless that was set back.
const MOST_AHEAD_MS: u64 = 60 * 1000;

/// The users of one backend's groups, told to other processes. Any thread may use it.
#[derive(Debug)]
pub struct Exchange {
    generation: u64,
    pub(super) id: Source,
    pub(super) presence: Arc<Presence>,
    pub(super) groups: Arc<Groups>,
    /// Bytes of the records in one message, about.
    pub(super) most_bytes: usize,
    /// When the last packet was sent.
    sent_at: AtomicU64,
    pub(super) state: Mutex<State>,
    pub(super) has_more: Condvar,
}

impl Exchange {
    /// An exchange for `presence`. Its messages have about `most_bytes` bytes at most.
    pub fn new(presence: &Arc<Presence>, groups: &Arc<Groups>, most_bytes: usize) -> Arc<Self> {
        // With the process's number: a forked child inherits the keys of the hash.
        let random = |what: &str| RandomState::new().hash_one((what, std::process::id()));
        let exchange = Arc::new(Self {
            generation: fork::generation(),
            id: random("process"),
            presence: Arc::clone(presence),
            groups: Arc::clone(groups),
            most_bytes,
            sent_at: AtomicU64::new(0),
            state: Mutex::default(),
            has_more: Condvar::default(),
        });
        presence.announce_by(Arc::downgrade(&exchange) as Weak<dyn Announcer>);
        exchange
    }

    /// Whether bytes are a message of an exchange.
    pub fn is_message(bytes: &[u8]) -> bool {
        bytes.starts_with(MARK)
    }

    /// The channels that this process has to subscribe to.
    pub fn channels(&self) -> [String; 2] {
        [state::COMMON.to_owned(), state::channel_of(self.id)]
    }

    /// Whether what comes on the channel `name` is for this process, whatever it is.
    pub fn wants(&self, name: &str) -> bool {
        let is_own = || name == state::COMMON || name == state::channel_of(self.id);
        self.generation == fork::generation() && (is_own() || self.takes_part(name))
    }

    /// The state; `None` in a forked child, where the lock may be held for ever.
    pub(super) fn state(&self) -> Option<MutexGuard<'_, State>> {
        (self.generation == fork::generation()).then(|| self.state.lock())
    }

    pub(super) fn seal(&self, channel: &str, message: Message) -> Vec<u8> {
        let now = clock::wall_ms();
        let update = |last| Some(after(now, last));
        let last = (self.sent_at).fetch_update(Ordering::Relaxed, Ordering::Relaxed, update);
        let packet = Packet {
            from: self.id,
            sent_at: last.map_or(now, |last| after(now, last)),
            message,
        };
        let sealed = self.groups.seal(&domain(channel), packet.encode());
        [MARK, &sealed].concat()
    }
}

/// The time that a packet has which is sent `now`, after one with the time `last`: later, unless the
/// clock was set back. Others take none that is too far ahead.
fn after(now: u64, last: u64) -> u64 {
    if is_ahead(last, now) {
        return now;
    }
    now.max(last.saturating_add(1))
}

/// Whether a time is that of a clock which was set back since.
pub(super) fn is_ahead(sent_at: u64, now: u64) -> bool {
    sent_at > now.saturating_add(MOST_AHEAD_MS)
}

/// The name for the seal of what is published on a channel. Its number is raised with the form of
/// packets.
pub(super) fn domain(channel: &str) -> String {
    format!("\u{1}presence 3 {channel}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_packets_grow_until_the_clock_is_set_back() {
        let now = 1_000_000;
        assert_eq!(after(now, now - 7), now);
        assert_eq!(after(now, now + 7), now + 8);
        assert_eq!(after(now, now + MOST_AHEAD_MS + 1), now);
        assert_eq!(after(now, u64::MAX), now);
    }
}

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
        sync::{Condvar, Mutex},
    },
    groups::Groups,
    presence::{Announcer, Presence, Source},
};

/// The start of all that is published.
pub(super) const MARK: &[u8] = b"\x01presence ";

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
            state: Mutex::new(State::new()),
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
        !self.is_foreign()
            && (name == state::COMMON
                || name == state::channel_of(self.id)
                || self.takes_part(name))
    }

    pub(super) fn is_foreign(&self) -> bool {
        self.generation != fork::generation()
    }

    pub(super) fn seal(&self, channel: &str, message: Message) -> Vec<u8> {
        let now = clock::wall_ms();
        let next = |last: u64| now.max(last + 1);
        let update = |last| Some(next(last));
        let last = (self.sent_at).fetch_update(Ordering::Relaxed, Ordering::Relaxed, update);
        let packet = Packet {
            from: self.id,
            sent_at: last.map_or(now, next),
            message,
        };
        let sealed = self.groups.seal(&domain(channel), &packet.encode());
        [MARK, &sealed].concat()
    }
}

/// The name for the seal of what is published on a channel. Its number is raised with the form of
/// packets.
pub(super) fn domain(channel: &str) -> String {
    format!("\u{1}presence 3 {channel}")
}

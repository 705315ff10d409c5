//! The messages of one group, their numbers, and how many of them are kept.

use std::{
    fmt,
    hash::{BuildHasher, RandomState},
    io,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::engine::base::clock;

/// Messages of so many bytes are on one page, one at least: a client may be slow to take them.
pub(super) const PAGE_BYTES: usize = 1024 * 1024;

/// How long a group that is not used keeps its numbering, at least.
pub(super) const NUMBERING: Duration = Duration::from_secs(24 * 60 * 60);

/// The number of a message in its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Position {
    /// The numbering to which the offset belongs.
    pub epoch: u64,
    /// From 1 on; 0 is the position before all messages.
    pub offset: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{}", self.epoch, self.offset)
    }
}

/// How much of a group is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Messages.
    pub size: usize,
    /// Their age.
    pub age: Duration,
}

impl Limits {
    /// All that is kept.
    pub const ALL: Self = Self {
        size: usize::MAX,
        age: Duration::MAX,
    };
}

/// A message that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its offset.
    pub offset: u64,
    /// When it was published, in milliseconds since 1970.
    pub sent_at: u64,
    /// The message.
    pub envelope: Bytes,
}

/// Messages of one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The newest message that was ever published to the group.
    pub head: Position,
    /// The kept messages, oldest first, without gaps. The newest ones may be for another page.
    pub entries: Vec<Entry>,
}

impl Page {
    /// The position of those that have got it.
    pub fn reached(&self) -> Position {
        let last = (self.entries.last()).map_or(self.head.offset, |kept| kept.offset);
        Position {
            offset: last,
            ..self.head
        }
    }

    /// Bytes of the messages.
    pub fn bytes(&self) -> usize {
        self.entries.iter().map(|kept| kept.envelope.len()).sum()
    }
}

/// The age in milliseconds.
pub(super) fn age_ms(limits: Limits) -> u64 {
    clock::millis(limits.age)
}

/// The time before which messages are too old.
pub(super) fn oldest_ms(now: u64, limits: Limits) -> u64 {
    now.saturating_sub(age_ms(limits))
}

/// A new epoch: no numbering before has had it.
pub(crate) fn new_epoch() -> u64 {
    // Random, with the time: a forked child inherits the keys of the hash.
    RandomState::new().hash_one((std::process::id(), SystemTime::now()))
}

/// The epoch with which the numbering of the group `name` begins: while the seeds stay, the same one
/// each time, so that nothing has to be stored for a group before it has a message.
pub(super) fn first_epoch(seeds: [u64; 2], name: &str) -> u64 {
    let mut digest = Sha256::new();
    for seed in seeds {
        digest.update(seed.to_le_bytes());
    }
    let digest = digest.chain_update(name).finalize();
    (digest.first_chunk()).map_or(0, |part| u64::from_le_bytes(*part))
}

/// The offset after which messages are asked for; 0 for a position that was never reached.
pub(super) fn offset_after(after: Option<Position>, head: Position) -> u64 {
    after
        .filter(|after| after.epoch == head.epoch && after.offset <= head.offset)
        .map_or(0, |after| after.offset)
}

/// The history of all groups of one backend. Any thread may use it.
pub trait History: fmt::Debug + Send + Sync {
    /// Keeps a message, and returns its number. Waits for other processes for `patience` at most;
    /// `None` is the time that the history was made with.
    ///
    /// # Errors
    /// The files cannot be written, or another process holds one (`TimedOut`). The message is not kept.
    fn append(
        &self,
        name: &str,
        envelope: &[u8],
        limits: Limits,
        patience: Option<Duration>,
    ) -> io::Result<Position>;

    /// A page of the messages after `after` that are not too old; of all of them when that is of
    /// another epoch, or beyond the newest. Waits as [`History::append`].
    ///
    /// # Errors
    /// As [`History::append`].
    fn read(
        &self,
        name: &str,
        after: Option<Position>,
        limits: Limits,
        patience: Option<Duration>,
    ) -> io::Result<Page>;

    /// The bytes that are kept.
    fn bytes(&self) -> u64;

    /// Messages that were dropped before their time, because all groups together were too large.
    fn evicted(&self) -> u64;
}

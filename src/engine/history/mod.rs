//! The history of groups: what was published to them, numbered, for members that come back.
//!
//! A group's messages have offsets 1, 2, 3 and so on, which belong to an epoch: when numbering starts
//! anew, the epoch is another one. A [`History`] gives each message its offset and keeps the newest
//! ones, within [`Limits`] for each group and a number of bytes for all of them. It keeps them in the
//! memory of this process, or in files that all processes of a machine share.
//!
//! Messages are the envelopes of [`groups`](super::groups): what they hold is not known here.

mod file;
mod memory;

use std::{
    fmt, io,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;

use self::{file::FileHistory, memory::MemoryHistory};

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

/// A message that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
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
    /// What is kept, oldest first, without gaps.
    pub entries: Vec<Kept>,
}

/// The history of all groups of one backend. Any thread may use it.
#[derive(Debug)]
pub enum History {
    /// In this process.
    Memory(MemoryHistory),
    /// In files.
    Files(FileHistory),
}

impl History {
    /// A history in the memory of this process, of `most` bytes at most.
    pub fn in_memory(most: usize) -> Self {
        Self::Memory(MemoryHistory::new(most))
    }

    /// A history in the folder `path` of `user`, of `most` bytes at most. No call waits longer than
    /// `patience` for other processes.
    ///
    /// # Errors
    /// The folder cannot be used. The text names it.
    pub fn in_files(path: &Path, most: u64, patience: Duration) -> io::Result<Self> {
        FileHistory::open(path, most, patience).map(Self::Files)
    }

    /// Keeps a message, and gives its number.
    ///
    /// # Errors
    /// The files cannot be written, or another process has held one for too long.
    pub fn append(&self, name: &str, envelope: &[u8], limits: Limits) -> io::Result<Position> {
        match self {
            Self::Memory(memory) => Ok(memory.append(name, envelope, limits)),
            Self::Files(files) => files.append(name, envelope, limits),
        }
    }

    /// The messages behind `after` that are not too old; all of them when that is of another epoch,
    /// or beyond the newest.
    ///
    /// # Errors
    /// As [`History::append`].
    pub fn read(&self, name: &str, after: Option<Position>, limits: Limits) -> io::Result<Page> {
        match self {
            Self::Memory(memory) => Ok(memory.read(name, after, limits)),
            Self::Files(files) => files.read(name, after, limits),
        }
    }

    /// The bytes that are kept.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Memory(memory) => memory.bytes() as u64,
            Self::Files(files) => files.bytes(),
        }
    }

    /// Messages that were dropped before their time, because all groups together were too large.
    pub fn evicted(&self) -> u64 {
        match self {
            Self::Memory(memory) => memory.evicted(),
            Self::Files(files) => files.evicted(),
        }
    }
}

/// Milliseconds since 1970.
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |time| {
        u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
    })
}

/// The time before which messages are too old.
fn oldest_ms(now: u64, limits: Limits) -> u64 {
    now.saturating_sub(u64::try_from(limits.age.as_millis()).unwrap_or(u64::MAX))
}

/// A new epoch: no numbering before has had it.
fn new_epoch() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    // Random, with the time: a forked child inherits the keys of the hash.
    RandomState::new().hash_one((std::process::id(), SystemTime::now()))
}

/// The offset behind which messages are asked for; 0 for a position that was never reached.
fn offset_after(after: Option<Position>, head: Position) -> u64 {
    after
        .filter(|after| after.epoch == head.epoch && after.offset <= head.offset)
        .map_or(0, |after| after.offset)
}

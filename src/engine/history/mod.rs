//! The history of groups: what was published to them, numbered, for members that come back.
//!
//! A group's messages have offsets 1, 2, 3 and so on, which belong to an epoch: when numbering starts
//! anew, the epoch is another one. A [`History`] gives each message its offset and keeps the newest
//! ones, within [`Limits`] for each group and a number of bytes for all of them. It keeps them in the
//! memory of this process, or in files that all processes of a machine share.
//!
//! Messages are the envelopes of [`groups`](super::groups): what they hold is not known here.

#[cfg(unix)]
mod epochs;
#[cfg(unix)]
mod files;
#[cfg(unix)]
mod group_file;
mod memory;
mod page;
#[cfg(unix)]
mod quota;
mod watcher;

#[cfg(unix)]
use std::sync::Arc;
use std::{io, time::Duration};

#[cfg(unix)]
use self::files::FileHistory;
use self::memory::MemoryHistory;
pub(crate) use self::page::new_epoch;
pub use self::{
    page::{Entry, Limits, Page, Position},
    watcher::Watcher,
};
#[cfg(unix)]
use crate::engine::resources::folder::Place;

/// The history of all groups of one backend. Any thread may use it.
#[derive(Debug)]
pub enum History {
    /// In this process.
    Memory(MemoryHistory),
    /// In files.
    #[cfg(unix)]
    Files(FileHistory),
}

impl History {
    /// A history in the memory of this process, of `most` bytes at most.
    pub fn in_memory(most: usize) -> Self {
        Self::Memory(MemoryHistory::new(most))
    }

    /// A history in a folder at `place`, of `most` bytes at most. Calls that name no
    /// patience wait for `timeout` at most for other processes.
    ///
    /// # Errors
    /// The folder cannot be used. The text names it.
    #[cfg(unix)]
    pub(crate) fn in_files(
        place: Arc<Place>,
        most: u64,
        timeout: Duration,
        watcher: Arc<dyn Watcher>,
    ) -> io::Result<Self> {
        FileHistory::open(place, most, timeout, watcher).map(Self::Files)
    }

    /// Keeps a message, and returns its number. Waits for other processes for `patience` at most;
    /// `None` is the time that the history was made with.
    ///
    /// # Errors
    /// The files cannot be written, or another process holds one (`TimedOut`). The message is not kept.
    pub fn append(
        &self,
        name: &str,
        envelope: &[u8],
        limits: Limits,
        patience: Option<Duration>,
    ) -> io::Result<Position> {
        #[cfg(not(unix))]
        let _ = patience;
        match self {
            Self::Memory(memory) => Ok(memory.append(name, envelope, limits)),
            #[cfg(unix)]
            Self::Files(files) => files.append(name, envelope, limits, patience),
        }
    }

    /// The messages after `after` that are not too old; all of them when that is of another epoch,
    /// or beyond the newest. Waits as [`History::append`].
    ///
    /// # Errors
    /// As [`History::append`].
    pub fn read(
        &self,
        name: &str,
        after: Option<Position>,
        limits: Limits,
        patience: Option<Duration>,
    ) -> io::Result<Page> {
        #[cfg(not(unix))]
        let _ = patience;
        match self {
            Self::Memory(memory) => Ok(memory.read(name, after, limits)),
            #[cfg(unix)]
            Self::Files(files) => files.read(name, after, limits, patience),
        }
    }

    /// The bytes that are kept.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Memory(memory) => memory.bytes() as u64,
            #[cfg(unix)]
            Self::Files(files) => files.bytes(),
        }
    }

    /// Messages that were dropped before their time, because all groups together were too large.
    pub fn evicted(&self) -> u64 {
        match self {
            Self::Memory(memory) => memory.evicted(),
            #[cfg(unix)]
            Self::Files(files) => files.evicted(),
        }
    }
}

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
pub(crate) use self::files::FileHistory;
pub(crate) use self::page::new_epoch;
pub use self::{
    memory::MemoryHistory,
    page::{Entry, History, Limits, Page, Position},
    watcher::Watcher,
};

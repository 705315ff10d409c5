//! A member of groups, as the fan-out knows it.

use std::fmt;

use super::{memberships::Memberships, parcel::Parcel};
use crate::protocol::{close::CloseFrame, deflate::Deflater};

/// The fate of a message for a member that does not keep up: its outbox is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenFull {
    /// The member is closed with 1013.
    #[default]
    Close,
    /// The message is dropped.
    DropNewest,
    /// Messages of groups that wait longest are dropped in its place.
    DropOldest,
    /// All messages of groups that wait are dropped in its place.
    KeepLatest,
}

/// How many messages of a parcel a member has got, and how many were dropped because it is slow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Handed {
    /// Written, or queued for the member.
    pub delivered: u64,
    /// Dropped: these, or older ones in their place.
    pub dropped: u64,
    /// The member was closed because it is slow.
    pub is_closed: bool,
}

/// What belongs to groups.
pub trait Member: fmt::Debug + Send + Sync {
    /// Whether it belongs to a parent process, whose locks may be held for ever.
    fn is_foreign(&self) -> bool;

    /// The groups that it belongs to.
    fn memberships(&self) -> &Memberships;

    /// The compression that its messages may have; `None` for none.
    fn deflater(&self) -> Option<&Deflater>;

    /// Takes messages. Never sleeps.
    fn take(&self, parcel: &Parcel, when_full: WhenFull) -> Handed;

    /// Closes it.
    fn close(&self, frame: &CloseFrame);
}

//! A member of groups, as the fan-out knows it.

use std::{fmt, sync::Arc};

use super::{
    memberships::{MemberId, Memberships},
    message::{Delivery, Message},
};
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

/// How many messages of a delivery a member has got, and how many were dropped because it is slow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Handed {
    /// Written, or queued for the member.
    pub delivered: u64,
    /// Dropped: these, or older ones in their place.
    pub dropped: u64,
    /// Whether the client is to be told, before the next message, that it has missed some.
    pub owes_loss: bool,
    /// The member was closed because it is slow.
    pub is_closed: bool,
}

/// A member, or a user, that is taken out of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Eviction {
    /// The member, or the user.
    pub whom: Whom,
    /// The text for those that are evicted.
    pub reason: String,
}

/// The one that an eviction names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whom {
    /// One member.
    Member(MemberId),
    /// All members of a user, by the user's name among those of all realms.
    User(String),
}

impl Eviction {
    /// Whether it is about the member `id` of the user `user`.
    pub fn names(&self, id: MemberId, user: Option<&str>) -> bool {
        match &self.whom {
            Whom::Member(whom) => *whom == id,
            Whom::User(whom) => user == Some(whom),
        }
    }
}

/// Something that belongs to groups.
pub trait Member: fmt::Debug + Send + Sync {
    /// Whether it belongs to a parent process, whose locks may be held for ever.
    fn is_foreign(&self) -> bool;

    /// The groups that it belongs to.
    fn memberships(&self) -> &Memberships;

    /// Its name, while it belongs to a group.
    fn id(&self) -> Option<MemberId> {
        self.memberships().id()
    }

    /// The compression that its messages may have; `None` for none.
    fn deflater(&self) -> Option<&Deflater> {
        None
    }

    /// The connection that takes its messages, for a member that is none itself.
    fn carrier(&self) -> Option<Arc<dyn Member>> {
        None
    }

    /// The name by which its client knows the group, for the member of a room.
    fn room(&self) -> Option<&str> {
        None
    }

    /// Whether it is the member of a room, or stands for one: it gets events, and knows its user.
    fn is_seat(&self) -> bool {
        self.room().is_some()
    }

    /// Ends its membership if `eviction` names it, and tells its client. Returns its number then.
    fn evict(&self, _eviction: &Eviction) -> Option<u64> {
        None
    }

    /// Takes messages. `owes_loss`: its client is to be told first that it has missed some, by the
    /// text of [`Message::loss`]. Never sleeps.
    fn take(&self, delivery: &Delivery, when_full: WhenFull, owes_loss: bool) -> Handed;

    /// Closes it.
    fn close(&self, frame: &CloseFrame);
}

/// Messages as the connection that carries `member` sends them.
pub fn delivery_to(member: &dyn Member, messages: Vec<Message>) -> Delivery {
    let carrier = member.carrier();
    Delivery::of(messages, carrier.as_deref().unwrap_or(member).deflater())
}

//! Connections that move to another process, without a join or a leave that anybody sees.
//!
//! The other process tells of the connection before this one tells that it has left: its name is the
//! same, and so it is seen once. This one then says that it has moved, so that a process which
//! has not heard of the other one yet waits for that.
//!
//! A connection that watches has been told of the users as they are known here at one moment, which
//! is a number, the digest. The other process goes on from the moment at which it knew the same ones,
//! or, if it was late to know them, after the change by which it did.

use std::{sync::Arc, time::Duration};

use super::{
    event::{self, Event},
    registry::Presence,
    room::{Known, Room, Standing},
};
use crate::engine::{
    base::clock,
    groups::{Member, WhenFull, delivery_to},
};

impl Presence {
    /// The facts about `member` that another process needs; `None` when it is not present in the
    /// group `name`.
    pub fn standing(&self, name: &str, member: &dyn Member) -> Option<Standing> {
        let (room, slot) = self.seat(name, member)?;
        let state = room.state.lock();
        state.standing(slot)
    }

    /// Whether the user `key` is present in the group `name`, as far as this process knows.
    pub fn knows(&self, name: &str, key: &str) -> bool {
        let room = self.find(name);
        room.is_some_and(|room| room.state.lock().facts(key).is_some())
    }

    /// Whether it is known here that another process has `member`, too.
    pub fn is_elsewhere(&self, name: &str, member: &dyn Member) -> bool {
        let found = self.seat(name, member);
        found.is_none_or(|(room, slot)| room.state.lock().is_elsewhere(slot))
    }

    /// Tells `member` what is left to tell, and nothing from then on. Returns the users that it knows;
    /// `None` while it is being told of some, or while others may not know of all changes, if that
    /// `waits`. A member that is not present knows no users.
    pub fn end_watch(&self, name: &str, member: &dyn Member, waits: bool) -> Option<Known> {
        let Some((room, slot)) = self.seat(name, member) else {
            return Some(Known {
                digest: 0,
                before: None,
            });
        };
        let ended = (room.state.lock()).end_watch(slot, member.room().is_some(), waits);
        let (known, left) = ended?;
        tell(name, member, &left);
        Some(known)
    }

    /// Has `member`, which is present and is told nothing so far, told of all that comes after the
    /// users that are `known`, so long `ago` in another process. False when it is not sure when they
    /// were so here, or when they are not yet.
    pub fn resume_watch<M: Member + 'static>(
        &self,
        name: &str,
        member: &Arc<M>,
        known: Known,
        ago: Duration,
    ) -> bool {
        let Some((room, slot)) = self.seat(name, member.as_ref()) else {
            return false;
        };
        let Some(at) = clock::now().checked_sub(ago) else {
            return false;
        };
        let weak = Arc::downgrade(member);
        let is_in_room = member.room().is_some();
        let mut state = room.state.lock();
        let Some(missed) = state.resume_watch(slot, weak, (known, at), is_in_room) else {
            return false;
        };
        drop(state);
        tell(name, member.as_ref(), &missed);
        room.changed.notify_one();
        true
    }

    fn seat(&self, name: &str, member: &dyn Member) -> Option<(Arc<Room>, u32)> {
        let room = self.find(name).filter(|_| !member.is_foreign())?;
        let slot = member.memberships().place_in(&room)?;
        Some((room, slot))
    }
}

/// Tells one connection of events.
fn tell(name: &str, member: &dyn Member, events: &[Event]) {
    if events.is_empty() {
        return;
    }
    let messages = event::messages(name, events.iter());
    let messages = match member.room() {
        Some(room) => messages.iter().map(|each| each.in_room(room)).collect(),
        None => messages,
    };
    member.take(&delivery_to(member, messages), WhenFull::Close, false);
}

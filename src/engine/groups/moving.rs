//! Members that move to another process: they leave here at a known message, and go on there.

use std::sync::Arc;

use super::{
    group::{Registry, State},
    member::Member,
    memberships::{Departure, MemberId},
    message::Delivery,
    registry::Groups,
    stamps::{Cut, Stamps},
    stand_in::StandIn,
};
use crate::protocol::{close::CloseFrame, framing::Framing};

/// The messages that a stand-in has kept: their frames, and the close after them.
pub type Kept = (Vec<u8>, Option<CloseFrame>);

impl Groups {
    /// Ends a membership as [`Groups::leave`], and tells at which message; `None` when there was none.
    pub fn cut(&self, name: &str, member: &dyn Member) -> Option<Cut> {
        if self.is_foreign() || member.is_foreign() {
            return None;
        }
        let group = self.find(name)?;
        let mut cut = None;
        let departure = member.memberships().leave(&group, |slot| {
            let mut state = group.state.lock();
            let departure = state.leave(slot);
            cut = Some(state.cut());
            departure
        })?;
        if departure.was_last {
            self.remove_if_unused(&group);
        }
        self.notify(name);
        cut
    }

    /// Whether all entries of the group `name` before number `until` have reached their members.
    pub fn has_handed_out(&self, name: &str, until: u64) -> bool {
        (self.find(name)).is_none_or(|group| group.state.lock().has_handed_out(until))
    }

    /// Makes `member` a member in place of `stand_in`, without a message in between. It gets none that
    /// is among those of `got`. `None` when the stand-in is no member any more, or the member is over;
    /// else the number of the first entry for the member.
    pub fn exchange<M: Member + 'static>(
        self: &Arc<Self>,
        name: &str,
        stand_in: &Arc<StandIn>,
        member: &Arc<M>,
        id: MemberId,
        got: &Stamps,
    ) -> Option<u64> {
        let group = self.find(name)?;
        let mut since = None;
        let weak = Arc::downgrade(member);
        stand_in.memberships().leave(&group, |held| {
            let enter = |state: &mut State| {
                let (slot, _) = state.enter(weak);
                state.filter(slot, got.clone());
                state.leave(held);
                since = Some(state.cut().until);
                Some((slot, false))
            };
            let enter = || self.enter(name, enter);
            member.memberships().join(id, || self.find(name), enter);
            if since.is_none() {
                group.state.lock().leave(held);
            }
            Departure {
                was_last: false,
                is_awaited: true,
            }
        })?;
        self.notify(name);
        since
    }
}

impl StandIn {
    /// What it has kept and `got` does not have, as frames for `member`. `None` when it was too much.
    pub fn frames_for(&self, member: &dyn Member, got: &Stamps) -> Option<Kept> {
        let (messages, closed) = self.take_kept(got)?;
        if messages.is_empty() {
            return Some((Vec::new(), closed));
        }
        let delivery = Delivery::of(messages, member.deflater());
        let frames = delivery.framed(Framing::WebSocket).joined.to_vec();
        Some((frames, closed))
    }
}

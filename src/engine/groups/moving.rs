//! Members that move to another process: they leave here at a known message, and go on there.

use std::sync::{Arc, OnceLock};

use super::{
    group::{Registry, State},
    markers::Token,
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

/// The end of a membership at a marker.
#[derive(Debug, Default)]
pub struct MarkedCut(OnceLock<Option<u64>>);

impl MarkedCut {
    /// Whether the marker has come.
    pub fn is_done(&self) -> bool {
        self.0.get().is_some()
    }

    /// The number of the entry that is not for the member any more; `None` when it was no member.
    pub fn until(&self) -> Option<u64> {
        self.0.get().copied().flatten()
    }
}

impl Groups {
    /// Has the membership of `member` end at the marker `token`.
    pub fn cut_at_marker<M: Member + 'static>(
        self: &Arc<Self>,
        name: &str,
        token: Token,
        member: &Arc<M>,
    ) -> Arc<MarkedCut> {
        let outcome = Arc::new(MarkedCut::default());
        let (told, member) = (Arc::clone(&outcome), Arc::clone(member));
        self.at_marker(name, token, move |groups, name| {
            let cut = groups.cut(name, member.as_ref());
            let _ = told.0.set(cut.map(|cut| cut.until));
        });
        outcome
    }

    /// Has `stand_in` begin at the marker `token`, in place of `placeholder`.
    pub fn begin_at_marker(
        self: &Arc<Self>,
        name: &str,
        token: Token,
        placeholder: &Arc<StandIn>,
        stand_in: &Arc<StandIn>,
        id: MemberId,
    ) {
        let (before, stand_in) = (Arc::clone(placeholder), Arc::clone(stand_in));
        self.at_marker(name, token, move |groups, name| {
            groups.exchange(name, &before, &stand_in, id, &Stamps::default());
            stand_in.begin();
        });
    }

    fn at_marker(
        self: &Arc<Self>,
        name: &str,
        token: Token,
        act: impl FnOnce(&Arc<Self>, &str) + Send + 'static,
    ) {
        if self.is_foreign() {
            return;
        }
        let (groups, group) = (Arc::downgrade(self), name.to_owned());
        let act = move || {
            if let Some(groups) = groups.upgrade() {
                act(&groups, &group);
            }
        };
        self.markers.expect(name, token, Box::new(act));
    }

    /// Awaits a marker no more: what was to be done at it has begun, or never will.
    pub fn forget_marker(&self, token: Token) {
        if !self.is_foreign() {
            self.markers.forget(token);
        }
    }

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

//! Members that move to another process: they leave here at a known message, and go on there.

use std::sync::{Arc, OnceLock};

use super::{
    deputy::{Succeeded, frames_of},
    markers::Token,
    member::Member,
    memberships::MemberId,
    registry::Groups,
    stamps::{Cut, Stamps},
    stand_in::StandIn,
};
use crate::protocol::close::CloseFrame;

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
        self.depart(name, member).map(|(cut, _)| cut)
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
        match self.succeed(name, stand_in.as_ref(), member, id, got, None) {
            Succeeded::Done(since) => Some(since),
            _ => None,
        }
    }
}

impl StandIn {
    /// The messages that it has kept and `got` does not have, as frames for `member`. `None` when it
    /// was too much.
    pub fn frames_for(&self, member: &dyn Member, got: &Stamps) -> Option<Kept> {
        let (messages, closed) = self.take_kept(got)?;
        Some((frames_of(messages, member), closed))
    }
}

//! Members that move to another process: they leave here at a known message, and go on there.

use std::sync::{Arc, OnceLock};

use super::{
    deputy::{Departed, Deputy},
    markers::Token,
    member::Member,
    memberships::MemberId,
    registry::Groups,
    stamps::Stamps,
};

/// The end of a membership at a marker.
#[derive(Debug, Default)]
pub struct MarkedCut(OnceLock<Option<Departed>>);

impl MarkedCut {
    /// Whether the marker has come.
    pub fn is_done(&self) -> bool {
        self.0.get().is_some()
    }

    /// The point at which the member has left; `None` when it was none.
    pub fn departed(&self) -> Option<&Departed> {
        self.0.get()?.as_ref()
    }
}

impl Groups {
    /// Has the membership of `member` end at the marker `token`, as by [`Groups::depart`].
    pub fn cut_at_marker(
        self: &Arc<Self>,
        name: &str,
        token: Token,
        member: Arc<dyn Member>,
    ) -> Arc<MarkedCut> {
        let outcome = Arc::new(MarkedCut::default());
        let told = Arc::clone(&outcome);
        self.at_marker(name, token, move |groups, name| {
            let _ = told.0.set(groups.depart(name, member.as_ref()));
        });
        outcome
    }

    /// Has `deputy` become a member at the marker `token`, in place of `before`.
    pub fn begin_at_marker(
        self: &Arc<Self>,
        name: &str,
        token: Token,
        before: &Arc<Deputy>,
        deputy: &Arc<Deputy>,
        id: MemberId,
    ) {
        let (before, deputy) = (Arc::clone(before), Arc::clone(deputy));
        self.at_marker(name, token, move |groups, name| {
            // Without a position nothing can be in the way.
            let _ = groups.succeed(name, before.as_ref(), &deputy, id, &Stamps::default(), None);
            deputy.begin();
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

    /// Whether all entries of the group `name` before number `until` have reached their members.
    pub fn has_handed_out(&self, name: &str, until: u64) -> bool {
        (self.find(name)).is_none_or(|group| group.state.lock().has_handed_out(until))
    }
}

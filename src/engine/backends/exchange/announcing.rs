//! The news about users that this process tells the others.

use std::sync::Arc;

use super::{node::Exchange, state::Item};
use crate::engine::presence::{Announcer, Note};

impl Announcer for Exchange {
    fn announce(&self, note: &Note) {
        let Some(mut state) = self.state() else {
            return;
        };
        let room = state.rooms.get_mut(&note.name);
        if room.is_some_and(|room| room.add(note.number, note.record.clone())) {
            let notes = Item::Notes(Arc::clone(&note.name));
            state.outgoing.push_back(notes);
            drop(state);
            self.has_more.notify_one();
        }
    }

    fn acts_for_others(&self, name: &str) -> bool {
        self.state().is_some_and(|state| {
            let room = state.rooms.get(name);
            room.is_none_or(|room| room.peers.keys().all(|peer| self.id < *peer))
        })
    }

    // The order on the group's channel decides.
    fn end_claim(&self, _id: u64) {}
}

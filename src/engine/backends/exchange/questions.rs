//! The questions of callers to an exchange, and their answers.

use std::sync::Arc;

use super::{
    node::Exchange,
    pending::Pending,
    room::Room,
    wire::{Message, Part},
};
use crate::engine::{
    backends::call::{Call, lost},
    presence::{Facts, Gathering},
};

/// A question that is under way.
#[derive(Debug)]
pub struct Question {
    /// Its number.
    pub number: u64,
    /// Has its outcome when all have answered.
    pub call: Arc<Call>,
    /// The bytes to publish on the group's channel. `None` when another caller does so.
    pub bytes: Option<Vec<u8>>,
}

impl Exchange {
    /// Whether this process takes part in a group, and knows all users there.
    pub fn takes_part(&self, name: &str) -> bool {
        let is_known = |room: &Room| room.is_known;
        (self.state()).is_some_and(|state| state.rooms.get(name).is_some_and(is_known))
    }

    /// Begins to take part in a group, to which this process has subscribed, for a connection that
    /// is about to be present. False when it does so already; else the subscription is kept until
    /// [`Step::Release`]. [`Exchange::end`] has to follow.
    pub fn begin(&self, name: &str) -> bool {
        let Some(mut state) = self.state() else {
            return false;
        };
        let is_new = !state.rooms.contains_key(name);
        if is_new {
            if state.rooms.is_empty() {
                state.next_beat = None;
                state.own_beat_at = None;
                self.has_more.notify_one();
            }
            let room = Room::new(self.presence.count_notes());
            state.rooms.insert(name.into(), room);
        }
        if let Some(room) = state.rooms.get_mut(name) {
            room.entering += 1;
        }
        is_new
    }

    /// Follows [`Exchange::begin`].
    pub fn end(&self, name: &str) {
        if let Some(mut state) = self.state() {
            if let Some(room) = state.rooms.get_mut(name) {
                room.entering = room.entering.saturating_sub(1);
            }
        }
    }

    /// Asks which users are present in a group in which this process begins to take part. `None`
    /// when that is known.
    pub fn learn(&self, name: &str) -> Option<Question> {
        let mut state = self.state()?;
        let room = state.rooms.get(name).filter(|room| !room.is_known)?;
        let question = room.question;
        let (call, ticket) = Call::new(lost);
        if let Some((number, pending)) =
            question.and_then(|number| Some((number, state.pending.get_mut(&number)?)))
        {
            pending.waiting.push(ticket);
            return Some(Question {
                number,
                call,
                bytes: None,
            });
        }
        let is_new = !self.presence.is_used_here(name);
        let number = state.add_question(Pending::new(name, None, ticket));
        let part = state.rooms.get_mut(name).map(|room| {
            room.question = Some(number);
            room.part(is_new)
        });
        drop(state);
        let bytes = Some(self.question(name, number, part));
        Some(Question {
            number,
            call,
            bytes,
        })
    }

    /// Asks which users are present in a group in which this process takes no part.
    /// [`Exchange::gathered`] has to follow.
    pub fn ask(&self, name: &str) -> Question {
        let (call, ticket) = Call::new(lost);
        let pending = Pending::new(name, Some(Gathering::default()), ticket);
        let number = self.state.lock().add_question(pending);
        let bytes = Some(self.question(name, number, None));
        Question {
            number,
            call,
            bytes,
        }
    }

    fn question(&self, name: &str, number: u64, part: Option<Part>) -> Vec<u8> {
        let message = Message::Question {
            name: name.to_owned(),
            number,
            part,
        };
        self.seal(name, message)
    }

    /// Tells how many processes got a question, this one among them.
    pub fn expect(&self, number: u64, processes: usize) {
        let mut state = self.state.lock();
        if let Some(pending) = state.pending.get_mut(&number) {
            pending.expected = Some(processes);
        }
        state.finish_if_complete(number);
    }

    /// Waits no longer for answers: what is known is all that there is.
    pub fn give_up(&self, number: u64) {
        if let Some(mut state) = self.state() {
            state.finish(number, None);
        }
    }

    /// A question could not be published. The others that wait for it get the reason.
    pub fn fail(&self, number: u64, reason: &str) {
        if let Some(mut state) = self.state() {
            state.finish(number, Some(reason));
        }
    }

    /// Ends a question of [`Exchange::ask`]. Returns what was answered: the users, with the number
    /// of their connections; those first that have joined first.
    pub fn gathered(&self, number: u64) -> Vec<(Arc<Facts>, u32)> {
        let pending = self.state.lock().pending.remove(&number);
        let gathering = pending.and_then(|pending| pending.gathering);
        gathering.map_or_else(Vec::new, |gathering| gathering.members())
    }

    /// Tells the others this process's position in groups, all of them by default, and asks for
    /// theirs: messages may have been lost.
    pub fn greet(&self, names: Option<&[&str]>) {
        let Some(mut state) = self.state() else {
            return;
        };
        match names {
            Some(names) => names.iter().for_each(|name| state.greet(name, None)),
            None => state.greet_all(),
        }
        drop(state);
        self.has_more.notify_one();
    }
}

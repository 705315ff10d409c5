//! The news about users that this process tells the others, and the steps of publishing, for the
//! thread that takes them.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    node::Exchange,
    room::{Numbered, Room},
    state::{COMMON, Item, State, channel_of},
    wire::{Answer, Message, Notes},
};
use crate::engine::{
    base::{clock, sync::MutexGuard},
    presence::{Announcer, Note, Record, Source},
};

/// The time between two beats.
const BEAT_EVERY: Duration = Duration::from_millis(800);

/// A step of publishing, for the thread that takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// These bytes, on the channel of that name.
    Publish(String, Vec<u8>),
    /// The subscription to the group is to be released.
    Release(String),
}

impl Exchange {
    /// Sleeps until something is to be published, until `deadline` at most, and takes it. `None`
    /// when the exchange has ended.
    pub fn take(&self, deadline: Instant) -> Option<Vec<Step>> {
        let mut state = self.state()?;
        loop {
            if state.is_stopped {
                return None;
            }
            let now = clock::now();
            if !state.rooms.is_empty() && state.next_beat.is_none_or(|at| at <= now) {
                state.next_beat = Some(now + BEAT_EVERY);
                self.drop_unused(&mut state);
                if !state.rooms.is_empty() {
                    let beat = Item::Say(COMMON.to_owned(), Message::Beat);
                    state.outgoing.push_back(beat);
                }
            }
            if !state.outgoing.is_empty() {
                return Some(self.take_waiting(state));
            }
            let next_beat = state.next_beat.filter(|_| !state.rooms.is_empty());
            let wake_at = next_beat.map_or(deadline, |at| at.min(deadline));
            let in_time;
            (state, in_time) = self.has_more.wait(state, Some(wake_at));
            if !in_time && clock::now() >= deadline {
                return Some(self.take_waiting(state));
            }
        }
    }

    /// Something could not be published. The others are told what they have missed when messages
    /// reach them again.
    pub fn note_failure(&self) {
        if let Some(mut state) = self.state() {
            state.has_failed = true;
        }
    }

    /// Ends the exchange with the process. Returns what is still to be published.
    pub fn stop(&self) -> Vec<Step> {
        let Some(mut state) = self.state().filter(|state| !state.is_stopped) else {
            return Vec::new();
        };
        state.is_stopped = true;
        if !state.rooms.is_empty() {
            let gone = Item::Say(COMMON.to_owned(), Message::Gone);
            state.outgoing.push_back(gone);
        }
        let steps = self.take_waiting(state);
        self.has_more.notify_all();
        steps
    }

    /// Ends to take part in groups in which no user is left.
    fn drop_unused(&self, state: &mut State) {
        let is_unused = |(name, room): &(&Arc<str>, &Room)| {
            room.entering == 0 && !self.presence.is_used_here(name)
        };
        let unused = state.rooms.iter().filter(is_unused);
        let unused: Vec<_> = unused.map(|(name, _)| Arc::clone(name)).collect();
        for name in unused {
            let Some(room) = state.rooms.remove(&name) else {
                continue;
            };
            if let Some(number) = room.question {
                state.finish(number, None);
            }
            self.presence.abandon(&name);
            let left = Message::Left {
                name: name.to_string(),
                position: room.part(false).position,
            };
            state.outgoing.push_back(Item::Say(name.to_string(), left));
            state.outgoing.push_back(Item::Release(name));
        }
        if state.rooms.is_empty() {
            state.heard.clear();
            state.silent.clear();
        }
    }

    fn take_waiting(&self, mut state: MutexGuard<'_, State>) -> Vec<Step> {
        let items = std::mem::take(&mut state.outgoing);
        let mut taken = Vec::with_capacity(items.len());
        for item in items {
            let notes = match &item {
                Item::Notes(name) => {
                    (state.rooms.get_mut(name)).map(|room| std::mem::take(&mut room.notes))
                }
                _ => None,
            };
            let absent_at = match &item {
                Item::Answer { name, .. } if !state.rooms.contains_key(&**name) => {
                    Some(self.presence.count_notes())
                }
                _ => None,
            };
            taken.push((item, notes.unwrap_or_default(), absent_at));
        }
        drop(state);
        let mut steps = Vec::with_capacity(taken.len());
        for (item, notes, absent_at) in taken {
            match item {
                Item::Say(channel, message) => {
                    let bytes = self.seal(&channel, message);
                    steps.push(Step::Publish(channel, bytes));
                }
                Item::Notes(name) => self.add_notes(&mut steps, &name, notes),
                Item::Answer { to, name, number } => {
                    self.add_answer(&mut steps, to, &name, number, absent_at);
                }
                Item::Release(name) => steps.push(Step::Release(name.to_string())),
            }
        }
        steps
    }

    fn add_notes(&self, steps: &mut Vec<Step>, name: &str, notes: Vec<Numbered>) {
        for part in self.parts(notes, |told| &told.record) {
            let (Some(first), Some(last)) = (part.first(), part.last()) else {
                continue;
            };
            let message = Message::Notes(Notes {
                name: name.to_owned(),
                before: first.before,
                after: last.after,
                records: part.into_iter().map(|told| told.record).collect(),
            });
            steps.push(Step::Publish(name.to_owned(), self.seal(name, message)));
        }
    }

    fn add_answer(
        &self,
        steps: &mut Vec<Step>,
        to: Source,
        name: &str,
        number: u64,
        absent_at: Option<u64>,
    ) {
        let (position, records) = match absent_at {
            None => self.presence.records_of(name),
            Some(position) => (position, Vec::new()),
        };
        let channel = channel_of(to);
        let mut parts = self.parts(records, |record| record);
        if parts.is_empty() {
            parts.push(Vec::new());
        }
        let last = parts.len() - 1;
        for (at, records) in parts.into_iter().enumerate() {
            let message = Message::Answer(Answer {
                name: name.to_owned(),
                number,
                position,
                takes_part: absent_at.is_none(),
                is_first: at == 0,
                is_last: at == last,
                records,
            });
            let bytes = self.seal(&channel, message);
            steps.push(Step::Publish(channel.clone(), bytes));
        }
    }

    /// Splits records into messages.
    fn parts<T>(&self, all: Vec<T>, record: impl Fn(&T) -> &Record) -> Vec<Vec<T>> {
        let mut parts = Vec::new();
        let (mut part, mut bytes) = (Vec::new(), 0);
        for each in all {
            let length = record(&each).len();
            if bytes + length > self.most_bytes && !part.is_empty() {
                parts.push(std::mem::take(&mut part));
                bytes = 0;
            }
            bytes += length;
            part.push(each);
        }
        if !part.is_empty() {
            parts.push(part);
        }
        parts
    }
}

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
}

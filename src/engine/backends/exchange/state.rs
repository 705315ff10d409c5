//! The state of an exchange, behind its lock.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Instant,
};

use super::{asked::Asked, room::Room, wire::Message};
use crate::engine::{base::clock, presence::Source};

/// The channel of the beats. No group may have such a name.
pub(super) const COMMON: &str = "dwebsocket.presence";

#[derive(Debug)]
pub(super) struct State {
    pub(super) is_stopped: bool,
    pub(super) rooms: HashMap<Arc<str>, Room>,
    pub(super) asked: HashMap<u64, Asked>,
    pub(super) last_number: u64,
    pub(super) outgoing: VecDeque<Item>,
    /// The others that live, each with the number of own beats that had come when it was heard last.
    pub(super) heard: HashMap<Source, u64>,
    pub(super) own_beats: u64,
    pub(super) own_beat_at: Option<Instant>,
    /// When the last own beat that has come was sent.
    pub(super) own_beat_sent: u64,
    pub(super) next_beat: Instant,
    /// Whether something could not be published.
    pub(super) has_failed: bool,
}

/// Something to be published, or done.
#[derive(Debug)]
pub(super) enum Item {
    Say(String, Message),
    /// The notes of that group.
    Notes(Arc<str>),
    /// All users here of the group `name`.
    Answer {
        to: Source,
        name: String,
        number: u64,
    },
    /// The subscription to that group is not needed any more.
    Release(Arc<str>),
}

impl State {
    pub(super) fn new() -> Self {
        Self {
            is_stopped: false,
            rooms: HashMap::new(),
            asked: HashMap::new(),
            last_number: 0,
            outgoing: VecDeque::new(),
            heard: HashMap::new(),
            own_beats: 0,
            own_beat_at: None,
            own_beat_sent: 0,
            next_beat: clock::now(),
            has_failed: false,
        }
    }

    pub(super) fn add_question(&mut self, asked: Asked) -> u64 {
        self.last_number += 1;
        self.asked.insert(self.last_number, asked);
        self.last_number
    }

    pub(super) fn note_answer(&mut self, number: u64, from: Source) {
        if let Some(asked) = self.asked.get_mut(&number) {
            asked.note_answer(from);
        }
        self.finish_if_complete(number);
    }

    pub(super) fn finish_if_complete(&mut self, number: u64) {
        if self.asked.get(&number).is_some_and(Asked::is_complete) {
            self.finish(number, None);
        }
    }

    /// Ends a question: the users of its group are known, unless there was a failure.
    pub(super) fn finish(&mut self, number: u64, failure: Option<&str>) {
        let Some(asked) = self.asked.get_mut(&number) else {
            return;
        };
        asked.finish(failure);
        if asked.gathering.is_some() {
            // It is taken with what was gathered.
            return;
        }
        if let Some(asked) = self.asked.remove(&number) {
            if let Some(room) = self.rooms.get_mut(&*asked.name) {
                if room.question == Some(number) {
                    room.question = None;
                    room.is_known = failure.is_none();
                }
            }
        }
    }

    /// Notes that another process lives.
    pub(super) fn hear(&mut self, from: Source) {
        if self.rooms.is_empty() {
            return;
        }
        self.heard.insert(from, self.own_beats);
    }

    /// Asks one process for all its users in a group.
    pub(super) fn ask(&mut self, whom: Source, name: &str, number: u64) {
        let question = Message::Question {
            name: name.to_owned(),
            number,
            part: None,
        };
        let say = Item::Say(channel_of(whom), question);
        self.outgoing.push_back(say);
    }

    pub(super) fn greet(&mut self, name: &str) {
        if let Some(room) = self.rooms.get(name) {
            let question = Message::Question {
                name: name.to_owned(),
                number: 0,
                part: Some(room.part(false)),
            };
            let say = Item::Say(name.to_owned(), question);
            self.outgoing.push_back(say);
        }
    }

    pub(super) fn greet_all(&mut self) {
        let names: Vec<_> = self.rooms.keys().cloned().collect();
        for name in names {
            self.greet(&name);
        }
    }
}

pub(super) fn channel_of(process: Source) -> String {
    format!("{COMMON}.{process:016x}")
}

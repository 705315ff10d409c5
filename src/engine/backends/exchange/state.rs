//! The state of an exchange, behind its lock.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Instant,
};

use super::{pending::Pending, room::Room, wire::Message};
use crate::engine::presence::Source;

/// The channel of the beats. No group may have such a name.
pub(super) const COMMON: &str = "dwebsocket.presence";
/// So many silent processes are remembered.
const MOST_SILENT: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) is_stopped: bool,
    pub(super) rooms: HashMap<Arc<str>, Room>,
    pub(super) pending: HashMap<u64, Pending>,
    pub(super) last_number: u64,
    pub(super) outgoing: VecDeque<Item>,
    /// The others that live, each with the number of own beats that had come when it was heard last.
    pub(super) heard: HashMap<Source, u64>,
    /// The processes that were silent for too long, and may be alive.
    pub(super) silent: HashSet<Source>,
    pub(super) own_beats: u64,
    pub(super) own_beat_at: Option<Instant>,
    /// When the last own beat that has come was sent.
    pub(super) own_beat_sent: u64,
    /// `None` for at once.
    pub(super) next_beat: Option<Instant>,
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
    pub(super) fn add_question(&mut self, pending: Pending) -> u64 {
        self.last_number += 1;
        self.pending.insert(self.last_number, pending);
        self.last_number
    }

    pub(super) fn note_answer(&mut self, number: u64, from: Source) {
        if let Some(pending) = self.pending.get_mut(&number) {
            pending.answered.insert(from);
        }
        self.finish_if_complete(number);
    }

    pub(super) fn finish_if_complete(&mut self, number: u64) {
        if self.pending.get(&number).is_some_and(Pending::is_complete) {
            self.finish(number, None);
        }
    }

    /// Ends a question: the users of its group are known, unless there was a failure.
    pub(super) fn finish(&mut self, number: u64, failure: Option<&str>) {
        let Some(pending) = self.pending.get_mut(&number) else {
            return;
        };
        pending.finish(failure);
        if pending.gathering.is_some() {
            // It is taken with what was gathered.
            return;
        }
        if let Some(pending) = self.pending.remove(&number) {
            if let Some(room) = self.rooms.get_mut(&*pending.name) {
                if room.question == Some(number) {
                    room.question = None;
                    room.is_known = failure.is_none();
                }
            }
        }
    }

    /// Notes that another process lives.
    pub(super) fn note_alive(&mut self, from: Source) {
        if self.rooms.is_empty() {
            return;
        }
        self.heard.insert(from, self.own_beats);
        if self.silent.remove(&from) {
            // Its users were forgotten here, and it does not know that.
            let names: Vec<_> = self.rooms.keys().cloned().collect();
            for name in names {
                self.greet(&name, Some(from));
            }
        }
    }

    /// Notes that another process was silent for too long.
    pub(super) fn note_silent(&mut self, source: Source) {
        if self.silent.len() >= MOST_SILENT {
            // Most have ended.
            self.silent.clear();
        }
        self.silent.insert(source);
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

    /// Tells its position in a group, for which others tell their users: all others, or one.
    pub(super) fn greet(&mut self, name: &str, whom: Option<Source>) {
        if let Some(room) = self.rooms.get(name) {
            let question = Message::Question {
                name: name.to_owned(),
                number: 0,
                part: Some(room.part(false)),
            };
            let channel = whom.map_or_else(|| name.to_owned(), channel_of);
            self.outgoing.push_back(Item::Say(channel, question));
        }
    }

    pub(super) fn greet_all(&mut self) {
        let names: Vec<_> = self.rooms.keys().cloned().collect();
        for name in names {
            self.greet(&name, None);
        }
    }
}

pub(super) fn channel_of(process: Source) -> String {
    format!("{COMMON}.{process:016x}")
}

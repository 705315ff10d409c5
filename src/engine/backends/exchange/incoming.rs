//! Messages that come from other processes, and back from this one.

use std::{collections::HashSet, time::Duration};

use super::{
    node::{Exchange, MARK, domain, is_ahead},
    room::{AnswerPart, Peer},
    state::{Item, State},
    wire::{Answer, Message, Notes, Packet, Part},
};
use crate::engine::{
    base::clock,
    presence::{Record, Source, Telling},
};

/// A process of which so many beats have not come has ended.
const MISSING_BEATS: u64 = 4;
/// A packet that is older by this machine's clock, or newer, is not taken: another user of the
/// server may have kept it, and sent it again.
const LONGEST_WAY_MS: u64 = 5 * 60 * 1000;
/// Without own beats for so long, this process was cut off. It is less than what makes others
/// forget it.
const CUT_OFF: Duration = Duration::from_millis(2500);

impl Exchange {
    /// Takes what has come on the channel `channel`. False for bytes that are no message of a
    /// process of this project.
    pub fn on_message(&self, channel: &str, bytes: &[u8]) -> bool {
        let packet = bytes
            .strip_prefix(MARK)
            .and_then(|sealed| self.groups.open(&domain(channel), sealed))
            .and_then(|packet| Packet::decode(packet).ok())
            .filter(|packet| packet.sent_at.abs_diff(clock::wall_ms()) <= LONGEST_WAY_MS);
        let (Some(packet), Some(mut state)) = (packet, self.state()) else {
            return false;
        };
        if packet.from == self.id {
            self.on_own(&mut state, &packet);
        } else {
            self.on_packet(&mut state, packet);
        }
        let has_more = !state.outgoing.is_empty();
        drop(state);
        if has_more {
            self.has_more.notify_one();
        }
        true
    }

    fn on_own(&self, state: &mut State, packet: &Packet) {
        match &packet.message {
            // By own beats the silence of others is measured: each counts once.
            Message::Beat
                if packet.sent_at > state.own_beat_sent
                    || is_ahead(state.own_beat_sent, clock::wall_ms()) =>
            {
                state.own_beat_sent = packet.sent_at;
                self.on_own_beat(state);
            }
            Message::Question { number, .. } => {
                state.note_answer(*number, self.id);
            }
            Message::Notes(notes) => {
                for (key, claim) in claims(&notes.records) {
                    self.presence.be_ready(&notes.name, key, claim);
                }
            }
            _ => {}
        }
    }

    fn on_own_beat(&self, state: &mut State) {
        state.own_beats += 1;
        let now = clock::now();
        let before = state.own_beat_at.replace(now);
        let was_cut_off = before.is_some_and(|at| now.saturating_duration_since(at) > CUT_OFF);
        if std::mem::take(&mut state.has_failed) || was_cut_off {
            state.greet_all();
        }
        let own = state.own_beats;
        let is_silent = |heard: u64| own.saturating_sub(heard) >= MISSING_BEATS;
        let silent = state.heard.iter().filter(|(_, heard)| is_silent(**heard));
        let silent: Vec<_> = silent.map(|(source, _)| *source).collect();
        for source in silent {
            self.forget(state, source);
            state.note_silent(source);
        }
    }

    /// Another process has ended.
    fn forget(&self, state: &mut State, source: Source) {
        state.heard.remove(&source);
        for room in state.rooms.values_mut() {
            room.peers.remove(&source);
        }
        self.presence.forget(source);
    }

    fn on_packet(&self, state: &mut State, packet: Packet) {
        let from = packet.from;
        match packet.message {
            Message::Beat => state.note_alive(from),
            Message::Gone => self.forget(state, from),
            Message::Question { name, number, part } => {
                if let Some(part) = part {
                    self.meet(state, from, &name, part);
                }
                state.outgoing.push_back(Item::Answer {
                    to: from,
                    name,
                    number,
                });
            }
            Message::Notes(notes) => self.on_notes(state, from, &notes),
            Message::Answer(answer) => self.on_answer(state, from, &answer),
            Message::Left { name, position } => {
                if let Some(room) = state.rooms.get_mut(&*name) {
                    if room.is_past(from, position) {
                        return;
                    }
                    room.peers.remove(&from);
                    self.presence.complete(from, &name, &HashSet::new());
                }
            }
        }
    }

    fn on_notes(&self, state: &mut State, from: Source, notes: &Notes) {
        state.note_alive(from);
        let Some(room) = state.rooms.get_mut(&*notes.name) else {
            return;
        };
        // Also where an answer, which has no place in the order of notes, has told the rest.
        for (key, claim) in claims(&notes.records) {
            self.presence.contest(from, &notes.name, key, claim, true);
        }
        let peer = room.peers.entry(from).or_default();
        if !peer.on_notes(notes.before, notes.after) {
            return;
        }
        self.note(from, &notes.name, &notes.records);
        if peer.has_to_be_asked(notes.after, clock::now()) {
            state.ask(from, &notes.name, 0);
        }
    }

    fn on_answer(&self, state: &mut State, from: Source, answer: &Answer) {
        let pending = state.pending.get_mut(&answer.number);
        if let Some(gathering) = pending.and_then(|pending| pending.gathering.as_mut()) {
            for record in &answer.records {
                gathering.note(from, record);
            }
            if answer.is_last {
                state.note_answer(answer.number, from);
            }
            return;
        }
        let Some(room) = state.rooms.get_mut(&*answer.name) else {
            return;
        };
        if !answer.takes_part {
            if !room.is_past(from, answer.position) {
                room.peers.remove(&from);
                self.presence.complete(from, &answer.name, &HashSet::new());
            }
            state.note_answer(answer.number, from);
            return;
        }
        let peer = room.peers.entry(from).or_default();
        let taken = peer.on_answer(answer);
        // Also for the first parts: their sender may be killed before the last one.
        state.note_alive(from);
        match taken {
            AnswerPart::Part => self.note(from, &answer.name, &answer.records),
            AnswerPart::Last(keys) => {
                self.note(from, &answer.name, &answer.records);
                self.presence.complete(from, &answer.name, &keys);
                state.note_answer(answer.number, from);
            }
            // With the same number: its answer is the one that is waited for.
            AnswerPart::Stale if answer.is_last => state.ask(from, &answer.name, answer.number),
            AnswerPart::Stale => {}
        }
    }

    fn note(&self, from: Source, name: &str, records: &[Record]) {
        for record in records {
            self.presence.note(from, name, record);
        }
    }

    /// Another process has told its position in a group.
    fn meet(&self, state: &mut State, from: Source, name: &str, part: Part) {
        let Some(room) = state.rooms.get_mut(name) else {
            return;
        };
        if part.is_new && room.is_past(from, part.position) {
            return;
        }
        if part.is_new {
            room.peers.insert(from, Peer::new(part.position));
            self.presence.complete(from, name, &HashSet::new());
        } else {
            let peer = room.peers.entry(from).or_default();
            if peer.has_to_be_asked(part.position, clock::now()) {
                state.ask(from, name, 0);
            }
        }
        state.note_alive(from);
    }
}

/// The claims of the process that has sent these records, with the keys of their users.
fn claims(records: &[Record]) -> impl Iterator<Item = (&str, u64)> {
    records.iter().filter_map(|record| match record.telling {
        Telling::Claimed(claim) => Some((record.facts.key.as_str(), claim)),
        _ => None,
    })
}

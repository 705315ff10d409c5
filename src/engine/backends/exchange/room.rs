//! One group in which this process takes part: what it has told, and what others have.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use super::wire::{self, Part};
use crate::engine::presence::{Record, Source};

/// The time between two questions to the same process.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// A group in which this process takes part.
#[derive(Debug, Default)]
pub(super) struct Room {
    /// How many connections are about to be present.
    pub(super) entering: usize,
    /// Whether the others have told of their users.
    pub(super) is_known: bool,
    /// The question by which that is found out.
    pub(super) question: Option<u64>,
    /// The position after the last note.
    told: u64,
    /// The notes that are still to be told.
    pub(super) notes: Vec<Numbered>,
    pub(super) peers: HashMap<Source, Peer>,
}

/// A record on its way, between two positions.
#[derive(Debug)]
pub(super) struct Numbered {
    pub(super) before: u64,
    pub(super) after: u64,
    pub(super) record: Record,
}

/// Another process that takes part in the group.
#[derive(Debug, Default)]
pub(super) struct Peer {
    /// The position up to which everything is known; zero for nothing.
    known: u64,
    /// The position after its last note that has come.
    newest: u64,
    asked_at: Option<Instant>,
    /// An answer of which only the first parts have come.
    answer: Option<Answer>,
}

#[derive(Debug)]
struct Answer {
    position: u64,
    keys: HashSet<String>,
}

/// The effect of a part of an answer.
#[derive(Debug)]
pub(super) enum AnswerPart {
    /// Its records are to be noted; there will be more.
    Part,
    /// Its records are to be noted, and there are no other users than those with these keys.
    Last(HashSet<String>),
    /// It counts for nothing: later notes have come already, or the answer's start has not.
    Stale,
}

impl Room {
    pub(super) fn new(position: u64) -> Self {
        Self {
            told: position,
            ..Self::default()
        }
    }

    /// Adds a note with that number. True when it is the only one that is still to be told.
    pub(super) fn add(&mut self, number: u64, record: Record) -> bool {
        let (before, after) = (self.told, number + 1);
        self.told = after;
        self.notes.push(Numbered {
            before,
            after,
            record,
        });
        self.notes.len() == 1
    }

    /// Whether what a process said at this position is of the past: more is known of it.
    pub(super) fn is_past(&self, from: Source, position: u64) -> bool {
        (self.peers.get(&from)).is_some_and(|peer| peer.known > position)
    }

    pub(super) fn part(&self, is_new: bool) -> Part {
        Part {
            position: self.told,
            is_new,
        }
    }
}

impl Peer {
    /// A process that has told of no user yet.
    pub(super) fn new(position: u64) -> Self {
        Self {
            known: position,
            newest: position,
            ..Self::default()
        }
    }

    /// Whether everything before `position` is known.
    pub(super) fn is_known(&self, position: u64) -> bool {
        self.known >= position
    }

    /// Notes of the process have come. False when they were known already.
    pub(super) fn on_notes(&mut self, before: u64, after: u64) -> bool {
        if after <= self.known {
            return false;
        }
        self.newest = self.newest.max(after);
        if before <= self.known {
            self.known = after;
        }
        true
    }

    /// Whether it has to be asked: something is missing, and it was not asked just now.
    pub(super) fn has_to_be_asked(&mut self, position: u64, now: Instant) -> bool {
        let was_asked = |at: Instant| now.saturating_duration_since(at) < ASK_EVERY;
        if self.is_known(position) || self.asked_at.is_some_and(was_asked) {
            return false;
        }
        self.asked_at = Some(now);
        true
    }

    /// A part of an answer has come.
    pub(super) fn on_answer(&mut self, part: &wire::Answer) -> AnswerPart {
        if part.position < self.newest {
            self.answer = None;
            return AnswerPart::Stale;
        }
        if part.is_first {
            self.answer = Some(Answer {
                position: part.position,
                keys: HashSet::new(),
            });
        }
        let mut answer = match self.answer.take() {
            Some(answer) if answer.position == part.position => answer,
            _ => return AnswerPart::Stale,
        };
        let keys = part.records.iter().map(|record| &record.facts.key);
        answer.keys.extend(keys.cloned());
        if part.is_last {
            self.known = part.position;
            self.newest = part.position;
            self.asked_at = None;
            return AnswerPart::Last(answer.keys);
        }
        self.answer = Some(answer);
        AnswerPart::Part
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_between_notes_is_asked_for_once() {
        let now = Instant::now();
        let mut peer = Peer::new(3);
        assert!(peer.on_notes(3, 5) && !peer.has_to_be_asked(5, now));
        assert!(!peer.on_notes(3, 5), "it may be repeated");
        assert!(peer.on_notes(6, 8) && peer.has_to_be_asked(8, now));
        assert!(peer.on_notes(8, 9) && !peer.has_to_be_asked(9, now));
        assert!(peer.has_to_be_asked(9, now + ASK_EVERY));
    }

    #[test]
    fn an_answer_that_notes_have_overtaken_counts_for_nothing() {
        let part = |position, is_first, is_last| wire::Answer {
            name: "room".to_owned(),
            number: 1,
            position,
            takes_part: true,
            is_first,
            is_last,
            records: Vec::new(),
        };
        let mut peer = Peer::default();
        peer.on_notes(7, 8);
        let mut take = |part| peer.on_answer(&part);
        assert!(matches!(take(part(7, true, true)), AnswerPart::Stale));
        assert!(matches!(take(part(8, true, false)), AnswerPart::Part));
        assert!(matches!(take(part(9, false, true)), AnswerPart::Stale));
        assert!(matches!(take(part(8, true, false)), AnswerPart::Part));
        assert!(matches!(take(part(8, false, true)), AnswerPart::Last(_)));
        assert!(peer.is_known(8));
    }
}

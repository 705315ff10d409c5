//! History in the memory of this process.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use parking_lot::Mutex;

use super::page::{Kept, Limits, Page, Position, new_epoch, now_ms, offset_after, oldest_ms};

/// What a message takes beside its bytes, about.
const OVERHEAD: usize = size_of::<Kept>() + 16;
/// What a group takes beside its name and its messages, about.
const GROUP_OVERHEAD: usize = 160;
/// How long a group without messages keeps its numbering.
const NUMBERING_MS: u64 = 24 * 60 * 60 * 1000;
/// When there is too much, so much is dropped at once, as a part of all.
const SLICE: usize = 16;

/// See [`History::in_memory`](super::History::in_memory).
#[derive(Debug)]
pub struct MemoryHistory {
    most: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    groups: HashMap<Box<str>, Recorded>,
    bytes: usize,
    evicted: u64,
}

/// The messages of one group.
#[derive(Debug)]
struct Recorded {
    epoch: u64,
    last: u64,
    entries: VecDeque<Kept>,
    /// When it was used last, in milliseconds since 1970.
    used_at: u64,
}

impl MemoryHistory {
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            state: Mutex::default(),
        }
    }

    pub(super) fn append(&self, name: &str, envelope: &[u8], limits: Limits) -> Position {
        let now = now_ms();
        let mut state = self.state.lock();
        let group = state.group(name, now);
        group.last += 1;
        let position = Position {
            epoch: group.epoch,
            offset: group.last,
        };
        group.entries.push_back(Kept {
            offset: group.last,
            sent_at: now,
            envelope: Bytes::copy_from_slice(envelope),
        });
        let freed = group.trim(limits, now);
        state.bytes = state.bytes + OVERHEAD + envelope.len() - freed;
        state.make_room(self.most, now);
        position
    }

    pub(super) fn read(&self, name: &str, after: Option<Position>, limits: Limits) -> Page {
        let now = now_ms();
        let mut state = self.state.lock();
        let group = state.group(name, now);
        let head = Position {
            epoch: group.epoch,
            offset: group.last,
        };
        let first = offset_after(after, head);
        let oldest = oldest_ms(now, limits);
        let entries = &group.entries;
        let begin = entries
            .partition_point(|kept| kept.offset <= first || kept.sent_at < oldest)
            .max(entries.len().saturating_sub(limits.size));
        Page {
            head,
            entries: entries.range(begin..).cloned().collect(),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.state.lock().bytes
    }

    pub(super) fn evicted(&self) -> u64 {
        self.state.lock().evicted
    }
}

impl State {
    /// The group `name`, made if need be.
    fn group(&mut self, name: &str, now: u64) -> &mut Recorded {
        if !self.groups.contains_key(name) {
            self.bytes += GROUP_OVERHEAD + name.len();
        }
        let group = self.groups.entry(name.into()).or_insert_with(|| Recorded {
            epoch: new_epoch(),
            last: 0,
            entries: VecDeque::new(),
            used_at: now,
        });
        group.used_at = now;
        group
    }

    /// Drops the groups that were not used for longest while there are more than `most` bytes.
    fn make_room(&mut self, most: usize, now: u64) {
        if self.bytes <= most {
            return;
        }
        let goal = most - most / SLICE;
        let mut by_use: Vec<_> = (self.groups.iter())
            .map(|(name, group)| (group.used_at, name.clone()))
            .collect();
        by_use.sort_unstable();
        for (used_at, name) in by_use {
            if self.bytes <= goal {
                return;
            }
            let Some(group) = self.groups.get_mut(&name) else {
                continue;
            };
            while self.bytes > goal {
                let Some(kept) = group.entries.pop_front() else {
                    break;
                };
                self.bytes -= OVERHEAD + kept.envelope.len();
                self.evicted += 1;
            }
            if group.entries.is_empty() && (used_at + NUMBERING_MS < now || self.bytes > goal) {
                self.groups.remove(&name);
                self.bytes -= GROUP_OVERHEAD + name.len();
            }
        }
    }
}

impl Recorded {
    /// Drops what is too much or too old; gives the number of bytes.
    fn trim(&mut self, limits: Limits, now: u64) -> usize {
        let oldest = oldest_ms(now, limits);
        let mut freed = 0;
        while self.entries.len() > limits.size
            || (self.entries.front()).is_some_and(|kept| kept.sent_at < oldest)
        {
            match self.entries.pop_front() {
                Some(kept) => freed += OVERHEAD + kept.envelope.len(),
                None => break,
            }
        }
        freed
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const LIMITS: Limits = Limits {
        size: 3,
        age: Duration::from_secs(60),
    };

    #[test]
    fn positions_of_another_numbering_or_beyond_the_newest_give_all_that_is_kept() {
        let history = MemoryHistory::new(usize::MAX);
        for _ in 0..5 {
            history.append("room", b"x", LIMITS);
        }
        let page = |after| history.read("room", after, LIMITS);
        let head = page(None).head;
        let at = |offset| Some(Position { offset, ..head });
        let other = Position {
            epoch: head.epoch ^ 1,
            offset: 4,
        };
        for (after, first) in [
            (None, 3),
            (at(4), 5),
            (at(1), 3),
            (at(6), 3),
            (Some(other), 3),
        ] {
            assert_eq!(page(after).entries[0].offset, first, "{after:?}");
        }
        assert_eq!(page(at(5)).entries, []);
    }

    #[test]
    fn the_groups_that_were_not_used_for_longest_make_room() {
        let history = MemoryHistory::new(100_000);
        for number in 0..100 {
            history.append(&format!("room-{number}"), &[0; 10_000], LIMITS);
            assert!(history.bytes() <= 100_000);
        }
        assert!(history.evicted() >= 90);
        assert_eq!(history.read("room-99", None, LIMITS).entries.len(), 1);
        for number in 0..100_000 {
            history.read(&format!("empty-{number}"), None, LIMITS);
            history.append("busy", b"", LIMITS);
        }
        assert!(history.bytes() <= 100_000);
    }
}

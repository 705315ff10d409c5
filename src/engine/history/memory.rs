//! History in the memory of this process.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    io,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;

use super::page::{
    Entry, History, Limits, NUMBERING, PAGE_BYTES, Page, Position, age_ms, first_epoch, new_epoch,
    offset_after, oldest_ms,
};
use crate::engine::base::clock::wall_ms;

/// The bytes that a message takes beside its own, about.
const OVERHEAD: usize = size_of::<Entry>() + 16;
/// The bytes that a group takes beside its name and its messages, about.
const GROUP_OVERHEAD: usize = 240;
/// So many groups an append or a read looks at, for messages that are too old.
const EXPIRED_AT_ONCE: usize = 16;
/// When there is too much, so much is dropped at once, as a part of all.
const SLICE: usize = 16;

/// A history in the memory of this process.
#[derive(Debug)]
pub struct MemoryHistory {
    most: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    groups: HashMap<Arc<str>, Recorded>,
    /// Random, for epochs.
    seed: u64,
    /// Random, too: another one each time that a numbering is dropped. All groups of one bucket share
    /// it, so that the numberings that were dropped take nothing.
    seeds: HashMap<u8, u64>,
    /// When the oldest messages of groups are too old: one entry for each group that has messages.
    due: BTreeSet<Due>,
    bytes: usize,
    evicted: u64,
    /// Uses of groups, all together.
    uses: u64,
}

/// A time in milliseconds since 1970, and a group.
type Due = (u64, Arc<str>);

/// The messages of one group.
#[derive(Debug, Default)]
struct Recorded {
    name: Arc<str>,
    epoch: u64,
    last: u64,
    entries: VecDeque<Entry>,
    /// The milliseconds for which messages are kept.
    age: u64,
    /// The time of its entry in [`State::due`].
    due: Option<u64>,
    /// When it was used last, in milliseconds since 1970.
    used_at: u64,
    /// The number of that use: a millisecond has many.
    last_use: u64,
}

impl MemoryHistory {
    /// A history of `most` bytes at most.
    pub fn new(most: usize) -> Self {
        Self {
            most,
            state: Mutex::new(State {
                seed: new_epoch(),
                ..State::default()
            }),
        }
    }
}

impl History for MemoryHistory {
    fn append(
        &self,
        name: &str,
        envelope: &[u8],
        limits: Limits,
        _patience: Option<Duration>,
    ) -> io::Result<Position> {
        let now = wall_ms();
        let mut state = self.state.lock();
        state.expire(now, EXPIRED_AT_ONCE);
        let group = state.group(name, now);
        group.last += 1;
        group.age = age_ms(limits);
        let was_ahead = group.clamp(now);
        let position = Position {
            epoch: group.epoch,
            offset: group.last,
        };
        let length = OVERHEAD + envelope.len();
        // With its group alone; else it would take all others along, and not stay.
        let is_kept = length + GROUP_OVERHEAD + name.len() <= self.most - self.most / SLICE;
        let before = group.entries.len() as u64;
        let freed = if is_kept {
            group.entries.push_back(Entry {
                offset: group.last,
                sent_at: now,
                envelope: Bytes::copy_from_slice(envelope),
            });
            group.trim(limits.size, now)
        } else {
            // None can stay before a gap.
            group.trim(0, now)
        };
        let due = group.next_due();
        if let Some(due) = was_ahead {
            state.due.remove(&due);
        }
        state.due.extend(due);
        if is_kept {
            state.bytes += length;
        } else {
            state.evicted += before + 1;
        }
        state.bytes -= freed;
        state.make_room(self.most, now);
        Ok(position)
    }

    fn read(
        &self,
        name: &str,
        after: Option<Position>,
        limits: Limits,
        _patience: Option<Duration>,
    ) -> io::Result<Page> {
        let now = wall_ms();
        let mut state = self.state.lock();
        state.expire(now, EXPIRED_AT_ONCE);
        let Some(group) = state.used(name, now) else {
            let epoch = state.first_epoch(name);
            return Ok(Page {
                head: Position { epoch, offset: 0 },
                entries: Vec::new(),
            });
        };
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
        let mut bytes = 0;
        let fitting = entries.range(begin..).take_while(|kept| {
            let is_first = bytes == 0;
            bytes += kept.envelope.len();
            is_first || bytes <= PAGE_BYTES
        });
        Ok(Page {
            head,
            entries: fitting.cloned().collect(),
        })
    }

    fn bytes(&self) -> u64 {
        let mut state = self.state.lock();
        state.expire(wall_ms(), usize::MAX);
        state.bytes as u64
    }

    fn evicted(&self) -> u64 {
        self.state.lock().evicted
    }
}

impl State {
    /// The epoch with which the numbering of a group begins that is not in [`State::groups`].
    fn first_epoch(&self, name: &str) -> u64 {
        let seed = self.seeds.get(&bucket(name)).copied().unwrap_or_default();
        first_epoch([self.seed, seed], name)
    }

    /// The group `name`, used now; `None` for one that has no numbering yet.
    fn used(&mut self, name: &str, now: u64) -> Option<&mut Recorded> {
        let group = self.groups.get_mut(name)?;
        self.uses += 1;
        group.last_use = self.uses;
        group.used_at = now;
        Some(group)
    }

    /// The group `name`, made if need be.
    fn group(&mut self, name: &str, now: u64) -> &mut Recorded {
        let mut epoch = 0;
        if !self.groups.contains_key(name) {
            self.bytes += GROUP_OVERHEAD + name.len();
            epoch = self.first_epoch(name);
        }
        self.uses += 1;
        let group = (self.groups.entry(name.into())).or_insert_with_key(|name| Recorded {
            name: Arc::clone(name),
            epoch,
            ..Recorded::default()
        });
        group.last_use = self.uses;
        group.used_at = now;
        group
    }

    /// Drops messages that are too old, of `most` groups at most.
    fn expire(&mut self, now: u64, most: usize) {
        for _ in 0..most {
            if self.due.first().is_none_or(|(due, _)| *due >= now) {
                return;
            }
            let Some((_, name)) = self.due.pop_first() else {
                return;
            };
            if let Some(group) = self.groups.get_mut(&name) {
                group.due = None;
                self.bytes -= group.trim(usize::MAX, now);
                self.due.extend(group.next_due());
            }
        }
    }

    /// Drops the oldest messages while there are more than `most` bytes, first of the groups that were
    /// not used for longest.
    fn make_room(&mut self, most: usize, now: u64) {
        if self.bytes <= most {
            return;
        }
        let goal = most - most / SLICE;
        let mut by_use: Vec<_> = (self.groups.iter())
            .map(|(name, group)| (group.last_use, Arc::clone(name)))
            .collect();
        by_use.sort_unstable();
        for (_, name) in by_use {
            if self.bytes <= goal {
                return;
            }
            let Some(group) = self.groups.get_mut(&name) else {
                continue;
            };
            self.bytes -= group.trim(usize::MAX, now);
            while self.bytes > goal {
                let Some(kept) = group.entries.pop_front() else {
                    break;
                };
                self.bytes -= OVERHEAD + kept.envelope.len();
                self.evicted += 1;
            }
            let is_old = u128::from(now.saturating_sub(group.used_at)) > NUMBERING.as_millis();
            if group.entries.is_empty() && (is_old || self.bytes > goal) {
                if let Some(due) = group.due {
                    self.due.remove(&(due, Arc::clone(&name)));
                }
                self.groups.remove(&name);
                self.seeds.insert(bucket(&name), new_epoch());
                self.bytes -= GROUP_OVERHEAD + name.len();
            }
        }
    }
}

/// Groups whose epochs change together when the numbering of one is dropped.
fn bucket(name: &str) -> u8 {
    first_epoch([0, 0], name).to_le_bytes()[0]
}

impl Recorded {
    /// Makes no message newer than `now`, as after a clock that was set back: each is at most as old
    /// as those before it. Returns the entry for [`State::due`] that is void by that.
    fn clamp(&mut self, now: u64) -> Option<Due> {
        let ahead = (self.entries.iter_mut().rev()).take_while(|kept| kept.sent_at > now);
        let mut is_changed = false;
        for kept in ahead {
            kept.sent_at = now;
            is_changed = true;
        }
        let due = self.due.take_if(|_| is_changed)?;
        Some((due, Arc::clone(&self.name)))
    }

    /// Drops what is more than `size` or too old; returns the number of bytes.
    fn trim(&mut self, size: usize, now: u64) -> usize {
        let oldest = now.saturating_sub(self.age);
        let mut freed = 0;
        while self.entries.len() > size
            || (self.entries.front()).is_some_and(|kept| kept.sent_at < oldest)
        {
            match self.entries.pop_front() {
                Some(kept) => freed += OVERHEAD + kept.envelope.len(),
                None => break,
            }
        }
        freed
    }

    /// The entry for [`State::due`], unless it has one or there are no messages.
    fn next_due(&mut self) -> Option<Due> {
        if self.due.is_some() {
            return None;
        }
        self.due = (self.entries.front()).map(|kept| kept.sent_at.saturating_add(self.age));
        self.due.map(|due| (due, Arc::clone(&self.name)))
    }
}

#[cfg(test)]
mod tests {
    use std::{thread, time::Duration};

    use super::*;

    const LIMITS: Limits = Limits {
        size: 3,
        age: Duration::from_secs(60),
    };

    #[test]
    fn positions_of_another_numbering_or_beyond_the_newest_give_all_that_is_kept() {
        let history = MemoryHistory::new(usize::MAX);
        for _ in 0..5 {
            history.append("room", b"x", LIMITS, None).unwrap();
        }
        let page = |after| history.read("room", after, LIMITS, None).unwrap();
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
    fn groups_that_are_only_read_take_nothing() {
        let history = MemoryHistory::new(1);
        let before = history.bytes();
        for number in 0..1000 {
            let name = number.to_string();
            let page = history.read(&name, None, LIMITS, None).unwrap();
            assert_eq!((page.head.offset, page.entries), (0, Vec::new()));
            assert_eq!(
                history.read(&name, None, LIMITS, None).unwrap().head,
                page.head
            );
        }
        assert_eq!(history.bytes(), before);
    }

    #[test]
    fn a_message_that_is_too_large_to_be_kept_takes_no_other_group_along() {
        let history = MemoryHistory::new(100_000);
        for name in ["one", "two"] {
            history.append(name, b"x", LIMITS, None).unwrap();
        }
        let before = history.bytes();
        let position = history
            .append("two", &vec![0; 94_000], LIMITS, None)
            .unwrap();
        let page = |name| history.read(name, None, LIMITS, None).unwrap();
        assert_eq!(page("one").entries.len(), 1);
        assert_eq!(
            (page("two").head, page("two").entries),
            (position, Vec::new())
        );
        assert_eq!((position.offset, history.evicted()), (2, 2));
        assert!(history.bytes() < before);
        assert_eq!(history.append("two", b"y", LIMITS, None).unwrap().offset, 3);
        assert_eq!(page("two").entries.len(), 1);
    }

    #[test]
    fn the_numbering_of_a_group_begins_at_the_position_that_was_read() {
        let history = MemoryHistory::new(100_000);
        let mut before = history.read("room", None, LIMITS, None).unwrap().head;
        for _ in 0..3 {
            let first = history.append("room", b"", LIMITS, None).unwrap();
            assert_eq!((first.epoch, first.offset), (before.epoch, 1));
            // Others make room with the numbering.
            for number in 0..1000 {
                history
                    .append(&number.to_string(), &[0; 1000], LIMITS, None)
                    .unwrap();
            }
            let after = history.read("room", None, LIMITS, None).unwrap().head;
            assert_ne!(after.epoch, before.epoch);
            before = after;
        }
    }

    #[test]
    fn nothing_is_left_out_behind_a_clock_that_was_set_back() {
        let history = MemoryHistory::new(usize::MAX);
        let brief = Limits {
            age: Duration::from_millis(100),
            ..LIMITS
        };
        let before = history.read("room", None, LIMITS, None).unwrap().head;
        for number in 0..3 {
            history.append("room", &[number], brief, None).unwrap();
            let mut state = history.state.lock();
            let group = state.groups.get_mut("room").unwrap();
            if number == 0 {
                // It was sent while the clock was an hour ahead.
                group.entries[0].sent_at += 3_600_000;
            }
        }
        thread::sleep(Duration::from_millis(120));
        history.append("room", &[3], brief, None).unwrap();
        let page = history.read("room", Some(before), brief, None).unwrap();
        let offsets: Vec<_> = page.entries.iter().map(|kept| kept.offset).collect();
        assert_eq!(offsets, [4]);
    }

    #[test]
    fn messages_that_are_too_old_are_freed_by_messages_of_other_groups() {
        let history = MemoryHistory::new(usize::MAX);
        let brief = Limits {
            age: Duration::from_millis(20),
            ..LIMITS
        };
        history.append("busy", b"", LIMITS, None).unwrap();
        let before = history.bytes();
        for number in 0..100 {
            history
                .append(&format!("quiet-{number}"), &[0; 10_000], brief, None)
                .unwrap();
        }
        let page = history.read("quiet-7", None, Limits::ALL, None).unwrap();
        assert_eq!(page.head.offset, 1);
        thread::sleep(Duration::from_millis(30));
        for _ in 0..100 {
            history.append("busy", b"", LIMITS, None).unwrap();
        }
        let bytes = history.state.lock().bytes as u64;
        assert!(bytes < before + 100 * 1000, "{bytes}");
        // Nor do they count as dropped early; and the numbering stays.
        assert_eq!(history.evicted(), 0);
        assert_eq!(
            history.read("quiet-7", None, LIMITS, None).unwrap().head,
            page.head
        );
        assert_eq!(history.state.lock().due.len(), 1);
    }

    #[test]
    fn each_group_that_has_messages_is_looked_at_once() {
        let history = MemoryHistory::new(100_000);
        for number in 0..1000 {
            let age = Duration::from_millis(number % 7);
            let limits = Limits { age, ..LIMITS };
            history
                .append(&format!("room-{}", number % 30), &[0; 10_000], limits, None)
                .unwrap();
            if number % 50 == 0 {
                thread::sleep(Duration::from_millis(4));
            }
            let state = history.state.lock();
            let due = state.groups.values().filter_map(|group| {
                let name = Arc::clone(&group.name);
                group.due.map(|due| (due, name))
            });
            assert_eq!(due.collect::<BTreeSet<_>>(), state.due);
            let mut all = state.groups.values();
            assert!(all.all(|group| group.entries.is_empty() || group.due.is_some()));
        }
    }

    #[test]
    fn messages_that_were_too_old_are_not_evicted() {
        let history = MemoryHistory::new(25_000);
        let brief = Limits {
            age: Duration::from_millis(1),
            ..LIMITS
        };
        history.append("old", &[0; 10_000], brief, None).unwrap();
        thread::sleep(Duration::from_millis(5));
        for name in ["one", "two", "three"] {
            history.append(name, &[0; 10_000], LIMITS, None).unwrap();
        }
        assert!(history.bytes() <= 25_000);
        assert_eq!(history.evicted(), 1);
    }

    #[test]
    fn groups_make_room_in_the_order_of_their_uses_within_a_millisecond_too() {
        let history = MemoryHistory::new(100_000);
        let names: Vec<_> = ('a'..='z').rev().map(String::from).collect();
        for name in &names {
            history.append(name, &[0; 10_000], LIMITS, None).unwrap();
        }
        let state = history.state.lock();
        let kept: Vec<_> = (names.iter())
            .filter(|name| (state.groups.get(name.as_str())).is_some_and(|g| !g.entries.is_empty()))
            .collect();
        assert!(kept.len() >= 8, "{kept:?}");
        assert!(names.iter().rev().take(kept.len()).rev().eq(kept));
    }

    #[test]
    fn the_groups_that_were_not_used_for_longest_make_room() {
        let history = MemoryHistory::new(100_000);
        for number in 0..100 {
            history
                .append(&format!("room-{number}"), &[0; 10_000], LIMITS, None)
                .unwrap();
            assert!(history.bytes() <= 100_000);
        }
        assert!(history.evicted() >= 90);
        assert_eq!(
            history
                .read("room-99", None, LIMITS, None)
                .unwrap()
                .entries
                .len(),
            1
        );
        for number in 0..100_000 {
            history
                .read(&format!("empty-{number}"), None, LIMITS, None)
                .unwrap();
            history.append("busy", b"", LIMITS, None).unwrap();
        }
        assert!(history.bytes() <= 100_000);
    }
}

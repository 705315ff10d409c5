//! Events that the process's log and its signals report, for a thread that waits for them.

use std::{
    collections::{BTreeSet, VecDeque},
    mem::discriminant,
    time::Instant,
};

use super::member::Eviction;
use crate::engine::base::sync::{Condvar, Mutex};

/// Notices of one kind that wait at most, where they are for the log alone: when no thread takes them,
/// the oldest are dropped. They hide none of another kind.
const MOST: usize = 1024;

/// An event that is to be reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A member misses messages of this group because it is slow, or was closed for that.
    Slow(String),
    /// The backend's server, or a part of it, cannot be reached: which part, and why.
    Lost(String),
    /// This part can be reached again.
    Regained(String),
    /// The file of the history with this path was damaged: the numbering of its group began anew.
    Damaged(String),
    /// The disk has no room for the history in this folder, which deletes older messages.
    FullDisk(String),
    /// Members of these groups, which are here, may have missed messages.
    Interrupted(Vec<String>),
    /// Users that were present have left.
    MembersLeft,
    /// A task that does this work for the groups has failed, and began anew.
    Restarted(String),
    /// The seat of this number has ended because its user was evicted.
    SeatEnded(u64),
    /// The members of a user have to leave a group; those of rooms do so by themselves. Or the
    /// named one, which is in no room, has left.
    Evicted {
        /// The group.
        group: String,
        /// The members.
        eviction: Eviction,
    },
}

/// A queue of notices.
#[derive(Debug, Default)]
pub struct Notices {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Notice>,
    /// The groups of the [`Notice::Interrupted`] that waits, which has none itself.
    interrupted: BTreeSet<String>,
    has_ended: bool,
}

impl State {
    fn add(&mut self, notice: Notice) {
        let is_same = |other: &Notice| discriminant(other) == discriminant(&notice);
        match notice {
            Notice::MembersLeft if self.waiting.contains(&notice) => return,
            Notice::Interrupted(groups) => {
                if self.interrupted.is_empty() {
                    self.waiting.push_back(Notice::Interrupted(Vec::new()));
                }
                self.interrupted.extend(groups);
                return;
            }
            // Something has to be done.
            Notice::MembersLeft | Notice::SeatEnded(_) | Notice::Evicted { .. } => {}
            Notice::Slow(_)
            | Notice::Lost(_)
            | Notice::Regained(_)
            | Notice::Damaged(_)
            | Notice::FullDisk(_)
            | Notice::Restarted(_) => {
                let mut same = (0..).zip(&self.waiting).filter(|(_, it)| is_same(it));
                let oldest = same.next();
                if let Some((oldest, _)) = oldest.filter(|_| same.count() + 1 >= MOST) {
                    self.waiting.remove(oldest);
                }
            }
        }
        self.waiting.push_back(notice);
    }

    fn take(&mut self) -> Option<Notice> {
        Some(match self.waiting.pop_front()? {
            Notice::Interrupted(_) => {
                let groups = std::mem::take(&mut self.interrupted);
                Notice::Interrupted(groups.into_iter().collect())
            }
            other => other,
        })
    }
}

impl Notices {
    /// Adds one. Never sleeps.
    pub(crate) fn add(&self, notice: Notice) {
        self.state.lock().add(notice);
        self.changed.notify_one();
    }

    /// From now on [`Notices::take`] sleeps no more. Never sleeps.
    pub fn end(&self) {
        self.state.lock().has_ended = true;
        self.changed.notify_all();
    }

    /// Sleeps until there is one, until `deadline` or [`Notices::end`] at most.
    pub fn take(&self, deadline: Option<Instant>) -> Option<Notice> {
        let is_early = |state: &State| state.waiting.is_empty() && !state.has_ended;
        let mut state = (self.changed).wait_while(self.state.lock(), deadline, is_early);
        state.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::groups::Whom;

    #[test]
    fn many_notices_of_one_kind_hide_no_other_one() {
        let notices = Notices::default();
        let evicted = |number: usize| Notice::Evicted {
            group: "room".to_owned(),
            eviction: Eviction {
                whom: Whom::User(number.to_string()),
                reason: String::new(),
            },
        };
        notices.add(Notice::Lost("server".to_owned()));
        for number in 0..2 * MOST {
            notices.add(Notice::Slow(number.to_string()));
            notices.add(Notice::MembersLeft);
            notices.add(Notice::Interrupted(vec![format!("{number:04}")]));
            notices.add(evicted(number));
        }
        let taken: Vec<_> = std::iter::from_fn(|| notices.take(Some(Instant::now()))).collect();
        assert_eq!(taken[0], Notice::Lost("server".to_owned()));
        let names = (0..2 * MOST).map(|number| format!("{number:04}"));
        let others = [Notice::MembersLeft, Notice::Interrupted(names.collect())];
        assert_eq!(taken[1..3], others);
        let slow = (MOST..2 * MOST).map(|number| Notice::Slow(number.to_string()));
        let is_slow = |notice: &&Notice| matches!(notice, Notice::Slow(_));
        assert!(taken.iter().filter(is_slow).eq(&slow.collect::<Vec<_>>()));
        let is_evicted = |notice: &&Notice| matches!(notice, Notice::Evicted { .. });
        assert!(
            (taken.iter().filter(is_evicted)).eq(&(0..2 * MOST).map(evicted).collect::<Vec<_>>())
        );
    }
}

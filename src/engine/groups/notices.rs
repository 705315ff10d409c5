//! Events that the process's log and its signals report, for a thread that waits for them.

use std::{collections::VecDeque, time::Instant};

use super::member::Eviction;
use crate::engine::base::sync::{Condvar, Mutex};

/// Notices that wait at most. When no thread takes them, the oldest are dropped.
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
    /// Members have to leave a group. Those of rooms do so by themselves.
    Evicted {
        /// The group.
        group: String,
        /// The members that have to leave.
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
    has_ended: bool,
}

impl Notices {
    /// Adds one. Never sleeps.
    pub(crate) fn add(&self, notice: Notice) {
        let mut state = self.state.lock();
        if state.waiting.len() == MOST {
            state.waiting.pop_front();
        }
        state.waiting.push_back(notice);
        drop(state);
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
        state.waiting.pop_front()
    }
}

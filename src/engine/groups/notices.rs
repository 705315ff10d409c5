//! Events that the process's log and its signals report, for a thread that waits for them.

use std::{collections::VecDeque, time::Instant};

use crate::engine::base::sync::{Condvar, Mutex};

/// Notices that wait at most. When no thread takes them, the oldest are dropped.
const MOST: usize = 1024;

/// An event that is to be reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A member misses messages because it is slow, or was closed for that.
    Slow {
        /// The group whose message it was.
        group: String,
    },
    /// The backend's server, or a part of it, cannot be reached.
    Lost {
        /// What is lost, and why.
        reason: String,
    },
    /// It can be reached again.
    Regained {
        /// What is reached again.
        what: String,
    },
    /// Members of these groups may have missed messages.
    Interrupted {
        /// The groups with members here.
        groups: Vec<String>,
    },
    /// Users that were present have left.
    MembersLeft,
}

/// A queue of notices.
#[derive(Debug, Default)]
pub struct Notices {
    waiting: Mutex<VecDeque<Notice>>,
    arrived: Condvar,
}

impl Notices {
    /// Adds one. Never sleeps.
    pub(crate) fn add(&self, notice: Notice) {
        let mut waiting = self.waiting.lock();
        if waiting.len() == MOST {
            waiting.pop_front();
        }
        waiting.push_back(notice);
        drop(waiting);
        self.arrived.notify_one();
    }

    /// Sleeps until there is one, until `deadline` at most.
    pub fn take(&self, deadline: Option<Instant>) -> Option<Notice> {
        let mut waiting = self.waiting.lock();
        loop {
            if let Some(notice) = waiting.pop_front() {
                return Some(notice);
            }
            let in_time;
            (waiting, in_time) = self.arrived.wait(waiting, deadline);
            if !in_time {
                return waiting.pop_front();
            }
        }
    }
}

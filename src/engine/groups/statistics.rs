//! The counters of groups.

use std::sync::atomic::{AtomicU64, Ordering};

use super::member::{Handed, WhenFull};

/// How the groups are named by which processes of a site ask each other, and answer. Views use none
/// of them.
const QUESTIONS: [&str; 2] = ["dwebsocket.node:", "dwebsocket.operations"];

/// Counters of one backend in this process, in the order of [`Event`]. Each grows only.
#[derive(Debug, Default)]
pub struct Statistics([AtomicU64; Event::ALL.len()]);

/// An event that is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A message was published, or was tried to be.
    Published,
    /// A member has got a message.
    Delivered,
    /// A member was closed because it is slow.
    Closed,
    /// A message was dropped for a member that is slow.
    DroppedNewest,
    /// The same in place of a newer one.
    DroppedOldest,
    /// The same in place of the latest one.
    DroppedForLatest,
    /// It could not be published.
    Failed,
    /// Bytes from another process are no message, or have a wrong seal.
    Unreadable,
    /// The backend's server cannot be reached any more.
    Lost,
    /// It can be reached again.
    Regained,
    /// A task or thread that serves the groups failed, and began anew.
    Restarted,
}

impl Event {
    /// The events with their names.
    pub const ALL: [(&'static str, Self); 11] = [
        ("published", Self::Published),
        ("delivered", Self::Delivered),
        ("closed", Self::Closed),
        ("dropped_newest", Self::DroppedNewest),
        ("dropped_oldest", Self::DroppedOldest),
        ("dropped_for_latest", Self::DroppedForLatest),
        ("failed", Self::Failed),
        ("unreadable", Self::Unreadable),
        ("lost", Self::Lost),
        ("regained", Self::Regained),
        ("restarted", Self::Restarted),
    ];
}

impl Statistics {
    /// Counts an event. Never sleeps.
    pub fn count(&self, event: Event) {
        self.add(event, 1);
    }

    /// Counts an event of the group `name`, but for questions between processes.
    pub fn count_in(&self, name: &str, event: Event) {
        self.add(event, u64::from(!is_question(name)));
    }

    fn add(&self, event: Event, times: u64) {
        if times > 0 {
            self.0[event as usize].fetch_add(times, Ordering::Relaxed);
        }
    }

    pub(super) fn note(&self, group: &str, handed: Handed, when_full: WhenFull) {
        if !is_question(group) {
            self.add(Event::Delivered, handed.delivered);
        }
        self.add(Event::Closed, handed.is_closed.into());
        let dropped = match when_full {
            // A connection is closed then; what is no connection drops.
            WhenFull::Close | WhenFull::DropNewest => Event::DroppedNewest,
            WhenFull::DropOldest => Event::DroppedOldest,
            WhenFull::KeepLatest => Event::DroppedForLatest,
        };
        self.add(dropped, handed.dropped);
    }

    /// The counters with their names.
    pub fn read(&self) -> [(&'static str, u64); Event::ALL.len()] {
        Event::ALL.map(|(name, event)| (name, self.0[event as usize].load(Ordering::Relaxed)))
    }
}

fn is_question(group: &str) -> bool {
    QUESTIONS.iter().any(|start| group.starts_with(start))
}

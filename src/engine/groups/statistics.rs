//! The counters of groups.

use std::sync::atomic::{AtomicU64, Ordering};

use super::member::{Handed, WhenFull};

/// Counters of one backend in this process. Each grows only.
#[derive(Debug, Default)]
pub struct Statistics {
    published: AtomicU64,
    failed: AtomicU64,
    delivered: AtomicU64,
    closed: AtomicU64,
    dropped_newest: AtomicU64,
    dropped_oldest: AtomicU64,
    dropped_for_latest: AtomicU64,
    unreadable: AtomicU64,
    lost: AtomicU64,
    regained: AtomicU64,
    restarted: AtomicU64,
}

/// An event that is counted one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A message was published, or was tried to be.
    Published,
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

impl Statistics {
    /// Counts an event. Never sleeps.
    pub fn count(&self, event: Event) {
        let counter = match event {
            Event::Published => &self.published,
            Event::Failed => &self.failed,
            Event::Unreadable => &self.unreadable,
            Event::Lost => &self.lost,
            Event::Regained => &self.regained,
            Event::Restarted => &self.restarted,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn add(&self, handed: Handed, when_full: WhenFull) {
        if handed.delivered > 0 {
            self.delivered
                .fetch_add(handed.delivered, Ordering::Relaxed);
        }
        if handed.is_closed {
            self.closed.fetch_add(1, Ordering::Relaxed);
        }
        let dropped = match when_full {
            // A connection is closed then; what is no connection drops.
            WhenFull::Close | WhenFull::DropNewest => &self.dropped_newest,
            WhenFull::DropOldest => &self.dropped_oldest,
            WhenFull::KeepLatest => &self.dropped_for_latest,
        };
        if handed.dropped > 0 {
            dropped.fetch_add(handed.dropped, Ordering::Relaxed);
        }
    }

    /// The counters with their names.
    pub fn read(&self) -> [(&'static str, u64); 11] {
        [
            ("published", &self.published),
            ("delivered", &self.delivered),
            ("closed", &self.closed),
            ("dropped_newest", &self.dropped_newest),
            ("dropped_oldest", &self.dropped_oldest),
            ("dropped_for_latest", &self.dropped_for_latest),
            ("failed", &self.failed),
            ("unreadable", &self.unreadable),
            ("lost", &self.lost),
            ("regained", &self.regained),
            ("restarted", &self.restarted),
        ]
        .map(|(name, counter)| (name, counter.load(Ordering::Relaxed)))
    }
}

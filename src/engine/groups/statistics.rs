//! The counters of groups.

use std::sync::atomic::{AtomicU64, Ordering};

use super::member::{Handed, WhenFull};

/// Counters of one backend in this process. Each grows only.
#[derive(Debug, Default)]
pub struct Statistics {
    published: AtomicU64,
    delivered: AtomicU64,
    closed: AtomicU64,
    dropped_newest: AtomicU64,
    dropped_oldest: AtomicU64,
    dropped_for_latest: AtomicU64,
}

impl Statistics {
    pub(super) fn add_published(&self) {
        self.published.fetch_add(1, Ordering::Relaxed);
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
            WhenFull::Close => return,
            WhenFull::DropNewest => &self.dropped_newest,
            WhenFull::DropOldest => &self.dropped_oldest,
            WhenFull::KeepLatest => &self.dropped_for_latest,
        };
        if handed.dropped > 0 {
            dropped.fetch_add(handed.dropped, Ordering::Relaxed);
        }
    }

    /// The counters with their names.
    pub fn read(&self) -> [(&'static str, u64); 6] {
        [
            ("published", &self.published),
            ("delivered", &self.delivered),
            ("closed", &self.closed),
            ("dropped_newest", &self.dropped_newest),
            ("dropped_oldest", &self.dropped_oldest),
            ("dropped_for_latest", &self.dropped_for_latest),
        ]
        .map(|(name, counter)| (name, counter.load(Ordering::Relaxed)))
    }
}

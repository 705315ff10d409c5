//! The list of groups whose members here have missed messages.
//!
//! A group is put on it when a message comes that is not its next one, and when its subscription is
//! there again after it was lost. [`catch_up`](super::catch_up) works it off.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
};

use tokio::sync::Notify;

use crate::engine::base::sync::Mutex;

/// The groups of one shard that are behind.
#[derive(Debug, Default)]
pub(super) struct Behind {
    waiting: Mutex<Waiting>,
    pub(super) added: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    queue: VecDeque<Arc<str>>,
    names: HashSet<Arc<str>>,
}

impl Behind {
    /// Puts a group on the list.
    pub(super) fn add(&self, name: &str) {
        let mut waiting = self.waiting.lock();
        if !waiting.names.contains(name) {
            let name: Arc<str> = name.into();
            waiting.names.insert(Arc::clone(&name));
            waiting.queue.push_back(name);
            drop(waiting);
            self.added.notify_one();
        }
    }

    /// Takes a group from the list that is none of `others`.
    pub(super) fn take(&self, others: &HashSet<Arc<str>>) -> Option<Arc<str>> {
        let mut waiting = self.waiting.lock();
        let at = waiting.queue.iter().position(|it| !others.contains(it))?;
        let name = waiting.queue.remove(at)?;
        waiting.names.remove(&name);
        Some(name)
    }
}

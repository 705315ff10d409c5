//! The list of connections in which those that hold most are found.

use std::{
    cmp::Reverse,
    collections::HashMap,
    sync::{Arc, Weak},
};

use parking_lot::Mutex;

use super::budget::Share;
use crate::engine::base::fork;

/// All connections that may hold something. Unlike in the registry, each is listed until its last
/// reference is dropped.
#[derive(Debug)]
pub(crate) struct Holders<C>(Mutex<HashMap<u64, Holder<C>>>);

type Holder<C> = (Arc<Share>, Weak<C>);

impl<C> Default for Holders<C> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<C> Holders<C> {
    /// Enters `connection`, which has to keep the entry.
    pub(crate) fn enter(
        holders: &Arc<Self>,
        id: u64,
        share: &Arc<Share>,
        connection: &Arc<C>,
    ) -> Entry<C> {
        let holder = (Arc::clone(share), Arc::downgrade(connection));
        holders.0.lock().insert(id, holder);
        Entry {
            holders: Arc::clone(holders),
            id,
            generation: fork::generation(),
        }
    }

    /// The largest holders, in order, that hold `bytes` together, or all that hold anything. Those
    /// that were shed before are not among them.
    pub(crate) fn largest(&self, bytes: usize) -> Vec<Arc<C>> {
        if bytes == 0 {
            return Vec::new();
        }
        let mut holders: Vec<_> = {
            let entries = self.0.lock();
            entries
                .values()
                .filter(|(share, _)| share.held() > 0 && !share.is_shed())
                .map(|(share, connection)| (share.held(), Weak::clone(connection)))
                .collect()
        };
        holders.sort_unstable_by_key(|(held, _)| Reverse(*held));
        let mut left = bytes;
        let mut largest = Vec::new();
        for (held, connection) in holders {
            if left == 0 {
                break;
            }
            if let Some(connection) = connection.upgrade() {
                left = left.saturating_sub(held);
                largest.push(connection);
            }
        }
        largest
    }
}

/// A connection's entry. Dropping it removes it.
#[derive(Debug)]
pub(crate) struct Entry<C> {
    holders: Arc<Holders<C>>,
    id: u64,
    generation: u64,
}

impl<C> Drop for Entry<C> {
    fn drop(&mut self) {
        // In a forked child the lock may be that of a thread that exists in the parent only.
        if self.generation == fork::generation() {
            self.holders.0.lock().remove(&self.id);
        }
    }
}

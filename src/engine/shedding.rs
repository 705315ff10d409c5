//! Closing the connections that hold most when the process buffers more than it may.
//!
//! At the limit of [`super::budget`] one task of the engine looks at all connections, also those
//! that are over and whose view has yet to read what came, and closes the largest holders with 1013
//! (Try Again Later), in the order of their size, until the process is well below its limit again.
//! Meanwhile nothing is read from connections that hold much. Small ones notice nothing.

use std::{
    cmp::Reverse,
    collections::HashMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

use super::{
    budget::{self, Share},
    connection::Connection,
    runtime::{self, Engine},
};

/// Time for a connection to let go of what it holds: its driver takes a turn, its view ends.
/// Until then its bytes count as released.
const GRACE: Duration = Duration::from_secs(2);
/// Time between two looks while closed connections release what they hold.
const PAUSE: Duration = Duration::from_millis(10);
/// Time between two looks while no connection is left to close: only views can release memory now.
const LONG_PAUSE: Duration = Duration::from_millis(100);

/// The task runs, or is about to.
static UNDER_WAY: AtomicBool = AtomicBool::new(false);

/// Has the engine bring the process below its limit. Returns at once; may be called with the lock
/// of an inbox or outbox held.
pub(super) fn request() {
    if UNDER_WAY.swap(true, Ordering::AcqRel) {
        return;
    }
    let turn = Turn;
    if let Some(engine) = Engine::running() {
        let relief = relieve(Arc::clone(&engine.members), turn);
        engine.handle().spawn(relief);
    }
}

/// The right to be the one task.
#[derive(Debug)]
struct Turn;

impl Drop for Turn {
    fn drop(&mut self) {
        UNDER_WAY.store(false, Ordering::Release);
    }
}

/// Forgets the parent's task; called in a forked child.
pub(super) fn reset() {
    UNDER_WAY.store(false, Ordering::Release);
}

async fn relieve(members: Arc<Members>, _turn: Turn) {
    let mut leaving: Vec<(Instant, Arc<Share>)> = Vec::new();
    loop {
        let excess = budget::excess();
        if excess == 0 {
            return;
        }
        let now = Instant::now();
        leaving.retain(|(since, share)| share.held() > 0 && now - *since < GRACE);
        let promised: usize = leaving.iter().map(|(_, share)| share.held()).sum();
        for connection in members.largest(excess.saturating_sub(promised)) {
            connection.shed();
            leaving.push((now, Arc::clone(connection.share())));
        }
        sleep(if leaving.is_empty() {
            LONG_PAUSE
        } else {
            PAUSE
        })
        .await;
    }
}

/// All connections that may hold something. Unlike in the registry, each is listed until its last
/// reference is dropped.
#[derive(Debug, Default)]
pub(super) struct Members(Mutex<HashMap<u64, Member>>);

type Member = (Arc<Share>, Weak<Connection>);

impl Members {
    /// Enters `connection`, which holds the entry.
    pub(super) fn enter(members: &Arc<Self>, connection: &Arc<Connection>) {
        let entry = (Arc::clone(connection.share()), Arc::downgrade(connection));
        members.0.lock().insert(connection.id(), entry);
        connection.keep_membership(Membership {
            members: Arc::clone(members),
            id: connection.id(),
            generation: runtime::generation(),
        });
    }

    /// The largest holders, in order, that hold `bytes` together, or all that hold anything. Those
    /// that were shed before are not among them.
    fn largest(&self, bytes: usize) -> Vec<Arc<Connection>> {
        if bytes == 0 {
            return Vec::new();
        }
        let mut holders: Vec<_> = {
            let members = self.0.lock();
            members
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
pub(super) struct Membership {
    members: Arc<Members>,
    id: u64,
    generation: u64,
}

impl Drop for Membership {
    fn drop(&mut self) {
        // In a forked child the lock may be that of a thread that exists in the parent only.
        if self.generation == runtime::generation() {
            self.members.0.lock().remove(&self.id);
        }
    }
}

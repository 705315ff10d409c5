//! Closing the connections that hold most when the process buffers more than it may.
//!
//! At the limit of [`budget`] one task of the engine looks at all connections, also those
//! that are over and whose view has yet to read what came, and closes the largest holders with 1013
//! (Try Again Later), in the order of their size, until the process is well below its limit again.
//! Meanwhile nothing is read from connections that hold much. Small ones notice nothing.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    runtime::Handle,
    time::{Instant, sleep},
};

use crate::engine::{
    connection::Connection,
    resources::{
        budget::{self, Share},
        holders::Holders,
    },
};

/// How long a closed connection may take to release its bytes: its driver drops them at its next
/// turn, its view at the latest when it ends. For so long they count as released; after that, further
/// connections are closed.
const GRACE: Duration = Duration::from_secs(2);
/// Time between two looks while closed connections release what they hold.
const RETRY_AFTER: Duration = Duration::from_millis(10);
/// Time between two looks while no connection is left to close: what is left is held by views of
/// connections that were closed before.
const LONG_PAUSE: Duration = Duration::from_millis(100);

/// The task runs, or is about to.
static UNDER_WAY: AtomicBool = AtomicBool::new(false);

/// Begins to bring the process below its limit, on `runtime`. Returns at once; may be called with
/// the lock of an inbox or outbox held.
pub(crate) fn begin(holders: &Arc<Holders<Connection>>, runtime: &Handle) {
    if UNDER_WAY.swap(true, Ordering::AcqRel) {
        return;
    }
    runtime.spawn(relieve(Arc::clone(holders), OnlyTask));
}

/// Held by the task; while it exists, no second one is started.
#[derive(Debug)]
struct OnlyTask;

impl Drop for OnlyTask {
    fn drop(&mut self) {
        UNDER_WAY.store(false, Ordering::Release);
    }
}

/// Forgets the parent's task; called in a forked child.
#[cfg(unix)]
pub(crate) fn reset() {
    UNDER_WAY.store(false, Ordering::Release);
}

async fn relieve(holders: Arc<Holders<Connection>>, _only: OnlyTask) {
    let mut leaving: Vec<(Instant, Arc<Share>)> = Vec::new();
    loop {
        let excess = budget::excess();
        if excess == 0 {
            return;
        }
        let now = Instant::now();
        leaving.retain(|(since, share)| share.held() > 0 && now - *since < GRACE);
        let promised: usize = leaving.iter().map(|(_, share)| share.held()).sum();
        for connection in holders.largest(excess.saturating_sub(promised)) {
            connection.shed();
            leaving.push((now, Arc::clone(&connection.share)));
        }
        sleep(if leaving.is_empty() {
            LONG_PAUSE
        } else {
            RETRY_AFTER
        })
        .await;
    }
}

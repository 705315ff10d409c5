//! The task of one shard: it runs the tasks of its routes, and asks for the map of a cluster.

use std::{collections::HashSet, sync::Arc, time::Duration};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::{
    select,
    task::yield_now,
    time::{Instant, sleep},
};

use super::{
    cluster::{self, Map},
    incoming::Incoming,
    link,
    shard::Shard,
};
use crate::engine::{backends::call::Reason, base::clock};

/// The time between two looks at the map of a cluster in which nothing seems to have changed.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How long a node may take to give the map.
const LIMIT: Duration = Duration::from_secs(1);

/// A shard whose task runs. With the task it ends: the engine's end drops it without a word, and no
/// call is to wait for what nobody sends any more.
#[derive(Debug)]
pub(super) struct Running(pub(super) Arc<Shard>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// Runs until the shard is stopped.
pub(super) async fn run(running: Running, incoming: Incoming) {
    let shard = &running.0;
    let mut started = HashSet::new();
    let mut links = FuturesUnordered::new();
    let mut map: BoxFuture<'_, Result<Map, Reason>> = std::future::pending().boxed();
    let (mut is_asking, mut failures) = (false, 0);
    let mut next_look = clock::task_now();
    while !shard.is_stopped() {
        for place in shard.needed_routes() {
            if started.insert(place) {
                let incoming = &incoming;
                links.push(async move { (place, link::run(shard, place, incoming).await) });
            }
        }
        if !is_asking && needs_map(shard, next_look) {
            is_asking = true;
            map = ask(shard, failures).boxed();
        }
        select! {
            () = shard.look.notified() => {}
            // In turns with all else that this thread does.
            () = yield_now(), if shard.is_sweeping() => shard.sweep(),
            Some((place, reason)) = links.next() => {
                started.remove(&place);
                shard.on_lost(place, &reason);
            }
            found = &mut map, if is_asking => {
                is_asking = false;
                next_look = clock::task_now() + LOOK_EVERY;
                match found {
                    Ok(found) => shard.on_map(&found),
                    Err(reason) => shard.on_no_map(&reason),
                }
                // While something is away the map is asked for again and again, but not at once.
                failures = if shard.is_map_doubtful() { failures + 1 } else { 0 };
            }
            () = clock::sleep_until(next_look), if shard.is_cluster() && !is_asking => {
                next_look = clock::task_now();
            }
        }
    }
}

/// Whether the map of the cluster has to be asked for now.
fn needs_map(shard: &Shard, next_look: Instant) -> bool {
    let is_due = shard.is_map_doubtful() || clock::task_now() >= next_look;
    shard.is_cluster() && shard.is_used() && is_due
}

/// Asks for the map of the cluster, which could not be got so often in a row.
async fn ask(shard: &Shard, failures: u32) -> Result<Map, Reason> {
    sleep(link::pause_after(failures)).await;
    let limit = shard.timeout.min(LIMIT);
    cluster::find_map(&shard.known_nodes(), &shard.server, limit).await
}

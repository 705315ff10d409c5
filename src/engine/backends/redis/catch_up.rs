//! The task that reads from the server what members here have missed of groups with a history.

use std::{collections::HashSet, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::{select, task::spawn_blocking, time::sleep};

use super::shard::Shard;
use crate::engine::{backends::call::Reply, history::Limits};

/// Groups that are read at once.
const AT_ONCE: usize = 64;
/// The pause after an attempt that has failed.
const RETRY: Duration = Duration::from_millis(200);
/// The pause while the groups have no room.
const BETWEEN_PASSES: Duration = Duration::from_millis(1);
/// More bytes are authenticated on a thread of their own.
const LARGE: usize = 64 * 1024;

/// Works the list off, until the shard is stopped.
pub(super) async fn run(shard: Arc<Shard>) {
    let mut reading = FuturesUnordered::new();
    let mut names = HashSet::new();
    while !shard.is_stopped() {
        while names.len() < AT_ONCE {
            let Some(name) = shard.behind.take(&names) else {
                break;
            };
            names.insert(Arc::clone(&name));
            reading.push(read_missing(&shard, name));
        }
        select! {
            Some(name) = reading.next() => {
                names.remove(&name);
            }
            () = shard.behind.added.notified() => {}
        }
    }
}

/// Hands the members of a group here what they miss.
async fn read_missing(shard: &Shard, name: Arc<str>) -> Arc<str> {
    while let Some(at) = shard.groups.position_of(&name) {
        let Ok(Reply::Page(page)) = shard.read(&name, Some(at), Limits::ALL).done().await else {
            // The server is away. The members wait for it.
            sleep(RETRY).await;
            if shard.is_stopped() {
                break;
            }
            continue;
        };
        let bytes = page.bytes();
        while !shard.groups.has_room(bytes) {
            sleep(BETWEEN_PASSES).await;
        }
        let is_last = page.reached() == page.head;
        if bytes > LARGE {
            let (groups, name) = (Arc::clone(&shard.groups), Arc::clone(&name));
            let taken = spawn_blocking(move || groups.take_page(&name, &page)).await;
            drop(taken);
        } else {
            shard.groups.take_page(&name, &page);
        }
        if is_last {
            break;
        }
    }
    name
}

//! Counting the members of a group in all processes.
//!
//! Nothing is kept in the server, so nothing there can be wrong after a process was killed. A
//! process asks on the group's channel, and the others answer on the channel of the one that asks.
//! The server says how many connections got the question; so many answers are waited for, but
//! not for long.

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasher, RandomState},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Buf;
use parking_lot::Mutex;
use tokio::{runtime::Handle, time::sleep};

use super::shard::Shard;
use crate::engine::{
    backends::call::{Call, Reason, Reply, Ticket, lost},
    groups::Groups,
};

/// How long answers are waited for. The process of one that is missing then was killed, and the
/// server has not noticed yet, or its machine is gone.
const LIMIT: Duration = Duration::from_secs(1);

/// A question: the number of the count, and the process that asks.
const QUESTION: &str = "\u{1}count";
/// More bytes than a question has, with its seal.
const LONGEST_QUESTION: usize = 256;
/// The beginning of the names of channels for answers; no group's name begins so.
const ANSWERS: &str = "\u{1}answers";

/// The counts of this process that are under way.
#[derive(Debug)]
pub(super) struct MemberCount {
    runtime: Handle,
    /// Tells this process from all others.
    process: u64,
    next: AtomicU64,
    counts: Mutex<HashMap<u64, Count>>,
}

/// A count that is under way.
#[derive(Debug)]
struct Count {
    ticket: Ticket,
    /// How many answers there will be, once that is known.
    expected: Option<u64>,
    /// The processes that have answered.
    answered: HashSet<u64>,
    members: u64,
}

impl Count {
    fn is_complete(&self) -> bool {
        self.expected
            .is_some_and(|expected| self.answered.len() as u64 >= expected)
    }
}

/// A count whose task runs, and that ends with it, also when the engine drops it.
#[derive(Debug)]
struct Running(Arc<MemberCount>, u64);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.end(self.1, Some("the engine has ended".into()));
    }
}

impl MemberCount {
    pub(super) fn new(runtime: Handle) -> Self {
        Self {
            runtime,
            // With the process's number: a forked child inherits the keys of the hash.
            process: RandomState::new().hash_one(("process", std::process::id())),
            next: AtomicU64::new(RandomState::new().hash_one(("count", std::process::id()))),
            counts: Mutex::default(),
        }
    }

    /// The name under which this process gets answers.
    pub(super) fn own_name(&self) -> String {
        format!("{ANSWERS}{:016x}", self.process)
    }

    /// Counts the members of the group `name`.
    pub(super) fn count(
        self: &Arc<Self>,
        groups: &Arc<Groups>,
        shard: &Arc<Shard>,
        name: &str,
    ) -> Arc<Call> {
        let (call, ticket) = Call::new(lost);
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let count = Count {
            ticket,
            expected: None,
            answered: HashSet::new(),
            members: 0,
        };
        self.counts.lock().insert(number, count);
        let (running, groups) = (Running(Arc::clone(self), number), Arc::clone(groups));
        let (shard, name) = (Arc::clone(shard), name.to_owned());
        self.runtime.spawn(async move {
            running.0.ask(&groups, &shard, &name, number).await;
        });
        call
    }

    async fn ask(&self, groups: &Groups, shard: &Shard, name: &str, number: u64) {
        // Kept for the next count: it is never released.
        if let Some(subscribed) = shard.subscribe(&self.own_name()) {
            if let Err(reason) = subscribed.done().await {
                shard.release(&self.own_name(), true);
                self.end(number, Some(reason));
                return;
            }
        }
        let question = [number.to_be_bytes(), self.process.to_be_bytes()].concat();
        let sealed = groups.seal(&domain(QUESTION, name), question);
        match shard.publish(name, &sealed).done().await {
            Ok(Reply::Number(receivers)) => {
                self.note(number, |count| count.expected = Some(receivers));
            }
            Ok(Reply::Page(_)) => {}
            Err(reason) => {
                self.end(number, Some(reason));
                return;
            }
        }
        sleep(LIMIT.min(shard.timeout / 2)).await;
        self.end(number, None);
    }

    /// Changes a count, and ends it when it is complete.
    fn note(&self, number: u64, change: impl FnOnce(&mut Count)) {
        let mut all = self.counts.lock();
        let Some(count) = all.get_mut(&number) else {
            return;
        };
        change(count);
        if count.is_complete() {
            let complete = all.remove(&number);
            drop(all);
            if let Some(count) = complete {
                count.ticket.finish(Ok(Reply::Number(count.members)));
            }
        }
    }

    /// Ends a count, if it has not ended, with what is known.
    fn end(&self, number: u64, failure: Option<Reason>) {
        let count = self.counts.lock().remove(&number);
        if let Some(count) = count {
            let members = Ok(Reply::Number(count.members));
            count.ticket.finish(failure.map_or(members, Err));
        }
    }

    /// Handles what came on the channel of `name` and is no message to a group: a question, an
    /// answer, or what a stranger has sent. False for the last one.
    pub(super) fn on_message(
        &self,
        groups: &Groups,
        shard: &Shard,
        name: &str,
        bytes: &[u8],
    ) -> bool {
        if name == self.own_name() {
            let answer = groups.open(name, bytes).and_then(numbers);
            let Some([number, process, members]) = answer else {
                return false;
            };
            self.note(number, |count| {
                if count.answered.insert(process) {
                    count.members = count.members.saturating_add(members);
                }
            });
            return true;
        }
        if bytes.len() > LONGEST_QUESTION {
            return false;
        }
        let question = groups.open(&domain(QUESTION, name), bytes);
        let Some([number, asker]) = question.and_then(numbers) else {
            return false;
        };
        let members = groups.count(name) as u64;
        let answer = [number, self.process, members].map(u64::to_be_bytes);
        let to = format!("{ANSWERS}{asker:016x}");
        shard.send(&to, &groups.seal(&to, answer.concat()));
        true
    }
}

/// The name for the seal of something other than a message to the group `name`.
fn domain(purpose: &str, name: &str) -> String {
    format!("{purpose} {name}")
}

fn numbers<const N: usize>(mut bytes: &[u8]) -> Option<[u64; N]> {
    (bytes.len() == N * size_of::<u64>()).then(|| [(); N].map(|()| bytes.get_u64()))
}

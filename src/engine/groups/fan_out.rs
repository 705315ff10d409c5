//! The task that hands what was published to the members of one group.
//!
//! It runs while something waits in the group's queue. All that waits, up to a limit, is handed to a
//! member at once, in one write. After a turn of about a tenth of a millisecond the task lets the
//! engine look at its sockets, so that other connections do not wait for a large group.

use std::{
    fmt,
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    runtime::Handle,
    task::{spawn_blocking, yield_now},
};

use super::{
    group::{Batch, Entry, Group},
    member::{Handed, Member, WhenFull},
    memberships::Membership,
    notices::{Notice, Notices},
    parcel::{Message, Parcel},
    statistics::Statistics,
};
use crate::{engine::base::panics::contain, protocol::deflate::Deflater};

/// Bytes of the messages that are handed to a member at once.
const BATCH_BYTES: usize = 64 * 1024;
/// Members that are looked up under the group's lock at once.
const MEMBERS: usize = 64;
/// How long the task runs before the engine has to look at its sockets.
const TURN: Duration = Duration::from_micros(100);
/// More bytes than these are compressed on a thread of their own.
const SLOW_TO_COMPRESS: usize = 64 * 1024;

/// The members of one look at the group, with the number of the first entry for each.
type Members = Vec<(Weak<dyn Member>, u64)>;

/// Bytes that may wait in the queues of all groups.
const MAX_WAITING_BYTES: usize = 64 * 1024 * 1024;

/// A thread on which groups are fanned out.
#[derive(Clone)]
pub struct FanOutThread {
    /// Its runtime.
    pub(crate) runtime: Handle,
    /// To be called between two turns: lets the views run that have waited for long.
    pub(crate) hurry_views: Arc<dyn Fn() + Send + Sync>,
}

impl fmt::Debug for FanOutThread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FanOutThread").finish_non_exhaustive()
    }
}

/// The fan-outs of one backend's groups, and their outcome.
#[derive(Debug)]
pub(super) struct FanOut {
    threads: Vec<FanOutThread>,
    when_full: WhenFull,
    waiting_bytes: AtomicUsize,
    pub(super) statistics: Statistics,
    pub(super) notices: Notices,
}

impl FanOut {
    pub(super) fn new(threads: Vec<FanOutThread>, when_full: WhenFull) -> Arc<Self> {
        Arc::new(Self {
            threads,
            when_full,
            waiting_bytes: AtomicUsize::new(0),
            statistics: Statistics::default(),
            notices: Notices::default(),
        })
    }

    /// The thread for a group whose name has this hash.
    pub(super) fn thread_for(&self, hash: u64) -> u32 {
        let count = self.threads.len().max(1) as u64;
        u32::try_from(hash % count).unwrap_or_default()
    }

    /// Whether `more` bytes may be put into the queues.
    pub(super) fn has_room(&self, more: usize) -> bool {
        let waiting = self.waiting_bytes.load(Ordering::Relaxed);
        waiting == 0 || waiting.saturating_add(more) <= MAX_WAITING_BYTES
    }

    #[cfg(test)]
    pub(super) fn waiting_bytes(&self) -> usize {
        self.waiting_bytes.load(Ordering::Relaxed)
    }

    /// Puts an entry into the queue of `group`, and starts a task if none serves it.
    pub(super) fn put(self: &Arc<Self>, group: &Arc<Group>, entry: Entry) {
        self.waiting_bytes.fetch_add(entry.len(), Ordering::Relaxed);
        let starts = group.state.lock().push(entry);
        let thread = self.threads.get(group.thread as usize);
        if let Some(thread) = thread.filter(|_| starts) {
            let turn = Turn::begin(Arc::clone(&thread.hurry_views));
            (thread.runtime).spawn(run(Arc::clone(self), Arc::clone(group), turn));
        }
    }
}

/// Hands out what waits in the queue of `group`, until it is empty.
async fn run(fan_out: Arc<FanOut>, group: Arc<Group>, mut turn: Turn) {
    let mut members = Members::with_capacity(MEMBERS);
    loop {
        let Some(batch) = group.state.lock().next(BATCH_BYTES) else {
            group.on_idle();
            return;
        };
        let bytes: usize = batch.entries.iter().map(Entry::len).sum();
        fan_out
            .hand_out(&group, batch, &mut members, &mut turn)
            .await;
        fan_out.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// A time for which the task may run.
struct Turn {
    began: Instant,
    hurry_views: Arc<dyn Fn() + Send + Sync>,
}

impl Turn {
    fn begin(hurry_views: Arc<dyn Fn() + Send + Sync>) -> Self {
        Self {
            began: Instant::now(),
            hurry_views,
        }
    }

    /// Lets the engine's other tasks run if the time is up.
    async fn end_if_due(&mut self) {
        if self.began.elapsed() >= TURN {
            contain(|| (self.hurry_views)());
            yield_now().await;
            self.began = Instant::now();
        }
    }
}

impl Batch {
    fn messages(&self) -> impl Iterator<Item = &Message> {
        self.entries.iter().filter_map(|entry| match entry {
            Entry::Message(message) => Some(message),
            Entry::Close(_) => None,
        })
    }
}

impl FanOut {
    async fn hand_out(
        &self,
        group: &Arc<Group>,
        batch: Batch,
        members: &mut Members,
        turn: &mut Turn,
    ) {
        let mut parcels = Parcels::new(&batch);
        let mut place = Some(0);
        while let Some(from) = place {
            members.clear();
            place = group.state.lock().members_from(from, batch.first, members);
            for (member, since) in members.drain(..) {
                // A member that was freed has left.
                let Some(member) = member.upgrade() else {
                    continue;
                };
                if let [Entry::Close(frame)] = &batch.entries[..] {
                    if since <= batch.first {
                        contain(|| member.close(frame));
                    }
                } else if let Some(parcel) = parcels.find(&batch, member.as_ref(), since).await {
                    let handed = contain(|| member.take(&parcel, self.when_full));
                    self.note(group, member.as_ref(), handed.unwrap_or_default());
                }
                turn.end_if_due().await;
            }
        }
    }

    /// Counts, and reports a member that is slow.
    fn note(&self, group: &Group, member: &dyn Member, handed: Handed) {
        self.statistics.add(handed, self.when_full);
        let drops_first = || handed.dropped > 0 && member.memberships().warn_once();
        if handed.is_closed || drops_first() {
            self.notices.add(Notice::Slow {
                group: group.name().to_owned(),
            });
        }
    }
}

/// The parcels of one batch: one for each kind of compression.
struct Parcels {
    made: Vec<(Option<Deflater>, Arc<Parcel>)>,
    has_exclusions: bool,
}

impl Parcels {
    fn new(batch: &Batch) -> Self {
        Self {
            made: Vec::new(),
            has_exclusions: batch.messages().any(Message::has_exclusions),
        }
    }

    /// The messages of the batch that `member` is to get, which are those from number `since` on.
    async fn find(
        &mut self,
        batch: &Batch,
        member: &dyn Member,
        since: u64,
    ) -> Option<Arc<Parcel>> {
        let deflater = member.deflater();
        let gets_all = since <= batch.first && !self.has_exclusions;
        if !gets_all {
            let id = member.memberships().id();
            let messages: Vec<_> = (batch.first..)
                .zip(batch.messages())
                .filter(|(number, message)| *number >= since && message.is_for(id))
                .map(|(_, message)| message.clone())
                .collect();
            if messages.is_empty() {
                return None;
            }
            if messages.len() < batch.entries.len() {
                let deflater = deflater.map(Deflater::without_context);
                return Some(make(messages, deflater.as_ref()).await);
            }
        }
        let is_same = |made: &Option<Deflater>| match (made, deflater) {
            (None, None) => true,
            (Some(made), Some(deflater)) => made.is_alike(deflater),
            _ => false,
        };
        if let Some((_, parcel)) = self.made.iter().find(|(made, _)| is_same(made)) {
            return Some(Arc::clone(parcel));
        }
        let deflater = deflater.map(Deflater::without_context);
        let parcel = make(batch.messages().cloned().collect(), deflater.as_ref()).await;
        self.made.push((deflater, Arc::clone(&parcel)));
        Some(parcel)
    }
}

async fn make(messages: Vec<Message>, deflater: Option<&Deflater>) -> Arc<Parcel> {
    let bytes: usize = messages.iter().map(Message::frame_len).sum();
    let slow = deflater.filter(|_| bytes > SLOW_TO_COMPRESS);
    if let Some(deflater) = slow {
        let deflater = deflater.without_context();
        let copy = messages.clone();
        let made = spawn_blocking(move || Parcel::new(copy, Some(&deflater))).await;
        if let Ok(parcel) = made {
            return Arc::new(parcel);
        }
        // The runtime has no thread for it: the messages go out as they are.
        return Arc::new(Parcel::new(messages, None));
    }
    Arc::new(Parcel::new(messages, deflater))
}

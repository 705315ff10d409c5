//! The task that hands what was published to the members of one group.
//!
//! It runs while something waits in the group's queue, in passes over the members. A pass hands each
//! member what waits for it at that moment, up to a limit, in one write: also what was published
//! since the pass began, so that no message waits for the pass before it to end. After a turn of
//! about a tenth of a millisecond the task lets the engine look at its sockets, so that other
//! connections do not wait for a large group.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::{
    runtime::Handle,
    task::{spawn_blocking, yield_now},
    time::sleep,
};

use super::{
    group::{Batch, Entry, Group, Next, Recipient, STRETCH, State},
    member::{Eviction, Handed, Member, WhenFull},
    memberships::Membership,
    message::{Delivery, Message},
    notices::{Notice, Notices},
    numbered,
    statistics::{Event, Statistics},
    waiting_publishers::WaitingPublishers,
};
use crate::{
    engine::{
        base::panics::{BEFORE_RESTART, contain, contain_task},
        history::Position,
    },
    protocol::{deflate::Deflater, message::Kind},
};

/// Bytes of the messages that are handed to a member at once.
const BATCH_BYTES: usize = 64 * 1024;
/// How long the task runs before the engine has to look at its sockets.
const TURN: Duration = Duration::from_micros(100);
/// More bytes than these are compressed on a thread of their own.
const SLOW_TO_COMPRESS: usize = 64 * 1024;

/// Bytes that may wait in the queues of all groups.
const MAX_WAITING_BYTES: usize = 64 * 1024 * 1024;

/// A thread on which groups are fanned out.
#[derive(Clone)]
pub struct FanOutThread {
    /// Its runtime.
    pub(crate) runtime: Handle,
    /// To be called between two turns: lets the views run that have waited for long.
    pub(crate) hurry_views: Arc<dyn Fn() + Send + Sync>,
    /// Whether it has ended by a failure.
    pub(crate) has_failed: Arc<AtomicBool>,
}

impl fmt::Debug for FanOutThread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FanOutThread").finish_non_exhaustive()
    }
}

/// The fan-outs of one backend's groups, and their outcome.
#[derive(Debug, Default)]
pub(super) struct FanOut {
    threads: Vec<FanOutThread>,
    when_full: WhenFull,
    waiting_bytes: AtomicUsize,
    pub(super) waiting: WaitingPublishers,
    pub(super) statistics: Statistics,
    pub(super) notices: Notices,
}

impl FanOut {
    pub(super) fn new(threads: Vec<FanOutThread>, when_full: WhenFull) -> Arc<Self> {
        Arc::new(Self {
            threads,
            when_full,
            ..Self::default()
        })
    }

    /// The thread for a group whose name has this hash.
    pub(super) fn thread_for(&self, hash: u64) -> u32 {
        let count = self.threads.len().max(1) as u64;
        u32::try_from(hash % count).unwrap_or_default()
    }

    /// Whether `more` bytes may be put into the queues. Never once a thread has failed: its groups
    /// are served no more.
    pub(super) fn has_room(&self, more: usize) -> bool {
        let has_failed = |thread: &FanOutThread| thread.has_failed.load(Ordering::Relaxed);
        if self.threads.iter().any(has_failed) {
            return false;
        }
        let waiting = self.waiting_bytes.load(Ordering::Relaxed);
        waiting == 0 || waiting.saturating_add(more) <= MAX_WAITING_BYTES
    }

    #[cfg(test)]
    pub(super) fn waiting_bytes(&self) -> usize {
        self.waiting_bytes.load(Ordering::Relaxed)
    }

    /// Puts an entry into the queue of `group`, and starts a task if none serves it.
    pub(super) fn put(self: &Arc<Self>, group: &Arc<Group>, entry: Entry) {
        let starts = self.push(&mut group.state.lock(), entry);
        self.start_if(starts, group);
    }

    /// Puts an entry into a queue. True when a task has to be started for it.
    pub(super) fn push(&self, state: &mut State, entry: Entry) -> bool {
        self.waiting_bytes.fetch_add(entry.len(), Ordering::Relaxed);
        state.push(entry)
    }

    /// Starts a task that serves `group`, if need be.
    pub(super) fn start_if(self: &Arc<Self>, starts: bool, group: &Arc<Group>) {
        let thread = self.threads.get(group.thread as usize);
        if let Some(thread) = thread.filter(|_| starts) {
            let turn = Turn::begin(Arc::clone(&thread.hurry_views));
            (thread.runtime).spawn(run(Arc::clone(self), Arc::clone(group), turn));
        }
    }

    /// Counts and reports that a task, which does `what`, has failed and begins anew.
    pub(super) fn note_restart(&self, what: &str) {
        self.statistics.count(Event::Restarted);
        self.notices.add(Notice::Restarted(what.to_owned()));
    }

    /// A pass over the members of `group` has failed: some of them miss a batch.
    fn on_failed_pass(&self, group: &Group) {
        self.note_restart("handing out messages of a group");
        let name = group.name().to_owned();
        {
            let mut state = group.state.lock();
            let at = state.recorded.as_ref().map(|recorded| recorded.position);
            let gap = at.map_or(Entry::Gap(None), |at| gap(&name, at));
            self.push(&mut state, gap);
        }
        self.notices.add(Notice::Interrupted(vec![name]));
    }

    /// Runs `task` on a thread.
    pub(super) fn spawn(&self, thread: u32, task: impl Future<Output = ()> + Send + 'static) {
        if let Some(thread) = self.threads.get(thread as usize) {
            thread.runtime.spawn(task);
        }
    }

    /// Hands `messages` to `members` of the group `name`, beside its queue.
    pub(super) async fn hand_out(
        &self,
        thread: u32,
        name: &str,
        messages: Vec<Message>,
        members: Vec<Weak<dyn Member>>,
    ) {
        let Some(thread) = self.threads.get(thread as usize) else {
            return;
        };
        let mut turn = Turn::begin(Arc::clone(&thread.hurry_views));
        let mut deliveries = Deliveries {
            group: name.to_owned(),
            batch: Batch {
                first: 0,
                entries: messages.into_iter().map(Entry::Message).collect(),
            },
            ..Deliveries::default()
        };
        for member in members {
            let recipient = Recipient {
                member,
                slot: 0,
                since: 0,
                is_numbered: false,
                got: None,
            };
            // A member that was freed has left.
            if let Some(member) = recipient.member.upgrade() {
                self.hand_over(member.as_ref(), &recipient, &mut deliveries)
                    .await;
                turn.end_if_due().await;
            }
        }
    }
}

/// The entry that tells members with numbers: messages up to `from` are missing.
pub(super) fn gap(name: &str, from: Position) -> Entry {
    let text = numbered::gap(name, from);
    Entry::Gap(Some(Message::new(Kind::Text, text.as_bytes(), &[])))
}

/// Hands out what waits in the queue of `group`, until it is empty.
async fn run(fan_out: Arc<FanOut>, group: Arc<Group>, mut turn: Turn) {
    let begin = || Deliveries {
        group: group.name().to_owned(),
        registry: group.registry(),
        ..Deliveries::default()
    };
    let mut deliveries = begin();
    loop {
        let pass = fan_out.pass(&group, &mut deliveries, &mut turn);
        if contain_task(pass).await.is_none() {
            // The queue is as it was, after the batch that has failed.
            deliveries = begin();
            fan_out.on_failed_pass(&group);
            sleep(BEFORE_RESTART).await;
        }
        let passed = group.state.lock().end_pass();
        (fan_out.waiting_bytes).fetch_sub(passed.bytes, Ordering::Relaxed);
        fan_out.waiting.tell(|bytes| fan_out.has_room(bytes));
        if passed.is_over {
            group.on_idle();
            return;
        }
        deliveries.forget_before(passed.first);
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
            Entry::Close(_) | Entry::Gap(_) | Entry::Eviction(_) => None,
        })
    }
}

impl FanOut {
    /// Hands each member what waits for it.
    async fn pass(&self, group: &Group, deliveries: &mut Deliveries, turn: &mut Turn) {
        let mut recipients = Vec::with_capacity(STRETCH);
        for stretch in 0.. {
            let next = {
                let mut state = group.state.lock();
                state.next(stretch, BATCH_BYTES, &mut deliveries.batch, &mut recipients)
            };
            match next {
                None => return,
                Some(Next::Nothing) => continue,
                Some(Next::SameBatch) => {}
                Some(Next::NewBatch) => deliveries.on_new_batch(),
            }
            for recipient in recipients.drain(..) {
                // A member that was freed has left.
                if let Some(member) = recipient.member.upgrade() {
                    self.hand_over(member.as_ref(), &recipient, deliveries)
                        .await;
                    turn.end_if_due().await;
                }
            }
        }
    }

    /// Hands a member the entries of the batch that are for it.
    async fn hand_over(
        &self,
        member: &dyn Member,
        recipient: &Recipient,
        deliveries: &mut Deliveries,
    ) {
        let was_here = recipient.since <= deliveries.batch.first;
        let delivery = match &deliveries.batch.entries[..] {
            [Entry::Close(frame)] => {
                if was_here {
                    contain(|| member.close(frame));
                }
                return;
            }
            [Entry::Eviction(eviction)] => {
                if was_here {
                    self.evict(member, recipient.slot, eviction, deliveries);
                }
                return;
            }
            [Entry::Gap(told)] => {
                let told = match member.room() {
                    None => told.clone().filter(|_| recipient.is_numbered),
                    Some(room) => Some(Message::loss_in(room)),
                };
                told.filter(|_| was_here).map(|told| {
                    let frame = told.frame();
                    Arc::new(Delivery::new(vec![told], vec![frame]))
                })
            }
            _ => deliveries.find(member, recipient).await,
        };
        if let Some(delivery) = delivery {
            let handed = contain(|| member.take(&delivery, self.when_full, false));
            self.note(&deliveries.group, member, handed.unwrap_or_default());
        }
    }

    /// Takes the member at `slot` out of its group if `eviction` names it. Members of rooms are told;
    /// that others belong to a user is not known here.
    fn evict(&self, member: &dyn Member, slot: u32, eviction: &Eviction, deliveries: &Deliveries) {
        if member.is_seat() {
            if let Some(seat) = contain(|| member.evict(eviction)).flatten() {
                self.notices.add(Notice::SeatEnded(seat));
            }
            return;
        }
        let memberships = member.memberships();
        if (member.id()).is_some_and(|id| eviction.names(id, None)) {
            let end = || memberships.end_named(&deliveries.group, deliveries.registry, slot);
            if contain(end).unwrap_or_default() {
                self.notices.add(Notice::Evicted {
                    group: deliveries.group.clone(),
                    eviction: eviction.clone(),
                });
            }
        }
    }

    /// Counts, and reports a member that is slow.
    fn note(&self, group: &str, member: &dyn Member, handed: Handed) {
        self.statistics.note(group, handed, self.when_full);
        let drops_first = || handed.dropped > 0 && member.memberships().warn_once();
        if handed.is_closed || drops_first() {
            self.notices.add(Notice::Slow(group.to_owned()));
        }
    }
}

/// The batch that is being handed out, and what is made of it.
#[derive(Default)]
struct Deliveries {
    group: String,
    registry: usize,
    batch: Batch,
    has_exclusions: bool,
    /// One for each kind of compression and each style.
    packers: Vec<Packer>,
}

impl Deliveries {
    /// To be called when the batch is another one, or has grown.
    fn on_new_batch(&mut self) {
        self.has_exclusions =
            (self.batch.messages()).any(|message| message.has_exclusions() || message.is_event());
        for packer in &mut self.packers {
            packer.whole = None;
        }
    }

    /// To be called when all members have got the entries before number `first`.
    fn forget_before(&mut self, first: u64) {
        for packer in &mut self.packers {
            packer.compressed = packer.compressed.split_off(&first);
            packer.numbered = packer.numbered.split_off(&first);
        }
    }

    /// The messages of the batch that `member` is to get.
    async fn find(&mut self, member: &dyn Member, recipient: &Recipient) -> Option<Arc<Delivery>> {
        let since = recipient.since;
        let first = self.batch.first;
        let numbered = (first..).zip(self.batch.messages());
        let is_seat = member.is_seat();
        let id = (self.has_exclusions).then(|| member.id()).flatten();
        let has_got = |message: &Message| {
            let stamp = message.stamp.zip(recipient.got.as_ref());
            stamp.is_some_and(|(stamp, got)| got.has(stamp))
        };
        let is_its = |message: &Message| {
            message.is_for(id) && (is_seat || !message.is_event()) && !has_got(message)
        };
        let is_plain = !self.has_exclusions && recipient.got.is_none();
        let gets_all = since <= first && (is_plain || self.batch.messages().all(is_its));
        let carrier = member.carrier();
        let deflater = carrier.as_deref().unwrap_or(member).deflater();
        let room = member.room();
        let is_numbered = recipient.is_numbered && room.is_none();
        let packer = Packer::find(&mut self.packers, deflater, room, is_numbered);
        if gets_all {
            if packer.whole.is_none() {
                let delivery = packer.pack(&self.group, numbered.collect()).await;
                packer.whole = Some(Arc::new(delivery));
            }
            return packer.whole.clone();
        }
        let its: Vec<_> = numbered
            .filter(|(number, message)| *number >= since && is_its(message))
            .collect();
        if its.is_empty() {
            return None;
        }
        Some(Arc::new(packer.pack(&self.group, its).await))
    }
}

/// Makes deliveries with one kind of compression. It compresses each message once.
struct Packer {
    deflater: Option<Deflater>,
    /// Members of a room of this name get messages as those of the room.
    room: Option<Box<str>>,
    /// Other members get messages with their positions.
    is_numbered: bool,
    /// The messages in this style, by their numbers.
    numbered: BTreeMap<u64, Message>,
    /// Frames by the numbers of their messages.
    compressed: BTreeMap<u64, Bytes>,
    /// The delivery of the whole batch.
    whole: Option<Arc<Delivery>>,
}

impl Packer {
    /// The one of `packers` for `deflater`, a new one if there is none.
    fn find<'a>(
        packers: &'a mut Vec<Self>,
        deflater: Option<&Deflater>,
        room: Option<&str>,
        is_numbered: bool,
    ) -> &'a mut Self {
        let is_same = |packer: &Self| {
            (packer.room.as_deref(), packer.is_numbered) == (room, is_numbered)
                && packer.deflater.as_ref().map(Deflater::terms) == deflater.map(Deflater::terms)
        };
        let found = packers.iter().position(is_same).unwrap_or_else(|| {
            packers.push(Self {
                deflater: deflater.map(Deflater::without_context),
                room: room.map(Box::from),
                is_numbered,
                numbered: BTreeMap::new(),
                compressed: BTreeMap::new(),
                whole: None,
            });
            packers.len() - 1
        });
        &mut packers[found]
    }

    async fn pack(&mut self, group: &str, waiting: Vec<(u64, &Message)>) -> Delivery {
        let its: Vec<_> = waiting
            .into_iter()
            .map(|(number, message)| (number, self.form(group, number, message)))
            .collect();
        self.compress(&its).await;
        let frames = its.iter().map(|(number, message)| {
            let compressed = self.compressed.get(number).cloned();
            compressed.unwrap_or_else(|| message.frame())
        });
        let frames = frames.collect();
        let messages = its.into_iter().map(|(_, message)| message);
        Delivery::new(messages.collect(), frames)
    }

    /// The message as members get it.
    fn form(&mut self, group: &str, number: u64, message: &Message) -> Message {
        let form = || match &self.room {
            Some(room) => message.in_room(room),
            None => message.numbered(group),
        };
        if self.room.is_none() && !self.is_numbered {
            return message.clone();
        }
        self.numbered.entry(number).or_insert_with(form).clone()
    }

    async fn compress(&mut self, numbered: &[(u64, Message)]) {
        let Some(deflater) = &self.deflater else {
            return;
        };
        let missing = numbered
            .iter()
            .filter(|(number, _)| !self.compressed.contains_key(number));
        let missing: Vec<_> = missing.cloned().collect();
        let bytes: usize = missing.iter().map(|(_, message)| message.frame_len()).sum();
        let deflater = deflater.without_context();
        let compress = move || -> Vec<_> {
            let compressed = missing.iter();
            compressed
                .map(|(number, message)| (*number, message.compressed(&deflater)))
                .collect()
        };
        let made = if bytes > SLOW_TO_COMPRESS {
            // Without a thread for it, the messages go out as they are.
            spawn_blocking(compress).await.unwrap_or_default()
        } else {
            compress()
        };
        self.compressed.extend(made);
    }
}

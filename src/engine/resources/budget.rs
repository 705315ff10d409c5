//! The bytes that the process buffers for its connections, and their limit.
//!
//! Three parts of a connection buffer: the inbox (whole messages, and the one that the view took
//! last and still holds), the outbox, and the driver (an unfinished message as far as it
//! has come, inflated; bytes that were read but have no place yet). Each part has an [`Account`]
//! beside its own state and reports to it how many bytes it holds.
//!
//! A shared counter for each small message would cost more than the message. So an account passes
//! on only changes of [`STEP_BYTES`] and more: a part that holds less counts as nothing.
//!
//! A [`Relief`] holds the engine's functions that are called at the limit.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use tokio::sync::Notify;

use super::trim;
use crate::engine::base::fork;

/// Smaller changes are not passed on.
pub const STEP_BYTES: usize = 4 * 1024;
/// Bytes that a queued message takes beside its payload: its place in the queue and its allocation.
const MESSAGE_BYTES: usize = 72;
/// A connection that holds less is read from also while the process is at its limit.
const SMALL_BYTES: usize = 64 * 1024;
/// Holders are closed until the bytes are below this part of the limit.
const RELIEVED: (usize, usize) = (7, 8);

/// The part of the limit that answers to polls may take.
const ANSWERS: (usize, usize) = (1, 8);

/// The part of the limit after whose release the C library is asked for what it keeps.
const RETURNED: (usize, usize) = (1, 4);

static HELD: AtomicUsize = AtomicUsize::new(0);
/// The bytes of answers to polls.
static HELD_BY_ANSWERS: AtomicUsize = AtomicUsize::new(0);
/// Bytes that were released since the last trim.
static RELEASED: AtomicUsize = AtomicUsize::new(0);
/// `usize::MAX` is none.
static LIMIT: AtomicUsize = AtomicUsize::new(usize::MAX);

/// Sets how many bytes the process may buffer; `None` for no limit.
pub fn set_limit(limit: Option<usize>) {
    LIMIT.store(limit.unwrap_or(usize::MAX), Ordering::Relaxed);
    if limit.is_some() {
        trim::keep_little();
    }
    if is_full() {
        request_relief();
    }
}

/// The bytes that the process buffers now, as far as its connections have passed them on.
pub fn held() -> usize {
    HELD.load(Ordering::Relaxed)
}

/// Whether the limit is reached.
pub(crate) fn is_full() -> bool {
    held() >= LIMIT.load(Ordering::Relaxed)
}

/// Bytes that have to go before the process is well below its limit.
pub(crate) fn excess() -> usize {
    held().saturating_sub(part_of(LIMIT.load(Ordering::Relaxed), RELIEVED))
}

fn part_of(limit: usize, (part, whole): (usize, usize)) -> usize {
    if limit == usize::MAX {
        return limit;
    }
    limit / whole * part
}

/// The engine's functions for a process that buffers too much. Both return at once, and may be
/// called with the lock of an inbox or outbox held.
#[derive(Debug)]
pub(crate) struct Relief {
    /// Closes the connections that hold most, until the process is below its limit.
    pub(crate) shed: fn(),
    /// Returns free memory to the system if the process takes more than so many bytes.
    pub(crate) trim: fn(usize),
}

static RELIEF: OnceLock<Relief> = OnceLock::new();

/// Sets the functions to call at the limit. Only the first call counts; without one no function is
/// called.
pub(crate) fn set_relief(relief: Relief) {
    let _ = RELIEF.set(relief);
}

/// Has the engine bring the process below its limit.
pub(crate) fn request_relief() {
    if let Some(relief) = RELIEF.get() {
        (relief.shed)();
    }
}

/// Notes that `bytes` were released. The process gets rid of that memory only once the C library
/// gives it back to the system.
fn note_release(bytes: usize) {
    let limit = LIMIT.load(Ordering::Relaxed);
    if limit == usize::MAX {
        return;
    }
    let released = RELEASED
        .fetch_add(bytes, Ordering::Relaxed)
        .saturating_add(bytes);
    if released >= part_of(limit, RETURNED) {
        RELEASED.store(0, Ordering::Relaxed);
        if let Some(relief) = RELIEF.get() {
            (relief.trim)(limit);
        }
    }
}

/// Forgets what the parent process holds; called in a forked child.
#[cfg(unix)]
pub(crate) fn reset() {
    HELD.store(0, Ordering::Relaxed);
    HELD_BY_ANSWERS.store(0, Ordering::Relaxed);
    RELEASED.store(0, Ordering::Relaxed);
}

/// The bytes that so many messages with so many bytes of payload take in a queue.
pub(crate) const fn cost(messages: usize, payload_bytes: usize) -> usize {
    payload_bytes.saturating_add(messages.saturating_mul(MESSAGE_BYTES))
}

/// Whether the process has room for `more` bytes of a part that holds `bytes` with them. Where it has
/// not, the connections that hold most are closed, if they are what takes it.
fn has_room(bytes: usize, more: usize) -> bool {
    let has_room =
        bytes < SMALL_BYTES || held().saturating_add(more) < LIMIT.load(Ordering::Relaxed);
    if !has_room && excess() > 0 {
        request_relief();
    }
    has_room
}

/// Whether there is room for an answer beside `others`, under a limit for all that is buffered.
fn is_room_for_answer(bytes: usize, others: usize, limit: usize) -> bool {
    bytes < SMALL_BYTES || others == 0 || others.saturating_add(bytes) <= part_of(limit, ANSWERS)
}

/// The bytes that one connection holds.
#[derive(Debug)]
pub(crate) struct Share {
    generation: u64,
    held: AtomicUsize,
    is_answer: bool,
    is_shed: AtomicBool,
    shed: Notify,
}

impl Share {
    /// The share of a connection that holds nothing yet.
    pub(crate) fn new() -> Arc<Self> {
        Self::of_kind(false)
    }

    fn of_kind(is_answer: bool) -> Arc<Self> {
        Arc::new(Self {
            generation: fork::generation(),
            held: AtomicUsize::new(0),
            is_answer,
            is_shed: AtomicBool::new(false),
            shed: Notify::new(),
        })
    }

    /// The bytes that this connection holds, as far as they were passed on.
    pub(crate) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Whether this connection holds so much that it has to wait while the process is at its limit.
    pub(crate) fn is_large(&self) -> bool {
        self.held() >= SMALL_BYTES
    }

    /// Notes that the connection has to give up all that it holds; false when it had to before.
    pub(crate) fn mark_shed(&self) -> bool {
        let was_shed = self.is_shed.swap(true, Ordering::AcqRel);
        self.shed.notify_one();
        !was_shed
    }

    /// Waits until the connection has to give up all that it holds. For one task.
    ///
    /// # Cancel safety
    /// Yes.
    pub(crate) async fn until_shed(&self) {
        while !self.is_shed() {
            self.shed.notified().await;
        }
    }

    /// Whether the connection has to give up all that it holds.
    pub(crate) fn is_shed(&self) -> bool {
        self.is_shed.load(Ordering::Acquire)
    }

    fn change(&self, before: usize, after: usize) {
        // A forked child does not count what it has inherited.
        if self.generation != fork::generation() {
            return;
        }
        if let Some(less) = before.checked_sub(after) {
            self.held.fetch_sub(less, Ordering::Relaxed);
            HELD.fetch_sub(less, Ordering::Relaxed);
            if self.is_answer {
                HELD_BY_ANSWERS.fetch_sub(less, Ordering::Relaxed);
            }
            note_release(less);
            return;
        }
        let more = after - before;
        self.held.fetch_add(more, Ordering::Relaxed);
        if self.is_answer {
            HELD_BY_ANSWERS.fetch_add(more, Ordering::Relaxed);
        }
        let total = HELD.fetch_add(more, Ordering::Relaxed).saturating_add(more);
        if total >= LIMIT.load(Ordering::Relaxed) {
            request_relief();
        }
    }
}

/// The bytes that one part of a connection holds. Lives behind that part's own lock. Dropping it
/// takes them off the count.
#[derive(Debug, Default)]
pub(crate) struct Account {
    /// `None` in a part that belongs to no connection.
    share: Option<Arc<Share>>,
    passed_on: usize,
}

impl Account {
    /// An account of `share`, with nothing in it.
    pub(crate) fn of(share: &Arc<Share>) -> Self {
        Self {
            share: Some(Arc::clone(share)),
            passed_on: 0,
        }
    }

    /// The account of an answer of so many bytes to a poll; `None` when the process, or the part of its
    /// limit that answers may take, has no room for it. There is always room for small ones, and for
    /// one of any size.
    pub(crate) fn of_answer(bytes: usize) -> Option<Self> {
        let others = HELD_BY_ANSWERS.load(Ordering::Relaxed);
        if !is_room_for_answer(bytes, others, LIMIT.load(Ordering::Relaxed)) {
            return None;
        }
        let mut account = Self::of(&Share::of_kind(true));
        account.try_set(bytes).then_some(account)
    }

    /// Notes that the part holds `bytes` now; false, and nothing is noted, when the process has no room
    /// for more.
    pub(crate) fn try_set(&mut self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(self.passed_on);
        let has_room = more == 0 || has_room(bytes, more);
        if has_room {
            self.set(bytes);
        }
        has_room
    }

    /// Notes that the part holds `bytes` now.
    pub(crate) fn set(&mut self, bytes: usize) {
        let is_step = bytes.abs_diff(self.passed_on) >= STEP_BYTES;
        if is_step || (bytes == 0 && self.passed_on > 0) {
            self.pass_on(bytes);
        }
    }

    #[cold]
    fn pass_on(&mut self, bytes: usize) {
        if let Some(share) = &self.share {
            share.change(self.passed_on, bytes);
            self.passed_on = bytes;
        }
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_changes_are_not_passed_on_and_the_rest_is() {
        let share = Share::new();
        let mut account = Account::of(&share);
        let mut seen = |bytes| {
            account.set(bytes);
            share.held()
        };
        assert_eq!(seen(STEP_BYTES - 1), 0);
        assert_eq!(seen(STEP_BYTES), STEP_BYTES);
        assert_eq!(seen(2 * STEP_BYTES - 1), STEP_BYTES);
        assert_eq!(seen(1), STEP_BYTES);
        assert_eq!(seen(0), 0);
        assert_eq!(seen(10 * STEP_BYTES + 5), 10 * STEP_BYTES + 5);
    }

    #[test]
    fn the_parts_of_a_connection_add_up_and_give_back() {
        let share = Share::new();
        let mut parts = [Account::of(&share), Account::of(&share)];
        for part in &mut parts {
            part.set(40_000);
        }
        assert_eq!((share.held(), share.is_large()), (80_000, true));
        drop(parts);
        assert_eq!((share.held(), share.is_large()), (0, false));
    }

    #[test]
    fn an_account_of_no_connection_counts_nothing() {
        let mut account = Account::default();
        account.set(1 << 40);
        assert_eq!(account.passed_on, 0);
    }

    #[test]
    fn a_connection_is_shed_once() {
        let share = Share::new();
        assert!(!share.is_shed());
        assert!(share.mark_shed());
        assert!(!share.mark_shed());
        assert!(share.is_shed());
    }

    #[test]
    fn answers_have_a_part_of_the_limit() {
        let limit = 80 * SMALL_BYTES;
        let is_room = |bytes, others| is_room_for_answer(bytes, others, limit);
        assert!(is_room(SMALL_BYTES, 9 * SMALL_BYTES));
        assert!(!is_room(SMALL_BYTES, 9 * SMALL_BYTES + 1));
        // Small ones at any time, and one of any size.
        assert!(is_room(SMALL_BYTES - 1, limit));
        assert!(is_room(limit, 0));
        assert!(!is_room(limit, 1));
        assert!(is_room_for_answer(usize::MAX, 1, usize::MAX));
    }

    #[test]
    fn empty_messages_cost_something() {
        assert!(cost(1024, 0) > STEP_BYTES);
        assert_eq!(cost(0, 0), 0);
    }
}

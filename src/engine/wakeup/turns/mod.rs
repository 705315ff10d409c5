//! Letting views run after the engine, not in the middle of its work.
//!
//! A view that is woken wants the core and the GIL at once, and there is one GIL. Woken in the
//! middle of a pass over all sockets, each view would take the core away from the engine and then
//! wait for the view before it. So the engine reads all sockets first. When it has nothing left to
//! read, it wakes the event loops and the first of the parked threads; each thread wakes the next
//! one when it is about to sleep. The engine stands back until all have had their turn, so that its
//! next pass finds what clients send after many answers at once, not after a single one.
//!
//! The engine writes what several views send in their turn, all together, when it goes on. To go
//! from Python into the kernel and back for each message would push both out of the processor's
//! caches, and a client that sleeps in between would have to be woken each time.
//!
//! One busy client can keep the engine reading for ever. So views do not wait until it has nothing
//! left to read: after a millisecond they have their turn anyhow.
//!
//! No view waits for ever for another: when there is no progress for about a millisecond, because
//! a view computes or waits for something else, all are woken, what they have sent is written, and
//! for a while each is woken as soon as its message comes. Progress is a thread that comes back,
//! or one view on each loop that was woken. When views take long, a reply would wait for others:
//! then all views write for themselves for a while.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio::{runtime::Handle, task::yield_now};

use super::{
    View,
    flush_timer::FlushTimer,
    gil_semaphore::GilSemaphore,
    hub::{Hub, Observer, Watch},
};
use crate::engine::base::panics::contain;

/// How long the engine stands back at most before it looks at its sockets again.
const MAX_STAND_BACK: Duration = Duration::from_millis(1);
/// How long a view may wait for an engine that always has something to read.
const MAX_VIEW_WAIT: Duration = Duration::from_millis(1);
/// After a standstill: how long each view is woken as soon as its message comes. After a slow turn:
/// how long views write for themselves.
const APART_TIME: Duration = Duration::from_millis(100);
/// Average time a view in one turn; above it, views write for themselves.
const QUICK_VIEW: Duration = Duration::from_micros(50);
/// Views that may wait for an engine that never finds its sockets empty.
const MAX_VIEWS: usize = 64;
/// From this many views in a turn on, the engine writes for them. For fewer on event loops it does
/// not stand back either.
const MIN_TO_COLLECT: usize = 3;
/// Bytes that may wait for views, which are to find their messages in the processor's cache.
const MAX_BYTES: usize = 64 * 1024;

/// The views of one engine that have a message and still sleep. Any thread may use it.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    state: Mutex<State>,
    done: Condvar,
    /// Some view waits for its turn: see [`Turns::hurry`].
    has_waiting: AtomicBool,
    /// Collects what views cork in their turn; the engine sends it when it goes on.
    pub(crate) flush_timer: Arc<FlushTimer>,
    /// Where threads wait that have been woken, before they ask for the GIL.
    pub(crate) gil_semaphore: GilSemaphore,
    /// Instead of [`MAX_STAND_BACK`], in tests.
    max_stand_back: Option<Duration>,
    /// The next turn panics.
    #[cfg(test)]
    turn_panics: AtomicBool,
    /// The next call of [`Turns::run`] panics.
    #[cfg(test)]
    run_panics: AtomicBool,
}

#[cfg(test)]
impl Turns {
    /// Lets the next call of [`Turns::run`] panic.
    pub(crate) fn let_run_panic(&self) {
        self.run_panics.store(true, Ordering::SeqCst);
    }

    /// Whether that call has yet to come.
    pub(crate) fn run_will_panic(&self) -> bool {
        self.run_panics.load(Ordering::SeqCst)
    }
}

#[derive(Debug, Default)]
struct State {
    /// Connections whose views are parked threads.
    parked: VecDeque<Arc<dyn View>>,
    /// Hubs of event loops that have to be woken.
    unwoken: Vec<Arc<Hub>>,
    /// Connections on the hubs' lists since the loops were woken last.
    noted: usize,
    /// Hubs whose loops were woken and have not served their list yet, with their steps so far.
    serving: Vec<(Arc<Hub>, u64)>,
    /// Since when the first view waits.
    waiting_since: Option<Instant>,
    /// Bytes that came since their number last reached [`MAX_BYTES`].
    bytes: usize,
    /// Counts the threads that passed on and the loops that have served their list.
    steps: u64,
    engine_stands_back: bool,
    /// The last thread has been woken, and the engine waits for what it sends.
    last_is_due: bool,
    apart_until: Option<Instant>,
    /// How long views write for themselves, because they take long.
    alone_until: Option<Instant>,
}

impl State {
    fn is_apart(&mut self) -> bool {
        let apart = self.apart_until.is_some_and(|until| Instant::now() < until);
        if !apart {
            self.apart_until = None;
        }
        apart
    }

    /// The moment from which the engine collects what `views` views send; `None` when it does not.
    fn collecting_since(&mut self, views: usize) -> Option<Instant> {
        let now = (views >= MIN_TO_COLLECT).then(Instant::now)?;
        if self.alone_until.is_some_and(|until| now < until) {
            return None;
        }
        self.alone_until = None;
        Some(now)
    }

    /// Notes that `bytes` more wait. True when a turn is due.
    fn add_bytes(&mut self, bytes: usize) -> bool {
        self.bytes = self.bytes.saturating_add(bytes);
        let is_enough = self.bytes >= MAX_BYTES;
        if is_enough {
            self.bytes = 0;
        }
        is_enough
    }

    fn is_done(&self) -> bool {
        self.parked.is_empty() && !self.last_is_due && self.serving.is_empty()
    }

    /// True if threads are still parked, the last one is due, or a loop has not moved since the
    /// last look; notes how far the loops are. Does not see threads that came back: the caller
    /// compares `steps` for that.
    fn has_standstill(&mut self) -> bool {
        let mut stands = !self.parked.is_empty() || self.last_is_due;
        for (hub, seen) in &mut self.serving {
            let steps = hub.steps();
            stands |= *seen == steps;
            *seen = steps;
        }
        stands
    }

    /// Ends a turn. After a standstill it gives the threads that are still parked: for a while each view is
    /// woken as soon as its message comes.
    fn end_turn(&mut self, has_progress: bool) -> Option<VecDeque<Arc<dyn View>>> {
        let is_stuck = self.has_standstill() && !has_progress;
        self.last_is_due = false;
        if !is_stuck {
            return None;
        }
        self.apart_until = Instant::now().checked_add(APART_TIME);
        self.serving.clear();
        Some(std::mem::take(&mut self.parked))
    }

    /// Counts a thread that passed on, or a loop that has served its list. True when all are done
    /// and the engine can be woken.
    fn step(&mut self) -> bool {
        self.steps += 1;
        self.engine_stands_back && self.is_done()
    }
}

impl Turns {
    /// Sees to it that the parked view of `connection` is woken soon. Only the engine may call it.
    pub(crate) fn add(self: &Arc<Self>, connection: Arc<dyn View>, bytes: usize) {
        let mut state = self.state.lock();
        if state.is_apart() {
            drop(state);
            connection.wake_thread();
            return;
        }
        state.parked.push_back(connection);
        self.note_waiting(&mut state);
        if state.parked.len() >= MAX_VIEWS || state.add_bytes(bytes) {
            self.turn(state);
        }
    }

    /// Sees to it that the loop of `watch` is woken soon. Only the engine may call it.
    pub(crate) fn notify(self: &Arc<Self>, watch: Watch, bytes: usize) {
        let mut state = self.state.lock();
        if state.is_apart() {
            drop(state);
            watch.notify();
            return;
        }
        if let Some(hub) = watch.note() {
            state.unwoken.push(hub);
        }
        state.noted += 1;
        self.note_waiting(&mut state);
        if state.noted >= MAX_VIEWS || state.add_bytes(bytes) {
            self.turn(state);
        }
    }

    fn note_waiting(&self, state: &mut State) {
        if state.waiting_since.is_none() {
            state.waiting_since = Some(Instant::now());
            self.has_waiting.store(true, Ordering::Relaxed);
        }
    }

    /// Lets views run that have waited for long; to be called by the engine between any two reads.
    pub(crate) fn hurry(self: &Arc<Self>) {
        // Only the engine's thread changes it.
        if self.has_waiting.load(Ordering::Relaxed) {
            let state = self.state.lock();
            if (state.waiting_since).is_some_and(|since| since.elapsed() >= MAX_VIEW_WAIT) {
                self.turn(state);
            }
        }
    }

    fn wake_loops(self: &Arc<Self>, state: &mut State) {
        state.noted = 0;
        for hub in std::mem::take(&mut state.unwoken) {
            if contain(|| hub.wake_if_needed(self)) == Some(true) {
                let steps = hub.steps();
                state.serving.push((hub, steps));
            }
        }
    }

    /// Wakes the next thread; to be called by a thread that is about to sleep.
    pub(crate) fn pass_on(&self) {
        loop {
            let mut state = self.state.lock();
            let next = state.parked.pop_front();
            let was_last = std::mem::take(&mut state.last_is_due);
            if next.is_none() && !was_last {
                return;
            }
            state.last_is_due =
                next.is_some() && state.parked.is_empty() && self.flush_timer.collects();
            let is_done = state.step();
            drop(state);
            if is_done {
                self.done.notify_one();
            }
            // False: that thread is awake already (a timeout). Take the next one.
            if next.is_none_or(|next| next.wake_thread()) {
                return;
            }
        }
    }

    /// Lets the views run; to be called by the engine when it has nothing to do.
    pub(crate) fn run(self: &Arc<Self>, engine: &Handle) {
        #[cfg(test)]
        assert!(
            !self.run_panics.swap(false, Ordering::SeqCst),
            "a run panics"
        );
        if !self.turn(self.state.lock()) {
            // With a task to run, the engine looks at its sockets and then calls this again.
            engine.spawn(yield_now());
        }
    }

    /// Lets all views run that wait, and writes what they have sent. False when some had no turn,
    /// because the others took long.
    fn turn(self: &Arc<Self>, state: MutexGuard<'_, State>) -> bool {
        contain(|| self.take_turn(state)).unwrap_or_else(|| {
            self.start_over();
            true
        })
    }

    /// Clears the state after a turn that panicked: wakes waiting views, and sends what is corked.
    fn start_over(self: &Arc<Self>) {
        let corked = self.flush_timer.end_collecting();
        let mut state = self.state.lock();
        self.wake_loops(&mut state);
        let before = std::mem::take(&mut *state);
        drop(state);
        for connection in before.parked {
            contain(|| connection.wake_thread());
        }
        for connection in corked {
            connection.send_corked();
        }
    }

    fn take_turn(self: &Arc<Self>, mut state: MutexGuard<'_, State>) -> bool {
        let views = state.parked.len() + state.noted;
        state.waiting_since = None;
        self.has_waiting.store(false, Ordering::Relaxed);
        let enough = QUICK_VIEW.saturating_mul(u32::try_from(views).unwrap_or(u32::MAX));
        self.wake_loops(&mut state);
        if state.parked.is_empty() && views < MIN_TO_COLLECT {
            // Too few to stand back for, and no view waits for another one.
            state.serving.clear();
        }
        if state.is_done() {
            return true;
        }
        state.engine_stands_back = true;
        let began = state.collecting_since(views);
        if began.is_some() {
            self.flush_timer.begin_collecting();
        }
        drop(state);
        let (mut state, has_progress) = self.stand_back();
        let corked = began.map(|_| self.flush_timer.end_collecting());
        let is_done = state.is_done();
        let stuck = state.end_turn(has_progress);
        if !state.parked.is_empty() {
            self.note_waiting(&mut state);
        }
        if began.is_some_and(|began| began.elapsed() > enough) {
            state.alone_until = Instant::now().checked_add(APART_TIME);
        }
        drop(state);
        let is_over = is_done || stuck.is_some();
        for connection in stuck.into_iter().flatten() {
            connection.wake_thread();
        }
        for connection in corked.into_iter().flatten() {
            connection.send_corked();
        }
        is_over
    }

    /// Wakes the first thread, and waits until the views have had their turn, for a moment at most.
    /// Also returns whether there was progress.
    fn stand_back(&self) -> (MutexGuard<'_, State>, bool) {
        #[cfg(test)]
        assert!(
            !self.turn_panics.swap(false, Ordering::SeqCst),
            "a turn panics"
        );
        self.pass_on();
        let mut state = self.state.lock();
        let steps = state.steps;
        if !state.is_done() {
            let longest = self.max_stand_back.unwrap_or(MAX_STAND_BACK);
            self.done.wait_for(&mut state, longest);
        }
        state.engine_stands_back = false;
        let has_progress = state.steps != steps;
        (state, has_progress)
    }
}

impl Observer for Turns {
    fn on_served(&self, hub: &Hub) {
        let mut state = self.state.lock();
        state
            .serving
            .retain(|(served, _)| !std::ptr::eq(Arc::as_ptr(served), hub));
        let is_done = state.step();
        drop(state);
        if is_done {
            self.done.notify_one();
        }
    }
}

#[cfg(test)]
mod tests;

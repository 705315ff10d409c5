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
    fmt,
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
#[derive(Debug)]
pub(crate) struct Turns<V> {
    state: Mutex<State<V>>,
    done: Condvar,
    /// Some view waits for its turn: see [`Turns::hurry`].
    has_waiting: AtomicBool,
    /// Collects what views cork in their turn; the engine sends it when it goes on.
    pub(crate) flush_timer: Arc<FlushTimer<V>>,
    max_stand_back: Duration,
    /// The next turn panics.
    #[cfg(test)]
    turn_panics: AtomicBool,
    /// The next call of [`Turns::run`] panics.
    #[cfg(test)]
    run_panics: AtomicBool,
}

#[cfg(test)]
impl<V> Turns<V> {
    /// Lets the next call of [`Turns::run`] panic.
    pub(crate) fn let_run_panic(&self) {
        self.run_panics.store(true, Ordering::SeqCst);
    }

    /// Whether that call has yet to come.
    pub(crate) fn run_will_panic(&self) -> bool {
        self.run_panics.load(Ordering::SeqCst)
    }
}

impl<V> Default for Turns<V> {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            done: Condvar::new(),
            has_waiting: AtomicBool::new(false),
            flush_timer: Arc::default(),
            max_stand_back: MAX_STAND_BACK,
            #[cfg(test)]
            turn_panics: AtomicBool::new(false),
            #[cfg(test)]
            run_panics: AtomicBool::new(false),
        }
    }
}

#[derive(Debug)]
struct State<V> {
    /// Connections whose views are parked threads.
    parked: VecDeque<Arc<V>>,
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

impl<V> Default for State<V> {
    fn default() -> Self {
        Self {
            parked: VecDeque::new(),
            unwoken: Vec::new(),
            noted: 0,
            serving: Vec::new(),
            waiting_since: None,
            bytes: 0,
            steps: 0,
            engine_stands_back: false,
            last_is_due: false,
            apart_until: None,
            alone_until: None,
        }
    }
}

impl<V> State<V> {
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

    /// Counts a thread that passed on, or a loop that has served its list. True when all are done
    /// and the engine can be woken.
    fn step(&mut self) -> bool {
        self.steps += 1;
        self.engine_stands_back && self.is_done()
    }
}

impl<V: View + fmt::Debug> Turns<V> {
    /// Sees to it that the parked view of `connection` is woken soon. Only the engine may call it.
    pub(crate) fn add(self: &Arc<Self>, connection: &Arc<V>, bytes: usize) {
        let mut state = self.state.lock();
        if state.is_apart() {
            drop(state);
            connection.wake_thread();
            return;
        }
        state.parked.push_back(Arc::clone(connection));
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

    fn note_waiting(&self, state: &mut State<V>) {
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

    fn wake_loops(self: &Arc<Self>, state: &mut State<V>) {
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
    fn turn(self: &Arc<Self>, state: MutexGuard<'_, State<V>>) -> bool {
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

    fn take_turn(self: &Arc<Self>, mut state: MutexGuard<'_, State<V>>) -> bool {
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
        #[cfg(test)]
        assert!(
            !self.turn_panics.swap(false, Ordering::SeqCst),
            "a turn panics"
        );
        self.pass_on();
        let mut state = self.state.lock();
        let steps = state.steps;
        if !state.is_done() {
            self.done.wait_for(&mut state, self.max_stand_back);
        }
        state.engine_stands_back = false;
        let corked = match began {
            Some(_) => self.flush_timer.end_collecting(),
            None => Vec::new(),
        };
        let is_done = state.is_done();
        let is_stuck = state.has_standstill() && state.steps == steps;
        state.last_is_due = false;
        let mut stuck = VecDeque::new();
        if is_stuck {
            state.apart_until = Instant::now().checked_add(APART_TIME);
            state.serving.clear();
            stuck = std::mem::take(&mut state.parked);
        }
        if !state.parked.is_empty() {
            self.note_waiting(&mut state);
        }
        if began.is_some_and(|began| began.elapsed() > enough) {
            state.alone_until = Instant::now().checked_add(APART_TIME);
        }
        drop(state);
        for connection in stuck {
            connection.wake_thread();
        }
        for connection in corked {
            connection.send_corked();
        }
        is_done || is_stuck
    }
}

impl<V: View + fmt::Debug> Observer for Turns<V> {
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
mod tests {
    use std::{
        io::Read,
        os::{fd::IntoRawFd, unix::net::UnixStream},
        sync::mpsc::{Receiver, Sender, channel},
        thread,
    };

    use bytes::Bytes;
    use tokio::runtime::{Builder, Runtime};

    use super::*;
    use crate::{
        engine::{
            connection::{Connection, inbox::Taken, settings::Settings},
            resources::socket::Socket,
        },
        protocol::{
            deflate::Codecs,
            message::{Kind, Message},
        },
    };

    struct Bed {
        turns: Arc<Turns<Connection>>,
        runtime: Runtime,
        connections: Vec<Arc<Connection>>,
        woken: Receiver<(usize, bool)>,
        peers: Vec<UnixStream>,
    }

    const AT_ONCE: Option<Duration> = Some(Duration::ZERO);

    /// Views that are parked. Each answers a message, says its number and whether the answer is
    /// corked, and asks for more after `work`; without, it is busy for ever.
    fn parked(count: usize, work: Option<Duration>) -> Bed {
        let turns = Arc::new(Turns {
            // Long enough for views that come back, on however busy a machine.
            max_stand_back: if work.is_some() {
                Duration::from_secs(60)
            } else {
                MAX_STAND_BACK
            },
            ..Turns::default()
        });
        let (tell, woken) = channel();
        let mut connections = Vec::new();
        let mut peers = Vec::new();
        for number in 0..count {
            let (ours, peer) = UnixStream::pair().unwrap();
            peers.push(peer);
            let connection = Arc::new(Connection::new(
                1,
                Arc::new(Socket::take_over(ours.into_raw_fd()).unwrap()),
                &Settings::FOR_TESTS,
                Bytes::new(),
                Arc::clone(&turns),
                &Codecs::default(),
            ));
            let (view, tell) = (Arc::clone(&connection), tell.clone());
            thread::spawn(move || answer_all(&view, number, &tell, work));
            while !connection.is_awaited() {
                thread::yield_now();
            }
            connections.push(connection);
        }
        Bed {
            turns,
            runtime: Builder::new_current_thread().build().unwrap(),
            connections,
            woken,
            peers,
        }
    }

    fn answer_all(
        view: &Arc<Connection>,
        number: usize,
        tell: &Sender<(usize, bool)>,
        work: Option<Duration>,
    ) {
        while let Taken::Message(message) = view.take(None) {
            assert!(view.write(message.kind, &message.payload));
            tell.send((number, view.is_corked())).unwrap();
            thread::sleep(work.unwrap_or_default());
            while work.is_none() && view.end().is_none() {
                thread::yield_now();
            }
        }
    }

    const HELLO: &[u8] = b"hello";
    const ANSWER: &[u8] = b"\x81\x05hello";

    impl Bed {
        fn deliver(&self, number: usize) {
            self.connections[number].deliver(&mut vec![Message {
                kind: Kind::Text,
                payload: Bytes::from_static(HELLO),
            }]);
        }

        fn run(&self) {
            self.turns.run(self.runtime.handle());
        }

        /// Gives the first `count` views a turn.
        fn turn(&self, count: usize) {
            (0..count).for_each(|number| self.deliver(number));
            self.run();
        }

        fn woken(&self) -> usize {
            self.woken.recv().unwrap().0
        }

        fn answered(&self, number: usize) -> bool {
            let mut answer = [0; ANSWER.len()];
            let mut peer = &self.peers[number];
            peer.set_nonblocking(true).unwrap();
            peer.read(&mut answer).is_ok() && answer == ANSWER
        }
    }

    impl Drop for Bed {
        fn drop(&mut self) {
            for connection in &self.connections {
                connection.inbox.end();
                connection.begin_end(crate::engine::End {
                    code: 1000,
                    reason: String::new(),
                    by: crate::engine::Initiator::Local,
                });
            }
        }
    }

    #[test]
    fn views_are_woken_in_turn_when_the_engine_has_read_everything() {
        let bed = parked(10, AT_ONCE);
        for number in 0..10 {
            bed.deliver(number);
        }
        assert!(bed.woken.try_recv().is_err());
        bed.run();
        let order: Vec<_> = (0..10).map(|_| bed.woken()).collect();
        assert_eq!(order, (0..10).collect::<Vec<_>>());
    }

    #[test]
    fn an_engine_that_never_finds_its_sockets_empty_wakes_views_all_the_same() {
        let bed = parked(MAX_VIEWS, AT_ONCE);
        for number in 0..MAX_VIEWS {
            bed.deliver(number);
        }
        for _ in 0..MAX_VIEWS {
            bed.woken();
        }
    }

    #[test]
    fn no_view_waits_for_one_that_does_not_come_back() {
        let bed = parked(4, None);
        bed.turn(3);
        let mut woken: Vec<_> = (0..3).map(|_| bed.woken()).collect();
        woken.sort_unstable();
        assert_eq!(woken, [0, 1, 2]);
        // For a while each is woken at once.
        assert!(bed.turns.state.lock().apart_until.is_some());
        bed.deliver(3);
        assert_eq!(bed.woken(), 3);
    }

    #[test]
    fn a_turn_that_panics_leaves_no_view_asleep_and_the_next_one_is_as_ever() {
        let bed = parked(MIN_TO_COLLECT, AT_ONCE);
        for _ in 0..3 {
            bed.turns.turn_panics.store(true, Ordering::SeqCst);
            bed.turn(MIN_TO_COLLECT);
            assert!(!bed.turns.turn_panics.load(Ordering::SeqCst));
            assert!(!bed.turns.flush_timer.collects());
            let mut woken: Vec<_> = (0..MIN_TO_COLLECT).map(|_| bed.woken()).collect();
            woken.sort_unstable();
            assert_eq!(woken, (0..MIN_TO_COLLECT).collect::<Vec<_>>());
            for number in 0..MIN_TO_COLLECT {
                assert!(bed.answered(number));
                while !bed.connections[number].is_awaited() {
                    thread::yield_now();
                }
            }
        }
        bed.turn(MIN_TO_COLLECT);
        for number in 0..MIN_TO_COLLECT {
            assert_eq!(bed.woken.recv().unwrap(), (number, true));
            assert!(bed.answered(number));
        }
    }

    #[test]
    fn a_turn_that_panics_wakes_the_loops_all_the_same() {
        let bed = parked(1, AT_ONCE);
        let hub = Hub::new().unwrap();
        bed.turns.notify(Watch::new(Arc::clone(&hub), 7), 5);
        bed.turns.turn_panics.store(true, Ordering::SeqCst);
        bed.turn(1);
        assert_eq!(bed.woken(), 0);
        // The loop has been woken already: this call has nothing to do.
        assert!(!hub.wake_if_needed(&bed.turns));
        assert_eq!(hub.drain(), [7]);
    }

    #[test]
    fn what_several_views_answer_in_one_turn_is_written_by_the_engine() {
        let bed = parked(MIN_TO_COLLECT, AT_ONCE);
        bed.turn(MIN_TO_COLLECT);
        for number in 0..MIN_TO_COLLECT {
            assert_eq!(bed.woken.recv().unwrap(), (number, true));
            assert!(bed.answered(number));
        }
    }

    #[test]
    fn a_view_that_is_woken_on_its_own_writes_for_itself() {
        let bed = parked(1, AT_ONCE);
        bed.turn(1);
        assert_eq!(bed.woken.recv().unwrap(), (0, false));
        assert!(bed.answered(0));
    }

    #[test]
    fn an_answer_does_not_wait_for_its_view_to_come_back() {
        let bed = parked(MIN_TO_COLLECT, None);
        bed.turn(MIN_TO_COLLECT);
        for _ in 0..MIN_TO_COLLECT {
            let number = bed.woken();
            assert!(bed.answered(number));
        }
    }

    #[test]
    fn views_that_take_long_write_for_themselves_for_a_while() {
        let mut state = State::<Connection>::default();
        assert!(state.collecting_since(MIN_TO_COLLECT - 1).is_none());
        assert!(state.collecting_since(MIN_TO_COLLECT).is_some());
        state.alone_until = Some(Instant::now() + Duration::from_secs(60));
        assert!(state.collecting_since(MIN_TO_COLLECT).is_none());
        state.alone_until = Some(Instant::now());
        assert!(state.collecting_since(MIN_TO_COLLECT).is_some());

        let bed = parked(MIN_TO_COLLECT, Some(QUICK_VIEW * 2));
        bed.turn(MIN_TO_COLLECT);
        assert!(bed.turns.state.lock().alone_until.is_some());
    }

    #[test]
    fn a_loop_is_woken_once_and_the_engine_stands_back_until_it_has_served() {
        let bed = parked(0, AT_ONCE);
        let hub = Hub::new().unwrap();
        for token in 1..=3 {
            bed.turns.notify(Watch::new(Arc::clone(&hub), token), 5);
        }
        assert_eq!(bed.turns.state.lock().unwoken.len(), 1);
        let serving = {
            let hub = Arc::clone(&hub);
            thread::spawn(move || {
                loop {
                    let tokens = hub.drain();
                    if !tokens.is_empty() {
                        hub.served();
                        return tokens;
                    }
                }
            })
        };
        bed.run();
        assert_eq!(serving.join().unwrap(), [1, 2, 3]);
    }

    #[test]
    fn a_loop_of_two_engine_threads_tells_both_that_it_has_served() {
        let beds = [parked(0, AT_ONCE), parked(0, AT_ONCE)];
        let hub = Hub::new().unwrap();
        for (bed, token) in beds.iter().zip(1..) {
            bed.turns.notify(Watch::new(Arc::clone(&hub), token), 5);
            let mut state = bed.turns.state.lock();
            bed.turns.wake_loops(&mut state);
            drop(state);
            // The loop has woken; the next engine thread wakes it again before it is done.
            assert_eq!(hub.drain(), [token]);
        }
        hub.served();
        for bed in &beds {
            assert!(bed.turns.state.lock().serving.is_empty());
        }
    }

    #[test]
    fn views_do_not_wait_for_an_engine_that_always_has_something_to_read() {
        let bed = parked(1, AT_ONCE);
        bed.deliver(0);
        let since = bed.turns.state.lock().waiting_since.unwrap();
        while since.elapsed() < MAX_VIEW_WAIT {
            assert!(bed.woken.try_recv().is_err());
            thread::yield_now();
        }
        bed.turns.hurry();
        assert_eq!(bed.woken(), 0);
        assert!(!bed.turns.has_waiting.load(Ordering::Relaxed));
    }

    #[test]
    fn a_loop_whose_views_come_back_is_no_standstill_however_long_it_takes() {
        let (quick, slow) = (Hub::new().unwrap(), Hub::new().unwrap());
        let comes_back = |hub: &Arc<Hub>| drop(Watch::new(Arc::clone(hub), 1));
        let serving = [&quick, &slow].map(|hub| (Arc::clone(hub), hub.steps()));
        let mut state = State::<Connection> {
            serving: serving.into(),
            ..State::default()
        };
        comes_back(&quick);
        comes_back(&slow);
        assert!(!state.has_standstill());
        comes_back(&quick);
        assert!(state.has_standstill());
        comes_back(&quick);
        comes_back(&slow);
        assert!(!state.has_standstill());
        // A thread that keeps others waiting is a standstill by itself.
        comes_back(&quick);
        comes_back(&slow);
        state.last_is_due = true;
        assert!(state.has_standstill());
    }

    #[test]
    fn no_view_waits_for_a_loop_that_does_not_get_on() {
        let bed = parked(0, None);
        let hub = Hub::new().unwrap();
        for token in 0..3 {
            bed.turns.notify(Watch::new(Arc::clone(&hub), token), 5);
        }
        bed.run();
        let state = bed.turns.state.lock();
        assert!(state.apart_until.is_some());
        assert!(state.serving.is_empty());
    }
}

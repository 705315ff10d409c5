//! Letting views run after the engine, not in the middle of its work.
//!
//! A view that is woken wants the core and the GIL at once, and there is one GIL. Woken in the
//! middle of a pass over all sockets, each view would take the core away from the engine and then
//! wait for the view before it. So the engine reads all sockets first. When it has nothing left to
//! read, it rings for the event loops and wakes the first of the parked threads; each thread wakes
//! the next one when it is about to sleep. The engine stands back until all have had their turn,
//! so that the next pass finds many answers' successors instead of one.
//!
//! No view depends on another one's coming back: when there is no progress for about a
//! millisecond, because a view computes or waits for something else, all are woken, and for a
//! while each is woken as soon as its message is there.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};
use tokio::{runtime::Handle, task::yield_now};

use super::{
    connection::Connection,
    waiter::{Hub, Watch},
};

/// How long the engine stands back at most before it looks at its sockets again.
const PATIENCE: Duration = Duration::from_millis(1);
/// How long views are woken at once after they made no progress.
const APART: Duration = Duration::from_millis(100);
/// Views that may wait for an engine that never finds its sockets empty.
const MOST: usize = 64;
/// Bytes that may wait for them. A view shall find its messages in the processor's cache.
const MOST_BYTES: usize = 64 * 1024;

/// The views of one engine that have a message and still sleep. Any thread may use it.
#[derive(Debug)]
pub(super) struct Relay {
    state: Mutex<State>,
    done: Condvar,
    patience: Duration,
}

impl Default for Relay {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            done: Condvar::new(),
            patience: PATIENCE,
        }
    }
}

#[derive(Debug, Default)]
struct State {
    /// Those with a parked thread.
    parked: VecDeque<Arc<Connection>>,
    /// Those of event loops: hubs whose bell is to be rung.
    silent: Vec<Arc<Hub>>,
    /// Connections on their lists since somebody rang.
    noted: usize,
    /// Hubs that have been rung and not said that they are done.
    serving: usize,
    /// Bytes that came since somebody was woken for their number.
    bytes: usize,
    /// Grows with each step.
    steps: u64,
    engine_stands_back: bool,
    apart_until: Option<Instant>,
}

impl State {
    fn is_apart(&mut self) -> bool {
        let apart = self.apart_until.is_some_and(|until| Instant::now() < until);
        if !apart {
            self.apart_until = None;
        }
        apart
    }

    /// Notes that `bytes` more wait; whether these are enough.
    fn weigh(&mut self, bytes: usize) -> bool {
        self.bytes = self.bytes.saturating_add(bytes);
        let is_enough = self.bytes >= MOST_BYTES;
        if is_enough {
            self.bytes = 0;
        }
        is_enough
    }

    fn is_done(&self) -> bool {
        self.parked.is_empty() && self.serving == 0
    }

    fn step(&mut self) -> bool {
        self.steps += 1;
        self.engine_stands_back && self.is_done()
    }
}

impl Relay {
    /// Sees to it that the parked view of `connection` is woken soon.
    pub(super) fn add(&self, connection: &Arc<Connection>, bytes: usize) {
        let mut state = self.state.lock();
        if state.is_apart() {
            drop(state);
            connection.inbox.rouse();
            return;
        }
        state.parked.push_back(Arc::clone(connection));
        let is_enough = state.parked.len() >= MOST || state.weigh(bytes);
        drop(state);
        if is_enough {
            self.pass_on();
        }
    }

    /// Sees to it that the loop of `watch` hears of it soon.
    pub(super) fn ring(self: &Arc<Self>, watch: Watch, bytes: usize) {
        let mut state = self.state.lock();
        if state.is_apart() {
            drop(state);
            watch.ring();
            return;
        }
        if let Some(hub) = watch.note() {
            state.silent.push(hub);
        }
        state.noted += 1;
        if state.noted >= MOST || state.weigh(bytes) {
            self.ring_all(&mut state);
        }
    }

    fn ring_all(self: &Arc<Self>, state: &mut State) {
        state.noted = 0;
        for hub in state.silent.drain(..) {
            if hub.ring(self) {
                state.serving += 1;
            }
        }
    }

    /// Wakes the next thread; to be called by whoever is about to sleep.
    pub(super) fn pass_on(&self) {
        loop {
            let mut state = self.state.lock();
            let Some(next) = state.parked.pop_front() else {
                return;
            };
            let is_done = state.step();
            drop(state);
            if is_done {
                self.done.notify_one();
            }
            // It may have woken by itself.
            if next.inbox.rouse() {
                return;
            }
        }
    }

    /// A hub has served all that was on its list.
    pub(super) fn on_served(&self) {
        let mut state = self.state.lock();
        state.serving = state.serving.saturating_sub(1);
        let is_done = state.step();
        drop(state);
        if is_done {
            self.done.notify_one();
        }
    }

    /// Lets the views run; to be called by the engine when it has nothing to do.
    pub(super) fn run(self: &Arc<Self>, engine: &Handle) {
        let mut state = self.state.lock();
        self.ring_all(&mut state);
        if state.is_done() {
            return;
        }
        drop(state);
        self.pass_on();
        let mut state = self.state.lock();
        if state.is_done() {
            return;
        }
        let steps = state.steps;
        state.engine_stands_back = true;
        self.done.wait_for(&mut state, self.patience);
        state.engine_stands_back = false;
        if state.is_done() {
            return;
        }
        if state.steps == steps {
            state.apart_until = Instant::now().checked_add(APART);
            state.serving = 0;
            let stuck = std::mem::take(&mut state.parked);
            drop(state);
            for connection in stuck {
                connection.inbox.rouse();
            }
        } else {
            // A look at the sockets, and then here again.
            engine.spawn(yield_now());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        os::{fd::IntoRawFd, unix::net::UnixStream},
        sync::mpsc::{Receiver, Sender, channel},
        thread,
    };

    use bytes::Bytes;
    use tokio::runtime::{Builder, Runtime};

    use super::*;
    use crate::{
        engine::{
            connection::Settings, inbox::Taken, postman::Postman, rate::Rates, socket::Socket,
        },
        protocol::{
            deflate::Codecs,
            limits::Limits,
            message::{Kind, Message},
        },
    };

    struct Bed {
        relay: Arc<Relay>,
        runtime: Runtime,
        connections: Vec<Arc<Connection>>,
        woken: Receiver<usize>,
        _peers: Vec<UnixStream>,
    }

    /// Views that are parked, and say their number when they have been woken. Then they sleep
    /// again, if `answers`, or are busy for ever.
    fn parked(count: usize, answers: bool) -> Bed {
        let relay = Arc::new(Relay {
            // However busy the machine is, views that answer are waited for.
            patience: if answers {
                Duration::from_secs(60)
            } else {
                PATIENCE
            },
            ..Relay::default()
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
                &SETTINGS,
                Bytes::new(),
                Postman::at_home(),
                Arc::clone(&relay),
                &Codecs::default(),
            ));
            let (view, tell) = (Arc::clone(&connection), tell.clone());
            thread::spawn(move || take_all(&view, number, &tell, answers));
            while !connection.is_awaited() {
                thread::yield_now();
            }
            connections.push(connection);
        }
        Bed {
            relay,
            runtime: Builder::new_current_thread().build().unwrap(),
            connections,
            woken,
            _peers: peers,
        }
    }

    fn take_all(view: &Connection, number: usize, tell: &Sender<usize>, answers: bool) {
        while let Taken::Message(_) = view.take(None) {
            tell.send(number).unwrap();
            while !answers && view.end().is_none() {
                thread::yield_now();
            }
        }
    }

    const SETTINGS: Settings = Settings {
        limits: Limits {
            max_message_bytes: 1024,
            max_frame_bytes: u32::MAX,
            max_fragments: 16,
        },
        compression: None,
        rates: Rates {
            messages: None,
            bytes: None,
            timeout: None,
        },
        ping_interval: None,
        ping_timeout: None,
        receive_buffer_bytes: 1024,
        send_buffer_bytes: 1024,
        send_timeout: None,
        close_timeout: Duration::from_secs(1),
    };

    impl Bed {
        fn deliver(&self, number: usize) {
            self.connections[number].deliver(&mut vec![Message {
                kind: Kind::Text,
                payload: Bytes::from_static(b"hello"),
            }]);
        }

        fn run(&self) {
            self.relay.run(self.runtime.handle());
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
        let bed = parked(10, true);
        for number in 0..10 {
            bed.deliver(number);
        }
        assert!(bed.woken.try_recv().is_err());
        bed.run();
        let order: Vec<_> = (0..10).map(|_| bed.woken.recv().unwrap()).collect();
        assert_eq!(order, (0..10).collect::<Vec<_>>());
    }

    #[test]
    fn an_engine_that_never_finds_its_sockets_empty_wakes_views_all_the_same() {
        let bed = parked(MOST, true);
        for number in 0..MOST {
            bed.deliver(number);
        }
        for _ in 0..MOST {
            bed.woken.recv().unwrap();
        }
    }

    #[test]
    fn nobody_waits_for_a_view_that_does_not_come_back() {
        let bed = parked(4, false);
        for number in 0..3 {
            bed.deliver(number);
        }
        bed.run();
        let mut woken: Vec<_> = (0..3).map(|_| bed.woken.recv().unwrap()).collect();
        woken.sort_unstable();
        assert_eq!(woken, [0, 1, 2]);
        // For a while each is woken at once.
        assert!(bed.relay.state.lock().apart_until.is_some());
        bed.deliver(3);
        assert_eq!(bed.woken.recv().unwrap(), 3);
    }

    #[test]
    fn a_loop_is_rung_for_once_and_the_engine_stands_back_until_it_has_served() {
        let bed = parked(0, true);
        let hub = Hub::new().unwrap();
        for token in 1..=3 {
            bed.relay.ring(Watch::new(Arc::clone(&hub), token), 5);
        }
        assert_eq!(bed.relay.state.lock().silent.len(), 1);
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
}

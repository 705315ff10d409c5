//! Order in which views run, on a stepped or stalled engine.

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
        connection::{Connection, inbox::Received, settings::Settings},
        resources::socket::Socket,
    },
    protocol::{
        deflate::Codecs,
        message::{Kind, Message},
    },
};

struct Fixture {
    turns: Arc<Turns>,
    runtime: Runtime,
    connections: Vec<Arc<Connection>>,
    woken: Receiver<(usize, bool)>,
    peers: Vec<UnixStream>,
}

const AT_ONCE: Option<Duration> = Some(Duration::ZERO);

/// Views that are parked. Each answers a message, says its number and whether the answer is
/// corked, and asks for more after `work`; without, it is busy for ever.
fn parked(count: usize, work: Option<Duration>) -> Fixture {
    let turns = Arc::new(Turns {
        // Long enough for views that come back, on however busy a machine.
        max_stand_back: work.map(|_| Duration::from_secs(60)),
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
            &Settings::SMALL,
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
    Fixture {
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
    while let Received::Message(message) = view.take(None) {
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

impl Fixture {
    fn deliver(&self, number: usize) {
        self.connections[number].deliver(&mut vec![Message {
            kind: Kind::Text,
            payload: Bytes::from_static(HELLO),
        }]);
    }

    fn run(&self) {
        self.turns.run(self.runtime.handle());
    }

    /// Returns the first `count` views a turn.
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

impl Drop for Fixture {
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
    let fixture = parked(10, AT_ONCE);
    for number in 0..10 {
        fixture.deliver(number);
    }
    assert!(fixture.woken.try_recv().is_err());
    fixture.run();
    let order: Vec<_> = (0..10).map(|_| fixture.woken()).collect();
    assert_eq!(order, (0..10).collect::<Vec<_>>());
}

#[test]
fn an_engine_that_never_finds_its_sockets_empty_wakes_views_all_the_same() {
    let fixture = parked(MAX_VIEWS, AT_ONCE);
    for number in 0..MAX_VIEWS {
        fixture.deliver(number);
    }
    for _ in 0..MAX_VIEWS {
        fixture.woken();
    }
}

#[test]
fn no_view_waits_for_one_that_does_not_come_back() {
    let fixture = parked(4, None);
    fixture.turn(3);
    let mut woken: Vec<_> = (0..3).map(|_| fixture.woken()).collect();
    woken.sort_unstable();
    assert_eq!(woken, [0, 1, 2]);
    // For a while each is woken at once.
    // Made longer: on a machine with much to do it may be over before the next line.
    let much_later = Instant::now() + Duration::from_secs(60);
    let apart_until = fixture.turns.state.lock().apart_until.replace(much_later);
    assert!(apart_until.is_some());
    fixture.deliver(3);
    assert_eq!(fixture.woken(), 3);
}

#[test]
fn a_turn_that_panics_leaves_no_view_asleep_and_the_next_one_is_as_ever() {
    let fixture = parked(MIN_TO_COLLECT, AT_ONCE);
    for _ in 0..3 {
        fixture.turns.turn_panics.store(true, Ordering::SeqCst);
        fixture.turn(MIN_TO_COLLECT);
        assert!(!fixture.turns.turn_panics.load(Ordering::SeqCst));
        assert!(!fixture.turns.flush_timer.collects());
        let mut woken: Vec<_> = (0..MIN_TO_COLLECT).map(|_| fixture.woken()).collect();
        woken.sort_unstable();
        assert_eq!(woken, (0..MIN_TO_COLLECT).collect::<Vec<_>>());
        for number in 0..MIN_TO_COLLECT {
            assert!(fixture.answered(number));
            while !fixture.connections[number].is_awaited() {
                thread::yield_now();
            }
        }
    }
    fixture.turn(MIN_TO_COLLECT);
    for number in 0..MIN_TO_COLLECT {
        assert_eq!(fixture.woken.recv().unwrap(), (number, true));
        assert!(fixture.answered(number));
    }
}

#[test]
fn a_turn_that_panics_wakes_the_loops_all_the_same() {
    let fixture = parked(1, AT_ONCE);
    let hub = Hub::new().unwrap();
    fixture.turns.notify(Watch::new(Arc::clone(&hub), 7), 5);
    fixture.turns.turn_panics.store(true, Ordering::SeqCst);
    fixture.turn(1);
    assert_eq!(fixture.woken(), 0);
    // The loop has been woken already: this call has nothing to do.
    assert!(!hub.wake_if_needed(&fixture.turns));
    assert_eq!(hub.drain(), [7]);
}

#[test]
fn what_several_views_answer_in_one_turn_is_written_by_the_engine() {
    let fixture = parked(MIN_TO_COLLECT, AT_ONCE);
    fixture.turn(MIN_TO_COLLECT);
    for number in 0..MIN_TO_COLLECT {
        assert_eq!(fixture.woken.recv().unwrap(), (number, true));
        assert!(fixture.answered(number));
    }
}

#[test]
fn a_view_that_is_woken_on_its_own_writes_for_itself() {
    let fixture = parked(1, AT_ONCE);
    fixture.turn(1);
    assert_eq!(fixture.woken.recv().unwrap(), (0, false));
    assert!(fixture.answered(0));
}

#[test]
fn an_answer_does_not_wait_for_its_view_to_come_back() {
    let fixture = parked(MIN_TO_COLLECT, None);
    fixture.turn(MIN_TO_COLLECT);
    for _ in 0..MIN_TO_COLLECT {
        let number = fixture.woken();
        assert!(fixture.answered(number));
    }
}

#[test]
fn views_that_take_long_write_for_themselves_for_a_while() {
    let mut state = State::default();
    assert!(state.collecting_since(MIN_TO_COLLECT - 1).is_none());
    assert!(state.collecting_since(MIN_TO_COLLECT).is_some());
    state.alone_until = Some(Instant::now() + Duration::from_secs(60));
    assert!(state.collecting_since(MIN_TO_COLLECT).is_none());
    state.alone_until = Some(Instant::now());
    assert!(state.collecting_since(MIN_TO_COLLECT).is_some());

    let fixture = parked(MIN_TO_COLLECT, Some(QUICK_VIEW * 2));
    fixture.turn(MIN_TO_COLLECT);
    assert!(fixture.turns.state.lock().alone_until.is_some());
}

#[test]
fn a_loop_is_woken_once_and_the_engine_stands_back_until_it_has_served() {
    let fixture = parked(0, AT_ONCE);
    let hub = Hub::new().unwrap();
    for token in 1..=3 {
        fixture.turns.notify(Watch::new(Arc::clone(&hub), token), 5);
    }
    assert_eq!(fixture.turns.state.lock().unwoken.len(), 1);
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
    fixture.run();
    assert_eq!(serving.join().unwrap(), [1, 2, 3]);
}

#[test]
fn a_loop_of_two_engine_threads_tells_both_that_it_has_served() {
    let fixtures = [parked(0, AT_ONCE), parked(0, AT_ONCE)];
    let hub = Hub::new().unwrap();
    for (fixture, token) in fixtures.iter().zip(1..) {
        fixture.turns.notify(Watch::new(Arc::clone(&hub), token), 5);
        let mut state = fixture.turns.state.lock();
        fixture.turns.wake_loops(&mut state);
        drop(state);
        // The loop has woken; the next engine thread wakes it again before it is done.
        assert_eq!(hub.drain(), [token]);
    }
    hub.served();
    for fixture in &fixtures {
        assert!(fixture.turns.state.lock().serving.is_empty());
    }
}

#[test]
fn views_do_not_wait_for_an_engine_that_always_has_something_to_read() {
    let fixture = parked(1, AT_ONCE);
    fixture.deliver(0);
    let since = fixture.turns.state.lock().waiting_since.unwrap();
    while since.elapsed() < MAX_VIEW_WAIT {
        assert!(fixture.woken.try_recv().is_err());
        thread::yield_now();
    }
    fixture.turns.hurry();
    assert_eq!(fixture.woken(), 0);
    assert!(!fixture.turns.has_waiting.load(Ordering::Relaxed));
}

#[test]
fn a_loop_whose_views_come_back_is_no_standstill_however_long_it_takes() {
    let (quick, slow) = (Hub::new().unwrap(), Hub::new().unwrap());
    let comes_back = |hub: &Arc<Hub>| drop(Watch::new(Arc::clone(hub), 1));
    let serving = [&quick, &slow].map(|hub| (Arc::clone(hub), hub.steps()));
    let mut state = State {
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
    let fixture = parked(0, None);
    let hub = Hub::new().unwrap();
    for token in 0..3 {
        fixture.turns.notify(Watch::new(Arc::clone(&hub), token), 5);
    }
    fixture.run();
    let state = fixture.turns.state.lock();
    assert!(state.apart_until.is_some());
    assert!(state.serving.is_empty());
}

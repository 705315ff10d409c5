//! Steps of the clock, which is one for the process.

use std::{
    sync::{Arc, Barrier},
    thread,
    time::{Duration, Instant},
};

use _core::{
    engine::{Engine, Initiator, Rates, Received, Settings, clock, runtime},
    protocol::close::CloseFrame,
};

use crate::{
    alone,
    support::{
        SETTINGS, connect, expect_end,
        peer::{PING, PONG, TEXT, frame},
        take, until,
    },
};

const MINUTE: Duration = Duration::from_secs(60);

const PATIENT: Settings = Settings {
    ping_interval: Some(MINUTE),
    ping_timeout: Some(MINUTE),
    ..SETTINGS
};

fn step(time: Duration) {
    Engine::current().unwrap().step(time);
}

#[test]
fn a_step_sends_pings_and_gives_up_a_peer_that_does_not_answer() {
    alone(
        "clock::a_step_sends_pings_and_gives_up_a_peer_that_does_not_answer",
        || {
            let (connection, mut peer) = connect(&PATIENT);
            for _ in 0..3 {
                step(MINUTE);
                peer.expect(PING, b"");
                peer.send(PONG, b"");
                // The answer has to be read before the next step.
                step(Duration::ZERO);
            }
            assert_eq!(connection.end(), None);
            step(MINUTE);
            step(MINUTE);
            let reason = "the client did not answer a ping in time";
            expect_end(&connection, 1006, reason, Initiator::Lost);
            assert_eq!(clock::ahead(), 5 * MINUTE);
        },
    );
}

#[test]
fn a_step_lets_a_peer_go_on_that_was_faster_than_it_may_be() {
    alone(
        "clock::a_step_lets_a_peer_go_on_that_was_faster_than_it_may_be",
        || {
            let one_an_hour = Settings {
                rates: Rates {
                    messages: Some(1.0 / 3600.0),
                    bytes: None,
                    timeout: None,
                },
                ..SETTINGS
            };
            let (connection, mut peer) = connect(&one_an_hour);
            peer.write(&frame(TEXT, b"x").repeat(4));
            // One message is always allowed, and the next one as soon as the bucket is above zero.
            take(&connection);
            take(&connection);
            for _ in 0..2 {
                let taken = connection.take(Some(clock::now() + Duration::from_millis(50)));
                assert!(matches!(taken, Received::Nothing), "{taken:?}");
                step(61 * MINUTE);
                take(&connection);
            }
        },
    );
}

#[test]
fn a_step_wakes_a_waiting_view() {
    alone("clock::a_step_wakes_a_waiting_view", || {
        let (connection, _peer) = connect(&SETTINGS);
        let deadline = Some(clock::now() + MINUTE);
        let view = {
            let connection = Arc::clone(&connection);
            thread::spawn(move || connection.take(deadline))
        };
        until("the view waits", || connection.is_awaited());
        let start = Instant::now();
        step(MINUTE / 2);
        assert!(connection.is_awaited());
        step(MINUTE / 2);
        assert!(matches!(view.join().unwrap(), Received::Nothing));
        assert!(start.elapsed() < MINUTE / 2);
        assert!(!connection.is_awaited());
    });
}

#[test]
fn a_step_hurries_a_drain_and_the_engine_can_open_again() {
    alone(
        "clock::a_step_hurries_a_drain_and_the_engine_can_open_again",
        || {
            let (connections, _peers): (Vec<_>, Vec<_>) =
                (0..50).map(|_| connect(&SETTINGS)).unzip();
            let frame = CloseFrame::new(Some(1012), "").unwrap();
            runtime::leave();
            Engine::current().unwrap().drain(frame, 60 * MINUTE);
            let told = || connections.iter().filter(|c| c.end().is_some()).count();
            step(30 * MINUTE);
            assert!((24..=26).contains(&told()), "{}", told());
            step(30 * MINUTE);
            assert_eq!(told(), 50);
            runtime::reopen();
            assert!(!runtime::is_leaving());
            let (connection, _peer) = connect(&SETTINGS);
            assert_eq!(connection.end(), None);
        },
    );
}

/// The race: the clock is stepped while a view looks at it and falls asleep.
#[test]
fn no_view_sleeps_through_a_step() {
    alone("clock::no_view_sleeps_through_a_step", || {
        const ROUNDS: u32 = 500;
        const VIEWS: usize = 4;
        let (connection, _peer) = connect(&SETTINGS);
        for _ in 0..ROUNDS {
            let deadline = Some(clock::now() + MINUTE);
            let start = Arc::new(Barrier::new(VIEWS + 1));
            let views: Vec<_> = (0..VIEWS)
                .map(|_| {
                    let (connection, start) = (Arc::clone(&connection), Arc::clone(&start));
                    thread::spawn(move || {
                        start.wait();
                        connection.take(deadline)
                    })
                })
                .collect();
            start.wait();
            step(MINUTE);
            for view in views {
                until("the view wakes up", || view.is_finished());
                assert!(matches!(view.join().unwrap(), Received::Nothing));
            }
        }
    });
}

//! The end of the process.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use _core::{
    engine::{Connection, Engine, Error, Initiator, permits, runtime},
    protocol::{close::CloseFrame, message::Kind},
};

use crate::{
    alone,
    support::{
        HEAD, SETTINGS,
        chance::Chance,
        connect, connect_narrow, echo, expect_end,
        peer::{BINARY, Peer},
        send, tcp, until,
    },
};

fn going_away() -> CloseFrame {
    CloseFrame::new(Some(1001), "restart").unwrap()
}

fn shut_down(grace: Duration) -> Duration {
    let start = Instant::now();
    Engine::current().unwrap().shut_down(&going_away(), grace);
    start.elapsed()
}

#[test]
fn all_get_a_close_frame_and_it_ends_as_soon_as_all_have_answered() {
    alone(
        "shutdown::all_get_a_close_frame_and_it_ends_as_soon_as_all_have_answered",
        || {
            let (connections, mut peers): (Vec<_>, Vec<_>) =
                (0..100).map(|_| connect(&SETTINGS)).unzip();
            let views: Vec<_> = connections.iter().cloned().map(echo).collect();
            let clients = thread::spawn(move || {
                for peer in &mut peers {
                    peer.expect_close(1001, "restart");
                    peer.close(1001, "");
                    peer.expect_eof();
                }
            });
            let took = shut_down(Duration::from_secs(600));
            assert!(took < Duration::from_secs(60), "{took:?}");
            clients.join().unwrap();
            for view in views {
                view.join().unwrap();
            }
            for connection in connections {
                expect_end(&connection, 1001, "restart", Initiator::Local);
            }
            until("all places are free", || permits::open() == 0);
        },
    );
}

#[test]
fn peers_that_do_not_answer_are_cut_when_the_grace_is_over() {
    alone(
        "shutdown::peers_that_do_not_answer_are_cut_when_the_grace_is_over",
        || {
            let (connection, mut peer) = connect(&SETTINGS);
            let (blocked, mut slow) = connect_narrow(&SETTINGS);
            send(&blocked, Kind::Binary, &vec![0; 1_000_000]);
            let grace = Duration::from_millis(200);
            assert!(shut_down(grace) >= grace);
            peer.expect_close(1001, "restart");
            peer.expect_eof();
            expect_end(&connection, 1001, "restart", Initiator::Local);
            until("the slow one is cut off, too", || slow.is_refused());
            until("all places are free", || permits::open() == 0);
            assert!(slow.try_read().is_err());
            expect_end(&blocked, 1001, "restart", Initiator::Local);
        },
    );
}

#[test]
fn a_slow_reader_gets_everything_within_the_grace() {
    alone(
        "shutdown::a_slow_reader_gets_everything_within_the_grace",
        || {
            let (connection, mut peer) = connect_narrow(&SETTINGS);
            send(&connection, Kind::Binary, &vec![9; 1_000_000]);
            let reader = thread::spawn(move || {
                peer.expect(BINARY, &vec![9; 1_000_000]);
                peer.expect_close(1001, "restart");
                peer.close(1001, "");
                peer.expect_eof();
            });
            shut_down(Duration::from_secs(20));
            reader.join().unwrap();
        },
    );
}

#[test]
fn no_connection_is_taken_afterwards() {
    alone("shutdown::no_connection_is_taken_afterwards", || {
        let threads = || std::fs::read_dir("/proc/self/task").unwrap().count();
        let before = threads();
        Engine::current().unwrap();
        let took = shut_down(Duration::from_secs(600));
        assert!(took < Duration::from_secs(60), "{took:?}");
        let refused = || {
            let (server, client) = tcp();
            let permit = permits::Permit::claim(None).unwrap();
            let error = Engine::current()
                .unwrap()
                .adopt(server, vec![], HEAD.into(), &SETTINGS, permit)
                .unwrap_err();
            assert!(matches!(error, Error::ShuttingDown), "{error}");
            assert_eq!(permits::open(), 0);
            Peer::new(client).expect_refusal();
        };
        refused();
        // Also when the runtime's thread is gone.
        until("the engine's thread is gone", || threads() == before);
        refused();
        assert!(shut_down(Duration::from_secs(600)) < Duration::from_secs(60));
    });
}

#[test]
fn connections_that_come_while_it_shuts_down_are_refused_or_closed() {
    alone(
        "shutdown::connections_that_come_while_it_shuts_down_are_refused_or_closed",
        || {
            let engine = Engine::current().unwrap();
            let comers: Vec<_> = (0..4)
                .map(|_| {
                    let engine = engine.clone();
                    thread::spawn(move || {
                        loop {
                            let (server, client) = tcp();
                            let permit = permits::Permit::claim(None).unwrap();
                            let mut peer = Peer::new(client);
                            match engine.adopt(server, vec![], HEAD.into(), &SETTINGS, permit) {
                                Err(error) => {
                                    assert!(matches!(error, Error::ShuttingDown), "{error}");
                                    return peer.expect_refusal();
                                }
                                Ok(_) => thread::spawn(move || {
                                    peer.expect_head();
                                    peer.expect_close(1001, "restart");
                                    peer.close(1001, "");
                                    peer.expect_eof();
                                }),
                            };
                        }
                    })
                })
                .collect();
            until("some have come", || permits::open() > 20);
            shut_down(Duration::from_secs(20));
            for comer in comers {
                comer.join().unwrap();
            }
            until("all places are free", || permits::open() == 0);
        },
    );
}

/// Has a client taken over, after a moment.
fn come(engine: &Engine) -> (Result<Arc<Connection>, Error>, Peer) {
    let (server, client) = tcp();
    Chance::new().dawdle();
    let permit = permits::Permit::claim(None).unwrap();
    let adopted = engine.adopt(server, vec![], HEAD.into(), &SETTINGS, permit);
    (adopted, Peer::new(client))
}

/// The race: a connection is taken over at the very moment when the process begins to close those
/// that it has, again and again.
#[test]
fn a_connection_that_comes_as_the_closing_begins_is_refused_or_closed() {
    alone(
        "shutdown::a_connection_that_comes_as_the_closing_begins_is_refused_or_closed",
        || {
            let engine = Engine::current().unwrap();
            let mut chance = Chance::new();
            let (mut refused, mut told) = (0, 0);
            for round in 0..300 {
                let comers: Vec<_> = (0..4)
                    .map(|_| {
                        let engine = engine.clone();
                        thread::spawn(move || come(&engine))
                    })
                    .collect();
                chance.dawdle();
                runtime::leave();
                // Close them at once, or spread over a moment.
                let window = Duration::from_micros(if round % 2 == 0 { 0 } else { 500 });
                engine.drain(going_away(), window);
                for comer in comers {
                    let (adopted, mut peer) = comer.join().unwrap();
                    if let Err(error) = adopted {
                        assert!(matches!(error, Error::ShuttingDown), "{error}");
                        peer.expect_refusal();
                        refused += 1;
                    } else {
                        peer.expect_head();
                        peer.expect_close(1001, "restart");
                        peer.close(1001, "");
                        told += 1;
                        peer.expect_eof();
                    }
                }
                until("all places are free", || permits::open() == 0);
                runtime::reopen();
            }
            assert!(refused > 0 && told > 0, "{refused} refused, {told} told");
        },
    );
}

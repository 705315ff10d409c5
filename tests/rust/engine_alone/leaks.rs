//! Nothing is left of connections that are gone.

use std::{os::fd::OwnedFd, thread};

use _core::{
    engine::{Engine, Error, Received, permits},
    protocol::{close::CloseFrame, message::Kind},
};

use crate::{
    alone,
    support::{
        HEAD, SETTINGS, connect, echo,
        peer::{Peer, TEXT},
        tcp, until,
    },
};

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

#[test]
fn many_connections_however_they_end_leave_nothing() {
    alone(
        "leaks::many_connections_however_they_end_leave_nothing",
        || {
            assert_eq!(permits::open(), 0);
            drop(connect(&SETTINGS)); // The engine itself needs a few descriptors and a thread.
            until("the first is gone", || permits::open() == 0);
            let (files, workers) = (descriptors(), threads());

            let (connections, peers): (Vec<_>, Vec<_>) =
                (0..500).map(|_| connect(&SETTINGS)).unzip();
            assert_eq!(permits::open(), 500);
            assert_eq!(descriptors(), files + 1000);
            assert_eq!(threads(), workers);
            for (number, (connection, mut peer)) in connections.iter().zip(peers).enumerate() {
                peer.send(TEXT, b"hello");
                match number % 5 {
                    0 => peer.hang_up(),
                    1 => peer.reset(),
                    2 => {
                        peer.close(1000, "");
                        peer.expect_close(1000, "");
                    }
                    3 => {
                        connection.close(&CloseFrame::default());
                    }
                    _ => peer.write(&[0xFF; 20]),
                }
            }
            until("all are gone", || permits::open() == 0);
            // The descriptors are closed also while the views still hold their connections.
            assert_eq!(descriptors(), files);
            for connection in connections {
                assert!(!connection.send(Kind::Text, b"?", None).unwrap());
                while !matches!(connection.take(None), Received::End) {}
            }
            // No connection is left to wait for.
            let grace = std::time::Duration::MAX;
            Engine::current()
                .unwrap()
                .shut_down(&CloseFrame::default(), grace);
        },
    );
}

#[test]
fn a_view_that_forgets_its_connection_does_not_keep_it() {
    alone(
        "leaks::a_view_that_forgets_its_connection_does_not_keep_it",
        || {
            let (connection, mut peer) = connect(&SETTINGS);
            let weak = std::sync::Arc::downgrade(&connection);
            let view = echo(connection);
            peer.send(TEXT, b"hello");
            peer.expect(TEXT, b"hello");
            peer.hang_up();
            view.join().unwrap();
            until("it is freed", || weak.strong_count() == 0);
        },
    );
}

#[test]
fn places_are_limited_and_given_back_when_the_connection_is_gone() {
    alone(
        "leaks::places_are_limited_and_given_back_when_the_connection_is_gone",
        || {
            let permit = permits::Permit::claim(Some(1)).unwrap();
            assert!(permits::Permit::claim(Some(1)).is_none());
            assert!(permits::Permit::claim(Some(0)).is_none());
            let (server, client) = tcp();
            let connection = Engine::current()
                .unwrap()
                .adopt(server, vec![], HEAD.into(), &SETTINGS, permit)
                .unwrap();
            assert_eq!(permits::open(), 1);
            drop(permits::Permit::claim(Some(2)).unwrap());
            assert_eq!(permits::open(), 1);
            Peer::new(client).hang_up();
            until("the place is free", || permits::open() == 0);
            drop(connection);
            assert_eq!(permits::open(), 0);
        },
    );
}

#[test]
fn many_threads_never_take_more_places_than_there_are() {
    alone(
        "leaks::many_threads_never_take_more_places_than_there_are",
        || {
            thread::scope(|scope| {
                for _ in 0..8 {
                    scope.spawn(|| {
                        for _ in 0..10_000 {
                            let permit = permits::Permit::claim(Some(3));
                            assert!(permits::open() <= 3);
                            drop(permit);
                        }
                    });
                }
            });
            assert_eq!(permits::open(), 0);
        },
    );
}

#[test]
fn what_cannot_be_driven_is_an_error_and_gives_its_place_and_descriptor_back() {
    alone(
        "leaks::what_cannot_be_driven_is_an_error_and_gives_its_place_and_descriptor_back",
        || {
            let engine = Engine::current().unwrap();
            let adopt = |descriptor| {
                let permit = permits::Permit::claim(None).unwrap();
                engine.adopt(descriptor, vec![], HEAD.into(), &SETTINGS, permit)
            };
            let files = descriptors();
            let file: OwnedFd = std::fs::File::open("/proc/self/exe").unwrap().into();
            let (pipe, writer) = std::io::pipe().unwrap();
            for descriptor in [file, pipe.into()] {
                let error = adopt(descriptor).unwrap_err();
                assert!(matches!(error, Error::Io { .. }), "{error}");
                assert_eq!(permits::open(), 0);
            }
            drop(writer);
            assert_eq!(descriptors(), files);
        },
    );
}

#[test]
fn threads_that_start_the_engine_together_share_one() {
    alone(
        "leaks::threads_that_start_the_engine_together_share_one",
        || {
            assert!(Engine::running().is_none());
            let workers = threads();
            let engines: Vec<_> = thread::scope(|scope| {
                let starters: Vec<_> = (0..16)
                    .map(|_| scope.spawn(|| Engine::current().unwrap()))
                    .collect();
                starters
                    .into_iter()
                    .map(|starter| starter.join().unwrap())
                    .collect()
            });
            let first = &engines[0];
            assert!(
                engines
                    .iter()
                    .all(|engine| std::sync::Arc::ptr_eq(engine, first))
            );
            until("one thread is left", || threads() == workers + 1);
        },
    );
}

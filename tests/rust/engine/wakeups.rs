//! No thread or task sleeps on when it has to be woken, whatever the moment. Each test names the
//! race that it provokes by random timing.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use _core::{
    engine::{Connection, Hub, Received, Watch},
    protocol::{close::CloseFrame, message::Kind},
};

use crate::{
    support::{
        SETTINGS,
        chance::Chance,
        connect, echo,
        peer::{BINARY, Peer, TEXT, close_payload, frame},
        race_time, take, until,
    },
    waiting::is_readable,
};

const RINGERS: u64 = 4;

/// Notifies watches until the deadline, and gives how many.
fn ring(connection: &Connection, hub: &Arc<Hub>, ringer: u64, deadline: Instant) -> u64 {
    let mut number = 0;
    while Instant::now() < deadline {
        // A message is here already, so `watch_inbox` itself notifies the watch.
        let token = number * RINGERS + ringer;
        connection.watch_inbox(Watch::new(Arc::clone(hub), token));
        number += 1;
    }
    number
}

/// The race: a watch is notified while the loop, which has emptied the descriptor, takes the list;
/// or two watches are notified first at once. A token on the list of a hub whose descriptor is not
/// readable would stay there.
#[test]
fn a_notification_is_found_whenever_it_comes() {
    let hub = Hub::new().unwrap();
    let deadline = Instant::now() + race_time();
    let ringing = AtomicUsize::new(0);
    thread::scope(|scope| {
        let ringers: Vec<_> = (0..RINGERS)
            .map(|ringer| {
                let (connection, mut peer) = connect(&SETTINGS);
                peer.send(TEXT, b"never taken");
                until("it is there", || connection.waiting().0 == 1);
                ringing.fetch_add(1, Ordering::SeqCst);
                let (hub, ringing) = (&hub, &ringing);
                scope.spawn(move || {
                    let _peer = peer;
                    let number = ring(&connection, hub, ringer, deadline);
                    ringing.fetch_sub(1, Ordering::SeqCst);
                    number
                })
            })
            .collect();
        let mut heard = vec![0; ringers.len()];
        let mut chance = Chance::new();
        loop {
            let all_rang = ringing.load(Ordering::SeqCst) == 0;
            if is_readable(&hub) {
                for token in hub.drain() {
                    let next = &mut heard[usize::try_from(token % RINGERS).unwrap()];
                    assert_eq!(token / RINGERS, *next, "lost, doubled or out of order");
                    *next += 1;
                }
            } else if all_rang {
                break;
            }
            chance.dawdle();
        }
        let rung: Vec<_> = ringers.into_iter().map(|r| r.join().unwrap()).collect();
        assert_eq!(heard, rung);
    });
}

/// Sends messages until the deadline, each after the answer to the one before, and gives how many.
fn talk(mut peer: Peer, deadline: Instant) -> u32 {
    let mut chance = Chance::new();
    let mut count = 0_u32;
    while Instant::now() < deadline {
        peer.send(BINARY, &count.to_be_bytes());
        // A view that missed this message would wait for the next one for ever.
        peer.expect(BINARY, &count.to_be_bytes());
        count += 1;
        chance.dawdle();
    }
    peer.hang_up();
    count
}

/// The race: a message comes between a view's look into the inbox and its watch, or while a watch
/// that was given up is removed.
#[test]
fn no_message_is_left_in_an_inbox_that_is_watched() {
    let deadline = Instant::now() + race_time();
    let hub = Hub::new().unwrap();
    let (connection, peer) = connect(&SETTINGS);
    let talking = thread::spawn(move || talk(peer, deadline));
    let mut chance = Chance::new();
    let mut token = 0;
    let mut count = 0;
    loop {
        match connection.take_now() {
            Received::Message(message) => {
                assert!(
                    connection
                        .send(message.kind, &message.payload, None)
                        .unwrap()
                );
                count += 1;
            }
            Received::End => break,
            Received::Nothing => {
                token += 1;
                connection.watch_inbox(Watch::new(Arc::clone(&hub), token));
                if chance.below(4) == 0 {
                    connection.unwatch(&hub, token);
                    continue;
                }
                // The notification of a watch that was removed may still be on its way.
                while !hub.drain().contains(&token) {
                    until("the hub rings", || is_readable(&hub));
                }
            }
        }
    }
    assert_eq!(talking.join().unwrap(), count);
}

/// The race: an answer is corked at the very moment when the task of the flush timer, which has had
/// nothing to do for a while, ends.
#[test]
fn what_is_corked_leaves_though_the_flush_timer_has_stopped() {
    let deadline = Instant::now() + race_time();
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let (connection, mut peer) = connect(&SETTINGS);
                // One message waits all the time, so that answers are corked; the view never takes
                // it.
                peer.send(TEXT, b"unanswered");
                until("it is there", || connection.waiting().0 == 1);
                let mut chance = Chance::new();
                let mut number = 0_u32;
                while Instant::now() < deadline {
                    assert!(connection.cork(Kind::Binary, &number.to_be_bytes()));
                    peer.expect(BINARY, &number.to_be_bytes());
                    number += 1;
                    // The task ends after five rounds of a millisecond or a little more.
                    thread::sleep(Duration::from_micros(4000 + chance.below(6000)));
                }
            });
        }
    });
}

/// The race: a view finds its inbox empty, or closes, while the driver decides whether to
/// wait for the view's answers before it closes after a violation.
#[test]
fn the_close_frame_of_a_failure_comes_behind_the_answers_and_without_delay() {
    let deadline = Instant::now() + race_time();
    let mut chance = Chance::new();
    while Instant::now() < deadline {
        let (connection, mut peer) = connect(&SETTINGS);
        let count = chance.below(4);
        let view = if chance.below(3) == 0 {
            let connection = Arc::clone(&connection);
            thread::spawn(move || {
                let mut chance = Chance::new();
                while let Received::Message(message) = connection.take(None) {
                    chance.dawdle();
                    connection
                        .send(message.kind, &message.payload, None)
                        .unwrap();
                }
                // The client gets the close frame of the failure, not that of the view.
                connection.close(&CloseFrame::default());
            })
        } else {
            echo(Arc::clone(&connection))
        };
        for number in 0..count {
            peer.send(TEXT, &[b'0' + u8::try_from(number).unwrap()]);
            chance.dawdle();
        }
        peer.write(&frame(0x83, b""));
        for number in 0..count {
            peer.expect(TEXT, &[b'0' + u8::try_from(number).unwrap()]);
        }
        // The close frame must not come after the close timeout only: the peer waits no longer.
        let (_, payload) = peer.read();
        assert_eq!(payload[..2], close_payload(1002, ""));
        peer.expect_eof();
        view.join().unwrap();
    }
}

/// The race: takers give up at the moment when a message wakes one of them. The wake-up must not be
/// lost while the last taker sleeps on.
#[test]
fn a_message_wakes_the_taker_that_does_not_give_up() {
    let deadline = Instant::now() + race_time();
    let (connection, mut peer) = connect(&SETTINGS);
    let mut chance = Chance::new();
    while Instant::now() < deadline {
        thread::scope(|scope| {
            let impatient: Vec<_> = (0..3)
                .map(|_| {
                    let timeout = Duration::from_micros(chance.below(300));
                    let connection = &connection;
                    scope.spawn(move || connection.take(Some(Instant::now() + timeout)))
                })
                .collect();
            let patient = scope.spawn(|| take(&connection));
            chance.dawdle();
            peer.send(TEXT, b"for one");
            let taken = impatient
                .into_iter()
                .map(|taker| taker.join().unwrap())
                .filter(|taken| matches!(taken, Received::Message(_)))
                .count();
            if taken == 1 {
                peer.send(TEXT, b"for the last");
            }
            patient.join().unwrap();
        });
        assert_eq!(connection.waiting(), (0, false));
    }
}

/// The race: a view begins a coarse sleep, which has no timer of its own, while the driver ends its
/// watch over the last one.
#[test]
fn every_coarse_sleep_comes_to_its_end() {
    let deadline = Instant::now() + race_time();
    let (connection, mut peer) = connect(&SETTINGS);
    let (ended, taken) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut chance = Chance::new();
            loop {
                match connection.take_coarse(Duration::from_micros(chance.below(2000))) {
                    Received::Message(_) => taken.fetch_add(1, Ordering::SeqCst),
                    Received::Nothing => ended.fetch_add(1, Ordering::SeqCst),
                    Received::End => return,
                };
            }
        });
        let mut chance = Chance::new();
        let mut sent = 0;
        while Instant::now() < deadline {
            // The peer sends nothing, so only their time can end these sleeps.
            let before = ended.load(Ordering::SeqCst);
            until("three coarse sleeps end", || {
                ended.load(Ordering::SeqCst) > before + 2
            });
            thread::sleep(Duration::from_micros(chance.below(2000)));
            peer.send(TEXT, b"wake up");
            sent += 1;
            until("it is taken", || taken.load(Ordering::SeqCst) == sent);
        }
        connection.close(&CloseFrame::default());
    });
}

//! Senders that wait for room in the outbox.

use std::{sync::Arc, thread, time::Duration};

use _core::{
    engine::{Connection, Hub, Settings, Watch},
    protocol::message::Kind,
};
use socket2::SockRef;

use crate::support::{
    LIMIT, SETTINGS, join,
    peer::{BINARY, Peer, TEXT},
    take, unix, until,
};

/// Room for little more than what is corked, and more of that than the socket takes.
const HELD: usize = 16_000;
const SMALL: Settings = Settings {
    send_buffer_bytes: HELD + 100,
    ..SETTINGS
};

/// Time after which no driver has anything more to do by itself.
const FIRST_LOOK: Duration = Duration::from_millis(2200);

/// A connection whose view has held a reply back that the socket will not take at once.
fn holding() -> (Arc<Connection>, Peer) {
    let (server, client) = unix();
    SockRef::from(&server).set_send_buffer_size(4096).unwrap();
    let (connection, mut peer) = join((server, client), &SMALL);
    // The driver of a new connection wakes once by itself, and would write the reply then.
    thread::sleep(FIRST_LOOK);
    // Replies wait for each other only while more messages wait for the view.
    peer.send(TEXT, b"first");
    peer.send(TEXT, b"second");
    take(&connection);
    until("the second is there", || connection.waiting().0 == 1);
    assert!(connection.cork(Kind::Binary, &[1; HELD]));
    (connection, peer)
}

#[test]
fn a_sender_that_sleeps_behind_what_was_corked_has_the_driver_write_it() {
    let (connection, mut peer) = holding();
    let sender = thread::spawn(move || {
        let timeout = Some(LIMIT);
        connection.send(Kind::Binary, &[2; HELD], timeout)
    });
    peer.expect(BINARY, &[1; HELD]);
    peer.expect(BINARY, &[2; HELD]);
    assert!(sender.join().unwrap().unwrap());
}

#[test]
fn a_task_that_waits_behind_what_was_corked_has_the_driver_write_it() {
    let (connection, mut peer) = holding();
    let hub = Hub::new().unwrap();
    assert_eq!(connection.try_send(Kind::Binary, &[2; HELD]), None);
    connection.watch_outbox(Watch::new(Arc::clone(&hub), 7));
    peer.socket.set_read_timeout(Some(LIMIT / 4)).unwrap();
    peer.expect(BINARY, &[1; HELD]);
    until("the task hears of the room", || hub.drain() == [7]);
    assert_eq!(connection.try_send(Kind::Binary, &[2; HELD]), Some(true));
    peer.expect(BINARY, &[2; HELD]);
}

/// Bytes that the outbox of [`full`] holds.
const CAPACITY: usize = 64 * 1024;
const LARGE: usize = CAPACITY - 100;
static LARGE_ONE: [u8; LARGE] = [2; LARGE];

/// A connection whose outbox is full of small messages, and a peer that reads when the test says
/// so.
fn full() -> (Arc<Connection>, Peer) {
    let settings = Settings {
        send_buffer_bytes: CAPACITY,
        ..SETTINGS
    };
    let (server, client) = unix();
    SockRef::from(&server).set_send_buffer_size(4096).unwrap();
    let (connection, peer) = join((server, client), &settings);
    while send_small(&connection, Duration::from_millis(100)) {}
    (connection, peer)
}

fn send_small(connection: &Connection, timeout: Duration) -> bool {
    (connection.send(Kind::Binary, &[1; 1000], Some(timeout))).is_ok()
}

/// Reads up to the first large message; how many small ones came before.
fn small_ones_before_the_large(peer: &mut Peer) -> usize {
    let mut before = 0;
    loop {
        match peer.read().1.len() {
            LARGE => return before,
            length => assert_eq!(length, 1000),
        }
        before += 1;
    }
}

#[test]
fn a_large_message_is_not_overtaken_for_ever_by_small_ones() {
    let (connection, mut peer) = full();
    thread::scope(|scope| {
        scope.spawn(|| {
            connection
                .send(Kind::Binary, &LARGE_ONE, Some(LIMIT))
                .unwrap()
        });
        until("it waits", || connection.is_awaited());
        for _ in 0..4 {
            // The small messages would fit sooner, each time.
            scope.spawn(|| while connection.end().is_none() && send_small(&connection, LIMIT) {});
        }
        let before = small_ones_before_the_large(&mut peer);
        assert!(before <= CAPACITY / 1000 + 20, "{before} small ones");
        peer.close(1000, "");
    });
}

#[test]
fn a_task_s_large_message_is_not_overtaken_for_ever_by_those_of_other_tasks() {
    let (connection, peer) = full();
    let hub = Hub::new().unwrap();
    let watch = |token| connection.watch_outbox(Watch::new(Arc::clone(&hub), token));
    thread::scope(|scope| {
        // Moved into this closure: a failure drops the peer, which ends the connection, and so its
        // tasks.
        let mut peer = peer;
        let tasks = scope.spawn(|| {
            (1..=2).for_each(watch);
            let mut is_sent = false;
            while connection.end().is_none() {
                for token in hub.drain() {
                    if token == 1 {
                        is_sent = connection.try_send(Kind::Binary, &LARGE_ONE).is_some();
                    } else {
                        // One message in each turn: a task that sends more lets no other task run.
                        connection.try_send(Kind::Binary, &[1; 1000]);
                    }
                    if token == 2 || !is_sent {
                        watch(token);
                    }
                }
            }
        });
        let before = small_ones_before_the_large(&mut peer);
        assert!(before <= 3 * CAPACITY / 1000, "{before} small ones");
        peer.close(1000, "");
        tasks.join().unwrap();
    });
}

#[test]
fn small_messages_go_on_when_the_large_one_is_given_up() {
    let (connection, mut peer) = full();
    let hub = Hub::new().unwrap();
    let in_vain = connection.send(Kind::Binary, &LARGE_ONE, Some(Duration::from_millis(50)));
    in_vain.unwrap_err();
    for token in 1..=2 {
        assert_eq!(connection.try_send(Kind::Binary, &LARGE_ONE), None);
        connection.watch_outbox(Watch::new(Arc::clone(&hub), token));
    }
    connection.unwatch(&hub, 1);
    assert!(!send_small(&connection, Duration::ZERO));
    for _ in 0..10 {
        assert_eq!(peer.read().1.len(), 1000);
    }
    connection.unwatch(&hub, 2);
    until("there is room", || send_small(&connection, Duration::ZERO));
}

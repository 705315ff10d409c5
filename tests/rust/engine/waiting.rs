//! Views that sleep, on threads and on event loops.

use std::{
    collections::HashSet,
    os::fd::BorrowedFd,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use _core::{
    engine::{Connection, Hub, Received, Watch},
    protocol::close::CloseFrame,
};
use socket2::SockRef;

use crate::support::{
    LIMIT, SETTINGS, connect, connect_narrow, fill,
    peer::{BINARY, TEXT},
    take, until,
};

fn takers(connection: &Arc<Connection>, count: usize) -> Vec<thread::JoinHandle<Received>> {
    (0..count)
        .map(|_| {
            let connection = Arc::clone(connection);
            thread::spawn(move || connection.take(None))
        })
        .collect()
}

#[test]
fn each_message_wakes_one_thread_and_the_end_wakes_all() {
    let (connection, mut peer) = connect(&SETTINGS);
    let takers = takers(&connection, 8);
    for count in 0..3 {
        peer.send(TEXT, &[b'0' + count]);
    }
    until("three have something", || {
        takers.iter().filter(|taker| taker.is_finished()).count() == 3
    });
    connection.close(&CloseFrame::default());
    let mut messages = HashSet::new();
    let mut ends = 0;
    for taker in takers {
        match taker.join().unwrap() {
            Received::Message(message) => assert!(messages.insert(message.payload)),
            Received::End => ends += 1,
            Received::Nothing => panic!("nobody gave a deadline"),
        }
    }
    assert_eq!((messages.len(), ends), (3, 5));
}

#[test]
fn a_hang_up_wakes_all() {
    let (connection, peer) = connect(&SETTINGS);
    let takers = takers(&connection, 4);
    peer.reset();
    for taker in takers {
        assert!(matches!(taker.join().unwrap(), Received::End));
    }
}

#[test]
fn the_deadline_wakes_and_the_past_does_not_sleep() {
    let (connection, mut peer) = connect(&SETTINGS);
    let deadline = Instant::now() + Duration::from_millis(50);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                assert!(matches!(connection.take(Some(deadline)), Received::Nothing));
                assert!(Instant::now() >= deadline);
            });
        }
    });
    assert!(matches!(connection.take(Some(deadline)), Received::Nothing));
    peer.send(BINARY, b"late");
    until("it is here", || connection.waiting() == (1, false));
    // A message that is here is taken even after the deadline.
    assert!(matches!(
        connection.take(Some(deadline)),
        Received::Message(_)
    ));
}

pub(crate) fn is_readable(hub: &Hub) -> bool {
    #[expect(unsafe_code, reason = "an event loop gets the bare descriptor, too")]
    // SAFETY: the hub, which is borrowed here, keeps its descriptor open.
    let descriptor = unsafe { BorrowedFd::borrow_raw(hub.descriptor()) };
    SockRef::from(&descriptor)
        .peek(&mut [std::mem::MaybeUninit::uninit()])
        .is_ok()
}

/// The tokens on the hub's list, once its descriptor is readable.
#[track_caller]
fn announced(hub: &Hub) -> Vec<u64> {
    until("the hub wakes", || is_readable(hub));
    hub.drain()
}

#[test]
fn an_inbox_watch_is_notified_once_for_a_message_and_for_the_end() {
    let hub = Hub::new().unwrap();
    let (connection, mut peer) = connect(&SETTINGS);
    let watch = |token| connection.watch_inbox(Watch::new(Arc::clone(&hub), token));
    watch(1);
    assert!(!is_readable(&hub));
    peer.send(TEXT, b"a");
    assert_eq!(announced(&hub), [1]);
    peer.send(TEXT, b"b");
    until("it is here", || connection.waiting() == (2, false));
    assert!(!is_readable(&hub) && hub.drain().is_empty());
    // A message that is here notifies a new watch at once.
    watch(2);
    assert_eq!(announced(&hub), [2]);
    take(&connection);
    take(&connection);
    watch(3);
    watch(4);
    assert!(!is_readable(&hub));
    peer.hang_up();
    // One after the other.
    let mut both = announced(&hub);
    while both.len() < 2 {
        both.extend(announced(&hub));
    }
    assert_eq!(both, [3, 4]);
    watch(5);
    assert_eq!(announced(&hub), [5]);
}

#[test]
fn an_outbox_watch_is_notified_once_for_room_and_for_the_end() {
    let hub = Hub::new().unwrap();
    let (connection, mut peer) = connect_narrow(&SETTINGS);
    let watch = |token| connection.watch_outbox(Watch::new(Arc::clone(&hub), token));
    watch(1);
    assert_eq!(announced(&hub), [1]);
    let payload = vec![0; 100_000];
    let count = fill(&connection, &payload);
    watch(2);
    assert!(!is_readable(&hub));
    // The system reports room when it has much of it.
    let mut read = 0;
    while read < count && !is_readable(&hub) {
        peer.expect(BINARY, &payload);
        read += 1;
    }
    assert_eq!(announced(&hub), [2]);
    for _ in read..count {
        peer.expect(BINARY, &payload);
    }
    assert!(hub.drain().is_empty());
    assert!(fill(&connection, &payload) > 0);
    watch(3);
    connection.close(&CloseFrame::default());
    assert_eq!(announced(&hub), [3]);
}

#[test]
fn one_hub_is_notified_by_many_connections_and_loses_none() {
    let hub = Hub::new().unwrap();
    let (connections, mut peers): (Vec<_>, Vec<_>) = (0..50).map(|_| connect(&SETTINGS)).unzip();
    for (connection, token) in connections.iter().zip(0..) {
        connection.watch_inbox(Watch::new(Arc::clone(&hub), token));
    }
    let talking = thread::spawn(move || {
        for round in 0..20 {
            for peer in &mut peers {
                peer.send(TEXT, format!("{round}").as_bytes());
            }
        }
        peers
    });
    let mut counts = vec![0; connections.len()];
    let deadline = Instant::now() + LIMIT;
    while counts.iter().any(|count| *count < 20) {
        assert!(Instant::now() < deadline, "{counts:?}");
        for token in announced(&hub) {
            let at = usize::try_from(token).unwrap();
            while let Received::Message(message) =
                connections[at].take(Some(deadline.min(Instant::now())))
            {
                assert_eq!(message.payload, format!("{}", counts[at]));
                counts[at] += 1;
            }
            connections[at].watch_inbox(Watch::new(Arc::clone(&hub), token));
        }
    }
    drop(talking.join().unwrap());
}

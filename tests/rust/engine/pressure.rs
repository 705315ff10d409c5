//! Slow views, slow peers, and peers that flood.

use std::{
    io::Write,
    thread,
    time::{Duration, Instant},
};

use _core::{
    engine::{Error, Initiator, Received, Settings},
    protocol::message::Kind,
};

use crate::support::{
    KINDS, SETTINGS, connect, connect_narrow, expect_end, fill, join,
    peer::{BINARY, PING, PONG, TEXT, frame},
    send, take, until,
};

#[test]
fn a_full_inbox_pushes_back_and_goes_on_when_there_is_room() {
    for kind in KINDS {
        for (size, buffer, most) in [
            (100, 1024 * 1024, 1024),
            (100_000, 1024 * 1024, 11),
            (100_000, 1, 1),
        ] {
            let settings = Settings {
                receive_buffer_bytes: buffer,
                ..SETTINGS
            };
            let (connection, mut peer) = join(kind(), &settings);
            let bytes = frame(BINARY, &vec![3; size]);
            let count = 24 * 1024 * 1024 / bytes.len();
            let all = bytes.repeat(count);
            let written = peer.write_until_blocked(&all);
            assert!(written < all.len() / 4 * 3, "{written} bytes were taken in");
            let (waiting, ended) = connection.waiting();
            assert!(waiting <= most && !ended, "{waiting} messages wait");
            thread::scope(|scope| {
                scope.spawn(|| peer.socket.write_all(&all[written..]).unwrap());
                for _ in 0..count {
                    let (_, payload) = take(&connection);
                    assert_eq!(payload.len(), size);
                    assert!(connection.waiting().0 <= most);
                }
            });
        }
    }
}

#[test]
fn a_patient_sender_sleeps_and_learns_when_its_time_is_up() {
    let (connection, mut peer) = connect_narrow(&SETTINGS);
    fill(&connection, &[0; 10_000]);
    let timeout = Duration::from_millis(100);
    let start = Instant::now();
    let outcome = connection.send(Kind::Text, &vec![b'x'; 100_000], Some(timeout));
    assert!(start.elapsed() >= timeout);
    assert!(
        matches!(
            outcome,
            Err(Error::SendTimeout { waited, capacity: 1_048_576 }) if waited == timeout
        ),
        "{outcome:?}"
    );
    // The connection stays open, and the message that was given up is not sent later.
    assert_eq!(connection.end(), None);
    thread::scope(|scope| {
        scope.spawn(|| send(&connection, Kind::Text, &vec![b'y'; 100_000]));
        while peer.read() != (TEXT, vec![b'y'; 100_000]) {}
    });
}

#[test]
fn an_impatient_sender_closes_the_slow_peer() {
    let (connection, mut peer) = connect_narrow(&SETTINGS);
    let mut count = 0;
    while connection
        .send(Kind::Binary, &vec![1; 100_000], None)
        .unwrap()
    {
        count += 1;
    }
    assert!(count >= 10);
    for _ in 0..count {
        peer.expect(BINARY, &vec![1; 100_000]);
    }
    peer.expect_close(1013, "too slow");
    peer.close(1013, "");
    peer.expect_eof();
    expect_end(&connection, 1013, "too slow", Initiator::Local);
}

#[test]
fn senders_keep_their_order_and_never_cut_into_each_other() {
    const SENDERS: u8 = 4;
    const EACH: u32 = 2000;
    let size_of = |number: u32| usize::try_from(number * 7 % 5000).unwrap();
    let settings = Settings {
        send_buffer_bytes: 10_000,
        ..SETTINGS
    };
    let (connection, mut peer) = connect_narrow(&settings);
    thread::scope(|scope| {
        for sender in 0..SENDERS {
            let connection = &connection;
            scope.spawn(move || {
                for number in 0..EACH {
                    let mut message = vec![sender];
                    message.extend(number.to_be_bytes());
                    message.resize(5 + size_of(number), sender);
                    send(connection, Kind::Binary, &message);
                }
            });
        }
        let mut next = [0; SENDERS as usize];
        for _ in 0..u32::from(SENDERS) * EACH {
            let (first, message) = peer.read();
            assert_eq!(first, BINARY);
            let (number, body) = message[1..].split_first_chunk().unwrap();
            let (sender, number) = (message[0], u32::from_be_bytes(*number));
            assert_eq!(number, next[usize::from(sender)]);
            assert_eq!(body.len(), size_of(number));
            assert!(body.iter().all(|byte| *byte == sender));
            next[usize::from(sender)] += 1;
        }
        assert_eq!(next, [EACH; SENDERS as usize]);
    });
}

#[test]
fn a_flood_of_pings_takes_no_memory_and_the_last_is_answered() {
    // A peer that sends more control frames at once is closed.
    const PINGS: u32 = 9000;
    let (connection, mut peer) = connect_narrow(&SETTINGS);
    let mut pings = Vec::new();
    for number in 0..PINGS {
        pings.extend(frame(
            PING,
            &[&number.to_be_bytes()[..], &[0; 100]].concat(),
        ));
    }
    // All of it is read, though none of the answers are.
    peer.write(&pings);
    peer.send(TEXT, b"read so far");
    take(&connection);
    let mut answers = 0;
    let mut last = None;
    while last != Some(PINGS - 1) {
        let (first, payload) = peer.read();
        let number = u32::from_be_bytes(*payload.first_chunk().unwrap());
        assert_eq!(first, PONG);
        assert!(last < Some(number));
        last = Some(number);
        answers += 1;
    }
    assert!(answers < PINGS / 2, "{answers} pongs were kept");
    send(&connection, Kind::Text, b"still here");
    peer.expect(TEXT, b"still here");
}

#[test]
fn tiny_messages_by_the_thousands_are_all_taken() {
    const COUNT: usize = 400_000;
    let (connection, mut peer) = connect(&SETTINGS);
    let flood = frame(BINARY, b"").repeat(COUNT);
    thread::scope(|scope| {
        scope.spawn(|| peer.socket.write_all(&flood).unwrap());
        until("the inbox is full", || connection.waiting().0 >= 1024);
        for _ in 0..COUNT {
            assert!(matches!(connection.take(None), Received::Message(_)));
        }
    });
}

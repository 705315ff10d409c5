//! How connections end by a close frame, whichever side sends it first.

use std::{
    thread,
    time::{Duration, Instant},
};

use _core::{
    engine::{Initiator, Settings},
    protocol::{close::CloseFrame, message::Kind},
};

use crate::support::{
    KINDS, SETTINGS, await_end, connect, connect_narrow, expect_end, join,
    peer::{BINARY, CLOSE, TEXT},
    send, take, until,
};

fn bye() -> CloseFrame {
    CloseFrame::new(Some(4123), "bye").unwrap()
}

#[test]
fn our_close_frame_arrives_and_its_answer_ends_the_stream() {
    for kind in KINDS {
        let (connection, mut peer) = join(kind(), &SETTINGS);
        send(&connection, Kind::Text, b"last words");
        assert!(connection.close(&bye()));
        assert!(!connection.send(Kind::Text, b"too late", None).unwrap());
        peer.expect(TEXT, b"last words");
        peer.expect_close(4123, "bye");
        peer.send(TEXT, b"on its way when you closed");
        peer.close(4123, "");
        peer.expect_eof();
        expect_end(&connection, 4123, "bye", Initiator::Local);
    }
}

#[test]
fn their_close_frame_is_answered_with_its_code_and_ends_the_stream() {
    for kind in KINDS {
        let (connection, mut peer) = join(kind(), &SETTINGS);
        peer.send(TEXT, b"last words");
        peer.close(4321, "tschüß");
        peer.expect_close(4321, "");
        peer.expect_eof();
        assert_eq!(take(&connection), (Kind::Text, "last words".into()));
        expect_end(&connection, 4321, "tschüß", Initiator::Peer);
        assert!(!connection.close(&bye()));
        assert!(!connection.send(Kind::Text, b"too late", None).unwrap());
    }
}

#[test]
fn an_empty_close_frame_counts_as_1005_and_gets_an_empty_answer() {
    let (connection, mut peer) = connect(&SETTINGS);
    peer.send(CLOSE, b"");
    peer.expect(CLOSE, b"");
    peer.expect_eof();
    expect_end(&connection, 1005, "", Initiator::Peer);
}

#[test]
fn we_may_send_an_empty_close_frame_too() {
    let (connection, mut peer) = connect(&SETTINGS);
    connection.close(&CloseFrame::default());
    peer.expect(CLOSE, b"");
    peer.send(CLOSE, b"");
    peer.expect_eof();
    expect_end(&connection, 1005, "", Initiator::Local);
}

#[test]
fn what_was_taken_in_before_our_close_can_still_be_taken() {
    let (connection, mut peer) = connect(&SETTINGS);
    peer.send(TEXT, b"early");
    until("it is here", || connection.waiting() == (1, false));
    connection.close(&bye());
    assert_eq!(connection.waiting(), (1, true));
    assert_eq!(take(&connection), (Kind::Text, "early".into()));
    expect_end(&connection, 4123, "bye", Initiator::Local);
}

#[test]
fn a_peer_that_never_answers_is_left_after_the_close_timeout() {
    let close_timeout = Duration::from_millis(300);
    for kind in KINDS {
        let settings = Settings {
            close_timeout,
            ..SETTINGS
        };
        let (connection, mut peer) = join(kind(), &settings);
        send(&connection, Kind::Binary, &vec![1; 100_000]);
        let start = Instant::now();
        connection.close(&bye());
        peer.expect(BINARY, &vec![1; 100_000]);
        peer.expect_close(4123, "bye");
        peer.expect_eof();
        assert!(start.elapsed() >= close_timeout);
        until("the descriptor is closed", || peer.is_refused());
    }
}

#[test]
fn a_peer_that_answers_but_does_not_hang_up_is_left_after_the_close_timeout() {
    let settings = Settings {
        close_timeout: Duration::from_millis(300),
        ..SETTINGS
    };
    let (connection, mut peer) = connect(&settings);
    peer.close(1000, "");
    peer.expect_close(1000, "");
    peer.expect_eof();
    until("the descriptor is closed", || peer.is_refused());
    expect_end(&connection, 1000, "", Initiator::Peer);
}

#[test]
fn a_slow_reader_gets_all_that_was_sent_before_the_close_frame() {
    let settings = Settings {
        // Far less than the reader takes in all, far more than it rests between two messages.
        send_timeout: Some(Duration::from_secs(2)),
        close_timeout: Duration::from_secs(2),
        ..SETTINGS
    };
    let (connection, mut peer) = connect_narrow(&settings);
    for count in 0..40 {
        send(&connection, Kind::Binary, &vec![count; 25_000]);
    }
    let start = Instant::now();
    connection.close(&bye());
    for count in 0..40 {
        thread::sleep(Duration::from_millis(75)); // Makes the reader slow.
        peer.expect(BINARY, &vec![count; 25_000]);
    }
    peer.expect_close(4123, "bye");
    assert!(start.elapsed() > Duration::from_secs(2));
    peer.close(4123, "");
    peer.expect_eof();
}

#[test]
fn a_peer_that_takes_nothing_is_left_after_the_send_timeout() {
    let settings = Settings {
        send_timeout: Some(Duration::from_millis(300)),
        ..SETTINGS
    };
    let (connection, mut peer) = connect_narrow(&settings);
    send(&connection, Kind::Binary, &vec![0; 1_000_000]);
    connection.close(&bye());
    until("the descriptor is closed", || peer.is_refused());
    expect_end(&connection, 4123, "bye", Initiator::Local);
}

#[test]
fn both_may_begin_to_close_at_once() {
    for _ in 0..200 {
        let (connection, mut peer) = connect(&SETTINGS);
        thread::scope(|scope| {
            scope.spawn(|| connection.close(&bye()));
            peer.close(4000, "");
        });
        let (first, payload) = peer.read();
        assert_eq!(first, CLOSE);
        assert!(payload == b"\x10\x1bbye" || payload == b"\x0f\xa0");
        peer.expect_eof();
        assert!(matches!(await_end(&connection).code, 4000 | 4123));
    }
}

#[test]
fn a_peer_that_half_closes_behind_its_close_frame_gets_the_answer() {
    let (connection, mut peer) = connect(&SETTINGS);
    peer.close(1000, "");
    peer.socket.shutdown(std::net::Shutdown::Write).unwrap();
    peer.expect_close(1000, "");
    peer.expect_eof();
    expect_end(&connection, 1000, "", Initiator::Peer);
}

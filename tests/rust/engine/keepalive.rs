//! Pings, and what silence means.

use std::time::{Duration, Instant};

use _core::{
    engine::{Initiator, Settings},
    protocol::message::Kind,
};

use crate::support::{
    LIMIT, SETTINGS, connect, expect_end,
    peer::{PING, PONG, TEXT, frame},
    take, until,
};

const QUICK: Settings = Settings {
    ping_interval: Some(Duration::from_millis(100)),
    ping_timeout: Some(Duration::from_millis(400)),
    ..SETTINGS
};

/// For peers that live: they may be late on a machine with much to do.
const PATIENT: Settings = Settings {
    ping_timeout: Some(Duration::from_secs(2)),
    ..QUICK
};

#[test]
fn pings_go_out_in_rhythm_and_a_peer_that_answers_lives() {
    let (connection, mut peer) = connect(&PATIENT);
    let start = Instant::now();
    // For longer than the timeout.
    for _ in 0..30 {
        peer.expect(PING, b"");
        peer.send(PONG, b"");
    }
    // At most a tenth earlier than asked.
    assert!(start.elapsed() >= Duration::from_millis(30 * 90));
    assert_eq!(connection.end(), None);
}

#[test]
fn any_message_is_a_sign_of_life() {
    let (connection, mut peer) = connect(&PATIENT);
    for _ in 0..30 {
        peer.expect(PING, b"");
        peer.send(TEXT, b"busy");
        take(&connection);
    }
    assert_eq!(connection.end(), None);
}

#[test]
fn silence_after_a_ping_is_the_end_and_is_said_so() {
    let start = Instant::now();
    let (connection, mut peer) = connect(&QUICK);
    let reason = "the client did not answer a ping in time";
    expect_end(&connection, 1006, reason, Initiator::Lost);
    assert!(start.elapsed() >= Duration::from_millis(90 + 400));
    let exit = loop {
        match peer.read() {
            (PING, payload) => assert_eq!(payload, b""),
            other => break other,
        }
    };
    assert_eq!(exit, (0x88, b"\x03\xf3no answer to a ping".to_vec()));
    peer.expect_eof();
}

#[test]
fn without_an_interval_nothing_is_sent_and_silence_is_fine() {
    let settings = Settings {
        ping_timeout: Some(Duration::from_millis(1)),
        ..SETTINGS
    };
    let (connection, mut peer) = connect(&settings);
    let timeout = Some(Duration::from_millis(200));
    peer.socket.set_read_timeout(timeout).unwrap();
    assert!(peer.try_read().is_err());
    assert_eq!(connection.end(), None);
}

#[test]
fn the_peer_is_not_blamed_while_the_view_makes_no_room() {
    let settings = Settings {
        ping_interval: Some(Duration::from_millis(100)),
        ping_timeout: Some(Duration::from_millis(1500)),
        ..SETTINGS
    };
    let (connection, mut peer) = connect(&settings);
    // The pongs are stuck behind messages that the view does not take.
    peer.write(&frame(TEXT, b"!").repeat(1500));
    until("the inbox is full", || connection.waiting().0 >= 1024);
    for _ in 0..30 {
        peer.expect(PING, b"");
        peer.send(PONG, b"");
    }
    assert_eq!(connection.end(), None);
    for _ in 0..1500 {
        assert_eq!(take(&connection), (Kind::Text, "!".into()));
    }
    // The engine reads again, and silence counts again.
    let reason = "the client did not answer a ping in time";
    expect_end(&connection, 1006, reason, Initiator::Lost);
    assert!(connection.ended_for().unwrap() < LIMIT);
}

//! Peers that send faster than they may.

use std::{
    thread,
    time::{Duration, Instant},
};

use _core::{
    engine::{Initiator, Rates, Received, Settings},
    protocol::{close, limits::Limits, message::Kind},
};

use crate::support::{
    KINDS, LIMIT, SETTINGS, await_end, connect, echo, expect_end, join,
    peer::{BINARY, CLOSE, PING, PONG, Peer, TEXT, frame},
    take,
};

const LIMITED: Settings = Settings {
    limits: Limits {
        max_fragments: u32::MAX,
        ..SETTINGS.limits
    },
    rates: Rates {
        messages: Some(100.0),
        bytes: Some(100_000.0),
        timeout: Some(Duration::from_millis(500)),
    },
    ..SETTINGS
};

const PATIENT: Settings = Settings {
    rates: Rates {
        timeout: None,
        ..LIMITED.rates
    },
    ..SETTINGS
};

/// A masked, empty continuation: it costs bytes and brings nothing.
const FRAGMENT: [u8; 6] = [0x00, 0x80, 0, 0, 0, 0];

const REASON: &str = "too many messages or bytes a second";

/// Writes until the engine takes no more, and reads up to the close frame.
fn flood(peer: &mut Peer, bytes: &[u8]) {
    let start = Instant::now();
    let mut socket = peer.socket.try_clone().unwrap();
    let all = bytes.repeat((1 << 20) / bytes.len());
    let writer = thread::spawn(move || {
        use std::io::Write;
        while socket.write_all(&all).is_ok() {}
    });
    loop {
        match peer.read() {
            (CLOSE, payload) => {
                assert_eq!(payload[..2], close::POLICY.to_be_bytes());
                assert_eq!(&payload[2..], REASON.as_bytes());
                break;
            }
            (first, _) => assert!(first == PONG || first == TEXT, "{first:#x}"),
        }
    }
    assert!(start.elapsed() >= Duration::from_millis(500));
    drop(writer);
}

#[test]
fn a_flood_is_slowed_down_and_ended_with_1008() {
    for bytes in [
        frame(TEXT, b""),
        frame(TEXT, b"tiny"),
        frame(PING, b"are you there?"),
        frame(BINARY, &vec![7; 60_000]),
        FRAGMENT.to_vec(),
    ] {
        let (connection, mut peer) = connect(&LIMITED);
        let taker = {
            let connection = connection.clone();
            thread::spawn(move || while let Received::Message(_) = connection.take(None) {})
        };
        if bytes == FRAGMENT {
            // The first fragment of a message without an end.
            peer.write(&frame(TEXT & 0x0F, b""));
        }
        flood(&mut peer, &bytes);
        taker.join().unwrap();
        expect_end(&connection, close::POLICY, REASON, Initiator::Local);
    }
}

#[test]
fn a_peer_that_pauses_is_only_slowed_down() {
    let (connection, mut peer) = connect(&PATIENT);
    let view = echo(connection.clone());
    let start = Instant::now();
    for _ in 0..150 {
        peer.write(&frame(TEXT, b"in a hurry"));
    }
    for _ in 0..150 {
        peer.expect(TEXT, b"in a hurry");
    }
    // A second's worth at once, and the rest at a hundred a second.
    assert!(start.elapsed() >= Duration::from_millis(400));
    peer.close(1000, "");
    peer.expect_close(1000, "");
    view.join().unwrap();
}

#[test]
fn a_peer_that_goes_while_it_waits_is_noticed_and_its_last_words_are_taken() {
    let ten_a_second = Settings {
        rates: Rates {
            messages: Some(10.0),
            ..PATIENT.rates
        },
        ..PATIENT
    };
    for kind in KINDS {
        let (connection, mut peer) = join(kind(), &ten_a_second);
        peer.write(&frame(TEXT, b"x").repeat(610));
        for _ in 0..10 {
            take(&connection);
        }
        let start = Instant::now();
        peer.hang_up();
        for _ in 0..600 {
            assert_eq!(take(&connection), (Kind::Text, "x".into()));
        }
        assert_eq!(await_end(&connection).by, Initiator::Lost);
        // At the rate it would have been a minute.
        assert!(start.elapsed() < LIMIT);
    }
}

#[test]
fn closing_does_not_wait_for_a_peer_that_has_to() {
    let slow = Settings {
        rates: Rates {
            messages: Some(0.001),
            bytes: None,
            timeout: None,
        },
        ..SETTINGS
    };
    let (connection, mut peer) = connect(&slow);
    peer.write(&frame(TEXT, b"x").repeat(2));
    take(&connection);
    peer.close(1000, "");
    let frame = close::CloseFrame::new(Some(4000), "").unwrap();
    connection.close(&frame);
    peer.expect_close(4000, "");
    peer.expect_eof();
}

//! Messages back and forth.

use std::{
    io::Write,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use _core::{engine::Received, protocol::message::Kind};

use crate::support::{
    KINDS, SETTINGS, connect, echo, join,
    peer::{BINARY, PING, PONG, TEXT, frame},
    take,
};

#[test]
fn text_binary_and_large_messages_are_echoed() {
    let large: Vec<u8> = (0..=250).cycle().take(1024 * 1024).collect();
    for kind in KINDS {
        let (connection, mut peer) = join(kind(), &SETTINGS);
        let view = echo(connection);
        for (first, payload) in [
            (TEXT, "grüße".as_bytes()),
            (BINARY, &[0xFF, 0, 0xFE]),
            (TEXT, b""),
            (BINARY, &large),
        ] {
            peer.send(first, payload);
            peer.expect(first, payload);
        }
        peer.hang_up();
        view.join().unwrap();
    }
}

#[test]
fn fragments_are_joined_and_pings_between_them_answered_at_once() {
    let (connection, mut peer) = connect(&SETTINGS);
    peer.send(0x01, b"al");
    peer.send(PING, b"1");
    peer.expect(PONG, b"1");
    peer.send(0x00, b"to");
    peer.send(PING, b"");
    peer.expect(PONG, b"");
    assert_eq!(connection.waiting(), (0, false));
    peer.send(0x80, b"gether");
    assert_eq!(take(&connection), (Kind::Text, "altogether".into()));
}

#[test]
fn a_byte_at_a_time_is_as_good_as_all_at_once() {
    let (connection, mut peer) = connect(&SETTINGS);
    peer.socket.set_tcp_nodelay(true).unwrap();
    let mut bytes = frame(0x01, "ä".as_bytes());
    bytes.extend(frame(PING, b"?"));
    bytes.extend(frame(0x80, &[b'b'; 200]));
    for byte in bytes {
        peer.write(&[byte]);
    }
    let (kind, payload) = take(&connection);
    assert_eq!((kind, payload.len()), (Kind::Text, 202));
    peer.expect(PONG, b"?");
}

/// One connection must not keep the engine's thread for itself.
#[test]
fn others_are_served_while_some_send_without_a_pause() {
    let (quiet, mut peer) = connect(&SETTINGS);
    let view = echo(quiet);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..3 {
            let (loud, mut flooder) = connect(&SETTINGS);
            let (flood, done) = (frame(BINARY, &vec![7; 60_000]).repeat(8), &done);
            scope.spawn(move || while matches!(loud.take(None), Received::Message(_)) {});
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    flooder.socket.write_all(&flood).unwrap();
                }
            });
        }
        for _ in 0..200 {
            peer.send(TEXT, b"and me?");
            peer.expect(TEXT, b"and me?");
        }
        done.store(true, Ordering::Relaxed);
    });
    peer.hang_up();
    view.join().unwrap();
}

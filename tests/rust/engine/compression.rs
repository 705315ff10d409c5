//! Connections that agreed on permessage-deflate.

use std::{thread, time::Duration};

use _core::{
    engine::{Initiator, Settings},
    protocol::{
        deflate::{Agreement, Codecs, Deflater, Options, Terms},
        limits::Limits,
        message::Kind,
    },
};

use crate::support::{
    COMPRESSION, SETTINGS, connect, connect_narrow, echo, expect_end,
    peer::{BINARY, TEXT},
    until,
};

const RSV1: u8 = 0x40;
const OPTIONS: Options = Options {
    threshold_bytes: 100,
    server_no_context_takeover: false,
    client_no_context_takeover: false,
    ..COMPRESSION
};

fn compressing(offer: &str, options: Options) -> (Settings, Agreement) {
    let terms = Terms::negotiate(&format!("permessage-deflate{offer}"), options).unwrap();
    let settings = Settings {
        compression: Some(terms),
        limits: Limits {
            max_message_bytes: 200_000,
            ..SETTINGS.limits
        },
        ..SETTINGS
    };
    (settings, terms.agreement)
}

fn forgetful() -> (Settings, Agreement) {
    compressing(
        "; server_no_context_takeover; client_no_context_takeover",
        OPTIONS,
    )
}

/// `message` as the payload of a compressed frame of an agreement without takeover.
fn deflated(agreement: Agreement, message: &[u8]) -> Vec<u8> {
    let deflater = Deflater::new(&agreement, &OPTIONS, &Codecs::default());
    let deflated = deflater.deflate(message).unwrap();
    deflated.payload().to_vec()
}

#[test]
fn messages_above_the_threshold_are_answered_compressed() {
    let (settings, agreement) = forgetful();
    let (connection, mut peer) = connect(&settings);
    let view = echo(connection);
    let small = [b'a'; 99];
    let large = vec![b'a'; 100_000];
    let payload = deflated(agreement, &large);
    assert!(payload.len() < 1000);
    for _ in 0..3 {
        peer.send(TEXT, &small);
        peer.expect(TEXT, &small);
        for first in [TEXT, BINARY] {
            peer.send(first | RSV1, &payload);
            peer.expect(first | RSV1, &payload);
            // A message that the client does not compress is compressed all the same, on the way
            // back.
            peer.send(first, &large);
            peer.expect(first | RSV1, &payload);
        }
    }
    peer.hang_up();
    view.join().unwrap();
}

#[test]
fn with_takeover_what_was_said_before_is_referred_to() {
    let (settings, _) = compressing("", OPTIONS);
    let (connection, mut peer) = connect(&settings);
    let message: Vec<u8> = (0..=255).cycle().take(1000).collect();
    let mut sizes = Vec::new();
    for _ in 0..3 {
        assert!(connection.send(Kind::Binary, &message, None).unwrap());
        let (first, payload) = peer.read();
        assert_eq!(first, BINARY | RSV1);
        sizes.push(payload.len());
    }
    assert!(sizes[1] * 5 < sizes[0], "{sizes:?}");
    assert!(sizes[2] * 5 < sizes[0], "{sizes:?}");
}

#[test]
fn a_message_that_found_no_room_is_not_referred_to() {
    let (mut settings, _) = compressing("", OPTIONS);
    settings.send_buffer_bytes = 1;
    let (connection, mut peer) = connect_narrow(&settings);
    let message: Vec<u8> = (0..=255).cycle().take(1000).collect();
    // Noise goes out as it is and fills the socket.
    let mut state = 1_u32;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    })
    .take(100_000)
    .collect();
    let mut sent = 0;
    let mut refused = 0;
    // For a moment the system may find room for a little more.
    while refused < 20 {
        if connection.try_send(Kind::Binary, &noise) == Some(true) {
            (sent, refused) = (sent + 1, 0);
        } else {
            refused += 1;
            thread::sleep(Duration::from_millis(50));
        }
    }
    assert_eq!(connection.try_send(Kind::Binary, &message), None);
    let timeout = Some(Duration::ZERO);
    assert!(connection.send(Kind::Binary, &message, timeout).is_err());
    for _ in 0..sent {
        peer.expect(BINARY, &noise);
    }
    until("there is room", || {
        connection.try_send(Kind::Binary, &message) == Some(true)
    });
    let (first, payload) = peer.read();
    assert_eq!(first, BINARY | RSV1);
    // All of it is in there.
    assert!(payload.len() > 256, "{}", payload.len());
}

#[test]
fn a_bomb_is_1009_and_what_is_no_deflate_is_1007() {
    let (settings, agreement) = forgetful();
    for (payload, code, reason) in [
        (
            deflated(agreement, &vec![0; 5_000_000]),
            1009,
            "message has more than 200000 bytes",
        ),
        (vec![0xFF; 50], 1007, "compressed message is not DEFLATE"),
    ] {
        let (connection, mut peer) = connect(&settings);
        peer.send(BINARY | RSV1, &payload);
        peer.expect_close(code, reason);
        peer.expect_eof();
        expect_end(&connection, code, reason, Initiator::Local);
    }
}

#[test]
fn connections_without_it_take_no_compressed_message() {
    let (_, agreement) = forgetful();
    let payload = deflated(agreement, &[b'a'; 1000]);
    let (connection, mut peer) = connect(&SETTINGS);
    assert!(connection.send(Kind::Text, &[b'a'; 1000], None).unwrap());
    peer.expect(TEXT, &[b'a'; 1000]);
    let serving = echo(connection);
    peer.send(TEXT, b"plain");
    peer.expect(TEXT, b"plain");
    peer.send(TEXT | RSV1, &payload);
    peer.expect_close(1002, "reserved bit set without an extension");
    peer.expect_eof();
    serving.join().unwrap();
}

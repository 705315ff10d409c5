//! The memory of an idle connection.

use _core::{
    engine::Settings,
    protocol::{
        deflate::{Codecs, Deflater, Terms},
        message::Kind,
    },
};

use crate::{
    alone,
    support::{
        COMPRESSION, SETTINGS, join,
        peer::{BINARY, Peer},
        resident_bytes, send, take, unix,
    },
};

const RSV1: u8 = 0x40;
/// The most bytes that one may cost, its peer in this process included.
const LIMIT_BYTES: usize = 6 * 1024;

#[test]
fn an_idle_compressed_connection_stays_below_6_kilobytes() {
    alone(
        "memory::an_idle_compressed_connection_stays_below_6_kilobytes",
        || {
            let terms = Terms::negotiate("permessage-deflate", COMPRESSION).unwrap();
            let settings = Settings {
                compression: Some(terms),
                ..SETTINGS
            };
            let message: Vec<u8> = (0..=255).cycle().take(50_000).collect();
            let deflater = Deflater::new(&terms.agreement, &COMPRESSION, &Codecs::default());
            let payload = deflater.deflate(&message).unwrap().payload().to_vec();
            // Each has carried messages, compressed in both directions, before it becomes idle.
            let talk = |peer: &mut Peer, connection: &_| {
                peer.send(BINARY | RSV1, &payload);
                assert_eq!(take(connection).1, message);
                send(connection, Kind::Binary, &message);
                assert_eq!(peer.read(), (BINARY | RSV1, payload.clone()));
            };
            let open = |count| {
                let idle: Vec<_> = (0..count)
                    .map(|_| {
                        let (connection, mut peer) = join(unix(), &settings);
                        talk(&mut peer, &connection);
                        (connection, peer)
                    })
                    .collect();
                idle
            };
            // The engine, its read buffer and the pools are there once.
            let first = open(100);
            let before = resident_bytes();
            let others = open(300);
            let each = resident_bytes().saturating_sub(before) / others.len();
            assert!(each < LIMIT_BYTES, "{each} bytes each");
            drop((first, others));
        },
    );
}

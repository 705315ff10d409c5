//! Peers that need longer for what we send than a ping may take.

use std::{
    io::Read,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use _core::{
    engine::{Initiator, Settings},
    protocol::message::Kind,
};
use socket2::SockRef;

use crate::support::{
    KINDS, LIMIT, SETTINGS, await_end, join,
    peer::{PING, PONG},
    send, unix,
};

const QUICK: Settings = Settings {
    ping_interval: Some(Duration::from_millis(100)),
    ping_timeout: Some(Duration::from_millis(800)),
    send_buffer_bytes: 8 * 1024 * 1024,
    ..SETTINGS
};
const LARGE: usize = 2 * 1024 * 1024;

#[test]
fn a_peer_that_takes_its_time_with_a_large_message_lives() {
    for kind in KINDS {
        let (server, client) = kind();
        SockRef::from(&server)
            .set_send_buffer_size(8 * 1024)
            .unwrap();
        let (connection, mut peer) = join((server, client), &QUICK);
        send(&connection, Kind::Binary, &vec![1; LARGE]);
        // Several times as long as a ping may take, and no ping can be seen meanwhile.
        let start = Instant::now();
        let mut taken = 0;
        let mut buffer = [0; 16 * 1024];
        while taken < LARGE / 2 {
            taken += peer.socket.read(&mut buffer).unwrap();
            thread::sleep(Duration::from_millis(40));
            assert_eq!(connection.end(), None, "after {:?}", start.elapsed());
        }
        assert!(start.elapsed() > Duration::from_secs(2));
        let mut rest = vec![0; LARGE + 10 - taken];
        peer.socket.read_exact(&mut rest).unwrap();
        peer.expect(PING, b"");
        peer.send(PONG, b"");
        peer.expect(PING, b"");
        assert_eq!(connection.end(), None);
    }
}

#[test]
fn a_peer_that_takes_nothing_is_found_whatever_waits_for_it() {
    for size in [0, LARGE] {
        let (connection, _peer) = join(unix(), &QUICK);
        if size > 0 {
            send(&connection, Kind::Binary, &vec![1; size]);
        }
        let end = await_end(&connection);
        assert_eq!(end.by, Initiator::Lost);
        assert_eq!(end.reason, "the client did not answer a ping in time");
    }
}

#[test]
fn small_messages_that_a_silent_peer_s_system_takes_in_prove_nothing() {
    for kind in KINDS {
        let (connection, _peer) = join(kind(), &QUICK);
        let start = Instant::now();
        let view = Arc::clone(&connection);
        while connection.end().is_none() && start.elapsed() < LIMIT {
            let _ = view.send(Kind::Text, b"tick", None);
            thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(await_end(&connection).by, Initiator::Lost);
    }
}

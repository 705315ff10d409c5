//! How long a client may take over a message that it has begun, and over the last bytes.

use std::{
    io::Read,
    sync::Arc,
    time::{Duration, Instant},
};

use _core::{
    engine::{Connection, Engine, Initiator, Received, Settings, clock},
    protocol::close::CloseFrame,
};
use bytes::Bytes;

use crate::{
    alone,
    support::{
        LIMIT, SETTINGS, await_end, connect, connect_narrow, fill,
        peer::{BINARY, PING, PONG, Peer, TEXT, frame},
        until,
    },
};

const TIMEOUT: Duration = Duration::from_secs(60);
const REASON: &str = "message was not finished in time";
/// The first fragment of a text that has more, and its last one.
const UNFINISHED: u8 = 0x01;
const LAST: u8 = 0x80;

fn patient() -> Settings {
    Settings {
        message_timeout: Some(TIMEOUT),
        ..SETTINGS
    }
}

fn step(seconds: u64) {
    Engine::current()
        .unwrap()
        .step(Duration::from_secs(seconds));
}

/// Takes a message that must come, on the engine's clock.
#[track_caller]
fn take(connection: &Arc<Connection>) -> Bytes {
    match connection.take(Some(clock::now() + LIMIT)) {
        Received::Message(message) => message.payload,
        other => panic!("{other:?} instead of a message"),
    }
}

/// Has the engine read all that its client has sent before.
fn settle(peer: &mut Peer) {
    peer.send(PING, b"?");
    peer.expect(PONG, b"?");
}

#[test]
fn a_message_that_does_not_go_on_is_the_end_whatever_comes_between() {
    alone(
        "timeouts::a_message_that_does_not_go_on_is_the_end_whatever_comes_between",
        || {
            let beginnings = [
                frame(UNFINISHED, b"half"),
                frame(UNFINISHED, b""),
                frame(TEXT, b"all but the end")[..9].to_vec(),
                vec![TEXT],
            ];
            for (index, beginning) in beginnings.iter().enumerate() {
                let (connection, mut peer) = connect(&patient());
                peer.send(TEXT, b"a whole one");
                peer.write(beginning);
                assert_eq!(take(&connection), "a whole one");
                assert!(matches!(connection.take_now(), Received::Nothing));
                if index < 2 {
                    for _ in 0..5 {
                        settle(&mut peer);
                        step(10);
                    }
                    // Empty fragments are no progress either.
                    peer.send(0x00, b"");
                    settle(&mut peer);
                } else {
                    // The engine has read it once it counts time for it.
                    until("it is over", || {
                        step(10);
                        connection.end().is_some()
                    });
                }
                step(20);
                peer.expect_close(1008, REASON);
                peer.expect_eof();
                let end = await_end(&connection);
                let told = (end.code, end.reason.as_str(), end.by);
                assert_eq!(told, (1008, REASON, Initiator::Local));
            }
        },
    );
}

#[test]
fn a_message_that_goes_on_may_take_an_hour() {
    alone("timeouts::a_message_that_goes_on_may_take_an_hour", || {
        let (connection, mut peer) = connect(&patient());
        peer.send(UNFINISHED, b"so ");
        for _ in 0..72 {
            settle(&mut peer);
            step(50);
            peer.send(0x00, b"x");
        }
        peer.send(LAST, b"!");
        assert_eq!(take(&connection), format!("so {}!", "x".repeat(72)));
        // Between two messages there is nothing to finish.
        step(1000);
        settle(&mut peer);
        assert_eq!(connection.end(), None);
    });
}

#[test]
fn a_client_is_not_blamed_for_what_is_not_read() {
    alone(
        "timeouts::a_client_is_not_blamed_for_what_is_not_read",
        || {
            let (connection, mut peer) = connect(&Settings {
                receive_buffer_bytes: 1,
                ..patient()
            });
            peer.send(BINARY, b"fills it");
            until("the inbox is full", || connection.waiting().0 == 1);
            peer.send(UNFINISHED, b"half");
            step(1000);
            assert_eq!(connection.end(), None);
            assert_eq!(take(&connection), "fills it");
            peer.send(LAST, b" and half");
            assert_eq!(take(&connection), "half and half");
        },
    );
}

#[test]
fn a_peer_that_takes_a_little_now_and_then_is_given_up_in_the_end() {
    alone(
        "timeouts::a_peer_that_takes_a_little_now_and_then_is_given_up_in_the_end",
        || {
            let settings = Settings {
                send_timeout: Some(Duration::from_secs(10)),
                ..SETTINGS
            };
            let (connection, mut peer) = connect_narrow(&settings);
            fill(&connection, &vec![0; 10_000]);
            connection.close(&CloseFrame::default());
            let (closed_at, start) = (clock::now(), Instant::now());
            let mut some = [0; 2000];
            // At each step the engine sees that the peer has taken something.
            while peer.socket.read(&mut some).is_ok_and(|taken| taken > 0) {
                step(2);
                assert!(start.elapsed() < LIMIT, "it goes on for ever");
            }
            let took = clock::now() - closed_at;
            // The limit is a hundred seconds, and 64 for the megabyte; not the ten seconds without
            // any progress.
            assert!(took > TIMEOUT, "{took:?}");
            assert!(await_end(&connection).by == Initiator::Local);
        },
    );
}

//! The parts of the engine that every system has: it dials, and drives connections that a server carries.
//!
//! Windows runs these tests alone: the others have Unix sockets for peers.

#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a helper that fails is a test that fails"
)]

#[path = "../engine/support/settings.rs"]
mod settings;

use std::{
    net::TcpListener,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use _core::{
    engine::{
        Connection, End, Hub, Initiator, Outgoing, Received,
        dialing::{DialRequest, Success, Want, dial},
        permits::Permit,
        runtime,
    },
    protocol::{client_handshake::Request, close::CloseFrame, message::Kind},
};
use tokio_tungstenite::tungstenite::{self, Message};

use self::settings::{LIMIT, SETTINGS};

/// The port of a server that echoes the messages of its first client until that closes.
fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        let (client, _) = listener.accept().unwrap();
        let mut server = tungstenite::accept(client).unwrap();
        while let Ok(message @ (Message::Text(_) | Message::Binary(_))) = server.read() {
            server.send(message).unwrap();
        }
        // The answer to the close.
        while server.read().is_ok() {}
    });
    port
}

fn connect(port: u16) -> Arc<Connection> {
    let host = format!("127.0.0.1:{port}");
    let plan = DialRequest {
        host: "127.0.0.1".to_owned(),
        port,
        proxy: None,
        tls: None,
        request: Request::new("/", Vec::new(), None, &[("Host", &host)]).unwrap(),
        settings: SETTINGS,
        timeout: Some(LIMIT),
    };
    let dial = dial(plan, Want::Connection).unwrap();
    assert!(dial.wait(Some(Instant::now() + LIMIT)).is_some());
    match dial.outcome() {
        Some(Ok(Success::Opened(opened))) => opened.take(),
        other => panic!("{other:?}"),
    }
}

fn taken(connection: &Arc<Connection>) -> Vec<u8> {
    match connection.take(Some(Instant::now() + LIMIT)) {
        Received::Message(message) => message.payload.to_vec(),
        Received::End | Received::Nothing => panic!("no message came"),
    }
}

#[test]
fn a_client_talks_with_a_server() {
    let connection = connect(echo());
    for number in 0..1000_u32 {
        let text = number.to_string();
        assert!(
            connection
                .send(Kind::Text, text.as_bytes(), Some(LIMIT))
                .unwrap()
        );
        assert_eq!(taken(&connection), text.as_bytes());
    }
    // More than the system's buffers hold: the engine waits for room, and for the rest.
    let large = vec![7; 8 * 1024 * 1024];
    assert!(connection.send(Kind::Binary, &large, Some(LIMIT)).unwrap());
    assert_eq!(taken(&connection), large);
    assert!(connection.close(&CloseFrame::new(Some(1000), "done").unwrap()));
    assert!(matches!(connection.take(None), Received::End));
    assert_eq!(connection.end().unwrap().by, Initiator::Local);
}

#[test]
fn a_server_that_carries_a_connection_gives_and_takes_its_messages() {
    let hub = Hub::new().unwrap();
    let permit = Permit::claim(None).unwrap();
    let carried = runtime::open_carried(Arc::clone(&hub), 7, &SETTINGS, permit, |_| {}).unwrap();
    assert!(carried.bring(Kind::Text, b"hello"));
    assert_eq!(taken(&carried), b"hello");
    assert!(carried.send(Kind::Binary, b"bye", Some(LIMIT)).unwrap());
    carried.close(&CloseFrame::new(Some(4000), "enough").unwrap());
    let mut told = Vec::new();
    let end = Instant::now() + LIMIT;
    while told.len() < 2 {
        assert!(Instant::now() < end, "{told:?}");
        // The hub's socket is readable then; this looks without waiting for it.
        if !hub.drain().contains(&7) {
            thread::sleep(Duration::from_millis(1));
        }
        while let Some(next) = carried.carry_out() {
            told.push(match next {
                Outgoing::Message(message) => message.payload.to_vec(),
                Outgoing::Close(frame) => frame.reason.into_bytes(),
            });
        }
    }
    assert_eq!(told, [&b"bye"[..], b"enough"]);
    carried.leave_carrier(End {
        code: 4000,
        reason: String::new(),
        by: Initiator::Peer,
    });
    while !carried.is_carrier_over() {
        assert!(Instant::now() < end);
        thread::yield_now();
    }
}

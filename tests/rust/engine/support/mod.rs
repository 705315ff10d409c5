//! Connections on the process's engine, whose other end the test drives.
#![allow(dead_code, reason = "two test binaries share this, each uses a part")]

pub(crate) mod chance;
pub(crate) mod peer;
mod settings;

use std::{
    net::{TcpListener, TcpStream},
    os::{fd::OwnedFd, unix::net::UnixStream},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use _core::{
    engine::{Connection, End, Engine, Initiator, Received, Settings, clock, permits::Permit},
    protocol::{deflate::Options, message::Kind},
};
use bytes::Bytes;
use socket2::SockRef;

use self::peer::Peer;
pub(crate) use self::settings::{LIMIT, SETTINGS};

/// The response to a handshake that the engine is given to send; the tests need no more of it.
pub(crate) const HEAD: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\n\r\n";

/// Compression as a server's defaults have it.
pub(crate) const COMPRESSION: Options = Options {
    threshold_bytes: 256,
    level: 3,
    server_no_context_takeover: true,
    client_no_context_takeover: true,
    server_max_window_bits: 15,
    client_max_window_bits: 15,
};

/// How long a test provokes a race, by random timing.
pub(crate) fn race_time() -> Duration {
    let given = std::env::var("RACE_SECONDS").ok();
    Duration::from_secs(given.map_or(1, |seconds| seconds.parse().unwrap()))
}

/// The memory that this process occupies.
pub(crate) fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

/// A TCP connection: the server's end and the client's.
pub(crate) fn tcp() -> (OwnedFd, OwnedFd) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    (server.into(), client.into())
}

/// A Unix-domain connection: the server's end and the client's.
pub(crate) fn unix() -> (OwnedFd, OwnedFd) {
    let (server, client) = UnixStream::pair().unwrap();
    (server.into(), client.into())
}

/// Both kinds of connection.
pub(crate) const KINDS: [fn() -> (OwnedFd, OwnedFd); 2] = [tcp, unix];

/// Hands `server` to the engine.
pub(crate) fn adopt(server: OwnedFd, early: &[u8], settings: &Settings) -> Arc<Connection> {
    let permit = Permit::claim(None).unwrap();
    Engine::current()
        .unwrap()
        .adopt(server, early.to_vec(), HEAD.to_vec(), settings, permit)
        .unwrap()
}

/// A connection of the engine's and its peer, which has read the head.
pub(crate) fn join(
    (server, client): (OwnedFd, OwnedFd),
    settings: &Settings,
) -> (Arc<Connection>, Peer) {
    let connection = adopt(server, b"", settings);
    let mut peer = Peer::new(client);
    peer.expect_head();
    (connection, peer)
}

/// As [`join`], over TCP.
pub(crate) fn connect(settings: &Settings) -> (Arc<Connection>, Peer) {
    join(tcp(), settings)
}

/// As [`connect`], but the kernel takes only little at a time from the engine.
pub(crate) fn connect_narrow(settings: &Settings) -> (Arc<Connection>, Peer) {
    let (server, client) = tcp();
    // Not the client's buffer: a window smaller than a segment moves once in 200 ms only.
    let socket = SockRef::from(&server);
    socket.set_send_buffer_size(8 * 1024).unwrap();
    join((server, client), settings)
}

/// Waits for something that must happen soon.
#[track_caller]
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Takes a message that must come.
#[track_caller]
pub(crate) fn take(connection: &Arc<Connection>) -> (Kind, Bytes) {
    match connection.take(Some(clock::now() + LIMIT)) {
        Received::Message(message) => (message.kind, message.payload),
        other => panic!("{other:?} instead of a message"),
    }
}

/// Takes the end, which must come and be the next thing to come.
#[track_caller]
pub(crate) fn expect_end(connection: &Arc<Connection>, code: u16, reason: &str, by: Initiator) {
    let taken = connection.take(Some(clock::now() + LIMIT));
    assert!(
        matches!(taken, Received::End),
        "{taken:?} instead of the end"
    );
    let reason = reason.to_owned();
    assert_eq!(connection.end(), Some(End { code, reason, by }));
}

/// Waits until the connection begins to end.
#[track_caller]
pub(crate) fn await_end(connection: &Connection) -> End {
    until("the connection ends", || connection.end().is_some());
    connection.end().unwrap()
}

/// Sends what must be taken, sleeping while the peer is slow.
#[track_caller]
pub(crate) fn send(connection: &Connection, kind: Kind, payload: &[u8]) {
    assert!(connection.send(kind, payload, Some(LIMIT)).unwrap());
}

/// Sends until neither the outbox nor the kernel takes more; returns how many messages they took.
pub(crate) fn fill(connection: &Connection, payload: &[u8]) -> usize {
    let timeout = Some(Duration::from_secs(1));
    let mut count = 0;
    while connection.send(Kind::Binary, payload, timeout).is_ok() {
        count += 1;
    }
    count
}

/// Does a view's work: answers each message with itself until the end.
pub(crate) fn echo(connection: Arc<Connection>) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        while let Received::Message(message) = connection.take(None) {
            let _ = connection.send(message.kind, &message.payload, Some(LIMIT));
        }
    })
}

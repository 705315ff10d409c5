//! A driver that the tests of this folder move by hand.

use std::{
    io::{ErrorKind, Read},
    os::{fd::IntoRawFd, unix::net::UnixStream},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;

use super::{Driver, Io};
use crate::{
    engine::{
        connection::{Connection, registry::Registry, settings::Settings},
        resources::{permits::Permit, socket::Socket, watched},
    },
    protocol::deflate::Codecs,
};

pub(super) const SETTINGS: Settings = Settings {
    receive_buffer_bytes: 1024 * 1024,
    send_buffer_bytes: 1024 * 1024,
    send_timeout: Some(Duration::from_secs(3)),
    ..Settings::SMALL
};

pub(super) struct Fixture {
    pub(super) driver: Driver,
    pub(super) io: Io,
    pub(super) connection: Arc<Connection>,
    pub(super) peer: UnixStream,
}

/// A driver that does nothing by itself. Needs a runtime around it.
pub(super) fn fixture(settings: &Settings) -> Fixture {
    let (ours, peer) = UnixStream::pair().unwrap();
    peer.set_nonblocking(true).unwrap();
    let socket = Arc::new(Socket::take_over(ours.into_raw_fd()).unwrap());
    let io = Io::Watched(watched::watch(&socket).unwrap());
    let connection = Arc::new(Connection::new(
        1,
        socket,
        settings,
        Bytes::new(),
        Arc::default(),
        &Codecs::default(),
    ));
    let registration = Registry::register(&Arc::default(), &connection).unwrap();
    let permit = Permit::claim(None).unwrap();
    let driver = Driver::new(
        Arc::clone(&connection),
        Vec::new(),
        settings,
        &Codecs::default(),
        registration,
        permit,
    );
    Fixture {
        driver,
        io,
        connection,
        peer,
    }
}

/// The bytes that have reached the peer by now.
pub(super) fn read_now(peer: &mut UnixStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    match peer.read_to_end(&mut bytes) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
    }
    bytes
}

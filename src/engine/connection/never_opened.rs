//! The connection of a handshake that has not become one.

use std::{
    io::{self, IoSlice},
    sync::Arc,
};

use bytes::Bytes;

use super::{Connection, NEVER_OPENED, settings::Settings};
use crate::{
    engine::resources::socket::{Carriage, Socket},
    protocol::deflate::Codecs,
};

/// Stands for a client that has gone.
#[derive(Debug)]
struct Gone;

impl Carriage for Gone {
    fn send(&self, _: &[IoSlice<'_>]) -> io::Result<usize> {
        Err(io::ErrorKind::NotConnected.into())
    }

    fn held(&self) -> usize {
        0
    }

    fn shed(&self) -> bool {
        true
    }

    fn hang_up(&self) {}
}

impl Connection {
    /// A connection that is over, as after a client that has vanished. Takes nothing from the system.
    ///
    /// Its calls answer as those of a connection that belongs to another process.
    pub fn never_opened() -> Self {
        let socket = Arc::new(Socket::carried(Arc::new(Gone)));
        let settings = &Settings::SMALL;
        let codecs = &Codecs::default();
        let mut itself = Self::new(
            NEVER_OPENED,
            socket,
            settings,
            Bytes::new(),
            Arc::default(),
            codecs,
        );
        // Of no process.
        itself.generation = u64::MAX;
        itself
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{engine::connection::end::Initiator, protocol::message::Kind};

    #[test]
    fn it_is_over_and_takes_nothing() {
        let connection = Arc::new(Connection::never_opened());
        let end = connection.end().unwrap();
        assert_eq!((end.code, end.by), (1006, Initiator::Lost));
        assert_eq!(end.reason, "the WebSocket was never opened");
        assert_eq!(connection.waiting(), (0, true));
        assert!(!connection.send(Kind::Text, b"x", None).unwrap());
        assert_eq!(connection.id(), NEVER_OPENED);
    }
}

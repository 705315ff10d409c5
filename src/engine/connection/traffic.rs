//! The traffic of a connection, or of all connections of a process, and what waits in them.

use std::{ops::AddAssign, sync::atomic::Ordering, time::Duration};

use super::Connection;

/// Counters of one connection or of several. The first four only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Messages that have come.
    pub messages_in: u64,
    /// Messages that were taken for the peer.
    pub messages_out: u64,
    /// Bytes that were read from the socket after the handshake.
    pub bytes_in: u64,
    /// Bytes that the socket has taken, the handshake's response among them.
    pub bytes_out: u64,
    /// Messages that wait for the view.
    pub inbox_messages: u64,
    /// Bytes of these.
    pub inbox_bytes: u64,
    /// Bytes that wait for the socket.
    pub outbox_bytes: u64,
}

impl Traffic {
    /// The part that only grows, which is what remains of a connection that has ended.
    pub(super) fn without_waiting(self) -> Self {
        Self {
            inbox_messages: 0,
            inbox_bytes: 0,
            outbox_bytes: 0,
            ..self
        }
    }
}

impl AddAssign for Traffic {
    fn add_assign(&mut self, other: Self) {
        self.messages_in += other.messages_in;
        self.messages_out += other.messages_out;
        self.bytes_in += other.bytes_in;
        self.bytes_out += other.bytes_out;
        self.inbox_messages += other.inbox_messages;
        self.inbox_bytes += other.inbox_bytes;
        self.outbox_bytes += other.outbox_bytes;
    }
}

/// The traffic of a process, and its open connections.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Overview {
    /// Open connections.
    pub connections: usize,
    /// The traffic of all connections, the ended ones too.
    pub traffic: Traffic,
    /// How long the last answered ping of each connection took, where there was one.
    pub latencies: Vec<Duration>,
}

impl Connection {
    /// The traffic of this connection so far.
    pub fn traffic(&self) -> Traffic {
        if self.is_foreign() {
            return Traffic::default();
        }
        let (messages_in, inbox_messages, inbox_bytes) = self.inbox.counts();
        Traffic {
            messages_in,
            messages_out: self.sent.load(Ordering::Relaxed),
            bytes_in: self.bytes_read.load(Ordering::Relaxed),
            bytes_out: self.outbox.written(),
            inbox_messages: inbox_messages as u64,
            inbox_bytes: inbox_bytes as u64,
            outbox_bytes: self.outbox.queued() as u64,
        }
    }

    /// Counts bytes that the driver has read. One thread at a time calls this.
    pub(crate) fn count_read(&self, bytes: usize) {
        let before = self.bytes_read.load(Ordering::Relaxed);
        self.bytes_read
            .store(before + bytes as u64, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use crate::{
        engine::connection::{Connection, registry::Registry, settings::Settings},
        protocol::message::{Kind, Message},
    };

    #[test]
    fn a_connection_counts_messages_bytes_and_what_waits() {
        let (connection, _peer) = Connection::for_test(1, &Settings::SMALL, "");
        connection.count_read(11);
        connection.deliver(&mut vec![Message {
            kind: Kind::Text,
            payload: Bytes::from_static(b"hello"),
        }]);
        assert!(connection.send(Kind::Text, b"hi", None).unwrap());
        let found = connection.traffic();
        assert_eq!((found.messages_in, found.messages_out), (1, 1));
        assert_eq!((found.bytes_in, found.bytes_out), (11, 4));
        assert_eq!((found.inbox_messages, found.inbox_bytes), (1, 5));
        assert_eq!(found.outbox_bytes, 0);
    }

    #[test]
    fn the_traffic_of_ended_connections_stays_in_the_sum() {
        let registry = Arc::new(Registry::default());
        let (connection, _peer) = Connection::for_test(1, &Settings::SMALL, "");
        let registration = Registry::register(&registry, &connection).unwrap();
        connection.send(Kind::Text, b"hi", None).unwrap();
        let open = registry.overview();
        assert_eq!((open.connections, open.traffic.bytes_out), (1, 4));
        // The registration alone keeps the counters until it is dropped.
        drop(connection);
        drop(registration);
        let over = registry.overview();
        assert_eq!((over.connections, over.traffic.bytes_out), (0, 4));
        assert_eq!(over.traffic.messages_out, 1);
    }
}

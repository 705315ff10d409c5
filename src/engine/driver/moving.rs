//! The driver of a connection that another process is to go on with.

use std::pin::Pin;

use tokio::sync::futures::Notified;

use super::{Driver, Io, closing::Stage, pause::Pause};
use crate::engine::{
    base::clock,
    connection::{
        Connection,
        moving::{Incoming, Standing},
    },
};

impl Driver {
    /// Waits while it stands still for a move. Whether the connection is gone then.
    #[inline]
    pub(super) async fn has_gone<'c>(
        &mut self,
        io: &Io,
        connection: &'c Connection,
        wake: Pin<&mut Notified<'c>>,
    ) -> bool {
        // Boxed: else each connection would have room for this all its life.
        connection.has_move() && Box::pin(self.stand(io, connection, wake)).await
    }

    async fn stand<'c>(
        &mut self,
        io: &Io,
        connection: &'c Connection,
        mut wake: Pin<&mut Notified<'c>>,
    ) -> bool {
        let mut standing = self.stand_still();
        while standing == Standing::Still {
            wake.as_mut().await;
            wake.set(connection.wake.notified());
            standing = self.stand_still();
            if standing == Standing::Running {
                self.on_wake(io.get_ref());
                self.advance(io);
            }
        }
        standing == Standing::Gone || self.closing.stage() == Stage::Over
    }

    /// Stands still if that is asked of it and it can.
    fn stand_still(&mut self) -> Standing {
        let connection = std::sync::Arc::clone(&self.connection);
        connection.stand_still(|| self.incoming())
    }

    /// The bytes that were read and not taken in, and the keepalive; `None` where nobody else could go
    /// on with them: in a compressed message, or when the connection ends.
    fn incoming(&mut self) -> Option<Incoming> {
        let is_failing = matches!(self.pause, Some(Pause::Failing { .. }));
        if self.closing.stage() != Stage::Open || self.hung_up || is_failing {
            return None;
        }
        let mut bytes = self.receiver.replay()?;
        if let Some(leftover) = &mut self.leftover {
            bytes.extend_from_slice(leftover.rest());
        }
        Some(Incoming {
            bytes,
            pulse: self.keepalive.pulse(clock::task_now()),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{ErrorKind, Read, Write},
        os::unix::net::UnixStream,
        sync::Arc,
        time::Duration,
    };

    use bytes::Bytes;
    use tokio::{runtime::Runtime, task::JoinHandle};

    use super::{super::fixture::*, *};
    use crate::{
        engine::{
            connection::{
                Connection, End, Initiator, inbox::Received, moving::Parts, registry::Registry,
                settings::Settings,
            },
            driver::Io,
            resources::{permits::Permit, socket::Socket, watched},
        },
        protocol::{
            close::CloseFrame,
            deflate::{Codecs, Options, Terms},
            frame::{self, Opcode},
            message::Kind,
        },
    };

    const PATIENCE: Duration = Duration::from_secs(20);

    fn runtime() -> Runtime {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap()
    }

    /// A connection whose driver runs, and its peer.
    fn running(
        runtime: &Runtime,
        settings: &Settings,
    ) -> (Arc<Connection>, UnixStream, JoinHandle<()>) {
        let _context = runtime.enter();
        let Fixture {
            driver,
            io,
            connection,
            peer,
        } = fixture(settings);
        let driving = runtime.spawn(Box::new(driver).run(io));
        (connection, peer, driving)
    }

    /// Goes on with the parts of another process, as the engine does.
    fn heir(runtime: &Runtime, settings: &Settings, parts: Parts) -> (Arc<Connection>, Vec<u8>) {
        let _context = runtime.enter();
        let codecs = Codecs::default();
        let socket = Arc::new(Socket::new(parts.client).unwrap());
        let io = Io::Watched(watched::watch(&socket).unwrap());
        let (head, turns) = (Bytes::new(), Arc::default());
        let connection = Arc::new(Connection::new(2, socket, settings, head, turns, &codecs));
        connection.outbox.hold();
        connection.put_unread(parts.unread);
        let registration = Registry::register(&Arc::default(), &connection).unwrap();
        let driver = Driver::new(
            Arc::clone(&connection),
            parts.incoming,
            settings,
            &codecs,
            registration,
            Permit::claim(None).unwrap(),
        );
        runtime.spawn(Box::new(driver).run(io));
        (connection, parts.unsent)
    }

    fn message(connection: &Arc<Connection>) -> Vec<u8> {
        match connection.take(None) {
            Received::Message(message) => message.payload.to_vec(),
            other => panic!("{other:?}"),
        }
    }

    fn masked(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        frame::append_masked(&mut bytes, opcode, payload, [7, 8, 9, 10]);
        bytes
    }

    fn read(peer: &mut UnixStream, length: usize) -> Vec<u8> {
        peer.set_nonblocking(false).unwrap();
        let mut bytes = vec![0; length];
        peer.read_exact(&mut bytes).unwrap();
        bytes
    }

    fn until(what: impl Fn() -> bool) {
        while !what() {
            std::thread::yield_now();
        }
    }

    #[test]
    fn another_process_goes_on_in_the_middle_of_frames_both_ways() {
        let runtime = runtime();
        let (first, mut peer, driving) = running(&runtime, &SETTINGS);
        // The socket is full, and a frame is out in part.
        let mut sent = 0;
        while first.outbox.queued() == 0 {
            assert!(first.send(Kind::Binary, &[b's'; 500], None).unwrap());
            sent += 1;
        }
        let (one, two) = (masked(Opcode::Text, b"one"), masked(Opcode::Binary, b"two"));
        peer.set_nonblocking(false).unwrap();
        peer.write_all(&one).unwrap();
        peer.write_all(&two[..5]).unwrap();
        until(|| first.traffic().bytes_in == (one.len() + 5) as u64);
        let parts = first.give_away(PATIENCE).unwrap().unwrap();
        assert_eq!(parts.unread.len(), 1);
        assert!(!first.send(Kind::Text, b"too late", None).unwrap());
        let (second, unsent) = heir(&runtime, &SETTINGS, parts);
        assert_eq!(first.end(), None);
        first.part();
        runtime.block_on(driving).unwrap();
        assert_eq!(first.end().unwrap().by, Initiator::Local);
        assert_eq!(message(&second), b"one");
        peer.write_all(&two[5..]).unwrap();
        assert_eq!(message(&second), b"two");
        assert!(second.send(Kind::Text, b"held", None).unwrap());
        second.release(unsent);
        assert!(second.send(Kind::Text, b"last", None).unwrap());
        let expected = frame::encode(Opcode::Binary, &[b's'; 500]).repeat(sent);
        assert!(read(&mut peer, expected.len()) == expected);
        assert_eq!(read(&mut peer, 12), b"\x81\x04held\x81\x04last");
        assert!(second.close(&CloseFrame::new(Some(1000), "").unwrap()));
        assert_eq!(read(&mut peer, 4), b"\x88\x02\x03\xe8");
    }

    #[test]
    fn a_connection_that_is_taken_back_sends_all_and_closes() {
        let runtime = runtime();
        let (connection, mut peer, driving) = running(&runtime, &SETTINGS);
        drop(connection.give_away(PATIENCE).unwrap().unwrap());
        connection.outbox.ping();
        assert_eq!(read_now(&mut peer), b"");
        connection.take_back(&CloseFrame::new(Some(1012), "").unwrap());
        assert_eq!(read(&mut peer, 4), b"\x88\x02\x03\xf4");
        drop(peer);
        runtime.block_on(driving).unwrap();
    }

    #[test]
    fn what_parts_neither_closes_nor_hangs_up() {
        let runtime = runtime();
        let (connection, mut peer, driving) = running(&runtime, &SETTINGS);
        let parts = connection.give_away(PATIENCE).unwrap().unwrap();
        connection.part();
        runtime.block_on(driving).unwrap();
        drop(connection);
        let error = peer.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        drop(parts);
        assert_eq!(peer.read(&mut [0]).unwrap(), 0);
    }

    /// A connection that was given away in a large frame, and then had to give up all that it holds.
    fn shed(runtime: &Runtime) -> (Arc<Connection>, UnixStream, JoinHandle<()>, Parts) {
        let (connection, peer, driving) = running(runtime, &SETTINGS);
        for size in [1024 * 1024, 1] {
            assert!(
                connection
                    .send(Kind::Binary, &vec![b's'; size], None)
                    .unwrap()
            );
        }
        let parts = connection.give_away(PATIENCE).unwrap().unwrap();
        assert!(connection.share.held() > 512 * 1024);
        connection.shed();
        assert_eq!(connection.share.held(), 0);
        (connection, peer, driving, parts)
    }

    #[test]
    fn what_is_shed_while_another_process_gets_it_is_not_hung_up() {
        let runtime = runtime();
        let (connection, mut peer, driving, parts) = shed(&runtime);
        connection.part();
        runtime.block_on(driving).unwrap();
        drop(connection);
        let received = read_now(&mut peer).len();
        let error = peer.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        let (heir, unsent) = heir(&runtime, &SETTINGS, parts);
        heir.release(unsent);
        assert!(heir.send(Kind::Text, b"last", None).unwrap());
        let rest = 10 + 1024 * 1024 - received;
        assert_eq!(read(&mut peer, rest)[rest - 1], b's');
        assert_eq!(read(&mut peer, 9), b"\x82\x01s\x81\x04last");
    }

    #[test]
    fn what_is_shed_in_a_large_frame_and_taken_back_is_hung_up() {
        let runtime = runtime();
        let (connection, mut peer, driving, parts) = shed(&runtime);
        connection.take_back(&CloseFrame::new(Some(1012), "").unwrap());
        runtime.block_on(driving).unwrap();
        peer.set_nonblocking(false).unwrap();
        let received = peer.read_to_end(&mut Vec::new()).unwrap();
        assert!(received < 512 * 1024, "{received}");
        drop(parts);
    }

    #[test]
    fn a_driver_that_is_dropped_while_another_process_gets_its_connection_hangs_nothing_up() {
        let runtime = runtime();
        let (connection, mut peer, driving) = running(&runtime, &SETTINGS);
        let parts = connection.give_away(PATIENCE).unwrap().unwrap();
        driving.abort();
        assert!(runtime.block_on(driving).unwrap_err().is_cancelled());
        drop(connection);
        let error = peer.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        drop(parts);
    }

    #[test]
    fn one_that_was_halted_goes_on_until_it_is_given_away() {
        let runtime = runtime();
        let (connection, mut peer, _) = running(&runtime, &SETTINGS);
        connection.halt();
        connection.go_on();
        peer.write_all(&masked(Opcode::Text, b"one")).unwrap();
        assert_eq!(message(&connection), b"one");
        connection.halt();
        connection.halt();
        drop(connection.give_away(PATIENCE).unwrap().unwrap());
        connection.go_on();
        assert!(connection.give_away(PATIENCE).unwrap().is_none());
        assert!(!connection.send(Kind::Text, b"too late", None).unwrap());
    }

    #[test]
    fn one_that_was_halted_and_ends_meanwhile_is_not_given_away() {
        let runtime = runtime();
        let (connection, mut peer, driving) = running(&runtime, &SETTINGS);
        connection.halt();
        assert!(connection.close(&CloseFrame::new(Some(1000), "").unwrap()));
        assert!(connection.give_away(PATIENCE).unwrap().is_none());
        assert_eq!(read(&mut peer, 4), b"\x88\x02\x03\xe8");
        drop(peer);
        runtime.block_on(driving).unwrap();
        connection.halt();
        assert!(connection.give_away(PATIENCE).unwrap().is_none());
    }

    #[test]
    fn one_that_has_ended_or_keeps_a_window_is_not_given_away() {
        let runtime = runtime();
        let (connection, peer, driving) = running(&runtime, &SETTINGS);
        assert!(connection.is_movable());
        drop(peer);
        runtime.block_on(driving).unwrap();
        assert!(connection.give_away(PATIENCE).unwrap().is_none());
        let offer = "permessage-deflate";
        let keeping = Options {
            threshold_bytes: 1,
            level: 1,
            server_no_context_takeover: false,
            client_no_context_takeover: true,
            server_max_window_bits: 15,
            client_max_window_bits: 15,
        };
        let forgetting = Options {
            server_no_context_takeover: true,
            ..keeping
        };
        for (options, is_movable) in [(keeping, false), (forgetting, true)] {
            let settings = Settings {
                compression: Terms::negotiate(offer, options),
                ..SETTINGS
            };
            let (connection, _peer, _) = running(&runtime, &settings);
            assert_eq!(connection.is_movable(), is_movable);
            assert_eq!(
                connection.give_away(PATIENCE).unwrap().is_some(),
                is_movable
            );
        }
    }

    #[test]
    fn in_a_compressed_message_it_stands_still_at_its_end_and_goes_on_until_then() {
        let runtime = runtime();
        let options = Options {
            threshold_bytes: 1,
            level: 1,
            server_no_context_takeover: true,
            client_no_context_takeover: true,
            server_max_window_bits: 15,
            client_max_window_bits: 15,
        };
        let settings = Settings {
            compression: Terms::negotiate("permessage-deflate", options),
            ..SETTINGS
        };
        let (connection, mut peer, _) = running(&runtime, &settings);
        // "Hello", as in section 7.2.3.1 of RFC 7692.
        let payload = [0xF2, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00];
        let mut hello = masked(Opcode::Text, &payload);
        hello[0] |= 0x40;
        peer.write_all(&hello[..9]).unwrap();
        until(|| connection.traffic().bytes_in == 9);
        let short = Duration::from_millis(1);
        assert!(connection.give_away(short).unwrap().is_none());
        let giving = {
            let connection = Arc::clone(&connection);
            std::thread::spawn(move || connection.give_away(PATIENCE).unwrap())
        };
        peer.write_all(&hello[9..]).unwrap();
        let parts = giving.join().unwrap().unwrap();
        assert_eq!(parts.unread[0].payload, "Hello");
        assert_eq!(connection.end(), None::<End>);
    }
}

//! A client that does exactly what the test says, well-behaved or not.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::Shutdown,
    os::fd::OwnedFd,
    time::Duration,
};

use socket2::Socket;

use super::{HEAD, LIMIT};

pub(crate) const TEXT: u8 = 0x81;
pub(crate) const BINARY: u8 = 0x82;
pub(crate) const CLOSE: u8 = 0x88;
pub(crate) const PING: u8 = 0x89;
pub(crate) const PONG: u8 = 0x8A;

const KEY: [u8; 4] = [0x12, 0xF0, 0x07, 0x99];

/// A masked frame whose first byte is `first`.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match u16::try_from(payload.len()) {
        Ok(length @ 0..=125) => frame.push(0x80 | length.to_be_bytes()[1]),
        Ok(length) => {
            frame.push(0x80 | 0x7E);
            frame.extend_from_slice(&length.to_be_bytes());
        }
        Err(_) => {
            frame.push(0x80 | 0x7F);
            frame.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&KEY);
    frame.extend(payload.iter().zip(KEY.iter().cycle()).map(|(a, b)| a ^ b));
    frame
}

/// The payload of a close frame.
pub(crate) fn close_payload(code: u16, reason: &str) -> Vec<u8> {
    [&code.to_be_bytes()[..], reason.as_bytes()].concat()
}

/// The client's end of a connection.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) socket: Socket,
}

impl Peer {
    pub(crate) fn new(client: OwnedFd) -> Self {
        let socket = Socket::from(client);
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        socket.set_write_timeout(Some(LIMIT)).unwrap();
        Self { socket }
    }

    #[track_caller]
    pub(crate) fn expect_head(&mut self) {
        let mut head = [0; HEAD.len()];
        self.socket.read_exact(&mut head).unwrap();
        assert_eq!(head, HEAD);
    }

    #[track_caller]
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).unwrap();
    }

    #[track_caller]
    pub(crate) fn send(&mut self, first: u8, payload: &[u8]) {
        self.write(&frame(first, payload));
    }

    #[track_caller]
    pub(crate) fn close(&mut self, code: u16, reason: &str) {
        self.send(CLOSE, &close_payload(code, reason));
    }

    /// The next frame: its first byte and its payload.
    #[track_caller]
    pub(crate) fn read(&mut self) -> (u8, Vec<u8>) {
        self.try_read().unwrap()
    }

    pub(crate) fn try_read(&mut self) -> io::Result<(u8, Vec<u8>)> {
        let mut head = [0; 2];
        self.socket.read_exact(&mut head)?;
        let length = match head[1] {
            126 => {
                let mut length = [0; 2];
                self.socket.read_exact(&mut length)?;
                u64::from(u16::from_be_bytes(length))
            }
            127 => {
                let mut length = [0; 8];
                self.socket.read_exact(&mut length)?;
                u64::from_be_bytes(length)
            }
            length => {
                assert!(length < 126, "a server's frame must not be masked");
                u64::from(length)
            }
        };
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        self.socket.read_exact(&mut payload)?;
        Ok((head[0], payload))
    }

    #[track_caller]
    pub(crate) fn expect(&mut self, first: u8, payload: &[u8]) {
        let (came, body) = self.read();
        assert_eq!((came, body.len()), (first, payload.len()));
        assert!(body == payload, "{body:.50?} instead of {payload:.50?}");
    }

    #[track_caller]
    pub(crate) fn expect_close(&mut self, code: u16, reason: &str) {
        self.expect(CLOSE, &close_payload(code, reason));
    }

    /// Expects the 503 with `Retry-After` of a connection that could not be driven, and no more.
    #[track_caller]
    pub(crate) fn expect_refusal(&mut self) {
        let mut told = String::new();
        self.socket.read_to_string(&mut told).unwrap();
        assert!(told.starts_with("HTTP/1.1 503 "), "{told}");
        assert!(told.contains("\r\nRetry-After: "), "{told}");
        assert!(told.ends_with("\r\n\r\n"), "{told}");
    }

    /// Expects the end of the stream, with no bytes before it.
    #[track_caller]
    pub(crate) fn expect_eof(&mut self) {
        let mut rest = Vec::new();
        self.socket.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"");
    }

    /// Writes until the other side takes no more for a while; returns how many bytes it took.
    pub(crate) fn write_until_blocked(&mut self, bytes: &[u8]) -> usize {
        let timeout = Some(Duration::from_millis(300));
        self.socket.set_write_timeout(timeout).unwrap();
        let mut written = 0;
        let outcome = loop {
            match self.socket.write(&bytes[written..]) {
                Ok(0) => break ErrorKind::WriteZero,
                Ok(more) => written += more,
                Err(error) => break error.kind(),
            }
        };
        assert_eq!(outcome, ErrorKind::WouldBlock, "after {written} bytes");
        self.socket.set_write_timeout(Some(LIMIT)).unwrap();
        written
    }

    /// Whether our descriptor's other end has been closed: then writing fails.
    pub(crate) fn is_refused(&mut self) -> bool {
        self.socket.write_all(&frame(PONG, b"")).is_err()
    }

    /// Goes away in an orderly way, as the kernel sees it.
    pub(crate) fn hang_up(self) {
        self.socket.shutdown(Shutdown::Both).unwrap();
    }

    /// Goes away by a reset (TCP), as a crashing client does.
    pub(crate) fn reset(self) {
        self.socket.set_linger(Some(Duration::ZERO)).unwrap();
    }
}

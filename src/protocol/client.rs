//! Frames as a client sends and reads them: the other end of a connection, for tests.
//!
//! The headers are tungstenite's, which also validates what servers may send: nothing here shares a
//! rule with the server's side. The caller puts messages together from the frames.

use std::io::Cursor;

use bytes::{Buf, Bytes, BytesMut};
use tungstenite::protocol::frame::{FrameHeader, coding::OpCode};

use super::{error::Violation, mask::unmask};

/// One frame of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The opcode (RFC 6455 section 5.2).
    pub opcode: u8,
    /// The payload, unmasked as it came.
    pub payload: Bytes,
    /// Whether it ends its message.
    pub is_final: bool,
    /// The first reserved bit: permessage-deflate's.
    pub rsv1: bool,
}

/// Cuts what a server sends into frames, however the reads cut it.
#[derive(Debug, Default)]
pub struct Reader {
    buffer: BytesMut,
}

impl Reader {
    /// Takes bytes as they arrive.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame, if it is here.
    ///
    /// # Errors
    /// A [`Violation`] for headers that no server may send.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, Violation> {
        let mut cursor = Cursor::new(&self.buffer[..]);
        let Some((header, length)) = FrameHeader::parse(&mut cursor)
            .map_err(|_| Violation::protocol("malformed frame header"))?
        else {
            return Ok(None);
        };
        if header.mask.is_some() {
            return Err(Violation::protocol("a server must not mask its frames"));
        }
        if header.rsv2 || header.rsv3 {
            return Err(Violation::protocol("reserved bits without a meaning"));
        }
        let start = usize::try_from(cursor.position()).unwrap_or(usize::MAX);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if self.buffer.len().saturating_sub(start) < length {
            return Ok(None);
        }
        self.buffer.advance(start);
        Ok(Some(Frame {
            opcode: header.opcode.into(),
            payload: self.buffer.split_to(length).freeze(),
            is_final: header.is_final,
            rsv1: header.rsv1,
        }))
    }
}

/// A frame as a client sends it, masked with `key`. It may be one that breaks the rules.
pub fn encode(frame: &Frame, key: [u8; 4]) -> Vec<u8> {
    let header = FrameHeader {
        is_final: frame.is_final,
        rsv1: frame.rsv1,
        rsv2: false,
        rsv3: false,
        opcode: OpCode::from(frame.opcode & 0x0F),
        mask: Some(key),
    };
    let length = frame.payload.len();
    let mut bytes = Vec::with_capacity(length + super::frame::MAX_HEADER_BYTES);
    // Writing to memory cannot fail.
    let _ = header.format(length as u64, &mut bytes);
    let start = bytes.len();
    bytes.extend_from_slice(&frame.payload);
    unmask(&mut bytes[start..], key, 0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::frame::{self, Opcode};

    fn frame(opcode: u8, payload: &'static str) -> Frame {
        Frame {
            opcode,
            payload: Bytes::from_static(payload.as_bytes()),
            is_final: true,
            rsv1: false,
        }
    }

    #[test]
    fn frames_are_the_same_however_they_are_cut() {
        let mut bytes = frame::encode(Opcode::Text, b"hello").to_vec();
        bytes.extend_from_slice(&frame::encode(Opcode::Binary, &vec![7; 70_000]));
        for size in [1, 3, 1000, bytes.len()] {
            let mut reader = Reader::default();
            let mut found = Vec::new();
            for piece in bytes.chunks(size) {
                reader.feed(piece);
                found.extend(reader.next_frame().unwrap());
                found.extend(reader.next_frame().unwrap());
            }
            assert_eq!(found[0], frame(1, "hello"), "{size}");
            assert_eq!(found[1].payload, vec![7; 70_000], "{size}");
            assert_eq!(found.len(), 2, "{size}");
        }
    }

    #[test]
    fn what_is_sent_is_masked_and_the_example_of_the_rfc() {
        assert_eq!(
            encode(&frame(1, "Hello"), [0x37, 0xfa, 0x21, 0x3d]),
            [
                0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58
            ]
        );
    }

    #[test]
    fn what_no_server_may_send_is_a_violation() {
        for bytes in [&b"\x81\x80mask"[..], b"\xa1\x00", b"\x91\x00", b"\x83\x00"] {
            let mut reader = Reader::default();
            reader.feed(bytes);
            assert!(reader.next_frame().is_err(), "{bytes:?}");
        }
    }
}

//! Frames (RFC 6455 section 5.2). Here the first bytes of an outgoing frame are its _head_, those of
//! an incoming one its _header_.

use std::{io::Cursor, ops::Deref};

use bytes::Bytes;
use tungstenite::protocol::frame::{
    FrameHeader,
    coding::{Control, Data, OpCode},
};

use super::{error::Violation, mask::unmask};

/// The largest payload of a control frame (RFC 6455 section 5.5).
pub const MAX_CONTROL_PAYLOAD_BYTES: usize = 125;

/// The two kinds of message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// UTF-8, checked.
    Text,
    /// Any bytes.
    Binary,
}

/// The opcode of a frame. It has no variants for reserved ones, which the parser refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    /// A further fragment of the message that is under way.
    Continuation = 0x0,
    /// UTF-8 text, or its first fragment.
    Text = 0x1,
    /// Bytes, or their first fragment.
    Binary = 0x2,
    /// The beginning, or the answer, of the close handshake.
    Close = 0x8,
    /// Asks for a pong with the same payload.
    Ping = 0x9,
    /// The answer to a ping, or a sign of life.
    Pong = 0xA,
}

impl Opcode {
    /// Whether this is a close, ping or pong, which may stand between the fragments of a message.
    pub fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

impl From<Kind> for Opcode {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Text => Self::Text,
            Kind::Binary => Self::Binary,
        }
    }
}

/// The first byte of an outgoing frame that is not a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct First(u8);

impl From<Opcode> for First {
    fn from(opcode: Opcode) -> Self {
        Self(0x80 | opcode as u8)
    }
}

impl First {
    /// The first byte of a message whose payload is compressed: RSV1 is set (RFC 7692 section 6).
    pub fn compressed(kind: Kind) -> Self {
        Self(0x80 | 0x40 | Opcode::from(kind) as u8)
    }

    fn is_control(self) -> bool {
        self.0 & 0x08 != 0
    }

    /// The kind of the message; `None` for a control frame.
    pub(super) fn kind(self) -> Option<Kind> {
        match self.0 & 0x0F {
            0x1 => Some(Kind::Text),
            0x2 => Some(Kind::Binary),
            _ => None,
        }
    }
}

/// The head of an outgoing frame, to be written right before its payload.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    bytes: [u8; 10],
    len: usize,
}

impl Deref for Head {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // `len` is 2, 4 or 10, so this never falls back.
        self.bytes.get(..self.len).unwrap_or(&self.bytes)
    }
}

/// The head of an unfragmented, unmasked frame, as a server sends it.
///
/// Control frames must keep to [`MAX_CONTROL_PAYLOAD_BYTES`]; the caller has to see to it.
// Not `FrameHeader::format`: it writes through `io::Write` and returns errors that cannot occur
// here, and that we could only ignore.
pub fn head(first: impl Into<First>, payload_len: usize) -> Head {
    let first = first.into();
    debug_assert!(!first.is_control() || payload_len <= MAX_CONTROL_PAYLOAD_BYTES);
    // The shortest form of the length is the only one allowed.
    let mut bytes = [0; 10];
    let length = (payload_len as u64).to_be_bytes();
    bytes[0] = first.0;
    let len = match payload_len {
        0..=125 => {
            bytes[1] = length[7];
            2
        }
        126..=0xFFFF => {
            bytes[1] = 126;
            bytes[2..4].copy_from_slice(&length[6..]);
            4
        }
        _ => {
            bytes[1] = 127;
            bytes[2..].copy_from_slice(&length);
            10
        }
    };
    Head { bytes, len }
}

/// A whole unfragmented, unmasked frame in one buffer, the payload copied once.
///
/// See [`head`] for the limit on control frames.
pub fn encode(first: impl Into<First>, payload: &[u8]) -> Bytes {
    // Of exact size, so that `Bytes` takes the buffer over as it is.
    Bytes::from([&*head(first, payload.len()), payload].concat())
}

/// Appends such a frame as a client sends it: masked with `key` (RFC 6455 section 5.3).
pub fn append_masked(frames: &mut Vec<u8>, first: impl Into<First>, payload: &[u8], key: [u8; 4]) {
    frames.reserve(MAX_HEADER_BYTES + payload.len());
    append_masked_head(frames, first, payload.len(), key);
    let start = frames.len();
    frames.extend_from_slice(payload);
    unmask(frames.get_mut(start..).unwrap_or_default(), key, 0);
}

fn append_masked_head(
    frames: &mut Vec<u8>,
    first: impl Into<First>,
    payload_len: usize,
    key: [u8; 4],
) {
    let head = head(first, payload_len);
    frames.extend_from_slice(&head);
    // The second byte of the head: its highest bit says that a key follows.
    let second = frames.len() - head.len() + 1;
    if let Some(byte) = frames.get_mut(second) {
        *byte |= 0x80;
    }
    frames.extend_from_slice(&key);
}

/// The head of a frame as a client sends it, masked with `key`: perhaps not the last one of its message.
pub(super) fn append_client_head(
    frames: &mut Vec<u8>,
    opcode: Opcode,
    is_final: bool,
    payload_len: usize,
    key: [u8; 4],
) {
    let start = frames.len();
    append_masked_head(frames, opcode, payload_len, key);
    if let Some(first) = frames.get_mut(start).filter(|_| !is_final) {
        *first &= 0x7F;
    }
}

/// Appends a frame as a client sends it, masked with nothing: for messages that came another way, and
/// are to be validated as if they came in a frame. False when the payload has more than `most` bytes:
/// then only the head is appended: the reader refuses the frame there.
pub fn append_as_client(frames: &mut Vec<u8>, opcode: Opcode, payload: &[u8], most: usize) -> bool {
    let fits = payload.len() <= most;
    if fits {
        append_masked(frames, opcode, payload, [0; 4]);
    } else {
        append_masked_head(frames, opcode, payload.len(), [0; 4]);
    }
    fits
}

/// The side of a connection that this end is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// The frames of its peer have to be masked.
    #[default]
    Server,
    /// The frames of its peer must not be masked.
    Client,
}

/// The longest header of an incoming frame: two bytes, a 64-bit length, the masking key.
pub(super) const MAX_HEADER_BYTES: usize = 14;

/// The header of an incoming frame that breaks no rule a header can break by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) opcode: Opcode,
    pub(super) is_final: bool,
    /// RSV1: the message that begins with this frame is compressed (RFC 7692 section 6).
    pub(super) is_compressed: bool,
    pub(super) key: [u8; 4],
    pub(super) payload_len: u64,
}

/// Reads the header at the front of `bytes`; also returns its own size in bytes.
///
/// `role` is that of the reader. `compression` says that permessage-deflate was agreed on, which
/// gives RSV1 a meaning on the first frame of a message. `None` means that the header is incomplete; the first two bytes,
/// when they are there, have been validated.
pub(super) fn parse(
    bytes: &[u8],
    role: Role,
    compression: bool,
) -> Result<Option<(Header, usize)>, Violation> {
    let [first, second, ..] = *bytes else {
        return Ok(None);
    };
    let opcode = judge_start(first, second, role, compression)?;
    let mut cursor = Cursor::new(bytes);
    let (parsed, payload_len) = match FrameHeader::parse(&mut cursor) {
        Ok(Some(parsed)) => parsed,
        Ok(None) => return Ok(None),
        // Reading from memory does not fail; should it ever do so, the frame is refused.
        Err(_) => return Err(malformed()),
    };
    if payload_len >> 63 != 0 {
        return Err(Violation::protocol(
            "payload length has its highest bit set",
        ));
    }
    // tungstenite takes any form of the length, but knows the size of the shortest one.
    let header_len = parsed.len(payload_len);
    if cursor.position() != header_len as u64 {
        return Err(Violation::protocol(
            "payload length is not in its shortest form",
        ));
    }
    let header = Header {
        opcode,
        is_final: parsed.is_final,
        is_compressed: parsed.rsv1,
        // Masked with nothing when the peer is a server.
        key: match role {
            Role::Server => parsed.mask.ok_or_else(malformed)?,
            Role::Client => [0; 4],
        },
        payload_len,
    };
    Ok(Some((header, header_len)))
}

/// Validates what the first two bytes of a header say: everything but a longer length and the key.
fn judge_start(first: u8, second: u8, role: Role, compression: bool) -> Result<Opcode, Violation> {
    let opcode = match OpCode::from(first & 0x0F) {
        OpCode::Data(Data::Continue) => Opcode::Continuation,
        OpCode::Data(Data::Text) => Opcode::Text,
        OpCode::Data(Data::Binary) => Opcode::Binary,
        OpCode::Control(Control::Close) => Opcode::Close,
        OpCode::Control(Control::Ping) => Opcode::Ping,
        OpCode::Control(Control::Pong) => Opcode::Pong,
        OpCode::Data(Data::Reserved(opcode)) | OpCode::Control(Control::Reserved(opcode)) => {
            return Err(Violation::protocol(format!("opcode {opcode} is reserved")));
        }
    };
    let is_compressed = first & 0x40 != 0;
    if first & 0x30 != 0 || (is_compressed && !compression) {
        return Err(Violation::protocol("reserved bit set without an extension"));
    }
    if is_compressed && !matches!(opcode, Opcode::Text | Opcode::Binary) {
        return Err(Violation::protocol(
            "RSV1 is set on a frame that begins no message",
        ));
    }
    match (role, second & 0x80 != 0) {
        (Role::Server, false) => return Err(Violation::protocol("frame is not masked")),
        (Role::Client, true) => return Err(Violation::protocol("frame is masked")),
        (Role::Server, true) | (Role::Client, false) => {}
    }
    if opcode.is_control() {
        if first & 0x80 == 0 {
            return Err(Violation::protocol("control frame is fragmented"));
        }
        // 126 and 127 announce an extended length, which a control frame may not have.
        if usize::from(second & 0x7F) > MAX_CONTROL_PAYLOAD_BYTES {
            return Err(Violation::protocol(
                "control frame announces more than 125 bytes",
            ));
        }
    }
    Ok(opcode)
}

fn malformed() -> Violation {
    Violation::protocol("malformed frame header")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Opcode; 6] = [
        Opcode::Continuation,
        Opcode::Text,
        Opcode::Binary,
        Opcode::Close,
        Opcode::Ping,
        Opcode::Pong,
    ];
    const KEY: [u8; 4] = [1, 2, 3, 4];

    /// The outcome of parsing. For every shorter start of `bytes` it is `None`, unless the first two
    /// already break a rule.
    fn parsed(bytes: &[u8]) -> Result<(Header, usize), String> {
        parsed_under(bytes, false)
    }

    fn parsed_under(bytes: &[u8], compression: bool) -> Result<(Header, usize), String> {
        let whole = parse(bytes, Role::Server, compression);
        let start = parse(&bytes[..2], Role::Server, compression);
        if start.is_err() {
            assert_eq!(start, whole);
        }
        for end in 0..bytes.len() {
            let expected = if end < 2 { &Ok(None) } else { &start };
            assert_eq!(
                &parse(&bytes[..end], Role::Server, compression),
                expected,
                "{end} bytes"
            );
        }
        match whole {
            Ok(outcome) => Ok(outcome.expect("a whole header")),
            Err(violation) => {
                assert_eq!(violation.code, 1002);
                Err(violation.reason.into_owned())
            }
        }
    }

    fn masked(start: &[u8]) -> Vec<u8> {
        [start, &KEY].concat()
    }

    #[test]
    fn heads_have_the_shortest_length_form() {
        let table: [(usize, &[u8]); 8] = [
            (0, &[0x82, 0]),
            (1, &[0x82, 1]),
            (125, &[0x82, 125]),
            (126, &[0x82, 126, 0, 126]),
            (0x1234, &[0x82, 126, 0x12, 0x34]),
            (0xFFFF, &[0x82, 126, 0xFF, 0xFF]),
            (0x1_0000, &[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
            (
                0x1234_5678,
                &[0x82, 127, 0, 0, 0, 0, 0x12, 0x34, 0x56, 0x78],
            ),
        ];
        for (len, expected) in table {
            assert_eq!(&head(Opcode::Binary, len)[..], expected, "{len}");
        }
    }

    #[test]
    fn a_client_reads_no_masked_frame_and_a_server_no_other() {
        let plain = head(Opcode::Text, 5);
        let (header, len) = parse(&plain, Role::Client, false).unwrap().unwrap();
        assert_eq!((header.key, header.payload_len, len), ([0; 4], 5, 2));
        let refused = |bytes, role| parse(bytes, role, false).unwrap_err().reason;
        assert_eq!(refused(&plain, Role::Server), "frame is not masked");
        assert_eq!(
            refused(&masked(&[0x81, 0x85]), Role::Client),
            "frame is masked"
        );
    }

    #[test]
    fn masked_frames_are_the_example_of_the_rfc() {
        let mut frames = Vec::new();
        append_masked(
            &mut frames,
            Opcode::Text,
            b"Hello",
            [0x37, 0xfa, 0x21, 0x3d],
        );
        let expected = b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";
        assert_eq!(frames, expected);
        append_masked(&mut frames, Opcode::Ping, b"", [1, 2, 3, 4]);
        assert_eq!(&frames[expected.len()..], b"\x89\x80\x01\x02\x03\x04");
    }

    #[test]
    fn heads_are_those_of_tungstenite() {
        for opcode in ALL {
            for len in [0, 5, 125] {
                let theirs = FrameHeader {
                    opcode: OpCode::from(opcode as u8),
                    ..FrameHeader::default()
                };
                let mut expected = Vec::new();
                theirs.format(len, &mut expected).unwrap();
                assert_eq!(
                    head(opcode, usize::try_from(len).unwrap()).to_vec(),
                    expected
                );
            }
        }
    }

    #[test]
    fn encode_puts_head_and_payload_together() {
        assert_eq!(&encode(Opcode::Text, b"Hello")[..], b"\x81\x05Hello");
        assert_eq!(&encode(Opcode::Pong, b"")[..], b"\x8a\x00");
        let long = vec![9; 70_000];
        let frame = encode(Opcode::Binary, &long);
        assert_eq!(&frame[..10], &head(Opcode::Binary, 70_000)[..]);
        assert_eq!(&frame[10..], long);
    }

    #[test]
    fn headers_come_out_as_they_were_put_in() {
        for opcode in ALL {
            for (is_final, len) in [(true, 0), (true, 125), (false, 126), (false, 1 << 40)] {
                if opcode.is_control() && !is_final {
                    continue;
                }
                let theirs = FrameHeader {
                    is_final,
                    opcode: OpCode::from(opcode as u8),
                    mask: Some(KEY),
                    ..FrameHeader::default()
                };
                let mut bytes = Vec::new();
                theirs.format(len, &mut bytes).unwrap();
                let header = Header {
                    opcode,
                    is_final,
                    is_compressed: false,
                    key: KEY,
                    payload_len: len,
                };
                assert_eq!(parsed(&bytes), Ok((header, bytes.len())));
            }
        }
    }

    #[test]
    fn reserved_opcodes_are_refused() {
        for opcode in (3..=7).chain(11..=15) {
            let expected = Err(format!("opcode {opcode} is reserved"));
            assert_eq!(parsed(&masked(&[0x80 | opcode, 0x80])), expected);
        }
    }

    #[test]
    fn reserved_bits_are_refused_unless_rsv1_means_compression() {
        let refused = Err("reserved bit set without an extension".to_owned());
        for rsv in (0x10..=0x70).step_by(0x10) {
            for opcode in ALL {
                let bytes = masked(&[0x80 | rsv | opcode as u8, 0x80]);
                assert_eq!(parsed(&bytes), refused);
                if rsv != 0x40 {
                    assert_eq!(parsed_under(&bytes, true), refused);
                }
            }
        }
    }

    #[test]
    fn rsv1_belongs_to_the_first_frame_of_a_message() {
        let misplaced = Err("RSV1 is set on a frame that begins no message".to_owned());
        for opcode in ALL {
            let outcome = parsed_under(&masked(&[0xC0 | opcode as u8, 0x80]), true);
            if matches!(opcode, Opcode::Text | Opcode::Binary) {
                assert!(outcome.unwrap().0.is_compressed);
            } else {
                assert_eq!(outcome, misplaced);
            }
            let (header, _) = parsed_under(&masked(&[0x80 | opcode as u8, 0x80]), true).unwrap();
            assert!(!header.is_compressed);
        }
    }

    #[test]
    fn compressed_messages_are_marked_with_rsv1() {
        assert_eq!(
            &encode(First::compressed(Kind::Text), b"a")[..],
            b"\xc1\x01a"
        );
        assert_eq!(
            &head(First::compressed(Kind::Binary), 126)[..],
            b"\xc2\x7e\x00\x7e"
        );
    }

    #[test]
    fn frames_without_a_mask_are_refused() {
        for start in [&[0x81, 0][..], &[0x82, 126, 1, 0], &[0x89, 5]] {
            assert_eq!(parsed(start), Err("frame is not masked".to_owned()));
        }
    }

    #[test]
    fn lengths_must_be_in_their_shortest_form() {
        let refused = Err("payload length is not in its shortest form".to_owned());
        for len in [0_u16, 1, 125] {
            let [high, low] = len.to_be_bytes();
            assert_eq!(parsed(&masked(&[0x82, 0xFE, high, low])), refused);
        }
        for len in [0_u64, 125, 126, 0xFFFF] {
            let start = [&[0x82, 0xFF][..], &len.to_be_bytes()].concat();
            assert_eq!(parsed(&masked(&start)), refused);
        }
        assert!(parsed(&masked(&[0x82, 0xFE, 0, 126])).is_ok());
        assert!(parsed(&masked(&[0x82, 0xFF, 0, 0, 0, 0, 0, 1, 0, 0])).is_ok());
    }

    #[test]
    fn lengths_have_63_bits() {
        let refused = Err("payload length has its highest bit set".to_owned());
        for len in [1 << 63, u64::MAX] {
            let start = [&[0x82, 0xFF][..], &u64::to_be_bytes(len)].concat();
            assert_eq!(parsed(&masked(&start)), refused);
        }
        let largest = [&[0x82, 0xFF][..], &(u64::MAX >> 1).to_be_bytes()].concat();
        assert_eq!(
            parsed(&masked(&largest)).unwrap().0.payload_len,
            u64::MAX >> 1
        );
    }

    #[test]
    fn the_first_two_bytes_are_judged_before_the_rest_comes() {
        let refused: [(&[u8], &str); 6] = [
            (&[0x83, 0xFE], "opcode 3 is reserved"),
            (&[0xA1, 0xFF], "reserved bit set without an extension"),
            (
                &[0xC9, 0x80],
                "RSV1 is set on a frame that begins no message",
            ),
            (&[0x81, 0x7F], "frame is not masked"),
            (&[0x09, 0x80], "control frame is fragmented"),
            (&[0x8A, 0xFE], "control frame announces more than 125 bytes"),
        ];
        for (start, reason) in refused {
            assert_eq!(
                parse(start, Role::Server, true),
                Err(Violation::protocol(reason))
            );
        }
        for start in [[0x81, 0xFF], [0x00, 0xFE], [0xC2, 0x80], [0x8A, 0xFD]] {
            assert_eq!(parse(&start, Role::Server, true), Ok(None));
        }
    }

    #[test]
    fn control_frames_are_short_and_whole() {
        for opcode in [0x8, 0x9, 0xA] {
            assert_eq!(
                parsed(&masked(&[opcode, 0x80])),
                Err("control frame is fragmented".to_owned())
            );
            assert_eq!(
                parsed(&masked(&[0x80 | opcode, 0xFE, 0, 126])),
                Err("control frame announces more than 125 bytes".to_owned())
            );
            assert!(parsed(&masked(&[0x80 | opcode, 0xFD])).is_ok());
        }
    }
}

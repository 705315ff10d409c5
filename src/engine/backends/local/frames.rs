//! The frames on the connection between two nodes.
//!
//! Four bytes for the length of what follows (big endian), one for the kind, the rest is its
//! content. Nodes of another version of this format have another folder (`groups/backends/local.py`).

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::engine::{
    history::Position,
    presence::{Malformed, split},
};

/// A longer frame is an error.
const MAX_BYTES: usize = 1 << 30;
const LENGTH_BYTES: usize = 4;

/// The name of a node, and of its socket.
pub(super) type NodeId = u64;

/// One frame.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    /// The first frame.
    Hello {
        /// The node that sends here.
        id: u64,
        /// Whether it has just begun, so it has published nothing before.
        is_new: bool,
        /// The number of the last message that it has published.
        number: u64,
    },
    /// A message, or a close, for the members of a group.
    Message {
        /// Its number among those of the node.
        number: u64,
        /// The group's name.
        name: Bytes,
        /// The published message, or a close.
        envelope: Bytes,
    },
    /// A message for the members of a group that has a history.
    Recorded {
        /// The group's name.
        name: Bytes,
        /// Its number.
        position: Position,
        /// The published message.
        envelope: Bytes,
    },
    /// The numbers of members of groups, by the hashes of their names.
    Counts(Vec<(u64, u32)>),
    /// The connections of a user in the node that sends, as a record.
    Present {
        /// The group's name.
        name: Bytes,
        /// The record.
        record: Bytes,
    },
    /// All numbers and records were sent once.
    Ready,
    /// The record has come that has this claim, and all claims that go before it were sent.
    Seen(u64),
}

const HELLO: u8 = 1;
const MESSAGE: u8 = 2;
const COUNTS: u8 = 3;
const READY: u8 = 4;
const RECORDED: u8 = 5;
const PRESENT: u8 = 6;
const SEEN: u8 = 7;
const COUNT_BYTES: usize = 12;
const NUMBER_BYTES: usize = 8;

fn head(kind: u8, length: usize) -> [u8; LENGTH_BYTES + 1] {
    let length = u32::try_from(length + 1).unwrap_or(u32::MAX);
    let [a, b, c, d] = length.to_be_bytes();
    [a, b, c, d, kind]
}

/// Whether a message of so many bytes fits a frame.
pub(super) fn fits(envelope: usize) -> bool {
    envelope < MAX_BYTES / 2
}

/// A frame with a message, which gets its number as it is sent.
pub(super) struct Unnumbered(Vec<u8>);

impl Unnumbered {
    /// Its bytes.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The bytes of the frame.
    pub(super) fn with(self, number: u64) -> Bytes {
        let mut bytes = self.0;
        let place = LENGTH_BYTES + 1..LENGTH_BYTES + 1 + NUMBER_BYTES;
        if let Some(place) = bytes.get_mut(place) {
            place.copy_from_slice(&number.to_be_bytes());
        }
        bytes.into()
    }
}

/// The frame with a message.
pub(super) fn message(name: &str, envelope: &[u8]) -> Unnumbered {
    Unnumbered(named(MESSAGE, &[0; NUMBER_BYTES], name, &[envelope]))
}

/// The bytes of a frame in which the group's name stands after `start`, and `rest` after that.
fn named(kind: u8, start: &[u8], name: &str, rest: &[&[u8]]) -> Vec<u8> {
    let name_len = u16::try_from(name.len()).unwrap_or(u16::MAX);
    let rest_len: usize = rest.iter().map(|part| part.len()).sum();
    let length = start.len() + 2 + name.len() + rest_len;
    let mut bytes = Vec::with_capacity(LENGTH_BYTES + 1 + length);
    bytes.extend_from_slice(&head(kind, length));
    bytes.extend_from_slice(start);
    bytes.put_u16(name_len);
    bytes.extend_from_slice(name.as_bytes());
    for part in rest {
        bytes.extend_from_slice(part);
    }
    bytes
}

/// The bytes of a frame with a message that has a number.
pub(super) fn recorded(name: &str, position: Position, envelope: &[u8]) -> Bytes {
    let [epoch, offset] = [position.epoch, position.offset].map(u64::to_be_bytes);
    named(RECORDED, &[], name, &[&epoch, &offset, envelope]).into()
}

/// The bytes of a frame with a record.
pub(super) fn present(name: &str, record: &[u8]) -> Bytes {
    named(PRESENT, &[], name, &[record]).into()
}

/// The bytes of the first frame of a node.
pub(super) fn hello(id: NodeId, is_new: bool, number: u64) -> Bytes {
    let mut bytes = head(HELLO, 17).to_vec();
    bytes.put_u64(id);
    bytes.push(is_new.into());
    bytes.put_u64(number);
    bytes.into()
}

/// The bytes of a frame with numbers of members.
pub(super) fn counts(counts: &[(u64, u32)]) -> Bytes {
    let mut bytes = head(COUNTS, counts.len() * COUNT_BYTES).to_vec();
    for (hash, count) in counts {
        bytes.put_u64(*hash);
        bytes.put_u32(*count);
    }
    bytes.into()
}

/// The bytes of the frame that follows the first numbers.
pub(super) fn ready() -> Bytes {
    Bytes::copy_from_slice(&head(READY, 0))
}

/// The bytes of the frame that follows a record with a claim.
pub(super) fn seen(claim: u64) -> Bytes {
    let mut bytes = head(SEEN, 8).to_vec();
    bytes.put_u64(claim);
    bytes.into()
}

/// Cuts what another node sends into frames, however the reads cut it.
#[derive(Debug, Default)]
pub struct Reader {
    /// Where to put the bytes that are read.
    pub buffer: BytesMut,
}

impl Reader {
    /// The next whole frame, if it is here.
    ///
    /// # Errors
    /// [`Malformed`] for bytes that no node sends.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, Malformed> {
        let Some(&length) = self.buffer.first_chunk() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(length) as usize;
        if length == 0 || length > MAX_BYTES {
            return Err(Malformed);
        }
        if self.buffer.len() - LENGTH_BYTES < length {
            return Ok(None);
        }
        self.buffer.advance(LENGTH_BYTES);
        let mut frame = self.buffer.split_to(length).freeze();
        let kind = frame.get_u8();
        parse(kind, frame).map(Some)
    }
}

fn parse(kind: u8, mut content: Bytes) -> Result<Frame, Malformed> {
    match kind {
        HELLO => Ok(Frame::Hello {
            id: content.try_get_u64()?,
            is_new: content.try_get_u8()? == 1,
            number: content.try_get_u64()?,
        }),
        MESSAGE => Ok(Frame::Message {
            number: content.try_get_u64()?,
            name: take_name(&mut content)?,
            envelope: content,
        }),
        PRESENT => Ok(Frame::Present {
            name: take_name(&mut content)?,
            record: content,
        }),
        RECORDED => Ok(Frame::Recorded {
            name: take_name(&mut content)?,
            position: Position {
                epoch: content.try_get_u64()?,
                offset: content.try_get_u64()?,
            },
            envelope: content,
        }),
        COUNTS => {
            let mut counts = Vec::with_capacity(content.len() / COUNT_BYTES);
            while content.has_remaining() {
                let hash = content.try_get_u64()?;
                let count = content.try_get_u32()?;
                counts.push((hash, count));
            }
            Ok(Frame::Counts(counts))
        }
        READY => Ok(Frame::Ready),
        SEEN => Ok(Frame::Seen(content.try_get_u64()?)),
        _ => Err(Malformed),
    }
}

fn take_name(content: &mut Bytes) -> Result<Bytes, Malformed> {
    let length = content.try_get_u16()?;
    split(content, length.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const POSITION: Position = Position {
        epoch: 5,
        offset: 7,
    };

    fn cut(bytes: &[u8], size: usize) -> Vec<Frame> {
        let mut reader = Reader::default();
        let mut found = Vec::new();
        for piece in bytes.chunks(size) {
            reader.buffer.extend_from_slice(piece);
            while let Some(frame) = reader.next_frame().unwrap() {
                found.push(frame);
            }
        }
        found
    }

    fn one_of_each(large: &[u8]) -> Vec<u8> {
        [
            hello(3, true, 0),
            hello(3, false, 8),
            counts(&[(1, 2), (u64::MAX, 0)]),
            ready(),
            message("räum", b"envelope").with(9),
            message("", large).with(u64::MAX),
            recorded("room", POSITION, b"envelope"),
            present("room", b"record"),
            seen(7),
        ]
        .concat()
    }

    #[test]
    fn frames_are_the_same_however_they_are_cut() {
        let large = vec![7; 70_000];
        let bytes = one_of_each(&large);
        let hello = |is_new, number| Frame::Hello {
            id: 3,
            is_new,
            number,
        };
        let message = |number, name: &'static str, envelope: &[u8]| Frame::Message {
            number,
            name: name.as_bytes().into(),
            envelope: Bytes::copy_from_slice(envelope),
        };
        let expected = [
            hello(true, 0),
            hello(false, 8),
            Frame::Counts(vec![(1, 2), (u64::MAX, 0)]),
            Frame::Ready,
            message(9, "räum", b"envelope"),
            message(u64::MAX, "", &large),
            Frame::Recorded {
                name: Bytes::from_static(b"room"),
                position: POSITION,
                envelope: Bytes::from_static(b"envelope"),
            },
            Frame::Present {
                name: Bytes::from_static(b"room"),
                record: Bytes::from_static(b"record"),
            },
            Frame::Seen(7),
        ];
        for size in [1, 3, 1000, bytes.len()] {
            assert_eq!(cut(&bytes, size), expected, "{size}");
        }
    }

    #[test]
    fn what_no_node_sends_is_malformed() {
        for bytes in [
            &b"\0\0\0\0"[..],
            b"\xff\0\0\0",
            b"\0\0\0\x01\x09",
            b"\0\0\0\x02\x01\x00",
            b"\0\0\0\x04\x05\0\x01a",
            b"\0\0\0\x04\x02\0\x09a",
            b"\0\0\0\x04\x06\0\x09a",
            b"\0\0\0\x03\x03ab",
            b"\0\0\0\x03\x07ab",
        ] {
            let mut reader = Reader::default();
            reader.buffer.extend_from_slice(bytes);
            assert_eq!(reader.next_frame(), Err(Malformed), "{bytes:?}");
        }
    }
}

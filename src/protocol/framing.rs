//! The form in which a connection sends its messages.

use bytes::Bytes;

use super::{
    close::CloseFrame,
    event_stream,
    frame::{self, First, Head, Opcode},
    message::Kind,
};

/// The form in which a connection sends its messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    /// The frames of a WebSocket.
    #[default]
    WebSocket,
    /// Server-sent events.
    Events,
}

/// A message in its form: two pieces, to be written one after the other.
#[derive(Debug)]
pub enum Framed<'a> {
    /// The head of a frame, and the payload as it is.
    Frame(Head, &'a [u8]),
    /// All in one.
    Whole(Vec<u8>),
}

impl Framed<'_> {
    /// The two pieces.
    pub fn pieces(&self) -> (&[u8], &[u8]) {
        match self {
            Self::Frame(head, payload) => (head, payload),
            Self::Whole(bytes) => (bytes, &[]),
        }
    }

    /// All in one buffer.
    pub fn into_bytes(self) -> Bytes {
        match self {
            Self::Frame(head, payload) => {
                // Of exact size, so that `Bytes` takes the buffer over as it is.
                let mut bytes = Vec::with_capacity(head.len() + payload.len());
                bytes.extend_from_slice(&head);
                bytes.extend_from_slice(payload);
                Bytes::from(bytes)
            }
            Self::Whole(bytes) => Bytes::from(bytes),
        }
    }
}

impl Framing {
    /// A message, or a control frame, in this form. Only WebSockets have control frames: elsewhere a
    /// ping is a sign of life, and the others are nothing.
    pub fn frame(self, first: impl Into<First>, payload: &[u8]) -> Framed<'_> {
        let first = first.into();
        match self {
            Self::WebSocket => Framed::Frame(frame::head(first, payload.len()), payload),
            Self::Events => match first.kind() {
                Some(kind) => Framed::Whole(self.encode(kind, payload)),
                None if first == First::from(Opcode::Ping) => {
                    Framed::Whole(event_stream::COMMENT.to_vec())
                }
                None => Framed::Whole(Vec::new()),
            },
        }
    }

    /// A message in this form, in one buffer.
    pub fn encode(self, kind: Kind, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(payload.len() + 32);
        match self {
            Self::WebSocket => frame::append(&mut bytes, Opcode::from(kind), payload),
            Self::Events => event_stream::append(&mut bytes, kind, payload),
        }
        bytes
    }

    /// The last bytes of a connection.
    pub fn close(self, frame: &CloseFrame) -> Bytes {
        match self {
            Self::WebSocket => frame.encode(),
            Self::Events => Bytes::from(event_stream::close(frame)),
        }
    }

    /// Whether the peer answers: a close by a close, and a ping by a pong.
    pub fn is_answered(self) -> bool {
        self == Self::WebSocket
    }
}

//! The form in which a connection sends its messages.

use bytes::Bytes;

use super::{
    close::CloseFrame,
    event_stream,
    frame::{self, First, Head, Opcode},
    mask,
    message::Kind,
    polling,
};

/// The form in which a connection sends its messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    /// The frames of a WebSocket.
    #[default]
    WebSocket,
    /// The frames of a WebSocket as its client sends them: masked.
    Masked,
    /// Server-sent events.
    Events,
    /// Lines of JSON, which clients fetch.
    Polling,
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
            // Of exact size, so that `Bytes` takes the buffer over as it is.
            Self::Frame(head, payload) => Bytes::from([&*head, payload].concat()),
            Self::Whole(bytes) => Bytes::from(bytes),
        }
    }
}

impl Framing {
    /// A message, or a control frame, in this form. Only WebSockets have control frames: among events
    /// a ping is a sign of life, and all else is nothing.
    pub fn frame(self, first: impl Into<First>, payload: &[u8]) -> Framed<'_> {
        let first = first.into();
        match self {
            Self::WebSocket => Framed::Frame(frame::head(first, payload.len()), payload),
            Self::Masked => {
                let mut bytes = Vec::new();
                frame::append_masked(&mut bytes, first, payload, mask::fresh_key());
                Framed::Whole(bytes)
            }
            Self::Events | Self::Polling => Framed::Whole(match first.kind() {
                Some(kind) => self.encode(kind, payload),
                None if self == Self::Events && first == First::from(Opcode::Ping) => {
                    event_stream::COMMENT.to_vec()
                }
                None => Vec::new(),
            }),
        }
    }

    /// A message in this form, in one buffer.
    pub fn encode(self, kind: Kind, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(payload.len() + 32);
        match self {
            Self::WebSocket | Self::Masked => self.append(&mut bytes, Opcode::from(kind), payload),
            Self::Events => event_stream::append(&mut bytes, kind, payload),
            Self::Polling => polling::append(&mut bytes, kind, payload),
        }
        bytes
    }

    /// Appends the frame of a pong, or of a message, to others in one buffer.
    pub fn append(self, frames: &mut Vec<u8>, first: impl Into<First>, payload: &[u8]) {
        let framed = self.frame(first, payload);
        let (head, payload) = framed.pieces();
        frames.extend_from_slice(head);
        frames.extend_from_slice(payload);
    }

    /// The last bytes of a connection.
    pub fn close(self, frame: &CloseFrame) -> Bytes {
        match self {
            Self::WebSocket => frame.encode(),
            Self::Masked => self.frame(Opcode::Close, &frame.payload()).into_bytes(),
            Self::Events => Bytes::from(event_stream::close(frame)),
            Self::Polling => Bytes::from(polling::close(frame)),
        }
    }

    /// Whether the peer answers: a close by a close, and a ping by a pong.
    pub fn is_answered(self) -> bool {
        matches!(self, Self::WebSocket | Self::Masked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_websockets_there_are_messages_and_signs_of_life_only() {
        for framing in [Framing::Events, Framing::Polling] {
            for kind in [Kind::Text, Kind::Binary] {
                let frame = framing.frame(Opcode::from(kind), b"payload").into_bytes();
                assert_eq!(frame, framing.encode(kind, b"payload"));
                assert!(!frame.is_empty());
            }
            let has_pings = framing == Framing::Events;
            let ping = framing.frame(Opcode::Ping, b"").into_bytes();
            assert_eq!(!ping.is_empty(), has_pings);
            assert!(framing.frame(Opcode::Pong, b"").into_bytes().is_empty());
        }
    }
}

//! The rules of RFC 6455, seen from the server's side. Nothing here does I/O or uses a clock or a
//! thread, and no peer can cause an allocation that is large beside the bytes that it has sent.
//!
//! # Theory of operation
//!
//! A connection begins with a request, which [`handshake::validate`] accepts or refuses; the caller
//! picks a [`subprotocol`] and writes [`handshake::response_head`]. From then on bytes go in at one
//! end and events come out at the other:
//!
//! ```text
//!  bytes as they arrive ──► Receiver::next ──► Message | Ping | Pong | Close      (or a Violation)
//!                             │ frame   header and the rules one header can break
//!                             │ mask    in place, in the caller's read buffer
//!                             │ deflate of compressed messages, inflated piece by piece
//!                             │ message fragments, UTF-8, limits
//!                             └ close   what a close frame may say
//!  bytes to be written  ◄── frame::encode, frame::head, CloseFrame::encode, Deflater::deflate
//! ```
//!
//! * The outcome depends on the bytes alone, never on how the reads cut them, and nothing that a
//!   reason says depends on the reads. A rule is validated as soon as its part is here: the first two
//!   bytes of a frame header, the rest of it, a byte of text, a piece of a compressed stream, a
//!   close frame.
//! * [`message::Receiver`] keeps between reads what it must and no more: the inline bytes of an
//!   unfinished header, and the part of an unfinished message that really arrived. Idle, it owns no
//!   heap. A length field only says how much may come; it reserves nothing. Where the rest of a
//!   large message is read to its place ([`message::Receiver::tail`]), room for it is reserved, but
//!   only once a sixteenth is there.
//! * This module answers nothing by itself. Its caller replies to pings, echoes the close and
//!   turns a [`error::Violation`] into the close frame that ends the connection.
//! * The end is absorbing: after a close frame or a violation all input is swallowed.
//! * One extension is known, [`deflate`]. Without an agreement on it, [`message::Receiver`] has no
//!   inflater, and RSV1 is a violation like the other reserved bits.
//!
//! A connection that this process opens is the same seen from the other end:
//! [`client_handshake::Request`] writes the request and validates its answer, [`message::Receiver`] has
//! the role of a client, and [`framing`] masks the frames.
//!
//! Clients without WebSockets get the same messages in another form: [`framing`] chooses among frames
//! and, for clients without WebSockets, the server-sent events of [`event_stream`] and the
//! responses of [`polling`]. These clients send [`post`]s, which become frames.
//!
//! Header parsing, and the key derivation of the handshake, are tungstenite's. It does not validate
//! lengths, masks and fragmentation the way we need, so these rules are ours.

pub mod client;
pub mod client_handshake;
pub mod close;
mod close_code;
pub mod deflate;
pub mod error;
pub mod event_stream;
pub mod extension;
pub mod frame;
pub mod framing;
pub mod handshake;
pub mod json;
pub mod limits;
pub mod mask;
pub mod message;
pub mod polling;
pub mod post;
pub mod response;
pub mod room_request;
pub mod subprotocol;

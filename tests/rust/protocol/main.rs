//! The protocol room against generated traffic, and against tungstenite in both roles.

#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a helper that fails is a test that fails"
)]

mod corpus;
mod deflate;
mod handshake;
mod judge;
mod oracle;
mod post;
mod reads;
mod traffic;

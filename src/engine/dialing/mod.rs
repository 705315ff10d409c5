//! Connections that this process opens to other servers, as their client.
//!
//! # Theory of operation
//!
//! [`dial`](dial::dial) starts one task on the engine's runtime, which does all that may wait: it
//! looks the address up and connects ([`reach`]), asks a proxy for a way through ([`proxy`]),
//! encrypts ([`tls`]), and makes the opening handshake ([`handshake`]). The caller holds a
//! [`Call`](crate::engine::wakeup::call::Call) and waits for its outcome as for any other.
//!
//! An open connection is a [`Connection`](crate::engine::connection::Connection) like one that a
//! server's client has opened, driven by the same driver, in the role of a client. Its driver reads
//! and writes a socket. Where TLS lies between, that is one end of a pair, and [`tls_pump`] encrypts
//! and decrypts between the other end and the server.
//!
//! Clients in tests break rules on purpose. For them a dial sends a request as it is and gives the
//! socket after the answer, in place of a connection.

mod answer;
pub mod dial;
mod handshake;
mod happy_eyeballs;
mod proxy;
pub mod tls;
mod tls_pump;
mod verifier;

pub use self::{
    dial::{Answered, Dial, DialRequest, Failure, Opened, Step, Success, Want, dial},
    proxy::Proxy,
};

//! The native engine of dwebsocket2: WebSockets for ordinary Django views.
//!
//! `protocol` holds the rules of RFC 6455 without any I/O, `engine` owns sockets and time, and
//! `binding` is the only room that knows Python. Each may lean on the rooms before it, never after.

pub mod engine;
pub mod protocol;

//! Load generator for WebSocket servers: one thread, one epoll loop, its own client framing.
//!
//! Closed loop: every connection keeps a fixed number of messages in flight and sends the next one
//! when an answer has arrived. Every byte that is sent is a pure function of (connection, number of
//! the message, position) in [`script`], so [`judge`] compares every byte of every answer without
//! storing any. [`fleet`] owns the sockets and the loop; [`echo`], [`chat`], [`opening`] and
//! [`idle`] are the measurements.

pub mod chat;
pub mod connection;
pub mod echo;
pub mod fleet;
pub mod frame;
pub mod handshake;
pub mod histogram;
pub mod idle;
pub mod judge;
pub mod opening;
pub mod script;
pub mod stopped;
pub mod usage;

//! The engine: it owns the sockets and the time, and never needs Python.
//!
//! # Theory of operation
//!
//! One [`Engine`] lives in a process. It starts with the first connection, runs a tokio runtime
//! on a single thread of its own, and is never inherited across a fork ([`runtime`]).
//!
//! A connection is two things. [`Connection`] is the part that views hold: an [`inbox`] from
//! which they take whole messages, an [`outbox`] through which they send, and the way it ended.
//! The [`driver`] is the task on the engine's thread that owns the reading side and the clock: it
//! reads into one read buffer for all connections, lets [`crate::protocol`] judge the bytes,
//! fills the inbox, empties the outbox, pings ([`keepalive`]) and closes. Replies to a burst may wait
//! for each other in the outbox; the [`flush_timer`] sees to it that they do not wait for long.
//!
//! The bytes that all connections buffer are counted ([`budget`]), and the largest holders are
//! closed at a limit (`shedding`).
//!
//! Locks are short and never nested: a view's thread and the driver meet in the inbox, in the
//! outbox and in the connection's life, one at a time. A connection's life ends first, then the
//! inbox (nothing more will come) and the outbox (nothing more will go), the descriptor last.

pub mod budget;
pub mod clock;
pub mod connection;
mod driver;
pub mod error;
pub mod exit;
mod flush_timer;
pub mod inbox;
#[cfg(all(test, shuttle))]
mod interleavings;
pub mod keepalive;
pub mod outbox;
mod panics;
mod patience;
pub mod permits;
pub mod pings;
pub mod rate;
mod read_buffer;
mod readiness;
pub mod runtime;
mod shedding;
pub mod shutdown;
pub mod signal;
pub mod socket;
mod stint;
mod sync;
pub mod takeover;
mod trim;
mod turns;
pub mod waiter;
mod worker;

pub use connection::{Connection, End, Initiator, Settings};
pub use error::Error;
pub use inbox::{Front, Taken};
pub use pings::Ping;
pub use runtime::Engine;

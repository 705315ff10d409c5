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
//! # Threads
//!
//! - A thread of the engine ([`worker`], one by default) runs the drivers of its connections, the
//!   [`turns`] in which views are woken, the [`flush_timer`], [`trim`] and `shedding`. It blocks all
//!   signals and never takes Python's GIL.
//! - A view's thread takes messages and sends: it writes to the socket itself while the outbox is
//!   empty. An event loop or a hub of green threads does so for its views; it sleeps on the one
//!   descriptor of its [`waiter::Hub`].
//! - Two more threads start where a server needs them: one watches SIGTERM ([`signal`]), one closes the
//!   connections when the process exits without Python ([`exit`]).
//!
//! # Locks
//!
//! Locks are short, and no Python runs under one. A view's thread and the driver meet in the inbox,
//! in the outbox and in the connection's life, one at a time: none of these three locks is taken under
//! another. A connection's life ends first, then the inbox (nothing more will come) and the outbox
//! (nothing more will go), the descriptor last.
//!
//! # In which order to read
//!
//! [`connection`], [`inbox`] and [`outbox`]: what views use. [`driver`] with [`keepalive`], [`patience`]
//! and [`rate`]: what the engine does for a connection. [`runtime`], [`worker`] and [`takeover`]: how
//! both begin. [`waiter`], [`turns`], [`stint`] and [`flush_timer`]: in which order views and the engine run. [`budget`],
//! `shedding`, [`read_buffer`] and [`trim`]: memory. [`shutdown`], [`signal`] and [`exit`]: the end.

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

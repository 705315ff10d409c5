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
//! reads into one scratch buffer for all connections, lets [`crate::protocol`] judge the bytes,
//! fills the inbox, empties the outbox, pings ([`keepalive`]) and closes. Replies to a burst may wait
//! for each other in the outbox; the [`postman`] sees to it that they do not wait for long.
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
pub mod counters;
mod driver;
pub mod error;
pub mod exchange;
pub mod farewell;
pub mod inbox;
#[cfg(all(test, shuttle))]
mod interleavings;
pub mod keepalive;
mod lane;
pub mod outbox;
mod panics;
mod patience;
pub mod pings;
mod postman;
pub mod rate;
mod readiness;
mod relay;
pub mod runtime;
mod scratch;
mod shedding;
pub mod shutdown;
pub mod signal;
pub mod socket;
mod stint;
mod sweeper;
mod sync;
pub mod waiter;

pub use connection::{Connection, End, Initiator, Settings};
pub use error::Error;
pub use inbox::{Front, Taken};
pub use pings::Ping;
pub use runtime::Engine;

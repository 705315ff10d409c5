//! The engine: it owns the sockets and the time, and never needs Python.
//!
//! # Theory of operation
//!
//! One [`Engine`] lives in a process. It starts with the first connection, runs a tokio runtime
//! on each of its threads, one by default, and is never inherited across a fork.
//!
//! A connection is two things. [`Connection`] is the part that views hold: an inbox from which they
//! take whole messages, an outbox through which they send, and the way it ended. The driver is the
//! task on a thread of the engine that owns the reading side and the clock: it reads into one buffer
//! for all connections of the thread, lets [`crate::protocol`] validate the bytes, fills the inbox, empties the
//! outbox, pings and closes. Replies to a burst may be corked in the outbox, to go out in one
//! write; the flush timer sees to it that they do not wait for long.
//!
//! The bytes that all connections buffer are counted ([`budget`]), and the largest holders are
//! closed at a limit.
//!
//! # Layers
//!
//! Each folder is a layer. A file uses files of its own layer and of those below, in no circle, as
//! `tests/test_crate_layers.py` sees. From the bottom to the top:
//!
//! - `base/`: the clock, locks, errors, and the number of forks, by which an object of the parent
//!   process is recognised.
//! - `resources/`: the limited resources of a process: sockets, descriptors, permits for
//!   connections, buffers, and the budget of buffered bytes.
//! - `wakeup/`: running the views. The hub wakes an event loop, the turns wake views after a pass
//!   over the sockets, the time slice ends a view's run, the flush timer sends what is corked,
//!   and the GIL semaphore lets few threads at a time ask for the GIL.
//! - `history/`: the numbered messages of groups that are kept. An envelope is bytes here.
//! - `groups/`: messages to all members of a name. A member is a trait here.
//! - `presence/`: the users behind the members of a group, and those that come and go.
//! - `connection/`: the parts that views use: the inbox, the outbox, pings, the end; and the
//!   registry of all connections.
//! - `polling/`: connections whose clients poll: the events that they have not acknowledged, and the
//!   polls that wait for more.
//! - `driver/`: the task of one connection: reading, keepalive, rates, timeouts, the close.
//! - `runtime/`: the engine of a process with its threads, load shedding at the limit of the
//!   budget, and the takeover of a server's descriptor.
//! - `dialing/`: connections that this process opens to other servers.
//! - `backends/`: how messages of groups reach other processes.
//! - `process/`: SIGTERM, the exit of the process, and forks.
//!
//! Where a lower layer has to call an upper one it names what it needs: [`budget`] has two
//! functions to call at its limit, the turns and the flush timer know a connection as a `View`, and
//! a hub the turns as an `Observer`.
//!
//! # Threads
//!
//! - A thread of the engine (one by default) runs the drivers of its connections, the turns in
//!   which views are woken, the flush timer, load shedding, and gives memory back. It blocks all
//!   signals and never takes Python's GIL.
//! - A view's thread takes messages and sends: it writes to the socket itself while the outbox is
//!   empty. The thread of an event loop, or of a hub of green threads, takes and sends for all of
//!   its views; it sleeps on the one descriptor of its [`Hub`].
//! - Two more threads start where a server needs them: one when SIGTERM comes, for which a task
//!   waits ([`signal`]), and one to close the connections when the process exits without Python
//!   ([`exit`]).
//!
//! # Locks
//!
//! Locks are short, and no Python runs under one. A view's thread and the driver meet in the inbox,
//! in the outbox and in the connection's life, one at a time: none of these three locks is taken
//! under another, but where a life ends, which has the outbox refuse messages. With the lock of an
//! inbox or an outbox only atomics of the budget are changed, and at its limit a task is started. The
//! turns take the lock of a hub, or of the flush timer, under their own; a hub notifies the turns
//! without its lock, and no reply is sent under any of the three. A member's memberships, the names of
//! groups and one group are locked in this order, and nothing is sent meanwhile. A connection's life
//! ends first, then the inbox (nothing more will come) and the outbox (nothing more will go), the
//! descriptor last.
//!
//! # In which order to read
//!
//! `connection/`: `mod.rs`, `receiving.rs` and `sending.rs`, then `inbox/` and `outbox/`: what
//! views use. `driver/`: `mod.rs`, `reading.rs` and `closing.rs`, then `keepalive.rs`,
//! `message_timeout.rs` and `rate.rs`: what the engine does for a connection. `runtime/`:
//! `engine.rs`, `worker.rs` and `takeover.rs`: how the engine and a connection begin. `wakeup/`:
//! `hub.rs`, `turns/`, `time_slice.rs`, `flush_timer.rs` and `gil_semaphore.rs`: in which order views and
//! the engine run. `resources/`: `budget.rs`, `read_buffer.rs` and `trim.rs`, and `runtime/shedding.rs`:
//! memory. `groups/`: `mod.rs`, `registry.rs` and `fan_out.rs`, then `backends/local/`: groups.
//! `connection/registry.rs` and `process/`: the end.

pub mod backends;
mod base;
mod connection;
pub mod dialing;
mod driver;
pub mod groups;
pub mod history;
#[cfg(all(test, shuttle))]
mod interleavings;
pub mod polling;
pub mod presence;
mod process;
mod resources;
pub mod runtime;
mod wakeup;

#[cfg(unix)]
pub use self::process::{after_fork_in_child, exit, signal};
pub use self::{
    base::{clock, error::Error, fork::generation},
    connection::{
        Connection, End, Initiator,
        carrier::Outgoing,
        inbox::{Front, Received},
        moving::{Incoming, Parts, Pulse},
        ping::Ping,
        posts::{NotTaken, PostBody, PostRead, Posted},
        settings::{Key, Rates, Settings, Transport},
        traffic::{Overview, Traffic},
    },
    resources::{budget, descriptor, permits, socket},
    runtime::Engine,
    wakeup::{
        call::{Call, Wait},
        handler_pool::Next,
        hub::{Hub, Watch},
    },
};

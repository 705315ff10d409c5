//! Presence by a backend that carries bytes: which users are in a group, in all processes.
//!
//! Nothing is kept in a server, so nothing there can be lost, or be wrong after a process was killed.
//! A process that *takes part* in a group, because it has users there, tells the others what changes,
//! on the group's channel. One that begins to take part asks there first, and so does one that only
//! wants to know; all that take part answer, on the channel of the one that asks.
//!
//! - Notes are numbered. A process that misses some, because the server was away or has lost them,
//!   finds out by the numbers and asks the one that has told them. Answers are complete: a user that
//!   is not among them has no connection in that process.
//! - All that take part in any group send beats on a common channel. A process whose beats do not
//!   come has ended. Its silence is measured in beats of one's own that the server has brought back:
//!   so while the server is away no process counts as ended, whatever a clock says.
//! - A process whose own beats were away for a while was cut off. It tells the others its position in
//!   each group, and asks for theirs.
//!
//! The exchange does no I/O. A thread takes what is to be published ([`Exchange::take`]), and what is
//! published reaches [`Exchange::on_message`] of all processes.
//!
//! Locks, in the order in which they are taken: the exchange's, those of the presence.

mod incoming;
mod node;
mod outgoing;
mod pending;
mod questions;
mod room;
mod state;
mod wire;

pub use self::{node::Exchange, outgoing::Step, questions::Question};

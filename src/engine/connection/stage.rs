//! How far the move of a connection to another process has come, and what it has received.

use std::time::Duration;

use crate::engine::base::sync::{Condvar, Mutex};

/// The received bytes and the keepalive with which a driver begins.
#[derive(Debug, Default)]
pub struct Incoming {
    /// Bytes to be read before those of the socket.
    pub bytes: Vec<u8>,
    /// How its peer answered pings.
    pub pulse: Pulse,
}

impl From<Vec<u8>> for Incoming {
    fn from(bytes: Vec<u8>) -> Self {
        Self {
            bytes,
            pulse: Pulse::default(),
        }
    }
}

/// The keepalive of a connection that moves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pulse {
    /// The time until the next ping; `None` where none is known.
    pub next_ping: Option<Duration>,
    /// How long nothing has come since a ping; `None` where none is unanswered.
    pub silence: Option<Duration>,
}

/// A move that was begun.
#[derive(Debug, Default)]
pub(super) struct Move {
    pub(super) stage: Mutex<Stage>,
    /// Notified when the stage has changed.
    pub(super) changed: Condvar,
}

/// How far it has come.
#[derive(Debug, Default)]
pub(super) enum Stage {
    /// None is under way.
    #[default]
    Here,
    /// The driver is to stand still as soon as it can.
    Asked,
    /// It does, with the bytes that it has read and not taken in, and its keepalive.
    Still(Incoming),
    /// These have been copied.
    Given,
    /// The other process has the connection.
    Gone,
}

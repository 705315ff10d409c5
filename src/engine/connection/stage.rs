//! How far the move of a connection to another process has come.

use crate::engine::base::sync::{Condvar, Mutex};

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
    /// It does, with these bytes that are read and not taken in.
    Still(Vec<u8>),
    /// The bytes have been copied.
    Given,
    /// The other process has the connection.
    Gone,
}

//! Messages that the server has pushed, on their way to the groups.
//!
//! One task takes it in the order in which it came, for all connections: so a message of an old
//! connection is never overtaken by one of its successor.

use std::sync::Arc;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::stream::Gate;

/// The way from the connections of one shard to the task.
#[derive(Clone, Debug)]
pub(super) struct Incoming {
    shard: usize,
    sender: UnboundedSender<Pushed>,
    pub(super) gate: Arc<Gate>,
}

/// A message from the server.
#[derive(Debug)]
pub(super) struct Pushed {
    pub(super) shard: usize,
    pub(super) channel: Vec<u8>,
    pub(super) payload: Vec<u8>,
}

impl Pushed {
    pub(super) fn len(&self) -> usize {
        self.channel.len() + self.payload.len()
    }
}

/// The end of the way at which the task is.
pub(super) type Arrivals = UnboundedReceiver<Pushed>;

impl Incoming {
    /// The way of the first shard, and its end.
    pub(super) fn new() -> (Self, Arrivals) {
        let (sender, receiver) = unbounded_channel();
        let incoming = Self {
            shard: 0,
            sender,
            gate: Arc::default(),
        };
        (incoming, receiver)
    }

    /// The way of another shard, to the same end.
    pub(super) fn of_shard(&self, shard: usize) -> Self {
        Self {
            shard,
            ..self.clone()
        }
    }

    /// Adds a message. The gate bounds how much there can be.
    pub(super) fn add(&self, channel: Vec<u8>, payload: Vec<u8>) {
        let pushed = Pushed {
            shard: self.shard,
            channel,
            payload,
        };
        self.gate.add(pushed.len());
        let _ = self.sender.send(pushed);
    }
}

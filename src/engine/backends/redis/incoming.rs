//! Messages that the server has pushed, on their way to the groups.
//!
//! One task takes it in the order in which it came, for all connections: so a message of an old
//! connection is never overtaken by one of its successor.

use std::{
    fmt,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::{spawn_blocking, yield_now},
    time::sleep,
};

use super::stream::Gate;
use crate::engine::base::panics::contain;

/// Messages of more bytes are authenticated on a thread of their own.
const LARGE: usize = 64 * 1024;
/// How long the task runs before the engine has to look at its sockets.
const TURN: Duration = Duration::from_micros(100);
/// How long it sleeps while the groups have no room.
const BETWEEN_PASSES: Duration = Duration::from_millis(1);

/// The way from the connections of one shard to the task.
#[derive(Clone, Debug)]
pub(super) struct Incoming {
    shard: usize,
    sender: UnboundedSender<Option<Pushed>>,
    pub(super) gate: Arc<Gate>,
}

/// A message from the server.
#[derive(Debug)]
pub(super) struct Pushed {
    pub(super) shard: usize,
    pub(super) channel: Vec<u8>,
    pub(super) payload: Vec<u8>,
}

/// Receives what has arrived.
pub(super) trait Receiver: fmt::Debug + Send + Sync {
    /// Whether it has room for a message of so many bytes.
    fn has_room(&self, bytes: usize) -> bool;

    /// Handles a message, whatever it is.
    fn on_message(&self, pushed: &Pushed);
}

impl Pushed {
    fn len(&self) -> usize {
        self.channel.len() + self.payload.len()
    }
}

/// The end of the way at which the task is.
pub(super) type Arrivals = UnboundedReceiver<Option<Pushed>>;

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
        let _ = self.sender.send(Some(pushed));
    }

    /// Ends the task.
    pub(super) fn close(&self) {
        let _ = self.sender.send(None);
    }
}

/// Hands what arrives to the groups, until the way is closed.
pub(super) async fn run(receiver: Weak<dyn Receiver>, mut arrivals: Arrivals, gate: Arc<Gate>) {
    let mut began = Instant::now();
    while let Some(Some(pushed)) = arrivals.recv().await {
        let Some(receiver) = receiver.upgrade() else {
            return;
        };
        let length = pushed.len();
        // Later messages wait in the server, or are lost there when they become too many.
        while !receiver.has_room(length) {
            sleep(BETWEEN_PASSES).await;
        }
        if length > LARGE {
            let handled = spawn_blocking(move || receiver.on_message(&pushed)).await;
            drop(handled);
        } else {
            contain(|| receiver.on_message(&pushed));
        }
        gate.subtract(length);
        if began.elapsed() >= TURN {
            yield_now().await;
            began = Instant::now();
        }
    }
}

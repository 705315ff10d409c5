//! Records on their way to other processes.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Weak},
};

use super::record::Record;
use crate::engine::base::sync::Mutex;

/// The way to the other processes. Called on any thread; it must not sleep.
pub trait Announcer: fmt::Debug + Send + Sync {
    /// Tells the other processes.
    fn announce(&self, note: &Note);

    /// Whether it is this process that acts in the group `name` for one that has ended.
    fn acts_for_others(&self, name: &str) -> bool;

    /// The claim `id` of this process has ended: it waits for no other process any more.
    fn end_claim(&self, _id: u64) {}
}

/// A record with its group.
#[derive(Clone, Debug)]
pub struct Note {
    /// How many there were before, in this process.
    pub number: u64,
    /// The group.
    pub name: Arc<str>,
    /// The record.
    pub record: Record,
}

/// The queue of records.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    queue: Mutex<Queue>,
    /// Held while records are handed over, so that they keep their order.
    sending: parking_lot::Mutex<()>,
}

#[derive(Debug, Default)]
struct Queue {
    announcer: Option<Weak<dyn Announcer>>,
    waiting: VecDeque<Note>,
    count: u64,
}

impl Outgoing {
    /// Has all later records handed to `announcer`, in place of the one before: a start may fail
    /// after it.
    pub(super) fn announce_by(&self, announcer: Weak<dyn Announcer>) {
        self.queue.lock().announcer = Some(announcer);
    }

    pub(super) fn announcer(&self) -> Option<Arc<dyn Announcer>> {
        self.queue.lock().announcer.as_ref().and_then(Weak::upgrade)
    }

    /// Whether there may be other processes.
    pub(super) fn is_taken(&self) -> bool {
        self.queue.lock().announcer.is_some()
    }

    /// How many records there were.
    pub(super) fn count(&self) -> u64 {
        self.queue.lock().count
    }

    /// Adds a record. To be followed by [`Outgoing::send`], without the lock of the room.
    pub(super) fn add(&self, name: &Arc<str>, record: impl FnOnce() -> Record) {
        let mut queue = self.queue.lock();
        if queue.announcer.is_none() {
            return;
        }
        let number = queue.count;
        queue.count += 1;
        queue.waiting.push_back(Note {
            number,
            name: Arc::clone(name),
            record: record(),
        });
    }

    /// Hands what waits to the announcer, if there is one.
    pub(super) fn send(&self) {
        let Some(announcer) = self.announcer() else {
            return;
        };
        let _sending = self.sending.lock();
        loop {
            let Some(note) = self.queue.lock().waiting.pop_front() else {
                return;
            };
            announcer.announce(&note);
        }
    }
}

//! A member that keeps messages for a connection that is on its way from another process.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use parking_lot::Mutex;

use super::{
    member::{Handed, Member, WhenFull},
    memberships::Memberships,
    message::{Delivery, Message},
    stamps::Stamps,
};
use crate::protocol::{close::CloseFrame, deflate::Deflater};

/// Bytes that it keeps at most: a connection that is behind by more cannot be told of all.
const MAX_BYTES: usize = 1024 * 1024;

/// The stand-in of a connection in one group. Any thread may use it.
#[derive(Debug, Default)]
pub struct StandIn {
    memberships: Memberships,
    state: Mutex<State>,
    /// Whether it keeps nothing, and only sees to it that messages come to this process.
    is_placeholder: bool,
    has_begun: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    backlog: Backlog,
    closed: Option<CloseFrame>,
}

/// Messages that are kept for a connection on its way.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    messages: Vec<Message>,
    bytes: usize,
    is_over_full: bool,
}

impl Backlog {
    /// Keeps a message, unless there are too many.
    pub(super) fn push(&mut self, message: &Message) {
        self.bytes += message.frame_len();
        self.is_over_full |= self.bytes > MAX_BYTES;
        if !self.is_over_full {
            self.messages.push(message.clone());
        }
    }

    /// Takes the messages that are not among those that `but` names. `None` when there were too many.
    pub(super) fn take(&mut self, but: &Stamps) -> Option<Vec<Message>> {
        let kept = std::mem::take(&mut self.messages);
        let is_new = |message: &Message| !message.stamp().is_some_and(|stamp| but.has(stamp));
        (!self.is_over_full).then(|| kept.into_iter().filter(is_new).collect())
    }
}

impl StandIn {
    /// One that is in no group yet.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// One that keeps nothing, and has another one in its place later.
    pub fn placeholder() -> Arc<Self> {
        Arc::new(Self {
            is_placeholder: true,
            ..Self::default()
        })
    }

    /// Notes that it has come to its marker.
    pub(super) fn begin(&self) {
        self.has_begun.store(true, Ordering::Release);
    }

    /// Whether it has come to its marker.
    pub fn has_begun(&self) -> bool {
        self.has_begun.load(Ordering::Acquire)
    }

    /// Takes the messages that are not among those that `but` names, and the close that has come
    /// after them. `None` when there were too many.
    pub(super) fn take_kept(&self, but: &Stamps) -> Option<(Vec<Message>, Option<CloseFrame>)> {
        let mut state = self.state.lock();
        let closed = state.closed.take();
        Some((state.backlog.take(but)?, closed))
    }

    /// Leaves all groups, for good.
    pub fn leave(&self) {
        self.memberships.end();
    }
}

impl Member for StandIn {
    fn is_foreign(&self) -> bool {
        false
    }

    fn memberships(&self) -> &Memberships {
        &self.memberships
    }

    fn deflater(&self) -> Option<&Deflater> {
        None
    }

    fn take(&self, delivery: &Delivery, _: WhenFull) -> Handed {
        if self.is_placeholder {
            return Handed::default();
        }
        let mut state = self.state.lock();
        for message in delivery.messages() {
            state.backlog.push(message);
        }
        Handed::default()
    }

    fn close(&self, frame: &CloseFrame) {
        self.state.lock().closed = Some(frame.clone());
    }
}

//! Events that clients of rooms send each other without Python: what a [`Seat`](super::Seat) lets pass.

use std::{fmt, sync::Arc, time::Instant};

use parking_lot::Mutex;

use super::{memberships::MemberId, message::Message};
use crate::{engine::base::clock, protocol::room_request::RoomEvent};

/// Where events are published.
pub trait Publisher: fmt::Debug + Send + Sync {
    /// Hands an event to the members of the group `name`; false when that is not possible now. Never
    /// sleeps.
    fn publish_event(&self, name: &str, event: Message) -> bool;
}

/// The events of one client that pass, and in which form.
#[derive(Debug)]
pub struct Passage {
    /// Their names.
    pub names: Vec<String>,
    /// Who sends them, as JSON.
    pub sender: String,
    /// Where they go.
    pub publisher: Arc<dyn Publisher>,
    /// Each event takes a permit of each.
    pub buckets: Vec<Arc<Bucket>>,
    /// Bytes of a client's message.
    pub most_bytes: usize,
}

impl Passage {
    /// Passes an event of the member `from` on to the others of `group`. False when Python is to
    /// decide on it; then nothing has happened.
    pub(super) fn pass(&self, group: &str, from: MemberId, event: &RoomEvent<'_>) -> bool {
        let is_wanted = self.names.iter().any(|name| *name == event.name);
        if !is_wanted || event.bytes > self.most_bytes {
            return false;
        }
        // Nobody else takes any meanwhile: Python does not run for this client.
        if !self.buckets.iter().all(|bucket| bucket.has_one()) {
            return false;
        }
        let message = Message::event(event.rest(&self.sender).as_bytes(), &[from]);
        if !self.publisher.publish_event(group, message) {
            return false;
        }
        for bucket in &self.buckets {
            bucket.take();
        }
        true
    }
}

/// Permits, of which so many come a second, and so many are kept. Any thread may use it.
#[derive(Debug)]
pub struct Bucket {
    rate: f64,
    most: f64,
    /// How many are left, and when that was.
    state: Mutex<(f64, Instant)>,
}

impl Bucket {
    /// A full one.
    pub fn new(rate: f64, most: f64) -> Self {
        Self {
            rate,
            most,
            state: Mutex::new((most, clock::now())),
        }
    }

    fn refilled<T>(&self, look: impl FnOnce(&mut f64) -> T) -> T {
        let mut state = self.state.lock();
        let now = clock::now();
        let (left, at) = &mut *state;
        let earned = now.saturating_duration_since(*at).as_secs_f64() * self.rate;
        (*left, *at) = ((*left + earned).min(self.most), now);
        look(left)
    }

    /// Takes a permit, if there is one.
    pub fn take(&self) -> bool {
        self.refilled(|left| {
            let has_one = *left >= 1.0;
            *left -= f64::from(u8::from(has_one));
            has_one
        })
    }

    fn has_one(&self) -> bool {
        self.refilled(|left| *left >= 1.0)
    }

    /// Seconds until there is a permit.
    pub fn wait(&self) -> f64 {
        self.refilled(|left| ((1.0 - *left) / self.rate).max(0.0))
    }
}

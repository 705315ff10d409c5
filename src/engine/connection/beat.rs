//! A heartbeat that pages can see, as browsers hide pings: an empty text message whenever nothing
//! was sent for a while.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use crate::{engine::base::clock, protocol::message::Kind};

/// The heartbeat of one connection.
#[derive(Debug)]
pub(crate) struct Beat {
    every: Duration,
    start: Instant,
    /// Milliseconds from the start to the last message.
    last: AtomicU64,
}

impl Beat {
    pub(super) fn new(every: Duration) -> Self {
        Self {
            every,
            start: clock::now(),
            last: AtomicU64::new(0),
        }
    }

    /// To be called when something was sent.
    pub(super) fn note(&self, now: Instant) {
        let since = now.saturating_duration_since(self.start);
        let millis = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        self.last.store(millis, Ordering::Relaxed);
    }

    /// The moment at which the next beat is due if nothing is sent before.
    pub(super) fn due(&self) -> Option<Instant> {
        let last = Duration::from_millis(self.last.load(Ordering::Relaxed));
        self.start.checked_add(last.saturating_add(self.every))
    }
}

/// Whether a message is empty text, or blanks that one could stand for.
pub(super) fn is_like_beats(kind: Kind, payload: &[u8]) -> bool {
    kind == Kind::Text && payload.iter().all(|byte| *byte == b' ')
}

/// `payload` with a blank after it.
pub(super) fn one_more_blank(payload: &[u8]) -> Vec<u8> {
    [payload, b" "].concat()
}

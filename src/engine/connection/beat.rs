//! A heartbeat that pages can see, as browsers hide pings: an empty text message whenever nothing
//! was sent for a while.

use std::{
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{engine::base::clock, protocol::message::Kind};

/// Beats of many connections go out in rounds: a thread that wakes up for each of them would take
/// several times as long.
const ROUND_MS: u64 = 250;
/// The moment from which all connections count.
static START: LazyLock<Instant> = LazyLock::new(clock::now);

/// The heartbeat of one connection.
#[derive(Debug)]
pub(crate) struct Beat {
    every_ms: u64,
    /// Milliseconds from [`START`] to the last message.
    last: AtomicU64,
}

impl Beat {
    pub(super) fn new(every: Duration) -> Self {
        let beat = Self {
            every_ms: clock::millis(every),
            last: AtomicU64::new(0),
        };
        beat.note(clock::now());
        beat
    }

    /// To be called when something was sent.
    pub(super) fn note(&self, now: Instant) {
        let since = now.saturating_duration_since(*START);
        self.last.store(clock::millis(since), Ordering::Relaxed);
    }

    /// The moment at which the next beat is due if nothing is sent before: that of a round.
    pub(super) fn due(&self) -> Option<Instant> {
        let last = self.last.load(Ordering::Relaxed);
        let due = last.saturating_add(self.every_ms).div_ceil(ROUND_MS);
        START.checked_add(Duration::from_millis(due.saturating_mul(ROUND_MS)))
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

//! Random timing, to meet the moments at which threads get in each other's way.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};

/// A cheap source of chance (xorshift), seeded so that each use differs.
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new() -> Self {
        static SEED: AtomicU64 = AtomicU64::new(1);
        Self(
            SEED.fetch_add(1, Ordering::Relaxed)
                .wrapping_mul(0x9E37_79B9_7F4A_7C15),
        )
    }

    /// The same chances for the same seed.
    pub(crate) fn seeded(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// A source of its own for a thread.
    pub(crate) fn branch(&mut self) -> Self {
        Self::seeded(self.below(u64::MAX))
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    pub(crate) fn size(&mut self, limit: u64) -> usize {
        usize::try_from(self.below(limit)).unwrap()
    }

    /// Does nothing for a moment, in one of several ways.
    pub(crate) fn dawdle(&mut self) {
        match self.below(20) {
            0 => thread::sleep(Duration::from_micros(self.below(300))),
            1..4 => thread::yield_now(),
            _ => {}
        }
    }
}

//! The number of connections, and the permits by which it is limited.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::engine::base::fork;

static OPEN: AtomicUsize = AtomicUsize::new(0);

/// The number of connections that this process holds or has a permit out for.
pub fn open() -> usize {
    OPEN.load(Ordering::Relaxed)
}

/// Waits until no permit is out, `timeout` at most. Blocks its thread.
pub(crate) fn wait_until_none(timeout: Duration) {
    /// Asked for at the end of a process only: a look is cheaper than a notice at each drop.
    const LOOK: Duration = Duration::from_millis(5);
    let end = Instant::now() + timeout;
    while open() != 0 && Instant::now() < end {
        thread::sleep(LOOK);
    }
}

/// Forgets the connections of the parent process; called in a forked child.
pub(crate) fn reset() {
    OPEN.store(0, Ordering::Relaxed);
}

/// A place among the process's connections, which a connection shares with its view. Dropping it
/// gives the place back.
#[derive(Debug)]
pub struct Permit {
    generation: u64,
    is_counted: bool,
}

impl Permit {
    /// Takes a place if fewer than `max` are taken (`None`: no limit).
    pub fn claim(max: Option<usize>) -> Option<Self> {
        let max = max.unwrap_or(usize::MAX);
        OPEN.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |open| {
            (open < max).then_some(open.saturating_add(1))
        })
        .ok()
        .map(|_| Self {
            generation: fork::generation(),
            is_counted: true,
        })
    }

    /// A permit that takes no place: for connections that this process opens to others.
    pub(crate) fn uncounted() -> Self {
        Self {
            generation: fork::generation(),
            is_counted: false,
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        // A permit of the parent process means nothing in its child.
        if self.is_counted && self.generation == fork::generation() {
            OPEN.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

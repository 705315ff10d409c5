//! The number of connections, and the permits by which it is limited.

use std::{
    mem,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use arc_swap::ArcSwapOption;

use crate::engine::base::{fork, sync::Mutex};

static OPEN: AtomicUsize = AtomicUsize::new(0);

/// The functions to call when no permit is out any more. A forked child has its own list: the lock
/// of its parent's list may be held for ever.
static WHEN_NONE: ArcSwapOption<Calls> = ArcSwapOption::const_empty();

type Calls = Mutex<Vec<Box<dyn FnOnce() + Send>>>;

/// The number of connections that this process holds or has a permit out for.
pub fn open() -> usize {
    OPEN.load(Ordering::SeqCst)
}

/// Calls `call` once, when the last permit is given back. It must not sleep. The caller looks again
/// after this: what was given back before calls nobody.
pub fn when_none(call: impl FnOnce() + Send + 'static) {
    if WHEN_NONE.load().is_none() {
        WHEN_NONE.compare_and_swap(&None::<Arc<Calls>>, Some(Arc::default()));
    }
    if let Some(calls) = WHEN_NONE.load_full() {
        calls.lock().push(Box::new(call));
    }
}

fn tell_that_there_is_none() {
    if let Some(calls) = WHEN_NONE.load_full() {
        let due = mem::take(&mut *calls.lock());
        for call in due {
            call();
        }
    }
}

/// Forgets the connections of the parent process; called in a forked child.
#[cfg(unix)]
pub(crate) fn reset() {
    OPEN.store(0, Ordering::Relaxed);
    // Dropping the calls would tell those of the parent that wait.
    let _ = mem::ManuallyDrop::new(WHEN_NONE.swap(None));
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
            let before = OPEN.fetch_sub(1, Ordering::SeqCst);
            if before == 1 {
                tell_that_there_is_none();
            }
        }
    }
}

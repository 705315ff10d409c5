//! Letting few threads at a time ask for the GIL.
//!
//! A thread that waits for the GIL wakes every five milliseconds to ask for it again. When thousands
//! of views wake while one call of Python holds the GIL for long, such as a garbage collection, their
//! wake-ups take the core, and the holder gets a small part of it: 0.2 s of collecting took 22 s
//! beside 6,000 views. So a thread that comes back from the engine first waits here, asleep, until
//! fewer than [`MAX_WAITING`] others wait for the GIL.

use crate::engine::base::sync::{Condvar, Mutex};

/// Threads that may wait for the GIL at once. Two would do to keep it busy; the others are asleep
/// when the GIL is released, or wait for a core.
const MAX_WAITING: usize = 8;

/// The threads of one engine that go back to Python. Any thread may use it.
#[derive(Debug, Default)]
pub(crate) struct GilSemaphore {
    waiting: Mutex<usize>,
    passed: Condvar,
}

impl GilSemaphore {
    /// Sleeps while [`MAX_WAITING`] threads wait for the GIL. The caller drops the pass as soon as
    /// it has the GIL.
    pub(crate) fn enter(&self) -> Pass<'_> {
        let is_full = |waiting: &usize| *waiting >= MAX_WAITING;
        *self.passed.wait_while(self.waiting.lock(), None, is_full) += 1;
        Pass(self)
    }
}

/// A thread's right to wait for the GIL.
#[derive(Debug)]
#[must_use = "the GIL is to be taken before the pass is dropped"]
pub struct Pass<'a>(&'a GilSemaphore);

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        *self.0.waiting.lock() -= 1;
        self.0.passed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Barrier,
            atomic::{AtomicUsize, Ordering},
        },
        thread,
    };

    use super::*;

    #[test]
    fn few_threads_hold_a_pass_at_a_time_and_all_get_one() {
        const THREADS: usize = 4 * MAX_WAITING;
        let gil_semaphore = GilSemaphore::default();
        let (inside, most, all) = (
            AtomicUsize::new(0),
            AtomicUsize::new(0),
            Barrier::new(THREADS),
        );
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    all.wait();
                    for _ in 0..100 {
                        let pass = gil_semaphore.enter();
                        most.fetch_max(1 + inside.fetch_add(1, Ordering::SeqCst), Ordering::SeqCst);
                        thread::yield_now();
                        inside.fetch_sub(1, Ordering::SeqCst);
                        drop(pass);
                    }
                });
            }
        });
        assert_eq!(*gil_semaphore.waiting.lock(), 0);
        assert!(most.into_inner() <= MAX_WAITING);
    }
}

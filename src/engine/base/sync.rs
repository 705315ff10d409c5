//! The lock and the condition variable for the data that views and the engine share.
//!
//! They wrap the standard library's, which are small and need no allocation. Poisoning is ignored:
//! after a panic of one holder the others go on. Built with `--cfg shuttle` the tests of
//! `interleavings.rs` use shuttle's instead, which tries out many orders of the threads. Built with
//! `--cfg tsan` they are `parking_lot`'s: `ThreadSanitizer` sees no synchronisation in the standard
//! library, which comes compiled without it.

#[cfg(not(tsan))]
use std::sync::PoisonError;
#[cfg(not(any(tsan, all(test, shuttle))))]
use std::{sync::TryLockError, thread};
use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

#[cfg(tsan)]
use parking_lot as base;
#[cfg(all(test, shuttle))]
use shuttle::sync as base;
#[cfg(not(any(tsan, all(test, shuttle))))]
use std::sync as base;

pub(crate) use base::MutexGuard;

use super::clock;

/// How often a thread that finds a lock taken lets others run before it sleeps.
#[cfg(not(any(tsan, all(test, shuttle))))]
const YIELDS: usize = 10;

/// A lock that ignores poisoning.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(base::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(base::Mutex::new(value))
    }

    /// Sleeps until no other thread holds the lock. First it yields the processor a few times,
    /// which is cheaper than sleeping: most holders release the lock after one system call or sooner.
    #[cfg(not(tsan))]
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        #[cfg(not(all(test, shuttle)))]
        for _ in 0..YIELDS {
            match self.0.try_lock() {
                Ok(guard) => return guard,
                Err(TryLockError::Poisoned(poisoned)) => return poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => thread::yield_now(),
            }
        }
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(tsan)]
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock()
    }
}

/// Threads that sleep until another one changes what a [`Mutex`] guards.
///
/// It counts them, under that lock. Most calls that notify find no thread asleep: these cost half a
/// nanosecond and no system call, where the standard library's `notify_one` costs 250 ns. The
/// caller must have made its change under the lock, and may have released it: a thread that looked
/// before the change was counted before it released the lock.
#[derive(Debug, Default)]
pub(crate) struct Condvar {
    base: base::Condvar,
    sleepers: AtomicUsize,
}

impl Condvar {
    /// Releases the lock and sleeps until notified or until `deadline`, of the engine's clock;
    /// `None` is for ever. Takes the lock again; the second value is false when the time is up.
    pub(crate) fn wait<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        deadline: Option<Instant>,
    ) -> (MutexGuard<'a, T>, bool) {
        self.sleepers.fetch_add(1, Ordering::Relaxed);
        let time =
            deadline.map(|moment| clock::real(moment).saturating_duration_since(Instant::now()));
        let woken = self.sleep(guard, time);
        self.sleepers.fetch_sub(1, Ordering::Relaxed);
        woken
    }

    /// As [`Condvar::wait`], again and again while `is_early` holds of what the lock guards.
    pub(crate) fn wait_while<'a, T>(
        &self,
        mut guard: MutexGuard<'a, T>,
        deadline: Option<Instant>,
        is_early: impl Fn(&T) -> bool,
    ) -> MutexGuard<'a, T> {
        let mut in_time = true;
        while in_time && is_early(&guard) {
            (guard, in_time) = self.wait(guard, deadline);
        }
        guard
    }

    #[cfg(not(tsan))]
    fn sleep<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        time: Option<Duration>,
    ) -> (MutexGuard<'a, T>, bool) {
        let Some(time) = time else {
            let woken = self.base.wait(guard);
            return (woken.unwrap_or_else(PoisonError::into_inner), true);
        };
        let woken = self.base.wait_timeout(guard, time);
        let (guard, result) = woken.unwrap_or_else(PoisonError::into_inner);
        (guard, !result.timed_out())
    }

    #[cfg(tsan)]
    fn sleep<'a, T>(
        &self,
        mut guard: MutexGuard<'a, T>,
        time: Option<Duration>,
    ) -> (MutexGuard<'a, T>, bool) {
        let Some(time) = time else {
            self.base.wait(&mut guard);
            return (guard, true);
        };
        let result = self.base.wait_for(&mut guard, time);
        (guard, !result.timed_out())
    }

    /// Threads that sleep now; exact while the lock is held.
    pub(crate) fn sleepers(&self) -> usize {
        self.sleepers.load(Ordering::Relaxed)
    }

    /// Wakes one thread; false when there is none.
    pub(crate) fn notify_one(&self) -> bool {
        let has_sleepers = self.sleepers() > 0;
        if has_sleepers {
            self.base.notify_one();
        }
        has_sleepers
    }

    /// Wakes all threads.
    pub(crate) fn notify_all(&self) {
        if self.sleepers() > 0 {
            self.base.notify_all();
        }
    }
}

//! The lock and the condition variable of what views and the engine share.
//!
//! They are the standard library's: one word each, inside the connection, and a panic of one holder
//! does not poison the data for the others. Built with `--cfg shuttle` the tests of
//! `interleavings.rs` use shuttle's instead, which tries out many orders of the threads.

use std::{
    sync::{
        PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

#[cfg(all(test, shuttle))]
use shuttle::sync as base;
#[cfg(not(all(test, shuttle)))]
use std::sync as base;

pub(super) use base::MutexGuard;

use super::clock;

/// A lock that ignores poisoning.
#[derive(Debug, Default)]
pub(super) struct Mutex<T>(base::Mutex<T>);

impl<T> Mutex<T> {
    pub(super) fn new(value: T) -> Self {
        Self(base::Mutex::new(value))
    }

    /// Sleeps until no other thread holds the lock.
    pub(super) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Threads that sleep until another one changes what a [`Mutex`] guards.
///
/// It counts them, under that lock: to notify none costs no system call, unlike the standard
/// library's. A caller that has held the lock since its change sees each thread that must be woken.
#[derive(Debug, Default)]
pub(super) struct Condvar {
    base: base::Condvar,
    sleepers: AtomicUsize,
}

impl Condvar {
    /// Releases the lock and sleeps until notified or until `deadline`, of the engine's clock;
    /// `None` is for ever. Takes the lock again; the second value is false when the time is up.
    pub(super) fn wait<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        deadline: Option<Instant>,
    ) -> (MutexGuard<'a, T>, bool) {
        self.sleepers.fetch_add(1, Ordering::Relaxed);
        let (guard, in_time) = if let Some(deadline) = deadline {
            let left = clock::real(deadline).saturating_duration_since(Instant::now());
            let (guard, is_over) = self.wait_for(guard, left);
            (guard, !is_over)
        } else {
            let woken = self.base.wait(guard);
            (woken.unwrap_or_else(PoisonError::into_inner), true)
        };
        self.sleepers.fetch_sub(1, Ordering::Relaxed);
        (guard, in_time)
    }

    fn wait_for<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        time: Duration,
    ) -> (MutexGuard<'a, T>, bool) {
        let (guard, result) = self
            .base
            .wait_timeout(guard, time)
            .unwrap_or_else(PoisonError::into_inner);
        (guard, result.timed_out())
    }

    /// Threads that sleep now; exact while the lock is held.
    pub(super) fn sleepers(&self) -> usize {
        self.sleepers.load(Ordering::Relaxed)
    }

    /// Wakes one thread; false when there is none.
    pub(super) fn notify_one(&self) -> bool {
        let has_sleepers = self.sleepers() > 0;
        if has_sleepers {
            self.base.notify_one();
        }
        has_sleepers
    }

    /// Wakes all threads.
    pub(super) fn notify_all(&self) {
        if self.sleepers() > 0 {
            self.base.notify_all();
        }
    }
}

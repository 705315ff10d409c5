//! The lock and the condition variable of what views and the engine share.
//!
//! They are the standard library's: one word each, inside the connection, and a panic of one holder
//! does not poison the data for the others. Built with `--cfg shuttle` the tests of
//! `interleavings.rs` use shuttle's instead, which tries out many orders of the threads.

use std::{
    sync::PoisonError,
    time::{Duration, Instant},
};

#[cfg(all(test, shuttle))]
use shuttle::sync as base;
#[cfg(not(all(test, shuttle)))]
use std::sync as base;

pub(super) use base::MutexGuard;

use super::clock;

/// A lock that does not know of panics.
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
#[derive(Debug, Default)]
pub(super) struct Condvar(base::Condvar);

impl Condvar {
    /// Gives the lock away and sleeps until notified or until `deadline`, of the engine's clock;
    /// `None` is for ever. Takes the lock again; the second value is false when the time is up.
    pub(super) fn wait<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        deadline: Option<Instant>,
    ) -> (MutexGuard<'a, T>, bool) {
        let Some(deadline) = deadline else {
            let woken = self.0.wait(guard);
            return (woken.unwrap_or_else(PoisonError::into_inner), true);
        };
        let left = clock::real(deadline).saturating_duration_since(Instant::now());
        let (guard, is_over) = self.wait_for(guard, left);
        (guard, !is_over)
    }

    fn wait_for<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        time: Duration,
    ) -> (MutexGuard<'a, T>, bool) {
        let (guard, result) = self
            .0
            .wait_timeout(guard, time)
            .unwrap_or_else(PoisonError::into_inner);
        (guard, result.timed_out())
    }

    /// Wakes one thread. A system call: only where a thread is known to sleep.
    pub(super) fn notify_one(&self) {
        self.0.notify_one();
    }

    /// Wakes all threads. A system call: only where a thread is known to sleep.
    pub(super) fn notify_all(&self) {
        self.0.notify_all();
    }
}

//! Codecs that wait for their next message.

use std::sync::Mutex;

/// A handful of codecs, ready to use.
///
/// No call waits for the pool: one that finds it locked makes a codec, or drops one. So a child
/// that was forked while another thread held the lock does not hang, either.
#[derive(Debug)]
pub(super) struct Pool<T> {
    idle: Mutex<Vec<T>>,
    most: usize,
}

impl<T> Pool<T> {
    /// A pool of `most` codecs.
    pub(super) fn new(most: usize) -> Self {
        Self {
            idle: Mutex::default(),
            most,
        }
    }

    /// The one that was given back last among those that `fit`.
    pub(super) fn take(&self, fits: impl Fn(&T) -> bool) -> Option<T> {
        let mut idle = self.idle.try_lock().ok()?;
        let place = idle.iter().rposition(fits)?;
        Some(idle.remove(place))
    }

    /// Keeps `codec`; in a full pool in place of the one that has waited longest.
    pub(super) fn give(&self, codec: T) {
        let Ok(mut idle) = self.idle.try_lock() else {
            return;
        };
        let forgotten = (idle.len() >= self.most).then(|| idle.remove(0));
        idle.push(codec);
        drop(idle);
        drop(forgotten);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_that_fits_comes_first_and_the_oldest_goes() {
        let pool = Pool::new(3);
        for codec in [1, 2, 3, 4] {
            pool.give(codec);
        }
        assert_eq!(pool.take(|codec| codec % 2 == 0), Some(4));
        assert_eq!(pool.take(|codec| codec % 2 == 0), Some(2));
        assert_eq!(pool.take(|codec| codec % 2 == 0), None);
        assert_eq!(pool.take(|_| true), Some(3));
    }

    #[test]
    fn no_call_waits_for_a_locked_pool() {
        let pool = Pool::new(3);
        pool.give(1);
        let held = pool.idle.lock().unwrap();
        assert_eq!(pool.take(|_| true), None);
        pool.give(2);
        drop(held);
        assert_eq!(pool.take(|_| true), Some(1));
        assert_eq!(pool.take(|_| true), None);
    }
}

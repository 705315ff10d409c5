//! The time for which a view has been taking messages without a pause.
//!
//! A view whose client sends faster than it answers never finds its inbox empty, so it never
//! sleeps: a task would keep its event loop for itself, and a thread would keep the GIL for as long
//! as Python lets it. So after a while it lets others run, though its next message is there.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How long a view may go on while others wait.
const LONGEST: Duration = Duration::from_millis(1);

/// Since when a view has not slept. Any thread may use it.
#[derive(Debug, Default)]
pub(crate) struct TimeSlice(Mutex<Option<Instant>>);

impl TimeSlice {
    /// Notes that a message is there to be taken. True when others are to run first; then a new
    /// time slice begins.
    pub(crate) fn is_over(&self) -> bool {
        let now = Instant::now();
        let mut since = self.0.lock();
        let is_over = now.saturating_duration_since(*since.get_or_insert(now)) >= LONGEST;
        if is_over {
            *since = None;
        }
        is_over
    }

    /// Notes that the view is about to sleep.
    pub(crate) fn end(&self) {
        *self.0.lock() = None;
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn a_view_that_never_sleeps_lets_others_run_now_and_then() {
        let slice = TimeSlice::default();
        assert!(!slice.is_over());
        thread::sleep(LONGEST);
        assert!(slice.is_over());
        assert!(!slice.is_over());
    }

    #[test]
    fn a_view_that_sleeps_has_all_its_time_afterwards() {
        let slice = TimeSlice::default();
        assert!(!slice.is_over());
        thread::sleep(LONGEST);
        slice.end();
        assert!(!slice.is_over());
    }
}

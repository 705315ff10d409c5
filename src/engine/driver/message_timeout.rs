//! The timeout of a message that has begun and makes no progress.

use std::time::Duration;

use tokio::time::Instant;

/// Within the timeout a message has to grow by 1 / `PROGRESS_DIVISOR` of what has come of it.
const PROGRESS_DIVISOR: usize = 1024;

/// Sees to it that a message that has begun makes progress.
///
/// Progress means that it grows, within the timeout, by the part that [`PROGRESS_DIVISOR`] says, and
/// by one byte at least. So a slow upload may take its time. But a client that has made us inflate
/// much cannot make us hold that for ever by sending a byte now and then.
#[derive(Debug)]
pub(super) struct MessageTimeout {
    /// `None` is for ever.
    timeout: Option<Duration>,
    /// Bytes of the message that had come at its last progress.
    come: usize,
    until: Option<Instant>,
}

impl MessageTimeout {
    /// The timeout of a connection on which no message has begun.
    pub(super) fn new(timeout: Option<Duration>) -> Self {
        Self {
            timeout,
            come: 0,
            until: None,
        }
    }

    /// Notes that a message is complete.
    pub(super) fn on_message(&mut self) {
        self.until = None;
    }

    /// Notes that so many bytes have come of a message that is not complete; `None` when there is
    /// none.
    pub(super) fn on_read(&mut self, unfinished: Option<usize>, now: impl FnOnce() -> Instant) {
        let Some(come) = unfinished.filter(|_| self.timeout.is_some()) else {
            self.until = None;
            return;
        };
        let least = self
            .come
            .saturating_add((self.come / PROGRESS_DIVISOR).max(1));
        if self.until.is_none() || come >= least {
            self.come = come;
            self.until = self.timeout.and_then(|timeout| now().checked_add(timeout));
        }
    }

    /// Restarts the time, after a pause in which nothing was read.
    pub(super) fn renew(&mut self, now: impl FnOnce() -> Instant) {
        if let (Some(_), Some(timeout)) = (self.until, self.timeout) {
            self.until = now().checked_add(timeout);
        }
    }

    /// When the message has to have made progress.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.until
    }

    /// Whether that moment has passed without progress.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| until <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn a_message_that_goes_on_may_take_its_time() {
        let start = Instant::now();
        let mut timeout = MessageTimeout::new(Some(10 * S));
        for number in 0..100_u32 {
            let now = start + 9 * S * number;
            assert!(!timeout.is_over(now));
            timeout.on_read(Some(number as usize), || now);
            assert_eq!(timeout.deadline(), Some(now + 10 * S));
        }
    }

    #[test]
    fn a_message_that_stands_still_has_an_end() {
        let start = Instant::now();
        let mut timeout = MessageTimeout::new(Some(10 * S));
        timeout.on_read(Some(5), || start);
        // A ping in between.
        timeout.on_read(Some(5), || start + 9 * S);
        assert!(!timeout.is_over(start + 9 * S));
        assert!(timeout.is_over(start + 10 * S));
    }

    #[test]
    fn a_large_message_has_to_go_on_by_more_than_a_byte() {
        let start = Instant::now();
        let mut timeout = MessageTimeout::new(Some(10 * S));
        timeout.on_read(Some(1 << 20), || start);
        timeout.on_read(Some((1 << 20) + 1023), || start + S);
        assert_eq!(timeout.deadline(), Some(start + 10 * S));
        timeout.on_read(Some((1 << 20) + 1024), || start + 2 * S);
        assert_eq!(timeout.deadline(), Some(start + 12 * S));
    }

    #[test]
    fn the_next_message_begins_anew() {
        let start = Instant::now();
        let mut timeout = MessageTimeout::new(Some(10 * S));
        timeout.on_read(Some(5), || start);
        timeout.on_message();
        assert_eq!(timeout.deadline(), None);
        timeout.on_read(Some(5), || start + 5 * S);
        assert_eq!(timeout.deadline(), Some(start + 15 * S));
        timeout.renew(|| start + 7 * S);
        assert_eq!(timeout.deadline(), Some(start + 17 * S));
        timeout.on_read(None, || start + 8 * S);
        timeout.renew(|| start + 9 * S);
        assert_eq!(timeout.deadline(), None);
    }

    #[test]
    fn without_a_timeout_it_never_ends() {
        let mut timeout = MessageTimeout::new(None);
        timeout.on_read(Some(5), Instant::now);
        assert_eq!(timeout.deadline(), None);
    }
}

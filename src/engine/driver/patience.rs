//! How long a peer may take over what it has begun.

use std::time::Duration;

use tokio::time::Instant;

/// Within the timeout a message has to grow by 1 / `LEAST_PROGRESS` of what has come of it.
const LEAST_PROGRESS: usize = 1024;
/// How many times the send timeout a peer may take over the last bytes before the close frame.
const FLUSH_TIMEOUTS: u32 = 10;
/// Bytes that add a second to that: 128 kbit/s.
const FLUSH_BYTES_PER_S: usize = 16 * 1024;

/// Watches over a message that has begun: it has to go on.
///
/// It does when it grows, within the timeout, by the part that [`LEAST_PROGRESS`] says, and by one
/// byte at least. So a slow upload may take its time, and a client that has had much inflated
/// cannot hold it for ever by sending a byte now and then.
#[derive(Debug)]
pub(crate) struct Patience {
    /// `None` is for ever.
    timeout: Option<Duration>,
    /// What had come of the message at its last progress.
    come: usize,
    until: Option<Instant>,
}

impl Patience {
    /// Patience with a connection on which nothing has begun.
    pub(crate) fn new(timeout: Option<Duration>) -> Self {
        Self {
            timeout,
            come: 0,
            until: None,
        }
    }

    /// Notes that a message is complete.
    pub(crate) fn on_message(&mut self) {
        self.until = None;
    }

    /// Notes that so many bytes have come of a message that is not complete; `None` when there is
    /// none.
    pub(crate) fn on_read(&mut self, unfinished: Option<usize>, now: impl FnOnce() -> Instant) {
        let Some(come) = unfinished.filter(|_| self.timeout.is_some()) else {
            self.until = None;
            return;
        };
        let least = self
            .come
            .saturating_add((self.come / LEAST_PROGRESS).max(1));
        if self.until.is_none() || come >= least {
            self.come = come;
            self.until = self.timeout.and_then(|timeout| now().checked_add(timeout));
        }
    }

    /// Begins anew: meanwhile nothing was read.
    pub(crate) fn renew(&mut self, now: impl FnOnce() -> Instant) {
        if let (Some(_), Some(timeout)) = (self.until, self.timeout) {
            self.until = now().checked_add(timeout);
        }
    }

    /// When the message has to have gone on.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.until
    }

    /// Whether that moment has passed without it.
    pub(crate) fn is_over(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| until <= now)
    }
}

/// Until when a peer may take in the last `bytes` before it is given up, whatever it takes
/// meanwhile; `None` is for ever, as without a `send_timeout`.
pub(crate) fn flush_limit(
    now: Instant,
    send_timeout: Option<Duration>,
    bytes: usize,
) -> Option<Instant> {
    let seconds = u64::try_from(bytes / FLUSH_BYTES_PER_S).unwrap_or(u64::MAX);
    let limit = send_timeout?
        .checked_mul(FLUSH_TIMEOUTS)?
        .checked_add(Duration::from_secs(seconds))?;
    now.checked_add(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn a_message_that_goes_on_may_take_its_time() {
        let start = Instant::now();
        let mut patience = Patience::new(Some(10 * S));
        for number in 0..100_u32 {
            let now = start + 9 * S * number;
            assert!(!patience.is_over(now));
            patience.on_read(Some(number as usize), || now);
            assert_eq!(patience.deadline(), Some(now + 10 * S));
        }
    }

    #[test]
    fn a_message_that_stands_still_has_an_end() {
        let start = Instant::now();
        let mut patience = Patience::new(Some(10 * S));
        patience.on_read(Some(5), || start);
        // A ping in between.
        patience.on_read(Some(5), || start + 9 * S);
        assert!(!patience.is_over(start + 9 * S));
        assert!(patience.is_over(start + 10 * S));
    }

    #[test]
    fn a_large_message_has_to_go_on_by_more_than_a_byte() {
        let start = Instant::now();
        let mut patience = Patience::new(Some(10 * S));
        patience.on_read(Some(1 << 20), || start);
        patience.on_read(Some((1 << 20) + 1023), || start + S);
        assert_eq!(patience.deadline(), Some(start + 10 * S));
        patience.on_read(Some((1 << 20) + 1024), || start + 2 * S);
        assert_eq!(patience.deadline(), Some(start + 12 * S));
    }

    #[test]
    fn the_next_message_begins_anew() {
        let start = Instant::now();
        let mut patience = Patience::new(Some(10 * S));
        patience.on_read(Some(5), || start);
        patience.on_message();
        assert_eq!(patience.deadline(), None);
        patience.on_read(Some(5), || start + 5 * S);
        assert_eq!(patience.deadline(), Some(start + 15 * S));
        patience.renew(|| start + 7 * S);
        assert_eq!(patience.deadline(), Some(start + 17 * S));
        patience.on_read(None, || start + 8 * S);
        patience.renew(|| start + 9 * S);
        assert_eq!(patience.deadline(), None);
    }

    #[test]
    fn without_a_timeout_it_never_ends() {
        let mut patience = Patience::new(None);
        patience.on_read(Some(5), Instant::now);
        assert_eq!(patience.deadline(), None);
    }

    #[test]
    fn the_last_bytes_have_a_limit_that_grows_with_them() {
        let now = Instant::now();
        assert_eq!(flush_limit(now, None, 5), None);
        assert_eq!(flush_limit(now, Some(10 * S), 5), Some(now + 100 * S));
        assert_eq!(flush_limit(now, Some(10 * S), 1 << 20), Some(now + 164 * S));
        assert_eq!(flush_limit(now, Some(Duration::MAX), 5), None);
    }
}

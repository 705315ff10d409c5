//! The rate limit of one peer: a bucket of messages and one of bytes.
//!
//! Each holds what its rate allows in a second, and refills all the time. A peer that sends more
//! than is left has to wait: it is not read from, and TCP's flow control slows it down. A peer
//! that does not slow down even so is closed.

use std::time::Duration;

use tokio::time::Instant;

use crate::engine::connection::settings::Rates;

/// Control frames that a peer may send a second, for hours.
const CONTROLS_PER_SECOND: f64 = 1000.0;
/// Control frames that it may send beside that, at once: as many as heap up in a client's system
/// while it is not read from.
const CONTROLS_AT_ONCE: f64 = 10_000.0;
/// Control frames that it may send in addition for each message.
const CONTROLS_PER_MESSAGE: f64 = 10.0;

/// Pings and pongs of a peer, which carry nothing for a view.
///
/// A client pings a few times a minute, or with each message that it sends, and answers our pings.
#[derive(Debug)]
pub(super) struct Controls(Bucket);

impl Controls {
    /// A peer that has sent none, at `now`.
    pub(super) fn new(now: Instant) -> Self {
        Self(Bucket::new(CONTROLS_PER_SECOND, CONTROLS_AT_ONCE, now))
    }

    /// Takes in so many control frames and messages; false when those are too many.
    pub(super) fn count(&mut self, controls: u32, messages: u32, now: Instant) -> bool {
        let earned = f64::from(messages) * CONTROLS_PER_MESSAGE;
        self.0.refill(earned, now);
        self.0.left -= f64::from(controls);
        self.0.left >= 0.0
    }
}

/// The verdict on how fast a peer sends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Pace {
    /// It may go on.
    Fine,
    /// It has to wait until then.
    Wait(Instant),
    /// It has been over its rate for too long, and is to be closed.
    TooFast,
}

/// One connection's buckets.
#[derive(Debug)]
pub(super) struct Meter {
    messages: Option<Bucket>,
    bytes: Option<Bucket>,
    timeout: Option<Duration>,
    over_since: Option<Instant>,
}

impl Meter {
    /// Full buckets at `now`; `None` when nothing is to be measured.
    pub(super) fn new(rates: Rates, now: Instant) -> Option<Box<Self>> {
        (rates.messages.is_some() || rates.bytes.is_some()).then(|| {
            // One message is always allowed.
            let bucket = |rate: f64| Bucket::new(rate, rate.max(1.0), now);
            Box::new(Self {
                messages: rates.messages.map(bucket),
                bytes: rates.bytes.map(bucket),
                timeout: rates.timeout,
                over_since: None,
            })
        })
    }

    /// Deducts received messages and bytes from the buckets.
    pub(super) fn count(&mut self, messages: u32, bytes: usize) {
        if let Some(bucket) = &mut self.messages {
            bucket.left -= f64::from(messages);
        }
        if let Some(bucket) = &mut self.bytes {
            #[expect(clippy::cast_precision_loss, reason = "a read is far below 2^52 bytes")]
            let bytes = bytes as f64;
            bucket.left -= bytes;
        }
    }

    /// Checks the peer at `now`. `is_behind` means that not all it has sent is taken in yet. Then
    /// it is unknown whether it has paused, so it is not forgiven.
    pub(super) fn pace(&mut self, now: Instant, is_behind: bool) -> Pace {
        let buckets = [&mut self.messages, &mut self.bytes];
        let mut wait = Duration::ZERO;
        let mut is_calm = !is_behind;
        for bucket in buckets.into_iter().flatten() {
            bucket.refill(0.0, now);
            wait = wait.max(bucket.debt());
            is_calm &= bucket.left >= bucket.rate / 2.0;
        }
        if is_calm {
            self.over_since = None;
        }
        if wait.is_zero() {
            return Pace::Fine;
        }
        let since = *self.over_since.get_or_insert(now);
        if self.timeout.is_some_and(|timeout| now - since >= timeout) {
            return Pace::TooFast;
        }
        Pace::Wait(now + wait)
    }
}

/// A bucket that fills at a rate. May be in debt.
#[derive(Debug)]
struct Bucket {
    rate: f64,
    most: f64,
    left: f64,
    filled_at: Instant,
}

impl Bucket {
    fn new(rate: f64, most: f64, now: Instant) -> Self {
        Self {
            rate,
            most,
            left: most,
            filled_at: now,
        }
    }

    /// Fills in what the time since the last call gives, and `more`.
    fn refill(&mut self, more: f64, now: Instant) {
        let passed = now.saturating_duration_since(self.filled_at).as_secs_f64();
        self.left = (self.left + passed * self.rate + more).min(self.most);
        self.filled_at = now;
    }

    /// The time until there is something left in the bucket again.
    fn debt(&self) -> Duration {
        if self.left > 0.0 {
            return Duration::ZERO;
        }
        // Never zero: a wait until now would be none. Never beyond the range of the clock.
        Duration::from_secs_f64((-self.left / self.rate).clamp(0.001, 3600.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn meter(messages: Option<f64>, bytes: Option<f64>, now: Instant) -> Meter {
        let timeout = Some(10 * S);
        *Meter::new(
            Rates {
                messages,
                bytes,
                timeout,
            },
            now,
        )
        .unwrap()
    }

    #[test]
    fn a_second_s_worth_may_come_at_once() {
        let now = Instant::now();
        let mut meter = meter(Some(10.0), Some(1000.0), now);
        meter.count(9, 900);
        assert_eq!(meter.pace(now, false), Pace::Fine);
        meter.count(1, 0);
        assert!(matches!(meter.pace(now, false), Pace::Wait(_)));
    }

    #[test]
    fn a_peer_that_takes_more_waits_in_proportion() {
        let now = Instant::now();
        let mut meter = meter(None, Some(1000.0), now);
        meter.count(1, 3000);
        assert_eq!(meter.pace(now, false), Pace::Wait(now + 2 * S));
        assert!(matches!(meter.pace(now + S, false), Pace::Wait(_)));
        assert_eq!(meter.pace(now + S * 21 / 10, false), Pace::Fine);
    }

    #[test]
    fn a_peer_that_does_not_slow_down_is_too_fast_in_the_end() {
        let start = Instant::now();
        let mut meter = meter(Some(10.0), None, start);
        let mut now = start;
        let paces = (0..1000).map(|_| {
            meter.count(1, 0);
            let pace = meter.pace(now, false);
            if let Pace::Wait(until) = pace {
                now = until;
            }
            pace
        });
        assert!(paces.into_iter().any(|pace| pace == Pace::TooFast));
        assert!((10 * S..12 * S).contains(&(now - start)));
    }

    #[test]
    fn a_peer_that_pauses_is_forgiven() {
        let mut now = Instant::now();
        let mut meter = meter(Some(10.0), None, now);
        for _ in 0..100 {
            meter.count(10, 0);
            assert!(matches!(meter.pace(now, false), Pace::Wait(_)));
            now += S;
            assert_eq!(meter.pace(now, false), Pace::Fine);
        }
    }

    #[test]
    fn a_client_may_ping_a_thousand_times_a_second_for_ever_and_no_oftener() {
        let start = Instant::now();
        let mut honest = Controls::new(start);
        let mut flooding = Controls::new(start);
        let second = |count: u32| start + count * S;
        assert!((1..1000).all(|count| honest.count(1000, 0, second(count))));
        assert!(honest.count(10_000, 0, second(1000)));
        assert!(!honest.count(1, 0, second(1000)));
        let last = (1..100).find(|count| !flooding.count(2000, 0, second(*count)));
        assert_eq!(last, Some(10));
    }

    #[test]
    fn a_client_may_ping_with_each_message_however_fast_those_come() {
        let now = Instant::now();
        let mut controls = Controls::new(now);
        assert!((0..100_000).all(|_| controls.count(10, 1, now)));
        assert!((0..100_000).any(|_| !controls.count(11, 1, now)));
    }

    #[test]
    fn a_peer_is_not_forgiven_because_we_are_slow() {
        let now = Instant::now();
        let mut meter = meter(None, Some(1000.0), now);
        meter.count(0, 2000);
        assert!(matches!(meter.pace(now, false), Pace::Wait(_)));
        assert_eq!(meter.pace(now + 11 * S, true), Pace::Fine);
        meter.count(0, 2000);
        assert_eq!(meter.pace(now + 11 * S, false), Pace::TooFast);
    }

    #[test]
    fn without_rates_there_is_nothing_to_measure() {
        assert!(Meter::new(Rates::default(), Instant::now()).is_none());
    }

    #[test]
    fn a_rate_below_one_still_lets_a_message_through() {
        let now = Instant::now();
        let mut meter = meter(Some(0.5), None, now);
        assert_eq!(meter.pace(now, false), Pace::Fine);
        meter.count(1, 0);
        assert!(matches!(meter.pace(now, false), Pace::Wait(_)));
        assert_eq!(meter.pace(now + 4 * S, false), Pace::Fine);
    }
}

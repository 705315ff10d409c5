//! When to ping, and when to believe that the peer is gone.

use std::time::Duration;

use tokio::time::Instant;

/// What is due now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Nothing.
    Nothing,
    /// A ping.
    Ping,
    /// The end: nothing came since a ping was sent that long ago.
    Death,
}

/// The rhythm of one connection. Only received bytes prove that a peer lives.
#[derive(Debug)]
pub(super) struct Keepalive {
    interval: Option<Duration>,
    timeout: Option<Duration>,
    next_ping: Option<Instant>,
    unanswered_since: Option<Instant>,
}

impl Keepalive {
    /// A rhythm that begins at `now`; `None` (or zero) for `interval` never pings, `None` for
    /// `timeout` never gives up. Connections that began together spread out by their `id`.
    pub(super) fn new(
        interval: Option<Duration>,
        timeout: Option<Duration>,
        id: u64,
        now: Instant,
    ) -> Self {
        // Golden-ratio hashing spreads neighbours evenly: up to a tenth earlier than asked.
        let spread = (id.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u32;
        let interval = interval
            .filter(|interval| !interval.is_zero())
            .map(|interval| interval.saturating_sub(interval / 2560 * spread));
        Self {
            interval,
            timeout,
            next_ping: interval.and_then(|interval| now.checked_add(interval)),
            unanswered_since: None,
        }
    }

    /// Something came: the peer lives.
    pub(super) fn heard(&mut self) {
        self.unanswered_since = None;
    }

    /// The next moment at which [`Keepalive::due`] has something to say. While we do not read
    /// (`paused`), silence is our own doing.
    pub(super) fn deadline(&self, paused: bool) -> Option<Instant> {
        let death = self.death().filter(|_| !paused);
        match (self.next_ping, death) {
            (Some(ping), Some(death)) => Some(ping.min(death)),
            (ping, death) => ping.or(death),
        }
    }

    /// What has to be done at `now`; a ping that is due counts as sent.
    pub(super) fn due(&mut self, now: Instant, paused: bool) -> Due {
        if paused {
            // Begin counting again when we read again.
            self.unanswered_since = self.unanswered_since.map(|_| now);
        } else if self.death().is_some_and(|death| death <= now) {
            return Due::Death;
        }
        match (self.next_ping, self.interval) {
            (Some(ping), Some(interval)) if ping <= now => {
                self.next_ping = now.checked_add(interval);
                self.unanswered_since.get_or_insert(now);
                Due::Ping
            }
            _ => Due::Nothing,
        }
    }

    fn death(&self) -> Option<Instant> {
        self.unanswered_since?.checked_add(self.timeout?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn pings_come_in_rhythm_and_silence_after_one_is_death() {
        let start = Instant::now();
        let mut keepalive = Keepalive::new(Some(10 * S), Some(4 * S), 0, start);
        assert_eq!(keepalive.deadline(false), Some(start + 10 * S));
        assert_eq!(keepalive.due(start + 10 * S, false), Due::Ping);
        assert_eq!(keepalive.deadline(false), Some(start + 14 * S));
        keepalive.heard();
        assert_eq!(keepalive.due(start + 14 * S, false), Due::Nothing);
        assert_eq!(keepalive.due(start + 20 * S, false), Due::Ping);
        assert_eq!(keepalive.due(start + 24 * S, false), Due::Death);
    }

    #[test]
    fn the_peer_is_not_blamed_while_we_do_not_read() {
        let start = Instant::now();
        let mut keepalive = Keepalive::new(Some(10 * S), Some(4 * S), 0, start);
        assert_eq!(keepalive.due(start + 10 * S, false), Due::Ping);
        assert_eq!(keepalive.deadline(true), Some(start + 20 * S));
        assert_eq!(keepalive.due(start + 20 * S, true), Due::Ping);
        assert_eq!(keepalive.due(start + 21 * S, false), Due::Nothing);
        assert_eq!(keepalive.due(start + 24 * S, false), Due::Death);
    }

    #[test]
    fn pings_of_many_connections_spread_over_a_tenth_of_the_interval() {
        let start = Instant::now();
        let first = |id| {
            Keepalive::new(Some(10 * S), None, id, start)
                .deadline(false)
                .unwrap()
                - start
        };
        let times: Vec<_> = (1..=100).map(first).collect();
        assert!(times.iter().all(|time| (9 * S..=10 * S).contains(time)));
        let early = times.iter().filter(|time| **time < S * 19 / 2).count();
        assert!(
            (40..=60).contains(&early),
            "{early} of 100 in the first half"
        );
    }

    #[test]
    fn intervals_that_no_clock_reaches_never_come() {
        let start = Instant::now();
        for id in 1..100 {
            let keepalive = Keepalive::new(Some(Duration::MAX), Some(Duration::MAX), id, start);
            assert_eq!(keepalive.deadline(false), None);
        }
    }

    #[test]
    fn an_interval_of_nothing_does_not_ping_without_end() {
        let start = Instant::now();
        let mut keepalive = Keepalive::new(Some(Duration::ZERO), Some(S), 1, start);
        assert_eq!(keepalive.due(start + S, false), Due::Nothing);
        assert_eq!(keepalive.deadline(false), None);
    }

    #[test]
    fn without_an_interval_nothing_is_ever_due() {
        let start = Instant::now();
        let mut keepalive = Keepalive::new(None, Some(S), 7, start);
        assert_eq!(keepalive.deadline(false), None);
        assert_eq!(keepalive.due(start + 1000 * S, false), Due::Nothing);
    }
}

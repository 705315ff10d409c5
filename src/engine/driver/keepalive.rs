//! Keepalive: when a ping is due, and when a peer that does not answer counts as gone.

use std::time::Duration;

use tokio::time::Instant;

use crate::engine::connection::{moving::Pulse, outbox::outcome::Passage};

/// The action that is due now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Nothing.
    Nothing,
    /// A ping.
    Ping,
    /// The end of the connection: within the timeout after a ping nothing came from the peer, or it
    /// took nothing.
    Death,
}

/// The keepalive of one connection.
///
/// Received bytes prove that a peer lives. Bytes of ours that it takes prove it, too, as long as
/// they come before a ping that it could answer, or more bytes wait after them.
#[derive(Debug)]
pub(super) struct Keepalive {
    interval: Option<Duration>,
    timeout: Option<Duration>,
    next_ping: Option<Instant>,
    unanswered: Option<Unanswered>,
}

/// A ping after which nothing has been received.
#[derive(Clone, Copy, Debug)]
struct Unanswered {
    /// The moment at which it was due, or of the last sign of life since then.
    since: Instant,
    /// Bytes that the peer's system had taken by then.
    taken: u64,
    /// The ping was among them, or on its way with nothing before it.
    has_ping: bool,
}

impl Unanswered {
    /// Whether the peer has shown since then that it lives; if so, silence counts from `now` on.
    fn goes_on(&mut self, now: Instant, passage: Passage) -> bool {
        let has_ping = self.has_ping || passage.has_ping;
        let moves = passage.taken > self.taken;
        // The peer's system may take small messages for ever although its program does nothing.
        // Such messages never block, so bytes after the ping prove life only while more of them
        // are blocked.
        let goes_on = (has_ping && !self.has_ping) || (moves && (!has_ping || passage.is_blocked));
        *self = Self {
            since: if goes_on { now } else { self.since },
            taken: passage.taken,
            has_ping,
        };
        goes_on
    }
}

impl Keepalive {
    /// A keepalive that begins at `now`; `None` (or zero) for `interval` never pings, `None` for
    /// `timeout` never gives up. Connections that began together spread out by their `id`.
    pub(super) fn new(
        interval: Option<Duration>,
        timeout: Option<Duration>,
        id: u64,
        now: Instant,
    ) -> Self {
        // Golden-ratio hashing spreads consecutive ids evenly: pings come up to a tenth earlier
        // than asked.
        let spread = (id.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u32;
        let interval = interval
            .filter(|interval| !interval.is_zero())
            .map(|interval| interval.saturating_sub(interval / 2560 * spread));
        Self {
            interval,
            timeout,
            next_ping: interval.and_then(|interval| now.checked_add(interval)),
            unanswered: None,
        }
    }

    /// Goes on with the keepalive of another process.
    pub(super) fn after(mut self, before: Pulse, now: Instant) -> Self {
        if let Some(interval) = self.interval {
            if let Some(next) = before.next_ping {
                self.next_ping = now.checked_add(next.min(interval));
            }
            self.unanswered = before.silence.map(|silence| Unanswered {
                since: now.checked_sub(silence).unwrap_or(now),
                taken: 0,
                has_ping: true,
            });
        }
        self
    }

    /// For the process that goes on with the connection from `now` on.
    pub(super) fn pulse(&self, now: Instant) -> Pulse {
        Pulse {
            next_ping: self.next_ping.map(|at| at.saturating_duration_since(now)),
            silence: (self.unanswered).map(|ping| now.saturating_duration_since(ping.since)),
        }
    }

    /// Notes that bytes were received: the peer lives.
    pub(super) fn heard(&mut self) {
        self.unanswered = None;
    }

    /// The next moment at which something may be due ([`Keepalive::due`]). While we do not read
    /// (`paused`), the peer's silence does not count.
    pub(super) fn deadline(&self, paused: bool) -> Option<Instant> {
        let death = self.death().filter(|_| !paused);
        self.next_ping.into_iter().chain(death).min()
    }

    /// The action that is due at `now`; if it is a ping, the caller has to send it at once.
    /// `passage` says how our bytes get through.
    pub(super) fn due(&mut self, now: Instant, paused: bool, passage: impl Fn() -> Passage) -> Due {
        let is_dead = self.death().is_some_and(|death| death <= now);
        if let Some(unanswered) = &mut self.unanswered {
            if paused {
                // Begin counting again when we read again.
                unanswered.since = now;
            } else if is_dead && !unanswered.goes_on(now, passage()) {
                return Due::Death;
            }
        }
        match (self.next_ping, self.interval) {
            (Some(ping), Some(interval)) if ping <= now => {
                self.next_ping = now.checked_add(interval);
                if self.unanswered.is_none() {
                    let passage = passage();
                    self.unanswered = Some(Unanswered {
                        since: now,
                        taken: passage.taken,
                        has_ping: passage.is_clear,
                    });
                }
                Due::Ping
            }
            _ => Due::Nothing,
        }
    }

    fn death(&self) -> Option<Instant> {
        self.unanswered?.since.checked_add(self.timeout?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    /// All bytes have got through.
    fn clear() -> Passage {
        passage(0, false, true)
    }

    fn passage(taken: u64, is_blocked: bool, has_ping: bool) -> Passage {
        Passage {
            taken,
            is_blocked,
            is_clear: has_ping && !is_blocked,
            has_ping,
        }
    }

    /// A peer that was asked 10 s ago after 1000 bytes, of which it has taken none.
    fn asked(start: Instant) -> Keepalive {
        let mut keepalive = Keepalive::new(Some(10 * S), Some(4 * S), 0, start);
        let before = || passage(0, true, false);
        assert_eq!(keepalive.due(start + 10 * S, false, before), Due::Ping);
        keepalive
    }

    #[test]
    fn another_process_goes_on_with_the_time_that_has_passed() {
        let start = Instant::now();
        let mut before = Keepalive::new(Some(10 * S), Some(4 * S), 0, start);
        let fresh = before.pulse(start + 7 * S);
        assert_eq!(fresh.next_ping, Some(3 * S));
        assert_eq!(fresh.silence, None);
        assert_eq!(before.due(start + 10 * S, false, clear), Due::Ping);
        let moved = start + 13 * S;
        let pulse = before.pulse(moved);
        let new = || Keepalive::new(Some(10 * S), Some(4 * S), 0, moved);
        let mut after = new().after(pulse, moved);
        assert_eq!(after.deadline(false), Some(start + 14 * S));
        assert_eq!(after.due(start + 14 * S, false, clear), Due::Death);
        let mut lives = new().after(pulse, moved);
        lives.heard();
        assert_eq!(lives.deadline(false), Some(start + 20 * S));
        let never = Keepalive::new(None, Some(4 * S), 0, moved).after(pulse, moved);
        assert_eq!(never.deadline(false), None);
    }

    #[test]
    fn a_peer_that_takes_what_comes_before_the_ping_lives_and_has_its_time_afterwards() {
        let start = Instant::now();
        let mut keepalive = asked(start);
        let mut due = |second: u32, passage: Passage| {
            let now = start + second * S;
            let due = keepalive.due(now, false, || passage);
            (due, keepalive.death().map(|death| death - start))
        };
        let alive = |second: u32| (Due::Nothing, Some(second * S));
        assert_eq!(due(14, passage(1, true, false)), alive(18));
        assert_eq!(due(18, passage(1000, false, false)), alive(22));
        // The ping has left now: it has its whole time.
        assert_eq!(due(19, passage(1002, false, true)), alive(22));
        assert_eq!(due(22, passage(1002, false, true)).1, Some(26 * S));
        assert_eq!(due(26, passage(1002, false, true)).0, Due::Death);
    }

    #[test]
    fn a_peer_that_takes_nothing_is_found_though_the_ping_never_left() {
        let start = Instant::now();
        let mut keepalive = asked(start);
        let stuck = || passage(0, true, false);
        assert_eq!(keepalive.due(start + 14 * S, false, stuck), Due::Death);
        let mut keepalive = asked(start);
        let stuck = || passage(500, true, false);
        assert_eq!(keepalive.due(start + 14 * S, false, stuck), Due::Nothing);
        assert_eq!(keepalive.due(start + 18 * S, false, stuck), Due::Death);
    }

    #[test]
    fn a_peer_that_has_the_ping_lives_by_what_it_takes_only_while_more_is_blocked() {
        let start = Instant::now();
        for (is_blocked, due) in [(true, Due::Nothing), (false, Due::Death)] {
            let mut keepalive = Keepalive::new(Some(10 * S), Some(4 * S), 0, start);
            assert_eq!(keepalive.due(start + 10 * S, false, clear), Due::Ping);
            let later = || passage(10_000, is_blocked, true);
            assert_eq!(keepalive.due(start + 14 * S, false, later), due);
        }
    }

    #[test]
    fn pings_come_in_rhythm_and_silence_after_one_is_death() {
        let start = Instant::now();
        let mut keepalive = Keepalive::new(Some(10 * S), Some(4 * S), 0, start);
        assert_eq!(keepalive.deadline(false), Some(start + 10 * S));
        assert_eq!(keepalive.due(start + 10 * S, false, clear), Due::Ping);
        assert_eq!(keepalive.deadline(false), Some(start + 14 * S));
        keepalive.heard();
        assert_eq!(keepalive.due(start + 14 * S, false, clear), Due::Nothing);
        assert_eq!(keepalive.due(start + 20 * S, false, clear), Due::Ping);
        assert_eq!(keepalive.due(start + 24 * S, false, clear), Due::Death);
    }

    #[test]
    fn the_peer_is_not_blamed_while_we_do_not_read() {
        let start = Instant::now();
        let mut keepalive = Keepalive::new(Some(10 * S), Some(4 * S), 0, start);
        assert_eq!(keepalive.due(start + 10 * S, false, clear), Due::Ping);
        assert_eq!(keepalive.deadline(true), Some(start + 20 * S));
        assert_eq!(keepalive.due(start + 20 * S, true, clear), Due::Ping);
        assert_eq!(keepalive.due(start + 21 * S, false, clear), Due::Nothing);
        assert_eq!(keepalive.due(start + 24 * S, false, clear), Due::Death);
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
        assert_eq!(keepalive.due(start + S, false, clear), Due::Nothing);
        assert_eq!(keepalive.deadline(false), None);
    }

    #[test]
    fn without_an_interval_nothing_is_ever_due() {
        let start = Instant::now();
        let mut keepalive = Keepalive::new(None, Some(S), 7, start);
        assert_eq!(keepalive.deadline(false), None);
        assert_eq!(keepalive.due(start + 1000 * S, false, clear), Due::Nothing);
    }
}

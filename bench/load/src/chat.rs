//! The fan-out measurement: one client sends, the server sends its message to all members of the
//! room.

use std::collections::VecDeque;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::echo::{LENGTHENING, Options, Outcome};
use crate::fleet::{Fleet, Target};
use crate::histogram::Histogram;
use crate::script::Script;
use crate::usage::Usage;

/// The connection that talks; a member like the others.
const TALKER: u32 = 0;
/// Time for the last member's view to enter its name after the handshake. It is not checked: a
/// member that is not in the list by then misses messages, and those count as lost.
const ENTERING: Duration = Duration::from_millis(500);

/// Waiting in epoll is right to a millisecond only. Nearer than this to its time, a message is
/// awaited without sleeping.
const TOO_NEAR_TO_SLEEP: Duration = Duration::from_millis(2);

/// The latencies of one window.
#[derive(Debug, Default)]
struct Latencies {
    each: Histogram,
    /// Those of the last delivery of each message.
    last: Histogram,
}

/// Opens `options.connections` members, has the first of them talk, measures, closes. The latencies
/// are those of all deliveries. The next message leaves when less than `options.in_flight` times
/// the number of members is under way; with `options.rate`, at its time, from which latencies count.
///
/// # Errors
/// As [`crate::echo::run`].
pub fn run(target: &Target, script: Script, options: &Options) -> Result<Outcome, String> {
    let mut fleet = Fleet::new(script)?;
    let opening = Instant::now();
    fleet.open(target, options.connections, options.open_timeout)?;
    let open_s = opening.elapsed().as_secs_f64();
    for one in fleet.connections().iter_mut().skip(1) {
        one.listen_to(TALKER);
    }
    sleep(ENTERING);

    let pace = match options.rate {
        Some(rate) => Pace::Times {
            next: Instant::now(),
            apart: Duration::from_secs_f64(1.0 / rate),
        },
        None => Pace::Window(options.in_flight * u64::from(options.connections)),
    };
    let mut room = Room {
        fleet,
        pace,
        due: VecDeque::new(),
        due_total: 0,
    };
    let mut latencies = Latencies::default();
    let mut discarded = Latencies::default();
    room.talk(Instant::now() + options.warm_up, &mut discarded)?;
    let before = Usage::read(&options.watch)?;
    room.talk(before.at + options.duration, &mut latencies)?;
    let last = before.at + options.longest;
    while latencies.each.total() < options.at_least
        && Instant::now() < last
        && !room.fleet.is_over()
    {
        room.talk(Instant::now() + LENGTHENING, &mut latencies)?;
    }
    let after = Usage::read(&options.watch)?;

    let Latencies { each, last } = latencies;
    let clocks = (before, after);
    let outcome = Outcome::of(room.fleet, options.drain, open_s, each, clocks)?;
    Ok(Outcome {
        last: Some(last),
        ..outcome
    })
}

/// When the next message leaves.
#[derive(Debug)]
enum Pace {
    /// When no more deliveries would be under way.
    Window(u64),
    /// At its time.
    Times { next: Instant, apart: Duration },
}

struct Room {
    fleet: Fleet,
    pace: Pace,
    /// The messages that are under way, by the time from which they count, with the number of
    /// members that have not got them. Those that all have got stand here until the first is one.
    due: VecDeque<(Instant, u64)>,
    /// Deliveries that are under way.
    due_total: u64,
}

impl Room {
    fn talk(&mut self, until: Instant, latencies: &mut Latencies) -> Result<(), String> {
        while Instant::now() < until && !self.fleet.is_over() {
            let wake_at = self.say_what_is_due().min(until);
            let (due, due_total) = (&mut self.due, &mut self.due_total);
            self.fleet.turn(wake_at, |_, shared| {
                let now = Instant::now();
                for sent in shared.arrivals.drain(..) {
                    latencies.each.add(now - sent);
                    *due_total = due_total.saturating_sub(1);
                    let at = due.partition_point(|(begun, _)| *begun < sent);
                    if let Some((_, missing)) = due.get_mut(at) {
                        *missing = missing.saturating_sub(1);
                        if *missing == 0 {
                            latencies.last.add(now - sent);
                        }
                    }
                }
                while due.front().is_some_and(|(_, missing)| *missing == 0) {
                    due.pop_front();
                }
            })?;
        }
        Ok(())
    }

    /// Has the talker send; gives the time at which it has to be asked again, if nothing arrives.
    fn say_what_is_due(&mut self) -> Instant {
        let members = self.fleet.connections().len() as u64;
        let now = Instant::now();
        match self.pace {
            Pace::Window(most_due) => {
                while self.due_total + members <= most_due && self.say(Instant::now()) {}
                now + Duration::from_secs(1)
            }
            Pace::Times { mut next, apart } => {
                while next <= now {
                    self.say(next);
                    next += apart;
                }
                self.pace = Pace::Times { next, apart };
                next.checked_sub(TOO_NEAR_TO_SLEEP).unwrap_or(now)
            }
        }
    }

    /// Has the talker send one more message, which counts from `time` on; false when no open
    /// connection is left to receive it.
    fn say(&mut self, time: Instant) -> bool {
        let mut hearers = 0;
        for one in self.fleet.connections() {
            hearers += u64::from(one.expect_one(time));
        }
        if hearers > 0 {
            self.due.push_back((time, hearers));
            self.due_total += hearers;
        }
        self.fleet.flush(TALKER);
        hearers > 0
    }
}

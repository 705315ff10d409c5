//! The fan-out measurement: one client sends, the server sends its message to all members of the
//! room.

use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::echo::{Options, Outcome};
use crate::fleet::{Fleet, Target};
use crate::histogram::Histogram;
use crate::script::Script;
use crate::usage::Usage;

/// The connection that talks; a member like the others.
const TALKER: u32 = 0;
/// Time for the last member's view to enter its name after the handshake. It is not checked: a
/// member that is not in the list by then misses messages, and those count as lost.
const ENTERING: Duration = Duration::from_millis(500);

/// Opens `options.connections` members, has the first of them talk, measures, closes. The latencies
/// are those of all deliveries. The next message leaves when less than `options.in_flight` times
/// the number of members is under way.
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

    let mut room = Room {
        fleet,
        most_due: options.in_flight * u64::from(options.connections),
        due: 0,
    };
    let mut latency = Histogram::default();
    let mut discarded = Histogram::default();
    room.talk(Instant::now() + options.warm_up, &mut discarded)?;
    let before = Usage::read(&options.watch)?;
    room.talk(before.at + options.duration, &mut latency)?;
    let after = Usage::read(&options.watch)?;

    Outcome::of(room.fleet, options.drain, open_s, latency, (before, after))
}

struct Room {
    fleet: Fleet,
    /// Deliveries that may be under way.
    most_due: u64,
    /// Deliveries that are under way.
    due: u64,
}

impl Room {
    fn talk(&mut self, until: Instant, latency: &mut Histogram) -> Result<(), String> {
        while Instant::now() < until && !self.fleet.is_over() {
            let members = self.fleet.connections().len() as u64;
            while self.due + members <= self.most_due && self.say() {}
            let due = &mut self.due;
            self.fleet.turn(until, |_, shared| {
                let now = Instant::now();
                for sent in shared.arrivals.drain(..) {
                    latency.add(now - sent);
                    *due = due.saturating_sub(1);
                }
            })?;
        }
        Ok(())
    }

    /// Has the talker send one more message; false when no open connection is left to receive it.
    fn say(&mut self) -> bool {
        let now = Instant::now();
        let mut hearers = 0;
        for one in self.fleet.connections() {
            hearers += u64::from(one.expect_one(now));
        }
        self.due += hearers;
        self.fleet.flush(TALKER);
        hearers > 0
    }
}

//! The echo measurement: how many messages come back right in a second, and how soon.

use std::time::{Duration, Instant};

use crate::fleet::{Fleet, Target};
use crate::histogram::Histogram;
use crate::judge::Tally;
use crate::script::Script;
use crate::usage::{Usage, Watch};

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// Connections, all opened before the first message is sent.
    pub connections: u32,
    /// Messages each connection keeps under way.
    pub in_flight: u64,
    /// Time before measuring begins.
    pub warm_up: Duration,
    /// Length of the measuring window.
    pub duration: Duration,
    /// Silence after which an outstanding answer counts as lost.
    pub drain: Duration,
    /// Time for all handshakes together.
    pub open_timeout: Duration,
    /// Whose CPU to watch.
    pub watch: Watch,
}

/// What was measured. Figures are those of the window; errors those of the whole run.
#[derive(Debug)]
pub struct Outcome {
    /// Time that opening all connections took.
    pub open_s: f64,
    /// Latencies of the right answers that came within the window.
    pub latency: Histogram,
    /// Clocks at the beginning of the window.
    pub before: Usage,
    /// Clocks at the end of the window.
    pub after: Usage,
    /// What went wrong.
    pub tally: Tally,
    /// The first error, in words.
    pub first_error: Option<String>,
    /// Connections whose closing the server confirmed.
    pub closed_cleanly: u64,
}

/// Opens the connections, keeps the messages going, measures, closes.
///
/// # Errors
/// When no measurement could be made: no connection, no epoll, a watched process gone.
pub fn run(target: &Target, script: Script, options: &Options) -> Result<Outcome, String> {
    let mut fleet = Fleet::new(script)?;
    let opening = Instant::now();
    fleet.open(target, options.connections, options.open_timeout)?;
    let open_s = opening.elapsed().as_secs_f64();

    let mut latency = Histogram::default();
    let mut discarded = Histogram::default();
    let warm = Instant::now() + options.warm_up;
    fleet.start(options.in_flight);
    keep_going(&mut fleet, options.in_flight, warm, &mut discarded)?;
    let before = Usage::read(&options.watch)?;
    let end = before.at + options.duration;
    keep_going(&mut fleet, options.in_flight, end, &mut latency)?;
    let after = Usage::read(&options.watch)?;

    fleet.drain(options.drain)?;
    fleet.close()?;
    let shared = fleet.shared;
    Ok(Outcome {
        open_s,
        latency,
        before,
        after,
        tally: shared.tally,
        first_error: shared.first_error,
        closed_cleanly: shared.closed_cleanly,
    })
}

fn keep_going(
    fleet: &mut Fleet,
    in_flight: u64,
    until: Instant,
    latency: &mut Histogram,
) -> Result<(), String> {
    while Instant::now() < until && !fleet.is_over() {
        fleet.turn(until, |one, shared| {
            let now = Instant::now();
            for sent in shared.arrivals.drain(..) {
                latency.add(now - sent);
            }
            one.top_up(in_flight, now);
        })?;
    }
    Ok(())
}

//! The echo measurement: how many messages come back right in a second, and how soon.

use std::time::{Duration, Instant};

use crate::fleet::{Fleet, Target};
use crate::histogram::Histogram;
use crate::judge::Tally;
use crate::script::Script;
use crate::stopped::{self, StoppedReaders};
use crate::usage::{Usage, Watch};

/// Steps in which a window that holds too little is lengthened.
pub(crate) const LENGTHENING: Duration = Duration::from_millis(100);

/// The options of a measurement.
#[derive(Clone, Debug)]
pub struct Options {
    /// Connections, all opened before the first message is sent.
    pub connections: u32,
    /// Messages each connection keeps under way.
    pub in_flight: u64,
    /// Messages a second, at fixed times, whatever is under way (see [`crate::chat`]).
    pub rate: Option<f64>,
    /// Time before measuring begins.
    pub warm_up: Duration,
    /// Length of the measuring window.
    pub duration: Duration,
    /// Right answers below which the window is lengthened, for servers that are slow at this.
    pub at_least: u64,
    /// Length that the window then has at most.
    pub longest: Duration,
    /// Further connections whose answers are not read meanwhile (see [`crate::stopped`]).
    pub stopped: u32,
    /// Silence after which an outstanding answer counts as lost.
    pub drain: Duration,
    /// Time for all handshakes together.
    pub open_timeout: Duration,
    /// Whose CPU to watch.
    pub watch: Watch,
}

/// The results. Figures are those of the window; errors those of the whole run.
#[derive(Debug)]
pub struct Outcome {
    /// Time that opening all connections took.
    pub open_s: f64,
    /// Latencies of the right answers that came within the window.
    pub latency: Histogram,
    /// Latencies of the last delivery of each message of a chat.
    pub last: Option<Histogram>,
    /// Clocks at the beginning of the window.
    pub before: Usage,
    /// Clocks at the end of the window.
    pub after: Usage,
    /// The errors by kind.
    pub tally: Tally,
    /// The first error, in words.
    pub first_error: Option<String>,
    /// Connections whose closing the server confirmed.
    pub closed_cleanly: u64,
    /// How the stopped readers fared, where there were some.
    pub stopped: Option<stopped::Fate>,
}

impl Outcome {
    /// Closes a fleet after its measurement, between two looks at the clocks.
    ///
    /// # Errors
    /// When the connections cannot be waited for any more.
    pub(crate) fn of(
        mut fleet: Fleet,
        drain: Duration,
        open_s: f64,
        latency: Histogram,
        (before, after): (Usage, Usage),
    ) -> Result<Self, String> {
        fleet.drain(drain)?;
        fleet.close()?;
        let shared = fleet.shared;
        Ok(Self {
            open_s,
            latency,
            last: None,
            before,
            after,
            tally: shared.tally,
            first_error: shared.first_error,
            closed_cleanly: shared.closed_cleanly,
            stopped: None,
        })
    }
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

    let stopped = match options.stopped {
        0 => None,
        count => Some(StoppedReaders::open(target, count, options.open_timeout)?),
    };

    let mut latency = Histogram::default();
    let mut discarded = Histogram::default();
    let warm = Instant::now() + options.warm_up;
    fleet.start(options.in_flight);
    keep_going(&mut fleet, options.in_flight, warm, &mut discarded)?;
    let before = Usage::read(&options.watch)?;
    let end = before.at + options.duration;
    keep_going(&mut fleet, options.in_flight, end, &mut latency)?;
    let last = before.at + options.longest;
    while latency.total() < options.at_least && Instant::now() < last && !fleet.is_over() {
        let a_while = Instant::now() + LENGTHENING;
        keep_going(&mut fleet, options.in_flight, a_while, &mut latency)?;
    }
    let after = Usage::read(&options.watch)?;

    let mut outcome = Outcome::of(fleet, options.drain, open_s, latency, (before, after))?;
    if let Some(stopped) = stopped {
        let fate = stopped.read_on(options.drain)?;
        outcome.tally.add(&fate.tally);
        outcome.first_error = outcome.first_error.or_else(|| fate.first_error.clone());
        outcome.stopped = Some(fate);
    }
    Ok(outcome)
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

//! The connect measurement: how many handshakes a second.
//!
//! Connections are opened in rounds, some at once. At the end of a round each sends one message and
//! closes, off the clock: so a handshake counts only if there was a view behind it.

use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::fleet::{Fleet, Target};
use crate::frame::Opcode;
use crate::judge::Tally;
use crate::script::Script;
use crate::usage::{Usage, Watch};

/// Payload bytes of the one message.
const SIZE: usize = 32;
/// Time for the server to be done with the last round.
const PAUSE: Duration = Duration::from_millis(200);

/// The options of a measurement.
#[derive(Clone, Debug)]
pub struct Options {
    /// Connections of one round.
    pub connections: u32,
    /// Least time of all rounds together, on the clock.
    pub duration: Duration,
    /// Silence after which an outstanding answer counts as lost.
    pub drain: Duration,
    /// Time for the handshakes of one round together.
    pub open_timeout: Duration,
    /// Whose CPU to watch.
    pub watch: Watch,
}

/// The results.
#[derive(Debug)]
pub struct Outcome {
    /// Handshakes on the clock.
    pub opened: u64,
    /// Clocks at the beginning.
    pub before: Usage,
    /// The same and all that passed while connections were being opened.
    pub after: Usage,
    /// The errors by kind.
    pub tally: Tally,
    /// The first error, in words.
    pub first_error: Option<String>,
    /// Connections whose closing the server confirmed.
    pub closed_cleanly: u64,
}

/// Opens and closes connections until enough time has passed. The first round does not count.
///
/// # Errors
/// When a handshake fails, or there is no epoll, or a watched process is gone.
pub fn run(target: &Target, options: &Options) -> Result<Outcome, String> {
    let before = Usage::zero(Instant::now());
    let mut outcome = Outcome {
        opened: 0,
        before,
        after: before,
        tally: Tally::default(),
        first_error: None,
        closed_cleanly: 0,
    };
    round(target, options, &mut outcome)?;
    outcome.opened = 0;
    outcome.after = before;
    while outcome.after.at - before.at < options.duration {
        sleep(PAUSE);
        round(target, options, &mut outcome)?;
    }
    Ok(outcome)
}

fn round(target: &Target, options: &Options, outcome: &mut Outcome) -> Result<(), String> {
    let mut fleet = Fleet::new(Script::new(Opcode::Text, SIZE)?)?;
    let before = Usage::read(&options.watch)?;
    fleet.open(target, options.connections, options.open_timeout)?;
    let after = Usage::read(&options.watch)?;
    outcome.after.add_span(&before, &after);
    outcome.opened += u64::from(options.connections);
    fleet.start(1);
    fleet.drain(options.drain)?;
    fleet.close()?;
    let shared = fleet.shared;
    outcome.tally.add(&shared.tally);
    outcome.closed_cleanly += shared.closed_cleanly;
    if outcome.first_error.is_none() {
        outcome.first_error = shared.first_error;
    }
    Ok(())
}

//! Many connections that do nothing, held while another process measures the server's memory.
//!
//! Commands come as lines on standard input: `echo SIZE` sends one message of that size on every
//! connection and waits for the answers, `close` (or the end of the input) closes all. One line of
//! JSON on standard output reports what has been done.

use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Interest, Token};

use crate::fleet::{Fleet, Target};
use crate::judge::Tally;
use crate::script::Script;

const STDIN: Token = Token(usize::MAX - 1);
/// How long one turn of the loop may sleep when there is nothing to do.
const A_WHILE: Duration = Duration::from_secs(3600);
/// Connections that echo at once, so that large messages do not fill the server's memory together.
const ECHO_AT_ONCE: usize = 50;

/// The options of the connections.
#[derive(Clone, Debug)]
pub struct Options {
    /// Connections to hold.
    pub connections: u32,
    /// Silence after which an outstanding answer counts as lost.
    pub drain: Duration,
    /// Time for all handshakes together.
    pub open_timeout: Duration,
}

/// Opens the connections and obeys the commands until `close`; gives the errors.
///
/// # Errors
/// When the connections cannot be opened, a command is unknown, or standard input is a plain file.
pub fn run(
    target: &Target,
    script: Script,
    options: &Options,
) -> Result<(Tally, Option<String>), String> {
    let mut fleet = Fleet::new(script)?;
    let opening = Instant::now();
    fleet.open(target, options.connections, options.open_timeout)?;
    let seconds = opening.elapsed().as_secs_f64();
    let count = options.connections;
    say(&format!(
        r#"{{"event": "ready", "connections": {count}, "seconds": {seconds:.3}, "handshakes_per_s": {:.1}}}"#,
        f64::from(count) / seconds
    ))?;
    let input = io::stdin();
    fleet
        .registry()
        .register(&mut SourceFd(&input.as_raw_fd()), STDIN, Interest::READABLE)
        .map_err(|error| format!("standard input must be a pipe or a terminal: {error}"))?;
    let mut typed = Vec::new();
    loop {
        let others = fleet.turn(Instant::now() + A_WHILE, |_, _| {})?;
        if !others.contains(&STDIN) {
            continue;
        }
        let mut bytes = [0; 4096];
        let count = input
            .lock()
            .read(&mut bytes)
            .map_err(|error| format!("standard input: {error}"))?;
        typed.extend_from_slice(&bytes[..count]);
        while let Some(end) = typed.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = typed.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            match line.split_whitespace().collect::<Vec<_>>()[..] {
                ["echo", size] => echo_once(&mut fleet, size, options.drain)?,
                ["close"] => return close(fleet),
                _ => {
                    return Err(format!(
                        "unknown command {:?}; known: echo SIZE, close",
                        line.trim()
                    ));
                }
            }
        }
        if count == 0 {
            return close(fleet);
        }
    }
}

fn echo_once(fleet: &mut Fleet, size: &str, quiet: Duration) -> Result<(), String> {
    let size = size
        .parse()
        .map_err(|_| format!("{size:?} is no number of bytes"))?;
    fleet.shared.script = Script::new(fleet.shared.script.kind(), size)?;
    for one in fleet.connections() {
        one.change_script();
    }
    for first in (0..fleet.connections().len()).step_by(ECHO_AT_ONCE) {
        fleet.start_some(first..first + ECHO_AT_ONCE, 1);
        fleet.drain(quiet)?;
    }
    say(&format!(
        r#"{{"event": "echoed", "size": {size}, "missing": {}}}"#,
        fleet.missing()
    ))
}

fn close(mut fleet: Fleet) -> Result<(Tally, Option<String>), String> {
    fleet.close()?;
    Ok((fleet.shared.tally, fleet.shared.first_error))
}

fn say(line: &str) -> Result<(), String> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")
        .and_then(|()| out.flush())
        .map_err(|error| format!("standard output: {error}"))
}

//! Clients that ask for answers and do not read them, and what becomes of those answers.
//!
//! Each has small buffers and sends until nothing fits any more: then its echoes fill the
//! buffers on the way back and the server has to wait, to store, or to let go. Afterwards they all
//! read on, and every byte is compared as anywhere else.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::connection::{Connection, Phase};
use crate::fleet::{Fleet, Target};
use crate::frame::Opcode;
use crate::judge::Tally;
use crate::script::Script;

/// Payload bytes of each of their messages.
const SIZE: usize = 4096;
const BUFFER: usize = 64 * 1024;
/// Messages beyond those that the kernel may hold.
const MORE: u64 = 1024;
/// Connections are stuck when the server takes nothing more for so long.
const NO_PROGRESS: Duration = Duration::from_millis(400);
const STEP: Duration = Duration::from_millis(20);
const FILL_TIMEOUT: Duration = Duration::from_secs(20);

/// Connections that are not read from.
#[derive(Debug)]
pub struct StoppedReaders {
    fleet: Fleet,
    stuck: usize,
}

/// The outcome for these connections.
#[derive(Debug)]
pub struct Fate {
    /// Connections whose messages the server did not take all while they did not read.
    pub stuck: usize,
    /// Connections that the server ended before we did, which it may do.
    pub cut_off: usize,
    /// All other errors, once they read again.
    pub tally: Tally,
    /// The first error, in words.
    pub first_error: Option<String>,
}

impl StoppedReaders {
    /// Opens `count` of them and has them send until nothing moves.
    ///
    /// # Errors
    /// As [`Fleet::open`], and when the limits of the kernel's buffers cannot be read.
    pub fn open(target: &Target, count: u32, timeout: Duration) -> Result<Self, String> {
        let mut fleet = Fleet::new(Script::new(Opcode::Text, SIZE)?)?;
        fleet.set_buffers(BUFFER);
        fleet.open(target, count, timeout)?;
        let messages = messages()?;
        fleet.start(messages);
        let give_up = Instant::now() + FILL_TIMEOUT;
        let (mut moved, mut written) = (Instant::now(), 0);
        while moved.elapsed() < NO_PROGRESS && Instant::now() < give_up {
            sleep(STEP);
            fleet.start(messages);
            let now = fleet.connections().iter().map(Connection::written).sum();
            if now > written {
                (moved, written) = (Instant::now(), now);
            }
        }
        let stuck = fleet.stuck();
        Ok(Self { fleet, stuck })
    }

    /// Reads and compares all that comes, until nothing has come for `quiet`; closes.
    ///
    /// # Errors
    /// Those of epoll.
    pub fn read_on(self, quiet: Duration) -> Result<Fate, String> {
        let Self { mut fleet, stuck } = self;
        fleet.drain(quiet)?;
        // Messages that a server drops together with their connection do not count as lost.
        let (ended, alive): (Vec<&Connection>, Vec<&Connection>) = fleet
            .connections()
            .iter()
            .partition(|one| matches!(one.phase(), Phase::Ended));
        let (cut_off, lost) = (ended.len(), alive.iter().map(|one| one.missing()).sum());
        fleet.close()?;
        let shared = fleet.shared;
        let tally = Tally {
            lost,
            disconnected: 0,
            ..shared.tally
        };
        let first_error = shared.first_error.filter(|_| tally.total() > 0);
        Ok(Fate {
            stuck,
            cut_off,
            tally,
            first_error,
        })
    }
}

/// Messages that each may send: more than the kernel's buffers on both ways hold together, however
/// far it lets them grow, and little more, for the sake of a server that stores what is not read.
fn messages() -> Result<u64, String> {
    let held = longest_buffer("tcp_rmem")? + longest_buffer("tcp_wmem")? + 4 * BUFFER as u64;
    Ok(held.div_ceil(SIZE as u64) + MORE)
}

/// The third number of such a setting: bytes up to which the kernel enlarges a buffer (tcp(7)).
fn longest_buffer(setting: &str) -> Result<u64, String> {
    let path = format!("/proc/sys/net/ipv4/{setting}");
    let limits = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    let longest = limits.split_whitespace().nth(2);
    longest
        .and_then(|bytes| bytes.parse().ok())
        .ok_or_else(|| format!("{path}: {limits:?} are not three numbers"))
}

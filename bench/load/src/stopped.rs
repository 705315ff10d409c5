//! Clients that ask for answers and do not read them, and what becomes of those answers.
//!
//! Each has small buffers and sends until nothing fits any more: then its echoes fill the
//! buffers on the way back and the server has to wait, to store, or to let go. Afterwards they all
//! read on, and every byte is compared as anywhere else.

use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::connection::{Connection, Phase};
use crate::fleet::{Fleet, Target};
use crate::frame::Opcode;
use crate::judge::Tally;
use crate::script::Script;

/// Payload bytes of each of their messages.
const SIZE: usize = 4096;
/// Messages each may send: more than the kernel's buffers hold together, yet no harm to a server
/// that stores what is not read.
const MESSAGES: u64 = 4096;
const BUFFER: usize = 64 * 1024;
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
    /// As [`Fleet::open`].
    pub fn open(target: &Target, count: u32, timeout: Duration) -> Result<Self, String> {
        let mut fleet = Fleet::new(Script::new(Opcode::Text, SIZE)?)?;
        fleet.set_buffers(BUFFER);
        fleet.open(target, count, timeout)?;
        fleet.start(MESSAGES);
        let give_up = Instant::now() + FILL_TIMEOUT;
        let (mut moved, mut written) = (Instant::now(), 0);
        while moved.elapsed() < NO_PROGRESS && Instant::now() < give_up {
            sleep(STEP);
            fleet.start(MESSAGES);
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

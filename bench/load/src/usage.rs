//! CPU time of each process, from procfs, read at the very ends of the measuring window.

use std::fs;
use std::time::Instant;

/// Clock ticks in a second in procfs; fixed in the Linux user interface.
const TICKS_PER_S: f64 = 100.0;

/// The processes and the core to watch.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    /// Every process of the server.
    pub server_pids: Vec<u32>,
    /// The core the server is pinned to.
    pub server_core: Option<u32>,
}

/// CPU seconds since some fixed time.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// When this was read.
    pub at: Instant,
    /// CPU used by this thread.
    pub own_s: f64,
    /// Time this thread was ready to run but had to wait for the core.
    pub own_wait_s: f64,
    /// CPU used by the server's processes, user and system.
    pub server_s: f64,
    /// Time the server's core was busy, for any process.
    pub core_s: f64,
}

impl Usage {
    /// Reads all the clocks now.
    ///
    /// # Errors
    /// When a watched process is gone or procfs lacks a file.
    pub fn read(watch: &Watch) -> Result<Self, String> {
        let (own_s, own_wait_s) = own()?;
        let mut server_s = 0.0;
        for pid in &watch.server_pids {
            server_s += process(*pid)?;
        }
        let core_s = watch.server_core.map_or(Ok(0.0), core)?;
        Ok(Self {
            at: Instant::now(),
            own_s,
            own_wait_s,
            server_s,
            core_s,
        })
    }

    /// The first reading of all clocks, to be added to by [`Self::add_span`].
    pub fn zero(at: Instant) -> Self {
        Self {
            at,
            own_s: 0.0,
            own_wait_s: 0.0,
            server_s: 0.0,
            core_s: 0.0,
        }
    }

    /// Adds what passed between two readings.
    pub fn add_span(&mut self, before: &Self, after: &Self) {
        self.at += after.at - before.at;
        self.own_s += after.own_s - before.own_s;
        self.own_wait_s += after.own_wait_s - before.own_wait_s;
        self.server_s += after.server_s - before.server_s;
        self.core_s += after.core_s - before.core_s;
    }

    /// Seconds from `earlier` to this reading.
    pub fn seconds_since(&self, earlier: &Self) -> f64 {
        (self.at - earlier.at).as_secs_f64()
    }
}

fn read(path: &str) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("cannot read {path}: {error}"))
}

/// Running and waiting time of this thread. `schedstat` counts nanoseconds, `stat` only ticks.
fn own() -> Result<(f64, f64), String> {
    let text = read("/proc/thread-self/schedstat")?;
    let mut numbers = text
        .split_whitespace()
        .filter_map(|word| word.parse::<f64>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(run), Some(wait)) => Ok((run / 1e9, wait / 1e9)),
        _ => Err(format!("/proc/thread-self/schedstat holds {text:?}")),
    }
}

fn process(pid: u32) -> Result<f64, String> {
    let text = read(&format!("/proc/{pid}/stat"))?;
    // The name in brackets may hold blanks; user and system time are fields 14 and 15 (proc(5)).
    let fields = text.rsplit_once(')').map_or("", |(_, fields)| fields);
    let ticks = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|word| word.parse::<f64>().ok());
    Ok(ticks.sum::<f64>() / TICKS_PER_S)
}

fn core(number: u32) -> Result<f64, String> {
    let text = read("/proc/stat")?;
    let name = format!("cpu{number}");
    let line = text
        .lines()
        .find(|line| line.split_whitespace().next() == Some(&name))
        .ok_or_else(|| format!("this machine has no core {number}"))?;
    let ticks: Vec<f64> = line
        .split_whitespace()
        .skip(1)
        .filter_map(|word| word.parse().ok())
        .collect();
    // user, nice, system, (idle, iowait,) irq, softirq, steal
    Ok([0, 1, 2, 5, 6, 7]
        .iter()
        .filter_map(|index| ticks.get(*index))
        .sum::<f64>()
        / TICKS_PER_S)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_shows_as_cpu_time() {
        let watch = Watch {
            server_pids: vec![std::process::id()],
            server_core: Some(0),
        };
        let before = Usage::read(&watch).unwrap();
        let mut value = 0;
        let after = loop {
            value = crate::script::mix(value);
            if value % 4096 == 0 {
                let now = Usage::read(&watch).unwrap();
                if now.own_s - before.own_s > 0.05 {
                    break now;
                }
            }
        };
        assert!(after.server_s > before.server_s);
        assert!(after.seconds_since(&before) > 0.04);
    }

    #[test]
    fn a_process_that_is_gone_is_an_error() {
        let watch = Watch {
            server_pids: vec![u32::MAX],
            server_core: None,
        };
        assert!(
            Usage::read(&watch)
                .unwrap_err()
                .contains("/proc/4294967295/stat")
        );
    }
}

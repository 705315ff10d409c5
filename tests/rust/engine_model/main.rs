//! The engine against a model: random interleavings of frames, sends, slow reads, closes, resets and
//! steps of the clock, on several connections at once.
//!
//! The model knows three things: what was sent in is taken in order, once, and whole unless the
//! connection was cut; what was sent out arrives in the order of its sender, once, and whole unless
//! the connection was cut; each thread comes back, and nothing is left afterwards.
//!
//! `RACE_SECONDS` says how long it runs, `RACE_SEED` where it begins. A failure
//! names its seed. Threads take turns as the system likes, so a seed gives the same plans and not
//! always the same order.

#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a helper that fails is a test that fails"
)]

mod client;
mod plan;
mod round;
#[path = "../engine/support/mod.rs"]
mod support;
mod view;

use std::{
    io::Write,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

/// No round takes this long, on a busy machine either, unless a thread sleeps for ever.
const ROUND_LIMIT: Duration = Duration::from_secs(180);

fn number_from(variable: &str) -> Option<u64> {
    std::env::var(variable)
        .ok()
        .map(|value| value.parse().unwrap())
}

#[test]
fn random_rounds_agree_with_the_model() {
    let time = Duration::from_secs(number_from("RACE_SECONDS").unwrap_or(1));
    let first = number_from("RACE_SEED").unwrap_or_else(|| {
        let since = std::time::UNIX_EPOCH.elapsed().unwrap();
        u64::from(since.subsec_nanos()) << 20
    });
    let start = Instant::now();
    let mut seed = first;
    while seed == first || start.elapsed() < time {
        let (done, is_done) = mpsc::channel::<()>();
        let round = thread::spawn(move || {
            // Dropped by a panic, too.
            let _done = done;
            round::play(seed);
        });
        let waited = is_done.recv_timeout(ROUND_LIMIT);
        assert_ne!(
            waited,
            Err(mpsc::RecvTimeoutError::Timeout),
            "seed {seed}: a thread did not come back"
        );
        assert!(round.join().is_ok(), "seed {seed}");
        seed += 1;
    }
    let rounds = seed - first;
    writeln!(std::io::stderr(), "{rounds} rounds from seed {first}").unwrap();
}

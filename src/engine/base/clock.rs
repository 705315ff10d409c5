//! The engine's time. It runs as the system's does, but tests can step it ahead.
//!
//! All moments of the engine are those of [`now`]. Code that sleeps asks [`real`] for the moment to
//! wake up at, and once more after each step ([`Engine::step`](crate::engine::Engine::step)).

use std::{
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use tokio::{
    sync::Notify,
    time::{self, sleep_until as sleep_until_real},
};

static FIRST: LazyLock<Instant> = LazyLock::new(Instant::now);
static AHEAD_NANOS: AtomicU64 = AtomicU64::new(0);
static STEPPED: Notify = Notify::const_new();

/// How far the engine's time is ahead of the real one. Zero except in tests.
pub fn ahead() -> Duration {
    Duration::from_nanos(AHEAD_NANOS.load(Ordering::Relaxed))
}

/// This moment.
pub fn now() -> Instant {
    task_now().into_std()
}

/// This moment in seconds since the first one that this process has asked for.
pub fn now_seconds() -> f64 {
    let first = *FIRST;
    now().saturating_duration_since(first).as_secs_f64()
}

/// This moment in milliseconds since 1970, which machines have in common as far as their clocks agree.
pub(crate) fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    millis(since.unwrap_or_default() + ahead())
}

/// A time in milliseconds, as far as a number holds them.
pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// This moment, on the clock of tasks.
pub(crate) fn task_now() -> time::Instant {
    time::Instant::now() + ahead()
}

/// The moment of the system's clock at which `moment`, of the engine's time, comes.
pub(crate) fn real(moment: Instant) -> Instant {
    let ahead = ahead();
    if ahead.is_zero() {
        return moment;
    }
    // A moment before the first one of the system's clock is over anyway.
    moment.checked_sub(ahead).unwrap_or_else(Instant::now)
}

/// Lets the task sleep until `moment`, steps included.
pub(crate) async fn sleep_until(moment: time::Instant) {
    loop {
        let stepped = STEPPED.notified();
        let until = time::Instant::from_std(real(moment.into_std()));
        tokio::select! {
            () = sleep_until_real(until) => return,
            () = stepped => {}
        }
    }
}

/// Makes all moments come `time` sooner. Wakes only [`sleep_until`]; other sleepers have to be
/// woken.
pub fn step(time: Duration) {
    let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    AHEAD_NANOS.fetch_add(nanos, Ordering::Relaxed);
    STEPPED.notify_waiters();
}

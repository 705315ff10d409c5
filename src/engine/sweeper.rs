//! Giving back what large messages leave behind.
//!
//! The buffers of large messages are freed soon, by the engine and by the views, but C's library
//! keeps them: a later connection may want as much. On a server whose clients have sent one large
//! message each, and are quiet since, that is most of what it holds. So once a thread of the engine
//! has had no large message for a while, it has the library give free memory back to the system.
//!
//! A view's variable holds its last message until the next one comes: that, too, is an occasion.

use std::{cell::Cell, time::Duration};

use tokio::{runtime::Handle, time::sleep};

use super::driver;

/// How long there has to be no occasion.
const QUIET: Duration = Duration::from_secs(1);
/// The least time between two sweeps: each looks through all free memory of the process.
const PAUSE: Duration = Duration::from_secs(4);

thread_local! {
    static DUTY: Cell<Duty> = const { Cell::new(Duty::Off) };
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Duty {
    /// Nothing to do.
    Off,
    /// A sweep will come.
    Waiting,
    /// It will come later: there was another occasion.
    Disturbed,
}

/// Notes an occasion; to be called on a thread of the engine.
pub(super) fn expect_sweep() {
    if DUTY.replace(Duty::Disturbed) == Duty::Off {
        Handle::current().spawn(walk());
    }
}

async fn walk() {
    while DUTY.get() == Duty::Disturbed {
        while DUTY.replace(Duty::Waiting) == Duty::Disturbed {
            sleep(QUIET).await;
        }
        driver::drop_scratch();
        trim();
        sleep(PAUSE).await;
    }
    DUTY.set(Duty::Off);
}

/// Has the library give back whole pages that are free, wherever they lie.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn trim() {
    #[expect(unsafe_code, reason = "a function of the C library")]
    // SAFETY: it may be called at any time from any thread, and touches only what is free.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Other libraries give back by themselves, or cannot be asked.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn trim() {}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    async fn pass(time: Duration) {
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
        advance(time).await;
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_sweep_waits_for_quiet_and_the_next_one_for_its_turn() {
        expect_sweep();
        pass(QUIET / 2).await;
        expect_sweep();
        pass(QUIET / 2).await;
        // Disturbed meanwhile: once more.
        assert!(DUTY.get() == Duty::Waiting);
        pass(QUIET).await;
        expect_sweep();
        pass(PAUSE / 2).await;
        assert!(DUTY.get() == Duty::Disturbed);
        pass(PAUSE / 2).await;
        assert!(DUTY.get() == Duty::Waiting);
        pass(QUIET).await;
        pass(PAUSE).await;
        assert!(DUTY.get() == Duty::Off);
    }
}

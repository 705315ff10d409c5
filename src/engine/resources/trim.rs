//! Giving back the memory that large messages leave behind.
//!
//! The buffers of large messages are freed soon, by the engine and by the views, but C's library
//! keeps them: a later connection may want as much. On a server whose clients have sent one large
//! message each, and are quiet since, that is most of what it holds. So once a thread of the engine
//! has had no large message for a while, it has the library give free memory back to the system.
//!
//! A view's variable holds its last message until the next one comes: that, too, is an occasion.

use std::{cell::Cell, fs, time::Duration};

use tokio::{runtime::Handle, time::sleep};

use super::read_buffer;
use crate::engine::base::panics::contain_task;

/// Time without a further occasion before memory is given back.
const QUIET: Duration = Duration::from_secs(1);
/// The least time between two times: each looks through all free memory of the process.
const BETWEEN_TRIMS: Duration = Duration::from_secs(4);

/// Time after which a buffer that is being released is free.
const MOMENT: Duration = Duration::from_millis(10);
/// Where pages are larger, less is found than there is.
const PAGE_BYTES: usize = 4096;

thread_local! {
    static DUTY: Cell<Duty> = const { Cell::new(Duty::Off) };
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Duty {
    /// Nothing to do.
    Off,
    /// Memory will be given back.
    Waiting,
    /// It will come later: there was another occasion.
    Disturbed,
}

/// Notes an occasion; to be called on a thread of the engine.
pub(crate) fn expect_trim() {
    if DUTY.replace(Duty::Disturbed) == Duty::Off {
        Handle::current().spawn(async {
            contain_task(walk()).await;
            // After a panic, too: the next occasion begins anew.
            DUTY.set(Duty::Off);
        });
    }
}

/// Trims in a moment, whatever the occasions, if the process takes `bytes` of memory by then. For
/// when memory is short; any thread may call it.
pub(crate) fn trim_above(bytes: usize, runtime: &Handle) {
    runtime.spawn(async move {
        sleep(MOMENT).await;
        if resident_bytes().is_some_and(|resident| resident >= bytes) {
            trim();
        }
    });
}

/// The memory that the process takes now, where the system tells.
fn resident_bytes() -> Option<usize> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: usize = statm.split(' ').nth(1)?.parse().ok()?;
    pages.checked_mul(PAGE_BYTES)
}

async fn walk() {
    while DUTY.get() == Duty::Disturbed {
        while DUTY.replace(Duty::Waiting) == Duty::Disturbed {
            sleep(QUIET).await;
        }
        read_buffer::drop_scratch();
        trim();
        sleep(BETWEEN_TRIMS).await;
    }
}

/// Larger blocks are the system's again as soon as they are freed, and no more than this stays at
/// the end of each of the library's heaps, of which each thread may have one.
///
/// By default the library keeps up to 64 MiB there, once a block of 32 MiB was freed. Smaller
/// messages are as quick as ever.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const KEPT_BYTES: libc::c_int = 4 * 1024 * 1024;

/// Has the library keep little of large blocks, unless the environment says how much.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(crate) fn keep_little() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    let options = [
        "MALLOC_MMAP_THRESHOLD_",
        "MALLOC_TRIM_THRESHOLD_",
        "GLIBC_TUNABLES",
    ];
    if options
        .into_iter()
        .any(|name| std::env::var_os(name).is_some())
    {
        return;
    }
    ONCE.call_once(|| {
        #[expect(unsafe_code, reason = "a function of the C library")]
        // SAFETY: it may be called at any time from any thread, and takes the library's own lock.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, KEPT_BYTES);
            libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT_BYTES);
        }
    });
}

/// Other libraries have no such options.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn keep_little() {}

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
    async fn a_trim_waits_for_quiet_and_the_next_one_for_its_turn() {
        expect_trim();
        pass(QUIET / 2).await;
        expect_trim();
        pass(QUIET / 2).await;
        // Disturbed meanwhile: once more.
        assert!(DUTY.get() == Duty::Waiting);
        pass(QUIET).await;
        expect_trim();
        pass(BETWEEN_TRIMS / 2).await;
        assert!(DUTY.get() == Duty::Disturbed);
        pass(BETWEEN_TRIMS / 2).await;
        assert!(DUTY.get() == Duty::Waiting);
        pass(QUIET).await;
        pass(BETWEEN_TRIMS).await;
        assert!(DUTY.get() == Duty::Off);
    }
}

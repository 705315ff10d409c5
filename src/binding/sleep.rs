//! How threads of Python sleep in the engine: without the GIL, and the main thread in slices.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use pyo3::prelude::*;

use crate::engine::{self, Connection, clock};

/// The longest time that the main thread sleeps at once.
const SLICE: Duration = Duration::from_millis(50);

/// Sleeps in `sleep` until `find` returns something, until `deadline` at most (`None`: for ever).
///
/// Python runs the handlers of signals on its main thread, and only while that runs Python. So there
/// `sleep` is called again and again, with earlier deadlines, and the handlers run after each sleep.
/// `sleep` takes nothing: what `find` takes would be lost with the exception of a handler.
///
/// # Errors
/// The exception of a handler, such as `KeyboardInterrupt`.
pub(super) fn until<T>(
    py: Python<'_>,
    deadline: Option<Instant>,
    sleep: impl Fn(Option<Instant>),
    find: impl Fn() -> Option<T>,
) -> PyResult<Option<T>> {
    loop {
        if is_main_thread() {
            let slice = clock::now().checked_add(SLICE);
            sleep(deadline.into_iter().chain(slice).min());
            py.check_signals()?;
        } else {
            sleep(deadline);
        }
        let found = find();
        if found.is_some() || deadline.is_some_and(|end| end <= clock::now()) {
            return Ok(found);
        }
    }
}

/// Calls `work`, which may sleep, without the GIL. When it wakes many threads at once, few of them
/// wait for the GIL at a time.
pub(super) fn without_gil<T: Send>(
    py: Python<'_>,
    connection: &Connection,
    work: impl FnOnce() -> T + Send,
) -> T {
    let (result, pass) = py.detach(|| {
        let result = work();
        (result, connection.reenter())
    });
    drop(pass);
    result
}

/// Whether this is the process's main thread. In a forked child that is the thread that has forked.
pub(super) fn is_main_thread() -> bool {
    thread_local! {
        /// The answer, and the number of forks before it.
        static KNOWN: Cell<Option<(u64, bool)>> = const { Cell::new(None) };
    }
    let generation = engine::generation();
    match KNOWN.get() {
        Some((of, is_main)) if of == generation => is_main,
        _ => {
            let is_main = ask_system();
            KNOWN.set(Some((generation, is_main)));
            is_main
        }
    }
}

#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "the standard library does not tell")]
fn ask_system() -> bool {
    // SAFETY: neither call has arguments or can fail.
    unsafe { libc::gettid() == libc::getpid() }
}

#[cfg(all(unix, not(target_os = "linux")))]
#[expect(unsafe_code, reason = "the standard library does not tell")]
fn ask_system() -> bool {
    // SAFETY: the call has no arguments and cannot fail.
    unsafe { libc::pthread_main_np() == 1 }
}

/// Windows does not tell: each thread lets Python look for signals now and then.
#[cfg(windows)]
fn ask_system() -> bool {
    true
}

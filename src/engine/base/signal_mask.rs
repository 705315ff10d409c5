//! Threads that take no signals.

#[cfg(unix)]
use std::{mem::MaybeUninit, ptr};

/// Signals that a thread's own faults send to that thread: their handlers have to run there.
#[cfg(unix)]
const OWN_FAULTS: [libc::c_int; 6] = [
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGILL,
    libc::SIGTRAP,
    libc::SIGABRT,
];

/// While it lives, this thread and those that it starts take no signals: the process's handlers
/// run on its other threads, those of the server, as they would without an engine.
#[cfg(unix)]
pub(crate) struct Blocked(Option<libc::sigset_t>);

/// Windows sends no signals to threads.
#[cfg(not(unix))]
pub(crate) struct Blocked;

#[cfg(not(unix))]
impl Blocked {
    /// Does nothing.
    pub(crate) fn here() -> Self {
        Self
    }
}

#[cfg(unix)]
impl Blocked {
    /// Blocks them on this thread.
    pub(crate) fn here() -> Self {
        let mut all = MaybeUninit::uninit();
        let mut before = MaybeUninit::uninit();
        #[expect(unsafe_code, reason = "only libc knows a thread's mask")]
        // SAFETY: both sets are ours and written by the calls before they are read. A mask may be
        // changed at any time; it is this thread's alone.
        let before = unsafe {
            libc::sigfillset(all.as_mut_ptr());
            for number in OWN_FAULTS {
                libc::sigdelset(all.as_mut_ptr(), number);
            }
            let set = libc::pthread_sigmask(libc::SIG_BLOCK, all.as_ptr(), before.as_mut_ptr());
            (set == 0).then(|| before.assume_init())
        };
        Self(before)
    }
}

#[cfg(unix)]
impl Drop for Blocked {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            #[expect(unsafe_code, reason = "only libc knows a thread's mask")]
            // SAFETY: it is the mask that this thread had.
            unsafe {
                libc::pthread_sigmask(libc::SIG_SETMASK, before, ptr::null_mut());
            }
        }
    }
}

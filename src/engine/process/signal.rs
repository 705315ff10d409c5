//! Watching for SIGTERM beside the server's own handler.

use std::{
    io,
    mem::MaybeUninit,
    process, ptr,
    sync::{
        Arc,
        atomic::{AtomicI32, Ordering},
    },
    thread,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::sleep,
};

use crate::engine::{base::error::Error, runtime::Engine};

/// How long to wait for a thread when the system gives none.
const PAUSE: Duration = Duration::from_millis(20);
/// SIGTERM once it has come, else 0.
static TERMINATED: AtomicI32 = AtomicI32::new(0);

/// Whether SIGTERM has come since [`on_terminate`]. True from the moment of the signal on, so also
/// while the server handles it.
pub fn is_terminated() -> bool {
    TERMINATED.load(Ordering::SeqCst) != 0
}

/// A signal to the parent does not concern its child.
pub(crate) fn after_fork_in_child() {
    TERMINATED.store(0, Ordering::SeqCst);
}

/// Calls `heard` when SIGTERM comes.
///
/// A handler that was there before goes on being called, so a server that handles the signal itself
/// notices nothing. Where the signal had its default action, it no longer kills the process:
/// `heard` has to do that, see [`die`]. `heard` runs on a thread of its own and may wait. A handler
/// that is installed later takes the place of this one. A forked child inherits it, and has to
/// restore the default where that was in force.
///
/// # Errors
/// [`Error::Io`] when the system refuses the handler.
pub fn on_terminate(engine: &Engine, heard: impl FnOnce() + Send + 'static) -> Result<(), Error> {
    note_in(&TERMINATED, libc::SIGTERM).map_err(Error::io("cannot watch for SIGTERM"))?;
    let _context = engine.handle().enter();
    let mut terminate =
        signal(SignalKind::terminate()).map_err(Error::io("cannot watch for SIGTERM"))?;
    engine.handle().spawn(async move {
        if terminate.recv().await.is_none() {
            return;
        }
        // Waiting here would keep the engine from closing its connections. Shared, since a closure
        // is dropped with the thread that could not be started for it.
        let heard = Arc::new(Mutex::new(Some(heard)));
        while !starts(&heard) {
            sleep(PAUSE).await;
        }
    });
    Ok(())
}

/// Has `number` written to `last` as soon as that signal comes. Handlers that were there before go
/// on being called.
///
/// # Errors
/// The system refuses the handler.
pub(super) fn note_in(last: &'static AtomicI32, number: libc::c_int) -> io::Result<()> {
    let note = move || last.store(number, Ordering::SeqCst);
    #[expect(unsafe_code, reason = "`note` runs in the signal handler")]
    // SAFETY: it only stores into an atomic, which a handler may do at any time.
    unsafe { signal_hook_registry::register(number, note) }.map(drop)
}

/// Calls `heard` on a thread of its own; false when the system gives none now.
fn starts(heard: &Arc<Mutex<Option<impl FnOnce() + Send + 'static>>>) -> bool {
    let heard = Arc::clone(heard);
    let call = move || {
        let heard = heard.lock().take();
        if let Some(heard) = heard {
            heard();
        }
    };
    thread::Builder::new().spawn(call).is_ok()
}

/// Whether the signal `number` has a handler, whichever language it is written in.
///
/// # Errors
/// The system's, when there is no such signal.
pub fn is_handled(number: libc::c_int) -> io::Result<bool> {
    let mut action = MaybeUninit::<libc::sigaction>::uninit();
    #[expect(unsafe_code, reason = "only libc knows a signal's action")]
    // SAFETY: without a new action the system only writes the present one to where there is room for
    // it, and it has done so where it reports no error.
    let handler = unsafe {
        if libc::sigaction(number, ptr::null(), action.as_mut_ptr()) == -1 {
            return Err(io::Error::last_os_error());
        }
        action.assume_init().sa_sigaction
    };
    Ok(handler != libc::SIG_DFL && handler != libc::SIG_IGN)
}

/// Ends the process as SIGTERM does by default.
pub fn die() {
    let mut set = MaybeUninit::uninit();
    #[expect(unsafe_code, reason = "only libc knows a signal's action")]
    // SAFETY: the default action and this thread's mask may be set at any time; `sigemptyset`
    // writes the set before it is read.
    unsafe {
        libc::signal(libc::SIGTERM, libc::SIG_DFL);
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGTERM);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, set.as_ptr(), ptr::null_mut());
        libc::raise(libc::SIGTERM);
    }
    // Reached only in a process that the system does not end by this signal, such as the first
    // process of a container.
    process::abort();
}

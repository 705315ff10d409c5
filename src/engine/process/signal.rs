//! Watching for SIGTERM beside the server's own handler.

use std::{
    io,
    mem::MaybeUninit,
    process, ptr,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicI32, AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tokio::{
    signal::unix::{SignalKind, signal},
    time::sleep,
};

use crate::{
    engine::{base::error::Error, resources::socket::answered, runtime::Engine},
    protocol::close::{self, CloseFrame},
};

/// How long to wait for a thread when the system gives none: between two attempts, and at most.
const CHECK_EVERY: Duration = Duration::from_millis(20);
const LONGEST: Duration = Duration::from_secs(2);
/// How long clients may take their close frames where no thread could be had.
const GRACE: Duration = Duration::from_secs(1);
/// Whether SIGTERM had its default action before this.
static WAS_DEFAULT: OnceLock<bool> = OnceLock::new();
/// The process that waits for SIGTERM.
static WATCHER: AtomicU32 = AtomicU32::new(0);
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

/// Calls `heard` when SIGTERM comes; again while it returns false, because it got no thread.
///
/// A handler that was there before goes on being called, so a server that handles the signal itself
/// notices nothing. Where the signal had its default action, it no longer kills the process:
/// `heard` has to do that, see [`die`]. `heard` runs on a thread of its own and may wait. A handler
/// that is installed later takes the place of this one. A forked child inherits it; there it ends the
/// process where the default was in force, which the child should restore. Does nothing where the
/// process ignores the signal.
///
/// Where the system gives no thread for two seconds, all connections are closed, and a process that
/// the signal would have killed by default ends.
///
/// # Errors
/// [`Error::Io`] when the system refuses the handler.
pub fn on_terminate(
    engine: &Arc<Engine>,
    heard: impl Fn() -> bool + Send + Sync + 'static,
) -> Result<(), Error> {
    let action = action_of(libc::SIGTERM).map_err(Error::io("cannot watch for SIGTERM"))?;
    if action.sa_sigaction == libc::SIG_IGN {
        return Ok(());
    }
    WAS_DEFAULT.get_or_init(|| action.sa_sigaction == libc::SIG_DFL);
    WATCHER.store(process::id(), Ordering::SeqCst);
    call_on(libc::SIGTERM, note_or_die).map_err(Error::io("cannot watch for SIGTERM"))?;
    let _context = engine.handle().enter();
    let mut terminate =
        signal(SignalKind::terminate()).map_err(Error::io("cannot watch for SIGTERM"))?;
    let dying = Arc::downgrade(engine);
    engine.handle().spawn(async move {
        if terminate.recv().await.is_none() {
            return;
        }
        let end = Instant::now() + LONGEST;
        let heard = Arc::new(heard);
        while !starts(&heard, end, &dying) {
            if Instant::now() >= end {
                close_all(&dying);
                sleep(GRACE).await;
                die_by_default();
                return;
            }
            sleep(CHECK_EVERY).await;
        }
    });
    Ok(())
}

/// Has `heard` called on a thread of its own; false when the system gives none now. Waiting for it
/// in a task would keep the engine from closing its connections.
fn starts(
    heard: &Arc<impl Fn() -> bool + Send + Sync + 'static>,
    end: Instant,
    engine: &Weak<Engine>,
) -> bool {
    let (heard, engine) = (Arc::clone(heard), Weak::clone(engine));
    let call = move || {
        while !heard() {
            if Instant::now() >= end {
                close_all(&engine);
                thread::sleep(GRACE);
                die_by_default();
                return;
            }
            thread::sleep(CHECK_EVERY);
        }
    };
    thread::Builder::new().spawn(call).is_ok()
}

fn close_all(engine: &Weak<Engine>) {
    if let Some(engine) = engine.upgrade() {
        engine.close_all(&CloseFrame::of(close::GOING_AWAY, ""));
    }
}

fn die_by_default() {
    if WAS_DEFAULT.get() == Some(&true) {
        die();
    }
}

/// Has `number` written to `last` as soon as that signal comes. Handlers that were there before go
/// on being called.
///
/// # Errors
/// The system refuses the handler.
pub(super) fn note_in(last: &'static AtomicI32, number: libc::c_int) -> io::Result<()> {
    call_on(number, move || last.store(number, Ordering::SeqCst))
}

/// In a forked child nothing waits for a signal that is only noted. Its at-fork hooks restore the
/// default, but a signal may come before them.
fn note_or_die() {
    if WATCHER.load(Ordering::SeqCst) == process::id() {
        TERMINATED.store(libc::SIGTERM, Ordering::SeqCst);
    } else {
        die_by_default();
    }
}

/// Has `act` called in the signal handler. It may only do what a handler may: atomic loads and
/// stores, `getpid`, and [`die`].
fn call_on(number: libc::c_int, act: impl Fn() + Send + Sync + 'static) -> io::Result<()> {
    #[expect(unsafe_code, reason = "`act` runs in the signal handler")]
    // SAFETY: as above, which a handler may do at any time: `note_in` and `note_or_die` do no more.
    unsafe { signal_hook_registry::register(number, act) }.map(drop)
}

/// The present action of the signal `number`.
///
/// # Errors
/// The system's, when there is no such signal.
pub(super) fn action_of(number: libc::c_int) -> io::Result<libc::sigaction> {
    let mut action = MaybeUninit::uninit();
    #[expect(unsafe_code, reason = "only libc knows a signal's action")]
    // SAFETY: without a new action the system only writes the present one to where there is room for
    // it, and it has done so where it reports no error.
    unsafe {
        answered(libc::sigaction(number, ptr::null(), action.as_mut_ptr()))?;
        Ok(action.assume_init())
    }
}

/// Whether the signal `number` has its default action: no handler in any language, and the process
/// does not ignore it.
///
/// # Errors
/// As [`action_of`].
pub fn is_default(number: libc::c_int) -> io::Result<bool> {
    Ok(action_of(number)?.sa_sigaction == libc::SIG_DFL)
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

//! Closing the connections of a process that calls `exit` without Python's exit handlers.
//!
//! A server that is written in C may do so from within a signal handler, which has interrupted the
//! main thread anywhere, perhaps where it holds a connection's lock, the allocator's or the
//! interpreter's: then the clients behind that lock can get no close frame any more. So the
//! handlers of such signals are held back. The main thread goes on while a thread of our own closes
//! the connections; then the signal is sent once more, and the server's handler runs.
//!
//! A process may also exit by itself. The function that we register with `atexit` for that waits
//! for no lock and allocates nothing: it writes one byte to a task of the engine, which
//! has a thread close the connections, and sleeps in `read` until that is done or the time is up.

use std::{
    ffi::c_int,
    io::{self, Read},
    os::unix::net::UnixStream,
    process, ptr,
    sync::{
        Arc, Once, OnceLock,
        atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use socket2::SockRef;
use tokio::{
    io::AsyncReadExt,
    signal::unix::{SignalKind, signal},
};

use super::signal::{action_of, note_in};
use crate::{
    engine::{
        base::{error::Error, panics::contain},
        resources::socket::answered,
        runtime::Engine,
    },
    protocol::close::CloseFrame,
};

/// `exit` waits for the closing thread as long as the longest window, the grace, and this.
const MARGIN: Duration = Duration::from_millis(500);

static CHANNEL: Mutex<Option<Channel>> = Mutex::new(None);
static REGISTERED: Once = Once::new();
/// Of the signals that end the process, the last one to arrive.
static SEEN: AtomicI32 = AtomicI32::new(0);
/// The process that holds signals back: 0 for none.
static HOLDER: AtomicU32 = AtomicU32::new(0);
static EXITING: AtomicBool = AtomicBool::new(false);
/// The plans of which something else closes the connections, later in `exit`: by signal, as bits.
static LATER: AtomicU32 = AtomicU32::new(0);
/// The server's handlers of the signals that are held back.
static HELD: OnceLock<Vec<(c_int, libc::sigaction)>> = OnceLock::new();

/// How to close the connections when the process exits for one reason.
#[derive(Clone, Debug)]
pub struct ExitPlan {
    /// The signal that is the reason: 0 when none came.
    pub signal: c_int,
    /// The server's handler of the signal calls `exit`.
    pub handler_calls_exit: bool,
    /// The close frame for the clients.
    pub frame: CloseFrame,
    /// The time over which they are closed.
    pub window: Duration,
    /// The server calls a function of its own in `exit`, which closes them.
    pub closed_later: bool,
}

/// The end of a channel to the thread that closes the connections.
#[derive(Debug)]
struct Channel {
    process: u32,
    stream: UnixStream,
    timeout: Duration,
}

/// Of the signals of [`on_exit`], the last one to arrive; 0 when none did.
pub fn signal_seen() -> c_int {
    SEEN.load(Ordering::SeqCst)
}

/// Forgets a signal that the parent has seen: it was not sent to this child.
pub(crate) fn after_fork_in_child() {
    SEEN.store(0, Ordering::SeqCst);
}

/// Closes all connections when the process exits; it waits `grace` for them after the window.
///
/// The last signal to arrive selects one of `plans`; without a plan for it, the first plan
/// applies. To be called once a process. A forked child inherits the handlers, but its exit
/// does not concern its parent's connections, and no signal of its own is held back.
///
/// # Errors
/// [`Error::Io`] when the system gives no descriptor, or refuses a handler.
pub fn on_exit(engine: &Arc<Engine>, plans: &[ExitPlan], grace: Duration) -> Result<(), Error> {
    let longest = plans.iter().map(|plan| plan.window).max();
    let timeout = grace + longest.unwrap_or_default();
    answer_exit(engine, plans.to_vec(), grace, timeout)
        .map_err(Error::io("cannot watch for the end of the process"))?;
    let later = plans.iter().filter(|plan| plan.closed_later);
    LATER.store(
        later.fold(0, |bits, plan| bits | bit(plan.signal)),
        Ordering::SeqCst,
    );
    watch_signals(engine, plans, grace).map_err(Error::io("cannot watch for signals"))?;
    REGISTERED.call_once(register);
    Ok(())
}

fn answer_exit(
    engine: &Arc<Engine>,
    plans: Vec<ExitPlan>,
    grace: Duration,
    timeout: Duration,
) -> io::Result<()> {
    let timeout = timeout.saturating_add(MARGIN);
    let (stream, other) = channel(timeout)?;
    let mut other = {
        let _context = engine.handle().enter();
        tokio::net::UnixStream::from_std(other)?
    };
    let dying = Arc::downgrade(engine);
    engine.handle().spawn(async move {
        if other.read_u8().await.is_err() {
            return;
        }
        let signal = signal_seen();
        let fitting = plans.iter().find(|plan| plan.signal == signal);
        let (Some(engine), Some(plan)) = (dying.upgrade(), fitting.or(plans.first())) else {
            return;
        };
        // The end of the stream is the answer.
        leave(engine, plan.clone(), grace, move || drop(other));
    });
    *CHANNEL.lock() = Some(Channel {
        process: process::id(),
        stream,
        timeout,
    });
    Ok(())
}

fn watch_signals(engine: &Arc<Engine>, plans: &[ExitPlan], grace: Duration) -> io::Result<()> {
    let (held, seen): (Vec<_>, Vec<_>) = plans
        .iter()
        .filter(|plan| plan.signal != 0)
        .partition(|plan| plan.handler_calls_exit);
    if REGISTERED.is_completed() {
        // A forked child has inherited the handlers. `HOLDER` is not its id, so `hold` passes each
        // signal on.
        return Ok(());
    }
    for plan in seen {
        note_in(&SEEN, plan.signal)?;
    }
    let previous: io::Result<Vec<_>> = held
        .iter()
        .map(|plan| Ok((plan.signal, action_of(plan.signal)?)))
        .collect();
    let _ = HELD.set(previous?);
    HOLDER.store(process::id(), Ordering::SeqCst);
    let _context = engine.handle().enter();
    for plan in held {
        hold_back(plan.signal)?;
        let mut came = signal(SignalKind::from_raw(plan.signal))?;
        let (dying, plan) = (Arc::downgrade(engine), plan.clone());
        engine.handle().spawn(async move {
            let held = HeldSignal;
            // A signal that came before tokio watched for it is not lost either.
            if signal_seen() != plan.signal {
                came.recv().await;
            }
            let Some(engine) = dying.upgrade() else {
                return;
            };
            let number = plan.signal;
            leave(engine, plan, grace, move || {
                // From here on signals reach the server's handler at once. Those that came during the
                // shutdown were only noted; `number` is sent once, below.
                drop(held);
                // Not if `exit` runs already, or the task of another signal has sent its own.
                if !EXITING.swap(true, Ordering::SeqCst) {
                    pass_on(number);
                }
            });
        });
    }
    Ok(())
}

/// Closes all connections on its own thread, and then calls `gone`. To wait for that on the
/// engine's thread would stop the closing itself.
fn leave(
    engine: Arc<Engine>,
    plan: ExitPlan,
    grace: Duration,
    gone: impl FnOnce() + Send + 'static,
) {
    let (fallback_engine, last) = (Arc::clone(&engine), plan.frame.clone());
    // Shared with `work`: a thread that cannot be started drops that with all it holds, and `gone`
    // must be called all the same.
    let gone = Arc::new(Mutex::new(Some(gone)));
    let after = Arc::clone(&gone);
    let work = move || {
        // The process must end, whatever fails.
        contain(|| engine.shut_down_over(&plan.frame, plan.window, grace));
        let gone = after.lock().take();
        if let Some(gone) = gone {
            gone();
        }
    };
    if thread::Builder::new().spawn(work).is_err() {
        // No thread can wait for the connections: begin to close them, and go on at once.
        contain(|| fallback_engine.close_all(&last));
        let gone = gone.lock().take();
        if let Some(gone) = gone {
            gone();
        }
    }
}

fn channel(timeout: Duration) -> io::Result<(UnixStream, UnixStream)> {
    let (ours, other) = UnixStream::pair()?;
    ours.set_read_timeout(Some(timeout))?;
    other.set_nonblocking(true)?;
    Ok((ours, other))
}

fn register() {
    #[expect(
        unsafe_code,
        reason = "only libc's `atexit` is called at an exit that skips Python's handlers"
    )]
    // SAFETY: `close_at_exit` is a function of this library, which Python never unloads, takes no
    // arguments and does not unwind. Were the library gone at exit, the call would jump into
    // nothing.
    let status = unsafe { libc::atexit(close_at_exit) };
    // It fails only without memory: then clients get no close frame at such an exit.
    debug_assert_eq!(status, 0);
}

/// The bit of a signal; none for numbers that a plan does not have.
fn bit(signal: c_int) -> u32 {
    let number = u32::try_from(signal).ok();
    number
        .and_then(|number| 1_u32.checked_shl(number))
        .unwrap_or_default()
}

extern "C" fn close_at_exit() {
    EXITING.store(true, Ordering::SeqCst);
    if LATER.load(Ordering::SeqCst) & bit(signal_seen()) != 0 {
        return;
    }
    // Locked only while the first connection opens: at that moment there are hardly any to close.
    let Some(channel) = CHANNEL.try_lock() else {
        return;
    };
    if let Some(channel) = channel
        .as_ref()
        .filter(|channel| channel.process == process::id())
    {
        // An engine that was shut down has closed its end; that must not raise SIGPIPE.
        let sent = SockRef::from(&channel.stream).send_with_flags(&[0], libc::MSG_NOSIGNAL);
        let end = Instant::now() + channel.timeout;
        // The end of the stream, or the time is up: in both cases there is no more to do. A signal, whose
        // handler returns, ends the read only.
        let is_interrupted = || {
            let read = (&channel.stream).read(&mut [0]);
            read.is_err_and(|error| error.kind() == io::ErrorKind::Interrupted)
        };
        while sent.is_ok() && is_interrupted() && Instant::now() < end {}
    }
}

// --- signals -------------------------------------------------------------------------------------

/// Guards a task that waits for a signal that is held back; when it is dropped, signals pass at once.
struct HeldSignal;

impl Drop for HeldSignal {
    fn drop(&mut self) {
        HOLDER.store(0, Ordering::SeqCst);
    }
}

fn hold_back(number: c_int) -> io::Result<()> {
    #[expect(unsafe_code, reason = "other ways call the server's handler at once")]
    // SAFETY: `hold` is a function of this library, which Python never unloads, has the signature
    // of a handler and does only what a handler may do: atomic loads and stores, `getpid`,
    // `sigaction` and `kill`. Were it to lock or allocate, the interrupted thread could stand
    // still.
    let result = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = hold as extern "C" fn(c_int) as usize;
        // Interrupted system calls are restarted.
        action.sa_flags = libc::SA_RESTART;
        libc::sigaction(number, &raw const action, ptr::null_mut())
    };
    answered(result).map(drop)
}

/// Holds the signal back: only notes it. Tokio's handler, which calls this one, wakes the task that
/// waits for the signal. Passes it on where no such task is.
extern "C" fn hold(number: c_int) {
    if HOLDER.load(Ordering::SeqCst) == process::id() {
        SEEN.store(number, Ordering::SeqCst);
    } else {
        pass_on(number);
    }
}

/// Passes the signal on to the server's own handler.
fn pass_on(number: c_int) {
    let held = HELD
        .get()
        .and_then(|held| held.iter().find(|(signal, _)| *signal == number));
    if let Some((_, action)) = held {
        #[expect(unsafe_code, reason = "the server's handler is known to libc only")]
        // SAFETY: `action` is what `sigaction` gave for this signal, unchanged, and the other
        // arguments are numbers. Were it invented, the signal would jump anywhere.
        unsafe {
            libc::sigaction(number, action, ptr::null_mut());
            libc::kill(libc::getpid(), number);
        }
    }
}

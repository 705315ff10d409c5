//! The end of a process that calls `exit` without letting Python say goodbye.
//!
//! A server that is written in C may do so from within a signal handler, which has interrupted the
//! main thread anywhere, perhaps where it holds a connection's lock, the allocator's or the
//! interpreter's: then the clients behind that lock can be told nothing any more. So the handlers
//! of such signals are held back. The main thread goes on while a thread of our own says goodbye;
//! then the signal is sent once more, and the server's handler has its way.
//!
//! A process may also exit by itself. What we leave with `exit` for that waits for no lock and
//! allocates nothing: it writes one byte to a thread that may wait, and reads until that thread is
//! done or the time is up.

use std::{
    ffi::c_int,
    io::{self, Read},
    os::unix::net::UnixStream,
    process, ptr,
    sync::{
        Arc, LazyLock, Once, OnceLock,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use parking_lot::Mutex;
use signal_hook::flag;
use socket2::SockRef;
use tokio::{
    io::Interest,
    signal::unix::{SignalKind, signal},
};

use super::{error::Error, panics::contain, runtime::Engine};
use crate::protocol::close::CloseFrame;

/// What the reading side may take beyond the grace of the connections.
const MARGIN: Duration = Duration::from_millis(500);

static LINE: Mutex<Option<Line>> = Mutex::new(None);
static REGISTERED: Once = Once::new();
/// The last signal that came of those that end the process.
static SEEN: LazyLock<Arc<AtomicUsize>> = LazyLock::new(Arc::default);
/// The process that holds signals back: 0 for none.
static HOLDER: AtomicU32 = AtomicU32::new(0);
static EXITING: AtomicBool = AtomicBool::new(false);
/// The server's handlers of the signals that are held back.
static HELD: OnceLock<Vec<(c_int, libc::sigaction)>> = OnceLock::new();

/// How to say goodbye when the process goes for one reason.
#[derive(Clone, Debug)]
pub struct Parting {
    /// The signal that is the reason: 0 when none came.
    pub signal: c_int,
    /// The server's handler of the signal calls `exit`.
    pub exits: bool,
    /// What the clients are told.
    pub frame: CloseFrame,
    /// The time over which they are told.
    pub window: Duration,
}

/// The handler's end of the line to the thread that closes the connections.
#[derive(Debug)]
struct Line {
    process: u32,
    stream: UnixStream,
}

/// The last signal that came of those of [`on_exit`]: 0 when none did.
pub fn signal_seen() -> c_int {
    c_int::try_from(SEEN.load(Ordering::SeqCst)).unwrap_or_default()
}

/// What the parent was told does not concern its child.
pub(super) fn after_fork_in_child() {
    SEEN.store(0, Ordering::SeqCst);
}

/// Closes all connections when the process exits; it waits `grace` for them after the window.
///
/// Which of `partings` holds is decided by the last signal that came; the first one where there is
/// none for it. To be called once a process. A forked child inherits the handlers, but its exit
/// does not concern its parent's connections, and no signal of its own is held back.
///
/// # Errors
/// [`Error::Io`] when the system gives no descriptor, or refuses a handler.
pub fn on_exit(engine: &Arc<Engine>, partings: &[Parting], grace: Duration) -> Result<(), Error> {
    let longest = partings.iter().map(|parting| parting.window).max();
    let patience = grace + longest.unwrap_or_default();
    answer_exit(engine, partings.to_vec(), grace, patience)
        .map_err(Error::io("cannot watch for the end of the process"))?;
    watch_signals(engine, partings, grace).map_err(Error::io("cannot watch for signals"))?;
    REGISTERED.call_once(register);
    Ok(())
}

fn answer_exit(
    engine: &Arc<Engine>,
    partings: Vec<Parting>,
    grace: Duration,
    patience: Duration,
) -> io::Result<()> {
    let (stream, other) = line(patience)?;
    let other = {
        let _context = engine.handle().enter();
        tokio::net::UnixStream::from_std(other)?
    };
    let dying = Arc::downgrade(engine);
    engine.handle().spawn(async move {
        let mut byte = [0];
        loop {
            match other.ready(Interest::READABLE).await {
                Ok(_) if matches!(other.try_read(&mut byte), Ok(1)) => break,
                // A byte that was not there after all.
                Ok(ready) if !ready.is_read_closed() => {}
                _ => return,
            }
        }
        let signal = signal_seen();
        let fitting = partings.iter().find(|parting| parting.signal == signal);
        let (Some(engine), Some(parting)) = (dying.upgrade(), fitting.or(partings.first())) else {
            return;
        };
        // The end of the stream is the answer.
        leave(engine, parting.clone(), grace, move || drop(other));
    });
    *LINE.lock() = Some(Line {
        process: process::id(),
        stream,
    });
    Ok(())
}

fn watch_signals(engine: &Arc<Engine>, partings: &[Parting], grace: Duration) -> io::Result<()> {
    let (held, seen): (Vec<_>, Vec<_>) = partings
        .iter()
        .filter(|parting| parting.signal != 0)
        .partition(|parting| parting.exits);
    if REGISTERED.is_completed() {
        // Inherited, and nobody has held anything back here: see `hold`.
        return Ok(());
    }
    for parting in seen {
        let number = usize::try_from(parting.signal).unwrap_or_default();
        flag::register_usize(parting.signal, Arc::clone(&SEEN), number)?;
    }
    let previous: io::Result<Vec<_>> = held
        .iter()
        .map(|parting| Ok((parting.signal, handler_of(parting.signal)?)))
        .collect();
    let _ = HELD.set(previous?);
    HOLDER.store(process::id(), Ordering::SeqCst);
    let _context = engine.handle().enter();
    for parting in held {
        hold_back(parting.signal)?;
        let mut came = signal(SignalKind::from_raw(parting.signal))?;
        let (dying, parting) = (Arc::downgrade(engine), parting.clone());
        engine.handle().spawn(async move {
            let held = Held;
            // One that came before we listened is not lost either.
            if signal_seen() != parting.signal {
                came.recv().await;
            }
            let Some(engine) = dying.upgrade() else {
                return;
            };
            let number = parting.signal;
            leave(engine, parting, grace, move || {
                // Whatever comes meanwhile can wait that long.
                drop(held);
                // An exit that has begun already was hurried, and goes on.
                if !EXITING.swap(true, Ordering::SeqCst) {
                    pass_on(number);
                }
            });
        });
    }
    Ok(())
}

/// Says goodbye on a thread of its own, as waiting here would keep the engine from it, and then
/// calls `gone`.
fn leave(
    engine: Arc<Engine>,
    parting: Parting,
    grace: Duration,
    gone: impl FnOnce() + Send + 'static,
) {
    let (said, last) = (Arc::clone(&engine), parting.frame.clone());
    // Shared, since a thread that cannot start takes what it was given with it.
    let gone = Arc::new(Mutex::new(Some(gone)));
    let after = Arc::clone(&gone);
    let work = move || {
        // The process must go, whatever fails.
        contain(|| engine.shut_down_over(&parting.frame, parting.window, grace));
        let gone = after.lock().take();
        if let Some(gone) = gone {
            gone();
        }
    };
    if thread::Builder::new().spawn(work).is_err() {
        // There is nobody who could wait: they are told, and that is that.
        contain(|| said.close_all(&last));
        let gone = gone.lock().take();
        if let Some(gone) = gone {
            gone();
        }
    }
}

fn line(patience: Duration) -> io::Result<(UnixStream, UnixStream)> {
    let (ours, other) = UnixStream::pair()?;
    ours.set_read_timeout(Some(patience.saturating_add(MARGIN)))?;
    other.set_nonblocking(true)?;
    Ok((ours, other))
}

fn register() {
    #[expect(
        unsafe_code,
        reason = "only libc tells of an exit that passes Python by"
    )]
    // SAFETY: `say_goodbye` is a function of this library, which Python never unloads, takes no
    // arguments and does not unwind. Were the library gone at exit, the call would jump into
    // nothing.
    let status = unsafe { libc::atexit(say_goodbye) };
    // Without memory for one more entry clients see the end without a close frame, as before.
    debug_assert_eq!(status, 0);
}

extern "C" fn say_goodbye() {
    EXITING.store(true, Ordering::SeqCst);
    // Held only while the first connection comes: then there is hardly anybody to tell.
    let Some(line) = LINE.try_lock() else { return };
    if let Some(line) = line.as_ref().filter(|line| line.process == process::id()) {
        // A shut down engine has hung up; that must not raise SIGPIPE.
        let sent = SockRef::from(&line.stream).send_with_flags(&[0], libc::MSG_NOSIGNAL);
        if sent.is_ok() {
            // The end of the stream, or the time is up: in both cases there is no more to do.
            let _ = (&line.stream).read(&mut [0]);
        }
    }
}

// --- signals -------------------------------------------------------------------------------------

/// While it lives somebody listens to the signals that are held back.
struct Held;

impl Drop for Held {
    fn drop(&mut self) {
        HOLDER.store(0, Ordering::SeqCst);
    }
}

fn handler_of(number: c_int) -> io::Result<libc::sigaction> {
    #[expect(unsafe_code, reason = "only libc knows a server's handler")]
    // SAFETY: a `sigaction` of zeros is a valid one, and the kernel writes no more than that type
    // holds. Were it smaller than what the kernel writes, the stack would be overwritten.
    let (status, action) = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        (
            libc::sigaction(number, ptr::null(), &raw mut action),
            action,
        )
    };
    if status == 0 {
        Ok(action)
    } else {
        Err(io::Error::last_os_error())
    }
}

fn hold_back(number: c_int) -> io::Result<()> {
    #[expect(unsafe_code, reason = "other ways call the server's handler at once")]
    // SAFETY: `hold` is a function of this library, which Python never unloads, has the signature
    // of a handler and does only what a handler may do: atomic loads and stores, `getpid`,
    // `sigaction` and `kill`. Were it to lock or allocate, the interrupted thread could stand still.
    let status = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = hold as extern "C" fn(c_int) as usize;
        // What is interrupted goes on as if nothing were.
        action.sa_flags = libc::SA_RESTART;
        libc::sigaction(number, &raw const action, ptr::null_mut())
    };
    if status == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Does nothing yet: tokio, which calls it, tells those who listen.
extern "C" fn hold(number: c_int) {
    if HOLDER.load(Ordering::SeqCst) == process::id() {
        SEEN.store(
            usize::try_from(number).unwrap_or_default(),
            Ordering::SeqCst,
        );
    } else {
        pass_on(number);
    }
}

/// Gives the signal to the server's own handler.
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

//! The end of a process that calls `exit` without letting Python say goodbye.
//!
//! A server that is written in C may do so from within a signal handler, which has interrupted the
//! main thread anywhere, perhaps where it holds one of the engine's locks or the interpreter's. So
//! the handler that we leave with `exit` waits for no lock and allocates nothing: it writes one
//! byte to a thread that may wait, and reads until that thread is done or the time is up.

use std::{
    io::Read,
    os::unix::net::UnixStream,
    process,
    sync::{Arc, Once},
    thread,
    time::Duration,
};

use parking_lot::Mutex;
use socket2::SockRef;
use tokio::io::Interest;

use super::{error::Error, runtime::Engine};
use crate::protocol::close::CloseFrame;

/// What the reading side may take beyond the grace of the connections.
const MARGIN: Duration = Duration::from_millis(500);

static LINE: Mutex<Option<Line>> = Mutex::new(None);
static REGISTERED: Once = Once::new();

/// The handler's end of the line to the thread that closes the connections.
#[derive(Debug)]
struct Line {
    process: u32,
    stream: UnixStream,
}

/// Closes all connections with `frame` when the process exits; it waits `grace` for them at most.
///
/// Done once a process. A forked child inherits the handler, but its exit does not concern its
/// parent's connections.
///
/// # Errors
/// [`Error::Io`] when the system gives no descriptor.
pub fn on_exit(engine: &Arc<Engine>, frame: CloseFrame, grace: Duration) -> Result<(), Error> {
    let failed = Error::io("cannot watch for the end of the process");
    let (stream, other) = line(grace).map_err(failed)?;
    let other = {
        let _context = engine.handle().enter();
        tokio::net::UnixStream::from_std(other)
            .map_err(Error::io("cannot watch for the end of the process"))?
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
        // Waiting here would keep the engine from saying goodbye.
        thread::spawn(move || {
            if let Some(engine) = dying.upgrade() {
                engine.shut_down(&frame, grace);
            }
            // The end of the stream is the answer.
            drop(other);
        });
    });
    *LINE.lock() = Some(Line {
        process: process::id(),
        stream,
    });
    REGISTERED.call_once(register);
    Ok(())
}

fn line(grace: Duration) -> std::io::Result<(UnixStream, UnixStream)> {
    let (ours, other) = UnixStream::pair()?;
    ours.set_read_timeout(Some(grace.saturating_add(MARGIN)))?;
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

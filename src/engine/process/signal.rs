//! Watching for SIGTERM beside the server's own handler.

use std::{
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use parking_lot::Mutex;
use signal_hook::{consts::SIGTERM, flag, low_level::emulate_default_handler};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::sleep,
};

use crate::engine::{base::error::Error, runtime::Engine};

/// How long to wait for a thread when the system gives none.
const PAUSE: Duration = Duration::from_millis(20);
static TERMINATED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// Whether SIGTERM has come since [`on_terminate`]. True from the moment of the signal on, so also
/// while the server handles it.
pub fn is_terminated() -> bool {
    TERMINATED.load(Ordering::SeqCst)
}

/// A signal to the parent does not concern its child.
pub(crate) fn after_fork_in_child() {
    TERMINATED.store(false, Ordering::SeqCst);
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
    flag::register(SIGTERM, Arc::clone(&TERMINATED))
        .map_err(Error::io("cannot watch for SIGTERM"))?;
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

/// Ends the process as SIGTERM does by default.
pub fn die() {
    // A failure cannot be reported to any caller now.
    let _ = emulate_default_handler(SIGTERM);
}

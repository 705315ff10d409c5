//! SIGTERM, heard beside whoever else handles it.

use std::{
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use signal_hook::{consts::SIGTERM, flag, low_level::emulate_default_handler};
use tokio::signal::unix::{SignalKind, signal};

use super::{error::Error, runtime::Engine};

static TERMINATED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// Whether SIGTERM has come since [`on_terminate`]. True from the signal's very moment on, so also
/// for whatever the server does about it.
pub fn is_terminated() -> bool {
    TERMINATED.load(Ordering::SeqCst)
}

/// What the parent was told does not concern its child.
pub(super) fn after_fork_in_child() {
    TERMINATED.store(false, Ordering::SeqCst);
}

/// Calls `heard` when SIGTERM comes.
///
/// A handler that was there before goes on being called, so a server that handles the signal itself
/// notices nothing. Where the signal was left to the system it kills the process no more, which is
/// then up to `heard`: see [`die`]. `heard` runs on a thread of its own and may wait. A handler that
/// somebody installs later takes the place of this one. A forked child inherits it, and has to
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
        if terminate.recv().await.is_some() {
            // Waiting here would keep the engine from saying goodbye.
            thread::spawn(heard);
        }
    });
    Ok(())
}

/// Ends the process as SIGTERM does by default.
pub fn die() {
    // There is nobody left to tell of a failure.
    let _ = emulate_default_handler(SIGTERM);
}

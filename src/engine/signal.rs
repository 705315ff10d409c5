//! The end of a process whose server leaves SIGTERM to the system, which would just kill it.

use std::thread;

use signal_hook::{consts::SIGTERM, low_level::emulate_default_handler};
use tokio::signal::unix::{SignalKind, signal};

use super::{error::Error, runtime::Engine};

/// Calls `farewell` when SIGTERM comes, then lets the signal do what it does by default.
///
/// `farewell` runs on a thread of its own and may wait. A handler that somebody installs later
/// takes the place of this one. A forked child inherits it and has to restore the default.
///
/// # Errors
/// [`Error::Io`] when the system refuses the handler.
pub fn on_terminate(
    engine: &Engine,
    farewell: impl FnOnce() + Send + 'static,
) -> Result<(), Error> {
    let _context = engine.handle().enter();
    let mut terminate =
        signal(SignalKind::terminate()).map_err(Error::io("cannot watch for SIGTERM"))?;
    engine.handle().spawn(async move {
        if terminate.recv().await.is_some() {
            // Waiting here would keep the engine from saying goodbye.
            thread::spawn(move || {
                farewell();
                // Ends the process, so there is nobody left to tell of a failure.
                let _ = emulate_default_handler(SIGTERM);
            });
        }
    });
    Ok(())
}

//! The errors of the engine that its callers have to handle.

use std::{fmt, io, time::Duration};

/// The engine's errors. The binding maps each to one Python exception.
#[derive(Debug)]
pub enum Error {
    /// The outbox stayed full for as long as the sender was ready to wait; nothing was queued.
    SendTimeout {
        /// How long the sender waited.
        waited: Duration,
        /// The outbox's capacity in bytes.
        capacity: usize,
    },
    /// The process is ending (or this engine has been stopped): no new connection is taken.
    ShuttingDown,
    /// All threads of the engine have failed; their panics are in the process's error output.
    Broken,
    /// The operating system refused something that a connection cannot do without.
    Io {
        /// The action that failed, for the log.
        action: &'static str,
        /// The system's answer.
        source: io::Error,
    },
}

impl Error {
    /// Names the action that failed with `source`.
    pub(crate) fn io(action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, source }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SendTimeout { waited, capacity } => write!(
                f,
                "no room for {:.1} s: the client reads too slowly, and at most {capacity} bytes wait for it",
                waited.as_secs_f64()
            ),
            Self::ShuttingDown => f.write_str("the process is ending and takes no new connection"),
            Self::Broken => f.write_str("the engine's threads have failed"),
            Self::Io { action, source } => write!(f, "{action}: {source}"),
        }
    }
}

impl std::error::Error for Error {}

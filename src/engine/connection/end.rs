//! How a connection ends.

use crate::protocol::close::{self, CloseFrame};

/// The side that began to end a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Initiator {
    /// Ours: the view, a limit, the end of the process.
    Local,
    /// The peer, with a close frame.
    Peer,
    /// Neither: the connection was lost without a close frame.
    Lost,
}

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// The close code (RFC 6455 section 7.4); 1005 for a close frame without one, 1006 for none.
    pub code: u16,
    /// The reason beside it, often empty.
    pub reason: String,
    /// The side that began.
    pub by: Initiator,
}

impl End {
    pub(crate) fn new(by: Initiator, code: u16, reason: &str) -> Self {
        let reason = reason.to_owned();
        Self { code, reason, by }
    }

    /// The end by a close frame.
    pub(crate) fn by_frame(by: Initiator, frame: &CloseFrame) -> Self {
        Self::new(by, frame.code.unwrap_or(close::NO_STATUS), &frame.reason)
    }
}

//! The reasons for which a driver reads nothing from its peer for a while.

use tokio::time::Instant;

/// The reason; at most one holds at any time, as nothing is read that could give another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pause {
    /// The inbox is full: the view has to make room.
    InboxFull,
    /// The peer sends faster than it may.
    TooFast {
        /// When its rate allows more.
        until: Instant,
    },
    /// The process buffers all that it may, and this connection much of it.
    MemoryShort {
        /// When to look again.
        until: Instant,
    },
    /// The peer has broken a rule, and the view may still answer what came before.
    Failing {
        /// How long the view has for that; `None` is for ever.
        until: Option<Instant>,
    },
}

impl Pause {
    /// The moment at which it is over at the latest; `None` when only the view can end it.
    pub(super) fn until(self) -> Option<Instant> {
        match self {
            Self::InboxFull => None,
            Self::TooFast { until } | Self::MemoryShort { until } => Some(until),
            Self::Failing { until } => until,
        }
    }
}

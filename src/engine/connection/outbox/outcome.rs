//! The outcomes of sending a message, and how far the bytes have come.

/// Whether a message was corked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Corked {
    /// It was, and is the first: the caller has to see to it that it is sent.
    First,
    /// It was, after others.
    More,
    /// It was not.
    No,
}

/// The outcome of sending a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    /// The socket took all of it.
    Written,
    /// It is queued; the driver has to be woken.
    Queued,
    /// As [`Sent::Queued`], beyond the capacity.
    Beyond,
    /// No room, and the sender would not wait.
    Full,
    /// The outbox is closed: nothing more goes out.
    Closed,
}

impl Sent {
    /// Whether bytes wait: the socket takes no more for now.
    pub(crate) fn leaves_rest(self) -> bool {
        matches!(self, Self::Queued | Self::Beyond)
    }
}

/// How far our bytes have come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Passage {
    /// Bytes that the peer's system has taken, as far as ours can tell.
    pub(crate) taken: u64,
    /// Something waits for the socket.
    pub(crate) is_blocked: bool,
    /// All that was ever sent has been taken.
    pub(crate) is_clear: bool,
    /// The last ping is among what has been taken.
    pub(crate) has_ping: bool,
}

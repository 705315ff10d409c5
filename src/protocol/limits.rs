//! What one peer may make us hold.

/// The most that one message may be; breaking it ends the connection with 1009.
///
/// A frame never exceeds its message, so the byte limit is the frame limit too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Payload bytes of one message, all its fragments together.
    pub max_message_bytes: usize,
    /// Data frames of one message. Empty fragments cost us time and no bytes, hence a limit of
    /// their own. A message in one frame is always allowed, so 0 means the same as 1.
    pub max_fragments: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_message_bytes: 16 * 1024 * 1024,
            // The public suite sends 4 MiB in fragments of 64 bytes, and an empty one behind them.
            max_fragments: 131_072,
        }
    }
}

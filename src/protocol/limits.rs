//! Limits on the memory and time that one peer can make us spend.

/// The limits of one message; exceeding one ends the connection with 1009.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Payload bytes of one message, all its fragments together.
    pub max_message_bytes: usize,
    /// Payload bytes of one data frame. The largest number means no limit besides that of the
    /// message, which a frame never exceeds.
    pub max_frame_bytes: u32,
    /// Data frames of one message. Empty fragments cost us time and no bytes, hence a limit of
    /// their own. A message in one frame is always allowed, so 0 means the same as 1.
    pub max_fragments: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_message_bytes: 16 * 1024 * 1024,
            max_frame_bytes: u32::MAX,
            // The public suite sends 4 MiB in fragments of 64 bytes, and an empty one after them.
            max_fragments: 80_000,
        }
    }
}

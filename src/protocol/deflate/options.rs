//! The settings of a server.

/// How a server compresses, and what it demands of its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Messages below this go out as they are.
    pub threshold_bytes: usize,
    /// From 1, the quickest, to 9, the smallest.
    pub level: u8,
    /// Compress each message for itself.
    pub server_no_context_takeover: bool,
    /// Have the client do so.
    pub client_no_context_takeover: bool,
    /// The most that we look back while compressing: 2 to this power, 9 to 15.
    pub server_max_window_bits: u8,
    /// The most that a client may look back: 2 to this power, 9 to 15.
    pub client_max_window_bits: u8,
}

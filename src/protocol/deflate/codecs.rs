//! Compressors and inflating streams, shared by connections that take turns with them.

use std::sync::Arc;

use flate2::{Compress, Compression, Decompress};

use super::{
    offer::{MAX_WINDOW_BITS, MIN_WINDOW_BITS},
    pool::Pool,
};

/// The end of every message compressed with a sync flush, which is left out on the wire.
pub(super) const TAIL: [u8; 4] = [0x00, 0x00, 0xff, 0xff];

/// Compressors that wait for their next message. As many as views on other threads may want at
/// once on common machines; each has a quarter of a megabyte.
const COMPRESSORS: usize = 8;
/// Streams that wait for theirs. Unfinished messages and quick ones side by side need few; each has
/// about forty kilobytes.
const STREAMS: usize = 4;

/// The codecs of one thread of the engine, for all connections that it drives.
///
/// Any thread may use them: views compress what they send.
#[derive(Clone, Debug)]
pub struct Codecs {
    pub(super) compressors: Arc<Pool<Compressor>>,
    pub(super) streams: Arc<Pool<Decompress>>,
}

impl Default for Codecs {
    fn default() -> Self {
        Self {
            compressors: Arc::new(Pool::new(COMPRESSORS)),
            streams: Arc::new(Pool::new(STREAMS)),
        }
    }
}

/// The settings that two interchangeable compressors have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Style {
    pub(super) window_bits: u8,
    pub(super) level: u8,
}

/// A compressor that any deflater of the same style may use.
pub(super) type Compressor = (Style, Compress);

impl Style {
    pub(super) fn compressor(self) -> Compress {
        let level = Compression::new(self.level.clamp(1, 9).into());
        let bits = self.window_bits.clamp(MIN_WINDOW_BITS, MAX_WINDOW_BITS);
        Compress::new_with_window_bits(level, false, bits)
    }
}

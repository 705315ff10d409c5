//! Compressors and inflating streams, shared by connections that take turns with them.

use std::sync::Arc;

use flate2::Decompress;

use super::{deflater::Compressor, pool::Pool};

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

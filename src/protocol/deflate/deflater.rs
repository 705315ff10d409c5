//! Messages to the client, compressed (RFC 7692 section 7.2.1).

use std::{
    sync::{Arc, Mutex, MutexGuard},
    thread,
};

use flate2::{Compress, FlushCompress};

use super::{
    codecs::{Codecs, Compressor, Style, TAIL},
    offer::{Agreement, MAX_WINDOW_BITS},
    options::Options,
    pool::Pool,
};

/// Bytes that are compressed before other threads may have the processor.
const PIECE_BYTES: usize = 64 * 1024;

/// The server's half of the extension. Any thread may use it.
///
/// The sending thread compresses before it locks anything: a large message holds up its own sender
/// and no other.
#[derive(Debug)]
pub struct Deflater {
    pool: Arc<Pool<Compressor>>,
    style: Style,
    threshold_bytes: usize,
    /// With takeover: the compressor with the messages that the next one may refer to, once there
    /// is one.
    context: Option<Mutex<Option<Compress>>>,
}

impl Deflater {
    /// The half that `agreement` asks for, used as `options` say, with what `codecs` lend.
    pub fn new(agreement: &Agreement, options: &Options, codecs: &Codecs) -> Self {
        Self {
            pool: Arc::clone(&codecs.compressors),
            style: Style {
                window_bits: agreement.server_max_window_bits.unwrap_or(MAX_WINDOW_BITS),
                level: options.level,
            },
            threshold_bytes: options.threshold_bytes,
            context: (!agreement.server_no_context_takeover).then(Mutex::default),
        }
    }

    /// Whether a message of `length` bytes is worth compressing.
    pub fn wants(&self, length: usize) -> bool {
        length > 0 && length >= self.threshold_bytes
    }

    /// A deflater with the same terms whose messages refer to none before them, so that they can
    /// go to several clients.
    #[must_use]
    pub fn without_context(&self) -> Self {
        Self {
            pool: Arc::clone(&self.pool),
            style: self.style,
            threshold_bytes: self.threshold_bytes,
            context: None,
        }
    }

    /// The settings on which the bytes of messages without context depend.
    pub fn terms(&self) -> impl PartialEq + use<> {
        (self.style, self.threshold_bytes)
    }

    /// To be called before a compressed message of another deflater goes to this one's client, and
    /// held until it is sent: later messages must not refer to those before it. `None` while a
    /// message is being compressed that does.
    pub fn interrupt(&self) -> Option<Deflated<'_>> {
        let context = match &self.context {
            Some(context) => Some(context.try_lock().ok()?),
            None => None,
        };
        Some(Deflated {
            payload: Vec::new(),
            context,
        })
    }

    /// Whether it has a compressor of its own now.
    #[cfg(test)]
    pub(super) fn has_context(&self) -> bool {
        let context = self.context.as_ref();
        context.is_some_and(|context| context.lock().unwrap().is_some())
    }

    /// Compresses one message; `None` when it goes out as it is.
    ///
    /// That is the case when it is too small to gain, when it does not shrink, and when another
    /// thread is in the middle of a message that the context depends on.
    pub fn deflate(&self, message: &[u8]) -> Option<Deflated<'_>> {
        if !self.wants(message.len()) {
            return None;
        }
        let Some(context) = &self.context else {
            let style = self.style;
            let pooled = self.pool.take(|(other, _)| *other == style);
            let mut compressor = pooled.map_or_else(|| style.compressor(), |(_, found)| found);
            let payload = compress(&mut compressor, message);
            if renew(&mut compressor) {
                self.pool.give((style, compressor));
            }
            return Some(Deflated {
                payload: payload?,
                context: None,
            });
        };
        let mut context = context.try_lock().ok()?;
        let compressor = context.get_or_insert_with(|| self.style.compressor());
        let payload = compress(compressor, message);
        // Later messages must not refer to bytes that the client does not get. A new context is
        // always allowed.
        if payload.is_none() && !renew(compressor) {
            *context = None;
        }
        Some(Deflated {
            payload: payload?,
            context: Some(context),
        })
    }
}

/// A compressed message. With takeover no other can be compressed until this one is dropped; and
/// unless it [`was_sent`](Deflated::was_sent), the context begins anew.
#[derive(Debug)]
pub struct Deflated<'a> {
    payload: Vec<u8>,
    context: Option<MutexGuard<'a, Option<Compress>>>,
}

impl Deflated<'_> {
    /// The payload of the frame, which needs RSV1.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// Notes that the client will get it, after all that was compressed before.
    pub fn was_sent(mut self) {
        self.context = None;
    }
}

impl Drop for Deflated<'_> {
    fn drop(&mut self) {
        if let Some(compressor) = self.context.as_mut().and_then(|context| context.as_mut()) {
            compressor.reset();
        }
    }
}

/// `message` compressed, without the four bytes that every message ends with; `None` when that
/// does not make it smaller. Then the compressor has to be [renewed](renew).
fn compress(compressor: &mut Compress, message: &[u8]) -> Option<Vec<u8>> {
    // The tail is written and cut off again. A buffer that comes out full may lack something.
    let mut payload = vec![0; message.len().checked_add(TAIL.len())?];
    let (total_in, total_out) = (compressor.total_in(), compressor.total_out());
    let mut pieces = message.chunks(PIECE_BYTES).peekable();
    let (mut taken, mut len) = (0, 0);
    while let Some(piece) = pieces.next() {
        let flush = if pieces.peek().is_some() {
            FlushCompress::None
        } else {
            FlushCompress::Sync
        };
        let outcome = compressor.compress(piece, &mut payload[len..], flush);
        taken = usize::try_from(compressor.total_in() - total_in).ok()?;
        len = usize::try_from(compressor.total_out() - total_out).ok()?;
        if outcome.is_err() || len >= payload.len() {
            return None;
        }
        if pieces.peek().is_some() {
            // Systems may leave a processor to one busy thread for milliseconds.
            thread::yield_now();
        }
    }
    if taken < message.len() {
        return None;
    }
    payload.truncate(len.checked_sub(TAIL.len())?);
    Some(payload)
}

/// Makes a compressor as it was when it was new; false for one that has failed and is of no use.
fn renew(compressor: &mut Compress) -> bool {
    // zlib-rs 0.6 panics some hundred messages after a reset with output left inside; and after a
    // reset within a block of level 1 it takes that block for one of the next message.
    let mut rest = [0; 4096];
    let mut is_full = true;
    while is_full {
        let total_out = compressor.total_out();
        let outcome = compressor.compress(&[], &mut rest, FlushCompress::Sync);
        if outcome.is_err() {
            return false;
        }
        is_full = compressor.total_out() - total_out == rest.len() as u64;
    }
    compressor.reset();
    true
}

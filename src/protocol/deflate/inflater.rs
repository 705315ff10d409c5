//! Compressed messages from the client (RFC 7692 section 7.2.2).

use std::{collections::VecDeque, sync::Arc};

use flate2::{Decompress, FlushDecompress, Status};

use super::{
    codecs::Codecs,
    offer::{Agreement, MAX_WINDOW_BITS, MIN_WINDOW_BITS},
    pool::Pool,
};
use crate::protocol::error::Violation;

/// Bytes inflated at once: they lie on the stack and are zeroed for each read of a message.
const PIECE_BYTES: usize = 8 * 1024;
/// The bytes that were left out after a message, and an empty final block. A stream that is
/// between two blocks ends with them, any other does not: there is no other way to ask a stream
/// where it is.
const ENDING: [u8; 9] = [0x00, 0x00, 0xff, 0xff, 0x01, 0x00, 0x00, 0xff, 0xff];
/// Compressed bytes taken at once. Blocks that hold nothing take long and inflate to nothing.
const INPUT_BYTES: usize = 4 * 1024;
/// The cost of a compressed byte, in inflated bytes: about that of a byte of a block that holds
/// nothing but its own code tables.
const INPUT_COST: usize = 16;
/// The cost of a message and of each final block beside that: a stream has to be made ready.
const STREAM_COST: usize = 4 * 1024;
/// Bytes that a stream takes, its window included.
const STREAM_BYTES: usize = 48 * 1024;
/// Final blocks that one message may have. Each costs a new stream and takes two bytes, so they
/// would be a way to keep us busy; a sender that flushes with them writes one for each fragment.
const MAX_FINAL_BLOCKS: u32 = 1024;

/// The client's half of the extension.
#[derive(Debug)]
pub struct Inflater {
    pool: Arc<Pool<Decompress>>,
    /// With takeover: the last inflated bytes, as far back as the next message may refer.
    window: Option<Window>,
    /// The stream of the present message; `None` between messages.
    stream: Option<Decompress>,
    /// Compressed bytes of the present message so far.
    received: usize,
    final_blocks: u32,
    /// The stream's last block is through; whatever follows begins a new one.
    has_ended: bool,
    /// Bytes of the next piece that are unmasked already: they had no place in the last step.
    pub(in crate::protocol) unmasked: usize,
}

impl Inflater {
    /// The half that `agreement` asks for, with what `codecs` lend.
    pub fn new(agreement: &Agreement, codecs: &Codecs) -> Self {
        let agreed = agreement.client_max_window_bits.unwrap_or(MAX_WINDOW_BITS);
        // A window may always be larger than the one it has to hold.
        let bits = agreed.clamp(MIN_WINDOW_BITS, MAX_WINDOW_BITS);
        Self {
            pool: Arc::clone(&codecs.streams),
            window: (!agreement.client_no_context_takeover).then(|| Window::new(1 << bits)),
            stream: None,
            received: 0,
            final_blocks: 0,
            has_ended: false,
            unmasked: 0,
        }
    }

    /// Validates the header of a frame with `payload_len` compressed bytes.
    ///
    /// Compressed data may be larger than what it inflates to, but never by much. Without a bound,
    /// blocks that hold nothing could go on for ever.
    ///
    /// # Errors
    /// 1009 when the message's compressed bytes are more than twice its limit and 64 KiB.
    pub(in crate::protocol) fn admit(
        &mut self,
        payload_len: u64,
        max_message_bytes: usize,
    ) -> Result<(), Violation> {
        let most = max_message_bytes.saturating_mul(2).saturating_add(1 << 16);
        let len = usize::try_from(payload_len).unwrap_or(usize::MAX);
        self.received = self.received.saturating_add(len);
        if self.received > most {
            return Err(Violation::too_big(format!(
                "compressed message has more than {most} bytes"
            )));
        }
        Ok(())
    }

    /// Inflates the next piece of a message, and hands what comes out to `collect` in order.
    ///
    /// `is_end` says that the message ends with this piece. Stops in the middle of it when
    /// `allowance`, from which it takes what it costs, is used up: then what is left of the piece,
    /// which may be nothing, has to be given again.
    ///
    /// # Errors
    /// The violation that `collect` reports; 1007 when the piece is not DEFLATE, or the end comes
    /// too early.
    pub(in crate::protocol) fn inflate(
        &mut self,
        piece: &[u8],
        is_end: bool,
        allowance: &mut usize,
        mut collect: impl FnMut(&[u8]) -> Result<(), Violation>,
    ) -> Result<Step, Violation> {
        let whole = Step {
            taken: piece.len(),
            is_done: true,
        };
        if self.received == 0 {
            // An empty message without the byte that it should have (section 7.2.3.6).
            return Ok(whole);
        }
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => {
                *allowance = allowance.saturating_sub(STREAM_COST);
                self.begin()
            }
        };
        let step = self.run(&mut stream, piece, allowance, &mut collect)?;
        if !is_end || !step.is_done {
            self.stream = Some(stream);
            return Ok(step);
        }
        if self.has_ended {
            // Behind a final block there is nothing to flush, and nothing to refer to.
            self.forget();
        } else {
            // So few bytes inflate to little, so they need no allowance.
            self.run(&mut stream, &ENDING, &mut usize::MAX.clone(), &mut collect)?;
            if !self.has_ended {
                return Err(Violation::invalid_data("compressed message ends too early"));
            }
        }
        (self.received, self.final_blocks, self.has_ended) = (0, 0, false);
        stream.reset(false);
        self.pool.give(stream);
        Ok(whole)
    }

    /// Bytes held for the present message, and for those to come.
    pub(in crate::protocol) fn held_bytes(&self) -> usize {
        let window = self.window.as_ref().map_or(0, |window| window.kept.len());
        window + self.stream.as_ref().map_or(0, |_| STREAM_BYTES)
    }

    /// Whether memory for a message, or for the context, is taken now.
    #[cfg(test)]
    pub(super) fn holds_codec(&self) -> bool {
        self.stream.is_some()
    }

    /// A stream for the next message.
    fn begin(&self) -> Decompress {
        let pooled = self.pool.take(|_| true);
        let mut stream =
            pooled.unwrap_or_else(|| Decompress::new_with_window_bits(false, MAX_WINDOW_BITS));
        for part in self.window.iter().flat_map(Window::parts) {
            // Only a stream with a header of zlib's could object.
            let _ = stream.set_dictionary(part);
        }
        stream
    }

    fn forget(&mut self) {
        if let Some(window) = &mut self.window {
            window.kept.clear();
        }
    }

    /// Notes that the stream's last block is through.
    fn end_stream(&mut self, allowance: &mut usize) -> Result<(), Violation> {
        self.has_ended = true;
        *allowance = allowance.saturating_sub(STREAM_COST);
        self.final_blocks += 1;
        if self.final_blocks > MAX_FINAL_BLOCKS {
            return Err(Violation::too_big(format!(
                "compressed message has more than {MAX_FINAL_BLOCKS} final blocks"
            )));
        }
        Ok(())
    }

    fn run(
        &mut self,
        stream: &mut Decompress,
        piece: &[u8],
        allowance: &mut usize,
        collect: &mut impl FnMut(&[u8]) -> Result<(), Violation>,
    ) -> Result<Step, Violation> {
        let mut output = [0; PIECE_BYTES];
        let mut input = piece;
        loop {
            let step = |is_done| Step {
                taken: piece.len() - input.len(),
                is_done,
            };
            if self.has_ended && input.is_empty() {
                return Ok(step(true));
            }
            if *allowance == 0 {
                return Ok(step(false));
            }
            if self.has_ended {
                stream.reset(false);
                self.forget();
                self.has_ended = false;
            }
            let (total_in, total_out) = (stream.total_in(), stream.total_out());
            let next = &input[..input.len().min(INPUT_BYTES)];
            let outcome = stream.decompress(next, &mut output, FlushDecompress::None);
            let taken = passed(total_in, stream.total_in(), next.len());
            let given = passed(total_out, stream.total_out(), output.len());
            *allowance = allowance.saturating_sub(given + taken * INPUT_COST);
            // First what was right: the verdict must not depend on how the reads cut the bytes.
            collect(&output[..given])?;
            if let Some(window) = &mut self.window {
                window.push(&output[..given]);
            }
            let status = outcome
                .map_err(|_| Violation::invalid_data("compressed message is not DEFLATE"))?;
            input = &input[taken..];
            if status == Status::StreamEnd {
                self.end_stream(allowance)?;
            } else if given < output.len() && (input.is_empty() || taken == 0) {
                return Ok(Step {
                    taken: piece.len(),
                    is_done: true,
                });
            }
        }
    }
}

/// How far [`Inflater::inflate`] has come with a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::protocol) struct Step {
    /// Bytes of it that need not be given again.
    pub(in crate::protocol) taken: usize,
    /// That is all of it, and all that it held has come out.
    pub(in crate::protocol) is_done: bool,
}

impl Step {
    /// The step of an empty piece.
    pub(in crate::protocol) const NOTHING: Self = Self {
        taken: 0,
        is_done: true,
    };
}

/// The last bytes of all messages so far, up to a number of them.
#[derive(Debug)]
struct Window {
    kept: VecDeque<u8>,
    size: usize,
}

impl Window {
    fn new(size: usize) -> Self {
        Self {
            kept: VecDeque::new(),
            size,
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        let Self { kept, size } = self;
        let bytes = &bytes[bytes.len().saturating_sub(*size)..];
        let overflow = (kept.len() + bytes.len()).saturating_sub(*size);
        kept.drain(..overflow);
        kept.extend(bytes);
    }

    /// All of it in order.
    fn parts(&self) -> impl Iterator<Item = &[u8]> {
        let (start, rest) = self.kept.as_slices();
        [start, rest].into_iter().filter(|part| !part.is_empty())
    }
}

/// How far a counter went, which cannot be more than there was.
fn passed(before: u64, after: u64, most: usize) -> usize {
    usize::try_from(after.saturating_sub(before)).map_or(most, |passed| passed.min(most))
}

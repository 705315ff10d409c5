//! permessage-deflate: messages that travel compressed (RFC 7692).
//!
//! # Theory of operation
//!
//! [`offer`] reads what the client offers and returns the [`Agreement`] that both sides keep to.
//! Then there are two halves that know nothing of each other:
//!
//! ```text
//!  a message to be sent ──► Deflater::deflate ──► payload of a frame with RSV1   (or: as it is)
//!  payload of such frames ──► Inflater::inflate ──► the message, piece by piece  (or a Violation)
//! ```
//!
//! * Without context takeover, the default, a connection owns no codec at all: each message borrows
//!   one of its engine thread's [`Codecs`] and gives it back. With takeover a compressor stays
//!   with its connection, a quarter of a megabyte. For receiving only the window does: a stream
//!   that has to say whether a message was whole cannot go on, so the next one gets its window.
//! * Inflating can stop in the middle of a piece: few bytes may hold megabytes, and the other
//!   connections of the thread must not wait for all of them.
//! * Inflating hands out small pieces, and the collector validates each: neither the limit on
//!   messages nor UTF-8 waits for the rest, and a bomb never takes more than the limit.
//! * Sending compressed is never a must (section 6): messages that are too small to gain, or that
//!   do not shrink, go out as they are, without RSV1.

mod codecs;
mod deflater;
mod inflater;
pub mod offer;
mod options;
mod pool;
pub mod request;

pub use codecs::Codecs;
pub use deflater::{Deflated, Deflater};
pub use inflater::Inflater;
pub(super) use inflater::Step;
pub use offer::{Agreement, Terms};
pub use options::Options;

#[cfg(test)]
mod tests {
    use super::*;

    const AGREEMENT: Agreement = Agreement {
        server_no_context_takeover: true,
        client_no_context_takeover: true,
        server_max_window_bits: None,
        client_max_window_bits: None,
    };
    const OPTIONS: Options = Options {
        threshold_bytes: 1,
        level: 3,
        server_no_context_takeover: true,
        client_no_context_takeover: true,
        server_max_window_bits: 15,
        client_max_window_bits: 15,
    };

    #[test]
    fn an_idle_connection_without_takeover_has_no_codec() {
        assert!(size_of::<Deflater>() + size_of::<Inflater>() < 512);
        let codecs = Codecs::default();
        let deflater = Deflater::new(&AGREEMENT, &OPTIONS, &codecs);
        let mut inflater = Inflater::new(&AGREEMENT, &codecs);
        let message = [b'a'; 1000];
        let deflated = deflater.deflate(&message).unwrap();
        let (start, rest) = deflated.payload().split_at(3);
        let mut came = Vec::new();
        inflater
            .admit(deflated.payload().len() as u64, 1000)
            .unwrap();
        assert!(!inflater.holds_codec());
        for (piece, is_end) in [(start, false), (rest, true)] {
            let collect = |inflated: &[u8]| {
                came.extend_from_slice(inflated);
                Ok(())
            };
            let allowance = &mut usize::MAX.clone();
            inflater.inflate(piece, is_end, allowance, collect).unwrap();
            assert_eq!(inflater.holds_codec(), !is_end);
        }
        assert_eq!(came, message);
    }

    #[test]
    fn connections_of_one_thread_share_its_codecs() {
        let [ours, theirs] = [Codecs::default(), Codecs::default()];
        for _ in 0..3 {
            let deflater = Deflater::new(&AGREEMENT, &OPTIONS, &ours);
            let mut inflater = Inflater::new(&AGREEMENT, &ours);
            let deflated = deflater.deflate(&[b'a'; 1000]).unwrap();
            let payload = deflated.payload();
            inflater.admit(payload.len() as u64, 1000).unwrap();
            let allowance = &mut usize::MAX.clone();
            (inflater.inflate(payload, true, allowance, |_| Ok(()))).unwrap();
        }
        assert_eq!(waiting(&ours), (1, 1));
        assert_eq!(waiting(&theirs), (0, 0));
    }

    /// Its output does not fit into what a message may grow to, so some stays in the compressor.
    #[test]
    fn a_message_that_does_not_shrink_costs_no_compressor() {
        let mut state = 4711_u32;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()[0]
        })
        .take(300_000)
        .collect();
        let codecs = Codecs::default();
        let deflater = Deflater::new(&AGREEMENT, &OPTIONS, &codecs);
        for length in [1, 100, 1000, 64 * 1024, 64 * 1024 + 1, 300_000] {
            assert!(deflater.deflate(&noise[..length]).is_none(), "{length}");
            assert_eq!(waiting(&codecs).0, 1, "{length}");
        }
        let keeping = Agreement {
            server_no_context_takeover: false,
            ..AGREEMENT
        };
        let deflater = Deflater::new(&keeping, &OPTIONS, &codecs);
        assert!(!deflater.has_context());
        for length in [1, 100, 1000, 64 * 1024, 64 * 1024 + 1, 300_000] {
            assert!(deflater.deflate(&noise[..length]).is_none(), "{length}");
            assert!(deflater.has_context(), "{length}");
        }
    }

    /// How many compressors and streams wait, all of which it takes.
    fn waiting(codecs: &Codecs) -> (usize, usize) {
        let compressors = std::iter::from_fn(|| codecs.compressors.take(|_| true));
        let streams = std::iter::from_fn(|| codecs.streams.take(|_| true));
        (compressors.count(), streams.count())
    }
}

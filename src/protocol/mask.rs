//! Unmasking (RFC 6455 section 5.3), and the keys that a client masks with.

use std::{
    cell::RefCell,
    sync::atomic::{AtomicU64, Ordering},
};

use rand::{RngExt, rngs::StdRng};

/// Rises with each fork, in the child: its threads begin with seeds of their own.
static SEEDS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static KEYS: RefCell<Option<(u64, StdRng)>> = const { RefCell::new(None) };
}

/// A new key, which a peer cannot guess from those before (RFC 6455 section 10.3).
pub fn fresh_key() -> [u8; 4] {
    let seeds = SEEDS.load(Ordering::Relaxed);
    KEYS.with_borrow_mut(|keys| match keys {
        Some((seeded, generator)) if *seeded == seeds => generator.random(),
        _ => {
            let (_, generator) = keys.insert((seeds, rand::make_rng()));
            generator.random()
        }
    })
}

/// Has a forked child choose keys that are not its parent's.
pub fn after_fork_in_child() {
    SEEDS.fetch_add(1, Ordering::Relaxed);
}

/// Bytes per step of the main loop, two or four vector registers on the machines we know.
const BLOCK: usize = 32;
const WORD: usize = 8;

/// Applies `key` to `payload` in place; doing it twice gives the original back.
///
/// `offset` is the position of `payload[0]` within its frame's payload, so that a payload can be
/// unmasked in the pieces in which it arrives.
pub fn unmask(payload: &mut [u8], key: [u8; 4], offset: usize) {
    if key == [0; 4] {
        return;
    }
    let mut key = key;
    key.rotate_left(offset % 4);

    // Both steps are multiples of the key's length, so the key is in phase at each of them. The
    // compiler turns fixed-size zips into vector and word operations.
    let pattern = [key; BLOCK / 4];
    let pattern = pattern.as_flattened();
    let mut blocks = payload.chunks_exact_mut(BLOCK);
    for block in &mut blocks {
        xor(block, pattern);
    }
    let mut words = blocks.into_remainder().chunks_exact_mut(WORD);
    for word in &mut words {
        xor(word, &pattern[..WORD]);
    }
    xor(words.into_remainder(), &pattern[..WORD]);
}

#[inline]
fn xor(bytes: &mut [u8], pattern: &[u8]) {
    for (byte, mask) in bytes.iter_mut().zip(pattern) {
        *byte ^= mask;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn naive(payload: &mut [u8], key: [u8; 4], offset: usize) {
        for (i, byte) in payload.iter_mut().enumerate() {
            *byte ^= key[(offset + i) % 4];
        }
    }

    fn sample(len: usize) -> Vec<u8> {
        (0..=250).cycle().step_by(131).take(len).collect()
    }

    #[test]
    fn every_length_offset_and_alignment_is_unmasked_like_byte_by_byte() {
        let key = [0x37, 0xfa, 0x21, 0x3d];
        for len in 0..150 {
            for offset in 0..9 {
                for start in 0..9.min(len) {
                    let mut fast = sample(len);
                    let mut slow = fast.clone();
                    unmask(&mut fast[start..], key, offset);
                    naive(&mut slow[start..], key, offset);
                    assert_eq!(fast, slow, "len {len}, offset {offset}, start {start}");
                }
            }
        }
    }

    #[test]
    fn pieces_are_unmasked_like_the_whole() {
        let key = [1, 2, 3, 250];
        let mut whole = sample(1000);
        unmask(&mut whole, key, 0);
        for piece in [1, 3, 7, 32, 33, 999] {
            let mut pieces = sample(1000);
            let mut offset = 0;
            for chunk in pieces.chunks_mut(piece) {
                unmask(chunk, key, offset);
                offset += chunk.len();
            }
            assert_eq!(pieces, whole, "pieces of {piece}");
        }
    }

    #[test]
    fn the_example_of_the_rfc_is_hello() {
        let mut payload = [0x7f, 0x9f, 0x4d, 0x51, 0x58];
        unmask(&mut payload, [0x37, 0xfa, 0x21, 0x3d], 0);
        assert_eq!(&payload, b"Hello");
    }

    #[test]
    fn the_largest_offset_does_not_overflow() {
        let mut payload = [0; 5];
        unmask(&mut payload, [1, 2, 3, 4], usize::MAX);
        assert_eq!(payload, [4, 1, 2, 3, 4]);
    }
}

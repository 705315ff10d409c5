//! The content of every message: a pure function of connection, number and position.
//!
//! A payload opens with its address (its connection and its number) and goes on with a stretch of
//! one long aperiodic pattern, starting at a place derived from the address. Two messages thus
//! differ in their bodies too, and a byte that moved, changed or came twice does not fit.

use crate::frame::{self, Opcode};

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const CONNECTION_DIGITS: usize = 4;
const NUMBER_DIGITS: usize = 8;
/// Bytes of the address and the mark behind it: the shortest payload there is.
pub const HEAD: usize = CONNECTION_DIGITS + NUMBER_DIGITS + 1;
/// Different places at which a body may start in the pattern; prime, so that consecutive messages
/// spread.
const SHIFTS: u64 = 4093;

/// Sender of a message and its number among that sender's messages, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// Index of the connection.
    pub connection: u32,
    /// Number of the message on that connection.
    pub number: u64,
}

/// All messages of one kind and size.
#[derive(Debug)]
pub struct Script {
    kind: Opcode,
    size: usize,
    pattern: Vec<u8>,
}

impl Script {
    /// Messages of `size` payload bytes, sent as `kind` (text or binary).
    ///
    /// # Errors
    /// When `size` cannot hold the address of a message.
    pub fn new(kind: Opcode, size: usize) -> Result<Self, String> {
        if size < HEAD {
            return Err(format!(
                "a payload of {size} bytes is too small to be told apart; the least is {HEAD}"
            ));
        }
        let mut pattern = vec![0; size + usize::try_from(SHIFTS).unwrap_or(usize::MAX)];
        for (index, byte) in (0u64..).zip(&mut pattern) {
            let random = mix(index).to_le_bytes()[0];
            *byte = match kind {
                Opcode::Binary => random,
                _ => ALPHABET[usize::from(random) % ALPHABET.len()],
            };
        }
        Ok(Self {
            kind,
            size,
            pattern,
        })
    }

    /// Text or binary.
    pub fn kind(&self) -> Opcode {
        self.kind
    }

    /// Payload bytes of each message.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Bytes of one masked frame on the wire.
    pub fn frame_len(&self) -> usize {
        frame::client_header_len(self.size) + self.size
    }

    /// Appends the frame of `address` from its byte `from` on, at most `room` bytes of it.
    pub fn push_frame(&self, address: Address, from: usize, room: usize, out: &mut Vec<u8>) {
        let mask = mask_of(address);
        let header = frame::client_header(self.kind, self.size, mask);
        let header = header.as_slice();
        let until = self.frame_len().min(from + room);
        if from < header.len() {
            out.extend_from_slice(&header[from..until.min(header.len())]);
        }
        if until > header.len() {
            let body = from.max(header.len()) - header.len();
            let start = out.len();
            self.push_payload(address, body, until - header.len(), out);
            frame::mask(&mut out[start..], mask, body);
        }
    }

    /// Appends bytes `from..until` of the payload of `address`.
    pub fn push_payload(&self, address: Address, from: usize, until: usize, out: &mut Vec<u8>) {
        if from < HEAD {
            out.extend_from_slice(&self.head(address)[from..until.min(HEAD)]);
        }
        if until > HEAD {
            let shift = shift_of(address);
            out.extend_from_slice(&self.pattern[shift + from.max(HEAD)..shift + until]);
        }
    }

    /// Whether `bytes` are what the payload of `address` holds from position `at` on.
    pub fn fits(&self, address: Address, at: usize, bytes: &[u8]) -> bool {
        let until = at + bytes.len();
        if until > self.size {
            return false;
        }
        let in_head = HEAD.saturating_sub(at).min(bytes.len());
        if in_head > 0 && bytes[..in_head] != self.head(address)[at..at + in_head] {
            return false;
        }
        let shift = shift_of(address);
        bytes[in_head..] == self.pattern[shift + at + in_head..shift + until]
    }

    /// The message that `payload` is, when it is one of this script down to the last byte.
    pub fn identify(&self, payload: &[u8]) -> Option<Address> {
        let connection = digits(payload.get(..CONNECTION_DIGITS)?)?;
        let number = digits(payload.get(CONNECTION_DIGITS..HEAD - 1)?)?;
        let address = Address {
            connection: u32::try_from(connection).ok()?,
            number,
        };
        (payload.len() == self.size && self.fits(address, 0, payload)).then_some(address)
    }

    fn head(&self, address: Address) -> [u8; HEAD] {
        let mut head = [0; HEAD];
        let (connection, rest) = head.split_at_mut(CONNECTION_DIGITS);
        write_digits(u64::from(address.connection), connection);
        write_digits(address.number, &mut rest[..NUMBER_DIGITS]);
        // In binary messages a byte no UTF-8 text can hold: some servers guess the kind from it.
        rest[NUMBER_DIGITS] = if self.kind == Opcode::Binary {
            0xff
        } else {
            b'~'
        };
        head
    }
}

fn write_digits(mut value: u64, out: &mut [u8]) {
    for byte in out.iter_mut().rev() {
        *byte = ALPHABET[usize::from(value.to_le_bytes()[0] & 63)];
        value >>= 6;
    }
}

fn digits(bytes: &[u8]) -> Option<u64> {
    bytes.iter().try_fold(0u64, |value, byte| {
        let digit = ALPHABET.iter().position(|letter| letter == byte)?;
        Some(value << 6 | digit as u64)
    })
}

fn spread(address: Address) -> u64 {
    mix(u64::from(address.connection) << 40 ^ address.number)
}

fn shift_of(address: Address) -> usize {
    usize::try_from(spread(address) % SHIFTS).unwrap_or(0)
}

fn mask_of(address: Address) -> [u8; 4] {
    let bytes = spread(address).to_le_bytes();
    [bytes[4], bytes[5], bytes[6], bytes[7]]
}

/// One number turned into another that looks unrelated to it (the finaliser of `SplitMix64`).
pub(crate) fn mix(value: u64) -> u64 {
    let mut mixed = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Address = Address {
        connection: 7,
        number: 300,
    };

    fn payload(script: &Script, address: Address) -> Vec<u8> {
        let mut bytes = Vec::new();
        script.push_payload(address, 0, script.size(), &mut bytes);
        bytes
    }

    #[test]
    fn a_payload_names_its_sender_and_number() {
        for kind in [Opcode::Text, Opcode::Binary] {
            for size in [HEAD, 32, 70_000] {
                let script = Script::new(kind, size).unwrap();
                assert_eq!(script.identify(&payload(&script, HERE)), Some(HERE));
            }
        }
    }

    #[test]
    fn every_changed_byte_is_seen() {
        let script = Script::new(Opcode::Text, 200).unwrap();
        let good = payload(&script, HERE);
        for index in 0..good.len() {
            let mut bad = good.clone();
            bad[index] ^= 1;
            assert!(!script.fits(HERE, 0, &bad), "byte {index}");
            assert_ne!(script.identify(&bad), Some(HERE), "byte {index}");
        }
    }

    #[test]
    fn text_is_utf8_and_binary_is_not() {
        let text = Script::new(Opcode::Text, 64).unwrap();
        let binary = Script::new(Opcode::Binary, HEAD).unwrap();
        assert!(std::str::from_utf8(&payload(&text, HERE)).is_ok());
        assert!(std::str::from_utf8(&payload(&binary, HERE)).is_err());
    }

    #[test]
    fn a_frame_is_the_same_in_pieces() {
        for size in [HEAD, 125, 126, 65_535, 65_536] {
            let script = Script::new(Opcode::Binary, size).unwrap();
            let mut whole = Vec::new();
            script.push_frame(HERE, 0, usize::MAX - size, &mut whole);
            assert_eq!(whole.len(), script.frame_len());
            for step in [1, 3, 1000] {
                let mut pieces = Vec::new();
                while pieces.len() < whole.len() {
                    let from = pieces.len();
                    script.push_frame(HERE, from, step, &mut pieces);
                }
                assert!(pieces == whole, "size {size}, step {step}");
            }
        }
    }

    #[test]
    fn too_small_a_payload_is_refused() {
        assert!(Script::new(Opcode::Text, HEAD - 1).is_err());
    }
}

//! Bytes that clients might send: honest traffic, single frames of every kind, and damage to both.

use _core::protocol::mask::unmask;
use proptest::{collection::vec, prelude::*, sample::Index};

/// How the length of a frame is written.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Form {
    Shortest,
    Bits16,
    Bits64,
    /// The highest of the 64 bits set.
    Bit63,
}

#[derive(Clone, Debug)]
pub(crate) struct Frame {
    /// FIN, the reserved bits and the opcode, as they stand on the wire.
    pub(crate) first: u8,
    pub(crate) key: Option<[u8; 4]>,
    pub(crate) form: Form,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    pub(crate) fn new(first: u8, payload: &[u8]) -> Self {
        Self {
            first,
            key: Some([0x12, 0xf4, 0x56, 0x78]),
            form: Form::Shortest,
            payload: payload.to_vec(),
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let len = self.payload.len();
        let mask_bit = if self.key.is_some() { 0x80 } else { 0 };
        let mut bytes = vec![self.first];
        match (self.form, len) {
            (Form::Shortest, 0..=125) => bytes.push(mask_bit | u8::try_from(len).unwrap()),
            (Form::Shortest | Form::Bits16, 0..=0xFFFF) => {
                bytes.push(mask_bit | 0x7E);
                bytes.extend_from_slice(&u16::try_from(len).unwrap().to_be_bytes());
            }
            (form, _) => {
                let high = u64::from(matches!(form, Form::Bit63)) << 63;
                bytes.push(mask_bit | 0x7F);
                bytes.extend_from_slice(&(high | len as u64).to_be_bytes());
            }
        }
        let start = bytes.len() + self.key.map_or(0, |key| key.len());
        bytes.extend_from_slice(self.key.as_ref().map_or(&[][..], |key| key));
        bytes.extend_from_slice(&self.payload);
        unmask(&mut bytes[start..], self.key.unwrap_or_default(), 0);
        bytes
    }
}

pub(crate) fn encode_all(frames: &[Frame]) -> Vec<u8> {
    frames.iter().flat_map(Frame::encode).collect()
}

/// Text with characters of one to four bytes.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[ -~]{0,40}",
        "[aß水🎉\u{10ffff}]{0,30}",
        Just("水".repeat(60)),
    ]
}

fn payload() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => vec(any::<u8>(), 0..40),
        2 => vec(any::<u8>(), 120..140),
        1 => vec(any::<u8>(), 250..320),
    ]
}

fn key() -> impl Strategy<Value = Option<[u8; 4]>> {
    any::<[u8; 4]>().prop_map(Some)
}

fn control() -> impl Strategy<Value = Frame> {
    let first = prop_oneof![Just(0x89), Just(0x8A)];
    (first, key(), vec(any::<u8>(), 0..=125)).prop_map(|(first, key, payload)| Frame {
        first,
        key,
        form: Form::Shortest,
        payload,
    })
}

/// One message in fragments cut anywhere, control frames between them.
fn message() -> impl Strategy<Value = Vec<Frame>> {
    let content = prop_oneof![
        text().prop_map(|text| (0x1, text.into_bytes())),
        payload().prop_map(|payload| (0x2, payload)),
    ];
    let gap = proptest::option::weighted(0.2, control());
    let cuts = vec((any::<Index>(), key(), gap), 0..4);
    (content, key(), cuts).prop_map(|((opcode, content), key, cuts)| {
        let mut cuts: Vec<_> = cuts
            .into_iter()
            .map(|(at, key, gap)| (at.index(content.len() + 1), key, gap))
            .collect();
        cuts.sort_by_key(|(at, ..)| *at);
        let mut frames = Vec::new();
        let mut opcode = opcode;
        let mut start = 0;
        for (at, key, gap) in cuts {
            frames.push(Frame {
                first: opcode,
                key,
                form: Form::Shortest,
                payload: content[start..at].to_vec(),
            });
            frames.extend(gap);
            opcode = 0;
            start = at;
        }
        frames.push(Frame {
            first: 0x80 | opcode,
            key,
            form: Form::Shortest,
            payload: content[start..].to_vec(),
        });
        frames
    })
}

fn close() -> impl Strategy<Value = Frame> {
    let code = prop_oneof![
        Just(1000_u16),
        Just(1001),
        1000_u16..1020,
        3000_u16..5000,
        any::<u16>(),
    ];
    let said = (code, text()).prop_map(|(code, reason)| {
        let mut payload = [&code.to_be_bytes(), reason.as_bytes()].concat();
        payload.truncate(125);
        payload
    });
    let payload = prop_oneof![
        1 => Just(vec![]),
        4 => said,
        1 => vec(any::<u8>(), 0..6),
    ];
    payload.prop_map(|payload| Frame::new(0x88, &payload))
}

/// Frames that keep to the rules, save that a message may break a limit and a close its own rules.
pub(crate) fn honest() -> impl Strategy<Value = Vec<Frame>> {
    let part = prop_oneof![
        4 => message(),
        1 => control().prop_map(|frame| vec![frame]),
    ];
    (vec(part, 0..6), proptest::option::of(close())).prop_map(|(parts, close)| {
        let mut frames = parts.concat();
        frames.extend(close);
        frames
    })
}

/// Frames without regard for any rule, most of them near to one.
pub(crate) fn wild() -> impl Strategy<Value = Vec<Frame>> {
    let first = prop_oneof![
        8 => (0_u8..3, any::<bool>()).prop_map(|(opcode, fin)| opcode | (u8::from(fin) << 7)),
        2 => 0x88_u8..0x8B,
        1 => any::<u8>(),
    ];
    let form = prop_oneof![
        20 => Just(Form::Shortest),
        1 => Just(Form::Bits16),
        1 => Just(Form::Bits64),
        1 => Just(Form::Bit63),
    ];
    let key = prop_oneof![20 => key(), 1 => Just(None)];
    let payload = prop_oneof![
        2 => text().prop_map(String::into_bytes),
        1 => payload(),
    ];
    let frame = (first, key, form, payload).prop_map(|(first, key, form, payload)| Frame {
        first,
        key,
        form,
        payload,
    });
    vec(frame, 0..8)
}

/// Bytes as they may arrive: whole traffic of either sort, cut off or damaged in a few places.
pub(crate) fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let traffic = prop_oneof![honest(), wild()].prop_map(|frames| encode_all(&frames));
    let damage = vec((any::<Index>(), 0_u8..4, any::<u8>()), 0..4);
    (traffic, damage).prop_map(|(mut bytes, damage)| {
        for (at, how, byte) in damage {
            let at = at.index(bytes.len() + 1);
            match how {
                0 => bytes.insert(at, byte),
                1 => bytes.truncate(at),
                _ if at == bytes.len() => {}
                2 => bytes[at] = byte,
                _ => {
                    bytes.remove(at);
                }
            }
        }
        bytes
    })
}

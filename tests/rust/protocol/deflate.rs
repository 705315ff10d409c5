//! permessage-deflate from end to end: our deflater, zlib's own streams, and hostile ones.

use _core::protocol::{
    deflate::{Agreement, Codecs, Deflater, Inflater, Options},
    limits::Limits,
    message::{Event, Kind, Receiver},
};
use flate2::{Compress, Compression, FlushCompress, write::DeflateEncoder};
use miniz_oxide::{
    DataFormat, MZFlush,
    inflate::stream::{self, InflateState},
};
use proptest::{collection::vec, prelude::*};
use std::{io::Write, sync::Mutex, thread};

use crate::{
    judge::{CODECS, Outcome, receive_with},
    traffic::{Frame, encode_all},
};

const FIN: u8 = 0x80;
const RSV1: u8 = 0x40;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const PING: u8 = 0x9;
const LIMITS: Limits = Limits {
    max_message_bytes: 1 << 20,
    max_frame_bytes: u32::MAX,
    max_fragments: 100,
};
const OPTIONS: Options = Options {
    threshold_bytes: 1,
    level: 3,
    server_no_context_takeover: true,
    client_no_context_takeover: true,
    server_max_window_bits: 15,
    client_max_window_bits: 15,
};
const FORGETFUL: Agreement = Agreement {
    server_no_context_takeover: true,
    client_no_context_takeover: true,
    server_max_window_bits: None,
    client_max_window_bits: None,
};
const KEEPING: Agreement = Agreement {
    server_no_context_takeover: false,
    client_no_context_takeover: false,
    ..FORGETFUL
};

fn receiver(agreement: Agreement, limits: Limits) -> Receiver {
    Receiver::new(limits).with_inflater(Inflater::new(&agreement, &CODECS))
}

/// The outcome, which neither the reads nor the agreement may change unless a test is about them.
fn outcome(agreement: Agreement, limits: Limits, frames: &[Frame]) -> Outcome {
    let bytes = encode_all(frames);
    let whole = receive_with(receiver(agreement, limits), [&bytes[..]]);
    for step in [1, 7, 1000] {
        let cut = receive_with(receiver(agreement, limits), bytes.chunks(step));
        assert_eq!(cut, whole, "reads of {step}");
    }
    whole
}

fn messages(agreement: Agreement, frames: &[Frame]) -> Vec<(Kind, Vec<u8>)> {
    let (events, violation) = outcome(agreement, LIMITS, frames);
    assert_eq!(violation, None);
    let message = |event| match event {
        Event::Message(message) => Some((message.kind, message.payload.to_vec())),
        _ => None,
    };
    events.into_iter().filter_map(message).collect()
}

fn failure(limits: Limits, frames: &[Frame]) -> (u16, String) {
    failure_under(FORGETFUL, limits, frames)
}

fn failure_under(agreement: Agreement, limits: Limits, frames: &[Frame]) -> (u16, String) {
    let (_, violation) = outcome(agreement, limits, frames);
    let violation = violation.unwrap();
    (violation.code, violation.reason.into_owned())
}

fn text(payload: &[u8]) -> Frame {
    Frame::new(FIN | RSV1 | TEXT, payload)
}

fn binary(payload: &[u8]) -> Frame {
    Frame::new(FIN | RSV1 | BINARY, payload)
}

/// A compressed message as zlib's own stream makes it, one after the other.
struct Client(Compress);

impl Client {
    fn new(bits: u8) -> Self {
        Self(Compress::new_with_window_bits(
            Compression::new(6),
            false,
            bits,
        ))
    }

    fn payload(&mut self, message: &[u8]) -> Vec<u8> {
        let mut payload = Vec::with_capacity(message.len() * 2 + 100);
        self.0
            .compress_vec(message, &mut payload, FlushCompress::Sync)
            .unwrap();
        let end = payload.len() - 4;
        assert_eq!(payload.split_off(end), [0, 0, 0xff, 0xff]);
        payload
    }
}

/// One message of a new stream.
fn deflated(message: &[u8]) -> Vec<u8> {
    Client::new(15).payload(message)
}

/// A stream that ends with a final block.
fn finished(message: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::new(6));
    encoder.write_all(message).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn the_examples_of_section_7_2_3_are_read() {
    let hello = |kind| vec![(kind, b"Hello".to_vec())];
    let plain = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
    for agreement in [FORGETFUL, KEEPING] {
        // 7.2.3.1: one block, in one frame and in two.
        assert_eq!(messages(agreement, &[text(&plain)]), hello(Kind::Text));
        let fragments = [
            Frame::new(RSV1 | TEXT, &plain[..3]),
            Frame::new(FIN, &plain[3..]),
        ];
        assert_eq!(messages(agreement, &fragments), hello(Kind::Text));
        // 7.2.3.3: a block without compression.
        let stored = [
            0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00,
        ];
        assert_eq!(messages(agreement, &[binary(&stored)]), hello(Kind::Binary));
        // 7.2.3.4: a final block.
        let last = [0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00];
        assert_eq!(messages(agreement, &[text(&last)]), hello(Kind::Text));
        // 7.2.3.5: two blocks.
        let two = [
            0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00,
        ];
        assert_eq!(messages(agreement, &[text(&two)]), hello(Kind::Text));
        // 7.2.3.6: an empty message. An empty payload cannot mean anything else.
        let empty = [(Kind::Binary, Vec::new())];
        assert_eq!(messages(agreement, &[binary(&[0x00])]), empty);
        assert_eq!(messages(agreement, &[binary(&[])]), empty);
    }
    // 7.2.3.2: the second message refers to the first.
    let again = [0xf2, 0x00, 0x11, 0x00, 0x00];
    let both = [text(&plain), text(&again)];
    let hellos = [hello(Kind::Text), hello(Kind::Text)].concat();
    assert_eq!(messages(KEEPING, &both), hellos);
    // A client that agreed to take over no context must not refer to the first message.
    assert_eq!(
        failure(LIMITS, &both),
        (1007, "compressed message is not DEFLATE".to_owned())
    );
}

#[test]
fn messages_come_back_from_every_window_with_and_without_takeover() {
    let sent: Vec<Vec<u8>> = (0..30)
        .map(|i| format!("message {i}: ").repeat(40 * i).into_bytes())
        .collect();
    for bits in 9..=15 {
        let agreement = Agreement {
            server_max_window_bits: Some(bits),
            client_max_window_bits: Some(bits),
            ..KEEPING
        };
        let mut client = Client::new(bits);
        let frames: Vec<_> = sent.iter().map(|m| text(&client.payload(m))).collect();
        let came: Vec<_> = messages(agreement, &frames)
            .into_iter()
            .map(|(_, message)| message)
            .collect();
        assert_eq!(came, sent, "{bits}");
        for agreement in [
            agreement,
            Agreement {
                server_no_context_takeover: true,
                client_no_context_takeover: true,
                ..agreement
            },
        ] {
            assert_eq!(there_and_back(agreement, &sent), sent, "{bits}");
        }
    }
}

/// The messages that an inflater of the same window makes of the frames of our deflater.
fn there_and_back(agreement: Agreement, sent: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let deflater = Deflater::new(&agreement, &OPTIONS, &CODECS);
    let frames: Vec<_> = sent
        .iter()
        .map(|message| match deflater.deflate(message) {
            Some(deflated) => {
                let frame = binary(deflated.payload());
                assert!(deflated.payload().len() < message.len());
                deflated.was_sent();
                frame
            }
            None => Frame::new(FIN | BINARY, message),
        })
        .collect();
    let as_client = Agreement {
        client_no_context_takeover: agreement.server_no_context_takeover,
        client_max_window_bits: agreement.server_max_window_bits,
        ..agreement
    };
    messages(as_client, &frames)
        .into_iter()
        .map(|(_, message)| message)
        .collect()
}

#[test]
fn takeover_makes_the_second_message_smaller_unless_the_first_was_not_sent() {
    let message = b"{\"user\": \"alice\", \"text\": \"what is said once need not be said again\"}";
    let deflater = Deflater::new(&KEEPING, &OPTIONS, &CODECS);
    let first = deflater.deflate(message).unwrap();
    // No other message may be added to the context meanwhile.
    assert!(deflater.deflate(message).is_none());
    let first_len = first.payload().len();
    drop(first);
    let again = deflater.deflate(message).unwrap();
    assert_eq!(again.payload().len(), first_len);
    again.was_sent();
    let third = deflater.deflate(message).unwrap();
    assert!(third.payload().len() < first_len / 4);
    third.was_sent();
    // A message that does not shrink is not sent compressed, and not referred to.
    assert!(deflater.deflate(&noise(100)).is_none());
    assert_eq!(
        deflater.deflate(message).unwrap().payload().len(),
        first_len
    );
}

/// Bytes without a pattern.
fn noise(len: usize) -> Vec<u8> {
    let step = |state: &mut u32| {
        *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        Some(state.to_be_bytes()[0])
    };
    std::iter::repeat_n((), len)
        .scan(4711, |state, ()| step(state))
        .collect()
}

#[test]
fn small_messages_and_those_that_do_not_shrink_go_as_they_are() {
    let options = Options {
        threshold_bytes: 64,
        ..OPTIONS
    };
    for agreement in [FORGETFUL, KEEPING] {
        let deflater = Deflater::new(&agreement, &options, &CODECS);
        assert!(deflater.deflate(&[b'a'; 63]).is_none());
        assert!(deflater.deflate(&[b'a'; 64]).is_some());
        assert!(deflater.deflate(&noise(90_000)).is_none());
        let eager = Options {
            threshold_bytes: 0,
            ..options
        };
        assert!(
            Deflater::new(&agreement, &eager, &CODECS)
                .deflate(b"")
                .is_none()
        );
    }
}

#[test]
fn what_does_not_shrink_wears_no_compressor_out() {
    for agreement in [FORGETFUL, KEEPING] {
        let deflater = Deflater::new(&agreement, &OPTIONS, &CODECS);
        for _ in 0..400 {
            assert!(deflater.deflate(&noise(1000)).is_none());
            assert!(deflater.deflate(&[b'a'; 100]).is_some());
        }
    }
}

/// Inflates with `miniz_oxide`, which shares no code with our compressor.
#[test]
fn what_does_not_shrink_leaves_nothing_in_a_compressor() {
    let noise = noise(150_000);
    for (agreement, level) in [FORGETFUL, KEEPING]
        .into_iter()
        .flat_map(|agreement| [1, 3, 6, 9].map(|level| (agreement, level)))
    {
        // Codecs of its own: the compressors of other tests would mix with them.
        let codecs = Codecs::default();
        let deflater = Deflater::new(&agreement, &Options { level, ..OPTIONS }, &codecs);
        let mut inflater = InflateState::new_boxed(DataFormat::Raw);
        for length in [100, 1000, 20_000, 60_000, 65_536, 70_000, 130_000, 150_000].repeat(3) {
            assert!(deflater.deflate(&noise[..length]).is_none());
            let message: Vec<u8> = noise[..1000].iter().map(|byte| byte & 7).collect();
            let deflated = deflater.deflate(&message).unwrap();
            if agreement.server_no_context_takeover {
                inflater.reset(DataFormat::Raw);
            }
            let payload = [deflated.payload(), &[0, 0, 0xff, 0xff]].concat();
            let mut came = vec![0; message.len() + 1];
            let result = stream::inflate(&mut inflater, &payload, &mut came, MZFlush::None);
            came.truncate(result.bytes_written);
            assert_eq!(came, message, "level {level} after {length} bytes of noise");
            deflated.was_sent();
        }
    }
}

/// The race: threads take codecs from the pool, and give them back, all at once. A codec that two
/// had, or that came with another's window or with something left inside, would mix their messages
/// up.
#[test]
fn threads_that_share_the_pool_do_not_share_codecs() {
    // A repetition so far back that only a large window reaches it.
    let again = noise(20_000).repeat(2);
    thread::scope(|scope| {
        for thread in 0..8_u8 {
            let again = &again;
            scope.spawn(move || {
                let bits = if thread % 2 == 0 { 9 } else { 15 };
                let agreement = Agreement {
                    server_max_window_bits: Some(bits),
                    ..FORGETFUL
                };
                let deflater = Deflater::new(&agreement, &OPTIONS, &CODECS);
                for round in 0..40 {
                    let deflated = deflater.deflate(again);
                    assert_eq!(deflated.is_some(), bits == 15, "another's window");
                    let sent: Vec<Vec<u8>> = (0..10)
                        .map(|i| {
                            format!("{thread} {round} {i} ")
                                .repeat(i * i * 7)
                                .into_bytes()
                        })
                        .collect();
                    assert_eq!(there_and_back(agreement, &sent), sent);
                }
            });
        }
    });
}

/// The race: threads send over one connection, whose messages refer to each other. A message must
/// go out before another thread's message refers to it.
#[test]
fn threads_that_share_a_context_keep_its_order() {
    let deflater = Deflater::new(&KEEPING, &OPTIONS, &CODECS);
    let frames = Mutex::new(Vec::new());
    thread::scope(|scope| {
        let (deflater, frames) = (&deflater, &frames);
        let send_many = |thread| {
            for i in 0..300_u32 {
                let message = format!("{thread}: {i}, ").repeat(20).into_bytes();
                let deflated = deflater.deflate(&message);
                let frame = match &deflated {
                    Some(deflated) => binary(deflated.payload()),
                    None => Frame::new(FIN | BINARY, &message),
                };
                frames.lock().unwrap().push((frame, message));
                if let Some(deflated) = deflated {
                    deflated.was_sent();
                }
            }
        };
        // Joined one by one: ThreadSanitizer does not see that a scope waits.
        let threads = [0, 1, 2, 3].map(|thread| scope.spawn(move || send_many(thread)));
        for thread in threads {
            thread.join().unwrap();
        }
    });
    let (frames, sent): (Vec<_>, Vec<_>) = frames.into_inner().unwrap().into_iter().unzip();
    let came = messages(KEEPING, &frames).into_iter();
    assert_eq!(came.map(|(_, message)| message).collect::<Vec<_>>(), sent);
}

#[test]
fn compressed_and_plain_messages_and_control_frames_mix() {
    let payload = deflated("grün".as_bytes());
    let frames = [
        Frame::new(FIN | TEXT, b"plain"),
        Frame::new(RSV1 | TEXT, &payload[..2]),
        Frame::new(FIN | PING, b"there?"),
        Frame::new(0, b""),
        Frame::new(0, &payload[2..3]),
        Frame::new(FIN, &payload[3..]),
        Frame::new(BINARY, b"pl"),
        Frame::new(FIN, b"ain"),
        binary(&deflated(b"last")),
    ];
    let (events, violation) = outcome(FORGETFUL, LIMITS, &frames);
    assert_eq!(violation, None);
    assert_eq!(events.len(), 5);
    let expected = [
        (Kind::Text, b"plain".to_vec()),
        (Kind::Text, "grün".as_bytes().to_vec()),
        (Kind::Binary, b"plain".to_vec()),
        (Kind::Binary, b"last".to_vec()),
    ];
    assert_eq!(messages(FORGETFUL, &frames), expected);
}

#[test]
fn rsv1_stands_on_the_first_frame_of_a_message_only() {
    let begun = Frame::new(RSV1 | TEXT, &deflated(b"Hello"));
    let misplaced = (
        1002,
        "RSV1 is set on a frame that begins no message".to_owned(),
    );
    for first in [RSV1, FIN | RSV1, FIN | RSV1 | PING, FIN | RSV1 | 0x8] {
        let frames = [begun.clone(), Frame::new(first, b"")];
        assert_eq!(failure(LIMITS, &frames), misplaced, "{first:x}");
    }
    let (events, violation) = receive_with(Receiver::new(LIMITS), [&text(b"").encode()[..]]);
    assert_eq!(events, []);
    let violation = violation.unwrap();
    assert_eq!(violation.code, 1002);
    assert_eq!(violation.reason, "reserved bit set without an extension");
}

#[test]
fn a_bomb_costs_no_more_than_the_limit() {
    let limits = Limits {
        max_message_bytes: 100_000,
        ..LIMITS
    };
    for size in [100_001, 10_000_000] {
        for payload in [deflated(&vec![0; size]), finished(&vec![0; size])] {
            assert!(payload.len() < size / 400);
            let mut receiver = receiver(FORGETFUL, limits);
            for mut read in binary(&payload).encode().chunks_mut(50) {
                match receiver.next(&mut read) {
                    Ok(event) => assert_eq!(event, None),
                    Err(violation) => assert_eq!(violation.code, 1009),
                }
                assert!(receiver.held_bytes() <= 100_000);
            }
            let too_big = (1009, "message has more than 100000 bytes".to_owned());
            assert_eq!(failure(limits, &[binary(&payload)]), too_big);
        }
    }
    let most = vec![7; 100_000];
    let frames = [binary(&deflated(&most)), binary(&finished(&most))];
    let (events, violation) = outcome(FORGETFUL, limits, &frames);
    assert_eq!((events.len(), violation), (2, None));
}

#[test]
fn text_fails_as_soon_as_it_is_wrong() {
    let mut client = Client::new(15);
    let start = client.payload("good until here \u{20ac}".as_bytes());
    let wrong = client.payload(b"\xff and more that never comes");
    let first = Frame::new(RSV1 | TEXT, &[&start[..], &[0, 0, 0xff, 0xff]].concat());
    let second = Frame::new(0, &wrong);
    assert_eq!(
        failure(LIMITS, &[first.clone(), second]),
        (1007, "text message is not UTF-8 at byte 19".to_owned())
    );
    // A second violation behind the first one is not the one that is reported.
    let also_no_deflate = [&wrong[..], &[0xff; 10]].concat();
    let second = Frame::new(0, &also_no_deflate);
    assert_eq!(failure(LIMITS, &[first, second]).0, 1007);

    let cut = text(&deflated(&"\u{20ac}".as_bytes()[..2]));
    assert_eq!(
        failure(LIMITS, &[cut]),
        (1007, "text message is not UTF-8 at byte 0".to_owned())
    );
}

#[test]
fn what_is_no_deflate_is_refused() {
    let not_deflate = (1007, "compressed message is not DEFLATE".to_owned());
    for payload in [
        // A block of the reserved type.
        &[0x07][..],
        // A length that does not match its complement.
        &[0x00, 0x05, 0x00, 0x00, 0x00],
        // Looks back beyond the beginning.
        &[0xf2, 0x00, 0x11, 0x00, 0x00],
        &[0xff; 40],
    ] {
        assert_eq!(failure(LIMITS, &[binary(payload)]), not_deflate);
    }
}

#[test]
fn a_message_that_ends_too_early_is_refused() {
    let whole = deflated(b"a message of some length, of which the end is missing");
    for end in 1..whole.len() - 1 {
        let (code, _) = failure(LIMITS, &[binary(&whole[..end])]);
        assert_eq!(code, 1007, "{end}");
    }
    // With takeover, too; and nothing behind the message is read.
    let mut client = Client::new(15);
    let sent = [
        &b"the first"[..],
        b"the second",
        b"the third, not first",
        b"the last",
    ];
    let payloads = sent.map(|message| client.payload(message));
    for end in 1..payloads[2].len() - 1 {
        let mut frames = payloads.each_ref().map(|payload| binary(payload));
        frames[2] = binary(&payloads[2][..end]);
        let (events, violation) = outcome(KEEPING, LIMITS, &frames);
        assert_eq!((events.len(), violation.unwrap().code), (2, 1007), "{end}");
    }
    // A block of twenty bytes, of which two have come: the tail behind it must not be taken for the
    // third.
    for agreement in [FORGETFUL, KEEPING] {
        let unfinished = [0x00, 0x14, 0x00, 0xeb, 0xff, 0x48, 0x65];
        let frames = [binary(&unfinished), binary(&deflated(b"next"))];
        let early = (1007, "compressed message ends too early".to_owned());
        assert_eq!(failure_under(agreement, LIMITS, &frames), early);
    }
}

#[test]
fn a_window_reaches_as_far_back_as_it_may_and_over_any_number_of_messages() {
    let long = noise(40_000);
    let mut client = Client::new(15);
    let sent = [
        &long[..100],
        &long[100..200],
        b".",
        &long[..200],
        &long,
        // As far as a window of 32 KiB reaches behind this.
        &long[long.len() - 32_000..],
        &long[long.len() - 100..],
    ];
    let payloads: Vec<_> = sent.iter().map(|message| client.payload(message)).collect();
    // It is referred to.
    assert!(payloads[3].len() < 30);
    assert!(payloads[5].len() < 1000);
    let frames: Vec<_> = payloads.iter().map(|payload| binary(payload)).collect();
    let came = messages(KEEPING, &frames);
    assert!(came.iter().map(|(_, message)| &message[..]).eq(sent));
}

#[test]
fn final_blocks_may_come_in_moderation() {
    let two = [finished(b"one "), finished(b"and two")].concat();
    let expected = [(Kind::Binary, b"one and two".to_vec())];
    for agreement in [FORGETFUL, KEEPING] {
        assert_eq!(messages(agreement, &[binary(&two)]), expected);
        // The next message is not harmed.
        let frames = [binary(&two), binary(&deflated(b"three"))];
        assert_eq!(messages(agreement, &frames)[1].1, b"three");
    }
    let many = finished(b"").repeat(1025);
    assert_eq!(
        failure(LIMITS, &[binary(&many)]),
        (
            1009,
            "compressed message has more than 1024 final blocks".to_owned()
        )
    );
}

#[test]
fn blocks_that_hold_nothing_come_to_an_end() {
    let limits = Limits {
        max_message_bytes: 1000,
        ..LIMITS
    };
    let nothing = [0x00, 0x00, 0x00, 0xff, 0xff];
    let most = 2000 + 65536;
    let just = [&nothing.repeat(most / 5)[..], &[0]].concat();
    assert_eq!(just.len(), most);
    let (events, violation) = outcome(FORGETFUL, limits, &[binary(&just)]);
    assert_eq!((events.len(), violation), (1, None));
    let too_many = [Frame::new(RSV1 | BINARY, &just), Frame::new(FIN, &[0])];
    assert_eq!(
        failure(limits, &too_many),
        (
            1009,
            "compressed message has more than 67536 bytes".to_owned()
        )
    );
}

/// Blocks of a few kinds, of which random bytes would hold few.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => "[ a-e]{0,300}".prop_map(|text| deflated(text.as_bytes())),
        2 => "[aß水🎉]{0,30}".prop_map(|text| finished(text.as_bytes())),
        1 => (1_usize..2000).prop_map(|len| deflated(&vec![b'x'; len * 50])),
        1 => Just(vec![0x00, 0x00, 0x00, 0xff, 0xff]),
        1 => vec(any::<u8>(), 0..10),
    ];
    vec(piece, 0..4).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn any_stream_gives_the_same_outcome_however_it_is_cut(
        streams in vec((stream(), any::<bool>(), 0_usize..40), 1..4),
        keeps in any::<bool>(),
    ) {
        let mut frames = Vec::new();
        for (stream, is_text, cut) in &streams {
            let (start, rest) = stream.split_at((*cut).min(stream.len()));
            let opcode = if *is_text { TEXT } else { BINARY };
            frames.extend([Frame::new(RSV1 | opcode, start), Frame::new(FIN, rest)]);
        }
        let limits = Limits { max_message_bytes: 20_000, ..LIMITS };
        let (_, violation) = outcome(if keeps { KEEPING } else { FORGETFUL }, limits, &frames);
        if let Some(violation) = violation {
            prop_assert!([1007, 1009].contains(&violation.code));
        }
    }

    #[test]
    fn whatever_is_sent_comes_back(
        sent in vec(vec(0_u8..8, 0..3000), 1..8),
        bits in 9_u8..=15,
        keeps in any::<bool>(),
    ) {
        let agreement = Agreement {
            server_max_window_bits: Some(bits),
            ..if keeps { KEEPING } else { FORGETFUL }
        };
        prop_assert_eq!(there_and_back(agreement, &sent), sent);
    }
}

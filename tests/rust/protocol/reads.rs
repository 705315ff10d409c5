//! The outcome is a matter of the bytes, never of how the reads cut them.

use std::iter;

use _core::protocol::{close, limits::Limits, message::Receiver};
use proptest::{collection::vec, prelude::*, sample::Index};

use crate::{
    judge::{LIMITS, Outcome, receive, take_all},
    traffic::{self, encode_all},
};

/// Feeds `bytes` cut at `cuts`, which need no order.
fn receive_cut(limits: Limits, bytes: &[u8], cuts: &[Index]) -> Outcome {
    let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    cuts.sort_unstable();
    cuts.push(bytes.len());
    let mut start = 0;
    let reads = cuts.into_iter().map(|end| {
        let read = &bytes[start..end];
        start = end;
        read
    });
    receive(limits, reads)
}

/// Feeds `bytes` in reads of up to `most`, each to where the receiver wants it.
fn receive_in_place(limits: Limits, mut bytes: &[u8], most: usize) -> Outcome {
    let mut receiver = Receiver::new(limits);
    let mut outcome = Outcome::default();
    while !bytes.is_empty() {
        let mut elsewhere = Vec::new();
        let (buffer, most) = receiver.tail(most).unwrap_or((&mut elsewhere, most));
        let (read, rest) = bytes.split_at(most.min(bytes.len()));
        assert!(!read.is_empty());
        buffer.extend_from_slice(read);
        bytes = rest;
        take_all(&mut receiver, &mut elsewhere, &mut outcome);
    }
    outcome
}

proptest! {
    #[test]
    fn any_bytes_give_the_same_outcome_however_they_are_cut(
        bytes in traffic::bytes(),
        cuts in vec(any::<Index>(), 0..20),
    ) {
        let whole = receive(LIMITS, [&bytes[..]]);
        let (first, second) = bytes.split_at(bytes.len() / 2);
        prop_assert_eq!(&receive(LIMITS, [first, second]), &whole);
        prop_assert_eq!(&receive_cut(LIMITS, &bytes, &cuts), &whole);
        prop_assert_eq!(&receive(LIMITS, bytes.chunks(1)), &whole);
    }

    #[test]
    fn any_bytes_give_the_same_outcome_wherever_they_are_read(
        bytes in traffic::bytes(),
        most in 1..50_usize,
    ) {
        let whole = receive(LIMITS, [&bytes[..]]);
        prop_assert_eq!(&receive_in_place(LIMITS, &bytes, most), &whole);
    }

    #[test]
    fn noise_gives_the_same_outcome_however_it_is_cut(bytes in vec(any::<u8>(), 0..200)) {
        let whole = receive(LIMITS, [&bytes[..]]);
        prop_assert_eq!(&receive(LIMITS, bytes.chunks(1)), &whole);
        prop_assert_eq!(&receive(LIMITS, bytes.chunks(3)), &whole);
    }

    #[test]
    fn violations_can_be_reported_in_a_close_frame(frames in traffic::wild()) {
        let (_, violation) = receive(LIMITS, [&encode_all(&frames)[..]]);
        if let Some(violation) = violation {
            prop_assert!([1002, 1007, 1009].contains(&violation.code));
            prop_assert!(violation.reason.len() <= close::MAX_REASON_BYTES);
            let frame = close::CloseFrame::from(&violation);
            prop_assert_eq!(close::CloseFrame::parse(&frame.encode()[2..]), Ok(frame));
        }
    }

    #[test]
    fn no_more_is_held_than_twice_what_came(bytes in traffic::bytes()) {
        let mut receiver = Receiver::new(Limits { max_message_bytes: usize::MAX, ..LIMITS });
        for (came, byte) in iter::zip(1.., bytes) {
            let mut read = [byte];
            let mut input = &mut read[..];
            while let Ok(Some(_)) = receiver.next(&mut input) {}
            // Eight bytes are the least that a buffer has.
            prop_assert!(receiver.held_bytes() <= 8 + 2 * came);
        }
    }

    #[test]
    fn nothing_is_held_between_messages(frames in traffic::honest()) {
        let mut receiver = Receiver::new(LIMITS);
        for mut read in frames.iter().map(traffic::Frame::encode) {
            let is_fragment = read[0] & 0x80 == 0;
            let is_control = read[0] & 0x08 != 0;
            let mut input = &mut read[..];
            while let Ok(Some(_)) = receiver.next(&mut input) {}
            if !is_fragment && !is_control {
                prop_assert_eq!(receiver.held_bytes(), 0);
            }
        }
    }
}

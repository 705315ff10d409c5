//! The state of a receiver as bytes of its peer, for another process that goes on from there.

use super::{Frame, Receiver};
use crate::protocol::{
    frame::{self, Kind, Opcode, Role},
    mask,
};

impl Receiver {
    /// Bytes that bring a new receiver with the same limits to where this one is: those of an
    /// unfinished message, as few frames as the limits allow, and the start of the next frame.
    ///
    /// `None` in the middle of a compressed message, after the end, and for the client's end: there
    /// are no such bytes. The window of a compressed message before is not in them.
    pub fn replay(&self) -> Option<Vec<u8>> {
        if self.role != Some(Role::Server) || self.message.is_compressed {
            return None;
        }
        let mut bytes = Vec::new();
        let control = self.frame.filter(|frame| frame.opcode.is_control());
        let data = self.frame.filter(|frame| !frame.opcode.is_control());
        if let Some(kind) = self.message.kind {
            self.replay_message(kind, data, &mut bytes)?;
        }
        if let Some(control) = control {
            append(&mut bytes, control.opcode, control, &self.control)?;
        }
        bytes.extend_from_slice(self.header.get(..usize::from(self.header_len))?);
        Some(bytes)
    }

    fn replay_message(&self, kind: Kind, data: Option<Frame>, bytes: &mut Vec<u8>) -> Option<()> {
        let (settled, fresh) = (self.message.buffer).split_at_checked(self.message.settled)?;
        let most = match self.limits.max_frame_bytes {
            u32::MAX => usize::MAX,
            most => usize::try_from(most).ok()?.max(1),
        };
        // As much as possible is said to be of the frame that is arriving, so that there are no more
        // frames than there were.
        let own = data.map_or(0, |frame| {
            let remaining = usize::try_from(frame.remaining).unwrap_or(usize::MAX);
            most.saturating_sub(remaining).min(settled.len())
        });
        let (before, own) = settled.split_at_checked(settled.len() - own)?;
        let mut opcode = Opcode::from(kind);
        let mut rest = before;
        while !rest.is_empty() || (data.is_none() && opcode != Opcode::Continuation) {
            let (piece, left) = rest.split_at(rest.len().min(most));
            frame::append_client_head(bytes, opcode, false, piece.len(), [0; 4]);
            bytes.extend_from_slice(piece);
            (rest, opcode) = (left, Opcode::Continuation);
        }
        if let Some(frame) = data {
            append(bytes, opcode, frame, own)?;
        }
        // They are masked still.
        bytes.extend_from_slice(fresh);
        Some(())
    }
}

/// Appends a frame that is arriving, which begins with `own`, under a key by which its other bytes
/// can be unmasked.
fn append(bytes: &mut Vec<u8>, opcode: Opcode, frame: Frame, own: &[u8]) -> Option<()> {
    let remaining = usize::try_from(frame.remaining).ok()?;
    let mut key = frame.key;
    key.rotate_left(usize::from(frame.phase));
    key.rotate_right(own.len() % 4);
    let length = own.len().checked_add(remaining)?;
    frame::append_client_head(bytes, opcode, frame.is_final, length, key);
    let start = bytes.len();
    bytes.extend_from_slice(own);
    mask::unmask(bytes.get_mut(start..)?, key, 0);
    Some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::protocol::{
        limits::Limits,
        message::{Event, Message},
    };

    const LIMITS: Limits = Limits {
        max_message_bytes: 4096,
        max_frame_bytes: 64,
        max_fragments: 5,
    };

    fn events(receiver: &mut Receiver, bytes: &[u8]) -> Vec<Event> {
        let mut bytes = bytes.to_vec();
        let mut rest = &mut bytes[..];
        let mut found = Vec::new();
        while let Some(event) = receiver.next(&mut rest).unwrap() {
            found.push(event);
        }
        found
    }

    /// A message in frames of these sizes, each behind a ping.
    fn frames(kind: Kind, sizes: &[usize], key: [u8; 4]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (at, size) in sizes.iter().enumerate() {
            frame::append_masked(&mut bytes, Opcode::Ping, b"ping?", key);
            let opcode = match at {
                0 => Opcode::from(kind),
                _ => Opcode::Continuation,
            };
            let is_final = at + 1 == sizes.len();
            frame::append_client_head(&mut bytes, opcode, is_final, *size, key);
            let start = bytes.len();
            // In text of two bytes a character, which frames may cut in two.
            let before: usize = sizes[..at].iter().sum();
            bytes.extend((before..before + size).map(|at| [0xC3, 0xA4][at % 2]));
            mask::unmask(&mut bytes[start..], key, 0);
        }
        bytes
    }

    proptest! {
        #[test]
        fn another_receiver_goes_on_with_the_same_events(
            sizes in prop::collection::vec(0_usize..65, 1..5),
            key: [u8; 4],
            is_text: bool,
            cut: prop::sample::Index,
        ) {
            let kind = if is_text { Kind::Text } else { Kind::Binary };
            let mut sizes = sizes;
            if sizes.iter().sum::<usize>() % 2 == 1 {
                sizes.push(1);
            }
            let bytes = frames(kind, &sizes, key);
            let expected = events(&mut Receiver::new(LIMITS), &bytes);
            let (before, after) = bytes.split_at(cut.index(bytes.len() + 1));
            let mut first = Receiver::new(LIMITS);
            let mut found = events(&mut first, before);
            let replayed = first.replay().unwrap();
            let mut second = Receiver::new(LIMITS);
            found.extend(events(&mut second, &replayed));
            found.extend(events(&mut second, after));
            prop_assert_eq!(found, expected);
            prop_assert_eq!(second.unfinished(), None);
        }
    }

    #[test]
    fn bytes_that_were_read_into_the_message_are_replayed_as_they_came() {
        let limits = Limits {
            max_message_bytes: 1024 * 1024,
            max_frame_bytes: u32::MAX,
            max_fragments: 1,
        };
        let key = [1, 2, 3, 4];
        let payload: Vec<u8> = (0..=255).cycle().take(300_001).collect();
        let mut bytes = Vec::new();
        frame::append_masked(&mut bytes, Opcode::Binary, &payload, key);
        let mut first = Receiver::new(limits);
        assert_eq!(events(&mut first, &bytes[..200_003]), []);
        let (buffer, most) = first.tail(10_001).unwrap();
        buffer.extend_from_slice(&bytes[200_003..][..most]);
        let replayed = first.replay().unwrap();
        let mut second = Receiver::new(limits);
        let mut found = events(&mut second, &replayed);
        found.extend(events(&mut second, &bytes[200_003 + most..]));
        let whole = Message {
            kind: Kind::Binary,
            payload: payload.into(),
        };
        assert_eq!(found, [Event::Message(whole)]);
    }

    #[test]
    fn between_two_messages_there_is_nothing_to_replay_and_after_the_end_nothing_to_go_on_with() {
        let mut receiver = Receiver::new(LIMITS);
        assert_eq!(receiver.replay(), Some(Vec::new()));
        receiver.stop();
        assert_eq!(receiver.replay(), None);
        let client = Receiver::new(LIMITS).with_role(Role::Client);
        assert_eq!(client.replay(), None);
    }
}

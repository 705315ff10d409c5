//! Messages out of frames, from bytes as they arrive.
#![expect(
    clippy::mut_mut,
    reason = "the input is a view that shrinks, of bytes that are unmasked in place"
)]

mod replay;

use std::mem;

use bytes::Bytes;

pub use super::frame::Kind;
use super::{
    close::CloseFrame,
    deflate::{Inflater, Step},
    error::Violation,
    frame::{self, Header, MAX_HEADER_BYTES, Opcode, Role},
    limits::Limits,
    mask,
};

/// A whole message, put together from its fragments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Text or binary.
    pub kind: Kind,
    /// Valid UTF-8 when `kind` is text.
    pub payload: Bytes,
}

/// An event from the peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A message is complete.
    Message(Message),
    /// A ping, to be answered by a pong with this payload (at most 125 bytes).
    Ping(Bytes),
    /// A pong: the answer to a ping, or unsolicited.
    Pong(Bytes),
    /// The last event: the peer sends nothing after it.
    Close(CloseFrame),
}

/// The result of [`Receiver::find`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// As [`Receiver::next`] gives it.
    Event(Event),
    /// A whole message. Its payload is the last so many bytes that were taken from the input.
    Payload(Kind, usize),
    /// The [`Allowance`] is used up. The rest of the input, which may be nothing, has
    /// to be given again, as it is: part of it may be unmasked already.
    Enough,
}

/// The work that calls of [`Receiver::find`] may do together.
#[derive(Clone, Copy, Debug)]
pub struct Allowance {
    /// Frames that begin.
    pub frames: u32,
    /// Bytes that come out of compressed ones, about.
    pub inflated: usize,
}

impl Allowance {
    /// As much work as the input needs.
    const WITHOUT_END: Self = Self {
        frames: u32::MAX,
        inflated: usize::MAX,
    };
}

/// The receiving half of one connection, between reads.
///
/// Owns heap only while a message, or a control frame that a read cut in two, is incomplete.
#[derive(Debug)]
pub struct Receiver {
    /// `None` when a close frame or a violation was met; nothing after it counts.
    role: Option<Role>,
    limits: Limits,
    /// With permessage-deflate.
    inflater: Option<Box<Inflater>>,
    /// The start of a header that a read cut in two.
    header: [u8; MAX_HEADER_BYTES],
    header_len: u8,
    /// The frame whose payload is arriving, or not inflated yet.
    frame: Option<Frame>,
    message: Assembly,
    /// The start of a control payload that a read cut in two. Apart from the message, which it may
    /// interrupt.
    control: Vec<u8>,
}

impl Receiver {
    /// A receiver for a connection whose handshake is done.
    pub fn new(limits: Limits) -> Self {
        Self {
            role: Some(Role::Server),
            limits,
            inflater: None,
            header: [0; MAX_HEADER_BYTES],
            header_len: 0,
            frame: None,
            message: Assembly::default(),
            control: Vec::new(),
        }
    }

    /// The same receiver, for the end of a connection that is `role`.
    #[must_use]
    pub fn with_role(self, role: Role) -> Self {
        Self {
            role: Some(role),
            ..self
        }
    }

    /// The same receiver, for a connection that agreed on permessage-deflate.
    #[must_use]
    pub fn with_inflater(self, inflater: Inflater) -> Self {
        Self {
            inflater: Some(Box::new(inflater)),
            ..self
        }
    }

    /// Takes bytes from the front of `input` until an event is complete or the input is used up.
    ///
    /// `input` shrinks to what is left. `None` means that it is empty and more is needed. The bytes
    /// taken are unmasked where they lie, so the buffer's contents are of no further use. How the
    /// bytes are cut into calls makes no difference to the events.
    ///
    /// # Errors
    /// The rule that the peer broke. From then on, as after [`Event::Close`], all input is
    /// swallowed and returns `None`.
    pub fn next(&mut self, input: &mut &mut [u8]) -> Result<Option<Event>, Violation> {
        let mut rest = &mut input[..];
        let found = self.find(&mut rest, &mut Allowance::WITHOUT_END.clone());
        let left = rest.len();
        let taken = take_front(input, (input.len() - left) as u64);
        Ok(found?.and_then(|found| match found {
            Decoded::Event(event) => Some(event),
            Decoded::Payload(kind, len) => Some(Event::Message(Message {
                kind,
                payload: Bytes::copy_from_slice(&taken[taken.len() - len..]),
            })),
            // Not reached: this allowance is never used up.
            Decoded::Enough => None,
        }))
    }

    /// Drops all further input, as after [`Event::Close`].
    pub fn stop(&mut self) {
        *self = Self {
            role: None,
            ..Self::new(self.limits)
        };
    }

    /// As [`Receiver::next`], but leaves a payload that lies whole in the input there, and has
    /// [`Decoded::Enough`] when `allowance`, from which it takes what it does, is used up.
    ///
    /// # Errors
    /// As there.
    pub fn find(
        &mut self,
        input: &mut &mut [u8],
        allowance: &mut Allowance,
    ) -> Result<Option<Decoded>, Violation> {
        if self.role.is_none() {
            *input = &mut [];
            return Ok(None);
        }
        let outcome = match self.take_tail() {
            Ok(None) => self.advance(input, allowance),
            outcome => outcome,
        };
        if matches!(outcome, Err(_) | Ok(Some(Decoded::Event(Event::Close(_))))) {
            self.stop();
        }
        outcome
    }

    /// The buffer into which up to `most` bytes are to be read next: right after those that a
    /// large message has already, which saves a copy. [`Receiver::next`] takes them before any
    /// input.
    ///
    /// `None` when the next read had better go elsewhere, as it may bring more.
    pub fn tail(&mut self, most: usize) -> Option<(&mut Vec<u8>, usize)> {
        let frame = self.frame?;
        if frame.opcode.is_control() || self.message.is_compressed {
            return None;
        }
        let missing = usize::try_from(frame.remaining).unwrap_or(usize::MAX);
        let wanted = missing.min(most);
        let has_room = self.message.stretch(wanted, missing);
        has_room.then_some((&mut self.message.buffer, wanted))
    }

    /// Bytes of heap held for what is incomplete, apart from a codec.
    pub fn held_bytes(&self) -> usize {
        self.message.buffer.capacity() + self.control.capacity()
    }

    /// Bytes of payload that have come of a message that is not complete, inflated if need be;
    /// `None` between two messages.
    pub fn unfinished(&self) -> Option<usize> {
        let has_begun = self.header_len > 0 || self.frame.is_some() || self.message.kind.is_some();
        has_begun.then_some(self.message.buffer.len())
    }

    /// Bytes of memory in use for what is incomplete, its codec included.
    pub fn buffered(&self) -> usize {
        let inflater = self
            .inflater
            .as_ref()
            .map_or(0, |inflater| inflater.held_bytes());
        self.message.buffer.len() + self.control.len() + inflater
    }

    /// Takes in the bytes that were read into [`Receiver::tail`].
    fn take_tail(&mut self) -> Result<Option<Decoded>, Violation> {
        let fresh = self.message.fresh();
        let Some(mut frame) = self.frame.filter(|_| !fresh.is_empty()) else {
            return Ok(None);
        };
        mask::unmask(fresh, frame.key, frame.phase.into());
        frame.pass(fresh.len());
        self.message.settled = self.message.buffer.len();
        self.frame = (frame.remaining > 0).then_some(frame);
        self.finish(frame.is_final && frame.remaining == 0)
    }

    fn advance(
        &mut self,
        input: &mut &mut [u8],
        allowance: &mut Allowance,
    ) -> Result<Option<Decoded>, Violation> {
        loop {
            let mut frame = match self.frame.take() {
                Some(frame) => frame,
                None if allowance.frames == 0 && !input.is_empty() => {
                    return Ok(Some(Decoded::Enough));
                }
                None => match self.take_header(input)? {
                    Some(header) => {
                        allowance.frames = allowance.frames.saturating_sub(1);
                        if !header.opcode.is_control() {
                            self.admit(header)?;
                        }
                        Frame::new(header)
                    }
                    None => return Ok(None),
                },
            };
            let event = if self.message.is_compressed && !frame.opcode.is_control() {
                self.on_compressed(frame, input, &mut allowance.inflated)?
            } else {
                let piece = take_front(input, frame.remaining);
                mask::unmask(piece, frame.key, frame.phase.into());
                frame.pass(piece.len());
                if frame.remaining > 0 {
                    self.frame = Some(frame);
                }
                if frame.opcode.is_control() {
                    self.on_control(frame, piece)?.map(Decoded::Event)
                } else {
                    self.on_data(frame, piece)?
                }
            };
            if event.is_some() || self.frame.is_some() {
                return Ok(event);
            }
        }
    }

    /// The next header; `None` when the input ends first, its bytes then being kept.
    fn take_header(&mut self, input: &mut &mut [u8]) -> Result<Option<Header>, Violation> {
        let Some(role) = self.role else {
            return Ok(None); // Not reached: nothing is looked at then.
        };
        if self.header_len == 0 {
            if let Some((header, size)) = frame::parse(input, role, self.inflater.is_some())? {
                take_front(input, size as u64);
                return Ok(Some(header));
            }
        }
        // Byte after byte until the header is whole, so that nothing of the payload is taken.
        loop {
            let Some((free, byte)) = self
                .header
                .get_mut(usize::from(self.header_len))
                .zip(take_front(input, 1).first())
            else {
                return Ok(None);
            };
            *free = *byte;
            self.header_len += 1;
            let so_far = &self.header[..usize::from(self.header_len)];
            if let Some((header, _)) = frame::parse(so_far, role, self.inflater.is_some())? {
                self.header_len = 0;
                return Ok(Some(header));
            }
        }
    }

    /// Validates the header of a data frame by what came before it and by the limits.
    fn admit(&mut self, header: Header) -> Result<(), Violation> {
        self.message.begin_frame(header, self.limits)?;
        let most = self.limits.max_message_bytes;
        match &mut self.inflater {
            Some(inflater) if self.message.is_compressed => {
                inflater.admit(header.payload_len, most)
            }
            _ if header.payload_len > self.message.room(self.limits) as u64 => {
                Err(too_big(self.limits))
            }
            _ => Ok(()),
        }
    }

    fn on_data(&mut self, frame: Frame, piece: &[u8]) -> Result<Option<Decoded>, Violation> {
        let Some(kind) = self.message.kind else {
            return Ok(None); // Not reached: the header was admitted.
        };
        let is_end = frame.is_final && frame.remaining == 0;
        if is_end && self.message.buffer.is_empty() {
            // The usual case: all of it lies in the input.
            if kind == Kind::Text {
                check_text(piece, 0, true)?;
            }
            self.message = Assembly::default();
            return Ok(Some(Decoded::Payload(kind, piece.len())));
        }
        self.message.append(piece, frame);
        self.finish(is_end)
    }

    /// Validates the part of the message that has come; returns the message when this was its end.
    fn finish(&mut self, is_end: bool) -> Result<Option<Decoded>, Violation> {
        self.message.check(is_end)?;
        Ok(self.message.pop(is_end))
    }

    /// Inflates what `input` has of `frame`, as far as it is allowed to.
    fn on_compressed(
        &mut self,
        mut frame: Frame,
        input: &mut &mut [u8],
        allowance: &mut usize,
    ) -> Result<Option<Decoded>, Violation> {
        let Self {
            message,
            limits,
            inflater: Some(inflater),
            ..
        } = self
        else {
            return Ok(None); // Not reached: the header was admitted.
        };
        let here = usize::try_from(frame.remaining).map_or(input.len(), |len| len.min(input.len()));
        let piece = &mut input[..here];
        let unmasked = inflater.unmasked.min(here);
        let mut masked = frame;
        masked.pass(unmasked);
        mask::unmask(&mut piece[unmasked..], masked.key, masked.phase.into());
        let is_end = frame.is_final && frame.remaining == here as u64;
        // A header alone takes no codec.
        let mut step = Step::NOTHING;
        if is_end || here > 0 {
            let collect = |inflated: &[u8]| message.append_inflated(inflated, *limits);
            step = inflater.inflate(piece, is_end, allowance, collect)?;
        }
        inflater.unmasked = here - step.taken;
        take_front(input, step.taken as u64);
        frame.pass(step.taken);
        if frame.remaining > 0 || !step.is_done {
            self.frame = Some(frame);
        }
        if !step.is_done {
            return Ok(Some(Decoded::Enough));
        }
        self.finish(is_end)
    }

    fn on_control(&mut self, frame: Frame, piece: &[u8]) -> Result<Option<Event>, Violation> {
        if frame.remaining > 0 {
            self.control.extend_from_slice(piece);
            return Ok(None);
        }
        let payload = if self.control.is_empty() {
            Bytes::copy_from_slice(piece)
        } else {
            self.control.extend_from_slice(piece);
            Bytes::from(mem::take(&mut self.control))
        };
        Ok(match frame.opcode {
            Opcode::Ping => Some(Event::Ping(payload)),
            Opcode::Pong => Some(Event::Pong(payload)),
            Opcode::Close => Some(Event::Close(CloseFrame::parse(&payload)?)),
            Opcode::Continuation | Opcode::Text | Opcode::Binary => None,
        })
    }
}

/// A frame whose header is known and whose payload is arriving.
#[derive(Clone, Copy, Debug)]
struct Frame {
    opcode: Opcode,
    is_final: bool,
    key: [u8; 4],
    /// Where in the key the next byte is, 0 to 3.
    phase: u8,
    /// Payload bytes still to come.
    remaining: u64,
}

impl Frame {
    fn new(header: Header) -> Self {
        Self {
            opcode: header.opcode,
            is_final: header.is_final,
            key: header.key,
            phase: 0,
            remaining: header.payload_len,
        }
    }

    /// Moves on by `len` bytes of payload.
    fn pass(&mut self, len: usize) {
        let len = len as u64;
        // The low byte is enough: 256 is a multiple of the key's length.
        let [.., low] = len.to_be_bytes();
        self.phase = self.phase.wrapping_add(low) % 4;
        self.remaining = self.remaining.saturating_sub(len);
    }
}

/// A message that is not complete yet.
#[derive(Debug, Default)]
struct Assembly {
    /// Known from the first fragment on; `None` between messages.
    kind: Option<Kind>,
    is_compressed: bool,
    /// Data frames begun so far.
    fragments: u32,
    /// The payload that has arrived, inflated if need be.
    buffer: Vec<u8>,
    /// How many bytes of `buffer` have been taken in. Those after them are masked still.
    settled: usize,
    /// How many bytes of `buffer` are checked text. At most three bytes after them belong to a
    /// character that is still arriving.
    checked: usize,
}

impl Assembly {
    /// Below this a buffer of twice the size is not worth a copy.
    const SLACK_BYTES: usize = 1024;
    /// Of this size, one piece is enough to reserve room for more.
    const LARGE_BYTES: usize = 64 * 1024;
    /// Of this size, what is inflated moves seldom.
    const HUGE_BYTES: usize = 1024 * 1024;
    /// How many times as much as has come a large message may reserve beside it.
    const STRETCH: usize = 15;

    /// Validates the header of a data frame by the frames that came before it.
    fn begin_frame(&mut self, header: Header, limits: Limits) -> Result<(), Violation> {
        match (header.opcode, self.kind) {
            (Opcode::Continuation, None) => {
                return Err(Violation::protocol("continuation without a message"));
            }
            (Opcode::Text, None) => self.kind = Some(Kind::Text),
            (Opcode::Binary, None) => self.kind = Some(Kind::Binary),
            (Opcode::Text | Opcode::Binary, Some(_)) => {
                return Err(Violation::protocol(
                    "new message inside a fragmented message",
                ));
            }
            // A continuation is what was due; control frames do not come here.
            _ => {}
        }
        self.is_compressed |= header.is_compressed;
        let max_frame_bytes = limits.max_frame_bytes;
        if max_frame_bytes != u32::MAX && header.payload_len > u64::from(max_frame_bytes) {
            return Err(Violation::too_big(format!(
                "frame has more than {max_frame_bytes} bytes"
            )));
        }
        self.fragments = self.fragments.saturating_add(1);
        let max_fragments = limits.max_fragments.max(1);
        if self.fragments > max_fragments {
            return Err(Violation::too_big(format!(
                "message has more than {max_fragments} fragments"
            )));
        }
        Ok(())
    }

    /// The bytes that were read into [`Receiver::tail`].
    fn fresh(&mut self) -> &mut [u8] {
        self.buffer.get_mut(self.settled..).unwrap_or_default()
    }

    /// Returns the message when this `is_end` of it.
    fn pop(&mut self, is_end: bool) -> Option<Decoded> {
        let kind = self.kind.filter(|_| is_end)?;
        let payload = mem::take(self).into_payload();
        Some(Decoded::Event(Event::Message(Message { kind, payload })))
    }

    /// Adds a piece of `frame`.
    ///
    /// The buffer at most doubles, so it stays in proportion to what the peer really sent, unless
    /// the piece is large: what [`Assembly::stretch`] would do next is done before it is copied.
    /// Where the end of the message is in sight it does not grow beyond that.
    fn append(&mut self, piece: &[u8], frame: Frame) {
        let len = self.buffer.len();
        if self.buffer.capacity() - len < piece.len() {
            let missing = usize::try_from(frame.remaining).unwrap_or(usize::MAX);
            let mut extra = len.max(piece.len());
            if frame.is_final {
                extra = extra.min(piece.len().saturating_add(missing));
            }
            if piece.len() >= Self::LARGE_BYTES {
                let ahead = missing.min(piece.len().saturating_mul(Self::STRETCH));
                extra = extra.max(piece.len().saturating_add(ahead));
            }
            self.buffer.reserve_exact(extra);
        }
        self.buffer.extend_from_slice(piece);
        self.settled = self.buffer.len();
    }

    /// Makes room for `wanted` of the `missing` bytes, if enough of the message has come. Whether
    /// there is room.
    ///
    /// The system lends the memory only as bytes are written to it, so this may be more generous
    /// than [`Assembly::append`], and a large message seldom moves.
    fn stretch(&mut self, wanted: usize, missing: usize) -> bool {
        let len = self.buffer.len();
        let most = len.saturating_mul(Self::STRETCH).min(missing);
        if self.buffer.capacity() - len < wanted && most >= wanted {
            self.buffer.reserve_exact(most);
        }
        self.buffer.capacity() - len >= wanted
    }

    /// Adds what was inflated, as far as the limit lets it.
    ///
    /// The buffer never grows beyond the limit. It at most doubles, until it is large: then it
    /// grows to four times its size, for each growth may copy it, and others wait meanwhile.
    fn append_inflated(&mut self, piece: &[u8], limits: Limits) -> Result<(), Violation> {
        let room = self.room(limits);
        let fitting = piece.get(..room).unwrap_or(piece);
        let len = self.buffer.len();
        if self.buffer.capacity() - len < fitting.len() {
            let factor = if len < Self::HUGE_BYTES { 1 } else { 3 };
            let extra = len.saturating_mul(factor).max(fitting.len());
            self.buffer.reserve_exact(extra.min(room));
        }
        self.buffer.extend_from_slice(fitting);
        self.settled = self.buffer.len();
        self.check(false)?;
        if piece.len() > room {
            return Err(too_big(limits));
        }
        Ok(())
    }

    /// Bytes that the message may still have.
    fn room(&self, limits: Limits) -> usize {
        limits.max_message_bytes.saturating_sub(self.buffer.len())
    }

    /// Validates the text that has arrived. In a binary message all bytes are valid.
    fn check(&mut self, is_end: bool) -> Result<(), Violation> {
        if self.kind != Some(Kind::Text) {
            return Ok(());
        }
        let unchecked = self.buffer.get(self.checked..).unwrap_or_default();
        self.checked += check_text(unchecked, self.checked, is_end)?;
        Ok(())
    }

    fn into_payload(self) -> Bytes {
        let mut buffer = self.buffer;
        if buffer.capacity() - buffer.len() > Self::SLACK_BYTES.max(buffer.len() / 4) {
            buffer.shrink_to_fit();
        }
        Bytes::from(buffer)
    }
}

fn too_big(limits: Limits) -> Violation {
    Violation::too_big(format!(
        "message has more than {} bytes",
        limits.max_message_bytes
    ))
}

/// How much of `text` is valid UTF-8: all of it, save for a character that the end cuts in two
/// (and none of that when this `is_end` of the message). `offset` is where in the message it lies.
fn check_text(text: &[u8], offset: usize, is_end: bool) -> Result<usize, Violation> {
    match simdutf8::compat::from_utf8(text) {
        Ok(_) => Ok(text.len()),
        Err(error) if error.error_len().is_none() && !is_end => Ok(error.valid_up_to()),
        Err(error) => Err(Violation::invalid_data(format!(
            "text message is not UTF-8 at byte {}",
            offset.saturating_add(error.valid_up_to())
        ))),
    }
}

/// Cuts up to `len` bytes from the front of `input`.
fn take_front<'a>(input: &mut &'a mut [u8], len: u64) -> &'a mut [u8] {
    let len = usize::try_from(len).map_or(input.len(), |len| len.min(input.len()));
    let (front, rest) = mem::take(input).split_at_mut(len);
    *input = rest;
    front
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::close;

    const FIN: u8 = 0x80;
    const TEXT: u8 = 0x1;
    const BINARY: u8 = 0x2;
    const CLOSE: u8 = 0x8;
    const PING: u8 = 0x9;
    const PONG: u8 = 0xA;

    /// A masked frame; `first` is its first byte as it stands.
    fn client_frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = frame::head(Opcode::Binary, payload.len()).to_vec();
        bytes[0] = first;
        bytes[1] |= 0x80;
        let key = [0x9d, 0x02, 0xf1, 0x6c];
        bytes.extend_from_slice(&key);
        let start = bytes.len();
        bytes.extend_from_slice(payload);
        mask::unmask(&mut bytes[start..], key, 0);
        bytes
    }

    fn sample(len: usize) -> Vec<u8> {
        (0..=250).cycle().step_by(131).take(len).collect()
    }

    /// The outcome for `bytes` when each read brings up to `step` of them.
    fn receive(
        receiver: &mut Receiver,
        bytes: &[u8],
        step: usize,
    ) -> (Vec<Event>, Option<Violation>) {
        let mut bytes = bytes.to_vec();
        let mut events = Vec::new();
        for read in bytes.chunks_mut(step) {
            let mut input = read;
            loop {
                match receiver.next(&mut input) {
                    Ok(Some(event)) => events.push(event),
                    Ok(None) => break,
                    Err(violation) => return (events, Some(violation)),
                }
            }
            assert!(input.is_empty());
        }
        (events, None)
    }

    /// The outcome for a new receiver, which must not depend on the reads.
    fn outcome(limits: Limits, bytes: &[u8]) -> (Vec<Event>, Option<Violation>) {
        let whole = receive(&mut Receiver::new(limits), bytes, bytes.len().max(1));
        for step in [1, 2, 3, 5, 7, 13] {
            let cut = receive(&mut Receiver::new(limits), bytes, step);
            assert_eq!(cut, whole, "reads of {step}");
        }
        whole
    }

    fn message(kind: Kind, payload: &[u8]) -> Event {
        Event::Message(Message {
            kind,
            payload: Bytes::copy_from_slice(payload),
        })
    }

    fn events(bytes: &[u8]) -> Vec<Event> {
        let (events, violation) = outcome(Limits::default(), bytes);
        assert_eq!(violation, None);
        events
    }

    fn violation(bytes: &[u8]) -> (u16, String) {
        let (events, violation) = outcome(Limits::default(), bytes);
        assert_eq!(events, []);
        let violation = violation.expect("a violation");
        assert!(violation.reason.len() <= close::MAX_REASON_BYTES);
        (violation.code, violation.reason.into_owned())
    }

    #[test]
    fn messages_in_one_frame_come_out_whole() {
        for len in [0, 1, 125, 126, 127, 1000, 65_535, 65_536, 70_000] {
            let payload = vec![b'a'; len];
            let bytes = [
                client_frame(FIN | TEXT, &payload),
                client_frame(FIN | BINARY, &payload),
            ]
            .concat();
            let expected = [
                message(Kind::Text, &payload),
                message(Kind::Binary, &payload),
            ];
            assert_eq!(events(&bytes), expected, "{len} bytes");
        }
    }

    #[test]
    fn control_frames_stand_between_fragments() {
        let bytes = [
            client_frame(TEXT, "grü".as_bytes()),
            client_frame(FIN | PING, b"there?"),
            client_frame(0, b""),
            client_frame(FIN | PONG, b""),
            client_frame(FIN, b"n"),
            client_frame(FIN | CLOSE, &[0x03, 0xe8]),
        ]
        .concat();
        let expected = [
            Event::Ping(Bytes::from_static(b"there?")),
            Event::Pong(Bytes::new()),
            message(Kind::Text, "grün".as_bytes()),
            Event::Close(CloseFrame::new(Some(1000), "").unwrap()),
        ];
        assert_eq!(events(&bytes), expected);
    }

    #[test]
    fn a_receiver_is_small_and_idle_without_heap() {
        assert!(size_of::<Receiver>() <= 128, "{}", size_of::<Receiver>());
        let mut receiver = Receiver::new(Limits::default());
        let bytes = client_frame(FIN | BINARY, &vec![7; 100_000]);
        let (events, violation) = receive(&mut receiver, &bytes, 1000);
        assert_eq!((events.len(), violation), (1, None));
        assert_eq!(receiver.held_bytes(), 0);
    }

    #[test]
    fn text_fails_at_the_wrong_byte() {
        // The last byte of each is the one that cannot be right, whatever comes next.
        let wrong: [(&[u8], usize); 9] = [
            (b"\xff", 0),
            (b"ok \x80", 3),
            (b"\xc0", 0),
            (b"\xe0\x80", 0),
            (b"ok \xed\xa0", 3),
            (b"\xf0\x8f", 0),
            (b"\xf4\x90", 0),
            (b"\xf5", 0),
            ("κόσμε\u{10ffff}".as_bytes(), usize::MAX),
        ];
        for (text, at) in wrong {
            for start in [FIN | TEXT, TEXT] {
                // The frame announces more than ever comes.
                let mut bytes = client_frame(start, &[text, &[b'.'; 50]].concat());
                bytes.truncate(6 + text.len());
                let (events, violation) = outcome(Limits::default(), &bytes);
                assert_eq!(events, []);
                let expected = (at != usize::MAX).then(|| {
                    Violation::invalid_data(format!("text message is not UTF-8 at byte {at}"))
                });
                assert_eq!(violation, expected, "{text:?}");
            }
        }
    }

    #[test]
    fn text_may_be_cut_anywhere_into_fragments() {
        let text = "aß水🎉".as_bytes();
        for first in 0..text.len() {
            for second in first..text.len() {
                let bytes = [
                    client_frame(TEXT, &text[..first]),
                    client_frame(0, &text[first..second]),
                    client_frame(FIN, &text[second..]),
                ]
                .concat();
                assert_eq!(events(&bytes), [message(Kind::Text, text)]);
            }
        }
    }

    #[test]
    fn text_must_not_end_inside_a_character() {
        for cut in ["ß", "水", "🎉"] {
            let text = [b"ok ", &cut.as_bytes()[..cut.len() - 1]].concat();
            let expected = (1007, "text message is not UTF-8 at byte 3".to_owned());
            assert_eq!(violation(&client_frame(FIN | TEXT, &text)), expected);
            // The fragment that ends the message may be empty.
            let bytes = [client_frame(TEXT, &text), client_frame(FIN, b"")].concat();
            assert_eq!(violation(&bytes), expected);
        }
    }

    #[test]
    fn binary_may_be_anything() {
        let bytes = [
            client_frame(BINARY, b"\xff\xc0"),
            client_frame(FIN, b"\x80"),
        ]
        .concat();
        assert_eq!(events(&bytes), [message(Kind::Binary, b"\xff\xc0\x80")]);
    }

    #[test]
    fn fragments_come_in_order() {
        let stray = (1002, "continuation without a message".to_owned());
        assert_eq!(violation(&client_frame(FIN, b"")), stray);
        assert_eq!(violation(&client_frame(0, b"x")), stray);
        let inside = (1002, "new message inside a fragmented message".to_owned());
        for first in [TEXT, BINARY] {
            for second in [TEXT, BINARY, FIN | TEXT, FIN | BINARY] {
                let bytes = [client_frame(first, b"a"), client_frame(second, b"b")].concat();
                assert_eq!(violation(&bytes), inside);
            }
        }
        let (events, violation) = outcome(
            Limits::default(),
            &[client_frame(FIN | TEXT, b"a"), client_frame(FIN, b"b")].concat(),
        );
        assert_eq!(events, [message(Kind::Text, b"a")]);
        assert_eq!(violation.map(|violation| violation.code), Some(1002));
    }

    #[test]
    fn header_rules_are_kept_for_every_frame() {
        let mut unmasked = client_frame(FIN | TEXT, b"");
        unmasked[1] = 0;
        let table = [
            (unmasked, "frame is not masked"),
            (
                client_frame(FIN | 0x40 | TEXT, b""),
                "reserved bit set without an extension",
            ),
            (client_frame(FIN | 0x3, b""), "opcode 3 is reserved"),
            (client_frame(FIN | 0xB, b""), "opcode 11 is reserved"),
            (client_frame(PING, b""), "control frame is fragmented"),
            (
                client_frame(FIN | PONG, &[0; 126]),
                "control frame announces more than 125 bytes",
            ),
        ];
        for (bytes, reason) in table {
            assert_eq!(violation(&bytes), (1002, reason.to_owned()));
            // Two bytes say it already.
            assert_eq!(violation(&bytes[..2]), (1002, reason.to_owned()));
        }
    }

    #[test]
    fn close_frames_are_judged() {
        let table: [(&[u8], u16, &str); 4] = [
            (b"\x03", 1002, "close frame has half a close code"),
            (b"\x03\xed", 1002, "close code 1005 must not be sent"),
            (b"\x00\x00", 1002, "close code 0 must not be sent"),
            (b"\x03\xe8\xff", 1007, "close reason is not UTF-8 at byte 0"),
        ];
        for (payload, code, reason) in table {
            let bytes = client_frame(FIN | CLOSE, payload);
            assert_eq!(violation(&bytes), (code, reason.to_owned()));
        }
    }

    #[test]
    fn nothing_counts_behind_a_close_or_a_violation() {
        let close = client_frame(FIN | CLOSE, b"");
        let bytes = [
            close.clone(),
            client_frame(FIN | TEXT, b"late"),
            vec![0xFF; 99],
        ]
        .concat();
        assert_eq!(events(&bytes), [Event::Close(CloseFrame::default())]);

        let mut receiver = Receiver::new(Limits::default());
        let part = client_frame(BINARY, b"part of a message");
        receive(&mut receiver, &part, part.len());
        assert!(receiver.held_bytes() > 0);
        let (_, violation) = receive(&mut receiver, &client_frame(FIN | 0x3, b""), 6);
        assert!(violation.is_some());
        assert_eq!(receiver.held_bytes(), 0);
        assert_eq!(receive(&mut receiver, &close, 3), (vec![], None));
    }

    #[test]
    fn what_lies_behind_an_event_is_left_in_the_input() {
        let mut receiver = Receiver::new(Limits::default());
        let first = client_frame(FIN | TEXT, b"1");
        let mut bytes = [&first[..], &first[..3]].concat();
        let mut input = &mut bytes[..];
        let event = receiver.next(&mut input).unwrap();
        assert_eq!(event, Some(message(Kind::Text, b"1")));
        assert_eq!(input.len(), 3);
        assert_eq!(receiver.next(&mut input), Ok(None));
        assert!(input.is_empty());
    }

    #[test]
    fn a_message_of_just_the_limit_passes() {
        let limits = Limits {
            max_message_bytes: 200,
            max_frame_bytes: u32::MAX,
            max_fragments: 2,
        };
        let whole = client_frame(FIN | BINARY, &[1; 200]);
        let halves = [
            client_frame(BINARY, &[1; 100]),
            client_frame(FIN, &[1; 100]),
        ]
        .concat();
        for bytes in [whole, halves] {
            let expected = (vec![message(Kind::Binary, &[1; 200])], None);
            assert_eq!(outcome(limits, &bytes), expected);
        }
    }

    #[test]
    fn a_message_over_the_limit_fails_at_the_header() {
        let limits = Limits {
            max_message_bytes: 200,
            max_frame_bytes: u32::MAX,
            max_fragments: 9,
        };
        let header_of = |first, len| {
            let mut frame = client_frame(first, &vec![1; len]);
            frame.truncate(frame.len() - len);
            frame
        };
        let single = header_of(FIN | BINARY, 201);
        let second = [client_frame(TEXT, &[b'a'; 150]), header_of(0, 51)].concat();
        let with_ping = [
            client_frame(BINARY, &[1; 200]),
            client_frame(FIN | PING, b""),
            header_of(FIN, 1),
        ]
        .concat();
        for (bytes, pings) in [(single, 0), (second, 0), (with_ping, 1)] {
            let (events, violation) = outcome(limits, &bytes);
            assert_eq!(events, vec![Event::Ping(Bytes::new()); pings]);
            let expected = Violation::too_big("message has more than 200 bytes");
            assert_eq!(violation, Some(expected));
        }
    }

    #[test]
    fn a_frame_over_its_limit_fails_at_the_header_whatever_its_message() {
        let limits = Limits {
            max_frame_bytes: 100,
            ..Limits::default()
        };
        let halves = [
            client_frame(BINARY, &[1; 100]),
            client_frame(FIN, &[1; 100]),
        ]
        .concat();
        let expected = (vec![message(Kind::Binary, &[1; 200])], None);
        assert_eq!(outcome(limits, &halves), expected);
        let mut header = client_frame(FIN | BINARY, &[1; 101]);
        header.truncate(header.len() - 101);
        let expected = Violation::too_big("frame has more than 100 bytes");
        assert_eq!(outcome(limits, &header), (vec![], Some(expected)));
    }

    #[test]
    fn a_limit_of_zero_leaves_empty_messages() {
        let limits = Limits {
            max_message_bytes: 0,
            max_frame_bytes: u32::MAX,
            max_fragments: 0,
        };
        let empty = client_frame(FIN | TEXT, b"");
        let (events, violation) = outcome(limits, &[empty.clone(), empty.clone()].concat());
        assert_eq!(events, vec![message(Kind::Text, b""); 2]);
        assert_eq!(violation, None);
        let (_, violation) = outcome(limits, &client_frame(FIN | BINARY, b"x"));
        assert_eq!(violation.map(|violation| violation.code), Some(1009));
        let fragments = [client_frame(TEXT, b""), client_frame(FIN, b"")].concat();
        let (_, violation) = outcome(limits, &fragments);
        let expected = Violation::too_big("message has more than 1 fragments");
        assert_eq!(violation, Some(expected));
    }

    #[test]
    fn a_length_field_alone_holds_nothing() {
        let limits = Limits {
            max_message_bytes: usize::MAX,
            ..Limits::default()
        };
        for (len, code) in [
            (1_u64 << 40, None),
            (u64::MAX >> 1, None),
            (1 << 63, Some(1002)),
        ] {
            for first in [FIN | BINARY, BINARY, FIN | TEXT] {
                let mut receiver = Receiver::new(limits);
                let mut bytes = vec![first, 0xFF];
                bytes.extend_from_slice(&len.to_be_bytes());
                bytes.extend_from_slice(&[0; 4]);
                let (events, violation) = receive(&mut receiver, &bytes, 14);
                assert_eq!(events, []);
                assert_eq!(violation.map(|violation| violation.code), code);
                assert_eq!(receiver.held_bytes(), 0);
                if code.is_none() {
                    receive(&mut receiver, &[b'a'; 1000], 100);
                    assert!(receiver.held_bytes() <= 2000, "{}", receiver.held_bytes());
                }
            }
        }
        let mut too_long = vec![FIN | BINARY, 0xFF];
        too_long.extend_from_slice(&(1_u64 << 40).to_be_bytes());
        too_long.extend_from_slice(&[0; 4]);
        assert_eq!(
            violation(&too_long),
            (1009, "message has more than 16777216 bytes".to_owned())
        );
    }

    #[test]
    fn what_is_held_stays_in_proportion_to_what_came() {
        let mut receiver = Receiver::new(Limits::default());
        let mut bytes = client_frame(FIN | BINARY, &vec![7; 300_000]);
        let mut came = 0;
        for read in bytes.chunks_mut(1000) {
            came += read.len();
            let mut input = read;
            while receiver.next(&mut input).unwrap().is_some() {}
            assert!(receiver.held_bytes() <= 2 * came);
            // The end of the frame is known, so nothing is reserved beyond it.
            assert!(receiver.held_bytes() <= 300_000);
        }
        assert_eq!(receiver.held_bytes(), 0);
    }

    #[test]
    fn the_rest_of_a_large_message_may_be_read_to_where_it_stays() {
        let mut bytes = client_frame(FIN | BINARY, &sample(300_000));
        let mut receiver = Receiver::new(Limits::default());
        assert!(receiver.tail(1000).is_none());
        let (mut head, rest) = bytes.split_at_mut(20_014);
        assert_eq!(receiver.next(&mut head), Ok(None));
        for read in rest.chunks(100_000) {
            let (buffer, most) = receiver.tail(100_000).unwrap();
            assert_eq!(most, read.len());
            // The message is not moved any more.
            assert_eq!(
                (buffer.capacity(), buffer.len() % 100_000),
                (300_000, 20_000)
            );
            buffer.extend_from_slice(read);
            let event = receiver.next(&mut &mut [][..]).unwrap();
            assert_eq!(event.is_some(), read.len() < 100_000);
            if let Some(event) = event {
                assert_eq!(event, message(Kind::Binary, &sample(300_000)));
            }
        }
        assert_eq!(receiver.held_bytes(), 0);
    }

    #[test]
    fn a_large_piece_of_a_message_is_copied_once_to_where_the_rest_has_room() {
        const PIECE: usize = Assembly::LARGE_BYTES;
        for (len, held) in [(PIECE * 10, PIECE * 10), (PIECE * 20, PIECE * 16)] {
            let mut bytes = client_frame(FIN | BINARY, &vec![7; len]);
            let mut receiver = Receiver::new(Limits::default());
            assert_eq!(receiver.next(&mut &mut bytes[..PIECE + 14]), Ok(None));
            assert_eq!(receiver.held_bytes(), held);
            let (buffer, _) = receiver.tail(PIECE * 15).unwrap();
            assert_eq!((buffer.len(), buffer.capacity()), (PIECE, held));
        }
    }

    #[test]
    fn a_little_of_a_message_reserves_no_room_for_a_large_read() {
        let mut bytes = client_frame(FIN | TEXT, &vec![b'a'; 100_000]);
        let mut receiver = Receiver::new(Limits::default());
        assert_eq!(receiver.next(&mut &mut bytes[..1014]), Ok(None));
        assert!(receiver.tail(50_000).is_none());
        assert!(receiver.held_bytes() <= 1000);
        assert!(receiver.tail(10_000).is_some());
        assert!(receiver.held_bytes() <= 16_000);
    }

    #[test]
    fn a_hundred_thousand_tiny_fragments_fail_at_the_limit() {
        let mut bytes = client_frame(BINARY, b"x");
        for _ in 1..100_000 {
            bytes.extend_from_slice(&client_frame(0, b"x"));
        }
        let mut receiver = Receiver::new(Limits {
            max_fragments: 65_536,
            ..Limits::default()
        });
        let mut input = &mut bytes[..];
        let expected = Violation::too_big("message has more than 65536 fragments");
        assert_eq!(receiver.next(&mut input), Err(expected));
        // Seven bytes each, and the header of the one too many.
        assert_eq!(input.len(), 700_000 - (7 * 65_536 + 6));
        assert_eq!(receiver.held_bytes(), 0);
    }

    #[test]
    fn tiny_fragments_within_the_limit_make_a_message() {
        let limits = Limits {
            max_fragments: 100_000,
            ..Limits::default()
        };
        let mut bytes = client_frame(TEXT, b"x");
        for _ in 2..100_000 {
            bytes.extend_from_slice(&client_frame(0, b"x"));
        }
        bytes.extend_from_slice(&client_frame(FIN, b"x"));
        let mut receiver = Receiver::new(limits);
        let mut input = &mut bytes[..];
        let expected = message(Kind::Text, &vec![b'x'; 100_000]);
        assert_eq!(receiver.next(&mut input), Ok(Some(expected)));
        assert_eq!(receiver.held_bytes(), 0);
    }

    #[test]
    fn empty_fragments_are_counted_too() {
        let limits = Limits {
            max_fragments: 3,
            ..Limits::default()
        };
        let start = [client_frame(TEXT, b""), client_frame(0, b"")].concat();
        let enough = [start.clone(), client_frame(FIN, b"")].concat();
        assert_eq!(outcome(limits, &enough).0, [message(Kind::Text, b"")]);
        let too_many = [start, client_frame(0, b""), client_frame(FIN, b"")].concat();
        assert_eq!(outcome(limits, &too_many).1.map(|v| v.code), Some(1009));
        // Counting begins anew with each message.
        assert_eq!(outcome(limits, &enough.repeat(3)).0.len(), 3);
    }

    #[test]
    fn messages_do_not_keep_a_much_larger_buffer() {
        let mut assembly = Assembly {
            buffer: Vec::with_capacity(1 << 20),
            ..Assembly::default()
        };
        assembly.buffer.extend_from_slice(&[1; 10]);
        let payload = assembly.into_payload().try_into_mut().unwrap();
        assert!(payload.capacity() < 1024, "{}", payload.capacity());
    }
}

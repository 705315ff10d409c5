//! Reading: from the socket through the rules of the protocol into the inbox.
//!
//! All connections of a thread share its time: each has a turn of so many frames and so much to
//! inflate, and what a read has brought beyond that waits for the next one. So whatever one client
//! sends, the others' turn comes soon.

use std::{io, mem, time::Duration};

use bytes::Bytes;

use super::{
    Driver, More,
    closing::{Stage, answer_close},
    lost,
    pause::Pause,
    rate::Pace,
};
use crate::{
    engine::{
        base::clock,
        connection::{inbox::Room, posts::MOST_BEHIND_REQUEST},
        resources::{
            budget,
            read_buffer::{self, Batch, Input, Scratch},
            socket::Socket,
            trim,
        },
    },
    protocol::{
        close::{self, CloseFrame},
        error::Violation,
        frame::Opcode,
        message::{Allowance, Decoded, Event, Message},
    },
};

/// Bytes read by one system call, into the read buffer that all connections share as a rule.
const READ_BYTES: usize = 128 * 1024;

/// The work that one connection may cause before others have their turn.
const TURN: Allowance = Allowance {
    frames: 128,
    inflated: 256 * 1024,
};

/// Time until the next look whether the process is below its limit of buffered bytes again.
const MEMORY_LOOK: Duration = Duration::from_millis(50);

/// A read of so many bytes leaves memory behind that is worth giving back.
const LARGE_BYTES: usize = 16 * 1024;

impl Driver {
    /// Reads what is there now, up to [`READ_BYTES`]. True when that has emptied the socket.
    pub(super) fn read(&mut self, socket: &Socket) -> bool {
        read_buffer::with_scratch(|Scratch { input, batch }| {
            input.clear();
            // It is empty, unless a connection ended in a panic.
            batch.clear();
            // The rest of a large message is read directly into its final place.
            let (buffer, most) = match self.receiver.tail(READ_BYTES) {
                Some(tail) => tail,
                None => (input.buffer(), READ_BYTES),
            };
            match socket.receive(buffer, most) {
                Ok(0) => {
                    self.on_end_of_stream(" hung up");
                    false
                }
                Ok(length) => {
                    let is_filled = length == most;
                    self.on_read(input, batch, length, is_filled);
                    // A short read has emptied the socket; no need to ask it again.
                    !is_filled
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => true,
                Err(error) => {
                    self.on_read_error(error.kind());
                    false
                }
            }
        })
    }

    /// Takes in the `length` bytes that a read has brought.
    #[inline]
    fn on_read(&mut self, input: &mut Input, batch: &mut Batch, length: usize, is_filled: bool) {
        if self.connection.posts.is_some() {
            // A further request, perhaps; this response does not end before the connection.
            input.clear();
            self.connection.count_read(length);
            if self.connection.traffic().bytes_in > MOST_BEHIND_REQUEST as u64 {
                self.close_flooding("too many bytes behind the request");
            }
            return;
        }
        let before = mem::replace(&mut self.last_read, length);
        // When the view takes this message, it lets go of the one before.
        if length.max(before) >= LARGE_BYTES {
            trim::expect_trim();
        }
        self.keepalive.heard();
        self.count(0, length);
        self.connection.count_read(length);
        if self.feed(input, batch) {
            self.leftover = input.put_by();
        } else if is_filled {
            self.more = More::Read;
        }
        self.account_for();
    }

    fn on_read_error(&mut self, error: io::ErrorKind) {
        match error {
            io::ErrorKind::Interrupted => {}
            io::ErrorKind::ConnectionReset => self.on_end_of_stream(" reset the connection"),
            io::ErrorKind::TimedOut => self.on_end_of_stream("'s network is gone"),
            _ => {
                self.connection.begin_end(lost("the connection broke"));
                self.closing.end();
            }
        }
    }

    /// Takes in what was posted, unless the view is behind.
    pub(super) fn take_posts(&mut self) {
        let has_left = (self.connection.carrier.as_ref()).is_some_and(|it| it.left().is_some());
        // Twice where its rate was waited for, and the rest fills the inbox.
        while has_left && self.pause.is_some() && !self.hung_up {
            self.on_hang_up();
        }
        let is_free = self.leftover.is_none() && self.pause.is_none();
        if self.connection.carrier.is_some() {
            if is_free {
                self.take_brought();
            }
            self.connection.announce_room_to_bring();
            return;
        }
        let Some(posts) = self.connection.posts.as_deref() else {
            return;
        };
        if is_free && self.closing.stage() == Stage::Open {
            if let Some(frames) = posts.take() {
                self.keepalive.heard();
                self.count(0, frames.len());
                self.leftover = Some(Box::new(frames.into()));
                self.feed_leftover();
            }
        }
    }

    /// Takes in what a server that carries the connection has brought, and after it the end.
    fn take_brought(&mut self) {
        let Some(carrier) = self.connection.carrier.clone() else {
            return;
        };
        if carrier.has_brought() {
            if self.is_memory_short() {
                return;
            }
            let frames = carrier.take_brought();
            self.count(0, frames.len());
            self.leftover = Some(Box::new(frames.into()));
            self.feed_leftover();
        }
        if self.leftover.is_none() && self.pause.is_none() {
            carrier.empty_hand();
        }
        if self.leftover.is_none() && !carrier.has_brought() {
            if let Some(end) = carrier.left() {
                self.connection.mark_handshake_done();
                self.connection.begin_end(end);
                self.closing.end();
            }
        }
    }

    /// Goes on with the bytes that were left, which may all be inside a codec.
    pub(super) fn feed_leftover(&mut self) {
        let mut input = self.leftover.take().unwrap_or_default();
        if self.feed(&mut input, &mut Batch::default()) {
            if self.more == More::Nothing {
                input.shrink();
            }
            self.leftover = Some(input);
        }
        self.account_for();
    }

    /// Takes in `input`, as much of it as a turn allows. `batch` is empty before and after. True
    /// when what is left has to be kept.
    fn feed(&mut self, input: &mut Input, batch: &mut Batch) -> bool {
        let is_behind = mem::replace(&mut self.more, More::Nothing) == More::TakeIn;
        let has_rest = self.take_in(input, batch, is_behind);
        self.hand_over(batch);
        if batch.controls > 0 && self.closing.stage() == Stage::Open {
            let now = clock::task_now();
            if !self.controls.count(batch.controls, batch.count, now) {
                self.close_flooding("too many pings and pongs");
                self.receiver.stop();
            }
        }
        (batch.controls, batch.count) = (0, 0);
        has_rest
    }

    /// The part of [`Driver::feed`] that looks at the bytes.
    fn take_in(&mut self, input: &mut Input, batch: &mut Batch, is_behind: bool) -> bool {
        let mut turn = TURN;
        let mut room = self.connection.inbox.room();
        loop {
            let Some(left) = &mut room else {
                self.pause = Some(Pause::InboxFull);
                return true;
            };
            if self.is_too_fast(is_behind) {
                return true;
            }
            let event = match self.next_event(input, &mut turn) {
                Ok(Some(event)) => event,
                Ok(None) => return self.more == More::TakeIn,
                Err(violation) => {
                    self.hand_over(batch);
                    self.on_violation(&violation);
                    // All that comes from now on is ignored.
                    return false;
                }
            };
            self.count(1, 0);
            if !self.take_event(event, batch, left) {
                room = self.connection.inbox.room();
            }
        }
    }

    /// Takes one event. False when its message was the last for which there is `room`.
    #[inline]
    fn take_event(&mut self, event: Event, batch: &mut Batch, room: &mut Room) -> bool {
        match event {
            Event::Message(message) => {
                self.message_timeout.on_message();
                let goes_on = room.take(&message);
                batch.messages.push(message);
                batch.count += 1;
                // Delivered together, so that the view finds all of them at its first look.
                if !goes_on {
                    self.connection.deliver(&mut batch.messages);
                }
                return goes_on;
            }
            Event::Ping(payload) => {
                batch.controls += 1;
                self.connection.pings.on_ping();
                let framing = self.connection.transport.framing();
                framing.append(&mut batch.pongs, Opcode::Pong, &payload);
            }
            Event::Pong(payload) => {
                batch.controls += 1;
                self.connection.pings.answered(&payload, clock::now());
            }
            Event::Close(frame) => {
                self.hand_over(batch);
                answer_close(&self.connection, &frame);
            }
        }
        true
    }

    /// Sends the pongs and delivers the messages of `batch`.
    fn hand_over(&self, batch: &mut Batch) {
        if !batch.pongs.is_empty() {
            let pongs = Bytes::copy_from_slice(&batch.pongs);
            batch.pongs.clear();
            self.connection.outbox.pong(pongs);
        }
        self.connection.deliver(&mut batch.messages);
    }

    /// The next event; `None` when there is none, or none more in this turn.
    fn next_event(
        &mut self,
        input: &mut Input,
        turn: &mut Allowance,
    ) -> Result<Option<Event>, Violation> {
        let mut rest = input.rest();
        let found = self.receiver.find(&mut rest, turn);
        let left = rest.len();
        input.leave(left);
        Ok(match found? {
            None => None,
            Some(Decoded::Enough) => {
                self.more = More::TakeIn;
                None
            }
            Some(Decoded::Event(event)) => Some(event),
            Some(Decoded::Payload(kind, len)) => Some(Event::Message(Message {
                kind,
                payload: input.keep(len),
            })),
        })
    }

    fn on_violation(&mut self, violation: &Violation) {
        if self.connection.fail(violation.into()) {
            let until = self.closing.close_deadline();
            self.pause = Some(Pause::Failing { until });
        }
    }

    /// Closes a connection whose peer does not go on with its message.
    pub(super) fn on_stall(&mut self) {
        self.drop_unfinished();
        self.on_violation(&Violation {
            code: close::POLICY,
            reason: "message was not finished in time".into(),
        });
    }

    /// Closes a connection whose peer has broken a rule.
    pub(super) fn finish_failing(&mut self) {
        self.pause = None;
        self.connection.finish_failing();
        self.go_on_reading();
    }

    /// Whether this connection has to wait until the process buffers less.
    pub(super) fn is_memory_short(&mut self) -> bool {
        let share = &self.connection.share;
        let is_short = budget::is_full() && share.is_large() && !share.is_shed();
        if is_short {
            budget::request_relief();
            let until = clock::task_now() + MEMORY_LOOK;
            self.pause = Some(Pause::MemoryShort { until });
        }
        is_short
    }

    /// Drops the unfinished message, and takes in nothing more.
    pub(super) fn drop_unfinished(&mut self) {
        self.receiver.stop();
        self.leftover = None;
        self.more = More::Nothing;
        if matches!(self.pause, Some(Pause::MemoryShort { .. })) {
            self.pause = None;
        }
        self.account_for();
    }

    /// Reports how many bytes the receiver and `leftover` hold, and how far an unfinished message
    /// has come.
    fn account_for(&mut self) {
        let leftover = self.leftover.as_ref().map_or(0, |input| input.held());
        let held = self.receiver.buffered() + leftover;
        self.account.set(held);
        self.message_timeout
            .on_read(self.receiver.unfinished(), clock::task_now);
    }

    pub(super) fn go_on_reading(&mut self) {
        if self.pause.is_none() {
            self.keepalive.heard();
            self.message_timeout.renew(clock::task_now);
            self.feed_leftover();
        }
    }

    /// Takes in the rest without a limit on the rate: the connection is ending.
    pub(super) fn stop_metering(&mut self) {
        self.meter = None;
        self.pause = None;
        self.go_on_reading();
    }

    fn count(&mut self, messages: u32, bytes: usize) {
        if let Some(meter) = &mut self.meter {
            meter.count(messages, bytes);
        }
    }

    /// Whether the peer has to wait before the next message is looked at.
    fn is_too_fast(&mut self, is_behind: bool) -> bool {
        let Some(meter) = &mut self.meter else {
            return false;
        };
        if self.closing.stage() != Stage::Open {
            return false;
        }
        match meter.pace(clock::task_now(), is_behind) {
            Pace::Fine => false,
            Pace::Wait(until) => {
                self.pause = Some(Pause::TooFast { until });
                true
            }
            Pace::TooFast => {
                self.meter = None;
                self.close_flooding("too many messages or bytes a second");
                false
            }
        }
    }

    /// Closes a connection whose peer floods.
    fn close_flooding(&mut self, reason: &str) {
        // All frames that it sends from now on are ignored, a close frame, too.
        self.connection.mark_handshake_done();
        self.connection
            .close(&CloseFrame::of(close::POLICY, reason));
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::{
        super::fixture::{SETTINGS, fixture, read_now},
        *,
    };
    use crate::{
        engine::connection::{
            Initiator,
            inbox::Received,
            settings::{Settings, Transport},
        },
        protocol::{
            deflate::{Codecs, Deflater, Options, Terms},
            frame,
            limits::Limits,
        },
    };

    /// A masked frame of less than 126 bytes, or of 65536 and more.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = frame::head(Opcode::Binary, payload.len()).to_vec();
        bytes[0] = first;
        bytes[1] |= 0x80;
        // Masked with nothing.
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(payload);
        bytes
    }

    /// Has the driver take in the bytes of one read. Returns the number of turns that this takes,
    /// and the most bytes that one of them added to an unfinished message.
    fn turns(driver: &mut Driver, read: Vec<u8>) -> (usize, usize) {
        let mut input = Input::from(read);
        if driver.feed(&mut input, &mut Batch::default()) {
            driver.leftover = input.put_by();
        }
        let (mut turns, mut most) = (1, driver.receiver.held_bytes());
        while driver.more == More::TakeIn {
            while let Received::Message(_) = driver.connection.take_now() {}
            let before = driver.receiver.held_bytes();
            driver.feed_leftover();
            most = most.max(driver.receiver.held_bytes().saturating_sub(before));
            turns += 1;
        }
        assert!(driver.leftover.is_none());
        (turns, most)
    }

    #[tokio::test]
    async fn whatever_frames_a_read_brings_a_turn_has_so_many_of_them() {
        let patient = Settings {
            limits: Limits {
                max_fragments: u32::MAX,
                ..SETTINGS.limits
            },
            ..SETTINGS
        };
        for (first, bytes) in [
            (vec![], frame(0x82, b"")),
            (vec![], frame(0x89, b"")),
            (vec![], frame(0x8A, b"unasked")),
            (frame(0x02, b""), frame(0x00, b"1")),
        ] {
            let mut fixture = fixture(&patient);
            turns(&mut fixture.driver, first);
            let read = bytes.repeat(1000);
            assert_eq!(turns(&mut fixture.driver, read).0, 1000_usize.div_ceil(128));
        }
    }

    #[tokio::test]
    async fn all_pings_of_a_turn_are_answered_in_order_and_before_a_close() {
        let mut fixture = fixture(&SETTINGS);
        let read = [frame(0x89, b"1"), frame(0x89, b"2"), frame(0x88, b"")].concat();
        assert_eq!(turns(&mut fixture.driver, read).0, 1);
        assert_eq!(read_now(&mut fixture.peer), b"\x8a\x011\x8a\x012\x88\x00");
    }

    #[tokio::test]
    async fn a_bomb_is_inflated_in_many_turns_and_comes_out_whole() {
        const SIZE: usize = 8 * 1024 * 1024;
        let options = Options {
            threshold_bytes: 1,
            level: 9,
            server_no_context_takeover: true,
            client_no_context_takeover: true,
            server_max_window_bits: 15,
            client_max_window_bits: 15,
        };
        let terms = Terms::negotiate("permessage-deflate", options).unwrap();
        let mut fixture = fixture(&Settings {
            compression: Some(terms),
            limits: Limits {
                max_message_bytes: SIZE,
                ..SETTINGS.limits
            },
            ..SETTINGS
        });
        let deflater = Deflater::new(&terms.agreement, &options, &Codecs::default());
        let bomb = deflater.deflate(&vec![b'a'; SIZE]).unwrap();
        let length = u16::try_from(bomb.payload().len()).unwrap().to_be_bytes();
        let bomb = [&b"\xc1\xfe"[..], &length, &[0; 4], bomb.payload()].concat();
        let mut input = Input::from(bomb);
        assert!(fixture.driver.feed(&mut input, &mut Batch::default()));
        fixture.driver.leftover = input.put_by();
        let mut turns = 1;
        let message = loop {
            turns += 1;
            fixture.driver.feed_leftover();
            if let Received::Message(message) = fixture.connection.take_now() {
                break message;
            }
            assert_eq!(fixture.driver.more, More::TakeIn);
        };
        assert_eq!(message.payload, vec![b'a'; SIZE]);
        assert!(turns >= SIZE / TURN.inflated, "{turns} turns");
    }

    #[tokio::test]
    async fn a_client_that_sends_on_behind_its_request_for_events_is_closed() {
        let mut fixture = fixture(&Settings {
            transport: Transport::Events([7; 16]),
            ..SETTINGS
        });
        for round in 0..1000 {
            fixture.peer.write_all(&[b'x'; 4096]).unwrap();
            fixture.driver.read(fixture.io.get_ref());
            assert_eq!(fixture.connection.end().is_some(), round >= 16, "{round}");
        }
        let end = fixture.connection.end().unwrap();
        assert_eq!((end.code, end.by), (close::POLICY, Initiator::Local));
        let told = read_now(&mut fixture.peer);
        assert!(told.starts_with(b"event: close\ndata: {\"code\":1008,"));
    }

    #[tokio::test]
    async fn a_peer_that_sends_nothing_but_control_frames_is_closed() {
        for (bytes, is_closed) in [
            (frame(0x89, b""), true),
            (frame(0x8A, b""), true),
            ([frame(0x89, b""), frame(0x82, b"")].concat(), false),
            (frame(0x82, b""), false),
        ] {
            let mut fixture = fixture(&SETTINGS);
            turns(&mut fixture.driver, bytes.repeat(12_000));
            let end = fixture.connection.end().map(|end| (end.code, end.reason));
            let expected = (close::POLICY, "too many pings and pongs".to_owned());
            assert_eq!(end, is_closed.then_some(expected));
        }
    }
}

//! One client connection: its socket, what is still to be written, what has come back.

use std::io::{self, Read, Write};
use std::time::Instant;

use mio::event::Source;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use crate::frame::{self, Event, Opcode, Parser};
use crate::handshake::Handshake;
use crate::judge::{Judge, Tally};
use crate::script::{Address, Script, mix};

/// Most bytes read or written by one system call.
const BURST: usize = 256 * 1024;
/// Code of our close frame: normal closure (RFC 6455, 7.4.1).
const NORMAL: [u8; 2] = 1000u16.to_be_bytes();

/// The state that all connections of a thread share.
#[derive(Debug)]
pub struct Shared {
    /// The messages to be sent.
    pub script: Script,
    /// Errors so far.
    pub tally: Tally,
    /// The first error, in words.
    pub first_error: Option<String>,
    /// Sending times of the right answers read since this was last emptied.
    pub arrivals: Vec<Instant>,
    /// Bytes read so far, of whatever.
    pub bytes_read: u64,
    /// Connections opened so far.
    pub opened: u32,
    /// Connections whose closing the server confirmed.
    pub closed_cleanly: u64,
    input: Vec<u8>,
    output: Vec<u8>,
}

impl Shared {
    /// Fresh counters around `script`.
    pub fn new(script: Script) -> Self {
        Self {
            script,
            tally: Tally::default(),
            first_error: None,
            arrivals: Vec::new(),
            bytes_read: 0,
            opened: 0,
            closed_cleanly: 0,
            input: vec![0; BURST],
            output: Vec::with_capacity(BURST),
        }
    }
}

/// How far a connection has come.
#[derive(Debug)]
pub enum Phase {
    /// TCP or WebSocket handshake under way.
    Opening(Handshake),
    /// Messages may be sent.
    Open,
    /// Our close frame is queued or sent.
    Closing,
    /// The connection is over.
    Ended,
}

/// One connection.
#[derive(Debug)]
pub struct Connection {
    index: u32,
    stream: TcpStream,
    phase: Phase,
    /// Why it ended before it was open.
    refusal: Option<String>,
    parser: Parser,
    judge: Judge,
    /// Number of the first message of the present script.
    script_start: u64,
    /// Bytes of the present script already written.
    written: u64,
    /// Bytes to be written when no data frame is half written: the request, control frames.
    control: Vec<u8>,
    got_close: bool,
    /// Whether another connection's messages come here, and none are sent from here.
    listens: bool,
}

impl Connection {
    /// A connection on `stream`, which may still be connecting; `request` opens it.
    pub fn new(index: u32, stream: TcpStream, handshake: Handshake, request: String) -> Self {
        Self {
            index,
            stream,
            phase: Phase::Opening(handshake),
            refusal: None,
            parser: Parser::default(),
            judge: Judge::new(index),
            script_start: 0,
            written: 0,
            control: request.into_bytes(),
            got_close: false,
            listens: false,
        }
    }

    /// From now on the messages of connection `talker` are expected here, and nothing is sent.
    pub fn listen_to(&mut self, talker: u32) {
        self.judge = Judge::new(talker);
        self.listens = true;
    }

    /// Asks the loop for events under `token`.
    ///
    /// # Errors
    /// Those of epoll.
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        self.stream
            .register(registry, token, Interest::READABLE | Interest::WRITABLE)
    }

    /// How far it has come.
    pub fn phase(&self) -> &Phase {
        &self.phase
    }

    /// Why it could not be opened, when that is so.
    pub fn refusal(&self) -> Option<&str> {
        self.refusal.as_deref()
    }

    /// Messages that have not come back.
    pub fn missing(&self) -> u64 {
        self.judge.missing()
    }

    /// Starts over with the messages of another script. All messages must have come back.
    pub fn change_script(&mut self) {
        self.script_start = self.judge.messages_sent();
        self.written = 0;
    }

    /// Allows messages until `in_flight` are under way; they count as sent at `now`.
    pub fn top_up(&mut self, in_flight: u64, now: Instant) {
        if matches!(self.phase, Phase::Open) {
            for _ in self.judge.missing()..in_flight {
                self.judge.sent(now);
            }
        }
    }

    /// Notes that one more message is due here; false when the connection is not open.
    pub fn expect_one(&mut self, now: Instant) -> bool {
        let is_open = matches!(self.phase, Phase::Open);
        if is_open {
            self.judge.sent(now);
        }
        is_open
    }

    /// Whether there is something that the socket has not taken yet.
    pub fn is_stuck(&self, script: &Script) -> bool {
        matches!(self.phase, Phase::Open) && self.written < self.until(script)
    }

    /// Bytes of the present script already written.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Queues our close frame.
    pub fn start_close(&mut self) {
        if matches!(self.phase, Phase::Open) {
            self.phase = Phase::Closing;
            self.queue_control(Opcode::Close, &NORMAL);
        }
    }

    /// Reads what is there and judges it. `to_the_end` says that the peer may have shut down, which
    /// a read that was merely short would not show.
    pub fn read(&mut self, shared: &mut Shared, to_the_end: bool) {
        while !matches!(self.phase, Phase::Ended) {
            match self.stream.read(&mut shared.input) {
                Ok(0) => self.end(shared, "the server closed the connection"),
                Ok(count) => {
                    shared.bytes_read += count as u64;
                    // Lent for the while: what is judged changes the rest of `shared`.
                    let input = std::mem::take(&mut shared.input);
                    if let Err(error) = self.take(&input[..count], shared) {
                        self.violation(shared, &error);
                    }
                    shared.input = input;
                    if count < BURST && !to_the_end {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => self.end(shared, &error.to_string()),
            }
        }
    }

    /// Writes what is allowed, as far as the socket takes it.
    pub fn flush(&mut self, shared: &mut Shared) {
        while let Some(result) = self.write_once(shared) {
            match result {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected
                    ) =>
                {
                    return;
                }
                Err(error) => return self.end(shared, &error.to_string()),
            }
        }
    }

    /// Bytes of the present script that may be written by now.
    fn until(&self, script: &Script) -> u64 {
        if self.listens {
            return self.written;
        }
        (self.judge.messages_sent() - self.script_start) * script.frame_len() as u64
    }

    /// One write; `None` when nothing is left to be written.
    fn write_once(&mut self, shared: &mut Shared) -> Option<io::Result<()>> {
        if matches!(self.phase, Phase::Ended) {
            return None;
        }
        let frame = shared.script.frame_len() as u64;
        // A control frame may stand between data frames, not inside one.
        if !self.control.is_empty() && self.written % frame == 0 {
            return Some(self.stream.write(&self.control).map(|count| {
                self.control.drain(..count);
            }));
        }
        let until = self.until(&shared.script);
        if self.written == until {
            return None;
        }
        shared.output.clear();
        let mut at = self.written;
        while at < until && shared.output.len() < BURST {
            let address = Address {
                connection: self.index,
                number: self.script_start + at / frame,
            };
            let from = usize::try_from(at % frame).unwrap_or(0);
            let room = BURST - shared.output.len();
            shared
                .script
                .push_frame(address, from, room, &mut shared.output);
            at = self.written + shared.output.len() as u64;
            if !self.control.is_empty() && at % frame == 0 {
                break;
            }
        }
        Some(
            self.stream
                .write(&shared.output)
                .map(|count| self.written += count as u64),
        )
    }

    fn take(&mut self, mut input: &[u8], shared: &mut Shared) -> Result<(), String> {
        if let Phase::Opening(handshake) = &mut self.phase {
            if !handshake.take(&mut input)? {
                return Ok(());
            }
            self.phase = Phase::Open;
            shared.opened += 1;
        }
        while let Some(event) = self.parser.next(&mut input)? {
            match event {
                Event::Part { kind, bytes, last } => {
                    let before = shared.tally.total();
                    let at = self
                        .judge
                        .part(&shared.script, kind, bytes, last, &mut shared.tally);
                    shared.arrivals.extend(at);
                    if shared.tally.total() > before && shared.first_error.is_none() {
                        let index = self.index;
                        shared.first_error =
                            Some(format!("connection {index}: {}", shared.tally.describe()));
                    }
                }
                Event::Ping(payload) => self.queue_control(Opcode::Pong, &payload),
                Event::Pong => {}
                Event::Close(code) => self.take_close(code, shared),
            }
        }
        Ok(())
    }

    fn take_close(&mut self, code: Option<u16>, shared: &mut Shared) {
        self.got_close = true;
        if matches!(self.phase, Phase::Open) {
            let code = code.map_or("no code".into(), |code| code.to_string());
            self.end(
                shared,
                &format!("the server sent a close frame with {code}"),
            );
        }
    }

    fn queue_control(&mut self, opcode: Opcode, payload: &[u8]) {
        let seed = u64::from(self.index) << 32 | self.written & 0xffff_ffff;
        let [a, b, c, d, ..] = mix(seed).to_le_bytes();
        self.control
            .extend(frame::control(opcode, payload, [a, b, c, d]));
    }

    fn violation(&mut self, shared: &mut Shared, error: &str) {
        if matches!(self.phase, Phase::Opening(_)) {
            return self.end(shared, error);
        }
        shared.tally.violation += 1;
        shared
            .first_error
            .get_or_insert_with(|| format!("connection {}: {error}", self.index));
        self.phase = Phase::Ended;
    }

    /// Ends it. Only the end that we asked for is none of the server's errors.
    fn end(&mut self, shared: &mut Shared, reason: &str) {
        match self.phase {
            Phase::Opening(_) => self.refusal = Some(reason.into()),
            Phase::Open => {
                shared.tally.disconnected += 1;
                shared
                    .first_error
                    .get_or_insert_with(|| format!("connection {}: {reason}", self.index));
            }
            Phase::Closing => shared.closed_cleanly += u64::from(self.got_close),
            Phase::Ended => {}
        }
        self.phase = Phase::Ended;
    }
}

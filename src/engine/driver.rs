//! The task that drives one connection: it alone reads the socket and knows the time.
//!
//! All connections of a thread share its time: each has a turn of so many frames and so much to
//! inflate, and what a read has brought beyond that waits for the next one. So whatever one client
//! sends, the others' turn comes soon.
//!
//! A connection talks until it is ended. Then what was sent before is flushed, the peer is
//! given time to answer the close frame, the sending side is shut, and the rest is read and
//! dropped until the peer hangs up: closing on unread bytes would reset the connection, and the
//! reset can overtake the close frame.

use std::{
    cell::RefCell,
    future::{poll_fn, ready},
    io, mem,
    pin::pin,
    sync::Arc,
    thread,
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    io::{
        Interest, Ready,
        unix::{AsyncFd, AsyncFdReadyGuard},
    },
    task::{coop::consume_budget, yield_now},
    time::{Instant, sleep_until},
};

use super::{
    budget::{self, Account},
    clock,
    connection::{Connection, End, Initiator, Settings},
    keepalive::{Due, Keepalive},
    outbox::Flushed,
    patience::{self, Patience},
    permits::Permit,
    rate::{Controls, Meter, Pace},
    read_buffer::Input,
    shedding,
    shutdown::Registration,
    socket::{HANG_UP, Socket},
    trim,
};
use crate::protocol::{
    close::{self, CloseFrame},
    deflate::{Codecs, Inflater},
    error::Violation,
    frame::{self, Opcode},
    message::{Allowance, Event, Found, Message, Receiver},
};

/// Bytes read by one system call, into the read buffer that all connections share as a rule.
const SCRATCH_BYTES: usize = 128 * 1024;

/// What one connection may take in before others have their turn.
const TURN: Allowance = Allowance {
    frames: 128,
    inflated: 256 * 1024,
};

/// Time until the next look whether the process is below its limit of buffered bytes again.
const CROWDED_LOOK: Duration = Duration::from_millis(50);

/// Buffers that are needed only while a read is under way.
#[derive(Default)]
struct Scratch {
    input: Input,
    haul: Haul,
}

/// The results of one turn. Empty between turns.
#[derive(Default)]
struct Haul {
    messages: Vec<Message>,
    /// Answers to the pings, as frames: they go out in one write.
    pongs: Vec<u8>,
    /// Pings and pongs.
    controls: u32,
    /// Messages, also those that are delivered already.
    count: u32,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Lets the buffers of this thread go. The next read makes new ones.
pub(super) fn drop_scratch() {
    SCRATCH.take();
}

/// A read of so many bytes leaves memory behind that is worth giving back.
const LARGE_BYTES: usize = 16 * 1024;

/// Where a connection is on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Open.
    Talking,
    /// A close frame stands at the end of the outbox.
    Flushing {
        queued: usize,
        deadline: Option<Instant>,
    },
    /// Our close frame is out; the peer's has not come.
    AwaitingClose { deadline: Option<Instant> },
    /// Nothing more to send; the peer may hang up.
    Lingering { deadline: Option<Instant> },
    /// The descriptor can go.
    Over,
}

/// The work to do at once, in the next turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum More {
    /// Nothing that is known.
    Nothing,
    /// The last read filled the buffer: there may be more to read.
    Read,
    /// The turn ended before all was taken in.
    TakeIn,
}

/// The driver of one connection. Dropping it ends the connection, whatever happened.
#[derive(Debug)]
pub(super) struct Driver {
    connection: Arc<Connection>,
    receiver: Receiver,
    /// Bytes that were read but have no place in the inbox or in the turn yet, or came with the
    /// handshake.
    leftover: Option<Box<Input>>,
    paused: bool,
    hung_up: bool,
    more: More,
    /// Bytes that the last read brought.
    last_read: usize,
    keepalive: Keepalive,
    /// None without rates, and when they do not matter any more.
    meter: Option<Box<Meter>>,
    controls: Controls,
    /// Nothing is read before this moment: the peer is faster than it may be.
    throttled_until: Option<Instant>,
    /// The peer has broken a rule, and the view has this long to answer what came before.
    condemned_until: Option<Instant>,
    /// Nothing is read before this moment: the process buffers all that it may, and this connection
    /// much of it.
    crowded_until: Option<Instant>,
    patience: Patience,
    /// The bytes that the receiver and `leftover` hold.
    account: Account,
    /// When to see whether the view has napped long enough.
    look_at: Option<Instant>,
    stage: Stage,
    /// How far the clock had been stepped when this last looked.
    ahead: Duration,
    send_timeout: Option<Duration>,
    /// When the last bytes have to be out, whatever the peer takes of them.
    flush_limit: Option<Instant>,
    close_timeout: Duration,
    _registration: Registration,
    _slot: Arc<Permit>,
}

impl Haul {
    fn clear(&mut self) {
        self.messages.clear();
        self.pongs.clear();
        (self.controls, self.count) = (0, 0);
    }
}

impl Driver {
    /// A driver for `connection`; `early` bytes came before those that are still in the socket.
    pub(super) fn new(
        connection: Arc<Connection>,
        early: Vec<u8>,
        settings: &Settings,
        codecs: &Codecs,
        registration: Registration,
        permit: impl Into<Arc<Permit>>,
    ) -> Self {
        let keepalive = Keepalive::new(
            settings.ping_interval,
            settings.ping_timeout,
            connection.id(),
            clock::task_now(),
        );
        let look_at = connection.inbox.look_at().map(Instant::from_std);
        let account = Account::of(connection.share());
        Self {
            connection,
            receiver: match &settings.compression {
                None => Receiver::new(settings.limits),
                Some(terms) => Receiver::new(settings.limits)
                    .with_inflater(Inflater::new(&terms.agreement, codecs)),
            },
            leftover: (!early.is_empty()).then(|| Box::new(early.into())),
            paused: false,
            hung_up: false,
            more: More::Nothing,
            last_read: 0,
            keepalive,
            meter: Meter::new(settings.rates, clock::task_now()),
            controls: Controls::new(clock::task_now()),
            throttled_until: None,
            condemned_until: None,
            crowded_until: None,
            patience: Patience::new(settings.message_timeout),
            account,
            look_at,
            stage: Stage::Talking,
            ahead: clock::ahead(),
            send_timeout: settings.send_timeout,
            flush_limit: None,
            close_timeout: settings.close_timeout,
            _registration: registration,
            _slot: permit.into(),
        }
    }

    /// Drives the connection to its end. Boxed, or the task would hold room for two of it.
    pub(super) async fn run(mut self: Box<Self>, io: AsyncFd<Arc<Socket>>) {
        let connection = Arc::clone(&self.connection);
        let mut alarm = pin!(sleep_until(Instant::now()));
        // Kept from turn to turn: to queue up for it again would be work for each message.
        let mut wake = pin!(connection.wake.notified());
        if self.leftover.is_some() {
            self.feed_leftover();
        }
        loop {
            connection.hurry_views();
            // Neither wake-ups nor readiness count as work in tokio: without this, a peer or a view
            // that never pauses would have the thread for itself.
            if self.more == More::Nothing {
                consume_budget().await;
            } else {
                if self.more == More::TakeIn {
                    // This connection needs many turns. A view's thread may wait for the processor.
                    thread::yield_now();
                }
                yield_now().await;
            }
            if self.more == More::Read {
                self.more = More::Nothing;
            }
            self.advance(&io);
            if self.stage == Stage::Over {
                return;
            }
            let goes_on = self.goes_on();
            let deadline = self
                .deadline()
                .map(|deadline| Instant::from_std(clock::real(deadline.into_std())));
            if let Some(deadline) = deadline.filter(|deadline| *deadline != alarm.deadline()) {
                alarm.as_mut().reset(deadline);
            }
            tokio::select! {
                biased;
                () = alarm.as_mut(), if deadline.is_some() => self.on_time(clock::task_now()),
                () = wake.as_mut() => {
                    wake.set(connection.wake.notified());
                    self.on_wake();
                }
                () = ready(()), if goes_on => self.feed_leftover(),
                ready = self.ready(&io) => match ready {
                    Ok(guard) => self.on_ready(guard),
                    // The runtime is going down.
                    Err(_) => return,
                },
            }
        }
    }

    /// Waits for the readiness of the socket that matters now, and only for that.
    fn ready<'io>(
        &self,
        io: &'io AsyncFd<Arc<Socket>>,
    ) -> impl Future<Output = io::Result<AsyncFdReadyGuard<'io, Arc<Socket>>>> + use<'io> {
        // A hang-up that was seen would be reported again and again. So wait for nothing here: only
        // the view can change anything, by taking a message.
        let deaf = self.paused && self.hung_up;
        let mut interest = if self.is_holding_off() {
            HANG_UP.0
        } else {
            Interest::READABLE
        };
        if self.connection.outbox.is_blocked() {
            interest |= Interest::WRITABLE;
        }
        async move {
            if deaf {
                std::future::pending::<()>().await;
            }
            if interest == Interest::READABLE {
                // The usual case, for which tokio keeps a place for the waker ready.
                poll_fn(|context| io.poll_read_ready(context)).await
            } else {
                io.ready(interest).await
            }
        }
    }

    fn on_ready(&mut self, mut guard: AsyncFdReadyGuard<'_, Arc<Socket>>) {
        let ready = guard.ready();
        if !(ready & HANG_UP.1).is_empty() {
            guard.clear_ready_matching(HANG_UP.1);
        }
        if ready.is_writable() && self.connection.outbox.flush() == Flushed::Blocked {
            guard.clear_ready_matching(Ready::WRITABLE);
        }
        if self.is_holding_off() {
            if ready.is_read_closed() || ready.is_write_closed() || ready.is_error() {
                self.on_hang_up();
            }
        } else if (ready.is_readable() || ready.is_read_closed()) && !self.is_crowded() {
            self.read(&mut guard);
        }
    }

    fn on_wake(&mut self) {
        if self.ahead != clock::ahead() {
            self.ahead = clock::ahead();
            // The alarm does not know of the step yet.
            let now = clock::task_now();
            if self.deadline().is_some_and(|deadline| deadline <= now) {
                self.on_time(now);
            }
        }
        self.look_at = self.connection.inbox.look_at().map(Instant::from_std);
        if self.connection.share().is_shed() {
            self.let_go();
        }
        if self.connection.outbox.queued() > 0 {
            self.connection.outbox.flush();
        }
        if self.condemned_until.is_some()
            && (self.connection.inbox.is_answered() || self.connection.is_ending())
        {
            self.carry_out();
        }
        if self.paused && self.connection.inbox.room().is_some() {
            self.paused = false;
            self.go_on_reading();
        }
        if self.throttled_until.is_some() && self.connection.is_ending() {
            self.stop_metering();
        }
        if self.stage == Stage::Talking && self.connection.outbox.is_cut() && self.is_holding_off()
        {
            self.on_hang_up();
        }
    }

    /// Whether nothing is read now: the view has to make room, or the peer has to wait, or what it
    /// sends is ignored.
    fn is_holding_off(&self) -> bool {
        self.paused
            || self.throttled_until.is_some()
            || self.condemned_until.is_some()
            || self.crowded_until.is_some()
    }

    /// Whether the next turn goes on with what the last one has left.
    fn goes_on(&mut self) -> bool {
        self.more == More::TakeIn && !self.is_holding_off() && !self.is_crowded()
    }

    /// Whether this connection has to wait until the process buffers less.
    fn is_crowded(&mut self) -> bool {
        let is_crowded = budget::is_full() && self.connection.share().is_large();
        if is_crowded && !self.connection.share().is_shed() {
            shedding::request();
            self.crowded_until = Some(clock::task_now() + CROWDED_LOOK);
        }
        self.crowded_until.is_some()
    }

    /// Drops what has come of a message, and takes in nothing more.
    fn let_go(&mut self) {
        self.receiver.stop();
        self.leftover = None;
        self.more = More::Nothing;
        self.crowded_until = None;
        self.account_for();
    }

    /// Notes how much is held of unfinished messages, and since when.
    fn account_for(&mut self) {
        let leftover = self.leftover.as_ref().map_or(0, |input| input.held());
        let held = self.receiver.buffered() + leftover;
        self.account.set(held);
        self.patience
            .on_read(self.receiver.unfinished(), clock::task_now);
    }

    fn go_on_reading(&mut self) {
        if !self.is_holding_off() {
            self.keepalive.heard();
            self.patience.renew(clock::task_now);
            self.feed_leftover();
        }
    }

    /// Takes in what is left at any speed: the peer is on its way out.
    fn stop_metering(&mut self) {
        self.meter = None;
        self.throttled_until = None;
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
        if self.stage != Stage::Talking {
            return false;
        }
        match meter.pace(clock::task_now(), is_behind) {
            Pace::Fine => false,
            Pace::Wait(until) => {
                self.throttled_until = Some(until);
                true
            }
            Pace::TooFast => {
                self.meter = None;
                self.turn_out("too many messages or bytes a second");
                false
            }
        }
    }

    /// Closes a connection whose peer floods.
    fn turn_out(&mut self, reason: &str) {
        // All frames that it sends from now on are ignored, a close frame, too.
        self.connection.mark_handshake_done();
        self.connection.close(&CloseFrame {
            code: Some(close::POLICY),
            reason: reason.to_owned(),
        });
    }

    /// The peer is gone but has left bytes that the view did not make room for yet.
    fn on_hang_up(&mut self) {
        if self.condemned_until.is_some() {
            self.carry_out();
            return;
        }
        if self.crowded_until.take().is_some() {
            self.on_end_of_stream("the client hung up");
            return;
        }
        if !self.paused {
            // Read what it sent last, and then the end of the stream.
            self.stop_metering();
            return;
        }
        self.hung_up = true;
        self.connection.begin_end(lost("the client hung up"));
        self.connection.outbox.cut();
    }

    fn read(&mut self, guard: &mut AsyncFdReadyGuard<'_, Arc<Socket>>) {
        SCRATCH.with_borrow_mut(|Scratch { input, haul }| {
            input.clear();
            // It is empty, unless a connection ended in a panic.
            haul.clear();
            // The rest of a large message is read directly into its final place.
            let (buffer, most) = match self.receiver.tail(SCRATCH_BYTES) {
                Some(tail) => tail,
                None => (input.buffer(), SCRATCH_BYTES),
            };
            match guard.get_inner().receive(buffer, most) {
                Ok(0) => self.on_end_of_stream("the client hung up"),
                Ok(length) => {
                    if length < most {
                        // A short read has emptied the socket; no need to ask it again.
                        guard.clear_ready_matching(Ready::READABLE);
                    }
                    let is_filled = length == most;
                    let before = mem::replace(&mut self.last_read, length);
                    // When the view takes this message, it lets go of the one before.
                    if length.max(before) >= LARGE_BYTES {
                        trim::expect_trim();
                    }
                    self.keepalive.heard();
                    self.count(0, length);
                    if self.feed(input, haul) {
                        self.leftover = input.put_by();
                    } else if is_filled {
                        self.more = More::Read;
                    }
                    self.account_for();
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => guard.clear_ready_matching(Ready::READABLE),
                    io::ErrorKind::Interrupted => {}
                    io::ErrorKind::ConnectionReset => {
                        self.on_end_of_stream("the client reset the connection");
                    }
                    io::ErrorKind::TimedOut => {
                        self.on_end_of_stream("the client's network is gone");
                    }
                    _ => self.on_end_of_stream("the connection broke"),
                },
            }
        });
    }

    /// Goes on with the bytes that were left, which may all be inside a codec.
    fn feed_leftover(&mut self) {
        let mut input = self.leftover.take().unwrap_or_default();
        if self.feed(&mut input, &mut Haul::default()) {
            if self.more == More::Nothing {
                input.shrink();
            }
            self.leftover = Some(input);
        }
        self.account_for();
    }

    /// Takes in `input`, as much of it as a turn allows. `haul` is empty before and after. True when
    /// what is left has to be kept.
    fn feed(&mut self, input: &mut Input, haul: &mut Haul) -> bool {
        let is_behind = mem::replace(&mut self.more, More::Nothing) == More::TakeIn;
        let has_rest = self.take_in(input, haul, is_behind);
        self.hand_over(haul);
        if haul.controls > 0 && self.stage == Stage::Talking {
            let now = clock::task_now();
            if !self.controls.count(haul.controls, haul.count, now) {
                self.turn_out("too many pings and pongs");
                self.receiver.stop();
            }
        }
        (haul.controls, haul.count) = (0, 0);
        has_rest
    }

    /// The part of [`Driver::feed`] that looks at the bytes.
    fn take_in(&mut self, input: &mut Input, haul: &mut Haul, is_behind: bool) -> bool {
        let mut turn = TURN;
        let mut room = self.connection.inbox.room();
        loop {
            let Some(left) = &mut room else {
                self.paused = true;
                return true;
            };
            if self.is_too_fast(is_behind) {
                return true;
            }
            let event = match self.next_event(input, &mut turn) {
                Ok(Some(event)) => event,
                Ok(None) => return self.more == More::TakeIn,
                Err(violation) => {
                    self.hand_over(haul);
                    self.on_violation(&violation);
                    continue;
                }
            };
            self.count(1, 0);
            match event {
                Event::Message(message) => {
                    self.patience.on_message();
                    let goes_on = left.take(&message);
                    haul.messages.push(message);
                    haul.count += 1;
                    // Delivered together, so that the view finds all of them at its first look.
                    if !goes_on {
                        self.connection.deliver(&mut haul.messages);
                        room = self.connection.inbox.room();
                    }
                }
                Event::Ping(payload) => {
                    haul.controls += 1;
                    frame::append(&mut haul.pongs, Opcode::Pong, &payload);
                }
                Event::Pong(payload) => {
                    haul.controls += 1;
                    self.connection.pings.answered(&payload, clock::now());
                }
                Event::Close(frame) => {
                    self.hand_over(haul);
                    self.on_close_frame(&frame);
                }
            }
        }
    }

    /// Passes on what has come so far.
    fn hand_over(&self, haul: &mut Haul) {
        if !haul.pongs.is_empty() {
            let pongs = Bytes::copy_from_slice(&haul.pongs);
            haul.pongs.clear();
            self.connection.outbox.pong(pongs);
        }
        self.connection.deliver(&mut haul.messages);
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
            Some(Found::Enough) => {
                self.more = More::TakeIn;
                None
            }
            Some(Found::Event(event)) => Some(event),
            Some(Found::Payload(kind, len)) => Some(Event::Message(Message {
                kind,
                payload: input.keep(len),
            })),
        })
    }

    fn on_close_frame(&mut self, frame: &CloseFrame) {
        let connection = &self.connection;
        connection.mark_handshake_done();
        connection.begin_end(End {
            code: frame.code.unwrap_or(close::NO_STATUS),
            reason: frame.reason.clone(),
            by: Initiator::Peer,
        });
        // The answer repeats the code and need not repeat the reason (RFC 6455 section 5.5.1).
        let answer = CloseFrame {
            code: frame.code,
            reason: String::new(),
        };
        connection.outbox.seal(answer.encode());
        connection.inbox.end();
    }

    fn on_violation(&mut self, violation: &Violation) {
        if self.connection.condemn(violation.into()) {
            self.condemned_until = clock::task_now().checked_add(self.close_timeout);
        }
    }

    /// Closes a connection whose peer does not go on with its message.
    fn on_stall(&mut self) {
        self.let_go();
        self.on_violation(&Violation {
            code: close::POLICY,
            reason: "message was not finished in time".into(),
        });
    }

    /// Closes a connection whose peer has broken a rule.
    fn carry_out(&mut self) {
        self.condemned_until = None;
        self.connection.carry_out();
        self.go_on_reading();
    }

    fn on_end_of_stream(&mut self, reason: &str) {
        self.connection.begin_end(lost(reason));
        self.stage = Stage::Over;
    }

    fn look(&mut self, now: Instant) {
        let next = self.connection.inbox.look(now.into_std());
        self.look_at = next.map(Instant::from_std);
    }

    fn on_time(&mut self, now: Instant) {
        if self.look_at.is_some_and(|at| at <= now) {
            self.look(now);
        }
        if self.condemned_until.is_some_and(|until| until <= now) {
            self.carry_out();
        }
        if self.throttled_until.is_some_and(|until| until <= now) {
            self.throttled_until = None;
            self.go_on_reading();
        }
        if self.crowded_until.is_some_and(|until| until <= now) {
            self.crowded_until = None;
            if !self.is_crowded() {
                self.go_on_reading();
            }
        }
        if self.stage == Stage::Talking && !self.is_holding_off() && self.patience.is_over(now) {
            self.on_stall();
        }
        match self.stage {
            Stage::Talking => match self.keepalive_due(now) {
                Due::Nothing => {}
                Due::Ping => {
                    self.connection.pings.keepalive(now.into_std());
                    self.connection.outbox.ping();
                }
                Due::Death => {
                    self.connection
                        .begin_end(lost("the client did not answer a ping in time"));
                    // It may still arrive: perhaps only our reading side is cut off.
                    let exit = CloseFrame {
                        code: Some(close::INTERNAL_ERROR),
                        reason: "no answer to a ping".to_owned(),
                    };
                    self.connection.outbox.seal(exit.encode());
                    self.stage = Stage::Over;
                }
            },
            Stage::Flushing { .. } | Stage::AwaitingClose { .. } | Stage::Lingering { .. } => {
                if self.deadline().is_some_and(|deadline| deadline <= now) {
                    self.stage = Stage::Over;
                }
            }
            Stage::Over => {}
        }
    }

    fn keepalive_due(&mut self, now: Instant) -> Due {
        let is_holding_off = self.is_holding_off();
        let outbox = &self.connection.outbox;
        self.keepalive.due(now, is_holding_off, || outbox.passage())
    }

    fn deadline(&self) -> Option<Instant> {
        match self.stage {
            Stage::Talking => {
                let keepalive = self.keepalive.deadline(self.is_holding_off());
                let own = [
                    self.throttled_until,
                    self.condemned_until,
                    self.crowded_until,
                    self.look_at,
                    self.patience.deadline().filter(|_| !self.is_holding_off()),
                ];
                keepalive.into_iter().chain(own.into_iter().flatten()).min()
            }
            Stage::Flushing { deadline, .. }
            | Stage::AwaitingClose { deadline }
            | Stage::Lingering { deadline } => deadline.into_iter().chain(self.crowded_until).min(),
            Stage::Over => None,
        }
    }

    /// Goes on to the next stage when the present one is done.
    fn advance(&mut self, io: &AsyncFd<Arc<Socket>>) {
        if matches!(self.stage, Stage::Talking) && self.connection.is_ending() && !self.hung_up {
            self.stage = Stage::Flushing {
                queued: usize::MAX,
                deadline: None,
            };
        }
        if let Stage::Flushing { queued, .. } = self.stage {
            // The closing thread notes the end first and seals the outbox then. Until it has, there
            // is more to flush than can be seen.
            let sealed = self.connection.outbox.is_sealed();
            let left = self.connection.outbox.queued();
            if sealed && left == 0 {
                self.stage = if self.connection.outbox.is_cut() {
                    Stage::Over
                } else {
                    let deadline = clock::task_now().checked_add(self.close_timeout);
                    Stage::AwaitingClose { deadline }
                };
            } else if sealed && left < queued {
                let deadline = self
                    .send_timeout
                    .and_then(|time| clock::task_now().checked_add(time));
                if queued == usize::MAX {
                    let now = clock::task_now();
                    self.flush_limit = patience::flush_limit(now, self.send_timeout, left);
                }
                let deadline = deadline.into_iter().chain(self.flush_limit).min();
                self.stage = Stage::Flushing {
                    queued: left,
                    deadline,
                };
            }
        }
        if matches!(self.stage, Stage::AwaitingClose { .. }) && self.connection.is_handshake_done()
        {
            io.get_ref().finish_sending();
            let deadline = clock::task_now().checked_add(self.close_timeout);
            self.stage = Stage::Lingering { deadline };
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let connection = &self.connection;
        if thread::panicking() {
            let frame = CloseFrame {
                code: Some(close::INTERNAL_ERROR),
                reason: String::new(),
            };
            connection.close(&frame);
        }
        connection.begin_end(lost("the process ended"));
        connection.inbox.end();
        connection.outbox.cut();
    }
}

fn lost(reason: &str) -> End {
    End {
        code: close::ABNORMAL,
        reason: reason.to_owned(),
        by: Initiator::Lost,
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{ErrorKind, Read, Write},
        os::{fd::IntoRawFd, unix::net::UnixStream},
        thread,
    };

    use super::*;
    use crate::{
        engine::{flush_timer::FlushTimer, inbox::Taken, shutdown::Registry},
        protocol::{
            deflate::{Deflater, Options, Terms},
            limits::Limits,
            message::Kind,
        },
    };

    const SETTINGS: Settings = Settings {
        receive_buffer_bytes: 1024 * 1024,
        send_buffer_bytes: 1024 * 1024,
        send_timeout: Some(Duration::from_secs(3)),
        ..Settings::FOR_TESTS
    };

    struct Bed {
        driver: Driver,
        io: AsyncFd<Arc<Socket>>,
        connection: Arc<Connection>,
        peer: UnixStream,
    }

    /// A driver that does nothing by itself. Needs a runtime around it.
    fn bed(settings: &Settings) -> Bed {
        let (ours, peer) = UnixStream::pair().unwrap();
        peer.set_nonblocking(true).unwrap();
        let socket = Arc::new(Socket::take_over(ours.into_raw_fd()).unwrap());
        let io = socket.watch().unwrap();
        let connection = Arc::new(Connection::new(
            1,
            socket,
            settings,
            Bytes::new(),
            FlushTimer::idle(),
            Arc::default(),
            &Codecs::default(),
        ));
        let registration = Registry::register(&Arc::default(), &connection).unwrap();
        let permit = Permit::claim(None).unwrap();
        let driver = Driver::new(
            Arc::clone(&connection),
            Vec::new(),
            settings,
            &Codecs::default(),
            registration,
            permit,
        );
        Bed {
            driver,
            io,
            connection,
            peer,
        }
    }

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

    /// Has the driver take in what one read brought; how many turns that takes, and the most bytes
    /// that one of them added to an unfinished message.
    fn turns(driver: &mut Driver, read: Vec<u8>) -> (usize, usize) {
        let mut input = Input::from(read);
        if driver.feed(&mut input, &mut Haul::default()) {
            driver.leftover = input.put_by();
        }
        let (mut turns, mut most) = (1, driver.receiver.held_bytes());
        while driver.more == More::TakeIn {
            while let Taken::Message(_) = driver.connection.take_now() {}
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
            let mut bed = bed(&patient);
            turns(&mut bed.driver, first);
            let read = bytes.repeat(1000);
            assert_eq!(turns(&mut bed.driver, read).0, 1000_usize.div_ceil(128));
        }
    }

    #[tokio::test]
    async fn all_pings_of_a_turn_are_answered_in_order_and_before_a_close() {
        let mut bed = bed(&SETTINGS);
        let read = [frame(0x89, b"1"), frame(0x89, b"2"), frame(0x88, b"")].concat();
        assert_eq!(turns(&mut bed.driver, read).0, 1);
        assert_eq!(read_now(&mut bed.peer), b"\x8a\x011\x8a\x012\x88\x00");
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
        let mut bed = bed(&Settings {
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
        assert!(bed.driver.feed(&mut input, &mut Haul::default()));
        bed.driver.leftover = input.put_by();
        let mut turns = 1;
        let message = loop {
            turns += 1;
            bed.driver.feed_leftover();
            if let Taken::Message(message) = bed.connection.take_now() {
                break message;
            }
            assert_eq!(bed.driver.more, More::TakeIn);
        };
        assert_eq!(message.payload, vec![b'a'; SIZE]);
        assert!(turns >= SIZE / TURN.inflated, "{turns} turns");
    }

    #[tokio::test]
    async fn a_peer_that_sends_nothing_but_control_frames_is_turned_out() {
        for (bytes, is_turned_out) in [
            (frame(0x89, b""), true),
            (frame(0x8A, b""), true),
            ([frame(0x89, b""), frame(0x82, b"")].concat(), false),
            (frame(0x82, b""), false),
        ] {
            let mut bed = bed(&SETTINGS);
            turns(&mut bed.driver, bytes.repeat(12_000));
            let end = bed.connection.end().map(|end| (end.code, end.reason));
            let expected = (close::POLICY, "too many pings and pongs".to_owned());
            assert_eq!(end, is_turned_out.then_some(expected));
        }
    }

    fn read_now(peer: &mut UnixStream) -> Vec<u8> {
        let mut bytes = Vec::new();
        match peer.read_to_end(&mut bytes) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        bytes
    }

    fn going_away() -> CloseFrame {
        CloseFrame::new(Some(close::GOING_AWAY), "bye").unwrap()
    }

    #[tokio::test]
    async fn flushing_waits_for_the_seal_of_whoever_closes() {
        let mut bed = bed(&SETTINGS);
        // The first half of `Connection::close`, whose thread is then interrupted.
        bed.connection.begin_end(lost("test"));
        bed.driver.advance(&bed.io);
        assert!(matches!(
            bed.driver.stage,
            Stage::Flushing { deadline: None, .. }
        ));
        bed.connection.outbox.seal(going_away().encode());
        bed.driver.advance(&bed.io);
        assert!(matches!(bed.driver.stage, Stage::AwaitingClose { .. }));
        assert_eq!(read_now(&mut bed.peer), b"\x88\x05\x03\xe9bye");
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_may_take_its_time_as_long_as_it_takes_something() {
        let mut bed = bed(&SETTINGS);
        for _ in 0..50 {
            assert!(
                bed.connection
                    .send(Kind::Binary, &[0; 10_000], None)
                    .unwrap()
            );
        }
        bed.connection.close(&going_away());
        bed.driver.advance(&bed.io);
        let mut deadline = bed.driver.deadline().unwrap();
        assert_eq!(deadline, Instant::now() + Duration::from_secs(3));
        while bed.connection.outbox.queued() > 0 {
            tokio::time::advance(Duration::from_secs(2)).await;
            assert!(!read_now(&mut bed.peer).is_empty());
            bed.connection.outbox.flush();
            bed.driver.on_time(Instant::now());
            bed.driver.advance(&bed.io);
            if bed.connection.outbox.queued() > 0 {
                let next = bed.driver.deadline().unwrap();
                assert!(next > deadline);
                deadline = next;
            }
        }
        assert!(matches!(bed.driver.stage, Stage::AwaitingClose { .. }));
    }

    #[tokio::test(start_paused = true)]
    async fn each_stage_gives_up_in_its_time() {
        let mut blocked = bed(&SETTINGS);
        while blocked.connection.outbox.queued() == 0 {
            blocked
                .connection
                .send(Kind::Binary, &[0; 10_000], None)
                .unwrap();
        }
        let mut silent = bed(&SETTINGS);
        for (bed, seconds) in [(&mut blocked, 3), (&mut silent, 1)] {
            bed.connection.close(&going_away());
            bed.driver.advance(&bed.io);
            let deadline = Instant::now() + Duration::from_secs(seconds);
            assert_eq!(bed.driver.deadline(), Some(deadline));
            bed.driver.on_time(deadline - Duration::from_millis(1));
            assert_ne!(bed.driver.stage, Stage::Over);
            bed.driver.on_time(deadline);
            assert_eq!(bed.driver.stage, Stage::Over);
        }
    }

    #[tokio::test]
    async fn times_beyond_the_clock_mean_for_ever() {
        let mut bed = bed(&Settings {
            send_timeout: Some(Duration::MAX),
            close_timeout: Duration::MAX,
            ping_interval: Some(Duration::MAX),
            ping_timeout: Some(Duration::MAX),
            ..SETTINGS
        });
        bed.connection.close(&going_away());
        bed.driver.advance(&bed.io);
        assert_eq!(bed.driver.stage, Stage::AwaitingClose { deadline: None });
        assert_eq!(bed.driver.deadline(), None);
    }

    #[tokio::test]
    async fn a_panic_costs_one_connection_and_tells_its_peer() {
        let Bed {
            driver,
            io,
            connection,
            mut peer,
        } = bed(&SETTINGS);
        let panicked = thread::spawn(move || {
            let _driver = driver;
            panic!("as a bug would");
        });
        panicked.join().unwrap_err();
        assert_eq!(connection.end().unwrap().code, close::INTERNAL_ERROR);
        assert!(matches!(connection.take(None), Taken::End));
        assert!(!connection.send(Kind::Text, b"late", None).unwrap());
        drop(io);
        assert_eq!(read_now(&mut peer), b"\x88\x02\x03\xf3");
        assert!(peer.write_all(b"nobody there").is_err());
    }

    #[tokio::test]
    async fn a_runtime_that_goes_away_ends_its_connections() {
        let Bed {
            driver, connection, ..
        } = bed(&SETTINGS);
        drop(driver);
        assert_eq!(connection.end(), Some(lost("the process ended")));
        assert!(matches!(connection.take(None), Taken::End));
        assert!(connection.outbox.is_cut());
    }
}

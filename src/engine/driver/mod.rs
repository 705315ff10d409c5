//! The task that drives one connection: it alone reads the socket and knows the time.
//!
//! It sleeps until the socket is ready, a view or another thread has something for it to do, or a
//! moment has come. A connection is open until it is ended; then it closes, stage by stage.

mod closing;
#[cfg(test)]
mod fixture;
mod keepalive;
mod message_timeout;
mod moving;
mod pause;
mod rate;
mod reading;

use std::{
    future::{poll_fn, ready},
    io,
    pin::pin,
    sync::Arc,
    thread,
    time::Duration,
};

use tokio::{
    io::{Interest, Ready},
    task::{coop::consume_budget, yield_now},
    time::{Instant, sleep_until},
};

use self::{
    closing::{Closing, Stage},
    keepalive::{Due, Keepalive},
    message_timeout::MessageTimeout,
    pause::Pause,
    rate::{Controls, Meter},
};
use crate::{
    engine::{
        base::clock,
        connection::{
            Connection, End, Initiator,
            carrier::Carrier,
            moving::Incoming,
            registry::Registration,
            settings::{Settings, Transport},
        },
        resources::{
            budget::Account,
            permits::Permit,
            read_buffer::Input,
            socket::{HANG_UP, Socket},
            watched::{Guard, Watched},
        },
    },
    protocol::{
        close::{self, CloseFrame},
        deflate::{Codecs, Inflater},
        frame::Role,
        message::Receiver,
    },
};

/// The work to do at once, in the next turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum More {
    /// None that is known.
    Nothing,
    /// The last read filled the buffer: there may be more to read.
    Read,
    /// The turn ended before all was taken in.
    TakeIn,
}

impl More {
    /// Lets others use the thread, if their turn has come.
    ///
    /// Neither wake-ups nor readiness count as work in tokio: without this, a peer or a view that never
    /// pauses would have the thread for itself.
    async fn end_turn(self) {
        if self == Self::Nothing {
            consume_budget().await;
            return;
        }
        if self == Self::TakeIn {
            // This connection needs many turns. A view's thread may wait for the processor.
            thread::yield_now();
        }
        yield_now().await;
    }
}

/// The driver of one connection. Dropping it ends the connection, whatever happened.
#[derive(Debug)]
pub(crate) struct Driver {
    connection: Arc<Connection>,
    receiver: Receiver,
    /// Bytes that were read but have no place in the inbox or in the turn yet, or came with the
    /// handshake.
    leftover: Option<Box<Input>>,
    /// The reason for which nothing is read now, if so.
    pause: Option<Pause>,
    hung_up: bool,
    /// Whether bytes may wait in the socket whose arrival is not reported again: it was, and nothing
    /// was read then.
    unread: bool,
    more: More,
    /// Bytes that the last read brought.
    last_read: usize,
    keepalive: Keepalive,
    /// None without rates, and when they do not matter any more.
    meter: Option<Box<Meter>>,
    controls: Controls,
    message_timeout: MessageTimeout,
    /// The bytes that the receiver and `leftover` hold.
    account: Account,
    /// When to see whether a sleep of [`Connection::take_coarse`] is over.
    look_at: Option<Instant>,
    /// When to see whether a beat is due.
    next_beat: Option<Instant>,
    closing: Closing,
    /// How far the clock had been stepped when the driver last looked.
    ahead: Duration,
    _registration: Registration,
    _permit: Arc<Permit>,
    /// Dropped last: the task of a server that carries the connection may end then.
    _carrier_end: CarrierEnd,
}

/// Tells a server that carries the connection of the driver's end.
#[derive(Debug)]
struct CarrierEnd(Option<Arc<Carrier>>);

impl Drop for CarrierEnd {
    fn drop(&mut self) {
        if let Some(carrier) = &self.0 {
            carrier.end();
        }
    }
}

/// How a driver learns that it can read or write.
#[derive(Debug)]
pub(crate) enum Io {
    /// From the system.
    Watched(Watched),
    /// Another server has the socket: by [`Connection::wake`].
    Carried(Arc<Socket>),
}

impl Io {
    fn get_ref(&self) -> &Arc<Socket> {
        match self {
            Self::Watched(io) => io.get_ref(),
            Self::Carried(socket) => socket,
        }
    }
}

impl Driver {
    /// A driver for `connection`; `early` came before what is still in the socket.
    pub(crate) fn new(
        connection: Arc<Connection>,
        early: impl Into<Incoming>,
        settings: &Settings,
        codecs: &Codecs,
        registration: Registration,
        permit: impl Into<Arc<Permit>>,
    ) -> Self {
        let Incoming {
            bytes: early,
            pulse,
        } = early.into();
        // With events, what follows the request is another request, which gets no answer.
        let has_early = !early.is_empty() && connection.posts.is_none();
        connection.count_read(early.len());
        let now = clock::task_now();
        // A client that polls takes nothing between an answer and its next poll: its relay alone knows
        // for how long.
        let is_polled = matches!(settings.transport, Transport::Polling(_));
        let interval = settings.ping_interval.filter(|_| !is_polled);
        let timeout = settings.ping_timeout;
        let keepalive = Keepalive::new(interval, timeout, connection.id(), now).after(pulse, now);
        let look_at = connection.inbox.look_at().map(Instant::from_std);
        let account = Account::of(&connection.share);
        let carrier_end = CarrierEnd(connection.carrier.clone());
        let mut receiver = Receiver::new(settings.limits).with_role(settings.transport.role());
        if let Some(terms) = &settings.compression {
            receiver = receiver.with_inflater(Inflater::new(&terms.agreement, codecs));
        }
        Self {
            connection,
            receiver,
            leftover: has_early.then(|| Box::new(early.into())),
            pause: None,
            hung_up: false,
            unread: false,
            more: More::Nothing,
            last_read: 0,
            keepalive,
            meter: Meter::new(settings.rates, now),
            controls: Controls::new(now),
            message_timeout: MessageTimeout::new(settings.message_timeout),
            account,
            look_at,
            next_beat: None,
            closing: Closing::new(settings),
            ahead: clock::ahead(),
            _registration: registration,
            _permit: permit.into(),
            _carrier_end: carrier_end,
        }
    }

    /// Drives the connection to its end. Boxed, or the task would hold room for two drivers.
    pub(crate) async fn run(mut self: Box<Self>, io: Io) {
        let connection = Arc::clone(&self.connection);
        let mut alarm = pin!(sleep_until(Instant::now()));
        // Kept from turn to turn: registering for it again would be work for each message.
        let mut wake = pin!(connection.wake.notified());
        if self.leftover.is_some() {
            self.feed_leftover();
        }
        loop {
            connection.hurry_views();
            self.more.end_turn().await;
            if self.more == More::Read {
                self.more = More::Nothing;
            }
            self.take_posts();
            self.advance(&io);
            let is_over = self.closing.stage() == Stage::Over;
            if is_over || self.has_gone(&io, &connection, wake.as_mut()).await {
                return;
            }
            let (goes_on, reads_on) = self.next_work();
            let deadline = self.real_deadline();
            if let Some(deadline) = deadline.filter(|deadline| *deadline != alarm.deadline()) {
                alarm.as_mut().reset(deadline);
            }
            tokio::select! {
                biased;
                () = alarm.as_mut(), if deadline.is_some() => self.on_time(clock::task_now(), io.get_ref()),
                () = wake.as_mut() => {
                    wake.set(connection.wake.notified());
                    self.on_wake(io.get_ref());
                }
                () = ready(()), if goes_on => self.feed_leftover(),
                () = ready(()), if reads_on => self.unread = !self.read(io.get_ref()),
                ready = self.ready(&io) => match ready {
                    Ok(guard) => self.on_ready(guard),
                    // The runtime is going down.
                    Err(_) => return,
                },
            }
        }
    }

    /// Waits for the readiness of the socket that matters now, and only for that.
    fn ready<'io>(&self, io: &'io Io) -> impl Future<Output = io::Result<Guard<'io>>> + use<'io> {
        // A hang-up that was seen would be reported again and again. So wait for nothing here: only
        // the view can change anything, by taking a message.
        let waits_for_view = self.pause == Some(Pause::InboxFull) && self.hung_up;
        let mut interest = if self.pause.is_some() {
            HANG_UP.0
        } else {
            Interest::READABLE
        };
        if self.connection.outbox.is_blocked() {
            interest |= Interest::WRITABLE;
        }
        async move {
            let Io::Watched(io) = io else {
                return std::future::pending().await;
            };
            if waits_for_view {
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

    fn on_ready(&mut self, mut guard: Guard<'_>) {
        let ready = guard.ready();
        if ready.is_writable() && self.connection.outbox.flush().leaves_rest() {
            guard.clear_ready_matching(Ready::WRITABLE);
        }
        if self.pause.is_some() {
            guard.clear_ready_matching(HANG_UP.1);
            self.unread |= (ready & HANG_UP.1).is_readable();
            if ready.is_read_closed() || ready.is_write_closed() || ready.is_error() {
                self.on_hang_up();
            }
        } else if (ready.is_readable() || ready.is_read_closed())
            && !self.is_memory_short()
            && self.read(guard.get_inner())
        {
            guard.clear_ready_matching(Ready::READABLE);
        }
    }

    fn on_wake(&mut self, socket: &Socket) {
        if self.next_beat.is_none() {
            self.look_at_beat(clock::task_now());
        }
        if self.ahead != clock::ahead() {
            self.ahead = clock::ahead();
            // The alarm does not know of the step yet.
            let now = clock::task_now();
            if self.deadline().is_some_and(|deadline| deadline <= now) {
                self.on_time(now, socket);
            }
        }
        self.look_at = self.connection.inbox.look_at().map(Instant::from_std);
        if self.connection.share.is_shed() {
            self.drop_unfinished();
        }
        if self.connection.outbox.queued() > 0 {
            self.connection.outbox.flush();
        }
        if matches!(self.pause, Some(Pause::Failing { .. }))
            && (self.connection.inbox.is_answered() || self.connection.is_ending())
        {
            self.finish_failing();
        }
        if self.pause == Some(Pause::InboxFull) && self.connection.inbox.room().is_some() {
            self.pause = None;
            self.go_on_reading();
        }
        if matches!(self.pause, Some(Pause::TooFast { .. })) && self.connection.is_ending() {
            self.stop_metering();
        }
        if self.closing.stage() == Stage::Open
            && self.connection.outbox.is_cut()
            && self.pause.is_some()
        {
            self.on_hang_up();
        }
    }

    /// Whether the next turn goes on with what the last one has left, or else reads what came during a
    /// pause.
    fn next_work(&mut self) -> (bool, bool) {
        let has_rest = self.more == More::TakeIn;
        let works = (has_rest || self.unread) && self.pause.is_none() && !self.is_memory_short();
        (works && has_rest, works && !has_rest)
    }

    /// Ends a connection that is lost: `what` the peer did, or what happened to it.
    fn on_end_of_stream(&mut self, what: &str) {
        self.connection.begin_end(self.lost_by(what));
        self.closing.end();
    }

    /// The end of a connection whose peer is gone; `what` follows its name.
    fn lost_by(&self, what: &str) -> End {
        let peer = match self.connection.transport.role() {
            Role::Server => "client",
            Role::Client => "server",
        };
        lost(&format!("the {peer}{what}"))
    }

    fn end_sleep(&mut self, now: Instant) {
        let next = self.connection.inbox.end_sleep(now.into_std());
        self.look_at = next.map(Instant::from_std);
    }

    fn look_at_beat(&mut self, now: Instant) {
        self.next_beat = self.connection.beat(now.into_std()).map(Instant::from_std);
    }

    fn on_time(&mut self, now: Instant, socket: &Socket) {
        if self.look_at.is_some_and(|at| at <= now) {
            self.end_sleep(now);
        }
        let is_over = |pause: &Pause| pause.until().is_some_and(|until| until <= now);
        if let Some(pause) = self.pause.take_if(|pause| is_over(pause)) {
            self.on_pause_over(pause);
        }
        if self.closing.stage() != Stage::Open {
            if self.pause.is_none() && self.closing.is_over(now) {
                self.catch_up(socket);
            }
            self.closing.on_time(now);
            return;
        }
        if self.pause.is_none() && self.message_timeout.is_over(now) {
            self.on_stall();
        }
        if self.next_beat.is_some_and(|at| at <= now) {
            self.look_at_beat(now);
        }
        self.keep_alive(now, socket);
    }

    /// Sends a ping that is due, or ends a connection whose peer has not answered the last one.
    fn keep_alive(&mut self, now: Instant, socket: &Socket) {
        let mut due = self.keepalive_due(now);
        if due == Due::Death && self.pause.is_none() {
            self.catch_up(socket);
            if self.closing.stage() != Stage::Open {
                return;
            }
            due = self.keepalive_due(now);
        }
        match due {
            Due::Nothing => {}
            Due::Ping => {
                if self.is_answered() {
                    self.connection.pings.keepalive(now.into_std());
                }
                self.connection.outbox.ping();
            }
            Due::Death => {
                self.connection
                    .begin_end(self.lost_by(" did not answer a ping in time"));
                // The close frame may still arrive: perhaps only our reading side is cut off.
                let frame = CloseFrame::of(close::INTERNAL_ERROR, "no answer to a ping");
                self.connection.outbox.seal(&frame);
                self.closing.end();
            }
        }
    }

    /// Reads before time that has passed counts against the peer: this process, or its machine, may
    /// have stood still meanwhile, and bytes of the peer may wait in the system.
    fn catch_up(&mut self, socket: &Socket) {
        if !self.is_memory_short() {
            self.unread |= !self.read(socket);
        }
    }

    fn on_pause_over(&mut self, pause: Pause) {
        match pause {
            Pause::Failing { .. } => self.finish_failing(),
            Pause::MemoryShort { .. } if self.is_memory_short() => {}
            Pause::InboxFull | Pause::TooFast { .. } | Pause::MemoryShort { .. } => {
                self.go_on_reading();
            }
        }
    }

    fn keepalive_due(&mut self, now: Instant) -> Due {
        let outbox = &self.connection.outbox;
        let is_paused = self.pause.is_some();
        if !self.is_answered() && outbox.passage().has_ping {
            // In place of an answer: the client's system has the sign of life.
            self.keepalive.heard();
        }
        self.keepalive.due(now, is_paused, || outbox.passage())
    }

    /// Whether the peer answers pings. One that gets events cannot.
    fn is_answered(&self) -> bool {
        self.connection.posts.is_none()
    }

    fn deadline(&self) -> Option<Instant> {
        let pause = self.pause.and_then(Pause::until);
        if self.closing.stage() != Stage::Open {
            return self.closing.deadline().into_iter().chain(pause).min();
        }
        let is_paused = self.pause.is_some();
        let own = [
            self.keepalive.deadline(is_paused),
            pause,
            self.look_at,
            self.next_beat,
            self.message_timeout.deadline().filter(|_| !is_paused),
        ];
        own.into_iter().flatten().min()
    }

    /// The deadline on the system's clock.
    fn real_deadline(&self) -> Option<Instant> {
        let deadline = self.deadline()?;
        Some(Instant::from_std(clock::real(deadline.into_std())))
    }

    /// Goes on to the next stage of closing when the present one is done.
    fn advance(&mut self, io: &Io) {
        // After a hang-up the view may still take what came before it.
        if !self.hung_up {
            self.closing.begin(&self.connection);
        }
        self.closing.advance(&self.connection, io.get_ref());
    }

    /// The peer is gone but may have left bytes that are not read yet.
    fn on_hang_up(&mut self) {
        let left = self.connection.carrier.as_ref().and_then(|it| it.left());
        let end = || left.unwrap_or_else(|| self.lost_by(" hung up"));
        match self.pause {
            Some(Pause::Failing { .. }) => self.finish_failing(),
            Some(Pause::MemoryShort { .. }) => {
                self.connection.begin_end(end());
                self.pause = None;
                self.closing.end();
            }
            Some(Pause::InboxFull) => {
                self.connection.begin_end(end());
                self.connection.outbox.cut();
                self.hung_up = true;
            }
            // Read what it sent last, and then the end of the stream.
            Some(Pause::TooFast { .. }) | None => self.stop_metering(),
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let connection = &self.connection;
        if thread::panicking() {
            let frame = CloseFrame::of(close::INTERNAL_ERROR, "");
            connection.close(&frame);
        }
        connection.begin_end(lost("the process ended"));
        connection.end_move();
        connection.inbox.end();
        connection.outbox.cut();
    }
}

fn lost(reason: &str) -> End {
    End::new(Initiator::Lost, close::ABNORMAL, reason)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::{
        fixture::{Fixture, SETTINGS, fixture, read_now},
        *,
    };
    use crate::{engine::connection::inbox::Received, protocol::message::Kind};

    #[tokio::test]
    async fn a_panic_costs_one_connection_and_tells_its_peer() {
        let Fixture {
            driver,
            io,
            connection,
            mut peer,
        } = fixture(&SETTINGS);
        let panicked = thread::spawn(move || {
            let _driver = driver;
            panic!("as a bug would");
        });
        panicked.join().unwrap_err();
        assert_eq!(connection.end().unwrap().code, close::INTERNAL_ERROR);
        assert!(matches!(connection.take(None), Received::End));
        assert!(!connection.send(Kind::Text, b"late", None).unwrap());
        drop(io);
        assert_eq!(read_now(&mut peer), b"\x88\x02\x03\xf3");
        assert!(peer.write_all(b"nobody there").is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_that_wait_in_the_system_are_a_sign_of_life() {
        let mut fixture = fixture(&Settings {
            ping_interval: Some(Duration::from_secs(10)),
            ping_timeout: Some(Duration::from_secs(5)),
            ..SETTINGS
        });
        tokio::time::advance(Duration::from_secs(10)).await;
        fixture.driver.on_time(Instant::now(), fixture.io.get_ref());
        assert_eq!(read_now(&mut fixture.peer)[0], 0x89);
        // The answer comes in time, and this process stands still until it is over.
        fixture.peer.write_all(b"\x8a\x80\0\0\0\0").unwrap();
        tokio::time::advance(Duration::from_secs(6)).await;
        fixture.driver.on_time(Instant::now(), fixture.io.get_ref());
        assert_eq!(fixture.connection.end(), None);
        for seconds in [10, 6] {
            tokio::time::advance(Duration::from_secs(seconds)).await;
            fixture.driver.on_time(Instant::now(), fixture.io.get_ref());
        }
        assert_eq!(fixture.connection.end().unwrap().by, Initiator::Lost);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_polls_may_read_an_answer_for_longer_than_a_ping_may_take() {
        let mut fixture = fixture(&Settings {
            transport: Transport::Polling([7; 16]),
            ping_interval: Some(Duration::from_secs(10)),
            ping_timeout: Some(Duration::from_secs(5)),
            ..SETTINGS
        });
        // Its relay takes nothing more until the client acknowledges the answer.
        for seconds in [10, 6, 10, 6] {
            tokio::time::advance(Duration::from_secs(seconds)).await;
            fixture.driver.on_time(Instant::now(), fixture.io.get_ref());
        }
        assert_eq!(fixture.connection.end(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_beat_is_an_empty_text_and_other_texts_of_blanks_have_one_more() {
        let mut fixture = fixture(&SETTINGS);
        fixture.connection.begin_beat(Duration::from_secs(10));
        fixture.driver.on_wake(fixture.io.get_ref());
        assert!(fixture.driver.deadline().is_some());
        for _ in 0..2 {
            tokio::time::advance(Duration::from_secs(11)).await;
            fixture.driver.on_time(Instant::now(), fixture.io.get_ref());
            assert_eq!(read_now(&mut fixture.peer), b"\x81\x00");
        }
        for (kind, sent, received) in [
            (Kind::Text, &b""[..], &b"\x81\x01 "[..]),
            (Kind::Text, b" ", b"\x81\x02  "),
            (Kind::Text, b" a", b"\x81\x02 a"),
            (Kind::Binary, b"", b"\x82\x00"),
        ] {
            assert!(fixture.connection.send(kind, sent, None).unwrap());
            assert_eq!(read_now(&mut fixture.peer), received);
        }
        assert_eq!(fixture.connection.messages(), (0, 4));
    }

    #[tokio::test]
    async fn a_runtime_that_goes_away_ends_its_connections() {
        let Fixture {
            driver, connection, ..
        } = fixture(&SETTINGS);
        drop(driver);
        assert_eq!(connection.end(), Some(lost("the process ended")));
        assert!(matches!(connection.take(None), Received::End));
        assert!(connection.outbox.is_cut());
    }
}

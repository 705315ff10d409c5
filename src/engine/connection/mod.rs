//! One connection as its users see it, and how it ends. They take messages by `receiving.rs`, and
//! send by `sending.rs`.

mod beat;
pub(crate) mod carrier;
mod carrying;
pub(crate) mod end;
pub(crate) mod inbox;
mod member;
pub(crate) mod moving;
pub(crate) mod outbox;
mod passing;
pub(crate) mod ping;
pub(crate) mod ping_register;
pub(crate) mod posts;
mod receiving;
pub(crate) mod registry;
mod sending;
pub(crate) mod settings;
mod stage;
pub(crate) mod traffic;

#[cfg(test)]
use std::os::{fd::IntoRawFd, unix::net::UnixStream};
use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

pub use self::end::{End, Initiator};
use self::{
    beat::Beat,
    carrier::Carrier,
    inbox::Inbox,
    outbox::Outbox,
    ping_register::Pings,
    posts::Posts,
    settings::{Settings, Transport},
    stage::Move,
};
use crate::{
    engine::{
        base::{clock, fork},
        groups::Memberships,
        resources::{
            budget::{Account, Share},
            holders::Entry,
            socket::Socket,
        },
        wakeup::{
            gil_semaphore::Pass,
            hub::{Hub, Watch},
            time_slice::TimeSlice,
            turns::Turns,
        },
    },
    protocol::{
        close::{self, CloseFrame},
        deflate::{Agreement, Codecs, Deflater},
    },
};

/// The number of connections that were never open.
const NEVER_OPENED: u64 = 0;

/// The reason in the close frame of a connection that holds much while memory is short.
const NO_MEMORY: &str = "the server is short of memory";

/// One WebSocket. Every method may be called from any thread, at any time.
#[derive(Debug)]
pub struct Connection {
    id: u64,
    generation: u64,
    pub(crate) inbox: Inbox,
    pub(crate) outbox: Outbox,
    pub(crate) pings: Pings,
    /// The way that its messages take.
    pub(crate) transport: Transport,
    /// For one that another server carries.
    pub(crate) carrier: Option<Arc<Carrier>>,
    /// For connections that take posts.
    pub(crate) posts: Option<Box<Posts>>,
    deflater: Option<Box<Deflater>>,
    life: Mutex<Life>,
    /// Wakes the driver when something changed that it has to act on.
    pub(crate) wake: Notify,
    turns: Arc<Turns>,
    /// The count of the bytes that are held for it.
    pub(crate) share: Arc<Share>,
    /// Its place in the list of holders.
    pub(crate) entry: OnceLock<Entry<Self>>,
    memberships: Memberships,
    time_slice: TimeSlice,
    /// For peers that asked for one.
    beat: OnceLock<Box<Beat>>,
    /// Whether a page's pings are answered here.
    answers_pings: AtomicBool,
    /// The names of the events of its rooms that may pass without its view, as [`passing::EventNames`].
    passed_events: AtomicU64,
    /// Messages that were written, queued or corked so far.
    sent: AtomicU64,
    /// Bytes that were read from the socket so far.
    bytes_read: AtomicU64,
    /// The parameters of its compression.
    agreement: Option<Agreement>,
    /// Whether drains leave it open.
    is_spared: AtomicBool,
    /// Whether a group has closed it.
    is_closed_by_group: AtomicBool,
    /// Made when another process is to go on with it.
    moving: OnceLock<Box<Move>>,
}

#[derive(Debug, Default)]
struct Life {
    end: Option<End>,
    ended_at: Option<Instant>,
    /// The close frames of both sides are exchanged, or can no longer be.
    handshake_done: bool,
    /// The frame that [`Connection::close`] sends in place of its caller's: the connection fails
    /// and waits for answers, or it is half-closed.
    awaited: Option<CloseFrame>,
    /// Notified when the connection begins to end.
    watches: Vec<Watch>,
}

impl Connection {
    /// A connection that will send `head` before anything else.
    pub(crate) fn new(
        id: u64,
        socket: impl Into<Option<Arc<Socket>>>,
        settings: &Settings,
        head: Bytes,
        turns: Arc<Turns>,
        codecs: &Codecs,
    ) -> Self {
        let share = Share::new();
        let account = || Account::of(&share);
        let inbox = Inbox::new(settings.receive_buffer_bytes);
        inbox.count_in(account());
        let framing = settings.transport.framing();
        let outbox = Outbox::new(socket, settings.send_buffer_bytes, head, framing);
        outbox.count_in(account());
        Self {
            id,
            generation: fork::generation(),
            inbox,
            outbox,
            pings: Pings::default(),
            transport: settings.transport,
            carrier: None,
            posts: (settings.transport.key()).map(|_| Box::new(Posts::new(settings, account()))),
            deflater: settings
                .compression
                .map(|terms| Box::new(Deflater::new(&terms.agreement, &terms.options, codecs))),
            life: Mutex::new(Life {
                // A client that answers no close has nothing to be waited for.
                handshake_done: !framing.is_answered(),
                ..Life::default()
            }),
            wake: Notify::new(),
            turns,
            share,
            entry: OnceLock::new(),
            memberships: Memberships::default(),
            time_slice: TimeSlice::default(),
            beat: OnceLock::new(),
            answers_pings: AtomicBool::new(false),
            passed_events: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            bytes_read: AtomicU64::new(0),
            agreement: settings.compression.map(|terms| terms.agreement),
            is_spared: AtomicBool::new(false),
            is_closed_by_group: AtomicBool::new(false),
            moving: OnceLock::new(),
        }
    }

    /// A connection that is over, as after a client that has vanished. Takes nothing from the system.
    ///
    /// Its calls answer as those of a connection that belongs to another process.
    pub fn never_opened() -> Self {
        let (settings, codecs) = (&Settings::SMALL, &Codecs::default());
        let (head, turns) = (Bytes::new(), Arc::default());
        Self {
            // Of no process.
            generation: u64::MAX,
            ..Self::new(NEVER_OPENED, None, settings, head, turns, codecs)
        }
    }

    /// A number that no other connection of this process has; 0 of those that were never open.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The number of messages that have come from the peer so far, and of those that were taken for
    /// it.
    pub fn messages(&self) -> (u64, u64) {
        let own = self.own();
        own.map_or((0, 0), |own| {
            (own.inbox.received(), own.sent.load(Ordering::Relaxed))
        })
    }

    /// Counts messages that were taken for the peer.
    fn count_sent(&self, messages: u64) {
        self.sent.fetch_add(messages, Ordering::Relaxed);
        if let Some(beat) = self.beat.get() {
            beat.note(clock::now());
        }
    }

    /// Whether the connection belongs to a parent process. A forked child holds copies of its
    /// parent's connections and must not touch them.
    pub(crate) fn is_foreign(&self) -> bool {
        self.generation != fork::generation()
    }

    /// The connection, unless it belongs to a parent process.
    fn own(&self) -> Option<&Self> {
        (!self.is_foreign()).then_some(self)
    }

    /// Whether a thread or an event loop waits now, for a message or for room to send one.
    pub fn is_awaited(&self) -> bool {
        !self.is_foreign() && (self.inbox.is_awaited() || self.outbox.is_awaited())
    }

    /// Notifies `watch` as soon as either side has begun to end the connection, which may be now.
    pub fn watch_end(&self, watch: Watch) {
        if !self.is_foreign() {
            let mut life = self.life.lock();
            if life.end.is_none() {
                life.watches.push(watch);
                return;
            }
        }
        watch.notify();
    }

    /// Removes a watch of either kind that was not notified yet. A task that stops waiting must
    /// call this: on a quiet connection forgotten watches would accumulate.
    pub fn unwatch(&self, hub: &Arc<Hub>, token: u64) {
        if !self.is_foreign() {
            let _ = self.inbox.unwatch(hub, token);
            self.outbox.unwatch(hub, token);
        }
    }

    /// How long the last answered ping took, the engine's own ones included.
    pub fn latency(&self) -> Option<Duration> {
        self.own()?.pings.latency()
    }

    /// How many pings of the peer have come.
    pub fn pings_received(&self) -> u32 {
        self.own().map_or(0, |own| own.pings.received())
    }

    /// Notifies `watch` as soon as a ping of [`Connection::ping`] is answered, or the connection
    /// ends.
    pub fn watch_pings(&self, watch: Watch) {
        if self.is_foreign() {
            watch.notify();
        } else {
            self.pings.watch(watch);
        }
    }

    /// Removes a watch of [`Connection::watch_pings`] that was not notified yet.
    pub fn unwatch_pings(&self, hub: &Arc<Hub>, token: u64) {
        if !self.is_foreign() {
            self.pings.unwatch(hub, token);
        }
    }

    /// Sleeps until either side has begun to end the connection, or until `deadline` (`None`: for
    /// ever).
    pub fn await_end(self: &Arc<Self>, deadline: Option<Instant>) {
        if !self.is_foreign() {
            self.make_way();
            self.pings.await_end(deadline);
        }
    }

    /// To be called by a thread that is about to take the GIL again: sleeps while many others wait
    /// for it. `None` in a child process, whose connections are its own only.
    pub fn reenter(&self) -> Option<Pass<'_>> {
        (!self.is_foreign()).then(|| self.turns.gil_semaphore.enter())
    }

    /// Begins to close: `frame` goes out after everything that was sent before, and nothing more
    /// comes in. False when the connection was closing already. Never sleeps.
    pub fn close(&self, frame: &CloseFrame) -> bool {
        if self.is_foreign() {
            return false;
        }
        let awaited = self.life.lock().awaited.take();
        let frame = awaited.as_ref().unwrap_or(frame);
        let began = self.begin_end(End::by_frame(Initiator::Local, frame));
        if began || awaited.is_some() {
            self.outbox.seal(frame);
        }
        // Also when the connection was ending already: a peer that is lost may have left unread
        // bytes in the socket, and the view that closes needs no messages from them.
        self.inbox.end();
        self.wake.notify_one();
        began
    }

    /// As [`Connection::close`], but `frame` waits until that is called: messages can be sent until
    /// then.
    pub fn half_close(&self, frame: &CloseFrame) -> bool {
        if self.is_foreign() {
            return false;
        }
        let mut life = self.life.lock();
        if life.end.is_none() {
            if life.awaited.is_some() {
                // It fails, and has waited for the view alone.
                drop(life);
                return self.close(frame);
            }
            life.awaited = Some(frame.clone());
        }
        drop(life);
        let began = self.begin_end(End::by_frame(Initiator::Local, frame));
        self.inbox.end();
        self.wake.notify_one();
        began
    }

    /// Closes a connection that holds too much, and drops the messages in its inbox and outbox at
    /// once. The driver drops its own bytes in its next turn.
    pub(crate) fn shed(&self) {
        if !self.share.mark_shed() {
            return;
        }
        self.begin_end(End::new(
            Initiator::Local,
            close::TRY_AGAIN_LATER,
            NO_MEMORY,
        ));
        // A close that was begun before goes out as it was begun.
        let begun = {
            let mut life = self.life.lock();
            life.awaited = None;
            let end = life.end.as_ref().filter(|end| end.by == Initiator::Local);
            end.and_then(|end| CloseFrame::new(Some(end.code), &end.reason).ok())
        };
        // The peer may be in the middle of a message: what it sends from now on is ignored.
        self.mark_handshake_done();
        self.inbox.discard();
        let no_memory = || CloseFrame::of(close::TRY_AGAIN_LATER, NO_MEMORY);
        self.outbox.shed(&begun.unwrap_or_else(no_memory));
        self.wake.notify_one();
    }

    /// To be called when the view is over and its connection closed: drops the messages that the
    /// view has not taken.
    pub fn discard(&self) {
        if !self.is_foreign() {
            self.inbox.discard();
            self.inbox.forget_taken();
            self.wake.notify_one();
        }
    }

    /// Whether it was closed because it held too much.
    pub fn is_shed(&self) -> bool {
        !self.is_foreign() && self.share.is_shed()
    }

    /// Ends a connection before anything was sent to its peer; false when it has begun to end
    /// already. Nothing is sent afterwards.
    pub(crate) fn refuse(&self) -> bool {
        self.begin_end(End::new(Initiator::Local, close::ABNORMAL, ""))
    }

    /// Notes how the connection ends, unless it does already. When the peer's close frame is found
    /// after the connection was noted as lost, its code and reason replace those of the loss.
    pub(crate) fn begin_end(&self, end: End) -> bool {
        let mut life = self.life.lock();
        if life.awaited.is_none() {
            // With the lock: whoever sees the end is refused, and whoever is refused sees the end.
            self.outbox.refuse();
        }
        let first = life.end.is_none();
        let better = end.by == Initiator::Peer
            && life
                .end
                .as_ref()
                .is_some_and(|end| end.by == Initiator::Lost);
        if first || better {
            life.end = Some(end);
            life.ended_at.get_or_insert_with(clock::now);
        }
        let watches = std::mem::take(&mut life.watches);
        drop(life);
        watches.into_iter().for_each(Watch::notify);
        self.pings.on_end();
        self.memberships.end();
        first
    }

    /// Closes with `frame`, but not before the view has answered what came before. True when that
    /// is still to come: then [`Connection::close`] will send `frame` in place of its caller's.
    pub(crate) fn fail(&self, frame: CloseFrame) -> bool {
        let mut life = self.life.lock();
        // All frames that the peer sends from now on are ignored, a close frame, too.
        life.handshake_done = true;
        let is_ending = life.end.is_some();
        if !is_ending {
            life.awaited = Some(frame.clone());
        }
        drop(life);
        let waits = !is_ending && self.inbox.await_answers();
        if !waits {
            self.close(&frame);
        }
        waits
    }

    /// Closes with the frame of [`Connection::fail`], unless that was sent meanwhile.
    pub(crate) fn finish_failing(&self) {
        let awaited = self.life.lock().awaited.take();
        if let Some(frame) = awaited {
            self.close(&frame);
        }
    }

    pub(crate) fn mark_handshake_done(&self) {
        self.life.lock().handshake_done = true;
    }

    pub(crate) fn is_handshake_done(&self) -> bool {
        self.life.lock().handshake_done
    }

    /// How it ended, once either side began to end it.
    pub fn end(&self) -> Option<End> {
        if self.is_foreign() {
            let reason = match self.id {
                NEVER_OPENED => "the WebSocket was never opened",
                _ => "this connection belongs to the parent process",
            };
            return Some(End::new(Initiator::Lost, close::ABNORMAL, reason));
        }
        self.life.lock().end.clone()
    }

    /// How long ago it began to end.
    pub fn ended_for(&self) -> Option<Duration> {
        if self.is_foreign() {
            return Some(Duration::MAX);
        }
        let ended_at = self.life.lock().ended_at;
        ended_at.map(|at| clock::now().saturating_duration_since(at))
    }

    /// Lets all threads and tasks that wait for this connection look at the clock again.
    pub(crate) fn on_step(&self) {
        self.inbox.on_step();
        self.outbox.on_step();
        self.pings.on_step();
        self.wake.notify_one();
    }

    pub(crate) fn is_ending(&self) -> bool {
        self.life.lock().end.is_some()
    }

    /// Whether [`Connection::close`] has not been called, nor has the peer ended the connection.
    pub(crate) fn needs_close(&self) -> bool {
        let life = self.life.lock();
        life.end.is_none() || life.awaited.is_some()
    }
}

#[cfg(test)]
impl Connection {
    /// A connection without a driver, and its peer's end.
    pub(crate) fn for_test(
        id: u64,
        settings: &Settings,
        head: &'static str,
    ) -> (Arc<Self>, UnixStream) {
        let (ours, peer) = UnixStream::pair().unwrap();
        let connection = Self::new(
            id,
            Arc::new(Socket::take_over(ours.into_raw_fd()).unwrap()),
            settings,
            Bytes::from_static(head.as_bytes()),
            Arc::default(),
            &Codecs::default(),
        );
        (Arc::new(connection), peer)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use bytes::Bytes;

    use super::{inbox::Received, *};
    use crate::{
        engine::groups,
        protocol::{
            frame::Opcode,
            message::{Kind, Message},
        },
    };

    fn connection(head: &'static str) -> (Arc<Connection>, UnixStream) {
        Connection::for_test(7, &Settings::SMALL, head)
    }

    fn frame(code: u16) -> CloseFrame {
        CloseFrame::new(Some(code), "").unwrap()
    }

    fn end(code: u16, by: Initiator) -> End {
        End {
            code,
            reason: String::new(),
            by,
        }
    }

    #[test]
    fn nothing_overtakes_the_head_not_even_a_ping_or_a_close_at_once() {
        let (connection, mut peer) = connection("HTTP/1.1 101 \r\n\r\n");
        connection.outbox.ping();
        assert!(connection.close(&frame(close::GOING_AWAY)));
        connection.outbox.cut();
        let mut came = Vec::new();
        peer.read_to_end(&mut came).unwrap();
        assert_eq!(came, b"HTTP/1.1 101 \r\n\r\n\x89\0\x88\x02\x03\xe9");
    }

    #[test]
    fn a_connection_is_refused_or_gets_a_close_frame() {
        let said = |is_refused_first: bool| {
            let (connection, mut peer) = connection("HTTP/1.1 101 \r\n\r\n");
            if is_refused_first {
                assert!(connection.refuse());
            }
            let is_told = connection.close(&frame(close::GOING_AWAY));
            assert_eq!(is_told, !is_refused_first);
            assert!(!connection.refuse());
            connection.outbox.cut();
            let mut came = Vec::new();
            peer.read_to_end(&mut came).unwrap();
            came
        };
        assert_eq!(said(true), b"");
        assert_eq!(said(false), b"HTTP/1.1 101 \r\n\r\n\x88\x02\x03\xe9");
    }

    #[test]
    fn a_watch_of_the_end_is_notified_once_also_when_it_comes_late() {
        let hub = Hub::new().unwrap();
        let (connection, _peer) = connection("");
        connection.watch_end(Watch::new(Arc::clone(&hub), 1));
        assert!(hub.drain().is_empty());
        assert!(connection.begin_end(end(close::ABNORMAL, Initiator::Lost)));
        assert!(!connection.begin_end(end(4000, Initiator::Peer)));
        assert_eq!(hub.drain(), [1]);
        connection.watch_end(Watch::new(Arc::clone(&hub), 2));
        assert_eq!(hub.drain(), [2]);
    }

    #[test]
    fn messages_are_sent_together_as_far_as_they_fit_in_a_write() {
        let (connection, mut peer) = connection("");
        let message = |size| groups::Message::new(Kind::Binary, &vec![b'x'; size], &[]);
        let small = vec![message(1), message(2), message(64 * 1024)];
        assert_eq!(connection.send_together(small), 2);
        let mut came = [0; 7];
        peer.read_exact(&mut came).unwrap();
        assert_eq!(&came, b"\x82\x01x\x82\x02xx");
        assert_eq!(connection.send_together(vec![message(65 * 1024)]), 0);
        assert!(connection.close(&frame(close::NORMAL)));
        assert_eq!(connection.send_together(vec![message(1)]), 0);
    }

    #[test]
    fn pings_of_the_user_go_out_in_their_turn() {
        let (connection, mut peer) = connection("");
        assert!(connection.send_control(Opcode::Ping, b"hi"));
        assert!(!connection.send_control(Opcode::Ping, &[0; 126]));
        assert!(connection.close(&frame(close::NORMAL)));
        assert!(!connection.send_control(Opcode::Pong, b"late"));
        connection.outbox.cut();
        let mut came = Vec::new();
        peer.read_to_end(&mut came).unwrap();
        assert_eq!(came, b"\x89\x02hi\x88\x02\x03\xe8");
    }

    #[test]
    fn a_view_that_closes_a_failing_connection_sends_the_close_frame_of_the_failure() {
        let (connection, _peer) = connection("");
        let message = Message {
            kind: Kind::Text,
            payload: Bytes::from_static(b"answer me"),
        };
        connection.deliver(&mut vec![message]);
        assert!(connection.fail(frame(close::PROTOCOL_ERROR)));
        assert!(connection.send(Kind::Text, b"answer", None).unwrap());
        assert_eq!(connection.end(), None);
        assert!(connection.close(&frame(close::NORMAL)));
        let failure = end(close::PROTOCOL_ERROR, Initiator::Local);
        assert_eq!(connection.end(), Some(failure));
    }

    #[test]
    fn a_half_closed_connection_sends_until_it_is_closed() {
        let failing = |connection: &Connection| {
            connection.fail(frame(close::PROTOCOL_ERROR));
        };
        let closing = |connection: &Connection| {
            assert!(!connection.close(&frame(close::GOING_AWAY)));
        };
        for finish in [failing, closing] {
            let (connection, mut peer) = connection("");
            assert!(connection.half_close(&frame(close::NORMAL)));
            assert!(!connection.half_close(&frame(close::GOING_AWAY)) && connection.needs_close());
            let normal = end(close::NORMAL, Initiator::Local);
            assert_eq!(connection.end(), Some(normal));
            assert!(matches!(connection.take(None), Received::End));
            assert!(connection.send(Kind::Text, b"bye", None).unwrap());
            finish(&connection);
            assert!(!connection.send(Kind::Text, b"late", None).unwrap());
            assert!(!connection.needs_close());
            connection.outbox.cut();
            let mut came = Vec::new();
            peer.read_to_end(&mut came).unwrap();
            assert_eq!(came, b"\x81\x03bye\x88\x02\x03\xe8");
        }
    }

    #[test]
    fn the_first_end_counts_and_closing_twice_is_harmless() {
        let (connection, _peer) = connection("");
        assert_eq!((connection.end(), connection.ended_for()), (None, None));
        assert!(connection.close(&frame(4000)));
        assert!(!connection.close(&frame(4001)));
        connection.begin_end(end(1000, Initiator::Peer));
        assert_eq!(connection.end(), Some(end(4000, Initiator::Local)));
        assert!(connection.ended_for().is_some());
        assert!(!connection.send(Kind::Text, b"late", None).unwrap());
        assert!(matches!(connection.take(None), Received::End));
        assert_eq!(connection.waiting(), (0, true));
    }

    #[test]
    fn whoever_sees_the_end_can_send_nothing_any_more() {
        for by in [Initiator::Lost, Initiator::Peer, Initiator::Local] {
            let (connection, mut peer) = connection("");
            let message = groups::Message::new(Kind::Text, b"late", &[]);
            connection.begin_end(end(4000, by));
            assert!(!connection.write(Kind::Text, b"late"));
            assert!(!connection.send(Kind::Text, b"late", None).unwrap());
            assert_eq!(connection.send_beyond(Kind::Text, b"late"), Some(false));
            assert_eq!(connection.send_together(vec![message]), 0);
            assert!(!connection.send_control(Opcode::Ping, b"late"));
            assert!(connection.has_room());
            // The frame that the end is told with goes out all the same.
            connection.outbox.seal(&frame(4000));
            connection.outbox.cut();
            let mut came = Vec::new();
            peer.read_to_end(&mut came).unwrap();
            assert_eq!(came, b"\x88\x02\x0f\xa0", "{by:?}");
        }
    }

    #[test]
    fn a_close_frame_found_behind_a_hang_up_explains_it() {
        let (connection, _peer) = connection("");
        assert!(connection.begin_end(end(close::ABNORMAL, Initiator::Lost)));
        assert!(!connection.begin_end(end(1000, Initiator::Local)));
        assert!(!connection.begin_end(end(4000, Initiator::Peer)));
        assert_eq!(connection.end(), Some(end(4000, Initiator::Peer)));
    }

    #[test]
    fn a_sender_without_a_timeout_closes_the_slow_peer_one_with_a_timeout_does_not() {
        let (connection, mut peer) = connection("");
        while connection.try_send(Kind::Binary, &[0; 500]) == Some(true) {}
        assert_eq!(connection.end(), None);
        assert!(!connection.send(Kind::Binary, &[0; 500], None).unwrap());
        assert_eq!(
            connection.end(),
            Some(End {
                code: close::TRY_AGAIN_LATER,
                reason: "too slow".to_owned(),
                by: Initiator::Local
            })
        );
        peer.write_all(b"still there").unwrap();
    }

    #[test]
    fn one_that_was_never_open_is_over_and_takes_nothing() {
        let connection = Arc::new(Connection::never_opened());
        let end = connection.end().unwrap();
        assert_eq!((end.code, end.by), (1006, Initiator::Lost));
        assert_eq!(end.reason, "the WebSocket was never opened");
        assert_eq!(connection.waiting(), (0, true));
        assert!(!connection.send(Kind::Text, b"x", None).unwrap());
        assert_eq!(connection.id(), NEVER_OPENED);
    }
}

//! One connection as its users see it: take, send, close, and how it ended.

pub(crate) mod inbox;
pub(crate) mod outbox;
pub(crate) mod ping;
pub(crate) mod pings;
pub(crate) mod registry;
pub(crate) mod settings;

#[cfg(test)]
use std::os::{fd::IntoRawFd, unix::net::UnixStream};
use std::{
    io,
    os::fd::RawFd,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use self::{
    inbox::{Front, Inbox, Taken},
    outbox::{Flushed, Held, Outbox, Sent},
    pings::Pings,
    settings::Settings,
};
use crate::{
    engine::{
        base::{clock, error::Error, fork, panics::contain},
        resources::{
            budget::{Account, Share},
            holders::Entry,
            socket::Socket,
        },
        wakeup::{
            View,
            flush_timer::FlushTimer,
            hub::{Hub, Watch},
            time_slice::Stint,
            turns::Turns,
        },
    },
    protocol::{
        close::{self, CloseFrame},
        deflate::{Codecs, Deflater},
        frame::{First, Opcode},
        message::{Kind, Message},
    },
};

/// No moment that far ahead is beyond the system's clock.
const LONGEST_NAP: Duration = Duration::from_secs(24 * 60 * 60);

/// Messages up to this are compressed in about a millisecond, ...
const SLOW_TO_COMPRESS: usize = 64 * 1024;
/// ... and up to this copied.
const SLOW_TO_COPY: usize = 1024 * 1024;

/// Why a connection is closed that holds much while memory is short.
const NO_MEMORY: &str = "the server is short of memory";

/// The side that began to end a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Initiator {
    /// Ours: the view, a limit, the end of the process.
    Local,
    /// The peer, with a close frame.
    Peer,
    /// Neither: the connection was lost without a close frame.
    Lost,
}

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// The close code (RFC 6455 section 7.4); 1005 for a close frame without one, 1006 for none.
    pub code: u16,
    /// The reason beside it, often empty.
    pub reason: String,
    /// The side that began.
    pub by: Initiator,
}

/// One WebSocket. Every method may be called from any thread, at any time.
#[derive(Debug)]
pub struct Connection {
    id: u64,
    generation: u64,
    pub(crate) inbox: Inbox,
    pub(crate) outbox: Outbox,
    pub(crate) pings: Pings,
    deflater: Option<Box<Deflater>>,
    life: Mutex<Life>,
    /// Wakes the driver when something changed that it has to act on.
    pub(crate) wake: Notify,
    flush_timer: Arc<FlushTimer<Self>>,
    turns: Arc<Turns<Self>>,
    share: Arc<Share>,
    membership: OnceLock<Entry<Self>>,
    stint: Stint,
}

#[derive(Debug, Default)]
struct Life {
    end: Option<End>,
    ended_at: Option<Instant>,
    /// The close frames of both sides are exchanged, or can no longer be.
    handshake_done: bool,
    /// The frame that [`Connection::close`] sends in place of its caller's.
    verdict: Option<CloseFrame>,
    /// Notified when the connection begins to end.
    watches: Vec<Watch>,
}

impl Connection {
    /// Bytes of the largest payload for [`Connection::hold`] and [`Connection::write`]. More take
    /// the system long to copy.
    pub const MAX_AT_ONCE: usize = 16 * 1024;

    /// Bytes of the largest payload of a control frame (RFC 6455 section 5.5).
    pub const MAX_CONTROL: usize = 125;

    /// A connection that will send `head` before anything else.
    pub(crate) fn new(
        id: u64,
        socket: Arc<Socket>,
        settings: &Settings,
        head: Bytes,
        flush_timer: Arc<FlushTimer<Self>>,
        turns: Arc<Turns<Self>>,
        codecs: &Codecs,
    ) -> Self {
        let share = Share::new();
        let inbox = Inbox::new(settings.receive_buffer_bytes);
        inbox.count_in(Account::of(&share));
        let outbox = Outbox::new(socket, settings.send_buffer_bytes, head);
        outbox.count_in(Account::of(&share));
        Self {
            id,
            generation: fork::generation(),
            inbox,
            outbox,
            pings: Pings::default(),
            deflater: settings
                .compression
                .map(|terms| Box::new(Deflater::new(&terms.agreement, &terms.options, codecs))),
            life: Mutex::default(),
            wake: Notify::new(),
            flush_timer,
            turns,
            share,
            membership: OnceLock::new(),
            stint: Stint::default(),
        }
    }

    /// A number that no other connection of this process has.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// A forked child holds copies of its parent's connections and must not touch them.
    pub(crate) fn is_foreign(&self) -> bool {
        self.generation != fork::generation()
    }

    /// Moves `messages` to the view's inbox, and sees to it that the view wakes.
    pub(crate) fn deliver(self: &Arc<Self>, messages: &mut Vec<Message>) {
        let bytes = messages.iter().map(|message| message.payload.len()).sum();
        let waiting = self.inbox.push(messages);
        if waiting.sleeper {
            self.turns.add(self, bytes);
        }
        for watch in waiting.watches {
            self.turns.ring(watch, bytes);
        }
    }

    /// Lets views run that have waited for long; to be called by the driver between any two reads.
    pub(crate) fn hurry_views(&self) {
        self.turns.hurry();
    }

    /// Takes the oldest message if there is one; costs no system call.
    pub fn take_now(&self) -> Taken {
        if self.is_foreign() {
            return Taken::End;
        }
        let (taken, is_awaited) = self.inbox.take_now();
        if is_awaited {
            self.wake.notify_one();
        }
        taken
    }

    /// Whether a message is there, but the view has taken messages for so long that others are to
    /// run first.
    pub fn owes_a_pause(&self) -> bool {
        !self.is_foreign() && !self.inbox.is_empty() && self.has_run_long()
    }

    /// The kind of the oldest message, which stays where it is: a binary one of more than
    /// `large_bytes`, which its taker may copy before, or another.
    pub fn front(&self, large_bytes: usize) -> Front {
        if self.is_foreign() {
            return Front::Nothing;
        }
        self.inbox.front(large_bytes)
    }

    /// To be called by a task before it takes a message that is there: whether it has gone on for so
    /// long that others are to run first.
    pub fn has_run_long(&self) -> bool {
        self.stint.is_over()
    }

    /// Takes the oldest message, sleeping until `deadline` (`None`: for ever) if there is none.
    pub fn take(self: &Arc<Self>, deadline: Option<Instant>) -> Taken {
        let taken = self.take_now();
        if !matches!(taken, Taken::Nothing) {
            return taken;
        }
        self.make_way();
        let (taken, made_room) = self.inbox.take(deadline);
        if made_room {
            self.wake.notify_one();
        }
        taken
    }

    /// As [`Connection::take`], but at the end of `time` it may sleep a little longer; for views
    /// that wait long and are woken often.
    pub fn nap(self: &Arc<Self>, time: Duration) -> Taken {
        if self.is_foreign() {
            return Taken::End;
        }
        self.make_way();
        let deadline = clock::now() + time.min(LONGEST_NAP);
        let (taken, made_room) = self.inbox.nap(deadline, || self.wake.notify_one());
        if made_room {
            self.wake.notify_one();
        }
        taken
    }

    /// Sleeps until there is a message or the end to take, or until `deadline` (`None`: for ever).
    pub fn await_news(self: &Arc<Self>, deadline: Option<Instant>) {
        if !self.is_foreign() {
            self.make_way();
            self.inbox.await_news(deadline);
        }
    }

    /// The descriptor that is readable while a message or the unread end waits. Made on first use;
    /// `None` in a forked child.
    ///
    /// # Errors
    /// The system's error when it has no descriptor left.
    pub fn descriptor(&self) -> io::Result<Option<RawFd>> {
        if self.is_foreign() {
            return Ok(None);
        }
        self.inbox.descriptor().map(Some)
    }

    /// Notes that callers that select on [`Connection::descriptor`] have read the end.
    pub fn mark_end_read(&self) {
        if !self.is_foreign() {
            self.inbox.mark_end_read();
        }
    }

    /// Closes what [`Connection::descriptor`] gave, if it gave anything.
    pub fn close_descriptor(&self) {
        if !self.is_foreign() {
            self.inbox.close_descriptor();
        }
    }

    /// How many whole messages wait, and whether the end has come behind them.
    pub fn waiting(&self) -> (usize, bool) {
        if self.is_foreign() {
            return (0, true);
        }
        self.inbox.len()
    }

    /// Whether a thread or an event loop waits now, for a message or for room to send one.
    pub fn is_awaited(&self) -> bool {
        !self.is_foreign() && (self.inbox.is_awaited() || self.outbox.is_awaited())
    }

    /// Tells `watch` as soon as there is a message or the end.
    pub fn watch_inbox(&self, watch: Watch) {
        if !self.is_foreign() {
            self.inbox.watch(watch);
        }
    }

    /// As [`Connection::watch_inbox`], unless there is something now: then false, and no watch is
    /// made.
    pub fn listen(&self, watch: impl FnOnce() -> Watch) -> bool {
        !self.is_foreign() && self.inbox.listen(watch)
    }

    /// Tells `watch` as soon as there is more room in the outbox or none is needed any more.
    pub fn watch_outbox(&self, watch: Watch) {
        if !self.is_foreign() {
            self.outbox.watch(watch);
        }
    }

    /// Tells `watch` as soon as either side has begun to end the connection, which may be now.
    pub fn watch_end(&self, watch: Watch) {
        if !self.is_foreign() {
            let mut life = self.life.lock();
            if life.end.is_none() {
                life.watches.push(watch);
                return;
            }
        }
        watch.ring();
    }

    /// Removes a watch of either kind that was not notified yet. A task that stops waiting must
    /// call this: on a quiet connection forgotten watches would heap up.
    pub fn unwatch(&self, hub: &Arc<Hub>, token: u64) {
        if !self.is_foreign() {
            self.inbox.unwatch(hub, token);
            self.outbox.unwatch(hub, token);
        }
    }

    /// Hands a message over; false when the connection is closed.
    ///
    /// True means written or queued, not received. Messages of one caller keep their order. While
    /// the outbox is full the caller sleeps for up to `patience`; a caller without patience never
    /// sleeps: the peer that cannot keep up is closed with 1013 instead.
    ///
    /// # Errors
    /// [`Error::SendTimeout`] when no room was made in time; nothing was queued.
    pub fn send(
        &self,
        kind: Kind,
        payload: &[u8],
        patience: Option<Duration>,
    ) -> Result<bool, Error> {
        if self.is_foreign() {
            return Ok(false);
        }
        let deflater = self.deflater.as_deref();
        let deflated = deflater.and_then(|deflater| deflater.deflate(payload));
        let wake = || self.wake.notify_one();
        let sent = match &deflated {
            None => (self.outbox).send(Opcode::from(kind), payload, patience, wake),
            Some(deflated) => {
                let first = First::compressed(kind);
                (self.outbox).send(first, deflated.payload(), patience, wake)
            }
        }?;
        if let (Sent::Written | Sent::Queued, Some(deflated)) = (sent, deflated) {
            deflated.was_sent();
        }
        match sent {
            Sent::Written => Ok(true),
            Sent::Queued => {
                self.wake.notify_one();
                Ok(true)
            }
            Sent::Full => {
                if let Ok(frame) = CloseFrame::new(Some(close::TRY_AGAIN_LATER), "too slow") {
                    self.close(&frame);
                }
                Ok(false)
            }
            Sent::Closed => {
                self.wake.notify_one();
                Ok(false)
            }
        }
    }

    /// Keeps a small message back, to go out in one write with those that follow; costs no system
    /// call. False when it was not kept: then [`Connection::send`] has to be called.
    ///
    /// Only for the view that takes the messages, and done only while more of them wait. Held
    /// messages go out with the next message that is not, when [`Connection::take`] finds nothing, or
    /// after about a millisecond: whichever is first.
    pub fn hold(self: &Arc<Self>, kind: Kind, payload: &[u8]) -> bool {
        self.hold_for(self, kind, payload)
    }

    /// As [`Connection::hold`], for the view that takes the messages of `sender`.
    pub fn hold_for(self: &Arc<Self>, sender: &Self, kind: Kind, payload: &[u8]) -> bool {
        if self.is_foreign() || sender.inbox.is_empty() {
            return false;
        }
        let deflater = self.deflater.as_deref();
        if deflater.is_some_and(|deflater| deflater.wants(payload.len())) {
            return false;
        }
        let held = self.outbox.hold(kind.into(), payload);
        if held == Held::First && !self.turns.expect(self) {
            let is_own = std::ptr::eq(self.as_ref(), sender);
            self.flush_timer.expect(Arc::clone(self), is_own);
        }
        held != Held::No
    }

    /// Whether sending so many bytes takes more than about a millisecond, for which an event loop is
    /// not to stand still.
    pub fn is_slow_to_send(&self, length: usize) -> bool {
        let compresses = |deflater: &Deflater| deflater.wants(length);
        length > SLOW_TO_COMPRESS && self.deflater.as_deref().is_some_and(compresses)
            || length > SLOW_TO_COPY
    }

    /// Writes a message that needs no compression if nothing waits for the socket. False when that
    /// cannot be had: then [`Connection::send`] has to be called. Never sleeps, and up to
    /// [`Connection::MAX_AT_ONCE`] costs so little that a lock may be kept meanwhile.
    pub fn write(self: &Arc<Self>, kind: Kind, payload: &[u8]) -> bool {
        if self.is_foreign() {
            return false;
        }
        let deflater = self.deflater.as_deref();
        if deflater.is_some_and(|deflater| deflater.wants(payload.len())) {
            return false;
        }
        if self.turns.collects() {
            let held = self.outbox.hold(kind.into(), payload);
            if held == Held::First && !self.turns.expect(self) {
                self.release();
            }
            if held != Held::No {
                return true;
            }
        }
        match self.outbox.write(kind.into(), payload) {
            Sent::Written => true,
            Sent::Queued => {
                self.wake.notify_one();
                true
            }
            Sent::Full | Sent::Closed => false,
        }
    }

    /// To be called before sleeping: leaves what is held back to the engine, if it writes for the
    /// views. Takes no system call.
    pub fn entrust(self: &Arc<Self>) -> bool {
        self.stint.end();
        self.turns.collects() && (!self.is_holding() || self.turns.expect(self))
    }

    /// To be called by a thread that is about to sleep: neither what it has sent nor the next view
    /// may wait for it.
    pub(crate) fn make_way(self: &Arc<Self>) {
        if !self.entrust() {
            self.release_all();
        }
        self.turns.pass_on();
    }

    /// Sends what this connection's view has held back, here and elsewhere: nothing more is coming
    /// that it could wait for.
    pub fn release_all(&self) {
        self.release();
        self.flush_timer.flush();
    }

    /// Whether [`Connection::release_all`] has something to do.
    pub fn has_held(&self) -> bool {
        self.is_holding() || (!self.is_foreign() && self.flush_timer.has_work())
    }

    /// Whether anything is held back for this connection's peer.
    pub fn is_holding(&self) -> bool {
        !self.is_foreign() && self.outbox.is_holding()
    }

    /// Ends a connection whose outbox may be half written: a frame sent now would be garbage.
    fn break_down(&self) {
        self.begin_end(End {
            code: close::INTERNAL_ERROR,
            reason: String::new(),
            by: Initiator::Local,
        });
        self.inbox.end();
        self.outbox.cut();
        self.wake.notify_one();
    }

    /// Sends what is held back.
    pub(crate) fn release(&self) {
        if self.outbox.release() == Flushed::Blocked {
            self.wake.notify_one();
        }
    }

    /// Hands a message over only if there is room now; `None` when there is not.
    pub fn try_send(&self, kind: Kind, payload: &[u8]) -> Option<bool> {
        // A caller that tries again and again need not compress each time.
        let compresses = self.deflater.is_some() && !self.is_foreign();
        if compresses && !self.outbox.has_room(payload.len()) {
            return None;
        }
        self.send(kind, payload, Some(Duration::ZERO)).ok()
    }

    /// Sends a ping or a pong of the user's own, of at most [`Connection::MAX_CONTROL`] bytes, in
    /// its turn among the messages. False when it could not be queued. Never sleeps.
    pub fn send_control(&self, opcode: Opcode, payload: &[u8]) -> bool {
        if self.is_foreign() || payload.len() > Self::MAX_CONTROL {
            return false;
        }
        match (self.outbox).send(opcode, payload, None, || self.wake.notify_one()) {
            Ok(Sent::Written) => true,
            Ok(Sent::Queued) => {
                self.wake.notify_one();
                true
            }
            Ok(Sent::Full | Sent::Closed) | Err(_) => false,
        }
    }

    /// How long the last answered ping took, the engine's own ones included.
    pub fn latency(&self) -> Option<Duration> {
        if self.is_foreign() {
            return None;
        }
        self.pings.latency()
    }

    /// Tells `watch` as soon as a ping of [`Connection::ping`] is answered, or the connection ends.
    pub fn watch_pings(&self, watch: Watch) {
        if self.is_foreign() {
            watch.ring();
        } else {
            self.pings.watch(watch);
        }
    }

    /// Takes back what [`Connection::watch_pings`] got.
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

    /// Begins to close: `frame` goes out behind everything that was sent before, and nothing more
    /// comes in. False when the connection was closing already. Never sleeps.
    pub fn close(&self, frame: &CloseFrame) -> bool {
        if self.is_foreign() {
            return false;
        }
        let verdict = self.life.lock().verdict.take();
        let frame = verdict.as_ref().unwrap_or(frame);
        let began = self.begin_end(End {
            code: frame.code.unwrap_or(close::NO_STATUS),
            reason: frame.reason.clone(),
            by: Initiator::Local,
        });
        if began {
            self.outbox.seal(frame.encode());
        }
        // Also when the connection was ending already: the view needs no more of what a lost peer
        // has left unread.
        self.inbox.end();
        self.wake.notify_one();
        began
    }

    /// Closes a connection that holds too much, and gives up what it holds at once. What the driver
    /// holds goes with its next turn.
    pub(crate) fn shed(&self) {
        if !self.share.mark_shed() {
            return;
        }
        self.begin_end(End {
            code: close::TRY_AGAIN_LATER,
            reason: NO_MEMORY.to_owned(),
            by: Initiator::Local,
        });
        // The peer may be in the middle of a message: what it sends from now on is ignored.
        self.mark_handshake_done();
        self.inbox.discard();
        if let Ok(frame) = CloseFrame::new(Some(close::TRY_AGAIN_LATER), NO_MEMORY) {
            self.outbox.shed(frame.encode());
        }
        self.wake.notify_one();
    }

    /// To be called when the view is over and its connection closed: drops what it did not take.
    pub fn discard(&self) {
        if !self.is_foreign() {
            self.inbox.discard();
            self.inbox.forget_taken();
            self.wake.notify_one();
        }
    }

    /// What is held for this connection.
    pub(crate) fn share(&self) -> &Arc<Share> {
        &self.share
    }

    /// Keeps the entry among those that may hold something.
    pub(crate) fn keep_membership(&self, membership: Entry<Self>) {
        // Called once for each connection; a second membership would take the first away.
        let _ = self.membership.set(membership);
    }

    /// Ends a connection before anything was sent to its peer; false when it has begun to end
    /// already. Nothing is sent afterwards.
    pub(crate) fn refuse(&self) -> bool {
        self.begin_end(End {
            code: close::ABNORMAL,
            reason: String::new(),
            by: Initiator::Local,
        })
    }

    /// Notes how the connection ends, unless it does already. When the peer's close frame is found
    /// after the connection was noted as lost, its code and reason replace those of the loss.
    pub(crate) fn begin_end(&self, end: End) -> bool {
        let mut life = self.life.lock();
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
        watches.into_iter().for_each(Watch::ring);
        self.pings.on_end();
        first
    }

    /// Closes with `frame`, but not before the view has answered what came before. True when that
    /// is still to come: then [`Connection::close`] will send `frame` in place of its caller's.
    pub(crate) fn condemn(&self, frame: CloseFrame) -> bool {
        let mut life = self.life.lock();
        // All frames that the peer sends from now on are ignored, a close frame, too.
        life.handshake_done = true;
        let is_ending = life.end.is_some();
        life.verdict = (!is_ending).then(|| frame.clone());
        drop(life);
        let waits = !is_ending && self.inbox.await_answers();
        if !waits {
            self.close(&frame);
        }
        waits
    }

    /// Closes with the frame of [`Connection::condemn`], unless that was sent meanwhile.
    pub(crate) fn carry_out(&self) {
        let verdict = self.life.lock().verdict.take();
        if let Some(frame) = verdict {
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
            return Some(End {
                code: close::ABNORMAL,
                reason: "this connection belongs to the parent process".to_owned(),
                by: Initiator::Lost,
            });
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
}

impl View for Connection {
    fn wake_thread(&self) -> bool {
        self.inbox.rouse()
    }

    fn uncork(&self) {
        if contain(|| self.release()).is_none() {
            contain(|| self.break_down());
        }
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
            FlushTimer::idle(),
            Arc::default(),
            &Codecs::default(),
        );
        (Arc::new(connection), peer)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    fn connection(head: &'static str) -> (Arc<Connection>, UnixStream) {
        Connection::for_test(7, &Settings::FOR_TESTS, head)
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
    fn a_connection_is_refused_or_told() {
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
    fn a_watch_of_the_end_rings_once_also_when_it_comes_late() {
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
    fn who_closes_a_condemned_connection_says_the_verdict() {
        let (connection, _peer) = connection("");
        let message = Message {
            kind: Kind::Text,
            payload: Bytes::from_static(b"answer me"),
        };
        connection.deliver(&mut vec![message]);
        assert!(connection.condemn(frame(close::PROTOCOL_ERROR)));
        assert!(connection.send(Kind::Text, b"answer", None).unwrap());
        assert_eq!(connection.end(), None);
        assert!(connection.close(&frame(close::NORMAL)));
        let verdict = end(close::PROTOCOL_ERROR, Initiator::Local);
        assert_eq!(connection.end(), Some(verdict));
    }

    #[test]
    fn the_first_word_counts_and_closing_twice_is_harmless() {
        let (connection, _peer) = connection("");
        assert_eq!((connection.end(), connection.ended_for()), (None, None));
        assert!(connection.close(&frame(4000)));
        assert!(!connection.close(&frame(4001)));
        connection.begin_end(end(1000, Initiator::Peer));
        assert_eq!(connection.end(), Some(end(4000, Initiator::Local)));
        assert!(connection.ended_for().is_some());
        assert!(!connection.send(Kind::Text, b"late", None).unwrap());
        assert!(matches!(connection.take(None), Taken::End));
        assert_eq!(connection.waiting(), (0, true));
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
    fn a_sender_without_patience_closes_the_slow_peer_one_with_patience_does_not() {
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
}

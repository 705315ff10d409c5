//! The other end of a connection whose client polls.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use super::{backlog::Backlog, pending_poll::PendingPoll, response::Answer};
use crate::engine::{
    base::{clock, sync::Mutex},
    connection::settings::Settings,
    resources::{
        budget::{Account, Share},
        descriptor::AsyncStream,
        socket::is_transient,
    },
};

/// How long a poll waits for events, where the connection has no ping interval.
const WAIT: Duration = Duration::from_secs(25);
/// How long after that a client is still expected, where the connection has no ping timeout.
const ABSENCE: Duration = Duration::from_secs(20);
/// How long a client may take to read a byte of an answer, and all of one: a proxy may have it long
/// before, so that no socket tells.
const BYTE: Duration = Duration::from_micros(250);
const LONGEST: Duration = Duration::from_secs(60);
/// How long a client may be away before its first poll, which it makes as soon as it is open. Until
/// then there was one request, and no socket of it that a proxy could count.
const FIRST: Duration = Duration::from_secs(10);
/// With so many bytes that are not acknowledged, no more are read: the connection then has to wait
/// as for a client that is slow.
const ENOUGH_BYTES: usize = 64 * 1024;
/// Bytes that are read at once.
const CHUNK: usize = 8 * 1024;

/// The outcome of a poll.
#[derive(Debug, PartialEq, Eq)]
pub enum Polled {
    /// The hold has the answer, or gets it later.
    Held,
    /// The process has no room for the answer. The client has to ask again later.
    NoRoom,
    /// It acknowledges what was not sent, or less than the one before.
    OutOfTurn,
    /// There is no such connection, or its client has got everything.
    Over,
}

/// The events of one connection on their way to a client that polls.
#[derive(Debug)]
pub(super) struct Relay {
    state: Mutex<State>,
    wake: Notify,
    share: Arc<Share>,
    enough: usize,
    wait: Duration,
    absence: Duration,
}

#[derive(Debug)]
struct State {
    backlog: Backlog,
    /// The poll that waits, and until when.
    held: Option<(Arc<PendingPoll>, Instant)>,
    /// The last poll, whose answer may be under way.
    last: Weak<PendingPoll>,
    /// When the client was last here, or has read the last answer; and whether it has polled.
    heard: Instant,
    has_polled: bool,
    /// The connection has written its last event.
    has_ended: bool,
    account: Account,
}

impl Relay {
    pub(super) fn new(share: &Arc<Share>, settings: &Settings) -> Self {
        let interval = settings.ping_interval.filter(|time| !time.is_zero());
        Self {
            state: Mutex::new(State {
                backlog: Backlog::default(),
                held: None,
                last: Weak::new(),
                heard: clock::task_now(),
                has_polled: false,
                has_ended: false,
                account: Account::of(share),
            }),
            wake: Notify::new(),
            share: Arc::clone(share),
            enough: settings.send_buffer_bytes.min(ENOUGH_BYTES),
            wait: interval.unwrap_or(WAIT),
            absence: settings.ping_timeout.unwrap_or(ABSENCE),
        }
    }

    /// See [`super::Pollers::poll`].
    pub(super) fn poll(&self, ack: u64, pending: &Arc<PendingPoll>) -> Polled {
        let mut state = self.state.lock();
        if state.backlog.acknowledge(ack).is_err() {
            return Polled::OutOfTurn;
        }
        state.count();
        let now = clock::task_now();
        state.heard = now;
        state.has_polled = true;
        // A client has one poll at a time: it has given up the one before, or should.
        state.give_way();
        let polled = match state.backlog.answer().map(Answer::new) {
            Some(None) => Polled::NoRoom,
            None if state.has_ended => Polled::Over,
            answer => {
                state.last = Arc::downgrade(pending);
                match answer.flatten() {
                    Some(answer) => {
                        state.heard = now + time_to_read(&answer.body);
                        pending.settle(Some(answer));
                    }
                    None => {
                        let until = now.checked_add(self.wait).unwrap_or(now + WAIT);
                        state.held = Some((Arc::clone(pending), until));
                    }
                }
                Polled::Held
            }
        };
        drop(state);
        self.wake.notify_one();
        polled
    }

    /// Relays to the end: until the client has all of a connection that has ended, or does not come
    /// any more.
    pub(super) async fn run(&self, stream: AsyncStream) {
        let mut stream = Some(stream);
        let mut is_shed = false;
        while let Some(deadline) = self.deadline() {
            let readable = stream.as_ref().filter(|_| self.has_room());
            let is_readable = async {
                match readable {
                    Some(stream) => stream.readable().await.is_ok(),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = clock::sleep_until(deadline) => {
                    if self.is_abandoned() {
                        // The connection reads the end of the stream: its client is lost, and does
                        // not take an answer that is still under way.
                        if let Some(last) = self.state.lock().last.upgrade() {
                            last.cut();
                        }
                        return;
                    }
                }
                () = self.wake.notified() => {}
                () = self.share.until_shed(), if !is_shed => {
                    is_shed = true;
                    self.shed();
                }
                ok = is_readable => {
                    if !ok || stream.as_ref().is_none_or(|stream| self.read(stream)) {
                        self.end();
                        // Only now: the connection waits for it, and its process perhaps for that.
                        stream = None;
                    }
                }
            }
        }
    }

    /// The next moment at which something is due; `None` when all is done.
    fn deadline(&self) -> Option<Instant> {
        let state = self.state.lock();
        if state.has_ended && state.backlog.is_empty() {
            return None;
        }
        Some(match &state.held {
            Some((_, until)) => *until,
            None => self.end_of_absence(&state),
        })
    }

    fn end_of_absence(&self, state: &State) -> Instant {
        // Times beyond the clock are for ever: a day at a time.
        let most = if state.has_polled {
            Duration::MAX
        } else {
            FIRST
        };
        let absence = self.wait.saturating_add(self.absence).min(most);
        state
            .heard
            .checked_add(absence.min(Duration::from_secs(24 * 60 * 60)))
            .unwrap_or(state.heard)
    }

    /// Answers a poll that has waited long enough; true when no client comes any more.
    fn is_abandoned(&self) -> bool {
        let mut state = self.state.lock();
        let now = clock::task_now();
        let Some((pending, _)) = state.held.take_if(|(_, until)| *until <= now) else {
            return state.held.is_none() && self.end_of_absence(&state) <= now;
        };
        let nothing = state.backlog.nothing();
        drop(state);
        if pending.answer(nothing) {
            self.state.lock().heard = now;
        }
        false
    }

    /// Whether more is to be read: any event has room where there is none.
    fn has_room(&self) -> bool {
        let state = self.state.lock();
        state.backlog.is_empty() || state.backlog.cost() < self.enough || self.share.is_shed()
    }

    /// Drops what the client has not taken. The relay then reads what the connection has written.
    fn shed(&self) {
        let mut state = self.state.lock();
        if state.held.is_none() {
            state.give_way();
        }
        state.backlog.shed();
        state.count();
    }

    /// Takes in what the connection has written; true at its end.
    fn read(&self, stream: &AsyncStream) -> bool {
        let mut chunk = [0; CHUNK];
        let length = match stream.try_read(&mut chunk) {
            Ok(0) => return true,
            Ok(length) => length,
            Err(error) => return !is_transient(&error),
        };
        let mut state = self.state.lock();
        state.backlog.take_in(&chunk[..length]);
        // The socket may end later than the client acknowledges that.
        state.has_ended |= state.backlog.has_close();
        state.pass_on();
        false
    }

    fn end(&self) {
        let mut state = self.state.lock();
        state.has_ended = true;
        if self.share.is_shed() {
            state.backlog.shed();
        }
        if state.backlog.is_empty() {
            if let Some((pending, _)) = state.held.take() {
                let nothing = state.backlog.nothing();
                drop(state);
                pending.answer(nothing);
            }
            return;
        }
        state.pass_on();
    }
}

impl State {
    /// Answers the poll that waits, if there is something to answer.
    fn pass_on(&mut self) {
        self.count();
        if self.backlog.is_empty() {
            return;
        }
        let Some((pending, _)) = self.held.take() else {
            return;
        };
        let Some(answer) = self.backlog.answer() else {
            return;
        };
        let time = time_to_read(&answer);
        if pending.answer(answer) {
            self.heard = clock::task_now() + time;
        }
    }

    /// Ends the last poll, whose client has given it up.
    fn give_way(&mut self) {
        self.held = None;
        if let Some(last) = std::mem::take(&mut self.last).upgrade() {
            last.give_way(self.backlog.nothing());
        }
    }

    fn count(&mut self) {
        let cost = self.backlog.cost();
        self.account.set(cost);
    }
}

fn time_to_read(answer: &[u8]) -> Duration {
    let bytes = u32::try_from(answer.len()).unwrap_or(u32::MAX);
    BYTE.saturating_mul(bytes).min(LONGEST)
}

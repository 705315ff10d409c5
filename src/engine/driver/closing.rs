//! Closing a connection, stage by stage.
//!
//! Once it is ended, the bytes sent before are flushed, the peer gets time to answer the close
//! frame, the sending side is shut, and the rest is read and dropped until the peer hangs up:
//! closing on unread bytes would reset the connection, and the reset can overtake the close frame.

use std::time::Duration;

use tokio::time::Instant;

use crate::{
    engine::{
        base::clock,
        connection::{Connection, End, Initiator, settings::Settings},
        resources::socket::Socket,
    },
    protocol::close::CloseFrame,
};

/// How long the peer may take for the last bytes: this many send timeouts.
const FLUSH_TIMEOUTS: u32 = 10;
/// Every 16 KiB still queued adds a second to that: 128 kbit/s.
const FLUSH_BYTES_PER_S: usize = 16 * 1024;

/// Ends a connection whose peer has sent a close frame, and answers that.
pub(super) fn answer_close(connection: &Connection, frame: &CloseFrame) {
    connection.mark_handshake_done();
    connection.begin_end(End::by_frame(Initiator::Peer, frame));
    // The answer repeats the code and need not repeat the reason (RFC 6455 section 5.5.1).
    let answer = CloseFrame {
        code: frame.code,
        reason: String::new(),
    };
    connection.outbox.seal(&answer);
    connection.inbox.end();
}

/// How far a connection has been closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// It has not begun to close.
    Open,
    /// A close frame stands at the end of the outbox.
    Flushing,
    /// Our close frame is out; the peer's has not come.
    AwaitingClose,
    /// Nothing more to send; the peer may hang up.
    Lingering,
    /// The descriptor can go.
    Over,
}

/// The stage of one connection, and its timeouts.
#[derive(Debug)]
pub(super) struct Closing {
    stage: Stage,
    /// When the present stage is over at the latest; `None` is never.
    deadline: Option<Instant>,
    /// Bytes of the last ones that were not written at the last look.
    queued: usize,
    send_timeout: Option<Duration>,
    close_timeout: Duration,
    /// When the last bytes have to be written, even if the peer goes on taking them.
    flush_limit: Option<Instant>,
}

impl Closing {
    /// The stage of an open connection.
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            stage: Stage::Open,
            deadline: None,
            queued: usize::MAX,
            send_timeout: settings.send_timeout,
            close_timeout: settings.close_timeout,
            flush_limit: None,
        }
    }

    /// The present stage.
    pub(super) fn stage(&self) -> Stage {
        self.stage
    }

    /// Ends the connection without any further stage.
    pub(super) fn end(&mut self) {
        self.go_on(Stage::Over, None);
    }

    fn go_on(&mut self, stage: Stage, deadline: Option<Instant>) {
        (self.stage, self.deadline) = (stage, deadline);
    }

    /// The present stage's deadline; `None` is for ever.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Ends the connection if that deadline has passed at `now`.
    pub(super) fn on_time(&mut self, now: Instant) {
        if self.is_over(now) {
            self.end();
        }
    }

    /// Whether the time of the present stage is up at `now`.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.deadline().is_some_and(|deadline| deadline <= now)
    }

    /// Begins to close, if `connection` is ending.
    pub(super) fn begin(&mut self, connection: &Connection) {
        if self.stage == Stage::Open && connection.is_ending() {
            self.stage = Stage::Flushing;
        }
    }

    /// Goes on to the next stage when the present one is done.
    pub(super) fn advance(&mut self, connection: &Connection, socket: &Socket) {
        if self.stage == Stage::Flushing {
            // The closing thread notes the end first and seals the outbox then. Until the outbox is
            // sealed, the close frame is not in it: empty does not mean done.
            let sealed = connection.outbox.is_sealed();
            let left = connection.outbox.queued();
            if sealed && left == 0 {
                let awaits_end =
                    || (connection.carrier.as_ref()).is_some_and(|carrier| carrier.awaits_end());
                if connection.outbox.is_cut() && !awaits_end() {
                    self.end();
                } else {
                    self.go_on(Stage::AwaitingClose, self.close_deadline());
                }
            } else if sealed && left < self.queued {
                let now = clock::task_now();
                if self.queued == usize::MAX {
                    self.flush_limit = flush_limit(now, self.send_timeout, left);
                }
                let deadline = self.send_timeout.and_then(|time| now.checked_add(time));
                self.queued = left;
                self.deadline = deadline.into_iter().chain(self.flush_limit).min();
            }
        }
        if self.stage == Stage::AwaitingClose && connection.is_handshake_done() {
            socket.finish_sending();
            self.go_on(Stage::Lingering, self.close_deadline());
        }
    }

    /// When a peer that does nothing from now on is abandoned; `None` is never.
    pub(super) fn close_deadline(&self) -> Option<Instant> {
        clock::task_now().checked_add(self.close_timeout)
    }
}

/// When a peer that has not taken all of the last `bytes` is abandoned, even if it goes on taking
/// them; `None` is never, as without a `send_timeout`.
fn flush_limit(now: Instant, send_timeout: Option<Duration>, bytes: usize) -> Option<Instant> {
    let seconds = u64::try_from(bytes / FLUSH_BYTES_PER_S).unwrap_or(u64::MAX);
    let limit = send_timeout?
        .checked_mul(FLUSH_TIMEOUTS)?
        .checked_add(Duration::from_secs(seconds))?;
    now.checked_add(limit)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::{
        super::{
            fixture::{Fixture, SETTINGS, fixture, read_now},
            lost,
        },
        *,
    };
    use crate::protocol::{
        close::{self, CloseFrame},
        message::Kind,
    };

    const S: Duration = Duration::from_secs(1);

    fn going_away() -> CloseFrame {
        CloseFrame::new(Some(close::GOING_AWAY), "bye").unwrap()
    }

    #[tokio::test]
    async fn flushing_waits_until_the_closing_thread_has_sealed_the_outbox() {
        let mut fixture = fixture(&SETTINGS);
        // The first half of `Connection::close`, whose thread is then interrupted.
        fixture.connection.begin_end(lost("test"));
        fixture.driver.advance(&fixture.io);
        assert_eq!(fixture.driver.closing.stage(), Stage::Flushing);
        assert_eq!(fixture.driver.deadline(), None);
        fixture.connection.outbox.seal(&going_away());
        fixture.driver.advance(&fixture.io);
        assert_eq!(fixture.driver.closing.stage(), Stage::AwaitingClose);
        assert_eq!(read_now(&mut fixture.peer), b"\x88\x05\x03\xe9bye");
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_may_take_its_time_as_long_as_it_takes_something() {
        let mut fixture = fixture(&SETTINGS);
        for _ in 0..50 {
            assert!(
                fixture
                    .connection
                    .send(Kind::Binary, &[0; 10_000], None)
                    .unwrap()
            );
        }
        fixture.connection.close(&going_away());
        fixture.driver.advance(&fixture.io);
        let mut deadline = fixture.driver.deadline().unwrap();
        assert_eq!(deadline, Instant::now() + Duration::from_secs(3));
        while fixture.connection.outbox.queued() > 0 {
            tokio::time::advance(Duration::from_secs(2)).await;
            assert!(!read_now(&mut fixture.peer).is_empty());
            fixture.connection.outbox.flush();
            fixture.driver.on_time(Instant::now(), fixture.io.get_ref());
            fixture.driver.advance(&fixture.io);
            if fixture.connection.outbox.queued() > 0 {
                let next = fixture.driver.deadline().unwrap();
                assert!(next > deadline);
                deadline = next;
            }
        }
        assert_eq!(fixture.driver.closing.stage(), Stage::AwaitingClose);
    }

    #[tokio::test(start_paused = true)]
    async fn each_stage_gives_up_in_its_time() {
        let mut blocked = fixture(&SETTINGS);
        while blocked.connection.outbox.queued() == 0 {
            blocked
                .connection
                .send(Kind::Binary, &[0; 10_000], None)
                .unwrap();
        }
        let mut silent = fixture(&SETTINGS);
        for (fixture, seconds) in [(&mut blocked, 3), (&mut silent, 1)] {
            fixture.connection.close(&going_away());
            fixture.driver.advance(&fixture.io);
            let deadline = Instant::now() + Duration::from_secs(seconds);
            assert_eq!(fixture.driver.deadline(), Some(deadline));
            fixture
                .driver
                .on_time(deadline - Duration::from_millis(1), fixture.io.get_ref());
            assert_ne!(fixture.driver.closing.stage(), Stage::Over);
            fixture.driver.on_time(deadline, fixture.io.get_ref());
            assert_eq!(fixture.driver.closing.stage(), Stage::Over);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_read_late_does_not_become_a_reset() {
        let Fixture {
            mut driver,
            io,
            connection,
            mut peer,
        } = fixture(&SETTINGS);
        connection.close(&going_away());
        driver.advance(&io);
        peer.write_all(b"\x88\x82\0\0\0\0\x03\xe9").unwrap();
        let deadline = driver.deadline().unwrap();
        driver.on_time(deadline, io.get_ref());
        assert_eq!(driver.closing.stage(), Stage::Over);
        drop((driver, io));
        drop(connection);
        // It would fail: the system resets a connection that is closed with unread bytes.
        assert_eq!(read_now(&mut peer), b"\x88\x05\x03\xe9bye");
    }

    #[tokio::test]
    async fn times_beyond_the_clock_mean_for_ever() {
        let mut fixture = fixture(&Settings {
            send_timeout: Some(Duration::MAX),
            close_timeout: Duration::MAX,
            ping_interval: Some(Duration::MAX),
            ping_timeout: Some(Duration::MAX),
            ..SETTINGS
        });
        fixture.connection.close(&going_away());
        fixture.driver.advance(&fixture.io);
        assert_eq!(fixture.driver.closing.stage(), Stage::AwaitingClose);
        assert_eq!(fixture.driver.deadline(), None);
    }

    #[test]
    fn the_last_bytes_have_a_limit_that_grows_with_them() {
        let now = Instant::now();
        assert_eq!(flush_limit(now, None, 5), None);
        assert_eq!(flush_limit(now, Some(10 * S), 5), Some(now + 100 * S));
        assert_eq!(flush_limit(now, Some(10 * S), 1 << 20), Some(now + 164 * S));
        assert_eq!(flush_limit(now, Some(Duration::MAX), 5), None);
    }
}

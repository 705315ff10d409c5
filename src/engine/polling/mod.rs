//! Connections whose clients poll: each request brings what has come since the last one.
//!
//! Such a connection writes to a socket like any other, but the other end of that socket is here, in
//! the same process: a *relay* reads its lines, and keeps the events of a client until the client
//! acknowledges them. A poll is answered at once when there are events, and otherwise *held*: by the
//! engine, with the socket of its request, so that no worker of the server waits.
//!
//! A connection is found by its key. One that its view has closed stays here until its client has
//! fetched the rest, or does not come any more.

mod backlog;
mod pending_poll;
mod relay;
mod response;

use std::{collections::HashMap, io, sync::Arc};

use tokio::{runtime::Handle, sync::Semaphore};

use self::relay::Relay;
pub use self::{pending_poll::PendingPoll, relay::Polled};
use crate::engine::{
    base::sync::Mutex,
    connection::{
        Connection,
        settings::{Key, Settings},
    },
    resources::descriptor::{AsyncStream, Stream},
};

/// Clients that have their answer, and are waited for until they hang up. Others beside them are not:
/// no limit of connections counts them.
const MOST_LINGERING: usize = 256;

/// The connections of a process whose clients poll.
#[derive(Debug)]
pub(crate) struct Pollers {
    relays: Mutex<HashMap<Key, Arc<Relay>>>,
    /// The places of [`MOST_LINGERING`].
    pub(crate) lingering: Arc<Semaphore>,
}

impl Default for Pollers {
    fn default() -> Self {
        Self {
            relays: Mutex::default(),
            lingering: Arc::new(Semaphore::new(MOST_LINGERING)),
        }
    }
}

impl Pollers {
    /// Begins to relay what `connection` writes, on `runtime`.
    ///
    /// # Errors
    /// The system's, when the socket cannot be watched.
    pub(crate) fn begin(
        pollers: &Arc<Self>,
        runtime: &Handle,
        key: Key,
        unread: Stream,
        connection: &Connection,
        settings: &Settings,
    ) -> io::Result<()> {
        let stream = {
            let _context = runtime.enter();
            AsyncStream::from_std(unread)?
        };
        let relay = Arc::new(Relay::new(&connection.share, settings));
        pollers.relays.lock().insert(key, Arc::clone(&relay));
        let entry = Entry {
            pollers: Arc::clone(pollers),
            key,
        };
        runtime.spawn(async move {
            relay.run(stream).await;
            drop(entry);
        });
        Ok(())
    }

    /// Answers a poll that acknowledges the events up to `ack`: at once, or later by `hold`. Never
    /// waits.
    pub(crate) fn poll(&self, key: &Key, ack: u64, pending: &Arc<PendingPoll>) -> Polled {
        let relay = self.relays.lock().get(key).cloned();
        relay.map_or(Polled::Over, |relay| relay.poll(ack, pending))
    }
}

/// The place of a relay among the pollers. Dropping it leaves it.
#[derive(Debug)]
struct Entry {
    pollers: Arc<Pollers>,
    key: Key,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.pollers.relays.lock().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        os::unix::net::UnixStream,
        time::Duration,
    };

    use super::*;
    use crate::engine::resources::{
        budget::Share,
        descriptor::{self, Owned},
    };

    const TIMEOUT: Duration = Duration::from_secs(60);

    struct Fixture {
        relay: Arc<Relay>,
        share: Arc<Share>,
        written: UnixStream,
        task: tokio::task::JoinHandle<()>,
    }

    fn fixture(settings: &Settings) -> Fixture {
        let (written, unread) = descriptor::pair().unwrap();
        let written = UnixStream::from(Owned::from(written));
        // The test's own thread sleeps until there is room.
        written.set_nonblocking(false).unwrap();
        let share = Share::new();
        let relay = Arc::new(Relay::new(&share, settings));
        let stream = AsyncStream::from_std(unread).unwrap();
        let running = Arc::clone(&relay);
        Fixture {
            relay,
            share,
            written,
            task: Handle::current().spawn(async move { running.run(stream).await }),
        }
    }

    /// Has the answer to a poll written. Returns its client's end.
    fn attach(pending: &Arc<PendingPoll>, otherwise: &[u8]) -> UnixStream {
        let (ours, client) = UnixStream::pair().unwrap();
        let places = Pollers::default().lingering;
        let (runtime, otherwise) = (Handle::current(), otherwise.to_vec());
        pending
            .attach(&runtime, &places, ours.into(), vec![], TIMEOUT, otherwise)
            .unwrap();
        client
    }

    /// A poll that waits, and its client's end.
    fn held(relay: &Relay, ack: u64) -> (Arc<PendingPoll>, UnixStream) {
        let pending = Arc::default();
        assert_eq!(relay.poll(ack, &pending), Polled::Held);
        let client = attach(&pending, b"");
        (pending, client)
    }

    /// The whole response.
    async fn read(mut client: UnixStream) -> String {
        tokio::task::spawn_blocking(move || {
            let mut text = String::new();
            client.read_to_string(&mut text).unwrap();
            text
        })
        .await
        .unwrap()
    }

    async fn read_body(client: UnixStream) -> String {
        let response = read(client).await;
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        assert_eq!(head, format!("Content-Length: {}", body.len()));
        body.to_owned()
    }

    /// The answer to a poll, as its client gets it.
    async fn poll(relay: &Relay, ack: u64) -> String {
        read_body(held(relay, ack).1).await
    }

    #[tokio::test]
    async fn an_event_answers_the_poll_that_waits_and_stays_until_it_is_acknowledged() {
        let mut fixture = fixture(&Settings::SMALL);
        let (_hold, client) = held(&fixture.relay, 0);
        fixture.written.write_all(b"1\n").unwrap();
        let answer = "{\"n\":1,\"events\":[1]}";
        assert_eq!(read_body(client).await, answer);
        assert_eq!(poll(&fixture.relay, 0).await, answer);
        assert_eq!(fixture.relay.poll(2, &Arc::default()), Polled::OutOfTurn);
        let (older, older_client) = held(&fixture.relay, 1);
        let (_newer, newer_client) = held(&fixture.relay, 1);
        assert_eq!(read_body(older_client).await, "{\"n\":1,\"events\":[]}");
        assert!(!older.answer(vec![]));
        drop(fixture.written);
        assert_eq!(read_body(newer_client).await, "{\"n\":1,\"events\":[]}");
        fixture.task.await.unwrap();
        assert_eq!(fixture.relay.poll(1, &Arc::default()), Polled::Over);
    }

    #[tokio::test]
    async fn nothing_follows_an_acknowledged_close_while_the_socket_is_open() {
        let mut fixture = fixture(&Settings::SMALL);
        let (_hold, client) = held(&fixture.relay, 0);
        let close = "{\"close\":{\"code\":1000,\"reason\":\"\"}}";
        fixture.written.write_all(close.as_bytes()).unwrap();
        fixture.written.write_all(b"\n").unwrap();
        assert_eq!(
            read_body(client).await,
            format!("{{\"n\":1,\"events\":[{close}]}}")
        );
        assert_eq!(fixture.relay.poll(1, &Arc::default()), Polled::Over);
        fixture.task.await.unwrap();
    }

    #[tokio::test]
    async fn a_message_of_any_size_gets_through_and_more_has_to_wait() {
        let mut fixture = fixture(&Settings::SMALL);
        let (_hold, client) = held(&fixture.relay, 0);
        let event = "x".repeat(1024 * 1024);
        let written = tokio::task::spawn_blocking(move || {
            fixture.written.write_all(event.as_bytes()).unwrap();
            fixture.written.write_all(b"\n").unwrap();
            // No more than the system takes, as long as nothing is acknowledged.
            fixture.written.set_nonblocking(true).unwrap();
            let mut more = 0;
            while let Ok(length) = fixture.written.write(&[b'\n'; 4096]) {
                more += length;
            }
            (fixture.written, more)
        });
        let answer = read_body(client).await;
        assert_eq!(answer.len(), "{\"n\":1,\"events\":[]}".len() + 1024 * 1024);
        let (_open, more) = written.await.unwrap();
        assert!(more < 4 * 1024 * 1024, "{more}");
        fixture.task.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_comes_no_more_is_lost_and_a_poll_waits_for_an_interval() {
        let mut fixture = fixture(&Settings {
            ping_interval: Some(Duration::from_secs(5)),
            ping_timeout: Some(Duration::from_secs(2)),
            ..Settings::SMALL
        });
        let start = tokio::time::Instant::now();
        let pending = Arc::default();
        assert_eq!(fixture.relay.poll(0, &pending), Polled::Held);
        (&mut fixture.task).await.unwrap();
        // The poll, and then the absence.
        assert_eq!(start.elapsed().as_secs(), 5 + 7);
        assert_eq!(pending.take().unwrap(), b"{\"n\":0,\"events\":[]}");
        assert_eq!(fixture.written.read(&mut [0]).unwrap(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_a_large_answer_slowly_is_expected_later() {
        let settings = Settings {
            ping_interval: Some(Duration::from_secs(5)),
            ping_timeout: Some(Duration::from_secs(2)),
            ..Settings::SMALL
        };
        let start = tokio::time::Instant::now();
        for waits in [true, false] {
            let mut fixture = fixture(&settings);
            let pending = Arc::default();
            if waits {
                assert_eq!(fixture.relay.poll(0, &pending), Polled::Held);
            }
            fixture.written.write_all(&vec![b'x'; 40_000]).unwrap();
            fixture.written.write_all(b"\n").unwrap();
            if !waits {
                while fixture.share.held() < 40_000 {
                    tokio::task::yield_now().await;
                }
                assert_eq!(fixture.relay.poll(0, &pending), Polled::Held);
            }
            fixture.task.await.unwrap();
        }
        assert_eq!(start.elapsed().as_secs(), 2 * (5 + 2 + 10));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_poll_at_all_is_lost_sooner() {
        let mut fixture = fixture(&Settings::SMALL);
        let start = tokio::time::Instant::now();
        (&mut fixture.task).await.unwrap();
        assert_eq!(start.elapsed().as_secs(), 10);
        assert_eq!(fixture.written.read(&mut [0]).unwrap(), 0);
    }

    #[tokio::test]
    async fn the_answer_may_come_before_the_socket_and_without_one_after_a_time() {
        for answer in [Some("early"), None] {
            let pending: Arc<PendingPoll> = Arc::default();
            let (ours, client) = UnixStream::pair().unwrap();
            if let Some(answer) = answer {
                assert!(pending.answer(answer.into()));
            }
            let head = b"head\r\n".to_vec();
            let timeout = Duration::from_millis(20);
            let (runtime, places) = (Handle::current(), Pollers::default().lingering);
            let late = b"late!".to_vec();
            pending
                .attach(&runtime, &places, ours.into(), head, timeout, late)
                .unwrap();
            let body = answer.unwrap_or("late!");
            let expected = format!("head\r\nContent-Length: 5\r\n\r\n{body}");
            assert_eq!(read(client).await, expected);
            assert!(!pending.answer(vec![]));
        }
    }

    /// Writes an event that no socket takes in one go.
    async fn write_large(mut written: UnixStream) -> UnixStream {
        let event = tokio::task::spawn_blocking(move || {
            written.write_all(&vec![b'x'; LARGE]).unwrap();
            written.write_all(b"\n").unwrap();
            written
        });
        event.await.unwrap()
    }

    const LARGE: usize = 4 * 1024 * 1024;

    #[tokio::test]
    async fn an_answer_that_is_not_read_is_dropped_at_the_next_poll() {
        let fixture = fixture(&Settings::SMALL);
        let (_first, unread) = held(&fixture.relay, 0);
        let _written = write_large(fixture.written).await;
        let expected = format!("{{\"n\":1,\"events\":[{}]}}", "x".repeat(LARGE));
        for _ in 0..10 {
            let (_hold, _unread) = held(&fixture.relay, 0);
        }
        assert!(poll(&fixture.relay, 0).await == expected);
        assert!(read(unread).await.len() < LARGE);
        // One that was read to its end is not cut, however late its client hangs up.
        let (_hold, client) = held(&fixture.relay, 0);
        let kept = client.try_clone().unwrap();
        assert!(read_body(client).await == expected);
        let (_later, later) = held(&fixture.relay, 1);
        drop((kept, later));
        fixture.task.abort();
    }

    #[tokio::test]
    async fn one_that_has_given_way_before_its_socket_came_has_no_answer() {
        let mut fixture = fixture(&Settings::SMALL);
        fixture.written.write_all(b"1\n").unwrap();
        assert_eq!(poll(&fixture.relay, 0).await, "{\"n\":1,\"events\":[1]}");
        let (early, late): (Arc<PendingPoll>, _) = (Arc::default(), Arc::default());
        assert_eq!(fixture.relay.poll(0, &early), Polled::Held);
        assert_eq!(fixture.relay.poll(0, &late), Polled::Held);
        let client = attach(&early, b"{}");
        assert_eq!(read_body(client).await, "{}");
        fixture.task.abort();
    }

    #[tokio::test]
    async fn a_connection_that_has_to_go_takes_its_unread_answer_along() {
        let fixture = fixture(&Settings::SMALL);
        let (_hold, unread) = held(&fixture.relay, 0);
        let _written = write_large(fixture.written).await;
        let begun = unread.try_clone().unwrap();
        tokio::task::spawn_blocking(move || (&begun).read_exact(&mut [0]).unwrap())
            .await
            .unwrap();
        fixture.share.mark_shed();
        assert!(read(unread).await.len() < LARGE);
        assert_eq!(fixture.share.held(), 0);
        fixture.task.abort();
    }

    #[tokio::test]
    async fn a_connection_that_has_to_go_says_so_behind_an_event_that_it_was_writing() {
        let mut fixture = fixture(&Settings::SMALL);
        let (_hold, client) = held(&fixture.relay, 0);
        fixture.written.write_all(&vec![b'x'; 100_000]).unwrap();
        while !fixture.share.is_large() {
            tokio::task::yield_now().await;
        }
        fixture.share.mark_shed();
        while fixture.share.is_large() {
            tokio::task::yield_now().await;
        }
        fixture.written.write_all(&vec![b'x'; 100_000]).unwrap();
        let close = "{\"close\":{\"code\":1008,\"reason\":\"\"}}";
        write!(fixture.written, "\n{close}\n").unwrap();
        assert_eq!(
            read_body(client).await,
            format!("{{\"n\":1,\"events\":[{close}]}}")
        );
        fixture.task.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn clients_that_do_not_hang_up_are_waited_for_in_as_many_places_as_there_are() {
        let places = Arc::new(Semaphore::new(1));
        let start = tokio::time::Instant::now();
        let mut polls = Vec::new();
        for _ in 0..2 {
            let pending: Arc<PendingPoll> = Arc::default();
            let (ours, client) = UnixStream::pair().unwrap();
            let runtime = Handle::current();
            pending
                .attach(&runtime, &places, ours.into(), vec![], TIMEOUT, vec![])
                .unwrap();
            assert!(pending.answer(b"{}".to_vec()));
            polls.push((pending, client));
        }
        let mut seconds = Vec::new();
        for (pending, client) in polls.into_iter().rev() {
            while Arc::strong_count(&pending) > 1 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            seconds.push(start.elapsed().as_secs());
            assert_eq!(read_body(client).await, "{}");
        }
        assert_eq!(seconds, [0, 10]);
    }

    #[tokio::test]
    async fn a_poll_behind_which_its_client_sends_on_is_over() {
        let pending: Arc<PendingPoll> = Arc::default();
        let mut client = attach(&pending, b"");
        let is_hung_up = tokio::task::spawn_blocking(move || {
            (0..10_000).any(|_| client.write_all(&[b'x'; 4096]).is_err())
        });
        assert!(is_hung_up.await.unwrap());
        assert!(!pending.answer(b"events".to_vec()));
    }

    #[tokio::test]
    async fn a_poll_whose_client_has_gone_takes_no_answer() {
        let pending: Arc<PendingPoll> = Arc::default();
        let client = attach(&pending, b"");
        drop(client);
        while Arc::strong_count(&pending) > 1 {
            tokio::task::yield_now().await;
        }
        assert!(!pending.answer(b"events".to_vec()));
    }
}

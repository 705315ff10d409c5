//! The queues between views and the driver, in many orders of their threads: nothing is lost,
//! nothing comes twice, and no thread sleeps for ever (shuttle reports a deadlock).
//!
//! `make interleavings` runs them: they need `--cfg shuttle`.

#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a helper that fails is a test that fails"
)]

use std::{
    io::{ErrorKind, Read},
    os::{fd::IntoRawFd, unix::net::UnixStream},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use shuttle::thread;
use socket2::SockRef;

use super::{
    base::sync::{Condvar, Mutex},
    connection::{
        inbox::{Inbox, Received},
        outbox::{
            Outbox,
            outcome::{Corked, Sent},
        },
    },
    resources::socket::Socket,
    wakeup::hub::{Hub, Watch},
};
use crate::protocol::{
    close::CloseFrame,
    frame::Opcode,
    framing::Framing,
    message::{Kind, Message},
};

/// Orders that each test tries out.
const ORDERS: usize = 3000;

/// Orders for the tests with sockets, whose peers have to try again and again.
const FEW_ORDERS: usize = 500;

/// Tries out `orders`, or of these only one in `ORDERS_BY`, a variable of the environment.
fn check(orders: usize, body: fn()) {
    let by = std::env::var("ORDERS_BY")
        .ok()
        .and_then(|by| by.parse().ok());
    shuttle::check_random(body, orders / by.unwrap_or(1));
}

fn message(number: u8) -> Message {
    Message {
        kind: Kind::Binary,
        payload: Bytes::copy_from_slice(&[number]),
    }
}

/// As `Connection::deliver` does it, without the turns.
fn push(inbox: &Inbox, number: u8) {
    let waiting = inbox.push(&mut vec![message(number)]);
    if waiting.sleeper {
        inbox.wake_thread();
    }
    waiting.watches.into_iter().for_each(Watch::notify);
}

/// Adds the messages `0..count`.
fn push_all(inbox: &Inbox, count: u8) {
    for number in 0..count {
        push(inbox, number);
    }
}

fn join_all(threads: Vec<thread::JoinHandle<()>>) {
    for thread in threads {
        thread.join().unwrap();
    }
}

/// The driver's wake-up. As with tokio's, two notifications before a wait count as one.
#[derive(Default)]
struct Wake {
    is_due: Mutex<bool>,
    changed: Condvar,
}

impl Wake {
    fn notify(&self) {
        *self.is_due.lock() = true;
        self.changed.notify_all();
    }

    fn wait(&self) {
        let mut is_due = self.is_due.lock();
        while !*is_due {
            (is_due, _) = self.changed.wait(is_due, None);
        }
        *is_due = false;
    }
}

/// Takes to the end.
fn take_all(inbox: &Inbox) -> Vec<u8> {
    let mut numbers = Vec::new();
    loop {
        match inbox.take(None).0 {
            Received::Message(message) => numbers.extend_from_slice(&message.payload),
            Received::Nothing => panic!("without a deadline there is something to take"),
            Received::End => return numbers,
        }
    }
}

#[test]
fn a_taker_gets_each_message_in_order_and_the_end() {
    check(ORDERS, || {
        let inbox = Arc::new(Inbox::new(100));
        let taker = {
            let inbox = Arc::clone(&inbox);
            thread::spawn(move || take_all(&inbox))
        };
        push_all(&inbox, 4);
        inbox.end();
        assert_eq!(taker.join().unwrap(), [0, 1, 2, 3]);
    });
}

#[test]
fn two_takers_share_the_messages_and_both_see_the_end() {
    check(ORDERS, || {
        let inbox = Arc::new(Inbox::new(100));
        let takers: Vec<_> = (0..2)
            .map(|_| {
                let inbox = Arc::clone(&inbox);
                thread::spawn(move || take_all(&inbox))
            })
            .collect();
        push_all(&inbox, 4);
        inbox.end();
        let mut numbers = Vec::new();
        for taker in takers {
            let own = taker.join().unwrap();
            assert!(own.is_sorted());
            numbers.extend(own);
        }
        numbers.sort_unstable();
        assert_eq!(numbers, [0, 1, 2, 3]);
    });
}

#[test]
fn a_thread_that_looks_and_one_that_takes_are_both_woken() {
    check(ORDERS, || {
        let inbox = Arc::new(Inbox::new(100));
        let looker = {
            let inbox = Arc::clone(&inbox);
            thread::spawn(move || inbox.await_news(None))
        };
        let taker = {
            let inbox = Arc::clone(&inbox);
            thread::spawn(move || take_all(&inbox))
        };
        push(&inbox, 0);
        push(&inbox, 1);
        inbox.end();
        looker.join().unwrap();
        assert_eq!(taker.join().unwrap(), [0, 1]);
    });
}

#[test]
fn a_coarse_sleep_ends_with_a_message_or_when_the_driver_looks() {
    check(ORDERS, || {
        let inbox = Arc::new(Inbox::new(100));
        let sleeper = {
            let inbox = Arc::clone(&inbox);
            thread::spawn(move || {
                // The time is over by the first look, as far as the driver is concerned.
                let deadline = super::clock::now();
                let (first, _) = inbox.take_coarse(deadline, || {});
                (first, take_all(&inbox))
            })
        };
        inbox.end_sleep(super::clock::now());
        push(&inbox, 0);
        inbox.end_sleep(super::clock::now());
        inbox.end();
        let (first, rest) = sleeper.join().unwrap();
        match first {
            Received::Message(_) => assert_eq!(rest, []),
            Received::Nothing => assert_eq!(rest, [0]),
            Received::End => panic!("the message comes before the end"),
        }
    });
}

/// The driver stops reading at a full inbox, until the taker tells it that there is room.
#[test]
fn the_driver_is_woken_for_room_as_soon_as_it_is_worth_it() {
    check(ORDERS, || {
        let inbox = Arc::new(Inbox::new(2));
        let told = Arc::<Wake>::default();
        let taker = {
            let (inbox, told) = (Arc::clone(&inbox), Arc::clone(&told));
            thread::spawn(move || {
                let mut numbers = Vec::new();
                loop {
                    let (taken, made_room) = inbox.take(None);
                    if made_room {
                        told.notify();
                    }
                    match taken {
                        Received::Message(message) => numbers.extend_from_slice(&message.payload),
                        Received::Nothing => {
                            panic!("without a deadline there is something to take")
                        }
                        Received::End => return numbers,
                    }
                }
            })
        };
        for number in 0..5 {
            while inbox.room().is_none() {
                told.wait();
            }
            push(&inbox, number);
        }
        inbox.end();
        assert_eq!(taker.join().unwrap(), [0, 1, 2, 3, 4]);
    });
}

#[test]
fn an_event_loop_that_listens_is_woken_through_its_hub() {
    check(ORDERS, || {
        let inbox = Arc::new(Inbox::new(100));
        let hub = Hub::new().unwrap();
        let pusher = {
            let inbox = Arc::clone(&inbox);
            thread::spawn(move || {
                push_all(&inbox, 3);
                inbox.end();
            })
        };
        let mut numbers = Vec::new();
        loop {
            match inbox.take_now().0 {
                Received::Message(message) => numbers.extend_from_slice(&message.payload),
                Received::End => break,
                Received::Nothing => {
                    if inbox.listen(|| Watch::new(Arc::clone(&hub), 7)).0 {
                        // An event loop sleeps meanwhile.
                        while hub.drain().is_empty() {
                            thread::yield_now();
                        }
                    }
                }
            }
        }
        pusher.join().unwrap();
        assert_eq!(numbers, [0, 1, 2]);
    });
}

#[test]
fn a_hub_gives_each_token_once() {
    check(ORDERS, || {
        let hub = Hub::new().unwrap();
        let ringers: Vec<_> = (0..3)
            .map(|token| {
                let hub = Arc::clone(&hub);
                thread::spawn(move || Watch::new(hub, token).notify())
            })
            .collect();
        let mut tokens = Vec::new();
        while tokens.len() < 3 {
            // A token on the list has woken the loop, or the loop would not look.
            tokens.extend(hub.drain());
            thread::yield_now();
        }
        join_all(ringers);
        tokens.sort_unstable();
        assert_eq!(tokens, [0, 1, 2]);
        assert!(hub.drain().is_empty());
    });
}

const CAPACITY: usize = 6000;

/// An outbox whose socket takes little, and its peer.
fn narrow() -> (Arc<Outbox>, UnixStream) {
    let (ours, peer) = UnixStream::pair().unwrap();
    SockRef::from(&ours).set_send_buffer_size(4096).unwrap();
    peer.set_nonblocking(true).unwrap();
    let socket = Arc::new(Socket::take_over(ours.into_raw_fd()).unwrap());
    (
        Arc::new(Outbox::new(
            socket,
            CAPACITY,
            Bytes::new(),
            Framing::WebSocket,
        )),
        peer,
    )
}

/// An outbox with its wake-up, as a sender has them.
#[derive(Clone)]
struct Sender {
    outbox: Arc<Outbox>,
    wake: Arc<Wake>,
}

impl Sender {
    /// Sends as `Connection::send` does.
    fn send(&self, payload: &[u8]) -> bool {
        let forever = Some(Duration::from_secs(1_000_000));
        let wake = || self.wake.notify();
        match self.outbox.send(Opcode::Binary, payload, forever, wake) {
            Ok(Sent::Queued) => self.wake.notify(),
            Ok(Sent::Written) => {}
            Ok(Sent::Beyond | Sent::Full | Sent::Closed) | Err(_) => return false,
        }
        true
    }

    /// Writes what is corked as `Connection::uncork` does.
    fn release(&self) {
        if self.outbox.uncork().leaves_rest() {
            self.wake.notify();
        }
    }

    /// Does the driver's work for the outbox: flushes when it was woken, and when the socket can
    /// take more. Waits for the socket only after a flush was blocked. Reads in between, as the
    /// peer does, until the sealed rest is out.
    fn drive(&self, peer: &mut UnixStream) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut buffer = [0; 3000];
        let mut awaits_socket = false;
        loop {
            let is_all_out = self.outbox.is_sealed() && self.outbox.queued() == 0;
            match peer.read(&mut buffer) {
                Ok(0) => return bytes,
                Ok(length) => bytes.extend_from_slice(&buffer[..length]),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::WouldBlock);
                    if is_all_out {
                        return bytes;
                    }
                    if !awaits_socket {
                        self.wake.wait();
                        awaits_socket = true;
                    }
                }
            }
            if awaits_socket {
                awaits_socket = self.outbox.flush().leaves_rest();
            }
        }
    }
}

/// A sender whose outbox is driven.
fn driven() -> (Sender, thread::JoinHandle<Vec<u8>>) {
    let (outbox, mut peer) = narrow();
    let wake = Arc::default();
    let sender = Sender { outbox, wake };
    let driver = {
        let sender = sender.clone();
        thread::spawn(move || sender.drive(&mut peer))
    };
    (sender, driver)
}

/// Closes, and returns all that the peer has read.
fn close(sender: &Sender, driver: thread::JoinHandle<Vec<u8>>) -> Vec<u8> {
    sender.outbox.seal(&CloseFrame::default());
    sender.wake.notify();
    driver.join().unwrap()
}

#[test]
fn senders_that_wait_for_room_are_woken_and_nothing_is_lost() {
    check(FEW_ORDERS, || {
        let (sender, driver) = driven();
        let senders: Vec<_> = (1..=2_u8)
            .map(|number| {
                let sender = sender.clone();
                thread::spawn(move || {
                    for _ in 0..4 {
                        assert!(sender.send(&[number; 4000]));
                    }
                })
            })
            .collect();
        join_all(senders);
        let bytes = close(&sender, driver);
        let close = CloseFrame::default().encode();
        assert_eq!(bytes.len(), 8 * (4 + 4000) + close.len());
        assert!(bytes.ends_with(&close));
    });
}

#[test]
fn what_is_corked_goes_out_in_its_place() {
    check(FEW_ORDERS, || {
        let (sender, driver) = driven();
        // The flush timer.
        let releaser = {
            let sender = sender.clone();
            thread::spawn(move || {
                for _ in 0..3 {
                    sender.release();
                    thread::yield_now();
                }
            })
        };
        // Behind what is corked there may be no room for the larger ones.
        let size = |number: u8| if number % 3 == 0 { 5000 } else { 1500 };
        for number in 0..7_u8 {
            let payload = vec![number; size(number)];
            let is_small = number % 3 != 0;
            if !is_small || sender.outbox.cork(Opcode::Binary, &payload) == Corked::No {
                assert!(sender.send(&payload));
            }
        }
        releaser.join().unwrap();
        let bytes = close(&sender, driver);
        let mut rest = &bytes[..];
        for number in 0..7_u8 {
            let (frame, others) = rest.split_at(4 + size(number));
            assert!(frame[4..].iter().all(|byte| *byte == number));
            rest = others;
        }
    });
}

#[test]
fn a_cut_wakes_each_sender() {
    check(FEW_ORDERS, || {
        let (outbox, _peer) = narrow();
        let wake = Arc::default();
        let sender = Sender { outbox, wake };
        let senders: Vec<_> = (0..2)
            .map(|_| {
                let sender = sender.clone();
                thread::spawn(move || while sender.send(&[0; 4000]) {})
            })
            .collect();
        sender.outbox.cut();
        join_all(senders);
    });
}

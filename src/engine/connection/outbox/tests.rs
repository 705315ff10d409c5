//! The outbox with a socket whose peer reads now and then.

use std::{
    io::{ErrorKind, Read},
    net::Shutdown,
    os::{fd::IntoRawFd, unix::net::UnixStream},
    thread,
};

use socket2::SockRef;

use super::{outcome::Corked, *};
use crate::{
    engine::groups::{Delivery, Message, WhenFull},
    protocol::message::Kind,
};

const CAPACITY: usize = 64 * 1024;
const TIMEOUT: Duration = Duration::from_secs(20);

fn pong(payload: &[u8]) -> Bytes {
    frame::encode(Opcode::Pong, payload)
}

/// An outbox whose socket takes little, and the peer that reads what it took.
fn narrow(capacity: usize) -> (Arc<Outbox>, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    SockRef::from(&ours).set_send_buffer_size(4096).unwrap();
    theirs.set_nonblocking(true).unwrap();
    let socket = Arc::new(Socket::take_over(ours.into_raw_fd()).unwrap());
    (
        Arc::new(Outbox::new(
            socket,
            capacity,
            Bytes::new(),
            Framing::WebSocket,
        )),
        theirs,
    )
}

#[test]
fn a_connection_whose_socket_takes_nothing_any_more_ends_for_its_reader() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let socket = Arc::new(Socket::take_over(ours.into_raw_fd()).unwrap());
    let of_reader = Arc::clone(&socket);
    let outbox = Outbox::new(socket, CAPACITY, Bytes::new(), Framing::WebSocket);
    theirs.shutdown(Shutdown::Read).unwrap();
    theirs.set_read_timeout(Some(TIMEOUT)).unwrap();
    assert_eq!(outbox.write(Opcode::Text, b"text"), Sent::Closed);
    assert_eq!(theirs.read(&mut [0]).unwrap(), 0);
    drop(of_reader);
}

/// Sends until no more is taken without waiting; returns the bytes that were taken.
fn fill(outbox: &Outbox) -> Vec<u8> {
    let payload = [b'x'; 1000];
    let mut sent = Vec::new();
    while outbox.send(Opcode::Binary, &payload, None, || {}).unwrap() != Sent::Full {
        sent.extend_from_slice(&frame::encode(Opcode::Binary, &payload));
    }
    sent
}

/// Fills the socket by whole messages: nothing is left in the queue, yet nothing more goes.
fn fill_socket_only(outbox: &Outbox) {
    while outbox.send(Opcode::Binary, &[], None, || {}).unwrap() == Sent::Written {}
    // The frame of two bytes that did not fit went into the queue whole.
    let mut state = outbox.state.lock();
    state.queue.clear();
    state.queued = 0;
}

/// All that the peer can read now.
fn read_now(peer: &mut UnixStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let error = peer.read_to_end(&mut bytes);
    assert!(error.is_ok() || error.is_err_and(|error| error.kind() == ErrorKind::WouldBlock));
    bytes
}

/// All that comes until the outbox is empty.
fn drain(outbox: &Outbox, peer: &mut UnixStream) -> Vec<u8> {
    let mut bytes = read_now(peer);
    while outbox.flush().leaves_rest() {
        bytes.extend(read_now(peer));
    }
    bytes.extend(read_now(peer));
    bytes
}

/// Waits until a thread sleeps for room.
fn await_sleeper(outbox: &Outbox, sender: &thread::JoinHandle<Result<Sent, Error>>) {
    while outbox.room.sleepers() == 0 {
        assert!(!sender.is_finished(), "it did not sleep");
        thread::yield_now();
    }
}

fn send_from_a_thread(
    outbox: &Arc<Outbox>,
    size: usize,
) -> thread::JoinHandle<Result<Sent, Error>> {
    let outbox = Arc::clone(outbox);
    thread::spawn(move || outbox.send(Opcode::Binary, &vec![b'y'; size], Some(TIMEOUT), || {}))
}

#[test]
fn a_message_is_written_at_once_while_nothing_waits() {
    let (outbox, mut peer) = narrow(CAPACITY);
    assert_eq!(
        outbox.send(Opcode::Text, b"hello", None, || {}).unwrap(),
        Sent::Written
    );
    assert_eq!(read_now(&mut peer), b"\x81\x05hello");
    assert_eq!(outbox.queued(), 0);
}

#[test]
fn what_the_socket_does_not_take_waits_and_comes_out_whole_and_in_order() {
    let (outbox, mut peer) = narrow(CAPACITY);
    let sent = fill(&outbox);
    assert!(outbox.queued() > CAPACITY / 2 && outbox.queued() <= CAPACITY);
    assert_eq!(drain(&outbox, &mut peer), sent);
    assert_eq!(outbox.queued(), 0);
}

#[test]
fn an_empty_queue_has_room_for_any_message_even_while_a_ping_waits() {
    let (outbox, _peer) = narrow(10);
    fill_socket_only(&outbox);
    outbox.ping();
    assert_eq!(outbox.queued(), 2);
    let sent = outbox.send(Opcode::Binary, &[0; 100], None, || {}).unwrap();
    assert_eq!(sent, Sent::Queued);
}

#[test]
fn a_message_larger_than_all_room_is_taken_behind_a_pong_and_wakes_the_waiting_when_it_is_out() {
    let (outbox, mut peer) = narrow(10);
    fill_socket_only(&outbox);
    outbox.pong(pong(b"?"));
    let hub = Hub::new().unwrap();
    // There is room at once: only messages use it up.
    outbox.watch(Watch::new(Arc::clone(&hub), 1));
    assert_eq!(hub.drain(), [1]);
    let sent = outbox.send(Opcode::Binary, &[0; 100], Some(Duration::ZERO), || {});
    assert_eq!(sent.unwrap(), Sent::Queued);
    outbox.watch(Watch::new(Arc::clone(&hub), 2));
    let sender = send_from_a_thread(&outbox, 100);
    await_sleeper(&outbox, &sender);
    drain(&outbox, &mut peer);
    assert_eq!(hub.drain(), [2]);
    assert_eq!(sender.join().unwrap().unwrap(), Sent::Written);
}

#[test]
fn what_is_corked_leaves_in_one_piece_and_in_its_place() {
    let (outbox, mut peer) = narrow(CAPACITY);
    assert_eq!(outbox.cork(Opcode::Text, b"1"), Corked::First);
    assert_eq!(outbox.cork(Opcode::Text, b"2"), Corked::More);
    assert_eq!(read_now(&mut peer), b"");
    assert_eq!((outbox.queued(), outbox.is_blocked()), (6, false));
    assert_eq!(
        outbox.send(Opcode::Text, b"3", None, || {}).unwrap(),
        Sent::Written
    );
    assert_eq!(read_now(&mut peer), b"\x81\x011\x81\x012\x81\x013");
    assert_eq!(outbox.cork(Opcode::Text, b"4"), Corked::First);
    outbox.ping();
    assert_eq!(read_now(&mut peer), b"\x89\0\x81\x014");
    assert_eq!(outbox.cork(Opcode::Text, b"5"), Corked::First);
    assert!(!outbox.uncork().leaves_rest());
    assert_eq!(read_now(&mut peer), b"\x81\x015");
    assert_eq!(outbox.cork(Opcode::Text, b"6"), Corked::First);
    outbox.seal(&CloseFrame::default());
    assert_eq!(read_now(&mut peer), b"\x81\x016\x88\0");
    assert_eq!(outbox.cork(Opcode::Text, b"7"), Corked::No);
}

#[test]
fn what_is_corked_and_does_not_fit_into_the_socket_waits_like_all_else() {
    let (outbox, mut peer) = narrow(CAPACITY);
    assert_eq!(outbox.cork(Opcode::Binary, &[b'x'; 10_000]), Corked::First);
    assert!(outbox.uncork().leaves_rest());
    assert!(outbox.is_blocked());
    assert_eq!(outbox.cork(Opcode::Binary, b"y"), Corked::No);
    let came = drain(&outbox, &mut peer);
    assert_eq!(came, *frame::encode(Opcode::Binary, &[b'x'; 10_000]));
}

#[test]
fn a_sender_whose_time_is_up_learns_the_limit_and_leaves_nothing_behind() {
    let (outbox, mut peer) = narrow(CAPACITY);
    let sent = fill(&outbox);
    let timeout = Some(Duration::from_millis(1));
    let error = outbox
        .send(Opcode::Text, &[b'z'; 1000], timeout, || {})
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "no room for 0.0 s: the client reads too slowly, and at most 65536 bytes wait for it"
    );
    assert_eq!(drain(&outbox, &mut peer), sent);
}

#[test]
fn a_sleeping_sender_is_woken_in_each_way_of_making_room() {
    let makers: [fn(&Outbox); 3] = [
        |outbox| {
            outbox.flush();
        },
        |outbox| outbox.pong(pong(b"")),
        Outbox::ping,
    ];
    for make_room in makers {
        let (outbox, mut peer) = narrow(2000);
        fill(&outbox);
        let sender = send_from_a_thread(&outbox, 1000);
        await_sleeper(&outbox, &sender);
        read_now(&mut peer);
        make_room(&outbox);
        let sent = sender.join().unwrap();
        assert!(matches!(sent, Ok(Sent::Written | Sent::Queued)), "{sent:?}");
    }
}

#[test]
fn a_sleeping_sender_is_woken_by_the_seal_and_by_the_cut() {
    let enders: [fn(&Outbox); 2] = [
        |outbox| {
            outbox.seal(&CloseFrame::default());
        },
        Outbox::cut,
    ];
    for end in enders {
        let (outbox, _peer) = narrow(2000);
        fill(&outbox);
        let sender = send_from_a_thread(&outbox, 1000);
        await_sleeper(&outbox, &sender);
        end(&outbox);
        assert_eq!(sender.join().unwrap().unwrap(), Sent::Closed);
    }
}

#[test]
fn a_peer_that_hung_up_ends_the_outbox_and_wakes_the_sleeping() {
    let (outbox, peer) = narrow(2000);
    fill(&outbox);
    let sender = send_from_a_thread(&outbox, 1000);
    await_sleeper(&outbox, &sender);
    drop(peer);
    assert!(!outbox.flush().leaves_rest());
    assert_eq!(sender.join().unwrap().unwrap(), Sent::Closed);
    assert!(outbox.is_cut());
    assert_eq!(outbox.queued(), 0);
}

#[test]
fn control_frames_overtake_messages_that_have_not_begun_and_never_cut_into_one() {
    let (outbox, mut peer) = narrow(CAPACITY);
    let sent = fill(&outbox);
    outbox.ping();
    outbox.ping();
    outbox.pong(pong(b"1"));
    outbox.pong(pong(b"22"));
    let came = drain(&outbox, &mut peer);
    assert_eq!(came.len(), sent.len() + 2 + 4);
    let frame = sent.len() / (sent.len() / 1004);
    let at = came
        .windows(4)
        .position(|bytes| bytes == b"\x8a\x0222")
        .unwrap();
    assert_eq!(at % frame, 0);
    assert!(at < sent.len());
    assert_eq!(came[at + 4..at + 6], *b"\x89\0");
}

#[test]
fn a_flood_of_pings_leaves_one_pong() {
    let (outbox, mut peer) = narrow(CAPACITY);
    fill_socket_only(&outbox);
    let before = read_now(&mut peer).len();
    assert!(before > 0);
    fill_socket_only(&outbox);
    for count in 0..100_000_u32 {
        outbox.pong(pong(&count.to_be_bytes()));
    }
    assert_eq!(outbox.queued(), 6);
    let came = drain(&outbox, &mut peer);
    assert_eq!(came[came.len() - 4..], 99_999_u32.to_be_bytes());
}

#[test]
fn the_close_frame_comes_last_and_only_once() {
    let (outbox, mut peer) = narrow(CAPACITY);
    let mut sent = fill(&outbox);
    let close = CloseFrame::new(Some(1000), "").unwrap();
    sent.extend_from_slice(b"\x88\x02\x03\xe8");
    assert_eq!(outbox.seal(&close), Sent::Queued);
    assert_eq!(outbox.seal(&close), Sent::Closed);
    outbox.ping();
    outbox.pong(pong(b"late"));
    assert_eq!(
        outbox.send(Opcode::Text, b"late", None, || {}).unwrap(),
        Sent::Closed
    );
    assert_eq!(drain(&outbox, &mut peer), sent);
}

#[test]
fn a_connection_that_is_shed_keeps_the_frame_that_has_begun_and_one_close_frame() {
    let (outbox, mut peer) = narrow(CAPACITY);
    let sent = fill(&outbox);
    let close = CloseFrame::new(Some(1013), "").unwrap();
    assert_eq!(outbox.seal(&close), Sent::Queued);
    outbox.shed(&close);
    assert!(outbox.queued() < 2000);
    outbox.shed(&close);
    let came = drain(&outbox, &mut peer);
    let messages = came.strip_suffix(b"\x88\x02\x03\xf5").unwrap();
    assert!(messages.len() < sent.len() && sent.starts_with(messages));
    assert_eq!(
        messages.len() % frame::encode(Opcode::Binary, &[0; 1000]).len(),
        0
    );
}

#[test]
fn what_is_shed_after_it_was_given_and_then_taken_back_gets_one_close_frame() {
    let close = |code| CloseFrame::new(Some(code), "").unwrap();
    let whole = frame::encode(Opcode::Binary, &[0; 1000]).len();
    for sheds in [1, 2] {
        let (outbox, mut peer) = narrow(CAPACITY);
        let sent = fill(&outbox);
        drop(outbox.give().unwrap().unwrap());
        for _ in 0..sheds {
            outbox.shed(&close(1013));
        }
        assert!(outbox.queued() < 2000);
        outbox.take_back(&close(1012));
        let came = drain(&outbox, &mut peer);
        let messages = came.strip_suffix(b"\x88\x02\x03\xf5").unwrap();
        assert!(messages.len() < sent.len() && sent.starts_with(messages));
        assert_eq!(messages.len() % whole, 0);
    }
}

#[test]
fn a_watch_is_notified_once_when_there_is_room_or_nothing_to_wait_for() {
    let hub = Hub::new().unwrap();
    let watch = |token| Watch::new(Arc::clone(&hub), token);
    let (outbox, mut peer) = narrow(2000);
    outbox.watch(watch(1));
    assert_eq!(hub.drain(), [1]);
    fill(&outbox);
    outbox.watch(watch(2));
    outbox.flush();
    assert!(hub.drain().is_empty());
    drain(&outbox, &mut peer);
    assert_eq!(hub.drain(), [2]);
    fill(&outbox);
    outbox.watch(watch(3));
    read_now(&mut peer);
    outbox.pong(pong(b""));
    assert_eq!(hub.drain(), [3]);
    fill(&outbox);
    outbox.watch(watch(6));
    outbox.unwatch(&hub, 6);
    outbox.watch(watch(4));
    outbox.cut();
    outbox.watch(watch(5));
    assert_eq!(hub.drain(), [4, 5]);
}

#[test]
fn a_sender_that_only_tries_wakes_when_room_is_made_and_gives_way_when_it_gives_up() {
    let (outbox, mut peer) = narrow(2000);
    let try_send = |size| outbox.send(Opcode::Binary, &vec![0; size], Some(Duration::ZERO), || {});
    outbox.await_room(None);
    fill(&outbox);
    assert!(try_send(1500).is_err());
    assert!(try_send(10).is_err());
    outbox.give_way();
    assert_eq!(try_send(10).unwrap(), Sent::Queued);
    let sleeper = thread::spawn({
        let outbox = Arc::clone(&outbox);
        move || outbox.await_room(None)
    });
    while outbox.room.sleepers() == 0 {
        thread::yield_now();
    }
    drain(&outbox, &mut peer);
    sleeper.join().unwrap();
    assert_eq!(try_send(1500).unwrap(), Sent::Written);
}

#[test]
fn an_empty_queue_is_nobodys_unless_a_thread_sleeps() {
    let hub = Hub::new().unwrap();
    let ask = |outbox: &Outbox| assert!(!outbox.has_room(0));
    let wait = |outbox: &Outbox| {
        let sent = outbox.send(Opcode::Binary, &[0; 1500], Some(Duration::ZERO), || {});
        assert!(sent.is_err());
        outbox.watch(Watch::new(Arc::clone(&hub), 1));
    };
    let delivery = Delivery::of(vec![Message::new(Kind::Binary, b"", &[])], None);
    for reserve in [&ask as &dyn Fn(&Outbox), &wait] {
        let (outbox, mut peer) = narrow(CAPACITY);
        let large = vec![0; 2 * CAPACITY];
        let sent = outbox.send(Opcode::Binary, &large, None, || {});
        assert_eq!(sent.unwrap(), Sent::Queued);
        reserve(&outbox);
        drain(&outbox, &mut peer);
        // The task has been woken, and ends before it has sent.
        outbox.unwatch(&hub, 1);
        assert_eq!(outbox.write(Opcode::Text, b""), Sent::Written);
        let (handed, sent) = outbox.take_frames(&delivery, WhenFull::Close, false);
        assert_eq!((handed.delivered, sent), (1, Sent::Written));
        assert_eq!(outbox.take_whole(&delivery), Sent::Written);
        assert_eq!(outbox.cork(Opcode::Text, b""), Corked::First);
    }
}

#[test]
fn messages_that_go_together_are_taken_whole_or_not_at_all() {
    let (outbox, mut peer) = narrow(CAPACITY);
    let delivery = |size: usize| {
        let message = |byte| Message::new(Kind::Binary, &vec![byte; size], &[]);
        Delivery::of(vec![message(b'a'), message(b'b')], None)
    };
    let expected = |size: usize| {
        [b'a', b'b']
            .map(|byte| frame::encode(Opcode::Binary, &vec![byte; size]))
            .concat()
    };
    assert_eq!(outbox.cork(Opcode::Binary, b"corked"), Corked::First);
    assert_eq!(outbox.take_whole(&delivery(10)), Sent::Written);
    let corked = frame::encode(Opcode::Binary, b"corked");
    assert_eq!(read_now(&mut peer), [&corked[..], &expected(10)].concat());
    // More than the socket takes: the rest waits, and a control frame after it.
    assert_eq!(outbox.take_whole(&delivery(20_000)), Sent::Queued);
    outbox.pong(pong(b"p"));
    // Room for one of them, not for both.
    assert_eq!(outbox.take_whole(&delivery(CAPACITY / 2)), Sent::Full);
    assert_eq!(outbox.take_whole(&delivery(10)), Sent::Queued);
    let whole = [&expected(20_000)[..], &pong(b"p"), &expected(10)].concat();
    assert_eq!(drain(&outbox, &mut peer), whole);
    outbox.cut();
    assert_eq!(outbox.take_whole(&delivery(10)), Sent::Closed);
}

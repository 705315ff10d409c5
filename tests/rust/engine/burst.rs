//! Several messages at once, and answers that leave together.

use std::{sync::Arc, time::Duration};

use _core::{
    engine::{Connection, Received, Settings},
    protocol::message::Kind,
};

use crate::support::{
    SETTINGS, connect, connect_narrow, echo, fill,
    peer::{PING, PONG, Peer, TEXT, frame},
    send, take, until,
};

/// A connection with `count` messages waiting to be taken.
fn burst(settings: &Settings, count: u8) -> (Arc<Connection>, Peer) {
    let (connection, mut peer) = connect(settings);
    let bytes: Vec<u8> = (0..count).flat_map(|i| frame(TEXT, &[b'a' + i])).collect();
    peer.write(&bytes);
    until("all are there", || {
        connection.waiting().0 == usize::from(count)
    });
    (connection, peer)
}

#[test]
fn a_burst_is_answered_whole_and_in_order() {
    let (connection, mut peer) = connect(&SETTINGS);
    let view = echo(connection);
    let bytes: Vec<u8> = (0..2000_u32)
        .flat_map(|i| frame(TEXT, i.to_string().as_bytes()))
        .collect();
    peer.write(&bytes);
    for i in 0..2000_u32 {
        peer.expect(TEXT, i.to_string().as_bytes());
    }
    peer.hang_up();
    view.join().unwrap();
}

#[test]
fn what_is_held_goes_out_before_the_next_message_and_before_the_close() {
    let (connection, mut peer) = burst(&SETTINGS, 3);
    take(&connection);
    assert!(connection.cork(Kind::Text, b"1"));
    assert!(connection.cork(Kind::Text, b"2"));
    send(&connection, Kind::Text, b"3");
    assert!(!connection.is_corked());
    assert!(connection.cork(Kind::Text, b"4"));
    send(&connection, Kind::Text, "5".repeat(100_000).as_bytes());
    assert!(connection.cork(Kind::Text, b"6"));
    connection.close(&_core::protocol::close::CloseFrame::new(Some(1000), "").unwrap());
    for expected in ["1", "2", "3", "4", &"5".repeat(100_000), "6"] {
        peer.expect(TEXT, expected.as_bytes());
    }
}

#[test]
fn what_a_view_holds_for_others_leaves_when_it_asks_for_more_and_finds_nothing() {
    // The timer may be faster, on a machine with much to do.
    assert!((0..100).any(|_| leaves_when_the_view_asks_for_more()));
}

/// Whether the held message was still there, and left when the view asked for more.
fn leaves_when_the_view_asks_for_more() -> bool {
    let (sender, _peer) = burst(&SETTINGS, 2);
    let (member, mut listener) = connect(&SETTINGS);
    take(&sender);
    assert!(member.cork_for(&sender, Kind::Text, b"one"));
    take(&sender);
    // The last message of the burst is not corked: sending it takes along what is held.
    assert!(!member.cork_for(&sender, Kind::Text, b"two"));
    let was_held = member.is_corked();
    assert!(matches!(
        sender.take_coarse(Duration::ZERO),
        Received::Nothing
    ));
    let has_left = !member.is_corked();
    listener.expect(TEXT, b"one");
    was_held && has_left
}

#[test]
fn what_is_held_for_others_leaves_without_its_view_too() {
    let (sender, _peer) = burst(&SETTINGS, 2);
    let (member, mut listener) = connect(&SETTINGS);
    assert!(member.cork_for(&sender, Kind::Text, b"one"));
    listener.expect(TEXT, b"one");
}

#[test]
fn nothing_is_held_while_no_message_waits_or_the_peer_is_slow() {
    let (connection, _peer) = burst(&SETTINGS, 1);
    assert!(connection.cork(Kind::Text, b"1"));
    assert!(!connection.cork(Kind::Binary, &[0; 16 * 1024]));
    take(&connection);
    assert!(!connection.cork(Kind::Text, b"2"));
    let (connection, mut peer) = connect_narrow(&SETTINGS);
    fill(&connection, &[0; 10_000]);
    peer.send(TEXT, b"answer me");
    until("it is there", || connection.waiting().0 == 1);
    assert!(!connection.cork(Kind::Text, b"1"));
}

#[test]
fn a_taker_that_finds_nothing_sends_what_is_corked() {
    let (connection, mut peer) = burst(&SETTINGS, 2);
    take(&connection);
    assert!(connection.cork(Kind::Text, b"1"));
    take(&connection);
    let now = Some(std::time::Instant::now());
    assert!(matches!(connection.take(now), Received::Nothing));
    // At once, or with what others send.
    until("it is let go", || !connection.is_corked());
    peer.expect(TEXT, b"1");
}

#[test]
fn a_view_that_never_comes_back_delays_no_answer() {
    let (connection, mut peer) = burst(&SETTINGS, 2);
    for round in 0..20 {
        let answer = format!("{round}");
        assert!(connection.cork(Kind::Text, answer.as_bytes()));
        peer.expect(TEXT, answer.as_bytes());
    }
}

#[test]
fn a_pong_takes_along_what_is_held() {
    let (connection, mut peer) = burst(&SETTINGS, 2);
    // Whether the pong or the flush timer is first: both frames arrive, whole.
    assert!(connection.cork(Kind::Text, b"1"));
    peer.send(PING, b"?");
    let mut came = [peer.read(), peer.read()];
    came.sort();
    assert_eq!(came, [(TEXT, b"1".to_vec()), (PONG, b"?".to_vec())]);
}

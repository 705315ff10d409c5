//! Peers that go away without a close frame, whether or not a view takes messages.

use std::sync::Arc;

use _core::{
    engine::{Connection, End, Initiator},
    protocol::message::Kind,
};

use crate::support::{
    KINDS, SETTINGS, await_end, connect, expect_end, fill, join,
    peer::{CLOSE, Peer, TEXT, close_payload, frame},
    take, tcp, unix, until,
};

/// More than an inbox takes, and less than one read.
const MANY: u32 = 5000;

#[track_caller]
fn assert_lost(end: &End) {
    assert_eq!((end.code, end.by), (1006, Initiator::Lost));
}

fn numbered() -> Vec<u8> {
    (0..MANY)
        .flat_map(|number| frame(TEXT, format!("{number:08}").as_bytes()))
        .collect()
}

#[track_caller]
fn expect_all(connection: &Arc<Connection>) {
    for number in 0..MANY {
        let expected = format!("{number:08}");
        assert_eq!(take(connection), (Kind::Text, expected.into()));
    }
}

#[test]
fn an_orderly_end_is_noticed_while_no_view_takes() {
    for kind in KINDS {
        let (connection, peer) = join(kind(), &SETTINGS);
        peer.hang_up();
        let end = await_end(&connection);
        assert_lost(&end);
        expect_end(&connection, 1006, "the client hung up", Initiator::Lost);
        assert!(!connection.send(Kind::Text, b"?", None).unwrap());
    }
}

#[test]
fn a_reset_is_noticed_while_no_view_takes() {
    let (connection, peer) = connect(&SETTINGS);
    peer.reset();
    assert_lost(&await_end(&connection));
    let reason = "the client reset the connection";
    expect_end(&connection, 1006, reason, Initiator::Lost);
}

#[test]
fn both_are_noticed_while_the_inbox_is_full_and_what_came_before_is_delivered() {
    let go = |peer: Peer, by_reset| {
        if by_reset {
            peer.reset();
        } else {
            peer.hang_up();
        }
    };
    for (ends, by_reset) in [(tcp(), false), (tcp(), true), (unix(), false)] {
        let (connection, mut peer) = join(ends, &SETTINGS);
        peer.write(&numbered());
        until("the inbox is full", || connection.waiting().0 >= 1024);
        assert_eq!(connection.end(), None);
        go(peer, by_reset);
        assert_lost(&await_end(&connection));
        assert!(!connection.send(Kind::Text, b"?", None).unwrap());
        assert!(connection.waiting().0 >= 1024);
        expect_all(&connection);
        expect_end(&connection, 1006, "the client hung up", Initiator::Lost);
    }
}

#[test]
fn a_close_frame_behind_a_full_inbox_explains_the_hang_up_once_it_is_read() {
    let (connection, mut peer) = connect(&SETTINGS);
    peer.write(&numbered());
    peer.send(CLOSE, &close_payload(4000, "done"));
    until("the inbox is full", || connection.waiting().0 >= 1024);
    peer.hang_up();
    assert_lost(&await_end(&connection));
    expect_all(&connection);
    expect_end(&connection, 4000, "done", Initiator::Peer);
}

#[test]
fn a_view_that_closes_over_a_hang_up_and_a_full_inbox_keeps_what_it_has() {
    let (connection, mut peer) = connect(&SETTINGS);
    peer.write(&numbered());
    until("the inbox is full", || connection.waiting().0 >= 1024);
    peer.reset();
    assert_lost(&await_end(&connection));
    let frame = _core::protocol::close::CloseFrame::default();
    assert!(!connection.close(&frame));
    let (count, ended) = connection.waiting();
    assert!(count >= 1024 && ended);
    for _ in 0..count {
        take(&connection);
    }
    expect_end(&connection, 1006, "the client hung up", Initiator::Lost);
}

#[test]
fn a_reset_is_noticed_while_the_outbox_is_full() {
    let (connection, peer) = connect(&SETTINGS);
    fill(&connection, &[0; 10_000]);
    peer.reset();
    assert_lost(&await_end(&connection));
    assert!(!connection.send(Kind::Text, b"?", None).unwrap());
}

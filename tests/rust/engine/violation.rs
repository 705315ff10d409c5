//! Peers that break a rule get a close frame with its code, whatever else they do.

use std::{io::Write, sync::Arc, thread, time::Duration};

use _core::{
    engine::{Connection, Initiator, Received, Settings},
    protocol::{close::CloseFrame, limits::Limits},
};

use crate::support::{
    SETTINGS, await_end, connect, connect_narrow, expect_end,
    peer::{BINARY, CLOSE, Peer, TEXT, frame},
    send, take, until,
};

const STRICT: Settings = Settings {
    limits: Limits {
        max_message_bytes: 1000,
        max_frame_bytes: u32::MAX,
        max_fragments: 10,
    },
    ..SETTINGS
};

fn read_close(peer: &mut Peer) -> u16 {
    let (first, payload) = peer.read();
    assert_eq!(first, CLOSE);
    u16::from_be_bytes([payload[0], payload[1]])
}

#[test]
fn each_violation_has_its_code_and_the_frame_arrives_before_the_end() {
    let cases: [(u16, Vec<u8>); 12] = [
        (1002, vec![TEXT, 0x05, b'h', b'e', b'l', b'l', b'o']),
        (1002, frame(0xC1, b"reserved bit")),
        (1002, frame(0x83, b"reserved opcode")),
        (1002, frame(0x80, b"continues nothing")),
        (1002, frame(0x09, b"fragmented ping")),
        (1002, frame(0x89, &[0; 126])),
        (1002, frame(CLOSE, b"\x03")),
        (1002, frame(CLOSE, b"\x03\xee")),
        (1007, frame(TEXT, b"\xff")),
        (1007, frame(CLOSE, b"\x03\xe8\xff")),
        (1009, frame(BINARY, &[0; 1001])),
        (
            1009,
            frame(0x01, b"")
                .into_iter()
                .chain(frame(0x00, b"").repeat(10))
                .collect(),
        ),
    ];
    for (code, bytes) in cases {
        let (connection, mut peer) = connect(&STRICT);
        peer.write(&bytes);
        assert_eq!(read_close(&mut peer), code, "{bytes:.20?}");
        peer.expect_eof();
        let end = await_end(&connection);
        assert_eq!((end.code, end.by), (code, Initiator::Local));
        assert!(!end.reason.is_empty());
        expect_end(&connection, code, &end.reason, Initiator::Local);
    }
}

#[test]
fn the_frame_arrives_even_while_the_peer_keeps_sending_megabytes() {
    for (code, bytes) in [
        (1002, frame(0x83, b"")),
        (1007, frame(TEXT, b"\xc0")),
        (1009, frame(BINARY, &[0; 1001])),
    ] {
        for _ in 0..5 {
            let (_connection, mut peer) = connect(&STRICT);
            let mut mouth = peer.socket.try_clone().unwrap();
            let flood = [bytes.clone(), vec![0; 16 * 1024 * 1024]].concat();
            let talking = thread::spawn(move || mouth.write_all(&flood));
            // The worst moment to look: when all has been sent.
            talking.join().unwrap().unwrap();
            assert_eq!(read_close(&mut peer), code);
            peer.expect_eof();
        }
    }
}

#[test]
fn what_was_sent_before_the_violation_comes_before_its_frame() {
    let (connection, mut peer) = connect_narrow(&STRICT);
    send(
        &connection,
        _core::protocol::message::Kind::Binary,
        &vec![5; 500_000],
    );
    peer.send(TEXT, b"\xff");
    until("it is noticed", || connection.end().is_some());
    peer.expect(BINARY, &vec![5; 500_000]);
    assert_eq!(read_close(&mut peer), 1007);
    peer.expect_eof();
}

#[test]
fn a_huge_length_is_refused_by_its_header_alone() {
    for (length, code) in [(1_u64 << 63, 1002), ((1 << 63) - 1, 1009), (1 << 16, 1009)] {
        let (_connection, mut peer) = connect(&STRICT);
        let head = [&[BINARY, 0xFF][..], &length.to_be_bytes(), &[0; 4]].concat();
        peer.write(&head);
        assert_eq!(read_close(&mut peer), code);
        peer.expect_eof();
    }
}

/// Answers each message, after a while, until nothing more comes; then closes with `code`.
fn slow_echo(connection: Arc<Connection>, code: u16) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        while let Received::Message(message) = connection.take(None) {
            thread::sleep(Duration::from_millis(20));
            send(&connection, message.kind, &message.payload);
        }
        connection.close(&CloseFrame::new(Some(code), "").unwrap());
    })
}

#[test]
fn what_came_before_a_violation_is_answered_before_its_frame() {
    let (connection, mut peer) = connect(&STRICT);
    let view = slow_echo(Arc::clone(&connection), 1000);
    peer.write(&[frame(TEXT, b"1"), frame(TEXT, b"2"), frame(0x83, b"")].concat());
    peer.expect(TEXT, b"1");
    peer.expect(TEXT, b"2");
    assert_eq!(read_close(&mut peer), 1002);
    peer.expect_eof();
    view.join().unwrap();
}

#[test]
fn a_violation_behind_a_message_that_is_being_answered_waits_for_the_answer() {
    let (connection, mut peer) = connect(&STRICT);
    peer.send(TEXT, b"question");
    let (kind, question) = take(&connection);
    peer.write(&frame(0x83, b""));
    send(&connection, kind, &question);
    assert_eq!(connection.end(), None);
    peer.expect(TEXT, b"question");
    assert!(matches!(connection.take(None), Received::End));
    assert_eq!(read_close(&mut peer), 1002);
    peer.expect_eof();
}

#[test]
fn a_view_that_does_not_answer_does_not_put_the_verdict_off() {
    let settings = Settings {
        close_timeout: Duration::from_millis(100),
        ..STRICT
    };
    let (connection, mut peer) = connect(&settings);
    peer.write(&[frame(TEXT, b"unread"), frame(0x83, b"")].concat());
    assert_eq!(read_close(&mut peer), 1002);
    peer.expect_eof();
    assert_eq!(take(&connection).1, "unread");
}

#[test]
fn a_peer_that_hangs_up_behind_its_violation_hears_the_verdict_at_once() {
    let (connection, mut peer) = connect(&STRICT);
    peer.write(&[frame(TEXT, b"unread"), frame(0x83, b"")].concat());
    peer.socket.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(read_close(&mut peer), 1002);
    peer.expect_eof();
    assert_eq!(await_end(&connection).code, 1002);
}

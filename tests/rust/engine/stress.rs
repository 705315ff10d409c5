//! The queues under many threads and random timing for a few seconds.
//!
//! `wakeups.rs` is about who is woken; `docs/security.md` lists all that is synchronised by hand.

use std::{
    io::Write,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use _core::{
    engine::{Connection, Received, Settings},
    protocol::{close::CloseFrame, message::Kind},
};

use crate::support::{
    SETTINGS,
    chance::Chance,
    connect_narrow, echo,
    peer::{BINARY, CLOSE, PING, PONG, Peer, TEXT, frame},
    race_time,
};

const TIGHT: Settings = Settings {
    receive_buffer_bytes: 1024 * 1024,
    send_buffer_bytes: 6000,
    ..SETTINGS
};

/// Sends numbered messages until the connection is closed, and gives how many were taken in.
fn send_all(connection: &Connection, sender: u8) -> u32 {
    let mut chance = Chance::new();
    let mut number = 0_u32;
    loop {
        let mut message = vec![sender];
        message.extend(number.to_be_bytes());
        message.resize(5 + chance.size(4000), sender);
        let timeout = Some(Duration::from_secs(60));
        if !connection.send(Kind::Binary, &message, timeout).unwrap() {
            return number;
        }
        number += 1;
        chance.dawdle();
    }
}

/// Reads until the connection is over, which the side `way` ends after so many rounds. Gives the number
/// of messages of each sender, and whether a close frame came.
fn read_all(
    connection: &Connection,
    peer: &mut Peer,
    way: u64,
    rounds: u64,
    chance: &mut Chance,
) -> ([u32; 3], bool) {
    let mut next = [0_u32; 3];
    let (mut frames, mut closed, mut hung_up) = (0, false, false);
    while let Ok((first, payload)) = peer.try_read() {
        frames += 1;
        match first {
            BINARY => {
                assert!(!closed, "a message behind the close frame");
                let sender = usize::from(payload[0]);
                let (number, body) = payload[1..].split_first_chunk().unwrap();
                assert_eq!(u32::from_be_bytes(*number), next[sender]);
                assert!(body.iter().all(|byte| *byte == payload[0]));
                next[sender] += 1;
            }
            PING | PONG => assert!(payload.len() <= 125),
            CLOSE => {
                closed = true;
                if way == 0 {
                    peer.close(1000, "");
                }
            }
            other => panic!("{other:#x} is no frame that we send"),
        }
        chance.dawdle();
        if !closed && !hung_up && frames % 7 == 0 {
            peer.send(PING, b"?");
        }
        if !closed && !hung_up && frames == rounds + 1 {
            hung_up = way == 2;
            end(connection, peer, way);
        }
    }
    (next, closed)
}

fn end(connection: &Connection, peer: &mut Peer, way: u64) {
    match way {
        0 => {
            connection.close(&CloseFrame::default());
        }
        1 => peer.close(1000, ""),
        _ => peer.socket.shutdown(std::net::Shutdown::Write).unwrap(),
    }
}

/// Senders with and without a timeout, pings from both sides, and an end from a random side at a
/// random moment: whole frames only, each sender's in order, nothing lost before a close frame.
#[test]
fn senders_flushes_seals_and_cuts_in_any_order() {
    let deadline = Instant::now() + race_time();
    let settings = Settings {
        ping_interval: Some(Duration::from_millis(1)),
        ..TIGHT
    };
    while Instant::now() < deadline {
        let (connection, mut peer) = connect_narrow(&settings);
        let mut chance = Chance::new();
        let (way, rounds) = (chance.below(3), chance.below(200));
        let accepted: Vec<u32> = thread::scope(|scope| {
            let connection = &connection;
            let senders: Vec<_> = (0..3_u8)
                .map(|sender| scope.spawn(move || send_all(connection, sender)))
                .collect();
            let (seen, closed) = read_all(connection, &mut peer, way, rounds, &mut chance);
            assert_eq!(closed, way < 2);
            let accepted = senders.into_iter().map(|sender| sender.join().unwrap());
            let accepted: Vec<_> = accepted.collect();
            if closed {
                assert_eq!(accepted, seen, "messages that were taken in are lost");
            }
            accepted
        });
        assert_eq!(accepted.len(), 3);
        assert!(matches!(connection.take(None), Received::End));
    }
}

/// Takes messages until the end, and gives how many.
fn take_all(connection: &Arc<Connection>) -> u64 {
    let mut chance = Chance::new();
    let mut taken = 0;
    let mut last = None;
    loop {
        let timeout = Duration::from_micros(chance.below(2000));
        match connection.take(Some(Instant::now() + timeout)) {
            Received::Message(message) => {
                let number = message.payload.first_chunk().unwrap();
                let number = Some(u64::from_be_bytes(*number));
                assert!(last < number, "out of order");
                last = number;
                taken += 1;
            }
            Received::Nothing => {}
            Received::End => return taken,
        }
        chance.dawdle();
    }
}

/// A full inbox pauses and resumes at every turn: nothing is lost, nothing stands still.
#[test]
fn takers_pauses_and_hang_ups_in_any_order() {
    let deadline = Instant::now() + race_time();
    while Instant::now() < deadline {
        let (connection, mut peer) = connect_narrow(&TIGHT);
        let mut chance = Chance::new();
        let count = 2000 + chance.below(4000);
        let large = chance.below(2) == 0;
        let taken: u64 = thread::scope(|scope| {
            let takers: Vec<_> = (0..3)
                .map(|_| scope.spawn(|| take_all(&connection)))
                .collect();
            for number in 0..count {
                let mut payload = number.to_be_bytes().to_vec();
                payload.resize(8 + chance.size(if large { 20_000 } else { 20 }), 0);
                peer.write(&frame(BINARY, &payload));
                chance.dawdle();
            }
            peer.hang_up();
            takers.into_iter().map(|taker| taker.join().unwrap()).sum()
        });
        assert_eq!(taken, count);
    }
}

/// Echo with both sides full most of the time.
#[test]
fn echoes_with_everything_full() {
    let deadline = Instant::now() + race_time();
    let (connection, mut peer) = connect_narrow(&TIGHT);
    let view = echo(connection);
    let mut mouth = peer.socket.try_clone().unwrap();
    let talking = thread::spawn(move || {
        let mut chance = Chance::new();
        let mut count = 0_u32;
        while Instant::now() < deadline {
            let mut payload = format!("{count:010}").into_bytes();
            payload.resize(10 + chance.size(9000), b'.');
            mouth.write_all(&frame(TEXT, &payload)).unwrap();
            count += 1;
        }
        mouth.write_all(&frame(CLOSE, b"")).unwrap();
        count
    });
    let mut chance = Chance::new();
    let mut came = 0;
    loop {
        match peer.read() {
            (TEXT, payload) => {
                assert_eq!(payload[..10], *format!("{came:010}").as_bytes());
                came += 1;
            }
            (CLOSE, _) => break,
            other => panic!("{other:?}"),
        }
        chance.dawdle();
    }
    view.join().unwrap();
    assert!(came > 0 && came <= talking.join().unwrap());
}

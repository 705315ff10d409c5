//! A connection for which there is nothing to do costs no CPU time.

use std::{fs, sync::Arc, thread, time::Duration};

use _core::{
    engine::{Connection, Settings},
    protocol::{close::CloseFrame, message::Kind},
};

use crate::{
    alone,
    support::{
        SETTINGS, connect, connect_narrow, join,
        peer::{CLOSE, Peer, TEXT, frame},
        send, unix, until,
    },
};

/// Ticks (hundredths of a second) that the engine's thread has worked.
fn ticks() -> u64 {
    for task in fs::read_dir("/proc/self/task").unwrap() {
        let task = task.unwrap().path();
        if fs::read_to_string(task.join("comm")).unwrap() == "dwebsocket\n" {
            let stat = fs::read_to_string(task.join("stat")).unwrap();
            // Behind the name in brackets: state is the first field, utime the twelfth.
            let (_, fields) = stat.rsplit_once(')').unwrap();
            let fields: Vec<_> = fields.split_whitespace().collect();
            return fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        }
    }
    0
}

#[track_caller]
fn assert_at_rest(what: &str) {
    let before = ticks();
    thread::sleep(Duration::from_millis(400)); // The span that is measured.
    let worked = ticks() - before;
    assert!(worked <= 4, "{worked} of 40 ticks at work: {what}");
}

fn many() -> Vec<u8> {
    frame(TEXT, b"x").repeat(5000)
}

/// The connection, with as many messages as it takes while its view takes none.
fn filled((connection, mut peer): (Arc<Connection>, Peer)) -> (Arc<Connection>, Peer) {
    peer.write(&many());
    until("it is full", || connection.waiting().0 >= 1024);
    (connection, peer)
}

#[test]
fn idle_connections_take_no_cpu_time() {
    alone("rest::idle_connections_take_no_cpu_time", || {
        let idle = connect(&Settings {
            ping_interval: Some(Duration::from_secs(10)),
            ..SETTINGS
        });
        assert_at_rest("idle");

        let mut paused = filled(connect(&SETTINGS));
        paused.1.write(&many());
        assert_at_rest("paused over a full inbox");
        paused.1.reset();
        until("it is lost", || paused.0.end().is_some());
        assert_at_rest("paused and reset");

        for kind in [crate::support::tcp, unix] {
            let (connection, peer) = filled(join(kind(), &SETTINGS));
            peer.hang_up();
            until("it is lost", || connection.end().is_some());
            assert_at_rest("paused and hung up");
        }

        let blocked = connect_narrow(&SETTINGS);
        send(&blocked.0, Kind::Binary, &vec![0; 500_000]);
        assert_at_rest("a peer that takes nothing");
        blocked.0.close(&CloseFrame::default());
        assert_at_rest("flushing to a peer that takes nothing");

        let both = connect_narrow(&SETTINGS);
        send(&both.0, Kind::Binary, &vec![0; 500_000]);
        let both = filled(both);
        assert_at_rest("full on both sides");

        let urgent = filled(connect(&SETTINGS));
        urgent.1.socket.send_out_of_band(b"!").unwrap();
        assert_at_rest("urgent data while paused");

        let silent = connect(&SETTINGS);
        silent.0.close(&CloseFrame::default());
        assert_at_rest("waiting for the peer's close frame");

        let mut lingering = connect(&SETTINGS);
        lingering.1.send(CLOSE, b"");
        lingering.1.expect(CLOSE, b"");
        assert_at_rest("waiting for the peer to hang up");
        drop((idle, blocked, both, urgent, silent, lingering));
    });
}

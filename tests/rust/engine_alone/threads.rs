//! An engine of several threads.

use std::{fs, time::Duration};

use _core::{
    engine::{Engine, runtime},
    protocol::close::{CloseFrame, GOING_AWAY},
};

use crate::{
    alone,
    support::{
        SETTINGS, connect, echo,
        peer::{CLOSE, TEXT},
    },
};

fn engine_threads() -> usize {
    fs::read_dir("/proc/self/task")
        .unwrap()
        .filter_map(|task| fs::read_to_string(task.unwrap().path().join("comm")).ok())
        .filter(|name| name == "dwebsocket\n")
        .count()
}

#[test]
fn all_threads_serve_and_all_of_them_end() {
    alone("threads::all_threads_serve_and_all_of_them_end", || {
        runtime::want_threads(3);
        let mut peers = Vec::new();
        let mut views = Vec::new();
        for _ in 0..7 {
            let (connection, peer) = connect(&SETTINGS);
            views.push(echo(connection));
            peers.push(peer);
        }
        for peer in &mut peers {
            peer.send(TEXT, b"hello");
            peer.expect(TEXT, b"hello");
        }
        // Each thread sets its name before it serves.
        assert_eq!(engine_threads(), 3);
        // Time is stepped for all of them.
        Engine::running().unwrap().step(Duration::from_millis(1));
        let frame = CloseFrame::new(Some(GOING_AWAY), "").unwrap();
        Engine::running().unwrap().close_all(&frame);
        for peer in &mut peers {
            peer.expect(CLOSE, &GOING_AWAY.to_be_bytes());
            peer.send(CLOSE, &GOING_AWAY.to_be_bytes());
        }
        for view in views {
            view.join().unwrap();
        }
    });
}

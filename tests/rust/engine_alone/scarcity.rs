//! An engine that cannot start reports an error, loses nothing, and starts when it can.

use std::{
    fs::File,
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use _core::{
    engine::{
        Engine, Error, Settings,
        groups::{Groups, Joined, Message, WhenFull},
        permits, runtime,
    },
    protocol::{deflate::Terms, message::Kind},
};

use crate::{
    alone,
    support::{
        COMPRESSION, HEAD, SETTINGS, connect,
        peer::{Peer, TEXT},
        send, take, tcp, until,
    },
};

/// More than an engine needs.
const ENOUGH: usize = 16;

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// The folders of this process's threads.
fn thread_folders() -> Vec<PathBuf> {
    std::fs::read_dir("/proc/self/task")
        .unwrap()
        .map(|thread| thread.unwrap().path())
        .collect()
}

fn threads() -> usize {
    thread_folders().len()
}

/// The bytes of addresses that this process has taken.
fn address_space() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split(' ').next().unwrap().parse().unwrap();
    pages * 4096
}

#[expect(unsafe_code, reason = "limits are the C library's")]
fn limit(which: libc::__rlimit_resource_t, most: u64) -> libc::rlimit {
    let mut before = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: both calls read or write one structure that is ours.
    unsafe {
        assert_eq!(libc::getrlimit(which, &raw mut before), 0);
        let now = libc::rlimit {
            rlim_cur: most.min(before.rlim_max),
            ..before
        };
        assert_eq!(libc::setrlimit(which, &raw const now), 0);
    }
    before
}

/// Takes all descriptors but `spare`.
fn fill(spare: usize) -> Vec<File> {
    let mut taken = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        taken.push(file);
    }
    taken.truncate(taken.len() - spare);
    taken
}

fn adopt(server: OwnedFd) -> Result<(), Error> {
    let permit = permits::Permit::claim(None).unwrap();
    runtime::adopt(server, vec![], HEAD.into(), &SETTINGS, permit, |_| {}).map(drop)
}

fn serves() {
    let (connection, mut peer) = connect(&SETTINGS);
    peer.send(TEXT, b"hello");
    let (kind, payload) = take(&connection);
    send(&connection, kind, &payload);
    peer.expect(TEXT, b"hello");
}

#[test]
fn without_descriptors_the_client_is_refused_and_nothing_is_lost() {
    alone(
        "scarcity::without_descriptors_the_client_is_refused_and_nothing_is_lost",
        || {
            limit(libc::RLIMIT_NOFILE, 100);
            let mut refused = 0;
            for spare in 0..ENOUGH {
                if Engine::running().is_some() {
                    break;
                }
                let (server, client) = tcp();
                let number = server.as_raw_fd();
                let taken = fill(spare);
                let outcome = runtime::prepare();
                if let Err(error) = outcome {
                    assert!(matches!(error, Error::Io { .. }), "{error}");
                    // A client that is handed over all the same gets an answer, and its descriptor
                    // is closed.
                    assert!(matches!(adopt(server), Err(Error::Io { .. })));
                    drop(taken);
                    Peer::new(client).expect_refusal();
                    assert!(!std::fs::exists(format!("/proc/self/fd/{number}")).unwrap());
                    refused += 1;
                }
                assert_eq!(permits::open(), 0);
            }
            assert!(refused > 4, "{refused}");
            assert!(Engine::running().is_some());
            serves();
        },
    );
}

#[test]
fn a_failed_start_leaves_no_descriptor_and_no_thread() {
    alone(
        "scarcity::a_failed_start_leaves_no_descriptor_and_no_thread",
        || {
            limit(libc::RLIMIT_NOFILE, 100);
            let (files, workers) = (descriptors(), threads());
            for spare in 0..4 {
                let taken = fill(spare);
                assert!(runtime::prepare().is_err(), "{spare}");
                drop(taken);
                assert_eq!((descriptors(), threads()), (files, workers), "{spare}");
            }
        },
    );
}

#[test]
fn without_threads_the_client_is_refused() {
    alone("scarcity::without_threads_the_client_is_refused", || {
        runtime::want_threads(3);
        let (server, client) = tcp();
        let (files, workers) = (descriptors(), threads());
        // Less than the stack of one thread. With more, a thread could start and find no room for
        // what Rust needs of it, which ends the process.
        let before = limit(libc::RLIMIT_AS, address_space() + 1024 * 1024);
        assert!(matches!(runtime::prepare(), Err(Error::Io { .. })));
        assert!((descriptors(), threads()) <= (files + 3, workers));
        assert!(matches!(adopt(server), Err(Error::Io { .. })));
        limit(libc::RLIMIT_AS, before.rlim_cur);
        Peer::new(client).expect_refusal();
        serves();
        until("all threads run", || threads() == workers + 3);
    });
}

#[test]
fn groups_outlive_a_moment_without_threads() {
    alone("scarcity::groups_outlive_a_moment_without_threads", || {
        let terms = Terms::negotiate("permessage-deflate", COMPRESSION).unwrap();
        let settings = Settings {
            compression: Some(terms),
            ..SETTINGS
        };
        let engine = Engine::current().unwrap();
        let groups = Groups::new(engine.fan_out_threads().unwrap(), WhenFull::Close, None);
        let (connection, mut peer) = connect(&settings);
        assert!(matches!(
            groups.join("room", &connection, [1; 16]),
            Joined::First
        ));
        let message = |payload: &[u8]| Message::new(Kind::Text, payload, &[]);
        // Slow to compress, so that it needs a thread.
        let large = message(&vec![b'a'; 200_000]);
        let before = limit(libc::RLIMIT_AS, address_space() + 1024 * 1024);
        for _ in 0..3 {
            groups.publish("room", large.clone());
        }
        let first = peer.read();
        limit(libc::RLIMIT_AS, before.rlim_cur);
        groups.publish("room", message(b"and after it"));
        assert_eq!((peer.read(), peer.read()), (first.clone(), first));
        peer.expect(TEXT, b"and after it");
    });
}

/// The signals that a thread blocks.
fn blocked(thread: &Path) -> u64 {
    let status = std::fs::read_to_string(thread.join("status")).unwrap();
    let mut lines = status.lines();
    let mask = lines.find_map(|line| line.strip_prefix("SigBlk:")).unwrap();
    u64::from_str_radix(mask.trim(), 16).unwrap()
}

#[test]
fn the_engine_s_threads_take_no_signals() {
    alone("scarcity::the_engine_s_threads_take_no_signals", || {
        let known = thread_folders();
        let bits = [
            libc::SIGTERM,
            libc::SIGINT,
            libc::SIGHUP,
            libc::SIGALRM,
            libc::SIGCHLD,
            libc::SIGUSR1,
        ];
        let asked = bits.iter().fold(0, |set, number| set | 1 << (number - 1));
        // A signal for a thread's own fault still has to reach that thread.
        let own_fault = 1 << (libc::SIGSEGV - 1);
        runtime::want_threads(2);
        serves();
        let mut own = thread_folders();
        own.retain(|thread| !known.contains(thread));
        assert_eq!(own.len(), 2);
        // While threads start the C library blocks all signals in both, for a moment.
        until("the engine's threads take only their own faults", || {
            own.iter()
                .all(|task| blocked(task) & (asked | own_fault) == asked)
        });
        until("the server's threads take all signals, as before", || {
            known
                .iter()
                .all(|task| blocked(task) & (asked | own_fault) == 0)
        });
    });
}

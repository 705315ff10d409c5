//! Tests of the judge: servers that break one rule on purpose, with framing by tungstenite.

#![expect(
    clippy::unwrap_used,
    reason = "in a test a failed call is a failed test, helpers included"
)]

use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use load::chat;
use load::echo::{self, Options, Outcome};
use load::fleet::Target;
use load::frame::Opcode;
use load::judge::Tally;
use load::opening;
use load::script::Script;
use load::usage::Watch;
use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{Data, OpCode};
use tungstenite::{Message, WebSocket, accept};

type Socket = WebSocket<TcpStream>;
/// Called for each message with its number; true means that it has been dealt with.
type Fault = fn(&mut Socket, u64, &Message) -> bool;

/// The message that a faulty server treats wrongly: early, so that a busy machine gets that far.
const VICTIM: u64 = 5;

/// A server that echoes, except where `fault` steps in. Lives as long as the test process.
fn serve(fault: Fault) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            stream.set_nodelay(true).unwrap();
            thread::spawn(move || {
                let mut socket = accept(stream).unwrap();
                let mut number = 0;
                // An error here is the end of the connection, whichever side caused it.
                while let Ok(message) = socket.read() {
                    if message.is_text() || message.is_binary() {
                        if !fault(&mut socket, number, &message) {
                            socket.send(message).ok();
                        }
                        number += 1;
                    }
                }
            });
        }
    });
    address
}

/// A server that sends each message to all members. `copies` gives how often a member, by its
/// number in the order of joining, receives a message, by its number.
fn serve_chat(copies: fn(usize, u64) -> usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let members: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            let members = members.clone();
            thread::spawn(move || {
                let mut socket = accept(stream).unwrap();
                let own = socket.get_ref().try_clone().unwrap();
                members.lock().unwrap().push(own);
                let mut number = 0;
                while let Ok(message) = socket.read() {
                    if !message.is_text() {
                        continue;
                    }
                    let text = message.into_data();
                    let head = [0x81, u8::try_from(text.len()).unwrap()];
                    let frame = [&head[..], &text].concat();
                    for (index, member) in members.lock().unwrap().iter_mut().enumerate() {
                        for _ in 0..copies(index, number) {
                            member.write_all(&frame).ok();
                        }
                    }
                    number += 1;
                }
                // The list of members holds the connection open.
                socket.get_ref().shutdown(Shutdown::Both).ok();
            });
        }
    });
    address
}

fn options(in_flight: u64) -> Options {
    Options {
        connections: 3,
        in_flight,
        rate: None,
        warm_up: Duration::from_millis(20),
        duration: Duration::from_millis(500),
        // So many that each connection gets past the messages that are treated wrongly.
        at_least: 200,
        longest: Duration::from_secs(60),
        stopped: 0,
        drain: Duration::from_secs(1),
        open_timeout: Duration::from_secs(20),
        watch: Watch::default(),
    }
}

fn target(server: SocketAddr) -> Target {
    Target {
        server,
        path: "/".into(),
    }
}

fn measure(server: SocketAddr, kind: Opcode, size: usize, options: &Options) -> Outcome {
    let script = Script::new(kind, size).unwrap();
    echo::run(&target(server), script, options).unwrap()
}

fn measure_chat(copies: fn(usize, u64) -> usize, at_least: u64) -> Outcome {
    let script = Script::new(Opcode::Text, 64).unwrap();
    let options = Options {
        at_least,
        ..options(2)
    };
    chat::run(&target(serve_chat(copies)), script, &options).unwrap()
}

/// The outcome of three busy connections and two that stop reading.
fn measure_stopped(server: SocketAddr) -> Outcome {
    let options = Options {
        stopped: 2,
        ..options(1)
    };
    let script = Script::new(Opcode::Text, 64).unwrap();
    echo::run(&target(server), script, &options).unwrap()
}

/// The tally of three connections when `fault` strikes once on each.
fn verdict(fault: Fault) -> Tally {
    measure(serve(fault), Opcode::Text, 64, &options(4)).tally
}

fn changed(message: &Message, change: impl Fn(&mut Vec<u8>)) -> Message {
    let mut text = message.clone().into_data().to_vec();
    change(&mut text);
    Message::text(String::from_utf8(text).unwrap())
}

#[test]
fn an_honest_server_is_found_right_and_answers_are_counted() {
    for (kind, size, in_flight) in [
        (Opcode::Text, 13, 1),
        (Opcode::Binary, 200, 16),
        (Opcode::Text, 70_000, 3),
        (Opcode::Binary, 1 << 20, 2),
    ] {
        let options = Options {
            at_least: 4,
            ..options(in_flight)
        };
        let outcome = measure(serve(|_, _, _| false), kind, size, &options);
        assert_eq!(outcome.tally, Tally::default(), "{:?}", outcome.first_error);
        assert!(outcome.latency.total() > 3);
        assert_eq!(outcome.closed_cleanly, 3);
        assert!(outcome.latency.quantile_us(0.5) <= outcome.latency.max_us());
    }
}

#[test]
fn fragments_and_pings_are_no_errors() {
    let tally = verdict(|socket, _, message| {
        let text = message.clone().into_data();
        let first = Frame::message(text.slice(..10), OpCode::Data(Data::Text), false);
        let middle = Frame::message(text.slice(10..11), OpCode::Data(Data::Continue), false);
        let last = Frame::message(text.slice(11..), OpCode::Data(Data::Continue), true);
        socket.send(Message::Frame(first)).ok();
        socket.send(Message::Ping("are you there".into())).ok();
        socket.send(Message::Frame(middle)).ok();
        socket.send(Message::Frame(last)).ok();
        true
    });
    assert_eq!(tally, Tally::default());
}

#[test]
fn dropping_is_loss() {
    let tally = verdict(|_, number, _| number == VICTIM);
    assert_eq!(
        tally,
        Tally {
            lost: 3,
            ..Tally::default()
        }
    );
}

#[test]
fn dropping_everything_is_loss_of_all_in_flight() {
    let options = Options {
        longest: Duration::ZERO,
        ..options(4)
    };
    let outcome = measure(serve(|_, _, _| true), Opcode::Text, 64, &options);
    assert_eq!(
        outcome.tally,
        Tally {
            lost: 12,
            ..Tally::default()
        }
    );
}

#[test]
fn doubling_is_duplicate() {
    let tally = verdict(|socket, number, message| {
        if number == VICTIM {
            socket.send(message.clone()).ok();
        }
        false
    });
    assert_eq!(
        tally,
        Tally {
            duplicate: 3,
            ..Tally::default()
        }
    );
}

#[test]
fn swapping_two_is_out_of_order() {
    let tally = verdict(|socket, number, message| {
        if number == VICTIM {
            let held = message.clone();
            let following = socket.read().unwrap();
            socket.send(following).ok();
            socket.send(held).ok();
        }
        number == VICTIM
    });
    assert_eq!(
        tally,
        Tally {
            out_of_order: 3,
            ..Tally::default()
        }
    );
}

#[test]
fn one_changed_byte_is_corrupt() {
    let tally = verdict(|socket, number, message| {
        let bad = changed(message, |text| text[63] ^= 1);
        if number == VICTIM {
            socket.send(bad).ok();
        }
        number == VICTIM
    });
    assert_eq!(
        tally,
        Tally {
            corrupt: 3,
            ..Tally::default()
        }
    );
}

#[test]
fn one_byte_less_or_more_is_corrupt() {
    let tally = verdict(|socket, number, message| {
        match number {
            VICTIM => socket.send(changed(message, |text| text.truncate(63))).ok(),
            9 => socket.send(changed(message, |text| text.push(b'x'))).ok(),
            _ => return false,
        };
        true
    });
    assert_eq!(
        tally,
        Tally {
            corrupt: 6,
            ..Tally::default()
        }
    );
}

#[test]
fn another_connections_message_is_foreign() {
    let tally = verdict(|socket, number, message| {
        if number == VICTIM {
            let script = Script::new(Opcode::Text, 64).unwrap();
            let mut address = script.identify(&message.clone().into_data()).unwrap();
            address.connection += 1;
            let mut payload = Vec::new();
            script.push_payload(address, 0, 64, &mut payload);
            socket
                .send(Message::text(String::from_utf8(payload).unwrap()))
                .ok();
        }
        false
    });
    assert_eq!(
        tally,
        Tally {
            foreign: 3,
            ..Tally::default()
        }
    );
}

#[test]
fn binary_for_text_is_the_wrong_kind() {
    let tally = verdict(|socket, number, message| {
        if number == VICTIM {
            socket
                .send(Message::Binary(message.clone().into_data()))
                .ok();
        }
        number == VICTIM
    });
    assert_eq!(
        tally,
        Tally {
            wrong_kind: 3,
            ..Tally::default()
        }
    );
}

#[test]
fn an_illegal_frame_is_a_violation_and_what_was_under_way_is_lost() {
    let tally = verdict(|socket, number, _| {
        if number == VICTIM {
            socket.get_mut().write_all(b"\xc1\x01x").ok();
        }
        number == VICTIM
    });
    // Answers read together with the last one count, but nothing was sent for them any more.
    assert!((3..=12).contains(&tally.lost), "{tally:?}");
    assert_eq!(
        tally,
        Tally {
            violation: 3,
            lost: tally.lost,
            ..Tally::default()
        }
    );
}

#[test]
fn closing_unasked_is_a_disconnection() {
    let tally = verdict(|socket, number, _| {
        if number == VICTIM {
            socket.close(None).ok();
        }
        number == VICTIM
    });
    // Answers read together with the last one count, but nothing was sent for them any more.
    assert!((3..=12).contains(&tally.lost), "{tally:?}");
    assert_eq!(
        tally,
        Tally {
            disconnected: 3,
            lost: tally.lost,
            ..Tally::default()
        }
    );
}

#[test]
fn a_window_is_lengthened_until_enough_came_back() {
    let server = serve(|_, _, _| {
        thread::sleep(Duration::from_millis(100));
        false
    });
    let options = Options {
        duration: Duration::from_millis(1),
        at_least: 7,
        ..options(1)
    };
    let script = Script::new(Opcode::Text, 64).unwrap();
    let outcome = echo::run(&target(server), script, &options).unwrap();
    assert!(outcome.latency.total() >= 7);
    assert_eq!(outcome.tally, Tally::default());
}

#[test]
fn each_delivery_of_a_chat_is_judged() {
    let none = Tally::default();
    for (copies, expected) in [
        ((|_, _| 1) as fn(usize, u64) -> usize, none.clone()),
        (
            |member, number| usize::from((member, number) != (1, VICTIM)),
            Tally {
                lost: 1,
                ..none.clone()
            },
        ),
        (
            |member, number| 1 + usize::from((member, number) == (2, VICTIM)),
            Tally {
                duplicate: 1,
                ..none
            },
        ),
    ] {
        let outcome = measure_chat(copies, 60);
        assert_eq!(outcome.tally, expected, "{:?}", outcome.first_error);
        assert!(outcome.latency.total() > 3);
    }
}

#[test]
fn a_chat_may_have_its_own_pace() {
    let script = Script::new(Opcode::Text, 64).unwrap();
    let options = Options {
        rate: Some(100.0),
        warm_up: Duration::ZERO,
        at_least: 3 * 30,
        ..options(1)
    };
    let outcome = chat::run(&target(serve_chat(|_, _| 1)), script, &options).unwrap();
    assert_eq!(outcome.tally, Tally::default());
    let messages = outcome.last.unwrap().total();
    assert!(messages >= 30, "{messages}");
    let window = outcome.after.at - outcome.before.at;
    let most = 1 + window.as_millis() / 10;
    assert!(u128::from(messages) <= most, "{messages} of {most}");
    assert!(outcome.latency.total() >= 3 * messages);
}

#[test]
fn a_member_that_is_forgotten_loses_messages() {
    let tally = measure_chat(|member, _| usize::from(member != 2), 0).tally;
    assert!(tally.lost > 0);
    assert_eq!(
        tally,
        Tally {
            lost: tally.lost,
            ..Tally::default()
        }
    );
}

#[test]
fn stopped_readers_make_an_honest_server_wait_and_get_everything_later() {
    let outcome = measure_stopped(serve(|_, _, _| false));
    let fate = outcome.stopped.unwrap();
    assert_eq!((fate.stuck, fate.cut_off), (2, 0));
    assert_eq!(outcome.tally, Tally::default(), "{:?}", outcome.first_error);
    assert!(outcome.latency.total() > 3);
}

#[test]
fn cutting_stopped_readers_off_is_reported_and_no_error() {
    let outcome = measure_stopped(serve(|socket, _, message| {
        // Busy connections never fill their buffers, so that nothing of theirs waits.
        let timeout = Some(Duration::from_millis(50));
        socket.get_mut().set_write_timeout(timeout).unwrap();
        if socket.send(message.clone()).is_err() {
            socket.get_mut().shutdown(Shutdown::Both).ok();
        }
        true
    }));
    assert_eq!(outcome.stopped.unwrap().cut_off, 2);
    assert_eq!(outcome.tally, Tally::default(), "{:?}", outcome.first_error);
}

#[test]
fn what_a_stopped_reader_does_not_get_later_is_lost() {
    let outcome = measure_stopped(serve(|_, number, message| {
        message.len() > 1000 && number == VICTIM
    }));
    assert_eq!(
        outcome.tally,
        Tally {
            lost: 2,
            ..Tally::default()
        }
    );
}

fn measure_opening(server: SocketAddr) -> opening::Outcome {
    let options = opening::Options {
        connections: 20,
        duration: Duration::from_millis(1),
        drain: Duration::from_secs(1),
        open_timeout: Duration::from_secs(20),
        watch: Watch::default(),
    };
    opening::run(&target(server), &options).unwrap()
}

#[test]
fn handshakes_are_counted_without_the_first_round() {
    let outcome = measure_opening(serve(|_, _, _| false));
    assert_eq!(outcome.tally, Tally::default(), "{:?}", outcome.first_error);
    assert!(outcome.opened >= 20 && outcome.opened % 20 == 0);
    assert_eq!(outcome.closed_cleanly, outcome.opened + 20);
    assert!(outcome.after.at > outcome.before.at);
}

#[test]
fn a_handshake_with_nobody_behind_it_is_a_loss() {
    let outcome = measure_opening(serve(|_, _, _| true));
    assert_eq!(
        outcome.tally,
        Tally {
            lost: outcome.opened + 20,
            ..Tally::default()
        }
    );
}

#[test]
fn a_refused_handshake_is_no_measurement() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            while !lines.next().unwrap().unwrap().is_empty() {}
            stream.write_all(b"HTTP/1.1 503 Full\r\n\r\n").unwrap();
        }
    });
    let (status, _, errors) = command(server, "echo", &[], "");
    assert_eq!(status, 2);
    assert!(errors.contains("HTTP/1.1 503 Full"), "{errors}");
}

#[test]
fn the_command_reports_errors_in_json_and_by_its_status() {
    let (status, out, _) = command(
        serve(|_, _, _| false),
        "echo",
        &["--duration", "0.1", "--at-least", "30"],
        "",
    );
    assert_eq!(status, 0);
    assert!(
        out.contains(r#""lost": 0,"#) && out.contains(r#""first_error": null"#),
        "{out}"
    );
    let server = serve(|socket, number, message| {
        if number == VICTIM {
            socket.send(message.clone()).ok();
        }
        false
    });
    let (status, out, _) = command(
        server,
        "echo",
        &["--duration", "0.1", "--at-least", "30"],
        "",
    );
    assert_eq!(status, 1);
    assert!(
        out.contains(r#""duplicate": 1,"#) && out.contains("connection 0: duplicate 1"),
        "{out}"
    );
}

#[test]
fn the_command_tells_what_each_mode_found() {
    let echo = serve(|_, _, _| false);
    for (server, mode, extra, words) in [
        (
            serve_chat(|_, _| 1),
            "chat",
            ["--connections", "3"],
            &[r#""messages": "#, r#""p99": "#][..],
        ),
        (
            echo,
            "opening",
            ["--connections", "20"],
            &[r#""opened": "#, r#""server_cpu_s": "#],
        ),
        (
            echo,
            "echo",
            ["--stopped", "1"],
            &[r#""stopped": {"stuck": 1, "cut_off": 0}"#],
        ),
    ] {
        let extra = [&extra[..], &["--duration", "0.1"]].concat();
        let (status, out, errors) = command(server, mode, &extra, "");
        assert_eq!((status, errors.as_str()), (0, ""));
        for word in words {
            assert!(out.contains(word), "{word}: {out}");
        }
    }
}

#[test]
fn idle_connections_are_held_until_told() {
    let server = serve(|_, _, _| false);
    let commands = "echo 32\necho 65536\nclose\n";
    let (status, out, errors) = command(server, "idle", &["--connections", "120"], commands);
    assert_eq!((status, errors.as_str()), (0, ""));
    let lines: Vec<&str> = out.lines().collect();
    assert!(
        lines[0].starts_with(r#"{"event": "ready", "connections": 120,"#),
        "{out}"
    );
    assert_eq!(lines[1], r#"{"event": "echoed", "size": 32, "missing": 0}"#);
    assert_eq!(
        lines[2],
        r#"{"event": "echoed", "size": 65536, "missing": 0}"#
    );
    assert!(
        lines[3].starts_with(r#"{"event": "closed", "errors": {"lost": 0,"#),
        "{out}"
    );
}

#[test]
fn mistyped_commands_are_explained() {
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
    for (mode, extra, word) in [
        ("echoes", ["--size", "32"], "no mode"),
        ("echo", ["--sise", "32"], "unknown option --sise"),
        ("echo", ["--size", "big"], "--size \"big\""),
        ("echo", ["--size", "5"], "too small"),
        ("echo", ["--kind", "json"], "text or binary"),
        ("echo", ["--connections", "1"], "refused"),
        ("chat", ["--stopped", "1"], "unknown option --stopped"),
        ("chat", ["--rate", "0"], "--rate 0"),
        ("echo", ["--rate", "9"], "unknown option --rate"),
        ("opening", ["--warm-up", "1"], "unknown option --warm-up"),
    ] {
        let (status, _, errors) = command(nowhere, mode, &extra, "");
        assert_eq!(status, 2, "{errors}");
        assert!(errors.contains(word), "{word}: {errors}");
    }
}

/// Runs the program with short times; gives its exit status, output and error output.
fn command(server: SocketAddr, mode: &str, extra: &[&str], input: &str) -> (i32, String, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_load"))
        .args([mode, "--server", &server.to_string()])
        .args(["--drain", "1", "--open-timeout", "20"])
        .args(extra)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).ok();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (
        output.status.code().unwrap(),
        text(output.stdout),
        text(output.stderr),
    )
}

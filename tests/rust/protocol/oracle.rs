//! tungstenite as the other opinion: its client's frames are read by us, and its server reads the
//! same bytes as we do and must come to the same verdict.
//!
//! Where the two differ on purpose, [`Difference`] says how, and a test pins an example.

use std::io::Cursor;

use _core::protocol::{
    close::CloseFrame,
    frame::{self, Opcode},
    limits::Limits,
    message::{Event, Receiver},
};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt, future};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        self, Error,
        protocol::{CloseFrame as TheirClose, Role, WebSocket},
    },
};

use crate::{
    judge::{Difference, End, LIMITS, Recorded, compare, our_verdict, receive},
    traffic::{self, Form, Frame, encode_all},
};

/// How our verdict differs from tungstenite's, beyond the close frames that it lets through.
fn unexplained(frames: &[Frame]) -> Option<Difference> {
    compare(&encode_all(frames))
        .filter(|found| !matches!(found, Difference::CloseCode | Difference::ReasonFirst))
}

proptest! {
    #[test]
    fn honest_traffic_is_judged_as_tungstenite_judges_it(frames in traffic::honest()) {
        prop_assert_eq!(unexplained(&frames), None);
    }

    #[test]
    fn any_traffic_is_judged_as_tungstenite_judges_it(bytes in traffic::bytes()) {
        compare(&bytes);
    }

    #[test]
    fn whole_frames_in_shortest_form_are_judged_alike(mut frames in traffic::wild()) {
        for frame in &mut frames {
            frame.form = Form::Shortest;
            frame.payload.truncate(LIMITS.max_message_bytes);
        }
        prop_assert_eq!(unexplained(&frames), None);
    }

    #[test]
    fn frames_of_tungstenites_client_come_out_as_they_went_in(
        messages in proptest::collection::vec(any_message(), 0..8),
        close in proptest::option::of(Just(())),
    ) {
        let mut client = WebSocket::from_raw_socket(
            Cursor::new(Vec::new()),
            Role::Client,
            None,
        );
        for message in &messages {
            client.write(message.clone()).unwrap();
        }
        client.flush().unwrap();
        let mut expected = End::Open;
        if close.is_some() {
            let frame = TheirClose { code: 4000.into(), reason: "done".into() };
            client.close(Some(frame)).unwrap();
            expected = End::Closed(Some((4000, "done".to_owned())));
        }
        let bytes = client.get_ref().get_ref();
        let outcome = receive(Limits::default(), bytes.chunks(777));
        prop_assert_eq!(our_verdict(&outcome), (messages, expected));
    }

    #[test]
    fn our_frames_are_read_by_tungstenites_client(message in any_message()) {
        let opcode = match message {
            tungstenite::Message::Text(_) => Opcode::Text,
            tungstenite::Message::Binary(_) => Opcode::Binary,
            tungstenite::Message::Ping(_) => Opcode::Ping,
            _ => Opcode::Pong,
        };
        let payload = message.clone().into_data();
        let close = CloseFrame::new(Some(1012), "back soon").unwrap();
        let mut bytes = frame::head(opcode, payload.len()).to_vec();
        bytes.extend_from_slice(&payload);
        prop_assert_eq!(&bytes, &frame::encode(opcode, &payload));
        bytes.extend_from_slice(&close.encode());

        let stream = Recorded(Cursor::new(bytes));
        let mut client = WebSocket::from_raw_socket(stream, Role::Client, None);
        prop_assert_eq!(client.read().unwrap(), message);
        let said = TheirClose { code: 1012.into(), reason: "back soon".into() };
        prop_assert_eq!(client.read().unwrap(), tungstenite::Message::Close(Some(said)));
    }
}

fn any_message() -> impl Strategy<Value = tungstenite::Message> {
    let bytes = |max| proptest::collection::vec(any::<u8>(), 0..max);
    prop_oneof![
        "\\PC{0,300}".prop_map(tungstenite::Message::text),
        bytes(300).prop_map(tungstenite::Message::binary),
        (65_530_usize..65_545).prop_map(|len| tungstenite::Message::binary(vec![7; len])),
        bytes(125).prop_map(|payload| tungstenite::Message::Ping(payload.into())),
        bytes(125).prop_map(|payload| tungstenite::Message::Pong(payload.into())),
    ]
}

#[test]
fn each_known_difference_has_an_example() {
    let mut later = Frame::new(0x81, b"\xff and more").encode();
    later.truncate(10);
    let formed = |form, payload| Frame {
        form,
        ..Frame::new(0x82, payload)
    };
    let unmasked = Frame {
        key: None,
        ..Frame::new(0x82, &[0; 301])
    };
    let close = |payload| Frame::new(0x88, payload).encode();
    let table = [
        (
            formed(Form::Bits16, b"short").encode(),
            Difference::LengthForm,
        ),
        (later, Difference::Later),
        (formed(Form::Bit63, b"").encode(), Difference::LimitFirst),
        (unmasked.encode(), Difference::LimitFirst),
        (close(&1005_u16.to_be_bytes()), Difference::CloseCode),
        (close(&1014_u16.to_be_bytes()), Difference::CloseCode),
        (close(b"\0\0\xff"), Difference::ReasonFirst),
    ];
    for (bytes, expected) in table {
        assert_eq!(compare(&bytes), Some(expected), "{bytes:02x?}");
    }
}

/// Both ends of a connection, alive: their client, our receiver and frames as an echo server.
#[tokio::test]
async fn their_client_and_our_server_talk() {
    let (client, server) = tokio::io::duplex(1000);
    let (close, ()) = future::join(echo(server), talk(client)).await;
    assert_eq!(close, CloseFrame::new(Some(1000), "bye").unwrap());
}

/// Our end: answers each message by the same one, until the close frame.
async fn echo(mut server: tokio::io::DuplexStream) -> CloseFrame {
    let mut receiver = Receiver::new(Limits::default());
    let mut buffer = [0; 333];
    loop {
        let len = server.read(&mut buffer).await.unwrap();
        assert_ne!(len, 0, "the client left without a close");
        let mut input = &mut buffer[..len];
        while let Some(event) = receiver.next(&mut input).unwrap() {
            let reply = match event {
                Event::Message(message) => {
                    frame::encode(Opcode::from(message.kind), &message.payload)
                }
                Event::Ping(payload) => frame::encode(Opcode::Pong, &payload),
                Event::Pong(_) => continue,
                Event::Close(frame) => {
                    server.write_all(&frame.encode()).await.unwrap();
                    return frame;
                }
            };
            server.write_all(&reply).await.unwrap();
        }
    }
}

/// Their end: messages of some sizes, a ping, a close.
async fn talk(client: tokio::io::DuplexStream) {
    let mut client = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
    for len in [0, 1, 125, 126, 5000, 70_000] {
        let text = tungstenite::Message::text("ü".repeat(len));
        let (sent, got) = takeover(&mut client, &text).await;
        sent.unwrap();
        assert_eq!(got.unwrap().unwrap(), text);
    }
    let ping = tungstenite::Message::Ping(Bytes::from_static(b"there?"));
    client.send(ping).await.unwrap();
    let pong = tungstenite::Message::Pong(Bytes::from_static(b"there?"));
    assert_eq!(client.next().await.unwrap().unwrap(), pong);
    let close = TheirClose {
        code: 1000.into(),
        reason: "bye".into(),
    };
    client.close(Some(close.clone())).await.unwrap();
    let answer = client.next().await.unwrap().unwrap();
    assert_eq!(answer, tungstenite::Message::Close(Some(close)));
}

/// Sends and receives at once: neither side's pipe holds a whole message.
async fn takeover(
    client: &mut WebSocketStream<tokio::io::DuplexStream>,
    message: &tungstenite::Message,
) -> (
    Result<(), Error>,
    Option<Result<tungstenite::Message, Error>>,
) {
    let (mut sink, mut stream) = client.split();
    future::join(sink.send(message.clone()), stream.next()).await
}

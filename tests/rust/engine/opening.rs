//! The first bytes of a connection.

use std::{net::TcpListener, os::unix::net::UnixStream, thread};

use _core::{
    engine::{Connection, Engine, permits::Permit},
    protocol::message::Kind,
};
use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::{
    client_async,
    tungstenite::{Message, handshake::derive_accept_key},
};

use crate::support::{
    KINDS, LIMIT, SETTINGS, adopt, echo,
    peer::{BINARY, Peer, TEXT, frame},
    take, tcp,
};

#[test]
fn the_head_comes_first_and_frames_behind_it() {
    for kind in KINDS {
        let (server, client) = kind();
        let connection = adopt(server, b"", &SETTINGS);
        connection.send(Kind::Text, b"at once", None).unwrap();
        let mut peer = Peer::new(client);
        peer.expect_head();
        peer.expect(TEXT, b"at once");
    }
}

#[test]
fn early_bytes_come_before_those_in_the_socket_wherever_they_were_cut() {
    let bytes = [
        frame(TEXT, b"one"),
        frame(BINARY, &[2; 300]),
        frame(TEXT, b""),
        frame(TEXT, b"four"),
    ]
    .concat();
    for cut in 0..=bytes.len() {
        let (server, client) = tcp();
        let mut peer = Peer::new(client);
        peer.write(&bytes[cut..]);
        let connection = adopt(server, &bytes[..cut], &SETTINGS);
        assert_eq!(take(&connection), (Kind::Text, "one".into()));
        assert_eq!(take(&connection), (Kind::Binary, vec![2; 300].into()));
        assert_eq!(take(&connection), (Kind::Text, "".into()));
        assert_eq!(take(&connection), (Kind::Text, "four".into()));
    }
}

/// Reads a request's head from `server` and answers as a server adapter would.
fn accept(server: impl Into<std::os::fd::OwnedFd>) -> std::sync::Arc<Connection> {
    use std::io::Read;

    let mut socket = socket2::Socket::from(server.into());
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        socket.read_exact(&mut byte).unwrap();
        request.push(byte[0]);
    }
    let request = String::from_utf8(request).unwrap();
    let key = request
        .lines()
        .find_map(|line| line.strip_prefix("Sec-WebSocket-Key: "))
        .unwrap();
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\n\r\n",
        derive_accept_key(key.as_bytes())
    );
    let permit = Permit::claim(None).unwrap();
    Engine::current()
        .unwrap()
        .adopt(socket.into(), Vec::new(), head.into(), &SETTINGS, permit)
        .unwrap()
}

async fn converse<S>(stream: S)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let (mut client, _) = client_async("ws://localhost/", stream).await.unwrap();
    let messages = [
        Message::text("grüße"),
        Message::binary(vec![0xFF; 70_000]),
        Message::text("x".repeat(1024 * 1024)),
        Message::binary(vec![]),
    ];
    for message in messages {
        client.send(message.clone()).await.unwrap();
        assert!(client.next().await.unwrap().unwrap() == message);
    }
    client.close(None).await.unwrap();
    // The answer, then the end of the stream, without an error between.
    assert!(matches!(
        client.next().await,
        Some(Ok(Message::Close(None)))
    ));
    assert!(client.next().await.is_none());
}

#[tokio::test]
async fn tungstenite_shakes_hands_echoes_and_closes() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let view = thread::spawn(move || echo(accept(listener.accept().unwrap().0)).join());
    converse(tokio::net::TcpStream::connect(address).await.unwrap()).await;
    view.join().unwrap().unwrap();

    let (server, client) = UnixStream::pair().unwrap();
    client.set_nonblocking(true).unwrap();
    let view = thread::spawn(move || echo(accept(server)).join());
    converse(tokio::net::UnixStream::from_std(client).unwrap()).await;
    view.join().unwrap().unwrap();
}

//! The opening handshake against tokio-tungstenite's client, and with any headers.

use _core::protocol::{
    handshake::{self, Request},
    subprotocol,
};
use futures_util::future;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_tungstenite::{
    client_async,
    tungstenite::{client::IntoClientRequest, http::HeaderValue},
};

/// Reads a request up to its empty line.
async fn read_head(stream: &mut DuplexStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(found, _)| found.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
}

#[tokio::test]
async fn their_client_takes_our_answer() {
    let (client, mut server) = tokio::io::duplex(4096);
    let mut request = "ws://localhost/chat/".into_client_request().unwrap();
    request.headers_mut().insert(
        "Sec-WebSocket-Protocol",
        HeaderValue::from_static("v1.chat, v2.chat"),
    );
    let answer = async {
        let head = read_head(&mut server).await;
        let request = Request {
            method: head.split(' ').next().unwrap(),
            http_version: (1, 1),
            host: field(&head, "Host"),
            content_length: field(&head, "Content-Length"),
            transfer_encoding: field(&head, "Transfer-Encoding"),
            upgrade: field(&head, "Upgrade"),
            connection: field(&head, "Connection"),
            version: field(&head, "Sec-WebSocket-Version"),
            key: field(&head, "Sec-WebSocket-Key"),
            protocols: field(&head, "Sec-WebSocket-Protocol"),
            extensions: field(&head, "Sec-WebSocket-Extensions"),
        };
        let accepted = handshake::validate(&request).unwrap();
        assert_eq!(accepted.offered, ["v1.chat", "v2.chat"]);
        let chosen = Some("v2.chat");
        let cookie = ("Set-Cookie", "session=1");
        let body = ("Content-Length", "0");
        let head =
            handshake::response_head(&accepted.accept_key, chosen, None, &[cookie, body]).unwrap();
        server.write_all(&head).await.unwrap();
    };
    let (connected, ()) = future::join(client_async(request, client), answer).await;
    let (_, response) = connected.unwrap();
    assert_eq!(response.status(), 101);
    assert_eq!(response.headers()["Sec-WebSocket-Protocol"], "v2.chat");
    assert_eq!(response.headers()["Set-Cookie"], "session=1");
    assert!(!response.headers().contains_key("Content-Length"));
}

proptest! {
    #[test]
    fn any_request_is_judged(
        method in ".{0,5}",
        fields in proptest::array::uniform9(proptest::option::of("[ -~\\t]{0,40}|.{0,40}")),
    ) {
        let [
            host, content_length, transfer_encoding,
            upgrade, connection, version, key, protocols, extensions,
        ] = &fields;
        let request = Request {
            method: &method,
            http_version: (1, 1),
            host: host.as_deref(),
            content_length: content_length.as_deref(),
            transfer_encoding: transfer_encoding.as_deref(),
            upgrade: upgrade.as_deref(),
            connection: connection.as_deref(),
            version: version.as_deref(),
            key: key.as_deref(),
            protocols: protocols.as_deref(),
            extensions: extensions.as_deref(),
        };
        // Each field alone in an otherwise good request, so that all of them are looked at.
        let good = Request {
            method: "GET",
            http_version: (1, 1),
            host: Some("localhost"),
            content_length: None,
            transfer_encoding: None,
            upgrade: Some("websocket"),
            connection: Some("upgrade"),
            version: Some("13"),
            key: Some("AAAAAAAAAAAAAAAAAAAAAA=="),
            protocols: None,
            extensions: None,
        };
        let requests = [
            request,
            Request { host: request.host, ..good },
            Request { content_length: request.content_length, ..good },
            Request { transfer_encoding: request.transfer_encoding, ..good },
            Request { upgrade: request.upgrade, ..good },
            Request { connection: request.connection, ..good },
            Request { version: request.version, ..good },
            Request { key: request.key, ..good },
            Request { protocols: request.protocols, ..good },
            Request { extensions: request.extensions, ..good },
        ];
        for request in requests {
            if let Ok(accepted) = handshake::validate(&request) {
                prop_assert!(accepted.offered.iter().all(|name| subprotocol::is_token(name)));
                prop_assert!(handshake::response_head(&accepted.accept_key, None, None, &[]).is_ok());
            }
        }
    }

    #[test]
    fn any_headers_leave_one_response(
        headers in proptest::collection::vec((".{0,8}|[a-zA-Z-]{1,20}", ".{0,20}|[ -~\\r\\n]{0,9}"), 0..5),
    ) {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (&**name, &**value)).collect();
        if let Ok(head) = handshake::response_head("accept", None, None, &headers) {
            let ends: Vec<_> = head.windows(2).enumerate()
                .filter(|(_, pair)| pair == b"\r\n")
                .map(|(at, _)| at)
                .collect();
            let breaks = head.iter().filter(|byte| b"\r\n\0".contains(byte)).count();
            // A line for the status, three of our own, one for each header, and the empty one.
            prop_assert!(ends.len() <= 5 + headers.len());
            prop_assert_eq!(breaks, 2 * ends.len());
            prop_assert!(head.ends_with(b"\r\n\r\n"));
            let empty = ends.windows(2).filter(|pair| pair[1] == pair[0] + 2).count();
            prop_assert_eq!(empty, 1);
        }
    }
}

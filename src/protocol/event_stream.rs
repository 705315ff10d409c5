//! Server-sent events (HTML, section 9.2): the messages of a connection as events of a response that
//! does not end.
//!
//! `open` comes first, `close` last; both have JSON. `message` has a text, `binary` bytes in base64
//! (RFC 4648 section 4). A text with a carriage return, which would end a line, is base64 in `text`.

use std::fmt::Write;

use data_encoding::BASE64;

use super::{
    close::CloseFrame,
    handshake::{self, InvalidHeader},
    json,
    message::Kind,
};

/// A comment, which clients ignore: a sign of life.
pub const COMMENT: &[u8] = b":\n\n";

/// Bytes of a comment at the beginning. Some browsers and proxies pass nothing on before so many.
const PADDING_BYTES: usize = 2048;

/// The head of the response that carries the events, up to the event `open` with the connection's
/// `id` and the subprotocol that was agreed on.
///
/// The response has no length and no chunks, so that it suits HTTP/1.0, which nginx speaks by default:
/// it ends with the connection. `headers` are treated as by [`handshake::response_head`].
///
/// # Errors
/// As that function.
pub fn head(
    id: &str,
    subprotocol: Option<&str>,
    headers: &[(&str, &str)],
) -> Result<Vec<u8>, InvalidHeader> {
    let mut head = Vec::with_capacity(PADDING_BYTES + 512);
    head.extend_from_slice(
        b"HTTP/1.1 200 OK\r\n\
          Content-Type: text/event-stream; charset=utf-8\r\n\
          Cache-Control: no-cache, no-transform\r\n\
          X-Accel-Buffering: no\r\n\
          Connection: close\r\n",
    );
    handshake::push_all(&mut head, headers, is_own)?;
    head.extend_from_slice(b"\r\n");
    head.extend_from_slice(&opening(id, subprotocol));
    Ok(head)
}

/// The beginning of the events: a comment for what keeps the first bytes back, and `open`.
pub fn opening(id: &str, subprotocol: Option<&str>) -> Vec<u8> {
    let mut events = Vec::with_capacity(PADDING_BYTES + 128);
    events.push(b':');
    events.resize(PADDING_BYTES, b' ');
    events.extend_from_slice(b"\n\nevent: open\ndata: ");
    events.extend_from_slice(opened(id, subprotocol).as_bytes());
    events.extend_from_slice(b"\n\n");
    events
}

/// The JSON about a connection that has opened.
pub fn opened(id: &str, subprotocol: Option<&str>) -> String {
    let mut text = String::from("{\"id\":");
    json::push_string(&mut text, id);
    text.push_str(",\"subprotocol\":");
    json::push_string(&mut text, subprotocol.unwrap_or_default());
    text.push('}');
    text
}

/// The JSON about the end of a connection.
pub(super) fn closed(frame: &CloseFrame) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write!(text, "{{\"code\":{},\"reason\":", frame.shown_code());
    json::push_string(&mut text, &frame.reason);
    text.push('}');
    text
}

/// Appends the event of a message.
pub(super) fn append(events: &mut Vec<u8>, kind: Kind, payload: &[u8]) {
    match kind {
        Kind::Text if !payload.contains(&b'\r') => {
            events.extend_from_slice(b"event: message\n");
            for line in payload.split(|byte| *byte == b'\n') {
                events.extend_from_slice(b"data: ");
                events.extend_from_slice(line);
                events.push(b'\n');
            }
            events.push(b'\n');
        }
        Kind::Text => append_base64(events, b"event: text\ndata: ", payload),
        Kind::Binary => append_base64(events, b"event: binary\ndata: ", payload),
    }
}

fn append_base64(events: &mut Vec<u8>, start: &[u8], payload: &[u8]) {
    events.extend_from_slice(start);
    events.extend_from_slice(BASE64.encode(payload).as_bytes());
    events.extend_from_slice(b"\n\n");
}

/// The event for the end of a connection.
pub(super) fn close(frame: &CloseFrame) -> Vec<u8> {
    format!("event: close\ndata: {}\n\n", closed(frame)).into_bytes()
}

pub(super) fn is_own(name: &str) -> bool {
    const OWN: [&str; 2] = ["cache-control", "x-accel-buffering"];
    handshake::is_own(name) || OWN.iter().any(|own| name.eq_ignore_ascii_case(own))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: Kind, payload: &[u8]) -> String {
        let mut events = Vec::new();
        append(&mut events, kind, payload);
        String::from_utf8(events).unwrap()
    }

    #[test]
    fn a_text_has_a_line_of_data_for_each_of_its_lines() {
        for (text, data) in [
            ("hi", "data: hi\n"),
            ("", "data: \n"),
            ("a\n", "data: a\ndata: \n"),
            ("\n\n a", "data: \ndata: \ndata:  a\n"),
            (": no comment", "data: : no comment\n"),
            ("\0é\u{2028}", "data: \0é\u{2028}\n"),
        ] {
            assert_eq!(
                event(Kind::Text, text.as_bytes()),
                format!("event: message\n{data}\n")
            );
        }
    }

    #[test]
    fn what_lines_cannot_hold_is_base64() {
        assert_eq!(event(Kind::Text, b"a\r\n"), "event: text\ndata: YQ0K\n\n");
        assert_eq!(
            event(Kind::Binary, &[0, 255]),
            "event: binary\ndata: AP8=\n\n"
        );
        assert_eq!(event(Kind::Binary, b""), "event: binary\ndata: \n\n");
    }

    #[test]
    fn the_head_has_no_length_and_keeps_the_headers_of_the_application() {
        let headers = [
            ("Set-Cookie", "a=b"),
            ("Content-Length", "0"),
            ("cache-control", "public"),
        ];
        let head = String::from_utf8(head("the id", Some("chat"), &headers).unwrap()).unwrap();
        let (fields, events) = head.split_once("\r\n\r\n").unwrap();
        assert!(fields.contains("\r\nSet-Cookie: a=b"));
        assert!(!fields.contains("Content-Length") && !fields.contains("public"));
        let (padding, open) = events.split_once("\n\n").unwrap();
        assert_eq!((padding.len(), padding.trim_end()), (PADDING_BYTES, ":"));
        assert_eq!(
            open,
            "event: open\ndata: {\"id\":\"the id\",\"subprotocol\":\"chat\"}\n\n"
        );
        assert!(super::head("id", None, &[("a b", "")]).is_err());
    }

    #[test]
    fn a_close_says_what_a_client_would_see_of_a_frame() {
        let event = |code, reason| {
            let reason = String::from(reason);
            String::from_utf8(close(&CloseFrame { code, reason })).unwrap()
        };
        assert_eq!(
            event(Some(4000), "a \"reason\""),
            "event: close\ndata: {\"code\":4000,\"reason\":\"a \\\"reason\\\"\"}\n\n"
        );
        assert!(event(None, "").contains("\"code\":1005"));
        assert!(event(Some(1006), "").contains("\"code\":1005"));
    }
}

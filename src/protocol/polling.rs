//! Long polling: the messages of a connection as events in JSON, a line each, and the responses that
//! bring them to the client.

use data_encoding::BASE64;

use super::{
    close::CloseFrame,
    event_stream,
    handshake::{self, InvalidHeader},
    json,
    message::Kind,
};

const CLOSE: &str = "{\"close\":";

/// Appends the line of a message.
pub(super) fn append(lines: &mut Vec<u8>, kind: Kind, payload: &[u8]) {
    let mut text = String::with_capacity(payload.len() + 16);
    match kind {
        Kind::Text => {
            text.push_str("{\"text\":");
            // Texts are UTF-8 here already.
            json::push_string(&mut text, &String::from_utf8_lossy(payload));
        }
        Kind::Binary => {
            text.push_str("{\"binary\":\"");
            BASE64.encode_append(payload, &mut text);
            text.push('"');
        }
    }
    text.push_str("}\n");
    lines.extend_from_slice(text.as_bytes());
}

/// The line for the end of a connection.
pub(super) fn close(frame: &CloseFrame) -> Vec<u8> {
    format!("{CLOSE}{}}}\n", event_stream::closed(frame)).into_bytes()
}

/// Whether an event is that of [`close`], after which none follows.
pub fn is_close(event: &[u8]) -> bool {
    event.starts_with(CLOSE.as_bytes())
}

/// The answer to a poll: events, and the number of the last one, which the client acknowledges next.
pub fn answer<'a>(last: u64, events: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut body = format!("{{\"n\":{last},\"events\":[").into_bytes();
    for (place, event) in events.into_iter().enumerate() {
        if place > 0 {
            body.push(b',');
        }
        body.extend_from_slice(event);
    }
    body.extend_from_slice(b"]}");
    body
}

/// The head of a response with JSON, without the length and the end that [`response`] adds.
/// `headers` are treated as by [`handshake::response_head`].
///
/// # Errors
/// As that function.
pub fn head(headers: &[(&str, &str)]) -> Result<Vec<u8>, InvalidHeader> {
    let mut head = Vec::with_capacity(256);
    head.extend_from_slice(
        b"HTTP/1.1 200 OK\r\n\
          Content-Type: application/json\r\n\
          Cache-Control: no-store\r\n\
          Connection: close\r\n",
    );
    handshake::push_all(&mut head, headers, event_stream::is_own)?;
    Ok(head)
}

/// A whole response: the `head` of [`head`], and `body`.
pub fn response(mut head: Vec<u8>, body: &[u8]) -> Vec<u8> {
    head.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
    head.extend_from_slice(body);
    head
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line() {
        for (kind, payload, line) in [
            (Kind::Text, &b"hi"[..], "{\"text\":\"hi\"}\n"),
            (Kind::Text, b"a\n\"\r", "{\"text\":\"a\\n\\\"\\u000d\"}\n"),
            (Kind::Text, b"", "{\"text\":\"\"}\n"),
            (Kind::Binary, &[0, 255], "{\"binary\":\"AP8=\"}\n"),
        ] {
            let mut lines = Vec::new();
            append(&mut lines, kind, payload);
            assert!(!is_close(&lines));
            assert_eq!(String::from_utf8(lines).unwrap(), line);
        }
        let line = close(&CloseFrame::new(Some(4000), "a\nb").unwrap());
        assert_eq!(line, b"{\"close\":{\"code\":4000,\"reason\":\"a\\nb\"}}\n");
        assert!(is_close(&line));
    }

    #[test]
    fn an_answer_has_its_events_and_the_number_of_the_last() {
        assert_eq!(answer(7, []), b"{\"n\":7,\"events\":[]}");
        let events = [&b"{}"[..], b"[]"];
        assert_eq!(answer(9, events), b"{\"n\":9,\"events\":[{},[]]}");
    }

    #[test]
    fn a_response_keeps_the_headers_of_the_application() {
        let headers = [("Set-Cookie", "a=b"), ("Content-Length", "0")];
        let whole = response(head(&headers).unwrap(), b"{}");
        let text = String::from_utf8(whole).unwrap();
        assert!(text.contains("\r\nSet-Cookie: a=b\r\n"));
        assert!(text.ends_with("\r\nContent-Length: 2\r\n\r\n{}"));
        assert_eq!(text.matches("Content-Length").count(), 1);
        assert!(head(&[("a", "b\r\nc: d")]).is_err());
    }
}

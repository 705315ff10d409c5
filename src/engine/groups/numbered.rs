//! Messages with their numbers, as JSON text for browsers.
//!
//! `{"group": …, "position": …, "data": …}`; a binary message is base64 (RFC 4648 section 4), and then
//! there is `"binary": true`.

use std::fmt::Write;

use data_encoding::BASE64;

use crate::{engine::history::Position, protocol::message::Kind};

/// The text for a message of the group `name`.
pub fn text(name: &str, position: Position, kind: Kind, payload: &[u8]) -> String {
    let mut text = String::with_capacity(payload.len() + name.len() + 80);
    text.push_str("{\"group\":");
    push_string(&mut text, name);
    // Writing to a string cannot fail.
    let _ = write!(text, ",\"position\":\"{position}\",\"data\":");
    match (kind, std::str::from_utf8(payload)) {
        (Kind::Text, Ok(data)) => push_string(&mut text, data),
        _ => {
            text.push('"');
            BASE64.encode_append(payload, &mut text);
            text.push_str("\",\"binary\":true");
        }
    }
    text.push('}');
    text
}

/// Appends a string of JSON (RFC 8259 section 7).
pub fn push_string(text: &mut String, value: &str) {
    text.push('"');
    let mut rest = value;
    while let Some(at) = rest.find(|c: char| c < ' ' || c == '"' || c == '\\') {
        let (plain, special) = rest.split_at(at);
        text.push_str(plain);
        let mut characters = special.chars();
        match characters.next() {
            Some('\n') => text.push_str("\\n"),
            Some(c @ ('"' | '\\')) => text.extend(['\\', c]),
            Some(c) => {
                let _ = write!(text, "\\u{:04x}", u32::from(c));
            }
            None => {}
        }
        rest = characters.as_str();
    }
    text.push_str(rest);
    text.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Position = Position {
        epoch: 0xab,
        offset: 7,
    };

    #[test]
    fn text_is_escaped() {
        assert_eq!(
            text("räum", AT, Kind::Text, "a\"b\\c\n\u{1}é".as_bytes()),
            "{\"group\":\"räum\",\"position\":\"00000000000000ab-7\",\
             \"data\":\"a\\\"b\\\\c\\n\\u0001é\"}"
        );
    }

    #[test]
    fn binary_is_base64() {
        assert_eq!(
            text("g", AT, Kind::Binary, &[0, 255]),
            "{\"group\":\"g\",\"position\":\"00000000000000ab-7\",\"data\":\"AP8=\",\"binary\":true}"
        );
    }
}

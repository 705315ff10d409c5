//! Messages with their numbers, as JSON text for browsers.
//!
//! `{"group": …, "position": …, "data": …}`; a binary message is base64 (RFC 4648 section 4), and then
//! there is `"binary": true`.

use std::fmt::Write;

use data_encoding::BASE64;

use crate::{
    engine::history::Position,
    protocol::{json::push_string, message::Kind},
};

/// The text for a message of the group `name`.
pub fn text(name: &str, position: Position, kind: Kind, payload: &[u8]) -> String {
    let mut text = String::with_capacity(payload.len() + name.len() + 80);
    text.push_str("{\"group\":");
    push_string(&mut text, name);
    // Writing to a string cannot fail.
    let _ = write!(text, ",\"position\":\"{position}\"");
    push_data(&mut text, kind, payload);
    text
}

/// The text for a message in the room `room`; without a position in one that has no history.
pub fn room_text(room: &str, position: Option<Position>, kind: Kind, payload: &[u8]) -> String {
    let mut text = String::with_capacity(payload.len() + room.len() + 80);
    text.push_str("{\"room\":");
    push_string(&mut text, room);
    // Writing to a string cannot fail.
    let _ = match position {
        Some(position) => write!(text, ",\"position\":\"{position}\""),
        None => write!(text, ",\"position\":null"),
    };
    push_data(&mut text, kind, payload);
    text
}

/// A text that begins with the name of the room `room`.
pub(super) fn behind_room(room: &str, rest: Option<&[u8]>) -> String {
    let mut text = String::from("{\"room\":");
    push_string(&mut text, room);
    // It was a text before.
    text.push_str(std::str::from_utf8(rest.unwrap_or_default()).unwrap_or("}"));
    text
}

/// The text for the member of a room that has missed messages.
pub(super) fn room_gap(room: &str) -> String {
    behind_room(room, Some(b",\"recovered\":false}"))
}

/// The text for the member of a room that is none any more.
pub fn room_ended(room: &str, code: &str, reason: &str) -> String {
    let mut text = String::from("{\"room\":");
    push_string(&mut text, room);
    text.push_str(",\"ended\":{\"code\":");
    push_string(&mut text, code);
    text.push_str(",\"text\":");
    push_string(&mut text, reason);
    text.push_str("}}");
    text
}

fn push_data(text: &mut String, kind: Kind, payload: &[u8]) {
    text.push_str(",\"data\":");
    match (kind, std::str::from_utf8(payload)) {
        (Kind::Text, Ok(data)) => push_string(text, data),
        _ => {
            text.push('"');
            BASE64.encode_append(payload, text);
            text.push_str("\",\"binary\":true");
        }
    }
    text.push('}');
}

/// The text for members of the group `name` that have missed messages which nothing keeps: they get
/// those after `position`. The same as for a client that comes back too late.
pub(super) fn gap(name: &str, position: Position) -> String {
    let mut text = String::from("{\"group\":");
    push_string(&mut text, name);
    // Writing to a string cannot fail.
    let _ = write!(
        text,
        ",\"recovered\":false,\"missed\":0,\"position\":\"{position}\"}}"
    );
    text
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
    fn a_gap_is_told_as_to_clients_that_come_back() {
        assert_eq!(
            gap("räum", AT),
            "{\"group\":\"räum\",\"recovered\":false,\"missed\":0,\
             \"position\":\"00000000000000ab-7\"}"
        );
    }

    #[test]
    fn rooms_have_names_of_their_own() {
        assert_eq!(
            room_text("r\"", Some(AT), Kind::Text, b"hi"),
            "{\"room\":\"r\\\"\",\"position\":\"00000000000000ab-7\",\"data\":\"hi\"}"
        );
        assert_eq!(
            room_text("r", None, Kind::Binary, &[0, 255]),
            "{\"room\":\"r\",\"position\":null,\"data\":\"AP8=\",\"binary\":true}"
        );
        assert_eq!(room_gap("r"), "{\"room\":\"r\",\"recovered\":false}");
        assert_eq!(
            room_ended("r", "evicted", "bye"),
            "{\"room\":\"r\",\"ended\":{\"code\":\"evicted\",\"text\":\"bye\"}}"
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

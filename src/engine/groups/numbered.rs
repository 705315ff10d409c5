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

/// The text for members of the group `name` that have missed messages which nothing keeps: they get
/// those behind `position`. The same as for a client that comes back too late.
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
    fn binary_is_base64() {
        assert_eq!(
            text("g", AT, Kind::Binary, &[0, 255]),
            "{\"group\":\"g\",\"position\":\"00000000000000ab-7\",\"data\":\"AP8=\",\"binary\":true}"
        );
    }
}

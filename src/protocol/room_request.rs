//! The requests of clients of rooms that come most often: events and joins.
//!
//! The view reads all other messages, and closes on malformed ones.

use std::borrow::Cow;

use super::json::{Fault, Reader, push_string};

/// An event, as far as it goes to other clients as it stands.
///
/// ```json
/// {"to": "room-1", "event": "typing", "data": true, "id": 7}
/// ```
#[derive(Debug, PartialEq, Eq)]
pub struct RoomEvent<'a> {
    /// The room's name, as the client knows it.
    pub room: Cow<'a, str>,
    /// The event's name.
    pub name: Cow<'a, str>,
    /// Bytes of the whole message.
    pub bytes: usize,
    /// Its id as JSON, as the client has written it; `None` where no acknowledgement is wanted.
    pub id: Option<&'a str>,
    data: Option<&'a str>,
}

impl<'a> RoomEvent<'a> {
    /// Reads a message. `None` for other requests, for what is malformed, and for an event that is read
    /// by the view: one with a name twice, half a surrogate pair, or data that is nested deeply.
    pub fn read(text: &'a str) -> Option<Self> {
        Self::read_if(text, |_| true)
    }

    /// As [`RoomEvent::read`], but reads an event to its end only if `is_wanted` says so of its name.
    pub fn read_if(text: &'a str, is_wanted: impl Fn(&str) -> bool) -> Option<Self> {
        let (mut room, mut name, mut id, mut data) = (None, None, None, None);
        let mut reader = Reader::strict(text);
        let read = reader.object(|reader, member| match member {
            "to" => once(&mut room, reader.string()?),
            "event" => {
                let found = reader.string()?;
                if !is_wanted(&found) {
                    return Err(Fault::Malformed);
                }
                once(&mut name, found)
            }
            "id" => once(&mut id, reader.value()?),
            "data" => once(&mut data, reader.value()?),
            // Another request, whatever else it has.
            "join" | "leave" | "update" => Err(Fault::Malformed),
            _ => reader.skip(),
        });
        read.and_then(|()| reader.end()).ok()?;
        if !id.is_none_or(is_id) {
            return None;
        }
        Some(Self {
            room: room?,
            name: name?,
            bytes: text.len(),
            id,
            data,
        })
    }

    /// Its data as JSON, as the client has written it.
    pub fn data(&self) -> &'a str {
        self.data.unwrap_or("null")
    }

    /// The text that the other members get, from after the room's name on; `sender` is who sent it,
    /// as JSON.
    pub fn rest(&self, sender: &str) -> String {
        let data = self.data();
        let length = self.name.len() + data.len() + sender.len();
        let mut rest = String::with_capacity(length + 32);
        rest.push_str(",\"event\":");
        push_string(&mut rest, &self.name);
        rest.extend([",\"data\":", data, ",\"from\":", sender, "}"]);
        rest
    }

    /// The acknowledgement, empty where none is wanted.
    pub fn acknowledgement(&self) -> String {
        let with_id = |id| format!("{{\"id\":{id},\"ok\":{{}}}}");
        self.id.map(with_id).unwrap_or_default()
    }
}

/// A request to join a room.
///
/// ```json
/// {"id": 1, "join": "room-1", "since": "epoch-7", "info": {}}
/// ```
#[derive(Debug, PartialEq, Eq)]
pub struct RoomJoin<'a> {
    /// The room's name, as the client knows it.
    pub room: Cow<'a, str>,
    /// Its id as JSON, as the client has written it.
    pub id: &'a str,
    /// The position that the client has.
    pub since: Option<Cow<'a, str>>,
    /// As JSON, what others are to see of the connection.
    pub info: Option<&'a str>,
    /// Whether it changes that in a room that the connection is in: `update` in place of `join`.
    pub is_update: bool,
}

impl<'a> RoomJoin<'a> {
    /// Reads a message. `None` for other requests, for what is malformed, and for what is unusual, as
    /// with [`RoomEvent::read`].
    pub fn read(text: &'a str) -> Option<Self> {
        let (mut room, mut id, mut since, mut info) = (None, None, None, None);
        let mut is_update = false;
        let mut reader = Reader::strict(text);
        let read = reader.object(|reader, member| match member {
            "join" | "update" => {
                is_update = member == "update";
                once(&mut room, reader.string()?)
            }
            "id" => once(&mut id, reader.value()?),
            "since" => once(&mut since, reader.string()?),
            "info" => once(&mut info, reader.value()?),
            "to" | "event" | "leave" => Err(Fault::Malformed),
            _ => reader.skip(),
        });
        read.and_then(|()| reader.end()).ok()?;
        Some(Self {
            room: room?,
            id: id.filter(|id| is_id(id))?,
            since,
            info,
            is_update,
        })
    }
}

/// Puts the value of a member in, which an object has once.
fn once<T>(place: &mut Option<T>, value: T) -> Result<(), Fault> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(Fault::Malformed),
    }
}

/// Whether a value is a number or a text, as an id is.
fn is_id(value: &str) -> bool {
    value.starts_with(|sign: char| matches!(sign, '"' | '-' | '0'..='9'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rest(text: &str) -> Option<String> {
        RoomEvent::read(text).map(|event| event.rest("{}"))
    }

    fn acknowledgement(id: &str) -> Option<String> {
        let text = format!("{{\"id\":{id},\"to\":\"r\",\"event\":\"e\"}}");
        RoomEvent::read(&text).map(|event| event.acknowledgement())
    }

    #[test]
    fn data_goes_on_as_it_was_written() {
        let text =
            r#" {"to":"r\u0061","x":[{}],"event":"\"é", "data": {"a": 1.50, "a":"é\u00e9"} } "#;
        let event = RoomEvent::read(text).unwrap();
        assert_eq!((&*event.room, &*event.name), ("ra", "\"é"));
        assert_eq!(event.bytes, text.len());
        assert_eq!(event.acknowledgement(), "");
        assert_eq!(
            event.rest(r#"{"user":"1"}"#),
            r#","event":"\"é","data":{"a": 1.50, "a":"é\u00e9"},"from":{"user":"1"}}"#
        );
        let without = rest(r#"{"to":"r","event":"e"}"#);
        assert_eq!(without.unwrap(), r#","event":"e","data":null,"from":{}}"#);
    }

    #[test]
    fn what_is_no_event_or_an_unusual_one_is_left() {
        for text in [
            "",
            "[]",
            r#"{"ping":1}"#,
            r#"{"to":"r"}"#,
            r#"{"event":"e"}"#,
            r#"{"to":1,"event":"e"}"#,
            r#"{"to":"r","event":null}"#,
            r#"{"to":"r","event":"e","join":"r"}"#,
            r#"{"to":"r","event":"e","leave":1}"#,
            r#"{"to":"r","event":"e","update":1}"#,
            r#"{"to":"r","event":"e","data":1,"data":2}"#,
            r#"{"to":"r","event":"e","t\u006f":"r"}"#,
            r#"{"to":"r","event":"e"} {}"#,
            r#"{"to":"r","event":"e","data":"\ud800"}"#,
            r#"{"to":"r","event":"e","data":NaN}"#,
            r#"{"to":"r","event":"e","data":-Infinity}"#,
            r#"{"to":"r","event":"e","data":1e999}"#,
            r#"{"to":"r","event":"e","x":1e999}"#,
            &format!(r#"{{"to":"r","event":"e","data":{}"#, "[".repeat(99)),
        ] {
            assert_eq!(RoomEvent::read(text), None, "{text}");
        }
    }

    #[test]
    fn an_id_is_given_back_as_it_was_written() {
        let long = "9".repeat(300);
        for id in [
            "0",
            "-12",
            "-0",
            "1.0",
            "1e2",
            r#""a b""#,
            r#""\u0061é""#,
            &long,
        ] {
            let answer = format!("{{\"id\":{id},\"ok\":{{}}}}");
            assert_eq!(acknowledgement(id), Some(answer), "{id}");
        }
        for id in ["null", "true", "{}", "[1]", "1e999"] {
            assert_eq!(acknowledgement(id), None, "{id}");
        }
    }

    #[test]
    fn a_join_is_read() {
        let text =
            r#"{"info": {"a": 1.50}, "since": "e\u002d7", "x": [], "join": "ré", "id": "1"}"#;
        let expected = RoomJoin {
            room: "ré".into(),
            id: "\"1\"",
            since: Some("e-7".into()),
            info: Some(r#"{"a": 1.50}"#),
            is_update: false,
        };
        assert_eq!(RoomJoin::read(text), Some(expected));
        let update = RoomJoin::read(r#"{"id":1,"update":"r","info":{}}"#).unwrap();
        assert_eq!((update.is_update, update.info), (true, Some("{}")));
        let short = RoomJoin::read(r#"{"id":1,"join":""}"#).unwrap();
        assert_eq!((&*short.room, short.since, short.info), ("", None, None));
    }

    #[test]
    fn an_unusual_join_is_left() {
        for text in [
            "",
            "[]",
            r#"{"join":"r"}"#,
            r#"{"join":"r","id":null}"#,
            r#"{"join":"r","id":true}"#,
            r#"{"join":1,"id":1}"#,
            r#"{"join":"r","id":1,"id":2}"#,
            r#"{"join":"r","id":1,"since":7}"#,
            r#"{"join":"r","id":1,"since":"\ud800"}"#,
            r#"{"join":"r","id":1,"info":NaN}"#,
            r#"{"join":"r","id":1,"leave":"r"}"#,
            r#"{"join":"r","id":1,"to":"r","event":"e"}"#,
            r#"{"join":"r","id":1} {}"#,
        ] {
            assert_eq!(RoomJoin::read(text), None, "{text}");
        }
    }
}

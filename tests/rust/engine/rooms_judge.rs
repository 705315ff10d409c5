//! The rule for what members of rooms are sent: whatever a room is called and whatever is published,
//! it is one JSON object that says so.

use _core::{
    engine::{
        groups::{Message, room_ended, room_text},
        history::Position,
    },
    protocol::message::Kind,
};
use data_encoding::BASE64;
use serde_json::{Value, from_slice, from_str, json};

/// The first byte is the length of the room's name; the rest is what is published.
pub(crate) fn judge_rooms(bytes: &[u8]) {
    let Some((&length, rest)) = bytes.split_first() else {
        return;
    };
    let (name, data) = rest.split_at(usize::from(length).min(rest.len()));
    let Ok(name) = std::str::from_utf8(name) else {
        return;
    };
    let at = Position {
        epoch: u64::from(length),
        offset: data.len() as u64,
    };
    let text = std::str::from_utf8(data).ok();
    for position in [None, Some(at)] {
        let shown = position.map(|position| position.to_string());
        let binary = json!({
            "room": name, "position": shown, "data": BASE64.encode(data), "binary": true,
        });
        judge(&room_text(name, position, Kind::Binary, data), &binary);
        if let Some(text) = text {
            let told = json!({"room": name, "position": shown, "data": text});
            judge(&room_text(name, position, Kind::Text, data), &told);
        }
    }
    let Some(text) = text else { return };
    let ended = json!({"room": name, "ended": {"code": "evicted", "text": text}});
    judge(&room_ended(name, "evicted", text), &ended);
    // As the event of a client is published: from behind the room's name on.
    let event = json!({"event": text, "data": name});
    let behind = event.to_string().replacen('{', ",", 1);
    let sent = Message::event(behind.as_bytes(), &[]).in_room(name);
    let told = json!({"room": name, "event": text, "data": name});
    assert_eq!(from_slice::<Value>(&sent.payload()).ok(), Some(told));
}

fn judge(text: &str, expected: &Value) {
    assert_eq!(
        from_str::<Value>(text).ok().as_ref(),
        Some(expected),
        "{text}"
    );
}

//! The rule for what members of rooms are sent: whatever a room is called and whatever is published,
//! it is one JSON object that says so. And for what they send each other: what is passed on is what
//! another reader finds in the message.

use _core::{
    engine::{
        groups::{Message, room_ended, room_text},
        history::Position,
    },
    protocol::{
        message::Kind,
        room_request::{RoomEvent, RoomJoin},
    },
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
    judge_request(text);
    let ended = json!({"room": name, "ended": {"code": "evicted", "text": text}});
    judge(&room_ended(name, "evicted", text), &ended);
    // As the event of a client is published: from behind the room's name on.
    let event = json!({"event": text, "data": name});
    let behind = event.to_string().replacen('{', ",", 1);
    let sent = Message::event(behind.as_bytes(), &[]).in_room(name);
    let told = json!({"room": name, "event": text, "data": name});
    assert_eq!(from_slice::<Value>(&sent.payload()).ok(), Some(told));
}

/// Whatever is read as an event or as a join is one.
pub(crate) fn judge_request(text: &str) {
    if let Some(event) = RoomEvent::read(text) {
        judge_event(text, &event);
    }
    if let Some(join) = RoomJoin::read(text) {
        judge_join(text, &join);
    }
}

fn judge_join(text: &str, join: &RoomJoin<'_>) {
    let found: Value = from_str(text).unwrap_or_default();
    assert_eq!(found["join"], *join.room, "{text}");
    judge(join.id, &found["id"]);
    assert!(found["id"].is_number() || found["id"].is_string(), "{text}");
    let since = join.since.as_deref().map(Value::from);
    assert_eq!(found.get("since"), since.as_ref(), "{text}");
    assert_eq!(found.get("info").is_some(), join.info.is_some(), "{text}");
    judge(join.info.unwrap_or("null"), &found["info"]);
    for kind in ["to", "event", "leave", "update"] {
        assert_eq!(found.get(kind), None, "{text}");
    }
}

fn judge_event(text: &str, event: &RoomEvent<'_>) {
    let found: Value = from_str(text).unwrap_or_default();
    let passed = format!("{{\"room\":1{}", event.rest("[null]"));
    let told = json!({
        "room": 1, "event": found["event"], "data": found["data"], "from": [null],
    });
    judge(&passed, &told);
    assert_eq!(found["to"], *event.room, "{text}");
    assert_eq!(found["event"], *event.name, "{text}");
    for kind in ["join", "leave", "update"] {
        assert_eq!(found.get(kind), None, "{text}");
    }
    let answer = event.acknowledgement();
    if answer.is_empty() {
        assert_eq!(found.get("id"), None, "{text}");
    } else {
        judge(&answer, &json!({"id": found["id"], "ok": {}}));
        assert!(found["id"].is_number() || found["id"].is_string(), "{text}");
    }
}

fn judge(text: &str, expected: &Value) {
    assert_eq!(
        from_str::<Value>(text).ok().as_ref(),
        Some(expected),
        "{text}"
    );
}

//! The messages to the watching connections of a group: `{"group": …, "joined": …}`, and the same with
//! `left` and `updated`.

use std::{collections::HashMap, sync::Arc};

use super::facts::Facts;
use crate::{engine::groups::Message, protocol::json::push_string};

/// Users in one message at most.
const MOST: usize = 500;

/// The change of a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Was removed from the room.
    Left,
    /// Has come into it.
    Joined,
    /// Has other connections, or one of them says something else about the user.
    Updated {
        /// It is by what one of them says. Members that are in no room are told of that alone.
        is_said: bool,
    },
}

/// A user has come into a room, has changed, or was removed from it.
#[derive(Clone, Debug)]
pub(super) struct Event {
    /// The number of events before it in the room.
    pub(super) number: u64,
    pub(super) change: Change,
    pub(super) facts: Arc<Facts>,
}

/// The messages for `events` of the group `name`: as few as there can be, and of one user in order.
pub(super) fn messages<'a>(name: &str, events: impl Iterator<Item = &'a Event>) -> Vec<Message> {
    // In each round there is at most one event of a user.
    let mut rounds: Vec<[Vec<&Facts>; 3]> = Vec::new();
    let mut seen: HashMap<&str, usize> = HashMap::new();
    for event in events {
        let round = seen.entry(&event.facts.key).or_default();
        if *round == rounds.len() {
            rounds.push([Vec::new(), Vec::new(), Vec::new()]);
        }
        let kind = match event.change {
            Change::Left => 0,
            Change::Joined => 1,
            Change::Updated { .. } => 2,
        };
        rounds[*round][kind].push(&event.facts);
        *round += 1;
    }
    let mut messages = Vec::new();
    for [left, joined, updated] in &rounds {
        for (kind, all) in [("left", left), ("joined", joined), ("updated", updated)] {
            messages.extend(all.chunks(MOST).map(|users| message(name, kind, users)));
        }
    }
    messages
}

fn message(name: &str, kind: &str, users: &[&Facts]) -> Message {
    let mut text = String::with_capacity(64 + name.len() + users.len() * 128);
    text.push_str("{\"group\":");
    push_string(&mut text, name);
    let head = text.len();
    text.push_str(",\"");
    text.push_str(kind);
    text.push_str("\":");
    if let [user] = users {
        push_user(&mut text, user);
    } else {
        for (number, user) in users.iter().enumerate() {
            text.push(if number == 0 { '[' } else { ',' });
            push_user(&mut text, user);
        }
        text.push(']');
    }
    text.push('}');
    Message::about(&text, head)
}

/// A user, as text of JSON.
pub fn text(facts: &Facts) -> String {
    let mut text = String::with_capacity(128);
    push_user(&mut text, facts);
    text
}

fn push_user(text: &mut String, facts: &Facts) {
    text.push_str("{\"key\":");
    push_string(text, &facts.key);
    text.push_str(",\"user\":");
    match &facts.user {
        Some(user) => push_string(text, user),
        None => text.push_str("null"),
    }
    text.push_str(",\"info\":");
    text.push_str(&facts.info);
    text.push_str(",\"since\":");
    push_string(text, &facts.since);
    text.push_str(",\"connections\":");
    push_connections(text, facts);
    text.push('}');
}

/// The connections of a user, as a list of JSON.
fn push_connections(text: &mut String, facts: &Facts) {
    text.push('[');
    for (number, contact) in facts.connections.iter().enumerate() {
        text.push_str(if number == 0 { "{\"id\":" } else { ",{\"id\":" });
        push_string(text, &contact.id);
        text.push_str(",\"info\":");
        text.push_str(&contact.info);
        text.push('}');
    }
    text.push(']');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(number: u64, key: &str, has_joined: bool) -> Event {
        let facts = Arc::new(Facts {
            since: "s".to_owned(),
            key: key.to_owned(),
            user: (key == "a").then(|| "7".to_owned()),
            info: "{}".to_owned(),
            connections: Vec::new(),
        });
        let change = if has_joined {
            Change::Joined
        } else {
            Change::Left
        };
        Event {
            number,
            change,
            facts,
        }
    }

    fn texts(events: &[Event]) -> Vec<String> {
        let made = messages("g", events.iter());
        let text = |message: &Message| String::from_utf8(message.payload().to_vec()).unwrap();
        made.iter().map(text).collect()
    }

    const A: &str = r#"{"key":"a","user":"7","info":{},"since":"s","connections":[]}"#;
    const B: &str = r#"{"key":"b","user":null,"info":{},"since":"s","connections":[]}"#;

    #[test]
    fn one_user_is_no_list_and_several_are() {
        assert_eq!(
            texts(&[event(0, "a", true)]),
            [format!(r#"{{"group":"g","joined":{A}}}"#)]
        );
        assert_eq!(
            texts(&[event(0, "a", true), event(1, "b", true)]),
            [format!(r#"{{"group":"g","joined":[{A},{B}]}}"#)]
        );
    }

    #[test]
    fn events_of_one_user_keep_their_order() {
        let events = [
            event(0, "a", true),
            event(1, "b", false),
            event(2, "a", false),
            event(3, "b", true),
        ];
        assert_eq!(
            texts(&events),
            [
                format!(r#"{{"group":"g","left":{B}}}"#),
                format!(r#"{{"group":"g","joined":{A}}}"#),
                format!(r#"{{"group":"g","left":{A}}}"#),
                format!(r#"{{"group":"g","joined":{B}}}"#),
            ]
        );
    }

    #[test]
    fn a_message_is_not_longer_than_that() {
        let events: Vec<_> = (0..=MOST as u64)
            .map(|number| event(number, &number.to_string(), true))
            .collect();
        assert_eq!(texts(&events).len(), 2);
    }
}

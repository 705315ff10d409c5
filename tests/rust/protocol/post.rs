//! The bodies of posts: what a client writes is read, and any other bytes have an outcome.

use _core::protocol::{
    close::CloseFrame,
    message::{Event, Kind, Message},
    post::{self, MAX_MESSAGES, Refusal},
};
use data_encoding::BASE64;
use proptest::{collection::vec, prelude::*, sample::Index};
use serde_json::{Value, json};

use crate::judge::{POSTED_BYTES, Part, as_received, judge_post, parts_of};

fn message(kind: Kind, payload: Vec<u8>) -> Part {
    Event::Message(Message {
        kind,
        payload: payload.into(),
    })
}

/// A part, and its JSON.
fn part() -> impl Strategy<Value = (Part, Value)> {
    prop_oneof![
        5 => any::<String>().prop_map(|text| {
            let value = json!({"text": text});
            (message(Kind::Text, text.into_bytes()), value)
        }),
        4 => vec(any::<u8>(), 0..60).prop_map(|bytes| {
            let value = json!({"more": [null, {}], "binary": BASE64.encode(&bytes)});
            (message(Kind::Binary, bytes), value)
        }),
        1 => (prop_oneof![1000..1004u16, 3000..5000u16], "[a-zé\"]{0,60}").prop_map(|(code, reason)| {
            let value = json!({"close": {"code": code, "reason": reason}});
            (Event::Close(CloseFrame::new(Some(code), &reason).unwrap()), value)
        }),
    ]
}

/// Whatever is near a body.
fn nearly() -> impl Strategy<Value = Vec<u8>> {
    let pieces = [
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"",
        "\\",
        "\\u00",
        "\\ud83d",
        "\\ude42",
        "41",
        "\"n\"",
        "\"messages\"",
        "\"text\"",
        "\"binary\"",
        "\"close\"",
        "\"code\"",
        "\"reason\"",
        "1",
        "0",
        "-",
        ".",
        "e",
        "1000",
        "null",
        "true",
        "AQI=",
        " ",
        "\n",
        "\u{e9}",
        "\0",
        "{\"n\":1,\"messages\":[",
        "{\"text\":\"a\"}",
        "]}",
    ];
    vec(proptest::sample::select(pieces.to_vec()), 0..30)
        .prop_map(|pieces| pieces.concat().into_bytes())
}

proptest! {
    #[test]
    fn what_a_client_writes_is_read(
        number in 1..=1u64 << 53,
        parts in vec(part(), 0..8),
        is_pretty in any::<bool>(),
        ends in vec(any::<Index>(), 1..20),
    ) {
        let (parts, values): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
        let body = json!({"n": number, "messages": values});
        let text = if is_pretty {
            serde_json::to_string_pretty(&body).unwrap()
        } else {
            body.to_string()
        };
        let found = post::parse(text.as_bytes(), POSTED_BYTES).unwrap();
        prop_assert_eq!(found.number, number);
        prop_assert_eq!(parts_of(&found), as_received(parts));
        judge_post(text.as_bytes());
        // Cut anywhere, it is none.
        for end in ends {
            let cut = post::parse(&text.as_bytes()[..end.index(text.len())], POSTED_BYTES);
            prop_assert!(matches!(cut, Err(Refusal::Malformed(_))));
        }
    }

    #[test]
    fn any_bytes_have_an_outcome(body in prop_oneof![vec(any::<u8>(), 0..60), nearly()]) {
        judge_post(&body);
    }
}

#[test]
fn a_body_full_of_nothing_is_refused_before_anything_is_built() {
    let nothing = "[],".repeat(500_000);
    let body = format!("{{\"n\":1,\"messages\":[{nothing}[]]}}");
    let found = post::parse(body.as_bytes(), usize::MAX);
    assert!(matches!(found, Err(Refusal::Malformed(_))));
    let many = "{\"text\":\"\"},".repeat(100_000);
    let body = format!("{{\"n\":1,\"messages\":[{many}{{\"text\":\"\"}}]}}");
    let found = post::parse(body.as_bytes(), usize::MAX);
    assert!(matches!(found, Err(Refusal::TooMuch(_))));
    assert!(body.len() > 1000 * MAX_MESSAGES);
}

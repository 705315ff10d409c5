//! What members of rooms are sent, for any names and messages.

use std::{fs, path::Path};

use _core::protocol::room_request::{RoomEvent, RoomJoin};
use proptest::{
    collection::vec,
    num::u8::ANY,
    prelude::{BoxedStrategy, Strategy, any},
    prop_oneof, proptest,
};
use serde_json::{Value, json, to_string_pretty};

use crate::rooms_judge::{judge_request, judge_rooms};

/// Any data that is not nested deeply.
fn data() -> BoxedStrategy<Value> {
    let one = prop_oneof![
        any::<Option<bool>>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,10}".prop_map(Value::from),
    ];
    let many = |inner: BoxedStrategy<Value>| {
        let list = vec(inner.clone(), 0..4).prop_map(Value::from);
        let object = vec((".{0,4}", inner), 0..4);
        prop_oneof![
            list,
            object.prop_map(|members| members.into_iter().collect::<Value>())
        ]
    };
    one.prop_recursive(4, 32, 4, move |inner| many(inner.boxed()))
        .boxed()
}

proptest! {
    #[test]
    fn it_is_one_json_object(name in ".{0,40}", data in vec(ANY, 0..64)) {
        let length = u8::try_from(name.len()).unwrap_or(u8::MAX);
        judge_rooms(&[&[length], name.as_bytes(), &data[..]].concat());
    }

    #[test]
    fn also_of_texts(name in ".{0,40}", data in ".{0,40}") {
        let length = u8::try_from(name.len()).unwrap_or(u8::MAX);
        judge_rooms(&[&[length], name.as_bytes(), data.as_bytes()].concat());
    }
}

proptest! {
    #[test]
    fn an_event_is_read_whatever_its_data(
        room in ".{0,20}",
        name in ".{0,20}",
        id in any::<i64>(),
        data in data(),
        is_pretty in any::<bool>(),
        parts in vec((ANY, "[\\[\\]{}\",:0-9a-zé\\\\ ]{0,3}"), 0..3),
    ) {
        let event = json!({"to": room, "event": name, "id": id, "data": data});
        let mut text = event.to_string();
        if is_pretty {
            text = to_string_pretty(&event).unwrap();
        }
        let read = RoomEvent::read(&text).unwrap();
        assert_eq!(read.acknowledgement(), json!({"id": id, "ok": {}}).to_string());
        judge_with(text, parts);
    }

    #[test]
    fn a_join_is_read_whatever_its_info(
        room in ".{0,20}",
        id in any::<i64>(),
        since in any::<Option<String>>(),
        info in data(),
        parts in vec((ANY, "[\\[\\]{}\",:0-9a-zé\\\\ ]{0,3}"), 0..3),
    ) {
        let mut join = json!({"join": room, "id": id, "info": info});
        if let Some(since) = since {
            join["since"] = since.into();
        }
        let text = join.to_string();
        assert!(RoomJoin::read(&text).is_some());
        judge_with(text, parts);
    }
}

/// Judges a request, and what is left of it with other `parts` in some places.
fn judge_with(mut text: String, parts: Vec<(u8, String)>) {
    judge_request(&text);
    for (place, part) in parts {
        let at = text.len() * usize::from(place) / 256;
        if text.is_char_boundary(at) {
            text.insert_str(at, &part);
            judge_request(&text);
        }
    }
}

#[test]
fn inputs_that_the_fuzzer_has_kept() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/rooms");
    let mut fed = 0;
    for entry in fs::read_dir(folder).unwrap() {
        judge_rooms(&fs::read(entry.unwrap().path()).unwrap());
        fed += 1;
    }
    assert!(fed > 10, "{fed}");
}

//! What members of rooms are sent, for any names and messages.

use std::{fs, path::Path};

use proptest::{collection::vec, num::u8::ANY, proptest};

use crate::rooms_judge::judge_rooms;

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

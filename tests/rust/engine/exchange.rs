//! The exchange of presence, fed with any bytes.

use std::{
    fs,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use proptest::{collection::vec, num::u8::ANY, proptest};

use crate::exchange_judge::judge_parcels;

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    now.as_millis().try_into().unwrap()
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(kind in 0..7_u8, rest in vec(ANY, 0..64)) {
        let start = [&[0; 16][..], &[kind, 0, 0, 0, 4], b"room"].concat();
        let delivery = [start, rest].concat();
        let length = u8::try_from(delivery.len()).unwrap();
        judge_parcels(&[&[length], &delivery[..]].concat(), now_ms());
    }
}

#[test]
fn inputs_that_the_fuzzer_has_kept() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/exchange");
    let mut fed = 0;
    for entry in fs::read_dir(folder).unwrap() {
        judge_parcels(&fs::read(entry.unwrap().path()).unwrap(), now_ms());
        fed += 1;
    }
    assert!(fed > 10, "{fed}");
}

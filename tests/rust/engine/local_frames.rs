//! The connection between the processes of one machine that share groups, fed with any bytes.

use std::{fs, path::Path};

use proptest::{collection::vec, num::u8::ANY, proptest};

use crate::local_judge::judge_local_frames;

proptest! {
    #[test]
    fn no_bytes_make_it_panic_and_cutting_them_changes_nothing(
        bytes in vec(ANY, 0..64),
        cut in 0..64_usize,
    ) {
        // A small length makes more of them frames.
        judge_local_frames(&[&[0, 0, 0], &bytes[..]].concat(), cut);
    }
}

#[test]
fn inputs_that_the_fuzzer_has_kept() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/local_frames");
    let mut fed = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let data = fs::read(entry.unwrap().path()).unwrap();
        if let Some((cut, bytes)) = data.split_first() {
            judge_local_frames(bytes, usize::from(*cut));
            fed += 1;
        }
    }
    assert!(fed > 10, "{fed}");
}

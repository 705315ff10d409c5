//! See `judge_local_frames`.
#![no_main]

#[path = "../../tests/rust/engine/local_judge.rs"]
mod local_judge;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Some((cut, bytes)) = data.split_first() {
        local_judge::judge_local_frames(bytes, usize::from(*cut));
    }
});

//! See `judge_rooms`.
#![no_main]

#[path = "../../tests/rust/engine/rooms_judge.rs"]
mod rooms_judge;

libfuzzer_sys::fuzz_target!(|data: &[u8]| rooms_judge::judge_rooms(data));

//! See `judge_response`.
#![no_main]

#[allow(dead_code, reason = "each target feeds one judge")]
#[path = "../../tests/rust/protocol/judge.rs"]
mod judge;

libfuzzer_sys::fuzz_target!(|data: &[u8]| judge::judge_response(data));

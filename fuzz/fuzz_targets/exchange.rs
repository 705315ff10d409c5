//! See `judge_parcels`.
#![no_main]

use std::time::{SystemTime, UNIX_EPOCH};

#[path = "../../tests/rust/engine/exchange_judge.rs"]
mod exchange_judge;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    exchange_judge::judge_parcels(data, now.as_millis() as u64);
});

//! Bytes that other processes, a server, or strangers on it hand to a group.
//!
//! Without a key they are an envelope or none; with one none of them is, since the fuzzer has not
//! the key.
#![no_main]

use std::sync::{Arc, LazyLock};

use _core::engine::groups::{Groups, WhenFull};

type Both = (Arc<Groups>, Arc<Groups>);
static GROUPS: LazyLock<Both> = LazyLock::new(|| {
    let groups = |key| Groups::new(Vec::new(), WhenFull::Close, key);
    (
        groups(None),
        groups(Some(&b"a key that the input does not have"[..])),
    )
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let (open, sealed) = &*GROUPS;
    let _ = open.deliver("room", data);
    assert!(!sealed.deliver("room", data));
});

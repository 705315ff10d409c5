//! The inputs that the fuzzers have found worth keeping (`fuzz/corpus/`), fed to the same judges.

use std::{fs, path::Path};

use crate::judge::{
    judge_deflate, judge_frames, judge_handshake, judge_messages, judge_post, judge_response,
};

fn feed(target: &str, judge: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target);
    let mut fed = 0;
    for entry in fs::read_dir(folder).unwrap() {
        judge(&fs::read(entry.unwrap().path()).unwrap());
        fed += 1;
    }
    assert!(fed > 10, "{fed}");
}

#[test]
fn frames() {
    feed("frames", judge_frames);
}

#[test]
fn messages() {
    feed("messages", judge_messages);
}

#[test]
fn deflate() {
    feed("deflate", judge_deflate);
}

#[test]
fn handshake() {
    feed("handshake", judge_handshake);
}

#[test]
fn posts() {
    feed("posts", judge_post);
}

#[test]
fn responses() {
    feed("responses", judge_response);
}

//! The rule for bytes from another process of this machine: none of them makes the reader panic, and
//! how they are cut does not matter.

use _core::engine::{
    backends::local::{Frame, Reader},
    presence::Malformed,
};

fn read(pieces: &[&[u8]]) -> (Vec<Frame>, Result<(), Malformed>) {
    let mut reader = Reader::default();
    let mut found = Vec::new();
    for piece in pieces {
        reader.buffer.extend_from_slice(piece);
        loop {
            match reader.next_frame() {
                Ok(Some(frame)) => found.push(frame),
                Ok(None) => break,
                Err(malformed) => return (found, Err(malformed)),
            }
        }
    }
    (found, Ok(()))
}

/// Reads `bytes` whole, and cut at `cut`.
pub(crate) fn judge_local_frames(bytes: &[u8], cut: usize) {
    let (first, second) = bytes.split_at(cut.min(bytes.len()));
    assert_eq!(read(&[bytes]), read(&[first, second]));
}

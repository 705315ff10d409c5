//! What another process of this machine sends: no bytes make the reader panic, and how they are
//! cut does not matter.
#![no_main]

use _core::engine::backends::local::{Frame, Malformed, Reader};

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

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((cut, bytes)) = data.split_first() else {
        return;
    };
    let (first, second) = bytes.split_at(usize::from(*cut).min(bytes.len()));
    assert_eq!(read(&[bytes]), read(&[first, second]));
});

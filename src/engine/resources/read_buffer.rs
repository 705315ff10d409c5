//! The buffer that all connections of a thread read into.
//!
//! Small messages are copied out of it. A large one takes the buffer with it, and the next read
//! gets another: one that came back from an earlier message, as a rule. So a large message reaches
//! the view without a copy, and no memory has to be allocated.

use std::{cell::RefCell, mem, sync::Arc};

use bytes::{Buf, Bytes};
use parking_lot::Mutex;

use crate::protocol::message::Message;

/// The most buffers that wait for a read. A large message keeps its buffer while its view answers
/// it.
const MOST_POOLED: usize = 16;

/// The bytes of one read.
#[derive(Debug, Default)]
pub(crate) struct Input {
    buffer: Vec<u8>,
    /// How many bytes of it have been taken.
    taken: usize,
    pool: Arc<Pool>,
}

/// Buffers that came back.
#[derive(Debug, Default)]
struct Pool(Mutex<Vec<Vec<u8>>>);

/// A buffer that is lent to a message. It comes back from the thread that drops the message.
struct Lent {
    buffer: Vec<u8>,
    pool: Arc<Pool>,
}

/// Buffers that are needed only while a read is under way.
#[derive(Default)]
pub(crate) struct Scratch {
    pub(crate) input: Input,
    pub(crate) batch: Batch,
}

/// The results of one turn. Empty between turns.
#[derive(Default)]
pub(crate) struct Batch {
    pub(crate) messages: Vec<Message>,
    /// Answers to the pings, as frames: they go out in one write.
    pub(crate) pongs: Vec<u8>,
    /// Pings and pongs.
    pub(crate) controls: u32,
    /// Messages, also those that are delivered already.
    pub(crate) count: u32,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Calls `read` with the buffers of this thread.
pub(crate) fn with_scratch<R>(read: impl FnOnce(&mut Scratch) -> R) -> R {
    SCRATCH.with_borrow_mut(read)
}

/// Lets the buffers of this thread go. The next read makes new ones.
pub(crate) fn drop_scratch() {
    SCRATCH.take();
}

impl Batch {
    /// Drops what a panic has left.
    pub(crate) fn clear(&mut self) {
        self.messages.clear();
        self.pongs.clear();
        (self.controls, self.count) = (0, 0);
    }
}

impl Input {
    /// Smaller messages do not fill half of the buffer, and are copied.
    const LARGE_BYTES: usize = 64 * 1024;

    /// Drops what was not taken.
    pub(crate) fn clear(&mut self) {
        self.taken = 0;
        self.buffer.clear();
    }

    /// The buffer to read into; to be called after [`Input::clear`].
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        if self.buffer.capacity() == 0 {
            self.buffer = self.pool.0.lock().pop().unwrap_or_default();
            self.buffer.clear();
        }
        &mut self.buffer
    }

    /// The bytes that have not been taken yet.
    pub(crate) fn rest(&mut self) -> &mut [u8] {
        self.buffer.get_mut(self.taken..).unwrap_or_default()
    }

    /// The bytes of memory that it takes.
    pub(crate) fn held(&self) -> usize {
        self.buffer.capacity()
    }

    /// Takes all but the last `left` bytes.
    pub(crate) fn leave(&mut self, left: usize) {
        self.taken = self.buffer.len().saturating_sub(left);
    }

    /// The bytes that have not been taken yet, to go on with later; `None` when there are none.
    pub(crate) fn put_by(&mut self) -> Option<Box<Self>> {
        let rest = self.take_rest();
        (!rest.is_empty()).then(|| Box::new(rest.into()))
    }

    /// Releases memory that is not needed any more, if that is worth a copy.
    pub(crate) fn shrink(&mut self) {
        if self.taken > self.buffer.len() / 2 {
            self.buffer = self.rest().to_vec();
            self.taken = 0;
        }
    }

    /// Takes all that is left.
    pub(crate) fn take_rest(&mut self) -> Vec<u8> {
        let rest = self.rest().to_vec();
        self.leave(0);
        rest
    }

    /// The last `len` bytes that were taken.
    pub(crate) fn keep(&mut self, len: usize) -> Bytes {
        let end = self.taken;
        let start = end.saturating_sub(len);
        let behind = self.buffer.len() - end;
        // A message that takes the buffer leaves the bytes after it to be copied instead.
        if len < Self::LARGE_BYTES || behind > len / 8 {
            return Bytes::copy_from_slice(&self.buffer[start..end]);
        }
        let rest = self.take_rest();
        self.taken = 0;
        let mut kept = Bytes::from_owner(Lent {
            buffer: mem::replace(&mut self.buffer, rest),
            pool: Arc::clone(&self.pool),
        });
        kept.truncate(end);
        kept.advance(start);
        kept
    }
}

impl From<Vec<u8>> for Input {
    fn from(buffer: Vec<u8>) -> Self {
        Self {
            buffer,
            ..Self::default()
        }
    }
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // In a forked child, the lock may be that of a thread that exists in the parent only.
        if let Some(mut pool) = self.pool.0.try_lock() {
            if pool.len() < MOST_POOLED {
                pool.push(mem::take(&mut self.buffer));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(input: &mut Input, bytes: &[u8]) {
        input.clear();
        input.buffer().extend_from_slice(bytes);
    }

    #[test]
    fn a_large_message_takes_the_buffer_and_brings_it_back() {
        let mut input = Input::default();
        let large = vec![7; Input::LARGE_BYTES];
        read(&mut input, &[&b"head"[..], &large, b"next"].concat());
        let place = input.rest().as_ptr();
        input.leave(4);
        let kept = input.keep(large.len());
        assert_eq!(kept, large);
        assert_eq!(kept.as_ptr(), place.wrapping_add(4));
        assert_eq!(input.rest(), b"next");
        input.leave(0);
        drop(kept);
        read(&mut input, b"");
        input.buffer = Vec::new();
        assert_eq!(input.buffer().as_ptr(), place);
    }

    #[test]
    fn a_small_message_is_copied_and_so_is_one_with_much_behind_it() {
        let mut input = Input::default();
        for (len, behind) in [(5, 0), (Input::LARGE_BYTES, Input::LARGE_BYTES)] {
            read(&mut input, &vec![1; len + behind]);
            let place = input.rest().as_ptr();
            input.leave(behind);
            let kept = input.keep(len);
            assert_ne!(kept.as_ptr(), place);
            assert_eq!(
                (kept.len(), input.rest().as_ptr()),
                (len, place.wrapping_add(len))
            );
        }
    }

    #[test]
    fn no_more_buffers_come_back_than_are_kept() {
        let mut input = Input::default();
        let away: Vec<_> = (0..2 * MOST_POOLED)
            .map(|_| {
                read(&mut input, &vec![0; Input::LARGE_BYTES]);
                input.leave(0);
                input.keep(Input::LARGE_BYTES)
            })
            .collect();
        drop(away);
        assert_eq!(input.pool.0.lock().len(), MOST_POOLED);
    }
}

//! Which process an object belongs to: a forked child has copies of all that its parent has.
//!
//! An object notes the [`generation`] in which it was made. Where that is not the process's own,
//! its locks may be held for ever by threads that exist in the parent only.

use std::sync::atomic::{AtomicU64, Ordering};

/// How many forks lie between the first process and this one.
static GENERATION: AtomicU64 = AtomicU64::new(0);

/// The number of forks between the first process and this one.
pub fn generation() -> u64 {
    GENERATION.load(Ordering::Relaxed)
}

/// Makes all that was made before belong to the parent process; called in a forked child.
#[cfg(unix)]
pub(crate) fn begin_generation() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
}

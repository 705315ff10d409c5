//! What every layer uses: the clock, the locks, the errors, and how many forks this process is from
//! the first.

pub mod clock;
pub(crate) mod error;
pub(crate) mod fork;
pub(crate) mod panics;
pub(crate) mod signal_mask;
pub(crate) mod sync;

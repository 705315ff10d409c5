//! The modules that every layer uses: the clock, the locks, the errors, and the number of forks
//! between the first process and this one.

pub mod clock;
pub(crate) mod error;
pub(crate) mod fork;
pub(crate) mod panics;
pub(crate) mod signal_mask;
pub(crate) mod sync;

//! Outside a connection's own task, a panic ends only the unit of work in which it happens.
//!
//! A task that panics ends with its connection. But some of the engine's work is for many
//! connections in turn, and goes on after one of them has failed. By then Rust's panic hook has
//! written what happened to the process's error output.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Does one unit of work. `None` when it has panicked.
///
/// The object of the work may be half changed: the caller ends it or makes it anew.
pub(crate) fn contain<T>(unit: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(unit)).ok()
}

//! What a panic costs outside a connection's own task: the unit of work that it happens in.
//!
//! A task that panics ends with its connection. But some of the engine's work is for many
//! connections in turn, and goes on after one of them has failed. Rust's hook has said what happened
//! by then, in the process's error output.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Does one unit of work. `None` when it has panicked.
///
/// What it was about may be half done: the caller ends it or makes it anew.
pub(super) fn contain<T>(unit: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(unit)).ok()
}

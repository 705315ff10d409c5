//! Separating a forked child from its parent's engine.

use super::{exit, signal};
use crate::{
    engine::{
        base::fork,
        resources::{budget, inherited, permits},
        runtime,
    },
    protocol::mask,
};

/// Leaves the parent's engine alone and makes room for a new one; to be called in a forked child,
/// before anything else of the engine.
pub fn after_fork_in_child() {
    fork::begin_generation();
    mask::after_fork_in_child();
    inherited::close_in_child();
    permits::reset();
    budget::reset();
    signal::after_fork_in_child();
    exit::after_fork_in_child();
    runtime::forget_parent();
}

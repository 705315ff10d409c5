//! The events of the process as a whole: signals, forks, its exit.

pub mod exit;
mod fork;
pub mod signal;

pub use fork::after_fork_in_child;

//! The events of the process as a whole: signals, forks, its exit.

#[cfg(unix)]
pub mod exit;
#[cfg(unix)]
mod fork;
#[cfg(unix)]
pub mod signal;

#[cfg(unix)]
pub use fork::after_fork_in_child;

//! The engine of a process: its threads, and what is done for all connections together.

mod engine;
mod shedding;
#[cfg_attr(windows, path = "takeover_on_windows.rs")]
pub mod takeover;
mod worker;

#[cfg(unix)]
pub(crate) use engine::forget_parent;
pub use engine::{
    Engine, adopt, attach, find, is_leaving, is_prepared, leave, open_carried, open_polled, poll,
    prepare, reopen, wait_for_none_open, want_threads,
};

//! Backends in Rust: how messages of groups reach other processes.

pub mod call;
pub mod exchange;
#[cfg(unix)]
pub mod local;
pub mod redis;

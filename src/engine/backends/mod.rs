//! Backends in Rust: how messages of groups reach other processes.

pub mod local;
pub mod redis;

//! Backends in Rust: how messages of groups reach other processes.

pub mod call;
pub mod exchange;
pub mod local;
pub mod redis;

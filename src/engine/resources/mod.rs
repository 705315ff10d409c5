//! The limited resources of a process: sockets, descriptors, places for connections, and memory.

pub mod budget;
pub mod descriptor;
#[cfg(unix)]
pub(crate) mod folder;
pub(crate) mod holders;
pub(crate) mod inherited;
pub mod permits;
pub(crate) mod read_buffer;
pub(crate) mod readiness;
pub mod socket;
mod socket_option;
pub(crate) mod trim;
pub(crate) mod watched;

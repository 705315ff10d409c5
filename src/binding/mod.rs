//! The only module that uses Python.
//!
//! Each class or function here reads its arguments, calls the engine or the protocol, and converts
//! the result ([`convert`]) or the error ([`exceptions`]). Calls that may wait ([`sleep`])
//! detach from the interpreter first, and no lock of the engine is held while Python runs. The engine's thread
//! never attaches: nothing here is called from it.

pub(crate) mod call;
pub(crate) mod carrier;
pub(crate) mod connection;
mod convert;
mod copy;
pub(crate) mod deputy;
pub(crate) mod dial;
mod exceptions;
pub(crate) mod exchange;
pub(crate) mod groups;
pub(crate) mod handshake;
pub(crate) mod history;
pub(crate) mod hub;
#[cfg(unix)]
pub(crate) mod local;
mod loop_hub;
pub(crate) mod message_future;
pub(crate) mod next_message;
pub(crate) mod passage;
pub(crate) mod polls;
pub(crate) mod posts;
pub(crate) mod presence;
pub(crate) mod process;
pub(crate) mod redis;
#[cfg(unix)]
pub(crate) mod signals;
mod sleep;
pub(crate) mod takeover;
pub(crate) mod testkit;
pub(crate) mod threads;

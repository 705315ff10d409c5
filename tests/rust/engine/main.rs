//! The engine over real sockets, against scripted peers and tungstenite. No Python.

#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a helper that fails is a test that fails"
)]

mod burst;
mod closing;
mod compression;
mod exchange;
mod exchange_judge;
mod hang_up;
mod keepalive;
mod local_frames;
mod local_judge;
mod opening;
mod pressure;
mod rate;
mod room;
mod rooms;
mod rooms_judge;
mod slow_download;
mod stress;
mod support;
mod talking;
mod violation;
mod waiting;
mod wakeups;

//! A ping of the application's own, whose answer can be waited for.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::Connection;
use crate::{engine::base::clock, protocol::frame::Opcode};

impl Connection {
    /// Sends a ping whose answer can be waited for; `None` when it cannot be queued now.
    pub fn ping(self: &Arc<Self>) -> Option<Ping> {
        if self.is_foreign() {
            return None;
        }
        let ping = Ping {
            connection: Arc::clone(self),
            number: self.pings.begin(clock::now()),
        };
        let is_sent = self.send_control(Opcode::Ping, &ping.number.to_be_bytes());
        is_sent.then_some(ping)
    }
}

/// A ping that is on its way. Dropping it gives up on the answer.
#[derive(Debug)]
pub struct Ping {
    connection: Arc<Connection>,
    number: u64,
}

impl Ping {
    /// The WebSocket that it was sent on.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// How long the answer took, if it has come.
    pub fn took(&self) -> Option<Duration> {
        self.wait(Some(clock::now()))
    }

    /// Sleeps until the answer has come, and returns the time that it took. `None` when it has not
    /// by `deadline` (`None`: ever), or when the connection has ended.
    pub fn wait(&self, deadline: Option<Instant>) -> Option<Duration> {
        if self.connection.is_foreign() {
            return None;
        }
        if deadline.is_none_or(|deadline| deadline > clock::now()) {
            // Neither corked messages nor the next view may wait until this thread wakes.
            self.connection.make_way();
        }
        self.connection.pings.await_answer(self.number, deadline)
    }
}

impl Drop for Ping {
    fn drop(&mut self) {
        if !self.connection.is_foreign() {
            self.connection.pings.forget(self.number);
        }
    }
}

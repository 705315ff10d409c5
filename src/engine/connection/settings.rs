//! The limits and timeouts of one connection.

use std::time::Duration;

use crate::protocol::{deflate::Terms, frame::Role, framing::Framing, limits::Limits};

/// The limits and timeouts of one connection. Times of `None` mean for ever.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The way that messages take.
    pub transport: Transport,
    /// Limits on what the peer sends.
    pub limits: Limits,
    /// permessage-deflate, when the client agreed on it.
    pub compression: Option<Terms>,
    /// How fast the peer may send.
    pub rates: Rates,
    /// Bytes that may wait for a slow view.
    pub receive_buffer_bytes: usize,
    /// Time between two pings.
    pub ping_interval: Option<Duration>,
    /// Silence after a ping that means that the peer is gone.
    pub ping_timeout: Option<Duration>,
    /// Bytes that may wait for a slow peer.
    pub send_buffer_bytes: usize,
    /// How long bytes may wait without any progress once the connection is to close.
    pub send_timeout: Option<Duration>,
    /// How long a message that has begun may make no progress.
    pub message_timeout: Option<Duration>,
    /// How long the peer has to answer a close frame, and then to hang up.
    pub close_timeout: Duration,
}

/// A name of a connection that cannot be guessed, by which posts find it.
pub type Key = [u8; 16];

/// The way that the messages of a connection take.
#[derive(Clone, Copy, Debug, Default)]
pub enum Transport {
    /// Both ways through the socket, as frames.
    #[default]
    WebSocket,
    /// As `WebSocket`, of a connection that this process has opened: its peer is a server.
    Client,
    /// Both ways through another server, which keeps the socket.
    Carried,
    /// To the client as server-sent events, from it by POST to this key.
    Events(Key),
    /// To the client as it polls, from it by POST, both by this key.
    Polling(Key),
}

impl Transport {
    /// The form of messages to the client.
    pub(crate) fn framing(self) -> Framing {
        match self {
            Self::WebSocket | Self::Carried => Framing::WebSocket,
            Self::Client => Framing::Masked,
            Self::Events(_) => Framing::Events,
            Self::Polling(_) => Framing::Polling,
        }
    }

    /// The key for posts, if there are any.
    pub(crate) fn key(self) -> Option<Key> {
        match self {
            Self::WebSocket | Self::Carried | Self::Client => None,
            Self::Events(key) | Self::Polling(key) => Some(key),
        }
    }

    /// The side of the connection that this process is.
    pub(crate) fn role(self) -> Role {
        match self {
            Self::WebSocket | Self::Carried | Self::Events(_) | Self::Polling(_) => Role::Server,
            Self::Client => Role::Client,
        }
    }
}

/// How much a peer may send a second, and how long it may try to send more. `None` means no limit.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rates {
    /// Messages, pings and pongs a second.
    pub messages: Option<f64>,
    /// Bytes a second, as they are on the wire.
    pub bytes: Option<f64>,
    /// How long a peer may exceed its rates, and be made to wait for that, before it is closed.
    pub timeout: Option<Duration>,
}

impl Settings {
    /// How long the peer's system may acknowledge nothing; `None` is as long as the system says.
    pub(crate) fn give_up_time(&self) -> Option<Duration> {
        Some(self.ping_interval?.saturating_add(self.ping_timeout?))
    }

    /// Small limits, and no timeouts.
    pub const SMALL: Self = Self {
        transport: Transport::WebSocket,
        limits: Limits {
            max_message_bytes: 1024,
            max_frame_bytes: u32::MAX,
            max_fragments: 16,
        },
        compression: None,
        rates: Rates {
            messages: None,
            bytes: None,
            timeout: None,
        },
        ping_interval: None,
        ping_timeout: None,
        receive_buffer_bytes: 1024,
        send_buffer_bytes: 1024,
        send_timeout: None,
        message_timeout: None,
        close_timeout: Duration::from_secs(1),
    };
}

//! The events of one connection, drawn by chance.

use std::time::Duration;

use _core::{
    engine::Settings,
    protocol::deflate::{Options, Terms},
};

use crate::support::{SETTINGS, chance::Chance};

/// How far the clock goes ahead while a round runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Steps {
    /// It runs as the system's.
    None,
    /// Pings become due, but no answer is late.
    Gentle,
    /// Any connection may be given up.
    Wild,
}

/// How the connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The client closes after its last message.
    ClientCloses,
    /// The client shuts its sending side after its last message.
    ClientFinishes,
    /// The client shuts both sides after its last message.
    ClientHangsUp,
    /// The client resets the connection after its last message.
    ClientResets,
    /// The view closes when it has taken so many messages.
    ViewCloses(u32),
    /// Another thread closes at any moment.
    OtherCloses,
}

/// How a thread of the view takes messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taker {
    /// Sleeps until there is one.
    Sleeps,
    /// Sleeps for a short time, again and again.
    Polls,
    /// Sleeps for a time that may end late.
    Naps,
    /// Asks whether there is one, then takes it.
    Looks,
    /// Waits at an event loop's descriptor.
    Watches,
}

#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) settings: Settings,
    pub(crate) is_tcp: bool,
    /// The system takes little at a time from the engine.
    pub(crate) is_narrow: bool,
    pub(crate) end: End,
    /// Messages of the client.
    pub(crate) incoming: u32,
    /// Messages of each thread that sends.
    pub(crate) outgoing: Vec<u32>,
    /// Bytes of the largest message.
    pub(crate) size: u64,
    pub(crate) takers: Vec<Taker>,
    /// The first taker answers each message so, as views do.
    pub(crate) answers: bool,
    /// Bytes that the client reads at once.
    pub(crate) sip: usize,
    /// One in so many of the client's messages has a ping behind it.
    pub(crate) pings: u64,
}

const SECOND: Duration = Duration::from_secs(1);

/// The longest that gentle steps last together: below each timeout of [`Plan::draw`].
pub(crate) const GENTLE: Duration = Duration::from_secs(60);

const OPTIONS: Options = Options {
    // Only the client compresses.
    threshold_bytes: usize::MAX,
    level: 1,
    server_no_context_takeover: true,
    client_no_context_takeover: true,
    server_max_window_bits: 15,
    client_max_window_bits: 15,
};

impl End {
    fn draw(chance: &mut Chance, incoming: u32) -> Self {
        match chance.below(6) {
            0 => Self::ClientFinishes,
            1 => Self::ClientHangsUp,
            2 => Self::ClientResets,
            3 => Self::ViewCloses(u32::try_from(chance.below(u64::from(incoming) + 1)).unwrap()),
            4 => Self::OtherCloses,
            _ => Self::ClientCloses,
        }
    }
}

impl Taker {
    fn draw(chance: &mut Chance) -> Self {
        [
            Self::Sleeps,
            Self::Polls,
            Self::Naps,
            Self::Looks,
            Self::Watches,
        ][chance.size(5)]
    }
}

impl Plan {
    pub(crate) fn draw(chance: &mut Chance, steps: Steps) -> Self {
        let incoming = u32::try_from(chance.below(300)).unwrap();
        let timeout = match steps {
            Steps::Wild => SECOND * 20,
            Steps::None | Steps::Gentle => GENTLE * 10,
        };
        let offer = "permessage-deflate; client_no_context_takeover; server_no_context_takeover";
        let compresses = chance.below(3) == 0;
        let settings = Settings {
            compression: compresses.then(|| Terms::negotiate(offer, OPTIONS).unwrap()),
            receive_buffer_bytes: [1, 3000, 1024 * 1024][chance.size(3)],
            send_buffer_bytes: [5000, 1024 * 1024][chance.size(2)],
            ping_interval: Some([SECOND / 1000, SECOND * 5, timeout][chance.size(3)]),
            ping_timeout: Some(timeout),
            send_timeout: Some(timeout),
            close_timeout: timeout,
            ..SETTINGS
        };
        let end = End::draw(chance, incoming);
        Self {
            settings,
            is_tcp: chance.below(2) == 0,
            is_narrow: chance.below(2) == 0,
            end,
            incoming,
            outgoing: (0..chance.below(3))
                .map(|_| u32::try_from(chance.below(300)).unwrap())
                .collect(),
            size: [30, 3000, 200_000][chance.size(3)] / if incoming > 100 { 4 } else { 1 },
            takers: (0..=chance.below(2)).map(|_| Taker::draw(chance)).collect(),
            answers: chance.below(2) == 0,
            sip: [100, 5000, 200_000][chance.size(3)],
            pings: 1 + chance.below(20),
        }
    }
}

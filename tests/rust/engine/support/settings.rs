//! The settings of the connections of tests, on every system.

use std::time::Duration;

use _core::{engine::Settings, protocol::limits::Limits};

/// Nothing here takes this long unless it is broken.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// Patient, silent settings; a test changes what it is about.
pub(crate) const SETTINGS: Settings = Settings {
    limits: Limits {
        max_message_bytes: 16 * 1024 * 1024,
        max_fragments: 1000,
        ..Settings::SMALL.limits
    },
    receive_buffer_bytes: 1024 * 1024,
    send_buffer_bytes: 1024 * 1024,
    send_timeout: Some(LIMIT),
    close_timeout: LIMIT,
    ..Settings::SMALL
};

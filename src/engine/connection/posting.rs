//! A connection takes what its client posts.

use super::{Connection, posts::Posted};

impl Connection {
    /// Takes what a client has posted under this number, the first of which is 1: frames of a client.
    /// Never waits.
    pub fn post(&self, number: u64, frames: &[u8]) -> Posted {
        let Some(posts) = self.posts.as_deref().filter(|_| !self.is_foreign()) else {
            return Posted::Over;
        };
        if self.is_ending() {
            return Posted::Over;
        }
        let posted = posts.put(number, frames);
        if posted == Posted::Taken {
            self.wake.notify_one();
        }
        posted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::connection::settings::{Settings, Transport};

    const SETTINGS: Settings = Settings {
        transport: Transport::Events([7; 16]),
        receive_buffer_bytes: 10,
        ..Settings::SMALL
    };

    #[test]
    fn a_post_is_taken_once_and_in_order() {
        let (connection, _peer) = Connection::for_test(1, &SETTINGS, "");
        let posts = connection.posts.as_ref().unwrap();
        assert_eq!(connection.post(2, b"late"), Posted::Gap);
        assert_eq!(connection.post(1, b"a"), Posted::Taken);
        assert_eq!(connection.post(1, b"b"), Posted::Taken);
        assert_eq!(connection.post(2, b"long enough"), Posted::Taken);
        assert_eq!(connection.post(3, b""), Posted::Busy);
        assert_eq!(posts.take().unwrap(), b"along enough");
        assert_eq!(connection.post(3, b""), Posted::Taken);
        assert_eq!(posts.take(), None);
    }

    #[test]
    fn a_websocket_takes_no_posts() {
        let (connection, _peer) = Connection::for_test(1, &Settings::SMALL, "");
        assert_eq!(connection.post(1, b""), Posted::Over);
    }
}

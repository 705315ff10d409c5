//! A connection takes what its client posts.

use super::{
    Connection,
    posts::{Part, Posted},
};
use crate::protocol::close::{self, CloseFrame};

impl Connection {
    /// Takes the messages that a client has posted under this number, the first of which is 1. Never
    /// waits.
    pub fn post(&self, number: u64, parts: &[Part<'_>]) -> Posted {
        let Some(posts) = self.posts.as_deref().filter(|_| !self.is_foreign()) else {
            return Posted::Over;
        };
        if self.is_ending() {
            return Posted::Over;
        }
        let posted = posts.put(number, parts);
        match posted {
            Posted::Taken => self.wake.notify_one(),
            Posted::TooLarge => {
                self.close(&CloseFrame {
                    code: Some(close::TOO_BIG),
                    reason: format!("message is larger than {} bytes", posts.max_message_bytes),
                });
            }
            Posted::Busy | Posted::Over | Posted::Gap => {}
        }
        posted
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::{
        engine::connection::settings::{Settings, Transport},
        protocol::message::Kind,
    };

    const SETTINGS: Settings = Settings {
        transport: Transport::Events([7; 16]),
        receive_buffer_bytes: 10,
        ..Settings::FOR_TESTS
    };

    fn text(text: &str) -> Part<'_> {
        Part::Message(Kind::Text, text.as_bytes())
    }

    #[test]
    fn a_post_is_taken_once_and_in_order() {
        let (connection, _peer) = Connection::for_test(1, &SETTINGS, "");
        let posts = connection.posts.as_ref().unwrap();
        assert_eq!(connection.post(2, &[text("late")]), Posted::Gap);
        assert_eq!(connection.post(1, &[text("a")]), Posted::Taken);
        assert_eq!(connection.post(1, &[text("b")]), Posted::Taken);
        let close = Part::Close(Some(1000), "x");
        assert_eq!(
            connection.post(2, &[text("long enough"), close]),
            Posted::Taken
        );
        assert_eq!(connection.post(3, &[]), Posted::Busy);
        let expected = [
            &b"\x81\x81\0\0\0\0a"[..],
            b"\x81\x8b\0\0\0\0long enough",
            b"\x88\x83\0\0\0\0\x03\xe8x",
        ];
        assert_eq!(posts.take().unwrap(), expected.concat());
        assert_eq!(connection.post(3, &[]), Posted::Taken);
        assert_eq!(posts.take(), None);
    }

    #[test]
    fn a_message_that_is_too_large_ends_the_connection() {
        let (connection, mut peer) = Connection::for_test(1, &SETTINGS, "");
        let large = "x".repeat(1025);
        assert_eq!(connection.post(1, &[text(&large)]), Posted::TooLarge);
        assert_eq!(connection.end().unwrap().code, close::TOO_BIG);
        assert_eq!(connection.post(1, &[]), Posted::Over);
        connection.outbox.cut();
        let mut events = String::new();
        peer.read_to_string(&mut events).unwrap();
        assert_eq!(
            events,
            "event: close\ndata: {\"code\":1009,\"reason\":\"message is larger than 1024 bytes\"}\n\n"
        );
    }

    #[test]
    fn a_websocket_takes_no_posts() {
        let (connection, _peer) = Connection::for_test(1, &Settings::FOR_TESTS, "");
        assert_eq!(connection.post(1, &[]), Posted::Over);
    }
}

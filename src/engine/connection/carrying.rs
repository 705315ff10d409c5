//! A connection that a server carries, for the task of that server: see `carrier.rs`.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    Connection,
    carrier::{Carrier, Outgoing},
    end::{End, Initiator},
};
use crate::{
    engine::{
        resources::{budget, socket::Carriage},
        wakeup::hub::Watch,
    },
    protocol::{
        close,
        message::{Kind, Message},
    },
};

impl Connection {
    /// Whether another server carries it.
    pub fn is_carried(&self) -> bool {
        self.carrier.is_some()
    }

    fn own_carrier(&self) -> Option<&Carrier> {
        self.own()?.carrier.as_deref()
    }

    /// Takes in a message that the server has. Never waits.
    ///
    /// False when no more are to be read from the server before [`Connection::has_room_to_bring`]:
    /// then the token of the carrier is announced when that has changed.
    pub fn bring(self: &Arc<Self>, kind: Kind, payload: &[u8]) -> bool {
        let Some(carrier) = self.own_carrier() else {
            return true;
        };
        self.count_read(payload.len());
        if carrier.may_pass(payload.len()) && self.takes_directly() {
            self.pass_on(Message {
                kind,
                payload: Bytes::copy_from_slice(payload),
            });
        } else {
            carrier.put(kind, payload);
            self.wake.notify_one();
        }
        self.has_room_to_bring()
    }

    /// Whether the driver would do no more with a message than to deliver it.
    fn takes_directly(&self) -> bool {
        let is_open = !self.is_ending() && !self.is_handshake_done();
        is_open && !(budget::is_full() && self.share.is_large())
    }

    /// Moves a message to the inbox, and wakes the view: a thread of the server's does, which runs no
    /// turns.
    fn pass_on(self: &Arc<Self>, message: Message) {
        let mut messages = vec![message];
        if self.answer(&mut messages) {
            return;
        }
        let waiting = self.inbox.push(&mut messages);
        if waiting.sleeper {
            self.inbox.wake_thread();
        }
        waiting.watches.into_iter().for_each(Watch::notify);
    }

    /// Whether the server is to be read from; if not, the task is woken later.
    pub fn has_room_to_bring(&self) -> bool {
        let Some(carrier) = self.own_carrier() else {
            return true;
        };
        // First, so that room that is made from here on is told.
        let brought = carrier.await_room();
        let room = self.inbox.room();
        let has_room = brought
            .zip(room)
            .is_some_and(|((messages, bytes), room)| room.holds(messages, bytes));
        if has_room {
            carrier.on_room();
        }
        has_room
    }

    /// Wakes the task that waits for room, if there is some. To be called by the driver.
    pub(crate) fn announce_room_to_bring(&self) {
        if let Some(carrier) = &self.carrier {
            if carrier.awaits_room() && self.has_room_to_bring() {
                carrier.wake();
            }
        }
    }

    /// The next event for the server, which has taken the one before.
    ///
    /// `None` when there is nothing: the token of the carrier is announced when there is.
    pub fn carry_out(&self) -> Option<Outgoing> {
        let carrier = self.own_carrier()?;
        loop {
            let next = carrier.next();
            self.outbox.refill();
            if self.is_ending() {
                // The driver may wait for that as the end of its stage.
                self.wake.notify_one();
            }
            if next.is_some() || carrier.sleep() {
                return next;
            }
        }
    }

    /// Notes the bytes in the server's own buffers, for the limit of the process.
    pub fn note_in_server(&self, bytes: usize) {
        if let Some(carrier) = self.own_carrier() {
            carrier.note_in_server(bytes);
        }
    }

    /// Notes that the server takes nothing more. How the client has gone may still come, within the
    /// close timeout.
    pub fn break_carrier(&self) {
        let Some(carrier) = self.own_carrier() else {
            return;
        };
        carrier.hang_up();
        self.begin_end(End::new(Initiator::Lost, close::ABNORMAL, ""));
        self.inbox.end();
        self.outbox.cut();
        self.wake.notify_one();
    }

    /// Notes how the client has gone. Its messages from before are still taken in.
    pub fn leave_carrier(&self, end: End) {
        if let Some(carrier) = self.own_carrier() {
            carrier.leave(end);
            self.wake.notify_one();
        }
    }

    /// Whether its driver is gone: the server's task may end.
    pub fn is_carrier_over(&self) -> bool {
        self.own_carrier().is_none_or(Carrier::is_over)
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use bytes::Bytes;

    use super::*;
    use crate::{
        engine::{
            connection::{
                inbox::Received,
                settings::{Rates, Settings, Transport},
            },
            permits::Permit,
            runtime::open_carried,
            wakeup::hub::Hub,
        },
        protocol::{close::CloseFrame, message::Message},
    };

    const SETTINGS: Settings = Settings {
        transport: Transport::Carried,
        ..Settings::SMALL
    };
    const LIMIT: Duration = Duration::from_secs(20);

    fn connection() -> (Arc<Connection>, Arc<Hub>) {
        connection_with(&SETTINGS)
    }

    fn connection_with(settings: &Settings) -> (Arc<Connection>, Arc<Hub>) {
        let hub = Hub::new().unwrap();
        let permit = Permit::claim(None).unwrap();
        let connection = open_carried(Arc::clone(&hub), 7, settings, permit, |_| {}).unwrap();
        (connection, hub)
    }

    fn until(condition: impl Fn() -> bool) {
        let deadline = std::time::Instant::now() + LIMIT;
        while !condition() {
            assert!(std::time::Instant::now() < deadline);
            std::thread::yield_now();
        }
    }

    fn text(payload: &'static str) -> Outgoing {
        Outgoing::Message(Message {
            kind: Kind::Text,
            payload: Bytes::from_static(payload.as_bytes()),
        })
    }

    fn end(code: u16, by: Initiator) -> End {
        End {
            code,
            reason: String::new(),
            by,
        }
    }

    #[test]
    fn messages_go_both_ways_and_the_close_behind_them() {
        let (connection, hub) = connection();
        assert!(connection.bring(Kind::Text, b"in"));
        until(|| connection.waiting() == (1, false));
        assert_eq!(connection.carry_out(), None);
        assert!(connection.send(Kind::Text, b"one", None).unwrap());
        assert!(connection.send(Kind::Text, b"two", None).unwrap());
        until(|| hub.drain() == [7]);
        connection.close(&CloseFrame::new(Some(4000), "bye").unwrap());
        assert_eq!(connection.carry_out(), Some(text("one")));
        assert_eq!(connection.carry_out(), Some(text("two")));
        let Some(Outgoing::Close(frame)) = connection.carry_out() else {
            panic!("no close");
        };
        assert_eq!((frame.code, frame.reason.as_str()), (Some(4000), "bye"));
        assert_eq!(connection.carry_out(), None);
        assert!(!connection.is_carrier_over());
        connection.leave_carrier(end(4000, Initiator::Peer));
        until(|| connection.is_carrier_over());
        assert_eq!(connection.end().unwrap().by, Initiator::Local);
    }

    #[test]
    fn a_full_inbox_and_a_server_that_is_slow_push_back() {
        let (connection, hub) = connection();
        assert!(!connection.bring(Kind::Binary, &[0; 1024]));
        until(|| connection.waiting().0 == 1);
        assert!(!connection.has_room_to_bring());
        connection.take(None);
        until(|| hub.drain().contains(&7));
        assert!(connection.has_room_to_bring());
        assert_eq!(connection.try_send(Kind::Binary, &[0; 900]), Some(true));
        assert_eq!(connection.try_send(Kind::Binary, &[0; 900]), None);
        assert!(connection.carry_out().is_some());
        // The server has it, and has not sent it yet.
        assert_eq!(connection.try_send(Kind::Binary, &[0; 900]), None);
        assert_eq!(connection.carry_out(), None);
        assert_eq!(connection.try_send(Kind::Binary, &[0; 900]), Some(true));
        connection.leave_carrier(end(close::NO_STATUS, Initiator::Peer));
        until(|| connection.is_carrier_over());
        assert_eq!(
            connection.end(),
            Some(end(close::NO_STATUS, Initiator::Peer))
        );
    }

    #[test]
    fn a_client_that_leaves_while_it_has_to_wait_for_its_rate_is_gone_at_once() {
        let (connection, _hub) = connection_with(&Settings {
            rates: Rates {
                messages: Some(0.001),
                ..Rates::default()
            },
            ..SETTINGS
        });
        for _ in 0..4 {
            connection.bring(Kind::Binary, &[0; 512]);
        }
        connection.leave_carrier(end(4000, Initiator::Peer));
        // Its view takes nothing, and there is no room for all of it.
        until(|| connection.end() == Some(end(4000, Initiator::Peer)));
        assert!(!connection.send(Kind::Text, b"late", None).unwrap());
        let take = || matches!(connection.take(None), Received::Message(_));
        assert_eq!((0..9).filter(|_| take()).count(), 4);
        until(|| connection.is_carrier_over());
    }

    #[test]
    fn what_a_server_holds_after_the_end_is_not_counted() {
        let (connection, _hub) = connection();
        connection.note_in_server(5000);
        assert_eq!(connection.share.held(), 5000);
        connection.leave_carrier(end(close::NO_STATUS, Initiator::Peer));
        until(|| connection.is_carrier_over());
        connection.note_in_server(5000);
        assert_eq!(connection.share.held(), 0);
    }

    #[test]
    fn what_waits_for_a_server_whose_client_left_is_dropped() {
        let (connection, _hub) = connection();
        assert!(connection.send(Kind::Binary, &[0; 8192], None).unwrap());
        assert!(connection.share.held() > 0);
        connection.leave_carrier(end(close::NO_STATUS, Initiator::Peer));
        until(|| connection.share.held() == 0);
        assert_eq!(connection.carry_out(), None);
    }

    #[test]
    fn a_server_that_takes_no_more_is_a_lost_client_unless_it_says_more() {
        let (connection, _hub) = connection();
        connection.break_carrier();
        assert_eq!(
            connection.end(),
            Some(end(close::ABNORMAL, Initiator::Lost))
        );
        assert!(!connection.send(Kind::Text, b"late", None).unwrap());
        connection.leave_carrier(end(4001, Initiator::Peer));
        until(|| connection.is_carrier_over());
        assert_eq!(connection.end(), Some(end(4001, Initiator::Peer)));
    }
}

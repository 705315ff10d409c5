//! The engine passes on the events that clients of rooms send each other, without the view.
//!
//! The view would do the same, and does it whenever the engine does not: when a message waits before the
//! event, when the view is at work on one, or when its answer is another one than `{}`. So the order of
//! a client's messages holds, and one place refuses. A [`Passage`](crate::engine::groups::Passage),
//! which the view makes for each joined room, says what passes.

use std::sync::{Arc, atomic::Ordering};

use super::Connection;
use crate::protocol::{
    message::{Kind, Message},
    room_request::RoomEvent,
};

/// Bytes that are read in so little time that other connections need not have their turn. Larger events
/// are left to the view.
const MAX_BYTES: usize = 64 * 1024;

impl Connection {
    /// Passes on the first ones of `messages`, as far as they are events of rooms. Those behind a message
    /// for the view wait with it.
    pub(super) fn pass_events_of(self: &Arc<Self>, messages: &mut Vec<Message>) -> bool {
        let names = EventNames(self.passed_events.load(Ordering::Relaxed));
        if names == EventNames::default() {
            return false;
        }
        let passed = messages
            .iter()
            .take_while(|message| self.pass_event(message, names));
        let passed = passed.count();
        messages.drain(..passed);
        messages.is_empty()
    }

    /// Passes an event on to the other members of its room, and acknowledges it: what the view would
    /// do, which has done all that came before, and sleeps.
    fn pass_event(self: &Arc<Self>, message: &Message, names: EventNames) -> bool {
        let is_small_text = message.kind == Kind::Text && message.payload.len() <= MAX_BYTES;
        if !is_small_text || !self.inbox.is_listened_to() || !self.has_room() {
            return false;
        }
        let Ok(text) = std::str::from_utf8(&message.payload) else {
            return false;
        };
        let event = RoomEvent::read_if(text, |name| names.may_have(name));
        let Some(event) = event.filter(|event| self.memberships.pass(event)) else {
            return false;
        };
        self.inbox.count_passed();
        let answer = event.acknowledgement();
        if !answer.is_empty() && !self.write(Kind::Text, answer.as_bytes()) {
            // Others have taken the room that there was.
            self.send_beyond(Kind::Text, answer.as_bytes());
        }
        true
    }

    /// Events of its rooms pass without its view, while that sleeps, if they have these names.
    pub fn pass_events(&self, names: EventNames) {
        self.passed_events.store(names.0, Ordering::Relaxed);
    }
}

/// A set of names of events, as a Bloom filter: other events, however large, are not read to their end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventNames(u64);

impl EventNames {
    /// The bit of a name.
    fn bit(name: &str) -> u64 {
        let hash = name.bytes().fold(0_u32, |hash, byte| {
            hash.wrapping_mul(31).wrapping_add(u32::from(byte))
        });
        1 << (hash % u64::BITS)
    }

    /// Whether it may have `name`.
    fn may_have(self, name: &str) -> bool {
        self.0 & Self::bit(name) != 0
    }
}

impl<'a> FromIterator<&'a str> for EventNames {
    fn from_iter<I: IntoIterator<Item = &'a str>>(names: I) -> Self {
        Self(
            names
                .into_iter()
                .fold(0, |bits, name| bits | Self::bit(name)),
        )
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use bytes::Bytes;
    use parking_lot::Mutex;

    use super::*;
    use crate::engine::{
        connection::{inbox::Received, settings::Settings},
        groups::{self, Bucket, Groups, Passage, Publisher, Seat, Seats, WhenFull},
        wakeup::hub::{Hub, Watch},
    };

    /// What was published, and whether more may be.
    #[derive(Debug, Default)]
    struct Published(Mutex<(bool, Vec<String>)>);

    impl Publisher for Published {
        fn publish_event(&self, name: &str, event: groups::Message) -> bool {
            let (is_full, events) = &mut *self.0.lock();
            let text = String::from_utf8_lossy(&event.payload()).into_owned();
            if !*is_full {
                events.push(format!("{name}{text}{}", event.exclude().len()));
            }
            !*is_full
        }
    }

    fn event(number: u32) -> Message {
        text(format!(
            r#"{{"id":{number},"to":"room","event":"typing","data":{number}}}"#
        ))
    }

    fn text(text: String) -> Message {
        Message {
            kind: Kind::Text,
            payload: Bytes::from(text),
        }
    }

    /// A connection in a room, and what it publishes there.
    struct Fixture {
        connection: Arc<Connection>,
        peer: std::os::unix::net::UnixStream,
        groups: Arc<Groups>,
        seats: Arc<Seats>,
        seat: Arc<Seat>,
        bucket: Arc<Bucket>,
        published: Arc<Published>,
        hub: Arc<Hub>,
    }

    impl Fixture {
        fn new() -> Self {
            let (connection, peer) = Connection::for_test(1, &Settings::SMALL, "");
            let seats = Seats::new(&connection, [1; 16], None, 1);
            let seat = seats.take("room").unwrap();
            let groups = Groups::new(Vec::new(), WhenFull::Close, None);
            groups.join("group", &seat, [1; 16]);
            let (published, bucket) = (Arc::default(), Arc::new(Bucket::new(1e-9, 3.0)));
            seat.let_pass(Arc::new(Passage {
                names: vec!["typing".to_owned()],
                sender: "{}".to_owned(),
                publisher: Arc::clone(&published) as Arc<dyn Publisher>,
                buckets: vec![Arc::clone(&bucket)],
                most_bytes: 100,
            }));
            connection.pass_events(["typing"].into_iter().collect());
            Self {
                connection,
                peer,
                groups,
                seats,
                seat,
                bucket,
                published,
                hub: Hub::new().unwrap(),
            }
        }

        /// How many of `messages` are left for the view, which listens.
        fn left(&self, messages: &[Message]) -> usize {
            let watch = || Watch::new(Arc::clone(&self.hub), 1);
            assert!(self.connection.listen(watch));
            self.left_behind(messages)
        }

        fn left_behind(&self, messages: &[Message]) -> usize {
            self.connection.deliver(&mut messages.to_vec());
            let take = || matches!(self.connection.take_now(), Received::Message(_));
            std::iter::repeat_with(take).take_while(|it| *it).count()
        }

        fn assert_published(&self, numbers: &[u32]) {
            let text = |n| format!(r#"group,"event":"typing","data":{n},"from":{{}}}}1"#);
            let expected: Vec<_> = numbers.iter().map(text).collect();
            assert_eq!(self.published.0.lock().1, expected);
        }
    }

    #[test]
    fn events_pass_while_the_view_listens_and_nothing_is_before_them() {
        let mut its = Fixture::new();
        assert_eq!(its.left_behind(&[event(1)]), 1, "the view is at work");
        let other = text("x".to_owned());
        assert_eq!(its.left(&[event(2), event(3), other, event(4)]), 2);
        assert_eq!(its.left_behind(&[event(5)]), 1);
        its.connection.pass_events(EventNames::default());
        assert_eq!(its.left(&[event(6)]), 1);
        its.assert_published(&[2, 3]);
        assert_eq!(its.connection.messages(), (7, 2));
        let mut came = [0; 36];
        its.peer.read_exact(&mut came).unwrap();
        let answers = [2, 3].map(|id| format!("__{{\"id\":{id},\"ok\":{{}}}}"));
        let expected = answers.concat().into_bytes();
        let is_head = |at: usize| at % 18 < 2;
        for (at, byte) in came.into_iter().enumerate().filter(|(at, _)| !is_head(*at)) {
            assert_eq!(byte, expected[at], "{at}");
        }
    }

    #[test]
    fn names_of_events_are_found_and_others_most_often_not() {
        let names = ["typing", "é"];
        let its: EventNames = names.into_iter().collect();
        assert!(names.into_iter().all(|name| its.may_have(name)));
        let others = ["ask", "say", "typin", "", "e"];
        assert!(!others.into_iter().all(|name| its.may_have(name)));
        assert!(
            !names
                .into_iter()
                .any(|name| EventNames::default().may_have(name))
        );
    }

    #[test]
    fn what_is_not_allowed_or_not_possible_is_left_to_the_view() {
        let its = Fixture::new();
        its.published.0.lock().0 = true;
        assert_eq!(its.left(&[event(1)]), 1, "it cannot be published");
        its.published.0.lock().0 = false;
        for other in [
            format!(r#"{}{{"to":"room","event":"typing"}}"#, " ".repeat(100)),
            r#"{"to":"room","event":"say"}"#.to_owned(),
            r#"{"to":"other","event":"typing"}"#.to_owned(),
            r#"{"to":"group","event":"typing"}"#.to_owned(),
            r#"{"id":null,"to":"room","event":"typing"}"#.to_owned(),
        ] {
            assert_eq!(its.left(&[text(other)]), 1);
        }
        let binary = Message {
            kind: Kind::Binary,
            ..event(1)
        };
        assert_eq!(its.left(&[binary]), 1);
        assert_eq!(
            its.left(&[event(2), event(3), event(4), event(5)]),
            1,
            "no permit"
        );
        its.assert_published(&[2, 3, 4]);
        assert!(!its.bucket.take() && its.bucket.wait() > 1.0);
    }

    #[test]
    fn a_seat_that_is_over_lets_nothing_pass() {
        let leave = |its: &Fixture| its.seats.leave(&its.seat);
        let evict = |its: &Fixture| {
            its.seat.open(None);
            let whom = groups::Whom::Member([1; 16]);
            let eviction = groups::Eviction {
                whom,
                reason: String::new(),
            };
            groups::Member::evict(its.seat.as_ref(), &eviction).unwrap();
        };
        for end in [leave, evict] {
            let its = Fixture::new();
            assert_eq!(its.left(&[event(1)]), 0);
            end(&its);
            assert_eq!(its.left(&[event(2)]), 1);
            its.assert_published(&[1]);
            assert_eq!(its.groups.count("group"), 0);
        }
    }
}

//! Groups with connections that have no driver, and mailboxes.

use std::{
    io::Read,
    os::unix::net::UnixStream,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{runtime::Handle, task::yield_now};

mod deputies;
mod gaps;
mod markers;
mod moving;
mod passes;

use super::*;
use crate::{
    engine::{
        connection::{Connection, settings::Settings},
        history::Position,
        wakeup::hub::Hub,
    },
    protocol::{close::CloseFrame, message::Kind},
};

const ID: MemberId = [1; 16];
const OTHER_ID: MemberId = [2; 16];

fn groups(when_full: WhenFull) -> Arc<Groups> {
    let thread = FanOutThread {
        runtime: Handle::current(),
        hurry_views: Arc::new(|| {}),
        has_failed: Arc::default(),
    };
    Groups::new(vec![thread], when_full, None)
}

fn text(payload: &str) -> Message {
    Message::new(Kind::Text, payload.as_bytes(), &[])
}

/// Lets the fan-outs run until nothing waits.
async fn settle(groups: &Groups) {
    while groups.waiting_bytes() > 0 {
        yield_now().await;
    }
    yield_now().await;
}

fn member(number: u64) -> (Arc<Connection>, UnixStream) {
    Connection::for_test(number, &Settings::SMALL, "")
}

/// What a peer has got so far.
fn got(peer: &mut UnixStream) -> Vec<u8> {
    peer.set_nonblocking(true).unwrap();
    let mut bytes = Vec::new();
    let _ = peer.read_to_end(&mut bytes);
    bytes
}

fn frames(payloads: &[&str]) -> Vec<u8> {
    let frame = |payload: &&str| {
        let length = u8::try_from(payload.len()).unwrap();
        [&[0x81, length], payload.as_bytes()].concat()
    };
    payloads.iter().flat_map(frame).collect()
}

#[tokio::test]
async fn a_publisher_is_woken_when_there_is_room() {
    let groups = groups(WhenFull::Close);
    let (connection, _peer) = member(1);
    groups.join("room", &connection, ID);
    let large = "x".repeat(1024 * 1024);
    let length = text(&large).frame_len();
    while groups.wait_for_room(length).is_none() {
        groups.publish("room", text(&large));
    }
    let wait = groups.wait_for_room(length).unwrap();
    assert_eq!(wait.outcome(), None);
    wait.done().await;
    assert!(groups.wait_for_room(length).is_none());
}

#[tokio::test]
async fn every_member_gets_every_message_once_and_in_order() {
    let groups = groups(WhenFull::Close);
    let mut members: Vec<_> = (0..200).map(member).collect();
    for (connection, _) in &members {
        groups.join("room", connection, ID);
    }
    for number in 0..10 {
        groups.publish("room", text(&number.to_string()));
    }
    settle(&groups).await;
    let expected = frames(&["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]);
    for (_, peer) in &mut members {
        assert_eq!(got(peer), expected);
    }
    assert_eq!(
        groups.statistics().read()[..2],
        [("published", 10), ("delivered", 2000)]
    );
}

#[tokio::test]
async fn questions_between_processes_are_no_messages_of_the_site() {
    let groups = groups(WhenFull::Close);
    let (connection, mut peer) = member(1);
    for name in [
        "dwebsocket.operations",
        "dwebsocket.node:1f",
        "dwebsocket.user:1",
    ] {
        groups.join(name, &connection, ID);
        groups.publish(name, text("asked"));
    }
    settle(&groups).await;
    assert_eq!(got(&mut peer), frames(&["asked", "asked", "asked"]));
    assert_eq!(
        groups.statistics().read()[..2],
        [("published", 1), ("delivered", 1)]
    );
}

#[tokio::test]
async fn a_member_gets_what_is_published_between_its_join_and_its_leave() {
    let groups = groups(WhenFull::Close);
    let (first, mut first_peer) = member(1);
    let (second, mut second_peer) = member(2);
    assert_eq!(groups.join("room", &first, ID), Joined::First);
    groups.publish("room", text("before"));
    assert_eq!(groups.join("room", &second, OTHER_ID), Joined::More);
    assert_eq!(groups.join("room", &second, OTHER_ID), Joined::Already);
    groups.publish("room", text("both"));
    settle(&groups).await;
    assert_eq!(groups.leave("room", second.as_ref()), Some(false));
    assert_eq!(groups.leave("room", second.as_ref()), None);
    groups.publish("room", text("after"));
    settle(&groups).await;
    assert_eq!(got(&mut first_peer), frames(&["before", "both", "after"]));
    assert_eq!(got(&mut second_peer), frames(&["both"]));
}

#[tokio::test]
async fn what_was_published_before_a_leave_reaches_the_member_and_nothing_after() {
    let groups = groups(WhenFull::Close);
    let (connection, mut peer) = member(1);
    for stay in 0..3 {
        groups.join("room", &connection, ID);
        groups.publish("room", text(&format!("in {stay}")));
        let excluding = Message::new(Kind::Text, b"not for it", &[ID]);
        groups.publish("room", excluding);
        assert_eq!(groups.leave("room", connection.as_ref()), Some(true));
        assert_eq!(groups.count("room"), 0);
        assert!(groups.counts().is_empty());
        groups.publish("room", text("after"));
    }
    settle(&groups).await;
    assert_eq!(got(&mut peer), frames(&["in 0", "in 1", "in 2"]));
    groups.publish("room", text("after"));
    settle(&groups).await;
    assert!(got(&mut peer).is_empty());
}

#[tokio::test]
async fn the_place_of_a_member_that_left_is_used_again() {
    let groups = groups(WhenFull::Close);
    let (stays, mut peer) = member(0);
    groups.join("room", &stays, ID);
    for number in 1..100 {
        let (connection, mut other) = member(number);
        groups.join("room", &connection, OTHER_ID);
        groups.publish("room", text("x"));
        groups.leave("room", connection.as_ref());
        settle(&groups).await;
        assert_eq!(got(&mut other), frames(&["x"]));
    }
    assert_eq!(groups.count("room"), 1);
    assert_eq!(groups.slots("room"), 2);
    assert_eq!(got(&mut peer).len(), 99 * frames(&["x"]).len());
}

#[tokio::test]
async fn a_connection_that_ends_leaves_all_groups_and_joins_none() {
    let groups = groups(WhenFull::Close);
    let (connection, _peer) = member(1);
    for number in 0..100 {
        groups.join(&format!("room-{number}"), &connection, ID);
    }
    assert_eq!(groups.names_of(connection.as_ref()).len(), 100);
    assert_eq!(groups.counts().len(), 100);
    connection.close(&CloseFrame::default());
    assert!(groups.counts().is_empty());
    assert_eq!(groups.join("room-1", &connection, ID), Joined::Over);
    assert_eq!(groups.count("room-1"), 0);
}

#[tokio::test]
async fn places_are_used_again_and_no_member_is_met_twice() {
    let groups = groups(WhenFull::Close);
    let members: Vec<_> = (0..10).map(member).collect();
    for (connection, _) in &members {
        groups.join("room", connection, ID);
    }
    for (connection, _) in &members[2..8] {
        groups.leave("room", connection.as_ref());
    }
    let mut late: Vec<_> = (10..20).map(member).collect();
    for (connection, _) in &late {
        groups.join("room", connection, ID);
    }
    assert_eq!(groups.count("room"), 14);
    groups.publish("room", text("hi"));
    settle(&groups).await;
    for (_, peer) in &mut late {
        assert_eq!(got(peer), frames(&["hi"]));
    }
    assert_eq!(groups.statistics().read()[1], ("delivered", 14));
}

#[tokio::test]
async fn excluded_members_get_the_other_messages() {
    let groups = groups(WhenFull::Close);
    let (first, mut first_peer) = member(1);
    let (second, mut second_peer) = member(2);
    groups.join("room", &first, ID);
    groups.join("room", &second, OTHER_ID);
    groups.publish("room", text("all"));
    groups.publish("room", Message::new(Kind::Text, b"not one", &[ID]));
    groups.publish("room", Message::new(Kind::Text, b"none", &[ID, OTHER_ID]));
    groups.publish("room", text("again"));
    settle(&groups).await;
    assert_eq!(got(&mut first_peer), frames(&["all", "again"]));
    assert_eq!(got(&mut second_peer), frames(&["all", "not one", "again"]));
}

#[tokio::test]
async fn a_close_goes_out_behind_what_was_published_before() {
    let groups = groups(WhenFull::Close);
    let (connection, mut peer) = member(1);
    groups.join("room", &connection, ID);
    groups.publish("room", text("last"));
    groups.close("room", CloseFrame::new(Some(4000), "").unwrap());
    groups.publish("room", text("too late"));
    settle(&groups).await;
    let mut expected = frames(&["last"]);
    expected.extend_from_slice(b"\x88\x02\x0f\xa0");
    assert_eq!(got(&mut peer), expected);
    assert_eq!(connection.end().unwrap().code, 4000);
    assert_eq!(groups.count("room"), 0);
}

#[tokio::test]
async fn a_loss_is_told_to_members_of_rooms_before_the_next_message() {
    let groups = groups(WhenFull::Close);
    let (plain, mut plain_peer) = member(1);
    let (page, mut page_peer) = member(2);
    let seat = Seats::new(&page, OTHER_ID, None, 1).take("chat").unwrap();
    groups.join("room", &plain, ID);
    groups.join("room", &seat, OTHER_ID);
    seat.open(None);
    groups.note_loss("room");
    groups.note_loss("other");
    groups.publish("room", text("next"));
    settle(&groups).await;
    assert_eq!(got(&mut plain_peer), frames(&["next"]));
    let told = [
        r#"{"room":"chat","recovered":false}"#,
        r#"{"room":"chat","position":null,"data":"next"}"#,
    ];
    assert_eq!(got(&mut page_peer), frames(&told));
}

#[tokio::test]
async fn an_eviction_ends_the_membership_of_that_moment_and_none_that_is_newer() {
    let groups = groups(WhenFull::Close);
    let (connection, _peer) = member(1);
    let eviction = Eviction {
        whom: Whom::Member(ID),
        reason: "bye".to_owned(),
    };
    let envelope = groups.seal("room", envelope::of_eviction(&eviction));
    for comes_back in [true, false] {
        groups.join("room", &connection, ID);
        assert!(groups.deliver("room", &envelope));
        if comes_back {
            groups.leave("room", connection.as_ref());
            groups.join("room", &connection, ID);
        }
        settle(&groups).await;
        assert_eq!(groups.count("room"), usize::from(comes_back));
        let told = groups.notices().take(Some(std::time::Instant::now()));
        let is_told = matches!(told, Some(Notice::Evicted { .. }));
        assert_eq!(is_told, !comes_back, "{told:?}");
    }
}

#[tokio::test]
async fn an_envelope_arrives_as_what_was_put_into_it() {
    let groups = groups(WhenFull::Close);
    let (connection, mut peer) = member(1);
    let (excluded, mut excluded_peer) = member(2);
    groups.join("room", &connection, ID);
    groups.join("room", &excluded, OTHER_ID);
    let message = Message::new(Kind::Text, b"hi", &[OTHER_ID]);
    assert!(groups.deliver("room", &groups.envelope_of("room", &message)));
    let close = CloseFrame::new(Some(4001), "bye").unwrap();
    assert!(groups.deliver("room", &groups.seal("room", envelope::of_close(&close))));
    for broken in [
        &b""[..],
        b"\x01",
        b"\x02\0\0\0",
        b"\x01\0\0\x01short",
        b"\x01\0\0\0\xff",
    ] {
        assert!(!groups.deliver("room", broken), "{broken:?}");
    }
    settle(&groups).await;
    let close = b"\x88\x05\x0f\xa1bye";
    assert_eq!(got(&mut peer), [frames(&["hi"]), close.to_vec()].concat());
    assert_eq!(got(&mut excluded_peer), close);
}

/// Publishes numbered messages of 100 bytes to one member that does not read, whose outbox holds
/// ten of them; returns the numbers that it has got in the end, and the number that was dropped.
async fn slow(when_full: WhenFull) -> (Vec<usize>, u64, Arc<Connection>) {
    let groups = groups(when_full);
    let (connection, mut peer) = blocked_member();
    groups.join("room", &connection, ID);
    for number in 0..50 {
        groups.publish("room", text(&format!("{number:0100}")));
        settle(&groups).await;
    }
    let dropped = groups.statistics().read()[2..]
        .iter()
        .map(|(_, value)| value)
        .sum();
    let numbers = drain(&connection, &mut peer)
        .split(|character: char| !character.is_ascii_digit())
        .filter(|digits| digits.len() == 100)
        .map(|digits| digits.parse().unwrap())
        .collect();
    (numbers, dropped, connection)
}

/// A member that does not read: its socket is full.
fn blocked_member() -> (Arc<Connection>, UnixStream) {
    let (connection, peer) = member(1);
    let filler = vec![b' '; 60];
    while !connection.outbox.is_blocked() {
        let _ = connection.send(Kind::Text, &filler, Some(Duration::ZERO));
    }
    let before = connection.outbox.queued();
    assert!(before < 200, "{before}");
    (connection, peer)
}

/// Reads all that waits for a member, and returns it as text.
fn drain(connection: &Connection, peer: &mut UnixStream) -> String {
    let mut bytes = Vec::new();
    while connection.outbox.queued() > 0 && !connection.outbox.is_cut() {
        bytes.extend(got(peer));
        connection.outbox.flush();
    }
    bytes.extend(got(peer));
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Returns the text that a page reads. It is in three rooms, and begins to read late.
async fn read_late(when_full: WhenFull) -> String {
    let groups = groups(when_full);
    let (connection, mut peer) = blocked_member();
    let seats = Seats::new(&connection, ID, None, 1);
    let rooms = ["often", "rare", "silent"].map(|room| {
        let seat = seats.take(room).unwrap();
        groups.join(room, &seat, ID);
        seat.open(None);
        seat
    });
    let mut read = String::new();
    for number in 0..64 {
        groups.publish("often", text(&format!("often {number}")));
        if number % 7 == 0 {
            groups.publish("rare", text(&format!("rare {}", number / 7)));
        }
        if number % 63 == 0 {
            groups.publish("silent", text(&format!("silent {}", number / 63)));
        }
        settle(&groups).await;
        if number >= 50 {
            read += &drain(&connection, &mut peer);
        }
    }
    drop(rooms);
    read
}

/// Fails unless all numbers of a room have come, or the news of a loss in their place.
fn assert_told(read: &str, room: &str, count: usize) {
    let (mut next, mut is_told) = (0, false);
    for text in read.split(&format!("{{\"room\":\"{room}\",")).skip(1) {
        if text.starts_with("\"recovered\":false}") {
            assert!(!is_told, "{room}: told twice before {next}");
            is_told = true;
            continue;
        }
        let (_, rest) = text.split_once(&format!("\"data\":\"{room} ")).unwrap();
        let number: usize = rest.split_once('"').unwrap().0.parse().unwrap();
        assert!(number >= next, "{room}: {number} after {next}");
        assert_eq!(number > next, is_told, "{room}: {number}");
        (next, is_told) = (number + 1, false);
    }
    assert_eq!(next, count, "{room}");
}

#[tokio::test]
async fn a_slow_page_is_told_of_a_loss_before_the_next_message_of_the_room() {
    for when_full in [
        WhenFull::DropNewest,
        WhenFull::DropOldest,
        WhenFull::KeepLatest,
    ] {
        let read = read_late(when_full).await;
        assert!(read.contains("recovered"), "{when_full:?}");
        for (room, count) in [("often", 64), ("rare", 10), ("silent", 2)] {
            assert_told(&read, room, count);
        }
    }
}

#[tokio::test]
async fn a_slow_member_is_closed() {
    let (numbers, closed, connection) = slow(WhenFull::Close).await;
    assert_eq!(connection.end().unwrap().code, 1013);
    assert_eq!(closed, 1);
    assert!(numbers.len() < 11);
    assert_eq!(numbers, (0..numbers.len()).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_slow_member_misses_the_newest_messages() {
    let (numbers, dropped, connection) = slow(WhenFull::DropNewest).await;
    assert!(connection.end().is_none());
    assert!((8..11).contains(&numbers.len()), "{numbers:?}");
    assert_eq!(numbers, (0..numbers.len()).collect::<Vec<_>>());
    assert_eq!(dropped + numbers.len() as u64, 50);
}

#[tokio::test]
async fn a_slow_member_misses_the_oldest_messages() {
    let (numbers, dropped, connection) = slow(WhenFull::DropOldest).await;
    assert!(connection.end().is_none());
    assert!((8..11).contains(&numbers.len()), "{numbers:?}");
    let first = 50 - numbers.len();
    assert_eq!(numbers, (first..50).collect::<Vec<_>>());
    assert_eq!(dropped, first as u64);
}

#[tokio::test]
async fn a_slow_member_gets_the_latest_message() {
    let (numbers, dropped, connection) = slow(WhenFull::KeepLatest).await;
    assert!(connection.end().is_none());
    assert_eq!(numbers.last(), Some(&49));
    assert!(numbers.len() < 11, "{numbers:?}");
    assert_eq!(dropped + numbers.len() as u64, 50);
}

#[tokio::test]
async fn the_newest_message_waits_beside_what_cannot_make_way() {
    for when_full in [WhenFull::DropOldest, WhenFull::KeepLatest] {
        let groups = groups(when_full);
        let (connection, mut peer) = blocked_member();
        groups.join("room", &connection, ID);
        let own = connection.outbox.queued();
        let large = "x".repeat(Settings::SMALL.send_buffer_bytes - own + 1);
        for number in 0..4 {
            groups.publish("room", text(&format!("{large}{number}")));
            settle(&groups).await;
            assert!(connection.outbox.queued() > Settings::SMALL.send_buffer_bytes);
            assert!(connection.outbox.queued() < own + large.len() + 20);
        }
        assert!(drain(&connection, &mut peer).ends_with("x3"));
    }
}

#[tokio::test]
async fn a_mailbox_announces_what_comes_into_it_and_follows_the_policy() {
    let groups = groups(WhenFull::DropOldest);
    let hub = Hub::new().unwrap();
    let mailbox = Mailbox::new(4, Arc::clone(&hub), 7);
    groups.join("room", &mailbox, ID);
    for payload in ["aa", "bb", "cc"] {
        groups.publish("room", text(payload));
    }
    settle(&groups).await;
    assert_eq!(hub.drain(), [7]);
    let taken: Vec<_> = std::iter::from_fn(|| mailbox.pop()).collect();
    let payloads: Vec<_> = taken.iter().map(|(_, payload)| &payload[..]).collect();
    assert_eq!(payloads, [b"bb", b"cc"]);
    mailbox.end();
    assert_eq!(groups.count("room"), 0);
}

#[tokio::test]
async fn a_mailbox_drops_what_has_no_room_and_stays_when_members_are_closed() {
    let groups = groups(WhenFull::Close);
    let mailbox = Mailbox::new(4, Hub::new().unwrap(), 7);
    groups.join("room", &mailbox, ID);
    for payload in ["aa", "bb", "cc"] {
        groups.publish("room", text(payload));
    }
    groups.close("room", CloseFrame::new(Some(4000), "").unwrap());
    settle(&groups).await;
    let payloads = || -> Vec<_> {
        let taken = std::iter::from_fn(|| mailbox.pop());
        taken.map(|(_, payload)| payload.to_vec()).collect()
    };
    assert_eq!(payloads(), [b"aa", b"bb"]);
    let counters = groups.statistics().read();
    assert!(counters.contains(&("dropped_newest", 1)), "{counters:?}");
    groups.publish("room", text("dd"));
    settle(&groups).await;
    assert_eq!(payloads(), [b"dd"]);
}

/// A member that panics where the fan-out does not expect it.
#[derive(Debug, Default)]
struct Broken(Memberships);

impl Member for Broken {
    fn is_foreign(&self) -> bool {
        false
    }

    fn memberships(&self) -> &Memberships {
        &self.0
    }

    fn deflater(&self) -> Option<&crate::protocol::deflate::Deflater> {
        unreachable!("it is broken")
    }

    fn take(&self, _: &Delivery, _: WhenFull, _: bool) -> Handed {
        Handed::default()
    }

    fn close(&self, _: &CloseFrame) {}
}

#[tokio::test]
async fn a_panic_in_the_middle_of_a_group_costs_a_batch_which_is_told() {
    let groups = groups(WhenFull::Close);
    let at = |offset| Position { epoch: 1, offset };
    let (before, mut before_peer) = member(1);
    let (behind, mut behind_peer) = member(2);
    let broken = Arc::new(Broken::default());
    groups.enter_at("room", &before, ID, at(5), true).unwrap();
    groups
        .enter_at("room", &broken, OTHER_ID, at(5), false)
        .unwrap();
    groups.enter_at("room", &behind, ID, at(5), true).unwrap();
    let envelope = envelope::of_message(&text("x"));
    groups.offer("room", at(6), &envelope);
    settle(&groups).await;
    assert_eq!(groups.statistics().read()[10], ("restarted", 1));
    groups.leave("room", broken.as_ref());
    groups.offer("room", at(7), &envelope);
    settle(&groups).await;
    let numbered = |offset| numbered_text("room", at(offset), Kind::Text, b"x");
    let gap = numbered::gap("room", at(6));
    assert_eq!(
        (got(&mut before_peer), got(&mut behind_peer)),
        (
            frames(&[&numbered(6), &gap, &numbered(7)]),
            frames(&[&gap, &numbered(7)]),
        )
    );
    let notices = std::iter::from_fn(|| groups.notices().take(Some(std::time::Instant::now())));
    let interrupted = Notice::Interrupted(vec!["room".to_owned()]);
    assert!(notices.collect::<Vec<_>>().contains(&interrupted));
}

#[tokio::test]
async fn groups_whose_thread_has_failed_take_no_messages() {
    let failed = Arc::new(AtomicBool::new(false));
    let thread = FanOutThread {
        runtime: Handle::current(),
        hurry_views: Arc::new(|| {}),
        has_failed: Arc::clone(&failed),
    };
    let groups = Groups::new(vec![thread], WhenFull::Close, None);
    assert!(groups.has_room(1));
    failed.store(true, Ordering::Relaxed);
    assert!(!groups.has_room(0));
}

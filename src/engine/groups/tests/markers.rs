//! Members that move at a marker between two registries, as if each were a process.

use super::*;
use crate::engine::groups::{Deputy, Mismatch, Seats, Stamps};

const TOKEN: Token = [7; 16];
const OTHER_TOKEN: Token = [8; 16];

/// Delivers to both, as a server does.
fn publish(processes: [&Arc<Groups>; 2], payload: &str) {
    for groups in processes {
        let envelope = groups.envelope_of("room", &text(payload));
        assert!(groups.deliver("room", &envelope));
    }
}

fn mark(processes: [&Arc<Groups>; 2], tokens: &[Token]) {
    for groups in processes {
        let envelope = groups.seal("room", envelope::of_markers(tokens));
        assert!(groups.deliver("room", &envelope));
    }
}

/// A deputy that begins at `TOKEN`, and the one before it.
fn begins(groups: &Arc<Groups>) -> (Arc<Deputy>, Arc<Deputy>) {
    let (before, deputy) = (Deputy::new(None), Deputy::new(None));
    groups.join("room", &before, ID);
    groups.begin_at_marker("room", TOKEN, &before, &deputy, ID);
    (before, deputy)
}

/// The number of the first entry for the one that has succeeded a deputy.
fn since(succeeded: Result<Option<u64>, Mismatch>) -> u64 {
    succeeded.unwrap().unwrap()
}

#[tokio::test]
async fn a_marker_divides_messages_in_the_same_way_in_both_processes() {
    let (old, new) = (groups(WhenFull::Close), groups(WhenFull::Close));
    let both = [&old, &new];
    let (leaves, mut leaves_peer) = member(1);
    let (stays, mut stays_peer) = member(2);
    old.join("room", &leaves, ID);
    new.join("room", &stays, OTHER_ID);
    publish(both, "1");
    let (_before, deputy) = begins(&new);
    let cut = old.cut_at_marker("room", TOKEN, leaves.clone());
    publish(both, "2");
    mark(both, &[OTHER_TOKEN]);
    assert!(!cut.is_done() && !deputy.has_begun());
    assert!(cut.departed().is_none());
    mark(both, &[OTHER_TOKEN, TOKEN]);
    assert!(cut.is_done() && deputy.has_begun());
    publish(both, "3");
    // A second one changes nothing.
    mark(both, &[TOKEN]);
    settle(&old).await;
    settle(&new).await;
    let (left, standing) = cut.departed().unwrap();
    assert_eq!(*standing, None);
    assert!(old.has_handed_out("room", left.until));
    assert_eq!(old.count("room"), 0);
    assert_eq!(got(&mut leaves_peer), frames(&["1", "2"]));
    let (enters, mut enters_peer) = member(3);
    let none = Stamps::default();
    let since = since(new.succeed("room", deputy.as_ref(), &enters, ID, &none, None));
    publish(both, "4");
    settle(&new).await;
    assert!(new.has_handed_out("room", since));
    let kept = deputy.hand_over(enters.as_ref(), &none).unwrap();
    assert_eq!(kept, frames(&["3"]));
    assert_eq!(got(&mut enters_peer), frames(&["4"]));
    assert_eq!(got(&mut stays_peer), frames(&["1", "2", "3", "4"]));
    assert_eq!(new.count("room"), 2);
    // Two messages for the one, four and one for the others: markers are none.
    assert_eq!(old.statistics().read()[1], ("delivered", 2));
    assert_eq!(new.statistics().read()[1], ("delivered", 5));
}

#[tokio::test]
async fn a_marker_of_another_group_or_one_that_was_forgotten_does_nothing() {
    let groups = groups(WhenFull::Close);
    let (connection, _peer) = member(1);
    groups.join("room", &connection, ID);
    groups.join("other", &connection, ID);
    let cut = groups.cut_at_marker("room", TOKEN, connection.clone());
    let elsewhere = groups.seal("other", envelope::of_markers(&[TOKEN]));
    assert!(groups.deliver("other", &elsewhere));
    assert!(!cut.is_done());
    groups.forget_marker(TOKEN);
    mark([&groups, &groups], &[TOKEN]);
    assert!(!cut.is_done());
    assert!(groups.is_member("room", connection.as_ref()));
}

#[tokio::test]
async fn a_member_that_has_left_before_its_marker_is_not_cut_and_nobody_begins_for_it() {
    let groups = groups(WhenFull::Close);
    let (connection, _peer) = member(1);
    groups.join("room", &connection, ID);
    let cut = groups.cut_at_marker("room", OTHER_TOKEN, connection.clone());
    groups.leave("room", connection.as_ref());
    let (before, deputy) = begins(&groups);
    before.leave();
    mark([&groups, &groups], &[TOKEN, OTHER_TOKEN]);
    assert!(cut.is_done());
    assert!(cut.departed().is_none());
    assert!(deputy.has_begun());
    assert!(!groups.is_member("room", deputy.as_ref()));
    assert_eq!(groups.count("room"), 0);
}

#[tokio::test]
async fn what_comes_before_the_marker_is_not_kept_however_much_it_is() {
    let groups = groups(WhenFull::Close);
    let (connection, _peer) = member(1);
    let (_before, deputy) = begins(&groups);
    let large = "x".repeat(600 * 1024);
    for _ in 0..4 {
        groups.publish("room", text(&large));
    }
    mark([&groups, &groups], &[TOKEN]);
    groups.publish("room", text("kept"));
    settle(&groups).await;
    let kept = deputy.hand_over(connection.as_ref(), &Stamps::default());
    assert_eq!(kept, Some(frames(&["kept"])));
}

fn at(offset: u64) -> Position {
    Position { epoch: 7, offset }
}

/// Offers a message of a history to both.
fn record(processes: [&Arc<Groups>; 2], offset: u64) {
    for groups in processes {
        let envelope = groups.envelope_of("room", &text(&offset.to_string()));
        groups.offer("room", at(offset), &envelope).unwrap();
    }
}

/// Delivers an event of a room to both.
fn tell(processes: [&Arc<Groups>; 2], event: &str) {
    let rest = format!(",\"event\":\"{event}\"}}");
    for groups in processes {
        let event = Message::event(rest.as_bytes(), &[]);
        assert!(groups.deliver("room", &groups.envelope_of("room", &event)));
    }
}

#[tokio::test]
async fn a_seat_of_a_room_with_a_history_leaves_at_the_marker_and_at_its_position() {
    let (old, new) = (groups(WhenFull::Close), groups(WhenFull::Close));
    let both = [&old, &new];
    let (leaves, mut leaves_peer) = member(1);
    let seat = Seats::new(&leaves, ID, None, 1).take("r").unwrap();
    old.enter_at("room", &seat, ID, at(3), false).unwrap();
    seat.open(Some(at(3)));
    let (before, deputy) = (Deputy::new(None), Deputy::new(Some((ID, None))));
    new.enter_at("room", &before, ID, at(3), false).unwrap();
    new.begin_at_marker("room", TOKEN, &before, &deputy, ID);
    let cut = old.cut_at_marker("room", TOKEN, seat.clone());
    record(both, 4);
    tell(both, "one");
    mark(both, &[TOKEN]);
    record(both, 5);
    tell(both, "two");
    settle(&old).await;
    settle(&new).await;
    let (_, standing) = cut.departed().unwrap();
    assert_eq!(*standing, Some((at(4), false)));
    let told = String::from_utf8_lossy(&got(&mut leaves_peer)).into_owned();
    assert!(told.contains("0007-4") && told.contains("one"), "{told}");
    assert!(!told.contains("0007-5") && !told.contains("two"), "{told}");
    let (enters, _enters_peer) = member(2);
    let none = Stamps::default();
    let succeed = |offset| {
        let standing = Some((at(offset), false));
        new.succeed("room", deputy.as_ref(), &enters, ID, &none, standing)
    };
    assert_eq!(succeed(4), Err(Mismatch::Behind), "it has to read 5");
    since(succeed(5));
    let kept = deputy.hand_over(enters.as_ref(), &none).unwrap();
    let kept = String::from_utf8_lossy(&kept).into_owned();
    assert!(kept.contains("two") && !kept.contains("one"), "{kept}");
}

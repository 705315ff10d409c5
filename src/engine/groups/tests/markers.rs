//! Members that move at a marker between two registries, as if each were a process.

use super::*;
use crate::engine::groups::{Stamps, StandIn};

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
        let envelope = groups.envelope_of_markers("room", tokens);
        assert!(groups.deliver("room", &envelope));
    }
}

/// A stand-in that begins at `TOKEN`, and its placeholder.
fn begins(groups: &Arc<Groups>) -> (Arc<StandIn>, Arc<StandIn>) {
    let (placeholder, stand_in) = (StandIn::placeholder(), StandIn::new());
    groups.join("room", &placeholder, ID);
    groups.begin_at_marker("room", TOKEN, &placeholder, &stand_in, ID);
    (placeholder, stand_in)
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
    let (_placeholder, stand_in) = begins(&new);
    let cut = old.cut_at_marker("room", TOKEN, &leaves);
    publish(both, "2");
    mark(both, &[OTHER_TOKEN]);
    assert!(!cut.is_done() && !stand_in.has_begun());
    assert_eq!(cut.until(), None);
    mark(both, &[OTHER_TOKEN, TOKEN]);
    assert!(cut.is_done() && stand_in.has_begun());
    publish(both, "3");
    // A second one changes nothing.
    mark(both, &[TOKEN]);
    settle(&old).await;
    settle(&new).await;
    assert!(old.has_handed_out("room", cut.until().unwrap()));
    assert_eq!(old.count("room"), 0);
    assert_eq!(got(&mut leaves_peer), frames(&["1", "2"]));
    let (enters, mut enters_peer) = member(3);
    let none = Stamps::default();
    let since = new.exchange("room", &stand_in, &enters, ID, &none).unwrap();
    publish(both, "4");
    settle(&new).await;
    assert!(new.has_handed_out("room", since));
    let kept = stand_in.frames_for(enters.as_ref(), &none).unwrap();
    assert_eq!(kept, (frames(&["3"]), None));
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
    let cut = groups.cut_at_marker("room", TOKEN, &connection);
    let elsewhere = groups.envelope_of_markers("other", &[TOKEN]);
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
    let cut = groups.cut_at_marker("room", OTHER_TOKEN, &connection);
    groups.leave("room", connection.as_ref());
    let (placeholder, stand_in) = begins(&groups);
    placeholder.leave();
    mark([&groups, &groups], &[TOKEN, OTHER_TOKEN]);
    assert!(cut.is_done());
    assert_eq!(cut.until(), None);
    assert!(stand_in.has_begun());
    assert!(!groups.is_member("room", stand_in.as_ref()));
    assert_eq!(groups.count("room"), 0);
}

#[tokio::test]
async fn a_placeholder_keeps_nothing_however_much_comes() {
    let groups = groups(WhenFull::Close);
    let (connection, _peer) = member(1);
    let (placeholder, stand_in) = begins(&groups);
    let large = "x".repeat(600 * 1024);
    for _ in 0..4 {
        groups.publish("room", text(&large));
    }
    mark([&groups, &groups], &[TOKEN]);
    groups.publish("room", text("kept"));
    settle(&groups).await;
    let none = Stamps::default();
    let kept = stand_in.frames_for(connection.as_ref(), &none);
    assert_eq!(kept, Some((frames(&["kept"]), None)));
    let before = placeholder.frames_for(connection.as_ref(), &none);
    assert_eq!(before, Some((Vec::new(), None)));
}

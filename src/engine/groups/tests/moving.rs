//! Members that move between two registries, as if each were a process.

use super::*;
use crate::engine::groups::{Stamp, Stamps, StandIn};

fn stamped(publisher: u64, number: u64) -> Message {
    text(&format!("{publisher}.{number}")).stamped(Stamp { publisher, number })
}

#[tokio::test]
async fn each_message_reaches_a_member_once_in_whatever_order_publishers_are_heard() {
    let (old, new) = (groups(WhenFull::Close), groups(WhenFull::Close));
    let (leaves, mut leaves_peer) = member(1);
    old.join("room", &leaves, ID);
    old.publish("room", stamped(1, 1));
    // The new process is ahead with one publisher, and behind with the other one.
    let stand_in = StandIn::new();
    new.join("room", &stand_in, ID);
    for message in [stamped(1, 1), stamped(1, 2), stamped(1, 3)] {
        new.publish("room", message);
    }
    for message in [stamped(2, 1), stamped(2, 2), stamped(1, 2)] {
        old.publish("room", message);
    }
    let cut = old.cut("room", leaves.as_ref()).unwrap();
    assert!(old.cut("room", leaves.as_ref()).is_none());
    old.publish("room", stamped(1, 3));
    settle(&old).await;
    assert!(old.has_handed_out("room", cut.until));
    assert_eq!(got(&mut leaves_peer), frames(&["1.1", "2.1", "2.2", "1.2"]));
    let (enters, mut enters_peer) = member(2);
    let since = new
        .exchange("room", &stand_in, &enters, ID, &cut.got)
        .unwrap();
    for message in [stamped(2, 1), stamped(2, 2), stamped(2, 3), stamped(1, 4)] {
        new.publish("room", message);
    }
    settle(&new).await;
    assert!(new.has_handed_out("room", since));
    let kept = stand_in.frames_for(enters.as_ref(), &cut.got).unwrap();
    assert_eq!(kept, (frames(&["1.3"]), None));
    assert_eq!(got(&mut enters_peer), frames(&["2.3", "1.4"]));
    assert_eq!(new.count("room"), 1);
}

#[tokio::test]
async fn a_stand_in_that_was_evicted_or_has_left_is_exchanged_for_nobody() {
    let groups = groups(WhenFull::Close);
    let (connection, _peer) = member(1);
    let stand_in = StandIn::new();
    assert_eq!(groups.join("room", &stand_in, ID), Joined::First);
    stand_in.leave();
    settle(&groups).await;
    assert_eq!(groups.count("room"), 0);
    let none = Stamps::default();
    let exchanged = groups.exchange("room", &stand_in, &connection, ID, &none);
    assert_eq!(exchanged, None);
    assert!(!groups.is_member("room", connection.as_ref()));
}

#[tokio::test]
async fn a_stand_in_for_a_connection_that_is_over_leaves_no_member_behind() {
    let groups = groups(WhenFull::Close);
    let (connection, _peer) = member(1);
    let stand_in = StandIn::new();
    groups.join("room", &stand_in, ID);
    connection.memberships().end();
    let none = Stamps::default();
    let exchanged = groups.exchange("room", &stand_in, &connection, ID, &none);
    assert_eq!(exchanged, None);
    assert_eq!(groups.count("room"), 0);
}

#[tokio::test]
async fn a_stand_in_that_has_kept_too_much_says_so_and_a_close_comes_after_messages() {
    let groups = groups(WhenFull::Close);
    let (connection, _peer) = member(1);
    let (few, many) = (StandIn::new(), StandIn::new());
    groups.join("few", &few, ID);
    groups.join("many", &many, ID);
    let large = "x".repeat(600 * 1024);
    groups.publish("many", text(&large));
    groups.publish("few", text("last"));
    groups.close("few", frame_of(1001));
    groups.publish("many", text(&large));
    settle(&groups).await;
    let none = Stamps::default();
    let kept = few.frames_for(connection.as_ref(), &none);
    assert_eq!(kept, Some((frames(&["last"]), Some(frame_of(1001)))));
    assert_eq!(many.frames_for(connection.as_ref(), &none), None);
}

fn frame_of(code: u16) -> CloseFrame {
    CloseFrame::new(Some(code), "").unwrap()
}

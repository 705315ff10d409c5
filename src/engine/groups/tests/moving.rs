//! Members that move between two registries, as if each were a process.

use super::*;
use crate::engine::groups::{Deputy, Stamp, Stamps};

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
    let deputy = Deputy::new(None);
    new.join("room", &deputy, ID);
    for message in [stamped(1, 1), stamped(1, 2), stamped(1, 3)] {
        new.publish("room", message);
    }
    for message in [stamped(2, 1), stamped(2, 2), stamped(1, 2)] {
        old.publish("room", message);
    }
    let (cut, standing) = old.depart("room", leaves.as_ref()).unwrap();
    assert_eq!(standing, None);
    assert!(old.depart("room", leaves.as_ref()).is_none());
    old.publish("room", stamped(1, 3));
    settle(&old).await;
    assert!(old.has_handed_out("room", cut.until));
    assert_eq!(got(&mut leaves_peer), frames(&["1.1", "2.1", "2.2", "1.2"]));
    let (enters, mut enters_peer) = member(2);
    let succeeded = new.succeed("room", deputy.as_ref(), &enters, ID, &cut.got, None);
    let since = succeeded.unwrap().unwrap();
    for message in [stamped(2, 1), stamped(2, 2), stamped(2, 3), stamped(1, 4)] {
        new.publish("room", message);
    }
    settle(&new).await;
    assert!(new.has_handed_out("room", since));
    let kept = deputy.hand_over(enters.as_ref(), &cut.got).unwrap();
    assert_eq!(kept, frames(&["1.3"]));
    assert_eq!(got(&mut enters_peer), frames(&["2.3", "1.4"]));
    assert_eq!(new.count("room"), 1);
}

#[tokio::test]
async fn a_deputy_that_has_left_is_succeeded_by_nobody() {
    let groups = groups(WhenFull::Close);
    let (connection, _peer) = member(1);
    let deputy = Deputy::new(None);
    assert_eq!(groups.join("room", &deputy, ID), Joined::First);
    deputy.leave();
    settle(&groups).await;
    assert_eq!(groups.count("room"), 0);
    let none = Stamps::default();
    let succeeded = groups.succeed("room", deputy.as_ref(), &connection, ID, &none, None);
    assert_eq!(succeeded, Ok(None));
    assert!(!groups.is_member("room", connection.as_ref()));
}

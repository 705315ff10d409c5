//! Members that move between two registries, and their deputies.

use super::*;
use crate::engine::groups::{Deputy, Eviction, Mismatch, Seats, Stamps, Whom};

#[tokio::test]
async fn a_member_of_a_group_with_a_history_goes_on_at_its_position_alone() {
    let (old, new) = (groups(WhenFull::Close), groups(WhenFull::Close));
    let at = |offset| Position { epoch: 7, offset };
    let offer = |groups: &Arc<Groups>, offset: u64| {
        let envelope = groups.envelope_of("room", &text(&offset.to_string()));
        groups.offer("room", at(offset), &envelope).unwrap()
    };
    let (leaves, mut leaves_peer) = member(1);
    old.enter_at("room", &leaves, ID, at(3), true).unwrap();
    let deputy = Deputy::new(None);
    let joined = new.enter_at("room", &deputy, ID, at(4), false);
    assert_eq!(joined, Ok(Joined::First));
    offer(&old, 4);
    let (cut, standing) = old.depart("room", leaves.as_ref()).unwrap();
    assert_eq!(standing, Some((at(4), true)));
    assert!(old.depart("room", leaves.as_ref()).is_none());
    settle(&old).await;
    assert!(old.has_handed_out("room", cut.until));
    assert!(!got(&mut leaves_peer).is_empty());
    // Here the group is further on, and then not as far.
    offer(&new, 5);
    let (enters, mut enters_peer) = member(2);
    let none = Stamps::default();
    let succeed = |offset| {
        let wanted = Some((at(offset), true));
        new.succeed("room", deputy.as_ref(), &enters, ID, &none, wanted)
    };
    assert_eq!(succeed(4), Err(Mismatch::Behind));
    assert_eq!(succeed(6), Err(Mismatch::Early));
    assert!(matches!(succeed(5), Ok(Some(_))));
    assert_eq!(succeed(5), Ok(None));
    assert_eq!(new.count("room"), 1);
    offer(&new, 6);
    settle(&new).await;
    let text = String::from_utf8_lossy(&got(&mut enters_peer)).into_owned();
    assert!(text.contains("0000000000000007-6"), "{text}");
    assert!(!text.contains("0000000000000007-5"), "{text}");
    let kept = deputy.hand_over(enters.as_ref(), &none);
    assert_eq!(kept, Some(Vec::new()), "the history has them");
}

#[tokio::test]
async fn a_deputy_passes_events_and_a_close_on_and_is_evicted_by_its_user() {
    let groups = groups(WhenFull::Close);
    let seated = Deputy::new(Some((ID, Some("ada".to_owned()))));
    let plain = Deputy::new(None);
    groups.join("room", &seated, ID);
    groups.join("room", &plain, OTHER_ID);
    groups.publish("room", Message::event(b",\"event\":\"typing\"}", &[]));
    groups.close("room", CloseFrame::new(Some(1001), "").unwrap());
    settle(&groups).await;
    let none = Stamps::default();
    for (deputy, has_kept) in [(&seated, true), (&plain, false)] {
        let (connection, _peer) = member(1);
        let kept = deputy.hand_over(connection.as_ref(), &none).unwrap();
        assert_ne!(kept.is_empty(), has_kept);
        assert_eq!(connection.end().map(|end| end.code), Some(1001));
    }
    let eviction = Eviction {
        whom: Whom::User("ada".to_owned()),
        reason: "go".to_owned(),
    };
    let envelope = groups.seal("room", envelope::of_eviction(&eviction));
    assert!(groups.deliver("room", &envelope));
    settle(&groups).await;
    assert_eq!(seated.evicted(), Some("go".to_owned()));
    assert_eq!(groups.count("room"), 1);
    let (connection, _peer) = member(1);
    let succeeded = groups.succeed("room", seated.as_ref(), &connection, ID, &none, None);
    assert_eq!(succeeded, Ok(None));
}

#[tokio::test]
async fn a_deputy_of_a_connection_that_is_over_leaves_no_member_behind() {
    let groups = groups(WhenFull::Close);
    let (connection, _peer) = member(1);
    let deputy = Deputy::new(None);
    groups.join("room", &deputy, ID);
    connection.memberships().end();
    let none = Stamps::default();
    let succeeded = groups.succeed("room", deputy.as_ref(), &connection, ID, &none, None);
    assert_eq!(succeeded, Ok(None));
    assert_eq!(groups.count("room"), 0);
}

#[tokio::test]
async fn a_deputy_that_has_kept_too_much_says_so() {
    let groups = groups(WhenFull::Close);
    let (connection, _peer) = member(1);
    let deputy = Deputy::new(None);
    groups.join("room", &deputy, ID);
    let large = "x".repeat(600 * 1024);
    groups.publish("room", text(&large));
    groups.publish("room", text(&large));
    settle(&groups).await;
    assert_eq!(
        deputy.hand_over(connection.as_ref(), &Stamps::default()),
        None
    );
}

#[tokio::test]
async fn a_seat_owes_its_client_the_news_of_a_loss_until_that_has_room() {
    let groups = groups(WhenFull::DropNewest);
    let mailbox = Mailbox::new(200, Hub::new().unwrap(), 7);
    let seat = Seats::new(&mailbox, ID, None, 1).take("room").unwrap();
    groups.join("room", &seat, ID);
    seat.open(None);
    let publish = async || {
        groups.publish("room", text("hello"));
        settle(&groups).await;
    };
    publish().await;
    assert!(!seat.owes_loss());
    for _ in 0..20 {
        publish().await;
    }
    assert!(seat.owes_loss());
    while mailbox.pop().is_some() {}
    publish().await;
    assert!(!seat.owes_loss());
}

//! Members of a group whose messages are lost: those with numbers are told.

use super::*;
use crate::engine::history::{Entry, History, Limits, MemoryHistory, Page, Position};

const AT: Position = Position {
    epoch: 1,
    offset: 5,
};

fn page(epoch: u64, head: u64, offsets: &[u64]) -> Page {
    let kept = |&offset: &u64| Entry {
        offset,
        sent_at: 0,
        envelope: envelope::of_message(&text(&offset.to_string())).into(),
    };
    Page {
        head: Position {
            epoch,
            offset: head,
        },
        entries: offsets.iter().map(kept).collect(),
    }
}

fn message(epoch: u64, offset: u64) -> String {
    let position = Position { epoch, offset };
    numbered_text("room", position, Kind::Text, offset.to_string().as_bytes())
}

fn gap(epoch: u64, offset: u64) -> String {
    numbered::gap("room", Position { epoch, offset })
}

/// What members get from a page, with numbers and without.
async fn outcome(page: Page) -> (Vec<u8>, Vec<u8>) {
    let groups = groups(WhenFull::Close);
    let (with, mut with_peer) = member(1);
    let (without, mut without_peer) = member(2);
    for (connection, is_numbered) in [(&with, true), (&without, false)] {
        groups
            .enter_at("room", connection, ID, AT, is_numbered)
            .unwrap();
    }
    groups.take_page("room", &page);
    settle(&groups).await;
    (got(&mut with_peer), got(&mut without_peer))
}

#[tokio::test]
async fn without_a_gap_nobody_is_told() {
    let (with, without) = outcome(page(1, 7, &[6, 7])).await;
    assert_eq!(with, frames(&[&message(1, 6), &message(1, 7)]));
    assert_eq!(without, frames(&["6", "7"]));
}

#[tokio::test]
async fn messages_that_are_not_kept_any_more() {
    let (with, without) = outcome(page(1, 9, &[8, 9])).await;
    let told = gap(1, 7);
    assert_eq!(with, frames(&[&told, &message(1, 8), &message(1, 9)]));
    assert_eq!(without, frames(&["8", "9"]));
    let (with, without) = outcome(page(1, 9, &[])).await;
    assert_eq!(with, frames(&[&gap(1, 9)]));
    assert!(without.is_empty());
}

#[tokio::test]
async fn a_numbering_that_starts_anew() {
    let (with, _) = outcome(page(2, 1, &[1])).await;
    assert_eq!(with, frames(&[&gap(2, 0), &message(2, 1)]));
    let (with, _) = outcome(page(2, 0, &[])).await;
    assert_eq!(with, frames(&[&gap(2, 0)]));
}

#[tokio::test]
async fn a_member_that_asks_for_numbers_later_is_told_from_then_on() {
    let groups = groups(WhenFull::Close);
    let (connection, mut peer) = member(1);
    let (stranger, _stranger_peer) = member(2);
    let joined = groups.enter_at("room", &connection, ID, AT, false);
    assert!(joined.is_ok());
    groups.take_page("room", &page(1, 6, &[6]));
    settle(&groups).await;
    let at = Position {
        epoch: 1,
        offset: 6,
    };
    assert_eq!(groups.number("room", connection.as_ref()), Some(at));
    assert_eq!(groups.number("room", stranger.as_ref()), None);
    groups.take_page("room", &page(1, 9, &[9]));
    settle(&groups).await;
    assert_eq!(got(&mut peer), frames(&["6", &gap(1, 8), &message(1, 9)]));
}

#[tokio::test]
async fn members_get_all_pages_that_they_miss() {
    let groups = groups(WhenFull::Close);
    let (member, _peer) = member(1);
    let history = MemoryHistory::new(usize::MAX);
    let at = history.read("room", None, Limits::ALL, None).unwrap().head;
    assert!(groups.enter_at("room", &member, ID, at, false).is_ok());
    let envelope = envelope::of_message(&text(&"x".repeat(600_000)));
    for _ in 0..5 {
        history
            .append("room", &envelope, Limits::ALL, None)
            .unwrap();
    }
    let page = history.read("room", None, Limits::ALL, None).unwrap();
    assert_eq!((page.entries.len(), page.head.offset), (1, 5));
    groups.catch_up("room", &history, None).unwrap();
    assert_eq!(groups.position_of("room"), Some(page.head));
}

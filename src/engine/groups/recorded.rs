//! Groups with a history: members get each message in the order of its number, none twice.
//!
//! A process hears of a message from the process that has published it; several of them may tell in
//! another order than that of the numbers. So a group here knows its position, and a message that is
//! not the next one is not put into the queue: the missing ones are read from the history.

use std::{collections::HashSet, io, sync::Arc, time::Duration};

use super::{
    envelope,
    fan_out::gap,
    group::{Entry, Recorded, State},
    member::Member,
    memberships::{Joined, MemberId},
    notices::Notice,
    registry::Groups,
};
use crate::engine::history::{History, Limits, Page, Position, Watcher};

/// The outcome of a message that was offered to the members here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// They get it, or have got it, or there are none.
    Taken,
    /// Messages before it are missing.
    Behind,
}

/// Why a member cannot go on here from its position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// The group is further on: the member has to get what is between.
    Behind,
    /// The members here have not got so much yet, or the group has another epoch here: what they
    /// miss has to be read first.
    Early,
}

impl Mismatch {
    /// Whether a member that is at `at` can go on where the group is at `here`.
    pub(super) fn check(here: Option<Position>, at: Position) -> Result<(), Self> {
        match here {
            Some(here) if here == at => Ok(()),
            Some(here) if here.epoch == at.epoch && here.offset > at.offset => Err(Self::Behind),
            _ => Err(Self::Early),
        }
    }
}

impl Groups {
    /// Offers the message of an envelope to the members here. `None` for bytes that are no envelope.
    pub fn offer(self: &Arc<Self>, name: &str, at: Position, envelope: &[u8]) -> Option<Offer> {
        let entry = self.open(name, envelope).and_then(envelope::read)?;
        let Some(group) = self.find(name) else {
            return Some(Offer::Taken);
        };
        let mut state = group.state.lock();
        match &mut state.recorded {
            None => {}
            Some(recorded) if recorded.position.epoch != at.epoch => return Some(Offer::Behind),
            Some(recorded) if at.offset <= recorded.position.offset => return Some(Offer::Taken),
            Some(recorded) if at.offset > recorded.position.offset.saturating_add(1) => {
                return Some(Offer::Behind);
            }
            Some(recorded) => recorded.position = at,
        }
        let starts = self.fan_out.push(&mut state, with_position(entry, at));
        drop(state);
        self.fan_out.start_if(starts, &group);
        Some(Offer::Taken)
    }

    /// How far the members here are in the group `name`; `None` without members, and for a group
    /// without a history.
    pub fn position_of(&self, name: &str) -> Option<Position> {
        let group = self.find(name)?;
        let state = group.state.lock();
        (state.recorded.as_deref()).map(|recorded| recorded.position)
    }

    /// Whether the members here have got all messages after `at`, as far as they are: none was gone
    /// before it could be read.
    pub fn is_whole_since(&self, name: &str, at: Position) -> bool {
        let Some(group) = self.find(name) else {
            return true;
        };
        let state = group.state.lock();
        state.recorded.as_ref().is_none_or(|recorded| {
            let since = recorded.whole_since;
            since.epoch == at.epoch && since.offset <= at.offset
        })
    }

    /// Has `member`, which goes on as before, get messages with their positions from now on. Returns
    /// how far it is in the group `name`; `None` when it is no member, and for a group without a
    /// history.
    pub fn number(&self, name: &str, member: &dyn Member) -> Option<Position> {
        let group = self.find(name).filter(|_| !member.is_foreign())?;
        let number = |slot| group.state.lock().number(slot);
        member.memberships().at_place(&group, number)?
    }

    /// The groups with a history that have members here.
    pub fn recorded_names(&self) -> Vec<String> {
        let names = self.counts().into_iter().map(|(name, _)| name);
        names
            .filter(|name| self.position_of(name).is_some())
            .collect()
    }

    /// Hands the members here what is new to them in `page`, which was read after their position.
    pub fn take_page(self: &Arc<Self>, name: &str, page: &Page) {
        let Some(group) = self.find(name) else {
            return;
        };
        let mut state = group.state.lock();
        let starts = self.put_page(name, &mut state, page);
        drop(state);
        self.fan_out.start_if(starts, &group);
    }

    /// Hands the members here what they miss of the group `name`. Waits as [`History::read`].
    ///
    /// # Errors
    /// As [`History::read`].
    pub fn catch_up(
        self: &Arc<Self>,
        name: &str,
        history: &dyn History,
        patience: Option<Duration>,
    ) -> io::Result<()> {
        let mut before = None;
        loop {
            let position = self.position_of(name);
            // Members beyond the history's newest message get no further.
            if position.is_none() || position == before {
                return Ok(());
            }
            let page = history.read(name, position, Limits::ALL, patience)?;
            self.take_page(name, &page);
            if page.reached() == page.head {
                return Ok(());
            }
            before = position;
        }
    }

    /// Puts what is new in `page` into the queue. True when a task has to be started for it.
    fn put_page(&self, name: &str, state: &mut State, page: &Page) -> bool {
        let Some(recorded) = &mut state.recorded else {
            return false;
        };
        let (before, reached) = (recorded.position, page.reached());
        let is_same_epoch = before.epoch == reached.epoch;
        let after = if is_same_epoch { before.offset } else { 0 };
        if reached.offset <= after && is_same_epoch {
            return false;
        }
        recorded.position = reached;
        let tells = !recorded.numbered.is_empty();
        let first = (page.entries.iter()).find(|kept| kept.offset > after);
        let mut starts = false;
        if !is_same_epoch || first.is_none_or(|kept| kept.offset > after.saturating_add(1)) {
            self.notices()
                .add(Notice::Interrupted(vec![name.to_owned()]));
            let from = Position {
                epoch: reached.epoch,
                offset: first.map_or(reached.offset, |kept| kept.offset.saturating_sub(1)),
            };
            recorded.whole_since = from;
            if tells {
                starts |= self.fan_out.push(state, gap(name, from));
            }
        }
        for kept in page.entries.iter().filter(|kept| kept.offset > after) {
            let at = Position {
                epoch: reached.epoch,
                offset: kept.offset,
            };
            if let Some(entry) = self.open(name, &kept.envelope).and_then(envelope::read) {
                starts |= self.fan_out.push(state, with_position(entry, at));
            }
        }
        starts
    }

    /// Makes `member`, which has got all messages up to `at`, a member of the group `name`: it gets
    /// all later ones. When it is the first one here, those that came meanwhile have to be read.
    ///
    /// # Errors
    /// The group is not as far here, or further on.
    pub fn enter_at<M: Member + 'static>(
        self: &Arc<Self>,
        name: &str,
        member: &Arc<M>,
        id: MemberId,
        at: Position,
        is_numbered: bool,
    ) -> Result<Joined, Mismatch> {
        if self.is_foreign() || member.is_foreign() {
            return Ok(Joined::Over);
        }
        let mut checked = Ok(());
        let weak = Arc::downgrade(member);
        let enter = |state: &mut State| {
            if state.is_unused() {
                state.recorded = None;
            }
            let recorded = state.recorded.get_or_insert_with(|| {
                Box::new(Recorded {
                    position: at,
                    whole_since: at,
                    numbered: HashSet::new(),
                })
            });
            checked = Mismatch::check(Some(recorded.position), at);
            checked.ok()?;
            let (slot, is_first) = state.enter(weak);
            if let Some(recorded) = state.recorded.as_mut().filter(|_| is_numbered) {
                recorded.numbered.insert(slot);
            }
            Some((slot, is_first))
        };
        let joined = member
            .memberships()
            .join(id, || self.find(name), || self.enter(name, enter));
        checked?;
        if matches!(joined, Joined::First | Joined::More) {
            self.notify(name);
        }
        Ok(joined)
    }
}

impl Watcher for Groups {
    fn on_damage(&self, file: String) {
        self.notices().add(Notice::Damaged(file));
    }

    fn on_full_disk(&self, folder: String) {
        self.notices().add(Notice::FullDisk(folder));
    }
}

fn with_position(entry: Entry, at: Position) -> Entry {
    match entry {
        Entry::Message(message) => Entry::Message(message.at(at)),
        other @ (Entry::Close(_) | Entry::Gap(_) | Entry::Eviction(_)) => other,
    }
}

//! Which of several processes tells that a user has joined.
//!
//! A user may join in several processes before these know of each other. So a process in which that
//! happens *claims* the telling, by its [`Record`](super::Record), and waits until all claims that
//! may go first have come: its backend knows when that is. The first claim wins. Where the backend
//! has one order for all processes it is the first one in that; else it is the smallest one. The
//! process that has won says so by its next records, if there were other claims. The others wait for
//! that, or for its end: then the next one wins.

use smallvec::SmallVec;

use super::record::{Source, Telling};
use crate::engine::wakeup::call::Ticket;

/// A claim of this process.
#[derive(Debug, Default)]
pub(super) struct Claim {
    pub(super) id: u64,
    /// Whether all claims that may go first have come.
    is_ready: bool,
    /// Whether another process has told it.
    is_lost: bool,
    /// Whether other processes want to know how it ends.
    is_contested: bool,
    /// The processes whose claims go first.
    rivals: SmallVec<[Source; 1]>,
    /// Finished when there is nothing to wait for any more.
    waiting: Option<Ticket<()>>,
}

/// The outcome of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// This process tells; true when the others want to know that.
    Won(bool),
    /// Another process does.
    Lost,
}

impl Claim {
    pub(super) fn new(id: u64, waiting: Ticket<()>) -> Self {
        Self {
            id,
            waiting: Some(waiting),
            ..Self::default()
        }
    }

    pub(super) fn telling(&self) -> Telling {
        Telling::Claimed(self.id)
    }

    /// The process `source` has the claim `theirs`. With `is_in_order` what comes before
    /// [`Claim::be_ready`] goes first.
    pub(super) fn contest(&mut self, source: Source, theirs: u64, is_in_order: bool) {
        let goes_first = if is_in_order {
            !self.is_ready
        } else {
            theirs < self.id
        };
        if goes_first {
            self.rivals.push(source);
        } else {
            self.is_contested = true;
        }
    }

    /// All claims have come that may go before `id`, if that is this one.
    pub(super) fn be_ready(&mut self, id: u64) {
        if id == self.id {
            self.is_ready = true;
            self.finish_if_settled();
        }
    }

    /// The process `source` has ended.
    pub(super) fn forget(&mut self, source: Source) {
        self.rivals.retain(|rival| *rival != source);
        self.finish_if_settled();
    }

    /// The process `source` says what it does about the user. When a rival claims no more, it has told
    /// it, or knows that another one has, also where the user has left it and come back since.
    pub(super) fn note_telling(&mut self, source: Source, telling: Telling) {
        let is_settled = telling == Telling::Nothing && self.rivals.contains(&source);
        self.is_lost |= is_settled || telling == Telling::Told;
        self.finish_if_settled();
    }

    fn finish_if_settled(&mut self) {
        if self.is_lost || (self.is_ready && self.rivals.is_empty()) {
            if let Some(waiting) = self.waiting.take() {
                waiting.finish(());
            }
        }
    }

    /// Decides, whether or not everything has come that may be waited for: it is better told twice
    /// than by nobody.
    pub(super) fn decide(self) -> Decision {
        if self.is_lost {
            return Decision::Lost;
        }
        // Rivals that go first have not said that they tell it: they may be claiming still.
        Decision::Won(self.is_contested || !self.rivals.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::engine::wakeup::call::Wait;

    /// The claim 5, which has to wait for the process 1 and not for the process 2.
    fn contested(is_in_order: bool) -> (Claim, Arc<Wait>) {
        let (wait, ticket) = Wait::new(|| ());
        let mut claim = Claim::new(5, ticket);
        if is_in_order {
            claim.contest(1, 9, true);
            claim.be_ready(5);
            claim.contest(2, 3, true);
        } else {
            claim.contest(2, 9, false);
            claim.contest(1, 3, false);
            claim.be_ready(4);
            assert!(!claim.is_ready, "that was another claim");
            claim.be_ready(5);
        }
        assert_eq!(wait.outcome(), None);
        (claim, wait)
    }

    #[test]
    fn the_first_claim_wins_unless_its_process_ends() {
        for is_in_order in [true, false] {
            let (mut claim, wait) = contested(is_in_order);
            claim.note_telling(2, Telling::Told);
            assert_eq!(wait.outcome(), Some(()));
            assert_eq!(claim.decide(), Decision::Lost);

            let (mut claim, wait) = contested(is_in_order);
            claim.note_telling(2, Telling::Nothing);
            claim.note_telling(1, Telling::Claimed(9));
            assert_eq!(wait.outcome(), None);
            claim.note_telling(1, Telling::Nothing);
            assert_eq!(wait.outcome(), Some(()));
            assert_eq!(claim.decide(), Decision::Lost);

            let (mut claim, wait) = contested(is_in_order);
            claim.forget(2);
            assert_eq!(wait.outcome(), None);
            claim.forget(1);
            assert_eq!(wait.outcome(), Some(()));
            assert_eq!(claim.decide(), Decision::Won(true));
        }
    }

    #[test]
    fn a_process_that_has_waited_too_long_tells() {
        let (claim, _wait) = contested(true);
        assert_eq!(claim.decide(), Decision::Won(true));
        let (_wait, ticket) = Wait::new(|| ());
        assert_eq!(Claim::new(5, ticket).decide(), Decision::Won(false));
    }
}

//! A question that is under way.

use std::collections::HashSet;

use crate::engine::{
    backends::call::{Outcome, Reply, Ticket},
    presence::{Gathering, Source},
};

/// A question, and those that wait for the answers of all processes that got it.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) name: String,
    /// The answers, for a process that has no users in the group.
    pub(super) gathering: Option<Gathering>,
    pub(super) waiting: Vec<Ticket>,
    /// How many answers there will be, once that is known.
    pub(super) expected: Option<usize>,
    pub(super) answered: HashSet<Source>,
}

impl Pending {
    pub(super) fn new(name: &str, gathering: Option<Gathering>, ticket: Ticket) -> Self {
        Self {
            name: name.to_owned(),
            gathering,
            waiting: vec![ticket],
            expected: None,
            answered: HashSet::new(),
        }
    }

    pub(super) fn is_complete(&self) -> bool {
        self.expected
            .is_some_and(|expected| self.answered.len() >= expected)
    }

    /// Lets those go on that wait.
    pub(super) fn finish(&mut self, failure: Option<&str>) {
        let outcome: Outcome = match failure {
            None => Ok(Reply::Number(self.answered.len() as u64)),
            Some(reason) => Err(reason.into()),
        };
        for ticket in self.waiting.drain(..) {
            ticket.finish(outcome.clone());
        }
    }
}

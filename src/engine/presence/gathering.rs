//! The users of a group in which this process has none: made up of what others tell.

use std::sync::Arc;

use super::{
    facts::Facts,
    record::{Record, Source},
    room::State,
};
use crate::engine::base::clock;

/// The users of one group that other processes have told of.
#[derive(Debug, Default)]
pub struct Gathering(State);

impl Gathering {
    /// Notes what the process `source` tells of a user.
    pub fn note(&mut self, source: Source, record: &Record) {
        self.0.note(source, record, clock::now());
    }

    /// All users, with the number of their connections; those first that have joined first.
    pub fn members(&self) -> Vec<(Arc<Facts>, u32)> {
        let mut members = self.0.members(clock::now());
        members.sort_unstable();
        members
    }
}

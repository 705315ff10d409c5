//! One user in one group: connections here and in other processes.

use std::{sync::Arc, time::Instant};

use smallvec::SmallVec;

use super::{
    facts::{Facts, Info},
    record::{Record, Source},
};

/// The process in which the last connection of a user has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leaver {
    /// This one.
    Here,
    /// That one.
    There(Source),
    /// One that has ended itself, or several at once, none of which knows that it was the last.
    Unknown,
}

/// A user, as long as there is a connection, and for the grace after that.
#[derive(Debug)]
pub(super) struct Person {
    pub(super) facts: Arc<Facts>,
    /// When the present info was given.
    pub(super) stamp: u64,
    /// The places of its connections here, the oldest first, with what each says about the user.
    tabs: SmallVec<[(u32, Option<Info>); 1]>,
    /// Its connections in other processes.
    shares: SmallVec<[(Source, u32, Info); 1]>,
    /// When it is removed; only without connections.
    pub(super) until: Option<Instant>,
    pub(super) leaver: Leaver,
}

impl Person {
    pub(super) fn new(facts: Facts) -> Self {
        Self {
            facts: Arc::new(facts),
            stamp: 0,
            tabs: SmallVec::new(),
            shares: SmallVec::new(),
            until: None,
            leaver: Leaver::Here,
        }
    }

    /// The number of its connections in this process.
    pub(super) fn here(&self) -> u32 {
        u32::try_from(self.tabs.len()).unwrap_or(u32::MAX)
    }

    /// The number of its connections in all processes.
    pub(super) fn connections(&self) -> u32 {
        // Other processes tell the numbers.
        let there = self.shares.iter().map(|(_, count, _)| *count);
        there.fold(self.here(), u32::saturating_add)
    }

    /// Another connection here, or something else that a known one says about the user.
    pub(super) fn enter(&mut self, place: u32, info: Option<Info>) {
        self.until = None;
        self.leaver = Leaver::Unknown;
        let info = match self.tabs.iter().position(|(known, _)| *known == place) {
            // The latest to say something counts, so it goes to the end.
            Some(at) if info.is_some() => {
                self.tabs.remove(at);
                info
            }
            Some(_) => return,
            None => info,
        };
        self.tabs.push((place, info));
        self.choose_info();
    }

    /// A connection here has ended.
    pub(super) fn leave(&mut self, place: u32) {
        self.tabs.retain(|(known, _)| *known != place);
        self.choose_info();
        // Else it is left to those that have a connection. They may be leaving it to this process
        // at this moment.
        self.leaver = if self.connections() == 0 {
            Leaver::Here
        } else {
            Leaver::Unknown
        };
    }

    /// What the process `source` tells of its connections.
    pub(super) fn note(&mut self, source: Source, record: &Record) {
        let before = self.shares.len();
        self.shares.retain(|(known, ..)| *known != source);
        let had_some = self.shares.len() < before;
        let is_news = had_some || self.until.is_none();
        if record.facts.since < self.facts.since {
            Arc::make_mut(&mut self.facts)
                .since
                .clone_from(&record.facts.since);
        }
        if record.connections > 0 {
            self.until = None;
            self.leaver = Leaver::Unknown;
            self.shares
                .push((source, record.connections, record.info()));
        } else if is_news && !record.away.is_zero() {
            // Else it repeats what another process has told, or this one knows by itself; or the
            // source knows of a connection elsewhere.
            self.leaver = Leaver::There(source);
        }
        self.choose_info();
        if self.connections() == 0 && record.stamp > self.stamp {
            self.say(&record.info());
        }
    }

    /// The process `source` has ended. True when that took the last connection.
    pub(super) fn forget(&mut self, source: Source) -> bool {
        if self.leaver == Leaver::There(source) {
            self.leaver = Leaver::Unknown;
        }
        self.take_share(source, Leaver::Unknown)
    }

    /// The process `source` has no connection any more. True when that took the last one.
    pub(super) fn take_share(&mut self, source: Source, leaver: Leaver) -> bool {
        let before = self.shares.len();
        self.shares.retain(|(known, ..)| *known != source);
        if self.shares.len() == before {
            return false;
        }
        self.choose_info();
        if self.connections() > 0 {
            return false;
        }
        self.leaver = leaver;
        true
    }

    /// When the newest connection here that says something has said it; zero for none.
    pub(super) fn stamp_here(&self) -> u64 {
        self.info_here().map_or(0, |info| info.stamp)
    }

    /// What the newest connection here says about the user; without connections, what was known last.
    pub(super) fn facts_here(&self) -> Arc<Facts> {
        match self.info_here() {
            Some(info) if info.json != self.facts.info => Arc::new(Facts {
                info: info.json.clone(),
                ..(*self.facts).clone()
            }),
            _ => Arc::clone(&self.facts),
        }
    }

    fn info_here(&self) -> Option<&Info> {
        let said = self.tabs.iter().filter_map(|(_, info)| info.as_ref());
        said.max_by_key(|info| info.stamp)
    }

    /// The info of the latest connection counts. When that has ended, and others say nothing, its
    /// info stays.
    fn choose_info(&mut self) {
        let there = self.shares.iter().map(|(.., info)| info);
        let latest = there
            .filter(|info| info.stamp > 0)
            .chain(self.info_here())
            .max_by_key(|info| info.stamp);
        if let Some(latest) = latest.cloned() {
            self.say(&latest);
        }
    }

    fn say(&mut self, info: &Info) {
        self.stamp = info.stamp;
        if info.json != self.facts.info {
            Arc::make_mut(&mut self.facts).info.clone_from(&info.json);
        }
    }
}

//! One user in one group: connections here and in other processes.

use std::{sync::Arc, time::Instant};

use smallvec::SmallVec;

use super::{
    facts::{Contact, Facts, Info},
    record::{Record, Source},
};

/// The process in which the last connection of a user has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leaver {
    /// This one.
    Here,
    /// Another one.
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
    /// Its connections here, the one that has said something latest comes last.
    local: SmallVec<[LocalConnection; 1]>,
    /// Its connections in other processes.
    shares: SmallVec<[Share; 1]>,
    /// When it is removed; only without connections.
    pub(super) until: Option<Instant>,
    pub(super) leaver: Leaver,
    /// Whether this process tells that the user has joined, or has done so.
    pub(super) is_told: bool,
}

/// A connection here.
#[derive(Debug)]
struct LocalConnection {
    slot: u32,
    id: Arc<str>,
    info: Option<Info>,
}

/// The connections in another process.
#[derive(Debug)]
struct Share {
    source: Source,
    count: u32,
    info: Info,
    connections: Vec<Contact>,
}

/// Bytes of the connections that one process tells others of: their number is told always.
const MAX_TOLD_BYTES: usize = 7000;

impl Person {
    pub(super) fn new(facts: Facts) -> Self {
        Self {
            facts: Arc::new(facts),
            stamp: 0,
            local: SmallVec::new(),
            shares: SmallVec::new(),
            until: None,
            leaver: Leaver::Here,
            is_told: false,
        }
    }

    /// The number of its connections in this process.
    pub(super) fn here(&self) -> u32 {
        u32::try_from(self.local.len()).unwrap_or(u32::MAX)
    }

    /// The number of its connections in all processes.
    pub(super) fn connections(&self) -> u32 {
        // Other processes tell the numbers.
        let there = self.shares.iter().map(|share| share.count);
        there.fold(self.here(), u32::saturating_add)
    }

    /// Another connection here, or something else that a known one says about the user.
    pub(super) fn enter(&mut self, slot: u32, id: &Arc<str>, info: Option<Info>) {
        // Another process may have told that the user had left: then it tells this, too.
        self.is_told &= self.until.is_none();
        self.until = None;
        self.leaver = Leaver::Unknown;
        match self
            .local
            .iter()
            .position(|connection| connection.slot == slot)
        {
            // The latest to say something counts, so it goes to the end.
            Some(at) if info.is_some() => {
                self.local.remove(at);
            }
            Some(_) => return,
            None => {}
        }
        let id = Arc::clone(id);
        self.local.push(LocalConnection { slot, id, info });
        self.choose_info();
    }

    /// A connection here has ended.
    pub(super) fn leave(&mut self, slot: u32) {
        self.local.retain(|connection| connection.slot != slot);
        self.choose_info();
        // Else it is left to those that have a connection. They may be leaving it to this process
        // at this moment.
        self.leaver = if self.connections() == 0 {
            Leaver::Here
        } else {
            Leaver::Unknown
        };
    }

    /// Notes what the process `source` tells of its connections.
    pub(super) fn note(&mut self, source: Source, record: &Record) {
        let before = self.shares.len();
        self.shares.retain(|share| share.source != source);
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
            self.shares.push(Share {
                source,
                count: record.connections,
                info: record.info(),
                connections: record.facts.connections.clone(),
            });
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
        self.shares.retain(|share| share.source != source);
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

    /// The facts by the newest connection here; without connections, the last ones that were known.
    pub(super) fn facts_here(&self) -> Arc<Facts> {
        let info = self.info_here().map(|info| &info.json);
        let mut bytes = 0;
        let connections = self.contacts_here().take_while(|contact| {
            bytes += contact.id.len() + contact.info.len() + 8;
            bytes <= MAX_TOLD_BYTES
        });
        Arc::new(Facts {
            since: self.facts.since.clone(),
            key: self.facts.key.clone(),
            user: self.facts.user.clone(),
            info: info.unwrap_or(&self.facts.info).clone(),
            connections: connections.collect(),
        })
    }

    fn contacts_here(&self) -> impl Iterator<Item = Contact> {
        self.local.iter().map(|connection| Contact {
            id: Arc::clone(&connection.id),
            info: (connection.info.as_ref())
                .map_or_else(|| "null".into(), |info| info.json.as_str().into()),
        })
    }

    /// Notes which connections there are.
    fn list(&mut self) {
        let there = self.shares.iter().flat_map(|share| &share.connections);
        let mut all: Vec<Contact> = self.contacts_here().chain(there.cloned()).collect();
        all.sort_unstable();
        // One connection may be in the group under two names.
        all.dedup_by(|one, other| one.id == other.id);
        if all != self.facts.connections {
            Arc::make_mut(&mut self.facts).connections = all;
        }
    }

    fn info_here(&self) -> Option<&Info> {
        let said = self
            .local
            .iter()
            .filter_map(|connection| connection.info.as_ref());
        said.max_by_key(|info| info.stamp)
    }

    /// The info of the latest connection counts. When that has ended, and others say nothing, its
    /// info stays.
    fn choose_info(&mut self) {
        let there = self.shares.iter().map(|share| &share.info);
        let latest = there
            .filter(|info| info.stamp > 0)
            .chain(self.info_here())
            .max_by_key(|info| info.stamp);
        if let Some(latest) = latest.cloned() {
            self.say(&latest);
        }
        self.list();
    }

    fn say(&mut self, info: &Info) {
        self.stamp = info.stamp;
        if info.json != self.facts.info {
            Arc::make_mut(&mut self.facts).info.clone_from(&info.json);
        }
    }
}

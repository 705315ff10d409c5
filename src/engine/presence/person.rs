//! One user in one group: connections here and in other processes.

use std::{
    collections::hash_map::DefaultHasher,
    hash::{Hash, Hasher},
    sync::Arc,
    time::{Duration, Instant},
};

use smallvec::SmallVec;

use super::{
    facts::{Contact, Facts, Info},
    record::{Record, Source},
};

/// The process in which the last connection of a user has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Leaver {
    /// This one.
    #[default]
    Here,
    /// Another one.
    There(Source),
    /// One that has ended itself, or several at once, none of which knows that it was the last.
    Unknown,
}

/// A user, as long as there is a connection, and for the grace after that.
#[derive(Debug, Default)]
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
    /// Its connections that have moved, to a process that has not told of them yet, and until when
    /// that is waited for.
    expected: Vec<(Contact, Instant)>,
    /// When a connection has last moved from here.
    moved_at: Option<Instant>,
    /// A number for all that others see of its connections; zero before that was noted.
    pub(super) digest: u64,
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

/// Bytes of a user's connections that members and other processes are told of: each change tells all
/// of them.
const MAX_TOLD_BYTES: usize = 7000;
/// So long the others wait for the process to which a connection has moved: what it tells may come
/// after what the process tells that the connection has left.
const MOVE_TAKES: Duration = Duration::from_secs(1);

/// Leaves out the connections that are too many to be told.
fn cut(connections: &mut Vec<Contact>) {
    let mut bytes = 0_usize;
    let told = connections.iter().take_while(|contact| {
        bytes = bytes.saturating_add(contact.id.len() + contact.info.len() + 8);
        bytes <= MAX_TOLD_BYTES
    });
    let told = told.count();
    connections.truncate(told);
}

impl Person {
    pub(super) fn new(facts: Facts) -> Self {
        Self {
            facts: Arc::new(facts),
            ..Self::default()
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
        let expected = u32::try_from(self.expected.len()).unwrap_or(u32::MAX);
        there.fold(self.here().saturating_add(expected), u32::saturating_add)
    }

    /// A number for all that others see of its connections, which is the same in all processes.
    pub(super) fn digest_now(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.facts.key.hash(&mut hasher);
        for contact in &self.facts.connections {
            (&*contact.id, &*contact.info).hash(&mut hasher);
        }
        hasher.finish()
    }

    /// Whether another process has told that it has the connection at `slot`, too.
    pub(super) fn is_elsewhere(&self, slot: u32) -> bool {
        let connection = self.local.iter().find(|connection| connection.slot == slot);
        connection.is_some_and(|connection| {
            self.shares.iter().any(|share| {
                let named = &share.connections;
                // Some are not named, as they are too many.
                share.count as usize > named.len() || named.iter().any(|it| it.id == connection.id)
            })
        })
    }

    /// The info that the connection at `slot` gives of the user, and its moment.
    pub(super) fn said_by(&self, slot: u32) -> Option<(String, u64)> {
        let connection = self.local.iter().find(|connection| connection.slot == slot);
        let info = connection.and_then(|connection| connection.info.as_ref());
        info.map(|info| (info.json.clone(), info.stamp))
    }

    /// Whether a connection has just moved from here.
    pub(super) fn has_moved(&self, now: Instant) -> bool {
        self.moved_at.is_some_and(|at| now < at + MOVE_TAKES)
    }

    /// When the last process is given up that has not told of a connection.
    pub(super) fn expected_until(&self) -> Option<Instant> {
        self.expected.iter().map(|(_, until)| *until).max()
    }

    /// Gives up the connections of which no process has told in time. True when there were some.
    pub(super) fn give_up_expected(&mut self, now: Instant) -> bool {
        let before = self.expected.len();
        self.expected.retain(|(_, until)| *until > now);
        let is_change = self.expected.len() < before;
        if is_change {
            self.choose_info();
            self.leaver = Leaver::Unknown;
        }
        is_change
    }

    /// Forgets the expected connections of which a process has told now.
    fn forget_found(&mut self) {
        let (local, shares) = (&self.local, &self.shares);
        self.expected.retain(|(contact, _)| {
            let is_here = local.iter().any(|it| it.id == contact.id);
            let mut there = shares.iter().flat_map(|share| &share.connections);
            !is_here && !there.any(|it| it.id == contact.id)
        });
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
        self.forget_found();
        self.choose_info();
    }

    /// A connection here has ended, or another process goes on with it.
    pub(super) fn leave(&mut self, slot: u32, now: Instant) {
        if self.is_elsewhere(slot) {
            self.moved_at = Some(now);
        }
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
    pub(super) fn note(&mut self, source: Source, record: &Record, now: Instant) {
        let known = self.shares.iter().position(|share| share.source == source);
        let before = known.map(|at| self.shares.remove(at));
        let is_news = before.is_some() || self.until.is_none();
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
        if record.has_moved {
            let moved = before.into_iter().flat_map(|share| share.connections);
            let named = &record.facts.connections;
            let moved = moved.filter(|it| named.iter().all(|other| other.id != it.id));
            (self.expected).extend(moved.map(|contact| (contact, now + MOVE_TAKES)));
        }
        self.forget_found();
        self.choose_info();
        if self.connections() == 0 && record.stamp > self.stamp {
            self.set_info(&record.info());
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
        let mut connections: Vec<Contact> = self.contacts_here().collect();
        cut(&mut connections);
        Arc::new(Facts {
            since: self.facts.since.clone(),
            key: self.facts.key.clone(),
            user: self.facts.user.clone(),
            info: info.unwrap_or(&self.facts.info).clone(),
            connections,
        })
    }

    fn contacts_here(&self) -> impl Iterator<Item = Contact> {
        let stamp = |it: &LocalConnection| it.info.as_ref().map(|info| info.stamp);
        let mut all: Vec<&LocalConnection> = self.local.iter().rev().collect();
        // One connection may be in the group under two names: what it has said last counts.
        all.sort_by(|a, b| (&a.id, stamp(b)).cmp(&(&b.id, stamp(a))));
        all.dedup_by(|later, first| later.id == first.id);
        all.into_iter().map(|connection| Contact {
            id: Arc::clone(&connection.id),
            info: (connection.info.as_ref())
                .map_or_else(|| "null".into(), |info| info.json.as_str().into()),
        })
    }

    /// Notes which connections there are.
    fn list(&mut self) {
        let there = self.shares.iter().flat_map(|share| &share.connections);
        let expected = self.expected.iter().map(|(contact, _)| contact);
        let others = there.chain(expected).cloned();
        let mut all: Vec<Contact> = self.contacts_here().chain(others).collect();
        all.sort_unstable();
        // One that moves may be in two processes.
        all.dedup_by(|one, other| one.id == other.id);
        cut(&mut all);
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
            self.set_info(&latest);
        }
        self.list();
    }

    fn set_info(&mut self, info: &Info) {
        self.stamp = info.stamp;
        if info.json != self.facts.info {
            Arc::make_mut(&mut self.facts).info.clone_from(&info.json);
        }
    }
}

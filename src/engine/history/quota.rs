//! The bytes that the files of all groups may take.
//!
//! All processes count together, in a file ([`epochs`](super::epochs)). One reserves the blocks by which
//! a file is going to grow before it appends, and some more, so that most appends find theirs reserved.
//! If there is no room, it measures all files and removes the oldest messages first. If others were
//! quicker to use that room, it appends all the same, and removes more before the append ends.
//!
//! The count may be too high after a process was killed: each process measures the files at least with
//! a message after ten seconds. An append that needs no new block asks the system for nothing.

use std::{
    collections::BTreeSet,
    fs::File,
    io,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant, SystemTime},
};

use parking_lot::Mutex;
use rustix::fs::FileType;

use super::{
    epochs::{self, Epochs, Usage},
    group_file::{BLOCK, Content, HEAD_BYTES, Locked, alone, in_blocks},
    page::NUMBERING,
};
use crate::engine::resources::folder::{Folder, Item};

/// How often the files are looked at, at least, while messages are kept.
const PERIOD: Duration = Duration::from_secs(10);
/// The part of the limit that is freed at once, and that the numberings of groups without messages
/// may take.
const SLICE: u64 = 16;
/// How long a file that another process holds is waited for.
const PATIENCE: Duration = Duration::from_millis(2);
/// The part of the limit that a process reserves at once.
const RESERVED: u64 = 1024;
/// How much older than [`NUMBERING`] files may seem: reading a file makes it only so young.
const USED: Duration = Duration::from_secs(12 * 60 * 60);
/// Characters of a file's name.
pub(super) const NAME_LENGTH: usize = 32;

/// The limit of a history, and what is known of its files.
#[derive(Debug)]
pub(super) struct Quota {
    most: u64,
    boot: u64,
    known: Mutex<Known>,
    /// Held by the thread that looks at the files.
    alone: Mutex<()>,
    evicted: AtomicU64,
}

#[derive(Debug, Default)]
struct Known {
    /// The count of all processes when this one last asked for it.
    usage: Usage,
    /// The bytes that are reserved for this process and not used, as long as `usage.measures` is that
    /// of the file.
    reserve: u64,
    /// Whether this process could not count.
    is_wrong: bool,
    /// When groups that are not used any more were looked for.
    aged_at: Option<Instant>,
    /// The clocks at that moment, or at first.
    clocks: Clocks,
}

/// A moment on both clocks of the system: that of the times of files can be set.
#[derive(Debug)]
struct Clocks {
    steady: Instant,
    wall: SystemTime,
}

impl Default for Clocks {
    fn default() -> Self {
        Self {
            steady: Instant::now(),
            wall: SystemTime::now(),
        }
    }
}

impl Known {
    /// Notes what the count is now.
    fn learn(&mut self, usage: Usage) {
        if self.usage.measures != usage.measures {
            self.reserve = 0;
        }
        self.usage = usage;
    }

    /// Whether groups that are not used any more can be told by the age of their files. Not when the
    /// clock was set forward since the last time: members of the groups use these again soon.
    fn begin_aging(&mut self) -> bool {
        let before = std::mem::take(&mut self.clocks);
        self.aged_at = Some(Instant::now());
        age_of(before.wall) < before.steady.elapsed() + USED
    }

    fn take(&mut self, bytes: u64) -> bool {
        let left = self.reserve.checked_sub(bytes);
        self.reserve = left.unwrap_or(self.reserve);
        left.is_some()
    }
}

/// Whether there is nothing but the numbering in a group's file.
fn is_empty(file: &Item) -> bool {
    file.length <= HEAD_BYTES
}

impl Quota {
    pub(super) fn new(most: u64, boot: u64) -> Self {
        Self {
            most,
            boot,
            known: Mutex::default(),
            alone: Mutex::default(),
            evicted: AtomicU64::new(0),
        }
    }

    /// Whether a message could stay, beside the file of the epochs and no other one.
    pub(super) fn may_hold(&self, envelope: &[u8]) -> bool {
        alone(envelope).saturating_add(BLOCK) <= self.most
    }

    pub(super) fn note_evicted(&self, messages: u64) {
        self.evicted.fetch_add(messages, Ordering::Relaxed);
    }

    /// Reserves so many bytes, by which a file is going to grow; false if there is no room for them.
    pub(super) fn reserve(&self, epochs: &Epochs, bytes: u64) -> bool {
        let Ok(usage) = epochs.usage() else {
            // The next count fails, too, and is noted.
            return true;
        };
        {
            let mut known = self.known.lock();
            known.learn(usage);
            if known.take(bytes) {
                return true;
            }
        }
        let more = self.most / RESERVED / BLOCK * BLOCK;
        let reserved = epochs.reserve(|usage| {
            let free = self.most.saturating_sub(usage.bytes());
            let wanted = [bytes.saturating_add(more), bytes];
            wanted
                .into_iter()
                .find(|wanted| *wanted <= free)
                .unwrap_or(0)
        });
        let mut known = self.known.lock();
        known.is_wrong = reserved.is_err();
        if let Ok((found, usage)) = reserved {
            known.learn(usage);
            known.reserve = known.reserve.saturating_add(found);
        }
        known.is_wrong || known.take(bytes)
    }

    /// Notes what became of a file.
    pub(super) fn note(&self, epochs: &Epochs, file: &Locked<'_>) {
        let before = in_blocks(file.end_before()).saturating_add(file.reserved);
        let after = in_blocks(file.end());
        if after > before {
            let counted = epochs.reserve(|_| after - before);
            self.know(counted.map(|(_, usage)| usage));
        } else if after < before {
            self.know(epochs.free(before - after));
        }
    }

    fn know(&self, counted: io::Result<Usage>) {
        let mut known = self.known.lock();
        known.is_wrong = counted.is_err();
        if let Ok(usage) = counted {
            known.learn(usage);
        }
    }

    /// Whether the files have to be looked at.
    pub(super) fn is_due(&self) -> bool {
        let known = self.known.lock();
        known.is_wrong || known.usage.bytes() > self.most || is_period_over(known.aged_at)
    }

    /// Looks at the files, if that is due, or room lacks for `needs` bytes: removes those of groups that
    /// are not used any more, and drops the oldest messages while all together are too large, first of
    /// the groups that were not used for longest. `newest` is the file that was written last.
    /// Without `needs` the disk is full: room is made in any case.
    pub(super) fn enforce(
        &self,
        folder: &Folder,
        epochs: &Epochs,
        newest: &str,
        needs: Option<u64>,
        patience: Duration,
    ) {
        if let Some(_alone) = self.alone.try_lock_for(patience) {
            // Another thread may have done it.
            if needs.is_none_or(|needs| self.is_due() || self.lacks(epochs, needs)) {
                self.measure(folder, epochs, newest, needs, patience);
            }
        }
    }

    /// Whether there is no room for `needs` bytes more.
    fn lacks(&self, epochs: &Epochs, needs: u64) -> bool {
        let usage = epochs.usage().unwrap_or_default();
        needs > 0 && usage.bytes().saturating_add(needs) > self.most
    }

    /// The bytes that the files take now.
    pub(super) fn bytes(folder: &Folder) -> u64 {
        let epochs = folder.item(epochs::NAME).map_or(0, |item| item.taken);
        files(folder)
            .into_iter()
            .flatten()
            .fold(epochs, |sum, file| sum + file.taken)
    }

    pub(super) fn evicted(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed)
    }

    /// Without `needs` the disk is full.
    fn measure(
        &self,
        folder: &Folder,
        epochs: &Epochs,
        newest: &str,
        needs: Option<u64>,
        patience: Duration,
    ) {
        let begun = epochs.begin_measure();
        let Ok(mut files) = files(folder) else {
            // No descriptor is left for now: the next message tries again.
            return;
        };
        let is_aging = {
            let mut known = self.known.lock();
            is_period_over(known.aged_at) && known.begin_aging()
        };
        // Times of files are only as exact as the system's ticks.
        files.sort_by_key(|file| (file.name == newest, file.modified));
        let others = folder.item(epochs::NAME).map_or(0, |item| item.taken);
        let total = files.iter().fold(others, |sum, file| sum + file.taken);
        let numbered = files.iter().enumerate();
        let mut measurement = Measurement {
            quota: self,
            folder,
            epochs,
            patience,
            is_aging,
            is_full: needs.is_none(),
            goal: self.goal(total, needs),
            left: total,
            empty: (numbered.clone())
                .filter_map(|(at, file)| is_empty(file).then_some(at))
                .collect(),
        };
        for (at, file) in numbered {
            let is_old = measurement.is_old(file.modified, Duration::ZERO);
            if is_old || (measurement.surplus() > 0 && (measurement.is_full || !is_empty(file))) {
                measurement.reduce(&files, at, file.name == newest);
            }
        }
        self.know(begun.and_then(|begun| epochs.end_measure(begun, measurement.left)));
    }

    /// The bytes that files may take which take `total` now.
    fn goal(&self, total: u64, needs: Option<u64>) -> u64 {
        match needs {
            None => self.most.min(total / 2),
            Some(needs) if total.saturating_add(needs) > self.most => {
                (self.most - self.most / SLICE).saturating_sub(needs)
            }
            Some(_) => self.most,
        }
    }

    /// Looks at the files as if the period were over.
    #[cfg(test)]
    pub(super) fn enforce_later(&self, folder: &Folder, epochs: &Epochs, newest: &str) {
        self.known.lock().aged_at = None;
        self.enforce(folder, epochs, newest, Some(0), PATIENCE);
    }

    /// Makes it seem that the system's clock was set forward by so much.
    #[cfg(test)]
    pub(super) fn set_clock_forward(&self, by: Duration) {
        self.known.lock().clocks.wall -= by;
    }
}

/// A measurement at the files, which makes them smaller.
struct Measurement<'a> {
    quota: &'a Quota,
    folder: &'a Folder,
    epochs: &'a Epochs,
    patience: Duration,
    /// Whether groups that are not used any more are removed.
    is_aging: bool,
    /// Whether the disk is full.
    is_full: bool,
    /// Bytes that all files may take.
    goal: u64,
    /// Bytes that they take now.
    left: u64,
    /// The places of those without messages, which keep the numbering of their groups.
    empty: BTreeSet<usize>,
}

impl Measurement<'_> {
    fn surplus(&self) -> u64 {
        self.left.saturating_sub(self.goal)
    }

    /// Whether a file with messages for so long is that of a group that is not used any more.
    fn is_old(&self, modified: SystemTime, kept: Duration) -> bool {
        self.is_aging && age_of(modified) >= kept.saturating_add(NUMBERING + USED)
    }

    /// Makes the file at that place smaller. Of those without messages only the newest stay.
    fn reduce(&mut self, files: &[Item], at: usize, is_newest: bool) {
        let (file, surplus) = (&files[at], self.surplus());
        let Ok(length) = self.shorten(&file.name, surplus, is_newest || !self.is_full) else {
            return;
        };
        self.left = (self.left).saturating_sub(file.taken.saturating_sub(in_blocks(length)));
        self.empty.remove(&at);
        if length > 0 && length <= HEAD_BYTES && !is_newest {
            self.empty.insert(at);
        }
        let most_empty = self.quota.most / SLICE / BLOCK;
        while surplus > 0 && self.empty.len() as u64 > most_empty {
            let Some(file) = self.empty.pop_first().and_then(|at| files.get(at)) else {
                break;
            };
            if self.shorten(&file.name, surplus, false).is_ok() {
                self.left = self.left.saturating_sub(in_blocks(HEAD_BYTES));
            }
        }
    }

    /// Makes a file shorter by `surplus` bytes, and removes it when its group was not used for long.
    /// Without messages it stays if `is_kept`. Returns the length that is left.
    fn shorten(&self, name: &str, surplus: u64, is_kept: bool) -> io::Result<u64> {
        let deadline = Instant::now() + self.patience.min(PATIENCE);
        let file = self.folder.file(name, false)?;
        let mut locked = Locked::new(&file, self.quota.boot, deadline)?;
        if locked.is_removed() {
            return Ok(0);
        }
        let modified = locked.metadata.modified()?;
        let length = locked.metadata.len();
        let is_old = self.is_old(modified, locked.age());
        let remove = |locked: &mut Locked<'_>| {
            self.epochs.forget(name)?;
            locked.remove(self.folder, name)?;
            Ok(0)
        };
        if is_old || !matches!(locked.content, Content::Sound(_)) {
            return remove(&mut locked);
        }
        if surplus == 0 {
            return Ok(length);
        }
        let Ok(dropped) = locked.shrink(length.saturating_sub(surplus)) else {
            // It is broken.
            return remove(&mut locked);
        };
        self.quota.note_evicted(dropped);
        if locked.end() <= HEAD_BYTES && !is_kept {
            return remove(&mut locked);
        }
        // It is as old as before.
        file.set_modified(modified)?;
        Ok(locked.end())
    }
}

/// Notes that the group of a file is used: it is not old then.
pub(super) fn note_use(file: &File) {
    let modified = file.metadata().and_then(|found| found.modified());
    if modified.is_ok_and(|modified| age_of(modified) > USED) {
        // Those to which something was published since stay younger. Where this fails, the group's
        // next use tries again.
        let _ = file.set_modified(SystemTime::now() - USED);
    }
}

/// The files of groups.
fn files(folder: &Folder) -> io::Result<Vec<Item>> {
    let names = folder.names()?.into_iter();
    let items = names
        .filter(|name| name.len() == NAME_LENGTH)
        .filter_map(|name| folder.item(&name));
    Ok(items
        .filter(|item| item.kind == FileType::RegularFile)
        .collect())
}

fn age_of(modified: SystemTime) -> Duration {
    SystemTime::now()
        .duration_since(modified)
        .unwrap_or_default()
}

fn is_period_over(last: Option<Instant>) -> bool {
    last.is_none_or(|last| last.elapsed() >= PERIOD)
}

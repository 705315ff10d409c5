//! The bytes that the files of all groups may take.
//!
//! A process knows what it found when it last looked at the files, and what it has added since. It
//! looks again when both exceed the limit, when it has added a sixteenth of the limit, and with a
//! message after ten seconds. So the files of one process never exceed the limit when a message is
//! kept, and those of several processes by a sixteenth for each process. In between, an append asks
//! the system for nothing more.

use std::{
    collections::BTreeSet,
    io,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant, SystemTime},
};

use parking_lot::Mutex;
use rustix::fs::FileType;

use super::{
    epochs::{self, Epochs},
    log::{Content, HEAD_BYTES, Locked},
    page::NUMBERING,
};
use crate::engine::resources::folder::{Folder, Item};

/// How often the files are looked at, at least, while messages are kept.
const PERIOD: Duration = Duration::from_secs(10);
/// The part of the limit that is freed at once, that a process may add before it looks at the files,
/// and that the numberings of groups without messages may take.
const SLICE: u64 = 16;
/// How long a file that another process holds is waited for.
const PATIENCE: Duration = Duration::from_millis(2);
/// Bytes of a block of the disk, which a file takes whole.
const BLOCK: u64 = 4096;
/// Characters of a file's name.
pub(super) const NAME_LENGTH: usize = 32;

/// The limit of a history, and what is known of its files.
#[derive(Debug)]
pub(super) struct Quota {
    most: u64,
    boot: u64,
    usage: Mutex<Usage>,
    /// Held by the thread that looks at the files.
    alone: Mutex<()>,
    evicted: AtomicU64,
}

#[derive(Debug, Default)]
struct Usage {
    /// The bytes that were found last.
    found: u64,
    /// Those that this process has added since.
    added: i64,
    /// When groups that are not used any more were looked for.
    aged_at: Option<Instant>,
}

/// A file of the folder.
#[derive(Debug)]
struct Stored {
    name: String,
    length: u64,
    /// Bytes of its blocks.
    taken: u64,
    modified: SystemTime,
}

impl Stored {
    /// Whether there is nothing but the numbering.
    fn is_empty(&self) -> bool {
        self.length <= HEAD_BYTES
    }
}

impl Quota {
    pub(super) fn new(most: u64, boot: u64) -> Self {
        Self {
            most,
            boot,
            usage: Mutex::default(),
            alone: Mutex::default(),
            evicted: AtomicU64::new(0),
        }
    }

    /// Notes that a file which ended at `before` now ends at `after`.
    pub(super) fn note(&self, before: u64, after: u64) {
        let (before, after) = (in_blocks(before), in_blocks(after));
        let more = i64::try_from(after.abs_diff(before)).unwrap_or(i64::MAX);
        let mut usage = self.usage.lock();
        usage.added = if after < before {
            usage.added.saturating_sub(more)
        } else {
            usage.added.saturating_add(more)
        };
    }

    /// Whether the files have to be looked at.
    pub(super) fn is_due(&self) -> bool {
        let usage = self.usage.lock();
        usage.found.saturating_add_signed(usage.added) > self.most
            || u64::try_from(usage.added).is_ok_and(|added| added > self.most / SLICE)
            || is_period_over(usage.aged_at)
    }

    /// Looks at the files, if that is due: removes those of groups that are not used any more, and
    /// drops the oldest messages while all together are too large, first of the groups to which
    /// nothing was published for longest. `newest` is the file that was written last.
    pub(super) fn enforce(
        &self,
        folder: &Folder,
        epochs: &Epochs,
        newest: &str,
        patience: Duration,
    ) {
        if let Some(_alone) = self.alone.try_lock_for(patience) {
            // Another thread may have done it.
            if self.is_due() {
                self.look(folder, epochs, newest, false, patience);
            }
        }
    }

    /// Makes room where the disk has none: removes files, the oldest first.
    pub(super) fn make_room(
        &self,
        folder: &Folder,
        epochs: &Epochs,
        newest: &str,
        patience: Duration,
    ) {
        if let Some(_alone) = self.alone.try_lock_for(patience) {
            self.look(folder, epochs, newest, true, patience);
        }
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

    fn look(
        &self,
        folder: &Folder,
        epochs: &Epochs,
        newest: &str,
        is_full: bool,
        patience: Duration,
    ) {
        let (added, is_aging) = {
            let mut usage = self.usage.lock();
            let is_aging = is_period_over(usage.aged_at);
            (std::mem::take(&mut usage.added), is_aging)
        };
        let Ok(mut files) = files(folder) else {
            // No descriptor is left for now: the next message tries again.
            let mut usage = self.usage.lock();
            usage.added = usage.added.saturating_add(added);
            return;
        };
        if is_aging {
            self.usage.lock().aged_at = Some(Instant::now());
        }
        // Times of files are only as exact as the system's ticks.
        files.sort_by_key(|file| (file.name == newest, file.modified));
        let others = folder.item(epochs::NAME).map_or(0, |item| item.taken);
        let total = files.iter().fold(others, |sum, file| sum + file.taken);
        let goal = match (is_full, total > self.most) {
            (true, _) => self.most.min(total / 2),
            (false, true) => self.most - self.most / SLICE,
            (false, false) => self.most,
        };
        // Files without messages keep the numbering of their groups: so many of them, the newest.
        let most_empty = usize::try_from(self.most / SLICE / BLOCK).unwrap_or(usize::MAX);
        let numbered = files.iter().enumerate();
        let mut empty: BTreeSet<_> = (numbered.clone())
            .filter_map(|(at, file)| file.is_empty().then_some(at))
            .collect();
        let mut left = total;
        let reduce = |file: &Stored, surplus: u64, is_kept: bool| {
            let deadline = Instant::now() + patience.min(PATIENCE);
            self.reduce(folder, epochs, &file.name, surplus, is_kept, deadline)
        };
        for (at, file) in numbered {
            let surplus = left.saturating_sub(goal);
            let is_old = is_aging && age_of(file.modified) >= NUMBERING;
            if !is_old && (surplus == 0 || (file.is_empty() && !is_full)) {
                continue;
            }
            let is_newest = file.name == newest;
            let Ok(length) = reduce(file, surplus, is_newest || !is_full) else {
                continue;
            };
            left = left.saturating_sub(file.taken.saturating_sub(in_blocks(length)));
            empty.remove(&at);
            if length > 0 && length <= HEAD_BYTES && !is_newest {
                empty.insert(at);
            }
            while surplus > 0 && empty.len() > most_empty {
                let Some(file) = empty.pop_first().and_then(|at| files.get(at)) else {
                    break;
                };
                if reduce(file, surplus, false).is_ok() {
                    left = left.saturating_sub(in_blocks(HEAD_BYTES));
                }
            }
        }
        self.usage.lock().found = left;
    }

    /// Makes a file shorter by `surplus` bytes, and removes it when its group was not used for long.
    /// Without messages it stays if `is_kept`. Gives the length that is left.
    fn reduce(
        &self,
        folder: &Folder,
        epochs: &Epochs,
        name: &str,
        surplus: u64,
        is_kept: bool,
        deadline: Instant,
    ) -> io::Result<u64> {
        let file = folder.file(name, false)?;
        let mut locked = Locked::new(&file, self.boot, deadline)?;
        if locked.is_removed() {
            return Ok(0);
        }
        let modified = locked.metadata().modified()?;
        let length = locked.metadata().len();
        let is_old = age_of(modified) >= locked.age().saturating_add(NUMBERING);
        let remove = |locked: &mut Locked<'_>| {
            epochs.forget(name)?;
            locked.remove(folder, name)?;
            Ok(0)
        };
        if is_old || !matches!(locked.content(), Content::Sound(_)) {
            return remove(&mut locked);
        }
        if surplus == 0 {
            return Ok(length);
        }
        let Ok(dropped) = locked.shrink(length.saturating_sub(surplus)) else {
            // It is broken.
            return remove(&mut locked);
        };
        self.evicted.fetch_add(dropped, Ordering::Relaxed);
        if locked.end() <= HEAD_BYTES && !is_kept {
            return remove(&mut locked);
        }
        // It is as old as before.
        file.set_modified(modified)?;
        Ok(locked.end())
    }

    /// Looks at the files as if the period were over.
    #[cfg(test)]
    pub(super) fn enforce_later(&self, folder: &Folder, epochs: &Epochs, newest: &str) {
        self.usage.lock().aged_at = None;
        self.enforce(folder, epochs, newest, PATIENCE);
    }
}

/// The files of groups.
fn files(folder: &Folder) -> io::Result<Vec<Stored>> {
    let names = folder.names()?.into_iter();
    let stored = names
        .filter(|name| name.len() == NAME_LENGTH)
        .filter_map(|name| {
            let Item {
                kind,
                length,
                taken,
                modified,
            } = folder.item(&name)?;
            (kind == FileType::RegularFile).then_some(Stored {
                name,
                length,
                taken,
                modified,
            })
        });
    Ok(stored.collect())
}

fn in_blocks(length: u64) -> u64 {
    length.next_multiple_of(BLOCK)
}

fn age_of(modified: SystemTime) -> Duration {
    SystemTime::now()
        .duration_since(modified)
        .unwrap_or_default()
}

fn is_period_over(last: Option<Instant>) -> bool {
    last.is_none_or(|last| last.elapsed() >= PERIOD)
}

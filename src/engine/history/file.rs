//! History in files, one for each group, that all processes of a machine share.

use std::{
    collections::HashMap,
    fs::{self, DirBuilder, File},
    io::{self, ErrorKind},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use super::{
    log::{Found, Head, Locked, held_for_too_long, lock},
    page::{Limits, Page, Position},
};

/// Files that are kept open.
const MOST_OPEN: usize = 64;
/// How often all files are looked at.
const SWEEP_PERIOD: Duration = Duration::from_secs(1);
/// How long a group without new messages keeps its numbering.
const NUMBERING: Duration = Duration::from_secs(24 * 60 * 60);
/// Bytes of a name: half of its SHA-256.
const NAME_BYTES: usize = 16;

/// See [`History::in_files`](super::History::in_files).
#[derive(Debug)]
pub struct FileHistory {
    folder: PathBuf,
    most: u64,
    patience: Duration,
    open: Mutex<HashMap<PathBuf, Arc<Shared>>>,
    sweep: Mutex<Option<Instant>>,
    bytes: AtomicU64,
    evicted: AtomicU64,
}

/// A group's file, open.
#[derive(Debug)]
struct Shared {
    file: File,
    /// Locks of files do not keep the threads of one process apart.
    found: Mutex<Found>,
}

impl FileHistory {
    pub(super) fn open(path: &Path, most: u64, patience: Duration) -> io::Result<Self> {
        match DirBuilder::new().mode(0o700).recursive(true).create(path) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(with_path(path, &error));
            }
            _ => {}
        }
        Ok(Self {
            folder: path.to_owned(),
            most,
            patience,
            open: Mutex::default(),
            sweep: Mutex::new(None),
            bytes: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
        })
    }

    pub(super) fn append(
        &self,
        name: &str,
        envelope: &[u8],
        limits: Limits,
    ) -> io::Result<Position> {
        self.sweep(false);
        let first_try = self.with(name, |locked| locked.append(envelope, limits));
        match first_try {
            Err(error) if error.kind() == ErrorKind::StorageFull => {
                // Older groups make room for newer ones.
                self.sweep(true);
                self.with(name, |locked| locked.append(envelope, limits))
            }
            other => other,
        }
        .map_err(|error| with_path(&self.folder, &error))
    }

    pub(super) fn read(
        &self,
        name: &str,
        after: Option<Position>,
        limits: Limits,
    ) -> io::Result<Page> {
        self.with(name, |locked| locked.read(after, limits))
            .map_err(|error| with_path(&self.folder, &error))
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(super) fn evicted(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed)
    }

    fn path_of(&self, name: &str) -> PathBuf {
        let digest = Sha256::digest(name.as_bytes());
        let half = digest.get(..NAME_BYTES).unwrap_or_default();
        self.folder.join(data_encoding::HEXLOWER.encode(half))
    }

    /// Calls `act` with the file of the group `name`, locked. Makes it if need be.
    fn with<T>(
        &self,
        name: &str,
        act: impl FnOnce(&mut Locked<'_>) -> io::Result<T>,
    ) -> io::Result<T> {
        let path = self.path_of(name);
        let deadline = Instant::now() + self.patience;
        loop {
            let shared = self.shared(&path)?;
            let Some(found) = shared.found.try_lock_until(deadline) else {
                return Err(held_for_too_long());
            };
            lock(&shared.file, deadline)?;
            let mut locked = Locked {
                file: &shared.file,
                found,
                head: Head::new(),
            };
            let head = Head::read(locked.file)?;
            let is_removed =
                head.is_some_and(|head| head.is_removed) || locked.file.metadata()?.nlink() == 0;
            if is_removed {
                drop(locked);
                self.forget(&path, &shared);
                continue;
            }
            match head {
                Some(head) => locked.head = head,
                // New, or what a crash of the whole machine has left.
                None => locked.head.write(locked.file)?,
            }
            return act(&mut locked);
        }
    }

    /// The open file at `path`.
    fn shared(&self, path: &Path) -> io::Result<Arc<Shared>> {
        let mut open = self.open.lock();
        if let Some(shared) = open.get(path) {
            return Ok(Arc::clone(shared));
        }
        let file = open_file(path).or_else(|error| {
            if error.kind() != ErrorKind::NotFound {
                return Err(error);
            }
            // The folder was deleted.
            DirBuilder::new()
                .mode(0o700)
                .recursive(true)
                .create(&self.folder)?;
            open_file(path)
        })?;
        let shared = Arc::new(Shared {
            file,
            found: Mutex::default(),
        });
        if open.len() >= MOST_OPEN {
            // Any of them: a busy one is opened again soon.
            if let Some(other) = open.keys().next().cloned() {
                open.remove(&other);
            }
        }
        open.insert(path.to_owned(), Arc::clone(&shared));
        Ok(shared)
    }

    fn forget(&self, path: &Path, shared: &Arc<Shared>) {
        let mut open = self.open.lock();
        if open
            .get(path)
            .is_some_and(|known| Arc::ptr_eq(known, shared))
        {
            open.remove(path);
        }
    }

    /// Removes files of groups that were not used for long, and the oldest ones while all together
    /// are too large, or `has_no_room`. Not more often than each second.
    fn sweep(&self, has_no_room: bool) {
        {
            let mut last = self.sweep.lock();
            let now = Instant::now();
            if !has_no_room && last.is_some_and(|last| now < last + SWEEP_PERIOD) {
                return;
            }
            *last = Some(now);
        }
        let Ok(entries) = fs::read_dir(&self.folder) else {
            return;
        };
        let mut files: Vec<_> = entries
            .filter_map(Result::ok)
            .filter_map(|entry| {
                let found = entry.metadata().ok()?;
                let is_ours = found.is_file() && entry.file_name().len() == 2 * NAME_BYTES;
                let modified = found.modified().ok()?;
                is_ours.then(|| (modified, found.len(), entry.path()))
            })
            .collect();
        files.sort_unstable();
        let total: u64 = files.iter().map(|(_, length, _)| length).sum();
        let mut left = total;
        let goal = if has_no_room {
            self.most.min(total / 2)
        } else {
            self.most
        };
        let now = SystemTime::now();
        for (modified, length, path) in files {
            let age = now.duration_since(modified).unwrap_or_default();
            if left <= goal && age < NUMBERING {
                break;
            }
            if let Ok(count) = remove(&path) {
                left -= length;
                self.evicted.fetch_add(count, Ordering::Relaxed);
            }
        }
        self.bytes.store(left, Ordering::Relaxed);
    }
}

/// Removes a file; gives the number of its records.
fn remove(path: &Path) -> io::Result<u64> {
    let file = File::options().read(true).write(true).open(path)?;
    lock(&file, Instant::now())?;
    let count = match Head::read(&file)? {
        Some(mut head) => {
            head.is_removed = true;
            head.write(&file)?;
            head.count
        }
        None => 0,
    };
    fs::remove_file(path)?;
    Ok(count)
}

fn open_file(path: &Path) -> io::Result<File> {
    File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
        .open(path)
}

fn with_path(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        size: 3,
        age: Duration::from_secs(60),
    };

    fn history(name: &str, most: u64) -> FileHistory {
        let path = std::env::temp_dir().join(format!("history-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        FileHistory::open(&path, most, Duration::from_millis(20)).unwrap()
    }

    fn offsets(page: &Page) -> Vec<u64> {
        page.entries.iter().map(|kept| kept.offset).collect()
    }

    #[test]
    fn records_are_moved_when_dead_ones_take_more() {
        let history = history("moved", u64::MAX);
        let envelope = [7; 10_000];
        for number in 1..=50 {
            let position = history.append("room", &envelope, LIMITS).unwrap();
            assert_eq!(position.offset, number);
            let page = history.read("room", None, LIMITS).unwrap();
            assert_eq!(page.head, position);
            assert_eq!(
                offsets(&page),
                (number.saturating_sub(2).max(1)..=number).collect::<Vec<_>>()
            );
            assert!(
                page.entries
                    .iter()
                    .all(|kept| kept.envelope[..] == envelope)
            );
            let length = fs::metadata(history.path_of("room")).unwrap().len();
            assert!(length < 200_000, "{length}");
        }
        fs::remove_dir_all(&history.folder).unwrap();
    }

    #[test]
    fn a_file_that_another_process_holds_is_not_waited_for_longer_than_that() {
        let history = history("held", u64::MAX);
        history.append("room", b"", LIMITS).unwrap();
        let other = File::open(history.path_of("room")).unwrap();
        lock(&other, Instant::now()).unwrap();
        let error = history.append("room", b"", LIMITS).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        drop(other);
        assert_eq!(history.append("room", b"", LIMITS).unwrap().offset, 2);
        fs::remove_dir_all(&history.folder).unwrap();
    }

    #[test]
    fn the_oldest_files_make_room_also_while_they_are_open() {
        let history = history("room", 25_000);
        let first = history.append("first", &[0; 10_000], LIMITS).unwrap();
        for number in 0..9 {
            history.sweep(false);
            *history.sweep.lock() = None;
            history
                .append(&number.to_string(), &[0; 10_000], LIMITS)
                .unwrap();
        }
        *history.sweep.lock() = None;
        history.sweep(false);
        assert!(history.bytes() <= 25_000);
        assert!(history.evicted() > 0);
        let page = history.read("first", Some(first), LIMITS).unwrap();
        assert_ne!(page.head.epoch, first.epoch);
        fs::remove_dir_all(&history.folder).unwrap();
    }
}

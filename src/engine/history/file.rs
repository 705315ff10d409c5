//! History in files, one for each group, that all processes of a machine share.
//!
//! A file has a head and, behind it, records one after the other. To append, a process locks the
//! file, writes the record behind the last one, and then the head, which says where the first record
//! begins and the last one ends. So a process that is killed leaves whole records only, and the
//! system ends its lock.
//!
//! Records that are too many or too old lie before the first one. When they take more than the
//! others, these are copied over them: as both do not overlap, the old ones are whole until the head
//! names the new ones.

use std::{
    collections::HashMap,
    fs::{self, DirBuilder, File},
    io::{self, ErrorKind},
    os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use rustix::fs::{FlockOperation, flock};
use sha2::{Digest, Sha256};

use super::page::{Kept, Limits, Page, Position, new_epoch, now_ms, offset_after, oldest_ms};

const MAGIC: u64 = u64::from_be_bytes(*b"dwshist1");
/// Bytes of the head: eight numbers.
const HEAD: usize = 64;
const HEAD_BYTES: u64 = HEAD as u64;
/// Bytes of a record before its envelope: length, offset and time.
const RECORD: usize = 20;
const RECORD_BYTES: u64 = RECORD as u64;
/// Dead records that take less than this stay.
const COMPACT_BYTES: u64 = 64 * 1024;
/// Files that are kept open.
const MOST_OPEN: usize = 64;
/// The pauses of a process that waits for a lock.
const PAUSE: Duration = Duration::from_micros(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(2);
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

/// A record that this process has seen: where to go on reading.
#[derive(Clone, Copy, Debug, Default)]
struct Found {
    epoch: u64,
    moves: u64,
    /// The offset of the last record before `at`.
    offset: u64,
    at: u64,
}

/// The head of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Head {
    epoch: u64,
    /// The offset of the newest record.
    last: u64,
    /// Records.
    count: u64,
    /// Where the first one begins.
    start: u64,
    /// Where the last one ends.
    end: u64,
    /// How often records were moved within the file.
    moves: u64,
    /// Whether the file was removed while other processes have it open.
    is_removed: bool,
}

impl Head {
    fn new() -> Self {
        Self {
            epoch: new_epoch(),
            last: 0,
            count: 0,
            start: HEAD_BYTES,
            end: HEAD_BYTES,
            moves: 0,
            is_removed: false,
        }
    }

    fn position(&self) -> Position {
        Position {
            epoch: self.epoch,
            offset: self.last,
        }
    }

    /// The head of a file; `None` for one that has none yet, or is broken.
    fn read(file: &File) -> io::Result<Option<Self>> {
        let mut bytes = [0; HEAD];
        match file.read_exact_at(&mut bytes, 0) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
            other => other?,
        }
        let number = |at: usize| {
            let part = bytes.get(at * 8..).and_then(|rest| rest.first_chunk());
            part.map_or(0, |part| u64::from_le_bytes(*part))
        };
        let head = Self {
            epoch: number(1),
            last: number(2),
            count: number(3),
            start: number(4),
            end: number(5),
            moves: number(6),
            is_removed: number(7) != 0,
        };
        let is_sound = number(0) == MAGIC
            && head.start >= HEAD_BYTES
            && head.start <= head.end
            && head.count <= head.last
            && head.end <= file.metadata()?.len();
        Ok(is_sound.then_some(head))
    }

    fn write(&self, file: &File) -> io::Result<()> {
        let numbers = [
            MAGIC,
            self.epoch,
            self.last,
            self.count,
            self.start,
            self.end,
            self.moves,
            u64::from(self.is_removed),
        ];
        let mut bytes = Vec::with_capacity(HEAD);
        for number in numbers {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        file.write_all_at(&bytes, 0)
    }
}

/// What stands before an envelope.
#[derive(Clone, Copy, Debug)]
struct RecordHead {
    length: u32,
    offset: u64,
    sent_at: u64,
}

impl RecordHead {
    fn parse(bytes: &[u8; RECORD]) -> Self {
        let [a, b, c, d, rest @ ..] = *bytes;
        let (offset, sent_at) = rest.split_at(8);
        let number = |part: &[u8]| part.first_chunk().map_or(0, |p| u64::from_le_bytes(*p));
        Self {
            length: u32::from_le_bytes([a, b, c, d]),
            offset: number(offset),
            sent_at: number(sent_at),
        }
    }

    fn read(file: &File, at: u64) -> io::Result<Self> {
        let mut bytes = [0; RECORD];
        file.read_exact_at(&mut bytes, at)?;
        Ok(Self::parse(&bytes))
    }

    /// Bytes of the whole record.
    fn size(&self) -> u64 {
        RECORD_BYTES + u64::from(self.length)
    }

    fn write(&self, envelope: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(envelope.len() + RECORD);
        bytes.extend_from_slice(&self.length.to_le_bytes());
        bytes.extend_from_slice(&self.offset.to_le_bytes());
        bytes.extend_from_slice(&self.sent_at.to_le_bytes());
        bytes.extend_from_slice(envelope);
        bytes
    }
}

/// A file that this thread of this process has alone.
struct Locked<'a> {
    file: &'a File,
    found: MutexGuard<'a, Found>,
    head: Head,
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        // A lock that cannot be given back ends with the file.
        let _ = flock(self.file, FlockOperation::Unlock);
    }
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
        Some(head) => {
            let removed = Head {
                is_removed: true,
                ..head
            };
            removed.write(&file)?;
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

/// Locks a file for this process alone.
fn lock(file: &File, deadline: Instant) -> io::Result<()> {
    let mut pause = PAUSE;
    loop {
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(error) if io::Error::from(error).kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
        if Instant::now() >= deadline {
            return Err(held_for_too_long());
        }
        thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

fn held_for_too_long() -> io::Error {
    io::Error::new(
        ErrorKind::TimedOut,
        "another process holds the history of the group for too long",
    )
}

fn with_path(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

impl Locked<'_> {
    fn append(&mut self, envelope: &[u8], limits: Limits) -> io::Result<Position> {
        let now = now_ms();
        let record = RecordHead {
            length: u32::try_from(envelope.len()).map_err(|_| ErrorKind::FileTooLarge)?,
            offset: self.head.last + 1,
            sent_at: now,
        };
        let mut head = self.head;
        self.file.write_all_at(&record.write(envelope), head.end)?;
        head.end += record.size();
        head.last += 1;
        head.count += 1;
        self.trim(&mut head, limits, now)?;
        head.write(self.file)?;
        self.head = head;
        self.compact()?;
        Ok(self.head.position())
    }

    /// Moves the beginning of `head` behind records that are too many or too old.
    fn trim(&self, head: &mut Head, limits: Limits, now: u64) -> io::Result<()> {
        let oldest = oldest_ms(now, limits);
        while head.count > 0 {
            let first = RecordHead::read(self.file, head.start)?;
            if head.count <= limits.size as u64 && first.sent_at >= oldest {
                break;
            }
            head.start += first.size();
            head.count -= 1;
        }
        Ok(())
    }

    fn compact(&mut self) -> io::Result<()> {
        let head = self.head;
        let (dead, live) = (head.start - HEAD_BYTES, head.end - head.start);
        if dead < COMPACT_BYTES || dead < live {
            return Ok(());
        }
        let records = self.bytes(head.start, live)?;
        self.file.write_all_at(&records, HEAD_BYTES)?;
        self.head.start = HEAD_BYTES;
        self.head.end = HEAD_BYTES + live;
        self.head.moves += 1;
        self.head.write(self.file)?;
        self.file.set_len(self.head.end)
    }

    fn bytes(&self, at: u64, length: u64) -> io::Result<Vec<u8>> {
        let length = usize::try_from(length).map_err(|_| ErrorKind::FileTooLarge)?;
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, at)?;
        Ok(bytes)
    }

    fn read(&mut self, after: Option<Position>, limits: Limits) -> io::Result<Page> {
        let head = self.head;
        let first = offset_after(after, head.position());
        let mut page = Page {
            head: head.position(),
            entries: Vec::new(),
        };
        if first >= head.last || limits.size == 0 {
            return Ok(page);
        }
        // The one that reads on begins where it has ended.
        let found = *self.found;
        let goes_on = (found.epoch, found.moves) == (head.epoch, head.moves)
            && found.offset <= first
            && (head.start..=head.end).contains(&found.at);
        let begin = if goes_on { found.at } else { head.start };
        let mut rest = Bytes::from(self.bytes(begin, head.end - begin)?);
        let oldest = oldest_ms(now_ms(), limits);
        while let Some(bytes) = rest.first_chunk() {
            let record = RecordHead::parse(bytes);
            let size = usize::try_from(record.size()).unwrap_or(usize::MAX);
            if size > rest.len() {
                return Err(io::Error::new(ErrorKind::InvalidData, "a record is broken"));
            }
            let whole = rest.split_to(size);
            if record.offset > first && record.sent_at >= oldest {
                page.entries.push(Kept {
                    offset: record.offset,
                    sent_at: record.sent_at,
                    envelope: whole.slice(RECORD..),
                });
            }
        }
        *self.found = Found {
            epoch: head.epoch,
            moves: head.moves,
            offset: head.last,
            at: head.end,
        };
        // Those beyond the size that was asked for, when another process keeps more.
        let surplus = page.entries.len().saturating_sub(limits.size);
        page.entries.drain(..surplus);
        Ok(page)
    }
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

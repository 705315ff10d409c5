//! History in files, one for each group, that all processes of a machine share.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, ErrorKind},
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use super::{
    log::{Found, Locked, boot, held_for_too_long},
    page::{Limits, Page, Position},
    quota::{NAME_LENGTH, Quota},
};
use crate::engine::resources::folder::{Folder, Place};

/// The folder of the files, in that of the place.
const NAME: &str = "history";
/// Files that are kept open.
const MOST_OPEN: usize = 64;

/// See [`History::in_files`](super::History::in_files).
#[derive(Debug)]
pub struct FileHistory {
    place: Arc<Place>,
    timeout: Duration,
    boot: u64,
    open: Mutex<Opened>,
    quota: Quota,
}

/// What is open.
#[derive(Debug)]
struct Opened {
    parent: Arc<Folder>,
    folder: Arc<Folder>,
    /// Files by their names.
    files: HashMap<String, Arc<Shared>>,
}

/// A group's file, open.
#[derive(Debug)]
struct Shared {
    folder: Arc<Folder>,
    file: File,
    /// Locks of files do not keep the threads of one process apart.
    found: Mutex<Found>,
}

impl Opened {
    fn within(parent: Arc<Folder>) -> io::Result<Self> {
        Ok(Self {
            folder: Arc::new(parent.child(NAME)?),
            parent,
            files: HashMap::new(),
        })
    }

    /// Goes to the folder in `parent`, and gives the file with that name there.
    fn go_to(&mut self, parent: Arc<Folder>, name: &str) -> io::Result<Arc<Shared>> {
        *self = Self::within(parent)?;
        self.file(name)
    }

    /// The file with that name.
    fn file(&mut self, name: &str) -> io::Result<Arc<Shared>> {
        if let Some(shared) = self.files.get(name) {
            return Ok(Arc::clone(shared));
        }
        let shared = Arc::new(Shared {
            file: self
                .folder
                .file(name, true)
                .map_err(|error| self.folder.named(error))?,
            folder: Arc::clone(&self.folder),
            found: Mutex::default(),
        });
        if self.files.len() >= MOST_OPEN {
            // Any of them: a busy one is opened again soon.
            if let Some(other) = self.files.keys().next().cloned() {
                self.files.remove(&other);
            }
        }
        self.files.insert(name.to_owned(), Arc::clone(&shared));
        Ok(shared)
    }
}

impl FileHistory {
    pub(super) fn open(place: Arc<Place>, most: u64, timeout: Duration) -> io::Result<Self> {
        let boot = boot();
        Ok(Self {
            open: Mutex::new(Opened::within(place.folder())?),
            place,
            timeout,
            boot,
            quota: Quota::new(most, boot),
        })
    }

    pub(super) fn append(
        &self,
        name: &str,
        envelope: &[u8],
        limits: Limits,
    ) -> io::Result<Position> {
        let name = file_name(name);
        let append = || self.with(&name, |locked, _| locked.append(envelope, limits));
        let position = append().or_else(|error| {
            if error.kind() != ErrorKind::StorageFull {
                return Err(error);
            }
            // Older groups make room for newer ones.
            self.quota.make_room(&self.folder(), &name);
            append()
        })?;
        if self.quota.is_due() {
            self.quota.enforce(&self.folder(), &name);
        }
        Ok(position)
    }

    pub(super) fn read(
        &self,
        name: &str,
        after: Option<Position>,
        limits: Limits,
    ) -> io::Result<Page> {
        self.with(&file_name(name), |locked, found| {
            locked.read(found, after, limits)
        })
    }

    pub(super) fn bytes(&self) -> u64 {
        Quota::bytes(&self.folder())
    }

    pub(super) fn evicted(&self) -> u64 {
        self.quota.evicted()
    }

    /// Calls `act` with the file that has this name, locked. Makes it if need be.
    fn with<T>(
        &self,
        name: &str,
        act: impl FnOnce(&mut Locked<'_>, &mut Found) -> io::Result<T>,
    ) -> io::Result<T> {
        let deadline = Instant::now() + self.timeout;
        loop {
            let shared = self.shared(name)?;
            let named = |error| shared.folder.named(error);
            let Some(mut found) = shared.found.try_lock_until(deadline) else {
                return Err(named(held_for_too_long()));
            };
            let mut locked = Locked::new(&shared.file, self.boot, deadline).map_err(named)?;
            if locked.is_removed() {
                drop(locked);
                self.forget(name, &shared);
                continue;
            }
            let mut before = locked.end();
            if locked.is_new() {
                locked.begin().map_err(named)?;
                before = 0;
            }
            let result = act(&mut locked, &mut found);
            self.quota.note(before, locked.end());
            return result.map_err(named);
        }
    }

    /// The open file with that name.
    fn shared(&self, name: &str) -> io::Result<Arc<Shared>> {
        let mut open = self.open.lock();
        let parent = self.place.folder();
        let found = if Arc::ptr_eq(&open.parent, &parent) {
            open.file(name)
        } else {
            open.go_to(parent, name)
        };
        match found {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                // The folder was deleted.
                open.go_to(self.place.renew()?, name)
            }
            found => found,
        }
    }

    fn forget(&self, name: &str, shared: &Arc<Shared>) {
        let mut open = self.open.lock();
        if (open.files.get(name)).is_some_and(|known| Arc::ptr_eq(known, shared)) {
            open.files.remove(name);
        }
    }

    fn folder(&self) -> Arc<Folder> {
        Arc::clone(&self.open.lock().folder)
    }
}

/// The name of the file of the group `name`.
fn file_name(name: &str) -> String {
    let digest = Sha256::digest(name.as_bytes());
    let half = digest.get(..NAME_LENGTH / 2).unwrap_or_default();
    data_encoding::HEXLOWER.encode(half)
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, DirBuilder},
        os::unix::fs::{DirBuilderExt, FileExt, MetadataExt},
        path::PathBuf,
        time::SystemTime,
    };

    use super::*;
    use crate::engine::history::page::NUMBERING;

    const LIMITS: Limits = Limits {
        size: 3,
        age: Duration::from_secs(60),
    };

    fn history(name: &str, most: u64) -> FileHistory {
        let path = std::env::temp_dir().join(format!("history-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        DirBuilder::new().mode(0o700).create(&path).unwrap();
        let user = fs::metadata(&path).unwrap().uid();
        let place = Arc::new(Place::open(&path, user).unwrap());
        FileHistory::open(place, most, Duration::from_millis(20)).unwrap()
    }

    impl FileHistory {
        /// The path of the file of the group `name`.
        fn path_of(&self, name: &str) -> PathBuf {
            self.folder().path().join(file_name(name))
        }

        fn remove(self) {
            fs::remove_dir_all(self.place.folder().path()).unwrap();
        }
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
        history.remove();
    }

    #[test]
    fn a_file_that_another_process_holds_is_not_waited_for_longer_than_that() {
        let history = history("held", u64::MAX);
        history.append("room", b"", LIMITS).unwrap();
        let other = File::open(history.path_of("room")).unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        let locked = Locked::new(&other, history.boot, deadline).unwrap();
        let error = history.append("room", b"", LIMITS).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        drop(locked);
        assert_eq!(history.append("room", b"", LIMITS).unwrap().offset, 2);
        history.remove();
    }

    #[test]
    fn the_limit_holds_behind_each_append_of_one_process() {
        let history = history("limit", 1024 * 1024);
        for number in 0..100 {
            let name = format!("room-{number}");
            history.append(&name, &vec![0; 64 * 1024], LIMITS).unwrap();
            assert!(history.bytes() <= 1024 * 1024, "{number}");
            assert_eq!(history.read(&name, None, LIMITS).unwrap().entries.len(), 1);
        }
        let kept = (0..100)
            .map(|number| history.read(&format!("room-{number}"), None, LIMITS))
            .map(|page| page.unwrap().entries.len() as u64)
            .sum::<u64>();
        assert!(kept >= 13, "{kept}");
        assert_eq!(history.evicted(), 100 - kept);
        history.remove();
    }

    #[test]
    fn two_processes_exceed_the_limit_by_a_sixteenth_each_at_most() {
        let one = history("both", 1024 * 1024);
        let two = FileHistory::open(Arc::clone(&one.place), 1024 * 1024, one.timeout).unwrap();
        for number in 0..100 {
            let history = if number % 3 == 0 { &one } else { &two };
            let name = format!("room-{number}");
            history.append(&name, &[0; 10 * 1024], LIMITS).unwrap();
            assert!(two.bytes() <= (1024 + 2 * 64) * 1024, "{number}");
            assert_eq!(one.bytes(), two.bytes());
        }
        one.remove();
    }

    #[test]
    fn older_groups_make_room_and_keep_their_numbering() {
        let history = history("room", 25_000);
        let first = history.append("first", &[0; 10_000], LIMITS).unwrap();
        let open = history.shared(&file_name("first")).unwrap();
        for number in 0..9 {
            history
                .append(&number.to_string(), &[0; 10_000], LIMITS)
                .unwrap();
        }
        assert!(history.bytes() <= 25_000);
        assert_eq!(history.evicted(), 8);
        let page = history.read("first", Some(first), LIMITS).unwrap();
        assert_eq!((page.head, page.entries), (first, Vec::new()));
        let next = history.append("first", b"", LIMITS).unwrap();
        assert_eq!((next.epoch, next.offset), (first.epoch, 2));
        drop(open);
        history.remove();
    }

    #[test]
    fn a_group_that_is_too_large_loses_its_oldest_messages_only() {
        let limits = Limits {
            size: 1000,
            ..LIMITS
        };
        let history = history("large", 100_000);
        let first = history.append("room", &[0; 1000], limits).unwrap();
        for _ in 0..300 {
            let position = history.append("room", &[0; 1000], limits).unwrap();
            assert!(history.bytes() <= 100_000);
            let page = history.read("room", None, limits).unwrap();
            assert_eq!(page.head, position);
            assert_eq!(page.head.epoch, first.epoch);
            let kept = offsets(&page);
            assert!(kept.len() >= 45.min(position.offset.try_into().unwrap()));
            let from = position.offset + 1 - kept.len() as u64;
            assert_eq!(kept, (from..=position.offset).collect::<Vec<_>>());
            assert_eq!(history.evicted(), from - 1);
        }
        history.remove();
    }

    #[test]
    fn numberings_of_groups_without_messages_take_little_of_a_full_folder() {
        let history = history("empty", 100_000);
        for number in 0..2000 {
            history
                .append(&number.to_string(), &[0; 1000], LIMITS)
                .unwrap();
            assert!(history.bytes() <= 100_000);
        }
        let newest = (1930..2000).map(|number| history.read(&number.to_string(), None, LIMITS));
        assert!(
            newest
                .into_iter()
                .all(|page| page.unwrap().entries.len() == 1)
        );
        history.remove();
    }

    #[test]
    fn a_group_that_is_not_used_is_kept_for_a_day_longer_than_its_messages() {
        let history = history("week", u64::MAX);
        let week = Limits {
            size: 3,
            age: 7 * NUMBERING,
        };
        for (name, limits) in [("week", week), ("minute", LIMITS)] {
            history.append(name, b"", limits).unwrap();
        }
        for (days, is_kept) in [(0, [true, true]), (2, [true, false]), (9, [false, false])] {
            for name in ["week", "minute"] {
                if let Ok(file) = File::open(history.path_of(name)) {
                    file.set_modified(SystemTime::now() - days * NUMBERING)
                        .unwrap();
                }
            }
            history.quota.enforce_later(&history.folder(), "other");
            let is_there = ["week", "minute"].map(|name| history.path_of(name).exists());
            assert_eq!(is_there, is_kept, "{days} days");
        }
        assert_eq!(history.evicted(), 0);
        history.remove();
    }

    #[test]
    fn messages_that_were_too_old_are_not_evicted() {
        let history = history("old", 25_000);
        let brief = Limits {
            size: 100,
            age: Duration::from_millis(1),
        };
        history.append("room", &[0; 10_000], brief).unwrap();
        std::thread::sleep(Duration::from_millis(5));
        for name in ["one", "two", "three"] {
            history.append(name, &[0; 10_000], LIMITS).unwrap();
        }
        assert!(history.bytes() <= 25_000);
        assert_eq!(history.evicted(), 1);
        history.remove();
    }

    #[test]
    fn another_boot_or_another_form_of_the_file_begins_anew() {
        // The numbers of the form and of the boot in the head.
        for at in [0, 8 * 8] {
            let history = history("boot", u64::MAX);
            let before = history.append("room", &[0; 10_000], LIMITS).unwrap();
            let path = history.path_of("room");
            let file = File::options().write(true).open(&path).unwrap();
            file.write_all_at(b"dwshist1", at).unwrap();
            let page = history.read("room", Some(before), LIMITS).unwrap();
            assert_ne!(page.head.epoch, before.epoch);
            assert_eq!((page.head.offset, page.entries), (0, Vec::new()));
            assert!(fs::metadata(&path).unwrap().len() < 1000);
            assert_eq!(history.append("room", b"", LIMITS).unwrap().offset, 1);
            history.remove();
        }
    }

    #[test]
    fn a_file_that_is_removed_while_it_is_open_is_begun_anew() {
        let history = history("gone", u64::MAX);
        let before = history.append("room", b"", LIMITS).unwrap();
        let path = history.path_of("room");
        let file = File::options().read(true).write(true).open(&path).unwrap();
        let mut locked = Locked::new(&file, history.boot, Instant::now()).unwrap();
        locked
            .remove(&history.folder(), &file_name("room"))
            .unwrap();
        drop(locked);
        let after = history.append("room", b"", LIMITS).unwrap();
        assert_ne!(after.epoch, before.epoch);
        assert_eq!(after.offset, 1);
        history.remove();
    }

    #[test]
    fn bytes_are_those_of_all_processes() {
        let history = history("bytes", u64::MAX);
        assert_eq!(history.bytes(), 0);
        history.append("room", &[0; 1000], LIMITS).unwrap();
        let reader =
            FileHistory::open(Arc::clone(&history.place), u64::MAX, history.timeout).unwrap();
        assert_eq!(reader.bytes(), history.bytes());
        assert!(reader.bytes() > 1000);
        history.remove();
    }
}

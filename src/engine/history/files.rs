//! History in files, one for each group, that all processes of a machine share.

use std::{
    collections::HashMap,
    fmt::Debug,
    fs::File,
    io::{self, ErrorKind},
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use super::{
    epochs::Epochs,
    group_file::{Content, Locked, Marks, boot, held_for_too_long, is_about_content, read_beside},
    page::{History, Limits, Page, Position},
    quota::{NAME_LENGTH, Quota, note_use},
    watcher::Watcher,
};
use crate::engine::resources::folder::{Folder, Place};

/// The folder of the files, in that of the place.
const NAME: &str = "history";
/// Files that are kept open.
const MOST_OPEN: usize = 64;
/// The time between two words about a full disk.
const FULL_TOLD_EVERY: Duration = Duration::from_secs(60);
/// How often a file is read beside processes that write to it, before it is locked.
const READS: usize = 3;

/// A history in files, which all processes of a machine share.
#[derive(Debug)]
pub(crate) struct FileHistory {
    place: Arc<Place>,
    timeout: Duration,
    boot: u64,
    open: Mutex<Opened>,
    quota: Quota,
    watcher: Arc<dyn Watcher>,
    /// When it was last told that the disk is full.
    full_told_at: Mutex<Option<Instant>>,
}

/// The open folders and files.
#[derive(Debug)]
struct Opened {
    parent: Arc<Folder>,
    folder: Arc<Folder>,
    epochs: Arc<Epochs>,
    /// Files by their names.
    files: HashMap<String, Arc<Shared>>,
}

/// A group's file, open.
#[derive(Debug)]
struct Shared {
    folder: Arc<Folder>,
    file: File,
    /// Locks of files do not keep the threads of one process apart.
    lock: Mutex<()>,
    marks: Mutex<Marks>,
}

impl Opened {
    fn within(parent: Arc<Folder>, boot: u64) -> io::Result<Self> {
        let folder = parent.child(NAME)?;
        let epochs = Epochs::open(&folder, boot).map_err(|error| folder.named(error))?;
        Ok(Self {
            folder: Arc::new(folder),
            epochs: Arc::new(epochs),
            parent,
            files: HashMap::new(),
        })
    }

    /// The epochs, and the file with that name, made if it is missing and `creates`.
    ///
    /// # Errors
    /// `NotFound`: the folder was deleted, or the file of the epochs.
    fn file(
        &mut self,
        name: &str,
        creates: bool,
    ) -> io::Result<(Arc<Epochs>, Option<Arc<Shared>>)> {
        let epochs = Arc::clone(&self.epochs);
        if let Some(shared) = self.files.get(name) {
            return Ok((epochs, Some(Arc::clone(shared))));
        }
        let file = match self.folder.file(name, creates) {
            Err(error) if !creates && error.kind() == ErrorKind::NotFound => {
                return Ok((epochs, None));
            }
            file => file.map_err(|error| self.folder.named(error))?,
        };
        let shared = Arc::new(Shared {
            file,
            folder: Arc::clone(&self.folder),
            lock: Mutex::default(),
            marks: Mutex::default(),
        });
        if self.files.len() >= MOST_OPEN {
            // Any of them: a busy one is opened again soon.
            if let Some(other) = self.files.keys().next().cloned() {
                self.files.remove(&other);
            }
        }
        self.files.insert(name.to_owned(), Arc::clone(&shared));
        Ok((epochs, Some(shared)))
    }
}

impl FileHistory {
    /// A history in a folder at `place`, of `most` bytes at most. Calls that name no
    /// patience wait for `timeout` at most for other processes.
    ///
    /// # Errors
    /// The folder cannot be used. The text names it.
    pub(crate) fn open(
        place: Arc<Place>,
        most: u64,
        timeout: Duration,
        watcher: Arc<dyn Watcher>,
    ) -> io::Result<Self> {
        let boot = boot()?;
        Ok(Self {
            open: Mutex::new(Opened::within(place.folder(), boot)?),
            place,
            timeout,
            boot,
            quota: Quota::new(most, boot),
            watcher,
            full_told_at: Mutex::default(),
        })
    }

    /// Appends a message. With `is_bounded` only if the files stay within the limit with it; else room
    /// is made for it, and `None` given.
    fn append_within(
        &self,
        name: &str,
        envelope: &[u8],
        limits: Limits,
        patience: Duration,
        is_bounded: bool,
    ) -> io::Result<Option<Position>> {
        let mut needs = 0;
        let mut append = || {
            let appended = self.with(name, true, patience, |locked, _, epochs| {
                if !self.quota.may_hold(envelope) {
                    self.quota.note_evicted(locked.skip(limits)?);
                    return Ok(Some(locked.position()));
                }
                needs = locked.growth_with(envelope);
                if needs > 0 && self.quota.reserve(epochs, needs) {
                    locked.reserved += needs;
                } else if needs > 0 && is_bounded {
                    return Ok(None);
                }
                locked.append(envelope, limits).map(Some)
            })?;
            Ok(appended.flatten())
        };
        let position = append().or_else(|error: io::Error| {
            if !is_full(&error) {
                return Err(error);
            }
            // Older groups make room for newer ones.
            let (folder, epochs) = self.opened();
            self.note_full_disk(&folder);
            (self.quota).enforce(&folder, &epochs, name, None, patience);
            append()
        })?;
        let needs = if position.is_none() { needs } else { 0 };
        if needs > 0 || self.quota.is_due() {
            let (folder, epochs) = self.opened();
            (self.quota).enforce(&folder, &epochs, name, Some(needs), patience);
        }
        Ok(position)
    }

    /// Tells that the disk is full, not with each message.
    fn note_full_disk(&self, folder: &Folder) {
        let mut told_at = self.full_told_at.lock();
        if told_at.is_none_or(|at| at.elapsed() > FULL_TOLD_EVERY) {
            *told_at = Some(Instant::now());
            self.watcher
                .on_full_disk(folder.path().display().to_string());
        }
    }

    /// Calls `act` with the file that has this name, locked. `None` when it is missing, unless
    /// `creates`: then it is made.
    fn with<T>(
        &self,
        name: &str,
        creates: bool,
        patience: Duration,
        mut act: impl FnMut(&mut Locked<'_>, &Mutex<Marks>, &Epochs) -> io::Result<T>,
    ) -> io::Result<Option<T>> {
        let deadline = Instant::now() + patience;
        loop {
            let (epochs, Some(shared)) = self.shared(name, creates)? else {
                return Ok(None);
            };
            let named = |error| shared.folder.named(error);
            let Some(_lock) = shared.lock.try_lock_until(deadline) else {
                return Err(named(held_for_too_long()));
            };
            let mut locked = Locked::new(&shared.file, self.boot, deadline).map_err(named)?;
            if locked.is_removed() {
                if !locked.is_forgotten() {
                    // By none of these processes.
                    epochs.forget(name).map_err(named)?;
                }
                self.forget(name, &shared);
                continue;
            }
            match locked.content {
                Content::Nothing if !creates => return Ok(None),
                Content::Nothing => self.begin(name, &mut locked, &shared)?,
                Content::OfOtherBoot => {
                    epochs.forget(name).map_err(named)?;
                    self.begin(name, &mut locked, &shared)?;
                }
                Content::Sound(_) | Content::Broken => {}
            }
            let mut result = match locked.content {
                Content::Broken => Err(ErrorKind::InvalidData.into()),
                _ => act(&mut locked, &shared.marks, &epochs),
            };
            if result.as_ref().is_err_and(is_about_content) {
                let path = shared.folder.path().join(name);
                self.watcher.on_damage(path.display().to_string());
                epochs.forget(name).map_err(named)?;
                self.begin(name, &mut locked, &shared)?;
                result = act(&mut locked, &shared.marks, &epochs);
            }
            self.quota.note(&epochs, &locked);
            return result.map(Some).map_err(named);
        }
    }

    /// Begins the numbering of the group with the file `name`. If that fails, as on a full disk, the
    /// file is removed: one without a head seems damaged.
    fn begin(&self, name: &str, locked: &mut Locked<'_>, shared: &Arc<Shared>) -> io::Result<()> {
        let begun = self.first_epoch(name).and_then(|epoch| {
            let begun = locked.begin(epoch);
            begun.map_err(|error| shared.folder.named(error))
        });
        if begun.is_err() && shared.folder.remove(name).is_ok() {
            self.forget(name, shared);
        }
        begun
    }

    /// The epoch with which the numbering of the group with the file `name` begins.
    fn first_epoch(&self, name: &str) -> io::Result<u64> {
        let epochs = self.opened().1;
        epochs.of(name).or_else(|error| match error.kind() {
            ErrorKind::NotFound => {
                // The file was deleted, perhaps with the folder.
                let mut open = self.open.lock();
                *open = Opened::within(self.place.renew()?, self.boot)?;
                open.epochs.of(name)
            }
            _ => Err(error),
        })
    }

    /// The epochs, and the open file with that name.
    fn shared(&self, name: &str, creates: bool) -> io::Result<(Arc<Epochs>, Option<Arc<Shared>>)> {
        let mut open = self.open.lock();
        let parent = self.place.folder();
        if !Arc::ptr_eq(&open.parent, &parent) {
            *open = Opened::within(parent, self.boot)?;
        }
        match open.file(name, creates) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                // The folder was deleted.
                *open = Opened::within(self.place.renew()?, self.boot)?;
                open.file(name, creates)
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

    /// The folder and the epochs.
    fn opened(&self) -> (Arc<Folder>, Arc<Epochs>) {
        let open = self.open.lock();
        (Arc::clone(&open.folder), Arc::clone(&open.epochs))
    }
}

impl History for FileHistory {
    fn append(
        &self,
        name: &str,
        envelope: &[u8],
        limits: Limits,
        patience: Option<Duration>,
    ) -> io::Result<Position> {
        let name = file_name(name);
        let patience = patience.unwrap_or(self.timeout);
        if let Some(position) = self.append_within(&name, envelope, limits, patience, true)? {
            return Ok(position);
        }
        // The others made room, or their newest messages are all that there is.
        let position = self.append_within(&name, envelope, limits, patience, false)?;
        position.ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn read(
        &self,
        name: &str,
        after: Option<Position>,
        limits: Limits,
        patience: Option<Duration>,
    ) -> io::Result<Page> {
        let name = file_name(name);
        for _ in 0..READS {
            let (_, Some(shared)) = self.shared(&name, false)? else {
                break;
            };
            let page = read_beside(&shared.file, self.boot, &shared.marks, after, limits)
                .map_err(|error| shared.folder.named(error))?;
            if let Some(page) = page {
                note_use(&shared.file);
                return Ok(page);
            }
        }
        let patience = patience.unwrap_or(self.timeout);
        let page = self.with(&name, false, patience, |locked, marks, _| {
            locked.read(marks, after, limits)
        })?;
        if let Some(page) = page {
            return Ok(page);
        }
        Ok(Page {
            head: Position {
                epoch: self.first_epoch(&name)?,
                offset: 0,
            },
            entries: Vec::new(),
        })
    }

    fn bytes(&self) -> u64 {
        Quota::bytes(&self.opened().0)
    }

    fn evicted(&self) -> u64 {
        self.quota.evicted()
    }
}

/// Whether an error says that the disk has no room, or the user may take no more of it.
fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded
    )
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

    use rustix::io::Errno;

    use super::*;
    use crate::engine::history::{
        group_file::{BLOCK, HEAD_BYTES, Lock},
        page::NUMBERING,
    };

    const LIMITS: Limits = Limits {
        size: 3,
        age: Duration::from_secs(60),
    };

    const PATIENT: Option<Duration> = Some(Duration::from_secs(60));

    fn history(name: &str, most: u64) -> FileHistory {
        let path = std::env::temp_dir().join(format!("history-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        DirBuilder::new().mode(0o700).create(&path).unwrap();
        let user = fs::metadata(&path).unwrap().uid();
        let place = Arc::new(Place::open(&path, user).unwrap());
        let watcher = Arc::new(Watched::default());
        FileHistory::open(place, most, Duration::from_millis(20), watcher).unwrap()
    }

    /// The files that were damaged.
    #[derive(Debug, Default)]
    struct Watched(Mutex<Vec<String>>);

    impl Watcher for Watched {
        fn on_damage(&self, file: String) {
            self.0.lock().push(file);
        }

        fn on_full_disk(&self, folder: String) {
            self.0.lock().push(folder);
        }
    }

    impl FileHistory {
        /// The path of the file of the group `name`.
        fn path_of(&self, name: &str) -> PathBuf {
            self.opened().0.path().join(file_name(name))
        }

        /// The history of another process.
        fn other(&self, most: u64) -> Self {
            let (place, watcher) = (Arc::clone(&self.place), Arc::clone(&self.watcher));
            Self::open(place, most, self.timeout, watcher).unwrap()
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
            let position = history.append("room", &envelope, LIMITS, None).unwrap();
            assert_eq!(position.offset, number);
            let page = history.read("room", None, LIMITS, None).unwrap();
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

    /// All pages of the group "room", from its first message on.
    fn pages(history: &FileHistory, limits: Limits) -> Vec<Page> {
        let mut pages: Vec<Page> = Vec::new();
        loop {
            let after = pages.last().map(Page::reached);
            let page = history.read("room", after, limits, PATIENT).unwrap();
            let is_last = page.reached() == page.head;
            pages.push(page);
            if is_last {
                return pages;
            }
        }
    }

    #[test]
    fn a_page_is_read_without_what_is_before_and_after_it() {
        let history = history("pages", u64::MAX);
        let limits = Limits {
            size: 100,
            ..LIMITS
        };
        let large = vec![0; 100_000];
        for _ in 0..40 {
            history.append("room", &large, limits, None).unwrap();
        }
        let file = File::options().write(true).open(history.path_of("room"));
        let file = file.unwrap();
        // Reading the record means to notice this.
        let damage = |offset: u64| {
            let at = HEAD_BYTES + (offset - 1) * 100_020;
            file.write_all_at(&[255; 20], at).unwrap();
        };
        let read = |after| history.read("room", after, limits, None).unwrap();
        damage(40);
        let first = read(None);
        assert_eq!(offsets(&first), (1..=10).collect::<Vec<_>>());
        damage(1);
        let second = read(Some(first.reached()));
        assert_eq!(offsets(&second), (11..=20).collect::<Vec<_>>());
        // Another reader does not lead this one back.
        assert_eq!(read(Some(first.reached())), second);
        damage(11);
        let third = read(Some(second.reached()));
        assert_eq!(offsets(&third), (21..=30).collect::<Vec<_>>());
        assert_eq!(third.head, first.head);
        assert_ne!(read(None).head, first.head);
        history.remove();
    }

    #[test]
    fn pages_have_each_message_once_whatever_its_size() {
        let history = history("sizes", u64::MAX);
        let limits = Limits {
            size: 1000,
            ..LIMITS
        };
        let mut sent = Vec::new();
        for round in 0..20_u8 {
            for size in [0, 1, 1000, 300_000, 2_000_000 * usize::from(round % 7 == 0)] {
                let envelope = vec![round; size];
                history.append("room", &envelope, limits, None).unwrap();
                sent.push(envelope);
            }
        }
        // The second time with what is known of the file.
        for limits in [limits, Limits { size: 50, ..limits }] {
            let pages = pages(&history, limits);
            assert!(pages.len() > 3);
            let got: Vec<_> = pages.iter().flat_map(|page| &page.entries).collect();
            let from = sent.len().saturating_sub(limits.size);
            assert!(got.iter().map(|kept| &kept.envelope).eq(&sent[from..]));
            let last = sent.len() as u64;
            assert!((from as u64 + 1..=last).eq(got.iter().map(|kept| kept.offset)));
        }
        history.remove();
    }

    #[test]
    fn a_file_that_another_process_holds_is_not_waited_for_longer_than_that() {
        let history = history("held", u64::MAX);
        history.append("room", b"", LIMITS, None).unwrap();
        let other = File::open(history.path_of("room")).unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        let locked = Locked::new(&other, history.boot, deadline).unwrap();
        let error = history.append("room", b"", LIMITS, None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        drop(locked);
        assert_eq!(history.append("room", b"", LIMITS, None).unwrap().offset, 2);
        history.remove();
    }

    #[test]
    fn the_limit_holds_behind_each_append_of_one_process() {
        let history = history("limit", 1024 * 1024);
        for number in 0..100 {
            let name = format!("room-{number}");
            history
                .append(&name, &vec![0; 64 * 1024], LIMITS, None)
                .unwrap();
            assert!(history.bytes() <= 1024 * 1024, "{number}");
            assert_eq!(
                history
                    .read(&name, None, LIMITS, None)
                    .unwrap()
                    .entries
                    .len(),
                1
            );
        }
        let kept = (0..100)
            .map(|number| history.read(&format!("room-{number}"), None, LIMITS, None))
            .map(|page| page.unwrap().entries.len() as u64)
            .sum::<u64>();
        assert!(kept >= 13, "{kept}");
        assert_eq!(history.evicted(), 100 - kept);
        history.remove();
    }

    #[test]
    fn the_limit_holds_behind_each_append_of_two_processes() {
        let one = history("both", 1024 * 1024);
        let two = one.other(1024 * 1024);
        for number in 0..300 {
            let history = if number % 3 == 0 { &one } else { &two };
            let name = format!("room-{number}");
            history
                .append(&name, &[0; 10 * 1024], LIMITS, None)
                .unwrap();
            assert!(two.bytes() <= 1024 * 1024, "{number}");
            assert_eq!(one.bytes(), two.bytes());
        }
        assert!(one.bytes() > 900 * 1024);
        one.remove();
    }

    #[test]
    fn processes_that_append_at_once_count_together() {
        let made = history("at-once", 1024 * 1024);
        let writers: Vec<_> = (0..4).map(|_| made.other(1024 * 1024)).collect();
        std::thread::scope(|scope| {
            for (number, writer) in writers.iter().enumerate() {
                scope.spawn(move || {
                    for message in 0..500 {
                        let name = format!("room-{}", (number + message) % 40);
                        let patience = Some(Duration::from_secs(60));
                        (writer.append(&name, &vec![0; 500 * (message % 40)], LIMITS, patience))
                            .unwrap();
                    }
                });
            }
        });
        assert!(made.bytes() <= 1024 * 1024, "{}", made.bytes());
        // The count is right once the files were measured.
        let (folder, epochs) = made.opened();
        made.quota.enforce_later(&folder, &epochs, "other");
        assert_eq!(epochs.usage().unwrap().bytes(), made.bytes());
        made.remove();
    }

    #[test]
    fn a_process_that_is_stopped_while_it_counts_holds_nobody_up() {
        let history = history("stopped", 1024 * 1024);
        let other = File::open(history.opened().0.path().join("epochs")).unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        let lock = Lock::new(&other, deadline).unwrap();
        for number in 0..100 {
            let name = number.to_string();
            history
                .append(&name, &vec![0; 64 * 1024], LIMITS, None)
                .unwrap();
            assert!(history.bytes() <= 1024 * 1024, "{number}");
        }
        drop(lock);
        history.remove();
    }

    #[test]
    fn older_groups_make_room_and_keep_their_numbering() {
        let history = history("room", 1_000_000);
        let large = vec![0; 400_000];
        let first = history.append("first", &large, LIMITS, None).unwrap();
        let open = history.shared(&file_name("first"), false).unwrap();
        for number in 0..9 {
            history
                .append(&number.to_string(), &large, LIMITS, None)
                .unwrap();
        }
        assert!(history.bytes() <= 1_000_000);
        assert_eq!(history.evicted(), 8);
        let page = history.read("first", Some(first), LIMITS, None).unwrap();
        assert_eq!((page.head, page.entries), (first, Vec::new()));
        let next = history.append("first", b"", LIMITS, None).unwrap();
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
        let first = history.append("room", &[0; 1000], limits, None).unwrap();
        for _ in 0..300 {
            let position = history.append("room", &[0; 1000], limits, None).unwrap();
            assert!(history.bytes() <= 100_000);
            let page = history.read("room", None, limits, None).unwrap();
            assert_eq!(page.head, position);
            assert_eq!(page.head.epoch, first.epoch);
            let kept = offsets(&page);
            assert!(kept.len() >= 40.min(position.offset.try_into().unwrap()));
            let from = position.offset + 1 - kept.len() as u64;
            assert_eq!(kept, (from..=position.offset).collect::<Vec<_>>());
            assert_eq!(history.evicted(), from - 1);
        }
        history.remove();
    }

    #[test]
    fn numberings_of_groups_without_messages_take_little_of_a_full_folder() {
        let history = history("empty", 400_000);
        for number in 0..2000 {
            history
                .append(&number.to_string(), &[0; 1000], LIMITS, None)
                .unwrap();
            assert!(history.bytes() <= 400_000);
        }
        let newest =
            (1930..2000).map(|number| history.read(&number.to_string(), None, LIMITS, None));
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
            history.append(name, b"", limits, None).unwrap();
        }
        for (days, is_kept) in [(0, [true, true]), (2, [true, false]), (9, [false, false])] {
            for name in ["week", "minute"] {
                if let Ok(file) = File::open(history.path_of(name)) {
                    file.set_modified(SystemTime::now() - days * NUMBERING)
                        .unwrap();
                }
            }
            let (folder, epochs) = history.opened();
            history.quota.enforce_later(&folder, &epochs, "other");
            let is_there = ["week", "minute"].map(|name| history.path_of(name).exists());
            assert_eq!(is_there, is_kept, "{days} days");
        }
        assert_eq!(history.evicted(), 0);
        history.remove();
    }

    #[test]
    fn reading_is_use() {
        let history = history("use", u64::MAX);
        for name in ["used", "other"] {
            history.append(name, b"", LIMITS, None).unwrap();
        }
        // Four days pass.
        for _ in 0..8 {
            for name in ["used", "other"] {
                if let Ok(file) = File::open(history.path_of(name)) {
                    let modified = file.metadata().unwrap().modified().unwrap();
                    file.set_modified(modified - NUMBERING / 2).unwrap();
                }
            }
            history.read("used", None, LIMITS, None).unwrap();
            let (folder, epochs) = history.opened();
            history.quota.enforce_later(&folder, &epochs, "newest");
        }
        let is_there = ["used", "other"].map(|name| history.path_of(name).exists());
        assert_eq!(is_there, [true, false]);
        history.remove();
    }

    #[test]
    fn groups_are_not_old_at_once_when_the_clock_is_set_forward() {
        let large = vec![0; 400_000];
        let history = history("forward", 1_000_000);
        let names = ["one", "two"];
        for name in names {
            history.append(name, &large, LIMITS, None).unwrap();
            let file = File::open(history.path_of(name)).unwrap();
            file.set_modified(SystemTime::now() - 2 * NUMBERING)
                .unwrap();
        }
        let are_there = || names.map(|name| history.path_of(name).exists());
        history.quota.set_clock_forward(2 * NUMBERING);
        // Room lacks.
        history.append("three", &large, LIMITS, None).unwrap();
        assert_eq!(are_there(), [true, true]);
        history.quota.set_clock_forward(2 * NUMBERING);
        let look = || {
            let (folder, epochs) = history.opened();
            history.quota.enforce_later(&folder, &epochs, "newest");
            are_there()
        };
        assert_eq!(look(), [true, true]);
        // Its members use it again.
        history.read("one", None, LIMITS, None).unwrap();
        assert_eq!(look(), [true, false]);
        history.remove();
    }

    #[test]
    fn messages_that_were_too_old_are_not_evicted() {
        let history = history("old", 400_000);
        let brief = Limits {
            size: 100,
            age: Duration::from_millis(1),
        };
        let large = vec![0; 160_000];
        history.append("room", &large, brief, None).unwrap();
        std::thread::sleep(Duration::from_millis(5));
        for name in ["one", "two", "three"] {
            history.append(name, &large, LIMITS, None).unwrap();
        }
        assert!(history.bytes() <= 400_000);
        assert_eq!(history.evicted(), 1);
        history.remove();
    }

    #[test]
    fn another_boot_or_another_form_of_the_file_begins_anew() {
        // The numbers of the form and of the boot in the head.
        for at in [0, 8 * 8] {
            let history = history("boot", u64::MAX);
            let before = history.append("room", &[0; 10_000], LIMITS, None).unwrap();
            let path = history.path_of("room");
            let file = File::options().write(true).open(&path).unwrap();
            file.write_all_at(b"dwshist1", at).unwrap();
            let page = history.read("room", Some(before), LIMITS, None).unwrap();
            assert_ne!(page.head.epoch, before.epoch);
            assert_eq!((page.head.offset, page.entries), (0, Vec::new()));
            assert!(fs::metadata(&path).unwrap().len() < 1000);
            assert_eq!(history.append("room", b"", LIMITS, None).unwrap().offset, 1);
            history.remove();
        }
    }

    #[test]
    fn a_group_that_is_removed_changes_its_epoch_once_and_frees_the_disk() {
        let history = history("once", u64::MAX);
        let all = [history.other(u64::MAX), history.other(u64::MAX), history];
        let read = || {
            let pages = all
                .each_ref()
                .map(|each| each.read("room", None, LIMITS, None));
            pages.map(|page| page.unwrap().head)
        };
        let last = &all[2];
        let before = last
            .append("room", &vec![0; 100_000], LIMITS, None)
            .unwrap();
        assert_eq!(read(), [before; 3]);
        let open = File::open(last.path_of("room")).unwrap();
        open.set_modified(SystemTime::now() - 2 * NUMBERING)
            .unwrap();
        let (folder, epochs) = last.opened();
        last.quota.enforce_later(&folder, &epochs, "other");
        assert!(!last.path_of("room").exists());
        assert!(open.metadata().unwrap().blocks() * 512 <= BLOCK);
        // Each of the processes has the file open.
        let found = read();
        assert_ne!(found[0].epoch, before.epoch);
        assert_eq!(found, [found[0]; 3]);
        let [_, _, last] = all;
        last.remove();
    }

    #[test]
    fn a_message_that_is_too_large_to_be_kept_takes_no_other_group_along() {
        let history = history("too-large", 400_000);
        for name in ["one", "two"] {
            history.append(name, &[0; 1000], LIMITS, None).unwrap();
        }
        let position = history
            .append("two", &vec![0; 400_000], LIMITS, None)
            .unwrap();
        assert_eq!(position.offset, 2);
        let page = |name| history.read(name, None, LIMITS, None).unwrap();
        assert_eq!(offsets(&page("one")), [1]);
        assert_eq!(
            (page("two").head, page("two").entries),
            (position, Vec::new())
        );
        assert_eq!(history.evicted(), 2);
        assert_eq!(history.append("two", b"", LIMITS, None).unwrap().offset, 3);
        assert_eq!(offsets(&page("two")), [3]);
        history.remove();
    }

    #[test]
    fn a_file_that_is_removed_while_it_is_open_is_begun_anew() {
        let history = history("gone", u64::MAX);
        let before = history.append("room", b"", LIMITS, None).unwrap();
        let path = history.path_of("room");
        let file = File::options().read(true).write(true).open(&path).unwrap();
        let mut locked = Locked::new(&file, history.boot, Instant::now()).unwrap();
        let (folder, epochs) = history.opened();
        epochs.forget(&file_name("room")).unwrap();
        locked.remove(&folder, &file_name("room")).unwrap();
        drop(locked);
        let after = history.append("room", b"", LIMITS, None).unwrap();
        assert_ne!(after.epoch, before.epoch);
        assert_eq!(after.offset, 1);
        history.remove();
    }

    #[test]
    fn bytes_are_those_of_all_processes() {
        let history = history("bytes", u64::MAX);
        let before = history.bytes();
        history.append("room", &[0; 1000], LIMITS, None).unwrap();
        let reader = history.other(u64::MAX);
        assert_eq!(reader.bytes(), history.bytes());
        assert!(reader.bytes() > before + 1000);
        history.remove();
    }

    #[test]
    fn groups_that_are_only_read_make_no_file() {
        let history = history("read", u64::MAX);
        let before = history.bytes();
        let other = history.other(u64::MAX);
        for number in 0..100 {
            let name = number.to_string();
            let page = history.read(&name, None, LIMITS, None).unwrap();
            assert_eq!((page.head.offset, page.entries), (0, Vec::new()));
            assert_eq!(
                other.read(&name, None, LIMITS, None).unwrap().head,
                page.head
            );
            let first = other.append(&name, b"", LIMITS, None).unwrap();
            assert_eq!((first.epoch, first.offset), (page.head.epoch, 1));
            fs::remove_file(history.path_of(&name)).unwrap();
        }
        assert_eq!(history.bytes(), before);
        history.remove();
    }

    #[test]
    fn a_numbering_that_was_dropped_does_not_come_again() {
        let history = history("again", 100_000);
        let mut known = Vec::new();
        for _ in 0..5 {
            let epoch = history.append("room", b"", LIMITS, None).unwrap().epoch;
            assert!(!known.contains(&epoch));
            known.push(epoch);
            for number in 0..100 {
                history
                    .append(&number.to_string(), &[0; 1000], LIMITS, None)
                    .unwrap();
            }
            assert!(!history.path_of("room").exists());
        }
        history.remove();
    }

    #[test]
    fn the_blocks_of_the_disk_count() {
        let history = history("blocks", 1024 * 1024);
        for number in 0..1000 {
            history
                .append(&number.to_string(), b"x", LIMITS, None)
                .unwrap();
            let folder = history.opened().0;
            let taken = folder.names().unwrap().into_iter().map(|name| {
                let found = fs::metadata(folder.path().join(name)).unwrap();
                found.blocks() * 512
            });
            let taken: u64 = taken.sum();
            assert!(taken <= 1024 * 1024, "{number}: {taken}");
        }
        history.remove();
    }

    #[test]
    fn nothing_is_left_out_behind_a_clock_that_was_set_back() {
        let history = history("back", u64::MAX);
        let brief = Limits {
            size: 10,
            age: Duration::from_millis(100),
        };
        let before = history.read("room", None, brief, None).unwrap().head;
        for _ in 0..3 {
            history.append("room", b"", brief, None).unwrap();
        }
        // The first one was sent while the clock was far ahead.
        let file = File::options().write(true).open(history.path_of("room"));
        let file = file.unwrap();
        let ahead = u64::MAX.to_le_bytes();
        for at in [HEAD_BYTES - 8, HEAD_BYTES + 12] {
            file.write_all_at(&ahead, at).unwrap();
        }
        std::thread::sleep(Duration::from_millis(120));
        history.append("room", b"", brief, None).unwrap();
        let page = history.read("room", Some(before), brief, None).unwrap();
        assert_eq!(offsets(&page), [4]);
        history.remove();
    }

    #[test]
    fn a_damaged_file_is_begun_anew_and_that_is_told() {
        let limits = Limits { size: 2, ..LIMITS };
        let damages: [(&[u8], u64); 4] = [
            // The second record's length, and its offset; the head's number of its form, and its end.
            (&[255; 4], HEAD_BYTES + 50),
            (&[255; 8], HEAD_BYTES + 54),
            (&[0; 8], 0),
            (&[255; 8], 8 * 5),
        ];
        for (bytes, at) in damages {
            let watcher = Arc::new(Watched::default());
            let made = history("damaged", u64::MAX);
            let (place, told) = (Arc::clone(&made.place), Arc::clone(&watcher));
            let history = FileHistory::open(place, u64::MAX, made.timeout, watcher).unwrap();
            for act in ["append", "read"] {
                let before = history.append(act, &[1; 30], limits, None).unwrap();
                history.append(act, &[2; 30], limits, None).unwrap();
                let file = File::options().write(true).open(history.path_of(act));
                file.unwrap().write_all_at(bytes, at).unwrap();
                let after = match act {
                    "append" => history.append(act, b"", limits, None).unwrap(),
                    _ => {
                        // As by another process, which reads from the beginning.
                        let other = made.other(u64::MAX);
                        other.read(act, None, limits, None).unwrap().head
                    }
                };
                assert_ne!(after.epoch, before.epoch, "{act} {at}");
                assert_eq!(after.offset, u64::from(act == "append"), "{act} {at}");
            }
            let told = told.0.lock();
            assert!(told[0].ends_with(&file_name("append")), "{told:?}");
            made.remove();
        }
    }

    #[test]
    fn an_empty_file_that_had_messages_is_damaged() {
        let history = history("empty-file", u64::MAX);
        let before = history.append("room", b"", LIMITS, None).unwrap();
        let file = File::options().write(true).open(history.path_of("room"));
        file.unwrap().set_len(0).unwrap();
        let after = history.append("room", b"", LIMITS, None).unwrap();
        assert_ne!(after.epoch, before.epoch);
        history.remove();
    }

    #[test]
    fn a_user_with_a_quota_has_a_full_disk_too() {
        for errno in [Errno::NOSPC, Errno::DQUOT] {
            assert!(is_full(&errno.into()), "{errno}");
        }
        assert!(!is_full(&Errno::IO.into()));
    }

    #[test]
    fn readers_do_not_wait_for_a_process_that_writes() {
        let history = history("beside", u64::MAX);
        let last = history.append("room", b"x", LIMITS, None).unwrap();
        let other = File::open(history.path_of("room")).unwrap();
        let locked = Locked::new(&other, history.boot, Instant::now()).unwrap();
        let none = Some(Duration::ZERO);
        let page = history.read("room", None, LIMITS, none).unwrap();
        assert_eq!((page.head, page.entries.len()), (last, 1));
        drop(locked);
        history.remove();
    }

    #[test]
    fn pages_that_are_read_while_others_write_are_whole() {
        let history = history("whole-pages", u64::MAX);
        let limits = Limits { size: 40, ..LIMITS };
        let writers: Vec<_> = (0..2).map(|_| history.other(u64::MAX)).collect();
        history.append("room", b"", limits, None).unwrap();
        std::thread::scope(|scope| {
            let write = |writer: &FileHistory| {
                for number in 0..300_u32 {
                    let envelope = number.to_le_bytes().repeat(20_000);
                    writer.append("room", &envelope, limits, PATIENT).unwrap();
                }
            };
            let running: Vec<_> = (writers.iter())
                .map(|writer| scope.spawn(move || write(writer)))
                .collect();
            while !(running.iter()).all(std::thread::ScopedJoinHandle::is_finished) {
                let mut reached = 0;
                for page in pages(&history, limits) {
                    let found = offsets(&page);
                    let last = page.reached().offset;
                    let first = last + 1 - found.len() as u64;
                    assert_eq!(found, (first..=last).collect::<Vec<_>>());
                    assert!(first > reached);
                    reached = last;
                    for kept in &page.entries {
                        let mut parts = kept.envelope.chunks(4);
                        let first = parts.next();
                        assert!(parts.all(|part| Some(part) == first));
                    }
                }
            }
        });
        history.remove();
    }

    #[test]
    fn what_is_read_while_others_write_is_whole() {
        let history = history("whole", u64::MAX);
        let limits = Limits { size: 20, ..LIMITS };
        let writers: Vec<_> = (0..2).map(|_| history.other(u64::MAX)).collect();
        history.append("room", b"", limits, None).unwrap();
        std::thread::scope(|scope| {
            let running: Vec<_> = (writers.iter())
                .map(|writer| {
                    scope.spawn(|| {
                        for number in 0..2000_u32 {
                            let envelope = number.to_le_bytes().repeat(500);
                            let patience = Some(Duration::from_secs(60));
                            writer.append("room", &envelope, limits, patience).unwrap();
                        }
                    })
                })
                .collect();
            let mut at = None;
            while !running
                .iter()
                .all(std::thread::ScopedJoinHandle::is_finished)
            {
                let patience = Some(Duration::from_secs(60));
                let page = history.read("room", at, limits, patience).unwrap();
                let found = offsets(&page);
                let expected: Vec<_> =
                    (page.head.offset + 1 - found.len() as u64..=page.head.offset).collect();
                assert_eq!(found, expected);
                for kept in &page.entries {
                    let mut parts = kept.envelope.chunks(4);
                    let first = parts.next();
                    assert!(parts.all(|part| Some(part) == first));
                }
                // By turns from the beginning, and after what is known.
                at = match at {
                    None => Some(page.head),
                    Some(_) => None,
                };
            }
        });
        history.remove();
    }
}

//! The epochs of groups that have no file: a group that is only read makes none.
//!
//! Such an epoch is computed from the group's name and from what is random in one small file. The
//! group's numbering begins with it. When a numbering is dropped, the part of the file for its group
//! changes, and with it the epochs of some other groups that have no numbering: their clients learn
//! needlessly that they may have missed something.
//!
//! The file also has the count of all processes: the bytes that they have reserved for the files of
//! groups, and those that were freed.

use std::{
    fs::File,
    io::{self, ErrorKind},
    os::unix::fs::MetadataExt,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::{
    group_file::{Lock, numbers, write_numbers},
    page::{first_epoch, new_epoch},
};
use crate::engine::resources::folder::Folder;

/// The name of the file.
pub(super) const NAME: &str = "epochs";
/// Another one for each form of the file.
const MAGIC: u64 = u64::from_be_bytes(*b"dwsepoc2");
/// Numbers of the file: the form, the boot, what is random for all groups, and for parts of them.
const HEAD: usize = 3;
const PARTS: usize = 256;
/// How long another process is waited for that begins the file, once in its life.
const PATIENCE: Duration = Duration::from_millis(100);
/// How long another process is waited for that counts; it needs some microseconds for that.
const COUNTING: Duration = Duration::from_millis(2);
const NUMBER: usize = size_of::<u64>();
/// Where the numbers of [`Usage`] begin.
const USAGE: u64 = ((HEAD + PARTS) * NUMBER) as u64;

/// The bytes of all files, as counted.
///
/// Two sums, so that a process which has measured the files can take what it found for true, and
/// still add what was reserved meanwhile: it may count that twice, but misses nothing.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usage {
    reserved: u64,
    freed: u64,
    /// How often the files were measured. Bytes that were reserved before the last time do
    /// not count any more: a file that has grown by them counts with its own.
    pub(super) measures: u64,
}

impl Usage {
    /// The bytes that the files take, and those that are reserved for them.
    pub(super) fn bytes(self) -> u64 {
        // Less than nothing is a mistake of the counting.
        let bytes = self.reserved.wrapping_sub(self.freed);
        i64::try_from(bytes).map_or(0, i64::unsigned_abs)
    }
}

/// The file, open.
#[derive(Debug)]
pub(super) struct Epochs {
    file: File,
    boot: u64,
    /// Held by the thread that counts: locks of files do not keep threads apart.
    counting: Mutex<()>,
}

impl Epochs {
    /// Opens the file in `folder`, made if it is missing.
    pub(super) fn open(folder: &Folder, boot: u64) -> io::Result<Self> {
        let file = folder.file(NAME, true)?;
        let epochs = Self {
            file,
            boot,
            counting: Mutex::default(),
        };
        if epochs.seeds(0)?.is_none() {
            let _lock = Lock::new(&epochs.file, Instant::now() + PATIENCE)?;
            if epochs.seeds(0)?.is_none() {
                let mut numbers = [0; HEAD + PARTS];
                numbers[..HEAD].copy_from_slice(&[MAGIC, boot, new_epoch()]);
                write_numbers(&epochs.file, 0, numbers)?;
            }
        }
        Ok(epochs)
    }

    /// The epoch with which the numbering of the group with the file `name` begins.
    ///
    /// # Errors
    /// `NotFound`: the file was removed, or spoilt.
    pub(super) fn of(&self, name: &str) -> io::Result<u64> {
        if self.file.metadata()?.nlink() == 0 {
            return Err(ErrorKind::NotFound.into());
        }
        let seeds = self.seeds(part_of(name))?.ok_or(ErrorKind::NotFound)?;
        Ok(first_epoch(seeds, name))
    }

    /// Sees to it that a numbering of the group with the file `name`, which is to be dropped, does not
    /// come again.
    pub(super) fn forget(&self, name: &str) -> io::Result<()> {
        let at = (HEAD + part_of(name)) * NUMBER;
        write_numbers(&self.file, at as u64, [new_epoch()])
    }

    /// Reserves the bytes that `choose` gives for the present count.
    pub(super) fn reserve(&self, choose: impl FnOnce(Usage) -> u64) -> io::Result<(u64, Usage)> {
        let mut bytes = 0;
        let usage = self.change(|usage| {
            bytes = choose(*usage);
            usage.reserved = usage.reserved.wrapping_add(bytes);
        })?;
        Ok((bytes, usage))
    }

    /// Counts that files take so many bytes less.
    pub(super) fn free(&self, bytes: u64) -> io::Result<Usage> {
        self.change(|usage| usage.freed = usage.freed.wrapping_add(bytes))
    }

    /// The present count.
    pub(super) fn usage(&self) -> io::Result<Usage> {
        let [reserved, freed, measures] = numbers(&self.file, USAGE)?.unwrap_or_default();
        Ok(Usage {
            reserved,
            freed,
            measures,
        })
    }

    /// To be called before the files are measured.
    pub(super) fn begin_measure(&self) -> io::Result<Usage> {
        self.change(|usage| usage.measures = usage.measures.wrapping_add(1))
    }

    /// The files were measured since `begun`, and take `bytes`.
    pub(super) fn end_measure(&self, begun: Usage, bytes: u64) -> io::Result<Usage> {
        self.change(|usage| usage.freed = begun.reserved.wrapping_sub(bytes))
    }

    fn change(&self, change: impl FnOnce(&mut Usage)) -> io::Result<Usage> {
        let _counting = self.counting.lock();
        // Where a process was stopped that has the lock, the count is wrong until files are measured.
        let _lock = Lock::new(&self.file, Instant::now() + COUNTING).ok();
        let mut usage = self.usage()?;
        change(&mut usage);
        let numbers = [usage.reserved, usage.freed, usage.measures];
        write_numbers(&self.file, USAGE, numbers)?;
        Ok(usage)
    }

    /// The random number of all groups, and that of a part; `None` where the file has to be begun.
    fn seeds(&self, part: usize) -> io::Result<Option<[u64; 2]>> {
        let found = numbers::<{ HEAD + PARTS }>(&self.file, 0)?;
        let sound = found.filter(|numbers| numbers[..2] == [MAGIC, self.boot]);
        Ok(sound.map(|numbers| [numbers[2], numbers[HEAD + part]]))
    }
}

/// The part of the file for the group with the file `name`, which begins with hexadecimal digits.
fn part_of(name: &str) -> usize {
    let digits = name.get(..2).unwrap_or_default();
    u8::from_str_radix(digits, 16).map_or(0, usize::from)
}

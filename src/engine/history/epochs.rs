//! The epochs of groups that have no file: a group that is only read makes none.
//!
//! Such an epoch is computed from the group's name and from what is random in one small file. The
//! group's numbering begins with it. When a numbering is dropped, the part of the file for its group
//! changes, and with it the epochs of some other groups that have no numbering: their clients learn
//! needlessly that they may have missed something.

use std::{
    fs::File,
    io::{self, ErrorKind},
    os::unix::fs::{FileExt, MetadataExt},
    time::{Duration, Instant},
};

use super::{
    log::Lock,
    page::{first_epoch, new_epoch},
};
use crate::engine::resources::folder::Folder;

/// The name of the file.
pub(super) const NAME: &str = "epochs";
/// Another one for each form of the file.
const MAGIC: u64 = u64::from_be_bytes(*b"dwsepoc1");
/// Numbers of the file: the form, the boot, what is random for all groups, and for parts of them.
const HEAD: usize = 3;
const PARTS: usize = 256;
/// How long another process is waited for that begins the file, once in its life.
const PATIENCE: Duration = Duration::from_millis(100);
const NUMBER: usize = size_of::<u64>();

/// The file, open.
#[derive(Debug)]
pub(super) struct Epochs {
    file: File,
    boot: u64,
}

impl Epochs {
    /// Opens the file in `folder`, made if it is missing.
    pub(super) fn open(folder: &Folder, boot: u64) -> io::Result<Self> {
        let file = folder.file(NAME, true)?;
        let epochs = Self { file, boot };
        if epochs.seeds(0)?.is_none() {
            let _lock = Lock::new(&epochs.file, Instant::now() + PATIENCE)?;
            if epochs.seeds(0)?.is_none() {
                let mut bytes = vec![0; (HEAD + PARTS) * NUMBER];
                let numbers = [MAGIC, boot, new_epoch()].map(u64::to_le_bytes);
                bytes.splice(..HEAD * NUMBER, numbers.concat());
                epochs.file.write_all_at(&bytes, 0)?;
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
        (self.file).write_all_at(&new_epoch().to_le_bytes(), at as u64)
    }

    /// The random number of all groups, and that of a part; `None` where the file has to be begun.
    fn seeds(&self, part: usize) -> io::Result<Option<[u64; 2]>> {
        let mut bytes = [0; (HEAD + PARTS) * NUMBER];
        match self.file.read_exact_at(&mut bytes, 0) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
            other => other?,
        }
        let number = |at: usize| {
            let found = bytes.get(at * NUMBER..).and_then(|rest| rest.first_chunk());
            found.map_or(0, |found| u64::from_le_bytes(*found))
        };
        let is_sound = (number(0), number(1)) == (MAGIC, self.boot);
        Ok(is_sound.then(|| [number(2), number(HEAD + part)]))
    }
}

/// The part of the file for the group with the file `name`, which begins with hexadecimal digits.
fn part_of(name: &str) -> usize {
    let digits = name.get(..2).unwrap_or_default();
    u8::from_str_radix(digits, 16).map_or(0, usize::from)
}

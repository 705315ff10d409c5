//! The file of one group: a head and, after it, records one after the other.
//!
//! To append, a process locks the file, writes the record after the last one, and then the head,
//! which says where the first record begins and the last one ends. So a process that is killed leaves
//! whole records only, and the system ends its lock.
//!
//! Records that are too many or too old lie before the first one. When they take more than the
//! others, these are copied over them: as both do not overlap, the old ones are whole until the head
//! names the new ones.
//!
//! Readers lock nothing. They read a page in pieces, and look at the head after each: a piece is of
//! use unless records were moved, or its own ones dropped.
//!
//! Nothing waits for the disk. After a crash of the machine an older head with the same epoch may
//! come back, and its numbers would be given twice. So the head has the boot of the machine in which
//! the numbering began, and in another one the file is begun anew.

use std::{
    collections::BTreeMap,
    fs::{self, File, Metadata},
    io::{self, ErrorKind},
    os::unix::fs::{FileExt, MetadataExt},
    thread,
    time::{Duration, Instant},
};

use bytes::{Buf, BufMut, Bytes};
use parking_lot::Mutex;
use rustix::fs::{FlockOperation, flock};
use sha2::{Digest, Sha256};

use super::page::{Entry, Limits, PAGE_BYTES, Page, Position, age_ms, offset_after, oldest_ms};
use crate::engine::{base::clock::wall_ms, resources::folder::Folder};

/// Another one for each form of the file: one of another form is begun anew.
const MAGIC: u64 = u64::from_be_bytes(*b"dwshist3");
/// Bytes of the head: twelve numbers.
pub(super) const HEAD_BYTES: u64 = 96;
/// Bytes of a record before its envelope: length, offset and time.
const RECORD: usize = 20;
const RECORD_BYTES: u64 = RECORD as u64;
/// Bytes of a block of the disk, which a file takes whole.
pub(super) const BLOCK: u64 = 4096;
/// Dead records that take less than this stay.
const COMPACT_BYTES: u64 = 64 * 1024;
/// Bytes that a reader reads at once, unless a record is larger.
const PIECE: u64 = 256 * 1024;
/// The pauses of a process that waits for a lock.
const FIRST_RETRY: Duration = Duration::from_micros(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(2);

/// Where the system tells in which boot it is.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// A number for this boot of the machine; the same one for all boots where the system has none.
///
/// # Errors
/// It cannot be read now, such as without a descriptor. With another number than that of the other
/// processes this one would begin all of their files anew.
pub(super) fn boot() -> io::Result<u64> {
    let id = fs::read(BOOT_ID).or_else(|error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::PermissionDenied => Ok(Vec::new()),
        _ => Err(error),
    })?;
    let digest = Sha256::digest(id);
    Ok(digest
        .first_chunk()
        .map_or(0, |part| u64::from_le_bytes(*part)))
}

/// Where this process has ended reading a file: readers go on there.
#[derive(Debug, Default)]
pub(super) struct Marks {
    epoch: u64,
    moves: u64,
    /// The offset of a record, and where it ends: one for each piece of the file.
    ends: BTreeMap<u64, (u64, u64)>,
}

impl Marks {
    /// The last mark before what is after `after`, in the file with this head.
    fn before(&self, head: Head, after: u64) -> Option<(u64, u64)> {
        let is_of_use =
            |(offset, at): &(u64, u64)| *offset <= after && (head.start..=head.end).contains(at);
        let is_same = (self.epoch, self.moves) == (head.epoch, head.moves);
        let mut newest_first = self.ends.values().rev().copied();
        newest_first.find(is_of_use).filter(|_| is_same)
    }

    fn note(&mut self, head: Head, offset: u64, at: u64) {
        if (self.epoch, self.moves) != (head.epoch, head.moves) {
            *self = Self {
                epoch: head.epoch,
                moves: head.moves,
                ends: BTreeMap::new(),
            };
        }
        self.ends.insert(at / PIECE, (offset, at));
    }
}

/// The state of the place in a file where its head is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    Nothing,
    OfOtherBoot,
    Broken,
    Sound(Head),
}

/// The head of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    epoch: u64,
    /// The offset of the newest record.
    last: u64,
    /// Records.
    count: u64,
    /// Where the first one begins, its size, and when it was sent.
    start: u64,
    first_size: u64,
    first_sent_at: u64,
    /// Where the last one ends.
    end: u64,
    /// How often records were moved within the file.
    moves: u64,
    /// Whether the file was removed while other processes have it open.
    is_removed: bool,
    /// The boot in which the numbering began.
    boot: u64,
    /// The milliseconds for which records are kept.
    age: u64,
}

impl Head {
    fn new(boot: u64, epoch: u64) -> Self {
        Self {
            epoch,
            start: HEAD_BYTES,
            end: HEAD_BYTES,
            boot,
            ..Self::default()
        }
    }

    fn position(&self) -> Position {
        Position {
            epoch: self.epoch,
            offset: self.last,
        }
    }

    /// The head of a file of `length` bytes.
    fn read(file: &File, length: u64, boot: u64) -> io::Result<Content> {
        if length == 0 {
            return Ok(Content::Nothing);
        }
        let Some(numbers) = numbers::<12>(file, 0)? else {
            return Ok(Content::Broken);
        };
        let head = Self {
            epoch: numbers[1],
            last: numbers[2],
            count: numbers[3],
            start: numbers[4],
            end: numbers[5],
            moves: numbers[6],
            is_removed: numbers[7] != 0,
            boot: numbers[8],
            age: numbers[9],
            first_size: numbers[10],
            first_sent_at: numbers[11],
        };
        let is_sound = numbers[0] == MAGIC
            && head.start >= HEAD_BYTES
            && head.start <= head.end
            && head.count <= head.last
            && head.first_size <= head.end - head.start
            && head.end <= length;
        Ok(match (is_sound, head.boot == boot) {
            (true, true) => Content::Sound(head),
            (true, false) => Content::OfOtherBoot,
            (false, _) => Content::Broken,
        })
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
            self.boot,
            self.age,
            self.first_size,
            self.first_sent_at,
        ];
        write_numbers(file, 0, numbers)
    }
}

/// The bytes before an envelope.
#[derive(Clone, Copy, Debug)]
struct RecordHead {
    length: u32,
    offset: u64,
    sent_at: u64,
}

impl RecordHead {
    fn parse(bytes: &[u8; RECORD]) -> Self {
        let mut rest = &bytes[..];
        Self {
            length: rest.get_u32_le(),
            offset: rest.get_u64_le(),
            sent_at: rest.get_u64_le(),
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
        bytes.put_u32_le(self.length);
        bytes.put_u64_le(self.offset);
        bytes.put_u64_le(self.sent_at);
        bytes.extend_from_slice(envelope);
        bytes
    }
}

/// The lock of a file, which keeps others from it that lock it, too. Locks do not keep the users of
/// one open file apart.
pub(super) struct Lock<'a>(&'a File);

impl<'a> Lock<'a> {
    /// Locks a file for this process alone.
    pub(super) fn new(file: &'a File, deadline: Instant) -> io::Result<Self> {
        let mut pause = FIRST_RETRY;
        loop {
            match flock(file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Self(file)),
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
}

impl Drop for Lock<'_> {
    fn drop(&mut self) {
        // A lock that cannot be given back ends with the file.
        let _ = flock(self.0, FlockOperation::Unlock);
    }
}

/// A file that this process has alone.
pub(super) struct Locked<'a> {
    _lock: Lock<'a>,
    file: &'a File,
    boot: u64,
    /// The metadata of the file when it was locked.
    pub(super) metadata: Metadata,
    /// The state of the file's head then.
    pub(super) content: Content,
    head: Head,
    /// The bytes of the limit that are reserved for what is appended.
    pub(super) reserved: u64,
}

impl<'a> Locked<'a> {
    /// Locks a file for this process alone.
    pub(super) fn new(file: &'a File, boot: u64, deadline: Instant) -> io::Result<Self> {
        let lock = Lock::new(file, deadline)?;
        let metadata = file.metadata()?;
        let content = match Head::read(file, metadata.len(), boot)? {
            Content::Nothing if was_written(&metadata) => Content::Broken,
            content => content,
        };
        Ok(Self {
            _lock: lock,
            file,
            boot,
            metadata,
            content,
            head: match content {
                Content::Sound(head) => head,
                _ => Head::new(boot, 0),
            },
            reserved: 0,
        })
    }

    /// Whether the file was removed by another process.
    pub(super) fn is_removed(&self) -> bool {
        self.metadata.nlink() == 0 || self.head.is_removed
    }

    /// Whether the one that has removed it has seen to it that its numbering does not come again.
    pub(super) fn is_forgotten(&self) -> bool {
        self.head.is_removed
    }

    /// Begins the file anew, with a numbering of this epoch.
    pub(super) fn begin(&mut self, epoch: u64) -> io::Result<()> {
        // First the head: on a full disk it needs no new room.
        self.put(Head::new(self.boot, epoch))?;
        self.file.set_len(HEAD_BYTES)
    }

    /// Where the last record ends.
    pub(super) fn end(&self) -> u64 {
        self.head.end
    }

    /// For how long records are kept.
    pub(super) fn age(&self) -> Duration {
        Duration::from_millis(self.head.age)
    }

    pub(super) fn append(&mut self, envelope: &[u8], limits: Limits) -> io::Result<Position> {
        let now = wall_ms();
        let record = RecordHead {
            length: u32::try_from(envelope.len()).map_err(|_| ErrorKind::FileTooLarge)?,
            offset: self.head.last + 1,
            sent_at: now,
        };
        let mut head = self.head;
        let written = (self.file).write_all_at(&record.write(envelope), head.end);
        written.inspect_err(|_| {
            // A part of the record would take the last room of a full disk.
            let _ = self.file.set_len(head.end);
        })?;
        if head.count == 0 {
            (head.first_size, head.first_sent_at) = (record.size(), record.sent_at);
        }
        head.end += record.size();
        head.last += 1;
        head.count += 1;
        head.age = age_ms(limits);
        let oldest = oldest_ms(now, limits);
        self.drop_while(&mut head, |head| {
            head.count > limits.size as u64 || head.first_sent_at < oldest
        })?;
        self.put(head)?;
        // The message is kept, whatever becomes of this.
        let _ = self.compact();
        Ok(self.head.position())
    }

    /// Gives a message its number that is too large to be kept. Returns how many are dropped: none can
    /// stay before a gap.
    pub(super) fn skip(&mut self, limits: Limits) -> io::Result<u64> {
        let mut head = self.head;
        let dropped = head.count + 1;
        head.last += 1;
        head.age = age_ms(limits);
        (head.start, head.count, head.first_size) = (head.end, 0, 0);
        self.put(head)?;
        // It is dropped, whatever becomes of this.
        let _ = self.compact();
        Ok(dropped)
    }

    /// Where it is.
    pub(super) fn position(&self) -> Position {
        self.head.position()
    }

    /// Where the last record ended when the file was locked; 0 if it is begun anew.
    pub(super) fn end_before(&self) -> u64 {
        match self.content {
            Content::Sound(head) => head.end,
            Content::Nothing | Content::OfOtherBoot | Content::Broken => 0,
        }
    }

    /// The bytes of blocks that the file lacks for `envelope`.
    pub(super) fn growth_with(&self, envelope: &[u8]) -> u64 {
        let end = self.end() + RECORD_BYTES + envelope.len() as u64;
        in_blocks(end).saturating_sub(in_blocks(self.end_before()))
    }

    /// Makes the file as short as `length`, if that is possible: drops the oldest records, but not
    /// the numbering. Returns the number of those that were not too old.
    pub(super) fn shrink(&mut self, length: u64) -> io::Result<u64> {
        let mut head = self.head;
        let oldest = wall_ms().saturating_sub(head.age);
        self.drop_while(&mut head, |head| head.first_sent_at < oldest)?;
        let fresh = head.count;
        // The records that stay must not overlap with their new place.
        let room = (length.saturating_sub(HEAD_BYTES)).min((head.end - HEAD_BYTES) / 2);
        if room == 0 {
            (head.start, head.count, head.first_size) = (head.end, 0, 0);
        } else {
            self.drop_while(&mut head, |head| head.end - head.start > room)?;
        }
        let dropped = fresh - head.count;
        self.put(head)?;
        self.move_down()?;
        Ok(dropped)
    }

    /// Removes the file, which has that name in `folder`, after its numbering was forgotten.
    pub(super) fn remove(&mut self, folder: &Folder, name: &str) -> io::Result<()> {
        // In this order: a process that is killed between both leaves no file that is marked.
        folder.remove(name)?;
        self.put(Head {
            is_removed: true,
            ..Head::new(self.boot, self.head.epoch)
        })?;
        // Others may have it open for long.
        self.file.set_len(HEAD_BYTES)
    }

    fn put(&mut self, head: Head) -> io::Result<()> {
        head.write(self.file)?;
        self.head = head;
        Ok(())
    }

    /// Moves the beginning of `head` after the first records for which `is_dropped` holds.
    fn drop_while(&self, head: &mut Head, is_dropped: impl Fn(&Head) -> bool) -> io::Result<()> {
        while head.count > 0 && is_dropped(head) {
            head.start += head.first_size;
            head.count -= 1;
            head.first_size = 0;
            if head.count > 0 {
                let first = RecordHead::read(self.file, head.start)?;
                let is_sound = first.offset == head.last - head.count + 1
                    && first.size() <= head.end - head.start;
                if !is_sound {
                    return Err(is_broken());
                }
                (head.first_size, head.first_sent_at) = (first.size(), first.sent_at);
            }
        }
        Ok(())
    }

    /// Makes the file shorter when records that were dropped take more than the others.
    fn compact(&mut self) -> io::Result<()> {
        let (dead, live) = (
            self.head.start - HEAD_BYTES,
            self.head.end - self.head.start,
        );
        if dead < COMPACT_BYTES || dead < live {
            return Ok(());
        }
        self.move_down()
    }

    /// Copies the records over those that were dropped, which take more.
    fn move_down(&mut self) -> io::Result<()> {
        let mut head = self.head;
        let live = head.end - head.start;
        let records = bytes(self.file, head.start, live)?;
        self.file.write_all_at(&records, HEAD_BYTES)?;
        head.start = HEAD_BYTES;
        head.end = HEAD_BYTES + live;
        head.moves += 1;
        self.put(head)?;
        self.file.set_len(head.end)
    }

    /// Reads a page of what is after `after`. `marks` is what this process knows of the file.
    pub(super) fn read(
        &self,
        marks: &Mutex<Marks>,
        after: Option<Position>,
        limits: Limits,
    ) -> io::Result<Page> {
        self.head.page(self.file, marks, after, limits, Ok)
    }
}

/// As [`Locked::read`], beside a process that may have locked the file. `None` when the file was
/// changed meanwhile so that something else may have been read, or is of no use.
pub(super) fn read_beside(
    file: &File,
    boot: u64,
    marks: &Mutex<Marks>,
    after: Option<Position>,
    limits: Limits,
) -> io::Result<Option<Page>> {
    let sound = || {
        let metadata = file.metadata()?;
        match Head::read(file, metadata.len(), boot)? {
            Content::Sound(head) if metadata.nlink() > 0 && !head.is_removed => Ok(head),
            _ => Err(is_broken()),
        }
    };
    let page = sound().and_then(|head| {
        head.page(file, marks, after, limits, |before| {
            let now = sound()?;
            let is_same = (now.epoch, now.moves) == (before.epoch, before.moves);
            if is_same { Ok(now) } else { Err(is_broken()) }
        })
    });
    match page {
        Ok(page) => Ok(Some(page)),
        Err(error) if is_about_content(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

impl Head {
    /// Reads a page of what is after `after` from the file with this head. `check` returns the head
    /// that the file has by now: records before its first one may have been written over.
    fn page(
        self,
        file: &File,
        marks: &Mutex<Marks>,
        after: Option<Position>,
        limits: Limits,
        check: impl Fn(Self) -> io::Result<Self>,
    ) -> io::Result<Page> {
        let mut page = Page {
            head: self.position(),
            entries: Vec::new(),
        };
        // Another process may keep more than the size that was asked for.
        let surplus = self.last.saturating_sub(limits.size as u64);
        let after = offset_after(after, page.head).max(surplus);
        if after >= self.last {
            return Ok(page);
        }
        let known = marks.lock().before(self, after);
        let (last, at) = known.unwrap_or((self.last - self.count, self.start));
        let mut records = Records {
            file,
            head: self,
            check,
            last,
            at,
            piece: Bytes::new(),
        };
        page.entries = records.entries(after, oldest_ms(wall_ms(), limits))?;
        marks.lock().note(self, records.last, records.at);
        Ok(page)
    }
}

/// The records of a file, one after the other, which are read in pieces.
struct Records<'a, C> {
    file: &'a File,
    head: Head,
    /// As of [`Head::page`].
    check: C,
    /// The offset of the record before `at`.
    last: u64,
    at: u64,
    /// The bytes from `at` on that were read.
    piece: Bytes,
}

impl<C: Fn(Head) -> io::Result<Head>> Records<'_, C> {
    /// The entries of a page: those after `after`, and none of before `oldest`.
    fn entries(&mut self, after: u64, oldest: u64) -> io::Result<Vec<Entry>> {
        let (mut entries, mut bytes) = (Vec::<Entry>::new(), 0);
        while let Some(record) = self.next()? {
            let is_too_old = record.sent_at < oldest;
            let is_next = |kept: &Entry| kept.offset + 1 == record.offset;
            if is_too_old || !entries.last().is_none_or(is_next) {
                // With what is before it, which may seem newer after a clock that was set back. Or
                // the records between were dropped meanwhile.
                entries.clear();
                bytes = 0;
            }
            if is_too_old || record.offset <= after {
                self.advance(&record);
                continue;
            }
            let length = record.length as usize;
            if bytes > 0 && bytes + length > PAGE_BYTES {
                break;
            }
            if self.fill(record.size())? {
                bytes += length;
                entries.push(Entry {
                    offset: record.offset,
                    sent_at: record.sent_at,
                    envelope: self.advance(&record).slice(RECORD..),
                });
            }
        }
        Ok(entries)
    }

    /// The next record.
    fn next(&mut self) -> io::Result<Option<RecordHead>> {
        while self.at < self.head.end {
            if !self.fill(RECORD_BYTES)? {
                continue;
            }
            let record = self.piece.first_chunk().map(RecordHead::parse);
            let is_sound = |it: &RecordHead| {
                it.offset == self.last + 1 && it.size() <= self.head.end - self.at
            };
            return record.filter(is_sound).map(Some).ok_or_else(is_broken);
        }
        if self.last == self.head.last {
            Ok(None)
        } else {
            Err(is_broken())
        }
    }

    /// Reads until the piece has `length` bytes, if there are so many. False when they were dropped
    /// meanwhile: the next record is the first one that is still there.
    fn fill(&mut self, length: u64) -> io::Result<bool> {
        if self.piece.len() as u64 >= length {
            return Ok(true);
        }
        let rest = self.head.end - self.at;
        self.piece = bytes(self.file, self.at, rest.min(length.max(PIECE)))?.into();
        let now = (self.check)(self.head)?;
        if now.start <= self.at {
            return Ok(true);
        }
        if now.start > self.head.end {
            return Err(is_broken());
        }
        self.piece = Bytes::new();
        self.last = now.last - now.count;
        self.at = now.start;
        Ok(false)
    }

    /// Goes on after `record`. Returns as many of its bytes as were read.
    fn advance(&mut self, record: &RecordHead) -> Bytes {
        self.last = record.offset;
        self.at += record.size();
        let size = usize::try_from(record.size()).unwrap_or(usize::MAX);
        self.piece.split_to(size.min(self.piece.len()))
    }
}

/// Whether there was something in an empty file, where the system can tell.
fn was_written(metadata: &Metadata) -> bool {
    matches!((metadata.created(), metadata.modified()), (Ok(made), Ok(last)) if last > made)
}

fn bytes(file: &File, at: u64, length: u64) -> io::Result<Vec<u8>> {
    let length = usize::try_from(length).map_err(|_| ErrorKind::FileTooLarge)?;
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, at)?;
    Ok(bytes)
}

/// The numbers that stand at `at` in a file; `None` where it ends before.
pub(super) fn numbers<const N: usize>(file: &File, at: u64) -> io::Result<Option<[u64; N]>> {
    let mut bytes = [[0; 8]; N];
    match file.read_exact_at(bytes.as_flattened_mut(), at) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(None),
        read => read.map(|()| Some(bytes.map(u64::from_le_bytes))),
    }
}

pub(super) fn write_numbers<const N: usize>(
    file: &File,
    at: u64,
    numbers: [u64; N],
) -> io::Result<()> {
    file.write_all_at(numbers.map(u64::to_le_bytes).as_flattened(), at)
}

/// Bytes of the blocks of a file with no other record.
pub(super) fn alone(envelope: &[u8]) -> u64 {
    in_blocks(HEAD_BYTES + RECORD_BYTES + envelope.len() as u64)
}

/// Bytes of the blocks of a file.
pub(super) fn in_blocks(length: u64) -> u64 {
    length.next_multiple_of(BLOCK)
}

fn is_broken() -> io::Error {
    io::Error::new(ErrorKind::InvalidData, "a record is broken")
}

/// Whether an error says that a file has not got what it should have.
pub(super) fn is_about_content(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::InvalidData | ErrorKind::UnexpectedEof
    )
}

pub(super) fn held_for_too_long() -> io::Error {
    io::Error::new(
        ErrorKind::TimedOut,
        "another process holds the history of the group for too long",
    )
}

//! The file of one group: a head and, behind it, records one after the other.
//!
//! To append, a process locks the file, writes the record behind the last one, and then the head,
//! which says where the first record begins and the last one ends. So a process that is killed leaves
//! whole records only, and the system ends its lock.
//!
//! Records that are too many or too old lie before the first one. When they take more than the
//! others, these are copied over them: as both do not overlap, the old ones are whole until the head
//! names the new ones.

use std::{
    fs::File,
    io::{self, ErrorKind},
    os::unix::fs::FileExt,
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use parking_lot::MutexGuard;
use rustix::fs::{FlockOperation, flock};

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
/// The pauses of a process that waits for a lock.
const PAUSE: Duration = Duration::from_micros(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(2);

/// A record that this process has seen: where to go on reading.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Found {
    epoch: u64,
    moves: u64,
    /// The offset of the last record before `at`.
    offset: u64,
    at: u64,
}

/// The head of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    epoch: u64,
    /// The offset of the newest record.
    last: u64,
    /// Records.
    pub(super) count: u64,
    /// Where the first one begins.
    start: u64,
    /// Where the last one ends.
    end: u64,
    /// How often records were moved within the file.
    moves: u64,
    /// Whether the file was removed while other processes have it open.
    pub(super) is_removed: bool,
}

impl Head {
    pub(super) fn new() -> Self {
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
    pub(super) fn read(file: &File) -> io::Result<Option<Self>> {
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

    pub(super) fn write(&self, file: &File) -> io::Result<()> {
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
pub(super) struct Locked<'a> {
    pub(super) file: &'a File,
    pub(super) found: MutexGuard<'a, Found>,
    pub(super) head: Head,
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        // A lock that cannot be given back ends with the file.
        let _ = flock(self.file, FlockOperation::Unlock);
    }
}

impl Locked<'_> {
    pub(super) fn append(&mut self, envelope: &[u8], limits: Limits) -> io::Result<Position> {
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

    pub(super) fn read(&mut self, after: Option<Position>, limits: Limits) -> io::Result<Page> {
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

/// Locks a file for this process alone.
pub(super) fn lock(file: &File, deadline: Instant) -> io::Result<()> {
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

pub(super) fn held_for_too_long() -> io::Error {
    io::Error::new(
        ErrorKind::TimedOut,
        "another process holds the history of the group for too long",
    )
}

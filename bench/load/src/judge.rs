//! Compares every byte that comes back on one connection with what was sent.
//!
//! The next answer is expected to be the oldest message that has not come back. While its bytes
//! fit, nothing is stored. At the first byte that does not fit, the message is collected whole and
//! then classified: another message of ours (gap, late, twice), another connection's, or damaged.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use crate::frame::Opcode;
use crate::script::{Address, Script};

/// Counts of what a server did wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Messages that never came back.
    pub lost: u64,
    /// Messages that came back again, or that had not been sent yet.
    pub duplicate: u64,
    /// Messages that came back after a later one.
    pub out_of_order: u64,
    /// Messages with a wrong byte or of a wrong length.
    pub corrupt: u64,
    /// Whole messages of another connection.
    pub foreign: u64,
    /// Text answered by binary, or the other way round.
    pub wrong_kind: u64,
    /// Frames or handshakes against RFC 6455.
    pub violation: u64,
    /// Connections that failed, or ended before we asked for it.
    pub disconnected: u64,
}

impl Tally {
    /// The counts with their names.
    pub fn entries(&self) -> [(&'static str, u64); 8] {
        [
            ("lost", self.lost),
            ("duplicate", self.duplicate),
            ("out_of_order", self.out_of_order),
            ("corrupt", self.corrupt),
            ("foreign", self.foreign),
            ("wrong_kind", self.wrong_kind),
            ("violation", self.violation),
            ("disconnected", self.disconnected),
        ]
    }

    /// The counts that are not zero, in words.
    pub fn describe(&self) -> String {
        let found = self.entries().into_iter().filter(|(_, count)| *count > 0);
        found
            .map(|(name, count)| format!("{name} {count}"))
            .collect::<Vec<_>>()
            .join(", ")
    }

    /// Counts those of `other` too.
    pub fn add(&mut self, other: &Self) {
        self.lost += other.lost;
        self.duplicate += other.duplicate;
        self.out_of_order += other.out_of_order;
        self.corrupt += other.corrupt;
        self.foreign += other.foreign;
        self.wrong_kind += other.wrong_kind;
        self.violation += other.violation;
        self.disconnected += other.disconnected;
    }

    /// All errors together.
    pub fn total(&self) -> u64 {
        self.entries().iter().map(|(_, count)| count).sum()
    }
}

/// The judge of one connection.
#[derive(Debug)]
pub struct Judge {
    connection: u32,
    /// Number of the answer that should come next, and when it and those after it were sent.
    next: u64,
    sent: VecDeque<Instant>,
    /// Messages skipped by the server so far; they may still come late.
    skipped: BTreeMap<u64, Instant>,
    /// Bytes of the current answer that fitted the expected one.
    fitted: usize,
    /// The current answer, once it did not fit.
    misfit: Option<Vec<u8>>,
}

impl Judge {
    /// The judge of connection number `connection`.
    pub fn new(connection: u32) -> Self {
        Self {
            connection,
            next: 0,
            sent: VecDeque::new(),
            skipped: BTreeMap::new(),
            fitted: 0,
            misfit: None,
        }
    }

    /// Notes that the next message goes out at `now`.
    pub fn sent(&mut self, now: Instant) {
        self.sent.push_back(now);
    }

    /// Messages sent so far.
    pub fn messages_sent(&self) -> u64 {
        self.next + self.sent.len() as u64
    }

    /// Messages that have not come back.
    pub fn missing(&self) -> u64 {
        (self.sent.len() + self.skipped.len()) as u64
    }

    /// Judges the next bytes of an answer; when it ends here and is right, gives its sending time.
    pub fn part(
        &mut self,
        script: &Script,
        kind: Opcode,
        bytes: &[u8],
        last: bool,
        tally: &mut Tally,
    ) -> Option<Instant> {
        let expected = Address {
            connection: self.connection,
            number: self.next,
        };
        match &mut self.misfit {
            // Enough to know that it is too long; the rest need not be kept.
            Some(misfit) if misfit.len() > script.size() => {}
            Some(misfit) => misfit.extend_from_slice(bytes),
            None if !self.sent.is_empty() && script.fits(expected, self.fitted, bytes) => {
                self.fitted += bytes.len();
            }
            None => {
                let mut misfit = Vec::new();
                script.push_payload(expected, 0, self.fitted, &mut misfit);
                misfit.extend_from_slice(bytes);
                self.misfit = Some(misfit);
            }
        }
        if !last {
            return None;
        }
        if kind != script.kind() {
            tally.wrong_kind += 1;
        }
        let whole = std::mem::take(&mut self.fitted) == script.size();
        let at = match self.misfit.take() {
            None if whole => self.take_next(),
            None => {
                tally.corrupt += 1;
                self.take_next();
                None
            }
            Some(misfit) => self.classify(script, &misfit, tally),
        };
        at.filter(|_| kind == script.kind())
    }

    fn take_next(&mut self) -> Option<Instant> {
        let at = self.sent.pop_front()?;
        self.next += 1;
        Some(at)
    }

    fn classify(&mut self, script: &Script, misfit: &[u8], tally: &mut Tally) -> Option<Instant> {
        match script.identify(misfit) {
            None => {
                tally.corrupt += 1;
                // It stands for the answer that was due, which is then not lost as well.
                self.take_next();
                None
            }
            Some(address) if address.connection != self.connection => {
                tally.foreign += 1;
                None
            }
            Some(Address { number, .. }) if number >= self.messages_sent() => {
                tally.duplicate += 1;
                None
            }
            Some(Address { number, .. }) if number >= self.next => {
                while self.next < number {
                    let skipped = self.next;
                    let at = self.take_next()?;
                    self.skipped.insert(skipped, at);
                }
                self.take_next()
            }
            Some(Address { number, .. }) => {
                let late = self.skipped.remove(&number);
                match late {
                    Some(_) => tally.out_of_order += 1,
                    None => tally.duplicate += 1,
                }
                late
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The verdict when five messages are sent and `answers` come back in pieces of `step`.
    fn verdict(answers: &[Vec<u8>], step: usize) -> (Tally, usize) {
        let script = script();
        let (mut judge, mut tally, mut good) = (Judge::new(3), Tally::default(), 0);
        for _ in 0..5 {
            judge.sent(Instant::now());
        }
        for answer in answers {
            let pieces = answer.chunks(step).count();
            for (index, piece) in answer.chunks(step).enumerate() {
                let last = index + 1 == pieces;
                let at = judge.part(&script, Opcode::Text, piece, last, &mut tally);
                good += usize::from(at.is_some());
            }
        }
        tally.lost = judge.missing();
        (tally, good)
    }

    fn script() -> Script {
        Script::new(Opcode::Text, 40).unwrap()
    }

    fn answer(number: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        script().push_payload(
            Address {
                connection: 3,
                number,
            },
            0,
            40,
            &mut bytes,
        );
        bytes
    }

    fn changed(number: u64, at: usize) -> Vec<u8> {
        let mut bytes = answer(number);
        bytes[at] ^= 0x20;
        bytes
    }

    fn of_another() -> Vec<u8> {
        let mut bytes = Vec::new();
        script().push_payload(
            Address {
                connection: 4,
                number: 1,
            },
            0,
            40,
            &mut bytes,
        );
        bytes
    }

    #[test]
    fn each_misdeed_is_counted_once_and_under_its_name() {
        let none = Tally::default();
        let all = [0, 1, 2, 3, 4];
        let answers = |numbers: &[u64]| {
            numbers
                .iter()
                .map(|number| answer(*number))
                .collect::<Vec<_>>()
        };
        let with = |index: usize, odd: Vec<u8>| {
            let mut list = answers(&all);
            list[index] = odd;
            list
        };
        let longer = [answer(1), b"x".to_vec()].concat();
        for (name, list, expected, good) in [
            ("right", answers(&all), none.clone(), 5),
            (
                "nothing",
                vec![],
                Tally {
                    lost: 5,
                    ..none.clone()
                },
                0,
            ),
            (
                "last lost",
                answers(&all[..4]),
                Tally {
                    lost: 1,
                    ..none.clone()
                },
                4,
            ),
            (
                "first lost",
                answers(&all[1..]),
                Tally {
                    lost: 1,
                    ..none.clone()
                },
                4,
            ),
            (
                "two lost",
                answers(&[0, 3, 4]),
                Tally {
                    lost: 2,
                    ..none.clone()
                },
                3,
            ),
            (
                "twice",
                answers(&[0, 1, 1, 2, 3, 4]),
                Tally {
                    duplicate: 1,
                    ..none.clone()
                },
                5,
            ),
            (
                "much later again",
                answers(&[0, 1, 2, 3, 4, 0]),
                Tally {
                    duplicate: 1,
                    ..none.clone()
                },
                5,
            ),
            (
                "invented",
                answers(&[0, 1, 2, 3, 4, 5]),
                Tally {
                    duplicate: 1,
                    ..none.clone()
                },
                5,
            ),
            (
                "swapped",
                answers(&[1, 0, 2, 3, 4]),
                Tally {
                    out_of_order: 1,
                    ..none.clone()
                },
                5,
            ),
            (
                "moved to the end",
                answers(&[1, 2, 3, 4, 0]),
                Tally {
                    out_of_order: 1,
                    ..none.clone()
                },
                5,
            ),
            (
                "changed body",
                with(1, changed(1, 39)),
                Tally {
                    corrupt: 1,
                    ..none.clone()
                },
                4,
            ),
            (
                "changed head",
                with(1, changed(1, 11)),
                Tally {
                    corrupt: 1,
                    ..none.clone()
                },
                4,
            ),
            (
                "cut",
                with(1, answer(1)[..39].to_vec()),
                Tally {
                    corrupt: 1,
                    ..none.clone()
                },
                4,
            ),
            (
                "longer",
                with(1, longer),
                Tally {
                    corrupt: 1,
                    ..none.clone()
                },
                4,
            ),
            (
                "another's",
                with(1, of_another()),
                Tally {
                    foreign: 1,
                    lost: 1,
                    ..none.clone()
                },
                4,
            ),
        ] {
            for step in [1, 7, 64] {
                assert_eq!(
                    verdict(&list, step),
                    (expected.clone(), good),
                    "{name}, step {step}"
                );
            }
        }
    }

    #[test]
    fn the_wrong_kind_is_counted_and_not_good() {
        let (script, mut judge, mut tally) = (script(), Judge::new(3), Tally::default());
        judge.sent(Instant::now());
        let at = judge.part(&script, Opcode::Binary, &answer(0), true, &mut tally);
        assert_eq!((at, tally.wrong_kind, judge.missing()), (None, 1, 0));
    }
}

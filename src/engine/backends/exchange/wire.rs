//! The messages of processes about presence, as bytes.

use bytes::{Buf, BufMut, Bytes};

use crate::engine::presence::{Malformed, Record, Source, part, put, text};

/// A message, and the process that sends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Packet {
    pub(super) from: Source,
    /// When it was sent, in milliseconds since 1970. No two of one process have the same.
    pub(super) sent_at: u64,
    pub(super) message: Message,
}

/// A message. Positions are numbers of notes: all before it are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// The sender lives.
    Beat,
    /// The sender ends.
    Gone,
    /// The sender wants to know which users of a group are present in other processes.
    Question {
        name: String,
        /// The question's; zero for one that is not waited for.
        number: u64,
        /// `None` when the sender has no users in the group, and does not take part in it.
        part: Option<Part>,
    },
    /// The changes in the sender.
    Notes(Notes),
    /// A part of what the sender tells of all its users in a group.
    Answer(Answer),
    /// The sender has no users any more in a group, after this position.
    Left { name: String, position: u64 },
}

/// The changes in a group, between two positions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Notes {
    pub(super) name: String,
    pub(super) before: u64,
    pub(super) after: u64,
    pub(super) records: Vec<Record>,
}

/// A part of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) name: String,
    /// The question's number.
    pub(super) number: u64,
    pub(super) position: u64,
    /// Whether the sender takes part in the group.
    pub(super) takes_part: bool,
    pub(super) is_first: bool,
    pub(super) is_last: bool,
    pub(super) records: Vec<Record>,
}

/// A process that takes part in a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// The position after its last notes.
    pub(super) position: u64,
    /// Whether it has told of no user yet.
    pub(super) is_new: bool,
}

impl Packet {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(64);
        bytes.put_u64(self.from);
        bytes.put_u64(self.sent_at);
        self.message.put(&mut bytes);
        bytes
    }

    /// The packet of `bytes`.
    ///
    /// # Errors
    /// [`Malformed`] for anything else.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut bytes = Bytes::copy_from_slice(bytes);
        Ok(Self {
            from: bytes.try_get_u64()?,
            sent_at: bytes.try_get_u64()?,
            message: Message::decode(&mut bytes)?,
        })
    }
}

impl Message {
    fn put(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Beat => bytes.push(0),
            Self::Gone => bytes.push(1),
            Self::Question { name, number, part } => {
                bytes.push(2);
                put(bytes, name.as_bytes());
                bytes.put_u64(*number);
                if let Some(part) = part {
                    bytes.put_u64(part.position);
                    bytes.push(u8::from(part.is_new));
                }
            }
            Self::Notes(notes) => {
                bytes.push(3);
                put(bytes, notes.name.as_bytes());
                bytes.put_u64(notes.before);
                bytes.put_u64(notes.after);
                put_records(bytes, &notes.records);
            }
            Self::Answer(answer) => {
                bytes.push(4);
                put(bytes, answer.name.as_bytes());
                bytes.put_u64(answer.number);
                bytes.put_u64(answer.position);
                let flags = [answer.takes_part, answer.is_first, answer.is_last];
                bytes.extend(flags.map(u8::from));
                put_records(bytes, &answer.records);
            }
            Self::Left { name, position } => {
                bytes.push(5);
                put(bytes, name.as_bytes());
                bytes.put_u64(*position);
            }
        }
    }

    fn decode(bytes: &mut Bytes) -> Result<Self, Malformed> {
        Ok(match bytes.try_get_u8()? {
            0 => Self::Beat,
            1 => Self::Gone,
            2 => Self::Question {
                name: text(bytes)?,
                number: bytes.try_get_u64()?,
                part: if bytes.is_empty() {
                    None
                } else {
                    Some(Part {
                        position: bytes.try_get_u64()?,
                        is_new: bytes.try_get_u8()? != 0,
                    })
                },
            },
            3 => Self::Notes(Notes {
                name: text(bytes)?,
                before: bytes.try_get_u64()?,
                after: bytes.try_get_u64()?,
                records: records(bytes)?,
            }),
            4 => Self::Answer(Answer {
                name: text(bytes)?,
                number: bytes.try_get_u64()?,
                position: bytes.try_get_u64()?,
                takes_part: bytes.try_get_u8()? != 0,
                is_first: bytes.try_get_u8()? != 0,
                is_last: bytes.try_get_u8()? != 0,
                records: records(bytes)?,
            }),
            5 => Self::Left {
                name: text(bytes)?,
                position: bytes.try_get_u64()?,
            },
            _ => return Err(Malformed),
        })
    }
}

fn put_records(bytes: &mut Vec<u8>, records: &[Record]) {
    for record in records {
        put(bytes, &record.encode());
    }
}

fn records(bytes: &mut Bytes) -> Result<Vec<Record>, Malformed> {
    let mut records = Vec::new();
    while !bytes.is_empty() {
        records.push(Record::decode(part(bytes)?)?);
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::*;
    use crate::engine::presence::{Facts, Telling};

    fn record() -> Record {
        Record {
            facts: Arc::new(Facts {
                since: "s".to_owned(),
                key: "user:7".to_owned(),
                user: None,
                info: "null".to_owned(),
                connections: Vec::new(),
            }),
            stamp: 1,
            connections: 2,
            away: Duration::ZERO,
            grace: Duration::from_secs(10),
            telling: Telling::Claimed(3),
            has_moved: false,
        }
    }

    /// One of each kind, and one more for what may be left out.
    fn messages() -> [Message; 7] {
        let name = || "räum".to_owned();
        let part = Part {
            position: 7,
            is_new: true,
        };
        [
            Message::Beat,
            Message::Gone,
            Message::Question {
                name: name(),
                number: 3,
                part: Some(part),
            },
            Message::Question {
                name: name(),
                number: 0,
                part: None,
            },
            Message::Notes(Notes {
                name: name(),
                before: 1,
                after: 3,
                records: vec![record(), record()],
            }),
            Message::Answer(Answer {
                name: name(),
                number: 5,
                position: 9,
                takes_part: true,
                is_first: false,
                is_last: true,
                records: vec![record()],
            }),
            Message::Left {
                name: name(),
                position: 9,
            },
        ]
    }

    #[test]
    fn a_parcel_is_the_same_behind_its_bytes() {
        for message in messages() {
            let packet = Packet {
                from: 1,
                sent_at: 2,
                message,
            };
            let bytes = packet.encode();
            assert_eq!(Packet::decode(&bytes), Ok(packet.clone()));
            for length in 0..bytes.len() {
                // A message that is cut off is another one, or none; never a panic.
                assert_ne!(Packet::decode(&bytes[..length]), Ok(packet.clone()));
            }
        }
    }
}

//! What processes tell each other of presence, as bytes.

use bytes::{Buf, Bytes};

use crate::engine::presence::{Malformed, Record, Source};

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
    /// What has changed in the sender.
    Notes(Notes),
    /// A part of what the sender tells of all its users in a group.
    Answer(Answer),
    /// The sender has no users any more in a group, after this position.
    Left { name: String, position: u64 },
}

/// What has changed in a group, between two positions.
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
        bytes.extend_from_slice(&self.from.to_be_bytes());
        bytes.extend_from_slice(&self.sent_at.to_be_bytes());
        match &self.message {
            Message::Beat => bytes.push(0),
            Message::Gone => bytes.push(1),
            Message::Question { name, number, part } => {
                bytes.push(2);
                put(&mut bytes, name.as_bytes());
                bytes.extend_from_slice(&number.to_be_bytes());
                if let Some(part) = part {
                    bytes.extend_from_slice(&part.position.to_be_bytes());
                    bytes.push(u8::from(part.is_new));
                }
            }
            Message::Notes(Notes {
                name,
                before,
                after,
                records,
            }) => {
                bytes.push(3);
                put(&mut bytes, name.as_bytes());
                bytes.extend_from_slice(&before.to_be_bytes());
                bytes.extend_from_slice(&after.to_be_bytes());
                put_records(&mut bytes, records);
            }
            Message::Answer(Answer {
                name,
                number,
                position,
                takes_part,
                is_first,
                is_last,
                records,
            }) => {
                bytes.push(4);
                put(&mut bytes, name.as_bytes());
                bytes.extend_from_slice(&number.to_be_bytes());
                bytes.extend_from_slice(&position.to_be_bytes());
                let flags = [*takes_part, *is_first, *is_last];
                bytes.extend(flags.map(u8::from));
                put_records(&mut bytes, records);
            }
            Message::Left { name, position } => {
                bytes.push(5);
                put(&mut bytes, name.as_bytes());
                bytes.extend_from_slice(&position.to_be_bytes());
            }
        }
        bytes
    }

    /// The packet of `bytes`.
    ///
    /// # Errors
    /// [`Malformed`] for anything else.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut bytes = Bytes::copy_from_slice(bytes);
        let (from, sent_at) = (number(&mut bytes)?, number(&mut bytes)?);
        let message = match byte(&mut bytes)? {
            0 => Message::Beat,
            1 => Message::Gone,
            2 => Message::Question {
                name: text(&mut bytes)?,
                number: number(&mut bytes)?,
                part: if bytes.is_empty() {
                    None
                } else {
                    Some(Part {
                        position: number(&mut bytes)?,
                        is_new: byte(&mut bytes)? != 0,
                    })
                },
            },
            3 => Message::Notes(Notes {
                name: text(&mut bytes)?,
                before: number(&mut bytes)?,
                after: number(&mut bytes)?,
                records: records(&mut bytes)?,
            }),
            4 => Message::Answer(Answer {
                name: text(&mut bytes)?,
                number: number(&mut bytes)?,
                position: number(&mut bytes)?,
                takes_part: byte(&mut bytes)? != 0,
                is_first: byte(&mut bytes)? != 0,
                is_last: byte(&mut bytes)? != 0,
                records: records(&mut bytes)?,
            }),
            5 => Message::Left {
                name: text(&mut bytes)?,
                position: number(&mut bytes)?,
            },
            _ => return Err(Malformed),
        };
        Ok(Self {
            from,
            sent_at,
            message,
        })
    }
}

fn put(bytes: &mut Vec<u8>, part: &[u8]) {
    let length = u32::try_from(part.len()).unwrap_or(u32::MAX);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(part);
}

fn put_records(bytes: &mut Vec<u8>, records: &[Record]) {
    for record in records {
        put(bytes, &record.encode());
    }
}

fn byte(bytes: &mut Bytes) -> Result<u8, Malformed> {
    bytes.try_get_u8().map_err(|_| Malformed)
}

fn number(bytes: &mut Bytes) -> Result<u64, Malformed> {
    bytes.try_get_u64().map_err(|_| Malformed)
}

fn part(bytes: &mut Bytes) -> Result<Bytes, Malformed> {
    let length = bytes.try_get_u32().map_err(|_| Malformed)? as usize;
    if bytes.remaining() < length {
        return Err(Malformed);
    }
    Ok(bytes.split_to(length))
}

fn text(bytes: &mut Bytes) -> Result<String, Malformed> {
    let part = part(bytes)?;
    std::str::from_utf8(&part)
        .map(str::to_owned)
        .map_err(|_| Malformed)
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

    #[test]
    fn a_parcel_is_the_same_behind_its_bytes() {
        let record = Record {
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
        };
        let name = || "räum".to_owned();
        let part = Part {
            position: 7,
            is_new: true,
        };
        let messages = [
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
                records: vec![record.clone(), record.clone()],
            }),
            Message::Answer(Answer {
                name: name(),
                number: 5,
                position: 9,
                takes_part: true,
                is_first: false,
                is_last: true,
                records: vec![record],
            }),
            Message::Left {
                name: name(),
                position: 9,
            },
        ];
        for message in messages {
            let packet = Packet {
                from: 1,
                sent_at: 2,
                message,
            };
            let bytes = packet.encode();
            assert_eq!(Packet::decode(&bytes), Ok(packet.clone()));
            for length in 0..bytes.len() {
                // What is cut off is another message, or none; never a panic.
                assert_ne!(Packet::decode(&bytes[..length]), Ok(packet.clone()));
            }
        }
    }
}

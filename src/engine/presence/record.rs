//! The record by which a process tells the others of one user in one group.

use std::{sync::Arc, time::Duration};

use bytes::{Buf, BufMut, Bytes, TryGetError};

use super::facts::{Contact, Facts, Info};
use crate::engine::base::clock::millis;

/// A process, as the others know it.
pub type Source = u64;

/// The connections of a user in one process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The user.
    pub facts: Arc<Facts>,
    /// When the newest connection gave its `info`, in milliseconds since 1970; zero for none.
    pub stamp: u64,
    /// The number of connections.
    pub connections: u32,
    /// How long ago the user's last connection in any process has ended; zero while the sender knows
    /// one. So of several processes whose last connections end at once each tells zero.
    pub away: Duration,
    /// How long a user without connections stays in this group.
    pub grace: Duration,
    /// Whether the sender tells that the user has joined.
    pub telling: Telling,
    /// Whether connections that the sender does not name any more have moved to another process,
    /// which tells of them.
    pub has_moved: bool,
}

/// Whether a process tells that a user has joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Telling {
    /// It does not, or that was long ago.
    Nothing,
    /// It wants to, and has this claim. See `claim.rs`.
    Claimed(u64),
    /// It does, or has done so.
    Told,
}

impl Telling {
    // Claims are below the second one.
    const TOLD: u64 = u64::MAX;
    const NOTHING_BUT_MOVED: u64 = 1 << 63;
    const TOLD_AND_MOVED: u64 = u64::MAX - 1;

    fn encode(self, has_moved: bool) -> u64 {
        match self {
            Self::Nothing if has_moved => Self::NOTHING_BUT_MOVED,
            Self::Nothing => 0,
            Self::Claimed(id) => id,
            Self::Told if has_moved => Self::TOLD_AND_MOVED,
            Self::Told => Self::TOLD,
        }
    }

    fn decode(number: u64) -> (Self, bool) {
        match number {
            0 => (Self::Nothing, false),
            Self::NOTHING_BUT_MOVED => (Self::Nothing, true),
            Self::TOLD => (Self::Told, false),
            Self::TOLD_AND_MOVED => (Self::Told, true),
            id => (Self::Claimed(id), false),
        }
    }
}

/// The bytes are nothing that a process of this package sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl From<TryGetError> for Malformed {
    fn from(_: TryGetError) -> Self {
        Self
    }
}

/// Cuts off the first `length` bytes.
pub(crate) fn split(bytes: &mut Bytes, length: usize) -> Result<Bytes, Malformed> {
    if bytes.len() < length {
        return Err(Malformed);
    }
    Ok(bytes.split_to(length))
}

/// Adds a part after its length.
pub(crate) fn put(bytes: &mut Vec<u8>, part: &[u8]) {
    bytes.put_u32(u32::try_from(part.len()).unwrap_or(u32::MAX));
    bytes.extend_from_slice(part);
}

/// Cuts off a part after its length.
pub(crate) fn part(bytes: &mut Bytes) -> Result<Bytes, Malformed> {
    let length = bytes.try_get_u32()?;
    split(bytes, length as usize)
}

/// Cuts off a text after its length.
pub(crate) fn text(bytes: &mut Bytes) -> Result<String, Malformed> {
    let text = std::str::from_utf8(&part(bytes)?).map(str::to_owned);
    text.map_err(|_| Malformed)
}

const NONE: u32 = u32::MAX;

impl Record {
    /// How many bytes it takes, about.
    #[expect(clippy::len_without_is_empty, reason = "no record is empty")]
    pub fn len(&self) -> usize {
        let facts = &*self.facts;
        let user = facts.user.as_ref().map_or(0, String::len);
        let all = facts.connections.iter();
        let connections: usize = all.map(|each| each.id.len() + each.info.len() + 8).sum();
        72 + facts.key.len() + facts.since.len() + facts.info.len() + user + connections
    }

    /// The record as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let facts = &*self.facts;
        let mut bytes = Vec::with_capacity(64 + facts.key.len() + facts.info.len());
        bytes.put_u64(self.stamp);
        bytes.put_u32(self.connections);
        bytes.put_u64(millis(self.away));
        bytes.put_u64(millis(self.grace));
        bytes.put_u64(self.telling.encode(self.has_moved));
        put(&mut bytes, facts.key.as_bytes());
        match &facts.user {
            Some(user) => put(&mut bytes, user.as_bytes()),
            None => bytes.put_u32(NONE),
        }
        put(&mut bytes, facts.since.as_bytes());
        put(&mut bytes, facts.info.as_bytes());
        for contact in &facts.connections {
            put(&mut bytes, contact.id.as_bytes());
            put(&mut bytes, contact.info.as_bytes());
        }
        bytes
    }

    /// The record of `bytes`.
    ///
    /// # Errors
    /// [`Malformed`] for anything else.
    pub fn decode(mut bytes: Bytes) -> Result<Self, Malformed> {
        let stamp = bytes.try_get_u64()?;
        let connections = bytes.try_get_u32()?;
        let away = bytes.try_get_u64()?;
        let grace = bytes.try_get_u64()?;
        let (telling, has_moved) = Telling::decode(bytes.try_get_u64()?);
        let mut facts = Facts {
            key: text(&mut bytes)?,
            user: if bytes.starts_with(&NONE.to_be_bytes()) {
                bytes.advance(size_of_val(&NONE));
                None
            } else {
                Some(text(&mut bytes)?)
            },
            since: text(&mut bytes)?,
            info: text(&mut bytes)?,
            connections: Vec::new(),
        };
        while bytes.has_remaining() {
            facts.connections.push(Contact {
                id: text(&mut bytes)?.into(),
                info: text(&mut bytes)?.into(),
            });
        }
        Ok(Self {
            facts: Arc::new(facts),
            stamp,
            connections,
            away: Duration::from_millis(away),
            grace: Duration::from_millis(grace),
            telling,
            has_moved,
        })
    }

    pub(super) fn info(&self) -> Info {
        Info {
            json: self.facts.info.clone(),
            stamp: self.stamp,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_the_same_behind_its_bytes() {
        let tellings = [
            (Telling::Nothing, false),
            (Telling::Nothing, true),
            (Telling::Claimed(7), false),
            (Telling::Told, false),
            (Telling::Told, true),
        ];
        for (number, (telling, has_moved)) in tellings.into_iter().enumerate() {
            let user = (number == 2).then(|| "7".to_owned());
            let record = Record {
                facts: Arc::new(Facts {
                    key: "user:7".to_owned(),
                    user,
                    since: "2026-01-02T03:04:05.678+00:00".to_owned(),
                    info: "{\"näme\":\"x\"}".to_owned(),
                    connections: vec![Contact {
                        id: "a".into(),
                        info: "null".into(),
                    }],
                }),
                stamp: 5,
                connections: 2,
                away: Duration::from_millis(7),
                grace: Duration::from_secs(10),
                telling,
                has_moved,
            };
            let bytes = Bytes::from(record.encode());
            assert_eq!(Record::decode(bytes.clone()), Ok(record));
            // Connections stand at the end: without them it is a record, too.
            let without = bytes.len() - 4 - 1 - 4 - 4;
            for length in (0..bytes.len()).filter(|length| *length != without) {
                assert_eq!(Record::decode(bytes.slice(..length)), Err(Malformed));
            }
        }
    }
}

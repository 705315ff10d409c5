//! Messages that are published, as bytes that go to other processes.
//!
//! One byte for the version of this format, one for the kind, two for the number of excluded
//! members (big endian), 16 for each of them; the rest is the payload of a message, or that of a
//! close frame (RFC 6455 section 5.5.1). That of an eviction is one byte for what is named, two for the
//! length of the name, the name, and the reason. [Markers](super::markers) are in the place of excluded
//! members. Processes that do not know a kind drop it.

use super::{
    group::Entry,
    markers::Token,
    member::{Eviction, Whom},
    memberships::MemberId,
    message::Message,
};
use crate::protocol::{close::CloseFrame, message::Kind};

const VERSION: u8 = 1;
const TEXT: u8 = 0;
const BINARY: u8 = 1;
const CLOSE: u8 = 2;
const EVENT: u8 = 3;
const EVICTION: u8 = 4;
const MARKERS: u8 = 5;
const OF_MEMBER: u8 = 0;
const OF_USER: u8 = 1;
const ID_BYTES: usize = size_of::<MemberId>();

fn envelope(kind: u8, exclude: &[MemberId], payload: &[u8]) -> Vec<u8> {
    // A caller that excludes more members gets an error before.
    let exclude = &exclude[..exclude.len().min(MAX_EXCLUDED)];
    let [high, low] = (u16::try_from(exclude.len()).unwrap_or(u16::MAX)).to_be_bytes();
    let head = [VERSION, kind, high, low];
    [&head, exclude.as_flattened(), payload].concat()
}

/// The most members that one message can exclude.
pub const MAX_EXCLUDED: usize = u16::MAX as usize;

/// The envelope of a message.
pub fn of_message(message: &Message) -> Vec<u8> {
    let kind = match message.kind() {
        _ if message.is_event() => EVENT,
        Kind::Text => TEXT,
        Kind::Binary => BINARY,
    };
    envelope(kind, message.exclude(), &message.payload())
}

/// The envelope that closes a group's members.
pub fn of_close(frame: &CloseFrame) -> Vec<u8> {
    // Behind the two bytes of a control frame's head.
    envelope(CLOSE, &[], frame.encode().get(2..).unwrap_or_default())
}

/// The envelope that takes members out of a group.
pub fn of_eviction(eviction: &Eviction) -> Vec<u8> {
    let (what, whom) = match &eviction.whom {
        Whom::Member(id) => (OF_MEMBER, &id[..]),
        Whom::User(user) => (OF_USER, user.as_bytes()),
    };
    let length = u16::try_from(whom.len()).unwrap_or(u16::MAX);
    let [high, low] = length.to_be_bytes();
    let whom = &whom[..usize::from(length)];
    let payload = [&[what, high, low], whom, eviction.reason.as_bytes()].concat();
    envelope(EVICTION, &[], &payload)
}

/// The envelope of markers.
pub fn of_markers(tokens: &[Token]) -> Vec<u8> {
    envelope(MARKERS, tokens, &[])
}

fn read_eviction(payload: &[u8]) -> Option<Eviction> {
    let (&[what, high, low], rest) = payload.split_first_chunk()?;
    let (whom, reason) = rest.split_at_checked(usize::from(u16::from_be_bytes([high, low])))?;
    let whom = match what {
        OF_MEMBER => Whom::Member(whom.try_into().ok()?),
        OF_USER => Whom::User(std::str::from_utf8(whom).ok()?.to_owned()),
        _ => return None,
    };
    let reason = std::str::from_utf8(reason).ok()?.to_owned();
    Some(Eviction { whom, reason })
}

/// The kind of an envelope, the ids in it, and the payload.
fn split(bytes: &[u8]) -> Option<(u8, Vec<MemberId>, &[u8])> {
    let (&[version, kind, high, low], rest) = bytes.split_first_chunk()?;
    if version != VERSION {
        return None;
    }
    let count = usize::from(u16::from_be_bytes([high, low]));
    let (ids, payload) = rest.split_at_checked(count * ID_BYTES)?;
    let ids = ids
        .chunks_exact(ID_BYTES)
        .filter_map(|id| id.try_into().ok())
        .collect();
    Some((kind, ids, payload))
}

/// The markers of an envelope; `None` when it has another kind.
pub(super) fn markers_of(bytes: &[u8]) -> Option<Vec<Token>> {
    let (kind, tokens, _) = split(bytes)?;
    (kind == MARKERS).then_some(tokens)
}

/// The eviction of an envelope; `None` when it has another kind.
#[cfg(unix)]
pub(super) fn eviction_in(bytes: &[u8]) -> Option<Eviction> {
    let (kind, _, payload) = split(bytes)?;
    (kind == EVICTION).then(|| read_eviction(payload)).flatten()
}

/// Reads an envelope; `None` when it is none, or one of another version or of markers.
pub(super) fn read(bytes: &[u8]) -> Option<Entry> {
    let (kind, ids, payload) = split(bytes)?;
    match kind {
        TEXT => {
            simdutf8::basic::from_utf8(payload).ok()?;
            Some(Entry::Message(Message::new(Kind::Text, payload, &ids)))
        }
        BINARY => Some(Entry::Message(Message::new(Kind::Binary, payload, &ids))),
        EVENT => {
            simdutf8::basic::from_utf8(payload).ok()?;
            Some(Entry::Message(Message::event(payload, &ids)))
        }
        EVICTION => read_eviction(payload).map(Entry::Eviction),
        CLOSE => CloseFrame::parse(payload).ok().map(Entry::Close),
        _ => None,
    }
}

//! The history of groups: scripts that the server runs, each of them as one step.
//!
//! A group has two keys, of which only the scripts know more: its numbering, and a stream of its
//! messages. Keeping a message gives it its number and publishes it, with that, on the group's
//! channel. In a cluster the keys and the channel lie in one hash slot: the keys have the channel
//! as their hash tag, and no channel has a brace in it.

use std::{borrow::Cow, sync::Arc, time::Duration};

use bytes::Bytes;
use redis::{Cmd, InfoDict, Pipeline, ServerError, Value, from_redis_value, from_redis_value_ref};

use super::connection::{Connection, within};
use crate::engine::{
    backends::call::Reason,
    base::clock::millis,
    history::{Entry, Limits, Page, Position, new_epoch},
};

const APPEND: &str = concat!(include_str!("numbering.lua"), include_str!("append.lua"));
const READ: &str = concat!(include_str!("numbering.lua"), include_str!("read.lua"));
/// The start of a published message that has a position.
const ANNOUNCED: &[u8] = b"\x01history ";
/// Bytes of the messages in one reply, about.
const PAGE_BYTES: usize = 1024 * 1024;
/// The largest number that a script can count with.
const LARGEST: u64 = 1 << 53;

/// The facts that are needed to run the scripts on one connection.
#[derive(Debug)]
pub(super) struct Scripts {
    append: String,
    read: String,
    /// The name of this run of the server as a master. Another run may have lost messages.
    pub(super) run: Arc<[u8]>,
}

/// Returns the server the scripts.
pub(super) async fn load(connection: &mut Connection, limit: Duration) -> Result<Scripts, Reason> {
    let mut commands = Pipeline::with_capacity(4);
    commands.cmd("SCRIPT").arg("LOAD").arg(APPEND);
    commands.cmd("SCRIPT").arg("LOAD").arg(READ);
    // Before Redis 7 it takes one section.
    commands.cmd("INFO").arg("server");
    commands.cmd("INFO").arg("replication");
    let replies = within(limit, connection.send_all(&commands)).await?;
    let Ok([append, read, info, replication]) = <[Value; 4]>::try_from(replies) else {
        return Err("the reply to SCRIPT LOAD makes no sense".into());
    };
    let (append, read) = (name_of(append)?, name_of(read)?);
    match &info {
        // Some services do not tell.
        Value::ServerError(error) if !matches!(error.code(), "ERR" | "NOPERM") => {
            Err(refusal(error))
        }
        info => Ok(Scripts {
            append,
            read,
            run: run_in(info, &replication).into_bytes().into(),
        }),
    }
}

fn refusal(error: &ServerError) -> Reason {
    let details = error.details().unwrap_or_default();
    format!("it takes no scripts: {} {details}", error.code()).into()
}

/// The name of a script that was loaded.
fn name_of(reply: Value) -> Result<String, Reason> {
    match reply {
        Value::ServerError(error) => Err(refusal(&error)),
        reply => {
            from_redis_value(reply).map_err(|_| "the reply to SCRIPT LOAD makes no sense".into())
        }
    }
}

/// The name in two replies to INFO: that of the process, and that of its replication, which is
/// another one after each time as a replica. Empty where the process has none.
fn run_in(info: &Value, replication: &Value) -> String {
    let field = |info: &Value, name: &str| -> Option<String> {
        from_redis_value_ref::<InfoDict>(info).ok()?.get(name)
    };
    let replication = field(replication, "master_replid").unwrap_or_default();
    field(info, "run_id").map_or_else(String::new, |run| format!("{run}:{replication}"))
}

/// A script that is to be run, but for the channel, and what belongs to the connection.
#[derive(Clone, Debug)]
pub(super) enum ScriptCall {
    /// Keeps a message, and publishes it by a command.
    Append {
        envelope: Vec<u8>,
        limits: Limits,
        publish: &'static str,
    },
    /// Reads what is after a position.
    Read {
        after: Option<Position>,
        limits: Limits,
    },
}

/// The bytes that the arguments take, about, beside channels and envelopes.
const ARGUMENTS_BYTES: usize = 256;

impl ScriptCall {
    /// The command for the group with this channel. It also keeps the messages of `more`, calls for
    /// the same group. With `asks` it is for a node that is getting the group's slot from the
    /// one with this run.
    pub(super) fn command<'a>(
        &self,
        channel: &[u8],
        scripts: &Scripts,
        asks: Option<&[u8]>,
        more: impl Iterator<Item = &'a Self> + Clone,
    ) -> Cmd {
        let bytes = self.len() + more.clone().map(Self::len).sum::<usize>();
        let mut command = Cmd::with_capacity(16, ARGUMENTS_BYTES + 3 * channel.len() + bytes);
        command.arg("EVALSHA").arg(match self {
            Self::Append { .. } => &scripts.append,
            Self::Read { .. } => &scripts.read,
        });
        add_numbering(&mut command, channel, &scripts.run, asks);
        match self {
            Self::Append {
                envelope,
                limits,
                publish,
            } => {
                add_limits(&mut command, limits);
                command.arg(if asks.is_some() { "" } else { publish });
                command.arg(channel).arg(&envelope[..]);
                for call in more {
                    if let Self::Append { envelope, .. } = call {
                        command.arg(&envelope[..]);
                    }
                }
            }
            Self::Read { after, limits } => {
                let (epoch, offset) = after.map_or((String::new(), 0), |after| {
                    (epoch_text(after.epoch), after.offset)
                });
                command.arg(epoch).arg(number(offset));
                add_limits(&mut command, limits);
                command.arg(number(PAGE_BYTES as u64));
            }
        }
        command
    }

    /// Bytes of its message.
    fn len(&self) -> usize {
        match self {
            Self::Append { envelope, .. } => envelope.len(),
            Self::Read { .. } => 0,
        }
    }
}

/// Adds what both scripts number messages with: the keys, an epoch for a new numbering, and the run of
/// the server. A node that is getting the slot has the numbering, but not the messages.
fn add_numbering(command: &mut Cmd, channel: &[u8], run: &[u8], asks: Option<&[u8]>) {
    let keys = keys_of(channel);
    let keys = if asks.is_some() {
        &keys[..1]
    } else {
        &keys[..]
    };
    command.arg(keys.len());
    for key in keys {
        command.arg(&key[..]);
    }
    let run = match asks {
        Some(former) => Cow::Owned([run, b",", former].concat()),
        None => Cow::Borrowed(run),
    };
    command.arg(epoch_text(new_epoch())).arg(&run[..]);
}

fn add_limits(command: &mut Cmd, limits: &Limits) {
    command.arg(number(limits.size as u64));
    command.arg(number(millis(limits.age)));
}

/// The keys of the group with this channel, which has no brace in it.
fn keys_of(channel: &[u8]) -> [Vec<u8>; 2] {
    ["numbering", "messages"].map(|what| [b"{", channel, b"}:", what.as_bytes()].concat())
}

fn epoch_text(epoch: u64) -> String {
    format!("{epoch:016x}")
}

fn number(value: u64) -> u64 {
    value.min(LARGEST)
}

/// The page in the reply to a call that reads.
pub(super) fn page_in(reply: Value) -> Option<Page> {
    let (epoch, last, rows): (String, i64, Vec<(String, Vec<u8>)>) =
        from_redis_value(reply).ok()?;
    let head = Position {
        epoch: u64::from_str_radix(&epoch, 16).ok()?,
        offset: u64::try_from(last).ok()?,
    };
    let entries = rows.into_iter().map(|(id, envelope)| {
        let (offset, sent_at) = id.split_once('-')?;
        Some(Entry {
            offset: offset.parse().ok()?,
            sent_at: sent_at.parse().ok()?,
            envelope: Bytes::from(envelope),
        })
    });
    let entries = entries.collect::<Option<_>>()?;
    Some(Page { head, entries })
}

/// The position and the envelope of a message that was published with its position.
pub(super) fn announced(payload: &[u8]) -> Option<(Position, &[u8])> {
    let rest = payload.strip_prefix(ANNOUNCED)?;
    let end = rest.iter().take(64).position(|&byte| byte == b' ')?;
    let (position, envelope) = rest.split_at_checked(end)?;
    let (epoch, offset) = std::str::from_utf8(position).ok()?.split_once('-')?;
    let position = Position {
        epoch: u64::from_str_radix(epoch, 16).ok()?,
        offset: offset.parse().ok()?,
    };
    Some((position, envelope.get(1..)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::engine::backends::redis::slots::slot_of;

    #[test]
    fn keys_lie_where_the_channel_does() {
        for channel in ["dwebsocket:1:room", "x", "räume: \u{1}("] {
            for key in keys_of(channel.as_bytes()) {
                assert_eq!(slot_of(&key), slot_of(channel.as_bytes()));
            }
        }
    }

    #[test]
    fn a_run_of_the_server_has_a_name() {
        let info = |text: &str| Value::BulkString(text.into());
        let server = info("# Server\r\nrun_id:abc\r\nx:1\r\n");
        let replication = info("# Replication\r\nmaster_replid:def\r\n");
        assert_eq!(run_in(&server, &replication), "abc:def");
        assert_eq!(run_in(&server, &Value::Nil), "abc:");
        assert_eq!(run_in(&Value::Nil, &replication), "");
    }

    #[test]
    fn announcements_have_a_position() {
        let expected = Position {
            epoch: 0xab,
            offset: 12,
        };
        let found = announced(b"\x01history 00000000000000ab-12 an envelope");
        assert_eq!(found, Some((expected, &b"an envelope"[..])));
        assert_eq!(announced(b"\x01history 00000000000000ab-12"), None);
        assert_eq!(announced(b"an envelope"), None);
    }

    proptest! {
        #[test]
        fn any_payload_is_an_announcement_or_none(
            rest in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            announced(&rest);
            announced(&[ANNOUNCED, &rest[..]].concat());
        }
    }
}

//! The messages that wait for a node, as commands that are sent in one piece.
//!
//! Messages that one group keeps are one command: most of what that costs the server, it costs once.

use std::{collections::HashMap, mem, sync::Arc};

use redis::{Cmd, Pipeline};

use super::{
    history::{ScriptCall, Scripts},
    state::{Command, Publish},
};
use crate::engine::backends::call::Reason;

/// Messages in one command, at most: other clients of the server wait for it.
const TOGETHER: usize = 64;

/// Commands, and the calls that each of them is for.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) commands: Pipeline,
    pub(super) calls: Vec<Vec<Publish>>,
}

impl Batch {
    /// The commands for what waits. Without `scripts`, what needs them gets the reason.
    ///
    /// With `may_repeat` the commands stay with the calls, so that they can be sent again.
    pub(super) fn of(
        waiting: Vec<Publish>,
        scripts: &Result<Arc<Scripts>, Reason>,
        may_repeat: bool,
    ) -> Self {
        let mut commands = Pipeline::with_capacity(waiting.len());
        let mut calls = Vec::with_capacity(waiting.len());
        for mut publishes in together(waiting) {
            match command(&mut publishes, scripts, may_repeat) {
                Ok(command) => {
                    if publishes.first().is_some_and(|it| it.asks.is_some()) {
                        commands.cmd("ASKING");
                        calls.push(Vec::new());
                    }
                    commands.add_command(command);
                    calls.push(publishes);
                }
                Err(reason) => {
                    for publish in publishes {
                        publish.finish(Err(Arc::clone(&reason)));
                    }
                }
            }
        }
        Self { commands, calls }
    }
}

/// Puts together the messages that one group keeps. The order of what each group publishes stays.
fn together(waiting: Vec<Publish>) -> Vec<Vec<Publish>> {
    let mut calls: Vec<Vec<Publish>> = Vec::with_capacity(waiting.len());
    let mut places: HashMap<(Vec<u8>, bool), usize> = HashMap::new();
    for publish in waiting {
        match publish.command {
            Command::Script(ScriptCall::Append { .. }) => {
                let key = (publish.channel.clone(), publish.asks.is_some());
                match places.get(&key) {
                    Some(&place) if calls[place].len() < TOGETHER => {
                        calls[place].push(publish);
                        continue;
                    }
                    _ => places.insert(key, calls.len()),
                };
            }
            // Later messages that are kept do not overtake it: it may be a close.
            Command::Plain(_) => places.retain(|(channel, _), _| *channel != publish.channel),
            Command::Script(ScriptCall::Read { .. }) => {}
        }
        calls.push(vec![publish]);
    }
    calls
}

/// The command for calls that go together.
fn command(
    publishes: &mut [Publish],
    scripts: &Result<Arc<Scripts>, Reason>,
    may_repeat: bool,
) -> Result<Cmd, Reason> {
    let Some((first, more)) = publishes.split_first_mut() else {
        return Err("nothing is to be sent".into());
    };
    match &mut first.command {
        Command::Plain(command) if may_repeat => Ok(command.clone()),
        Command::Plain(command) => Ok(mem::take(command)),
        Command::Script(script) => {
            let scripts = scripts.as_ref().map_err(Arc::clone)?;
            let more = more.iter().filter_map(|publish| match &publish.command {
                Command::Script(script) => Some(script),
                Command::Plain(_) => None,
            });
            Ok(script.command(&first.channel, scripts, first.asks.as_deref(), more))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::engine::history::Limits;

    fn publish(command: Command, channel: &str) -> Publish {
        Publish::new(command, channel.into(), 0, None, Instant::now())
    }

    fn append(channel: &str) -> Publish {
        let call = ScriptCall::Append {
            envelope: Vec::new(),
            limits: Limits::ALL,
            publish: "PUBLISH",
        };
        publish(Command::Script(call), channel)
    }

    #[test]
    fn messages_behind_a_close_stay_behind_it() {
        let close = || publish(Command::Plain(redis::cmd("PUBLISH")), "a");
        let waiting = vec![append("a"), append("b"), close(), append("a"), append("b")];
        let calls = together(waiting);
        let lengths: Vec<_> = calls.iter().map(Vec::len).collect();
        assert_eq!(lengths, [1, 2, 1, 1]);
    }

    #[test]
    fn messages_that_one_group_keeps_go_together_up_to_a_limit() {
        let read = ScriptCall::Read {
            after: None,
            limits: Limits::ALL,
        };
        let mut waiting = vec![
            append("a"),
            publish(Command::Plain(redis::cmd("PUBLISH")), "c"),
            publish(Command::Script(read), "a"),
            append("b"),
            publish(Command::Plain(redis::cmd("PUBLISH")), "c"),
        ];
        waiting.extend((0..TOGETHER).map(|_| append("a")));
        let found: Vec<_> = together(waiting)
            .iter()
            .map(|calls| {
                let channel = String::from_utf8(calls[0].channel.clone()).unwrap();
                (channel, calls.len())
            })
            .collect();
        let expected = [
            ("a", TOGETHER),
            ("c", 1),
            ("a", 1),
            ("b", 1),
            ("c", 1),
            ("a", 1),
        ];
        assert_eq!(
            found,
            expected.map(|(name, count)| (name.to_owned(), count))
        );
    }
}

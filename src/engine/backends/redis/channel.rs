//! The names of channels: a prefix, and the name of the group.
//!
//! In a cluster a part in braces would decide on the hash slot alone. So braces are written in
//! another way, and no channel has one: then each name can be the hash tag of keys.

use std::borrow::Cow;

/// Braces, and how they are written. No name of a group has a control character.
const BRACES: [(&str, &str); 2] = [("{", "\u{1}("), ("}", "\u{1})")];

/// The channel of a group.
pub(super) fn of_group(prefix: &str, name: &str) -> Vec<u8> {
    if !name.contains(['{', '}']) {
        return [prefix.as_bytes(), name.as_bytes()].concat();
    }
    let written = (BRACES.iter()).fold(name.to_owned(), |name, (brace, written)| {
        name.replace(brace, written)
    });
    [prefix.as_bytes(), written.as_bytes()].concat()
}

/// The group of a channel; `None` for another one.
pub(super) fn group_of<'a>(prefix: &str, channel: &'a [u8]) -> Option<Cow<'a, str>> {
    let name = channel.strip_prefix(prefix.as_bytes())?;
    let name = std::str::from_utf8(name).ok()?;
    if !BRACES.iter().any(|(_, written)| name.contains(written)) {
        return Some(Cow::Borrowed(name));
    }
    let read = (BRACES.iter()).fold(name.to_owned(), |name, (brace, written)| {
        name.replace(written, brace)
    });
    Some(Cow::Owned(read))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_has_no_braces_and_leads_back_to_its_group() {
        for name in [
            "room",
            "{room}",
            "a}{b",
            "{}",
            "}",
            "\u{1}answers",
            "räu{m}",
        ] {
            let channel = of_group("prefix:", name);
            assert!(!channel.contains(&b'{') && !channel.contains(&b'}'));
            assert_eq!(group_of("prefix:", &channel).as_deref(), Some(name));
            assert_eq!(group_of("other:", &channel), None);
        }
    }
}

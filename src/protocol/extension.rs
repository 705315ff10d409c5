//! Extensions as a client offers them (RFC 6455 section 9.1).

use super::subprotocol::is_token;

/// One element of `Sec-WebSocket-Extensions`: a name and its parameters, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extension<'a> {
    /// A token.
    pub name: &'a str,
    /// Names, and values without their quotes. All are tokens, and may be repeated.
    pub parameters: Vec<(&'a str, Option<String>)>,
}

/// Reads the header, several of them joined with commas.
///
/// `None` when it goes against the grammar: then the handshake has to fail. The meaning of the
/// extensions and their parameters is not validated here. Empty elements of the list are ignored, but
/// at least one other is required.
pub fn parse(header: &str) -> Option<Vec<Extension<'_>>> {
    let elements = split(header, ',').filter(|element| !element.is_empty());
    let extensions: Vec<_> = elements.map(extension).collect::<Option<_>>()?;
    (!extensions.is_empty()).then_some(extensions)
}

/// `name *( ";" parameter )`
fn extension(element: &str) -> Option<Extension<'_>> {
    let mut parts = split(element, ';');
    let name = parts.next().filter(|name| is_token(name))?;
    let parameters = parts.map(parameter).collect::<Option<_>>()?;
    Some(Extension { name, parameters })
}

/// `name`, `name=token` or `name="token"`; the value without its quotes.
fn parameter(part: &str) -> Option<(&str, Option<String>)> {
    let Some((name, value)) = part.split_once('=') else {
        return is_token(part).then_some((part, None));
    };
    let (name, value) = (trim(name), trim(value));
    let value = match value.strip_prefix('"') {
        Some(quoted) => unquote(quoted.strip_suffix('"')?)?,
        None => value.to_owned(),
    };
    (is_token(name) && is_token(&value)).then_some((name, Some(value)))
}

/// The text between quotes; a character after a backslash stands for itself.
fn unquote(quoted: &str) -> Option<String> {
    let mut value = String::with_capacity(quoted.len());
    let mut characters = quoted.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => value.push(characters.next()?),
            '"' => return None,
            _ => value.push(character),
        }
    }
    Some(value)
}

/// The parts of a header between separators that are not in quotes, trimmed.
fn split(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    text.split(move |character| {
        let escapes = is_quoted && !is_escaped && character == '\\';
        if character == '"' && !is_escaped {
            is_quoted = !is_quoted;
        }
        is_escaped = escapes;
        character == separator && !is_quoted
    })
    .map(trim)
}

/// A header, or a part of it, without the blanks around it.
pub(super) fn trim(value: &str) -> &str {
    value.trim_matches([' ', '\t'])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The extensions in `header`, a value in brackets after the name of its parameter.
    fn read(header: &str) -> Option<String> {
        let with_value = |(name, value): (&str, Option<String>)| match value {
            Some(value) => format!("{name}[{value}]"),
            None => name.to_owned(),
        };
        let written = |extension: Extension<'_>| {
            let parameters = extension.parameters.into_iter().map(with_value);
            let words: Vec<_> = [extension.name.to_owned()]
                .into_iter()
                .chain(parameters)
                .collect();
            words.join(" ")
        };
        let extensions: Vec<_> = parse(header)?.into_iter().map(written).collect();
        Some(extensions.join(" | "))
    }

    #[test]
    fn the_grammar_is_read() {
        let cases = [
            ("foo", "foo"),
            ("foo, bar; baz=2", "foo | bar baz[2]"),
            ("deflate-stream;a;b;a", "deflate-stream a b a"),
            (
                " mux ; max-channels = 4 ;\tflow",
                "mux max-channels[4] flow",
            ),
            (",, foo ,\t,bar,", "foo | bar"),
            ("x; y=\"z\", v", "x y[z] | v"),
            ("x; y=\"a\\b\"", "x y[ab]"),
        ];
        for (header, expected) in cases {
            assert_eq!(read(header).as_deref(), Some(expected), "{header}");
        }
    }

    #[test]
    fn what_goes_against_it_is_none() {
        for header in [
            "",
            " ",
            ",",
            ", ,",
            ";",
            "; a",
            "foo;",
            "foo; ; a",
            "foo bar",
            "foo/bar",
            "\"foo\"",
            "größe",
            "foo; a b",
            "foo; =1",
            "foo; =",
            "foo; a=",
            "foo; a=b c",
            "foo; a=\"\"",
            "foo; a=\"b c\"",
            "foo; a=\"b, c\"",
            "foo; a=\"b",
            "foo; a=b\"",
            "foo; a=\"b\"c\"",
            "foo; a=\"b\\\"",
            "foo; a=b=c",
            "foo\0",
            "good, foo;",
            "foo;, good",
        ] {
            assert_eq!(read(header), None, "{header:?}");
        }
    }
}

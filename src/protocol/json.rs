//! Strings of JSON (RFC 8259 section 7).

use std::fmt::Write;

/// Appends `value` as a string, in its quotes.
pub fn push_string(text: &mut String, value: &str) {
    text.push('"');
    let mut rest = value;
    while let Some(at) = rest.find(|c: char| c < ' ' || c == '"' || c == '\\') {
        let (plain, special) = rest.split_at(at);
        text.push_str(plain);
        let mut characters = special.chars();
        match characters.next() {
            Some('\n') => text.push_str("\\n"),
            Some(c @ ('"' | '\\')) => text.extend(['\\', c]),
            Some(c) => {
                // Writing to a string cannot fail.
                let _ = write!(text, "\\u{:04x}", u32::from(c));
            }
            None => {}
        }
        rest = characters.as_str();
    }
    text.push_str(rest);
    text.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_json_does_not_allow_in_a_string_is_escaped() {
        let mut text = String::new();
        push_string(&mut text, "a\"b\\c\n\r\u{0}é\u{2028}");
        assert_eq!(text, "\"a\\\"b\\\\c\\n\\u000d\\u0000é\u{2028}\"");
    }
}

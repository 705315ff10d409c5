//! JSON (RFC 8259), as far as connections speak it: strings to write, and texts of clients to read.

use std::{borrow::Cow, fmt::Write};

/// Objects and lists may be within each other so often.
const MAX_DEPTH: usize = 32;

/// Characters of a number where it has to be finite: every double has a shorter text.
const MAX_NUMBER: usize = 300;

/// Why a text is not read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is no JSON, or has another value than the one that was to be read.
    Malformed,
    /// It is nested too deeply.
    TooDeep,
}

/// Reads a text from its beginning to its end. It allocates nothing but strings with escapes.
#[derive(Debug)]
pub struct Reader<'a> {
    rest: &'a str,
    depth: usize,
    is_strict: bool,
}

impl<'a> Reader<'a> {
    /// A reader at the beginning of `text`. Half a surrogate pair, which no WebSocket can carry, is a
    /// replacement character, as browsers send it.
    pub fn new(text: &'a str) -> Self {
        Self {
            rest: text,
            depth: 0,
            is_strict: false,
        }
    }

    /// As [`Reader::new`], but half a surrogate pair is malformed, and so are numbers beyond a double,
    /// and those with more digits than any program has a use for.
    pub fn strict(text: &'a str) -> Self {
        Self {
            is_strict: true,
            ..Self::new(text)
        }
    }

    /// Goes to the next value or sign, and tells how it begins.
    fn next(&mut self) -> Option<u8> {
        let first = self.rest.bytes().next();
        if !matches!(first, Some(b' ' | b'\t' | b'\n' | b'\r')) {
            return first;
        }
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r']);
        self.rest.bytes().next()
    }

    /// Takes `sign`, which is ASCII, if it is next.
    fn takes(&mut self, sign: u8) -> bool {
        let is_next = self.next() == Some(sign);
        if is_next {
            self.rest = self.rest.get(1..).unwrap_or_default();
        }
        is_next
    }

    fn expect(&mut self, sign: u8) -> Result<(), Fault> {
        self.takes(sign).then_some(()).ok_or(Fault::Malformed)
    }

    /// Takes the end of the text.
    ///
    /// # Errors
    /// There is more.
    pub fn end(&mut self) -> Result<(), Fault> {
        self.next().map_or(Ok(()), |_| Err(Fault::Malformed))
    }

    /// Takes an object: `member` takes the value of each name.
    ///
    /// # Errors
    /// The first error of `member`; another value, or what is no JSON.
    pub fn object<E: From<Fault>>(
        &mut self,
        mut member: impl FnMut(&mut Self, &str) -> Result<(), E>,
    ) -> Result<(), E> {
        self.sequence(*b"{}", |reader| {
            let name = reader.string()?;
            reader.expect(b':')?;
            member(reader, &name)
        })
    }

    /// Takes a list: `item` takes each value.
    ///
    /// # Errors
    /// As [`Reader::object`].
    pub fn list<E: From<Fault>>(
        &mut self,
        item: impl FnMut(&mut Self) -> Result<(), E>,
    ) -> Result<(), E> {
        self.sequence(*b"[]", item)
    }

    fn sequence<E: From<Fault>>(
        &mut self,
        [first, last]: [u8; 2],
        mut item: impl FnMut(&mut Self) -> Result<(), E>,
    ) -> Result<(), E> {
        self.expect(first)?;
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(Fault::TooDeep.into());
        }
        if !self.takes(last) {
            item(self)?;
            while self.takes(b',') {
                item(self)?;
            }
            self.expect(last)?;
        }
        self.depth -= 1;
        Ok(())
    }

    /// Takes a string.
    ///
    /// # Errors
    /// Another value, or a string that is no text.
    pub fn string(&mut self) -> Result<Cow<'a, str>, Fault> {
        self.expect(b'"')?;
        let plain = self.plain()?;
        let mut text = Cow::Borrowed(plain);
        while !self.rest.starts_with('"') {
            let character = self.escape()?;
            let text = text.to_mut();
            text.push(character);
            text.push_str(self.plain()?);
        }
        self.expect(b'"')?;
        Ok(text)
    }

    /// Takes the characters before the next quote or escape.
    fn plain(&mut self) -> Result<&'a str, Fault> {
        let is_special = |byte: u8| byte < b' ' || byte == b'"' || byte == b'\\';
        let end = self.rest.bytes().position(is_special);
        let (plain, rest) = end
            .and_then(|end| self.rest.split_at_checked(end))
            .ok_or(Fault::Malformed)?;
        self.rest = rest;
        Ok(plain)
    }

    fn escape(&mut self) -> Result<char, Fault> {
        let rest = self.rest.strip_prefix('\\').ok_or(Fault::Malformed)?;
        let mut characters = rest.chars();
        let kind = characters.next();
        self.rest = characters.as_str();
        Ok(match kind {
            Some(same @ ('"' | '\\' | '/')) => same,
            Some('b') => '\u{8}',
            Some('f') => '\u{c}',
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some('u') => return self.code_units(),
            _ => return Err(Fault::Malformed),
        })
    }

    /// Takes the digits after `\u`, and the other half of the pair that they begin.
    fn code_units(&mut self) -> Result<char, Fault> {
        let first = self.code_unit()?;
        let behind_first = self.rest;
        let mut units = vec![first];
        let is_half = (0xD800..0xDC00).contains(&first);
        if let Some(rest) = self.rest.strip_prefix("\\u").filter(|_| is_half) {
            self.rest = rest;
            units.push(self.code_unit()?);
        }
        match char::decode_utf16(units).next() {
            Some(Ok(character)) => Ok(character),
            _ if self.is_strict => Err(Fault::Malformed),
            _ => {
                self.rest = behind_first;
                Ok(char::REPLACEMENT_CHARACTER)
            }
        }
    }

    fn code_unit(&mut self) -> Result<u16, Fault> {
        let (digits, rest) = self.rest.split_at_checked(4).ok_or(Fault::Malformed)?;
        if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(Fault::Malformed);
        }
        self.rest = rest;
        u16::from_str_radix(digits, 16).map_err(|_| Fault::Malformed)
    }

    /// Takes a number without a sign, a fraction or an exponent.
    ///
    /// # Errors
    /// Another value, or a number beyond the type.
    pub fn integer<N: std::str::FromStr>(&mut self) -> Result<N, Fault> {
        let number = self.number()?;
        // The type would take a plus.
        if !number.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(Fault::Malformed);
        }
        number.parse().map_err(|_| Fault::Malformed)
    }

    fn number(&mut self) -> Result<&'a str, Fault> {
        self.next();
        let is_part = |c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.' | 'e' | 'E');
        let rest = self.rest.trim_start_matches(is_part);
        let (number, rest) = self.rest.split_at(self.rest.len() - rest.len());
        if !is_number(number) || self.is_strict && !is_finite(number) {
            return Err(Fault::Malformed);
        }
        self.rest = rest;
        Ok(number)
    }

    /// Takes `null`, if it is next.
    pub fn takes_null(&mut self) -> bool {
        self.takes_word("null")
    }

    fn takes_word(&mut self, word: &str) -> bool {
        self.next();
        let rest = self.rest.strip_prefix(word);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    /// Takes a value of any kind, and returns it as it stands.
    ///
    /// # Errors
    /// As [`Reader::skip`].
    pub fn value(&mut self) -> Result<&'a str, Fault> {
        self.next();
        let before = self.rest;
        self.skip()?;
        let length = before.len() - self.rest.len();
        before.get(..length).ok_or(Fault::Malformed)
    }

    /// Takes a value of any kind.
    ///
    /// # Errors
    /// It is no JSON, or nested too deeply.
    pub fn skip(&mut self) -> Result<(), Fault> {
        match self.next() {
            Some(b'{') => self.object(|reader, _| reader.skip()),
            Some(b'[') => self.list(Self::skip),
            Some(b'"') => self.string().map(drop),
            Some(b't' | b'f' | b'n') => ["true", "false", "null"]
                .iter()
                .any(|word| self.takes_word(word))
                .then_some(())
                .ok_or(Fault::Malformed),
            _ => self.number().map(drop),
        }
    }
}

/// Whether a text is a number (section 6).
fn is_number(text: &str) -> bool {
    if is_natural(text) {
        return true;
    }
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let text = text.strip_prefix('-').unwrap_or(text);
    let (text, exponent) = match text.split_once(['e', 'E']) {
        Some((text, exponent)) => (text, Some(exponent)),
        None => (text, None),
    };
    let (whole, fraction) = match text.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (text, None),
    };
    digits(whole)
        && (whole == "0" || !whole.starts_with('0'))
        && fraction.is_none_or(digits)
        && exponent.is_none_or(|text| digits(text.strip_prefix(['+', '-']).unwrap_or(text)))
}

/// Whether a text is a number of nothing but digits, as most are.
fn is_natural(text: &str) -> bool {
    let is_digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_digits && (text.len() == 1 || !text.starts_with('0'))
}

/// Whether a number has a double near it, as far as texts of this length are asked.
fn is_finite(number: &str) -> bool {
    if number.len() > MAX_NUMBER {
        return false;
    }
    is_natural(number) || number.parse::<f64>().is_ok_and(f64::is_finite)
}

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
        assert_eq!(
            Reader::new(&text).string().unwrap(),
            "a\"b\\c\n\r\u{0}é\u{2028}"
        );
    }

    #[test]
    fn half_a_surrogate_pair_is_replaced_unless_it_is_strict() {
        for (text, found) in [
            (r#""a\ud800b""#, "a\u{fffd}b"),
            (r#""\udc00""#, "\u{fffd}"),
            (r#""\ud83d\u0041""#, "\u{fffd}A"),
            (r#""\ud83d\ud83d\ude42""#, "\u{fffd}\u{1f642}"),
        ] {
            assert_eq!(Reader::new(text).string().unwrap(), found, "{text}");
            assert_eq!(Reader::strict(text).string(), Err(Fault::Malformed));
        }
        assert_eq!(
            Reader::new(r#""\ud83d\uzzzz""#).string(),
            Err(Fault::Malformed)
        );
    }

    fn skip(text: &str) -> Result<(), Fault> {
        let mut reader = Reader::new(text);
        reader.skip()?;
        reader.end()
    }

    #[test]
    fn a_value_of_any_kind_is_skipped_and_nothing_else() {
        for text in [
            " {} ",
            "[1, -0.5e+7, 0, 10E-2]",
            "{\"a\": [true, false, null, \"\\/\\ud83d\\ude42\"]}",
        ] {
            assert_eq!(skip(text), Ok(()), "{text}");
        }
        for text in [
            "",
            "[1,]",
            "[1 2]",
            "{\"a\"}",
            "{a: 1}",
            "01",
            "1.",
            ".5",
            "+1",
            "1e",
            "-",
            "--1",
            "nul",
            "nulll",
            "\"",
            "\"\n\"",
            "\"\\x\"",
            "\"\\u+041\"",
            "\"\\u00é\"",
            "{} {}",
        ] {
            assert_eq!(skip(text), Err(Fault::Malformed), "{text}");
        }
    }

    #[test]
    fn what_is_nested_too_deeply_is_not_read_to_its_end() {
        let nested = |depth| "[".repeat(depth) + &"]".repeat(depth);
        assert_eq!(skip(&nested(MAX_DEPTH)), Ok(()));
        assert_eq!(skip(&nested(MAX_DEPTH + 1)), Err(Fault::TooDeep));
        assert_eq!(skip(&"[".repeat(1_000_000)), Err(Fault::TooDeep));
        assert_eq!(skip(&"{\"a\":".repeat(1_000_000)), Err(Fault::TooDeep));
        // Brackets beside each other are not within each other.
        assert_eq!(skip(&format!("[{}1]", "[[]],".repeat(1000))), Ok(()));
    }

    #[test]
    fn a_value_stands_as_it_was_written() {
        let text = r#" { "a" : [1.50,"\u00e9é"] } , 2"#;
        let mut reader = Reader::new(text);
        assert_eq!(reader.value(), Ok(r#"{ "a" : [1.50,"\u00e9é"] }"#));
        assert!(reader.takes(b','));
        assert_eq!(reader.value(), Ok("2"));
    }

    #[test]
    fn a_finite_number_is_near_a_double_and_short() {
        let finite = |text| Reader::strict(text).skip();
        let digits = "1".repeat(MAX_NUMBER);
        for text in ["1e308", "-1.7976931348623157e308", "1e-999", &digits] {
            assert_eq!(finite(text), Ok(()), "{text}");
        }
        for text in ["1e309", "[-1e999]", &(digits.clone() + "1")] {
            assert_eq!(finite(text), Err(Fault::Malformed), "{text}");
            assert_eq!(skip(text), Ok(()), "{text}");
        }
    }

    #[test]
    fn an_integer_has_digits_only() {
        let integer = |text| Reader::new(text).integer::<u16>();
        assert_eq!(integer(" 65535"), Ok(65535));
        for text in ["65536", "-1", "1.0", "1e2", "+1", "true", "\"1\"", ""] {
            assert_eq!(integer(text), Err(Fault::Malformed), "{text}");
        }
    }
}

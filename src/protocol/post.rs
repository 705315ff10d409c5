//! The body of a POST that brings messages from a client without WebSocket: JSON that becomes frames.
//!
//! ```json
//! {"n": 1, "messages": [{"text": "hi"}, {"binary": "AQI="}, {"close": {"code": 1000, "reason": ""}}]}
//! ```
//!
//! The frames are those of a WebSocket client, and are validated by the rules for these. Other members
//! of the objects are ignored.

use data_encoding::BASE64;

use super::{
    close::CloseFrame,
    frame::{self, Opcode},
    json::{Fault, Reader},
};

/// A body has so many messages at most. Each costs more than its bytes on its way to the view.
pub const MAX_MESSAGES: usize = 1024;
/// Messages that go together have so many bytes, as they stand in the body.
const BATCH_BYTES: usize = 64 * 1024;
/// The last number that JavaScript counts up to.
const LAST_NUMBER: u64 = 1 << 53;

/// The bytes that a body may have: a message of the largest size in base64, and a batch of others.
pub fn max_bytes(max_message_bytes: usize) -> usize {
    max_message_bytes
        .div_ceil(3)
        .saturating_mul(4)
        .saturating_add(BATCH_BYTES)
}

/// The content of a body.
#[derive(Debug, PartialEq, Eq)]
pub struct Post {
    /// The number of the post, from 1.
    pub number: u64,
    /// A frame for each message, as a client sends them.
    pub frames: Vec<u8>,
    /// A message is larger than it may be. The frames end with the head of its frame.
    pub is_too_large: bool,
}

/// Why a body is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It has another form.
    Malformed(&'static str),
    /// It has more than it may have.
    TooMuch(&'static str),
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Malformed => Self::Malformed("it is no JSON of this form"),
            Fault::TooDeep => Self::TooMuch("it is nested too deeply"),
        }
    }
}

/// Reads a body. Besides the frames it holds one message at a time.
///
/// # Errors
/// As [`Refusal`] says. Nothing of the body is to be used then.
pub fn parse(body: &[u8], max_message_bytes: usize) -> Result<Post, Refusal> {
    let text =
        simdutf8::basic::from_utf8(body).map_err(|_| Refusal::Malformed("it is no UTF-8"))?;
    let mut number = None;
    let mut messages = None;
    let mut reader = Reader::new(text);
    reader.object(|reader, name| match name {
        "n" => once(&mut number, reader.integer()?),
        "messages" => once(&mut messages, Messages::read(reader, max_message_bytes)?),
        _ => Ok(reader.skip()?),
    })?;
    reader.end()?;
    let number = number
        .filter(|number| (1..=LAST_NUMBER).contains(number))
        .ok_or(Refusal::Malformed("n must be a number of 1 or more"))?;
    let messages = messages.ok_or(Refusal::Malformed("messages must be a list"))?;
    Ok(Post {
        number,
        frames: messages.frames,
        is_too_large: messages.is_too_large,
    })
}

/// Puts the value of a member in, which an object has once.
fn once<T>(place: &mut Option<T>, value: T) -> Result<(), Refusal> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(Refusal::Malformed("a name stands twice")),
    }
}

#[derive(Debug)]
struct Messages {
    frames: Vec<u8>,
    is_too_large: bool,
    limit: usize,
}

impl Messages {
    fn read(reader: &mut Reader<'_>, limit: usize) -> Result<Self, Refusal> {
        let mut messages = Self {
            frames: Vec::new(),
            is_too_large: false,
            limit,
        };
        let mut count = 0;
        reader.list(|reader| {
            count += 1;
            if count > MAX_MESSAGES {
                return Err(Refusal::TooMuch("it has more than 1,024 messages"));
            }
            messages.take(reader)
        })?;
        Ok(messages)
    }

    fn take(&mut self, reader: &mut Reader<'_>) -> Result<(), Refusal> {
        let mut kind = None;
        reader.object(|reader, name| match name {
            "text" => {
                self.push(Opcode::Text, reader.string()?.as_bytes());
                once(&mut kind, ())
            }
            "binary" => {
                let payload = BASE64
                    .decode(reader.string()?.as_bytes())
                    .map_err(|_| Refusal::Malformed("binary must be base64"))?;
                self.push(Opcode::Binary, &payload);
                once(&mut kind, ())
            }
            "close" => {
                self.push(Opcode::Close, &close(reader)?);
                once(&mut kind, ())
            }
            _ => Ok(reader.skip()?),
        })?;
        kind.ok_or(Refusal::Malformed("a message has text, binary or close"))
    }

    fn push(&mut self, opcode: Opcode, payload: &[u8]) {
        if !self.is_too_large {
            let most = match opcode {
                Opcode::Close => usize::MAX,
                _ => self.limit,
            };
            self.is_too_large = !frame::append_as_client(&mut self.frames, opcode, payload, most);
        }
    }
}

/// Returns the payload of a close. A reason goes with a code only.
fn close(reader: &mut Reader<'_>) -> Result<Vec<u8>, Refusal> {
    let mut code = None;
    let mut reason = None;
    reader.object(|reader, name| match name {
        "code" if reader.takes_null() => Ok(()),
        "code" => once(&mut code, reader.integer()?),
        "reason" => once(&mut reason, reader.string()?),
        _ => Ok(reader.skip()?),
    })?;
    let reason = code.and(reason).unwrap_or_default();
    let frame = CloseFrame::new(code, &reason)
        .map_err(|_| Refusal::Malformed("its close must not be sent"))?;
    Ok(frame.payload())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_become_the_frames_of_a_client() {
        let body = br#" {"messages": [{"text": "h\u00e9"}, {"binary": "AP8\u003d"}, {"x": [{}], "text": ""},
            {"close": {"code": 4000, "reason": "bye"}}, {"close": {}}], "more": {"n": 2}, "n": 7} "#;
        let expected = [
            &b"\x81\x83\0\0\0\0h\xc3\xa9"[..],
            b"\x82\x82\0\0\0\0\0\xff",
            b"\x81\x80\0\0\0\0",
            b"\x88\x85\0\0\0\0\x0f\xa0bye",
            b"\x88\x80\0\0\0\0",
        ];
        let post = parse(body, 3).unwrap();
        assert_eq!((post.number, post.is_too_large), (7, false));
        assert_eq!(post.frames, expected.concat());
    }

    #[test]
    fn of_a_message_that_is_too_large_there_is_the_head_and_of_those_behind_it_nothing() {
        let body = br#"{"messages": [{"text": "123"}, {"text": "1234"}, {"text": "5"}], "n": 1}"#;
        let post = parse(body, 3).unwrap();
        assert!(post.is_too_large);
        assert_eq!(post.frames, b"\x81\x83\0\0\0\x00123\x81\x84\0\0\0\0");
    }

    #[test]
    fn more_messages_than_a_body_may_have_are_too_much() {
        let body = |count| {
            let messages = vec!["{\"text\":\"\"}"; count].join(",");
            parse(
                format!("{{\"n\":1,\"messages\":[{messages}]}}").as_bytes(),
                3,
            )
        };
        assert_eq!(body(MAX_MESSAGES).unwrap().frames.len(), 6 * MAX_MESSAGES);
        assert!(matches!(body(MAX_MESSAGES + 1), Err(Refusal::TooMuch(_))));
    }

    #[test]
    fn a_message_of_the_largest_size_fits_into_a_body() {
        for size in [0, 1, 2, 3, 4, 1000, 16 * 1024 * 1024] {
            assert!(BASE64.encode_len(size) + BATCH_BYTES <= max_bytes(size));
        }
        assert_eq!(max_bytes(usize::MAX), usize::MAX);
    }

    #[test]
    fn what_has_another_form_is_refused_as_a_whole() {
        for body in [
            "",
            "{",
            "[]",
            "{}",
            r#"{"n": 1}"#,
            r#"{"n": 0, "messages": []}"#,
            r#"{"n": 9007199254740993, "messages": []}"#,
            r#"{"n": "1", "messages": []}"#,
            r#"{"n": 1, "n": 1, "messages": []}"#,
            r#"{"n": 1, "messages": [], "messages": []}"#,
            r#"{"n": 1, "messages": {}}"#,
            r#"{"n": 1, "messages": [[]]}"#,
            r#"{"n": 1, "messages": [{}]}"#,
            r#"{"n": 1, "messages": [{"text": "", "binary": ""}]}"#,
            r#"{"n": 1, "messages": [{"text": 5}]}"#,
            r#"{"n": 1, "messages": [{"binary": "*"}]}"#,
            r#"{"n": 1, "messages": [{"close": 1000}]}"#,
            r#"{"n": 1, "messages": [{"close": {"code": 1005}}]}"#,
            r#"{"n": 1, "messages": [{"close": {"code": 65536}}]}"#,
            r#"{"n": 1, "messages": []} x"#,
        ] {
            let found = parse(body.as_bytes(), 3);
            assert!(matches!(found, Err(Refusal::Malformed(_))), "{body}");
        }
        assert!(matches!(parse(b"\xff", 3), Err(Refusal::Malformed(_))));
        let deep = format!(r#"{{"x": {}"#, "[".repeat(100));
        assert!(matches!(
            parse(deep.as_bytes(), 3),
            Err(Refusal::TooMuch(_))
        ));
    }
}

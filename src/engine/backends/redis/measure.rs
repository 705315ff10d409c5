//! How much the reply is that a server is sending.
//!
//! A reply is kept until all of it is there, and nobody else sets it a limit: a few bytes announce any
//! number of values, and each of them takes much more memory than bytes on the wire.

use std::str;

/// Bytes of a reply at most: a message, or a page of a history, which ends with the message that makes
/// it large enough.
const MOST_BYTES: u64 = MOST_MESSAGE as u64 + 2 * 1024 * 1024;
/// Bytes of a message that is published, at most.
pub(super) const MOST_MESSAGE: usize = 64 * 1024 * 1024;
/// Values in a reply at most. A page has two for each message.
const MOST_VALUES: u64 = 1_000_000;
/// Bytes of a line with a number.
const MOST_NUMBER: usize = 32;

/// Follows replies from their first byte to their last.
#[derive(Debug, Default)]
pub(super) struct Measure {
    /// Values of the reply that have not begun.
    left: u64,
    values: u64,
    bytes: u64,
    /// Bytes of a text that are yet to come.
    skip: u64,
    /// The beginning of the line that is coming.
    line: Vec<u8>,
    /// The last byte of the line so far was a carriage return.
    is_ending: bool,
}

impl Measure {
    /// Whether what has come belongs to replies that are no larger than those of a server are.
    pub(super) fn takes(&mut self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            let taken = match usize::try_from(self.skip) {
                Ok(0) => self.take_line(bytes),
                skip => {
                    let taken = bytes.len().min(skip.unwrap_or(usize::MAX));
                    self.skip -= taken as u64;
                    taken
                }
            };
            self.bytes += taken as u64;
            bytes = &bytes[taken..];
            if self.bytes.max(self.skip) > MOST_BYTES
                || self.values.saturating_add(self.left) > MOST_VALUES
            {
                return false;
            }
            if self.is_between() {
                (self.bytes, self.values) = (0, 0);
            }
        }
        true
    }

    /// Whether the last reply is over, and none has begun.
    fn is_between(&self) -> bool {
        self.left == 0 && self.skip == 0 && self.line.is_empty()
    }

    /// Takes bytes of a line, up to its end at most.
    fn take_line(&mut self, bytes: &[u8]) -> usize {
        let mut before = self.is_ending;
        let end = bytes.iter().position(|&byte| {
            let is_end = before && byte == b'\n';
            before = byte == b'\r';
            is_end
        });
        let taken = end.map_or(bytes.len(), |end| end + 1);
        let room = MOST_NUMBER - self.line.len();
        self.line.extend(bytes[..taken].iter().take(room));
        self.is_ending = end.is_none() && before;
        if end.is_some() {
            self.end_line();
            self.line.clear();
        }
        taken
    }

    fn end_line(&mut self) {
        // The first value of a reply is announced by none.
        self.left = self.left.max(1) - 1;
        self.values += 1;
        let Some((&kind, number)) = self.line.split_first() else {
            return;
        };
        let factor = match kind {
            b'*' | b'~' | b'>' => 1,
            b'%' | b'|' => 2,
            b'$' | b'!' | b'=' => 0,
            _ => return,
        };
        let is_whole = self.line.len() < MOST_NUMBER;
        let number = str::from_utf8(number).ok().filter(|_| is_whole);
        let number = number.and_then(|number| number.trim().parse::<i64>().ok());
        if matches!((kind, number), (b'$' | b'*' | b'~' | b'>', Some(..0))) {
            return;
        }
        // The parser takes other negative numbers for huge ones; a wrong number is an error for it.
        let number = number.and_then(|number| u64::try_from(number).ok());
        let number = number.unwrap_or(u64::MAX);
        if factor == 0 {
            self.skip = number.saturating_add(2);
            return;
        }
        let more = number.saturating_mul(factor);
        let more = more.saturating_add(u64::from(kind == b'|'));
        self.left = self.left.saturating_add(more);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use redis::parse_redis_value;

    use super::*;

    fn takes(reply: &[u8], endless: &[u8]) -> bool {
        let mut measure = Measure::default();
        let whole = measure.takes(reply);
        whole && (endless.is_empty() || (0..60).all(|_| measure.takes(&endless.repeat(400_000))))
    }

    #[test]
    fn replies_of_servers_are_taken() {
        for reply in [
            &b"+OK\r\n:1\r\n"[..],
            b"%1\r\n$5\r\nproto\r\n:3\r\n",
            b">3\r\n$7\r\nmessage\r\n$1\r\nx\r\n$5\r\n\r\n$9\r\r\n",
            b"*2\r\n*-1\r\n$-1\r\n",
            b"|1\r\n+a\r\n+b\r\n*0\r\n",
            b"_\r\n,1.5\r\n#t\r\n!3\r\nERR\r\n=5\r\ntxt:x\r\n(1\r\n~1\r\n:1\r\n",
        ] {
            let mut measure = Measure::default();
            for part in reply.chunks(1) {
                assert!(measure.takes(part));
            }
            assert_eq!((measure.left, measure.skip, measure.bytes), (0, 0, 0));
            assert!(takes(&reply.repeat(100_000), b""));
        }
    }

    #[test]
    fn a_message_is_taken_up_to_its_limit() {
        let mut measure = Measure::default();
        let head = format!(">3\r\n$7\r\nmessage\r\n$1\r\nx\r\n${MOST_MESSAGE}\r\n");
        assert!(measure.takes(head.as_bytes()));
        let message = vec![b'x'; MOST_MESSAGE];
        assert!(measure.takes(&message));
        assert!(measure.takes(b"\r\n:1\r\n"));
        assert_eq!(measure.bytes, 0);
    }

    #[test]
    fn larger_ones_are_not() {
        for (reply, endless) in [
            (&b"*2000000000\r\n"[..], &b""[..]),
            (b"%9223372036854775807\r\n", b""),
            (b"|4611686018427387904\r\n", b""),
            (b">3\r\n$3000000000\r\n", b""),
            (b"=-1\r\n", b""),
            (b"!-9223372036854775808\r\n", b""),
            (b"$                                       3\r\n", b""),
            (b"+", b"xxxx"),
            (b"+", b"x\n+\r"),
            (b"", b"*1\r\n"),
            (b"*900000\r\n", b"*1\r\n:1\r\n"),
            (b"*900000\r\n", b"*900000\r\n"),
        ] {
            assert!(!takes(reply, endless), "{}", reply.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn it_sees_the_end_where_the_parser_does(
            lines in prop::collection::vec(
                r"([+:*$%|~>_#!=-](-?[0-3]|[a-c]{0,2}))?\r\n", 1..12,
            ),
        ) {
            let prefixes = (1..=lines.len()).map(|count| lines[..count].concat());
            let mut sums = vec![];
            for prefix in prefixes {
                let mut measure = Measure::default();
                sums.push(measure.takes(prefix.as_bytes()) && measure.is_between());
                if parse_redis_value(prefix.as_bytes()).is_ok() {
                    let (last, earlier) = sums.split_last().unwrap();
                    prop_assert!(*last && !earlier.contains(&true), "{prefix:?}");
                    break;
                }
            }
        }
    }
}

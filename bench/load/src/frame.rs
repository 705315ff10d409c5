//! RFC 6455 framing, the client's side: masked frames out, a strict incremental parser in.

/// Largest payload of a control frame (RFC 6455, 5.5).
const MAX_CONTROL: usize = 125;

/// Kind of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    /// Text message.
    Text = 1,
    /// Binary message.
    Binary = 2,
    /// Close.
    Close = 8,
    /// Ping.
    Ping = 9,
    /// Pong.
    Pong = 10,
}

/// Header of one masked frame, ready to be written.
#[derive(Clone, Copy, Debug)]
pub struct Header {
    bytes: [u8; 14],
    len: usize,
}

impl Header {
    /// The bytes of the header.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// Bytes of the header of a masked frame with `payload` bytes.
pub fn client_header_len(payload: usize) -> usize {
    match payload {
        0..=125 => 6,
        126..=0xffff => 8,
        _ => 14,
    }
}

/// Header of an unfragmented masked frame (RFC 6455, 5.2).
pub fn client_header(opcode: Opcode, payload: usize, mask: [u8; 4]) -> Header {
    let mut bytes = [0; 14];
    let len = client_header_len(payload);
    let length = (payload as u64).to_be_bytes();
    bytes[0] = 0x80 | opcode as u8;
    match len {
        6 => bytes[1] = 0x80 | length[7],
        8 => {
            bytes[1] = 0x80 | 0x7e;
            bytes[2..4].copy_from_slice(&length[6..]);
        }
        _ => {
            bytes[1] = 0x80 | 0x7f;
            bytes[2..10].copy_from_slice(&length);
        }
    }
    bytes[len - 4..len].copy_from_slice(&mask);
    Header { bytes, len }
}

/// Masks `bytes`, which stand at position `at` of their payload (RFC 6455, 5.3).
pub fn mask(bytes: &mut [u8], key: [u8; 4], at: usize) {
    let key: [u8; 4] = std::array::from_fn(|index| key[(at + index) % 4]);
    let wide = u64::from(u32::from_ne_bytes(key)) * 0x1_0000_0001;
    let mut words = bytes.chunks_exact_mut(8);
    for word in &mut words {
        let value: [u8; 8] = std::array::from_fn(|index| word[index]);
        word.copy_from_slice(&(u64::from_ne_bytes(value) ^ wide).to_ne_bytes());
    }
    for (byte, key) in words.into_remainder().iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
    }
}

/// A whole masked control frame.
pub fn control(opcode: Opcode, payload: &[u8], key: [u8; 4]) -> Vec<u8> {
    let mut frame = client_header(opcode, payload.len(), key)
        .as_slice()
        .to_vec();
    let start = frame.len();
    frame.extend_from_slice(payload);
    mask(&mut frame[start..], key, 0);
    frame
}

/// An event from the server.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// The next bytes of a data message.
    Part {
        /// Kind of the message.
        kind: Opcode,
        /// Bytes that follow those of the part before.
        bytes: &'a [u8],
        /// Whether the message ends here.
        last: bool,
    },
    /// A ping, to be answered with the same bytes.
    Ping(Vec<u8>),
    /// An unsolicited pong.
    Pong,
    /// A close frame with its code, if it had one.
    Close(Option<u16>),
}

#[derive(Clone, Copy, Debug)]
struct Frame {
    opcode: u8,
    fin: bool,
    left: u64,
}

/// Parser of the server's frames; keeps no payload of data messages.
#[derive(Debug, Default)]
pub struct Parser {
    header: [u8; 10],
    have: usize,
    frame: Option<Frame>,
    /// Kind of the message of which the first fragment has come.
    message: Option<Opcode>,
    control: Vec<u8>,
}

impl Parser {
    /// Takes the next event off the front of `input`; `None` when it needs more bytes.
    ///
    /// # Errors
    /// A sentence naming the rule of RFC 6455 that the server broke. The parser is useless then.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Event<'a>>, String> {
        loop {
            let Some(frame) = self.frame else {
                match self.take_header(input)? {
                    None => return Ok(None),
                    Some(frame) => self.frame = Some(frame),
                }
                continue;
            };
            if input.is_empty() && frame.left > 0 {
                return Ok(None);
            }
            let take =
                usize::try_from(frame.left).map_or(input.len(), |left| left.min(input.len()));
            let (bytes, rest) = input.split_at(take);
            *input = rest;
            let left = frame.left - take as u64;
            self.frame = (left > 0).then_some(Frame { left, ..frame });
            if frame.opcode < 8 {
                let last = left == 0 && frame.fin;
                let kind = self.message.ok_or("continuation frame without a message")?;
                if last {
                    self.message = None;
                }
                return Ok(Some(Event::Part { kind, bytes, last }));
            }
            self.control.extend_from_slice(bytes);
            if left == 0 {
                return self.end_control(frame.opcode).map(Some);
            }
        }
    }

    fn take_header(&mut self, input: &mut &[u8]) -> Result<Option<Frame>, String> {
        let mut need = 2;
        loop {
            if self.have >= 2 {
                need = match self.header[1] & 0x7f {
                    126 => 4,
                    127 => 10,
                    _ => 2,
                };
            }
            if self.have >= need {
                break;
            }
            let Some((first, rest)) = input.split_first() else {
                return Ok(None);
            };
            self.header[self.have] = *first;
            self.have += 1;
            *input = rest;
        }
        self.have = 0;
        self.judge_header().map(Some)
    }

    fn judge_header(&mut self) -> Result<Frame, String> {
        let [first, second, ..] = self.header;
        let (fin, opcode) = (first & 0x80 != 0, first & 0x0f);
        if first & 0x70 != 0 {
            return Err("reserved bit set although nothing was negotiated".into());
        }
        if second & 0x80 != 0 {
            return Err("masked frame from the server".into());
        }
        let left = match second & 0x7f {
            126 => u64::from(u16::from_be_bytes([self.header[2], self.header[3]])),
            127 => u64::from_be_bytes(std::array::from_fn(|index| self.header[index + 2])),
            short => u64::from(short),
        };
        let shortest = match second & 0x7f {
            126 => left > 125,
            127 => left > 0xffff && left < 1 << 63,
            _ => true,
        };
        if !shortest {
            return Err(format!("length {left} not in its shortest form"));
        }
        match opcode {
            0 if self.message.is_none() => {
                return Err("continuation frame without a message".into());
            }
            1 | 2 if self.message.is_some() => {
                return Err("new message inside a fragmented one".into());
            }
            1 => self.message = Some(Opcode::Text),
            2 => self.message = Some(Opcode::Binary),
            8..=10 if !fin || left > MAX_CONTROL as u64 => {
                return Err("control frame fragmented or over 125 bytes".into());
            }
            0 | 8..=10 => {}
            _ => return Err(format!("unknown opcode {opcode}")),
        }
        Ok(Frame { opcode, fin, left })
    }

    fn end_control<'a>(&mut self, opcode: u8) -> Result<Event<'a>, String> {
        let payload = std::mem::take(&mut self.control);
        match (opcode, payload.as_slice()) {
            (8, []) => Ok(Event::Close(None)),
            (8, [high, low, reason @ ..]) if std::str::from_utf8(reason).is_ok() => {
                Ok(Event::Close(Some(u16::from_be_bytes([*high, *low]))))
            }
            (8, _) => Err("malformed close frame".into()),
            (9, _) => Ok(Event::Ping(payload)),
            _ => Ok(Event::Pong),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Events of `wire` in steps of `step` bytes, parts joined.
    fn read(wire: &[u8], step: usize) -> Result<Vec<String>, String> {
        let mut parser = Parser::default();
        let (mut seen, mut text) = (Vec::new(), Vec::new());
        for mut piece in wire.chunks(step) {
            while let Some(event) = parser.next(&mut piece)? {
                match event {
                    Event::Part { kind, bytes, last } => {
                        text.extend_from_slice(bytes);
                        if last {
                            seen.push(format!("{kind:?} {}", text.escape_ascii()));
                            text.clear();
                        }
                    }
                    other => seen.push(format!("{other:?}")),
                }
            }
        }
        Ok(seen)
    }

    #[test]
    fn fragments_with_a_ping_between_are_one_message_however_they_arrive() {
        let wire = b"\x01\x02ab\x89\x01p\x00\x00\x80\x01c\x82\x00\x88\x02\x03\xe8";
        for step in 1..=wire.len() {
            assert_eq!(
                read(wire, step).unwrap(),
                ["Ping([112])", "Text abc", "Binary ", "Close(Some(1000))"]
            );
        }
    }

    #[test]
    fn long_lengths_are_read() {
        for (mut wire, size) in [
            (b"\x82\x7e\x01\x00".to_vec(), 256),
            (b"\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00".to_vec(), 65_536),
        ] {
            wire.resize(wire.len() + size, b'x');
            for step in [1, 7, wire.len()] {
                assert_eq!(
                    read(&wire, step).unwrap(),
                    [format!("Binary {}", "x".repeat(size))]
                );
            }
        }
    }

    #[test]
    fn each_broken_rule_has_a_name() {
        for (wire, word) in [
            (&b"\xc1\x00"[..], "reserved bit"),
            (b"\x81\x80\0\0\0\0", "masked"),
            (b"\x81\x7e\x00\x05hello", "shortest"),
            (b"\x81\x7f\0\0\0\0\0\0\xff\xff", "shortest"),
            (b"\x81\x7f\x80\0\0\0\0\0\0\0", "shortest"),
            (b"\x80\x00", "without a message"),
            (b"\x01\x01a\x81\x01b", "inside a fragmented"),
            (b"\x09\x00", "control frame"),
            (b"\x89\x7e\x00\x7e", "control frame"),
            (b"\x83\x00", "unknown opcode"),
            (b"\x88\x01x", "malformed close"),
        ] {
            let error = read(wire, wire.len()).unwrap_err();
            assert!(error.contains(word), "{word}: {error}");
        }
    }

    #[test]
    fn masking_twice_from_any_position_gives_the_bytes_back() {
        let plain: Vec<u8> = (0..100).collect();
        let mut masked = plain.clone();
        mask(&mut masked, [1, 2, 3, 4], 0);
        assert_eq!(masked[..5], [1, 1 ^ 2, 2 ^ 3, 3 ^ 4, 4 ^ 1]);
        for at in 0..masked.len() {
            let mut rest = masked[at..].to_vec();
            mask(&mut rest, [1, 2, 3, 4], at);
            assert_eq!(rest, plain[at..]);
        }
    }
}

//! Judges of any bytes at all: what must hold whatever a peer sends, and other opinions on it.
//!
//! The property tests and the fuzz targets (`fuzz/`) feed these; the fuzzers' corpus is fed again
//! by [`crate::corpus`], as an ordinary test.

use std::{
    io::{self, Cursor, Read, Write},
    sync::LazyLock,
};

use _core::protocol::{
    client_handshake,
    close::CloseFrame,
    deflate::{Agreement, Codecs, Deflater, Inflater, Options, offer},
    error::Violation,
    frame::{self, Opcode},
    handshake::{self, Request},
    limits::Limits,
    mask::unmask,
    message::{Event, Kind, Message, Receiver},
    post,
    response::{Head, unchunk},
    subprotocol,
};
use miniz_oxide::{
    DataFormat, MZFlush, MZStatus,
    inflate::stream::{InflateState, inflate},
};
use tokio_tungstenite::tungstenite::{
    self, Error,
    error::ProtocolError,
    handshake::server::create_response,
    http,
    protocol::{Role, WebSocket, WebSocketConfig},
};

/// Small enough to be broken often.
pub(crate) const LIMITS: Limits = Limits {
    max_message_bytes: 300,
    max_frame_bytes: u32::MAX,
    max_fragments: 6,
};

/// The codecs of all judges, so that the next message would show what one leaves in a codec.
pub(crate) static CODECS: LazyLock<Codecs> = LazyLock::new(Codecs::default);

/// The events that a receiver made of some bytes, and the violation that it met.
pub(crate) type Outcome = (Vec<Event>, Option<Violation>);

/// Feeds `reads` one after the other to a new receiver.
pub(crate) fn receive<'a>(limits: Limits, reads: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    receive_with(Receiver::new(limits), reads)
}

/// Feeds `reads` one after the other to `receiver`.
pub(crate) fn receive_with<'a>(
    mut receiver: Receiver,
    reads: impl IntoIterator<Item = &'a [u8]>,
) -> Outcome {
    let mut outcome = Outcome::default();
    for read in reads {
        take_all(&mut receiver, &mut read.to_vec(), &mut outcome);
    }
    outcome
}

/// Adds to the outcome what `receiver` makes of all of `input`.
pub(crate) fn take_all(receiver: &mut Receiver, mut input: &mut [u8], outcome: &mut Outcome) {
    let (events, violation) = outcome;
    loop {
        match receiver.next(&mut input) {
            Ok(Some(event)) => events.push(event),
            Ok(None) => break,
            Err(error) => assert_eq!(violation.replace(error), None, "a second violation"),
        }
    }
    assert!(input.is_empty());
}

/// tungstenite does not count fragments.
const UNCOUNTED: Limits = Limits {
    max_fragments: u32::MAX,
    ..LIMITS
};

/// How a stream of bytes ended, in terms that both sides know.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum End {
    /// Everything was in order, and the peer is free to go on.
    Open,
    Closed(Option<(u16, String)>),
    Failed(u16),
}

pub(crate) type Verdict = (Vec<tungstenite::Message>, End);

pub(crate) fn our_verdict((events, violation): &Outcome) -> Verdict {
    let mut end = End::Open;
    let mut messages = Vec::new();
    for event in events {
        match event {
            Event::Message(message) => messages.push(their_message(message)),
            Event::Ping(payload) => messages.push(tungstenite::Message::Ping(payload.clone())),
            Event::Pong(payload) => messages.push(tungstenite::Message::Pong(payload.clone())),
            Event::Close(frame) => {
                end = End::Closed(frame.code.map(|code| (code, frame.reason.clone())));
            }
        }
    }
    if let Some(violation) = violation {
        end = End::Failed(violation.code);
    }
    (messages, end)
}

fn their_message(message: &Message) -> tungstenite::Message {
    match message.kind {
        Kind::Text => {
            let text = std::str::from_utf8(&message.payload).unwrap();
            tungstenite::Message::text(text)
        }
        Kind::Binary => tungstenite::Message::binary(message.payload.clone()),
    }
}

/// The messages and the end that tungstenite finds in `bytes` as a server.
fn their_verdict(bytes: &[u8], limits: Limits) -> Verdict {
    let config = WebSocketConfig::default()
        .max_message_size(Some(limits.max_message_bytes))
        .max_frame_size(Some(limits.max_message_bytes));
    let stream = Recorded(Cursor::new(bytes.to_vec()));
    let mut socket = WebSocket::from_raw_socket(stream, Role::Server, Some(config));
    let mut messages = Vec::new();
    let end = loop {
        match socket.read() {
            Ok(tungstenite::Message::Close(frame)) => {
                let said = frame.map(|frame| (frame.code.into(), frame.reason.to_string()));
                break End::Closed(said);
            }
            Ok(message) => messages.push(message),
            Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)) => break End::Open,
            Err(Error::Protocol(_)) => break End::Failed(1002),
            Err(Error::Utf8(_)) => break End::Failed(1007),
            Err(Error::Capacity(_)) => break End::Failed(1009),
            Err(error) => panic!("unforeseen: {error:?}"),
        }
    };
    (messages, end)
}

/// A peer that has sent all that it has to send, and drops what is written to it.
pub(crate) struct Recorded(pub(crate) Cursor<Vec<u8>>);

impl Read for Recorded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Read::read(&mut self.0, buffer)
    }
}

impl Write for Recorded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Where tungstenite differs, and why we do not follow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Difference {
    /// It takes lengths in longer forms than needed; the RFC forbids them (section 5.2). Those of
    /// control frames leave no room for one (section 5.5).
    LengthForm,
    /// It judges a frame when all of it has come, we judge each part; so we may refuse a frame
    /// that it is still waiting for.
    Later,
    /// It compares a length with the limit before it looks at the rest of the header, and so calls
    /// a forbidden header too big.
    LimitFirst,
    /// It reports a forbidden close code as an ordinary close with 1002, and takes 1014, which the
    /// registry assigned later, for forbidden. We fail the connection, and allow 1014.
    CloseCode,
    /// It reads the reason of a close before its code, so both being wrong is 1007 there.
    ReasonFirst,
}

fn difference(ours: &Outcome, theirs: &Verdict) -> Option<Difference> {
    let (messages, end) = our_verdict(ours);
    if (&messages, &end) == (&theirs.0, &theirs.1) {
        return None;
    }
    let reason = ours.1.as_ref().map_or("", |violation| &violation.reason);
    // It goes on where we stop, so it may have seen more, but never something else.
    let is_length_form = [
        "payload length is not in its shortest form",
        "control frame announces more than 125 bytes",
    ]
    .contains(&reason);
    if is_length_form && theirs.0.starts_with(&messages) {
        return Some(Difference::LengthForm);
    }
    assert_eq!(messages, theirs.0, "{end:?} and {:?}", theirs.1);
    Some(match (&end, &theirs.1) {
        (End::Failed(_), End::Open) => Difference::Later,
        (End::Failed(1002), End::Failed(1009)) => Difference::LimitFirst,
        (End::Failed(1002), End::Closed(Some((1002, said))))
            if said == "Protocol violation" && reason.starts_with("close code") =>
        {
            Difference::CloseCode
        }
        (End::Closed(Some((1014, _))), End::Closed(Some((1002, _)))) => Difference::CloseCode,
        (End::Failed(1002), End::Failed(1007)) if reason.starts_with("close code") => {
            Difference::ReasonFirst
        }
        unforeseen => panic!("{unforeseen:?}: {reason}"),
    })
}

/// The verdicts on the same bytes, and how they differ.
pub(crate) fn compare(bytes: &[u8]) -> Option<Difference> {
    let ours = receive(UNCOUNTED, [bytes]);
    let theirs = their_verdict(bytes, UNCOUNTED);
    difference(&ours, &theirs)
}

/// Bytes as they come off the wire.
pub(crate) fn judge_frames(bytes: &[u8]) {
    compare(bytes);
    judge_cuts(|| Receiver::new(LIMITS), bytes);
}

/// Frames that are masked and have the length that they say, so that their meaning is looked at.
///
/// The script is a sequence of: the first byte of a frame, the length of its payload, the payload.
/// A length above 250 stands for so many times 100 bytes.
pub(crate) fn judge_messages(mut script: &[u8]) {
    let mut bytes = Vec::new();
    while let [first, len, rest @ ..] = script {
        let len = match usize::from(*len) {
            len @ 0..=250 => len,
            len => (len - 250) * 100,
        };
        let (payload, rest) = rest.split_at(len.min(rest.len()));
        bytes.extend_from_slice(&client_frame(*first, payload));
        script = rest;
    }
    judge_frames(&bytes);
}

/// A compressed message in two fragments, whatever its stream is; and the bytes as a message that
/// we compress.
///
/// The first byte chooses the kind, the takeover and the window, the second where to cut.
pub(crate) fn judge_deflate(script: &[u8]) {
    let [style, cut, stream @ ..] = script else {
        return;
    };
    let agreement = Agreement {
        server_no_context_takeover: style & 2 != 0,
        client_no_context_takeover: style & 2 != 0,
        server_max_window_bits: Some(9 + (style >> 2) % 7),
        client_max_window_bits: Some(9 + (style >> 2) % 7),
    };
    let limits = Limits {
        max_message_bytes: 20_000,
        ..LIMITS
    };
    let receiver = || Receiver::new(limits).with_inflater(Inflater::new(&agreement, &CODECS));

    let (start, rest) = stream.split_at(usize::from(*cut).min(stream.len()));
    let frames = [
        client_frame(if style & 1 != 0 { 0x41 } else { 0x42 }, start),
        client_frame(0x80, rest),
    ];
    // Twice, so that takeover has something to take over.
    let (events, _) = judge_cuts(receiver, &frames.concat().repeat(2));
    if let Some(Event::Message(message)) = events.first() {
        let theirs = inflated_by_miniz(stream);
        // With takeover we do not see that a stream ends too early.
        if theirs.is_some() || agreement.client_no_context_takeover {
            assert_eq!(Some(&message.payload[..]), theirs.as_deref());
        }
    }
    let message = &stream[..stream.len().min(limits.max_message_bytes)];
    judge_deflater(agreement, 1 + style % 9, message, receiver());
}

/// Our compressed message, some times in a row, as the receiver takes it.
fn judge_deflater(agreement: Agreement, level: u8, message: &[u8], mut receiver: Receiver) {
    let options = Options {
        threshold_bytes: 0,
        level,
        server_no_context_takeover: true,
        client_no_context_takeover: true,
        server_max_window_bits: 15,
        client_max_window_bits: 15,
    };
    let deflater = Deflater::new(&agreement, &options, &CODECS);
    for _ in 0..3 {
        let Some(deflated) = deflater.deflate(message) else {
            continue;
        };
        let mut bytes = client_frame(0xC2, deflated.payload());
        deflated.was_sent();
        let expected = Event::Message(Message {
            kind: Kind::Binary,
            payload: message.to_vec().into(),
        });
        assert_eq!(receiver.next(&mut &mut bytes[..]), Ok(Some(expected)));
    }
}

/// The fields of a handshake, a line each: upgrade, connection, version, key, subprotocols and
/// extensions.
pub(crate) fn judge_handshake(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else {
        return;
    };
    let mut lines = text.split('\n').map(Some).chain(std::iter::repeat(None));
    let mut line = || lines.next().flatten();
    let request = Request {
        method: "GET",
        http_version: (1, 1),
        host: Some("localhost"),
        content_length: None,
        transfer_encoding: None,
        upgrade: line(),
        connection: line(),
        version: line(),
        key: line(),
        protocols: line(),
        extensions: line(),
    };
    judge_offers(request.extensions.unwrap_or_default());
    let Ok(accepted) = handshake::validate(&request) else {
        return;
    };
    for name in &accepted.offered {
        assert!(subprotocol::is_token(name));
    }
    let head = handshake::response_head(&accepted.accept_key, None, None, &[]).unwrap();
    assert!(head.ends_with(b"\r\n\r\n"));
    if let Some(theirs) = answered_by_tungstenite(&request) {
        assert_eq!(theirs, accepted.accept_key);
    }
}

/// An agreement, taken as an offer, must be answered with itself.
fn judge_offers(header: &str) {
    let options = Options {
        threshold_bytes: 0,
        level: 1,
        server_no_context_takeover: false,
        client_no_context_takeover: false,
        server_max_window_bits: 15,
        client_max_window_bits: 15,
    };
    if let Some(agreement) = offer::answer(header, &options) {
        let answer = agreement.to_string();
        assert_eq!(offer::answer(&answer, &options), Some(agreement));
    }
}

/// The key with which tungstenite accepts; `None` where it is known to want more than we do.
fn answered_by_tungstenite(request: &Request<'_>) -> Option<String> {
    let trimmed = |value: Option<&str>| {
        value
            .unwrap_or_default()
            .trim_matches([' ', '\t'])
            .to_owned()
    };
    let (upgrade, connection) = (trimmed(request.upgrade), trimmed(request.connection));
    // It knows no list of protocols to upgrade to, and in that of `Connection` no tab and nothing
    // beyond ASCII.
    let is_plain = connection.is_ascii() && !connection.contains('\t');
    if !upgrade.eq_ignore_ascii_case("websocket") || !is_plain {
        return None;
    }
    let theirs = http::Request::builder()
        .method(request.method)
        .uri("/")
        .header("Upgrade", upgrade)
        .header("Connection", connection)
        .header("Sec-WebSocket-Version", trimmed(request.version))
        .header("Sec-WebSocket-Key", trimmed(request.key))
        .body(())
        .ok()?;
    let response = match create_response(&theirs) {
        // It looks at the unused bits of the key.
        Err(Error::Protocol(ProtocolError::InvalidSecWebSocketKey)) => return None,
        response => response.unwrap(),
    };
    let key = response.headers()["Sec-WebSocket-Accept"].to_str().unwrap();
    Some(key.to_owned())
}

/// The message that miniz inflates from one stream; `None` when it is not whole.
fn inflated_by_miniz(stream: &[u8]) -> Option<Vec<u8>> {
    if stream.is_empty() {
        return Some(Vec::new());
    }
    let tail = [0x00, 0x00, 0xff, 0xff];
    let bytes = [stream, &tail].concat();
    let mut input = &bytes[..];
    let mut message = Vec::new();
    let mut state = InflateState::new_boxed(DataFormat::Raw);
    loop {
        let mut output = [0; 4096];
        let result = inflate(&mut state, input, &mut output, MZFlush::None);
        message.extend_from_slice(&output[..result.bytes_written]);
        input = &input[result.bytes_consumed..];
        match result.status {
            // Behind a final block comes another stream, or nothing but the tail.
            Ok(MZStatus::StreamEnd) if input.len() <= tail.len() => return Some(message),
            Ok(MZStatus::StreamEnd) => state = InflateState::new_boxed(DataFormat::Raw),
            Ok(_) if input.is_empty() && result.bytes_written < output.len() => {
                return Some(message);
            }
            Ok(_) if result.bytes_consumed + result.bytes_written > 0 => {}
            _ => return None,
        }
    }
}

/// The outcome must not depend on the reads, must fit a close frame, and must not take memory out
/// of proportion to the bytes that came.
fn judge_cuts(receiver: impl Fn() -> Receiver, bytes: &[u8]) -> Outcome {
    let whole = receive_with(receiver(), [bytes]);
    for step in [1, 3, 100] {
        let cut = receive_with(receiver(), bytes.chunks(step));
        assert_eq!(cut, whole, "reads of {step}");
    }
    if let Some(violation) = &whole.1 {
        let frame = CloseFrame::from(violation);
        assert_eq!(CloseFrame::parse(&frame.encode()[2..]), Ok(frame));
    }
    whole
}

/// A masked frame; `first` is its first byte as it stands.
fn client_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = frame::head(Opcode::Binary, payload.len()).to_vec();
    bytes[0] = first;
    bytes[1] |= 0x80;
    let key = [0x9d, 0x02, 0xf1, 0x6c];
    bytes.extend_from_slice(&key);
    let start = bytes.len();
    bytes.extend_from_slice(payload);
    unmask(&mut bytes[start..], key, 0);
    bytes
}

/// The key of the handshakes whose answers are judged: that of RFC 6455 section 1.3.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// The handshake whose answers are judged.
static ASKED: LazyLock<client_handshake::Request> = LazyLock::new(|| {
    let subprotocols = vec!["chat".to_owned()];
    let options = Options {
        threshold_bytes: 0,
        level: 1,
        server_no_context_takeover: false,
        client_no_context_takeover: false,
        server_max_window_bits: 15,
        client_max_window_bits: 15,
    };
    client_handshake::Request::new("/", subprotocols, Some(options), &[]).unwrap()
});

/// Checks a server's answer to a client's handshake: the head ends where it ends without what follows,
/// no start of it is one, only what was offered is agreed on, and a body in chunks only grows.
pub(crate) fn judge_response(answer: &[u8]) {
    let Ok(Some((head, length))) = Head::parse(answer) else {
        return;
    };
    let found = Ok(Some((head.clone(), length)));
    assert_eq!(Head::parse(&answer[..length]), found);
    assert_eq!(Head::parse(&answer[..length - 1]), Ok(None));
    if let Ok(agreed) = ASKED.validate(KEY, &head) {
        assert!(agreed.subprotocol.is_none_or(|name| name == "chat"));
    }
    let body = &answer[length..];
    let (whole, is_whole) = unchunk(body);
    for cut in [body.len() / 3, body.len() / 2] {
        let (part, is_all) = unchunk(&body[..cut]);
        assert!(whole.starts_with(&part));
        assert!(!is_all || is_whole && part == whole);
    }
}

/// A part of a post: a message, or a close.
pub(crate) type Part = Event;

/// The largest message of the posts that are judged.
pub(crate) const POSTED_BYTES: usize = 40;

/// Any body of a POST: what is taken is JSON of the right form in `serde_json`'s opinion, too, and its
/// frames say the same.
pub(crate) fn judge_post(body: &[u8]) {
    let Ok(found) = post::parse(body, POSTED_BYTES) else {
        return;
    };
    // It reads numbers that nobody has asked for, and has no place for these.
    let text = with_whole_pairs(std::str::from_utf8(body).unwrap());
    let parsed = serde_json::from_str(&text);
    if matches!(&parsed, Err(error) if error.to_string().starts_with("number out of range")) {
        return;
    }
    let (number, parts) = posted(&parsed.unwrap()).unwrap();
    assert_eq!(found.number, number);
    assert_eq!(parts_of(&found), as_received(parts));
}

/// JSON with a replacement character for each half of a surrogate pair, which `serde_json` refuses.
fn with_whole_pairs(text: &str) -> String {
    let unit = |text: &str| u16::from_str_radix(text.strip_prefix("\\u")?.get(..4)?, 16).ok();
    let mut whole = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        let follows = escape.get(6..).and_then(unit);
        let (taken, length) = match (unit(escape), follows) {
            (Some(0xD800..0xDC00), Some(0xDC00..0xE000)) => (&escape[..12], 12),
            (Some(0xD800..0xE000), _) => ("\\ufffd", 6),
            _ => {
                let length = escape.chars().take(2).map(char::len_utf8).sum();
                (&escape[..length], length)
            }
        };
        whole.push_str(before);
        whole.push_str(taken);
        rest = &escape[length..];
    }
    whole + rest
}

/// What a reader of frames makes of a post, and whether it fails.
pub(crate) fn parts_of(found: &post::Post) -> (Vec<Part>, bool) {
    let limits = Limits {
        max_message_bytes: POSTED_BYTES,
        ..LIMITS
    };
    let (events, violation) = receive(limits, [&found.frames[..]]);
    (events, violation.is_some())
}

/// The parts that come before the end, and whether the end is that a message is too large.
pub(crate) fn as_received(parts: Vec<Part>) -> (Vec<Part>, bool) {
    let mut received = Vec::new();
    for part in parts {
        if matches!(&part, Event::Message(message) if message.payload.len() > POSTED_BYTES) {
            return (received, true);
        }
        let is_end = matches!(part, Event::Close(_));
        received.push(part);
        if is_end {
            break;
        }
    }
    (received, false)
}

fn posted(body: &serde_json::Value) -> Option<(u64, Vec<Part>)> {
    let parts = body.get("messages")?.as_array()?.iter().map(part);
    Some((body.get("n")?.as_u64()?, parts.collect::<Option<_>>()?))
}

fn part(message: &serde_json::Value) -> Option<Part> {
    let message = message.as_object()?;
    let kinds = ["text", "binary", "close"];
    let mut found = kinds
        .into_iter()
        .filter_map(|kind| message.get_key_value(kind));
    let (kind, value) = found.next()?;
    assert_eq!(found.next(), None, "a message of two kinds");
    Some(match kind.as_str() {
        "text" => Event::Message(Message {
            kind: Kind::Text,
            payload: value.as_str()?.to_owned().into(),
        }),
        "binary" => Event::Message(Message {
            kind: Kind::Binary,
            payload: data_encoding::BASE64
                .decode(value.as_str()?.as_bytes())
                .ok()?
                .into(),
        }),
        _ => {
            let code = match value.get("code") {
                None | Some(serde_json::Value::Null) => None,
                Some(code) => Some(u16::try_from(code.as_u64()?).ok()?),
            };
            let reason = value
                .get("reason")
                .map_or(Some(""), |reason| reason.as_str())?;
            let reason = if code.is_some() { reason } else { "" };
            Event::Close(CloseFrame::new(code, reason).ok()?)
        }
    })
}

//! The opening handshake (RFC 6455 section 4.2): judging a request, writing the 101.

use std::{collections::HashSet, fmt};

use tungstenite::handshake::derive_accept_key;

use super::subprotocol::is_token;

/// The only version of the protocol, as in `Sec-WebSocket-Version`. A 426 has to name it.
pub const VERSION: &str = "13";

/// Headers of a response that belong to a body or to one hop, or that the 101 writes itself.
const OWN_HEADERS: [&str; 7] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
const OWN_PREFIXES: [&str; 2] = ["content-", "sec-websocket-"];

/// What the judgement needs of an HTTP request.
///
/// Header fields are `None` when absent; several of one name are joined with commas.
#[derive(Clone, Copy, Debug, Default)]
pub struct Request<'a> {
    /// As in the request line; case-sensitive.
    pub method: &'a str,
    /// Major and minor, `(1, 1)` for HTTP/1.1.
    pub http_version: (u8, u8),
    /// `Upgrade`.
    pub upgrade: Option<&'a str>,
    /// `Connection`.
    pub connection: Option<&'a str>,
    /// `Sec-WebSocket-Version`.
    pub version: Option<&'a str>,
    /// `Sec-WebSocket-Key`.
    pub key: Option<&'a str>,
    /// `Sec-WebSocket-Protocol`.
    pub protocols: Option<&'a str>,
}

/// A request that may be answered with a 101.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted<'a> {
    /// The value of `Sec-WebSocket-Accept`.
    pub accept_key: String,
    /// The subprotocols that the client offers, each once, in its order of preference.
    pub offered: Vec<&'a str>,
}

/// The first rule that a request breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Not GET.
    Method,
    /// Older than HTTP/1.1.
    HttpVersion,
    /// `Upgrade` is absent or does not name websocket.
    Upgrade,
    /// `Connection` is absent or does not name Upgrade.
    Connection,
    /// `Sec-WebSocket-Version` is not 13, or absent, as in the old drafts.
    Version,
    /// `Sec-WebSocket-Key` is absent or not the base64 of 16 bytes.
    Key,
    /// `Sec-WebSocket-Protocol` is not a list of different tokens.
    Subprotocol,
}

impl Refusal {
    /// The status to answer with: 426 when another version might do, 400 otherwise.
    ///
    /// A 426 goes with `Sec-WebSocket-Version: 13` (RFC 6455 section 4.2.2).
    pub fn status(self) -> u16 {
        match self {
            Self::Version => 426,
            Self::Method
            | Self::HttpVersion
            | Self::Upgrade
            | Self::Connection
            | Self::Key
            | Self::Subprotocol => 400,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Method => "a WebSocket handshake must be a GET request",
            Self::HttpVersion => "a WebSocket handshake needs HTTP/1.1 or newer",
            Self::Upgrade => "the Upgrade header must name websocket",
            Self::Connection => "the Connection header must name Upgrade",
            Self::Version => "Sec-WebSocket-Version must be 13",
            Self::Key => "Sec-WebSocket-Key must be 16 bytes in base64",
            Self::Subprotocol => "Sec-WebSocket-Protocol must be a list of different tokens",
        })
    }
}

impl std::error::Error for Refusal {}

/// Decides whether `request` may become a WebSocket (RFC 6455 section 4.2.1).
///
/// Host, Origin and everything else that is a matter of policy are not judged here.
///
/// # Errors
/// The first rule broken, in the order of [`Refusal`]'s variants.
pub fn judge<'a>(request: &Request<'a>) -> Result<Accepted<'a>, Refusal> {
    if request.method != "GET" {
        return Err(Refusal::Method);
    }
    if request.http_version < (1, 1) {
        return Err(Refusal::HttpVersion);
    }
    if !names(request.upgrade, "websocket") {
        return Err(Refusal::Upgrade);
    }
    if !names(request.connection, "upgrade") {
        return Err(Refusal::Connection);
    }
    if request.version.map(trim) != Some(VERSION) {
        return Err(Refusal::Version);
    }
    let key = request.key.map(trim).filter(|key| is_key(key));
    let key = key.ok_or(Refusal::Key)?;
    let offered = request.protocols.map_or(Some(Vec::new()), offered);
    let offered = offered.ok_or(Refusal::Subprotocol)?;
    Ok(Accepted {
        accept_key: derive_accept_key(key.as_bytes()),
        offered,
    })
}

/// The head of the 101 response, up to and including the empty line.
///
/// `headers` are those that the application adds, such as cookies, in order. Those that concern a
/// body, one hop or the handshake itself are left out without a word: the response has no body,
/// and the 101 writes the others. Text stands for bytes as in WSGI: one character up to U+00FF is
/// one byte.
///
/// # Errors
/// [`InvalidHeader`] when a name is not a token, when a value holds a control character (CR, LF
/// and NUL above all) or one beyond U+00FF, or when the subprotocol is not a token.
pub fn response_head(
    accept_key: &str,
    subprotocol: Option<&str>,
    headers: &[(String, String)],
) -> Result<Vec<u8>, InvalidHeader> {
    let mut head = Vec::with_capacity(256);
    head.extend_from_slice(b"HTTP/1.1 101 Switching Protocols\r\n");
    push(&mut head, "Upgrade", "websocket")?;
    push(&mut head, "Connection", "Upgrade")?;
    push(&mut head, "Sec-WebSocket-Accept", accept_key)?;
    if let Some(name) = subprotocol {
        if !is_token(name) {
            return Err(InvalidHeader::Value("Sec-WebSocket-Protocol".to_owned()));
        }
        push(&mut head, "Sec-WebSocket-Protocol", name)?;
    }
    for (name, value) in headers {
        if !is_token(name) {
            return Err(InvalidHeader::Name(name.clone()));
        }
        if !is_own(name) {
            push(&mut head, name, value)?;
        }
    }
    head.extend_from_slice(b"\r\n");
    Ok(head)
}

/// A header that would break the response, or smuggle something into it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InvalidHeader {
    /// The name is not a token.
    Name(String),
    /// The value of the header of this name holds a character that no header may hold.
    Value(String),
}

impl fmt::Display for InvalidHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(f, "{name:?} is not the name of a header"),
            Self::Value(name) => write!(f, "the value of {name} holds a forbidden character"),
        }
    }
}

impl std::error::Error for InvalidHeader {}

fn push(head: &mut Vec<u8>, name: &str, value: &str) -> Result<(), InvalidHeader> {
    head.extend_from_slice(name.as_bytes());
    head.extend_from_slice(b": ");
    for c in value.chars() {
        match u8::try_from(c) {
            Ok(byte) if byte == b'\t' || !byte.is_ascii_control() => head.push(byte),
            _ => return Err(InvalidHeader::Value(name.to_owned())),
        }
    }
    head.extend_from_slice(b"\r\n");
    Ok(())
}

fn is_own(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    OWN_HEADERS.contains(&name.as_str())
        || OWN_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Whether the list in a header has `token`, in any case.
fn names(header: Option<&str>, token: &str) -> bool {
    header.is_some_and(|list| elements(list).any(|element| element.eq_ignore_ascii_case(token)))
}

/// The subprotocols in a header; `None` unless they are tokens, all different, at least one.
fn offered(header: &str) -> Option<Vec<&str>> {
    let offered: Vec<&str> = elements(header).collect();
    // By hash: comparing each with each would let one long header keep us busy.
    let mut seen = HashSet::with_capacity(offered.len());
    let sound = offered
        .iter()
        .all(|name| is_token(name) && seen.insert(*name));
    (sound && !offered.is_empty()).then_some(offered)
}

/// The elements of a comma-separated header, empty ones ignored (RFC 7230 section 7).
fn elements(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(trim).filter(|item| !item.is_empty())
}

fn trim(value: &str) -> &str {
    value.trim_matches([' ', '\t'])
}

/// Whether `key` looks like the base64 of 16 bytes. The unused low bits of the last digit are not
/// looked at: some clients set them, and nothing depends on them.
fn is_key(key: &str) -> bool {
    let Some(digits) = key.strip_suffix("==") else {
        return false;
    };
    digits.len() == 22
        && digits
            .bytes()
            .all(|digit| digit.is_ascii_alphanumeric() || digit == b'+' || digit == b'/')
}

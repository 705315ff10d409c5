//! The opening handshake (RFC 6455 section 4.2): validating a request, writing the 101.

use std::{collections::HashSet, fmt};

use tungstenite::handshake::derive_accept_key;

use super::{
    deflate::Agreement,
    extension::{self, trim},
    subprotocol::is_token,
};

/// The only version of the protocol, as in `Sec-WebSocket-Version`. A 426 has to name it.
pub const VERSION: &str = "13";

/// Headers of a response that belong to a body or to one hop, or that the 101 writes itself.
const OWN_HEADERS: [&str; 12] = [
    "connection",
    "content-encoding",
    "content-language",
    "content-length",
    "content-range",
    "content-type",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
const OWN_PREFIX: &str = "sec-websocket-";

/// The parts of an HTTP request that the judgement needs.
///
/// Header fields are `None` when absent; several of one name are joined with commas.
#[derive(Clone, Copy, Debug, Default)]
pub struct Request<'a> {
    /// As in the request line; case-sensitive.
    pub method: &'a str,
    /// Major and minor, `(1, 1)` for HTTP/1.1.
    pub http_version: (u8, u8),
    /// `Host`.
    pub host: Option<&'a str>,
    /// `Content-Length`.
    pub content_length: Option<&'a str>,
    /// `Transfer-Encoding`.
    pub transfer_encoding: Option<&'a str>,
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
    /// `Sec-WebSocket-Extensions`.
    pub extensions: Option<&'a str>,
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
    /// `Host` is absent.
    Host,
    /// There is a body, which would be taken for frames.
    Body,
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
    /// `Sec-WebSocket-Extensions` goes against its grammar.
    Extensions,
}

impl Refusal {
    /// The status to answer with: 426 when another version might do, 400 otherwise.
    ///
    /// A 426 goes with `Sec-WebSocket-Version: 13` (RFC 6455 section 4.2.2).
    pub fn status(self) -> u16 {
        match self {
            Self::Version => 426,
            _ => 400,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Method => "a WebSocket handshake must be a GET request",
            Self::HttpVersion => "a WebSocket handshake needs HTTP/1.1 or newer",
            Self::Host => "a WebSocket handshake needs a Host header",
            Self::Body => "a WebSocket handshake has no body",
            Self::Upgrade => "the Upgrade header must name websocket",
            Self::Connection => "the Connection header must name Upgrade",
            Self::Version => "Sec-WebSocket-Version must be 13",
            Self::Key => "Sec-WebSocket-Key must be 16 bytes in base64",
            Self::Subprotocol => "Sec-WebSocket-Protocol must be a list of different tokens",
            Self::Extensions => "Sec-WebSocket-Extensions must be a list of extensions",
        })
    }
}

impl std::error::Error for Refusal {}

/// Decides whether `request` may become a WebSocket (RFC 6455 section 4.2.1).
///
/// Origin, which Host it is, and everything else that is a matter of policy are not validated here.
///
/// # Errors
/// The first rule broken, in the order of [`Refusal`]'s variants.
pub fn validate<'a>(request: &Request<'a>) -> Result<Accepted<'a>, Refusal> {
    if request.method != "GET" {
        return Err(Refusal::Method);
    }
    if request.http_version < (1, 1) {
        return Err(Refusal::HttpVersion);
    }
    if request.host.is_none() {
        return Err(Refusal::Host);
    }
    if request.transfer_encoding.is_some() || !is_empty(request.content_length) {
        return Err(Refusal::Body);
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
    if request
        .extensions
        .is_some_and(|list| extension::parse(list).is_none())
    {
        return Err(Refusal::Extensions);
    }
    Ok(Accepted {
        accept_key: derive_accept_key(key.as_bytes()),
        offered,
    })
}

/// The head of the 101 response, up to and including the empty line.
///
/// `headers` are those that the application adds, such as cookies, in order. Those that concern a
/// body, one hop or the handshake itself are left out silently: the response has no body,
/// and the 101 writes the others. Text stands for bytes as in WSGI: one character up to U+00FF is
/// one byte.
///
/// # Errors
/// [`InvalidHeader`] when a name is not a token, when a value holds a control character (CR, LF
/// and NUL above all) or one beyond U+00FF, or when the subprotocol is not a token.
pub fn response_head(
    accept_key: &str,
    subprotocol: Option<&str>,
    compression: Option<&Agreement>,
    headers: &[(&str, &str)],
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
    if let Some(agreement) = compression {
        push(
            &mut head,
            "Sec-WebSocket-Extensions",
            &agreement.to_string(),
        )?;
    }
    push_all(&mut head, headers, is_own)?;
    head.extend_from_slice(b"\r\n");
    Ok(head)
}

/// Appends the headers of an application that are not the response's own.
pub(super) fn push_all(
    head: &mut Vec<u8>,
    headers: &[(&str, &str)],
    is_own: impl Fn(&str) -> bool,
) -> Result<(), InvalidHeader> {
    for &(name, value) in headers {
        if !is_token(name) {
            return Err(InvalidHeader::Name(name.to_owned()));
        }
        if !is_own(name) {
            push(head, name, value)?;
        }
    }
    Ok(())
}

/// A header that would break the response, or inject something into it.
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
    if value.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        // Nearly every value is printable ASCII.
        head.extend_from_slice(value.as_bytes());
    } else {
        for c in value.chars() {
            match u8::try_from(c) {
                Ok(byte) if byte == b'\t' || !byte.is_ascii_control() => head.push(byte),
                _ => return Err(InvalidHeader::Value(name.to_owned())),
            }
        }
    }
    head.extend_from_slice(b"\r\n");
    Ok(())
}

/// Whether a response without a body writes this header itself, or leaves it out.
pub(super) fn is_own(name: &str) -> bool {
    let start = name.get(..OWN_PREFIX.len());
    OWN_HEADERS.iter().any(|own| name.eq_ignore_ascii_case(own))
        || start.is_some_and(|start| start.eq_ignore_ascii_case(OWN_PREFIX))
}

/// Whether a body of this `Content-Length` has no bytes.
fn is_empty(content_length: Option<&str>) -> bool {
    content_length.is_none_or(|length| trim(length).bytes().all(|digit| digit == b'0'))
}

/// Whether the list in a header has `token`, in any case.
pub(super) fn names(header: Option<&str>, token: &str) -> bool {
    header.is_some_and(|list| elements(list).any(|element| element.eq_ignore_ascii_case(token)))
}

/// The subprotocols in a header; `None` unless they are tokens, all different, at least one.
fn offered(header: &str) -> Option<Vec<&str>> {
    let offered: Vec<&str> = elements(header).collect();
    // By hash: to compare each with each would take too long for one long header.
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

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use super::*;

    const GOOD: Request<'static> = Request {
        method: "GET",
        http_version: (1, 1),
        host: Some("example.com"),
        content_length: None,
        transfer_encoding: None,
        upgrade: Some("websocket"),
        connection: Some("Upgrade"),
        version: Some("13"),
        key: Some("dGhlIHNhbXBsZSBub25jZQ=="),
        protocols: None,
        extensions: None,
    };

    fn head(headers: &[(&str, &str)]) -> Result<String, InvalidHeader> {
        response_head("accept", None, None, headers).map(|head| String::from_utf8(head).unwrap())
    }

    #[test]
    fn the_request_of_the_rfc_is_accepted() {
        let request = Request {
            protocols: Some("chat, superchat"),
            ..GOOD
        };
        let expected = Accepted {
            accept_key: "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=".to_owned(),
            offered: vec!["chat", "superchat"],
        };
        assert_eq!(validate(&request), Ok(expected));
    }

    fn assert_accepted<'a, T: Copy + Debug>(values: &[T], request: impl Fn(T) -> Request<'a>) {
        for value in values {
            assert!(validate(&request(*value)).is_ok(), "{value:?}");
        }
    }

    fn assert_refused<'a, T: Copy + Debug>(
        refusal: Refusal,
        values: &[T],
        request: impl Fn(T) -> Request<'a>,
    ) {
        for value in values {
            assert_eq!(validate(&request(*value)), Err(refusal), "{value:?}");
        }
    }

    #[test]
    fn harmless_variety_is_accepted() {
        let upgrades = [
            "WebSocket",
            " websocket\t",
            "h2c, websocket",
            "WEBSOCKET,",
            ",,websocket",
        ];
        assert_accepted(&upgrades, |upgrade| Request {
            upgrade: Some(upgrade),
            ..GOOD
        });
        let connections = ["upgrade", "keep-alive, Upgrade", "keep-alive,UPGRADE,te"];
        assert_accepted(&connections, |connection| Request {
            connection: Some(connection),
            ..GOOD
        });
        assert_accepted(&[(1, 1), (1, 2), (2, 0), (3, 0)], |http_version| Request {
            http_version,
            ..GOOD
        });
        assert_accepted(&["", "0", " 0 ", "00"], |length| Request {
            content_length: Some(length),
            ..GOOD
        });
        let extensions = ["x", "permessage-deflate; unknown", ", x; y=\"z\" ,"];
        assert_accepted(&extensions, |extensions| Request {
            extensions: Some(extensions),
            ..GOOD
        });
        let padded = Request {
            version: Some(" 13 "),
            key: Some("\tdGhlIHNhbXBsZSBub25jZQ== "),
            ..GOOD
        };
        assert_eq!(validate(&padded), validate(&GOOD));
    }

    #[test]
    fn what_is_no_request_without_a_body_is_refused() {
        let methods = ["POST", "HEAD", "get", "CONNECT", ""];
        assert_refused(Refusal::Method, &methods, |method| Request {
            method,
            ..GOOD
        });
        assert_refused(Refusal::HttpVersion, &[(1, 0), (0, 9)], |version| Request {
            http_version: version,
            ..GOOD
        });
        assert_refused(Refusal::Host, &[None], |host| Request { host, ..GOOD });
        let lengths = ["1", "11", "-0", "0x0", "0, 5", "nonsense"];
        assert_refused(Refusal::Body, &lengths, |length| Request {
            content_length: Some(length),
            ..GOOD
        });
        assert_refused(Refusal::Body, &["chunked", ""], |coding| Request {
            transfer_encoding: Some(coding),
            ..GOOD
        });
    }

    #[test]
    fn what_asks_for_no_websocket_is_refused() {
        let upgrades = [
            None,
            Some(""),
            Some("h2c"),
            Some("websockets"),
            Some("web socket"),
            Some("websocket/13"),
            Some("\u{a0}websocket"),
        ];
        assert_refused(Refusal::Upgrade, &upgrades, |upgrade| Request {
            upgrade,
            ..GOOD
        });
        let connections = [
            None,
            Some(""),
            Some("keep-alive"),
            Some("Upgrades"),
            Some("close"),
        ];
        assert_refused(Refusal::Connection, &connections, |connection| Request {
            connection,
            ..GOOD
        });
    }

    #[test]
    fn versions_and_keys_that_are_not_exact_are_refused() {
        let versions = [
            None,
            Some(""),
            Some("8"),
            Some("12"),
            Some("14"),
            Some("013"),
            Some("+13"),
            Some("13.0"),
            Some("13, 8"),
            Some("13, 13"),
            Some("١٣"),
        ];
        assert_refused(Refusal::Version, &versions, |version| Request {
            version,
            ..GOOD
        });
        let keys = [
            None,
            Some(""),
            Some("dGhlIHNhbXBsZSBub25jZQ="),
            Some("dGhlIHNhbXBsZSBub25jZQ"),
            Some("dGhlIHNhbXBsZSBub25jZQ==="),
            Some("dGhlIHNhbXBsZSBub25jZ=="),
            Some("dGhlIHNhbXBsZSBub25jZQQ=="),
            Some("dGhlIHNhbXBsZSBub25jZQAAAA=="),
            Some("dGhlIHNhbXBsZSBub25jZTE="),
            Some("dGhlIHNhbXBsZSBub25jZTE0"),
            Some("dGhlIHNhbXBsZSBub25jZ==="),
            Some("dGhlIHNhbXBsZSBub25j=Q=="),
            Some("dGhlIHNhbXBsZSBub25j Q=="),
            Some("dGhlIHNhbXBsZSBub25j-_=="),
            Some("dGhlIHNhbXBsZSBub25jé=="),
            Some("dGhlIHNhbXBsZSBub25jZQ==, dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        assert_refused(Refusal::Key, &keys, |key| Request { key, ..GOOD });
    }

    #[test]
    fn offers_against_the_grammar_are_refused() {
        let protocols = [
            "",
            " , ",
            "chat room",
            "chat;v=1",
            "chat/1",
            "\"chat\"",
            "gespräch",
            "a, b, a",
            "chat, chat",
            "a\u{0}b",
        ];
        assert_refused(Refusal::Subprotocol, &protocols, |protocols| Request {
            protocols: Some(protocols),
            ..GOOD
        });
        let extensions = ["", ",", "x;", "x y", "x; y=", "x; y=\"z"];
        assert_refused(Refusal::Extensions, &extensions, |extensions| Request {
            extensions: Some(extensions),
            ..GOOD
        });
    }

    /// All of them, in the order in which the rules are looked at.
    const REFUSALS: [Refusal; 10] = [
        Refusal::Method,
        Refusal::HttpVersion,
        Refusal::Host,
        Refusal::Body,
        Refusal::Upgrade,
        Refusal::Connection,
        Refusal::Version,
        Refusal::Key,
        Refusal::Subprotocol,
        Refusal::Extensions,
    ];

    #[test]
    fn the_first_broken_rule_is_named() {
        let mut request = Request::default();
        let mut named = Vec::new();
        let fixes: [fn(&mut Request<'_>); 10] = [
            |r| r.method = GOOD.method,
            |r| r.http_version = GOOD.http_version,
            |r| r.host = GOOD.host,
            |r| r.content_length = None,
            |r| r.upgrade = GOOD.upgrade,
            |r| r.connection = GOOD.connection,
            |r| r.version = GOOD.version,
            |r| r.key = GOOD.key,
            |r| r.protocols = None,
            |r| r.extensions = None,
        ];
        request.content_length = Some("5");
        request.protocols = Some("");
        request.extensions = Some("");
        for fix in fixes {
            named.push(validate(&request).unwrap_err());
            fix(&mut request);
        }
        assert_eq!(named, REFUSALS);
        assert!(validate(&request).is_ok());
    }

    #[test]
    fn each_refusal_has_a_status_and_a_text() {
        for refusal in REFUSALS {
            let is_version = refusal == Refusal::Version;
            assert_eq!(refusal.status(), if is_version { 426 } else { 400 });
            assert!(!refusal.to_string().is_empty());
        }
    }

    #[test]
    fn unused_bits_of_the_key_are_not_looked_at() {
        let accept_key = |key| {
            let request = Request {
                key: Some(key),
                ..GOOD
            };
            validate(&request).unwrap().accept_key
        };
        // The same 16 bytes, yet the answer is made of the characters (RFC 6455 section 4.2.2).
        assert_ne!(
            accept_key("dGhlIHNhbXBsZSBub25jZQ=="),
            accept_key("dGhlIHNhbXBsZSBub25jZf==")
        );
        assert!(!accept_key("++++++++++//////////AA==").is_empty());
    }

    #[test]
    fn a_long_offer_is_judged_in_linear_time() {
        let offer: Vec<String> = (0..100_000).map(|i| i.to_string()).collect();
        let header = offer.join(",");
        let request = Request {
            protocols: Some(&header),
            ..GOOD
        };
        assert_eq!(validate(&request).unwrap().offered, offer);
    }

    #[test]
    fn the_101_has_just_its_own_headers() {
        let expected = "HTTP/1.1 101 Switching Protocols\r\n\
             Upgrade: websocket\r\n\
             Connection: Upgrade\r\n\
             Sec-WebSocket-Accept: accept\r\n\
             \r\n";
        assert_eq!(head(&[]).unwrap(), expected);
    }

    #[test]
    fn the_101_carries_subprotocol_and_headers_in_order() {
        let headers = [
            ("Set-Cookie", "a=1; HttpOnly"),
            ("set-cookie", "b=\t2"),
            ("X-Empty", ""),
            ("X-Latin", "é\u{80}ÿ"),
        ];
        let head = response_head("accept", Some("v1.chat"), None, &headers).unwrap();
        let expected = b"HTTP/1.1 101 Switching Protocols\r\n\
             Upgrade: websocket\r\n\
             Connection: Upgrade\r\n\
             Sec-WebSocket-Accept: accept\r\n\
             Sec-WebSocket-Protocol: v1.chat\r\n\
             Set-Cookie: a=1; HttpOnly\r\n\
             set-cookie: b=\t2\r\n\
             X-Empty: \r\n\
             X-Latin: \xe9\x80\xff\r\n\
             \r\n";
        assert_eq!(head, expected);
    }

    #[test]
    fn headers_of_a_body_or_a_hop_are_left_out() {
        let skipped = [
            "Connection",
            "UPGRADE",
            "Keep-Alive",
            "Proxy-Connection",
            "Transfer-Encoding",
            "te",
            "Trailer",
            "Content-Length",
            "content-type",
            "Content-Encoding",
            "Sec-WebSocket-Accept",
            "sec-websocket-extensions",
            "Sec-WebSocket-Protocol",
        ];
        for name in skipped {
            assert_eq!(head(&[(name, "x")]), head(&[]), "{name}");
        }
        for name in ["Sec-Fetch-Mode", "Contents", "Trailers", "Vary", "Date"] {
            let written = format!("{name}: x\r\n\r\n");
            assert!(head(&[(name, "x")]).unwrap().ends_with(&written), "{name}");
        }
    }

    #[test]
    fn a_header_cannot_smuggle_another() {
        for value in [
            "a\r\nX: b",
            "a\n",
            "\r",
            "a\u{0}",
            "\u{7f}",
            "\u{1b}[0m",
            "ł",
            "🎉",
        ] {
            let refused = Err(InvalidHeader::Value("X-A".to_owned()));
            assert_eq!(head(&[("X-A", value)]), refused, "{value:?}");
        }
        for name in [
            "",
            "X A",
            "X:",
            "X\r\nY",
            "Content-\r\nX",
            "X\u{0}",
            "Größe",
            " X",
        ] {
            let refused = Err(InvalidHeader::Name(name.to_owned()));
            assert_eq!(head(&[(name, "x")]), refused, "{name:?}");
        }
        for name in ["", "a b", "a\r\nX: b"] {
            let refused = InvalidHeader::Value("Sec-WebSocket-Protocol".to_owned());
            assert_eq!(response_head("accept", Some(name), None, &[]), Err(refused));
        }
        let refused = InvalidHeader::Value("Sec-WebSocket-Accept".to_owned());
        assert_eq!(response_head("a\r\nb", None, None, &[]), Err(refused));
    }

    #[test]
    fn refused_headers_are_named_without_control_characters() {
        let error = head(&[("X\r\n", "x")]).unwrap_err();
        assert_eq!(error.to_string(), r#""X\r\n" is not the name of a header"#);
        let error = head(&[("X-A", "\n")]).unwrap_err();
        let expected = "the value of X-A holds a forbidden character";
        assert_eq!(error.to_string(), expected);
    }
}

//! The opening handshake as a client makes it (RFC 6455 section 4.1): the request, and the judgement
//! of its answer.

use tungstenite::handshake::{client::generate_key, derive_accept_key};

use super::{
    deflate::{Options, Terms, request},
    handshake::{self, InvalidHeader, VERSION},
    response::Head,
    subprotocol::is_token,
};

/// A request for a WebSocket, without its key, which is another one for each connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Up to the header that follows `Sec-WebSocket-Key: `.
    start: Vec<u8>,
    subprotocols: Vec<String>,
    compression: Option<Options>,
}

impl Request {
    /// A request for `target`, a path with its query.
    ///
    /// `headers` are those of the caller, `Host` among them. The handshake's own are left out of
    /// them silently: `Upgrade`, `Connection`, those of a body, and all of WebSockets.
    ///
    /// # Errors
    /// [`InvalidHeader`] when a header, a subprotocol or the target holds what none may hold.
    pub fn new(
        target: &str,
        subprotocols: Vec<String>,
        compression: Option<Options>,
        headers: &[(&str, &str)],
    ) -> Result<Self, InvalidHeader> {
        let is_path = target.starts_with('/') && target.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_path {
            return Err(InvalidHeader::Value("the request's target".to_owned()));
        }
        let mut start = format!("GET {target} HTTP/1.1\r\n").into_bytes();
        handshake::push_all(&mut start, headers, handshake::is_own)?;
        start.extend_from_slice(b"Upgrade: websocket\r\nConnection: Upgrade\r\n");
        start.extend_from_slice(format!("Sec-WebSocket-Version: {VERSION}\r\n").as_bytes());
        if !subprotocols.iter().all(|name| is_token(name)) {
            return Err(InvalidHeader::Value("Sec-WebSocket-Protocol".to_owned()));
        }
        if !subprotocols.is_empty() {
            let list = subprotocols.join(", ");
            start.extend_from_slice(format!("Sec-WebSocket-Protocol: {list}\r\n").as_bytes());
        }
        if let Some(options) = &compression {
            let offer = request::offer(options);
            start.extend_from_slice(format!("Sec-WebSocket-Extensions: {offer}\r\n").as_bytes());
        }
        Ok(Self {
            start,
            subprotocols,
            compression,
        })
    }

    /// A new key.
    pub fn key() -> String {
        generate_key()
    }

    /// The bytes of the request with `key`.
    pub fn encode(&self, key: &str) -> Vec<u8> {
        let mut bytes = self.start.clone();
        bytes.extend_from_slice(format!("Sec-WebSocket-Key: {key}\r\n\r\n").as_bytes());
        bytes
    }

    /// The agreement of a 101 that answers `key`.
    ///
    /// # Errors
    /// The first rule that it breaks (RFC 6455 section 4.1).
    pub fn validate(&self, key: &str, head: &Head) -> Result<Agreed, String> {
        let names = |header, token| handshake::names(head.get(header).as_deref(), token);
        if !names("upgrade", "websocket") {
            return Err("its Upgrade header does not name websocket".to_owned());
        }
        if !names("connection", "upgrade") {
            return Err("its Connection header does not name Upgrade".to_owned());
        }
        if head.get("sec-websocket-accept") != Some(derive_accept_key(key.as_bytes())) {
            return Err("its Sec-WebSocket-Accept does not answer this request's key".to_owned());
        }
        let subprotocol = head.get("sec-websocket-protocol");
        if let Some(name) = &subprotocol {
            if !self.subprotocols.contains(name) {
                return Err(format!(
                    "it chooses the subprotocol {name:?}, which was not offered"
                ));
            }
        }
        let extensions = head.get("sec-websocket-extensions");
        let compression = match (extensions, self.compression) {
            (None, _) => None,
            (Some(list), None) => {
                return Err(format!("it agrees on {list:?}, which was not offered"));
            }
            (Some(list), Some(options)) => Some(request::terms(&list, options)?),
        };
        Ok(Agreed {
            subprotocol,
            compression,
        })
    }
}

/// The subprotocol and the compression of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// One of those that were offered, or none.
    pub subprotocol: Option<String>,
    /// The terms as a [`super::deflate`] of this end keeps to them.
    pub compression: Option<Terms>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

    fn request(subprotocols: &[&str]) -> Request {
        let subprotocols = subprotocols.iter().map(|&name| name.to_owned()).collect();
        Request::new("/chat?a=b", subprotocols, None, &[("Host", "example.com")]).unwrap()
    }

    fn head(headers: &[(&str, &str)]) -> Head {
        let usual = [
            ("Upgrade", "WebSocket"),
            ("Connection", "keep-alive, Upgrade"),
            ("Sec-WebSocket-Accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
        ];
        let kept = usual
            .iter()
            .filter(|(name, _)| !headers.iter().any(|(other, _)| name == other));
        let all = kept.chain(headers.iter().filter(|(_, value)| !value.is_empty()));
        Head {
            status: 101,
            reason: String::new(),
            headers: all
                .map(|&(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
        }
    }

    #[test]
    fn the_request_is_that_of_the_rfc() {
        let encoded = String::from_utf8(request(&["chat", "superchat"]).encode(KEY)).unwrap();
        assert_eq!(
            encoded,
            "GET /chat?a=b HTTP/1.1\r\nHost: example.com\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Protocol: chat, superchat\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        assert_ne!(Request::key(), Request::key());
    }

    #[test]
    fn nothing_can_be_smuggled_into_a_request() {
        let new = |target, name: &str, headers: &[(&str, &str)]| {
            Request::new(target, vec![name.to_owned()], None, headers).is_err()
        };
        assert!(!new("/", "a", &[]));
        for target in ["", "x", "/a b", "/\r\nX: y", "/ü"] {
            assert!(new(target, "a", &[]), "{target:?}");
        }
        assert!(new("/", "a b", &[]));
        assert!(new("/", "a", &[("X", "a\r\nY: b")]));
        assert!(new("/", "a", &[("X Y", "a")]));
    }

    #[test]
    fn an_answer_agrees_on_what_was_offered() {
        let agreed = request(&["chat"]).validate(KEY, &head(&[])).unwrap();
        assert_eq!((agreed.subprotocol, agreed.compression), (None, None));
        let chosen = head(&[("Sec-WebSocket-Protocol", "chat")]);
        let agreed = request(&["chat"]).validate(KEY, &chosen).unwrap();
        assert_eq!(agreed.subprotocol.as_deref(), Some("chat"));
    }

    #[test]
    fn each_rule_of_an_answer_is_named() {
        let cases = [
            ("Upgrade", "", "Upgrade header"),
            ("Upgrade", "h2c", "Upgrade header"),
            ("Connection", "close", "Connection header"),
            ("Sec-WebSocket-Accept", "", "this request's key"),
            ("Sec-WebSocket-Accept", "x", "this request's key"),
            (
                "Sec-WebSocket-Protocol",
                "other",
                "\"other\", which was not offered",
            ),
            (
                "Sec-WebSocket-Protocol",
                "chat, chat",
                "which was not offered",
            ),
            (
                "Sec-WebSocket-Extensions",
                "permessage-deflate",
                "which was not offered",
            ),
        ];
        for (name, value, expected) in cases {
            let refused = request(&["chat"]).validate(KEY, &head(&[(name, value)]));
            let reason = refused.unwrap_err();
            assert!(reason.contains(expected), "{name}: {reason}");
        }
    }
}

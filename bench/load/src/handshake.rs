//! The opening handshake, the client's side (RFC 6455, 4.1). Offers no extension, no subprotocol.

use crate::script::mix;

/// Appended to the key before hashing (RFC 6455, 1.3).
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const MAX_HEAD: usize = 16 * 1024;

/// One handshake: the request to send and the judgement of what comes back.
#[derive(Debug)]
pub struct Handshake {
    key: String,
    head: Vec<u8>,
}

impl Handshake {
    /// A handshake whose key follows from `seed`.
    pub fn new(seed: u64) -> Self {
        let mut nonce = [0; 16];
        nonce[..8].copy_from_slice(&mix(seed).to_le_bytes());
        nonce[8..].copy_from_slice(&mix(!seed).to_le_bytes());
        Self {
            key: base64(&nonce),
            head: Vec::new(),
        }
    }

    /// The request, as a page of the same site makes it: servers that check origins have to.
    pub fn request(&self, host: &str, path: &str) -> String {
        format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Origin: http://{host}\r\nSec-WebSocket-Key: {}\r\nSec-WebSocket-Version: 13\r\n\r\n",
            self.key
        )
    }

    /// Takes the response off the front of `input`; true once it is complete and right.
    ///
    /// # Errors
    /// The rule that the response breaks.
    pub fn take(&mut self, input: &mut &[u8]) -> Result<bool, String> {
        while let Some((byte, rest)) = input.split_first() {
            self.head.push(*byte);
            *input = rest;
            if self.head.ends_with(b"\r\n\r\n") {
                return self.judge().map(|()| true);
            }
            if self.head.len() > MAX_HEAD {
                return Err(format!("response head over {MAX_HEAD} bytes"));
            }
        }
        Ok(false)
    }

    fn judge(&self) -> Result<(), String> {
        let head = std::str::from_utf8(&self.head).map_err(|_| "response head is not UTF-8")?;
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap_or_default();
        if status.split(' ').nth(1) != Some("101") {
            return Err(format!("answered {status:?} instead of 101"));
        }
        let fields: Vec<(String, &str)> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim()))
            .collect();
        let field = |name: &str| {
            fields
                .iter()
                .find(|(found, _)| found == name)
                .map_or("", |(_, value)| *value)
        };
        if !field("upgrade").eq_ignore_ascii_case("websocket") {
            return Err("101 without Upgrade: websocket".into());
        }
        let mut tokens = field("connection").split(',');
        if !tokens.any(|token| token.trim().eq_ignore_ascii_case("upgrade")) {
            return Err("101 without Connection: Upgrade".into());
        }
        if field("sec-websocket-accept") != accept(&self.key) {
            return Err("wrong Sec-WebSocket-Accept".into());
        }
        for name in ["sec-websocket-extensions", "sec-websocket-protocol"] {
            if !field(name).is_empty() {
                return Err(format!("{name} in the answer although none was offered"));
            }
        }
        Ok(())
    }
}

fn accept(key: &str) -> String {
    let mut hash = sha1_smol::Sha1::new();
    hash.update(key.as_bytes());
    hash.update(GUID.as_bytes());
    base64(&hash.digest().bytes())
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let word = group
            .iter()
            .fold(0u32, |word, byte| word << 8 | u32::from(*byte))
            << (8 * (3 - group.len()));
        for index in 0..4 {
            let digit = (word >> (18 - 6 * index) & 63) as usize;
            text.push(if index > group.len() {
                '='
            } else {
                char::from(DIGITS[digit])
            });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accept_value_is_that_of_the_rfc() {
        assert_eq!(
            accept("dGhlIHNhbXBsZSBub25jZQ=="),
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
    }

    #[test]
    fn base64_pads() {
        assert_eq!(
            ["", "f", "fo", "foo"].map(|text| base64(text.as_bytes())),
            ["", "Zg==", "Zm8=", "Zm9v"]
        );
    }

    #[test]
    fn a_response_is_judged_and_what_follows_it_is_left() {
        let mut handshake = Handshake::new(1);
        let good = format!(
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: WebSocket\r\nConnection: keep-alive, upgrade\r\n\
             Sec-WebSocket-Accept: {}\r\n\r\n",
            accept(&handshake.key)
        );
        let wire = [good.as_bytes(), b"\x81\x00"].concat();
        let mut input = &wire[..];
        assert_eq!(handshake.take(&mut input), Ok(true));
        assert_eq!(input, b"\x81\x00");
        for (from, to, word) in [
            ("101 Switching", "403 Forbidden", "403"),
            ("upgrade: WebSocket\r\n", "", "without Upgrade"),
            ("keep-alive, upgrade", "close", "without Connection"),
            ("Accept: ", "Accept: x", "wrong Sec-WebSocket-Accept"),
            (
                "upgrade: ",
                "Sec-WebSocket-Extensions: permessage-deflate\r\nupgrade: ",
                "none was offered",
            ),
        ] {
            let error = Handshake::new(1)
                .take(&mut good.replace(from, to).as_bytes())
                .unwrap_err();
            assert!(error.contains(word), "{word}: {error}");
        }
    }
}

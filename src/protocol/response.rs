//! The head of an HTTP response, as a client reads it.

use httparse::{EMPTY_HEADER, Response, Status};

/// The most headers that a response may have.
const MAX_HEADERS: usize = 128;

/// The head of a response. Text stands for bytes as in WSGI: one character up to U+00FF is one byte.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// The status.
    pub status: u16,
    /// The text beside it, often empty.
    pub reason: String,
    /// Names and values, in order.
    pub headers: Vec<(String, String)>,
}

impl Head {
    /// Reads the head at the front of `bytes`, and returns its length, too; `None` while it is
    /// incomplete.
    ///
    /// # Errors
    /// The reason why the bytes are no response of HTTP/1.1, or of HTTP/1.0 without a WebSocket:
    /// small servers refuse in the latter, and small proxies agree in it.
    pub fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, String> {
        let mut headers = [EMPTY_HEADER; MAX_HEADERS];
        let mut response = Response::new(&mut headers);
        let length = match response.parse(bytes) {
            Ok(Status::Partial) => return Ok(None),
            Ok(Status::Complete(length)) => length,
            Err(error) => return Err(format!("the answer is no HTTP response: {error}")),
        };
        if response.version != Some(1) && response.code == Some(101) {
            return Err("the answer is not HTTP/1.1".to_owned());
        }
        let headers = response.headers.iter();
        let head = Self {
            status: response.code.unwrap_or_default(),
            reason: response.reason.unwrap_or_default().to_owned(),
            headers: headers
                .map(|header| (header.name.to_owned(), latin_1(header.value)))
                .collect(),
        };
        Ok(Some((head, length)))
    }

    /// The values of a header, joined with commas; `None` when it is absent.
    pub fn get(&self, name: &str) -> Option<String> {
        let values: Vec<&str> = self
            .headers
            .iter()
            .filter(|(other, _)| other.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
            .collect();
        (!values.is_empty()).then(|| values.join(", "))
    }
}

fn latin_1(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

/// The body in the chunks of `Transfer-Encoding: chunked`, as far as it is here, and whether that is
/// all of it. Bytes after a malformed chunk are left out.
pub fn unchunk(mut chunked: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    loop {
        let Ok(Status::Complete((start, size))) = httparse::parse_chunk_size(chunked) else {
            return (body, false);
        };
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        let rest = chunked.get(start..).unwrap_or_default();
        if size == 0 {
            return (body, true);
        }
        body.extend_from_slice(&rest[..size.min(rest.len())]);
        // A line break follows.
        let next = size.saturating_add(2);
        let Some(further) = rest.get(next..) else {
            return (body, false);
        };
        chunked = further;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &[u8] = b"HTTP/1.1 404 Not Found\r\nX-A: 1\r\nx-a: \xfc\r\nEmpty:\r\n\r\nbody";

    #[test]
    fn a_head_is_read_when_it_is_whole() {
        let (head, length) = Head::parse(WHOLE).unwrap().unwrap();
        assert_eq!((head.status, head.reason.as_str()), (404, "Not Found"));
        assert_eq!(head.get("X-a").as_deref(), Some("1, ü"));
        assert_eq!(head.get("empty").as_deref(), Some(""));
        assert_eq!(head.get("other"), None);
        assert_eq!(&WHOLE[length..], b"body");
        for end in 0..length {
            assert_eq!(Head::parse(&WHOLE[..end]), Ok(None), "{end}");
        }
    }

    #[test]
    fn a_refusal_may_be_of_an_older_version() {
        let (head, _) = Head::parse(b"HTTP/1.0 404 Not Found\r\n\r\n")
            .unwrap()
            .unwrap();
        assert_eq!(head.status, 404);
    }

    #[test]
    fn other_bytes_are_no_response() {
        for bytes in [
            &b"SSH-2.0-x\r\n"[..],
            b"HTTP/1.0 101 Switching Protocols\r\n\r\n",
            b"HTTP/1.1 101 x\r\n a: b\r\n\r\n",
        ] {
            assert!(Head::parse(bytes).is_err(), "{bytes:?}");
        }
        let many = [
            &b"HTTP/1.1 101 x\r\n"[..],
            &b"a: b\r\n".repeat(200),
            b"\r\n",
        ]
        .concat();
        assert!(Head::parse(&many).unwrap_err().contains("too many headers"));
    }

    #[test]
    fn chunks_are_joined() {
        let chunked = b"4\r\nwiki\r\n5;x=y\r\npedia\r\n0\r\n\r\n";
        assert_eq!(unchunk(chunked), (b"wikipedia".to_vec(), true));
        assert_eq!(unchunk(&chunked[..12]), (b"wiki".to_vec(), false));
        assert_eq!(unchunk(b"zz\r\n"), (vec![], false));
        assert_eq!(unchunk(b"ffffffffffffffff\r\nab"), (b"ab".to_vec(), false));
    }
}

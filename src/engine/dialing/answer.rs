//! Reading an HTTP response from a stream, within limits.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt},
    time::{Instant, timeout_at},
};

use crate::protocol::response::{Head, unchunk};

/// The most that the head of a response may have.
const MAX_HEAD_BYTES: usize = 64 * 1024;
/// The most that is kept of the body of a refusal.
pub(super) const MAX_BODY_BYTES: usize = 64 * 1024;
/// The same for clients in tests: the page of an error with all its frames.
pub(super) const MAX_PAGE_BYTES: usize = 1024 * 1024;
/// The most answers that may come before the answer (RFC 9110 section 15.2).
const MAX_INTERIM: usize = 16;
/// How long a body may take: it only explains a refusal.
const BODY_TIMEOUT: Duration = Duration::from_secs(2);

/// Reads the head of a response, after interim ones such as 103. The second value is what came
/// after it.
pub(super) async fn head(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<(Head, Vec<u8>)> {
    let mut behind = Vec::with_capacity(1024);
    for _ in 0..=MAX_INTERIM {
        let (head, rest) = one_head(stream, behind).await?;
        if head.status == 101 || head.status >= 200 {
            return Ok((head, rest));
        }
        behind = rest;
    }
    Err(io::Error::other("the server sent interim answers only"))
}

async fn one_head(
    stream: &mut (impl AsyncRead + Unpin),
    begun: Vec<u8>,
) -> io::Result<(Head, Vec<u8>)> {
    let mut bytes = begun;
    let mut seen = 0;
    loop {
        // The bytes after an interim answer may be a whole one.
        if bytes.len() == seen && stream.read_buf(&mut bytes).await? == 0 {
            let reason = "the server hung up before its answer was complete";
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, reason));
        }
        // Parsed only where it may be whole: else a server that sends it byte by byte would cause
        // much work.
        let fresh = bytes.get(seen.saturating_sub(3)..).unwrap_or_default();
        seen = bytes.len();
        let may_be_whole = fresh
            .windows(2)
            .any(|pair| pair == b"\n\n" || pair == b"\n\r");
        let mut length = seen;
        if may_be_whole || is_no_response(&bytes) {
            if let Some((head, end)) = Head::parse(&bytes).map_err(io::Error::other)? {
                if end <= MAX_HEAD_BYTES {
                    return Ok((head, bytes.split_off(end)));
                }
                length = end;
            }
        }
        if length > MAX_HEAD_BYTES {
            let reason = format!("the head of the answer has more than {MAX_HEAD_BYTES} bytes");
            return Err(io::Error::other(reason));
        }
    }
}

/// Whether the first bytes show that this is no HTTP, and nothing has to be waited for.
fn is_no_response(bytes: &[u8]) -> bool {
    const START: &[u8] = b"HTTP/1.";
    let length = bytes.len().min(START.len());
    bytes[..length] != START[..length]
}

/// Reads the body after `head`, of which `begun` is here, as far as it comes in a short time: `most`
/// bytes, and not after `until`, when the call has to have an outcome. A refusal is one without its
/// whole body.
pub(super) async fn body(
    stream: &mut (impl AsyncRead + Unpin),
    head: &Head,
    begun: Vec<u8>,
    most: usize,
    until: Option<Instant>,
) -> Vec<u8> {
    let usual = Instant::now() + BODY_TIMEOUT;
    let until = until.map_or(usual, |until| until.min(usual));
    // Their headers do not count (section 6.3 of RFC 9112).
    let has_none = matches!(head.status, 204 | 304);
    let is_chunked = head.get("transfer-encoding").is_some() && !has_none;
    let length = head.get("content-length").and_then(|it| it.parse().ok());
    let length = if has_none {
        0
    } else {
        length.unwrap_or(most).min(most)
    };
    let mut bytes = begun;
    let whole = async {
        loop {
            let is_whole = if is_chunked {
                bytes.len() >= most || unchunk(&bytes).1
            } else {
                bytes.len() >= length
            };
            // The part that came before an error explains a refusal, too.
            if is_whole || stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
                return;
            }
        }
    };
    // The bytes that came in time are enough.
    let _ = timeout_at(until, whole).await;
    let mut body = if is_chunked { unchunk(&bytes).0 } else { bytes };
    body.truncate(length);
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_status_without_a_body_is_not_waited_for() {
        for (status, waits) in [(204, false), (304, false), (403, true)] {
            let (mut near, _far) = tokio::io::duplex(64);
            let head = format!("HTTP/1.1 {status} x\r\n\r\n");
            let (head, _) = Head::parse(head.as_bytes()).unwrap().unwrap();
            let before = Instant::now();
            let body = body(&mut near, &head, Vec::new(), 100, None).await;
            assert!(body.is_empty());
            assert_eq!(before.elapsed() > Duration::ZERO, waits, "{status}");
        }
    }
}

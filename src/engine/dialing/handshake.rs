//! The opening handshake on a stream.

use std::io;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::answer::{self, BodyLimit};
use crate::protocol::{
    client_handshake::{Agreed, Request},
    response::Head,
};

/// The answer of a server.
#[derive(Debug)]
pub(super) enum Answer {
    /// A WebSocket is open. The bytes came after the head.
    Opened(Head, Agreed, Vec<u8>),
    /// A 101 to a request of the caller's own, with the bytes after it.
    Unjudged(Head, Vec<u8>),
    /// Another response, with the start of its body.
    Refused(Head, Vec<u8>),
    /// A response that breaks a rule of the handshake.
    Broken(String),
}

/// Sends `request` and reads the answer.
pub(super) async fn shake_hands(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    request: &Request,
    limit: BodyLimit,
) -> io::Result<Answer> {
    let key = Request::key();
    let (head, behind) = exchange(stream, &request.encode(&key), limit).await?;
    if head.status != 101 {
        return Ok(Answer::Refused(head, behind));
    }
    Ok(match request.validate(&key, &head) {
        Ok(agreed) => Answer::Opened(head, agreed, behind),
        Err(reason) => Answer::Broken(reason),
    })
}

/// Sends the bytes of a request and reads the head of the answer. The second value is what came
/// after a 101, or the body of another answer.
pub(super) async fn exchange(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    request: &[u8],
    limit: BodyLimit,
) -> io::Result<(Head, Vec<u8>)> {
    stream.write_all(request).await?;
    stream.flush().await?;
    let (head, rest) = answer::head(stream).await?;
    if head.status == 101 {
        return Ok((head, rest));
    }
    let body = answer::body(stream, &head, rest, limit).await;
    Ok((head, body))
}

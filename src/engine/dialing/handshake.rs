//! The opening handshake on a stream.

use std::io;

use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    time::Instant,
};

use super::answer;
use crate::protocol::response::Head;

/// Sends the bytes of a request and reads the head of the answer. The second value is what came
/// after a 101, or the body of another answer, see [`answer::body`].
pub(super) async fn exchange(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    request: &[u8],
    most: usize,
    until: Option<Instant>,
) -> io::Result<(Head, Vec<u8>)> {
    stream.write_all(request).await?;
    stream.flush().await?;
    let (head, rest) = answer::head(stream).await?;
    if head.status == 101 {
        return Ok((head, rest));
    }
    let body = answer::body(stream, &head, rest, most, until).await;
    Ok((head, body))
}

//! The opening handshake on a stream.

use std::io::{
    self,
    ErrorKind::{BrokenPipe, ConnectionReset},
};

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
    if let Err(error) = send(stream, request).await {
        // From a server that has closed the connection, an answer or an alert may have come.
        if !matches!(error.kind(), BrokenPipe | ConnectionReset) {
            return Err(error);
        }
    }
    let (head, rest) = answer::head(stream).await?;
    if head.status == 101 {
        return Ok((head, rest));
    }
    let body = answer::body(stream, &head, rest, most, until).await;
    Ok((head, body))
}

async fn send(stream: &mut (impl AsyncWrite + Unpin), request: &[u8]) -> io::Result<()> {
    stream.write_all(request).await?;
    stream.flush().await
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::Interest,
        net::{TcpListener, TcpStream},
        task::yield_now,
    };

    use super::*;

    #[tokio::test]
    async fn an_answer_before_the_request_is_read_after_a_reset() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"unread").await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        server.readable().await.unwrap();
        let answer = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n";
        server.write_all(answer).await.unwrap();
        // With bytes that were not read this is a reset.
        drop(server);
        while !stream
            .ready(Interest::WRITABLE)
            .await
            .unwrap()
            .is_write_closed()
        {
            yield_now().await;
        }
        let (head, _) = exchange(&mut stream, b"request", 0, None).await.unwrap();
        assert_eq!(head.status, 503);
    }
}

//! An echo server of tokio-tungstenite, one thread, on the listening socket whose descriptor is
//! the only argument.
#![expect(
    unsafe_code,
    reason = "a descriptor that was handed down can be had in no other way"
)]

use std::{error::Error, os::fd::FromRawFd};

use futures_util::{SinkExt, StreamExt};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    runtime::Builder,
    task::spawn,
};
use tokio_tungstenite::{
    accept_async_with_config,
    tungstenite::{Message, protocol::WebSocketConfig},
};

/// How the benchmark asks whether the server is up.
const QUESTION: &[u8] = b"GET /ready ";
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
/// Instead of 128 KiB for each connection, which is slower with small messages and holds memory.
const READ_BUFFER_BYTES: usize = 4096;

type Outcome = Result<(), Box<dyn Error>>;

fn main() -> Outcome {
    let descriptor = std::env::args().nth(1).ok_or("no descriptor")?.parse()?;
    // SAFETY: the runner opened it for this process, which uses it nowhere else.
    let listener = unsafe { std::net::TcpListener::from_raw_fd(descriptor) };
    listener.set_nonblocking(true)?;
    let runtime = Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let listener = TcpListener::from_std(listener)?;
        loop {
            let (stream, _) = listener.accept().await?;
            spawn(async {
                // How a client goes is for the load generator to judge.
                let _ = serve(stream).await;
            });
        }
    })
}

async fn serve(mut stream: TcpStream) -> Outcome {
    let mut start = [0; QUESTION.len()];
    stream.peek(&mut start).await?;
    if start == QUESTION {
        return Ok(stream.write_all(ANSWER).await?);
    }
    let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER_BYTES);
    let mut websocket = accept_async_with_config(stream, Some(config)).await?;
    while let Some(message) = websocket.next().await.transpose()? {
        if matches!(message, Message::Text(_) | Message::Binary(_)) {
            websocket.send(message).await?;
        }
    }
    Ok(())
}

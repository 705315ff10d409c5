//! A server of tokio-tungstenite, one thread, on the listening socket whose descriptor is the first
//! argument: it echoes, or under `/chat` sends to all members. The second argument is the size of
//! each connection's read buffer, if it is not to be the library's own choice.
#![expect(
    unsafe_code,
    reason = "a descriptor that was handed down can be had in no other way"
)]

use std::{
    error::Error,
    os::fd::FromRawFd,
    sync::{Arc, Mutex, PoisonError},
};

use futures_util::{SinkExt, StreamExt, stream::SplitSink};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    runtime::Builder,
    sync::Mutex as AsyncMutex,
    task::spawn,
};
use tokio_tungstenite::{
    WebSocketStream, accept_async_with_config,
    tungstenite::{Message, protocol::WebSocketConfig},
};

/// The request by which the benchmark asks whether the server is up.
const QUESTION: &[u8] = b"GET /ready ";
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
const CHAT: &[u8] = b"GET /chat ";

type Outcome = Result<(), Box<dyn Error>>;
type WebSocket = WebSocketStream<TcpStream>;
type Member = Arc<AsyncMutex<SplitSink<WebSocket, Message>>>;
type Members = Arc<Mutex<Vec<Member>>>;

fn main() -> Outcome {
    let descriptor = std::env::args().nth(1).ok_or("no descriptor")?.parse()?;
    // SAFETY: the runner opened it for this process, which uses it nowhere else.
    let listener = unsafe { std::net::TcpListener::from_raw_fd(descriptor) };
    listener.set_nonblocking(true)?;
    let mut config = WebSocketConfig::default();
    if let Some(bytes) = std::env::args().nth(2) {
        config = config.read_buffer_size(bytes.parse()?);
    }
    let members = Members::default();
    let runtime = Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let listener = TcpListener::from_std(listener)?;
        loop {
            let (stream, _) = listener.accept().await?;
            let members = members.clone();
            spawn(async move {
                // The load generator judges how a connection ends.
                let _ = serve(stream, config, members).await;
            });
        }
    })
}

async fn serve(mut stream: TcpStream, config: WebSocketConfig, members: Members) -> Outcome {
    let mut start = [0; QUESTION.len()];
    stream.peek(&mut start).await?;
    if start == QUESTION {
        return Ok(stream.write_all(ANSWER).await?);
    }
    let is_chat = start.starts_with(CHAT);
    let websocket = accept_async_with_config(stream, Some(config)).await?;
    if is_chat {
        chat(websocket, members).await
    } else {
        echo(websocket).await
    }
}

async fn echo(mut websocket: WebSocket) -> Outcome {
    while let Some(message) = websocket.next().await.transpose()? {
        if matches!(message, Message::Text(_) | Message::Binary(_)) {
            websocket.send(message).await?;
        }
    }
    Ok(())
}

async fn chat(websocket: WebSocket, members: Members) -> Outcome {
    let (sink, mut stream) = websocket.split();
    let own = Arc::new(AsyncMutex::new(sink));
    lock(&members).push(own.clone());
    while let Some(Ok(message)) = stream.next().await {
        if matches!(message, Message::Text(_) | Message::Binary(_)) {
            let present = lock(&members).clone();
            for member in present {
                // A member that is gone is no loss to the others.
                let _ = member.lock().await.send(message.clone()).await;
            }
        }
    }
    lock(&members).retain(|member| !Arc::ptr_eq(member, &own));
    // Answers the close frame.
    let _ = own.lock().await.close().await;
    Ok(())
}

fn lock(members: &Members) -> std::sync::MutexGuard<'_, Vec<Member>> {
    members.lock().unwrap_or_else(PoisonError::into_inner)
}

//! Drives tokio-tungstenite: `tungstenite URL`, an address that echoes each message as it came.
//!
//! It has no compression and offers none. Any surprise ends it with a message and status 1.

use std::error::Error;

use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::{
    connect_async_with_config,
    tungstenite::{
        Message,
        protocol::{CloseFrame, WebSocketConfig, frame::coding::CloseCode},
    },
};

const SIZES: [usize; 9] = [0, 1, 125, 126, 1000, 65_535, 65_536, 1 << 20, 1 << 24];

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = std::env::args().nth(1).ok_or("usage: tungstenite URL")?;
    let unlimited = WebSocketConfig::default()
        .max_frame_size(None)
        .max_message_size(None);
    let (client, response) = connect_async_with_config(url, Some(unlimited), true).await?;
    if response.status() != 101 || response.headers().contains_key("Sec-WebSocket-Extensions") {
        return Err(format!("not what was asked for: {response:?}").into());
    }
    let (mut sink, mut stream) = client.split();
    let messages = SIZES.iter().flat_map(|size| {
        let text = "grün ".repeat(size / 6) + &"x".repeat(size % 6);
        [Message::text(text), Message::binary(vec![7; *size])]
    });
    for message in messages.chain([Message::Ping("there?".into())]) {
        let expected = match &message {
            Message::Ping(data) => Message::Pong(data.clone()),
            other => other.clone(),
        };
        // At once: neither side's buffers hold a large message.
        let (sent, came) = futures_util::join!(sink.send(message), stream.next());
        sent?;
        if came.transpose()? != Some(expected) {
            return Err("another message came back".into());
        }
    }
    let close = CloseFrame {
        code: CloseCode::Library(4002),
        reason: "done".into(),
    };
    sink.send(Message::Close(Some(close))).await?;
    let answer = stream.next().await.transpose()?;
    let Some(Message::Close(Some(answer))) = answer else {
        return Err(format!("{answer:?} instead of a close frame").into());
    };
    if u16::from(answer.code) != 4002 || stream.next().await.is_some() {
        return Err(format!("closed with {answer}, or not at its end").into());
    }
    Ok(())
}

//! The end of a request that is answered: the rest of the response, and then of the connection.

use std::{
    io::{self, IoSlice},
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::{Interest, unix::AsyncFd},
    task::coop::consume_budget,
    time::timeout,
};

use crate::engine::resources::socket::Socket;

/// Time in which the client has to take the next bytes, and then to hang up.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What the socket has not taken yet; `None` when it never will.
#[derive(Debug)]
pub(super) struct Rest(Option<(Vec<u8>, usize)>);

impl Rest {
    /// Writes what the socket takes now.
    pub(super) fn after_first_write(socket: &Socket, bytes: Vec<u8>) -> Self {
        let mut rest = Self(Some((bytes, 0)));
        rest.write(socket);
        rest
    }

    /// Writes what the socket takes now; false when that was nothing.
    fn write(&mut self, socket: &Socket) -> bool {
        let Some((bytes, at)) = &mut self.0 else {
            return false;
        };
        match socket.send(&[IoSlice::new(&bytes[*at..])]) {
            Ok(length) => *at += length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => {
                self.0 = None;
                return false;
            }
        }
        if self.is_written() {
            // As soon as possible: the client's next request may wait for it.
            socket.finish_sending();
        }
        true
    }

    fn is_written(&self) -> bool {
        self.0
            .as_ref()
            .is_some_and(|(bytes, at)| *at == bytes.len())
    }
}

/// Writes what is left, and waits until the client hangs up: closing on bytes that are not read would
/// reset the connection, and the reset can overtake the response.
pub(super) async fn finish(io: &AsyncFd<Arc<Socket>>, mut rest: Rest) {
    while rest.0.is_some() && !rest.is_written() {
        let Ok(Ok(mut guard)) = timeout(TIMEOUT, io.ready(Interest::WRITABLE)).await else {
            return;
        };
        if !rest.write(io.get_ref()) {
            guard.clear_ready();
        }
    }
    if rest.0.is_some() {
        let _ = timeout(TIMEOUT, end_of_stream(io)).await;
    }
}

/// Waits until the client has hung up. What it sends meanwhile is dropped.
pub(super) async fn end_of_stream(io: &AsyncFd<Arc<Socket>>) {
    while let Ok(mut guard) = io.ready(Interest::READABLE).await {
        match io.get_ref().receive(&mut Vec::new(), 4096) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => guard.clear_ready(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
        consume_budget().await;
    }
}

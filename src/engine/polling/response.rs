//! A request that is answered: the answer, the rest of the response, and the end of the connection.
//!
//! An answer counts among the bytes that the process buffers until its client's system has it. All
//! answers together have a limit of their own, for clients that do not read what they asked for.

use std::{
    io::{self, IoSlice},
    time::Duration,
};

use tokio::{
    io::Interest,
    sync::{Notify, Semaphore},
    task::coop::consume_budget,
    time::timeout,
};

use crate::{
    engine::{
        connection::posts::MOST_BEHIND_REQUEST,
        resources::{budget::Account, socket::Socket, watched::Watched},
    },
    protocol::polling,
};

/// Time in which the client has to take the next bytes, and then to hang up.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Time in which it has to take all of them.
const LONGEST: Duration = Duration::from_secs(60);

/// The body of a response.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) body: Vec<u8>,
    account: Account,
}

impl Answer {
    /// An answer with `body`; `None` when there is no room for it.
    pub(super) fn new(body: Vec<u8>) -> Option<Self> {
        let account = Account::of_answer(body.len())?;
        Some(Self { body, account })
    }
}

/// The part that the socket has not taken yet.
#[derive(Debug)]
pub(super) enum Rest {
    /// Some of it.
    Bytes {
        /// All of the response.
        bytes: Vec<u8>,
        /// How many of them are written.
        written: usize,
        _account: Account,
    },
    /// All is written.
    Nothing,
    /// The client has gone.
    Lost,
}

impl Rest {
    /// Writes what the socket takes now of the response: `head`, and the answer.
    pub(super) fn after_first_write(socket: &Socket, head: Vec<u8>, answer: Answer) -> Self {
        let bytes = polling::response(head, &answer.body);
        let mut rest = Self::Bytes {
            bytes,
            written: 0,
            _account: answer.account,
        };
        rest.write(socket);
        rest
    }

    /// Writes what the socket takes now; false when that was nothing.
    fn write(&mut self, socket: &Socket) -> bool {
        let Self::Bytes { bytes, written, .. } = self else {
            return false;
        };
        match socket.send(&[IoSlice::new(&bytes[*written..])]) {
            Ok(length) => *written += length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => {
                *self = Self::Lost;
                return false;
            }
        }
        if *written == bytes.len() {
            // As soon as possible: the client's next request may wait for it.
            socket.finish_sending();
            *self = Self::Nothing;
        }
        true
    }
}

/// Writes what is left, and waits until the client hangs up, if there is one of `places` for that:
/// closing on bytes that are not read would reset the connection, and the reset can overtake the
/// response. `cut` ends it where not all is written.
pub(super) async fn finish(io: &Watched, mut rest: Rest, cut: &Notify, places: &Semaphore) {
    let write = async {
        while matches!(rest, Rest::Bytes { .. }) {
            let Ok(Ok(mut guard)) = timeout(TIMEOUT, io.ready(Interest::WRITABLE)).await else {
                return;
            };
            if !rest.write(io.get_ref()) {
                guard.clear_ready();
            }
        }
    };
    tokio::select! {
        biased;
        _ = timeout(LONGEST, write) => {}
        () = cut.notified() => {}
    }
    let place = places.try_acquire();
    if matches!(rest, Rest::Nothing) && place.is_ok() {
        let _ = timeout(TIMEOUT, end_of_stream(io)).await;
    }
}

/// Waits until the client has hung up, or sends on without end. Its bytes are dropped.
pub(super) async fn end_of_stream(io: &Watched) {
    let mut left = MOST_BEHIND_REQUEST;
    while let Ok(mut guard) = io.ready(Interest::READABLE).await {
        match io.get_ref().receive(&mut Vec::new(), 4096) {
            Ok(0) => return,
            Ok(length) => match left.checked_sub(length) {
                Some(less) => left = less,
                None => return,
            },
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => guard.clear_ready(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
        consume_budget().await;
    }
}

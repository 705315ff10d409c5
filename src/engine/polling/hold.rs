//! A poll that waits for its answer.
//!
//! The answer and the socket of the request come in any order: the socket when the server gives it
//! away, the answer when there are events, in this process or, by way of [`Hold::watch`], in another.

use std::{io, os::fd::OwnedFd, sync::Arc, time::Duration};

use tokio::{io::unix::AsyncFd, runtime::Handle, sync::Notify};

use super::response::{self, Rest};
use crate::{
    engine::{
        base::{clock, sync::Mutex},
        resources::socket::Socket,
        wakeup::hub::Watch,
    },
    protocol::polling,
};

/// One poll that waits. Any thread may use it; no call waits.
#[derive(Debug, Default)]
pub struct Hold {
    stage: Mutex<Stage>,
    changed: Notify,
}

#[derive(Debug, Default)]
enum Stage {
    /// Neither answer nor socket.
    #[default]
    Empty,
    /// A watch is to be notified of the answer.
    Watched(Watch),
    /// The answer waits for the socket.
    Answered(Vec<u8>),
    /// The socket waits for the answer. The head is that of [`polling::head`]; without one, the bare
    /// answer is written.
    Attached(Arc<Socket>, Option<Vec<u8>>),
    /// The answer is on its way.
    Sent(Rest),
    /// Nothing more will come.
    Over,
}

impl Hold {
    /// Answers with `body`, once; false when it is answered already or its client has gone.
    pub fn answer(&self, body: Vec<u8>) -> bool {
        let mut stage = self.stage.lock();
        match std::mem::replace(&mut *stage, Stage::Over) {
            Stage::Empty => *stage = Stage::Answered(body),
            Stage::Watched(watch) => {
                *stage = Stage::Answered(body);
                drop(stage);
                watch.notify();
            }
            Stage::Attached(socket, head) => {
                let bytes = match head {
                    Some(head) => polling::response(head, &body),
                    None => body,
                };
                // At once, so that a process that ends need not wait for a task.
                *stage = Stage::Sent(Rest::after_first_write(&socket, bytes));
                self.changed.notify_one();
            }
            settled @ (Stage::Answered(_) | Stage::Sent(_) | Stage::Over) => {
                *stage = settled;
                return false;
            }
        }
        true
    }

    /// Notifies `watch` when there is an answer, which may be now.
    pub fn watch(&self, watch: Watch) {
        let mut stage = self.stage.lock();
        if matches!(*stage, Stage::Empty) {
            *stage = Stage::Watched(watch);
            return;
        }
        drop(stage);
        watch.notify();
    }

    /// Takes the answer, if there is one.
    pub fn take(&self) -> Option<Vec<u8>> {
        let mut stage = self.stage.lock();
        match std::mem::replace(&mut *stage, Stage::Over) {
            Stage::Answered(body) => Some(body),
            other => {
                *stage = other;
                None
            }
        }
    }

    /// Has the answer written to `client`, behind `head` if there is one, and the connection ended.
    /// After `timeout` without an answer it is `otherwise`.
    ///
    /// # Errors
    /// The system's, when the descriptor cannot be watched. It is closed then.
    pub(crate) fn attach(
        self: &Arc<Self>,
        runtime: &Handle,
        client: OwnedFd,
        head: Option<Vec<u8>>,
        timeout: Duration,
        otherwise: Vec<u8>,
    ) -> io::Result<()> {
        let socket = Arc::new(Socket::new(client)?);
        let io = {
            let _context = runtime.enter();
            socket.watch()?
        };
        let early = {
            let mut stage = self.stage.lock();
            let before = std::mem::replace(&mut *stage, Stage::Attached(socket, head));
            match before {
                Stage::Answered(body) => Some(body),
                _ => None,
            }
        };
        if let Some(body) = early {
            self.answer(body);
        }
        let hold = Arc::clone(self);
        runtime.spawn(async move { hold.serve(io, timeout, otherwise).await });
        Ok(())
    }

    /// Waits for the answer, and sees it through.
    async fn serve(&self, io: AsyncFd<Arc<Socket>>, timeout: Duration, otherwise: Vec<u8>) {
        let deadline = clock::task_now() + timeout;
        tokio::select! {
            biased;
            () = self.changed.notified() => {}
            () = response::end_of_stream(&io) => {}
            () = clock::sleep_until(deadline) => {
                self.answer(otherwise);
            }
        }
        let stage = std::mem::replace(&mut *self.stage.lock(), Stage::Over);
        if let Stage::Sent(rest) = stage {
            response::finish(&io, rest).await;
        }
    }
}

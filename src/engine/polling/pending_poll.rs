//! A poll that waits for its answer.
//!
//! The answer and the socket of the request come in any order: the socket when the server gives it
//! away, the answer when there are events, in this process or, by way of [`PendingPoll::watch`], in another.
//! When the client's next poll comes, it gives way: what has not been written is dropped.

use std::{io, sync::Arc, time::Duration};

use tokio::{
    runtime::Handle,
    sync::{Notify, Semaphore},
};

use super::response::{self, Answer, Rest};
use crate::engine::{
    base::{clock, sync::Mutex},
    resources::{
        descriptor::Owned,
        socket::Socket,
        watched::{self, Watched},
    },
    wakeup::hub::Watch,
};

/// One poll that waits. Any thread may use it; no call waits.
#[derive(Debug, Default)]
pub struct PendingPoll {
    stage: Mutex<Stage>,
    changed: Notify,
    cut: Notify,
}

#[derive(Debug, Default)]
enum Stage {
    /// Neither answer nor socket.
    #[default]
    Empty,
    /// A watch is to be notified of the answer.
    Watched(Watch),
    /// The answer waits for the socket.
    Answered(Answer),
    /// The socket waits for the answer. The head is that of `protocol::polling::head`.
    Attached(Arc<Socket>, Vec<u8>),
    /// The answer is on its way.
    Sent(Rest),
    /// Nothing more will come.
    Over,
}

impl PendingPoll {
    /// Answers with `body`, once; false when it is answered already, its client has gone, or there is
    /// no room for the answer: then the connection ends without one, and the client asks again.
    pub fn answer(&self, body: Vec<u8>) -> bool {
        let answer = Answer::new(body);
        let is_taken = answer.is_some();
        self.settle(answer) && is_taken
    }

    /// Answers; `None` is the end without an answer. False when it is answered already or its client
    /// has gone.
    pub(super) fn settle(&self, answer: Option<Answer>) -> bool {
        let mut stage = self.stage.lock();
        let next = |answer: Option<Answer>| answer.map_or(Stage::Over, Stage::Answered);
        match std::mem::replace(&mut *stage, Stage::Over) {
            Stage::Empty => *stage = next(answer),
            Stage::Watched(watch) => {
                *stage = next(answer);
                drop(stage);
                watch.notify();
            }
            Stage::Attached(socket, head) => {
                if let Some(answer) = answer {
                    // At once, so that a process that ends need not wait for a task.
                    *stage = Stage::Sent(Rest::after_first_write(&socket, head, answer));
                }
                self.changed.notify_one();
            }
            settled @ (Stage::Answered(_) | Stage::Sent(_) | Stage::Over) => {
                *stage = settled;
                return false;
            }
        }
        true
    }

    /// Ends for a later poll of the same client: with `nothing`, or, when there is an answer that the
    /// client has not taken, without the rest of it.
    pub fn give_way(&self, nothing: Vec<u8>) {
        if self.answer(nothing) {
            return;
        }
        let mut stage = self.stage.lock();
        if matches!(*stage, Stage::Answered(_)) {
            *stage = Stage::Over;
        }
        drop(stage);
        self.cut();
    }

    /// Drops what the client has not taken of an answer that is under way.
    pub(super) fn cut(&self) {
        let mut stage = self.stage.lock();
        if matches!(*stage, Stage::Sent(Rest::Bytes { .. })) {
            *stage = Stage::Over;
        }
        drop(stage);
        self.cut.notify_one();
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
            Stage::Answered(answer) => Some(answer.body),
            other => {
                *stage = other;
                None
            }
        }
    }

    /// Has the answer written to `client`, after `head`, and the connection ended.
    /// After `timeout` without an answer, and when it has given way, it is `otherwise`. The client is
    /// waited for until it hangs up, if there is one of `places` for that.
    ///
    /// # Errors
    /// The system's, when the descriptor cannot be watched. It is closed then.
    pub(crate) fn attach(
        self: &Arc<Self>,
        runtime: &Handle,
        places: &Arc<Semaphore>,
        client: Owned,
        head: Vec<u8>,
        timeout: Duration,
        otherwise: Vec<u8>,
    ) -> io::Result<()> {
        let socket = Arc::new(Socket::new(client)?);
        let io = {
            let _context = runtime.enter();
            watched::watch(&socket)?
        };
        let mut stage = self.stage.lock();
        match std::mem::replace(&mut *stage, Stage::Attached(socket, head)) {
            Stage::Answered(answer) => {
                drop(stage);
                self.settle(Some(answer));
            }
            Stage::Over => {
                drop(stage);
                self.answer(otherwise.clone());
            }
            _ => drop(stage),
        }
        let (pending, places) = (Arc::clone(self), Arc::clone(places));
        runtime.spawn(async move { pending.serve(io, timeout, otherwise, &places).await });
        Ok(())
    }

    /// Waits for the answer, and sees it through.
    async fn serve(&self, io: Watched, timeout: Duration, otherwise: Vec<u8>, places: &Semaphore) {
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
            response::finish(&io, rest, &self.cut, places).await;
        }
    }
}

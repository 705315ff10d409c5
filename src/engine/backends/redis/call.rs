//! A call to the server that is under way, and the caller that waits for its outcome.

use std::{
    future::poll_fn,
    sync::{Arc, Weak},
    task::{Poll, Waker},
    time::Instant,
};

use crate::engine::{
    base::sync::{Condvar, Mutex},
    history::Page,
    wakeup::hub::{Hub, Watch},
};

/// Why a call has failed, for the text of an exception.
pub type Reason = Arc<str>;

/// What the server has replied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// A number, whose meaning is the call's.
    Number(u64),
    /// Messages that are kept.
    Page(Arc<Page>),
}

/// The outcome of a call: a reply, or the reason why there is none.
pub type Outcome = Result<Reply, Reason>;

/// A call that is under way. Any thread may wait for it, or an event loop.
#[derive(Debug, Default)]
pub struct Call {
    state: Mutex<State>,
    is_done: Condvar,
}

#[derive(Debug, Default)]
struct State {
    outcome: Option<Outcome>,
    /// At most one event loop waits for it.
    watch: Option<Watch>,
    /// Or one task of the engine.
    task: Option<Waker>,
}

impl Call {
    /// A call, and the duty to finish it.
    pub(super) fn new() -> (Arc<Self>, Ticket) {
        let call = Arc::<Self>::default();
        let ticket = Ticket(Arc::downgrade(&call));
        (call, ticket)
    }

    /// A call that has an outcome already.
    pub(super) fn finished(outcome: Outcome) -> Arc<Self> {
        let call = Self::default();
        call.finish(outcome);
        Arc::new(call)
    }

    /// The outcome, if there is one yet.
    pub fn outcome(&self) -> Option<Outcome> {
        self.state.lock().outcome.clone()
    }

    /// Sleeps until there is an outcome, until `deadline` at most.
    pub fn wait(&self, deadline: Option<Instant>) -> Option<Outcome> {
        let mut state = self.state.lock();
        loop {
            if state.outcome.is_some() {
                return state.outcome.clone();
            }
            let in_time;
            (state, in_time) = self.is_done.wait(state, deadline);
            if !in_time {
                return state.outcome.clone();
            }
        }
    }

    /// Adds `token` to the list of `hub` as soon as there is an outcome, which may be now.
    pub fn watch(&self, hub: Arc<Hub>, token: u64) {
        let watch = Watch::new(hub, token);
        let mut state = self.state.lock();
        if state.outcome.is_none() {
            state.watch = Some(watch);
        } else {
            drop(state);
            watch.notify();
        }
    }

    /// Takes [`Call::watch`] back.
    pub fn unwatch(&self, hub: &Arc<Hub>, token: u64) {
        let mut state = self.state.lock();
        if state.watch.as_ref().is_some_and(|it| it.is(hub, token)) {
            state.watch = None;
        }
    }

    /// Lets a task of the engine sleep until there is an outcome.
    pub(super) async fn done(&self) -> Outcome {
        poll_fn(|context| {
            let mut state = self.state.lock();
            if let Some(outcome) = &state.outcome {
                return Poll::Ready(outcome.clone());
            }
            state.task = Some(context.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// Sets the outcome; a later one is ignored.
    fn finish(&self, outcome: Outcome) {
        let mut state = self.state.lock();
        if state.outcome.is_some() {
            return;
        }
        state.outcome = Some(outcome);
        let (watch, task) = (state.watch.take(), state.task.take());
        drop(state);
        self.is_done.notify_all();
        if let Some(task) = task {
            task.wake();
        }
        if let Some(watch) = watch {
            watch.notify();
        }
    }
}

/// The duty to finish a call. Dropped before that, it says that the connection has ended.
#[derive(Debug)]
pub(super) struct Ticket(Weak<Call>);

impl Ticket {
    /// Whether a caller still waits for it.
    pub(super) fn is_awaited(&self) -> bool {
        self.0.strong_count() > 0
    }

    /// Gives the call its outcome.
    pub(super) fn finish(self, outcome: Outcome) {
        self.set(outcome);
    }

    fn set(&self, outcome: Outcome) {
        if let Some(call) = self.0.upgrade() {
            call.finish(outcome);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        // Has no effect on a call that is finished.
        if self.is_awaited() {
            self.set(Err("the connection ended before the reply".into()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        thread,
        time::{Duration, Instant},
    };

    use super::*;

    #[test]
    fn a_thread_sleeps_until_the_outcome_or_its_deadline() {
        let (call, ticket) = Call::new();
        let now = Instant::now();
        assert_eq!(call.wait(Some(now + Duration::from_millis(1))), None);
        let waiter = thread::spawn({
            let call = Arc::clone(&call);
            move || call.wait(None)
        });
        ticket.finish(Ok(Reply::Number(7)));
        assert_eq!(waiter.join().unwrap(), Some(Ok(Reply::Number(7))));
        assert_eq!(call.outcome(), Some(Ok(Reply::Number(7))));
    }

    #[test]
    fn a_hub_is_told_once_also_when_the_outcome_came_before() {
        let hub = Hub::new().unwrap();
        let (call, ticket) = Call::new();
        call.watch(Arc::clone(&hub), 1);
        call.unwatch(&hub, 1);
        call.watch(Arc::clone(&hub), 2);
        ticket.finish(Ok(Reply::Number(0)));
        assert_eq!(hub.drain(), [2]);
        call.watch(Arc::clone(&hub), 3);
        assert_eq!(hub.drain(), [3]);
    }

    #[test]
    fn a_dropped_ticket_is_an_outcome() {
        let (call, ticket) = Call::new();
        drop(ticket);
        assert!(call.outcome().unwrap().unwrap_err().contains("ended"));
    }
}

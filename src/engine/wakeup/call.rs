//! A call that is under way, and the caller that waits for its outcome.

use std::{
    future::poll_fn,
    sync::{Arc, Weak},
    task::{Poll, Waker},
    time::Instant,
};

use super::hub::{Hub, Watch};
use crate::engine::base::sync::{Condvar, Mutex};

/// A call that is under way. Any thread may wait for its outcome, or an event loop.
#[derive(Debug)]
pub struct Call<T> {
    state: Mutex<State<T>>,
    is_done: Condvar,
}

#[derive(Debug)]
struct State<T> {
    outcome: Option<T>,
    /// At most one event loop waits for it.
    watch: Option<Watch>,
    /// Or one task of the engine.
    task: Option<Waker>,
}

/// A wait for something that has no more to tell than that it may have come.
pub type Wait = Call<()>;

impl<T: Clone> Call<T> {
    /// A call, and the duty to finish it. `lost` gives the outcome of one that is never finished.
    pub(crate) fn new(lost: fn() -> T) -> (Arc<Self>, Ticket<T>) {
        let call = Arc::new(Self::with(None));
        let ticket = Ticket {
            call: Arc::downgrade(&call),
            lost,
        };
        (call, ticket)
    }

    /// A call that has an outcome already.
    pub(crate) fn finished(outcome: T) -> Arc<Self> {
        Arc::new(Self::with(Some(outcome)))
    }

    fn with(outcome: Option<T>) -> Self {
        Self {
            state: Mutex::new(State {
                outcome,
                watch: None,
                task: None,
            }),
            is_done: Condvar::default(),
        }
    }

    /// The outcome, if there is one yet.
    pub fn outcome(&self) -> Option<T> {
        self.state.lock().outcome.clone()
    }

    /// Sleeps until there is an outcome, until `deadline` at most.
    pub fn wait(&self, deadline: Option<Instant>) -> Option<T> {
        let is_open = |state: &State<T>| state.outcome.is_none();
        let state = (self.is_done).wait_while(self.state.lock(), deadline, is_open);
        state.outcome.clone()
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
    pub(crate) async fn done(&self) -> T {
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
    pub(crate) fn finish(&self, outcome: T) {
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

/// The duty to finish a call. Dropped before that, it gives the call the outcome of a lost one.
#[derive(Debug)]
pub(crate) struct Ticket<T: Clone> {
    call: Weak<Call<T>>,
    lost: fn() -> T,
}

impl<T: Clone> Ticket<T> {
    /// Whether a caller still waits for it.
    pub(crate) fn is_awaited(&self) -> bool {
        self.call.strong_count() > 0
    }

    /// Returns the call its outcome.
    pub(crate) fn finish(self, outcome: T) {
        if let Some(call) = self.call.upgrade() {
            call.finish(outcome);
        }
    }
}

impl<T: Clone> Drop for Ticket<T> {
    fn drop(&mut self) {
        // Has no effect on a call that is finished.
        if let Some(call) = self.call.upgrade() {
            call.finish((self.lost)());
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
        let (call, ticket) = Call::new(|| 0);
        let now = Instant::now();
        assert_eq!(call.wait(Some(now + Duration::from_millis(1))), None);
        let waiter = thread::spawn({
            let call = Arc::clone(&call);
            move || call.wait(None)
        });
        ticket.finish(7);
        assert_eq!(waiter.join().unwrap(), Some(7));
        assert_eq!(call.outcome(), Some(7));
    }

    #[test]
    fn a_hub_is_told_once_also_when_the_outcome_came_before() {
        let hub = Hub::new().unwrap();
        let (call, ticket) = Call::new(|| 0);
        call.watch(Arc::clone(&hub), 1);
        call.unwatch(&hub, 1);
        call.watch(Arc::clone(&hub), 2);
        ticket.finish(0);
        assert_eq!(hub.drain(), [2]);
        call.watch(Arc::clone(&hub), 3);
        assert_eq!(hub.drain(), [3]);
    }

    #[test]
    fn a_dropped_ticket_is_an_outcome() {
        let (call, ticket) = Call::new(|| 0);
        drop(ticket);
        assert_eq!(call.outcome(), Some(0));
    }
}

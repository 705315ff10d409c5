//! Threads that share the work of one hub: each takes one connection's token at a time.
//!
//! Few threads are awake: quick calls are made fastest by one thread, as there is one GIL. While a
//! thread is awake no other one is woken for new tokens, because the first will soon ask for more.
//! One more thread, the *helper*, watches over that: when no token was taken for a while although
//! some wait, the threads that are awake count as held up by long calls, and the helper goes to work
//! itself. From then on the next token wakes a thread at once.

use std::time::{Duration, Instant};

use super::fair_queue::FairQueue;
use crate::engine::base::{
    clock,
    sync::{Condvar, Mutex, MutexGuard},
};

/// How long tokens may wait without one being taken.
const MAX_WAIT: Duration = Duration::from_millis(2);

/// The work of a thread of the pool.
#[derive(Debug)]
pub struct Work {
    /// The token of a connection.
    pub token: u64,
    /// To be passed back with the thread's next call.
    pub round: u64,
    /// No thread watches over this one: another one may be started.
    pub lacks_helper: bool,
}

/// The end of a sleep of a thread of the pool.
#[derive(Debug)]
pub enum Next {
    /// There is something to do.
    Work(Work),
    /// There was nothing in time. The thread may come back.
    TimeIsUp,
    /// The pool is closed.
    Closed,
}

/// The threads of one hub. Any thread may use it.
#[derive(Debug, Default)]
pub(super) struct HandlerPool {
    state: Mutex<State>,
    workers: Condvar,
    helper: Condvar,
}

#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "they change independently")]
struct State {
    queue: FairQueue,
    /// The hub has tokens that are not in `queue` yet.
    is_woken: bool,
    is_closed: bool,
    /// Threads at work that are not held up, as far as known.
    awake: usize,
    /// Threads asleep, without the helper.
    asleep: usize,
    has_helper: bool,
    /// The helper sleeps for a limited time, so it need not be woken.
    helper_looks: bool,
    /// Grows whenever the threads that are awake turn out to be held up.
    round: u64,
    taken: u64,
}

impl State {
    fn has_work(&self) -> bool {
        self.is_woken || !self.queue.is_empty()
    }
}

impl HandlerPool {
    /// Wakes a thread for new tokens of the hub, or has the helper see to it that one comes.
    pub(super) fn wake(&self) {
        let mut state = self.state.lock();
        state.is_woken = true;
        let wakes_worker = state.awake == 0 && state.asleep > 0;
        let wakes_helper = !wakes_worker && state.has_helper && !state.helper_looks;
        drop(state);
        if wakes_worker {
            self.workers.notify_one();
        } else if wakes_helper {
            self.helper.notify_one();
        }
    }

    /// Ends the threads: [`HandlerPool::next`] gives them nothing any more.
    pub(super) fn close(&self) {
        self.state.lock().is_closed = true;
        self.workers.notify_all();
        self.helper.notify_all();
    }

    /// Notes that a thread is done with what it was given in `round`; `None` if it is new.
    pub(super) fn done(&self, round: Option<u64>) {
        let mut state = self.state.lock();
        if round == Some(state.round) {
            state.awake -= 1;
        }
    }

    /// Takes the next token without sleeping. `drain` gives the tokens of the hub.
    pub(super) fn take(&self, drain: impl FnOnce() -> Vec<u64>) -> Option<Work> {
        // In a statement of its own, which releases the lock.
        let work = Self::take_from(&mut self.state.lock(), drain);
        work.map(|work| self.see_to_helper(work))
    }

    /// As [`HandlerPool::take`], but sleeps until there is one, or until `deadline`.
    pub(super) fn next(&self, deadline: Option<Instant>, drain: impl Fn() -> Vec<u64>) -> Next {
        let mut state = self.state.lock();
        loop {
            if state.is_closed {
                return Next::Closed;
            }
            if let Some(work) = Self::take_from(&mut state, &drain) {
                drop(state);
                return Next::Work(self.see_to_helper(work));
            }
            if is_over(deadline) {
                // It may have been the helper: another one sleeps as such.
                drop(state);
                self.workers.notify_one();
                return Next::TimeIsUp;
            }
            state = if state.has_helper {
                state.asleep += 1;
                let (mut state, _) = self.workers.wait(state, deadline);
                state.asleep -= 1;
                state
            } else {
                self.help(state, deadline)
            };
        }
    }

    fn take_from(state: &mut State, drain: impl FnOnce() -> Vec<u64>) -> Option<Work> {
        // Also while others wait: the new ones may be those of another lane.
        if std::mem::take(&mut state.is_woken) {
            state.queue.extend(drain());
        }
        let token = state.queue.pop()?;
        state.taken += 1;
        state.awake += 1;
        Some(Work {
            token,
            round: state.round,
            lacks_helper: !state.has_helper,
        })
    }

    /// A thread that goes to work leaves one behind that watches over it, if there is one.
    fn see_to_helper(&self, work: Work) -> Work {
        if work.lacks_helper && self.workers.notify_one() {
            return Work {
                lacks_helper: false,
                ..work
            };
        }
        if !work.lacks_helper {
            let state = self.state.lock();
            let wakes_helper = state.has_work() && state.has_helper && !state.helper_looks;
            drop(state);
            if wakes_helper {
                self.helper.notify_one();
            }
        }
        work
    }

    /// Sleeps as the helper until there is work that no other thread takes in time, or until
    /// `deadline`.
    fn help<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        deadline: Option<Instant>,
    ) -> MutexGuard<'a, State> {
        state.has_helper = true;
        while !state.is_closed && !is_over(deadline) {
            if !state.has_work() {
                (state, _) = self.helper.wait(state, deadline);
            } else if state.awake == 0 {
                break;
            } else {
                let taken = state.taken;
                state.helper_looks = true;
                (state, _) = self.helper.wait(state, clock::now().checked_add(MAX_WAIT));
                state.helper_looks = false;
                if state.has_work() && state.taken == taken {
                    state.round += 1;
                    state.awake = 0;
                }
            }
        }
        state.has_helper = false;
        state
    }
}

fn is_over(deadline: Option<Instant>) -> bool {
    deadline.is_some_and(|deadline| deadline <= clock::now())
}

#[cfg(test)]
impl HandlerPool {
    /// Whether a token waits for a thread.
    pub(super) fn waits(&self) -> bool {
        self.state.lock().has_work()
    }

    /// Whether a thread sleeps as the helper.
    pub(super) fn has_helper(&self) -> bool {
        self.state.lock().has_helper
    }
}

//! Waking the views on an event loop when their connections have something for them.
//!
//! A thread sleeps on a condition variable. Event loops cannot: each watches one descriptor for all
//! its connections ([`Hub`]). A [`Watch`] adds a connection to the hub's list of ready ones, so
//! many messages cost one wake-up.

use std::{
    fmt,
    io::{self, Read, Write},
    ptr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use smallvec::SmallVec;

use super::handler_pool::{HandlerPool, Next, Work};
use crate::engine::{
    base::{clock, fork, sync::Mutex},
    resources::descriptor::{self, Raw, Stream},
};

/// Receives a call when an event loop has run all views on its list.
pub(crate) trait Observer: fmt::Debug + Send + Sync {
    /// The loop of `hub` has served all that was on its list.
    fn on_served(&self, hub: &Hub);
}

/// One event loop's list of ready connections, and the descriptor that wakes the loop for them.
///
/// Any thread may add to it; only the loop drains it.
#[derive(Debug)]
pub struct Hub {
    ready: Mutex<Ready>,
    read_end: Stream,
    write_end: Stream,
    generation: u64,
    /// Counts the watches that were made: a task that makes one is about to yield to the loop.
    steps: AtomicU64,
    /// The threads that wait for it in place of an event loop.
    pool: Option<Box<HandlerPool>>,
}

#[derive(Debug, Default)]
struct Ready {
    tokens: Vec<u64>,
    is_woken: bool,
    /// To be notified when the loop has served all that was on the list: one for each thread of the
    /// engine that has woken the loop since.
    observers: SmallVec<[Arc<dyn Observer>; 1]>,
}

impl Hub {
    /// Opens the hub's descriptor.
    ///
    /// # Errors
    /// The system's error when it has no descriptor left.
    pub fn new() -> io::Result<Arc<Self>> {
        Self::open(None)
    }

    /// A hub for threads, which take its tokens by [`Hub::next`].
    ///
    /// # Errors
    /// As [`Hub::new`].
    pub fn for_threads() -> io::Result<Arc<Self>> {
        Self::open(Some(Box::default()))
    }

    fn open(pool: Option<Box<HandlerPool>>) -> io::Result<Arc<Self>> {
        let (read_end, write_end) = descriptor::pair()?;
        Ok(Arc::new(Self {
            ready: Mutex::default(),
            read_end,
            write_end,
            generation: fork::generation(),
            steps: AtomicU64::new(0),
            pool,
        }))
    }

    /// The descriptor that becomes readable when [`Hub::drain`] has something to give.
    pub fn descriptor(&self) -> Raw {
        descriptor::raw(&self.read_end)
    }

    /// Takes the tokens of all connections that became ready, in order.
    pub fn drain(&self) -> Vec<u64> {
        let mut bytes = [0; 64];
        // Empty the descriptor before taking the list: a later token makes it readable again.
        while self.pool.is_none()
            && matches!((&self.read_end).read(&mut bytes), Ok(n) if n == bytes.len())
        {}
        let mut ready = self.ready.lock();
        ready.is_woken = false;
        std::mem::take(&mut ready.tokens)
    }

    /// Notes that all views on the list of [`Hub::drain`] have had a turn.
    ///
    /// A view may have forked. In the child this does nothing: a thread that exists in the parent
    /// only may hold a lock of the engine.
    pub fn served(&self) {
        if self.generation != fork::generation() {
            return;
        }
        let observers = std::mem::take(&mut self.ready.lock().observers);
        for observer in observers {
            observer.on_served(self);
        }
    }

    /// A number that grows while the loop's views come back to it.
    pub(crate) fn steps(&self) -> u64 {
        self.steps.load(Ordering::Relaxed)
    }

    /// Adds `token` to the list, as a [`Watch`] does for a connection.
    pub fn announce(&self, token: u64) {
        let mut ready = self.ready.lock();
        ready.tokens.push(token);
        let first = !std::mem::replace(&mut ready.is_woken, true);
        drop(ready);
        if first {
            self.wake();
        }
    }

    /// Notes that a thread is done with the token that it got in `round`; `None` if it is new.
    /// Takes the next token without sleeping, if there is one.
    pub fn take(&self, round: Option<u64>) -> Option<Work> {
        let pool = self.pool.as_deref()?;
        pool.done(round);
        let work = pool.take(|| self.drain());
        if work.is_none() {
            self.served();
        }
        work
    }

    /// Sleeps until there is a token for this thread, for `timeout` at most.
    pub fn next(&self, timeout: Option<Duration>) -> Next {
        // The sum is `None` where the clock has no such moment: that is for ever.
        let deadline = timeout.and_then(|timeout| clock::now().checked_add(timeout));
        match self.pool.as_deref() {
            Some(pool) => pool.next(deadline, || self.drain()),
            None => Next::Closed,
        }
    }

    /// Ends the threads that wait by [`Hub::next`].
    pub fn close(&self) {
        if let Some(pool) = &self.pool {
            pool.close();
        }
    }

    fn wake(&self) {
        if let Some(pool) = &self.pool {
            pool.wake();
            return;
        }
        // A full socket is readable already; a closed one belongs to a loop that is gone.
        let _ = (&self.write_end).write(&[1]);
    }

    /// As [`Hub::announce`], but without waking the loop. True when the caller has to see to that;
    /// false when the loop has been woken, or will be.
    fn add_silently(&self, token: u64) -> bool {
        let mut ready = self.ready.lock();
        ready.tokens.push(token);
        ready.tokens.len() == 1 && !ready.is_woken
    }

    /// Wakes the loop for the tokens that were noted, unless it has been woken already. True when
    /// [`Hub::served`] will notify `observer` because of this call.
    pub(crate) fn wake_if_needed(&self, observer: &Arc<impl Observer + 'static>) -> bool {
        let mut ready = self.ready.lock();
        if ready.tokens.is_empty() || ready.is_woken {
            return false;
        }
        ready.is_woken = true;
        let is_same =
            |other: &Arc<dyn Observer>| ptr::addr_eq(Arc::as_ptr(other), Arc::as_ptr(observer));
        let first = !ready.observers.iter().any(is_same);
        if first {
            ready
                .observers
                .push(Arc::clone(observer) as Arc<dyn Observer>);
        }
        drop(ready);
        self.wake();
        first
    }
}

/// A request for one notification through a [`Hub`].
#[derive(Debug)]
pub struct Watch {
    hub: Arc<Hub>,
    token: u64,
}

/// The watches of one connection: mostly one, which then needs no memory of its own.
pub(crate) type Watches = SmallVec<[Watch; 1]>;

impl Watch {
    /// A request to find `token` on the list of `hub`.
    pub fn new(hub: Arc<Hub>, token: u64) -> Self {
        hub.steps.fetch_add(1, Ordering::Relaxed);
        Self { hub, token }
    }

    /// Whether this is the request to find `token` on the list of `hub`.
    pub(crate) fn is(&self, hub: &Arc<Hub>, token: u64) -> bool {
        self.token == token && Arc::ptr_eq(&self.hub, hub)
    }

    /// Adds the token to the hub's list, and wakes the loop if needed.
    pub(crate) fn notify(self) {
        self.hub.announce(self.token);
    }

    /// As [`Watch::notify`], but without waking the loop. Returns the hub if the caller has to wake
    /// it.
    pub(crate) fn note(self) -> Option<Arc<Hub>> {
        self.hub.add_silently(self.token).then_some(self.hub)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn one_thread_takes_the_tokens_in_order_and_another_one_when_it_is_held_up() {
        let hub = Hub::for_threads().unwrap();
        hub.announce(1);
        hub.announce(2);
        let first = hub.take(None).unwrap();
        assert_eq!((first.token, first.lacks_helper), (1, true));
        // This thread is held up by the first one: the second thread helps.
        let other = {
            let hub = Arc::clone(&hub);
            thread::spawn(move || (token_of(hub.next(None)), token_of(hub.next(None))))
        };
        while hub.pool.as_ref().unwrap().waits() {
            thread::yield_now();
        }
        // A token wakes a thread at once, as this one is known to be held up.
        hub.announce(3);
        while hub.pool.as_ref().unwrap().waits() {
            thread::yield_now();
        }
        assert!(hub.take(Some(first.round)).is_none());
        assert_eq!(other.join().unwrap(), (2, 3));
        hub.close();
        assert!(matches!(hub.next(None), Next::Closed));
    }

    #[test]
    fn a_thread_that_sleeps_for_a_time_leaves_its_place_as_the_helper_to_another_one() {
        let hub = Hub::for_threads().unwrap();
        let sleep = |timeout| {
            let hub = Arc::clone(&hub);
            thread::spawn(move || hub.next(timeout))
        };
        let brief = sleep(Some(Duration::from_millis(50)));
        let pool = hub.pool.as_ref().unwrap();
        while !pool.has_helper() {
            thread::yield_now();
        }
        let other = sleep(None);
        assert!(matches!(brief.join().unwrap(), Next::TimeIsUp));
        while !pool.has_helper() {
            thread::yield_now();
        }
        hub.announce(1);
        assert_eq!(token_of(other.join().unwrap()), 1);
    }

    fn token_of(next: Next) -> u64 {
        match next {
            Next::Work(work) => work.token,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_hub_wakes_its_loop_once_for_many_and_again_after_it_was_drained() {
        let hub = Hub::new().unwrap();
        let mut byte = [0; 8];
        for token in 1..=3 {
            Watch::new(Arc::clone(&hub), token).notify();
        }
        assert_eq!(hub.drain(), [1, 2, 3]);
        assert!((&hub.read_end).read(&mut byte).is_err());
        Watch::new(Arc::clone(&hub), 4).notify();
        assert_eq!((&hub.read_end).read(&mut byte).unwrap(), 1);
        assert_eq!(hub.drain(), [4]);
    }
}

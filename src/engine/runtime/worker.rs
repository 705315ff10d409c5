//! One thread of the engine: a tokio runtime, and what the connections that it drives share.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use tokio::{
    runtime::{Builder, Handle, Runtime},
    sync::{Notify, Semaphore},
};

use crate::{
    engine::{
        base::{
            error::Error,
            panics::{contain, refused},
            signal_mask::Blocked,
        },
        connection::{Connection, moving::Incoming, registry::Registration, settings::Settings},
        driver::{Driver, Io},
        resources::{descriptor, permits::Permit},
        wakeup::turns::Turns,
    },
    protocol::deflate::Codecs,
};

/// How many threads do work that blocks at once; further work waits.
const MOST_BLOCKING_THREADS: usize = 8;
/// How many of them look up names at once. A lookup goes on after its caller has given up, and may
/// last while a name server is silent: groups need threads meanwhile.
const MOST_LOOKUPS: usize = MOST_BLOCKING_THREADS / 2;
const NO_BLOCKING_THREAD: &str = "cannot start a thread for work that blocks";

/// A thread that drives connections until it is stopped.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) handle: Handle,
    pub(crate) turns: Arc<Turns>,
    pub(crate) codecs: Codecs,
    stop: Arc<Notify>,
    has_failed: Arc<AtomicBool>,
    /// Whether it has a thread for work that blocks.
    has_blocking_thread: AtomicBool,
    lookups: Arc<Semaphore>,
}

impl Worker {
    /// Starts one.
    ///
    /// # Errors
    /// [`Error::Io`] when the system gives no thread or no descriptor.
    pub(crate) fn start() -> Result<Self, Error> {
        let turns = Arc::<Turns>::default();
        let runtime =
            start_runtime(&turns).map_err(Error::io("cannot start the engine's runtime"))?;
        let handle = runtime.handle().clone();
        turns.flush_timer.run_on(handle.clone());
        let stop = Arc::new(Notify::new());
        let stopped = Arc::clone(&stop);
        let has_failed = Arc::new(AtomicBool::new(false));
        let failed = Arc::clone(&has_failed);
        // The new thread inherits the blocked signals, so it has them blocked from its first moment
        // on.
        let _signals = Blocked::here();
        thread::Builder::new()
            .name("dwebsocket".to_owned())
            .spawn(move || {
                // Tokio catches panics of its tasks, and `on_thread_park` contains those between
                // them.
                if contain(|| runtime.block_on(stopped.notified())).is_none() {
                    // Before the runtime is dropped: a connection that comes now is refused, and
                    // none is left waiting in there.
                    failed.store(true, Ordering::SeqCst);
                }
                drop(runtime);
            })
            .map_err(Error::io("cannot start the engine's thread"))?;
        Ok(Self {
            turns,
            codecs: Codecs::default(),
            handle,
            stop,
            has_failed,
            has_blocking_thread: AtomicBool::new(false),
            lookups: Arc::new(Semaphore::new(MOST_LOOKUPS)),
        })
    }

    /// Drives a connection from now on. `incoming` was received before this.
    pub(crate) fn drive(
        &self,
        io: Io,
        connection: &Arc<Connection>,
        incoming: impl Into<Incoming>,
        settings: &Settings,
        registration: Registration,
        permit: impl Into<Arc<Permit>>,
    ) {
        let connection = Arc::clone(connection);
        let codecs = &self.codecs;
        let driver = Driver::new(connection, incoming, settings, codecs, registration, permit);
        self.handle.spawn(Box::new(driver).run(io));
    }

    /// Whether it drives the connections that it is given: false after a failure that ended it.
    pub(crate) fn is_running(&self) -> bool {
        !self.has_failed.load(Ordering::SeqCst)
    }

    /// Set once it does not any more.
    pub(crate) fn failure(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.has_failed)
    }

    /// Starts a thread for work that blocks, if there is none. It stays as long as this one.
    ///
    /// A name that has to be looked up and a message that is slow to compress need such a thread.
    /// Where the system gives none, tokio panics in the task that asks for it; where there is one
    /// already, the work waits for that.
    ///
    /// # Errors
    /// [`Error::Io`] when the system gives no thread.
    pub(crate) fn keep_blocking_thread(&self) -> Result<(), Error> {
        if self.has_blocking_thread.load(Ordering::Acquire) {
            return Ok(());
        }
        // As with the engine's own thread.
        let _signals = Blocked::here();
        refused(|| drop(self.handle.spawn_blocking(|| ())))
            .map_err(Error::io(NO_BLOCKING_THREAD))?;
        self.has_blocking_thread.store(true, Ordering::Release);
        Ok(())
    }

    /// The outcome of `lookup`, which may block.
    ///
    /// # Errors
    /// Those of `lookup`, and one when the thread has ended.
    ///
    /// # Cancel safety
    /// The lookup itself ends in its own time, and counts until then.
    pub(crate) async fn look_up<T: Send + 'static>(
        &self,
        lookup: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let lookups = Arc::clone(&self.lookups);
        let permit = lookups.acquire_owned().await.map_err(io::Error::other)?;
        let running = self.handle.spawn_blocking(move || {
            let outcome = lookup();
            drop(permit);
            outcome
        });
        running.await?
    }

    /// Makes it one that has failed.
    #[cfg(test)]
    pub(crate) fn fail(&self) {
        self.has_failed.store(true, Ordering::SeqCst);
    }

    /// Ends the thread, with all that it still drives.
    pub(crate) fn stop(&self) {
        self.stop.notify_one();
    }
}

/// A runtime whose thread lets the views of `turns` run before it sleeps.
fn start_runtime(turns: &Arc<Turns>) -> io::Result<Runtime> {
    // Weak: the flush timer of the turns holds the runtime's handle, and that holds this closure.
    let runner = Arc::downgrade(turns);
    // Tokio panics when there are no descriptors for its signal handling, and keeps those that it has
    // got by then. So see first whether as many as it will ask for are there.
    let spare: [io::Result<_>; 3] = std::array::from_fn(|_| descriptor::pair());
    for pair in spare {
        pair?;
    }
    // Other threads may take them meanwhile.
    refused(|| {
        Builder::new_current_thread()
            .enable_io()
            .enable_time()
            // See `Worker::keep_blocking_thread`.
            .thread_keep_alive(Duration::MAX)
            .max_blocking_threads(MOST_BLOCKING_THREADS)
            .on_thread_park(move || {
                if let Some(turns) = runner.upgrade() {
                    // A panic here would end the thread.
                    contain(|| turns.run(&Handle::current()));
                }
            })
            .build()
    })?
}

#[cfg(test)]
mod tests {
    use std::{
        sync::mpsc::channel,
        time::{Duration, Instant},
    };

    use parking_lot::Mutex;
    use tokio::time::timeout;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    #[test]
    fn a_turn_that_panics_does_not_end_the_thread() {
        let worker = Worker::start().unwrap();
        for _ in 0..3 {
            worker.turns.let_run_panic();
            let deadline = Instant::now() + LIMIT;
            while worker.turns.run_will_panic() {
                // It parks again and again.
                worker.handle.spawn(async {});
                assert!(Instant::now() < deadline);
                thread::yield_now();
            }
            let (tell, told) = channel();
            worker.handle.spawn(async move { tell.send(()) });
            told.recv_timeout(LIMIT).unwrap();
            assert!(worker.is_running());
        }
        worker.stop();
    }

    #[tokio::test]
    async fn lookups_that_last_leave_threads_for_other_work() {
        let worker = Worker::start().unwrap();
        let (answer, silence) = channel::<()>();
        let silence = Arc::new(Mutex::new(silence));
        for _ in 0..2 * MOST_BLOCKING_THREADS {
            let silence = Arc::clone(&silence);
            let lookup = worker.look_up(move || Ok(silence.lock().recv().is_ok()));
            let given_up = timeout(Duration::from_millis(20), lookup).await;
            assert!(given_up.is_err());
        }
        let other = worker.handle.spawn_blocking(|| 7);
        assert_eq!(timeout(LIMIT, other).await.unwrap().unwrap(), 7);
        // The lookups that have begun end, and further ones go on.
        drop(answer);
        let found = timeout(LIMIT, worker.look_up(|| Ok(8))).await;
        assert_eq!(found.unwrap().unwrap(), 8);
        worker.stop();
    }
}

//! Replies that were held back, and the timer that limits how long they wait.
//!
//! While more messages wait for a view, its small replies may wait for each other, so that a burst
//! is answered by one write ([`Connection::hold`](crate::engine::Connection::hold)). They leave with the
//! last reply, or as soon as the view asks for a message that is not there. A view may do neither,
//! because it goes on computing or waits for something else. So the flush timer sends what is held
//! about every millisecond, for as long as there is anything to be held.
//!
//! A view that sends to others' clients, as a chat does, holds that back likewise.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

#[cfg(test)]
use std::sync::LazyLock;

use parking_lot::Mutex;
#[cfg(test)]
use tokio::runtime::{Builder, Runtime};
use tokio::{runtime::Handle, time::sleep};

use super::View;

/// How long a reply may be held back, within the precision of the timer.
const ROUND: Duration = Duration::from_millis(1);
/// Rounds with nothing to do before the flush timer's task ends: starting it costs a wake-up.
const IDLE_ROUNDS: u32 = 5;

/// What is held back in one engine. Any thread may add to it.
#[derive(Debug)]
pub(crate) struct FlushTimer<V> {
    runtime: Handle,
    /// A view holds back messages for another view's client.
    has_work: AtomicBool,
    state: Mutex<State<V>>,
}

#[derive(Debug)]
struct State<V> {
    holding: Vec<Arc<V>>,
    on_round: bool,
}

impl<V> Default for State<V> {
    fn default() -> Self {
        Self {
            holding: Vec::new(),
            on_round: false,
        }
    }
}

impl<V: View> FlushTimer<V> {
    /// A flush timer whose rounds run on `runtime`.
    pub(crate) fn new(runtime: Handle) -> Arc<Self> {
        Arc::new(Self {
            runtime,
            has_work: AtomicBool::new(false),
            state: Mutex::default(),
        })
    }

    /// Sees to it that what `connection` holds goes out soon. `is_own` when its own view holds it.
    pub(crate) fn expect(self: &Arc<Self>, connection: Arc<V>, is_own: bool) {
        let mut state = self.state.lock();
        state.holding.push(connection);
        if !is_own {
            self.has_work.store(true, Ordering::Relaxed);
        }
        let starts = !std::mem::replace(&mut state.on_round, true);
        drop(state);
        if starts {
            self.runtime.spawn(Arc::clone(self).walk());
        }
    }

    /// Whether [`FlushTimer::flush`] has something to do.
    pub(crate) fn has_work(&self) -> bool {
        self.has_work.load(Ordering::Relaxed)
    }

    /// Sends at once what views hold back for others' clients.
    pub(crate) fn flush(&self) {
        if self.has_work() {
            let holding = self.collect(&mut self.state.lock());
            for connection in holding {
                connection.uncork();
            }
        }
    }

    fn collect(&self, state: &mut State<V>) -> Vec<Arc<V>> {
        self.has_work.store(false, Ordering::Relaxed);
        std::mem::take(&mut state.holding)
    }

    /// A flush timer whose rounds never run.
    #[cfg(test)]
    pub(crate) fn idle() -> Arc<Self> {
        static RUNTIME: LazyLock<Runtime> =
            LazyLock::new(|| Builder::new_current_thread().build().unwrap());
        Self::new(RUNTIME.handle().clone())
    }

    async fn walk(self: Arc<Self>) {
        let mut idle = 0;
        while idle < IDLE_ROUNDS {
            sleep(ROUND).await;
            let mut state = self.state.lock();
            let holding = self.collect(&mut state);
            idle = if holding.is_empty() { idle + 1 } else { 0 };
            state.on_round = idle < IDLE_ROUNDS;
            drop(state);
            for connection in holding {
                connection.uncork();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Read, os::unix::net::UnixStream, sync::atomic::Ordering};

    use super::*;
    use crate::{
        engine::connection::{Connection, settings::Settings},
        protocol::{close, frame::Opcode},
    };

    fn connection(id: u64) -> (Arc<Connection>, UnixStream) {
        Connection::for_test(id, &Settings::FOR_TESTS, "")
    }

    #[test]
    fn a_panic_costs_one_connection_and_later_rounds_come_as_ever() {
        let runtime = Builder::new_current_thread().enable_time().build().unwrap();
        let flush_timer = FlushTimer::new(runtime.handle().clone());
        let (broken, mut its_peer) = connection(1);
        broken.outbox.is_broken.store(true, Ordering::SeqCst);
        for round in 0..3 {
            let (whole, mut peer) = connection(2);
            for held in [&broken, &whole] {
                held.outbox.hold(Opcode::Text, b"hi");
                flush_timer.expect(Arc::clone(held), true);
            }
            // Long enough for the rounds that find something, and for those that do not.
            while whole.is_holding() || flush_timer.state.lock().on_round {
                runtime.block_on(async { sleep(ROUND).await });
            }
            let mut came = [0; 4];
            peer.read_exact(&mut came).unwrap();
            assert_eq!(&came, b"\x81\x02hi", "{round}");
        }
        assert_eq!(broken.end().unwrap().code, close::INTERNAL_ERROR);
        drop(broken);
        assert_eq!(its_peer.read(&mut [0; 8]).unwrap(), 0);
    }
}

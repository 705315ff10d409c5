//! The connections with corked replies, and the timer that limits how long those wait.
//!
//! While more messages wait for a view, its small replies may wait for each other, so that a burst
//! is answered by one write ([`Connection::cork`](crate::engine::Connection::cork)). They leave
//! with the last reply, or as soon as the view asks for a message that is not there. A view may do
//! neither, because it goes on computing or waits for something else. So the flush timer sends what
//! is corked about every millisecond, for as long as there is anything. A view that sends to
//! others' clients, as a chat does, corks that likewise.
//!
//! When several views have a turn together, the engine sends what they cork as soon as it goes on
//! ([`Turns`](super::turns::Turns)); then no timer has to run.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{runtime::Handle, time::sleep};

use super::View;

/// How long a reply may be corked, within the precision of the timer.
const ROUND: Duration = Duration::from_millis(1);
/// Rounds with nothing to do before the flush timer's task ends: starting it costs a wake-up.
const IDLE_ROUNDS: u32 = 5;

/// The connections with corked replies on one thread of the engine. Any thread may add to it.
#[derive(Debug, Default)]
pub(crate) struct FlushTimer {
    /// Where its rounds run. Without it, as in some tests, there are none.
    runtime: OnceLock<Handle>,
    /// A view has corked messages for another view's client.
    has_work: AtomicBool,
    /// The engine sends what is corked when it goes on. Set and cleared by its thread alone;
    /// cleared with the lock of `state`.
    collects: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    corked: Vec<Arc<dyn View>>,
    on_round: bool,
}

impl FlushTimer {
    /// Lets its rounds run on `runtime`, from the next connection on.
    pub(crate) fn run_on(&self, runtime: Handle) {
        // A second one would change nothing.
        let _ = self.runtime.set(runtime);
    }

    /// Sees to it that what `connection` has corked goes out soon. `is_own` when its own view has
    /// corked it.
    pub(crate) fn expect(self: &Arc<Self>, connection: Arc<dyn View>, is_own: bool) {
        let mut state = self.state.lock();
        state.corked.push(connection);
        if self.collects() {
            return;
        }
        if !is_own {
            self.has_work.store(true, Ordering::Relaxed);
        }
        let starts = !std::mem::replace(&mut state.on_round, true);
        drop(state);
        if let Some(runtime) = self.runtime.get().filter(|_| starts) {
            runtime.spawn(Arc::clone(self).walk());
        }
    }

    /// Leaves it to the engine to send what `connection` has corked. False when the engine does not
    /// collect any more: then the caller has to send it.
    pub(crate) fn collect(&self, connection: Arc<dyn View>) -> bool {
        let mut state = self.state.lock();
        let collects = self.collects();
        if collects {
            state.corked.push(connection);
        }
        collects
    }

    /// Whether the engine sends soon what is corked now.
    pub(crate) fn collects(&self) -> bool {
        self.collects.load(Ordering::Relaxed)
    }

    /// Begins to collect; to be called by the engine before it lets views run.
    pub(crate) fn begin_collecting(&self) {
        self.collects.store(true, Ordering::Relaxed);
    }

    /// Ends collecting; to be called by the engine when it goes on. Returns all connections with
    /// corked replies, which it has to send.
    #[must_use]
    pub(crate) fn end_collecting(&self) -> Vec<Arc<dyn View>> {
        let mut state = self.state.lock();
        self.collects.store(false, Ordering::Relaxed);
        self.take(&mut state)
    }

    /// Whether [`FlushTimer::flush`] has something to do.
    pub(crate) fn has_work(&self) -> bool {
        self.has_work.load(Ordering::Relaxed)
    }

    /// Sends at once what views have corked for others' clients.
    pub(crate) fn flush(&self) {
        if self.has_work() {
            let corked = self.take(&mut self.state.lock());
            for connection in corked {
                connection.send_corked();
            }
        }
    }

    fn take(&self, state: &mut State) -> Vec<Arc<dyn View>> {
        self.has_work.store(false, Ordering::Relaxed);
        std::mem::take(&mut state.corked)
    }

    async fn walk(self: Arc<Self>) {
        let mut idle = 0;
        while idle < IDLE_ROUNDS {
            sleep(ROUND).await;
            let mut state = self.state.lock();
            let corked = self.take(&mut state);
            idle = if corked.is_empty() { idle + 1 } else { 0 };
            state.on_round = idle < IDLE_ROUNDS;
            drop(state);
            for connection in corked {
                connection.send_corked();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Read, os::unix::net::UnixStream, sync::atomic::Ordering};

    use tokio::runtime::Builder;

    use super::*;
    use crate::{
        engine::connection::{Connection, settings::Settings},
        protocol::{close, frame::Opcode},
    };

    fn connection(id: u64) -> (Arc<Connection>, UnixStream) {
        Connection::for_test(id, &Settings::SMALL, "")
    }

    #[test]
    fn a_panic_costs_one_connection_and_later_rounds_come_as_ever() {
        let runtime = Builder::new_current_thread().enable_time().build().unwrap();
        let flush_timer = Arc::<FlushTimer>::default();
        flush_timer.run_on(runtime.handle().clone());
        let (broken, mut its_peer) = connection(1);
        broken.outbox.is_broken.store(true, Ordering::SeqCst);
        for round in 0..3 {
            let (whole, mut peer) = connection(2);
            for corked in [&broken, &whole] {
                corked.outbox.cork(Opcode::Text, b"hi");
                flush_timer.expect(corked.clone(), true);
            }
            // Long enough for the rounds that find something, and for those that do not.
            while whole.is_corked() || flush_timer.state.lock().on_round {
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

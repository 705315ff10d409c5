//! `_core.Hub`: one descriptor that wakes an event loop for all its connections.

use std::{
    collections::HashMap,
    os::fd::RawFd,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use pyo3::{PyTraverseError, PyVisit, prelude::*};

use super::message_future::MessageFuture;
use crate::engine;

/// The tokens of [`MessageFuture`] begin here, those that Python chooses at 0.
const FIRST_TOKEN: u64 = 1 << 63;

/// A hub, and the futures that tasks of its loop await.
pub(crate) struct LoopHub {
    hub: Arc<engine::Hub>,
    expected: Mutex<HashMap<u64, Py<MessageFuture>>>,
    next_token: AtomicU64,
}

impl LoopHub {
    pub(super) fn hub(&self) -> &Arc<engine::Hub> {
        &self.hub
    }

    pub(super) fn new_token(&self) -> u64 {
        self.next_token.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn expect(&self, token: u64, future: Py<MessageFuture>) {
        let former = self.expected.lock().insert(token, future);
        // Without the lock: dropping the future may run any Python code.
        drop(former);
    }

    pub(super) fn forget(&self, token: u64) -> Option<Py<MessageFuture>> {
        self.expected.lock().remove(&token)
    }
}

/// One event loop's list of ready connections. See `_core.pyi`.
#[pyclass(frozen, module = "dwebsocket._core")]
pub(crate) struct Hub(pub(super) Arc<LoopHub>);

#[pymethods]
impl Hub {
    #[new]
    fn new() -> PyResult<Self> {
        Ok(Self(Arc::new(LoopHub {
            hub: engine::Hub::new()?,
            expected: Mutex::default(),
            next_token: AtomicU64::new(FIRST_TOKEN),
        })))
    }

    fn fileno(&self) -> RawFd {
        self.0.hub.descriptor()
    }

    fn drain(&self) -> Vec<u64> {
        self.0.hub.drain()
    }

    fn announce(&self, token: u64) {
        self.0.hub.announce(token);
    }

    fn served(&self) {
        self.0.hub.served();
    }

    fn wake(&self, py: Python<'_>) -> PyResult<Vec<u64>> {
        let mut others = Vec::new();
        let mut here = Vec::new();
        {
            let mut expected = self.0.expected.lock();
            for token in self.0.hub.drain() {
                match expected.remove(&token) {
                    Some(future) => here.push(future),
                    None if token < FIRST_TOKEN => others.push(token),
                    // The task has stopped waiting for it.
                    None => {}
                }
            }
        }
        let mut here = here.into_iter();
        let mut outcome = Ok(());
        for future in here.by_ref() {
            outcome = MessageFuture::arrive(future.bind(py));
            if outcome.is_err() {
                break;
            }
        }
        for future in here {
            MessageFuture::arrive_later(future.bind(py))?;
        }
        self.0.hub.served();
        outcome.map(|()| others)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if let Some(expected) = self.0.expected.try_lock() {
            for future in expected.values() {
                visit.call(future)?;
            }
        }
        Ok(())
    }

    fn __clear__(&self) {
        let expected = std::mem::take(&mut *self.0.expected.lock());
        drop(expected);
    }
}

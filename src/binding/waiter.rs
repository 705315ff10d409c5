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

use super::news::News;
use crate::engine::waiter;

/// The tokens of [`News`] begin here, those that Python chooses at 0.
const FIRST_TOKEN: u64 = 1 << 63;

/// A hub, and the news that tasks of its loop await.
pub(crate) struct Ear {
    hub: Arc<waiter::Hub>,
    expected: Mutex<HashMap<u64, Py<News>>>,
    next_token: AtomicU64,
}

impl Ear {
    pub(super) fn hub(&self) -> &Arc<waiter::Hub> {
        &self.hub
    }

    pub(super) fn new_token(&self) -> u64 {
        self.next_token.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn expect(&self, token: u64, news: Py<News>) {
        let former = self.expected.lock().insert(token, news);
        // Without the lock: what is dropped may run any Python.
        drop(former);
    }

    pub(super) fn forget(&self, token: u64) -> Option<Py<News>> {
        self.expected.lock().remove(&token)
    }
}

/// One event loop's list of ready connections. See `_core.pyi`.
#[pyclass(frozen, module = "dwebsocket._core")]
pub(crate) struct Hub(pub(super) Arc<Ear>);

#[pymethods]
impl Hub {
    #[new]
    fn new() -> PyResult<Self> {
        Ok(Self(Arc::new(Ear {
            hub: waiter::Hub::new()?,
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
                    Some(news) => here.push(news),
                    None if token < FIRST_TOKEN => others.push(token),
                    // The task has stopped waiting for it.
                    None => {}
                }
            }
        }
        let mut here = here.into_iter();
        let mut outcome = Ok(());
        for news in here.by_ref() {
            outcome = News::arrive(news.bind(py));
            if outcome.is_err() {
                break;
            }
        }
        for news in here {
            News::arrive_later(news.bind(py))?;
        }
        self.0.hub.served();
        outcome.map(|()| others)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if let Some(expected) = self.0.expected.try_lock() {
            for news in expected.values() {
                visit.call(news)?;
            }
        }
        Ok(())
    }

    fn __clear__(&self) {
        let expected = std::mem::take(&mut *self.0.expected.lock());
        drop(expected);
    }
}

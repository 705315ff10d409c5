//! A hub, and the futures by which it resumes tasks.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use pyo3::{PyTraverseError, PyVisit, prelude::*};

use crate::engine;

/// The tokens of futures begin here, those that Python chooses at 0.
const FIRST_TOKEN: u64 = 1 << 63;

/// A hub, and the futures of type `F` that tasks of its loop await.
pub(super) struct LoopHub<F> {
    pub(super) hub: Arc<engine::Hub>,
    expected: Mutex<HashMap<u64, Py<F>>>,
    next_token: AtomicU64,
}

impl<F> LoopHub<F> {
    pub(super) fn new(hub: Arc<engine::Hub>) -> Self {
        Self {
            hub,
            expected: Mutex::default(),
            next_token: AtomicU64::new(FIRST_TOKEN),
        }
    }

    pub(super) fn new_token(&self) -> u64 {
        self.next_token.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn expect(&self, token: u64, future: Py<F>) {
        let former = self.expected.lock().insert(token, future);
        // Without the lock: what is dropped may run any Python.
        drop(former);
    }

    pub(super) fn forget(&self, token: u64) -> Option<Py<F>> {
        self.expected.lock().remove(&token)
    }

    /// The futures whose connections are ready, and the tokens of Python that are.
    pub(super) fn drain(&self) -> (Vec<Py<F>>, Vec<u64>) {
        let mut futures = Vec::new();
        let mut others = Vec::new();
        let mut expected = self.expected.lock();
        for token in self.hub.drain() {
            match expected.remove(&token) {
                Some(future) => futures.push(future),
                None if token < FIRST_TOKEN => others.push(token),
                // The task has stopped waiting for it.
                None => {}
            }
        }
        (futures, others)
    }

    pub(super) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        if let Some(expected) = self.expected.try_lock() {
            for future in expected.values() {
                visit.call(future)?;
            }
        }
        Ok(())
    }

    pub(super) fn clear(&self) {
        let expected = std::mem::take(&mut *self.expected.lock());
        drop(expected);
    }
}

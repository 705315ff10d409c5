//! `_core.Hub`: one descriptor that wakes an event loop for all its connections.

use std::sync::Arc;

use pyo3::{PyTraverseError, PyVisit, exceptions::PyTimeoutError, prelude::*};

use super::{convert::duration, loop_hub::LoopHub, message_future::MessageFuture};
use crate::engine::{self, Next, descriptor::Raw};

/// One event loop's list of ready connections. See `_core.pyi`.
#[pyclass(frozen, module = "dwebsocket._core")]
pub(crate) struct Hub(pub(super) Arc<LoopHub<MessageFuture>>);

#[pymethods]
impl Hub {
    #[new]
    #[pyo3(signature = (*, for_threads=false))]
    fn new(for_threads: bool) -> PyResult<Self> {
        let hub = if for_threads {
            engine::Hub::for_threads()?
        } else {
            engine::Hub::new()?
        };
        Ok(Self(Arc::new(LoopHub::new(hub))))
    }

    #[pyo3(signature = (round, timeout=None, /))]
    fn next(
        &self,
        py: Python<'_>,
        round: Option<u64>,
        timeout: Option<f64>,
    ) -> PyResult<Option<(u64, u64, bool)>> {
        let hub = &self.0.hub;
        let timeout = duration(timeout)?;
        let next = match hub.take(round) {
            Some(work) => Next::Work(work),
            None => py.detach(|| hub.next(timeout)),
        };
        match next {
            Next::Work(work) => Ok(Some((work.token, work.round, work.lacks_helper))),
            Next::TimeIsUp => Err(PyTimeoutError::new_err(())),
            Next::Closed => Ok(None),
        }
    }

    fn close(&self) {
        self.0.hub.close();
    }

    fn fileno(&self) -> Raw {
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
        let (futures, python_tokens) = self.0.drain();
        let mut futures = futures.into_iter();
        let mut outcome = Ok(());
        for future in futures.by_ref() {
            outcome = MessageFuture::arrive(future.bind(py));
            if outcome.is_err() {
                break;
            }
        }
        // An exception of a task ends the loop (KeyboardInterrupt, SystemExit). Tasks that have not
        // been resumed yet are left to the loop's queue, in case it runs again.
        for future in futures {
            MessageFuture::arrive_later(future.bind(py))?;
        }
        self.0.hub.served();
        outcome.map(|()| python_tokens)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.0.traverse(&visit)
    }

    fn __clear__(&self) {
        self.0.clear();
    }
}

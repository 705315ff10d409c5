//! `_core.Hub`: how an event loop hears of all its connections through one descriptor.

use std::{os::fd::RawFd, sync::Arc};

use pyo3::prelude::*;

use crate::engine::waiter;

/// One event loop's list of ready connections. See `_core.pyi`.
#[pyclass(frozen, module = "dwebsocket._core")]
pub(crate) struct Hub(pub(super) Arc<waiter::Hub>);

#[pymethods]
impl Hub {
    #[new]
    fn new() -> PyResult<Self> {
        Ok(Self(waiter::Hub::new()?))
    }

    fn fileno(&self) -> RawFd {
        self.0.descriptor()
    }

    fn drain(&self) -> Vec<u64> {
        self.0.drain()
    }
}

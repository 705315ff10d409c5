//! Exchanging a client's connection for a placeholder, for Python.

use parking_lot::Mutex;
use pyo3::prelude::*;

use crate::engine::{
    descriptor::{Raw, into_raw},
    runtime::takeover,
};

/// A client's connection on its way from its server to us. See `_core.pyi`.
///
/// Calls that cannot block keep the GIL: a handshake that released it would wait for other threads
/// at each of them.
#[pyclass(frozen, module = "dwebsocket._core")]
pub(crate) struct Takeover(Mutex<takeover::Takeover>);

#[pymethods]
impl Takeover {
    /// Allocates what it takes. `OSError` when there is nothing left, or the descriptor is closed.
    #[new]
    fn prepare(server_side: Raw) -> PyResult<Self> {
        Ok(Self(Mutex::new(takeover::Takeover::prepare(server_side)?)))
    }

    /// Makes the server's descriptor refer to the placeholder. Windows has none.
    fn put_placeholder(&self, server_side: Raw) -> PyResult<()> {
        Ok(self.0.lock().put_placeholder(server_side)?)
    }

    /// Returns the client's descriptor away; None when that was done before.
    fn take_client(&self) -> Option<Raw> {
        self.0.lock().take_client().map(into_raw)
    }

    /// Drops what the server writes from now on.
    fn discard(&self, py: Python<'_>) -> PyResult<()> {
        Ok(py.detach(|| self.0.lock().discard())?)
    }

    /// Closes what is left. May be repeated.
    fn finish(&self) {
        self.0.lock().finish();
    }
}

/// Takes a descriptor out of the epoll set of another library. See `_core.pyi`.
#[cfg(target_os = "linux")]
#[pyfunction]
#[pyo3(signature = (epoll, descriptor, /))]
pub(crate) fn unwatch_descriptor(epoll: Raw, descriptor: Raw) -> PyResult<()> {
    Ok(takeover::unwatch(epoll, descriptor)?)
}

/// Reads a socket up to its end, and drops the bytes.
#[cfg(unix)]
#[pyfunction]
#[pyo3(signature = (descriptor, /))]
pub(crate) fn discard(py: Python<'_>, descriptor: Raw) -> PyResult<()> {
    Ok(py.detach(|| takeover::discard(descriptor))?)
}

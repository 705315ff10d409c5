//! Connections whose clients poll, for Python.

use std::sync::Arc;

use pyo3::{prelude::*, pybacked::PyBackedStr, types::PyBytes};

use super::{
    connection::PyConnection,
    copy,
    groups::{Memberships, joining},
    handshake::as_pairs,
    hub::Hub,
    process::{Permit, PySettings},
};
use crate::{
    engine::{
        Key, Watch, descriptor,
        polling::{self, Polled},
        runtime, socket,
    },
    protocol,
};

/// A poll that waits for its answer. See `_core.pyi`.
#[pyclass(frozen, module = "dwebsocket._core")]
pub(crate) struct PendingPoll(Arc<polling::PendingPoll>);

#[pymethods]
impl PendingPoll {
    #[new]
    fn new() -> Self {
        Self(Arc::default())
    }

    #[pyo3(signature = (body, /))]
    fn answer(&self, py: Python<'_>, body: &[u8]) -> bool {
        let body = body.to_vec();
        py.detach(|| self.0.answer(body))
    }

    #[pyo3(signature = (nothing, /))]
    fn give_way(&self, py: Python<'_>, nothing: &[u8]) {
        let nothing = nothing.to_vec();
        py.detach(|| self.0.give_way(nothing));
    }

    #[pyo3(signature = (hub, token, /))]
    fn watch(&self, hub: &Hub, token: u64) {
        self.0.watch(Watch::new(Arc::clone(&hub.0.hub), token));
    }

    fn take<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let body = self.0.take();
        body.map(|body| copy::bytes(py, &body)).transpose()
    }

    #[pyo3(signature = (descriptor, head, *, timeout, otherwise))]
    fn attach(
        &self,
        py: Python<'_>,
        descriptor: descriptor::Raw,
        head: &[u8],
        timeout: f64,
        otherwise: &[u8],
    ) -> PyResult<()> {
        // First own the descriptor: any error from here on closes it.
        let client = socket::own(descriptor)?;
        let (head, otherwise) = (head.to_vec(), otherwise.to_vec());
        let timeout = super::process::bounded(timeout)?;
        py.detach(|| runtime::attach(&self.0, client, head, timeout, otherwise))?;
        Ok(())
    }
}

/// Opens a connection whose client polls. See `_core.pyi`.
#[pyfunction]
#[pyo3(signature = (key, permit, settings, memberships=Vec::new(), /))]
pub(crate) fn open_polled(
    py: Python<'_>,
    key: Key,
    permit: &Permit,
    settings: &PySettings,
    memberships: Memberships<'_>,
) -> PyResult<PyConnection> {
    let permit = permit.held()?;
    let join = joining(memberships);
    let opened = py.detach(|| runtime::open_polled(key, &settings.0, permit, join));
    Ok(PyConnection(opened?))
}

/// Answers a poll now or later. See `_core.pyi`.
#[pyfunction]
#[pyo3(signature = (key, ack, pending, /))]
pub(crate) fn poll(py: Python<'_>, key: Key, ack: u64, pending: &PendingPoll) -> &'static str {
    match py.detach(|| runtime::poll(&key, ack, &pending.0)) {
        Polled::Held => "held",
        Polled::NoRoom => "no room",
        Polled::OutOfTurn => "out of turn",
        Polled::Over => "over",
    }
}

/// Writes the head of a response to a poll, up to its length. See `_core.pyi`.
#[pyfunction]
#[pyo3(signature = (headers, /))]
pub(crate) fn polling_head(
    py: Python<'_>,
    headers: Vec<(PyBackedStr, PyBackedStr)>,
) -> PyResult<Bound<'_, PyBytes>> {
    let head = protocol::polling::head(&as_pairs(&headers))?;
    Ok(PyBytes::new(py, &head))
}

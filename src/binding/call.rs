//! `_core.Call` and `_core.Wait`: what a backend waits for.

use std::sync::Arc;

use pyo3::prelude::*;

use super::{
    convert::{Log, deadline, log},
    hub::Hub,
    sleep,
};
use crate::engine::{
    self,
    backends::call::{self, Reply},
};

/// A call to other processes or their server that is under way. See `_core.pyi`.
#[pyclass(frozen, module = "dwebsocket._core")]
pub(crate) struct Call(pub(super) Arc<call::Call>);

/// An outcome for Python: a number, messages, or the reason for a failure.
#[derive(IntoPyObject)]
pub(crate) enum Outcome<'py> {
    Number(u64),
    Page(Log<'py>),
    Reason(String),
}

#[pymethods]
impl Call {
    fn wait(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<bool> {
        wait_for(&self.0, py, timeout)
    }

    fn watch(&self, hub: &Hub, token: u64) {
        self.0.watch(Arc::clone(&hub.0.hub), token);
    }

    fn unwatch(&self, hub: &Hub, token: u64) {
        self.0.unwatch(&hub.0.hub, token);
    }

    fn outcome<'py>(&self, py: Python<'py>) -> PyResult<Option<Outcome<'py>>> {
        Ok(match self.0.outcome() {
            None => None,
            Some(Ok(Reply::Number(number))) => Some(Outcome::Number(number)),
            Some(Ok(Reply::Page(page))) => Some(Outcome::Page(log(py, &page)?)),
            Some(Err(reason)) => Some(Outcome::Reason(reason.to_string())),
        })
    }
}

/// A wait for the engine. See `_core.pyi`.
#[pyclass(frozen, module = "dwebsocket._core")]
pub(crate) struct Wait(pub(super) Arc<engine::Wait>);

#[pymethods]
impl Wait {
    fn wait(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<bool> {
        wait_for(&self.0, py, timeout)
    }

    fn watch(&self, hub: &Hub, token: u64) {
        self.0.watch(Arc::clone(&hub.0.hub), token);
    }

    fn unwatch(&self, hub: &Hub, token: u64) {
        self.0.unwatch(&hub.0.hub, token);
    }

    fn outcome(&self) -> Option<bool> {
        self.0.outcome().map(|()| true)
    }
}

/// Sleeps until a call has an outcome, for `timeout` seconds at most. Whether there is one.
pub(super) fn wait_for<T: Clone + Send>(
    call: &engine::Call<T>,
    py: Python<'_>,
    timeout: Option<f64>,
) -> PyResult<bool> {
    let deadline = deadline(timeout)?;
    let outcome = sleep::until(
        py,
        deadline,
        |deadline| {
            py.detach(|| call.wait(deadline));
        },
        || call.outcome(),
    )?;
    Ok(outcome.is_some())
}

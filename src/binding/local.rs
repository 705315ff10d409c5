//! `_core.LocalNode`: groups of all processes of this machine.

use std::{path::PathBuf, sync::Arc, time::Instant};

use pyo3::{
    exceptions::{PyOSError, PyTimeoutError, PyValueError},
    prelude::*,
};

use super::{
    call::Wait,
    convert::{duration, to_message},
    groups::Groups,
    history::{History, limits_of},
    presence::Presence,
};
use crate::{
    engine::backends::local::{self, Refused},
    protocol::close::CloseFrame,
};

/// This process as a node. See `_core.pyi`.
#[pyclass(frozen, module = "dwebsocket._core")]
pub(crate) struct LocalNode(pub(super) Arc<local::Node>);

fn answered<T>(published: Result<T, Refused>) -> PyResult<Option<Wait>> {
    match published {
        Ok(_) => Ok(None),
        Err(Refused::Full(wait)) => Ok(Some(Wait(wait))),
        Err(Refused::Foreign) => Err(PyOSError::new_err("it is that of a parent process")),
        Err(Refused::NotKept(reason)) => Err(PyOSError::new_err(reason)),
        Err(Refused::Held(reason)) => Err(PyTimeoutError::new_err(reason)),
        Err(Refused::TooLarge) => Err(PyValueError::new_err(
            "the message is too large: a group takes at most 512 MiB",
        )),
    }
}

#[pymethods]
impl LocalNode {
    #[new]
    fn new(
        py: Python<'_>,
        path: PathBuf,
        user: u32,
        groups: &Groups,
        presence: &Presence,
    ) -> PyResult<Self> {
        let (groups, presence) = (Arc::clone(&groups.0), Arc::clone(&presence.0));
        Ok(Self(py.detach(|| {
            local::Node::start(&path, user, groups, presence)
        })?))
    }

    #[pyo3(signature = (name, message, exclude, /))]
    fn publish(
        &self,
        py: Python<'_>,
        name: &str,
        message: &Bound<'_, PyAny>,
        exclude: Vec<[u8; 16]>,
    ) -> PyResult<Option<Wait>> {
        let message = to_message(message, &exclude)?;
        answered(py.detach(|| self.0.publish(name, message)))
    }

    fn history(&self, py: Python<'_>, most: u64, timeout: f64) -> PyResult<History> {
        let timeout = duration(Some(timeout))?.unwrap_or_default();
        Ok(History(py.detach(|| self.0.history(most, timeout))?))
    }

    #[pyo3(signature = (history, name, message, exclude, limits, patience, /))]
    #[expect(clippy::too_many_arguments, reason = "a call from Python")]
    fn record(
        &self,
        py: Python<'_>,
        history: &History,
        name: &str,
        message: &Bound<'_, PyAny>,
        exclude: Vec<[u8; 16]>,
        limits: (usize, f64),
        patience: Option<f64>,
    ) -> PyResult<Option<Wait>> {
        let message = to_message(message, &exclude)?;
        let (limits, patience) = (limits_of(limits)?, duration(patience)?);
        answered(py.detach(|| self.0.record(&*history.0, name, message, limits, patience)))
    }

    fn close(&self, py: Python<'_>, name: &str, code: u16, reason: &str) -> PyResult<Option<Wait>> {
        let frame = CloseFrame::new(Some(code), reason)?;
        answered(py.detach(|| self.0.close(name, frame)))
    }

    #[pyo3(signature = (name, envelope, /))]
    fn pass_on(&self, py: Python<'_>, name: &str, envelope: &[u8]) -> PyResult<Option<Wait>> {
        answered(py.detach(|| self.0.pass_on(name, envelope)))
    }

    fn begun(&self, py: Python<'_>) -> Vec<(u64, u64)> {
        py.detach(|| self.0.begun())
    }

    #[pyo3(signature = (begun, /))]
    fn has_taken(&self, py: Python<'_>, begun: Vec<(u64, u64)>) -> bool {
        py.detach(|| self.0.has_taken(&begun))
    }

    fn count(&self, py: Python<'_>, name: &str) -> usize {
        py.detach(|| self.0.count(name))
    }

    fn peers(&self, py: Python<'_>) -> usize {
        py.detach(|| self.0.peers())
    }

    fn processes(&self, py: Python<'_>) -> Vec<i32> {
        py.detach(|| self.0.processes())
    }

    fn stop(&self, py: Python<'_>, timeout: f64) -> PyResult<()> {
        let time = duration(Some(timeout))?.unwrap_or_default();
        py.detach(|| {
            let now = Instant::now();
            self.0.stop(now.checked_add(time).unwrap_or(now));
        });
        Ok(())
    }
}

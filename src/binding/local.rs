//! `_core.LocalNode`: groups of all processes of this machine.

use std::{path::PathBuf, sync::Arc, time::Instant};

use pyo3::{exceptions::PyValueError, prelude::*};

use super::{
    convert::duration,
    groups::{Groups, to_message},
};
use crate::{
    engine::backends::local::{self, Refused},
    protocol::close::CloseFrame,
};

/// This process as a node. See `_core.pyi`.
#[pyclass(frozen, module = "dwebsocket._core")]
pub(crate) struct LocalNode(Arc<local::Node>);

fn answered(published: Result<(), Refused>) -> PyResult<bool> {
    match published {
        Ok(()) => Ok(true),
        Err(Refused::Full | Refused::Foreign) => Ok(false),
        Err(Refused::TooLarge) => Err(PyValueError::new_err(
            "the message is too large: a group takes at most 512 MiB",
        )),
    }
}

#[pymethods]
impl LocalNode {
    #[new]
    fn new(py: Python<'_>, path: PathBuf, user: u32, groups: &Groups) -> PyResult<Self> {
        let groups = Arc::clone(&groups.0);
        Ok(Self(py.detach(|| local::Node::start(&path, user, groups))?))
    }

    #[pyo3(signature = (name, message, exclude, /))]
    fn publish(
        &self,
        py: Python<'_>,
        name: &str,
        message: &Bound<'_, PyAny>,
        exclude: Vec<[u8; 16]>,
    ) -> PyResult<bool> {
        let message = to_message(message, &exclude)?;
        answered(py.detach(|| self.0.publish(name, message)))
    }

    fn close(&self, py: Python<'_>, name: &str, code: u16, reason: &str) -> PyResult<bool> {
        let frame = CloseFrame::new(Some(code), reason)?;
        answered(py.detach(|| self.0.close(name, frame)))
    }

    fn count(&self, py: Python<'_>, name: &str) -> usize {
        py.detach(|| self.0.count(name))
    }

    fn peers(&self, py: Python<'_>) -> usize {
        py.detach(|| self.0.peers())
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

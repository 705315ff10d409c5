//! The ends of memberships of members that move between processes, for Python.

use std::sync::Arc;

use pyo3::prelude::*;

use super::{
    deputy::{Departed, departed},
    groups::{Groups, anyone},
};
use crate::engine::groups::{self, Token};

/// The end of a membership at a marker. See `_core.pyi`.
#[pyclass(frozen, module = "dwebsocket._core")]
pub(crate) struct MarkedCut {
    groups: Arc<groups::Groups>,
    token: Token,
    cut: Arc<groups::MarkedCut>,
}

#[pymethods]
impl MarkedCut {
    #[new]
    #[pyo3(signature = (groups, name, object, marker, /))]
    fn new(
        groups: &Groups,
        name: &str,
        object: &Bound<'_, PyAny>,
        marker: Token,
    ) -> PyResult<Self> {
        let member = anyone(object)?;
        Ok(Self {
            groups: Arc::clone(&groups.0),
            token: marker,
            cut: groups.0.cut_at_marker(name, marker, member),
        })
    }

    #[getter]
    fn is_done(&self) -> bool {
        self.cut.is_done()
    }

    #[getter]
    fn departed(&self) -> Option<Departed> {
        self.cut.departed().map(departed)
    }
}

impl Drop for MarkedCut {
    fn drop(&mut self) {
        self.groups.forget_marker(self.token);
    }
}

/// Ends a membership, and tells at which message. See `_core.pyi`.
#[pyfunction]
#[pyo3(signature = (groups, name, object, /))]
pub(crate) fn depart(
    py: Python<'_>,
    groups: &Groups,
    name: &str,
    object: &Bound<'_, PyAny>,
) -> PyResult<Option<Departed>> {
    let (groups, member) = (&groups.0, anyone(object)?);
    let gone = py.detach(|| groups.depart(name, member.as_ref()));
    Ok(gone.as_ref().map(departed))
}

/// Whether the entries of a group before number `until` have reached their members.
#[pyfunction]
#[pyo3(signature = (groups, name, until, /))]
pub(crate) fn has_handed_out(groups: &Groups, name: &str, until: u64) -> bool {
    groups.0.has_handed_out(name, until)
}

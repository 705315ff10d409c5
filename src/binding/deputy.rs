//! Deputies of members that come from other processes, for Python.

use std::sync::{Arc, OnceLock};

use pyo3::{
    exceptions::PyTypeError,
    prelude::*,
    types::{PyBytes, PyString},
};

use super::{
    connection::PyConnection,
    convert::to_message,
    groups::{Deputy, Groups, Member, anyone, member},
    log::position,
};
use crate::engine::groups::{self, MemberId, Stamps, Succeeded, Token, frames_of};

/// The point at which a member has left, for Python.
pub(super) type Departed = (Vec<(u64, u64)>, u64, Option<(u64, u64, bool)>);

/// The same, from the engine's.
pub(super) fn departed((cut, standing): &groups::Departed) -> Departed {
    let at = standing.map(|(at, is_numbered)| (at.epoch, at.offset, is_numbered));
    (cut.got.each().collect(), cut.until, at)
}

#[pymethods]
impl Deputy {
    #[new]
    #[pyo3(signature = (seat=None, /))]
    fn new(seat: Option<(MemberId, Option<String>)>) -> Self {
        Self {
            member: groups::Deputy::new(seat),
            marker: OnceLock::new(),
        }
    }

    /// Once.
    #[pyo3(signature = (groups, name, before, id, marker, /))]
    fn begin_at_marker(
        &self,
        groups: &Groups,
        name: &str,
        before: &Self,
        id: MemberId,
        marker: Token,
    ) {
        let is_first = self.marker.set((Arc::clone(&groups.0), marker)).is_ok();
        if is_first {
            (groups.0).begin_at_marker(name, marker, &before.member, &self.member, id);
        }
    }

    #[getter]
    fn has_begun(&self) -> bool {
        self.member.has_begun()
    }

    #[pyo3(signature = (groups, name, object, id, got, at, /))]
    #[expect(clippy::too_many_arguments, reason = "Python's arguments")]
    fn succeed<'py>(
        &self,
        py: Python<'py>,
        groups: &Groups,
        name: &str,
        object: &Bound<'py, PyAny>,
        id: MemberId,
        got: Vec<(u64, u64)>,
        at: Option<(u64, u64, bool)>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let (got, groups, deputy) = (Stamps::of(got), &groups.0, self.member.as_ref());
        let at = at.map(|(epoch, offset, is_numbered)| (position((epoch, offset)), is_numbered));
        let succeeded = match member(object)? {
            Member::Connection(it) => py.detach(|| groups.succeed(name, deputy, it, id, &got, at)),
            Member::Seat(it) => py.detach(|| groups.succeed(name, deputy, it, id, &got, at)),
            Member::Mailbox(_) | Member::Deputy(_) => {
                let text = "only a Connection or a Seat comes from another process";
                return Err(PyTypeError::new_err(text));
            }
        };
        Ok(match succeeded {
            Succeeded::Gone => None,
            Succeeded::Behind => Some(PyString::new(py, "behind").into_any()),
            Succeeded::Early => Some(PyString::new(py, "early").into_any()),
            Succeeded::Done(until) => Some(until.into_pyobject(py)?.into_any()),
        })
    }

    #[pyo3(signature = (object, got, /))]
    fn take_kept<'py>(
        &self,
        py: Python<'py>,
        object: &Bound<'_, PyAny>,
        got: Vec<(u64, u64)>,
    ) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let (got, member) = (Stamps::of(got), anyone(object)?);
        let kept = py.detach(|| self.member.frames_for(member.as_ref(), &got));
        Ok(kept.map(|frames| PyBytes::new(py, &frames)))
    }

    #[getter]
    fn evicted(&self) -> Option<String> {
        self.member.evicted()
    }

    #[getter]
    fn is_closed(&self) -> bool {
        self.member.is_closed()
    }

    fn leave(&self, py: Python<'_>) {
        py.detach(|| self.end());
    }
}

impl Deputy {
    fn end(&self) {
        if let Some((groups, token)) = self.marker.get() {
            groups.forget_marker(*token);
        }
        self.member.leave();
    }
}

impl Drop for Deputy {
    fn drop(&mut self) {
        self.end();
    }
}

/// Messages as frames of a connection. See `_core.pyi`.
#[pyfunction]
#[pyo3(signature = (connection, messages, /))]
pub(crate) fn frames_for<'py>(
    py: Python<'py>,
    connection: &Bound<'py, PyConnection>,
    messages: Vec<Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyBytes>> {
    let messages: PyResult<Vec<_>> = messages.iter().map(|one| to_message(one, &[])).collect();
    let (messages, connection) = (messages?, connection.get().0.as_ref());
    Ok(PyBytes::new(
        py,
        &py.detach(|| frames_of(messages, connection)),
    ))
}
